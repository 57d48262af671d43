//! What the persister logs and counts of files and points.

use std::time::{Duration, Instant};

use whisper::map::Event;

use super::parts::Parts;
use crate::datapoint::SeriesId;

/// The shortest time between two messages in the log about the same kind of error.
const QUIET: Duration = Duration::from_secs(10);

/// Logs that points wait, at most once in ten seconds since `logged`.
pub(super) fn waits(logged: &mut Option<Instant>, error: &whisper::Error) {
    if is_due(logged) {
        tracing::error!(%error, "points cannot be written; they wait in the cache");
    }
}

/// Logs that points were dropped, at most once in ten seconds since `logged`; the counters count all of them.
pub(super) fn dropped(
    logged: &mut Option<Instant>,
    parts: &Parts<'_>,
    id: SeriesId,
    points: usize,
    error: &whisper::Error,
) {
    if is_due(logged) {
        let name = parts.index.name(id);
        tracing::error!(%name, points, %error, "points were dropped: they cannot be written");
    }
}

/// Whether the next message may be logged; if so, it counts as logged.
fn is_due(logged: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let due = logged.is_none_or(|at| now - at > QUIET);
    if due {
        *logged = Some(now);
    }
    due
}

/// Logs and counts what happened to files.
pub(super) fn count_events(parts: &Parts<'_>) {
    for event in parts.maps.take_events() {
        match event {
            Event::SetAside { aside, damage, .. } => {
                parts.stats.set_aside.add(1);
                let aside = aside.display();
                tracing::error!(%damage, %aside, "a damaged file was set aside, a new file is created");
            }
            Event::Replaced { path } => {
                parts.stats.replaced.add(1);
                tracing::info!(file = %path.display(), "the file was replaced or is gone");
            }
            Event::Lost { path } => {
                parts.stats.errors.add(1);
                tracing::error!(file = %path.display(), "pages of the file were lost");
            }
            Event::NotMapped { path, reason } => {
                tracing::warn!(file = %path.display(), %reason, "the file is written unmapped");
            }
            Event::Missed(count) => tracing::warn!(count, "further events of files"),
            other => tracing::warn!(?other, "an event of a file"),
        }
    }
}
