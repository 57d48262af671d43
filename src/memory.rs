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

use parking_lot::Mutex;
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
/// them, and has requests that grow look themselves before the process passes the limit. The thread
/// ends some time after nothing else holds `memory` any more.
///
/// # Errors
/// The system does not start it.
pub fn return_of_requests(memory: &Arc<Memory>) -> io::Result<()> {
    let heaps = Arc::new(Heaps::default());
    let own = Arc::clone(&heaps);
    memory.on_growth(move |memory| {
        // Threads of the runtime have other clients to answer.
        if tokio::runtime::Handle::try_current().is_err() {
            own.look(memory, Free::is_over);
        }
    });
    let memory = Arc::downgrade(memory);
    let thread = thread::Builder::new().name("memory".to_owned());
    thread.spawn(move || look_after(&heaps, &memory)).map(drop)
}

fn look_after(heaps: &Heaps, memory: &Weak<Memory>) {
    loop {
        let Some(memory) = memory.upgrade() else {
            return;
        };
        // Requests that hold little cost no more than this load.
        let pause = match memory.peak() {
            peak if peak >= MUCH => {
                heaps.look(&memory, Free::is_due);
                CLOSE_LOOK
            }
            _ => LOOK,
        };
        drop(memory);
        thread::sleep(pause);
    }
}

/// The memory of the process, read by one thread at a time: the others wait until it has given back
/// what lies free.
#[derive(Debug, Default)]
struct Heaps(Mutex<Free>);

/// What a look finds, in bytes.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// The anonymous memory of the process.
    anonymous: u64,
    /// What requests have reserved of it, now and at most since memory was given back.
    used: u64,
    peak: u64,
    /// What they may reserve.
    limit: u64,
}

impl Heaps {
    /// Gives free memory back if `is_due` says so.
    fn look(&self, memory: &Memory, is_due: fn(&Free, Found) -> bool) {
        let mut free = self.0.lock();
        let found = |anonymous| Found {
            anonymous,
            used: memory.used(),
            peak: memory.peak(),
            limit: memory.limit(),
        };
        let Some(before) = anonymous().map(found) else {
            return;
        };
        if !is_due(&free, before) {
            return;
        }
        let begun = Instant::now();
        memory.restart_peak();
        trim();
        if let Some(after) = anonymous().map(found) {
            free.trimmed(after);
            let took = begun.elapsed();
            debug!(?before, ?after, ?took, "gave free memory back");
        }
    }
}

/// What lies free in the heaps.
#[derive(Debug, Default)]
struct Free {
    /// The memory beside that of requests after it was last given back: what the server needs.
    own: u64,
    /// When that was.
    at: Option<Instant>,
}

impl Free {
    /// Whether a sixteenth of the limit lies free, or half of the most that requests held.
    fn is_due(&self, found: Found) -> bool {
        let bound = match found.limit {
            0 => UNLIMITED,
            limit => limit / 16,
        };
        let beside = found.anonymous.saturating_sub(found.used);
        let much = beside.saturating_sub(self.own) >= bound.max(MUCH / 2);
        much || found.used <= found.peak / 2 && self.at.is_none_or(|at| at.elapsed() >= REST)
    }

    /// Whether the process has more than requests may reserve and the server needs.
    fn is_over(&self, found: Found) -> bool {
        found.anonymous > found.limit.saturating_add(self.own)
    }

    /// Takes what is left beside requests for needed.
    fn trimmed(&mut self, found: Found) {
        self.own = found.anonymous.saturating_sub(found.used);
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
/// heaps one after the other meanwhile.
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

    fn found(anonymous: u64, used: u64, peak: u64) -> Found {
        Found {
            anonymous: anonymous * MB,
            used: used * MB,
            peak: peak * MB,
            limit: 1_024 * MB,
        }
    }

    #[test]
    fn memory_goes_back_while_requests_hold_much() {
        let mut free = Free::default();
        assert!(!free.is_due(found(563, 500, 500)));
        assert!(free.is_due(found(564, 500, 500)));
        // What could not be given back is needed.
        free.trimmed(found(550, 490, 500));
        assert!(!free.is_due(found(564, 500, 500)));
        assert!(free.is_due(found(624, 500, 500)));
        // Reserved, and not touched yet.
        free.trimmed(found(100, 490, 500));
        assert!(!free.is_due(found(100, 500, 500)));
        assert!(free.is_due(found(664, 600, 600)));
        // Small limits are not worth constant work, and none is not no bound.
        let with = |anonymous, limit| Found {
            limit,
            ..found(anonymous, 10, 10)
        };
        let free = Free::default();
        assert!(!free.is_due(with(41, 10 * MB)));
        assert!(free.is_due(with(42, 10 * MB)));
        assert!(!free.is_due(with(521, 0)));
        assert!(free.is_due(with(522, 0)));
    }

    #[test]
    fn memory_goes_back_when_half_of_a_large_peak_is_free() {
        let mut free = Free::default();
        assert!(free.is_due(found(100, 64, 128)));
        assert!(!free.is_due(found(100, 65, 128)));
        // Not twice in a second.
        free.trimmed(found(100, 64, 128));
        assert!(!free.is_due(found(100, 64, 128)));
    }

    #[test]
    fn requests_that_grow_look_when_the_limit_is_passed() {
        let mut free = Free::default();
        assert!(!free.is_over(found(1_024, 1_000, 1_000)));
        assert!(free.is_over(found(1_025, 1_000, 1_000)));
        free.trimmed(found(1_020, 1_000, 1_000));
        assert!(!free.is_over(found(1_044, 1_024, 1_024)));
        assert!(free.is_over(found(1_045, 1_024, 1_024)));
    }

    #[test]
    fn the_system_says_how_much_memory_is_anonymous() {
        let text = "27413 1300 300 4000 0 5000 0\n";
        assert_eq!(anonymous_in(text, 4_096), Some(1_000 * 4_096));
        assert_eq!(anonymous_in("27413 1300\n", 4_096), None);
        assert_eq!(anonymous_in("", 4_096), None);
    }
}
