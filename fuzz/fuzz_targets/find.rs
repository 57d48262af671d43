//! Patterns of names against a naive reading of them: the first line of the input is the pattern,
//! the others are names. The index finds exactly the nodes that a look at every name finds.
#![no_main]

use std::collections::BTreeSet;
use std::path::Path;

use carbon::index::Index;
use carbon::series;
use libfuzzer_sys::fuzz_target;

/// More names, and longer patterns, make the naive reading slow.
const MAX_NAMES: usize = 16;
const MAX_PATTERN: usize = 60;

fuzz_target!(|text: &str| {
    let mut lines = text.lines();
    let pattern = lines.next().unwrap_or_default();
    let nowhere = Path::new("/nonexistent");
    let index = Index::open(nowhere, nowhere.join("names"), true).unwrap();
    let mut names = BTreeSet::new();
    let mut tagged = BTreeSet::new();
    for raw in lines.take(MAX_NAMES) {
        let Ok(name) = series::canonical(raw.as_bytes()) else {
            assert!(index.note_stored(raw.as_bytes()).is_err());
            continue;
        };
        index.note_stored(raw.as_bytes()).unwrap();
        if series::is_tagged(&name) {
            tagged.insert(name.clone().into_owned());
            names.insert(series::tree_path(&name));
        } else {
            names.insert(name.into_owned());
        }
    }
    let Ok(found) = index.find(pattern) else {
        return;
    };
    let found: Vec<(String, bool)> = found
        .into_iter()
        .map(|node| (node.path, node.leaf))
        .collect();
    assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
    if pattern.contains(';') && !pattern.starts_with("_tagged") {
        // The name of one series.
        let wanted = series::canonical(pattern.as_bytes());
        let wanted = wanted
            .ok()
            .filter(|name| tagged.contains(&**name) || names.contains(&**name));
        assert!(
            found.iter().map(|(path, _)| &**path).eq(wanted.as_deref()),
            "{found:?}"
        );
        return;
    }
    if pattern.len() > MAX_PATTERN {
        return;
    }
    let pattern = pattern.replace('\\', "");
    let nodes: Vec<Vec<String>> = pattern
        .split('.')
        .filter(|node| !node.is_empty())
        .map(|node| alternatives(&node.chars().collect::<Vec<_>>()))
        .collect();
    let dot = if pattern.ends_with('.') { "." } else { "" };
    let mut expected = BTreeSet::new();
    if dot == "." && fits(&nodes, &[], true, true) {
        expected.insert((String::new(), false));
    }
    for name in &names {
        let parts: Vec<&str> = name.split('.').collect();
        for n in 1..=parts.len() {
            let leaf = n == parts.len();
            if fits(&nodes, &parts[..n], true, dot == ".") && !(leaf && dot == ".") {
                expected.insert((parts[..n].join(".") + dot, leaf));
            }
        }
    }
    let expected: Vec<_> = expected.into_iter().collect();
    assert_eq!(found, expected, "{pattern:?} {names:?}");
});

/// Whether the nodes of a path are those of a pattern. A `**` stands for any number of nodes; at
/// the root, where more follows, for none, and at the end for one at least unless the pattern
/// asks for branches.
fn fits(patterns: &[Vec<String>], nodes: &[&str], at_root: bool, branches: bool) -> bool {
    let Some((pattern, rest)) = patterns.split_first() else {
        return nodes.is_empty();
    };
    let any_depth = pattern.iter().any(|text| text == "**");
    let one = pattern.iter().filter(|text| *text != "**").any(|text| {
        nodes.first().is_some_and(|node| {
            let text: Vec<char> = text.chars().collect();
            let node: Vec<char> = node.chars().collect();
            matches(&text, &node)
        })
    });
    if one && fits(rest, &nodes[1..], false, branches) {
        return true;
    }
    if !any_depth {
        return false;
    }
    if rest.is_empty() && !branches {
        return !nodes.is_empty();
    }
    let deepest = if at_root { 0 } else { nodes.len() };
    (0..=deepest).any(|n| fits(rest, &nodes[n..], at_root && n == 0, branches))
}

/// The texts that the braces of a node stand for.
fn alternatives(text: &[char]) -> Vec<String> {
    let Some(first) = text.first() else {
        return vec![String::new()];
    };
    let mut depth = 0;
    let close = (*first == '{').then(|| {
        text.iter().position(|c| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            depth == 0
        })
    });
    let (heads, rest) = match close.flatten() {
        None => (vec![first.to_string()], &text[1..]),
        Some(close) => {
            let mut heads = Vec::new();
            let (mut from, mut depth) = (1, 0);
            for at in 0..=close {
                depth += match text[at] {
                    '{' => 1,
                    '}' => -1,
                    _ => 0,
                };
                if at == close || (text[at] == ',' && depth == 1) {
                    heads.extend(alternatives(&text[from..at]));
                    from = at + 1;
                }
            }
            (heads, &text[close + 1..])
        }
    };
    let tails = alternatives(rest);
    let join = |head: &String| {
        tails
            .iter()
            .map(|tail| format!("{head}{tail}"))
            .collect::<Vec<_>>()
    };
    heads.iter().flat_map(join).collect()
}

/// Python's `fnmatch`, by the definition.
fn matches(pattern: &[char], text: &[char]) -> bool {
    let Some((first, rest)) = pattern.split_first() else {
        return text.is_empty();
    };
    match first {
        '*' if rest.first() == Some(&'*') => matches(rest, text),
        '*' => (0..=text.len()).any(|n| matches(rest, &text[n..])),
        '?' => !text.is_empty() && matches(rest, &text[1..]),
        '[' => {
            let negated = rest.first() == Some(&'!');
            let start = usize::from(negated);
            let close = rest
                .iter()
                .enumerate()
                .skip(start + 1)
                .find(|(_, c)| **c == ']');
            let (Some((close, _)), false) = (close, rest.get(start).is_none()) else {
                return text.first() == Some(&'[') && matches(rest, &text[1..]);
            };
            let class = &rest[start..close];
            let Some(c) = text.first() else { return false };
            let (mut at, mut within) = (0, false);
            while at < class.len() {
                if at + 2 < class.len() && class[at + 1] == '-' {
                    within |= class[at] <= *c && *c <= class[at + 2];
                    at += 3;
                } else {
                    within |= class[at] == *c;
                    at += 1;
                }
            }
            within != negated && matches(&rest[close + 1..], &text[1..])
        }
        c => text.first() == Some(c) && matches(rest, &text[1..]),
    }
}
