//! The whole pipeline: from StatsD's datagrams through flush, cache and journal to the files, and back after
//! a crash.
//!
//! ```text
//! cargo bench --bench pipeline                                   # 10,000 names, intervals of 1 s, in memory
//! cargo bench --bench pipeline -- 10000,100000,200000            # growth: a run and a line for each number
//! cargo bench --bench pipeline -- 200000 interval=10s flushes=30 dir=/var/tmp set=carbon.persist_within=1s
//! ```
//!
//! - `interval` (1s): the flush interval, at least a second. `flushes` (20): how many are measured.
//! - `dir`: a directory on the file system to be measured (/dev/shm). The bench makes one of its own in it.
//! - `retentions`: of all files, as `10s:6h,1m:7d`. Without it they are the server's own, whose finest step is
//!   10 s; with another interval, as many points in steps of that length (1s:36m,6s:16h48m,1m:182d12h).
//! - `values` (1): how many values each name takes in turn. With one, coarser points stay the same while they are
//!   made, and the server does not write them again.
//! - `set`: a setting of the server, any number of times.
//! - `soak`: for how long metrics are sent at a steady rate, while names come and go (see [`soak`]), instead of the
//!   phases below. `rate` (1,000,000): metrics a second. `lives` (20): one name in so many is new in each interval.
//!
//! 70 % of the names are counters, 20 % timers, 10 % gauges; each is sent once within the first 70 % of each
//! interval. The server is the binary, in a process of its own and with no other settings than these and its
//! addresses: so memory, threads and CPU time are the server's alone, and it can be killed and stopped as an
//! operator would.
//!
//! 1. *Creation*: until every series has its file, or for `creating` intervals (120). CPU time per file, with all that
//!    the server does meanwhile: where the creation takes several intervals, that includes their points.
//! 2. *Steady*: CPU time per point received by carbon, by thread. The second figure adds what it takes to write all
//!    points that wait at the end. *Written*: bytes on the device between two syncs of all file systems, at the
//!    beginning and after the stop, for all processes; *dirtied*: pages that the server alone made dirty.
//!    *Visible*: from the end of an interval until the first counter, the last timer and the last gauge are in the
//!    answers of /render, which is asked every 2 ms. *Waiting*: points in the cache before the flushes.
//! 3. *Restart*: the server is killed within an interval, and started again: until it is ready, and has answered a
//!    request.
//! 4. *Drain*: as many flushes again, then SIGTERM, until the process has ended.
//! 5. *Missing*: values of 200 counters that queries answered with half a second before the kill, and that are not in
//!    the files after the stop. Intervals that were never flushed are not counted as missing; *flushed* says how many were.

#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::unwrap_used, reason = "a bench ends where it goes wrong")]

#[path = "../baseline/mod.rs"]
#[allow(dead_code, reason = "shared with other benches")]
mod baseline;
mod load;
mod measure;
mod run;
mod soak;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::time::Duration;

use settings::Span;

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) interval: Duration,
    pub(crate) flushes: u32,
    pub(crate) creating: u32,
    pub(crate) dir: PathBuf,
    pub(crate) retentions: Option<String>,
    pub(crate) values: u32,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) soak: Option<Duration>,
    pub(crate) rate: f64,
    pub(crate) lives: u32,
}

fn main() {
    let mut arguments = Arguments {
        interval: Duration::from_secs(1),
        flushes: 20,
        creating: 120,
        dir: PathBuf::from("/dev/shm"),
        retentions: None,
        values: 1,
        settings: Vec::new(),
        soak: None,
        rate: 1e6,
        lives: 20,
    };
    let mut names = vec![10_000];
    let words = std::env::args().skip(1);
    for word in words.filter(|word| !word.starts_with("--")) {
        match word.split_once('=') {
            None => names = word.split(',').map(|n| n.parse().unwrap()).collect(),
            Some((key, value)) => set(&mut arguments, key, value),
        }
    }
    let steps = arguments.interval.as_secs();
    assert!(
        steps >= 1 && arguments.interval.subsec_nanos() == 0,
        "interval: whole seconds"
    );
    if arguments.retentions.is_none() && steps != 10 {
        let (middle, last) = (steps * 6, steps * 60);
        let (fine, medium, coarse) = (steps * 2_160, middle * 10_080, last * 262_800);
        let retentions = format!("{steps}s:{fine}s,{middle}s:{medium}s,{last}s:{coarse}s");
        arguments.retentions = Some(retentions);
    }
    if let Some(time) = arguments.soak {
        names
            .iter()
            .for_each(|names| soak::run(*names, time, &arguments));
        return;
    }
    let runs: Vec<_> = names
        .iter()
        .map(|names| run::run(*names, &arguments))
        .collect();
    if runs.len() > 1 {
        println!("\n{}", run::HEAD);
        runs.iter().for_each(|figures| println!("{figures}"));
    }
}

fn set(arguments: &mut Arguments, key: &str, value: &str) {
    match key {
        "interval" => arguments.interval = value.parse::<Span>().unwrap().0,
        "flushes" => arguments.flushes = value.parse().unwrap(),
        "creating" => arguments.creating = value.parse().unwrap(),
        "dir" => arguments.dir = PathBuf::from(value),
        "retentions" => arguments.retentions = Some(value.to_owned()),
        "soak" => arguments.soak = Some(value.parse::<Span>().unwrap().0),
        "rate" => arguments.rate = value.parse().unwrap(),
        "lives" => arguments.lives = value.parse().unwrap(),
        "values" => arguments.values = value.parse().unwrap(),
        "set" => {
            let (key, value) = value.split_once('=').unwrap();
            arguments.settings.push((key.to_owned(), value.to_owned()));
        }
        _ => panic!(
            "{key}: not one of interval, flushes, creating, dir, retentions, values, set, soak, rate, lives"
        ),
    }
}
