//! Supervision of workers: a thread or task that ends by a panic ends the process.
//!
//! 1. Every worker that lives as long as the process holds an [`Alarm`]: the threads of carbon, of
//!    statsd and of the event store, the tasks of the receivers, of HTTP and in the background.
//! 2. The first report wins: it is logged, `/readyz` shows it, and the server drains and exits with
//!    1, without waiting for the dead worker.
//! 3. A panic in a request ends only that request: the client gets a 500, and the panic is counted.

use std::future::Future;
use std::sync::Arc;

use carbon::{Alarm, OnDeath};
use tokio::sync::watch;
use tracing::error;

/// Receives the reports of workers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Supervisor(watch::Sender<Option<String>>);

impl Default for Supervisor {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Supervisor {
    /// The callback for threads of the crates below; its argument is the name of the dead worker.
    pub fn on_death(&self) -> OnDeath {
        let Self(reports) = self.clone();
        Arc::new(move |name| {
            error!("{name} ended by a panic: the process shuts down");
            reports.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert_with(|| name.to_owned());
                is_first
            });
        })
    }

    /// `work`, reported under `name` if it panics.
    pub fn watched<F: Future>(
        &self,
        name: &str,
        work: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let alarm = Alarm::new(name, &self.on_death());
        async move {
            let _alarm = alarm;
            work.await
        }
    }

    /// The name of the first worker that died, if any.
    pub fn dead(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Waits until a worker dies.
    pub async fn death(&self) -> String {
        let mut reports = self.0.subscribe();
        // The sender is in `self`, so the channel cannot be closed.
        match reports.wait_for(Option::is_some).await {
            Ok(first) => first.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_death_is_reported_and_an_end_is_none() {
        let supervisor = Supervisor::default();
        tokio::spawn(supervisor.watched("well", async {}))
            .await
            .unwrap();
        let aborted = tokio::spawn(supervisor.watched("aborted", std::future::pending::<()>()));
        aborted.abort();
        assert!(aborted.await.unwrap_err().is_cancelled());
        assert_eq!(supervisor.dead(), None);

        let ill = tokio::spawn(supervisor.watched("receiver", async {
            tokio::task::yield_now().await;
            panic!("on purpose");
        }));
        assert_eq!(supervisor.death().await, "receiver");
        assert!(ill.await.unwrap_err().is_panic());
        let alarm = Alarm::new("second", &supervisor.on_death());
        let second = std::thread::spawn(move || {
            let _alarm = alarm;
            panic!("on purpose");
        });
        assert!(second.join().is_err());
        assert_eq!(supervisor.dead().as_deref(), Some("receiver"));
    }
}
