//! What one request may take: time, and a share of the memory that all requests have together.
//!
//! 1. Memory is reserved before it is allocated, and a size that a client decides is reserved
//!    before anything else is done with it. A request that needs more than is left is refused
//!    with a 413 that names `render.max_memory`.
//! 2. Every loop whose length a client decides calls [`Budget::check`], or [`Pace::check`] where
//!    one round is too short to read the clock in.
//! 3. A budget is cancelled when its last client has gone; the next check ends the work.
//! 4. What a request reserved is given back when its last [`Budget`] is dropped, at the latest.
//! 5. Memory that requests have given back and the allocator has not is charged until it is
//!    ([`Memory::charge`]): otherwise the next requests allocate beside it. The same holds for what
//!    they take without a reservation.

mod arriving;
mod available;
mod memory;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

pub use self::arriving::Arriving;
pub use self::available::available;
pub use self::memory::{Memory, Occasion};
use crate::error::{Error, Result};

/// One request's time and memory. Clones share them.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    memory: Arc<Memory>,
    reserved: AtomicU64,
    deadline: Option<Instant>,
    cancelled: AtomicBool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.memory.give_back(*self.reserved.get_mut());
    }
}

impl Budget {
    /// A request that has to be done by `deadline` and reserves from `memory`.
    pub fn new(memory: Arc<Memory>, deadline: Option<Instant>) -> Self {
        Self(Arc::new(Shared {
            memory,
            reserved: AtomicU64::new(0),
            deadline,
            cancelled: AtomicBool::new(false),
        }))
    }

    /// No deadline, and as much memory as there is.
    pub fn unlimited() -> Self {
        Self::new(Memory::new(0), None)
    }

    /// Ends the work at its next check, because no client waits for the answer.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether the work may go on.
    ///
    /// # Errors
    /// [`Error::Timeout`] past the deadline, [`Error::Cancelled`] after [`Budget::cancel`].
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match self.0.deadline {
            Some(at) if Instant::now() > at => Err(Error::Timeout),
            _ => Ok(()),
        }
    }

    /// When the work has to be done.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Sets `bytes` aside, before they are allocated.
    ///
    /// # Errors
    /// [`Error::Limit`] if all requests together would hold more than `render.max_memory`.
    pub fn reserve(&self, bytes: usize) -> Result<()> {
        let shared = &*self.0;
        if !shared.memory.take(bytes as u64) {
            return Err(Error::Limit {
                what: format!(
                    "the request needs {bytes} further bytes of memory beside {} in use",
                    shared.memory.used().saturating_add(shared.memory.charged())
                ),
                key: "render.max_memory",
                limit: usize::try_from(shared.memory.limit).unwrap_or(usize::MAX),
            });
        }
        shared.reserved.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Gives back what was reserved and is free again. More than was reserved counts as all of it.
    pub fn release(&self, bytes: usize) {
        let mut given = 0;
        let less = |reserved: u64| {
            given = reserved.min(bytes as u64);
            Some(reserved - given)
        };
        let shared = &*self.0;
        // The closure never refuses.
        let _ = shared
            .reserved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        shared.memory.give_back(given);
    }

    /// A budget of its own on the same memory, for what outlives the rest of the request.
    pub fn account(&self) -> Self {
        Self::new(Arc::clone(self.memory()), None)
    }

    /// The memory that it reserves from.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.0.memory
    }

    /// Sets `bytes` aside until the reservation is dropped.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    pub fn hold(&self, bytes: usize) -> Result<Reservation> {
        self.reserve(bytes)?;
        Ok(Reservation {
            budget: self.clone(),
            bytes,
        })
    }

    /// Whether [`Budget::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed)
    }

    /// The bytes that the request holds reserved now.
    pub fn reserved(&self) -> u64 {
        self.0.reserved.load(Ordering::Relaxed)
    }

    /// Reservations for many small things, made a step at a time.
    pub fn steps(&self) -> Steps<'_> {
        Steps {
            budget: self,
            left: 0,
        }
    }

    /// Checks for a loop with rounds too short to read the clock in each.
    pub fn pace(&self) -> Pace<'_> {
        Pace {
            budget: self,
            rounds: 0,
        }
    }
}

/// What [`Steps`] reserve at once.
const STEP: usize = 64 << 10;

/// Reserves 64 KiB at a time for things that are far smaller, or exactly what is needed where that
/// much is not left. What was taken stays reserved; the rest of the last step is given back when
/// this is dropped.
#[derive(Debug)]
pub struct Steps<'a> {
    budget: &'a Budget,
    left: usize,
}

impl Steps<'_> {
    /// Sets `bytes` aside, before they are allocated.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    #[inline]
    pub fn take(&mut self, bytes: usize) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => self.step(bytes - self.left),
        }
    }

    /// Reserves `missing` bytes beyond what is left, all of which is taken.
    #[cold]
    fn step(&mut self, missing: usize) -> Result<()> {
        let whole = missing.saturating_add(STEP);
        self.left = match self.budget.reserve(whole) {
            Ok(()) => STEP,
            Err(_) => {
                self.budget.reserve(missing)?;
                0
            }
        };
        Ok(())
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        self.budget.release(self.left);
    }
}

/// Memory that is set aside until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: usize,
}

impl Reservation {
    /// The budget that it is part of.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The bytes that are set aside.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets `bytes` more aside.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        self.budget.reserve(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Makes it `bytes` in all: what was allocated in the end.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    pub fn resize(&mut self, bytes: usize) -> Result<()> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                self.budget.release(self.bytes - bytes);
                self.bytes = bytes;
                Ok(())
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

/// Rounds between two looks at the clock.
const ROUNDS: usize = 1_024;

/// Reads the clock once in 1,024 rounds.
#[derive(Debug)]
pub struct Pace<'a> {
    budget: &'a Budget,
    rounds: usize,
}

impl Pace<'_> {
    /// As [`Budget::check`], in the first and each 1,024th call.
    ///
    /// # Errors
    /// As [`Budget::check`].
    #[inline]
    pub fn check(&mut self) -> Result<()> {
        let due = self.rounds.is_multiple_of(ROUNDS);
        self.rounds = self.rounds.wrapping_add(1);
        if due { self.budget.check() } else { Ok(()) }
    }

    /// As [`Pace::check`] for a round that is as long as `n` short ones.
    ///
    /// # Errors
    /// As [`Budget::check`].
    #[inline]
    pub fn check_after(&mut self, n: usize) -> Result<()> {
        self.rounds = self.rounds.saturating_add(n);
        if self.rounds < ROUNDS {
            return Ok(());
        }
        self.rounds = 0;
        self.budget.check()
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_share_one_memory() {
        let memory = Memory::new(100);
        let one = Budget::new(Arc::clone(&memory), None);
        let other = Budget::new(Arc::clone(&memory), None);
        one.reserve(60).unwrap();
        let refused = other.reserve(41).unwrap_err().to_string();
        assert!(refused.contains("render.max_memory = 100"), "{refused}");
        assert!(
            refused.contains("41 further bytes of memory beside 60 in use"),
            "{refused}"
        );
        other.reserve(40).unwrap();
        one.release(10);
        assert_eq!((one.reserved(), memory.used()), (50, 90));
        drop(one);
        assert_eq!(memory.used(), 40);
        other.release(1_000);
        assert_eq!((other.reserved(), memory.used()), (0, 0));
        assert_eq!(memory.peak(), 100);
        memory.restart_peak();
        assert_eq!(memory.peak(), 0);
    }

    #[test]
    fn steps_reserve_what_is_taken_in_the_end() {
        let memory = Memory::new(2 * STEP as u64);
        let budget = Budget::new(Arc::clone(&memory), None);
        let mut steps = budget.steps();
        steps.take(10).unwrap();
        assert_eq!(budget.reserved(), 10 + STEP as u64);
        for _ in 0..STEP / 8 {
            steps.take(8).unwrap();
        }
        assert_eq!(budget.reserved(), 10 + STEP as u64);
        // No further step is left, but single bytes are.
        steps.take(STEP - 10).unwrap();
        assert_eq!(budget.reserved(), 2 * STEP as u64);
        assert!(steps.take(1).is_err());
        drop(steps);
        assert_eq!(budget.reserved(), 2 * STEP as u64);
        let budget = Budget::unlimited();
        budget.steps().take(7).unwrap();
        assert_eq!(budget.reserved(), 7);
    }

    #[test]
    fn a_reservation_ends_when_it_is_dropped() {
        let memory = Memory::new(100);
        let budget = Budget::new(Arc::clone(&memory), None);
        let mut held = budget.hold(60).unwrap();
        assert!(held.grow(41).is_err());
        held.grow(30).unwrap();
        assert_eq!(memory.used(), 90);
        held.resize(20).unwrap();
        assert_eq!(memory.used(), 20);
        assert!(held.resize(101).is_err());
        drop(budget);
        assert_eq!(memory.used(), 20);
        drop(held);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn long_rounds_look_at_the_clock_as_often_as_short_ones() {
        let gone = Budget::unlimited();
        gone.cancel();
        let mut pace = gone.pace();
        assert!(pace.check_after(1_000).is_ok());
        assert!(pace.check_after(24).is_err());
        assert!(pace.check_after(5_000).is_err());
    }

    #[test]
    fn a_size_that_overflows_is_refused() {
        let memory = Memory::new(0);
        let budget = Budget::new(memory, None);
        budget.reserve(1).unwrap();
        assert!(budget.reserve(usize::MAX).is_err());
    }

    #[test]
    fn a_budget_ends_by_its_deadline_or_by_its_client() {
        let late = Budget::new(Memory::new(0), Some(Instant::now()));
        while late.check().is_ok() {
            std::hint::spin_loop();
        }
        assert!(matches!(late.check(), Err(Error::Timeout)));
        assert!(matches!(late.pace().check(), Err(Error::Timeout)));
        let left = Budget::unlimited();
        left.check().unwrap();
        left.clone().cancel();
        assert!(matches!(left.check(), Err(Error::Cancelled)));
    }
}
