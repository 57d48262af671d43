//! What receivers and the aggregator tell each other.
//!
//! Reports go through a bounded channel, commands the other way through a queue that a receiver
//! looks into between two reads. What all threads see is in [`Shared`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::cell::{MemberList, SampleList, Value};
use crate::kind::Kind;
use crate::raw::entries::NameChunk;
use crate::raw::memory::make_room;
use crate::stats::Stats;

/// What a receiver tells the aggregator.
#[derive(Debug)]
pub(crate) struct Report {
    /// The number of the receiver.
    pub(crate) receiver: usize,
    /// The interval.
    pub(crate) epoch: u64,
    pub(crate) contents: Contents,
}

/// What is in a [`Report`].
#[derive(Debug)]
pub(crate) enum Contents {
    /// Names that entries stand for from now on.
    Names(NewNames),
    /// What names have in the interval that has ended.
    Values(Vec<Value>),
    /// Single samples, of the interval that has ended or the running one.
    Samples(SampleList),
    /// Members of sets of the interval that has ended.
    Members(MemberList),
    /// Values that are stored by themselves.
    Points(Vec<Point>),
    /// The interval has been reported completely.
    IntervalEnd(Counts),
    /// The answer to [`Command::Peek`].
    Peek(Peek),
    /// The receiver has ended.
    Ended,
}

/// A value that is stored by itself, under its canonical name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    /// The values of a line share it.
    pub(crate) name: Arc<[u8]>,
    pub(crate) kind: Kind,
    pub(crate) value: f64,
    /// Unix seconds.
    pub(crate) at: f64,
}

/// What a receiver counted in an interval.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) packets: u64,
    pub(crate) lines: u64,
    pub(crate) bad: u64,
    pub(crate) refused: Refused,
    /// Samples by entry, if they are counted.
    pub(crate) hits: Vec<(u32, u32)>,
}

/// What was refused in an interval.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refused {
    /// Samples of names beyond the limits.
    pub(crate) samples: u64,
    /// Members of sets beyond the limits.
    pub(crate) members: u64,
    /// Samples whose name has nothing left in it.
    pub(crate) empty_names: u64,
    /// Prefixes that reached their limit for the first time.
    pub(crate) prefixes: Vec<Vec<u8>>,
}

/// What the running interval has so far.
#[derive(Debug, Default)]
pub(crate) struct Peek {
    pub(crate) values: Vec<Value>,
    pub(crate) samples: SampleList,
    pub(crate) counts: Counts,
}

/// Names that the aggregator has to learn.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewNames {
    /// Where further entries of the receiver have their names.
    pub(crate) chunks: Vec<NameChunk>,
    bytes: Vec<u8>,
    entries: Vec<(u32, Kind, u16)>,
}

impl NewNames {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all names together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Makes room for a name of `len` bytes. Whether there is memory for it.
    pub(crate) fn make_room(&mut self, len: usize) -> bool {
        make_room(&mut self.bytes, len) && make_room(&mut self.entries, 1)
    }

    /// Adds a name, after [`NewNames::make_room`].
    pub(crate) fn push(&mut self, entry: u32, kind: Kind, name: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.entries.push((entry, kind, name.len() as u16));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Kind, &[u8])> {
        let mut rest = &self.bytes[..];
        self.entries.iter().map(move |(entry, kind, len)| {
            let (name, left) = rest.split_at(usize::from(*len));
            rest = left;
            (*entry, *kind, name)
        })
    }
}

/// What the aggregator asks of a receiver.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// These names are dropped; with all that they have, or only if they have nothing new.
    Forget {
        entries: Vec<u32>,
        with_samples: bool,
    },
    /// Report what the running interval has so far.
    Peek,
}

/// Commands that a receiver has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct CommandQueue {
    commands: Mutex<Vec<Command>>,
    /// Whether there are any: most looks find none, and should cost nothing.
    is_waiting: AtomicBool,
}

impl CommandQueue {
    pub(crate) fn push(&self, command: Command) {
        self.commands.lock().push(command);
        self.is_waiting.store(true, Ordering::Release);
    }

    pub(crate) fn take(&self) -> Vec<Command> {
        if !self.is_waiting.load(Ordering::Relaxed)
            || !self.is_waiting.swap(false, Ordering::Acquire)
        {
            return Vec::new();
        }
        std::mem::take(&mut *self.commands.lock())
    }
}

/// What all threads see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The interval that samples belong to.
    pub(crate) epoch: AtomicU64,
    /// Receivers are to end.
    pub(crate) is_stopping: AtomicBool,
    /// What `health` answers.
    pub(crate) is_down: AtomicBool,
    pub(crate) stats: Stats,
}
