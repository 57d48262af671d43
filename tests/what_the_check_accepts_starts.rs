//! Every key of the default configuration with nasty values: `config --check` refuses one, or the
//! server starts with it and stops cleanly.
//!
//! Values that are accepted one by one are started together, each key once per start, so that a
//! handful of starts covers them all.

mod support;

use std::fs;
use std::path::Path;

use plumbago::config::{self, Config, Sources};
use support::{Server, run};
use toml::{Table, Value};

/// Values for a key whose default is `default`, as they stand in a file.
fn nasty(default: &Value) -> &'static [&'static str] {
    match default {
        Value::Boolean(_) => &["true", "false", "0", "\"yes\"", "[]"],
        Value::Integer(_) | Value::Float(_) => &[
            "0",
            "1",
            "-1",
            "1.5",
            "nan",
            "inf",
            "4294967295",
            "9223372036854775807",
            "99999999999999999999",
            "\"x\"",
        ],
        Value::Array(_) => &[
            "[]",
            "[\"\"]",
            "\"x\"",
            "5",
            "[[]]",
            "{}",
            "[\"127.0.0.1:0\"]",
            "[\"127.0.0.1:0\", \"127.0.0.1:0\"]",
            "[\"127.0.0.1:99999\"]",
            "\"\\u0000\"",
            "[\"mean\", \"median\"]",
            "[-10, 50.5]",
            "\"discard\"",
        ],
        _ => &[
            "\"\"",
            "\"x\"",
            "\"a b\"",
            "\"0s\"",
            "\"1ms\"",
            "\"100y\"",
            "\"101y\"",
            "\"0B\"",
            "\"1B\"",
            "\"64KiB\"",
            "\"16777215TiB\"",
            "\"\\u0000\"",
            "\"/dev/null\"",
            "\"-\"",
            "\"777\"",
            "\"sorted\"",
            "\"naive\"",
            "\"json\"",
            "\"always\"",
            "\"off\"",
            "\"down\"",
            "\"tcp\"",
            "\"Europe/Berlin\"",
            "5",
            "[]",
            "1979-05-27",
        ],
    }
}

/// The refusals of a file in which `keys` have these values.
fn check(path: &Path, keys: &[(String, &str)]) -> Vec<String> {
    let mut text = String::new();
    let (above, sections): (Vec<_>, Vec<_>) = keys.iter().partition(|(key, _)| !key.contains('.'));
    for (key, value) in above.into_iter().chain(sections) {
        text += &format!("{key} = {value}\n");
    }
    fs::write(path, text).expect("the directory can be written to");
    let sources = Sources {
        file: Some(path.to_owned()),
        ..Sources::default()
    };
    let checked = sources.read().flawless();
    checked.map_or_else(|refused| refused.lines, |_| Vec::new())
}

/// Starts a server with the file at `path`, and stops it.
fn start(path: &Path, keys: &[(String, &str)]) {
    let mut server = Server::prepared(&[]);
    // What the file says is not to be covered by the command line.
    for (key, _) in keys {
        server.settings.remove(key);
    }
    server.config = Some(path.to_owned());
    server.run();
    let status = server.stop();
    assert!(
        status.success(),
        "{status} with {keys:?}:\n{}",
        server.log()
    );
    assert!(
        !server.log().contains("panicked"),
        "{keys:?}:\n{}",
        server.log()
    );
}

#[test]
fn what_the_check_accepts_starts_and_what_it_refuses_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plumbago.toml");
    let Value::Table(defaults) = Value::try_from(Config::default()).unwrap() else {
        panic!("a configuration is a table");
    };
    let mut starts: Vec<Vec<(String, &str)>> = Vec::new();
    let mut refused = 0;
    for key in config::keys() {
        // The directory is the test's own.
        if key == "data" {
            continue;
        }
        let mut accepted = 0;
        for value in nasty(default_of(&defaults, &key)) {
            let said = check(&path, &[(key.clone(), value)]);
            if said.is_empty() {
                if starts.len() == accepted {
                    starts.push(Vec::new());
                }
                starts[accepted].push((key.clone(), value));
                accepted += 1;
                continue;
            }
            refused += 1;
            for line in said {
                let place = format!("{}:1: {key}", path.display());
                assert!(line.starts_with(&place), "{key} = {value}: {line}");
                for word in ["invalid type", ", expected", "struct "] {
                    assert!(!line.contains(word), "{key} = {value}: {line}");
                }
            }
        }
    }
    assert!(refused > 300, "only {refused} were refused");
    assert!(starts.len() > 5, "only {} starts", starts.len());
    for mut keys in starts {
        // Good alone and not together, such as one path for two sockets: started alone.
        let mut alone = Vec::new();
        while let Some(line) = check(&path, &keys).first() {
            let named = line.split(": ").nth(1).unwrap_or_default();
            let at = keys.iter().position(|(key, _)| key == named);
            alone.push(keys.remove(at.expect("a key of the file is named")));
        }
        start(&path, &keys);
        for key in &alone {
            let key = std::slice::from_ref(key);
            assert!(check(&path, key).is_empty());
            start(&path, key);
        }
    }
    let checked = run(&["config", "--check", path.to_str().unwrap()]);
    assert!(checked.status.success());
}

fn default_of<'a>(defaults: &'a Table, key: &str) -> &'a Value {
    let mut names = key.split('.');
    let first = names.next().unwrap_or_default();
    names.fold(&defaults[first], |value, name| &value[name])
}
