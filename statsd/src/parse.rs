//! One line, completely: the grammar of the reference with the extensions of its successors.
//!
//! ```text
//! name:VALUE|TYPE[|@RATE][|#TAGS][|c:ID][|e:..][|card:..][|T SECONDS]
//! name:V1:V2:V3|TYPE...                  packed values of one type (DogStatsD 1.1)
//! name:V|T|@R:V|T:V|T...                 packed samples (the reference's form)
//! ```
//!
//! 1. Total: every line gives its good samples and a reason for each bad one, in order.
//! 2. A line is cut at its first `|#`; what follows up to the next `|` is tags, for all its
//!    samples. The reference takes all that follows for tags, further fields included.
//! 3. The field after the type must be a rate, tags, or one of DogStatsD's chunks, as the
//!    reference refuses lines with anything else there; later fields that say nothing are ignored.
//! 4. Receivers know the common lines by themselves and come here for the rest, so this decides
//!    what any line means. What a number means is the business of its type.

use crate::aggregate::kinds::Letters;
use crate::kind::Kind;
use crate::metric::{Item, Number, Reject};
use crate::number;

/// The parts of a line that all its items share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Head<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) tags: &'a [u8],
}

/// Reads `line` (no line feed in it, not empty) and gives each item to `take`.
pub(crate) fn line<'a>(
    line: &'a [u8],
    letters: &Letters,
    mut take: impl FnMut(&Head<'a>, Item<'a>),
) {
    let (body, tags, after) = match memchr::memmem::find(line, b"|#") {
        None => (line, &[][..], None),
        Some(at) => {
            let rest = &line[at + 2..];
            match memchr::memchr(b'|', rest) {
                None => (&line[..at], rest, None),
                Some(end) => (&line[..at], &rest[..end], Some(&rest[end + 1..])),
            }
        }
    };
    let mut head = Head { name: body, tags };
    let Some(colon) = memchr::memchr(b':', body) else {
        return take(&head, Item::Bad(Reject::NoColon));
    };
    head.name = &body[..colon];
    let mut rest = Some(&body[colon + 1..]);
    while let Some(text) = rest {
        rest = group(&head, text, after, letters, &mut take);
    }
}

/// One group of values with their type and fields; returns what follows the group.
fn group<'a>(
    head: &Head<'a>,
    text: &'a [u8],
    after: Option<&'a [u8]>,
    letters: &Letters,
    take: &mut impl FnMut(&Head<'a>, Item<'a>),
) -> Option<&'a [u8]> {
    let Some(pipe) = memchr::memchr(b'|', text) else {
        // No type any more: every value that is left is bad.
        for _ in text.split(|byte| *byte == b':') {
            take(head, Item::Bad(Reject::NoType));
        }
        return None;
    };
    // The fields come after the values but decide what these mean.
    let values = &text[..pipe];
    let (fields, next) = fields(&text[pipe + 1..]);
    let meaning = Meaning::of(fields, after, letters);
    match meaning {
        Err(reject) => {
            for _ in values.split(|byte| *byte == b':') {
                take(head, Item::Bad(reject));
            }
        }
        Ok(meaning) if meaning.kind.facts().takes_text => {
            // Text may hold anything: of several only the last has the type, as in the reference.
            let mut values = values.split(|byte| *byte == b':').peekable();
            while let Some(value) = values.next() {
                take(
                    head,
                    match values.peek() {
                        Some(_) => Item::Bad(Reject::NoType),
                        None if value.is_empty() => Item::Member(meaning.kind, b"0"),
                        None => Item::Member(meaning.kind, value),
                    },
                );
            }
        }
        Ok(meaning) => {
            for value in values.split(|byte| *byte == b':') {
                take(head, meaning.item(value).unwrap_or_else(Item::Bad));
            }
        }
    }
    next
}

/// Cuts off the fields of one group: up to the colon that starts the next one.
fn fields(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut at = 0;
    for (index, field) in text.split(|byte| *byte == b'|').enumerate() {
        // The colon in `c:`, `e:` and `card:` belongs to the chunk.
        if (index == 0 || !is_chunk(field))
            && let Some(colon) = memchr::memchr(b':', field)
        {
            return (&text[..at + colon], Some(&text[at + colon + 1..]));
        }
        at += field.len() + 1;
    }
    (text, None)
}

/// Whether `field` is a chunk of DogStatsD's, known or of a shape that a later one may have:
/// lower-case letters and a colon.
fn is_chunk(field: &[u8]) -> bool {
    match memchr::memchr(b':', field) {
        Some(colon) if colon > 0 => field[..colon].iter().all(u8::is_ascii_lowercase),
        _ => false,
    }
}

/// What the fields after the values say.
struct Meaning {
    kind: Kind,
    /// 1 / rate.
    weight: f64,
    at: Option<f64>,
}

impl Meaning {
    /// Reads `TYPE|field|field`, and the fields that follow the line's tags.
    fn of(text: &[u8], after: Option<&[u8]>, letters: &Letters) -> Result<Self, Reject> {
        let mut fields = text.split(|byte| *byte == b'|');
        let (facts, letters) = letters.find(fields.next().unwrap_or_default())?;
        let mut meaning = Self {
            kind: facts.kind,
            weight: 1.0,
            at: None,
        };
        let after = after
            .into_iter()
            .flat_map(|after| after.split(|byte| *byte == b'|'))
            .map(|field| (field, false));
        let mut fields = fields
            .enumerate()
            .map(|(index, field)| (field, index == 0))
            .chain(after)
            .peekable();
        if facts.time_follows.map(str::as_bytes) == Some(letters)
            && let Some((field, _)) = fields.next_if(|(field, _)| !field.starts_with(b"@"))
        {
            meaning.at = Some(timestamp(field)?);
        }
        for (field, strict) in fields {
            match field {
                [b'@', rate @ ..] => meaning.weight = 1.0 / sample_rate(rate)?,
                [b'T', seconds @ ..]
                    if facts.takes_timestamps && seconds.iter().all(u8::is_ascii_digit) =>
                {
                    meaning.at = Some(timestamp(seconds)?);
                }
                [b'T', seconds @ ..] if number::decimal(seconds).is_some() => {}
                _ if !strict || is_chunk(field) => {}
                _ => return Err(Reject::Field),
            }
        }
        Ok(meaning)
    }

    fn item<'a>(&self, text: &[u8]) -> Result<Item<'a>, Reject> {
        if text.is_empty() {
            return Err(Reject::NoValue);
        }
        let value = number::read(text).ok_or(Reject::NotANumber)?;
        // The client has aggregated what it sends with a time: it is not weighted again.
        if self.at.is_some() || self.kind.facts().stores_each {
            return Ok(Item::Point {
                kind: self.kind,
                value,
                at: self.at,
            });
        }
        let number = Number {
            value,
            // As in the reference a blank before plus or minus makes it part of the value.
            is_signed: matches!(text[0], b'+' | b'-'),
            weight: self.weight,
        };
        let sample = self.kind.sample(number)?;
        Ok(Item::Sample(self.kind, sample))
    }
}

/// A rate: a positive decimal number without plus or minus.
pub(crate) fn sample_rate(text: &[u8]) -> Result<f64, Reject> {
    if !matches!(text.first(), Some(b'0'..=b'9' | b'.')) {
        return Err(Reject::SampleRate);
    }
    // Blanks may follow: the carriage return of a line, for one.
    match number::decimal(text).or_else(|| number::decimal(number::trim(text))) {
        Some(rate) if rate > 0.0 && (1.0 / rate).is_finite() => Ok(rate),
        _ => Err(Reject::SampleRate),
    }
}

/// Unix seconds, with or without a fraction, that a whisper file can hold. No point has time 0,
/// which is an empty slot in a whisper file.
pub(crate) fn timestamp(text: &[u8]) -> Result<f64, Reject> {
    match number::decimal(text) {
        Some(at) if (1.0..4_294_967_296.0).contains(&at) => Ok(at),
        _ => Err(Reject::Timestamp),
    }
}

/// Appends the key under which a name is looked up: `name`, or `name|#tags` with DogStatsD's tags.
pub(crate) fn key(head: &Head<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(head.name);
    if !head.tags.is_empty() {
        out.extend_from_slice(crate::sanitize::TAGS);
        out.extend_from_slice(head.tags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Sample;
    use crate::options::Options;

    fn read(text: &str) -> Vec<Item<'_>> {
        let mut items = Vec::new();
        let letters = Letters::new(&Options::default());
        line(text.as_bytes(), &letters, |_, item| items.push(item));
        items
    }

    fn head(text: &str) -> (String, String) {
        let mut found = None;
        let letters = Letters::new(&Options::default());
        line(text.as_bytes(), &letters, |head, _| found = Some(*head));
        let found = found.unwrap();
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (shown(found.name), shown(found.tags))
    }

    fn sample(kind: Kind, value: f64, weight: f64) -> Item<'static> {
        let sample = Sample {
            value,
            weight,
            is_relative: false,
        };
        Item::Sample(kind, sample)
    }

    fn difference(value: f64) -> Item<'static> {
        let sample = Sample {
            value,
            weight: 1.0,
            is_relative: true,
        };
        Item::Sample(Kind::Gauge, sample)
    }

    #[test]
    fn every_type() {
        for (text, item) in [
            ("a:2|c", sample(Kind::Counter, 2.0, 1.0)),
            ("a:2|m", sample(Kind::Counter, 2.0, 1.0)),
            ("a:2|ms", sample(Kind::Timer, 2.0, 1.0)),
            ("a:2|h", sample(Kind::Timer, 2.0, 1.0)),
            ("a:2|d", sample(Kind::Timer, 2.0, 1.0)),
            ("a:2|g", sample(Kind::Gauge, 2.0, 1.0)),
            ("a:-2|g", difference(-2.0)),
            ("a:+2|g", difference(2.0)),
            ("a: -2|g", sample(Kind::Gauge, -2.0, 1.0)),
            ("a:2|a", sample(Kind::Average, 2.0, 1.0)),
            ("a:x y|s", Item::Member(Kind::Set, b"x y")),
            ("a:|s", Item::Member(Kind::Set, b"0")),
            ("a:abc|s ", Item::Member(Kind::Set, b"abc")),
            ("a:2|c\r", sample(Kind::Counter, 2.0, 1.0)),
            ("a:2| c", sample(Kind::Counter, 2.0, 1.0)),
            ("a:3|c|@0.5", sample(Kind::Counter, 6.0, 2.0)),
            ("a:3|ms|@0.1", sample(Kind::Timer, 3.0, 10.0)),
            ("a:1|c|@0.5|anything", sample(Kind::Counter, 2.0, 2.0)),
            ("a:1|c|@1e-1", sample(Kind::Counter, 10.0, 10.0)),
            ("a:1|c|@2", sample(Kind::Counter, 0.5, 0.5)),
            ("a:1|c|@0.5\r", sample(Kind::Counter, 2.0, 2.0)),
            ("a:1|c|@0.5 ", sample(Kind::Counter, 2.0, 2.0)),
            ("a:1|\u{a0}c", sample(Kind::Counter, 1.0, 1.0)),
        ] {
            assert_eq!(read(text), [item], "{text}");
        }
        assert_eq!(3.0 * (1.0 / 0.333), 9.00900900900901);
    }

    #[test]
    fn values_with_their_own_time() {
        let point = |kind, value, at| Item::Point { kind, value, at };
        for (text, item) in [
            ("a:5|r|1700000000", point(Kind::Raw, 5.0, Some(1.7e9))),
            (
                "a:5|r|1700000000.75",
                point(Kind::Raw, 5.0, Some(1_700_000_000.75)),
            ),
            ("a:5|r|1700000000|@0.5", point(Kind::Raw, 5.0, Some(1.7e9))),
            ("a:5|r", point(Kind::Raw, 5.0, None)),
            ("a:5|kv", point(Kind::Raw, 5.0, None)),
            ("a:5|c|T1700000000", point(Kind::Counter, 5.0, Some(1.7e9))),
            (
                "a:5|c|@0.1|T1700000000",
                point(Kind::Counter, 5.0, Some(1.7e9)),
            ),
            (
                "a:5|g|#x:y|T1700000000",
                point(Kind::Gauge, 5.0, Some(1.7e9)),
            ),
            ("a:-5|g|T1700000000", point(Kind::Gauge, -5.0, Some(1.7e9))),
            ("a:5|ms|T1700000000", sample(Kind::Timer, 5.0, 1.0)),
        ] {
            assert_eq!(read(text), [item], "{text}");
        }
    }

    #[test]
    fn both_packings() {
        let count = |value| sample(Kind::Counter, value, 1.0);
        assert_eq!(
            read("a:1|c:2|c|@0.5:3|c"),
            [count(1.0), sample(Kind::Counter, 4.0, 2.0), count(3.0)]
        );
        assert_eq!(
            read("a:1:2:3|ms|@0.5|#x:y"),
            [1.0, 2.0, 3.0].map(|value| sample(Kind::Timer, value, 2.0))
        );
        assert_eq!(
            read("a:1:x:3|ms"),
            [
                sample(Kind::Timer, 1.0, 1.0),
                Item::Bad(Reject::NotANumber),
                sample(Kind::Timer, 3.0, 1.0)
            ]
        );
        assert_eq!(
            read("a:1|c:5|ms:7"),
            [
                count(1.0),
                sample(Kind::Timer, 5.0, 1.0),
                Item::Bad(Reject::NoType)
            ]
        );
        assert_eq!(
            read("u:a:b|s"),
            [Item::Bad(Reject::NoType), Item::Member(Kind::Set, b"b")]
        );
    }

    #[test]
    fn chunks_are_ignored_and_tags_end_at_the_next_bar() {
        for text in [
            "y:1|c|#env:prod|c:ci-abc123",
            "y:1|c|c:abc|#env:prod",
            "y:1|c|#env:prod|e:it-false,cn-x,pu-1",
            "y:1|c|#env:prod|card:low",
            "y:1|c|#env:prod|later:on",
            "y:1|c|@1|c:1|#env:prod",
        ] {
            assert_eq!(read(text), [sample(Kind::Counter, 1.0, 1.0)], "{text}");
            assert_eq!(
                head(text),
                ("y".to_owned(), "env:prod".to_owned()),
                "{text}"
            );
        }
        assert_eq!(
            read("x:1|c|#env:prod|@0.1"),
            [sample(Kind::Counter, 10.0, 10.0)]
        );
        assert_eq!(read("x:1|c|#"), [sample(Kind::Counter, 1.0, 1.0)]);
    }

    #[test]
    fn bad_lines_have_their_reasons() {
        for (text, reject) in [
            ("nocolon", Reject::NoColon),
            ("|c", Reject::NoColon),
            ("a:1", Reject::NoType),
            ("a:1|", Reject::NoType),
            ("b:|c", Reject::NoValue),
            ("d:x|c", Reject::NotANumber),
            ("d:NaN|c", Reject::NotANumber),
            ("d:Infinity|g", Reject::NotANumber),
            ("d: |g", Reject::NotANumber),
            ("e:-1|ms", Reject::NegativeTime),
            ("f:1|c|0.1", Reject::Field),
            ("g:1|c|@", Reject::SampleRate),
            ("g:1|c|@0", Reject::SampleRate),
            ("g:1|c|@0x10", Reject::SampleRate),
            ("g:1|c|@1e-320", Reject::SampleRate),
            ("h:1|c|@-0.5", Reject::SampleRate),
            ("i:1|c|", Reject::Field),
            ("k:1|c|@a", Reject::SampleRate),
            ("k:1e308|c|@0.001", Reject::SampleRate),
            ("f:5|zzz", Reject::UnknownType),
            ("f:5|r|yesterday", Reject::Timestamp),
            ("f:5|r|-1", Reject::Timestamp),
            ("f:5|c|T99999999999", Reject::Timestamp),
            ("f:5|c|T0", Reject::Timestamp),
            ("f:5|g|T00", Reject::Timestamp),
            ("f:5|r|0", Reject::Timestamp),
            ("f:5|r|0.75", Reject::Timestamp),
        ] {
            assert_eq!(read(text), [Item::Bad(reject)], "{text}");
        }
    }

    /// Single datagrams that end the reference with an uncaught exception, and names that it
    /// mistakes for JavaScript's own.
    #[test]
    fn lines_that_end_the_reference() {
        for text in ["x:1|c|@+0.1", "x:1|c|@ 0.5"] {
            assert_eq!(read(text), [Item::Bad(Reject::SampleRate)], "{text}");
        }
        assert_eq!(read("constructor:1|ms"), [sample(Kind::Timer, 1.0, 1.0)]);
        assert_eq!(read("toString:1|s"), [Item::Member(Kind::Set, b"1")]);
        assert_eq!(read("constructor:1|c"), [sample(Kind::Counter, 1.0, 1.0)]);
        assert_eq!(read("valueOf:+1|g"), [difference(1.0)]);
        assert_eq!(read("__proto__:1|c"), [sample(Kind::Counter, 1.0, 1.0)]);
        assert_eq!(
            read("x:__proto__|s"),
            [Item::Member(Kind::Set, b"__proto__")]
        );
    }
}
