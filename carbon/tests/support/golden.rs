//! The recordings of other programs.

use std::io::Read;
use std::path::{Path, PathBuf};

/// The lines of the recording `name`, compressed or not, from the directory in `PLUMBAGO_GOLDEN` or
/// this project's own.
pub(crate) fn recording(name: &str) -> Vec<serde_json::Value> {
    let ours = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let directory = std::env::var_os("PLUMBAGO_GOLDEN").map_or_else(ours, PathBuf::from);
    let plain = directory.join(format!("{name}.jsonl"));
    let text = std::fs::read_to_string(plain).unwrap_or_else(|_| {
        let path = directory.join(format!("{name}.jsonl.gz"));
        let file = std::fs::File::open(&path);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut text = String::new();
        let mut unpacked = flate2::read::GzDecoder::new(file);
        unpacked.read_to_string(&mut text).unwrap();
        text
    });
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
