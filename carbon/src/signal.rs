//! Wakes threads and tasks that wait for a change.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use event_listener::{Event, EventListener, Listener};

/// Something that changes, and that threads and tasks wait for.
///
/// Sending costs a fence and a load while nothing waits.
#[derive(Debug, Default)]
pub(crate) struct Signal(Event);

/// The next change of a [`Carbon`](crate::Carbon), for example that there may be room again
/// ([`Carbon::room`](crate::Carbon::room)).
///
/// A future for tasks of any runtime. It is ready after the first change since it was created, even if that
/// was before the first poll. So create it first, check the state second, and await it third.
#[derive(Debug)]
#[must_use = "nothing waits until it is awaited"]
pub struct Changed(EventListener);

impl Signal {
    /// Wakes everything that waits.
    pub(crate) fn send(&self) {
        self.0.notify(usize::MAX);
    }

    /// The next time that [`Signal::send`] is called.
    pub(crate) fn next(&self) -> Changed {
        Changed(self.0.listen())
    }
}

impl Changed {
    /// Blocks the thread until the change, or until `deadline` if there is one.
    pub(crate) fn wait(self, deadline: Option<Instant>) {
        match deadline {
            None => self.0.wait(),
            Some(deadline) => {
                self.0.wait_deadline(deadline);
            }
        }
    }
}

impl Future for Changed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_between_looking_and_waiting_is_not_missed() {
        let signal = Signal::default();
        let changed = signal.next();
        signal.send();
        changed.wait(None);
    }

    #[test]
    fn every_waiting_thread_is_woken() {
        let signal = Arc::new(Signal::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let changed = signal.next();
                std::thread::spawn(move || changed.wait(None))
            })
            .collect();
        signal.send();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(5);
        Signal::default().next().wait(Some(deadline));
        assert!(Instant::now() >= deadline);
    }
}
