//! The busiest names, written out now and then, as the reference's `keyFlush` does.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::aggregate::Aggregator;
use crate::options::Options;
use crate::stats::now_ms;

/// The busiest names, written out now and then.
pub(super) struct KeyFlush {
    every: Duration,
    percent: f64,
    log: String,
    last: Instant,
}

impl KeyFlush {
    /// `None` if they are not wanted.
    pub(super) fn new(options: &Options) -> Option<Self> {
        let every = options.key_flush_interval.0;
        (!every.is_zero()).then(|| Self {
            every,
            percent: options.key_flush_percent,
            log: options.key_flush_log.clone(),
            last: Instant::now(),
        })
    }

    /// Writes them out if it is time to.
    pub(super) fn tick(&mut self, aggregator: &mut Aggregator) {
        use std::io::Write as _;
        if self.last.elapsed() < self.every {
            return;
        }
        self.last = Instant::now();
        let at = now_ms() / 1_000;
        let mut text = String::new();
        for (count, name) in aggregator.busiest(self.percent) {
            text.push_str(&format!("{at} count={count} key={name}\n"));
        }
        if self.log.is_empty() {
            for line in text.lines() {
                info!("{line}");
            }
            return;
        }
        let written = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        if let Err(why) = written {
            warn!("key_flush_log {}: {why}", self.log);
        }
    }
}
