//! Texts of whitelist.conf, rewrite-rules.conf and aggregation-rules.conf, then names: no panic, and
//! plain patterns match as a search for their text does; a name that no rule changes comes back as it
//! was; an aggregate of `a.*.b` is made of three nodes.
#![no_main]

use carbon::conf::load_text;
use carbon::rules::{Faults, aggregate, lists, rewrite};
use libfuzzer_sys::fuzz_target;

/// A pattern that means itself.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (kind, text) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    let (rules, name) = text.rsplit_once('\n').unwrap_or((text, "a.b.c"));
    let path = "rules.conf".as_ref();
    let mut faults = Faults::default();
    match kind.bytes().next().unwrap_or_default() % 3 {
        0 => {
            let Ok(list) = load_text(path, rules, lists::parse) else {
                return;
            };
            let found = list.value.matches(name, &mut faults);
            let lines: Vec<&str> = carbon::conf::lines(rules)
                .map(|(_, line)| line.trim())
                .collect();
            if lines.iter().all(|line| is_plain(line)) {
                assert_eq!(found, lines.iter().any(|line| name.contains(line)));
            }
        }
        1 => {
            let Ok(rewrites) = load_text(path, rules, rewrite::parse) else {
                return;
            };
            let post = rewrites.value.post.apply(name.into(), &mut faults);
            if rewrites.value.post.is_empty() {
                assert_eq!(post, name);
            }
            let pre = rewrites.value.pre.apply(name.into(), &mut faults);
            if let Some((pattern, replacement)) = rules
                .strip_prefix("[pre]\n")
                .and_then(|rule| rule.split_once(" = "))
                && is_plain(pattern)
                && is_plain(replacement)
            {
                assert_eq!(pre, name.replace(pattern, replacement));
            }
        }
        _ => {
            let Ok(rules) = load_text(path, rules, aggregate::rule::parse) else {
                return;
            };
            for rule in &rules.value {
                assert!(rule.frequency > 0);
                let start = rule.interval(1_700_000_000);
                assert!((0..i64::from(rule.frequency)).contains(&(1_700_000_000 - start)));
                let output = rule.output(name, &mut faults);
                if rule.text.ends_with(" = sum a.*.b") && output.is_some() {
                    let nodes: Vec<&str> = name.split('.').collect();
                    assert!(
                        matches!(nodes[..], ["a", node, "b"] if !node.is_empty()),
                        "{name}"
                    );
                }
            }
        }
    }
});
