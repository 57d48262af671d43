//! Bodies of requests while they arrive.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Memory;
use crate::error::{Error, Result};

/// The share of the memory that bodies may take while they arrive, which is as long as their clients
/// like: one in so many bytes.
const ARRIVING: u64 = 4;

/// The bytes of a body that is still arriving, but for its first 64 KiB. All of them together may take
/// a quarter of the memory, so that clients that send large bodies slowly do not keep it from the
/// requests of others.
#[derive(Debug)]
pub struct Arriving {
    memory: Arc<Memory>,
    /// What has arrived.
    length: u64,
    /// What of it counts.
    bytes: u64,
}

/// So much of a body does not count.
const SMALL_BODY: u64 = 64 << 10;

impl Arriving {
    /// A body of which nothing has arrived.
    pub fn new(memory: &Arc<Memory>) -> Self {
        Self {
            memory: Arc::clone(memory),
            length: 0,
            bytes: 0,
        }
    }

    /// `bytes` more have arrived.
    ///
    /// # Errors
    /// [`Error::Limit`] if all bodies that are arriving would take more than a quarter of
    /// `render.max_memory`.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        let Memory {
            limit, arriving, ..
        } = &*self.memory;
        self.length += bytes as u64;
        let more = self.length.saturating_sub(SMALL_BODY) - self.bytes;
        self.bytes += more;
        let now = arriving.fetch_add(more, Ordering::Relaxed) + more;
        // A small body is taken while large ones fill the quarter.
        if more == 0 || *limit == 0 || now <= limit / ARRIVING {
            return Ok(());
        }
        Err(Error::Limit {
            what: format!("the bodies of requests that are arriving need {now} bytes of memory"),
            key: "a quarter of render.max_memory",
            limit: usize::try_from(limit / ARRIVING).unwrap_or(usize::MAX),
        })
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.memory
            .arriving
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_that_arrive_take_a_quarter() {
        const SMALL: usize = SMALL_BODY as usize;
        let memory = Memory::new(100);
        let (mut one, mut other) = (Arriving::new(&memory), Arriving::new(&memory));
        one.grow(SMALL - 1).unwrap();
        one.grow(21).unwrap();
        other.grow(SMALL).unwrap();
        let refused = other.grow(6).unwrap_err().to_string();
        assert!(
            refused.contains("a quarter of render.max_memory = 25"),
            "{refused}"
        );
        // Nothing of what is small is refused while the large ones are there.
        Arriving::new(&memory).grow(SMALL).unwrap();
        drop(other);
        one.grow(5).unwrap();
        drop(one);
        Arriving::new(&memory).grow(SMALL + 25).unwrap();
        Arriving::new(&Memory::new(0)).grow(1_000_000).unwrap();
    }
}
