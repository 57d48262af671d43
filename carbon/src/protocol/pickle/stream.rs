//! A connection's frames of pickles.

use super::{Machine, metrics};
use crate::protocol::frame::Frames;
use crate::protocol::{Buffer, Flow, Metrics, Resolver};

/// A machine that has more memory than this after a frame gives it back.
const KEPT: usize = 4 << 20;

/// Takes the metrics of framed pickles.
#[derive(Debug)]
pub struct Stream {
    frames: Frames,
    machine: Machine,
}

impl Stream {
    /// Frames of up to `max` bytes.
    pub fn new(max: usize) -> Self {
        Self {
            frames: Frames::new(max),
            machine: Machine::default(),
        }
    }
}

impl Buffer for Stream {
    fn space(&mut self) -> &mut [u8] {
        self.frames.space()
    }

    fn rest(&mut self) {
        self.frames.rest();
        self.machine = Machine::default();
    }

    fn unread(&self) -> usize {
        self.frames.unread().len()
    }
}

impl Metrics for Stream {
    fn advance(&mut self, n: usize, resolver: &mut Resolver<'_>) -> Flow {
        let Self { frames, machine } = self;
        let outcome = frames.advance(n, |frame| metrics::read(frame, machine, resolver));
        if machine.size_bytes() > KEPT {
            *machine = Machine::default();
        }
        frames.flow(outcome, resolver)
    }

    fn end(&mut self, resolver: &mut Resolver<'_>) {
        self.frames.end(resolver);
    }
}
