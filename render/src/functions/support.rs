//! Helpers that functions of several families share.

use crate::aggregate::Aggregate;
use crate::budget::{Budget, Reservation};
use crate::error::{Error, Result};
use crate::series::{Series, bytes_of};

/// The stack of series that name no stack.
pub(super) const DEFAULT_STACK: &str = "__DEFAULT__";

/// How many bytes a function may make a name grow to. Names that join those of many series
/// (`sumSeries`) may be longer.
pub(super) const MAX_NAME: usize = 64 << 10;

/// Checks that what becomes of `name` is not too long.
///
/// # Errors
/// [`Error::Refused`] if `length` passes [`MAX_NAME`] and the length of `name`.
pub(super) fn check_length(length: usize, name: &str) -> Result<()> {
    if length <= MAX_NAME.max(name.len()) {
        return Ok(());
    }
    Err(Error::refused(format!(
        "a name would grow to more than {MAX_NAME} bytes: replace less of it, or with less"
    )))
}

/// `template` with `value` in place of each `%`.
///
/// # Errors
/// As [`check_length`].
pub(super) fn filled_in(template: &str, value: &str) -> Result<String> {
    let n_places = template.matches('%').count();
    let length = template
        .len()
        .saturating_add(n_places.saturating_mul(value.len()));
    check_length(length, value)?;
    Ok(template.replace('%', value))
}

/// Sets memory aside for a copy of the values of one of `all` that is sorted, and for the sorting.
///
/// # Errors
/// As [`Budget::reserve`].
pub(super) fn room_for_copy(all: &[Series], budget: &Budget) -> Result<Reservation> {
    let longest = all.iter().map(|series| series.values.len()).max();
    // A stable sort takes as much again.
    budget.hold(bytes_of(longest.unwrap_or(0).saturating_mul(2)))
}

/// As [`room_for_copy`], if [`Aggregate::of`] makes one.
///
/// # Errors
/// As [`Budget::reserve`].
pub(super) fn room_for(
    aggregate: Aggregate,
    all: &[Series],
    budget: &Budget,
) -> Result<Option<Reservation>> {
    match aggregate {
        Aggregate::Median => room_for_copy(all, budget).map(Some),
        _ => Ok(None),
    }
}

/// Those of `all` that are wanted.
///
/// # Errors
/// As [`Budget::check`].
pub(super) fn kept(
    mut all: Vec<Series>,
    budget: &Budget,
    wanted: impl Fn(&Series) -> bool,
) -> Result<Vec<Series>> {
    let mut pace = budget.pace();
    let mut checked = Ok(());
    all.retain(|series| {
        if checked.is_ok() {
            checked = pace.check_after(series.values.len() + 1);
        }
        checked.is_ok() && wanted(series)
    });
    checked.map(|()| all)
}

/// The nodes of the innermost call's first argument, sliced as Python slices lists; `stop` 0 is
/// the end.
pub(super) fn nodes_between(name: &str, start: i64, stop: i64) -> String {
    let left = name.rfind('(').map_or(0, |at| at + 1);
    let right = name.find(')').unwrap_or(name.len());
    let inner = name.get(left..right).unwrap_or("");
    let nodes: Vec<&str> = inner.split('.').collect();
    let n = nodes.len() as i64;
    let place = |at: i64| {
        let at = if at < 0 { at.saturating_add(n) } else { at };
        usize::try_from(at.clamp(0, n)).unwrap_or(0)
    };
    let (start, stop) = (
        place(start),
        if stop == 0 { nodes.len() } else { place(stop) },
    );
    let kept = nodes.get(start..stop).unwrap_or_default().join(".");
    kept.split(',').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_cut_from_the_innermost_call() {
        for (name, start, stop, cut) in [
            ("a.b.c.d", 1, 3, "b.c"),
            ("a.b.c.d", -2, 0, "c.d"),
            ("a.b.c.d", 1, -1, "b.c"),
            ("a.b.c.d", 3, 1, ""),
            ("a.b.c.d", 9, 0, ""),
            ("a.b.c.d", i64::MIN, i64::MAX, "a.b.c.d"),
            ("scale(a.b,2)", 1, 0, "b"),
            ("f(g(a.b.c),h(d.e))", 1, 0, ""),
            ("a)b(c", 0, 0, ""),
        ] {
            assert_eq!(
                nodes_between(name, start, stop),
                cut,
                "{name} {start} {stop}"
            );
        }
    }
}
