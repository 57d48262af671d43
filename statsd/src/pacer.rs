//! Sleeping on purpose: after a read that found little, so that the next one finds more.
//!
//! Waking up is dearer than all the rest (3 to 5 µs, on a virtual machine more), so that one
//! wake-up should take many datagrams. How long a sleep may last follows from how fast the receive
//! buffer fills.

use std::mem;
use std::time::{Duration, Instant};

/// Decides for how long to sleep after a read.
#[derive(Debug)]
pub(crate) struct Pacer {
    longest: Duration,
    /// Bytes that may gather meanwhile.
    room: f64,
    /// What has come since then.
    since: Instant,
    datagrams: usize,
    bytes: usize,
    /// Datagrams and buffer bytes per second, recently.
    rate: f64,
    load: f64,
}

impl Pacer {
    /// Below this many datagrams a second there is nothing to gain.
    const WORTHWHILE: f64 = 2_000.0;
    /// Shorter sleeps take longer than they last.
    const SHORTEST: Duration = Duration::from_micros(200);
    /// Over less time than this the rate is that of a burst.
    const WINDOW: Duration = Duration::from_millis(1);
    /// What the kernel's bookkeeping takes per datagram.
    const OVERHEAD: f64 = 832.0;

    /// `buffer` is that of the socket; an eighth of it may fill in a pause.
    pub(crate) fn new(longest: Duration, buffer: usize) -> Self {
        Self {
            longest,
            room: buffer as f64 / 8.0,
            since: Instant::now(),
            datagrams: 0,
            bytes: 0,
            rate: 0.0,
            load: 0.0,
        }
    }

    /// Takes note of what a read has found.
    #[inline]
    pub(crate) fn count(&mut self, datagrams: usize, bytes: usize) {
        self.datagrams += datagrams;
        self.bytes += bytes;
    }

    /// How long to sleep now; `None` for not.
    pub(crate) fn pause(&mut self) -> Option<Duration> {
        self.pause_at(Instant::now())
    }

    fn pause_at(&mut self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.since);
        if since >= Self::WINDOW {
            self.since = now;
            let seconds = since.as_secs_f64();
            let datagrams = mem::take(&mut self.datagrams) as f64;
            let bytes = mem::take(&mut self.bytes) as f64;
            let rate = datagrams / seconds;
            let load = (bytes * 2.0 + datagrams * Self::OVERHEAD) / seconds;
            // Rises are believed at once, falls slowly.
            self.rate = rate.max(self.rate * 0.75 + rate * 0.25);
            self.load = load.max(self.load * 0.75 + load * 0.25);
        }
        if self.rate < Self::WORTHWHILE {
            return None;
        }
        let fits = Duration::from_secs_f64((self.room / self.load).min(1.0));
        let pause = self.longest.min(fits);
        (pause >= Self::SHORTEST).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_millis(2);

    #[test]
    fn pauses_are_for_busy_sockets_with_room() {
        let second = |pacer: &mut Pacer, datagrams, bytes| {
            pacer.count(datagrams, bytes);
            pacer.pause_at(pacer.since + Duration::from_secs(1))
        };
        let mut pacer = Pacer::new(LONGEST, 8 << 20);
        assert_eq!(second(&mut pacer, 1, 50), None);
        assert_eq!(second(&mut pacer, 100_000, 5_000_000), Some(LONGEST));
        let mut small = Pacer::new(LONGEST, 4_096);
        assert_eq!(second(&mut small, 100_000, 5_000_000), None);
    }

    #[test]
    fn a_burst_is_no_rate() {
        let mut pacer = Pacer::new(LONGEST, 8 << 20);
        pacer.count(10, 10_000);
        let start = pacer.since;
        let at = |micros| start + Duration::from_micros(micros);
        assert_eq!(pacer.pause_at(at(10)), None, "nothing is known yet");
        // 400,000 datagrams a second of 1,400 bytes, in reads of which some follow at once.
        let mut pauses = Vec::new();
        for read in 1..200 {
            pacer.count(40, 40 * 1_400);
            pauses.push(pacer.pause_at(at(read * 100 + read % 2 * 95)));
        }
        let settled = &pauses[20..];
        let room = (8 << 20) as f64 / 8.0 / (400_000.0 * (2_800.0 + 832.0));
        for pause in settled {
            let pause = pause.unwrap().as_secs_f64();
            assert!(pause > room * 0.7 && pause < room * 1.3, "{pause} {room}");
        }
    }
}
