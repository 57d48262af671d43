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
                Ok(Request::Query(self.name(metric)?))
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
        let of_key = entries.filter(|(found, _)| self.text(*found) == Some(key));
        let last = of_key.last().map(|(_, value)| value);
        last.ok_or_else(|| format!("it has no {key:?}"))
    }

    fn bulk(&self, metrics: Value) -> Result<Request, String> {
        let mut names = Vec::new();
        if let Some(members) = self.machine.members(metrics) {
            for member in members {
                names.push(self.name(*member)?);
            }
        } else if let Some(entries) = self.machine.entries(metrics) {
            for (key, _) in entries {
                names.push(self.name(key)?);
            }
        } else {
            return Err("metrics is not a list".to_owned());
        }
        // A dictionary answers each name once.
        let mut seen = HashSet::with_capacity(names.len());
        names.retain(|name| seen.insert(name.clone()));
        Ok(Request::Bulk(names))
    }

    fn text(&self, value: Value) -> Option<&'r str> {
        let bytes = self.machine.text_or_bytes(value, self.frame)?;
        std::str::from_utf8(bytes).ok()
    }

    /// `value` as the name of a series; an error if a dictionary could not have it as a key.
    fn name(&self, value: Value) -> Result<Name, String> {
        if let Some(text) = self.text(value) {
            return Ok(Name::Text(text.into()));
        }
        let mut out = Vec::new();
        self.copy(value, &mut out, 0)?;
        Ok(Name::Other(out.into()))
    }

    /// Writes `value` again.
    fn copy(&self, value: Value, out: &mut Vec<u8>, depth: usize) -> Result<(), String> {
        match value {
            Value::None => write::none(out),
            Value::Bool(bool) => write::bool(out, bool),
            Value::Int(integer) => write::long(out, integer),
            Value::Float(float) => write::float(out, float),
            Value::Tuple(_) if depth < MAX_DEPTH => {
                out.push(b'(');
                for member in self.machine.members(value).unwrap_or_default() {
                    self.copy(*member, out, depth + 1)?;
                }
                out.push(b't');
            }
            _ => match self.text(value) {
                Some(text) => write::text(out, text),
                None => return Err(format!("{} is not a name", self.str(value))),
            },
        }
        Ok(())
    }

    /// What Python's `str` makes of `value`.
    fn str(&self, value: Value) -> String {
        let mut out = String::new();
        match self.machine.text(value, self.frame) {
            Some(text) => out.push_str(&String::from_utf8_lossy(text)),
            None => self.repr(value, &mut out, 0),
        }
        truncated(out)
    }

    /// What Python's `repr` makes of `value`, but for rare characters.
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
                write!(out, "{prefix}'{}'", String::from_utf8_lossy(bytes))
            }
            Value::List(_) | Value::Tuple(_) => {
                let tuple = matches!(value, Value::Tuple(_));
                let members = self.machine.members(value).unwrap_or_default();
                out.push(if tuple { '(' } else { '[' });
                for (n, member) in members.iter().enumerate() {
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

/// At most 1,000 bytes of a text that goes into an error.
fn truncated(mut text: String) -> String {
    const MAX: usize = 1_000;
    if text.len() > MAX {
        let end = (0..=MAX).rev().find(|at| text.is_char_boundary(*at));
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
