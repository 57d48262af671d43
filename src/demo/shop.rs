//! The simulated shop: visits, response times and errors as functions of time.
//!
//! Visits follow the hours of the day and the days of the week. A harmful deploy makes answers
//! slower, errors frequent and checkouts rare until it is rolled back. A harmless deploy changes
//! nothing, as most deploys do; a graph should show that too.

use std::f64::consts::TAU;

use crate::random::Random;

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
    fn load(self, at: i64) -> f64 {
        let day = (at % 86_400) as f64 / 86_400.0;
        let hours = 1.0 - 0.55 * (TAU * (day - 0.08)).cos();
        let weekday = (at / 86_400 + 4) % 7;
        let days = if weekday == 0 || weekday == 6 {
            0.75
        } else {
            1.0
        };
        30.0 * hours * days
    }

    /// The rate of each counter, per second.
    fn rate(self, counter: &str, at: i64) -> f64 {
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
    fn wait(self, timer: &str, at: i64) -> f64 {
        let busy = 0.8 + self.load(at) / 150.0;
        let slow = self.weather(at).latency;
        match timer {
            "shop.response.home" => 45.0 * busy * (1.0 + (slow - 1.0) * 0.4),
            "shop.response.search" => 80.0 * busy * (1.0 + (slow - 1.0) * 0.2),
            _ => 120.0 * busy * slow,
        }
    }

    /// The number of carts in use.
    fn carts(self, at: i64) -> f64 {
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

    /// Every series that a flush of the shop's metrics writes.
    pub fn series(self) -> Vec<Filled> {
        let filled = |name: String, what| Filled { name, what };
        let mut all = Vec::new();
        for counter in COUNTERS {
            all.push(filled(format!("stats.{counter}"), What::Rate(counter)));
            all.push(filled(
                format!("stats_counts.{counter}"),
                What::Count(counter),
            ));
        }
        for (timer, share) in TIMERS {
            for stat in STATS {
                let name = format!("stats.timers.{timer}.{stat}");
                all.push(filled(
                    name,
                    What::Stat {
                        timer,
                        share: *share,
                        stat,
                    },
                ));
            }
        }
        all.push(filled("stats.gauges.shop.carts".to_owned(), What::Carts));
        all.push(filled(
            "stats.sets.shop.users.count".to_owned(),
            What::Users,
        ));
        all
    }
}

/// Unique users as a share of the page views.
const USERS: f64 = 0.4;
/// The seconds of a flush, in which users are unique.
const FLUSH: f64 = 10.0;

const COUNTERS: &[&str] = &[
    "shop.pages",
    "shop.logins",
    "shop.checkouts",
    "shop.app.errors",
    "shop.errors.404",
    "shop.errors.500",
    "shop.errors.503",
];

/// Timers, and the share of the page views that each takes.
const TIMERS: &[(&str, f64)] = &[
    ("shop.response.home", 0.5),
    ("shop.response.search", 0.3),
    ("shop.response.checkout", 0.2),
];

const STATS: &[&str] = &[
    "count", "count_ps", "lower", "mean", "mean_90", "median", "std", "sum", "sum_90", "upper",
    "upper_90",
];

/// A series of the past, computed point by point.
#[derive(Clone, Debug)]
pub struct Filled {
    /// The name that StatsD gives it.
    pub name: String,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Rate(&'static str),
    Count(&'static str),
    Stat {
        timer: &'static str,
        share: f64,
        stat: &'static str,
    },
    Carts,
    Users,
}

impl Filled {
    /// The value of the step of `seconds` that begins at `at`.
    pub fn value(&self, shop: Shop, at: i64, seconds: i64) -> f64 {
        let length = seconds as f64;
        let count =
            |name: &str, rate: f64| Noise::of(name, at).around(rate * length).round().max(0.0);
        match &self.what {
            What::Rate(counter) => count(counter, shop.rate(counter, at)) / length,
            What::Count(counter) => count(counter, shop.rate(counter, at)),
            What::Carts => shop.carts(at).round(),
            What::Users => {
                let mean = shop.load(at) * USERS * FLUSH;
                Noise::of("shop.users", at).around(mean).round().max(0.0)
            }
            What::Stat { timer, share, stat } => {
                let n = count(timer, shop.load(at) * share).max(1.0);
                let mut random = Noise::of(timer, at + 1);
                let mean = shop.wait(timer, at) * (1.0 + 0.3 * (random.even() - 0.5) / n.sqrt());
                let wild = 1.0 + 0.12 * (random.even() - 0.5);
                match *stat {
                    "count" => n,
                    "count_ps" => n / length,
                    "lower" => mean * 0.42 * wild,
                    "mean" => mean,
                    "mean_90" => mean * 0.88,
                    "median" => mean * 0.9,
                    "std" => mean * 0.46 * wild,
                    "sum" => mean * n,
                    "sum_90" => mean * 0.88 * (n * 0.9).round(),
                    "upper" => mean * (2.4 + n.ln() * 0.2) * wild,
                    _ => mean * 1.6 * wild,
                }
            }
        }
    }
}

/// The noise in the numbers of the shop, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Noise(Random);

impl Noise {
    /// The noise that begins with `seed`.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x9e37_79b9_7f4a_7c15);
        random.number();
        Self(random)
    }

    /// The noise of one series at one timestamp.
    fn of(name: &str, at: i64) -> Self {
        let named = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self::new(named ^ (at as u64).wrapping_mul(0xff51_afd7_ed55_8ccd))
    }

    /// A uniform number from 0 to 1.
    fn even(&mut self) -> f64 {
        self.0.even()
    }

    /// `mean` with the deviation of a Poisson distribution.
    fn around(&mut self, mean: f64) -> f64 {
        let bell: f64 = (0..12).map(|_| self.even()).sum::<f64>() - 6.0;
        mean + mean.sqrt() * bell
    }

    /// A Poisson number with the mean `mean`.
    fn count(&mut self, mean: f64) -> u32 {
        let mut product = self.even();
        let limit = (-mean.min(500.0)).exp();
        let mut count = 0;
        while product > limit {
            product *= self.even();
            count += 1;
        }
        count
    }

    /// One response time as a multiple of the mean: usually a little below 1, sometimes far above.
    fn spread(&mut self) -> f64 {
        let bell: f64 = (0..12).map(|_| self.even()).sum::<f64>() - 6.0;
        (0.42 * bell - 0.09).exp()
    }
}

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
    fn what_is_sent_is_what_the_history_would_have_been() {
        let at = SHOP.opened + 3 * 60;
        let mut random = Noise::new(1);
        let lines: Vec<String> = (0..600)
            .flat_map(|_| SHOP.visit(at, 0.2, &mut random))
            .collect();
        let counted: f64 = lines
            .iter()
            .filter_map(|line| {
                line.strip_prefix("shop.pages:")?
                    .strip_suffix("|c")?
                    .parse::<f64>()
                    .ok()
            })
            .sum();
        let expected = SHOP.rate("shop.pages", at) * 120.0;
        assert!(
            (counted / expected - 1.0).abs() < 0.1,
            "{counted} {expected}"
        );
        let waits: Vec<f64> = lines
            .iter()
            .filter_map(|line| {
                line.strip_prefix("shop.response.home:")?
                    .strip_suffix("|ms")?
                    .parse()
                    .ok()
            })
            .collect();
        let mean = waits.iter().sum::<f64>() / waits.len() as f64;
        assert!(
            (mean / SHOP.wait("shop.response.home", at) - 1.0).abs() < 0.1,
            "{mean}"
        );
    }
}
