//! Runs `scripts/*.txt`: what each function makes of small series, as data.
//!
//! ```text
//! # a comment
//! load 60s                     series follow; their first value is at 60, the next at 120 …
//!     web.a.hits    1 2 _ 4    `_` for none
//! window 120 240               from (exclusive) and until; without one, all that was loaded
//! eval scale(web.a.hits, 10)   the answers follow, in their order
//!     scale(web.a.hits,10)    20 _ 40
//! refuse scale(web.a.hits)     a refusal; the next line is part of its sentence
//!     needs its argument
//! ```
//!
//! Two blanks or more stand between a name and its values. `@START/STEP` before the values asks
//! for these too, `{tag=value …}` after them for tags.

#![allow(clippy::unwrap_used, reason = "a broken script fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use render::memory::Memory;
use render::{Query, Result, Series, Window, functions, query};
use whisper::{ABSENT, present};

/// Where a line stands, for messages.
struct Line<'a> {
    at: String,
    text: &'a str,
}

fn run(path: &Path, used: &mut BTreeSet<String>) {
    let text = fs::read_to_string(path).unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(number, text)| Line {
            at: format!("{name}:{}", number + 1),
            text,
        })
        .filter(|line| !line.text.trim().is_empty() && !line.text.starts_with('#'))
        .peekable();
    let mut memory = Memory::default();
    let mut window = None;
    while let Some(line) = lines.next() {
        let (command, rest) = line.text.split_once(' ').unwrap_or((line.text, ""));
        let mut block = Vec::new();
        while let Some(inner) = lines.next_if(|line| line.text.starts_with(' ')) {
            block.push(inner);
        }
        match command {
            "load" => {
                memory = Memory::default();
                window = None;
                let step = rest.trim().trim_end_matches('s').parse().unwrap();
                for line in &block {
                    let (name, values) = parted(line);
                    memory.insert(name, step, values.split_whitespace().map(value).collect());
                }
            }
            "also" => {
                let step = rest.trim().trim_end_matches('s').parse().unwrap();
                for line in &block {
                    let (name, values) = parted(line);
                    memory.insert(name, step, values.split_whitespace().map(value).collect());
                }
            }
            "window" => {
                let mut ends = rest.split_whitespace().map(|end| end.parse().unwrap());
                window = Some(Window {
                    from: ends.next().unwrap(),
                    until: ends.next().unwrap(),
                });
            }
            "eval" => {
                let answer = evaluate(rest, &memory, window);
                let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", line.at));
                compare(&answer, &block, &line.at);
                note_functions(rest, used);
            }
            "refuse" => {
                let error = match evaluate(rest, &memory, window) {
                    Ok(series) => panic!("{}: answered {series:?}", line.at),
                    Err(error) => error.to_string(),
                };
                let expected = block[0].text.trim();
                assert!(error.contains(expected), "{}: {error}", line.at);
            }
            _ => panic!("{}: {command:?} is no command", line.at),
        }
    }
}

fn parted<'a>(line: &Line<'a>) -> (&'a str, &'a str) {
    let text = line.text.trim();
    text.split_once("  ").unwrap_or((text, ""))
}

fn value(text: &str) -> f64 {
    if text == "_" {
        ABSENT
    } else {
        text.parse().unwrap()
    }
}

fn evaluate(text: &str, memory: &Memory, window: Option<Window>) -> Result<Vec<Series>> {
    let expression = query::parse(text)?.expression;
    let whole = Window {
        from: 0,
        until: memory.end(),
    };
    Query::new(memory, memory.end().max(1)).evaluate(&[expression], window.unwrap_or(whole), 0.0)
}

fn compare(answer: &[Series], expected: &[Line<'_>], at: &str) {
    let names: Vec<&str> = answer.iter().map(|series| series.name.as_str()).collect();
    assert_eq!(answer.len(), expected.len(), "{at}: got {names:?}");
    for (series, line) in answer.iter().zip(expected) {
        let (name, rest) = parted(line);
        assert_eq!(series.name, name, "{}", line.at);
        let (values, tags) = rest.split_once('{').unwrap_or((rest, ""));
        let mut values = values.trim();
        if let Some(grid) = values.strip_prefix('@') {
            let (grid, after) = grid.split_once(' ').unwrap_or((grid, ""));
            assert_eq!(
                format!("{}/{}", series.start, series.step),
                grid,
                "{}",
                line.at
            );
            values = after;
        }
        for tag in tags.trim_end_matches('}').split_whitespace() {
            let (tag, value) = tag.split_once('=').unwrap();
            let found = series.tags.get(tag).map(String::as_str);
            assert_eq!(found, Some(value), "{}: tag {tag}", line.at);
        }
        let values: Vec<Option<f64>> = values
            .split_whitespace()
            .map(|text| present(value(text)))
            .collect();
        let got: Vec<Option<f64>> = series.iter().collect();
        let close = |a: f64, b: f64| a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
        let same = got.len() == values.len()
            && got.iter().zip(&values).all(|pair| match pair {
                (Some(a), Some(b)) => close(*a, *b),
                (None, None) => true,
                _ => false,
            });
        assert!(same, "{}: got {got:?}", line.at);
    }
}

/// Every function that stands in a target.
fn note_functions(text: &str, used: &mut BTreeSet<String>) {
    for (name, _, function) in functions::all() {
        let called = text
            .match_indices(&format!("{name}("))
            .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_'));
        if called {
            used.insert(function.name.to_owned());
        }
    }
}

#[test]
fn scripts_hold_and_leave_no_function_out() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    let mut used = BTreeSet::new();
    for path in &paths {
        run(path, &mut used);
    }
    let missing: Vec<_> = functions::all()
        .map(|(_, _, function)| function.name)
        .filter(|name| !used.contains(*name))
        .collect();
    assert!(missing.is_empty(), "no script case for {missing:?}");
}
