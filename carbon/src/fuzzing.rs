//! Access of the fuzz targets to private parts: frames of the journal, queues of the relay, the end of an index.

use std::ops::Range;

use whisper::Timestamp;

use crate::datapoint::{Datapoint, SeriesId};
use crate::error::Result;
use crate::index::Index;
use crate::journal::frame::{Item, MAGIC, Reader, Writer};

/// An item of a frame that owns its name.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A series and its name.
    Name(SeriesId, Vec<u8>),
    /// A datapoint.
    Point(Datapoint),
}

/// Entries are equal when their bits are: NaN equals itself, and 0 is not -0.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(id, name), Self::Name(other_id, other_name)) => {
                (id, name) == (other_id, other_name)
            }
            (Self::Point(point), Self::Point(other)) => {
                (point.series, point.at) == (other.series, other.at)
                    && point.value.to_bits() == other.value.to_bits()
            }
            _ => false,
        }
    }
}

/// A frame: the receiver's clock and its entries.
pub type Frame = (Timestamp, Vec<Entry>);

/// The frames that a segment holds.
pub fn read_segment(bytes: &[u8]) -> Vec<Frame> {
    let frames = Reader::new(bytes).map(|frame| {
        let mut entries = Vec::new();
        frame.each(|item| {
            entries.push(match item {
                Item::Name(id, name) => Entry::Name(id, name.to_vec()),
                Item::Point(point) => Entry::Point(point),
            });
        });
        (frame.clock, entries)
    });
    frames.collect()
}

/// A segment of `frames`, and the bytes that each of them takes.
pub fn write_segment(frames: &[Frame]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut bytes = MAGIC.to_vec();
    let mut places = Vec::new();
    for (clock, entries) in frames {
        let start = bytes.len();
        let mut writer = Writer::new(&mut bytes, *clock);
        for entry in entries {
            match entry {
                Entry::Name(id, name) => writer.name(*id, name),
                Entry::Point(point) => writer.point(point),
            }
        }
        writer.finish();
        places.push(start..bytes.len());
    }
    (bytes, places)
}

/// Opens a queue with `segment` in its directory, appends `chunks`, and takes everything out.
pub fn relay_queue(segment: &[u8], chunks: &[Vec<u8>]) {
    crate::relay::fuzzing::check(segment, chunks);
}

/// Ends the use of an index as a server does when it stops.
///
/// # Errors
/// The disk failed.
pub fn close_index(index: &Index) -> Result<()> {
    index.compact(0)
}
