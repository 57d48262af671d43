//! Replays what Python's whisper did with a few hundred lists of operations.
//!
//! In the classes `core`, `merge`, `create` and `corrupt` every answer, every error and every byte
//! must be the same. In a class `quirk:…` a case may deviate, but only in the way that
//! [`DEVIATIONS`] names and `docs/whisper.md` explains.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use support::{recording, sha256};
use whisper::retention::numbers;
use whisper::{
    Aggregation, Allocation, CreateOptions, Error, Fetched, File, Header, Lock, MapOptions, Maps,
    Point, Retention, Timestamp, create, diff, merge, present,
};

/// Classes that deviate from the reference, and the only operations that may be the first to do
/// so in a case. `fetch`, `info` and `diff` deviate after a write that did.
const DEVIATIONS: &[(&str, &[&str])] = &[
    // Points exactly as old as an archive is long go to the next archive.
    ("quirk:edge-age", &["update", "update_many"]),
    // Of equal timestamps the last one wins.
    ("quirk:dup-timestamp", &["update_many"]),
    // 1 of 10 reaches a factor of 0.1.
    ("quirk:xff-float32", &["update", "update_many"]),
    // A run longer than the ring keeps its newest points instead of leaving the ring.
    ("quirk:future", &["update_many"]),
    // A point after interval 0 is not glued to it.
    ("quirk:epoch", &["update_many"]),
    // A range longer than its archive begins with absent values.
    ("quirk:fetch-overlong", &["fetch"]),
    // A refused create leaves no empty file.
    ("quirk:create-leftover", &["create"]),
    // A file that ends early is not written, and not read where nothing is left of it.
    ("quirk:truncated-data", &["update", "update_many", "fetch"]),
];

#[test]
fn golden_retentions() {
    let cases = recording("whisper-ops");
    let cases = cases.iter().filter(|case| case["kind"] == "retention");
    let mut n = 0;
    for case in cases {
        let text = case["def"].as_str().unwrap();
        match (numbers(text), &case["expect"]) {
            (Ok((step, points)), expected) => {
                assert_eq!(json!([step, points]), *expected, "{text:?}")
            }
            (Err(_), Value::Null) => {}
            (Err(refused), expected) => panic!("{refused}, but {expected}"),
        }
        n += 1;
    }
    assert!(n > 0);
}

#[test]
fn golden_operations() {
    replay_all(|_| true, None);
}

/// The same through mapped files, which must write the same bytes. (Damaged files are set aside
/// there instead of being left as they are; that has tests of its own.)
#[test]
fn golden_operations_on_mapped_files() {
    let damaged = [
        "corrupt",
        "create",
        "quirk:create-leftover",
        "quirk:truncated-data",
    ];
    replay_all(
        |class| !damaged.contains(&class),
        Some(MapOptions::default()),
    );
    let flock = MapOptions {
        flock: true,
        ..MapOptions::default()
    };
    replay_all(|class| class == "merge", Some(flock));
}

fn replay_all(wanted: impl Fn(&str) -> bool, maps: Option<MapOptions>) {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in recording("whisper-ops")
        .iter()
        .filter(|case| case["kind"] == "ops")
    {
        let class = case["class"].as_str().unwrap();
        if !wanted(class) {
            continue;
        }
        let maps = maps.map(Maps::new);
        let (same, deviating) = counts.entry(class.to_owned()).or_default();
        match replay(case, maps.as_ref()) {
            Ok(()) => *same += 1,
            Err(difference) => {
                *deviating += 1;
                let allowed = DEVIATIONS.iter().find(|(name, _)| *name == class);
                if !allowed.is_some_and(|(_, ops)| ops.contains(&difference.op.as_str())) {
                    failures.push(format!("case {} ({class}): {difference:?}", case["id"]));
                }
            }
        }
    }
    for (class, (same, deviating)) in &counts {
        println!("{class:24} {same:4} equal {deviating:4} deviating");
    }
    assert!(!counts.is_empty());
    assert!(
        failures.is_empty(),
        "{} failed\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// The first operation of a case that came out differently.
#[derive(Debug)]
struct Difference {
    op: String,
    #[expect(dead_code, reason = "printed")]
    what: String,
}

fn replay(case: &Value, maps: Option<&Maps>) -> Result<(), Difference> {
    let dir = tempfile::tempdir().unwrap();
    let path = |file: u64| dir.path().join(format!("{file}.wsp"));
    for (number, op) in case["ops"].as_array().unwrap().iter().enumerate() {
        let kind = op["op"].as_str().unwrap();
        let target = op["f"].as_u64().or_else(|| op["to"].as_u64()).unwrap_or(0);
        let differs = |what: String| Difference {
            op: kind.to_owned(),
            what: format!("operation {number} {op}: {what}"),
        };
        let source = path(op["src"].as_u64().unwrap_or(0));
        let mapped = maps.and_then(|maps| perform_mapped(maps, kind, op, target, &path(target)));
        let outcome = mapped.unwrap_or_else(|| perform(kind, op, &path(target), &source));
        let (found, wanted) = match outcome {
            Ok(found) => (found, expected(kind, op)),
            Err(refused) => (
                json!({ "err": name_of(&refused, kind) }),
                expected(kind, op),
            ),
        };
        if found != wanted {
            return Err(differs(format!("{found} instead of {wanted}")));
        }
        if let Some(wanted) = op["h"].as_str() {
            let found = std::fs::read(path(target)).map(|bytes| sha256(&bytes));
            let found = found.as_deref().map_or("no file", |digest| &digest[..16]);
            if found != wanted {
                return Err(differs(format!("bytes {found}")));
            }
        }
    }
    let last = || Difference {
        op: "final".to_owned(),
        what: "files differ".to_owned(),
    };
    for file in case["final"].as_array().unwrap() {
        let bytes = std::fs::read(path(file["f"].as_u64().unwrap())).map_err(|_| last())?;
        if sha256(&bytes) != file["sha256"].as_str().unwrap() {
            return Err(last());
        }
    }
    Ok(())
}

/// What the recording says came of an operation, in the form of [`perform`]'s answer.
fn expected(kind: &str, op: &Value) -> Value {
    if let Some(error) = op.get("err") {
        return json!({ "err": error });
    }
    match kind {
        "fetch" | "info" | "diff" => op["expect"].clone(),
        "set_xff" | "set_method" => op["old"].clone(),
        _ => Value::Null,
    }
}

fn name_of(error: &Error, kind: &str) -> &'static str {
    match error {
        Error::Archives(_) | Error::Exists { .. } => "InvalidConfiguration",
        Error::Method(_) => "InvalidAggregationMethod",
        Error::XFilesFactor(_) => "InvalidXFilesFactor",
        Error::NotCovered => "TimestampNotCovered",
        Error::Interval { .. } => "InvalidTimeInterval",
        Error::Granularity(_) | Error::MergeInterval => "ValueError",
        Error::Unalike { .. } => "NotImplementedError",
        error if error.is_damage() => "CorruptWhisperFile",
        error if error.is_missing() => "FileNotFoundError",
        error => panic!("{kind}: {error}"),
    }
}

/// The method that `op` names.
fn method(op: &Value) -> Result<Aggregation, Error> {
    match op["method"].as_str() {
        Some(name) => Aggregation::parse(name).ok_or_else(|| Error::Method(name.to_owned())),
        None => Ok(Aggregation::default()),
    }
}

fn create_file(op: &Value, path: &Path) -> Result<(), Error> {
    let pair = |pair: &Value| (pair[0].as_u64().unwrap(), pair[1].as_u64().unwrap());
    let archives = op["archives"].as_array().unwrap().iter().map(pair);
    let retention = |(step, points)| Retention::new(step as u32, points as u32).unwrap();
    let mut options = CreateOptions {
        x_files_factor: op["xff"].as_f64().unwrap_or(0.5),
        allocation: match op["sparse"].as_bool() {
            Some(true) => Allocation::Sparse,
            _ => Allocation::Reserved,
        },
        ..CreateOptions::new(archives.map(retention).collect())
    };
    // The text of a method is looked at after the archives and the file.
    options.aggregation = match method(op) {
        Ok(method) => method,
        Err(refused) => {
            Header::new(&options.retentions, 0.5, Aggregation::default())?;
            if path.exists() {
                return Err(Error::Exists {
                    path: path.to_owned(),
                });
            }
            return Err(refused);
        }
    };
    create(path, &options)
}

fn diff_json(op: &Value, now: Timestamp, source: &Path, path: &Path) -> Result<Value, Error> {
    let until = op["until"].as_u64().map(|at| Timestamp(at as u32));
    let ignore_empty = op["ignore_empty"].as_bool().unwrap();
    let files = (File::open(source)?, File::open(path)?);
    let diffs = diff(&files.0, &files.1, now, until, ignore_empty)?;
    let point = |&(at, a, b): &(Timestamp, f64, f64)| json!([at.0, value(a), value(b)]);
    let archive = |diff: &whisper::ArchiveDiff| {
        let points: Vec<Value> = diff.points.iter().map(point).collect();
        json!([diff.archive, points, diff.total])
    };
    Ok(diffs.iter().map(archive).collect())
}

/// Overwrites bytes of the file.
fn poke(op: &Value, path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let hex = op["hex"].as_str().unwrap();
    let offset = op["offset"].as_u64().unwrap() as usize;
    for (i, pair) in hex.as_bytes().chunks(2).enumerate() {
        let byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        bytes[offset + i] = byte;
    }
    std::fs::write(path, bytes).unwrap();
}

fn perform(kind: &str, op: &Value, path: &Path, source: &Path) -> Result<Value, Error> {
    let time = |key: &str| op[key].as_u64().map(|at| Timestamp(at as u32));
    let now = time("now").unwrap_or_default();
    match kind {
        "create" => {
            create_file(op, path)?;
        }
        "update" => {
            let point = Point {
                at: time("ts").unwrap(),
                value: number(&op["value"]),
            };
            File::open_mut(path, Lock::None)?.update(now, point)?;
        }
        "update_many" => {
            let point =
                |pair: &Value| Point::new(pair[0].as_u64().unwrap() as u32, number(&pair[1]));
            let points: Vec<Point> = op["points"].as_array().unwrap().iter().map(point).collect();
            if !points.is_empty() {
                File::open_mut(path, Lock::None)?.update_many(now, &points)?;
            }
        }
        "fetch" => {
            let file = File::open(path)?;
            let (from, until) = (time("from").unwrap(), time("until").unwrap());
            let fetched = match op["archive"].as_u64() {
                Some(step) => file.fetch_archive(now, from, until, step as u32)?,
                None => file.fetch(now, from, until)?,
            };
            return Ok(fetched.as_ref().map_or(Value::Null, fetched_json));
        }
        "info" => {
            return match Header::read(path) {
                Err(error) if error.is_missing() => Ok(Value::Null),
                header => Ok(header_json(&header?)),
            };
        }
        "set_xff" => {
            let (_, old) = File::open_mut(path, Lock::None)?.set(None, op["xff"].as_f64())?;
            return Ok(json!(f64::from(old)));
        }
        "set_method" => {
            let (old, _) =
                File::open_mut(path, Lock::None)?.set(Some(method(op)?), op["xff"].as_f64())?;
            return Ok(json!(old.name()));
        }
        "merge" => {
            let mut target = File::open_mut(path, Lock::None)?;
            merge(
                &File::open(source)?,
                &mut target,
                now,
                time("from"),
                time("until"),
            )?;
        }
        "diff" => {
            return diff_json(op, now, source, path);
        }
        "poke" => {
            poke(op, path);
        }
        "truncate" => {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(op["size"].as_u64().unwrap()).unwrap();
        }
        unknown => panic!("operation {unknown}"),
    }
    Ok(Value::Null)
}

/// Does with maps what can be done with them.
fn perform_mapped(
    maps: &Maps,
    kind: &str,
    op: &Value,
    file: u64,
    path: &Path,
) -> Option<Result<Value, Error>> {
    let time = |key: &str| op[key].as_u64().map(|at| Timestamp(at as u32));
    let (key, now) = (file as u32, time("now")?);
    let point = |pair: &Value| Point::new(pair[0].as_u64().unwrap() as u32, number(&pair[1]));
    let points = match kind {
        "update" if op["err"].is_null() => vec![point(&json!([op["ts"], op["value"]]))],
        "update_many" => op["points"].as_array()?.iter().map(point).collect(),
        "fetch" if op["archive"].is_null() => {
            let fetched = maps.fetch(key, path, now, time("from")?, time("until")?);
            return Some(fetched.map(|fetched| fetched.as_ref().map_or(Value::Null, fetched_json)));
        }
        _ => return None,
    };
    Some(
        maps.update_many(key, path, now, &points)
            .map(|_| Value::Null),
    )
}

fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("nan") => f64::NAN,
        Some("inf") => f64::INFINITY,
        Some("-inf") => f64::NEG_INFINITY,
        _ => value.as_f64().unwrap(),
    }
}

fn value(number: f64) -> Value {
    match present(number) {
        None => Value::Null,
        Some(number) if number.is_nan() => json!("nan"),
        Some(number) if number.is_infinite() => json!(if number > 0.0 { "inf" } else { "-inf" }),
        Some(number) => json!(number),
    }
}

fn fetched_json(fetched: &Fetched) -> Value {
    json!({
        "start": fetched.start.0,
        "end": fetched.end.0,
        "step": fetched.step.seconds(),
        "values": fetched.values.iter().copied().map(value).collect::<Vec<Value>>(),
    })
}

fn header_json(header: &Header) -> Value {
    let archive = |archive: &whisper::Archive| {
        json!({
            "offset": archive.offset,
            "secondsPerPoint": archive.step.seconds(),
            "points": archive.points,
            "retention": archive.retention(),
            "size": archive.size(),
        })
    };
    json!({
        "aggregationMethod": header.aggregation.name(),
        "maxRetention": header.max_retention(),
        "xFilesFactor": f64::from(header.x_files_factor),
        "archives": header.archives().iter().map(archive).collect::<Vec<Value>>(),
    })
}
