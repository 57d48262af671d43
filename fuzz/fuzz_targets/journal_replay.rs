//! A start of the store with a journal: any bytes, or sound frames with a tail of any bytes. It
//! opens, every point of a sound frame is there, and still is after a clean stop, which leaves
//! nothing in the journal to be read back.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use carbon::fuzzing::{Entry, Frame, read_segment, write_segment};
use carbon::options::{ByteSize, JournalOptions, Options, Span, SyncPolicy};
use carbon::schema::Schema;
use carbon::{Carbon, Datapoint, PointTime, SeriesId, Setup, Timestamp};
use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::bytes::Bytes;
use whisper::Retention;

const NOW: u32 = 1_700_000_000;
/// Seconds that the finest archive keeps, less some for frames that are older than now.
const REACH: u32 = 2_000;
const NAMES: [&str; 5] = ["a", "a.b", "c.d.e", "m;t=1", "f"];

fn open(data: &Path) -> Carbon {
    let journal = JournalOptions {
        sync: SyncPolicy::Every(Span::seconds(3_600)),
        max_size: ByteSize(1 << 30),
    };
    let retention = Retention::new(10, 360).unwrap();
    let setup = Setup {
        schema: Schema::new(vec![retention], Span::seconds(10)),
        clock: Arc::new(|| Timestamp(NOW)),
        ..Setup::new(Options::default(), journal, Span::seconds(10))
    };
    Carbon::open(setup, data).expect("it opens")
}

/// The values of a series by time.
fn values(carbon: &Carbon, name: &str) -> BTreeMap<u32, u64> {
    let from = Timestamp(NOW - REACH - 1_000);
    let fetched = carbon
        .fetch(name, from, Timestamp(NOW), Timestamp(NOW))
        .unwrap();
    let points = fetched.iter().flat_map(|fetched| fetched.points.points());
    let present = points.filter(|(_, value)| !whisper::is_absent(*value));
    present.map(|(at, value)| (at.0, value.to_bits())).collect()
}

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    let directory = format!("/dev/shm/plumbago-fuzz-replay-{}", std::process::id());
    let directory = PathBuf::from(directory);
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(directory.join("journal")).unwrap();
    let mut expected: BTreeMap<&str, BTreeMap<u32, u64>> = BTreeMap::new();
    let segments: Vec<Vec<u8>> = (0..1 + input.below(2))
        .map(|_| match input.below(4) {
            0 => {
                let n = input.below(256);
                [&write_segment(&[]).0, input.take(n)].concat()
            }
            _ => {
                let mut segment = write_segment(&frames(&mut input, &mut expected)).0;
                let n = input.below(64);
                segment.extend_from_slice(input.take(n));
                segment
            }
        })
        .collect();
    for (n, segment) in segments.iter().enumerate() {
        let path = directory.join(format!("journal/{:010}.journal", n + 1));
        std::fs::write(path, segment).unwrap();
    }
    // What the other bytes say by chance counts too; then only the opening is looked at.
    let n_frames: usize = segments
        .iter()
        .map(|segment| read_segment(segment).len())
        .sum();
    for _ in 0..2 {
        let carbon = open(&directory);
        for (name, points) in &expected {
            assert_eq!(&values(&carbon, name), points, "{name}, {n_frames} frames");
        }
        carbon.drain(|_| {}).expect("it stops");
    }
    let left = std::fs::read_dir(directory.join("journal")).unwrap();
    let left: BTreeSet<u64> = left
        .map(|file| file.unwrap().metadata().unwrap().len())
        .collect();
    let empty = write_segment(&[]).0.len() as u64;
    assert!(left.iter().all(|len| *len <= empty), "{left:?}");
});

/// Frames whose points all fit into the finest archive.
fn frames(
    input: &mut Bytes<'_>,
    expected: &mut BTreeMap<&'static str, BTreeMap<u32, u64>>,
) -> Vec<Frame> {
    let mut named = BTreeMap::new();
    let mut frames = Vec::new();
    for _ in 0..input.below(5) {
        let clock = NOW - u32::from(input.byte());
        let mut entries = Vec::new();
        for _ in 0..input.below(8) {
            let name = NAMES[input.below(NAMES.len())];
            let next = SeriesId(u32::from(input.byte()) << 8 | named.len() as u32);
            let series = *named.entry(name).or_insert_with(|| {
                entries.push(Entry::Name(next, name.as_bytes().to_vec()));
                next
            });
            let at = (clock - input.word() % REACH) / 10 * 10;
            let value = f64::from(input.word()) / 8.0;
            entries.push(Entry::Point(Datapoint {
                series,
                at: PointTime::of_clock(Timestamp(at)),
                value,
            }));
            expected
                .entry(name)
                .or_default()
                .insert(at, value.to_bits());
        }
        frames.push((Timestamp(clock), entries));
    }
    frames
}
