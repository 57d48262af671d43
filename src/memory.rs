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
//! minutes each left 1,300 MB behind. While requests hold much, a thread compares the memory of the
//! process with what they have reserved, and gives back what lies free between blocks once that is
//! a small part of `render.max_memory`: otherwise each heap grows to the most that its thread ever
//! held, and together they pass the budget.
#![expect(unsafe_code)]

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use render::budget::Memory;
use tracing::debug;

/// Blocks from this size on are mapped and unmapped by themselves.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM: libc::c_int = 256 << 10;
/// So much may stay free at the end of a heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_FREE: libc::c_int = 1 << 20;

/// Of the address space, for one heap of glibc: each thread reserves 64 MiB for its own, so that the
/// threads of a server alone would use up a limit of a gigabyte.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SPACE_PER_HEAP: u64 = 1 << 30;
/// As many heaps are enough for any server.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MOST_HEAPS: u64 = 16;

/// Fixes the sizes from which freed memory goes back to the system, and under a limit on address
/// space the number of heaps. Call before the first thread is started. Allocators other than
/// glibc's are left as they are.
pub fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let space = rustix::process::getrlimit(rustix::process::Resource::As).current;
        let heaps = space.map(|space| (space / SPACE_PER_HEAP).clamp(1, MOST_HEAPS) as libc::c_int);
        // SAFETY: mallopt takes two integers and changes thresholds of the allocator; an option or
        // a value that it does not know is refused with 0 and changes nothing.
        let done = unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) == 1
                && libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_FREE) == 1
                && heaps.is_none_or(|heaps| libc::mallopt(libc::M_ARENA_MAX, heaps) == 1)
        };
        if !done {
            debug!("the allocator's thresholds could not be fixed");
        }
    }
}

/// How often is looked whether requests hold much.
const LOOK: Duration = Duration::from_millis(100);
/// How often the memory of the process is read while they do: it can grow by 20 MB meanwhile.
const CLOSE_LOOK: Duration = Duration::from_millis(10);
/// From so much on it is worth the work.
const MUCH: u64 = 64 << 20;
/// What may lie free without a limit on requests.
const UNLIMITED: u64 = 512 << 20;
/// How often memory goes back only because requests hold half of what they held.
const REST: Duration = Duration::from_secs(1);

/// Starts the thread that gives free memory back while requests hold much of `memory`, and after
/// them. It ends some time after nothing else holds `memory` any more.
///
/// # Errors
/// The system does not start it.
pub fn return_of_requests(memory: &Arc<Memory>) -> io::Result<()> {
    let memory = Arc::downgrade(memory);
    let thread = thread::Builder::new().name("memory".to_owned());
    thread.spawn(move || look_after(&memory)).map(drop)
}

fn look_after(memory: &Weak<Memory>) {
    let mut free = Free::default();
    loop {
        let Some(memory) = memory.upgrade() else {
            return;
        };
        let (used, peak) = (memory.used(), memory.peak());
        if peak < MUCH {
            // Requests that hold little cost no more than these two loads.
            drop(memory);
            thread::sleep(LOOK);
            continue;
        }
        let mut pause = CLOSE_LOOK;
        let before = anonymous();
        let is_due = free.is_due(before, used, memory.limit());
        if is_due || free.rests_since(Instant::now()) >= REST && used <= peak / 2 {
            let begun = Instant::now();
            memory.restart_peak();
            trim();
            let (after, used) = (anonymous(), memory.used());
            free.trimmed(after, used);
            let took = begun.elapsed();
            debug!(before, after, used, ?took, "gave free memory back");
            // Threads that allocate wait for it: a fifth of the time at most.
            pause = pause.max(took * 4);
        }
        drop(memory);
        thread::sleep(pause);
    }
}

/// What lies free in the heaps, by the memory of the process.
#[derive(Debug, Default)]
struct Free {
    /// The memory beside that of requests after it was last given back: what the server needs.
    own: u64,
    /// When that was.
    at: Option<Instant>,
}

impl Free {
    /// Whether so much lies free that it is given back at once: a sixteenth of `limit`.
    /// `anonymous` is the memory of the process, `used` is what requests have reserved of it.
    fn is_due(&self, anonymous: Option<u64>, used: u64, limit: u64) -> bool {
        let bound = if limit == 0 { UNLIMITED } else { limit / 16 };
        let beside = anonymous.map_or(0, |all| all.saturating_sub(used));
        beside.saturating_sub(self.own) >= bound.max(MUCH / 2)
    }

    /// How long ago it was given back.
    fn rests_since(&self, now: Instant) -> Duration {
        self.at.map_or(REST, |at| now.saturating_duration_since(at))
    }

    /// Takes what is left beside requests for needed.
    fn trimmed(&mut self, anonymous: Option<u64>, used: u64) {
        self.own = anonymous.map_or(0, |all| all.saturating_sub(used));
        self.at = Some(Instant::now());
    }
}

/// The anonymous memory of the process in bytes, if the system says.
fn anonymous() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    anonymous_in(&text, rustix::param::page_size() as u64)
}

/// Resident pages but for those of files and of shared memory, by `/proc/self/statm`.
fn anonymous_in(statm: &str, page_bytes: u64) -> Option<u64> {
    let mut pages = statm.split_whitespace().skip(1);
    let resident: u64 = pages.next()?.parse().ok()?;
    let shared = pages.next()?.parse().ok()?;
    resident.checked_sub(shared)?.checked_mul(page_bytes)
}

/// Gives all whole pages that are free in the heaps back to the system. It holds the lock of each
/// heap in turn meanwhile.
fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it takes the locks that malloc and free take, and touches nothing but what is free.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn memory_goes_back_while_requests_hold_much() {
        let mut free = Free::default();
        let due = |free: &Free, all, used| free.is_due(Some(all * MB), used * MB, 1_024 * MB);
        assert!(!due(&free, 563, 500));
        assert!(due(&free, 564, 500));
        // What could not be given back is needed.
        free.trimmed(Some(550 * MB), 490 * MB);
        assert!(!due(&free, 564, 500));
        assert!(due(&free, 624, 500));
        // Reserved, and not touched yet.
        free.trimmed(Some(100 * MB), 490 * MB);
        assert!(!due(&free, 100, 500));
        assert!(due(&free, 664, 600));
        // Small limits are not worth constant work, and none is not no bound.
        assert!(!free.is_due(Some(31 * MB), 0, 10 * MB));
        assert!(free.is_due(Some(32 * MB), 0, 10 * MB));
        assert!(free.is_due(Some(UNLIMITED), 0, 0));
        assert!(!free.is_due(None, 0, 1));
    }

    #[test]
    fn memory_rests_for_a_second() {
        let mut free = Free::default();
        assert!(free.rests_since(Instant::now()) >= REST);
        free.trimmed(None, 0);
        let at = free.at.unwrap();
        assert_eq!(free.rests_since(at + REST / 2), REST / 2);
    }

    #[test]
    fn the_system_says_how_much_memory_is_anonymous() {
        let text = "27413 1300 300 4000 0 5000 0\n";
        assert_eq!(anonymous_in(text, 4_096), Some(1_000 * 4_096));
        assert_eq!(anonymous_in("27413 1300\n", 4_096), None);
        assert_eq!(anonymous_in("", 4_096), None);
    }
}
