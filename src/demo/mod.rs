//! `serve --demo`: a simulated web shop, so that a new user sees graphs with deploys at once.
//!
//! 1. The page states that the data is simulated, and an event marks the end of the generated
//!    history.
//! 2. The past week is written through the same [`Sink`] as other datapoints. Then the shop sends
//!    StatsD to the server's socket as an application would.
//! 3. The shop is a function of time ([`shop`]): a restart generates the same week again, with the
//!    same deploys and without duplicates. Only the timestamp of the first start is stored, and the events of
//!    those who broke the shop.

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use carbon::{Datapoint, PointTime, Sink, Timestamp};
use render::events::{Draft, Event, Status, Store, TagQuery};
use render::verdicts::options::Rule;
use tokio::net::UdpSocket;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

pub mod history;
mod noise;
pub mod shop;

use self::noise::Noise;
use self::shop::{Change, Kind, Shop};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
/// How long the generated past is, in seconds.
pub const WEEK: i64 = 7 * 24 * HOUR;
/// The step of the archive of the built-in schema that reaches back further than a week.
const COARSE: i64 = 10 * MINUTE;
/// How far the finest archive of the built-in schema reaches back.
const FINE: i64 = 6 * HOUR;
/// The largest step of the finest archive of the built-in schema.
const FINEST: i64 = 10;
const TICK: Duration = Duration::from_millis(200);
/// Lines are packed into datagrams that fit an Ethernet frame.
const DATAGRAM: usize = 1_400;

/// The sentence on top of every page.
pub const BANNER: &str = "Demo: a made-up web shop. The week before the first start is generated. \
                          Since then the shop sends StatsD to this server as an application \
                          would. The first deploy comes within 30 seconds, a harmful one after an \
                          hour. A deploy with the tag demo:broken breaks the shop until an event \
                          rolls that back.";

const DASHBOARD: &str = include_str!("past-week.toml");

/// Unix seconds.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

/// The shop of this data directory. The first start creates it and writes the dashboard of the past
/// week; later starts read it.
///
/// # Errors
/// The directory cannot be written, or it holds data of another server.
pub fn open(data: &Path) -> anyhow::Result<Shop> {
    let path = data.join("demo");
    let opened = match fs::read_to_string(&path) {
        Ok(text) => text
            .trim()
            .parse()
            .with_context(|| format!("{}: invalid timestamp of the first start", path.display()))?,
        Err(_) => {
            anyhow::ensure!(
                !data.join("whisper").exists(),
                "{} has data that the demo did not write: give --demo another --data",
                data.display()
            );
            let opened = now();
            let dashboards = data.join("dashboards");
            fs::create_dir_all(&dashboards)
                .and_then(|()| fs::write(dashboards.join("past-week.toml"), DASHBOARD))
                .and_then(|()| fs::write(&path, format!("{opened}\n")))
                .with_context(|| format!("demo in {}", data.display()))?;
            opened
        }
    };
    Ok(Shop {
        opened,
        broken: false,
    })
}

/// Generates the week before `now` and passes each of its changes to `post`. `post` stores an event,
/// or updates the event with the same key, and returns the id. `flush` is the flush interval of
/// StatsD and the step of the last hours. `broken` says when somebody had broken the shop ([`broken`]).
///
/// # Errors
/// The sink refuses a name.
pub fn fill(
    shop: Shop,
    sink: &dyn Sink,
    now: i64,
    flush: Duration,
    broken: &[Range<i64>],
    post: impl Fn(Draft) -> Option<i64>,
) -> anyhow::Result<()> {
    let shop_at = |at: i64| Shop {
        broken: broken.iter().any(|times| times.contains(&at)),
        ..shop
    };
    let began = Instant::now();
    // And the hour before it, for graphs that compare with last week.
    let start = (now - WEEK - 2 * HOUR) / COARSE * COARSE;
    // What is older than a week goes into the archive of coarse steps: each of them as one value, since
    // minutes of one step would replace each other.
    let minutes = (now - WEEK) / COARSE * COARSE + COARSE;
    let fine = (now - FINE) / MINUTE * MINUTE;
    let step = (flush.as_secs() as i64).clamp(1, FINEST);
    let end = now / step * step;
    let old_steps = (start..minutes)
        .step_by(COARSE as usize)
        .map(|at| (at, COARSE));
    let coarse_steps = (minutes..fine)
        .step_by(MINUTE as usize)
        .map(|at| (at, MINUTE));
    let fine_steps = (fine..=end).step_by(step as usize).map(|at| (at, step));
    let steps: Vec<(i64, i64)> = old_steps.chain(coarse_steps).chain(fine_steps).collect();
    let mut points = 0;
    for series in history::series() {
        let id = sink
            .intern(series.name.as_bytes())
            .with_context(|| series.name.clone())?;
        let column: Vec<Datapoint> = steps
            .iter()
            .map(|&(at, seconds)| Datapoint {
                series: id,
                at: PointTime::of_clock(Timestamp(at as u32)),
                value: series.value(shop_at(at), at, seconds, step),
            })
            .collect();
        points += column.len();
        sink.submit(&column);
    }
    for change in shop.changes(start, now) {
        post_change(&change, &post);
    }
    post(Draft {
        data: Some("The history before this line was generated.".to_owned()),
        when: Some(shop.opened as f64),
        key: Some("demo-start".to_owned()),
        ..Draft::new("demo starts", &["note"])
    });
    info!(
        "demo: generated a week of a web shop, {points} points in {:?}",
        began.elapsed()
    );
    Ok(())
}

/// How deploys of the shop are judged: by all of its series, because any of its services may slow down the others, and
/// series that are left out would count as those of others; and by changes that somebody would want to know of.
pub fn rules() -> Vec<Rule> {
    let rule = |least: &str, targets: &[&str]| Rule {
        targets: targets.iter().map(|&target| target.to_owned()).collect(),
        least: Some(least.to_owned()),
        ..Rule::default()
    };
    let worse = |way: &str, rule: Rule| Rule {
        worse: Some(way.to_owned()),
        ..rule
    };
    // A few statistics of timers begin with the shop that is open: the generated past does not have them.
    let all = [
        "stats.shop.**",
        "stats_counts.shop.**",
        "stats.timers.shop.response.*.{count,count_ps,lower,mean,mean_90,median,std,sum,sum_90,upper,upper_90}",
        "stats.gauges.shop.**",
        "stats.sets.shop.**",
    ];
    let errors = ["stats.shop.errors.*", "stats.shop.app.errors"];
    let error_counts = ["stats_counts.shop.errors.*", "stats_counts.shop.app.errors"];
    let times = ["stats.timers.shop.response.*.{mean,mean_90,median,upper_90}"];
    let visitors = [
        "stats.shop.{pages,logins,checkouts}",
        "stats_counts.shop.{pages,logins,checkouts}",
    ];
    vec![
        Rule {
            tags: Some("deploy".to_owned()),
            targets: all.map(str::to_owned).to_vec(),
            ..Rule::default()
        },
        // Of the few errors of a quiet hour a third more or less is chance, and of no interest: a tenth of an error a
        // second, or six a minute.
        worse("up", rule("0.1", &errors)),
        worse("up", rule("6", &error_counts)),
        worse("up", rule("10%", &times)),
        // Visitors come and go by a tenth an hour, and at weekends otherwise than on working days.
        worse("down", rule("20%", &visitors)),
        rule("20%", &all[2..]),
    ]
}

/// Whether a deploy with the tag `demo:broken` has broken the shop.
pub fn is_broken(events: &Store, now: i64) -> bool {
    let times = broken(events, now, now);
    times.iter().any(|times| times.contains(&now))
}

/// When deploys with the tag `demo:broken` had broken the shop, from `from` to `now`: each until it was rolled back, until
/// the next such deploy, or for six hours.
pub fn broken(events: &Store, from: i64, now: i64) -> Vec<Range<i64>> {
    const AT_MOST: f64 = 6.0 * 3_600.0;
    const MOST: usize = 1_000;
    let found = |tags: &str, from: f64| {
        let query: TagQuery = tags.parse().unwrap_or_default();
        events
            .query(&query, from, now as f64, MOST)
            .unwrap_or_default()
    };
    let mut deploys = found("demo:broken", from as f64 - AT_MOST);
    // Rollbacks often have the tags of what they undo.
    deploys.retain(|deploy| deploy.rollback_of.is_none());
    let Some(first) = deploys.first() else {
        return Vec::new();
    };
    let later = found("*", first.when);
    let times = |(n, deploy): (usize, &Event)| {
        let undoes = |event: &&Event| event.rollback_of == Some(deploy.id);
        let undone = later.iter().find(undoes).map(|event| event.when);
        let undone = match deploy.status {
            Status::RolledBack => undone.or(deploy.until).or(Some(deploy.when)),
            _ => undone,
        };
        let next = deploys.get(n + 1).map(|next| next.when);
        let ends = [undone, next].into_iter().flatten();
        let end = ends.fold(deploy.when + AT_MOST, f64::min);
        deploy.when as i64..end as i64
    };
    deploys.iter().enumerate().map(times).collect()
}

/// Simulates visitors until the runtime ends: sends StatsD to `statsd` and passes each change to
/// `post` when it happens. `broken` says whether the shop is broken now.
pub async fn visit(
    shop: Shop,
    statsd: SocketAddr,
    post: impl Fn(Draft) -> Option<i64>,
    broken: impl Fn(i64) -> bool,
) {
    let bound = UdpSocket::bind(match statsd {
        SocketAddr::V4(_) => "127.0.0.1:0",
        SocketAddr::V6(_) => "[::1]:0",
    });
    let socket = match bound.await {
        Ok(socket) => socket,
        Err(error) => return warn!("demo: cannot open a socket for sending: {error}"),
    };
    let mut random = Noise::new(now() as u64);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut posted = now();
    let mut packet = String::new();
    let mut shop = shop;
    loop {
        ticks.tick().await;
        let at = now();
        for change in shop.changes(posted, at) {
            tokio::task::block_in_place(|| post_change(&change, &post));
        }
        if at != posted {
            shop.broken = tokio::task::block_in_place(|| broken(at));
        }
        posted = at;
        for line in shop.visit(at, TICK.as_secs_f64(), &mut random) {
            if !packet.is_empty() && packet.len() + 1 + line.len() > DATAGRAM {
                // StatsD clients ignore lost datagrams.
                let _ = socket.send_to(packet.as_bytes(), statsd).await;
                packet.clear();
            }
            if !packet.is_empty() {
                packet.push('\n');
            }
            packet.push_str(&line);
        }
        let _ = socket.send_to(packet.as_bytes(), statsd).await;
        packet.clear();
    }
}

/// Posts `change`. A rollback refers to the event that it rolls back.
fn post_change(change: &Change, post: &impl Fn(Draft) -> Option<i64>) {
    let tags: &[&str] = match change.kind {
        Kind::Setting => &["config", change.service],
        Kind::Rollback => &["deploy", "rollback", change.service],
        Kind::Harmless | Kind::Harmful => &["deploy", change.service],
    };
    let undone = change.undoes.and_then(|at| {
        post(Draft {
            status: Some(Status::RolledBack),
            key: Some(key(at)),
            ..Draft::default()
        })
    });
    post(Draft {
        data: Some(change.data.to_owned()),
        when: Some(change.at as f64),
        rollback_of: undone.map(Some),
        key: Some(key(change.at)),
        ..Draft::new(change.what.as_str(), tags)
    });
}

/// The key of the change at `at`: after a restart it updates the same event.
fn key(at: i64) -> String {
    format!("demo-{at}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use carbon::{NameError, SeriesId};

    use super::*;

    const FLUSH: Duration = Duration::from_secs(10);

    /// Keeps what it gets, by name.
    #[derive(Default)]
    struct Kept {
        names: Mutex<Vec<String>>,
        points: Mutex<BTreeMap<SeriesId, Vec<Datapoint>>>,
    }

    impl Sink for Kept {
        fn intern(&self, name: &[u8]) -> Result<SeriesId, NameError> {
            let mut names = self.names.lock().unwrap();
            names.push(String::from_utf8(name.to_vec()).unwrap());
            Ok(SeriesId(names.len() as u32 - 1))
        }

        fn submit(&self, points: &[Datapoint]) {
            let mut kept = self.points.lock().unwrap();
            for point in points {
                kept.entry(point.series).or_default().push(*point);
            }
        }

        fn try_submit(&self, points: &[Datapoint]) -> usize {
            self.submit(points);
            points.len()
        }
    }

    #[test]
    fn the_same_week_comes_out_each_time_with_the_deploys_that_the_page_tells_of() {
        let now = 1_700_000_000;
        let shop = Shop {
            opened: now,
            broken: false,
        };
        let events = Mutex::new(Vec::new());
        let kept = Kept::default();
        fill(shop, &kept, now, FLUSH, &[], |event| {
            let mut events = events.lock().unwrap();
            events.push(event);
            Some(events.len() as i64)
        })
        .unwrap();
        let again = Kept::default();
        fill(shop, &again, now, FLUSH, &[], |_| None).unwrap();
        assert_eq!(*kept.points.lock().unwrap(), *again.points.lock().unwrap());

        let names = kept.names.lock().unwrap();
        for name in [
            "stats.shop.logins",
            "stats_counts.shop.errors.500",
            "stats.timers.shop.response.home.upper_90",
            "stats.gauges.shop.carts",
        ] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
        for column in kept.points.lock().unwrap().values() {
            assert!(column.windows(2).all(|pair| pair[0].at < pair[1].at));
            assert!(
                column
                    .iter()
                    .all(|point| point.value.is_finite() && point.value >= 0.0)
            );
        }
        let at = |name: &str| names.iter().position(|known| known == name).unwrap();
        let points = kept.points.lock().unwrap();
        older_than_a_week_is_coarse(&points[&SeriesId(at("stats.sets.shop.users.count") as u32)]);
        let mut events = events.into_inner().unwrap();
        let undone = |event: &Draft| event.status == Some(Status::RolledBack);
        assert_eq!(events.iter().filter(|event| undone(event)).count(), 2);
        let ties = events.iter().filter(|event| event.rollback_of.is_some());
        assert_eq!(ties.count(), 2);
        events.retain(|event| !undone(event));
        let last_hour = |word: &str| {
            events.iter().any(|event| {
                event.when.unwrap() > (now - HOUR) as f64
                    && event.tags.iter().flatten().any(|tag| tag == word)
            })
        };
        assert!(last_hour("deploy") && last_hour("rollback") && last_hour("note"));
        let mut keys: Vec<_> = events.iter().map(|event| event.key.clone()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), events.len(), "each event has a key of its own");
    }

    /// Counts are sums: the last coarse step has about as many as the ten minutes after it.
    fn older_than_a_week_is_coarse(counts: &[Datapoint]) {
        let steps: Vec<u32> = counts
            .windows(2)
            .map(|pair| pair[1].at.timestamp().0 - pair[0].at.timestamp().0)
            .collect();
        let coarse = steps.iter().take_while(|step| **step == 600).count();
        assert!(coarse >= 12 && steps[coarse] == 60, "{coarse}");
        let minutes: f64 = counts[coarse..coarse + 10]
            .iter()
            .map(|one| one.value)
            .sum();
        let share = counts[coarse - 1].value / minutes;
        assert!((0.8..1.25).contains(&share), "{share}");
    }

    #[test]
    fn the_shop_is_broken_until_somebody_rolls_that_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.db");
        let events = Store::open(&path, &render::events::Options::default()).unwrap();
        let now = 1_700_000_000;
        let post = |tags: &[&str], when: i64, rollback_of: Option<i64>| {
            let draft = Draft {
                when: Some(when as f64),
                rollback_of: rollback_of.map(Some),
                ..Draft::new("checkout", tags)
            };
            events.insert(draft).unwrap().event.id
        };
        let tags = ["deploy", "demo:broken"];
        assert!(!is_broken(&events, now));
        let first = post(&tags, now - 3_000, None);
        assert!(is_broken(&events, now));
        // With the tags of what it undoes.
        post(&tags, now - 2_000, Some(first));
        assert!(!is_broken(&events, now));
        post(&tags, now - 1_000, None);
        let expected = [now - 3_000..now - 2_000, now - 1_000..now + 20_600];
        assert_eq!(broken(&events, now - WEEK, now), expected);
    }

    #[test]
    fn a_directory_with_other_data_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let first = open(data.path()).unwrap();
        assert_eq!(open(data.path()).unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        fs::create_dir(other.path().join("whisper")).unwrap();
        assert!(
            open(other.path())
                .unwrap_err()
                .to_string()
                .contains("another --data")
        );
        assert!(!other.path().join("demo").exists());
    }
}
