//! The percentile that Graphite means: rank `n / 100 · (count + 1)` in the sorted present values.
//!
//! It is neither statsd's nor numpy's definition. The rank is an index counted from one that may
//! fall outside the list; Python then counts from the end or fails, and both matter: a rank
//! below one is recorded as an answer, one past the end is [`OutOfRange`].

use whisper::{ABSENT, is_absent};

use crate::python;

/// The percentile asked for lies beyond the values there are (above 100, say).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfRange;

/// The `n`th percentile of the present values of `cells`, [`ABSENT`] when there are none.
///
/// Without `interpolate` the rank is rounded up to a value that occurs; with it the gap to the
/// next value is divided in proportion.
///
/// # Errors
/// [`OutOfRange`] when the rank names no value.
pub(super) fn percentile(cells: &[f64], n: f64, interpolate: bool) -> Result<f64, OutOfRange> {
    let mut sorted = Vec::with_capacity(cells.len());
    sorted.extend(cells.iter().copied().filter(|&v| !is_absent(v)));
    python::sort(&mut sorted);
    of_sorted(&sorted, n, interpolate)
}

/// [`percentile`] of values that are sorted and all present.
pub(super) fn of_sorted(sorted: &[f64], n: f64, interpolate: bool) -> Result<f64, OutOfRange> {
    let Some(&last) = sorted.last() else {
        return Ok(ABSENT);
    };
    let count = sorted.len() as i64;
    let fractional = n / 100.0 * (sorted.len() + 1) as f64;
    if !fractional.is_finite() {
        return Err(OutOfRange);
    }
    // Saturates far outside any list.
    let mut rank = fractional.trunc() as i64;
    let fraction = fractional - rank as f64;
    if !interpolate {
        rank = rank.saturating_add(fraction.ceil() as i64);
    }
    let value = if rank == 0 {
        sorted[0]
    } else if rank.saturating_sub(1) == count {
        last
    } else {
        at(sorted, rank.saturating_sub(1))?
    };
    if interpolate && rank != count {
        let next = at(sorted, rank)?;
        return Ok(value + fraction * (next - value));
    }
    Ok(value)
}

/// The value at `index`, counted from the end when negative.
fn at(sorted: &[f64], index: i64) -> Result<f64, OutOfRange> {
    let from_start = if index < 0 {
        index.saturating_add(sorted.len() as i64)
    } else {
        index
    };
    usize::try_from(from_start)
        .ok()
        .and_then(|index| sorted.get(index).copied())
        .ok_or(OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELLS: [f64; 6] = [30.0, ABSENT, 10.0, 20.0, 50.0, 40.0];

    #[test]
    fn the_rank_is_rounded_up_to_a_value_that_occurs() {
        for (n, value) in [
            (1.0, 10.0),
            (50.0, 30.0),
            (51.0, 40.0),
            (95.0, 50.0),
            (100.0, 50.0),
        ] {
            assert_eq!(percentile(&CELLS, n, false), Ok(value), "{n}");
        }
    }

    #[test]
    fn interpolation_divides_the_gap() {
        assert_eq!(percentile(&CELLS, 50.0, true), Ok(30.0));
        assert_eq!(percentile(&CELLS, 60.0, true), Ok(36.0));
        // Below the first rank Graphite starts at the first value as well.
        assert_eq!(percentile(&CELLS, 10.0, true), Ok(10.0));
    }

    #[test]
    fn ranks_outside_the_list() {
        assert_eq!(percentile(&[ABSENT], 50.0, false).map(is_absent), Ok(true));
        assert_eq!(percentile(&CELLS, 150.0, false), Err(OutOfRange));
        assert_eq!(percentile(&CELLS, 1e300, false), Err(OutOfRange));
        assert_eq!(percentile(&CELLS, f64::NAN, false), Err(OutOfRange));
        assert_eq!(percentile(&CELLS, 100.0, true), Err(OutOfRange));
        // A negative one counts from the end: rank -1 (rounded towards zero) is index -2.
        assert_eq!(percentile(&CELLS, -20.0, false), Ok(40.0));
    }
}
