//! The simulated shop: visits, response times and errors as functions of time.
//!
//! Visits follow the hours of the day and the days of the week. A harmful deploy makes answers
//! slower, errors frequent and checkouts rare until it is rolled back. A harmless deploy changes
//! nothing, as most deploys do; a graph should show that too.

use std::f64::consts::TAU;

use super::noise::Noise;

/// The shop, identified by the timestamp of its first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shop {
    /// The first start, in Unix seconds: earlier history is generated, later traffic is sent.
    pub opened: i64,
    /// Somebody broke it by a deploy with the tag `demo:broken`.
    pub broken: bool,
}

/// The effect of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A deploy without effect.
    Harmless,
    /// A deploy that breaks a part of the shop until it is rolled back.
    Harmful,
    /// The rollback of a harmful deploy.
    Rollback,
    /// A change of configuration, harmless.
    Setting,
}

/// A change in the shop.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Unix seconds.
    pub at: i64,
    /// Its effect.
    pub kind: Kind,
    /// The part of the shop.
    pub service: &'static str,
    /// The name of its event.
    pub what: String,
    /// The author and the reason.
    pub data: &'static str,
    /// The timestamp of the change that this one rolls back.
    pub undoes: Option<i64>,
}

/// An entry of the tables below: minutes, effect, part of the shop, name, author and reason.
type Planned = (i64, Kind, &'static str, &'static str, &'static str);

/// The changes before the start, in minutes relative to it.
const HISTORY: &[Planned] = &[
    (
        -9_300,
        Kind::Harmless,
        "web",
        "web 2.0",
        "ann: new front page",
    ),
    (
        -7_900,
        Kind::Harmless,
        "search",
        "search 1.4",
        "bob: index rebuilt",
    ),
    (
        -6_500,
        Kind::Setting,
        "web",
        "cache 5 min",
        "ann: cache lifetime from 1 to 5 minutes",
    ),
    (
        -5_040,
        Kind::Harmful,
        "web",
        "web 2.1",
        "bob: new session store",
    ),
    (
        -4_860,
        Kind::Rollback,
        "web",
        "web back to 2.0",
        "ann: logins slow since web 2.1",
    ),
    (
        -3_500,
        Kind::Harmless,
        "web",
        "web 2.2",
        "bob: session store, with the index this time",
    ),
    (
        -1_700,
        Kind::Harmless,
        "search",
        "search 1.5",
        "bob: synonyms",
    ),
    (-112, Kind::Harmless, "web", "web 2.3", "ann: footer"),
    (
        -42,
        Kind::Harmful,
        "checkout",
        "checkout 3.0",
        "bob: new payment provider",
    ),
    (
        -22,
        Kind::Rollback,
        "checkout",
        "checkout back to 2.9",
        "ann: payments time out since 3.0",
    ),
];

/// The changes after the start, in minutes from the beginning of each round. The harmful one is more than an hour
/// after the harmless one: else its effect would be seen as that one's, too.
const ROUND: i64 = 120;
/// Seconds from the start to the first round: the first deploy comes at once, but to be seen.
const FIRST: i64 = 20;
const ROUNDS: &[Planned] = &[
    (0, Kind::Harmless, "web", "web 2.", "ann: small things"),
    (
        64,
        Kind::Harmful,
        "checkout",
        "checkout 3.",
        "bob: another try",
    ),
    (
        88,
        Kind::Rollback,
        "checkout",
        "checkout back from 3.",
        "ann: payments time out again",
    ),
];

const MINUTE: i64 = 60;

/// The entry `index` of `table` as a change at `at`; `version` is appended to its name.
fn change(table: &[Planned], index: usize, at: i64, version: &str) -> Change {
    let (minutes, kind, service, what, data) = table[index];
    let before = index.checked_sub(1).and_then(|before| table.get(before));
    let undoes = before
        .filter(|_| kind == Kind::Rollback)
        .map(|(earlier, ..)| at - (minutes - earlier) * MINUTE);
    Change {
        at,
        kind,
        service,
        what: what.to_owned() + version,
        data,
        undoes,
    }
}

/// The factors by which latency, errors and checkouts differ from normal.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Weather {
    latency: f64,
    errors: f64,
    checkouts: f64,
}

impl Shop {
    /// The changes in `after < at <= until`, in order.
    pub fn changes(self, after: i64, until: i64) -> Vec<Change> {
        let at = move |minutes: i64| self.opened + minutes * MINUTE;
        let history = HISTORY
            .iter()
            .enumerate()
            .map(|(index, planned)| change(HISTORY, index, at(planned.0), ""));
        let round_of = |at: i64| (at - self.opened - FIRST).max(0) / (ROUND * MINUTE);
        let rounds = (round_of(after)..=round_of(until)).flat_map(|round| {
            ROUNDS.iter().enumerate().map(move |(index, planned)| {
                let version = (round + 4).to_string();
                let at = at(round * ROUND + planned.0) + FIRST;
                change(ROUNDS, index, at, &version)
            })
        });
        history
            .chain(rounds)
            .filter(|change| after < change.at && change.at <= until)
            .collect()
    }

    /// The part of the shop that a harmful deploy affects at `at`.
    fn harmed(self, at: i64) -> Option<&'static str> {
        if self.broken {
            return Some("checkout");
        }
        let since = at - self.opened;
        let (minutes, table) = if since < FIRST {
            (since.div_euclid(MINUTE), HISTORY)
        } else {
            ((since - FIRST) / MINUTE % ROUND, ROUNDS)
        };
        let last = table.iter().rfind(|(from, ..)| *from <= minutes)?;
        (last.1 == Kind::Harmful).then_some(last.2)
    }

    fn weather(self, at: i64) -> Weather {
        match self.harmed(at) {
            Some("checkout") => Weather {
                latency: 1.7,
                errors: 9.0,
                checkouts: 0.45,
            },
            Some(_) => Weather {
                latency: 2.2,
                errors: 6.0,
                checkouts: 0.7,
            },
            None => Weather {
                latency: 1.0,
                errors: 1.0,
                checkouts: 1.0,
            },
        }
    }

    /// Page views per second.
    pub(super) fn load(self, at: i64) -> f64 {
        let day = (at % 86_400) as f64 / 86_400.0;
        let hours = 1.0 - 0.55 * (TAU * (day - 0.08)).cos();
        30.0 * hours * (1.0 - 0.25 * weekend(at))
    }

    /// The rate of each counter, per second.
    pub(super) fn rate(self, counter: &str, at: i64) -> f64 {
        let Weather {
            errors, checkouts, ..
        } = self.weather(at);
        let load = self.load(at);
        match counter {
            "shop.pages" => load,
            "shop.logins" => load * 0.15,
            "shop.checkouts" => load * 0.12 * checkouts,
            "shop.app.errors" => load * 0.003 * errors,
            "shop.errors.404" => load * 0.012,
            "shop.errors.500" => load * 0.004 * errors,
            "shop.errors.503" => load * 0.002 * errors * errors.sqrt(),
            _ => 0.0,
        }
    }

    /// The mean answer time in milliseconds.
    pub(super) fn wait(self, timer: &str, at: i64) -> f64 {
        let busy = 0.8 + self.load(at) / 150.0;
        let slow = self.weather(at).latency;
        match timer {
            "shop.response.home" => 45.0 * busy * (1.0 + (slow - 1.0) * 0.4),
            "shop.response.search" => 80.0 * busy * (1.0 + (slow - 1.0) * 0.2),
            _ => 120.0 * busy * slow,
        }
    }

    /// The number of carts in use.
    pub(super) fn carts(self, at: i64) -> f64 {
        self.load(at) * 4.0 * (2.0 - self.weather(at).checkouts)
    }

    /// The StatsD lines that the shop sends for the visitors of `seconds` around `at`.
    pub fn visit(self, at: i64, seconds: f64, noise: &mut Noise) -> Vec<String> {
        let mut lines = Vec::new();
        for counter in COUNTERS {
            let count = noise.count(self.rate(counter, at) * seconds);
            if count > 0 {
                lines.push(format!("{counter}:{count}|c"));
            }
        }
        for (timer, share) in TIMERS {
            for _ in 0..noise.count(self.load(at) * share * seconds) {
                lines.push(format!(
                    "{timer}:{:.3}|ms",
                    self.wait(timer, at) * noise.spread()
                ));
            }
        }
        for _ in 0..noise.count(self.load(at) * USERS * seconds) {
            lines.push(format!("shop.users:{:.0}|s", noise.even() * 1e6));
        }
        lines.push(format!("shop.carts:{:.0}|g", self.carts(at)));
        lines
    }
}

/// 0 on working days, 1 on Saturday and Sunday (UTC). Visitors do not change their habits at midnight: one passes
/// into the other over twelve hours.
fn weekend(at: i64) -> f64 {
    const BLEND: f64 = 12.0 * 3_600.0;
    const DAY: i64 = 86_400;
    // The first Saturday after 1970 began two days after it.
    let since = (at - 2 * DAY).rem_euclid(7 * DAY);
    let passed = |begin: i64| {
        let share = ((since - begin) as f64 / BLEND + 0.5).clamp(0.0, 1.0);
        share * share * (3.0 - 2.0 * share)
    };
    passed(0) - passed(2 * DAY) + passed(7 * DAY)
}

/// Unique users as a share of the page views.
pub(super) const USERS: f64 = 0.4;

/// The counters that the shop sends.
pub(super) const COUNTERS: &[&str] = &[
    "shop.pages",
    "shop.logins",
    "shop.checkouts",
    "shop.app.errors",
    "shop.errors.404",
    "shop.errors.500",
    "shop.errors.503",
];

/// Timers, and the share of the page views that each takes.
pub(super) const TIMERS: &[(&str, f64)] = &[
    ("shop.response.home", 0.5),
    ("shop.response.search", 0.3),
    ("shop.response.checkout", 0.2),
];

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: Shop = Shop {
        opened: 1_700_000_000,
        broken: false,
    };

    #[test]
    fn a_harmful_deploy_hurts_until_it_is_rolled_back() {
        for (from, until) in [(-HISTORY[3].0, -HISTORY[4].0), (42, 22)] {
            let before = SHOP.opened - from * MINUTE - 1;
            let during = SHOP.opened - from * MINUTE;
            let after = SHOP.opened - until * MINUTE;
            let wait = |at| SHOP.wait("shop.response.checkout", at);
            assert!(wait(during) > 1.5 * wait(before));
            assert!(wait(after) < wait(during) / 1.5);
            assert!(
                SHOP.rate("shop.checkouts", during) < 0.8 * SHOP.rate("shop.checkouts", before)
            );
            assert!(
                SHOP.rate("shop.errors.500", during) > 4.0 * SHOP.rate("shop.errors.500", after)
            );
        }
    }

    #[test]
    fn the_first_deploy_after_the_start_comes_within_half_a_minute() {
        let changes = SHOP.changes(SHOP.opened, SHOP.opened + 30);
        assert_eq!(changes.len(), 1);
        let harmful = SHOP.opened + FIRST + ROUNDS[1].0 * MINUTE;
        assert_eq!(SHOP.harmed(harmful - 1), None);
        assert_eq!(SHOP.harmed(harmful), Some("checkout"));
        assert_eq!(
            SHOP.harmed(SHOP.opened + FIRST + ROUNDS[2].0 * MINUTE),
            None
        );
    }

    #[test]
    fn changes_come_once_each_however_the_time_is_cut() {
        let (from, until) = (SHOP.opened - 700_000, SHOP.opened + 20_000);
        let whole = SHOP.changes(from, until);
        let mut pieces = Vec::new();
        for start in (from..until).step_by(777) {
            pieces.extend(SHOP.changes(start, (start + 777).min(until)));
        }
        assert_eq!(whole, pieces);
        assert!(whole.windows(2).all(|pair| pair[0].at < pair[1].at));
        assert!(whole.len() > 15);
    }

    #[test]
    fn the_weekend_comes_slowly() {
        let saturday = 2 * 86_400;
        assert_eq!(weekend(saturday - 43_200), 0.0);
        assert_eq!(weekend(saturday), 0.5);
        assert_eq!(weekend(saturday + 86_400), 1.0);
        assert_eq!(weekend(saturday + 2 * 86_400), 0.5);
        assert_eq!(weekend(saturday + 4 * 86_400), 0.0);
        // No hour of the week changes the load by more than a fifth of what is usual.
        for hour in 0..168 {
            let (before, after) = (SHOP.load(hour * 3_600), SHOP.load((hour + 1) * 3_600));
            assert!(
                (after - before).abs() < 0.2 * 30.0,
                "{hour}: {before} {after}"
            );
        }
    }
}
