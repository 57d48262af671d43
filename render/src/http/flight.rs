//! Requests that are being computed: equal ones at the same time share the work.
//!
//! 1. A flight has a key, which is what its request asks, and as many clients as wait for it.
//! 2. It ends with its answer, or when its last client goes: then its budget is cancelled. Either
//!    way nothing of it stays here.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::Answer;
use crate::budget::Budget;

/// The SHA-256 of all that a request asks. A key is small, however long the request, and no client
/// can send two different requests with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of a request that asks `all`.
    pub fn of(all: &impl Hash) -> Self {
        struct Digesting(Sha256);

        impl Hasher for Digesting {
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }

            fn finish(&self) -> u64 {
                let digest = self.0.clone().finalize();
                digest
                    .iter()
                    .fold(0, |low, &byte| low << 8 | u64::from(byte))
            }
        }

        let mut hasher = Digesting(Sha256::new());
        all.hash(&mut hasher);
        Self(hasher.0.finalize().into())
    }
}

/// The flights of one application.
#[derive(Default)]
pub(super) struct Flights(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_key: HashMap<Key, Flight>,
    /// How many there have been.
    n_flights: u64,
}

struct Flight {
    number: u64,
    n_clients: usize,
    budget: Budget,
    answer: Answered,
}

/// Where an answer will be.
pub(super) type Answered = watch::Receiver<Option<Answer>>;

/// Where it is put.
pub(super) type Answering = watch::Sender<Option<Answer>>;

impl Flights {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock()
    }

    /// A client of the flight with `key`. The first one begins the flight, with its `budget`, and
    /// learns where to put the answer.
    pub(super) fn join(&self, key: Key, budget: Budget) -> (Client<'_>, Option<Answering>) {
        let mut table = self.table();
        let Table { by_key, n_flights } = &mut *table;
        let mut answering = None;
        let flight = by_key.entry(key).or_insert_with(|| {
            let (sender, answer) = watch::channel(None);
            answering = Some(sender);
            *n_flights += 1;
            Flight {
                number: *n_flights,
                n_clients: 0,
                budget,
                answer,
            }
        });
        flight.n_clients += 1;
        let client = Client {
            flights: self,
            key,
            number: flight.number,
            answer: flight.answer.clone(),
        };
        (client, answering)
    }

    /// Ends the flight with that number, which has an answer or will never have one.
    pub(super) fn end(&self, key: &Key, number: u64) {
        let mut table = self.table();
        if let Some(flight) = table.by_key.get(key)
            && flight.number == number
        {
            table.by_key.remove(key);
        }
    }
}

/// One request that waits for an answer. Dropped, it waits no longer.
pub(super) struct Client<'f> {
    flights: &'f Flights,
    key: Key,
    /// The number of its flight.
    pub(super) number: u64,
    /// Where its answer will be.
    pub(super) answer: Answered,
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        let mut table = self.flights.table();
        let Some(flight) = table.by_key.get_mut(&self.key) else {
            return;
        };
        if flight.number != self.number {
            return;
        }
        flight.n_clients -= 1;
        if flight.n_clients == 0 {
            flight.budget.cancel();
            table.by_key.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n_flights(flights: &Flights) -> usize {
        flights.table().by_key.len()
    }

    fn key(text: &str) -> Key {
        Key::of(&text)
    }

    #[test]
    fn work_is_cancelled_when_the_last_client_goes() {
        let flights = Flights::default();
        let budget = Budget::unlimited();
        let (first, answering) = flights.join(key("a"), budget.clone());
        assert!(answering.is_some());
        let (second, answering) = flights.join(key("a"), Budget::unlimited());
        assert!(answering.is_none());
        drop(first);
        assert!(!budget.is_cancelled());
        drop(second);
        assert!(budget.is_cancelled());
        assert_eq!(n_flights(&flights), 0);
    }

    #[test]
    fn an_answer_ends_the_flight_and_cancels_nothing() {
        let flights = Flights::default();
        let budget = Budget::unlimited();
        let (client, _) = flights.join(key("a"), budget.clone());
        flights.end(&key("a"), client.number);
        assert_eq!(n_flights(&flights), 0);
        drop(client);
        assert!(!budget.is_cancelled());
    }

    #[test]
    fn the_end_of_one_flight_leaves_the_next_of_its_key() {
        let flights = Flights::default();
        let (gone, _) = flights.join(key("a"), Budget::unlimited());
        let number = gone.number;
        drop(gone);
        let budget = Budget::unlimited();
        let (client, answering) = flights.join(key("a"), budget.clone());
        assert!(answering.is_some());
        // The work of the first comes to its end only now.
        flights.end(&key("a"), number);
        assert_eq!(n_flights(&flights), 1);
        drop(client);
        assert!(budget.is_cancelled());
    }

    #[test]
    fn keys_differ_as_the_requests_do() {
        assert_eq!(key("a"), key("a"));
        assert_ne!(key("a"), key("b"));
        assert_eq!(size_of::<Key>(), 32);
    }
}
