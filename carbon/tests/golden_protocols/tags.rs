//! Names with tags: their canonical form, their tags, their files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use carbon::options::{JournalOptions, Options, Span, SyncPolicy};
use carbon::series::{canonical, file_path, is_tagged, tags, unhashed_path};
use carbon::{Carbon, Datapoint, PointTime, Setup, Sink};
use serde_json::Value;
use whisper::{CreateOptions, Retention};

use crate::golden::recording;
use crate::recorded::{NOW, quirk};

#[test]
fn golden_tags() {
    let cases = recording("carbon-tags");
    let tags = cases.iter().filter(|case| case["kind"] == "tags");
    let mut wrong = Vec::new();
    for case in tags.clone() {
        if let Err(why) = compare(case) {
            wrong.push(format!("{}: {why}", case["name"].as_str().unwrap()));
        }
    }
    assert!(tags.count() > 0);
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// carbon renames a file that it finds under the readable name of its series; here it stays what it is, and
/// is the only one of its series.
#[test]
fn golden_tags_rename() {
    let cases = recording("carbon-tags");
    let renames: Vec<&Value> = cases
        .iter()
        .filter(|case| case["kind"] == "rename")
        .collect();
    assert!(!renames.is_empty());
    for case in renames {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("whisper");
        let retentions = vec![Retention::new(60, 1_000).unwrap()];
        let mut before = Vec::new();
        for file in case["before"].as_array().unwrap() {
            let path = root.join(file.as_str().unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            whisper::create(&path, &CreateOptions::new(retentions.clone())).unwrap();
            before.push(path);
        }
        let metric = case["metric"].as_str().unwrap();
        let options = Options {
            infer_step: false,
            ..Options::default()
        };
        let journal = JournalOptions {
            sync: SyncPolicy::Off,
            ..JournalOptions::default()
        };
        let setup = Setup {
            clock: Arc::new(|| NOW),
            ..Setup::new(options, journal, Span::seconds(10))
        };
        let carbon = Carbon::open(setup, dir.path()).unwrap();
        let series = carbon.intern(metric.as_bytes()).unwrap();
        carbon.submit(&[Datapoint {
            series,
            at: PointTime::of_clock(NOW),
            value: 2.5,
        }]);
        carbon.drain(|_| {}).unwrap();
        assert_eq!(whisper_files(&root), before, "{}", case["name"]);
        let file = whisper::File::open(&before[0]).unwrap();
        let slots = file.slots(0).unwrap();
        assert!(
            slots.iter().any(|slot| slot.value == 2.5),
            "{}",
            case["name"]
        );
    }
}

/// All whisper files below `root`.
fn whisper_files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => todo.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    found
}

fn compare(case: &Value) -> Result<(), String> {
    let raw = case["in"].as_str().unwrap();
    let name = canonical(raw.as_bytes());
    let name = match (name, quirk(case)) {
        (Ok(name), _) => name,
        // No file can have such a name.
        (Err(_), _) if raw.contains('\0') => return Ok(()),
        // carbon stores a name whose tags do not parse as it is; here it is refused.
        (Err(_), Some("bad-tags-stored" | "openmetrics-regex" | "openmetrics-spaces")) => {
            return Ok(());
        }
        (Err(why), _) => return Err(format!("refused: {why}")),
    };
    let mut hashed = PathBuf::new();
    file_path(Path::new(""), &name, &mut hashed);
    let hashed = hashed.strip_prefix("/").unwrap();
    let recorded_path = |key: &str| {
        let path = case[key].as_str().unwrap();
        // Empty nodes collapse on disk.
        PathBuf::from_iter(Path::new(path).components())
    };
    match quirk(case) {
        // The file is the same; the name has no empty nodes and no slashes.
        Some("path-by-replacement") => {
            let collapsed = case["path_hashed"]
                .as_str()
                .unwrap()
                .replace("/.wsp", ".wsp");
            let collapsed = PathBuf::from_iter(Path::new(&collapsed).components());
            return same("path_hashed", &hashed, &&*collapsed);
        }
        // carbon's pattern fails at braces in a value, and finds fewer tags.
        Some("bad-tags-stored") if raw.contains("=\"") => return Ok(()),
        Some("bad-tags-stored") => {
            return Err(format!("taken as {name}, although its tags do not parse"));
        }
        Some("openmetrics-regex" | "openmetrics-spaces") => return Ok(()),
        _ => {}
    }
    let recorded = case["canonical"].as_str().unwrap_or("(error)");
    let recorded = match is_tagged(recorded) {
        true => recorded,
        // Empty nodes, which no path has, are taken out of the name.
        false => recorded.trim_matches('.'),
    };
    same("canonical", &name.as_ref(), &recorded)?;
    same("path_hashed", &hashed, &&*recorded_path("path_hashed"))?;
    let mut recorded: BTreeMap<String, String> =
        serde_json::from_value(case["tags"].clone()).unwrap();
    if !is_tagged(&name) {
        recorded.insert("name".to_owned(), name.to_string());
    }
    let found: BTreeMap<String, String> = tags(&name)
        .map(|(tag, value)| (tag.to_owned(), value.to_owned()))
        .collect();
    same("tags", &found, &recorded)?;
    if is_tagged(&name) && quirk(case) != Some("slash-in-tags") {
        let plain = unhashed_path(Path::new(""), &name);
        same("path_plain", &plain, &recorded_path("path_plain"))?;
    }
    Ok(())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, recorded: &T) -> Result<(), String> {
    match found == recorded {
        true => Ok(()),
        false => Err(format!("{what}: {found:?}, recorded {recorded:?}")),
    }
}
