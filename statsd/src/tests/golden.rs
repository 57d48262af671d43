//! Replays what the reference flushed for given packets: `statsd-flush.jsonl`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::Bench;
use crate::options::Options;

/// Where we differ on purpose: case, lines of the reference that we do not flush, lines that we
/// flush instead. The reasons are in docs/statsd.md, "Differences from the reference".
const DIFFERENCES: &[(&str, &[&str], &[&str])] = &[
    (
        "timer_neg100_nan",
        &[
            "stats.timers.glork.mean_top90 NaN",
            "stats.timers.glork.sum_top90 NaN",
            "stats.timers.glork.sum_squares_top90 NaN",
        ],
        &[
            "stats.timers.glork.mean_top90 150",
            "stats.timers.glork.sum_top90 300",
            "stats.timers.glork.sum_squares_top90 50000",
        ],
    ),
    (
        "sample_rate_quirks",
        &[
            "stats.statsd.bad_lines_seen 0",
            "stats_counts.statsd.bad_lines_seen 0",
            "stats.zero Infinity",
            "stats_counts.zero Infinity",
            "stats.exp 0.1",
            "stats_counts.exp 1",
            "statsd.numStats 6",
        ],
        &[
            "stats.statsd.bad_lines_seen 0.1",
            "stats_counts.statsd.bad_lines_seen 1",
            "stats.exp 1",
            "stats_counts.exp 10",
            "statsd.numStats 5",
        ],
    ),
    (
        "type_whitespace",
        &[
            "stats.statsd.bad_lines_seen 0.1",
            "stats_counts.statsd.bad_lines_seen 1",
            "statsd.numStats 8",
        ],
        &[
            "stats.statsd.bad_lines_seen 0",
            "stats_counts.statsd.bad_lines_seen 0",
            "stats.sets.e.count 1",
            "statsd.numStats 9",
        ],
    ),
    (
        "empty_name",
        &[
            "stats.statsd.bad_lines_seen 0.1",
            "stats_counts.statsd.bad_lines_seen 1",
            "stats. 0.3",
            "stats_counts. 3",
            "statsd.numStats 4",
        ],
        &[
            "stats.statsd.bad_lines_seen 0.3",
            "stats_counts.statsd.bad_lines_seen 3",
            "statsd.numStats 3",
        ],
    ),
];

/// The cases whose every line of difference is a sample taken for what its sender means by it.
const OTHER_MEANING: &[&str] = &[
    "packed_dogstatsd_values",
    "unknown_types_become_counters",
    "python_statsd_clients",
    "dogstatsd_tags_before_rate",
    "idle_no_prefix",
];

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
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let is_quirk = case["quirk"].as_bool().unwrap_or(false);
        let mut bench = Bench::new(&options(&case["config"]));
        let next = case["next_flushes"].as_array().cloned().unwrap_or_default();
        for (number, interval) in std::iter::once(case).chain(&next).enumerate() {
            for packet in interval["packets"].as_array().unwrap() {
                bench.packet(packet.as_str().unwrap().as_bytes());
            }
            let ours = counted(bench.flush().iter().map(|line| normal(line)));
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
            let sorted = |lines: &[&str]| {
                let mut lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
                lines.sort();
                lines
            };
            match DIFFERENCES.iter().find(|(known, ..)| *known == name) {
                Some((_, without, with)) if is_quirk => {
                    assert_eq!(missing, sorted(without), "{name}");
                    assert_eq!(added, sorted(with), "{name}");
                }
                // Of other quirks what we flush must at least be something that can be stored.
                _ if is_quirk => {
                    for line in added.iter().filter(|line| !line.contains('<')) {
                        let value = line.split(' ').nth(1).unwrap();
                        assert!(value.parse::<f64>().unwrap().is_finite(), "{name}: {line}");
                    }
                    if !OTHER_MEANING.contains(&name) {
                        println!("{name} differs: -{missing:?} +{added:?}");
                    }
                }
                _ => failures.push(format!(
                    "{name}, flush {number}:\n  missing {missing:#?}\n  added {added:#?}"
                )),
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The cases in which a line means something else to us, spelled out.
#[test]
fn golden_other_meanings() {
    let values = |packets: &[&str]| {
        let mut bench = Bench::new(&Options::default());
        for packet in packets {
            bench.packet(packet.as_bytes());
        }
        bench.flush_values()
    };
    let lines = values(&["glork:1:2:3|ms"]);
    assert!(lines.contains(&"stats.timers.glork.count 3".to_owned()));
    assert!(lines.contains(&"stats.timers.glork.sum 6".to_owned()));
    let lines = values(&[
        "a:5|h", "b:5|d", "c:5|m", "d:5|kv", "e:5|a", "e:7|a", "f:5|zzz",
    ]);
    assert!(lines.contains(&"stats.timers.a.upper 5".to_owned()));
    assert!(lines.contains(&"stats.timers.b.upper 5".to_owned()));
    assert!(lines.contains(&"stats_counts.c 5".to_owned()));
    assert!(lines.contains(&"d 5".to_owned()));
    assert!(lines.contains(&"stats.averages.e 6".to_owned()));
    assert!(!lines.iter().any(|line| line.contains(".f")));
    assert_eq!(
        values(&["app.avg:10|a", "app.avg:20|a", "app.raw:12435|r|1700000000"]),
        ["app.raw 12435", "stats.averages.app.avg 15"]
    );
    assert_eq!(
        values(&[
            "x:1|c|#env:prod|@0.1",
            "y:1|c|#env:prod|c:abc123",
            "z:1|c|#",
            "w:1|c|T1700000000",
        ]),
        [
            "stats.w 0.1",
            "stats.x;env=prod 1",
            "stats.y;env=prod 0.1",
            "stats.z 0.1",
            "stats_counts.w 1",
            "stats_counts.x;env=prod 10",
            "stats_counts.y;env=prod 1",
            "stats_counts.z 1",
        ]
    );
    let mut bench = Bench::new(&Options {
        prefix_stats: String::new(),
        ..Options::default()
    });
    let lines = bench.flush();
    assert!(lines.iter().any(|line| line.starts_with("numStats 3 ")));
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("stats.bad_lines_seen 0 "))
    );
}
