//! Where an answer is written: memory that is reserved before it is allocated, and that stays
//! reserved for as long as the bytes are held, by any part of the program.

use std::io;
use std::ops::Deref;

use crate::budget::Budget;
use crate::error::{Error, Result};

/// The least that is allocated at once.
const SMALLEST: usize = 4 * 1024;

/// Bytes within a budget.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// Not the request's: its series and columns are given back as soon as they are dropped, also
    /// while a slow client reads the bytes.
    account: Budget,
}

impl Buffer {
    /// An empty buffer that reserves from the same memory as `budget`.
    pub fn new(budget: &Budget) -> Self {
        Self {
            bytes: Vec::new(),
            account: budget.account(),
        }
    }

    /// A buffer of `capacity` bytes that `room` has reserved, and goes on having reserved while
    /// they are held. What is written beyond is reserved from `room` too.
    ///
    /// # Errors
    /// [`Error::Limit`] if the machine has no such memory.
    pub(crate) fn prepaid(capacity: usize, room: Budget) -> Result<Self> {
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(capacity).is_err() {
            return Err(unavailable(capacity, &room));
        }
        Ok(Self {
            bytes,
            account: room,
        })
    }

    /// `bytes` for which `room` has reserved, and goes on having reserved while they are held.
    pub(crate) fn full(bytes: Vec<u8>, room: Budget) -> Self {
        Self {
            bytes,
            account: room,
        }
    }

    /// The bytes for writing, with room for `further` ones. Writing more than that would allocate
    /// without a reservation.
    ///
    /// # Errors
    /// [`Error::Limit`] if there is no such memory.
    #[inline]
    pub fn room(&mut self, further: usize) -> Result<&mut Vec<u8>> {
        if self.bytes.capacity() - self.bytes.len() < further {
            self.grow(further)?;
        }
        Ok(&mut self.bytes)
    }

    /// Appends text.
    ///
    /// # Errors
    /// As [`Buffer::room`].
    #[inline]
    pub fn push_str(&mut self, text: &str) -> Result<()> {
        self.room(text.len())?.extend_from_slice(text.as_bytes());
        Ok(())
    }

    #[cold]
    fn grow(&mut self, further: usize) -> Result<()> {
        let (held, length) = (self.bytes.capacity(), self.bytes.len());
        let needed = length.saturating_add(further).max(SMALLEST);
        // The bytes move: for a short time there are both. Twice as much spares the next moves, if
        // there is that much.
        let twice = needed.max(held.saturating_mul(2));
        let capacity = match self.account.reserve(twice) {
            Ok(()) => twice,
            Err(_) if twice > needed => {
                self.account.reserve(needed)?;
                needed
            }
            Err(error) => return Err(error),
        };
        if self.bytes.try_reserve_exact(capacity - length).is_err() {
            self.account.release(capacity);
            return Err(unavailable(capacity, &self.account));
        }
        self.account.release(held);
        Ok(())
    }
}

/// The operating system refuses memory that the budget allows.
pub(crate) fn unavailable(bytes: usize, budget: &Budget) -> Error {
    let limit = budget.memory().limit();
    Error::Limit {
        what: format!("the machine has no {bytes} further bytes of memory"),
        key: "render.max_memory",
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// For encoders: the error holds that of [`Buffer::room`], which [`stopped`] takes out again.
impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room(bytes.len())
            .map_err(io::Error::other)?
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why an encoder that writes to a [`Buffer`] ended.
pub(crate) fn stopped(error: io::Error) -> Error {
    let text = error.to_string();
    let inner = error.into_inner().and_then(|e| e.downcast::<Error>().ok());
    inner.map_or(Error::Failed(text), |error| *error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Memory;
    use std::io::Write as _;
    use std::sync::Arc;

    #[test]
    fn what_is_allocated_is_reserved() {
        let memory = Memory::new(100_000);
        let budget = Budget::new(Arc::clone(&memory), None);
        let mut buffer = Buffer::new(&budget);
        for n in 0..10_000_u32 {
            buffer.push_str("word ").unwrap();
            assert!(
                memory.used() >= buffer.room(0).unwrap().capacity() as u64,
                "{n}"
            );
        }
        assert_eq!(buffer.len(), 50_000);
        // Moving 50,000 bytes to a place of 100,001 takes more than there is.
        let before = buffer.bytes.capacity();
        let refused = buffer.room(60_000).unwrap_err().to_string();
        assert!(refused.contains("render.max_memory = 100000"), "{refused}");
        assert_eq!(buffer.bytes.capacity(), before);
        assert_eq!(memory.used(), before as u64);
        drop(budget);
        assert_eq!(memory.used(), before as u64);
        drop(buffer);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn an_encoder_hands_the_refusal_on() {
        let budget = Budget::new(Memory::new(10_000), None);
        let mut buffer = Buffer::new(&budget);
        let error = buffer.write_all(&[7; 20_000]).unwrap_err();
        assert!(matches!(stopped(error), Error::Limit { .. }));
        assert!(buffer.is_empty());
    }
}
