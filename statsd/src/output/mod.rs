//! Where flushes go: several places at once.
//!
//! 1. [`Outputs`] takes each line once. The embedded store gets it by series id; the text of a line is
//!    made once for all remote carbons, a pickle once for all that want pickles.
//! 2. Remote outputs have a thread and a bounded queue each ([`remote`]).
//! 3. Names are formatted only for outputs that need text, and once for an id.
//! 4. A series that the store refuses is not offered again at each flush: never, if no file could
//!    be named so; otherwise (a limit on series) some at a time, one after the other.

pub(crate) mod console;
mod pickle;
pub(crate) mod remote;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use carbon::{Datapoint, NameError, PointTime, SeriesId, Sink, Timestamp};

use crate::naming::Line;
use crate::number;
use crate::report::Shared;
use console::Console;
use pickle::Pickles;
use remote::Remote;

/// The id of a line whose name the sink has not been asked for yet.
pub(crate) const UNKNOWN: u32 = u32::MAX;
/// The id of a line whose name the sink will never take.
const REFUSED: u32 = u32::MAX - 1;
/// The id of a line whose name the sink does not take now, because of a limit.
const DEFERRED: u32 = u32::MAX - 2;
/// Deferred series that are offered again in a flush.
const OFFERS: u64 = 1_000;
/// Datapoints that are submitted together.
const POINTS: usize = 4_096;
/// For how long remote outputs may go on sending after the stop.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// For how long they may hold up the last flush.
const LAST: Duration = Duration::from_secs(2);
/// Bytes of text that are queued together.
const TEXT: usize = 64 << 10;

/// What a flush came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flushed {
    pub(crate) lines: u64,
    /// Of text.
    pub(crate) bytes: u64,
}

/// All outputs. See the head of this file.
pub(crate) struct Outputs {
    embedded: Option<Embedded>,
    text: Option<Text>,
    pickles: Option<(Pickles, Vec<Arc<Remote>>)>,
    console: Option<Console>,
    /// Whether any output needs more than ids.
    needs_names: bool,
    shared: Arc<Shared>,
    /// The time that lines carry.
    at: f64,
    /// How long slow remote outputs may hold up a flush, and points until the next.
    patience: Duration,
    /// What is left of that.
    patience_left: Duration,
    flushed: Flushed,
}

/// Which outputs there are.
pub(crate) struct Destinations {
    pub(crate) sink: Option<Arc<dyn Sink>>,
    pub(crate) text: Vec<Arc<Remote>>,
    pub(crate) pickle: Vec<Arc<Remote>>,
    pub(crate) console: Option<Console>,
    pub(crate) patience: Duration,
}

struct Embedded {
    sink: Arc<dyn Sink>,
    points: Vec<Datapoint>,
    name: Vec<u8>,
    /// Ids that are kept nowhere once `points` are submitted.
    once: Vec<SeriesId>,
    offers: Offers,
    /// Values of the flush whose series the sink refused.
    refused: u64,
}

/// Which of the deferred series are offered again in a flush: the next [`OFFERS`] in the order of
/// the flush, so that each of them is offered some time.
#[derive(Debug, Default)]
struct Offers {
    /// Deferred series that the flush has come to.
    seen: u64,
    /// Those of them that were taken.
    taken: u64,
    /// The number of the first one that is offered.
    first: u64,
}

impl Offers {
    /// Whether the deferred series that the flush has come to is offered again.
    fn is_due(&mut self) -> bool {
        let number = self.seen;
        self.seen += 1;
        (self.first..self.first + OFFERS).contains(&number)
    }

    /// Goes on to the next ones.
    fn flush_ends(&mut self) {
        let left = self.seen - self.taken;
        self.first += OFFERS - self.taken;
        if self.first >= left {
            self.first = 0;
        }
        (self.seen, self.taken) = (0, 0);
    }
}

/// Whether a name that was refused for this may be taken later.
fn may_change(why: NameError) -> bool {
    !matches!(
        why,
        NameError::Empty
            | NameError::Forbidden
            | NameError::NotUtf8
            | NameError::TooLong
            | NameError::PathTooLong
            | NameError::BadTag
    )
}

struct Text {
    buffer: Vec<u8>,
    lines: u64,
    remotes: Vec<Arc<Remote>>,
    /// ` 1700000000\n`
    stamp: Vec<u8>,
}

impl Outputs {
    pub(crate) fn new(destinations: Destinations, shared: Arc<Shared>) -> Self {
        let Destinations {
            sink,
            text,
            pickle,
            console,
            patience,
        } = destinations;
        Self {
            needs_names: !text.is_empty() || !pickle.is_empty() || console.is_some(),
            embedded: sink.map(|sink| Embedded {
                sink,
                points: Vec::with_capacity(POINTS),
                name: Vec::new(),
                once: Vec::new(),
                offers: Offers::default(),
                refused: 0,
            }),
            text: (!text.is_empty()).then(|| Text {
                buffer: Vec::with_capacity(TEXT + 1_024),
                lines: 0,
                remotes: text,
                stamp: Vec::new(),
            }),
            pickles: (!pickle.is_empty()).then(|| (Pickles::default(), pickle)),
            console,
            shared,
            at: 0.0,
            patience,
            patience_left: patience,
            flushed: Flushed::default(),
        }
    }

    /// Whether lines should come with a place to keep their series id in.
    pub(crate) fn wants_ids(&self) -> bool {
        self.embedded.is_some()
    }

    /// The console, if it is an output. It wants more than lines.
    pub(crate) fn console(&mut self) -> Option<&mut Console> {
        self.console.as_mut()
    }

    /// The last flush follows, which waits for remote outputs for [`LAST`] at most.
    pub(crate) fn hurry(&mut self) {
        self.patience = self.patience.min(LAST);
        self.patience_left = self.patience_left.min(LAST);
    }

    /// Starts a flush whose lines carry the time `at`, in Unix seconds.
    pub(crate) fn begin(&mut self, at: f64) {
        self.at = at;
        self.patience_left = self.patience;
        self.flushed = Flushed::default();
        if let Some(text) = &mut self.text {
            text.stamp.clear();
            text.stamp.push(b' ');
            number::print(at, &mut text.stamp);
            text.stamp.push(b'\n');
        }
    }

    /// Takes a value of the flush by its series id alone; returns false if that is not enough, and
    /// the line is needed.
    #[inline(always)]
    pub(crate) fn put_known(&mut self, id: u32, value: f64) -> bool {
        let Some(embedded) = &mut self.embedded else {
            return false;
        };
        if id >= DEFERRED || self.needs_names {
            return false;
        }
        self.flushed.lines += 1;
        embedded.push(SeriesId(id), self.at, value);
        true
    }

    /// Takes one line of the flush. `id` is where its series id is kept.
    pub(crate) fn line(&mut self, id: Option<&mut u32>, line: &Line<'_>, value: f64) {
        self.flushed.lines += 1;
        if let Some(embedded) = &mut self.embedded {
            match id {
                Some(id) => embedded.put(id, line, value, self.at, &self.shared),
                None => embedded.put_once(line, value, self.at, &self.shared),
            }
        }
        if let Some(text) = &mut self.text {
            let before = text.buffer.len();
            line.push_name(&mut text.buffer);
            text.buffer.push(b' ');
            number::print(value, &mut text.buffer);
            text.buffer.extend_from_slice(&text.stamp);
            text.lines += 1;
            self.flushed.bytes += (text.buffer.len() - before) as u64;
            if text.buffer.len() >= TEXT {
                text.send(&mut self.patience_left, &self.shared);
            }
        }
        if self.pickles.is_some() || self.console.is_some() {
            self.rarer(line, value, self.at);
        }
    }

    /// Takes a line that is not kept an id for, and that has its own time.
    pub(crate) fn line_once(&mut self, line: &Line<'_>, value: f64, at: f64) {
        if !value.is_finite() {
            return;
        }
        self.flushed.lines += 1;
        if let Some(embedded) = &mut self.embedded {
            embedded.put_once(line, value, at, &self.shared);
        }
        if let Some(text) = &mut self.text {
            let before = text.buffer.len();
            line.push_name(&mut text.buffer);
            text.buffer.push(b' ');
            number::print(value, &mut text.buffer);
            text.buffer.push(b' ');
            number::print(at, &mut text.buffer);
            text.buffer.push(b'\n');
            text.lines += 1;
            self.flushed.bytes += (text.buffer.len() - before) as u64;
        }
        self.rarer(line, value, at);
    }

    fn rarer(&mut self, line: &Line<'_>, value: f64, at: f64) {
        if let Some((pickles, remotes)) = &mut self.pickles {
            pickles.push(line, value, at);
            if pickles.is_full() {
                send_pickles(pickles, remotes, &mut self.patience_left, &self.shared);
            }
        }
        if let Some(console) = &mut self.console {
            console.line(line, value);
        }
    }

    /// Gives the ids of series that are dropped back to the store, after their last values.
    pub(crate) fn release(&mut self, ids: &mut Vec<u32>) {
        ids.retain(|id| *id < DEFERRED);
        if let Some(embedded) = &self.embedded
            && !ids.is_empty()
        {
            let ids: Vec<SeriesId> = ids.iter().copied().map(SeriesId).collect();
            embedded.sink.release(&ids);
        }
        ids.clear();
    }

    /// Hands over values that came with their own time, between flushes.
    pub(crate) fn end_of_points(&mut self) {
        self.hand_over();
    }

    /// Ends the flush.
    pub(crate) fn end(&mut self) -> Flushed {
        self.hand_over();
        if let Some(embedded) = &mut self.embedded {
            embedded.offers.flush_ends();
        }
        if let Some(console) = &mut self.console {
            console.flush(self.at);
        }
        self.flushed
    }

    fn hand_over(&mut self) {
        if let Some(embedded) = &mut self.embedded {
            embedded.submit();
            let refused = std::mem::take(&mut embedded.refused);
            let stats = &self.shared.stats;
            stats.points_refused.fetch_add(refused, Ordering::Relaxed);
        }
        if let Some(text) = &mut self.text {
            text.send(&mut self.patience_left, &self.shared);
        }
        if let Some((pickles, remotes)) = &mut self.pickles {
            send_pickles(pickles, remotes, &mut self.patience_left, &self.shared);
        }
    }

    /// Lets remote outputs send what they have, until `deadline`.
    fn close(&mut self, deadline: Instant) {
        let text = self.text.iter().flat_map(|text| &text.remotes);
        let pickle = self.pickles.iter().flat_map(|(_, remotes)| remotes);
        for remote in text.chain(pickle) {
            remote.close(deadline);
        }
    }
}

impl Drop for Outputs {
    /// The threads of remote outputs must end with the aggregator, even if it has died.
    fn drop(&mut self) {
        self.close(Instant::now() + LAST_WORDS);
    }
}

impl Embedded {
    #[inline]
    fn put(&mut self, id: &mut u32, line: &Line<'_>, value: f64, at: f64, shared: &Shared) {
        if *id >= DEFERRED {
            self.ask(id, line, shared);
            if *id >= DEFERRED {
                self.refused += 1;
                return;
            }
        }
        self.push(SeriesId(*id), at, value);
    }

    #[inline(always)]
    fn push(&mut self, series: SeriesId, at: f64, value: f64) {
        self.points.push(Datapoint {
            series,
            at: PointTime::of_clock(Timestamp(at as u32)),
            value,
        });
        if self.points.len() >= POINTS {
            self.submit();
        }
    }

    /// Asks the sink for the id of a series that has none.
    #[cold]
    fn ask(&mut self, id: &mut u32, line: &Line<'_>, shared: &Shared) {
        let is_new = *id == UNKNOWN;
        if *id == REFUSED || (!is_new && !self.offers.is_due()) {
            return;
        }
        self.name.clear();
        line.push_name(&mut self.name);
        *id = match self.sink.intern(&self.name) {
            Ok(SeriesId(id)) => {
                self.offers.taken += u64::from(!is_new);
                id
            }
            Err(why) => {
                if is_new {
                    let before = shared.stats.series_refused.fetch_add(1, Ordering::Relaxed);
                    if before == 0 {
                        let name = String::from_utf8_lossy(&self.name);
                        tracing::warn!(
                            "series {name:?} is not kept: {why}; further ones are counted"
                        );
                    }
                }
                if may_change(why) { DEFERRED } else { REFUSED }
            }
        };
    }

    /// As [`Embedded::put`], for a line whose id is kept nowhere.
    fn put_once(&mut self, line: &Line<'_>, value: f64, at: f64, shared: &Shared) {
        let mut id = UNKNOWN;
        self.put(&mut id, line, value, at, shared);
        if id < DEFERRED {
            self.once.push(SeriesId(id));
        }
    }

    #[inline(never)]
    fn submit(&mut self) {
        if !self.points.is_empty() {
            self.sink.submit(&self.points);
            self.points.clear();
        }
        if !self.once.is_empty() {
            self.sink.release(&self.once);
            self.once.clear();
        }
    }
}

impl Text {
    fn send(&mut self, patience: &mut Duration, shared: &Shared) {
        if self.buffer.is_empty() {
            return;
        }
        let bytes: Arc<[u8]> = Arc::from(&self.buffer[..]);
        for remote in &self.remotes {
            let dropped = remote.push(bytes.clone(), self.lines, patience);
            shared
                .stats
                .lines_dropped
                .fetch_add(dropped, Ordering::Relaxed);
        }
        self.buffer.clear();
        self.lines = 0;
    }
}

fn send_pickles(
    pickles: &mut Pickles,
    remotes: &[Arc<Remote>],
    patience: &mut Duration,
    shared: &Shared,
) {
    let Some((bytes, lines)) = pickles.take() else {
        return;
    };
    for remote in remotes {
        let dropped = remote.push(bytes.clone(), lines, patience);
        shared
            .stats
            .lines_dropped
            .fetch_add(dropped, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naming::Section;
    use std::collections::HashMap;
    use std::sync::Mutex;

    /// Takes as many series as there is room for, and counts how often it is asked.
    #[derive(Default)]
    struct Narrow {
        room: Mutex<usize>,
        names: Mutex<HashMap<Vec<u8>, u32>>,
        asked: Mutex<u64>,
        points: Mutex<Vec<u32>>,
    }

    impl Sink for Narrow {
        fn intern(&self, name: &[u8]) -> Result<SeriesId, NameError> {
            *self.asked.lock().unwrap() += 1;
            if name.starts_with(b"bad") {
                return Err(NameError::Forbidden);
            }
            let mut names = self.names.lock().unwrap();
            let next = names.len() as u32;
            match names.get(name) {
                Some(id) => Ok(SeriesId(*id)),
                None if names.len() < *self.room.lock().unwrap() => {
                    names.insert(name.to_vec(), next);
                    Ok(SeriesId(next))
                }
                None => Err(NameError::TooMany),
            }
        }

        fn submit(&self, points: &[Datapoint]) {
            let mut all = self.points.lock().unwrap();
            all.extend(points.iter().map(|point| point.series.0));
        }

        fn try_submit(&self, points: &[Datapoint]) -> usize {
            self.submit(points);
            points.len()
        }
    }

    #[test]
    fn refused_series_are_offered_again_some_at_a_time() {
        const SERIES: usize = 2_500;
        let narrow = Arc::new(Narrow::default());
        let shared = Arc::new(Shared::default());
        let destinations = Destinations {
            sink: Some(narrow.clone()),
            text: Vec::new(),
            pickle: Vec::new(),
            console: None,
            patience: Duration::ZERO,
        };
        let mut outputs = Outputs::new(destinations, shared.clone());
        let mut ids = vec![UNKNOWN; SERIES];
        let mut flush = || {
            outputs.begin(1e9);
            for (at, id) in ids.iter_mut().enumerate() {
                let kind = if at < 10 { "bad" } else { "good" };
                let name = format!("{kind}{at}").into_bytes();
                let line = Line {
                    section: Section::Elsewhere,
                    namespace: b"",
                    name: &name,
                    stat: b"",
                    suffix: b"",
                };
                outputs.line(Some(id), &line, 1.0);
            }
            outputs.end();
            std::mem::take(&mut *narrow.asked.lock().unwrap())
        };
        assert_eq!(flush(), SERIES as u64);
        for _ in 0..4 {
            assert!(flush() <= OFFERS);
        }
        let refused = &shared.stats.series_refused;
        assert_eq!(refused.load(Ordering::Relaxed), SERIES as u64);
        let points = &shared.stats.points_refused;
        assert_eq!(points.load(Ordering::Relaxed), 5 * SERIES as u64);
        // As soon as there is room all that can be taken are.
        *narrow.room.lock().unwrap() = usize::MAX;
        for _ in 0..4 {
            flush();
        }
        assert_eq!(narrow.names.lock().unwrap().len(), SERIES - 10);
        assert_eq!(flush(), 0);
        narrow.points.lock().unwrap().clear();
        flush();
        assert_eq!(narrow.points.lock().unwrap().len(), SERIES - 10);
    }
}
