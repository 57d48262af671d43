//! Lines of the saved state: what they begin with, and those of series with samples.
//!
//! `state.rs` has the whole file; each type writes and reads its own lines.

use std::io::{self, Write};

use super::samples::{SampleBuffer, Summary};

/// The most samples that a line can count: all whole numbers up to here are exact as a float. No
/// interval has as many, so a larger count is damage, and it could overflow with the next sample.
const MAX_SAMPLES: u64 = 1 << f64::MANTISSA_DIGITS;

/// What a series has beside its number, to be saved.
pub(crate) struct Content<'a> {
    pub(crate) samples: &'a [f64],
    pub(crate) buffer: Option<&'a SampleBuffer>,
    pub(crate) members: &'a [&'a [u8]],
}

/// What a line of the saved state holds beside the number.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    pub(crate) samples: Vec<f64>,
    pub(crate) buffer: Option<SampleBuffer>,
    pub(crate) members: Vec<Vec<u8>>,
}

/// How a line of the saved state begins.
pub(crate) struct Head<'a> {
    pub(crate) letter: u8,
    pub(crate) name: &'a [u8],
}

impl Head<'_> {
    /// Writes the letter, the name and `value`.
    pub(super) fn write(&self, out: &mut dyn Write, value: f64) -> io::Result<()> {
        out.write_all(&[self.letter, b' '])?;
        out.write_all(self.name)?;
        write!(out, " {value}")
    }
}

/// Writes the lines of a series with samples for the saved state: those of a buffer in a line with
/// the letter `buffer_saved_as`, then the others.
pub(super) fn save(
    out: &mut dyn Write,
    head: &Head<'_>,
    buffer_saved_as: Option<u8>,
    value: f64,
    content: &Content<'_>,
) -> io::Result<u64> {
    let mut lines = 1;
    // The number is in the first of the lines.
    let mut value = value;
    if let (Some(buffer), Some(letter)) = (content.buffer, buffer_saved_as) {
        let Summary {
            count,
            sum,
            squares,
            mean,
            spread,
            lower,
            upper,
        } = buffer.summary;
        let letter = if head.letter.is_ascii_lowercase() {
            letter
        } else {
            letter.to_ascii_uppercase()
        };
        let name = head.name;
        Head { letter, name }.write(out, std::mem::take(&mut value))?;
        write!(
            out,
            " {count} {sum} {squares} {mean} {spread} {lower} {upper}"
        )?;
        for (value, count) in buffer.weighted() {
            write!(out, " {value}*{count}")?;
        }
        out.write_all(b"\n")?;
        lines += 1;
    }
    head.write(out, value)?;
    for value in content.samples {
        write!(out, " {value}")?;
    }
    out.write_all(b"\n")?;
    Ok(lines)
}

/// Reads what [`save`] wrote after the number of a line, samples by `sample`; `None` if it is
/// damaged.
pub(super) fn restore(
    is_buffer: bool,
    words: &mut dyn Iterator<Item = &str>,
    sample: impl Fn(&str) -> Option<f64>,
) -> Option<Saved> {
    if !is_buffer {
        return Some(Saved {
            samples: words.map(sample).collect::<Option<_>>()?,
            ..Saved::default()
        });
    }
    let count: u64 = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse::<f64>().ok();
    let summary = Summary {
        count,
        sum: number()?,
        squares: number()?,
        mean: number()?,
        spread: number()?,
        lower: number()?,
        upper: number()?,
    };
    let is_sound = (1..=MAX_SAMPLES).contains(&count) && summary.lower <= summary.upper;
    if !is_sound {
        return None;
    }
    // A histogram has no negative values, but samples that are not in one yet may be negative.
    let weighted = words.map(|word| {
        let (value, count) = word.split_once('*')?;
        Some((sample(value)?, count.parse().ok()?))
    });
    let weighted: Vec<(f64, u64)> = weighted.collect::<Option<_>>()?;
    Some(Saved {
        buffer: Some(SampleBuffer::restore(summary, &weighted)),
        ..Saved::default()
    })
}

/// A sample that is a number and not negative.
pub(super) fn not_negative(word: &str) -> Option<f64> {
    let value: f64 = word.parse().ok()?;
    // Not -0, which would be sorted behind all others.
    (value >= 0.0).then_some(value + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a line with samples whose count is `count` is taken.
    fn takes(count: &str) -> bool {
        let line = format!("{count} 6 14 2 2 1 3 1*1 2*1 3*1");
        restore(true, &mut line.split(' '), not_negative).is_some()
    }

    #[test]
    fn a_count_that_no_interval_has_is_damage() {
        assert!(takes("3"));
        let most = 1u64 << 53;
        assert!(takes(&most.to_string()));
        for count in ["0", "-3", "2.5", "nan"] {
            assert!(!takes(count), "{count}");
        }
        for count in [most + 1, u64::MAX] {
            assert!(!takes(&count.to_string()), "{count}");
        }
    }
}
