//! The unfinished interval and all gauges, over a restart.
//!
//! ```text
//! plumbago statsd interval 1
//! c NAME SUM                      counter; a capital letter for one without samples
//! g NAME VALUE                    gauge
//! t NAME WEIGHT VALUE VALUE …     timer
//! p NAME WEIGHT COUNT SUM SQUARES MEAN SPREAD LOWER UPPER VALUE*COUNT …   timer with very many
//! a NAME 0 VALUE VALUE …          average
//! q NAME 0 COUNT …                average with very many, as p
//! d NAME WEIGHT VALUE VALUE …     distribution
//! e NAME WEIGHT COUNT …           distribution with very many, as p
//! s NAME 0 HEX HEX …              set
//! end LINES
//! ```
//!
//! Each type writes and reads its lines (`aggregate/`). A file without its last line was not written
//! completely and is not read. It is written under another name and renamed. What was read stays on
//! the disk until the first flush, for a start that fails, and is deleted then: an interval must not
//! count twice.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use carbon::private;

use crate::aggregate::Aggregator;
use crate::aggregate::kinds::KINDS;
use crate::aggregate::saved::Saved;
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
    // A file or link that a crash, or another user, left under this name is not written to.
    match fs::remove_file(&unfinished) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(failed(why)),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let created = private::open(&unfinished, options.write(true).create_new(true));
    let result = created.and_then(|file| {
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

/// Gives `aggregator` what `path` holds, for the interval `epoch`. The file is to be deleted before
/// the first flush. Returns what carries on, for the receivers; `None` if there is no file.
pub(crate) fn load(
    path: &Path,
    aggregator: &mut Aggregator,
    epoch: u64,
) -> Result<Option<Vec<Preload>>, Error> {
    let failed = |source| Error::State {
        path: path.to_owned(),
        action: "reading",
        source,
    };
    let bytes = match private::read(path) {
        Ok(bytes) => bytes,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => {
            // Something other than a file would be in the way of the next one, too.
            if private::is_in_the_way(&why) {
                private::set_aside(path).map_err(failed)?;
            }
            return Err(failed(why));
        }
    };
    let damaged = || failed(io::Error::new(io::ErrorKind::InvalidData, "it is damaged"));
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    read(&text, aggregator, epoch).ok_or_else(damaged).map(Some)
}

/// Deletes what [`load`] has read.
pub(crate) fn delete(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::State {
            path: path.to_owned(),
            action: "deleting",
            source,
        }),
        _ => Ok(()),
    }
}

/// All or nothing: of a file that is damaged somewhere nothing is counted.
fn read(text: &str, aggregator: &mut Aggregator, epoch: u64) -> Option<Vec<Preload>> {
    let rest = text.strip_prefix(HEAD)?.strip_prefix('\n')?;
    let (body, end) = rest.trim_end().rsplit_once("end ")?;
    if end.parse::<usize>().ok()? != body.lines().count() {
        return None;
    }
    let parse = |line| Line::parse(line, aggregator);
    let lines: Vec<Line<'_>> = body.lines().map(parse).collect::<Option<_>>()?;
    let mut preloads = Vec::new();
    for line in lines {
        let Line {
            kind,
            is_touched,
            name,
            value,
            saved,
        } = line;
        aggregator.restore(epoch, kind, name, value, is_touched, saved);
        if kind.carries_on() {
            let name = name.to_vec();
            preloads.push(Preload { kind, name, value });
        }
    }
    Some(preloads)
}

/// A line of the file.
struct Line<'a> {
    kind: Kind,
    is_touched: bool,
    name: &'a [u8],
    value: f64,
    saved: Saved,
}

impl<'a> Line<'a> {
    /// Reads a line; `None` if it is damaged.
    fn parse(line: &'a str, aggregator: &Aggregator) -> Option<Self> {
        let mut words = line.split(' ');
        let first = words.next()?.bytes().next()?;
        let name = words.next()?.as_bytes();
        let value: f64 = words.next()?.parse().ok()?;
        let letter = first.to_ascii_lowercase();
        let facts = KINDS
            .iter()
            .find(|facts| letter == facts.saved_as || Some(letter) == facts.buffer_saved_as)?;
        Some(Self {
            kind: facts.kind,
            is_touched: first.is_ascii_lowercase(),
            name,
            value,
            saved: aggregator.read_saved(facts.kind, letter, &mut words)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn aggregator() -> Aggregator {
        Aggregator::new(&Options::default(), 1, false, 0, || {}).unwrap()
    }

    fn saved(aggregator: &mut Aggregator) -> String {
        let mut out = Vec::new();
        write(&mut out, aggregator, 0, Extent::All).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn text(lines: &[&str]) -> String {
        format!("{HEAD}\n{}\nend {}\n", lines.join("\n"), lines.len())
    }

    #[test]
    fn damage_in_the_middle_changes_nothing() {
        let sound = "c a 1";
        for damaged in [
            "c b",
            "c b x",
            "x b 1",
            "",
            "t b 1 2 x",
            "t b 1 -2",
            "t b 1 NaN",
            "p b 1 2 3 5 1.5 1 2",
            "p b 1 2 3 5 1.5 1 2 1 1*1",
            "p b 1 2 3 5 1.5 1 NaN NaN 1*1",
            "p b 1 0 0 0 0 0 0 0",
            "p b 1 2 3 5 1.5 1 1 2 1",
            "s b 0 6x",
        ] {
            let mut read_into = aggregator();
            let read = read(&text(&[sound, damaged, sound]), &mut read_into, 0);
            assert_eq!(read, None, "{damaged:?}");
            assert_eq!(
                saved(&mut read_into),
                saved(&mut aggregator()),
                "{damaged:?}"
            );
        }
    }

    /// Samples of averages may be negative, those of a buffer that has no histogram yet, too.
    #[test]
    fn negative_averages_cost_no_state() {
        let mut first = aggregator();
        let lines = ["g a 12", "q b 0 2 -3 5 -1.5 0.5 -2 -1 -2*1 -1*1", "a b 0"];
        assert!(read(&text(&lines), &mut first, 0).is_some());
        let first = saved(&mut first);
        assert!(first.contains("q b 0 2 -3 5 -1.5 0.5 -2 -1 "), "{first}");
        assert!(read(&first, &mut aggregator(), 0).is_some(), "{first}");
        // Timers have none.
        let damaged = ["p b 2 2 3 5 1.5 0.5 1 2 -2*1 1*1", "t b 0"];
        assert_eq!(read(&text(&damaged), &mut aggregator(), 0), None);
    }

    #[test]
    fn each_type_is_saved_as_it_was_read() {
        let lines = [
            "c a 3",
            "C b 0",
            "g a -2.5",
            "t a 2 1 2.5",
            "p b 3 4 10 30 2.5 5 1 4 0*4",
            "t b 0",
            "a a 0 -1 2",
            "q b 0 4 -10 30 -2.5 5 -4 -1 0*4",
            "a b 0",
            "P c 0 1 2 4 2 0 2 2 0*1",
            "T c 0",
            "s a 0 61",
            "d a 1 2",
            "e b 1 1 2 4 2 0 2 2 0*1",
            "d b 0",
        ];
        let mut first = aggregator();
        let preloads = read(&text(&lines), &mut first, 0).unwrap();
        let gauge = Preload {
            kind: Kind::Gauge,
            name: b"a".to_vec(),
            value: -2.5,
        };
        assert_eq!(preloads, [gauge]);
        let first = saved(&mut first);
        for line in lines {
            assert!(
                first.lines().any(|saved| saved == line),
                "{line} in {first}"
            );
        }
        let mut second = aggregator();
        read(&first, &mut second, 0).unwrap();
        assert_eq!(saved(&mut second), first);
    }
}
