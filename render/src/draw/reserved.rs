//! Large lists whose memory is reserved in the budget before it is allocated.

use crate::budget::{Budget, Reservation};
use crate::error::Result;
use crate::format::buffer::unavailable;

/// An empty list for `n` items, reserved from `budget`.
pub(super) fn empty<T>(n: usize, budget: &Budget) -> Result<(Vec<T>, Reservation)> {
    let bytes = n.saturating_mul(size_of::<T>());
    let held = budget.hold(bytes)?;
    let mut list = Vec::new();
    match list.try_reserve_exact(n) {
        Ok(()) => Ok((list, held)),
        Err(_) => Err(unavailable(bytes, budget)),
    }
}

/// So many zeros, reserved from `budget`.
pub(super) fn zeros(n: usize, budget: &Budget) -> Result<(Vec<u8>, Reservation)> {
    let (mut list, held) = empty(n, budget)?;
    list.resize(n, 0);
    Ok((list, held))
}
