//! The end of a shutdown that makes no progress.

use std::time::{Duration, Instant};

/// How long a shutdown waits without progress, for room and for files that cannot be written.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// Measures how long a shutdown has made no progress, from the first time it is asked.
#[derive(Default)]
pub(crate) struct Patience {
    /// What was done when it was last seen to change, and since when.
    done: Option<(usize, Instant)>,
}

impl Patience {
    /// Whether `done` has changed within [`PATIENCE`]. What comes before the first call, such as sorting
    /// what waits, is no time without progress.
    pub(crate) fn lasts(&mut self, done: usize) -> bool {
        self.lasts_at(done, Instant::now())
    }

    fn lasts_at(&mut self, done: usize, now: Instant) -> bool {
        match self.done {
            Some((before, since)) if before == done => now - since < PATIENCE,
            _ => {
                self.done = Some((done, now));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_only_where_nothing_is_done() {
        let mut patience = Patience::default();
        let mut now = Instant::now() + 2 * PATIENCE;
        assert!(patience.lasts_at(0, now), "nothing was tried before");
        now += 2 * PATIENCE;
        assert!(patience.lasts_at(1, now), "slow, but done");
        now += PATIENCE / 2;
        assert!(patience.lasts_at(1, now));
        now += PATIENCE / 2;
        assert!(!patience.lasts_at(1, now));
    }
}
