//! Retention definitions: how fine, and for how long.
//!
//! Two parsers of the field read almost the same text. [`Retention::parse_whisper`] is that of
//! whisper's tools (`60:1440`, `1min:30day`), [`Retention::parse_carbon`] that of carbon's
//! `storage-schemas.conf` (units are one letter). In both a plain number after the colon is a
//! **number of points**. go-carbon reads `1m:1440`, a unit before and none after the colon, as
//! 1440 *seconds* (24 points); here, as in Graphite, it is 1440 points.

use crate::error::{Error, Result};
use crate::units::Step;

/// A step and a number of points: one archive, before it has a place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retention {
    /// Seconds per point.
    pub step: Step,
    /// How many points are kept.
    pub points: u32,
}

/// Units in the order in which a prefix of them is looked for: "m" is minutes.
const UNITS: [(&str, u64); 6] = [
    ("seconds", 1),
    ("minutes", 60),
    ("hours", 3_600),
    ("days", 86_400),
    ("weeks", 604_800),
    ("years", 31_536_000),
];

impl Retention {
    /// A retention, or `None` for a step of zero.
    pub const fn new(step_seconds: u32, points: u32) -> Option<Self> {
        match Step::new(step_seconds) {
            Some(step) => Some(Self { step, points }),
            None => None,
        }
    }

    /// How far back it reaches, in seconds.
    pub const fn seconds(self) -> u64 {
        self.step.seconds() as u64 * self.points as u64
    }

    /// Reads one definition as `whisper-create` does: units are any prefix of seconds, minutes,
    /// hours, days, weeks or years.
    ///
    /// # Errors
    /// [`Error::Retention`] if the text is no such definition, or its step is zero.
    pub fn parse_whisper(text: &str) -> Result<Self> {
        Self::from_numbers(text, numbers(text)?)
    }

    /// Reads one definition as carbon's `storage-schemas.conf` does: units are exactly one of
    /// s, m, h, d, w, y.
    ///
    /// # Errors
    /// As [`Retention::parse_whisper`].
    pub fn parse_carbon(text: &str) -> Result<Self> {
        Self::from_numbers(text, parse(text, Unit::Letter)?)
    }

    /// Reads a comma-separated list of definitions with [`Retention::parse_carbon`].
    ///
    /// # Errors
    /// The first definition's that cannot be read.
    pub fn parse_carbon_list(text: &str) -> Result<Vec<Self>> {
        text.split(',').map(Self::parse_carbon).collect()
    }

    fn from_numbers(text: &str, (step, points): (u64, u64)) -> Result<Self> {
        let refuse = |reason| Error::Retention {
            text: text.to_owned(),
            reason,
        };
        let step = u32::try_from(step).map_err(|_| refuse("the step is too long"))?;
        let points = u32::try_from(points).map_err(|_| refuse("too many points"))?;
        Self::new(step, points).ok_or_else(|| refuse("a step of zero seconds"))
    }
}

/// Reads a definition into seconds per point and points, of any size: zero is left for
/// for the creation of a file to refuse. This is `whisper.parseRetentionDef`.
///
/// # Errors
/// [`Error::Retention`] if the text is no definition, or divides by a step of zero.
pub fn numbers(text: &str) -> Result<(u64, u64)> {
    parse(text, Unit::Prefix)
}

#[derive(Clone, Copy)]
enum Unit {
    Prefix,
    Letter,
}

fn parse(text: &str, unit: Unit) -> Result<(u64, u64)> {
    let refuse = |reason| Error::Retention {
        text: text.to_owned(),
        reason,
    };
    let (precision, length) = text
        .trim()
        .split_once(':')
        .ok_or_else(|| refuse("no colon between step and length"))?;
    let step = match amount(precision, unit).ok_or_else(|| refuse("the step is not a duration"))? {
        Amount::Plain(seconds) | Amount::Seconds(seconds) => seconds,
    };
    let points = match amount(length, unit).ok_or_else(|| refuse("the length is not a duration"))? {
        Amount::Plain(points) => points,
        Amount::Seconds(seconds) => seconds
            .checked_div(step)
            .ok_or_else(|| refuse("a step of zero seconds"))?,
    };
    Ok((step, points))
}

enum Amount {
    Plain(u64),
    Seconds(u64),
}

fn amount(text: &str, unit: Unit) -> Option<Amount> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    if suffix.is_empty() {
        return Some(Amount::Plain(number));
    }
    let (_, seconds) = UNITS.iter().find(|(name, _)| match unit {
        Unit::Prefix => name.starts_with(suffix),
        Unit::Letter => &name[..1] == suffix,
    })?;
    Some(Amount::Seconds(number.checked_mul(*seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_length_is_points_and_a_unit_makes_it_time() {
        let parsed = Retention::parse_whisper("1min:30day").unwrap();
        assert_eq!((parsed.step.seconds(), parsed.points), (60, 43_200));
        // go-carbon reads this as 1440 seconds.
        let parsed = Retention::parse_carbon("1m:1440").unwrap();
        assert_eq!((parsed.step.seconds(), parsed.points), (60, 1440));
    }

    #[test]
    fn carbon_takes_single_letters_only() {
        assert!(Retention::parse_carbon("1min:30d").is_err());
        assert_eq!(
            Retention::parse_carbon_list("10s:6h,1m:7d").unwrap().len(),
            2
        );
    }

    #[test]
    fn zero_steps_are_read_but_are_no_retention() {
        assert_eq!(numbers("0:10").unwrap(), (0, 10));
        assert!(Retention::parse_whisper("0:10").is_err());
        assert!(numbers("0:1h").is_err());
        assert!(numbers("99999999999999999999y:1").is_err());
    }
}
