//! Replays recordings of carbon 1.1.10 reading storage-schemas.conf and storage-aggregation.conf.
//!
//! Cases without a `quirk` must be answered as recorded. For each quirk, [`deviates`] says what is
//! expected instead; `docs/carbon.md`, "Differences from carbon", gives the reasons. carbon's last,
//! built-in rule is `None` here: what a name without a rule gets is tested by the `create` cases,
//! with inference off.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::path::Path;

use carbon::conf::{Loaded, Problem};
use carbon::options::{JournalOptions, Options, Span};
use carbon::schema::{Aggregations, New, Schemas, load_aggregations, load_schemas};
use carbon::{Carbon, Setup};
use serde_json::{Value, json};
use support::golden::recording;
use whisper::{Aggregation, Header, Retention};

/// What is expected of a case that is marked as a quirk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// As carbon, where carbon loads the file; refused with a line where it does not.
    AsCarbon,
    /// As carbon where it loads the file; either where it does not.
    AsCarbonOrEither,
    /// The file loads.
    Loads,
    /// The file is refused, and the problem names a line.
    Refused,
    /// Refused, or the same values.
    SameOrRefused,
}

/// The decision on each quirk.
fn deviates(quirk: &str) -> Expected {
    let slug = quirk.split([':', '[']).next().unwrap_or_default().trim();
    match slug {
        "DEFAULT-section"
        | "first-match-partial"
        | "indent-continuation"
        | "priority"
        | "python-regex" => Expected::AsCarbon,
        "percent" => Expected::AsCarbonOrEither,
        "header-comment" | "unit-words" => Expected::Loads,
        "duplicate"
        | "encoding"
        | "exit-on-bad-retention"
        | "fatal-method"
        | "fatal-xff"
        | "inline-comment"
        | "zero-step" => Expected::Refused,
        // A group's flags in the middle of a pattern have an effect here.
        "bad-regex" => Expected::AsCarbonOrEither,
        "lenient-retention" | "unicode-digits" => Expected::SameOrRefused,
        slug => panic!("no decision on the quirk {slug:?}"),
    }
}

/// A file as it was read: the values of each rule, and the first rule of a name.
struct Read {
    rules: Vec<Value>,
    find: Find,
}

/// The number of the first rule that matches a name.
type Find = Box<dyn Fn(&str) -> Option<usize>>;

fn schemas(loaded: Loaded<Schemas>) -> Read {
    let schemas = loaded.value;
    let archives = |retentions: &[Retention]| {
        let pairs = retentions.iter();
        let pairs = pairs.map(|r| json!([r.step.seconds(), r.points]));
        Value::Array(pairs.collect())
    };
    let rules = schemas.rules().iter();
    Read {
        rules: rules.map(|rule| archives(&rule.retentions)).collect(),
        find: Box::new(move |name| {
            let line = schemas.find(name)?.line;
            schemas.rules().iter().position(|rule| rule.line == line)
        }),
    }
}

fn aggregations(loaded: Loaded<Aggregations>) -> Read {
    let rules = loaded.value;
    let values = |factor: Option<f64>, method: Option<Aggregation>| {
        json!([factor.unwrap_or(0.5), method.unwrap_or_default().name()])
    };
    let all = rules.rules().iter();
    Read {
        rules: all
            .map(|rule| values(rule.x_files_factor, rule.method))
            .collect(),
        find: Box::new(move |name| {
            let line = rules.find(name)?.line;
            rules.rules().iter().position(|rule| rule.line == line)
        }),
    }
}

/// Writes the text of a case to `path`, or removes the file where the case has no file.
fn write(case: &Value, key: &str, path: &Path) {
    let bytes = match (case["hex"].as_str(), case[key].as_str()) {
        (Some(hex), _) => (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect(),
        (None, Some(text)) => text.as_bytes().to_vec(),
        (None, None) => {
            let _ = std::fs::remove_file(path);
            return;
        }
    };
    std::fs::write(path, bytes).unwrap();
}

/// What `case` of a whole file says, compared with what was read; what differs.
fn compare_file(case: &Value, read: Result<Read, Vec<Problem>>) -> Option<String> {
    let loads = case["load"] == "ok";
    let expected = case["quirk"].as_str().map(deviates);
    let read = match read {
        Ok(read) => read,
        Err(problems) => {
            let named = case["text"].is_null() && case["hex"].is_null()
                || problems.iter().any(|problem| problem.line > 0);
            let may = match expected {
                None | Some(Expected::AsCarbon | Expected::AsCarbonOrEither) => !loads,
                Some(Expected::Loads) => false,
                Some(Expected::Refused | Expected::SameOrRefused) => true,
            };
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            return (!may || !named).then(|| format!("refused: {}", all.join(" | ")));
        }
    };
    match expected {
        Some(Expected::Loads) => return None,
        Some(Expected::AsCarbonOrEither) if !loads => return None,
        Some(Expected::Refused) => return Some("loads".to_owned()),
        _ if !loads => return Some("loads".to_owned()),
        _ => {}
    }
    let mut rules: Vec<&Value> = case["rules"].as_array().unwrap().iter().collect();
    rules.pop();
    let values = |rule: &Value| match rule.get("archives") {
        Some(archives) => archives.clone(),
        None => json!([
            rule["xff"].as_f64().unwrap_or(0.5),
            rule["method"].as_str().unwrap_or("average")
        ]),
    };
    let wanted: Vec<Value> = rules.iter().map(|rule| values(rule)).collect();
    if read.rules != wanted {
        return Some(format!("rules {:?}, not {wanted:?}", read.rules));
    }
    for (name, index) in case["match"].as_object().unwrap() {
        let index = index.as_u64().map(|index| index as usize);
        let wanted = index.filter(|index| *index < wanted.len());
        let found = (read.find)(name);
        if found != wanted {
            return Some(format!("{name:?} matches {found:?}, not {wanted:?}"));
        }
    }
    None
}

/// A definition or a list of them, as the only rule of a file.
fn compare_definitions(case: &Value, path: &Path) -> Option<String> {
    let definitions = case["def"].as_str().unwrap();
    std::fs::write(
        path,
        format!("[a]\npattern = .*\nretentions = {definitions}\n"),
    )
    .unwrap();
    let read = load_schemas(path, Span::seconds(10)).map(schemas);
    let (wanted, valid) = match case["kind"].as_str() {
        Some("retention") if case["expect"].is_null() => (None, false),
        Some("retention") => (Some(json!([case["expect"]])), true),
        _ if case["archives"].is_null() => (None, false),
        _ => (Some(case["archives"].clone()), case["valid"] == true),
    };
    let found = read.as_ref().ok().map(|read| read.rules.first().cloned());
    let same = match (&wanted, valid) {
        // A bad definition refuses the file, a bad list leaves the section out.
        (None, _) => found.is_none(),
        (Some(_), false) => found == Some(None),
        (Some(wanted), true) => found.as_ref() == Some(&Some(wanted.clone())),
    };
    let ok = match case["quirk"].as_str().map(deviates) {
        None => same,
        Some(Expected::Loads) => matches!(found, Some(Some(_))),
        Some(Expected::SameOrRefused | Expected::Refused) => {
            same || found.as_ref().is_none_or(Option::is_none)
        }
        Some(other) => panic!("{other:?} for a definition"),
    };
    (!ok).then(|| format!("read as {found:?}, not {wanted:?}"))
}

/// Both files, and the headers of new files.
fn compare_created(case: &Value, directory: &Path) -> Option<String> {
    let (schemas, aggregation) = (directory.join("schemas"), directory.join("aggregation"));
    write(case, "schemas", &schemas);
    write(case, "aggregation", &aggregation);
    let options = Options {
        schemas: schemas.display().to_string(),
        aggregation: aggregation.display().to_string(),
        infer_step: false,
        infer_siblings: false,
        ..Options::default()
    };
    let setup = Setup::new(options, JournalOptions::default(), Span::seconds(10));
    let data = tempfile::tempdir().unwrap();
    let store = Carbon::open(setup, data.path()).unwrap();
    for (name, file) in case["files"].as_object().unwrap() {
        let chosen = store.schema().choose_now(New {
            name,
            directory: data.path(),
            points: &[],
            interval: None,
        });
        let options = chosen.options;
        let header = Header::new(
            &options.retentions,
            options.x_files_factor,
            options.aggregation,
        );
        let header = header.unwrap();
        let archives = header.archives().iter();
        let archives = archives.map(|a| json!([a.step.seconds(), a.points]));
        let found = json!({
            "archives": archives.collect::<Vec<_>>(),
            "xff": f64::from(header.x_files_factor),
            "method": header.aggregation.name(),
            "size": header.file_size(),
        });
        for (key, found) in found.as_object().unwrap() {
            let same = match (file[key].as_f64(), found.as_f64()) {
                (Some(wanted), Some(found)) => wanted == found,
                _ => &file[key] == found,
            };
            if !same {
                return Some(format!("{name}: {key} is {found}, not {}", file[key]));
            }
        }
    }
    None
}

#[test]
fn golden_schemas() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rules.conf");
    let mut wrong = Vec::new();
    let cases = recording("carbon-schemas");
    assert!(!cases.is_empty());
    for case in &cases {
        let differs = match case["kind"].as_str().unwrap() {
            "schemas" => {
                write(case, "text", &path);
                let read = load_schemas(&path, Span::seconds(10));
                compare_file(case, read.map(schemas))
            }
            "aggregation" => {
                write(case, "text", &path);
                compare_file(case, load_aggregations(&path).map(aggregations))
            }
            "retention" | "archives" => compare_definitions(case, &path),
            "create" => compare_created(case, directory.path()),
            kind => panic!("unknown kind {kind}"),
        };
        if let Some(differs) = differs {
            wrong.push(format!("{}: {differs}", case["name"]));
        }
    }
    let count = wrong.len();
    assert_eq!(wrong, [""; 0], "{count} of {} cases differ", cases.len());
}
