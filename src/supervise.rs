//! Workers that must not die: a thread or task that ends by a panic ends the process.
//!
//! 1. Whatever works for as long as the process lives holds an [`Alarm`]: the threads of carbon,
//!    of statsd and of the event store, the tasks of the receivers, of HTTP and in the background.
//! 2. The first report wins: it is logged, `/readyz` says it, and the server drains and exits with
//!    1, without waiting for what the dead worker will never do.
//! 3. A request that panics is no such worker: it is answered with a 500 and counted.

use std::future::Future;
use std::sync::Arc;

use carbon::{Alarm, OnDeath};
use tokio::sync::watch;
use tracing::error;

/// Where workers report to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Supervisor(watch::Sender<Option<String>>);

impl Default for Supervisor {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Supervisor {
    /// What threads of the crates below are given: called with the name of the dead.
    pub fn on_death(&self) -> OnDeath {
        let Self(reports) = self.clone();
        Arc::new(move |name| {
            error!("{name} has died by a panic: the process ends");
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

    /// The name of the first that died, if any has.
    pub fn dead(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Waits until one dies.
    pub async fn death(&self) -> String {
        let mut reports = self.0.subscribe();
        // The sender is in `self`: it cannot be gone.
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
