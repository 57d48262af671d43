//! What the log says of input that was refused: which sender, why, and a sample.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::protocol::Refused;

/// The log reports refused input this often at most, per listener.
const PAUSE: Duration = Duration::from_secs(10);

/// The reports of a listener.
#[derive(Debug)]
pub(super) struct Complaints {
    /// The key of the listener.
    listener: &'static str,
    last: Mutex<Option<Instant>>,
    /// Batches with refused input since the last report.
    silent: AtomicU64,
}

impl Complaints {
    pub(super) fn new(listener: &'static str) -> Self {
        Self {
            listener,
            last: Mutex::default(),
            silent: AtomicU64::new(0),
        }
    }

    /// Reports `refused`, unless the last report is too recent.
    pub(super) fn report(&self, sender: SocketAddr, refused: &Refused) {
        {
            let mut last = self.last.lock();
            if last.is_some_and(|at| at.elapsed() < PAUSE) {
                self.silent.fetch_add(1, Ordering::Relaxed);
                return;
            }
            *last = Some(Instant::now());
        }
        let since = self.silent.swap(0, Ordering::Relaxed);
        tracing::warn!(
            listener = self.listener,
            %sender,
            unreported = since,
            "refused: {}: {:?}",
            refused.reason,
            refused.sample.escape_ascii().to_string()
        );
    }
}
