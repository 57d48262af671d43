//! CarbonLink: how graphite-web asks carbon-cache for what is not in files yet, and for the
//! aggregation method of a file. Requests and answers are pickled dictionaries in frames.
//!
//! | `type` | asks with | answer |
//! |---|---|---|
//! | `cache-query` | `metric` | `datapoints`: a list of (timestamp, value) |
//! | `cache-query-bulk` | `metrics` | `datapointsByMetric`: such a list for each |
//! | `get-metadata` | `metric`, `key` | `value` |
//! | `set-metadata` | `metric`, `key`, `value` | `old_value`, `new_value` |
//!
//! The only key is `aggregationMethod`. A request that does not fit is answered with `error`; carbon
//! closes the connection at most of these. Names are brought into their canonical form, and names that
//! are bytes are read as UTF-8; carbon finds neither. Semantics: carbon 1.1.10,
//! `CacheManagementHandler`.
//!
//! A pickle of a few bytes can refer to one value many times, and nested tuples multiply that. What is
//! copied out of a request is limited by its own length, not by that of the request: names to
//! [`MAX_REQUEST`], texts for errors to [`MAX_SHOWN`].

use std::collections::HashSet;
use std::fmt::Write;

use whisper::{Aggregation, Point};

use super::pickle::{Machine, Value, write};

/// The longest request.
pub const MAX_REQUEST: usize = 4 << 20;
/// The longest answer.
pub const MAX_ANSWER: usize = 64 << 20;
/// The only key of metadata.
const KEY: &str = "aggregationMethod";
/// How deep tuples and lists of a name or a type are read.
const MAX_DEPTH: usize = 16;
/// Bytes of a value that an error shows.
const MAX_SHOWN: usize = 1_000;

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// The cached points of a series.
    Query(Name),
    /// Those of several series.
    Bulk(Vec<Name>),
    /// The aggregation method of a file.
    Get {
        /// The series.
        metric: String,
    },
    /// A new aggregation method for a file.
    Set {
        /// The series.
        metric: String,
        /// The method.
        method: Aggregation,
        /// The name of the method as the client sent it.
        value: String,
    },
    /// A request that cannot be answered: why.
    Invalid(String),
}

/// What a client asks about. Only text can be the name of a series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    /// A name as the client sent it.
    Text(Box<str>),
    /// Another value, which has no datapoints: its pickle, without start and end.
    Other(Box<[u8]>),
}

impl Name {
    /// The name, if it can be that of a series.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Other(_) => None,
        }
    }
}

/// The request that `frame` holds.
pub fn parse(frame: &[u8], machine: &mut Machine) -> Request {
    let whole = match machine.read(frame) {
        Ok(whole) => whole,
        Err(why) => return Request::Invalid(format!("Invalid request: {why}")),
    };
    let request = Reader { machine, frame };
    request
        .request(whole)
        .unwrap_or_else(|why| Request::Invalid(format!("Invalid request: {why}")))
}

/// Reads a request's values.
struct Reader<'r> {
    machine: &'r Machine,
    frame: &'r [u8],
}

impl<'r> Reader<'r> {
    fn request(&self, whole: Value) -> Result<Request, String> {
        let kind = self.entry(whole, "type")?;
        let name = self.text(kind).unwrap_or_default();
        match name {
            "cache-query" => {
                let metric = self.entry(whole, "metric")?;
                let mut room = Room::default();
                Ok(Request::Query(match self.text(metric) {
                    Some(text) => Name::Text(text.into()),
                    None => Name::Other(self.pickled(metric, &mut room)?),
                }))
            }
            "cache-query-bulk" => self.bulk(self.entry(whole, "metrics")?),
            "get-metadata" | "set-metadata" => {
                let metric = self.entry(whole, "metric")?;
                let metric = self.text(metric).ok_or("metric is not a text")?.to_owned();
                let key = self.entry(whole, "key")?;
                if self.text(key) != Some(KEY) {
                    let key = self.str(key);
                    return Ok(Request::Invalid(format!(
                        "Unsupported metadata key \"{key}\""
                    )));
                }
                if name == "get-metadata" {
                    return Ok(Request::Get { metric });
                }
                let value = self.str(self.entry(whole, "value")?);
                let known = Aggregation::ALL
                    .into_iter()
                    .find(|method| method.name() == value);
                Ok(match known {
                    Some(method) => Request::Set {
                        metric,
                        method,
                        value,
                    },
                    None => Request::Invalid(format!("Unrecognized aggregation method: {value}")),
                })
            }
            _ => {
                let kind = self.str(kind);
                Ok(Request::Invalid(format!("Invalid request type \"{kind}\"")))
            }
        }
    }

    /// The value of `key` in a dictionary: the one that was set last.
    fn entry(&self, whole: Value, key: &str) -> Result<Value, String> {
        let entries = self.machine.entries(whole);
        let entries = entries.ok_or("it is not a dictionary")?;
        // A key may be a long text that is referred to many times: lengths are compared first.
        let is_key = |found| {
            let found = self.machine.text_or_bytes(found, self.frame);
            found == Some(key.as_bytes())
        };
        let of_key = entries.filter(|(found, _)| is_key(*found));
        let last = of_key.last().map(|(_, value)| value);
        last.ok_or_else(|| format!("it has no {key:?}"))
    }

    fn bulk(&self, metrics: Value) -> Result<Request, String> {
        let mut names = Names::default();
        if let Some(members) = self.machine.members(metrics) {
            for member in members {
                self.add(*member, &mut names)?;
            }
        } else if let Some(entries) = self.machine.entries(metrics) {
            for (key, _) in entries {
                self.add(key, &mut names)?;
            }
        } else {
            return Err("metrics is not a list".to_owned());
        }
        Ok(Request::Bulk(names.all))
    }

    /// Adds `value` as the name of a series, unless it is there; an error if a dictionary could not have
    /// it as a key.
    fn add(&self, value: Value, names: &mut Names<'r>) -> Result<(), String> {
        match self.text(value) {
            Some(text) => {
                names.room.take(text.len() + 1)?;
                if names.texts.insert(text) {
                    names.all.push(Name::Text(text.into()));
                }
            }
            None => {
                let pickled = self.pickled(value, &mut names.room)?;
                if names.others.insert(pickled.clone()) {
                    names.all.push(Name::Other(pickled));
                }
            }
        }
        Ok(())
    }

    fn text(&self, value: Value) -> Option<&'r str> {
        let bytes = self.machine.text_or_bytes(value, self.frame)?;
        std::str::from_utf8(bytes).ok()
    }

    /// The pickle of `value`; an error if a dictionary could not have it as a key.
    fn pickled(&self, value: Value, room: &mut Room) -> Result<Box<[u8]>, String> {
        let mut out = Vec::new();
        self.copy(value, &mut out, room, 0)?;
        Ok(out.into())
    }

    /// Writes `value` again.
    fn copy(
        &self,
        value: Value,
        out: &mut Vec<u8>,
        room: &mut Room,
        depth: usize,
    ) -> Result<(), String> {
        // The longest value without text has nine bytes.
        room.take(9)?;
        match value {
            Value::None => write::none(out),
            Value::Bool(bool) => write::bool(out, bool),
            Value::Int(integer) => write::long(out, integer),
            Value::Float(float) => write::float(out, float),
            Value::Tuple(_) if depth < MAX_DEPTH => {
                out.push(b'(');
                for member in self.machine.members(value).unwrap_or_default() {
                    self.copy(*member, out, room, depth + 1)?;
                }
                out.push(b't');
            }
            _ => match self.text(value) {
                Some(text) => {
                    room.take(text.len())?;
                    write::text(out, text);
                }
                None => return Err(format!("{} is not a name", self.str(value))),
            },
        }
        Ok(())
    }

    /// What Python's `str` makes of `value`.
    fn str(&self, value: Value) -> String {
        let mut out = String::new();
        match self.machine.text(value, self.frame) {
            Some(text) => out.push_str(&String::from_utf8_lossy(shown(text))),
            None => self.repr(value, &mut out, 0),
        }
        truncated(out)
    }

    /// What Python's `repr` makes of `value`, but for rare characters; some bytes more than
    /// [`MAX_SHOWN`] if it is longer.
    fn repr(&self, value: Value, out: &mut String, depth: usize) {
        const MAX_MEMBERS: usize = 20;
        let _ = match value {
            Value::None => out.write_str("None"),
            Value::Bool(true) => out.write_str("True"),
            Value::Bool(false) => out.write_str("False"),
            Value::Int(integer) => write!(out, "{integer}"),
            Value::Float(float) => write!(out, "{float:?}"),
            Value::Text(_) | Value::Decoded(_) | Value::Bytes(_) => {
                let bytes = self
                    .machine
                    .text_or_bytes(value, self.frame)
                    .unwrap_or_default();
                let prefix = if matches!(value, Value::Bytes(_)) {
                    "b"
                } else {
                    ""
                };
                write!(out, "{prefix}'{}'", String::from_utf8_lossy(shown(bytes)))
            }
            Value::List(_) | Value::Tuple(_) => {
                let tuple = matches!(value, Value::Tuple(_));
                let members = self.machine.members(value).unwrap_or_default();
                out.push(if tuple { '(' } else { '[' });
                for (n, member) in members.iter().enumerate() {
                    if out.len() > MAX_SHOWN {
                        break;
                    }
                    if n > 0 {
                        out.push_str(", ");
                    }
                    if n == MAX_MEMBERS || depth == MAX_DEPTH {
                        out.push_str("...");
                        break;
                    }
                    self.repr(*member, out, depth + 1);
                }
                if tuple && members.len() == 1 {
                    out.push(',');
                }
                out.push(if tuple { ')' } else { ']' });
                Ok(())
            }
            Value::Dict(_) | Value::Set(_) | Value::Surrogate => out.write_str("..."),
        };
    }
}

/// The names of a request for several.
#[derive(Default)]
struct Names<'r> {
    /// Each once, in the order of the request: a dictionary answers each name once.
    all: Vec<Name>,
    texts: HashSet<&'r str>,
    others: HashSet<Box<[u8]>>,
    room: Room,
}

/// How many bytes of names may still be read.
struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(MAX_REQUEST)
    }
}

impl Room {
    /// Uses `bytes` of it.
    fn take(&mut self, bytes: usize) -> Result<(), String> {
        let left = self.0.checked_sub(bytes).ok_or_else(|| {
            let most = MAX_REQUEST >> 20;
            format!("the names, each as often as it is referred to, are longer than {most} MiB")
        })?;
        self.0 = left;
        Ok(())
    }
}

/// The part of a text that an error can show; with a cut character at its end, if it is not all.
fn shown(text: &[u8]) -> &[u8] {
    // The cut character has up to three bytes, which `truncated` removes.
    &text[..text.len().min(MAX_SHOWN + 4)]
}

/// At most [`MAX_SHOWN`] bytes of a text that goes into an error.
fn truncated(mut text: String) -> String {
    if text.len() > MAX_SHOWN {
        let end = (0..=MAX_SHOWN).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str("...");
    }
    text
}

/// Appends the framed answer to a query; `points` are in the order of their arrival.
pub fn datapoints(points: &mut Vec<Point>, out: &mut Vec<u8>) {
    write::frame(out, |out| {
        write::dict(out, |out| {
            write::text(out, "datapoints");
            list(points, out);
        });
    });
}

/// Appends the framed answer to a query of several names; `read` gets the points of each.
///
/// # Errors
/// The answer would be too long; nothing is appended.
pub fn datapoints_by_metric(
    names: &[Name],
    mut read: impl FnMut(&str, &mut Vec<Point>),
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let start = out.len();
    let mut fits = true;
    let mut points = Vec::new();
    write::frame(out, |out| {
        write::dict(out, |out| {
            write::text(out, "datapointsByMetric");
            write::dict(out, |out| {
                for name in names {
                    points.clear();
                    match name {
                        Name::Text(text) => {
                            write::text(out, text);
                            read(text, &mut points);
                        }
                        Name::Other(pickled) => out.extend(&**pickled),
                    }
                    list(&mut points, out);
                    fits = out.len() - start <= MAX_ANSWER;
                    if !fits {
                        return;
                    }
                }
            });
        });
    });
    if fits {
        return Ok(());
    }
    out.truncate(start);
    Err(format!(
        "the answer would be longer than {} MiB: ask for fewer metrics at once",
        MAX_ANSWER >> 20
    ))
}

/// Appends points in the order of time; of several with one timestamp, the last.
fn list(points: &mut Vec<Point>, out: &mut Vec<u8>) {
    points.reverse();
    points.sort_by_key(|point| point.at);
    points.dedup_by_key(|point| point.at);
    write::list(out, |out| {
        for point in points {
            write::float(out, f64::from(point.at.0));
            write::float(out, point.value);
            write::pair(out);
        }
    });
}

/// Appends a framed answer of texts.
pub fn texts(entries: &[(&str, &str)], out: &mut Vec<u8>) {
    write::frame(out, |out| {
        write::dict(out, |out| {
            for (key, value) in entries {
                write::text(out, key);
                write::text(out, value);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Levels of tuples, each of which has 16 times the one below it; the last is in the memo as `h\x08`.
    fn nested() -> Vec<u8> {
        let mut pickle = b"U\x01xq\x000".to_vec();
        for level in 1..=8 {
            pickle.push(b'(');
            for _ in 0..16 {
                pickle.extend([b'h', level - 1]);
            }
            pickle.extend([b't', b'q', level, b'0']);
        }
        pickle
    }

    /// A text of `len` bytes in the memo as `h\x00`.
    fn long(len: u32) -> Vec<u8> {
        let mut pickle = b"X".to_vec();
        pickle.extend(len.to_le_bytes());
        pickle.resize(pickle.len() + len as usize, b'a');
        pickle.extend(b"q\x000");
        pickle
    }

    fn request(memo: &[u8], entries: &[u8]) -> Request {
        let frame = [memo, b"}(", entries, b"u."].concat();
        parse(&frame, &mut Machine::default())
    }

    fn refusal(memo: &[u8], entries: &[u8]) -> String {
        match request(memo, entries) {
            Request::Invalid(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_copied_out_of_a_request_is_limited() {
        let too_long =
            "Invalid request: the names, each as often as it is referred to, are longer than 4 MiB";
        let query = b"U\x04typeU\x0bcache-queryU\x06metrich\x08";
        assert_eq!(refusal(&nested(), query), too_long);
        let shown = refusal(&nested(), b"U\x04typeh\x08");
        assert!(
            shown.starts_with("Invalid request type \"((((((((\'x\', \'x\', "),
            "{shown}"
        );
        assert!(shown.len() < 1_100, "{}", shown.len());
        let shown = refusal(&long(1 << 20), b"U\x04typeh\x00");
        assert!(shown.len() < 1_100, "{}", shown.len());

        let mut bulk = b"U\x04typeU\x10cache-query-bulkU\x07metrics]".to_vec();
        let references = [b"(", &b"h\x00".repeat(1_000)[..], b"e"].concat();
        bulk.extend(references.repeat(100));
        assert_eq!(refusal(&long(1 << 20), &bulk), too_long);
        let one = Name::Text("a".repeat(30).into());
        assert_eq!(request(&long(30), &bulk), Request::Bulk(vec![one]));
    }

    #[test]
    fn a_long_key_is_not_read_at_each_reference() {
        let references = [&b"h\x00N".repeat(1_000)[..], b"u("].concat();
        let mut entries = references.repeat(500);
        entries.extend(b"U\x04typeU\x0bcache-queryU\x06metricU\x01a");
        let found = request(&long(2 << 20), &entries);
        assert_eq!(found, Request::Query(Name::Text("a".into())));
    }
}
