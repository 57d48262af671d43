//! Replays what the reference flushed for given packets: `statsd-flush.jsonl`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Harness;
use crate::options::Options;

/// One case of `differences.txt`.
struct Difference {
    case: &'static str,
    reason: &'static str,
    without: Vec<String>,
    with: Vec<String>,
}

fn differences() -> Vec<Difference> {
    let mut found: Vec<Difference> = Vec::new();
    for line in include_str!("differences.txt").lines() {
        let Some((key, text)) = line.split_once(' ') else {
            continue;
        };
        match (key, found.last_mut()) {
            ("#", _) => {}
            ("case", _) => found.push(Difference {
                case: text,
                reason: "",
                without: Vec::new(),
                with: Vec::new(),
            }),
            ("reason", Some(last)) => last.reason = text,
            ("-", Some(last)) => last.without.push(text.to_owned()),
            ("+", Some(last)) => last.with.push(text.to_owned()),
            _ => panic!("{line}"),
        }
    }
    found
}

/// Whether an entry of the table of differences is about this line, so that its result may
/// differ in a recording that is not listed.
fn means_something_else(line: &str) -> bool {
    let (body, tags) = line.split_once("|#").unwrap_or((line, ""));
    let Some((name, rest)) = body.split_once(':') else {
        return false;
    };
    let values: Vec<Vec<&str>> = rest.split(':').map(|v| v.split('|').collect()).collect();
    let is_odd = |fields: &Vec<&str>| match fields[..] {
        [value] => !value.is_empty(),
        [value, kind, ref more @ ..] => {
            let rate = more.first().map(|field| field.strip_prefix('@'));
            !matches!(kind, "c" | "ms" | "g" | "s")
                || (value.trim().is_empty() && !value.is_empty())
                || value.contains("Infinity")
                || matches!(rate, Some(None))
                || matches!(rate, Some(Some(rate)) if !rate.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') || rate.parse() == Ok(0.0))
        }
        [] => false,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-=/ ".contains(&byte);
    !tags.is_empty()
        || !name.bytes().any(|byte| byte.is_ascii_alphanumeric())
        || !name.bytes().all(plain)
        || values.iter().any(is_odd)
}

/// What is flushed beyond the recording is something that can be stored, and what is missing is
/// made up for: nothing of this is left open in a recording that is not listed.
fn unlisted(
    case: &Value,
    packets: &[Value],
    ours: &BTreeMap<String, i64>,
    missing: &[String],
    added: &[String],
) {
    let name = &case["name"];
    for line in added {
        let value = line.split(' ').nth(1).unwrap();
        let is_number = value.parse().is_ok_and(f64::is_finite);
        assert!(is_number || value.starts_with('<'), "{name}: {line}");
    }
    let texts = packets.iter().filter_map(Value::as_str);
    let is_other = texts.flat_map(str::lines).any(means_something_else)
        || case["config"]["prefixStats"] == ""
        || case["config"]["graphite"]["globalSuffix"] == "";
    for line in missing {
        let (series, value) = line.split_once(' ').unwrap();
        match value {
            "Infinity" | "-Infinity" => {}
            // The index -1 of a negative threshold: the statistic of all samples.
            "NaN" => {
                let (stem, rest) = series.rsplit_once("_top").unwrap();
                let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_');
                let value = |name: &str| {
                    let line = ours
                        .keys()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                    line.map(str::to_owned)
                };
                if let Some(of_all) = value(&format!("{stem}{rest}")) {
                    assert_eq!(value(series), Some(of_all), "{name}: {series}");
                }
            }
            _ => assert!(is_other, "{name}: {line} is missing without a reason"),
        }
    }
}

fn read(name: &str) -> Vec<Value> {
    let folder = std::env::var_os("PLUMBAGO_GOLDEN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")),
        PathBuf::from,
    );
    let plain = folder.join(format!("{name}.jsonl"));
    let mut text = String::new();
    match std::fs::read_to_string(&plain) {
        Ok(found) => text = found,
        Err(_) => {
            let packed = std::fs::File::open(folder.join(format!("{name}.jsonl.gz"))).unwrap();
            flate2::read::GzDecoder::new(packed)
                .read_to_string(&mut text)
                .unwrap();
        }
    }
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The reference's options as ours: names in snake case, the graphite section flattened.
fn options(config: &Value) -> Options {
    let mut ours = serde_json::Map::new();
    let snake = |name: &str| {
        let mut out = String::new();
        let mut was_upper = true;
        for letter in name.chars() {
            if letter.is_ascii_uppercase() && !was_upper {
                out.push('_');
            }
            was_upper = letter.is_ascii_uppercase();
            out.push(letter.to_ascii_lowercase());
        }
        out
    };
    let mut put = |name: &str, value: &Value| {
        let (name, value) = match name {
            "flushInterval" => (
                "flush_interval".to_owned(),
                json!(format!("{}ms", value.as_u64().unwrap())),
            ),
            "percentThreshold" => ("percentiles".to_owned(), value.clone()),
            _ => (snake(name), value.clone()),
        };
        ours.insert(name, value);
    };
    for (name, value) in config.as_object().unwrap() {
        match value {
            Value::Object(section) if name == "graphite" => {
                for (name, value) in section {
                    put(name, value);
                }
            }
            _ => put(name, value),
        }
    }
    // The reference knows no events: their lines are bad ones.
    ours.insert("events".to_owned(), json!(false));
    serde_json::from_value(Value::Object(ours)).unwrap()
}

/// A line with what the recording leaves open left open: all times, and numbers that are ours.
fn normal(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let last = words.len() - 1;
    words[last] = "<TS>".to_owned();
    let varies = ["calculationtime", "processing_time", "timestamp_lag"]
        .into_iter()
        .chain(["flush_time", "flush_length"]);
    let bare = |name: &str| words[0].ends_with(name) || words[0].contains(&format!("{name}."));
    if varies.clone().any(bare) {
        words[1] = "<N>".to_owned();
    } else if bare("last_flush") {
        words[1] = "<TS>".to_owned();
    }
    // Tags have no order in Graphite.
    if let Some((name, tags)) = words[0].split_once(';') {
        let mut tags: Vec<_> = tags.split(';').collect();
        tags.sort_unstable();
        words[0] = format!("{name};{}", tags.join(";"));
    }
    words.join(" ")
}

fn counted(lines: impl Iterator<Item = String>) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line).or_insert(0) += 1;
    }
    counts
}

/// What is in `a` and not in `b`, in order.
fn beyond(a: &BTreeMap<String, i64>, b: &BTreeMap<String, i64>) -> Vec<String> {
    a.iter()
        .filter(|(line, count)| b.get(*line).unwrap_or(&0) < *count)
        .map(|(line, _)| line.strip_suffix(" <TS>").unwrap_or(line).to_owned())
        .collect()
}

#[test]
fn golden_statsd_flush() {
    let mut failures = Vec::new();
    let cases = read("statsd-flush");
    assert!(!cases.is_empty());
    let differences = differences();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let is_quirk = case["quirk"].as_bool().unwrap_or(false);
        let mut harness = Harness::new(&options(&case["config"]));
        let next = case["next_flushes"].as_array().cloned().unwrap_or_default();
        for (number, interval) in std::iter::once(case).chain(&next).enumerate() {
            for packet in interval["packets"].as_array().unwrap() {
                harness.packet(packet.as_str().unwrap().as_bytes());
            }
            // By reason they are ours alone.
            let is_ours = |line: &&String| line.contains(".bad_lines.by_reason.");
            let lines = harness.flush();
            let lines = lines.iter().filter(|line| !is_ours(line));
            let ours = counted(lines.map(|line| normal(line)));
            let theirs = counted(
                interval["flush_lines"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|line| normal(line.as_str().unwrap())),
            );
            let (missing, added) = (beyond(&theirs, &ours), beyond(&ours, &theirs));
            if missing.is_empty() && added.is_empty() {
                continue;
            }
            match differences.iter().find(|known| known.case == name) {
                Some(known) if is_quirk => {
                    assert_eq!(missing, known.without, "{name}");
                    assert_eq!(added, known.with, "{name}");
                }
                _ if is_quirk => {
                    let packets = interval["packets"].as_array().unwrap();
                    unlisted(case, packets, &ours, &missing, &added);
                }
                _ => failures.push(format!(
                    "{name}, flush {number}:\n  missing {missing:#?}\n  added {added:#?}"
                )),
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Each class of differences is in the documentation.
#[test]
fn differences_are_documented() {
    let docs = include_str!("../../../docs/statsd.md");
    let (_, table) = docs
        .split_once("## Differences from the reference")
        .unwrap();
    for Difference { case, reason, .. } in differences() {
        let is_line = |line: &str| line.starts_with("| ") && line.contains(reason);
        assert!(
            !reason.is_empty() && table.lines().any(is_line),
            "{case}: {reason}"
        );
    }
}
