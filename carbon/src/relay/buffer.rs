//! What has been taken for a destination and is not in its queue yet, bounded.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::queue::Chunk;

/// A chunk of this size is handed on.
const CHUNK: usize = 64 << 10;
/// How much waits at most. The worker of a destination takes it within milliseconds, whatever the
/// destination does; only a disk that hangs fills it.
const MAX: usize = 32 << 20;

/// Chunks between receivers and the worker of a destination.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    inner: Mutex<Inner>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    whole: Vec<Chunk>,
    part: Chunk,
    bytes: usize,
    stopping: bool,
}

impl Buffer {
    /// Appends whole lines; false if there is no room. Never waits for the disk or the destination.
    pub(super) fn push(&self, lines: &[u8], points: u32) -> bool {
        let mut inner = self.inner.lock();
        if inner.bytes + lines.len() > MAX {
            return false;
        }
        let was_empty = inner.bytes == 0;
        inner.bytes += lines.len();
        inner.part.lines.extend_from_slice(lines);
        inner.part.points += points;
        let is_whole = inner.part.lines.len() >= CHUNK;
        if is_whole {
            let room = Vec::with_capacity(CHUNK + CHUNK / 4);
            let lines = std::mem::replace(&mut inner.part.lines, room);
            let points = std::mem::take(&mut inner.part.points);
            inner.whole.push(Chunk { lines, points });
        }
        drop(inner);
        if was_empty || is_whole {
            self.filled.notify_one();
        }
        true
    }

    /// Takes what is there. Waits until `until` if nothing is; once there is something, `gather` for more,
    /// so that few points do not become many small chunks.
    pub(super) fn take(&self, until: Instant, gather: Duration) -> Vec<Chunk> {
        let mut inner = self.inner.lock();
        while inner.bytes == 0 && !inner.stopping {
            if self.filled.wait_until(&mut inner, until).timed_out() {
                return Vec::new();
            }
        }
        let gathered = Instant::now() + gather;
        while inner.whole.is_empty() && !inner.stopping {
            if self.filled.wait_until(&mut inner, gathered).timed_out() {
                break;
            }
        }
        inner.bytes = 0;
        let mut chunks = std::mem::take(&mut inner.whole);
        if !inner.part.lines.is_empty() {
            chunks.push(std::mem::take(&mut inner.part));
        }
        chunks
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// Wakes the worker, which waits no more.
    pub(super) fn stop(&self) {
        self.inner.lock().stopping = true;
        self.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_refused_and_order_is_kept() {
        let buffer = Buffer::default();
        let lines = vec![b'x'; 1 << 20];
        for _ in 0..32 {
            assert!(buffer.push(&lines, 3));
        }
        assert!(!buffer.push(b"y", 1));
        let chunks = buffer.take(Instant::now(), Duration::ZERO);
        assert_eq!(chunks.iter().map(|chunk| chunk.points).sum::<u32>(), 96);
        assert_eq!(buffer.bytes(), 0);
        assert!(buffer.push(b"a", 1) && buffer.push(b"b", 1));
        let chunks = buffer.take(Instant::now(), Duration::ZERO);
        assert_eq!((chunks.len(), &chunks[0].lines[..]), (1, &b"ab"[..]));
        assert!(buffer.take(Instant::now(), Duration::ZERO).is_empty());
    }
}
