//! The unfinished interval and all gauges, over a restart.
//!
//! ```text
//! plumbago statsd interval 1
//! c NAME SUM                      counter; a capital letter for one without samples
//! g NAME VALUE                    gauge
//! t NAME WEIGHT VALUE VALUE …     timer
//! p NAME WEIGHT COUNT SUM SQUARES MEAN SPREAD LOWER UPPER VALUE*COUNT …   timer with very many
//! a NAME 0 VALUE VALUE …          average; `b` as `p`
//! s NAME 0 HEX HEX …              set
//! end LINES
//! ```
//!
//! Each type writes and reads its lines (`aggregate/`). A file without its last line was not written
//! completely and is not read. It is written under another name and renamed, and deleted when it
//! has been read: an interval must not count twice.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::aggregate::Aggregator;
use crate::aggregate::kinds::KINDS;
use crate::error::Error;
use crate::kind::Kind;

const HEAD: &str = "plumbago statsd interval 1";

/// How much of the aggregator is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The interval and what carries on.
    All,
    /// Only what carries on, such as gauges: the interval has been flushed.
    CarriesOn,
}

/// A series that carries on from before the start.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Preload {
    pub(crate) kind: Kind,
    pub(crate) name: Vec<u8>,
    pub(crate) value: f64,
}

/// Saves what `aggregator` has for the interval `epoch` in `path`; its samples are used up.
pub(crate) fn save(
    path: &Path,
    aggregator: &mut Aggregator,
    epoch: u64,
    extent: Extent,
) -> Result<(), Error> {
    let failed = |source| Error::State {
        path: path.to_owned(),
        action: "writing",
        source,
    };
    let unfinished = beside(path);
    let result = File::create(&unfinished).and_then(|file| {
        let mut out = BufWriter::new(file);
        write(&mut out, aggregator, epoch, extent)?;
        out.into_inner()?.sync_all()?;
        fs::rename(&unfinished, path)?;
        // The name, too, must be on the disk.
        File::open(
            path.parent()
                .filter(|dir| !dir.as_os_str().is_empty())
                .unwrap_or(Path::new(".")),
        )?
        .sync_all()
    });
    result.map_err(failed)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn write(
    out: &mut impl Write,
    aggregator: &mut Aggregator,
    epoch: u64,
    extent: Extent,
) -> io::Result<()> {
    writeln!(out, "{HEAD}")?;
    let mut lines = 0_u64;
    aggregator.for_each_saved(epoch, |series| {
        if extent == Extent::All || series.kind.carries_on() {
            lines += series.write(out)?;
        }
        Ok(())
    })?;
    writeln!(out, "end {lines}")
}

/// Gives `aggregator` what `path` holds, for the interval `epoch`, and deletes the file. A file that
/// does not exist is not an error. Returns what carries on, for the receivers.
pub(crate) fn load(
    path: &Path,
    aggregator: &mut Aggregator,
    epoch: u64,
) -> Result<Vec<Preload>, Error> {
    let failed = |source| Error::State {
        path: path.to_owned(),
        action: "reading",
        source,
    };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => return Err(failed(why)),
    };
    let preloads = read(&text, aggregator, epoch)
        .ok_or_else(|| failed(io::Error::new(io::ErrorKind::InvalidData, "it is damaged")))?;
    fs::remove_file(path).map_err(failed)?;
    Ok(preloads)
}

fn read(text: &str, aggregator: &mut Aggregator, epoch: u64) -> Option<Vec<Preload>> {
    let rest = text.strip_prefix(HEAD)?.strip_prefix('\n')?;
    let (body, end) = rest.trim_end().rsplit_once("end ")?;
    if end.parse::<usize>().ok()? != body.lines().count() {
        return None;
    }
    let mut preloads = Vec::new();
    for line in body.lines() {
        let mut words = line.split(' ');
        let letter = words.next()?.bytes().next()?;
        let name = words.next()?.as_bytes();
        let value: f64 = words.next()?.parse().ok()?;
        let is_touched = letter.is_ascii_lowercase();
        let letter = letter.to_ascii_lowercase();
        let facts = KINDS
            .iter()
            .find(|facts| letter == facts.saved_as || Some(letter) == facts.buffer_saved_as)?;
        let saved = aggregator.read_saved(facts.kind, letter, &mut words)?;
        aggregator.restore(epoch, facts.kind, name, value, is_touched, saved);
        if facts.carries_on {
            preloads.push(Preload {
                kind: facts.kind,
                name: name.to_vec(),
                value,
            });
        }
    }
    Some(preloads)
}
