//! What the listeners know of their connections: how many they are, and how long each has been silent.
//!
//! 1. Connections are limited in number (`carbon.max_connections`, all receivers together). At the limit, the
//!    connection that has been silent longest makes room for a new one; a new one is refused only
//!    while all of them are sending.
//! 2. A silent connection gives back its buffers, and is closed after `carbon.idle_timeout`.
//! 3. Lines and frames whose end has not come are kept up to a limit (`carbon.max_unread_size`, all
//!    connections together). Beyond it, the connections that keep some and have been silent longest are
//!    closed; if none is silent, the one that goes beyond it.
//! 4. The time of each connection's last read is in one table, which each listener looks through once a
//!    second: a connection has no timer.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::Id;
use tokio::time::Instant;

use crate::store::Carbon;

/// A connection that is silent for this long gives back its buffers.
const REST_AFTER: Duration = Duration::from_secs(5);
/// A connection that is silent for this long may be closed to make room.
const SILENT: Duration = Duration::from_secs(1);
/// Connections that have been asked to make room and have not ended yet, beside the limit.
const MAX_LEAVING: usize = 64;
/// The log reports that the limit is reached this often at most.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// The last read of a connection that is handing on what it has read.
pub(super) const BUSY: u64 = u64::MAX;

/// What is known of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    /// When it was read last, in microseconds since the table's start; [`BUSY`] meanwhile.
    pub(super) read_at: AtomicU64,
    /// It has given back its buffers since.
    pub(super) rests: AtomicBool,
    /// It is to end.
    pub(super) leaves: AtomicBool,
    /// Has it look at these.
    pub(super) wake: Notify,
    /// Bytes that it keeps of a line or a frame whose end has not come.
    unread: AtomicUsize,
}

/// Bytes that all connections keep of lines and frames whose end has not come.
#[derive(Debug)]
pub(super) struct Unread {
    total: AtomicUsize,
    max: usize,
}

impl Unread {
    /// `peer` keeps `bytes` now; whether all is within the limit.
    pub(super) fn set(&self, peer: &Peer, bytes: usize) -> bool {
        let before = peer.unread.swap(bytes, Ordering::Relaxed);
        if bytes <= before {
            self.total.fetch_sub(before - bytes, Ordering::Relaxed);
            return true;
        }
        let total = self.total.fetch_add(bytes - before, Ordering::Relaxed);
        total + (bytes - before) <= self.max
    }
}

/// The connections of all listeners.
pub(super) struct Peers {
    pub(super) start: Instant,
    pub(super) known: HashMap<Id, Arc<Peer>>,
    pub(super) unread: Arc<Unread>,
    /// How many of them leave.
    leaving: usize,
    max: usize,
    idle_timeout: Duration,
    complained: Option<Instant>,
    complained_of_memory: Option<Instant>,
}

/// Whether a new connection is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// A silent connection was asked to leave.
    Made,
    Full,
}

impl Peer {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            read_at: AtomicU64::new(micros(start)),
            rests: AtomicBool::new(false),
            leaves: AtomicBool::new(false),
            wake: Notify::new(),
            unread: AtomicUsize::new(0),
        }
    }

    fn leave(&self) {
        self.leaves.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

/// Microseconds since `start`.
pub(super) fn micros(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(BUSY - 1)
}

impl Peers {
    pub(super) fn new(carbon: &Carbon) -> Self {
        let options = &carbon.0.options;
        let max = match options.max_connections {
            0 => usize::MAX,
            max => max as usize,
        };
        let max_unread = match options.max_unread_size.0 {
            0 => usize::MAX,
            // One frame can always be read.
            bytes => usize::try_from(bytes.max(options.max_frame_size.0)).unwrap_or(usize::MAX),
        };
        Self {
            start: Instant::now(),
            known: HashMap::new(),
            unread: Arc::new(Unread {
                total: AtomicUsize::new(0),
                max: max_unread,
            }),
            leaving: 0,
            max,
            idle_timeout: options.idle_timeout.0,
            complained: None,
            complained_of_memory: None,
        }
    }

    /// The connections that stay, each with how long it has been silent; zero for a busy one.
    fn silent(&self) -> impl Iterator<Item = (&Arc<Peer>, Duration)> {
        let now = micros(self.start);
        let staying = self.known.values();
        let staying = staying.filter(|peer| !peer.leaves.load(Ordering::Relaxed));
        staying.map(move |peer| {
            let at = peer.read_at.load(Ordering::Relaxed);
            (peer, Duration::from_micros(now.saturating_sub(at)))
        })
    }

    /// Sees to it that there is room for one more.
    pub(super) fn make_room(&mut self) -> Room {
        if self.known.len() - self.leaving < self.max {
            return Room::Free;
        }
        let oldest = self.silent().max_by_key(|(_, silent)| *silent);
        let room = match oldest {
            Some((peer, silent)) if silent >= SILENT && self.leaving < MAX_LEAVING => {
                peer.leave();
                Room::Made
            }
            _ => Room::Full,
        };
        self.leaving += usize::from(room == Room::Made);
        let logged = self.complained;
        if logged.is_none_or(|logged| logged.elapsed() >= LOG_PAUSE) {
            self.complained = Some(Instant::now());
            tracing::warn!(
                connections = self.known.len(),
                "carbon.max_connections is reached: silent connections make room, others are refused"
            );
        }
        room
    }

    /// Has silent connections that keep unread bytes leave, until the others are within the limit: how many
    /// leave, and whether that is enough.
    pub(super) fn make_memory(&mut self) -> (usize, bool) {
        let kept = |peer: &Peer| peer.unread.load(Ordering::Relaxed);
        let mut total: usize = self.silent().map(|(peer, _)| kept(peer)).sum();
        let mut leaving = 0;
        if total > self.unread.max {
            let mut silent: Vec<(Duration, Arc<Peer>)> = self
                .silent()
                .filter(|(peer, silent)| *silent >= SILENT && kept(peer) > 0)
                .map(|(peer, silent)| (silent, Arc::clone(peer)))
                .collect();
            silent.sort_by_key(|(silent, _)| *silent);
            while total > self.unread.max
                && let Some((_, peer)) = silent.pop()
            {
                total = total.saturating_sub(kept(&peer));
                peer.leave();
                leaving += 1;
            }
        }
        self.leaving += leaving;
        let logged = self.complained_of_memory;
        if logged.is_none_or(|logged| logged.elapsed() >= LOG_PAUSE) {
            self.complained_of_memory = Some(Instant::now());
            tracing::warn!(
                connections = self.known.len(),
                "carbon.max_unread_size is reached: connections with unfinished lines and frames are closed"
            );
        }
        (leaving, total <= self.unread.max)
    }

    pub(super) fn ended(&mut self, id: Id) {
        if let Some(peer) = self.known.remove(&id) {
            self.leaving -= usize::from(peer.leaves.load(Ordering::Relaxed));
        }
    }

    /// Has silent connections rest or leave; how many leave now.
    pub(super) fn look(&mut self) -> usize {
        let mut leaving = 0;
        for (peer, silent) in self.silent() {
            if !self.idle_timeout.is_zero() && silent >= self.idle_timeout {
                peer.leave();
                leaving += 1;
            } else if silent >= REST_AFTER && !peer.rests.swap(true, Ordering::Relaxed) {
                peer.wake.notify_one();
            }
        }
        self.leaving += leaving;
        leaving
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::tests::limited;
    use crate::options::{ByteSize, Options, Span};
    use tokio::time::timeout;

    fn silent(peers: &mut Peers, silent: Duration) -> Arc<Peer> {
        let peer = Arc::new(Peer::new(peers.start));
        let at = peers.start.elapsed() - silent;
        peer.read_at.store(at.as_micros() as u64, Ordering::Relaxed);
        let id = tokio::spawn(async {}).id();
        peers.known.insert(id, peer.clone());
        peer
    }

    #[tokio::test]
    async fn the_longest_silent_makes_room_and_senders_stay() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            max_connections: 3,
            ..Options::default()
        };
        let mut peers = Peers::new(&limited(dir.path(), options));
        peers.start -= Duration::from_secs(100);
        let old = silent(&mut peers, Duration::from_secs(50));
        let oldest = silent(&mut peers, Duration::from_secs(60));
        assert_eq!(peers.make_room(), Room::Free);
        let busy = silent(&mut peers, Duration::ZERO);
        busy.read_at.store(BUSY, Ordering::Relaxed);
        let leaves = |peer: &Peer| peer.leaves.load(Ordering::Relaxed);
        assert_eq!(peers.make_room(), Room::Made);
        assert!(leaves(&oldest) && !leaves(&old) && !leaves(&busy));
        // The newcomer, which sends.
        silent(&mut peers, Duration::ZERO);
        assert_eq!(peers.make_room(), Room::Made);
        assert!(leaves(&old) && !leaves(&busy));
        silent(&mut peers, Duration::ZERO);
        assert_eq!(peers.make_room(), Room::Full);
        let ids: Vec<Id> = peers.known.keys().copied().collect();
        for id in ids {
            peers.ended(id);
        }
        assert_eq!((peers.leaving, peers.make_room()), (0, Room::Free));
    }

    #[tokio::test]
    async fn unread_bytes_have_a_common_limit() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            max_unread_size: ByteSize(3_000),
            max_frame_size: ByteSize(1_024),
            ..Options::default()
        };
        let mut peers = Peers::new(&limited(dir.path(), options));
        peers.start -= Duration::from_secs(100);
        let unread = Arc::clone(&peers.unread);
        let old = silent(&mut peers, Duration::from_secs(50));
        let empty = silent(&mut peers, Duration::from_secs(90));
        let oldest = silent(&mut peers, Duration::from_secs(60));
        let sends = silent(&mut peers, Duration::ZERO);
        for peer in [&old, &oldest] {
            assert!(unread.set(peer, 1_000));
        }
        assert!(unread.set(&sends, 900));
        assert!(!unread.set(&sends, 1_200));
        assert_eq!(peers.make_memory(), (1, true));
        let leaves = |peer: &Peer| peer.leaves.load(Ordering::Relaxed);
        assert!(leaves(&oldest) && !leaves(&old) && !leaves(&empty) && !leaves(&sends));
        // The one that leaves has not ended yet: those that stay are within the limit.
        assert!(!unread.set(&sends, 1_300));
        assert_eq!(peers.make_memory(), (0, true));
        unread.set(&oldest, 0);
        assert!(unread.set(&sends, 1_300));
        // Only what sends is left.
        let other = silent(&mut peers, Duration::ZERO);
        assert!(!unread.set(&other, 3_000));
        assert_eq!(peers.make_memory(), (1, false));
        assert!(leaves(&old) && !leaves(&other) && !leaves(&sends));
    }

    #[tokio::test]
    async fn the_silent_rest_once_and_leave_after_the_timeout() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            idle_timeout: Span::seconds(60),
            ..Options::default()
        };
        let mut peers = Peers::new(&limited(dir.path(), options));
        peers.start -= Duration::from_secs(100);
        let rests = silent(&mut peers, Duration::from_secs(50));
        let leaves = silent(&mut peers, Duration::from_secs(61));
        let sends = silent(&mut peers, Duration::ZERO);
        assert_eq!(peers.look(), 1);
        let state = |peer: &Peer| {
            let leaves = peer.leaves.load(Ordering::Relaxed);
            (peer.rests.load(Ordering::Relaxed), leaves)
        };
        assert_eq!(state(&rests), (true, false));
        assert_eq!(state(&leaves), (false, true));
        assert_eq!(state(&sends), (false, false));
        // Woken once, and not again until it has sent.
        rests.wake.notified().await;
        assert_eq!(peers.look(), 0);
        assert!(
            timeout(Duration::ZERO, rests.wake.notified())
                .await
                .is_err()
        );
    }
}
