//! Any bytes as a whisper file: refused, or a header that reads back and a file that can be
//! written, read, explained, resized and erased without leaving its bounds.

#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use whisper::create::Allocation;
use whisper::resize::Target;
use whisper::{
    Aggregation, Dump, File, Header, Lock, MapOptions, Maps, Point, ResizeOptions, Retention,
    Timestamp,
};

/// The input as it is, or, so that more than refusals are looked at, a sound header of which the
/// input changes a few bytes, and slots.
fn file(data: &[u8]) -> Vec<u8> {
    let [kind, pokes, data @ ..] = data else {
        return data.to_vec();
    };
    let archives: &[(u32, u32)] = match kind % 5 {
        0 => return data.to_vec(),
        1 => &[(1, 60)],
        2 => &[(10, 12), (60, 20)],
        3 => &[(1, 10), (5, 12), (60, 10)],
        _ => &[(2, 3), (4, 5), (8, 100), (800, 50)],
    };
    let retentions = archives
        .iter()
        .map(|&(step, n)| Retention::new(step, n).unwrap());
    let retentions: Vec<Retention> = retentions.collect();
    let method = Aggregation::ALL[usize::from(kind / 5) % 8];
    let mut bytes = Header::new(&retentions, 0.25, method).unwrap().to_bytes();
    let (pokes, slots) = data.split_at((usize::from(pokes % 4) * 2).min(data.len()));
    for poke in pokes.chunks_exact(2) {
        let at = usize::from(poke[0]) % bytes.len();
        bytes[at] = poke[1];
    }
    bytes.extend_from_slice(slots);
    bytes
}

fuzz_target!(|data: &[u8]| {
    let data = &file(data)[..];
    let parsed = Header::parse(data);
    if let Ok(header) = &parsed {
        let bytes = header.to_bytes();
        assert_eq!(bytes[..], data[..bytes.len()]);
        assert_eq!(Header::parse(&bytes).as_ref(), Ok(header));
        assert!(
            header
                .archives()
                .iter()
                .all(|archive| archive.end() <= header.file_size())
        );
    }
    let path = PathBuf::from(format!(
        "/dev/shm/plumbago-fuzz-header-{}.wsp",
        std::process::id()
    ));
    std::fs::write(&path, data).unwrap();
    assert_eq!(Header::read(&path).is_ok(), parsed.is_ok());
    let Ok(header) = parsed else {
        assert!(File::open_mut(&path, Lock::None).unwrap_err().is_damage());
        return;
    };
    let len = header.file_size();
    if len > 1 << 20 {
        return;
    }
    // What the archives hold is whatever the input goes on with, then zeroes.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(len).unwrap();
    let last = data.last().copied().unwrap_or(0);
    let now = Timestamp(1_700_000_000 + u32::from(last));
    let points: Vec<Point> = data
        .iter()
        .map(|byte| Point::new(now.0 - u32::from(*byte) * 7 + 99, f64::from(*byte)))
        .collect();
    let mut opened = File::open_mut(&path, Lock::None).unwrap();
    opened.update_many(now, &points).unwrap();
    for (from, until) in [(now.0 - 500, now.0), (0, u32::MAX), (now.0, now.0)] {
        let (from, until) = (Timestamp(from), Timestamp(until));
        opened.fetch(now, from, until).unwrap();
        if header
            .archives()
            .iter()
            .all(|archive| archive.points < 5000)
        {
            whisper::explain(&opened, now, from, until).unwrap();
        }
    }
    Dump::read(&path).unwrap().misplaced();
    whisper::erase(&mut opened, Timestamp(now.0 - 300), Timestamp(now.0 - 100)).unwrap();
    let maps = Maps::new(MapOptions::default());
    maps.update_many(1, &path, now, &points).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), len);
    let options = ResizeOptions {
        retentions: vec![
            Retention::new(5, 100).unwrap(),
            Retention::new(60, 60).unwrap(),
        ],
        x_files_factor: None,
        aggregation: None,
        allocation: Allocation::Zeroes,
        target: Target::New(path.with_extension("resized")),
    };
    let _ = std::fs::remove_file(path.with_extension("resized"));
    whisper::resize(&path, || now, &options).unwrap();
});
