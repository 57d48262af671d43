//! The threads that compute answers.
//!
//! 1. As many threads as [`Pool::new`] says, for the life of the pool.
//! 2. A bounded queue before them: what finds it full is refused at once.
//! 3. A panic ends the request, not the thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crossbeam::channel::{Sender, bounded};
use tokio::sync::oneshot;

/// How many requests may wait for each thread.
const WAITING_PER_THREAD: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads and their queue.
pub struct Pool {
    queue: Sender<Job>,
    n_threads: usize,
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
    /// `n_threads` threads, or as many as there are processors if that is 0.
    pub fn new(n_threads: usize) -> Self {
        let processors = || thread::available_parallelism().map_or(2, usize::from);
        let n_threads = match n_threads {
            0 => processors(),
            n => n,
        };
        let (queue, jobs) = bounded::<Job>(n_threads * WAITING_PER_THREAD);
        for n in 0..n_threads {
            let jobs = jobs.clone();
            let builder = thread::Builder::new().name(format!("render-{n}"));
            let started = builder.spawn(move || {
                for job in jobs {
                    job();
                }
            });
            if let Err(error) = started {
                tracing::error!(%error, "a thread of the query pool did not start");
            }
        }
        Self { queue, n_threads }
    }

    /// How many threads there are.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Runs `job` on one of the threads.
    ///
    /// # Errors
    /// [`Refusal`] if the queue is full or the job panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move || {
            // Whoever asked may have gone away meanwhile.
            if answer.is_closed() {
                return;
            }
            let result = catch_unwind(AssertUnwindSafe(job));
            let _ = answer.send(result);
        });
        self.queue.try_send(job).map_err(|_| Refusal::Full)?;
        match answered.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) | Err(_) => Err(Refusal::Panicked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_one_job_only() {
        let pool = Pool::new(1);
        let broken: Result<u8, Refusal> = pool.run(|| panic!("on purpose")).await;
        assert_eq!(broken, Err(Refusal::Panicked));
        assert_eq!(pool.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_full_queue_refuses() {
        let pool = Pool::new(1);
        let (hold, held) = bounded::<()>(0);
        let (started, starts) = bounded::<()>(0);
        let waiting = held.clone();
        let mut jobs = vec![Box::pin(pool.run(move || {
            let _ = started.send(());
            let _ = waiting.recv();
        })) as std::pin::Pin<Box<dyn Future<Output = _>>>];
        // Sends the first job; then fills the queue behind it.
        let poll = |job: &mut std::pin::Pin<Box<dyn Future<Output = Result<(), Refusal>>>>| {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            job.as_mut().poll(&mut context)
        };
        assert!(poll(&mut jobs[0]).is_pending());
        starts.recv().unwrap();
        for _ in 0..WAITING_PER_THREAD {
            let mut job = Box::pin(pool.run(|| ())) as std::pin::Pin<Box<dyn Future<Output = _>>>;
            assert!(poll(&mut job).is_pending());
            jobs.push(job);
        }
        assert_eq!(pool.run(|| ()).await, Err(Refusal::Full));
        drop(hold);
        for job in jobs {
            assert_eq!(job.await, Ok(()));
        }
    }
}
