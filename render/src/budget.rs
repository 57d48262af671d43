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

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::error::{Error, Result};

/// The memory that all requests have together, in bytes.
#[derive(Debug)]
pub struct Memory {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
    /// What the process holds for requests beside what they have reserved.
    charged: AtomicU64,
    /// All that was ever reserved: what is given back meanwhile does not count.
    growth: AtomicU64,
    /// The bodies that are still arriving.
    arriving: AtomicU64,
    on_growth: OnceLock<OnGrowth>,
}

/// Called by requests that grow, and by those that are about to be refused.
struct OnGrowth(Box<Look>);

type Look = dyn Fn(&Memory, Occasion) + Send + Sync;

/// Why the process's memory is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Requests have reserved 16 MiB more.
    Growth,
    /// A request is refused unless memory is given back.
    Refusal,
}

impl fmt::Debug for OnGrowth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnGrowth")
    }
}

/// How much requests reserve together between two calls of [`OnGrowth`].
const GROWTH: u64 = 16 << 20;

/// The share of the memory that bodies may take while they arrive, which is as long as their clients
/// like: one in so many bytes.
const ARRIVING: u64 = 4;

impl Memory {
    /// `limit` bytes; 0 for no limit.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            charged: AtomicU64::new(0),
            growth: AtomicU64::new(0),
            arriving: AtomicU64::new(0),
            on_growth: OnceLock::new(),
        })
    }

    /// Has `look` called each time that requests have reserved 16 MiB more and hold more than half of
    /// the limit, and before one is refused: by the thread that reserves, before it allocates. The
    /// first call of this function counts.
    pub fn on_growth(&self, look: impl Fn(&Self, Occasion) + Send + Sync + 'static) {
        // A second one would see the same growth.
        let _ = self.on_growth.set(OnGrowth(Box::new(look)));
    }

    /// The bytes that requests hold reserved now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The most bytes that requests held together since the last [`Memory::restart_peak`].
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Charges `bytes` that the process holds for requests beside what they have reserved: requests
    /// may reserve so much less until the next call.
    pub fn charge(&self, bytes: u64) {
        self.charged.store(bytes, Ordering::Relaxed);
    }

    /// What was charged last.
    pub fn charged(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }

    /// Lets the peak begin again with what requests hold now.
    pub fn restart_peak(&self) {
        self.peak.store(self.used(), Ordering::Relaxed);
    }

    /// The most that requests may hold together; 0 for no limit.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    fn take(&self, bytes: u64) -> bool {
        let mut taken = self.try_take(bytes);
        if taken.is_none() && self.limit > 0 && bytes <= self.limit {
            self.look(Occasion::Refusal);
            taken = self.try_take(bytes);
        }
        let Some(now) = taken else {
            return false;
        };
        if now > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(now, Ordering::Relaxed);
        }
        let before = self.growth.fetch_add(bytes, Ordering::Relaxed);
        if before / GROWTH != before.wrapping_add(bytes) / GROWTH
            && now > self.limit / 2
            && self.limit > 0
        {
            self.look(Occasion::Growth);
        }
        true
    }

    /// What requests hold with `bytes` more; `None` if that is too much.
    fn try_take(&self, bytes: u64) -> Option<u64> {
        let most = match self.limit {
            0 => u64::MAX,
            limit => limit.saturating_sub(self.charged()),
        };
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= most);
        let before = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        before.ok().map(|before| before.saturating_add(bytes))
    }

    fn look(&self, occasion: Occasion) {
        if let Some(OnGrowth(look)) = self.on_growth.get() {
            look(self, occasion);
        }
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The bytes of memory that this process may use: the least of what the machine has, what its
/// cgroups allow, and its limits on address space and data.
pub fn available() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = meminfo(&read("/proc/meminfo"));
    let limits = read("/proc/self/limits");
    let address_space = limit_in(&limits, "Max address space");
    let data = limit_in(&limits, "Max data size");
    let mut least = [machine, address_space, data].into_iter().flatten().min();
    for group in groups(&read("/proc/self/cgroup")) {
        if let Ok(bytes) = read(&group).trim().parse() {
            least = Some(least.map_or(bytes, |least| least.min(bytes)));
        }
    }
    least.unwrap_or(UNKNOWN)
}

/// What is assumed where the system does not say how much memory there is.
const UNKNOWN: u64 = 4 << 30;

/// The whole memory by `/proc/meminfo`.
fn meminfo(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// The soft limit called `name` by `/proc/self/limits`, if there is one.
fn limit_in(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The files that hold the memory limits of the cgroups named in `/proc/self/cgroup`, and of the
/// groups above them. In a container the path may lead nowhere, and the root is its own group.
fn groups(text: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{root}{path}/{file}"));
            match path.rfind('/') {
                Some(slash) => path = &path[..slash],
                None => break,
            }
        }
    }
    files
}

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
                what: format!("the request needs {bytes} further bytes of memory"),
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
        if *limit == 0 || now <= limit / ARRIVING {
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
    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn requests_share_one_memory() {
        let memory = Memory::new(100);
        let one = Budget::new(Arc::clone(&memory), None);
        let other = Budget::new(Arc::clone(&memory), None);
        one.reserve(60).unwrap();
        let refused = other.reserve(41).unwrap_err().to_string();
        assert!(refused.contains("render.max_memory = 100"), "{refused}");
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
    fn what_is_charged_is_refused_to_requests_until_it_is_given_back() {
        let memory = Memory::new(100);
        let given_back = Arc::new(AtomicBool::new(false));
        let gives = Arc::clone(&given_back);
        memory.on_growth(move |memory, occasion| {
            assert_eq!(occasion, Occasion::Refusal);
            if gives.load(Ordering::Relaxed) {
                memory.charge(10);
            }
        });
        let budget = Budget::new(Arc::clone(&memory), None);
        memory.charge(30);
        budget.reserve(70).unwrap();
        assert!(budget.reserve(1).is_err());
        given_back.store(true, Ordering::Relaxed);
        budget.reserve(20).unwrap();
        assert!(budget.reserve(1).is_err());
        assert_eq!((memory.used(), memory.charged()), (90, 10));
        // More than there is at all.
        memory.charge(200);
        budget.release(90);
        given_back.store(false, Ordering::Relaxed);
        assert!(budget.reserve(1).is_err());
    }

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
        drop(other);
        one.grow(5).unwrap();
        drop(one);
        Arriving::new(&memory).grow(SMALL + 25).unwrap();
        Arriving::new(&Memory::new(0)).grow(1_000_000).unwrap();
    }

    #[test]
    fn growth_in_the_upper_half_of_the_limit_is_looked_at() {
        const MB: usize = 1 << 20;
        let memory = Memory::new(100 * MB as u64);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        memory.on_growth(move |memory, occasion| {
            sink.lock().push((memory.used() / MB as u64, occasion));
        });
        memory.on_growth(|_, _| panic!("the first one counts"));
        let budget = Budget::new(Arc::clone(&memory), None);
        for _ in 0..100 {
            budget.reserve(MB).unwrap();
        }
        assert!(budget.reserve(1).is_err());
        let growth = |used| (used, Occasion::Growth);
        let refusal = |used| (used, Occasion::Refusal);
        assert_eq!(
            *seen.lock(),
            [growth(64), growth(80), growth(96), refusal(100)]
        );
        // What is given back and reserved again counts as growth.
        seen.lock().clear();
        for _ in 0..16 {
            budget.release(MB);
            budget.reserve(MB).unwrap();
        }
        assert_eq!(*seen.lock(), [growth(100)]);
        let unlimited = Memory::new(0);
        unlimited.on_growth(|_, _| panic!("no limit, no half of it"));
        Budget::new(unlimited, None)
            .reserve(usize::MAX / 2)
            .unwrap();
    }

    #[test]
    fn the_least_limit_of_the_system_counts() {
        let text = "MemTotal:       24737008 kB\nMemFree:  22 kB\n";
        assert_eq!(meminfo(text), Some(24_737_008 * 1_024));
        assert_eq!(meminfo(""), None);
        let text = "Limit Soft Limit Hard Limit Units\nMax data size 7000 7000 bytes\n\
            Max address space 6000000000 unlimited bytes\n";
        assert_eq!(limit_in(text, "Max address space"), Some(6_000_000_000));
        assert_eq!(limit_in(text, "Max data size"), Some(7_000));
        let text = "Max address space         unlimited            unlimited            bytes";
        assert_eq!(limit_in(text, "Max address space"), None);
        assert_eq!(
            groups("0::/a.slice/b.service\n"),
            [
                "/sys/fs/cgroup/a.slice/b.service/memory.max",
                "/sys/fs/cgroup/a.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(
            groups("4:cpu:/x\n3:memory:/\n0::/\n"),
            [
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert!(available() > 0);
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
