//! Durations like `"10s"` and sizes like `"64MiB"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time, written as a number and a unit: `"200ms"`, `"10s"`, `"1m"`, `"6h"`, `"7d"`,
/// `"1w"`, `"1y"` (365 days), or several together (`"1h30m"`); at most 100 years. `"0s"` usually
/// means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes, written `"512B"`, `"64KiB"`, `"512MiB"`, `"1GiB"` (or `kB`, `MB`, `GB` for
/// powers of 1000).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// The reason for which a value in text form is refused, and the accepted form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown} is not {wanted}, write {accepted}")]
pub struct UnitError {
    shown: String,
    wanted: &'static str,
    accepted: String,
}

impl UnitError {
    /// `text` is not `wanted`; `accepted` is an example, or several, with quotes.
    pub fn new(text: &str, wanted: &'static str, accepted: impl Into<String>) -> Self {
        Self {
            shown: format!("{text:?}"),
            wanted,
            accepted: accepted.into(),
        }
    }
}

/// Longer than any setting needs to be, and short enough to be added to any point in time.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

impl Span {
    /// A span of whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A span of milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || {
            let digits = text.trim();
            let bare = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let accepted = match bare {
                true => format!("\"{digits}s\""),
                false => "\"200ms\", \"10s\", \"5m\", \"6h\" or \"7d\"".to_owned(),
            };
            UnitError::new(text, "a duration", accepted)
        };
        let too_long = || UnitError::new(text, "a duration up to 100 years", "\"7d\"");
        let mut rest = text.trim();
        let mut total = Duration::ZERO;
        if rest.is_empty() {
            return Err(refuse());
        }
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or_else(refuse)?;
            if digits == 0 {
                return Err(refuse());
            }
            let number: u64 = rest[..digits].parse().map_err(|_| too_long())?;
            rest = &rest[digits..];
            let letters = rest
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(rest.len());
            let unit_ms = match &rest[..letters] {
                "ms" => 1,
                "s" => 1_000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                "w" => 7 * 86_400_000,
                "y" => 365 * 86_400_000,
                _ => return Err(refuse()),
            };
            let part = number.checked_mul(unit_ms).ok_or_else(too_long)?;
            total = total
                .checked_add(Duration::from_millis(part))
                .filter(|total| *total <= LONGEST)
                .ok_or_else(too_long)?;
            rest = &rest[letters..];
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = self.0.as_millis();
        if ms == 0 {
            return f.write_str("0s");
        }
        for (unit, name) in [
            (86_400_000, "d"),
            (3_600_000, "h"),
            (60_000, "m"),
            (1_000, "s"),
            (1, "ms"),
        ] {
            if ms >= unit {
                write!(f, "{}{name}", ms / unit)?;
                ms %= unit;
            }
        }
        Ok(())
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || UnitError::new(text, "a size", "\"64KiB\", \"512MiB\" or \"1GiB\"");
        let trimmed = text.trim();
        let digits = trimmed
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(trimmed.len());
        let number: u64 = trimmed[..digits].parse().map_err(|_| refuse())?;
        let unit: u64 = match trimmed[digits..].trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(refuse()),
        };
        number.checked_mul(unit).map(Self).ok_or_else(refuse)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, name) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >> shift > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{name}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// Makes a type with `FromStr` and `Display` readable and writable as text in quotes. The second
/// argument is what a value must be, the third how a bare number is written instead.
///
/// ```
/// use std::fmt;
/// use std::str::FromStr;
///
/// struct Percent(u8);
///
/// impl FromStr for Percent {
///     type Err = settings::UnitError;
///
///     fn from_str(text: &str) -> Result<Self, settings::UnitError> {
///         let number = text.strip_suffix('%').and_then(|digits| digits.parse().ok());
///         number
///             .map(Self)
///             .ok_or_else(|| settings::UnitError::new(text, "a percentage", "\"90%\""))
///     }
/// }
///
/// impl fmt::Display for Percent {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         write!(f, "{}%", self.0)
///     }
/// }
///
/// settings::text!(Percent, "a percentage", "{}%");
/// let mut complaints = Vec::new();
/// let mut number = settings::Node::new(settings::Place::Line(1), settings::Kind::Integer(90));
/// assert!(settings::read::<Percent>(&mut number, &|_| None, &mut complaints).is_none());
/// assert_eq!(complaints[0].message, "90 is not a percentage, write \"90%\"");
/// ```
#[macro_export]
macro_rules! text {
    ($type:ty, $wanted:literal, $number:literal) => {
        impl $crate::serde::Serialize for $type {
            fn serialize<S: $crate::serde::Serializer>(
                &self,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> $crate::serde::Deserialize<'de> for $type {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                use $crate::serde::de::{Error, Visitor};

                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str($wanted)
                    }

                    fn visit_str<E: Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_i64<E: Error>(self, number: i64) -> Result<$type, E> {
                        let accepted = format!($number, number.unsigned_abs());
                        Err(E::custom(format!(
                            "{number} is not {}, write \"{accepted}\"",
                            $wanted
                        )))
                    }

                    fn visit_u64<E: Error>(self, number: u64) -> Result<$type, E> {
                        let accepted = format!($number, number);
                        Err(E::custom(format!(
                            "{number} is not {}, write \"{accepted}\"",
                            $wanted
                        )))
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

text!(Span, "a duration", "{}s");
text!(ByteSize, "a size", "{}B");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kind, Node, Place, read};

    #[test]
    fn spans_read_back_as_printed() {
        for (text, ms) in [
            ("200ms", 200),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("100y", 3_153_600_000_000),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span, Span::millis(ms));
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
        for bad in [
            "",
            "10",
            "s",
            "1x",
            "-1s",
            "101y",
            "99999999999999999999s",
            "1s 2s",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert_eq!(Span::default().to_string(), "0s");
    }

    #[test]
    fn sizes_read_back_as_printed() {
        for (text, bytes) in [
            ("64KiB", 65_536),
            ("1GiB", 1 << 30),
            ("5", 5),
            ("2MB", 2_000_000),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size, ByteSize(bytes));
            assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
        }
        for bad in ["", "GiB", "1Gb", "-1", "99999999999TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_refused_with_the_unit_added() {
        fn said<T: serde::de::DeserializeOwned>(kind: Kind) -> String {
            let mut complaints = Vec::new();
            let mut node = Node::new(Place::Line(1), kind);
            assert!(read::<T>(&mut node, &|_| None, &mut complaints).is_none());
            complaints.remove(0).message
        }
        assert_eq!(
            said::<Span>(Kind::Integer(10)),
            "10 is not a duration, write \"10s\""
        );
        assert_eq!(
            said::<Span>(Kind::Text("10".to_owned())),
            "\"10\" is not a duration, write \"10s\""
        );
        assert_eq!(
            said::<ByteSize>(Kind::Integer(4096)),
            "4096 is not a size, write \"4096B\""
        );
    }
}
