//! Frames of pickles: any bytes are read or refused within memory that the length of the frame
//! limits; points that are written read back; and however a stream of frames is cut, the datapoints and
//! the counted refusals are those of the whole.
#![no_main]

use std::path::Path;

use carbon::index::Index;
use carbon::protocol::pickle::{Machine, Stream, metrics, write};
use carbon::protocol::{Buffer, Flow, Metrics, Resolver};
use carbon::stats::Stats;
use carbon::{Datapoint, Timestamp};
use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::bytes::Bytes;

const NOW: Timestamp = Timestamp(1_700_000_000);
const MAX_FRAME: usize = 1 << 16;

/// Counters of refusals that are not zero.
fn refused(stats: &Stats) -> Vec<(&'static str, u64)> {
    let counters = stats
        .each()
        .filter(|(name, _, n)| name.starts_with("rejects") && *n > 0);
    counters.map(|(name, _, n)| (name, n)).collect()
}

fn index() -> Index {
    let nowhere = Path::new("/nonexistent");
    Index::open(nowhere, nowhere.join("names"), true).unwrap()
}

/// A frame of points made from `data`.
fn written(data: &[u8]) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    let points = data.chunks_exact(13);
    let count = points.len();
    write::frame(&mut bytes, |out| {
        write::list(out, |out| {
            for point in points {
                let [kind, a, b, c, d, value @ ..] = point else {
                    return;
                };
                write::text(out, ["a", "b.c", "d;e=f", "ä"][usize::from(kind % 4)]);
                write::integer(out, u32::from_le_bytes([*a, *b, *c, *d]).max(1));
                let value = f64::from_le_bytes(value.try_into().unwrap());
                write::float(out, if value.is_finite() { value } else { 1.0 });
                write::pair(out);
                write::pair(out);
            }
        });
    });
    (bytes, count)
}

fuzz_target!(|data: &[u8]| {
    let mut machine = Machine::default();
    let _ = machine.read(data);
    assert!(machine.size_bytes() < 64 * data.len() + (1 << 20));

    let (index, stats) = (index(), Stats::default());
    let (frame, count) = written(data);
    let mut points: Vec<Datapoint> = Vec::new();
    {
        let mut resolver = Resolver::new(&index, &stats, NOW, &mut points);
        metrics::read(&frame[4..], &mut machine, &mut resolver);
    }
    assert_eq!(points.len(), count);
    for (point, bytes) in points.iter().zip(data.chunks_exact(13)) {
        let value = f64::from_le_bytes(bytes[5..].try_into().unwrap());
        assert!(!value.is_finite() || value.to_bits() == point.value.to_bits());
    }

    // The bytes as one frame between good ones, whole and in pieces.
    let mut input = Bytes(data);
    let seed = input.word();
    let body = &input.0[..input.0.len().min(MAX_FRAME)];
    let mut stream = frame.clone();
    stream.extend((body.len() as u32).to_be_bytes());
    stream.extend(body);
    stream.extend(&frame);
    let read = |pieces: u32| {
        let (stats, mut out) = (Stats::default(), Vec::new());
        let mut reader = Stream::new(MAX_FRAME.max(frame.len()));
        let mut rest = &stream[..];
        let mut random = pieces;
        while !rest.is_empty() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let wanted = match pieces {
                0 => usize::MAX,
                _ => (random >> 20) as usize % 60 + 1,
            };
            let space = reader.space();
            let n = rest.len().min(wanted).min(space.len());
            space[..n].copy_from_slice(&rest[..n]);
            let mut resolver = Resolver::new(&index, &stats, NOW, &mut out);
            assert_eq!(reader.advance(n, &mut resolver), Flow::Continue);
            rest = &rest[n..];
        }
        reader.end(&mut Resolver::new(&index, &stats, NOW, &mut out));
        (out, refused(&stats))
    };
    let whole = read(0);
    assert!(whole.0.len() >= 2 * count);
    assert_eq!(read(seed | 1), whole);
});
