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
            let letter = match (kind, row.is_touched()) {
                (Kind::Average, true) => b'q',
                (Kind::Average, false) => b'Q',
                (_, true) => b'p',
                (_, false) => b'P',
            };
            write_pile(out, letter, name, row.value, pile)?;
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

fn write_pile(
    out: &mut impl Write,
    letter: u8,
    name: &[u8],
    weight: f64,
    pile: &Pile,
) -> io::Result<()> {
    let Moments {
        count,
        sum,
        squares,
        mean,
        spread,
        lower,
        upper,
    } = pile.moments;
    out.write_all(&[letter, b' '])?;
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

/// What a line says of its series besides the value.
enum Rest {
    Nothing,
    Samples(Vec<f64>),
    Pile(Moments, Vec<(f64, u64)>),
    Members(Vec<Vec<u8>>),
}

/// A line taken apart.
struct Line<'a> {
    kind: Kind,
    is_touched: bool,
    name: &'a [u8],
    value: f64,
    rest: Rest,
}

/// All or nothing: what is damaged somewhere is not counted in part.
fn read(text: &str, book: &mut Book, epoch: u64) -> Option<Vec<(Vec<u8>, f64)>> {
    let rest = text.strip_prefix(HEAD)?.strip_prefix('\n')?;
    let (body, end) = rest.trim_end().rsplit_once("end ")?;
    if end.parse::<usize>().ok()? != body.lines().count() {
        return None;
    }
    let lines: Vec<Line<'_>> = body.lines().map(parse).collect::<Option<_>>()?;
    let mut gauges = Vec::new();
    for line in lines {
        let restored = book.restore(line.kind, line.name, line.value, line.is_touched);
        let Some(row) = restored else {
            continue;
        };
        match line.rest {
            Rest::Nothing if line.kind == Kind::Gauge => {
                gauges.push((line.name.to_vec(), line.value));
            }
            Rest::Nothing => {}
            Rest::Samples(values) => book.restore_samples(epoch, row, &values),
            Rest::Pile(moments, weighted) => {
                book.restore_pile(epoch, row, Pile::restore(moments, &weighted));
            }
            Rest::Members(members) => {
                for member in members {
                    book.restore_member(row, &member);
                }
            }
        }
    }
    Some(gauges)
}

fn parse(line: &str) -> Option<Line<'_>> {
    let mut words = line.split(' ');
    let letter = words.next()?.bytes().next()?;
    let name = words.next()?.as_bytes();
    let value: f64 = words.next()?.parse().ok()?;
    let (kind, rest) = match letter.to_ascii_lowercase() {
        b'c' => (Kind::Counter, Rest::Nothing),
        b'g' => (Kind::Gauge, Rest::Nothing),
        b't' => {
            let samples: Option<Vec<f64>> = words.map(timer_sample).collect();
            (Kind::Timer, Rest::Samples(samples?))
        }
        b'a' => {
            let samples: Option<Vec<f64>> = words.map(|word| word.parse().ok()).collect();
            (Kind::Average, Rest::Samples(samples?))
        }
        letter @ (b'p' | b'q') => {
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
                    Some((timer_sample(value)?, count.parse().ok()?))
                })
                .collect();
            let is_sound = moments.count > 0 && moments.lower <= moments.upper;
            let rest = Rest::Pile(is_sound.then_some(moments)?, weighted?);
            match letter {
                b'p' => (Kind::Timer, rest),
                _ => (Kind::Average, rest),
            }
        }
        b's' => {
            let members: Option<Vec<Vec<u8>>> = words
                .map(|word| {
                    (0..word.len() / 2)
                        .map(|at| u8::from_str_radix(word.get(2 * at..2 * at + 2)?, 16).ok())
                        .collect()
                })
                .collect();
            (Kind::Set, Rest::Members(members?))
        }
        _ => return None,
    };
    Some(Line {
        kind,
        is_touched: letter.is_ascii_lowercase(),
        name,
        value,
        rest,
    })
}

/// A sample of a timer: a number that is not negative.
fn timer_sample(word: &str) -> Option<f64> {
    let value: f64 = word.parse().ok()?;
    // Not -0, which would be sorted behind all others.
    (value >= 0.0).then_some(value + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn book() -> Book {
        Book::new(&Options::default(), 1, false, 0).unwrap()
    }

    fn saved(book: &mut Book) -> String {
        let mut out = Vec::new();
        write(&mut out, book, 0, Extent::All).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn text(lines: &[&str]) -> String {
        format!("{HEAD}\n{}\nend {}\n", lines.join("\n"), lines.len())
    }

    #[test]
    fn what_is_damaged_in_the_middle_changes_nothing() {
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
            let mut read_into = book();
            let read = read(&text(&[sound, damaged, sound]), &mut read_into, 0);
            assert_eq!(read, None, "{damaged:?}");
            assert_eq!(saved(&mut read_into), saved(&mut book()), "{damaged:?}");
        }
    }

    #[test]
    fn each_kind_is_saved_as_it_was_read() {
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
        ];
        let mut first = book();
        let gauges = read(&text(&lines), &mut first, 0).unwrap();
        assert_eq!(gauges, [(b"a".to_vec(), -2.5)]);
        let first = saved(&mut first);
        for line in lines {
            assert!(
                first.lines().any(|saved| saved == line),
                "{line} in {first}"
            );
        }
        let mut second = book();
        read(&first, &mut second, 0).unwrap();
        assert_eq!(saved(&mut second), first);
    }
}
