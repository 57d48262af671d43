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
//!
//! The thread may come too late: in a few milliseconds requests can free 100 MB in the heap of one
//! thread and allocate as much in that of another. So requests look themselves after each 16 MiB that
//! they reserve, and what the process holds beside their reservations and its own needs is charged
//! to all of them ([`Memory::charge`]) until it is given back.
#![expect(unsafe_code)]

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use render::budget::{Memory, Occasion};
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

/// How often the memory of the process is read.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is read while requests hold much: it can grow by 20 MB meanwhile.
const CLOSE_LOOK: Duration = Duration::from_millis(10);
/// From so much on it is worth the work.
const MUCH: u64 = 64 << 20;
/// What may lie free without a limit on requests.
const UNLIMITED: u64 = 512 << 20;
/// How often memory goes back only because requests hold half of what they held.
const REST: Duration = Duration::from_secs(1);
/// How often memory goes back because a request would be refused otherwise.
const SHORT_REST: Duration = Duration::from_millis(5);
/// Memory is scarce when requests may reserve no more than one in so many bytes.
const SCARCE: u64 = 8;
/// How long a request waits for memory that is about to be given back.
const GIVING_BACK: Duration = Duration::from_millis(250);
/// So much of the memory of the process may be nobody's, at small limits on requests.
const TOLERANCE: u64 = 16 << 20;
/// How long requests have to hold much until what the process needs beside them is taken for its own.
const WINDOW: Duration = Duration::from_secs(60);

/// Starts the thread that gives free memory back while requests hold much of `memory`, and after
/// them, and has requests that grow look themselves before the process passes the limit. The thread
/// ends some time after nothing else holds `memory` any more.
///
/// When little is left, `make_room` is called with the limit: it ends what can be ended so that others are served, and
/// says whether memory is about to be given back.
///
/// # Errors
/// The system does not start it.
pub fn return_of_requests(
    memory: &Arc<Memory>,
    make_room: impl Fn(u64) -> bool + Send + Sync + 'static,
) -> io::Result<()> {
    let own = anonymous().unwrap_or(0);
    let heaps = Arc::new(Heaps(Mutex::new(Free::new(own))));
    let looking = Arc::clone(&heaps);
    let make_room: Arc<MakeRoom> = Arc::new(make_room);
    let making_room = Arc::clone(&make_room);
    memory.on_growth(move |memory, occasion| {
        // Threads of the runtime have other clients to answer.
        let may_wait = tokio::runtime::Handle::try_current().is_err();
        let Occasion::Refusal(bytes) = occasion else {
            if may_wait {
                looking.look(memory, Free::is_over);
            }
            return;
        };
        if may_wait {
            looking.look(memory, Free::is_charged);
        }
        if memory.left() < bytes && making_room(memory.limit()) && may_wait {
            wait_for(memory, bytes);
        }
    });
    let memory = Arc::downgrade(memory);
    let thread = thread::Builder::new().name("memory".to_owned());
    thread
        .spawn(move || look_after(&heaps, &memory, &*make_room))
        .map(drop)
}

type MakeRoom = dyn Fn(u64) -> bool + Send + Sync;

/// Waits a little until `bytes` may be reserved.
fn wait_for(memory: &Memory, bytes: u64) {
    let until = Instant::now() + GIVING_BACK;
    while memory.left() < bytes && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
}

fn look_after(heaps: &Heaps, memory: &Weak<Memory>, make_room: &MakeRoom) {
    loop {
        let Some(memory) = memory.upgrade() else {
            return;
        };
        heaps.look(&memory, Free::is_due);
        if memory.left() < memory.limit() / SCARCE {
            make_room(memory.limit());
        }
        let much = memory.peak() >= MUCH;
        drop(memory);
        thread::sleep(if much { CLOSE_LOOK } else { LOOK });
    }
}

/// The memory of the process, read by one thread at a time: the others wait until it has given back
/// what lies free.
#[derive(Debug)]
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

impl Found {
    /// The memory that is not reserved.
    fn beside(self) -> u64 {
        self.anonymous.saturating_sub(self.used)
    }

    /// Whether requests hold so little that the memory beside them is the server's own, but for what
    /// lies free.
    fn is_quiet(self) -> bool {
        self.used <= (self.limit / 16).max(4 << 20)
    }
}

impl Heaps {
    /// Gives free memory back if `is_due` says so, and charges to requests what the process holds
    /// beside their reservations and its own needs.
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
        free.see(before);
        let mut last = before;
        if is_due(&free, before) {
            let begun = Instant::now();
            memory.restart_peak();
            trim();
            if let Some(after) = anonymous().map(found) {
                free.trimmed(after);
                last = after;
                let took = begun.elapsed();
                debug!(?before, ?after, free.own, ?took, "gave free memory back");
            }
        }
        memory.charge(free.charge(last));
    }
}

/// What lies free in the heaps.
#[derive(Debug)]
struct Free {
    /// The memory that the server needs itself.
    own: u64,
    /// When memory was last given back, and the memory beside requests after that, or less: so much
    /// cannot be given back.
    at: Option<Instant>,
    left: u64,
    /// The least memory beside requests after it was given back, and since when.
    least: u64,
    since: Instant,
}

impl Free {
    /// Of a server that needs `own`.
    fn new(own: u64) -> Self {
        Self {
            own,
            at: None,
            left: 0,
            least: u64::MAX,
            since: Instant::now(),
        }
    }

    /// Whether a sixteenth of the limit lies free, or half of the most that requests held. While they
    /// hold little, less is enough: the server may need more than before.
    fn is_due(&self, found: Found) -> bool {
        let bound = match found.limit {
            0 => UNLIMITED,
            limit => limit / 16,
        };
        let more = found.beside().saturating_sub(self.own.max(self.left));
        let rested = self.rested(REST);
        let quiet = found.is_quiet() && more >= (bound / 2).max(TOLERANCE) && rested;
        more >= bound.max(MUCH / 2) && (!found.is_quiet() || rested)
            || quiet
            || found.peak >= MUCH && found.used <= found.peak / 2 && rested
    }

    /// Whether the process is about to have more than requests may reserve and the server needs.
    fn is_over(&self, found: Found) -> bool {
        let close = found.limit.saturating_sub(found.limit / 32);
        found.anonymous > close.saturating_add(self.own) && self.is_worth_it(found)
    }

    /// Whether requests are charged for what may lie free.
    fn is_charged(&self, found: Found) -> bool {
        self.charge(found) > found.limit / 64 && self.is_worth_it(found) && self.rested(SHORT_REST)
    }

    /// Whether more lies free than the last time left.
    fn is_worth_it(&self, found: Found) -> bool {
        found.beside() > self.left.saturating_add(found.limit / 64)
    }

    fn rested(&self, rest: Duration) -> bool {
        self.at.is_none_or(|at| at.elapsed() >= rest)
    }

    /// What requests are charged: the memory beside their reservations that the server does not need.
    /// A little is charged always, for what they allocate between two looks.
    fn charge(&self, found: Found) -> u64 {
        let tolerance = TOLERANCE.saturating_sub(found.limit / 16);
        let more = found.beside().saturating_sub(self.own);
        more.saturating_sub(tolerance).max(found.limit / 64)
    }

    /// Learns from a look that the server needs less than was thought. While requests hold much, they
    /// have reserved memory that they do not use yet.
    fn see(&mut self, found: Found) {
        self.left = self.left.min(found.beside());
        if found.is_quiet() {
            self.own = self.own.min(found.beside());
        }
    }

    /// Takes what is left beside requests for the server's own: at once while they hold little, else
    /// the least of a minute.
    fn trimmed(&mut self, found: Found) {
        let now = Instant::now();
        self.at = Some(now);
        self.left = found.beside();
        self.least = self.least.min(found.beside());
        if found.is_quiet() {
            self.own = found.beside();
        } else if now.duration_since(self.since) >= WINDOW {
            self.own = self.own.max(self.least);
        } else {
            return;
        }
        (self.least, self.since) = (u64::MAX, now);
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
        let mut free = Free::new(0);
        assert!(!free.is_due(found(563, 500, 500)));
        assert!(free.is_due(found(564, 500, 500)));
        free.own = 60 * MB;
        assert!(!free.is_due(found(564, 500, 500)));
        assert!(free.is_due(found(624, 500, 500)));
        // Reserved, and not touched yet.
        assert!(!free.is_due(found(100, 500, 500)));
        assert!(free.is_due(found(724, 600, 600)));
        // Small limits are not worth constant work, and none is not no bound.
        let with = |anonymous, limit| Found {
            limit,
            ..found(anonymous, 10, 10)
        };
        let free = Free::new(0);
        assert!(!free.is_due(with(41, 10 * MB)));
        assert!(free.is_due(with(42, 10 * MB)));
        assert!(!free.is_due(with(521, 0)));
        assert!(free.is_due(with(522, 0)));
    }

    #[test]
    fn memory_goes_back_when_half_of_a_large_peak_is_free() {
        let mut free = Free::new(36 * MB);
        assert!(free.is_due(found(100, 64, 128)));
        assert!(!free.is_due(found(100, 65, 128)));
        // Not twice in a second.
        free.trimmed(found(100, 64, 128));
        assert!(!free.is_due(found(100, 64, 128)));
    }

    #[test]
    fn requests_that_grow_look_when_the_limit_is_close() {
        let mut free = Free::new(20 * MB);
        assert!(!free.is_over(found(1_012, 980, 980)));
        assert!(free.is_over(found(1_013, 980, 980)));
        // Not again and again for what cannot be given back.
        free.trimmed(found(1_013, 980, 980));
        assert!(!free.is_over(found(1_029, 980, 980)));
        assert!(free.is_over(found(1_030, 980, 980)));
    }

    #[test]
    fn what_lies_free_is_charged() {
        let mut free = Free::new(20 * MB);
        // Always a little, but nothing can be given back for that.
        assert_eq!(free.charge(found(500, 490, 500)), 16 * MB);
        assert!(!free.is_charged(found(500, 490, 500)));
        assert_eq!(free.charge(found(550, 490, 500)), 40 * MB);
        assert!(free.is_charged(found(550, 490, 500)));
        free.trimmed(found(550, 490, 500));
        assert!(!free.is_charged(found(550, 490, 500)));
        // At small limits the server may need more, as it does whenever it knows more series.
        let small = Found {
            limit: 16 * MB,
            ..found(50, 10, 10)
        };
        assert_eq!(free.charge(small), 5 * MB);
    }

    #[test]
    fn what_the_server_needs_is_learned_while_requests_hold_little() {
        let mut free = Free::new(20 * MB);
        free.see(found(520, 510, 520));
        assert_eq!(free.own, 20 * MB);
        free.see(found(70, 60, 520));
        assert_eq!(free.own, 10 * MB);
        free.trimmed(found(600, 500, 520));
        assert_eq!(free.own, 10 * MB);
        free.trimmed(found(160, 60, 520));
        assert_eq!(free.own, 100 * MB);
        // More than a thirty-second part of the limit is looked at again, with a pause.
        assert!(!free.is_due(found(150, 10, 10)));
        free.at = None;
        assert!(free.is_due(found(150, 10, 10)));
        assert!(!free.is_due(found(141, 10, 10)));
    }

    #[test]
    fn a_server_that_is_never_quiet_learns_after_a_minute() {
        let mut free = Free::new(20 * MB);
        let minute = |free: &mut Free| {
            free.since = Instant::now().checked_sub(WINDOW).unwrap();
        };
        free.trimmed(found(600, 500, 520));
        free.trimmed(found(570, 500, 520));
        minute(&mut free);
        free.trimmed(found(650, 500, 520));
        assert_eq!(free.own, 70 * MB);
        minute(&mut free);
        free.trimmed(found(530, 500, 520));
        assert_eq!(free.own, 70 * MB);
    }

    #[test]
    fn the_system_says_how_much_memory_is_anonymous() {
        let text = "27413 1300 300 4000 0 5000 0\n";
        assert_eq!(anonymous_in(text, 4_096), Some(1_000 * 4_096));
        assert_eq!(anonymous_in("27413 1300\n", 4_096), None);
        assert_eq!(anonymous_in("", 4_096), None);
    }
}
