//! Tag expressions against a look at every series: any texts as expressions are refused or select
//! what they say, and those with regular expressions select what these match by definition. A
//! query by `seriesByTag` finds the same series.
#![no_main]

use std::path::Path;

use carbon::index::Index;
use carbon::series;
use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::bytes::Bytes;
use plumbago_fuzz::pattern::{Groups, Node, match_at};

/// Letters of names and expressions: those that the index reads as Python does.
const LETTERS: [char; 5] = ['a', 'b', '.', '-', 'é'];

/// One expression, and what it says.
struct Spec {
    text: String,
    tag: String,
    negated: bool,
    wanted: Wanted,
}

enum Wanted {
    Exactly(String),
    Matching(Node, usize),
}

impl Spec {
    /// Whether a value is selected; `None` if that takes too many steps.
    fn selects(&self, value: &str) -> Option<bool> {
        let wanted = match &self.wanted {
            Wanted::Exactly(wanted) => value == wanted,
            Wanted::Matching(node, groups) => {
                let value: Vec<char> = value.chars().collect();
                match_at(node, *groups, &value, 0, false)?.is_some()
            }
        };
        Some(wanted != self.negated)
    }
}

fn word(input: &mut Bytes<'_>, most: usize) -> String {
    let n = input.below(most + 1);
    (0..n)
        .map(|_| LETTERS[input.below(LETTERS.len())])
        .collect()
}

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    let nowhere = Path::new("/nonexistent");
    let index = Index::open(nowhere, nowhere.join("names"), true).unwrap();
    let mut names = Vec::new();
    for _ in 0..input.below(8) {
        let mut name = word(&mut input, 3);
        for _ in 0..input.below(3) {
            let tag = *input.pick(&[&"t", &"u", &"name"]);
            name += &format!(";{tag}={}", word(&mut input, 3));
        }
        if let Ok(name) = index.register(&name) {
            names.push(name);
        }
    }
    names.sort();
    names.dedup();
    if input.below(4) == 0 {
        let text = String::from_utf8_lossy(input.0);
        let expressions: Vec<&str> = text.split('\n').collect();
        if let Ok(found) = index.find_tagged(&expressions) {
            assert!(found.iter().all(|name| names.contains(name)));
        }
        return;
    }
    let specs: Vec<Spec> = (0..1 + input.below(3))
        .map(|_| {
            let tag = (*input.pick(&[&"name", &"t", &"u", &"none"])).to_owned();
            let negated = input.below(2) == 0;
            let operator = if negated { "!=" } else { "=" };
            if input.below(2) == 0 {
                let mut groups = Groups::default();
                let node = Node::read(&mut input, &LETTERS, 3, &mut groups);
                let mut printed = String::new();
                node.print(&mut printed);
                let text = format!("{tag}{operator}~{printed}");
                let wanted = Wanted::Matching(node, groups.opened);
                Spec {
                    text,
                    tag,
                    negated,
                    wanted,
                }
            } else {
                let value = word(&mut input, 3);
                let text = format!("{tag}{operator}{value}");
                let wanted = Wanted::Exactly(value);
                Spec {
                    text,
                    tag,
                    negated,
                    wanted,
                }
            }
        })
        .collect();
    let Some(lenient) = specs
        .iter()
        .map(|spec| spec.selects(""))
        .collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let texts: Vec<&str> = specs.iter().map(|spec| &*spec.text).collect();
    let found = match index.find_tagged(&texts) {
        Ok(found) => found,
        Err(error) => {
            assert!(lenient.iter().all(|lenient| *lenient), "{texts:?}: {error}");
            return;
        }
    };
    let mut expected = Vec::new();
    for name in &names {
        let mut all = true;
        for spec in &specs {
            let value = series::tags(name).find(|(tag, _)| *tag == spec.tag);
            let Some(selects) = spec.selects(value.map_or("", |(_, value)| value)) else {
                return;
            };
            all &= selects;
        }
        if all {
            expected.push(name.clone());
        }
    }
    assert_eq!(found, expected, "{texts:?} {names:?}");
});
