//! Python's regular expressions in `aliasSub` and `grep`, against a naive matcher that replaces
//! as Python's `re.sub` does; and any texts as expression and replacement, refused or taken. An
//! expression of plain letters replaces what a search for the text finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::bytes::Bytes;
use plumbago_fuzz::pattern::{Groups, Node, match_at};
use render::memory::Memory;
use render::query::{Argument, Base, Call, Expression, Literal, Text};
use render::{Query, Window};

/// Letters of expressions and texts.
const LETTERS: [char; 8] = ['a', 'b', '.', '-', ']', '[', 'é', '{'];

/// A part of a replacement.
enum Part {
    Text(&'static str),
    Group(usize),
}

/// Notations in a replacement, and what they stand for.
const TEXTS: [(&str, &str); 10] = [
    ("x", "x"),
    ("$1", "$1"),
    ("${a}", "${a}"),
    ("\\\\", "\\"),
    ("\\n", "\n"),
    ("\\0", "\0"),
    ("\\.", "\\."),
    ("é", "é"),
    ("\\g<0>x", ""),
    ("<", "<"),
];

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    if input.below(4) == 0 {
        let text = String::from_utf8_lossy(input.0);
        let mut parts = text.splitn(3, '\n');
        let mut part = || parts.next().unwrap_or_default();
        let (expression, template, name) = (part(), part(), part());
        let _ = sub(expression, template, name);
        let _ = is_in(expression, name);
        let is_plain = |c: char| c.is_alphanumeric() || c == ' ' || c == '_';
        if !expression.is_empty() && expression.chars().all(is_plain) && !template.contains('\\') {
            assert_eq!(
                sub(expression, template, name).unwrap(),
                name.replace(expression, template)
            );
        }
        return;
    }
    let mut groups = Groups::default();
    let node = Node::read(&mut input, &LETTERS, 4, &mut groups);
    let mut expression = String::new();
    node.print(&mut expression);
    let (mut template, mut parts) = (String::new(), Vec::new());
    for _ in 0..input.below(5) {
        if input.below(2) == 0 {
            let number = input.below(groups.opened + 1);
            template += &match (number, input.below(2)) {
                (1..=9, 0) => format!("\\{number}"),
                _ => format!("\\g<{number}>"),
            };
            parts.push(Part::Group(number));
        } else {
            let (spelled, meant) = TEXTS[input.below(TEXTS.len())];
            template += spelled;
            if spelled.starts_with("\\g") {
                parts.push(Part::Group(0));
                parts.push(Part::Text("x"));
            } else {
                parts.push(Part::Text(meant));
            }
        }
        // A digit after a number would belong to it.
        template.push(';');
        parts.push(Part::Text(";"));
    }
    let n = input.below(12);
    let name: Vec<char> = (0..n)
        .map(|_| LETTERS[input.below(LETTERS.len())])
        .collect();
    let text: String = name.iter().collect();
    let Some(expected) = naive(&node, groups.opened, &name, &parts) else {
        return;
    };
    let is_slow = |error: &String| error.contains("too many steps");
    match sub(&expression, &template, &text) {
        Ok(found) => assert_eq!(found, expected, "{expression:?} {template:?} {text:?}"),
        Err(error) => assert!(
            is_slow(&error),
            "{expression:?} {template:?} {text:?}: {error}"
        ),
    }
    let wanted = (0..=name.len()).any(|at| {
        match_at(&node, groups.opened, &name, at, false)
            .flatten()
            .is_some()
    });
    match is_in(&expression, &text) {
        Ok(found) => assert_eq!(found, wanted, "{expression:?} {text:?}"),
        Err(error) => assert!(is_slow(&error), "{expression:?} {text:?}: {error}"),
    }
});

/// `re.sub`: after an empty match the next one begins there if it is not empty, else later.
fn naive(node: &Node, groups: usize, text: &[char], parts: &[Part]) -> Option<String> {
    let mut out = String::new();
    let (mut copied, mut start, mut must_advance) = (0, 0, false);
    loop {
        let mut found = None;
        for at in start..=text.len() {
            found = match_at(node, groups, text, at, must_advance && at == start)?;
            if found.is_some() {
                break;
            }
        }
        let Some(places) = found else { break };
        let (from, to) = places[0]?;
        out.extend(&text[copied..from]);
        for part in parts {
            match part {
                Part::Text(meant) => out += meant,
                Part::Group(number) => {
                    if let Some((from, to)) = places[*number] {
                        out.extend(&text[from..to]);
                    }
                }
            }
        }
        (copied, start, must_advance) = (to, to, from == to);
    }
    out.extend(&text[copied..]);
    Some(out)
}

fn call(name: &str, first: Expression, texts: &[&str]) -> Expression {
    let literal = |text: &&str| {
        let text = (*text).to_owned();
        Argument::Literal(Literal::Text(Text { text, quote: '"' }))
    };
    let call = Call {
        name: name.to_owned(),
        args: [Argument::Expression(first)]
            .into_iter()
            .chain(texts.iter().map(literal))
            .collect(),
        keywords: Vec::new(),
        raw: String::new(),
        at: 0,
    };
    Expression {
        base: Base::Call(call),
        piped: Vec::new(),
    }
}

fn evaluate(function: &str, name: &str, texts: &[&str]) -> Result<Vec<String>, String> {
    let mut source = Memory::default();
    source.insert("s", 60, vec![1.0]);
    let plain = Expression {
        base: Base::Path("s".to_owned()),
        piped: Vec::new(),
    };
    let target = call(function, call("alias", plain, &[name]), texts);
    let query = Query::new(&source, 60);
    let window = Window { from: 0, until: 60 };
    let series = query
        .evaluate(&[target], window, 0.0)
        .map_err(|error| error.to_string())?;
    Ok(series.into_iter().map(|series| series.name).collect())
}

fn sub(expression: &str, template: &str, name: &str) -> Result<String, String> {
    let names = evaluate("aliasSub", name, &[expression, template])?;
    Ok(names.into_iter().next().expect("a series"))
}

fn is_in(expression: &str, name: &str) -> Result<bool, String> {
    Ok(!evaluate("grep", name, &[expression])?.is_empty())
}
