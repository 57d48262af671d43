//! The threads that compute answers.
//!
//! 1. A fixed number of threads take every request, oldest first in each of two queues. One more
//!    takes small requests only ([`Lane`]), so that large ones never hold the last thread.
//! 2. A request can be larger than it looks. When a small one comes and each thread that could
//!    take it has been at its job for long, another thread for small ones is started, up to
//!    [`MAX_SPARE`]; it ends when it has had nothing to do for a while.
//! 3. Bounded queues before them: what finds its queue full is refused at once.
//! 4. A panic ends the request, not the thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, never, select};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How many requests may wait for each thread.
const WAITING_PER_THREAD: usize = 256;

/// How many threads for small requests there may be beside the first.
const MAX_SPARE: usize = 4;

/// How long a job may run before its thread counts as held by a large one.
const LONG: Duration = Duration::from_millis(100);

/// How long a spare thread waits for something to do.
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Where a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// For what is expected to take milliseconds: one thread at least takes nothing else.
    Small,
    /// For the rest.
    Large,
}

/// The patterns that a small request may have.
const SMALL_PATTERNS: usize = 32;

/// The bytes of their texts.
const SMALL_TEXT: usize = 8 << 10;

/// The seconds that the windows of all patterns may have together: a graph of a day with seven
/// patterns, or of a week with one.
const SMALL_SECONDS: i64 = 7 * 86_400;

impl Lane {
    /// The lane of a request that asks for these patterns or targets, each over so many seconds
    /// (0 where only names are asked for).
    pub fn of<'a>(patterns: impl IntoIterator<Item = &'a str>, seconds: i64) -> Self {
        let (mut n_patterns, mut length) = (0, 0);
        for pattern in patterns {
            n_patterns += 1;
            length += pattern.len();
            // Everything below a branch may be everything there is.
            if n_patterns > SMALL_PATTERNS || length > SMALL_TEXT || pattern.contains("**") {
                return Self::Large;
            }
        }
        let n_patterns = i64::try_from(n_patterns).unwrap_or(i64::MAX);
        if seconds.saturating_mul(n_patterns) > SMALL_SECONDS {
            return Self::Large;
        }
        Self::Small
    }
}

/// The threads and their queues.
pub struct Pool {
    small: Sender<Job>,
    large: Sender<Job>,
    /// For threads that are started later.
    waiting: Receiver<Job>,
    n_threads: usize,
    crew: Arc<Crew>,
}

/// What the threads say about themselves.
struct Crew {
    since: Instant,
    /// For each thread since when it has been at its job, in milliseconds plus one; 0 without one.
    busy: Mutex<Vec<Weak<AtomicU64>>>,
    n_spare: AtomicUsize,
}

impl Crew {
    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Another thread: what it says about itself.
    fn join(&self) -> Arc<AtomicU64> {
        let own = Arc::default();
        let mut busy = self.busy.lock();
        busy.retain(|thread| thread.strong_count() > 0);
        busy.push(Arc::downgrade(&own));
        own
    }

    /// Whether every thread has been at its job for long.
    fn all_held(&self) -> bool {
        let long = u64::try_from(LONG.as_millis()).unwrap_or(u64::MAX);
        let now = self.now();
        let busy = self.busy.lock();
        busy.iter().filter_map(Weak::upgrade).all(|thread| {
            let since = thread.load(Ordering::Relaxed);
            since != 0 && now.saturating_sub(since) >= long
        })
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The queue is full.
    Full,
    /// The computation panicked.
    Panicked,
}

impl Pool {
    /// `n_threads` threads, or as many as there are processors if that is 0; and one for small
    /// requests.
    pub fn new(n_threads: usize) -> Self {
        let processors = || thread::available_parallelism().map_or(2, usize::from);
        let n_threads = match n_threads {
            0 => processors(),
            n => n,
        };
        let room = n_threads.saturating_mul(WAITING_PER_THREAD);
        let (small, waiting) = bounded(room);
        let (large, large_jobs) = bounded(room);
        let pool = Self {
            small,
            large,
            waiting,
            n_threads,
            crew: Arc::new(Crew {
                since: Instant::now(),
                busy: Mutex::default(),
                n_spare: AtomicUsize::new(0),
            }),
        };
        for n in 0..n_threads {
            pool.start(&format!("render-{n}"), large_jobs.clone(), None);
        }
        pool.start("render-small", never(), None);
        pool
    }

    /// Starts a thread that takes small jobs, and those of `large`; one that ends when it has
    /// been `idle` for so long.
    fn start(&self, name: &str, large: Receiver<Job>, idle: Option<Duration>) -> bool {
        let (small, crew) = (self.waiting.clone(), Arc::clone(&self.crew));
        let busy = crew.join();
        let builder = thread::Builder::new().name(name.to_owned());
        let started = builder.spawn(move || {
            let work = |job: Job| {
                busy.store(crew.now(), Ordering::Relaxed);
                job();
                busy.store(0, Ordering::Relaxed);
            };
            if let Some(idle) = idle {
                while let Ok(job) = small.recv_timeout(idle) {
                    work(job);
                }
                crew.n_spare.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            // Both queues end together, with the pool.
            loop {
                let job = select! {
                    recv(small) -> job => job,
                    recv(large) -> job => job,
                };
                match job {
                    Ok(job) => work(job),
                    Err(_) => return,
                }
            }
        });
        if let Err(error) = &started {
            tracing::error!(%error, "a thread of the query pool did not start");
        }
        started.is_ok()
    }

    /// Sees to it that a small job does not wait for large ones.
    fn make_way(&self) {
        let Crew { n_spare, .. } = &*self.crew;
        let one_more = |n: usize| (n < MAX_SPARE).then_some(n + 1);
        if self.crew.all_held()
            && n_spare
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
                .is_ok()
            && !self.start("render-spare", never(), Some(IDLE))
        {
            n_spare.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many threads take all requests.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Has `job` run on one of the threads. It must not panic.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub fn submit(&self, lane: Lane, job: impl FnOnce() + Send + 'static) -> Result<(), Refusal> {
        let queue = match lane {
            Lane::Small => {
                self.make_way();
                &self.small
            }
            Lane::Large => &self.large,
        };
        queue.try_send(Box::new(job)).map_err(|_| Refusal::Full)
    }

    /// Runs `job` on one of the threads.
    ///
    /// # Errors
    /// [`Refusal`] if the queue is full or the job panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.submit(lane, move || {
            // The client may have gone away meanwhile.
            if !answer.is_closed() {
                let _ = answer.send(caught(job));
            }
        })?;
        answered.await.unwrap_or(Err(Refusal::Panicked))
    }
}

/// What `job` gives, unless it panics.
///
/// # Errors
/// [`Refusal::Panicked`].
pub fn caught<T>(job: impl FnOnce() -> T) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(job)).map_err(|_| Refusal::Panicked)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Running = Pin<Box<dyn Future<Output = Result<(), Refusal>>>>;

    fn poll(job: &mut Running) -> Poll<Result<(), Refusal>> {
        job.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    /// A job that holds its thread until `held` is disconnected, begun when this returns.
    fn holding<'p>(
        pool: &'p Pool,
        lane: Lane,
        held: &Receiver<()>,
    ) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + 'p>> {
        let (started, starts) = bounded::<()>(0);
        let held = held.clone();
        let mut job: Pin<Box<dyn Future<Output = Result<(), Refusal>> + 'p>> =
            Box::pin(pool.run(lane, move || {
                let _ = started.send(());
                let _ = held.recv();
            }));
        assert!(
            job.as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        starts.recv().unwrap();
        job
    }

    #[tokio::test]
    async fn a_panic_ends_one_job_only() {
        let pool = Pool::new(1);
        for lane in [Lane::Small, Lane::Large] {
            let broken: Result<u8, Refusal> = pool.run(lane, || panic!("on purpose")).await;
            assert_eq!(broken, Err(Refusal::Panicked));
            assert_eq!(pool.run(lane, || 7).await, Ok(7));
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let pool = Box::leak(Box::new(Pool::new(1)));
        let pool: &'static Pool = pool;
        let (hold, held) = bounded::<()>(0);
        let mut jobs: Vec<Running> = vec![holding(pool, Lane::Large, &held)];
        for _ in 0..WAITING_PER_THREAD {
            let mut job: Running = Box::pin(pool.run(Lane::Large, || ()));
            assert!(poll(&mut job).is_pending());
            jobs.push(job);
        }
        assert_eq!(pool.run(Lane::Large, || ()).await, Err(Refusal::Full));
        drop(hold);
        for job in jobs {
            assert_eq!(job.await, Ok(()));
        }
    }

    #[tokio::test]
    async fn large_jobs_leave_a_thread_to_small_ones() {
        let pool = Pool::new(2);
        let (hold, held) = bounded::<()>(0);
        let large = [0; 2].map(|_| holding(&pool, Lane::Large, &held));
        // Both threads are held, and small jobs are done all the same.
        for n in 0..10 {
            assert_eq!(pool.run(Lane::Small, move || n).await, Ok(n));
        }
        drop(hold);
        for job in large {
            assert_eq!(job.await, Ok(()));
        }
    }

    #[tokio::test]
    async fn small_jobs_that_turn_out_large_are_passed_by() {
        let pool = Pool::new(1);
        let (hold, held) = bounded::<()>(0);
        let mut long = vec![
            holding(&pool, Lane::Large, &held),
            holding(&pool, Lane::Small, &held),
        ];
        for _ in 0..MAX_SPARE {
            let held_for_long = || pool.crew.all_held();
            while !held_for_long() {
                thread::yield_now();
            }
            assert_eq!(pool.run(Lane::Small, || 1).await, Ok(1));
            // The spare thread is free: it takes this one.
            long.push(holding(&pool, Lane::Small, &held));
        }
        assert_eq!(pool.crew.n_spare.load(Ordering::Relaxed), MAX_SPARE);
        drop(hold);
        for job in long {
            assert_eq!(job.await, Ok(()));
        }
    }

    #[test]
    fn requests_are_small_by_what_they_ask_for() {
        assert_eq!(Lane::of(["web.*.hits"], 86_400), Lane::Small);
        assert_eq!(Lane::of(["a"; 7], 86_400), Lane::Small);
        assert_eq!(Lane::of(["a"; 32], 0), Lane::Small);
        assert_eq!(Lane::of(["a"; 33], 0), Lane::Large);
        assert_eq!(Lane::of(["a"], 365 * 86_400), Lane::Large);
        assert_eq!(Lane::of(["a"; 2], i64::MAX), Lane::Large);
        assert_eq!(Lane::of(["a.**"], 60), Lane::Large);
        assert_eq!(Lane::of([&*"a".repeat(9_000)], 60), Lane::Large);
    }
}
