//! Reading the recordings, and the form in which points are compared.

use carbon::index::Index;
use carbon::protocol::{Flow, Metrics, Resolver};
use carbon::stats::Stats;
use carbon::{Datapoint, Timestamp};
use serde_json::Value;

use crate::documented::Deviations;

/// The time of receipt.
pub(crate) const NOW: Timestamp = Timestamp(1_800_000_000);

/// The slug of a case's quirk, if it has one.
pub(crate) fn quirk(case: &Value) -> Option<&str> {
    let quirk = case["quirk"].as_str()?;
    quirk.split([':', ' ']).next()
}

/// The bytes of hexadecimal digits.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits = (0..text.len()).step_by(2);
    digits
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// The bytes of a list of parts; `plain` reads a part that is a text.
pub(crate) fn parts(parts: &Value, plain: fn(&str) -> Vec<u8>) -> Vec<u8> {
    let part = |part: &Value| match part {
        Value::String(text) => plain(text),
        part => match part["hex"].as_str() {
            Some(digits) => hex(digits),
            None => {
                let times = part["times"].as_u64().unwrap() as usize;
                plain(part["repeat"].as_str().unwrap()).repeat(times)
            }
        },
    };
    parts.as_array().unwrap().iter().flat_map(part).collect()
}

/// The timestamp of a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum At {
    Now,
    Seconds(f64),
}

/// A point: its name in bytes, its timestamp, its value.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) name: Vec<u8>,
    pub(crate) at: At,
    pub(crate) value: f64,
}

/// Values are equal when they are the same double, negative zero included.
impl PartialEq for Point {
    fn eq(&self, other: &Self) -> bool {
        let bits = (self.value.to_bits(), other.value.to_bits());
        self.name == other.name && self.at == other.at && bits.0 == bits.1
    }
}

fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some(text) => text.parse().unwrap(),
        None => value.as_f64().unwrap(),
    }
}

/// The points of a recorded result under the names that carbon stores them by; timestamps floored.
pub(crate) fn points(result: &Value) -> Vec<Point> {
    let point = |point: &Value| {
        let name = point.get(3).unwrap_or(&point[0]);
        Point {
            name: match name {
                Value::String(name) => name.as_bytes().to_vec(),
                name => parts(name, |text| text.as_bytes().to_vec()),
            },
            at: match point[1].as_str() {
                Some("now") => At::Now,
                _ => At::Seconds(number(&point[1]).floor()),
            },
            value: number(&point[2]),
        }
    };
    result["points"]
        .as_array()
        .unwrap()
        .iter()
        .map(point)
        .collect()
}

/// Those of `points` that plumbago stores, under its names: without infinite values, timestamps that
/// no whisper file holds, and names that no file can have.
pub(crate) fn storable(points: Vec<Point>) -> Vec<Point> {
    let storable = points.into_iter().filter_map(|point| {
        let in_range = match point.at {
            At::Now => true,
            At::Seconds(seconds) => (1.0..=f64::from(u32::MAX)).contains(&seconds),
        };
        let name = carbon::series::canonical(&point.name).ok()?;
        (in_range && point.value.is_finite()).then(|| Point {
            name: name.as_bytes().to_vec(),
            ..point
        })
    });
    storable.collect()
}

/// What came of replaying cases.
#[derive(Default)]
pub(crate) struct Replayed {
    wrong: Vec<String>,
    deviations: Deviations,
}

impl Replayed {
    /// Notes a case of `recording`: whether it goes as recorded, or why it is wrong.
    pub(crate) fn note(&mut self, recording: &str, case: &Value, result: Result<bool, String>) {
        let name = case["name"].as_str().unwrap();
        match result {
            Ok(true) => {}
            Ok(false) => {
                let quirk = quirk(case).unwrap().to_owned();
                let names = self.deviations.entry((recording.to_owned(), quirk));
                names.or_default().insert(name.to_owned());
            }
            Err(why) => self.wrong.push(format!("{name}, {recording}: {why}")),
        }
    }

    /// The cases that do not go as recorded.
    ///
    /// # Panics
    /// One of the `n_cases` is wrong.
    pub(crate) fn deviations(self, n_cases: usize) -> Deviations {
        let Self { wrong, deviations } = self;
        assert!(
            wrong.is_empty(),
            "{} of {n_cases}:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
        deviations
    }
}

/// An index in a directory of its own, and counters.
pub(crate) struct Receiver {
    _dir: tempfile::TempDir,
    pub(crate) index: Index,
    pub(crate) stats: Stats,
    pub(crate) taken: Vec<Datapoint>,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), dir.path().join("names"), true).unwrap();
        Self {
            _dir: dir,
            index,
            stats: Stats::default(),
            taken: Vec::new(),
        }
    }

    /// Has `stream` read `chunks`; whether the connection is still open afterwards.
    pub(crate) fn read(&mut self, stream: &mut impl Metrics, chunks: &[Vec<u8>]) -> bool {
        for chunk in chunks {
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let space = stream.space();
                let n = rest.len().min(space.len());
                space[..n].copy_from_slice(&rest[..n]);
                rest = &rest[n..];
                let mut resolver = Resolver::new(&self.index, &self.stats, NOW, &mut self.taken);
                if stream.advance(n, &mut resolver) == Flow::Close {
                    return false;
                }
            }
        }
        true
    }

    /// What was taken, in the form of the recording.
    pub(crate) fn points(&self) -> Vec<Point> {
        let point = |point: &Datapoint| Point {
            name: self.index.name(point.series).into_bytes(),
            at: match point.at.timestamp() {
                NOW => At::Now,
                at => At::Seconds(f64::from(at.0)),
            },
            value: point.value,
        };
        self.taken.iter().map(point).collect()
    }
}
