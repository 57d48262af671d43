//! Timestamps and steps: the two numbers of a whisper file that must not be mixed up.

use std::fmt;
use std::num::NonZeroU32;

/// A timestamp, in whole seconds since 1970 (all that a whisper file can hold).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u32);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The seconds per point of an archive. Never zero, so dividing by it cannot fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Step(NonZeroU32);

impl Step {
    /// A step of `seconds`, or `None` for zero.
    pub const fn new(seconds: u32) -> Option<Self> {
        match NonZeroU32::new(seconds) {
            Some(seconds) => Some(Self(seconds)),
            None => None,
        }
    }

    /// The step in seconds.
    pub const fn seconds(self) -> u32 {
        self.0.get()
    }

    /// The start of the step that holds `at`: steps of 10 put 1009 into 1000.
    pub const fn floor(self, at: Timestamp) -> Timestamp {
        Timestamp(at.0 - at.0 % self.0.get())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_floors_to_its_start() {
        let step = Step::new(10).unwrap();
        assert_eq!(step.floor(Timestamp(1009)), Timestamp(1000));
        assert_eq!(step.floor(Timestamp(1010)), Timestamp(1010));
        assert_eq!(Step::new(0), None);
    }
}
