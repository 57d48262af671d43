//! A way into the store for series that come at a known interval.

use settings::Span;

use crate::datapoint::{Datapoint, NameError, SeriesId, Sink};
use crate::store::Carbon;

/// A [`Sink`] whose series come once in an interval: statsd's flushes, self metrics. The files of new
/// series need not wait for a second timestamp to get their step.
#[derive(Clone)]
pub struct Every {
    carbon: Carbon,
    seconds: u32,
}

impl Carbon {
    /// A way into the store for series that come every `interval`.
    pub fn every(&self, interval: Span) -> Every {
        Every {
            carbon: self.clone(),
            seconds: u32::try_from(interval.0.as_secs().max(1)).unwrap_or(u32::MAX),
        }
    }
}

impl Sink for Every {
    fn intern(&self, name: &[u8]) -> Result<SeriesId, NameError> {
        let series = self.carbon.intern(name)?;
        self.carbon.0.schema.known.set(series, self.seconds);
        Ok(series)
    }

    fn release(&self, ids: &[SeriesId]) {
        self.carbon.release(ids);
    }

    fn submit(&self, points: &[Datapoint]) {
        self.carbon.submit(points);
    }

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        self.carbon.try_submit(points)
    }
}
