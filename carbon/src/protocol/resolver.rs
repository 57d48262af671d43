//! Where the metrics of every receiver end: a name, a timestamp and a value become a datapoint of an
//! interned series, or a reject that is counted by its cause.
//!
//! 1. A receiver reads a batch (the whole lines of a buffer, a frame, a datagram), makes a resolver
//!    for it ([`Carbon::resolver`]), and calls [`Resolver::take`] or [`Resolver::reject`] for each
//!    metric, in the order of the input.
//! 2. A known name costs one hash and one comparison ([`Resolver::known`]); nothing is allocated. A
//!    new name takes the cold path ([`Resolver::admit`]), where it may be over a limit: its metric is
//!    refused and counted, its neighbours are not.
//! 3. While rules are configured (`carbon::rules`), they decide where a metric goes, and every name
//!    takes the path of [`Resolver::admit`]; a name that was judged before costs one hash there.
//! 4. The resolver holds the names for reading while it lives: it must be gone before the receiver
//!    waits. The receiver takes a pin of the index before ([`Index::pin`]) and keeps it until it has
//!    submitted the datapoints.

use parking_lot::RwLockReadGuard;
use whisper::Timestamp;

use crate::datapoint::{Datapoint, NameError, PointTime, SeriesId};
use crate::index::Index;
use crate::rules::{Rules, Session};
use crate::series::{MAX_NAME, Names};
use crate::stats::Stats;
use crate::store::Carbon;

/// Why input was refused before a name was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// A line does not have three fields.
    #[error("the line does not have three fields")]
    Fields,
    /// The value is not a finite number.
    #[error("the value is not a finite number")]
    Value,
    /// The timestamp is out of range or not a number.
    #[error("the timestamp is not a number of seconds from 1 to 4294967295")]
    Timestamp,
    /// A line is too long.
    #[error("the line is too long")]
    Length,
    /// A connection ended inside a line or a frame.
    #[error("the connection ended inside a line or a frame")]
    Torn,
    /// A frame does not hold what its protocol says.
    #[error("the frame is malformed")]
    Frame,
    /// A frame is longer than the limit.
    #[error("the frame is longer than carbon.max_frame_size")]
    FrameLength,
    /// A pickle refers to classes or functions.
    #[error("the pickle refers to code, which is never loaded")]
    Code,
    /// An item of a pickle is not (name, (timestamp, value)).
    #[error("an item of the pickle is not (name, (timestamp, value))")]
    Item,
}

/// The first input of a batch that was refused, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: String,
    /// The start of a line, a name or a frame; at most [`SAMPLE`] bytes.
    pub sample: Box<[u8]>,
}

/// How many bytes of refused input the log shows.
pub const SAMPLE: usize = 120;

/// The timestamp of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Seconds since 1970.
    Time(PointTime),
    /// The time of receipt.
    Now,
}

impl At {
    /// The timestamp that a client sent as the number `seconds`: a fraction is cut off, and -1
    /// (with carbon, each number from -1 down to above -2) is the time of receipt. `None` if it is
    /// out of the range from 1 to 4294967295, or not a number.
    pub fn seconds(seconds: f64) -> Option<Self> {
        if seconds.trunc() == -1.0 {
            return Some(Self::Now);
        }
        let floor = seconds.floor();
        if !(1.0..=f64::from(u32::MAX)).contains(&floor) {
            return None;
        }
        PointTime::new(Timestamp(floor as u32)).map(Self::Time)
    }
}

/// Makes datapoints of the metrics of one batch.
#[derive(Debug)]
pub struct Resolver<'a> {
    index: &'a Index,
    stats: &'a Stats,
    /// `None` while a new name is admitted, which needs the names for writing, and with `rules`.
    names: Option<RwLockReadGuard<'a, Names>>,
    rules: Option<Session<'a>>,
    now: Timestamp,
    out: &'a mut Vec<Datapoint>,
    refused: Option<Refused>,
}

impl Carbon {
    /// A resolver for a batch that is received now; it appends to `out`.
    pub fn resolver<'a>(&'a self, out: &'a mut Vec<Datapoint>) -> Resolver<'a> {
        let resolver = Resolver::new(self.index(), self.stats(), self.now(), out);
        match &self.0.rules {
            None => resolver,
            Some(rules) => resolver.ruled(rules),
        }
    }
}

impl<'a> Resolver<'a> {
    /// A resolver without rules for a batch received at `now`; it appends to `out`.
    pub fn new(
        index: &'a Index,
        stats: &'a Stats,
        now: Timestamp,
        out: &'a mut Vec<Datapoint>,
    ) -> Self {
        Self {
            index,
            stats,
            names: Some(index.names()),
            rules: None,
            now,
            out,
            refused: None,
        }
    }

    fn ruled(self, rules: &'a Rules) -> Self {
        Self {
            names: None,
            rules: Some(Session::new(rules, self.index, self.stats, self.now)),
            ..self
        }
    }

    /// Takes one metric. The name is as the client sent it; one of more than [`MAX_NAME`] bytes is refused,
    /// even if its canonical form would be shorter, and so is a value that is not finite.
    #[inline]
    pub fn take(&mut self, name: &[u8], at: At, value: f64) {
        // A frame may refer to one long name many times: not even its hash may be made each time.
        if name.len() > MAX_NAME {
            return self.refuse(NameError::TooLong, name);
        }
        if !value.is_finite() {
            return self.reject(Reject::Value, name);
        }
        let at = match at {
            At::Time(at) => at,
            At::Now => PointTime::of_clock(self.now),
        };
        let series = match self.known(name) {
            Some(series) => series,
            None => match self.admit(name, at, value) {
                Some(series) => series,
                None => return,
            },
        };
        self.out.push(Datapoint { series, at, value });
    }

    /// Counts input that is not taken; `sample` is a part of it that the log may show.
    #[cold]
    pub fn reject(&mut self, reject: Reject, sample: &[u8]) {
        let stats = self.stats;
        let counter = match reject {
            Reject::Fields => &stats.rejected_fields,
            Reject::Value => &stats.rejected_value,
            Reject::Timestamp => &stats.rejected_timestamp,
            Reject::Length => &stats.rejected_length,
            Reject::Torn => &stats.rejected_torn,
            Reject::Frame => &stats.rejected_frame,
            Reject::FrameLength => &stats.rejected_frame_length,
            Reject::Code => &stats.rejected_code,
            Reject::Item => &stats.rejected_item,
        };
        counter.add(1);
        self.keep(&reject, sample);
    }

    /// The first input that was refused, if any.
    pub fn refused(&mut self) -> Option<Refused> {
        self.refused.take()
    }

    fn keep(&mut self, reason: &dyn std::fmt::Display, sample: &[u8]) {
        if self.refused.is_none() {
            self.refused = Some(Refused {
                reason: reason.to_string(),
                sample: sample[..sample.len().min(SAMPLE)].into(),
            });
        }
    }

    /// The series that `name` was resolved to before.
    #[inline]
    fn known(&mut self, name: &[u8]) -> Option<SeriesId> {
        self.names.as_ref()?.get(name)
    }

    /// The series of a name that is seen for the first time, or that rules decide about; `None` if the
    /// metric is not stored, which is counted.
    #[cold]
    fn admit(&mut self, name: &[u8], at: PointTime, value: f64) -> Option<SeriesId> {
        let admitted = match &mut self.rules {
            Some(rules) => rules.take(name, at, value),
            None => {
                // The index writes a new name: readers must let go first.
                self.names = None;
                let admitted = self.index.admit(name).map(Some);
                self.names = Some(self.index.names());
                admitted
            }
        };
        admitted.unwrap_or_else(|reason| {
            self.refuse(reason, name);
            None
        })
    }

    /// Counts a metric whose name is refused.
    #[cold]
    fn refuse(&mut self, reason: NameError, name: &[u8]) {
        self.stats.count_refusal(reason);
        // The index itself logs what is over a limit.
        if !matches!(reason, NameError::Limit(_)) {
            self.keep(&reason, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_cut_and_minus_one_is_now() {
        let time = |seconds| PointTime::new(Timestamp(seconds)).map(At::Time);
        for (seconds, at) in [
            (1.0, time(1)),
            (1.9, time(1)),
            (4294967295.9, time(u32::MAX)),
            (-1.0, Some(At::Now)),
            (-1.9, Some(At::Now)),
            (0.0, None),
            (0.9, None),
            (-2.0, None),
            (4294967296.0, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
            (f64::NEG_INFINITY, None),
        ] {
            assert_eq!(At::seconds(seconds), at, "{seconds}");
        }
    }

    #[test]
    fn each_metric_is_a_datapoint_or_a_counted_reject() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), dir.path().join("names"), true).unwrap();
        let stats = Stats::default();
        let mut out = Vec::new();
        let mut resolver = Resolver::new(&index, &stats, Timestamp(50), &mut out);
        resolver.take(b"a", At::Time(PointTime::new(Timestamp(7)).unwrap()), 1.0);
        resolver.take(b"a\0b", At::Now, 1.0);
        resolver.take(b"b", At::Now, f64::INFINITY);
        resolver.take(b"b", At::Now, f64::NAN);
        resolver.reject(Reject::Timestamp, b"c 1 x");
        resolver.take(b"a", At::Now, 2.0);
        let refused = resolver.refused().unwrap();
        assert_eq!(&*refused.sample, b"a\0b");
        assert!(resolver.refused().is_none());
        drop(resolver);
        let (a, b) = (&out[0], &out[1]);
        assert_eq!((out.len(), a.series), (2, b.series));
        assert_eq!(
            (a.at.timestamp().0, a.value, b.at.timestamp().0, b.value),
            (7, 1.0, 50, 2.0)
        );
        let counted = [
            &stats.rejected_name,
            &stats.rejected_value,
            &stats.rejected_timestamp,
        ];
        assert_eq!(counted.map(|counter| counter.get()), [1, 2, 1]);
    }

    #[test]
    fn a_long_name_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), dir.path().join("names"), true).unwrap();
        let (stats, mut out) = (Stats::default(), Vec::new());
        let mut resolver = Resolver::new(&index, &stats, Timestamp(50), &mut out);
        // It is not UTF-8, which only reading it would show.
        resolver.take(&[0xff; MAX_NAME + 1], At::Now, 1.0);
        let refused = resolver.refused().unwrap();
        assert_eq!(refused.reason, NameError::TooLong.to_string());
        assert_eq!(refused.sample.len(), SAMPLE);
        drop(resolver);
        assert_eq!((stats.rejected_name.get(), out.len()), (1, 0));
    }
}
