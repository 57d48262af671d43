//! Rules that were too expensive to apply.

use crate::pattern::PatternError;

/// Rules that could not be applied within bounds: they count as not matching.
#[derive(Debug, Default)]
pub struct Faults {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Option<PatternError>,
}

impl Faults {
    pub(crate) fn note<T>(&mut self, result: Result<T, PatternError>) -> Option<T> {
        result
            .map_err(|error| {
                self.count += 1;
                self.first.get_or_insert(error);
            })
            .ok()
    }
}
