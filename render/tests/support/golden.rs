//! The recordings: where they are, and how they are read.

use std::fs::{self, File, FileTimes};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use flate2::read::GzDecoder;

/// The directory of the recordings.
pub(crate) fn directory() -> PathBuf {
    match std::env::var_os("PLUMBAGO_GOLDEN") {
        Some(directory) => directory.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden"),
    }
}

/// The text of `name`, or of `name.gz`.
pub(crate) fn text(name: &str) -> String {
    let plain = directory().join(name);
    if let Ok(text) = fs::read_to_string(&plain) {
        return text;
    }
    let packed = directory().join(format!("{name}.gz"));
    let file = File::open(&packed).unwrap_or_else(|e| panic!("{}: {e}", packed.display()));
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

/// Unpacks a gzipped tar below `to`, file times kept.
pub(crate) fn unpack(name: &str, to: &Path) {
    let file = File::open(directory().join(name)).unwrap();
    let mut archive = Vec::new();
    GzDecoder::new(file).read_to_end(&mut archive).unwrap();
    let mut at = 0;
    let mut long_name = None;
    while at + 512 <= archive.len() && archive[at] != 0 {
        let header = &archive[at..at + 512];
        let field = |from: usize, length: usize| {
            let bytes = &header[from..from + length];
            let end = bytes.iter().position(|b| *b == 0).unwrap_or(length);
            String::from_utf8(bytes[..end].to_vec()).unwrap()
        };
        let octal =
            |from, length| u64::from_str_radix(field(from, length).trim(), 8).unwrap_or_default();
        let size = usize::try_from(octal(124, 12)).unwrap();
        let content = &archive[at + 512..at + 512 + size];
        at += 512 + size.div_ceil(512) * 512;
        let kind = header[156];
        if kind == b'L' {
            let name = content.split(|b| *b == 0).next().unwrap();
            long_name = Some(String::from_utf8(name.to_vec()).unwrap());
            continue;
        }
        if kind == b'x' {
            // `LENGTH path=NAME\n` among others.
            let text = String::from_utf8_lossy(content).into_owned();
            for line in text.lines() {
                if let Some((_, name)) = line.split_once(" path=") {
                    long_name = Some(name.to_owned());
                }
            }
            continue;
        }
        let plain = match (field(345, 155), field(0, 100)) {
            (prefix, name) if prefix.is_empty() || &header[257..262] != b"ustar" => name,
            (prefix, name) => format!("{prefix}/{name}"),
        };
        let path = to.join(long_name.take().unwrap_or(plain));
        if kind == b'5' {
            fs::create_dir_all(&path).unwrap();
        } else if matches!(kind, b'0' | 0) {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            let time = UNIX_EPOCH + Duration::from_secs(octal(136, 12));
            let file = File::options().write(true).open(&path).unwrap();
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        }
    }
}
