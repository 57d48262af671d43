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
//! Each type writes and reads its lines (`aggregate/`). It is written under another name and renamed. What
//! was read stays on the disk until the first flush, for a start that fails, and is deleted then: an
//! interval must not count twice.
//!
//! A line that cannot be read, or is not there although the last line counts it, costs nothing but itself.
//! It is counted and logged. A file that begins otherwise is of another version, or no saved state at all:
//! it is refused and stays as it is.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use carbon::private;
use tracing::warn;

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

/// What a file had.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Restored {
    /// What carries on, for the receivers.
    pub(crate) preloads: Vec<Preload>,
    /// Lines that could not be read, or were missing.
    pub(crate) unread: u64,
    /// Where the first of them is in the file.
    first_unread: Option<u64>,
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
/// the first flush. Lines that cannot be read are logged and left out. `None` if there is no file.
///
/// # Errors
/// The file cannot be read, or is not one that [`save`] has written.
pub(crate) fn load(
    path: &Path,
    aggregator: &mut Aggregator,
    epoch: u64,
) -> Result<Option<Restored>, Error> {
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
    let foreign = || {
        let what = format!("it does not begin with {HEAD:?}");
        failed(io::Error::new(io::ErrorKind::InvalidData, what))
    };
    let restored = read(&bytes, aggregator, epoch).ok_or_else(foreign)?;
    if let Restored {
        unread,
        first_unread: Some(first),
        ..
    } = &restored
    {
        warn!(
            "{}: line {first} cannot be read; lines left out: {unread}",
            path.display()
        );
    }
    Ok(Some(restored))
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

/// Reads what is sound; `None` if it is no saved state.
fn read(bytes: &[u8], aggregator: &mut Aggregator, epoch: u64) -> Option<Restored> {
    let rest = bytes.strip_prefix(HEAD.as_bytes())?.strip_prefix(b"\n")?;
    let (body, counted) = match cut_end(rest) {
        Some((body, counted)) => (body, Some(counted)),
        None => (rest, None),
    };
    let mut restored = Restored::default();
    let (mut found, mut taken) = (0, 0);
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        found += 1;
        // A line that was cut off may look like a sound one.
        let line = line.strip_suffix(b"\n");
        let line = line.and_then(|line| Line::parse(line, aggregator));
        let Some(line) = line else {
            // The head of the file is line 1.
            restored.first_unread.get_or_insert(found + 1);
            continue;
        };
        taken += 1;
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
            restored.preloads.push(Preload { kind, name, value });
        }
    }
    restored.unread = counted.unwrap_or(taken + 1).max(found) - taken;
    if restored.unread > 0 {
        restored.first_unread.get_or_insert(found + 2);
    }
    Some(restored)
}

/// Cuts off the last line; returns what is before it, and how many lines it counts there. `None` if it is
/// not there whole.
fn cut_end(text: &[u8]) -> Option<(&[u8], u64)> {
    let lines = text.strip_suffix(b"\n")?;
    let start = memchr::memrchr(b'\n', lines).map_or(0, |at| at + 1);
    let counted = lines[start..].strip_prefix(b"end ")?;
    let counted = std::str::from_utf8(counted).ok()?.parse().ok()?;
    Some((&text[..start], counted))
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
    fn parse(line: &'a [u8], aggregator: &Aggregator) -> Option<Self> {
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let first = words.next()?.bytes().next()?;
        let name = words.next().filter(|name| !name.is_empty())?.as_bytes();
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

    /// What `bytes` give, and which lines were not read: how many, and the first.
    fn given(bytes: &[u8]) -> (String, u64, Option<u64>) {
        let mut into = aggregator();
        let restored = read(bytes, &mut into, 0).unwrap();
        (saved(&mut into), restored.unread, restored.first_unread)
    }

    #[test]
    fn a_damaged_line_costs_no_other() {
        let sound = ["c a 1", "t a 1 2", "g z 3"];
        let (whole, ..) = given(text(&sound).as_bytes());
        for damaged in [
            "c b",
            "c b x",
            "x b 1",
            "",
            "c  1",
            "t b 1 2 x",
            "t b 1 -2",
            "t b 1 NaN",
            "p b 1 2 3 5 1.5 1 2",
            "p b 1 2 3 5 1.5 1 2 1 1*1",
            "p b 1 2 3 5 1.5 1 NaN NaN 1*1",
            "p b 1 0 0 0 0 0 0 0",
            "p b 1 2 3 5 1.5 1 1 2 1",
            "s b 0 6x",
            "s b 0 \u{e4}\u{e4}",
        ] {
            let lines = [sound[0], damaged, sound[1], damaged, sound[2]];
            let (read, unread, first) = given(text(&lines).as_bytes());
            assert_eq!(read, whole, "{damaged:?}");
            assert_eq!((unread, first), (2, Some(3)), "{damaged:?}");
        }
    }

    /// Whatever happens to a byte, what was on other lines is there, and what is missing is counted.
    #[test]
    fn a_damaged_byte_costs_its_line_and_the_next_at_most() {
        let lines = ["c a 1", "g z 3", "g y 4.5", "s x 0 61"];
        let sound = text(&lines);
        for at in HEAD.len() + 1..sound.len() {
            for byte in [0, b'\n', b' ', 0xff] {
                let mut damaged = sound.clone().into_bytes();
                damaged[at] = byte;
                let number = damaged[..at].iter().filter(|byte| **byte == b'\n').count();
                let (read, _, _) = given(&damaged);
                for (other, line) in (1..).zip(lines) {
                    if other != number && other != number + 1 {
                        assert!(read.contains(line), "{line} after {byte} at {at}");
                    }
                }
            }
            let cut = &sound[..at];
            let (read, unread, _) = given(cut.as_bytes());
            for line in lines
                .iter()
                .filter(|line| cut.contains(&format!("{line}\n")))
            {
                assert!(read.contains(line), "{line} of {at} bytes");
            }
            assert!(unread > 0, "{at}");
        }
    }

    #[test]
    fn what_is_no_saved_state_of_this_version_is_refused() {
        for foreign in [
            "",
            "plumbago statsd interval 1",
            "plumbago statsd interval 2\nc a 1\nend 1\n",
            "plumbago statsd interval 10\nc a 1\nend 1\n",
            "\nplumbago statsd interval 1\nc a 1\nend 1\n",
            "c a 1\nend 1\n",
        ] {
            let mut into = aggregator();
            assert_eq!(read(foreign.as_bytes(), &mut into, 0), None, "{foreign:?}");
            assert_eq!(saved(&mut into), saved(&mut aggregator()), "{foreign:?}");
        }
    }

    /// Samples of averages may be negative, those of a buffer that has no histogram yet, too.
    #[test]
    fn negative_averages_cost_no_state() {
        let mut first = aggregator();
        let lines = ["g a 12", "q b 0 2 -3 5 -1.5 0.5 -2 -1 -2*1 -1*1", "a b 0"];
        let restored = read(text(&lines).as_bytes(), &mut first, 0).unwrap();
        assert_eq!(restored.unread, 0);
        let first = saved(&mut first);
        assert!(first.contains("q b 0 2 -3 5 -1.5 0.5 -2 -1 "), "{first}");
        assert_eq!(given(first.as_bytes()).1, 0, "{first}");
        // Timers have none.
        let damaged = ["p b 2 2 3 5 1.5 0.5 1 2 -2*1 1*1", "t b 0"];
        assert_eq!(given(text(&damaged).as_bytes()).1, 1);
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
        let restored = read(text(&lines).as_bytes(), &mut first, 0).unwrap();
        let gauge = Preload {
            kind: Kind::Gauge,
            name: b"a".to_vec(),
            value: -2.5,
        };
        assert_eq!(restored.preloads, [gauge]);
        assert_eq!((restored.unread, restored.first_unread), (0, None));
        let first = saved(&mut first);
        for line in lines {
            assert!(
                first.lines().any(|saved| saved == line),
                "{line} in {first}"
            );
        }
        let mut second = aggregator();
        read(first.as_bytes(), &mut second, 0).unwrap();
        assert_eq!(saved(&mut second), first);
    }
}
