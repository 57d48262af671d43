//! Segments of the journal. Any bytes, and frames of any bytes with a sound checksum, read as
//! frames that read back after they are written again. A segment that is damaged somewhere still
//! gives every frame outside the damage, in order, and nothing else.
#![no_main]

use carbon::fuzzing::{Entry, Frame, read_segment, write_segment};
use carbon::{Datapoint, PointTime, SeriesId, Timestamp};
use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::bytes::Bytes;

/// What a frame begins with.
const FRAME_START: [u8; 2] = [0xa5, b'J'];

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    let magic = write_segment(&[]).0;
    match input.below(3) {
        0 => reads_back(input.0),
        1 => {
            let body = input.0;
            let mut segment = magic;
            segment.extend_from_slice(&FRAME_START);
            segment.extend_from_slice(&(body.len() as u32).to_le_bytes());
            segment.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
            segment.extend_from_slice(body);
            reads_back(&segment);
            assert_eq!(read_segment(&segment).len(), usize::from(body.len() >= 4));
        }
        _ => damaged(&mut input),
    }
});

fn reads_back(segment: &[u8]) {
    let frames = read_segment(segment);
    let (again, places) = write_segment(&frames);
    assert_eq!(places.len(), frames.len());
    assert_eq!(read_segment(&again), frames);
}

fn damaged(input: &mut Bytes<'_>) {
    let frames: Vec<Frame> = (0..1 + input.below(5)).map(|_| frame(input)).collect();
    let (mut segment, places) = write_segment(&frames);
    assert_eq!(read_segment(&segment), frames);
    let sound = segment.clone();
    let magic = write_segment(&[]).0.len();
    let at = magic + input.word() as usize % (segment.len() - magic + 1);
    let foreign = input.0;
    let (outside, end) = if foreign.len() % 2 == 0 {
        // The tail is cut off, and something else may stand in its place.
        segment.truncate(at);
        segment.extend_from_slice(foreign);
        (at, usize::MAX)
    } else {
        let end = (at + foreign.len()).min(segment.len());
        segment[at..end].copy_from_slice(&foreign[..end - at]);
        (at, end)
    };
    let found = read_segment(&segment);
    let whole: Vec<&Frame> = places
        .iter()
        .zip(&frames)
        .filter(|(place, _)| place.end <= outside || place.start >= end)
        .map(|(_, frame)| frame)
        .collect();
    if segment == sound {
        return assert_eq!(found, frames);
    }
    // Every frame outside of the damage, in order. Bytes that are what they were damage nothing.
    let mut rest = found.iter();
    for frame in whole {
        assert!(rest.any(|found| found == frame), "a frame is missing");
    }
    let before = places.iter().filter(|place| place.end <= outside).count();
    assert_eq!(found[..before], frames[..before]);
    // And nothing else, unless there was room for a length and a checksum. A name or a value may
    // hold a frame too, which is found when the one around it is damaged: it can say only what its
    // sender may say anyway.
    let starts = sound.windows(2).filter(|two| *two == FRAME_START).count();
    if end != usize::MAX && foreign.len() < 8 && starts == frames.len() {
        assert!(found.iter().all(|found| frames.contains(found)));
    }
}

fn frame(input: &mut Bytes<'_>) -> Frame {
    let clock = Timestamp(input.word());
    let mut entries = Vec::new();
    for _ in 0..input.below(6) {
        let series = match input.below(3) {
            0 => SeriesId(input.word()),
            _ => SeriesId(u32::from(input.byte())),
        };
        entries.push(match input.below(4) {
            0 => {
                let len = input.below(40);
                Entry::Name(series, input.take(len).to_vec())
            }
            kind => Entry::Point(Datapoint {
                series,
                at: PointTime::of_clock(match input.below(3) {
                    0 => Timestamp(input.word()),
                    1 => clock,
                    _ => Timestamp(clock.0.saturating_sub(u32::from(input.byte()))),
                }),
                value: match kind {
                    1 => f64::from_bits(input.double()),
                    2 => f64::from(input.word()) / 100.0,
                    _ => f64::from(input.byte()),
                },
            }),
        });
    }
    (clock, entries)
}
