//! Graphite's line protocol: `path value timestamp`, a line each.
//!
//! 1. Fields are separated by runs of blanks and tabs; whatever blanks, tabs and carriage returns
//!    surround the line are dropped; blank lines are nothing.
//! 2. The value is a finite decimal number ([`number`]). The timestamp is seconds since
//!    1970, 1 to 4294967295, a fraction is cut off; `-1` and `N` are the time of receipt.
//! 3. A bad line is counted by its cause and never hurts its neighbours. So is one longer than
//!    [`MAX_LINE`]: reading goes on behind its end.
//! 4. A stream's buffer is as large as its sender made it ([`Stream`]): nothing while it rests, and at
//!    most four times [`MAX_LINE`].

use super::resolver::{At, Reject, Resolver};
use super::{Buffer, Flow, Metrics, number};

/// The longest line that is taken.
pub const MAX_LINE: usize = 64 << 10;

/// A line taken apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<'a> {
    /// The name as it was sent.
    pub name: &'a [u8],
    /// The value.
    pub value: f64,
    /// The timestamp.
    pub at: At,
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let n = text.iter().take_while(|byte| is_blank(**byte)).count();
    &text[n..]
}

/// The next field and what follows it.
fn field(text: &[u8]) -> (&[u8], &[u8]) {
    let text = skip_blanks(text);
    let end = text
        .iter()
        .position(|byte| is_blank(*byte))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Takes a line apart; `None` for a blank one.
///
/// # Errors
/// [`Reject`] says which part is not as it should be.
pub fn parse(line: &[u8]) -> Option<Result<Line<'_>, Reject>> {
    let line = skip_blanks(line);
    if line.is_empty() {
        return None;
    }
    // Names are long and end in a blank nearly always: this search is worth its own call.
    let end = memchr::memchr2(b' ', b'\t', line).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    Some(match usual(rest) {
        Some((value, at)) => Ok(Line { name, value, at }),
        None => fields(name, rest),
    })
}

/// The value and the timestamp as nearly all clients write them: a space before each, digits with at most one
/// point, ten digits, and nothing behind them. `None` for everything else, which [`fields`] reads.
#[inline]
fn usual(rest: &[u8]) -> Option<(f64, At)> {
    let ([b' ', value @ ..], [b' ', at @ ..]) = rest.split_last_chunk::<11>()? else {
        return None;
    };
    Some((number::short(value)?, number::ten_digits(*at)?))
}

/// The line called `name` with `rest` behind the name.
fn fields<'a>(name: &'a [u8], rest: &[u8]) -> Result<Line<'a>, Reject> {
    let (value, rest) = field(rest);
    let (at, rest) = field(rest);
    if at.is_empty() || !skip_blanks(rest).is_empty() {
        return Err(Reject::Fields);
    }
    let value = number::finite(value).ok_or(Reject::Value)?;
    let at = number::timestamp(at).ok_or(Reject::Timestamp)?;
    Ok(Line { name, value, at })
}

/// Takes the whole lines that `bytes` begins with; how many bytes they have. A line whose end is not
/// there is left.
pub fn read(bytes: &[u8], resolver: &mut Resolver<'_>) -> usize {
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        read_one(&bytes[start..end], resolver);
        start = end + 1;
    }
    start
}

/// Takes one line without its end.
pub fn read_one(line: &[u8], resolver: &mut Resolver<'_>) {
    if line.len() > MAX_LINE {
        return resolver.reject(Reject::Length, line);
    }
    match parse(line) {
        None => {}
        Some(Ok(Line { name, value, at })) => resolver.take(name, at, value),
        Some(Err(reject)) => resolver.reject(reject, line),
    }
}

/// The smallest buffer of a stream that sends.
const MIN_BUFFER: usize = 4 << 10;
/// The largest.
const MAX_BUFFER: usize = 4 * MAX_LINE;

/// Cuts a byte stream into batches of whole lines, received in any pieces.
#[derive(Debug, Default)]
pub struct Stream {
    buffer: Vec<u8>,
    filled: usize,
    /// The last read left no space: the sender has more than the buffer holds.
    brimming: bool,
    /// Inside a line that was too long: everything up to its end is dropped.
    skipping: bool,
}

impl Stream {
    /// Bytes of memory that it has.
    pub fn size_bytes(&self) -> usize {
        self.buffer.capacity()
    }
}

impl Buffer for Stream {
    fn space(&mut self) -> &mut [u8] {
        if self.brimming || self.filled == self.buffer.len() {
            let larger = (self.buffer.len() * 2).clamp(MIN_BUFFER, MAX_BUFFER);
            self.buffer.resize(larger, 0);
            self.brimming = false;
        }
        &mut self.buffer[self.filled..]
    }

    fn rest(&mut self) {
        self.buffer.truncate(self.filled);
        self.buffer.shrink_to_fit();
        self.brimming = false;
    }

    fn unread(&self) -> usize {
        self.filled
    }
}

impl Metrics for Stream {
    fn advance(&mut self, n: usize, resolver: &mut Resolver<'_>) -> Flow {
        self.filled += n;
        self.brimming = self.filled == self.buffer.len();
        let mut from = 0;
        if self.skipping {
            match memchr::memchr(b'\n', &self.buffer[..self.filled]) {
                Some(end) => {
                    self.skipping = false;
                    from = end + 1;
                }
                None => {
                    self.filled = 0;
                    return Flow::Continue;
                }
            }
        }
        from += read(&self.buffer[from..self.filled], resolver);
        self.buffer.copy_within(from..self.filled, 0);
        self.filled -= from;
        if self.filled > MAX_LINE {
            resolver.reject(Reject::Length, &self.buffer);
            self.skipping = true;
            self.filled = 0;
        }
        Flow::Continue
    }

    /// A last line without its end may have been cut and is not taken.
    fn end(&mut self, resolver: &mut Resolver<'_>) {
        let torn = &self.buffer[..self.filled];
        if !skip_blanks(torn).is_empty() {
            resolver.reject(Reject::Torn, torn);
        }
        self.filled = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Index;
    use crate::stats::Stats;
    use proptest::prelude::*;
    use whisper::Timestamp;

    const NOW: Timestamp = Timestamp(1_700_000_000);

    fn index() -> (tempfile::TempDir, Index) {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), dir.path().join("names"), true).unwrap();
        (dir, index)
    }

    #[test]
    fn what_is_taken() {
        for (line, value, at) in [
            ("a 1 2", 1.0, Some(2)),
            ("a\t1  \t2\r", 1.0, Some(2)),
            ("  a 1 2  ", 1.0, Some(2)),
            ("a 1e3 2", 1e3, Some(2)),
            ("a 1_000 2", 1e3, Some(2)),
            ("a +.5 2", 0.5, Some(2)),
            ("a -0.25 2", -0.25, Some(2)),
            ("a 5. 2", 5.0, Some(2)),
            ("a 12345678901234567890 2", 12345678901234567890.0, Some(2)),
            ("a 0.1234567890123456 2", 0.1234567890123456, Some(2)),
            ("a 1 1700000000.9", 1.0, Some(1_700_000_000)),
            ("a 1 1.7e9", 1.0, Some(1_700_000_000)),
            ("a 1 4294967295", 1.0, Some(u32::MAX)),
            ("a 1 -1", 1.0, None),
            ("a 1 -1.5", 1.0, None),
            ("a 1 N", 1.0, None),
        ] {
            let parsed = parse(line.as_bytes()).unwrap().unwrap();
            let expected = Line {
                name: b"a",
                value,
                at: at.map_or(At::Now, |at| At::seconds(f64::from(at)).unwrap()),
            };
            assert_eq!(parsed, expected, "{line:?}");
        }
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b" \t\r"), None);
    }

    #[test]
    fn what_is_refused_and_why() {
        for (line, reject) in [
            ("a", Reject::Fields),
            ("a 1", Reject::Fields),
            ("a 1 2 3", Reject::Fields),
            ("a x 2", Reject::Value),
            ("a nan 2", Reject::Value),
            ("a inf 2", Reject::Value),
            ("a -inf 2", Reject::Value),
            ("a 1e999 2", Reject::Value),
            ("a 1_ 2", Reject::Value),
            ("a 0x10 2", Reject::Value),
            ("a . 2", Reject::Value),
            ("a - 2", Reject::Value),
            ("a 1..2 2", Reject::Value),
            ("a 1 x", Reject::Timestamp),
            ("a 1 0", Reject::Timestamp),
            ("a 1 0.9", Reject::Timestamp),
            ("a 1 nan", Reject::Timestamp),
            ("a 1 inf", Reject::Timestamp),
            ("a 1 -2", Reject::Timestamp),
            ("a 1 4294967296", Reject::Timestamp),
            ("a 1 99999999999999999999", Reject::Timestamp),
        ] {
            assert_eq!(parse(line.as_bytes()), Some(Err(reject)), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn usual_lines_are_read_as_all_others(
            rest in prop_oneof![
                " -?[0-9]{0,17}(\\.[0-9]{0,4})? [0-9]{9,11}",
                "[ \t]{0,2}[-+0-9.e_x]{0,18}[ \t]{0,2}[0-9:/N-]{8,12}[ \r]?",
            ],
        ) {
            let read = fields(b"a", rest.as_bytes());
            if let Some((value, at)) = usual(rest.as_bytes()) {
                prop_assert_eq!(read, Ok(Line { name: b"a", value, at }));
            }
        }
    }

    #[test]
    fn the_usual_form_is_read_without_a_search() {
        for (rest, value) in [
            (" 12.5 1700000000", 12.5),
            (" -7 1700000000", -7.0),
            (" 0 1700000000", 0.0),
        ] {
            let at = At::seconds(1_700_000_000.0).unwrap();
            assert_eq!(usual(rest.as_bytes()), Some((value, at)), "{rest:?}");
        }
        for rest in [
            " 1 0000000000",
            " 1 4294967296",
            " 1 17000000:0",
            " 1 1700000/00",
            "  1 1700000000",
        ] {
            assert_eq!(usual(rest.as_bytes()), None, "{rest:?}");
        }
    }

    #[test]
    fn rejects_are_counted_by_cause_and_the_rest_is_taken() {
        let (_dir, index) = index();
        let stats = Stats::default();
        let mut out = Vec::new();
        let mut stream = Stream::default();
        let long = "x".repeat(3 * MAX_LINE);
        let text = format!("a 1 1\nbad\n\nb x 1\nb 1 x\nc\0d 1 1\n{long} 1 1\nb 2 2\n\u{0}torn");
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            let n = bytes.len().min(1_000).min(stream.space().len());
            stream.space()[..n].copy_from_slice(&bytes[..n]);
            let _ = stream.advance(n, &mut Resolver::new(&index, &stats, NOW, &mut out));
            bytes = &bytes[n..];
        }
        stream.end(&mut Resolver::new(&index, &stats, NOW, &mut out));
        let points: Vec<_> = out
            .iter()
            .map(|point| (index.name(point.series), point.value))
            .collect();
        assert_eq!(points, [("a".to_owned(), 1.0), ("b".to_owned(), 2.0)]);
        let rejects: Vec<_> = stats
            .each()
            .filter(|(name, _, n)| name.starts_with("rejects") && *n > 0)
            .map(|(name, _, n)| (name, n))
            .collect();
        assert_eq!(
            rejects,
            [
                ("rejects.fields", 1),
                ("rejects.value", 1),
                ("rejects.timestamp", 1),
                ("rejects.name", 1),
                ("rejects.length", 1),
                ("rejects.torn", 1)
            ]
        );
    }

    #[test]
    fn a_buffer_is_as_large_as_its_sender_made_it() {
        let (_dir, index) = index();
        let stats = Stats::default();
        let mut out = Vec::new();
        let mut stream = Stream::default();
        assert_eq!(stream.size_bytes(), 0);
        let mut send = |stream: &mut Stream, text: &[u8]| {
            let n = text.len().min(stream.space().len());
            stream.space()[..n].copy_from_slice(&text[..n]);
            let _ = stream.advance(n, &mut Resolver::new(&index, &stats, NOW, &mut out));
            n
        };
        send(&mut stream, b"a 1 1\nb 2");
        assert_eq!(stream.size_bytes(), MIN_BUFFER);
        let text = b"a 1 1\n".repeat(1 << 20);
        let mut sizes = Vec::new();
        for _ in 0..20 {
            send(&mut stream, &text);
            sizes.push(stream.size_bytes());
        }
        assert!(sizes.is_sorted());
        assert_eq!(sizes.last(), Some(&MAX_BUFFER));
        // A half line is kept, byte for byte.
        let n = send(&mut stream, b"\nhalf 7 ");
        assert_eq!(n, 8);
        let before = stream.size_bytes();
        stream.rest();
        assert!(stream.size_bytes() < 100 && before == MAX_BUFFER);
        send(&mut stream, b"9\n");
        let last = out.last().unwrap();
        assert_eq!(index.name(last.series), "half");
        assert_eq!((last.value, last.at.timestamp()), (7.0, Timestamp(9)));
    }

    #[test]
    fn names_over_a_limit_are_counted_and_their_neighbours_taken() {
        let dir = tempfile::tempdir().unwrap();
        let options = crate::options::Options {
            max_series: 4,
            max_series_per_prefix: 2,
            ..Default::default()
        };
        let log = dir.path().join("names");
        let index = Index::open_limited(dir.path(), log, true, &options).unwrap();
        let stats = Stats::default();
        let mut out = Vec::new();
        let text = b"a.b.1 1 1\na.b.2 1 1\na.b.3 1 1\nc.d.1 1 1\na.b.1 2 2\nc.d.2 1 1\ne 1 1\n\
                     a.b..2 3 3\n.c.d.1 4 4\n";
        read(text, &mut Resolver::new(&index, &stats, NOW, &mut out));
        let taken: Vec<_> = out
            .iter()
            .map(|point| (index.name(point.series), point.value))
            .collect();
        let expected = [
            ("a.b.1", 1.0),
            ("a.b.2", 1.0),
            ("c.d.1", 1.0),
            ("a.b.1", 2.0),
            ("c.d.2", 1.0),
            ("a.b.2", 3.0),
            ("c.d.1", 4.0),
        ];
        let taken: Vec<_> = taken
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        assert_eq!(taken, expected);
        assert_eq!(stats.rejected_prefix.get(), 1);
        assert_eq!(stats.rejected_series.get(), 1);
        assert_eq!(stats.rejected_name.get(), 0);
        let refused = index.refused();
        assert_eq!(
            refused.prefixes,
            [("a.b".to_owned(), 1), ("e".to_owned(), 1)]
        );
        // What the disk or the journal has is known, whatever the limits.
        assert!(index.intern(b"a.b.3").is_ok());
        assert!(index.admit(b"a.b.3").is_ok());
    }

    proptest! {
        #[test]
        fn any_split_of_a_stream_reads_the_same(
            lines in prop::collection::vec("([ab] [0-9]{1,3} [0-9]{1,3}|[ -~]{0,12})", 0..20),
            cuts in prop::collection::vec(1_usize..40, 1..20),
        ) {
            let (_dir, index) = index();
            let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            let (whole, pieces) = (Stats::default(), Stats::default());
            let mut expected = Vec::new();
            read(text.as_bytes(), &mut Resolver::new(&index, &whole, NOW, &mut expected));
            let mut out = Vec::new();
            let mut stream = Stream::default();
            let mut bytes = text.as_bytes();
            for cut in cuts.iter().cycle() {
                if bytes.is_empty() { break; }
                let n = bytes.len().min(*cut);
                stream.space()[..n].copy_from_slice(&bytes[..n]);
                let _ = stream.advance(n, &mut Resolver::new(&index, &pieces, NOW, &mut out));
                bytes = &bytes[n..];
            }
            prop_assert_eq!(out, expected);
            prop_assert!(whole.each().eq(pieces.each()));
        }
    }
}
