//! What listeners know of their connections: how many they are, and how long each has been silent.
//!
//! At the limit the connection that has been silent longest makes room for a new one; a new one is
//! refused only while all of them send.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A connection that is silent for this long may be closed to make room.
const SILENT: Duration = Duration::from_secs(1);
/// Connections that have been asked to make room and have not ended yet, beside the limit, and no
/// more than the limit.
const MAX_LEAVING: usize = 64;
/// The last read of a connection whose bytes are being handled.
const BUSY: u64 = u64::MAX;

/// What is known of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    start: Instant,
    /// Since when the client is waited for, in microseconds since `start`; [`BUSY`] while it is not.
    waits_since: AtomicU64,
    leaves: AtomicBool,
    /// Has it end.
    wake: Notify,
}

impl Peer {
    fn new(start: Instant) -> Self {
        let peer = Self {
            start,
            waits_since: AtomicU64::new(BUSY),
            leaves: AtomicBool::new(false),
            wake: Notify::new(),
        };
        peer.waits();
        peer
    }

    /// A connection beside which there are no others.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn alone() -> Arc<Self> {
        Arc::new(Self::new(Instant::now()))
    }

    /// The client is waited for from now on.
    pub(crate) fn waits(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(BUSY - 1);
        self.waits_since.store(now, Ordering::Relaxed);
    }

    /// The client has done its part.
    pub(crate) fn works(&self) {
        self.waits_since.store(BUSY, Ordering::Relaxed);
    }

    /// Returns when the connection is to make room for another.
    pub(crate) async fn displaced(&self) {
        self.wake.notified().await;
    }

    fn leave(&self) {
        self.leaves.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }
}

/// Whether a new connection is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// A silent connection was asked to leave.
    Made,
    Full,
}

/// The connections of some listeners.
#[derive(Debug)]
pub(super) struct Peers {
    start: Instant,
    known: HashMap<u64, Arc<Peer>>,
    /// How many of them leave.
    leaving: usize,
    max: usize,
    /// The number of the next connection.
    next: u64,
}

impl Peers {
    /// No connections, of which there may be `max`.
    pub(super) fn new(max: usize) -> Self {
        Self {
            start: Instant::now(),
            known: HashMap::new(),
            leaving: 0,
            max,
            next: 0,
        }
    }

    /// Sees to it that there is room for one more.
    pub(super) fn make_room(&mut self) -> Room {
        if self.known.len() - self.leaving < self.max {
            return Room::Free;
        }
        if self.leaving >= MAX_LEAVING.min(self.max) {
            return Room::Full;
        }
        let staying = self.known.values();
        let staying = staying.filter(|peer| !peer.leaves.load(Ordering::Relaxed));
        let oldest = staying.min_by_key(|peer| peer.waits_since.load(Ordering::Relaxed));
        let silent = self.start.elapsed().saturating_sub(SILENT).as_micros();
        match oldest {
            Some(peer) if u128::from(peer.waits_since.load(Ordering::Relaxed)) <= silent => {
                peer.leave();
                self.leaving += 1;
                Room::Made
            }
            _ => Room::Full,
        }
    }

    /// Whether there is room without closing another connection.
    pub(super) fn has_room(&self) -> bool {
        self.known.len() - self.leaving < self.max
    }

    /// Takes a new connection; returns its number.
    pub(super) fn add(&mut self) -> (u64, Arc<Peer>) {
        let (id, peer) = (self.next, Arc::new(Peer::new(self.start)));
        self.next += 1;
        self.known.insert(id, peer.clone());
        (id, peer)
    }

    pub(super) fn ended(&mut self, id: u64) {
        if let Some(peer) = self.known.remove(&id) {
            self.leaving -= usize::from(peer.leaves.load(Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silent_makes_room_and_senders_stay() {
        let mut peers = Peers::new(3);
        peers.start -= Duration::from_secs(100);
        let silent = |peers: &mut Peers, secs: u64| {
            let peer = peers.add().1;
            let since = (100 - secs) * 1_000_000;
            peer.waits_since.store(since, Ordering::Relaxed);
            peer
        };
        let old = silent(&mut peers, 50);
        let oldest = silent(&mut peers, 60);
        assert_eq!(peers.make_room(), Room::Free);
        let busy = silent(&mut peers, 90);
        busy.works();
        let leaves = |peer: &Peer| peer.leaves.load(Ordering::Relaxed);
        assert!(!peers.has_room());
        assert_eq!(peers.make_room(), Room::Made);
        assert!(leaves(&oldest) && !leaves(&old) && !leaves(&busy));
        // The newcomer, which sends.
        peers.add().1.works();
        assert_eq!(peers.make_room(), Room::Made);
        assert!(leaves(&old) && !leaves(&busy));
        peers.add().1.works();
        assert_eq!(peers.make_room(), Room::Full);
        let ids: Vec<u64> = peers.known.keys().copied().collect();
        for id in ids {
            peers.ended(id);
        }
        assert_eq!((peers.leaving, peers.make_room()), (0, Room::Free));
    }

    #[test]
    fn no_more_than_the_limit_leave_at_once() {
        let mut peers = Peers::new(2);
        peers.start -= Duration::from_secs(100);
        let mut rooms = Vec::new();
        for _ in 0..5 {
            rooms.push(peers.make_room());
            if rooms.last() != Some(&Room::Full) {
                peers.add().1.waits_since.store(0, Ordering::Relaxed);
            }
        }
        let expected = [Room::Free, Room::Free, Room::Made, Room::Made, Room::Full];
        assert_eq!(rooms, expected);
    }
}
