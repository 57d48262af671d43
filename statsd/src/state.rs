//! The unfinished interval and all gauges, over a restart.
//!
//! ```text
//! plumbago statsd interval 1
//! c NAME SUM                      counter; a capital letter for one without samples
//! g NAME VALUE                    gauge
//! t NAME WEIGHT VALUE VALUE …     timer
//! p NAME WEIGHT COUNT SUM SQUARES MEAN SPREAD LOWER UPPER VALUE*COUNT …   timer with very many
//! a NAME 0 VALUE VALUE …          average
//! s NAME 0 HEX HEX …              set
//! end LINES
//! ```
//!
//! A file without its last line was not written whole and is not read. It is written under another
//! name and renamed, and taken away when it has been read: an interval must not count twice.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use carbon::private;
use hashbrown::HashMap;

use crate::aggregate::Book;
use crate::aggregate::timer::{Moments, Pile};
use crate::error::Error;
use crate::metric::Kind;

const HEAD: &str = "plumbago statsd interval 1";

/// How much of the book is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The interval and the gauges.
    All,
    /// Only the gauges: the interval has been flushed.
    Gauges,
}

/// Saves what `book` holds for the interval `epoch` in `path`; the book is used up.
pub(crate) fn save(path: &Path, book: &mut Book, epoch: u64, extent: Extent) -> Result<(), Error> {
    let failed = |source| Error::State {
        path: path.to_owned(),
        action: "writing",
        source,
    };
    let unfinished = beside(path);
    // What a crash, or somebody else, left under this name is not written through.
    match fs::remove_file(&unfinished) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(failed(why)),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let result =
        private::open(&unfinished, options.write(true).create_new(true)).and_then(|file| {
            let mut out = BufWriter::new(file);
            write(&mut out, book, epoch, extent)?;
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

fn write(out: &mut impl Write, book: &mut Book, epoch: u64, extent: Extent) -> io::Result<()> {
    writeln!(out, "{HEAD}")?;
    let grouped = book.group(epoch);
    let mut members: HashMap<u32, Vec<&[u8]>> = HashMap::new();
    for (row, member) in book.all_members() {
        members.entry(row).or_default().push(member);
    }
    let mut lines = 0_u64;
    for (at, row) in book.names.rows.iter().enumerate() {
        let kind = row.kind();
        if !row.is_live() || (extent == Extent::Gauges && kind != Kind::Gauge) {
            continue;
        }
        let name = book.names.name(row);
        let (values, pile) = match kind {
            Kind::Timer | Kind::Average => grouped.saved(row.extra),
            _ => (&[][..], None),
        };
        let letter = match kind {
            Kind::Counter => b'c',
            Kind::Gauge => b'g',
            Kind::Timer => b't',
            Kind::Set => b's',
            Kind::Average => b'a',
        };
        let letter = if row.is_touched() {
            letter
        } else {
            letter.to_ascii_uppercase()
        };
        if let Some(pile) = pile {
            lines += 1;
            write_pile(out, name, row.value, pile)?;
        }
        lines += 1;
        // The weight of a pile stands in its own line.
        let value = if pile.is_some() { 0.0 } else { row.value };
        out.write_all(&[letter, b' '])?;
        out.write_all(name)?;
        write!(out, " {value}")?;
        for value in values {
            write!(out, " {value}")?;
        }
        for member in members.get(&(at as u32)).into_iter().flatten() {
            out.write_all(b" ")?;
            for byte in *member {
                write!(out, "{byte:02x}")?;
            }
        }
        out.write_all(b"\n")?;
    }
    writeln!(out, "end {lines}")
}

fn write_pile(out: &mut impl Write, name: &[u8], weight: f64, pile: &Pile) -> io::Result<()> {
    let Moments {
        count,
        sum,
        squares,
        mean,
        spread,
        lower,
        upper,
    } = pile.moments;
    out.write_all(b"p ")?;
    out.write_all(name)?;
    write!(
        out,
        " {weight} {count} {sum} {squares} {mean} {spread} {lower} {upper}"
    )?;
    for (value, count) in pile.weighted() {
        write!(out, " {value}*{count}")?;
    }
    out.write_all(b"\n")
}

/// Puts what `path` holds into `book`, for the interval `epoch`, and takes the file away. A file
/// that is not there is no error. Returns the gauges with their values.
pub(crate) fn load(path: &Path, book: &mut Book, epoch: u64) -> Result<Vec<(Vec<u8>, f64)>, Error> {
    let failed = |source| Error::State {
        path: path.to_owned(),
        action: "reading",
        source,
    };
    let bytes = match private::read(path) {
        Ok(bytes) => bytes,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) => {
            // What is no file would stand in the way of the next one, too.
            if private::is_in_the_way(&why) {
                private::set_aside(path).map_err(failed)?;
            }
            return Err(failed(why));
        }
    };
    let damaged = || failed(io::Error::new(io::ErrorKind::InvalidData, "it is damaged"));
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    let gauges = read(&text, book, epoch).ok_or_else(damaged)?;
    fs::remove_file(path).map_err(failed)?;
    Ok(gauges)
}

fn read(text: &str, book: &mut Book, epoch: u64) -> Option<Vec<(Vec<u8>, f64)>> {
    let rest = text.strip_prefix(HEAD)?.strip_prefix('\n')?;
    let (body, end) = rest.trim_end().rsplit_once("end ")?;
    if end.parse::<usize>().ok()? != body.lines().count() {
        return None;
    }
    let mut gauges = Vec::new();
    for line in body.lines() {
        let mut words = line.split(' ');
        let letter = words.next()?.bytes().next()?;
        let name = words.next()?.as_bytes();
        let value: f64 = words.next()?.parse().ok()?;
        let touched = letter.is_ascii_lowercase();
        let kind = match letter.to_ascii_lowercase() {
            b'c' => Kind::Counter,
            b'g' => Kind::Gauge,
            b't' | b'p' => Kind::Timer,
            b's' => Kind::Set,
            b'a' => Kind::Average,
            _ => return None,
        };
        let Some(row) = book.restore(kind, name, value, touched) else {
            continue;
        };
        match letter.to_ascii_lowercase() {
            b'g' => gauges.push((name.to_vec(), value)),
            b't' | b'a' => {
                let values: Option<Vec<f64>> = words.map(|word| word.parse().ok()).collect();
                book.restore_samples(epoch, row, &values?);
            }
            b'p' => {
                let mut number = || words.next()?.parse::<f64>().ok();
                let moments = Moments {
                    count: number()? as u64,
                    sum: number()?,
                    squares: number()?,
                    mean: number()?,
                    spread: number()?,
                    lower: number()?,
                    upper: number()?,
                };
                let weighted: Option<Vec<(f64, u64)>> = words
                    .map(|word| {
                        let (value, count) = word.split_once('*')?;
                        Some((value.parse().ok()?, count.parse().ok()?))
                    })
                    .collect();
                book.restore_pile(epoch, row, Pile::restore(moments, &weighted?));
            }
            b's' => {
                for word in words {
                    let member: Option<Vec<u8>> = (0..word.len() / 2)
                        .map(|at| u8::from_str_radix(word.get(2 * at..2 * at + 2)?, 16).ok())
                        .collect();
                    book.restore_member(row, &member?);
                }
            }
            _ => {}
        }
    }
    Some(gauges)
}
