//! How the allocator gives memory back to the system.
//!
//! By default glibc raises the size above which it maps a block separately, up to 32 MiB, each time
//! such a block is freed. Large columns and answers then come from its heaps and leave gaps behind
//! that keep the memory in the process. Fixed sizes avoid that. Twelve requests of 31 million values
//! and twelve of 20,000 names, eight at a time, left 144 MB of anonymous memory without and 17 MB
//! with them; jemalloc with its background thread left 20 MB after ten seconds (up to 772 MB before),
//! mimalloc 609 MB.
//!
//! Columns below that size come from the heaps all the same, one heap for each thread that computes.
//! A block that lives on keeps what was freed below it: queries of 20,000 series with a day of
//! minutes each left 1,300 MB behind. What lies free between blocks is given back once requests
//! that held much have ended.
#![expect(unsafe_code)]

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use render::budget::Memory;
use tracing::debug;

/// Blocks from this size on are mapped and unmapped by themselves.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM: libc::c_int = 256 << 10;
/// So much may stay free at the end of a heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_FREE: libc::c_int = 1 << 20;

/// Fixes the sizes from which freed memory goes back to the system. Call before the first thread
/// is started. Allocators other than glibc's are left as they are.
pub fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt takes two integers and changes thresholds of the allocator; an option or
        // a value that it does not know is refused with 0 and changes nothing.
        let done = unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) == 1
                && libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_FREE) == 1
        };
        if !done {
            debug!("the allocator's thresholds could not be fixed");
        }
    }
}

/// How often is looked whether requests have freed much.
const LOOK: Duration = Duration::from_secs(1);
/// From so much on it is worth the work.
const MUCH: u64 = 64 << 20;

/// Starts the thread that gives back what lies free after requests that held much of `memory`. It
/// ends some time after nothing else holds `memory` any more.
///
/// # Errors
/// The system does not start it.
pub fn return_after_requests(memory: &Arc<Memory>) -> io::Result<()> {
    let memory = Arc::downgrade(memory);
    let thread = thread::Builder::new().name("memory".to_owned());
    thread.spawn(move || look_after(&memory)).map(drop)
}

fn look_after(memory: &Weak<Memory>) {
    loop {
        thread::sleep(LOOK);
        let Some(memory) = memory.upgrade() else {
            return;
        };
        if is_due(memory.used(), memory.peak()) {
            memory.restart_peak();
            trim();
        }
    }
}

/// Whether much of what was held has been freed.
fn is_due(used: u64, peak: u64) -> bool {
    peak >= MUCH && used <= peak / 2
}

/// Gives all whole pages that are free in the heaps back to the system. It holds the lock of each
/// heap in turn meanwhile.
fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let begun = std::time::Instant::now();
        // SAFETY: it takes the locks that malloc and free take, and touches nothing but what is free.
        let any = unsafe { libc::malloc_trim(0) } == 1;
        debug!(any, "gave free memory back in {:?}", begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_when_half_of_a_large_peak_is_free() {
        assert!(!is_due(0, MUCH - 1));
        assert!(is_due(0, MUCH));
        assert!(is_due(MUCH, 2 * MUCH));
        assert!(!is_due(MUCH + 1, 2 * MUCH));
    }
}
