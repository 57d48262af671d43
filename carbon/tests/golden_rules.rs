//! Replays what carbon 1.1.10 made of rule files: `carbon-rules.jsonl`, all but relay-rules.conf.
//!
//! `PLUMBAGO_GOLDEN` names another directory of recordings. A case with a `quirk` has an answer of its
//! own here, which docs/carbon.md describes ("Differences from carbon").

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

#[path = "support/golden.rs"]
mod golden;

use std::collections::BTreeMap;
use std::sync::Arc;

use carbon::conf::{Findings, Loaded, Problem, load_text};
use carbon::pattern::Pattern;
use carbon::rules::aggregate::{Aggregator, Limits};
use carbon::rules::{Faults, Refusal, Ruleset, aggregate, lists, rewrite};
use golden::recording;
use serde_json::Value;

fn cases(kind: &str) -> Vec<Value> {
    let all = recording("carbon-rules").into_iter();
    let cases: Vec<Value> = all.filter(|case| case["kind"] == kind).collect();
    assert!(cases.len() >= 10, "{kind}: {}", cases.len());
    cases
}

fn name(case: &Value) -> &str {
    case["name"].as_str().unwrap()
}

fn quirk(case: &Value) -> Option<&str> {
    let quirk = case["quirk"].as_str()?;
    Some(quirk.split([':', '[']).next().unwrap())
}

/// The line of a problem must be there.
fn named(problems: &[Problem]) {
    assert!(
        problems.iter().all(|problem| problem.line > 0),
        "{problems:?}"
    );
}

fn load<T>(text: &str, parse: fn(&str, &mut Findings) -> T) -> Result<Loaded<T>, Vec<Problem>> {
    let loaded = load_text("rules.conf".as_ref(), text, parse);
    if let Err(problems) = &loaded {
        named(problems);
    }
    loaded
}

#[test]
fn golden_rules_lists() {
    for case in cases("list") {
        let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
        let (mut allow, mut deny) = (text("whitelist"), text("blacklist"));
        if quirk(&case) == Some("whitespace-comment") {
            let lines = || allow.lines().chain(deny.lines()).map(str::trim);
            let is_inline = |line: &str| !line.starts_with('#') && line.contains(" #");
            if lines().any(is_inline) {
                let loaded = [&allow, &deny].map(|text| load(text, lists::parse).is_err());
                assert!(loaded.contains(&true), "{}", name(&case));
                continue;
            }
            // An indented comment is a comment: as if its line were not there.
            for text in [&mut allow, &mut deny] {
                let kept = text.lines().filter(|line| !line.trim().starts_with('#'));
                *text = kept.collect::<Vec<_>>().join("\n");
            }
        }
        let loaded = [&allow, &deny].map(|text| load(text, lists::parse));
        let [Ok(allow), Ok(deny)] = loaded else {
            assert_eq!(quirk(&case), Some("bad-line-ignored"), "{}", name(&case));
            continue;
        };
        assert_ne!(quirk(&case), Some("bad-line-ignored"), "{}", name(&case));
        let rules = Ruleset {
            allow: Arc::new(allow.value),
            deny: Arc::new(deny.value),
            forward: true,
            ..Ruleset::default()
        };
        for (metric, expected) in case["accept"].as_object().unwrap() {
            let got = match rules.judge(metric, &mut Faults::default()) {
                Ok(_) => "yes",
                Err(Refusal::Denied) => "blacklistMatches",
                Err(Refusal::NotAllowed) => "whitelistRejects",
            };
            let expected = match quirk(&case) {
                Some("whitespace-comment") if metric.starts_with('#') => continue,
                _ => expected,
            };
            assert_eq!(got, expected, "{}: {metric}", name(&case));
        }
    }
}

/// What the rules of a file make of a name if each is cut at its separate `=`.
fn by_separate_sign(case: &Value, metric: &str) -> String {
    let mut metric = metric.to_owned();
    for line in case["text"].as_str().unwrap().lines().map(str::trim) {
        let Some((pattern, template)) = line.split_once(" = ") else {
            continue;
        };
        let pattern = Pattern::new(pattern).unwrap();
        let replacement = pattern.replacement(template).unwrap();
        let replaced = pattern.replace(&metric, &replacement, 10_000, || true);
        metric = replaced.unwrap().unwrap_or(metric);
    }
    metric
}

#[test]
fn golden_rules_rewrite() {
    for case in cases("rewrite") {
        let loaded = load(case["text"].as_str().unwrap(), rewrite::parse);
        let loaded = match (loaded, quirk(&case)) {
            (Err(_), Some("bad-replacement" | "inline-comment")) => continue,
            (Err(problems), _) => panic!("{}: {problems:?}", name(&case)),
            (Ok(_), Some("bad-replacement" | "inline-comment")) => panic!("{}", name(&case)),
            (Ok(loaded), _) => loaded,
        };
        // carbon logs what it ignores; of what it does not mention, the server warns as well.
        let is_ignored = matches!(quirk(&case), Some("no-section" | "bracket-line"))
            || (quirk(&case).is_none() && !case["log"].is_null());
        assert_eq!(!loaded.ignored.is_empty(), is_ignored, "{}", name(&case));
        named(&loaded.ignored);
        for (section, key) in [(&loaded.value.pre, "pre"), (&loaded.value.post, "post")] {
            for (metric, expected) in case[key].as_object().unwrap() {
                let mut faults = Faults::default();
                let got = section.apply(metric.as_str().into(), &mut faults);
                assert_eq!(faults.count, 0);
                let expected = match quirk(&case) {
                    Some("first-equals") if key == "pre" => by_separate_sign(&case, metric),
                    _ => expected.as_str().unwrap().to_owned(),
                };
                assert_eq!(got, expected, "{}: {metric}", name(&case));
            }
        }
    }
}

/// carbon does not read a rule with tags in its names: it has the parts of the line between blanks, and makes
/// the output's name of what stands in the place of its fields.
fn by_separate_equals(case: &Value, rule: &aggregate::Rule) {
    let words: Vec<&str> = case["rule"].as_str().unwrap().split_whitespace().collect();
    let is_plain = |word: &str| {
        let plain = |c: char| c.is_alphanumeric() || "._-;=<>*".contains(c);
        word.chars().all(plain)
    };
    let (output, frequency, method, input) = match words[..] {
        [output, frequency, "=", method, input] if is_plain(output) && is_plain(input) => {
            (output, frequency, method, input)
        }
        // It is read; what a name is that it is for does not show in its text.
        _ => return,
    };
    let seconds = frequency.trim_matches(['(', ')']);
    assert_eq!(seconds, rule.frequency.to_string(), "{}", name(case));
    let named = aggregate::method::Method::named(method);
    assert_eq!(named, Some(rule.method), "{}", name(case));
    // A name that the input matches: each field is its own name in capitals, each star a word.
    let filled = |text: &str, star: &str| {
        let mut filled = String::new();
        let mut in_field = false;
        for c in text.chars() {
            match c {
                '<' => in_field = true,
                '>' => in_field = false,
                '*' => filled.push_str(star),
                c if in_field => filled.extend(c.to_uppercase()),
                c => filled.push(c),
            }
        }
        filled
    };
    let found = rule.output(&filled(input, "any"), &mut Faults::default());
    assert_eq!(found, Some(filled(output, "*")), "{}", name(case));
    let other = filled(input, "any").replace('=', ":");
    assert_eq!(
        rule.output(&other, &mut Faults::default()),
        None,
        "{}",
        name(case)
    );
}

#[test]
fn golden_rules_aggregation() {
    for case in cases("aggregation-rule") {
        let mut loaded = load(case["rule"].as_str().unwrap(), aggregate::rule::parse);
        let is_refused = match quirk(&case) {
            // Tags may be part of a rule.
            Some("first-equals") => false,
            Some("bad-rule-stops") => true,
            Some("bad-template" | "one-field-a-node") => {
                let mut found = case["match"].as_object().unwrap().values();
                found.any(|found| {
                    found.is_object() || found.as_str().is_some_and(|s| s.contains("{'"))
                })
            }
            Some("frequency-unchecked") => case["frequency"].as_i64().unwrap() <= 0,
            _ => case["load"] != "ok",
        };
        assert_eq!(loaded.is_err(), is_refused, "{}: {loaded:?}", name(&case));
        let Ok(loaded) = &mut loaded else { continue };
        let rule = loaded.value.pop().unwrap();
        if quirk(&case) == Some("first-equals") {
            by_separate_equals(&case, &rule);
            continue;
        }
        assert_eq!(
            u64::from(rule.frequency),
            case["frequency"],
            "{}",
            name(&case)
        );
        let method = case["method"].as_str().unwrap();
        assert_eq!(aggregate::method::Method::named(method), Some(rule.method));
        for (metric, expected) in case["match"].as_object().unwrap() {
            let got = rule.output(metric, &mut Faults::default());
            assert_eq!(
                got.as_deref(),
                expected.as_str(),
                "{}: {metric}",
                name(&case)
            );
        }
    }
}

/// A number of the recordings.
fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some(text) => text.parse().unwrap(),
        None => value.as_f64().unwrap(),
    }
}

type Point = (String, i64, f64);

/// What is stored of the points as they are, and the aggregates.
fn replay(case: &Value, rules: &Ruleset, late: u32) -> (Vec<Point>, BTreeMap<(String, i64), f64>) {
    let aggregator = Aggregator::new(Limits {
        outputs: 1_000,
        intervals: 100_000,
        late,
    });
    let start = case["start"].as_i64().unwrap();
    let until = start + case["until"].as_i64().unwrap();
    let (mut passed, mut made) = (Vec::new(), BTreeMap::new());
    let mut now = start;
    let mut tick = |to: i64| {
        while now < to {
            now += 1;
            let mut emitted = Vec::new();
            aggregator.due(now, false, &mut emitted);
            for emitted in emitted {
                made.insert((emitted.output.name.to_string(), emitted.at), emitted.value);
            }
        }
    };
    for point in case["in"].as_array().unwrap() {
        let offset = number(&point[0]).floor() as i64;
        tick(start + offset);
        let metric = point[1].as_str().unwrap();
        let (at, value) = (number(&point[2]).floor() as i64, number(&point[3]));
        if value.is_nan() {
            continue;
        }
        let verdict = rules.judge(metric, &mut Faults::default()).unwrap();
        for (by, output) in verdict.feeds {
            let output = aggregator.output(&by, &output).unwrap();
            output.add(at, value, start + offset, aggregator.limits());
        }
        if let Some(stored) = verdict.stored {
            passed.push((stored.into_owned(), at, value));
        }
    }
    tick(until);
    (passed, made)
}

#[test]
fn golden_rules_run() {
    for case in cases("run") {
        let rules = load(case["rules"].as_str().unwrap(), aggregate::parse);
        let rewrites = load(case["rewrite"].as_str().unwrap_or_default(), rewrite::parse);
        let refused = ["bad-replacement", "bad-template", "frequency-unchecked"];
        let is_refused = quirk(&case).is_some_and(|quirk| refused.contains(&quirk));
        let (Ok(rules), Ok(rewrites)) = (rules, rewrites) else {
            assert!(is_refused, "{}", name(&case));
            continue;
        };
        assert!(!is_refused, "{}", name(&case));
        let settings = &case["settings"];
        let rules = Ruleset {
            rewrites: Arc::new(rewrites.value),
            aggregates: rules.value.into(),
            forward: settings["FORWARD_ALL"].as_bool().unwrap(),
            ..Ruleset::default()
        };
        let late = settings["MAX_AGGREGATION_INTERVALS"].as_u64().unwrap();
        let (passed, made) = replay(&case, &rules, late as u32);
        let out = case["out"].as_array().unwrap().iter();
        let expected: Vec<Point> = out
            .filter(|point| point[1] == "passed")
            .map(|point| {
                let metric = point[2].as_str().unwrap().to_owned();
                (metric, number(&point[3]).floor() as i64, number(&point[4]))
            })
            .collect();
        assert_eq!(passed, expected, "{}", name(&case));
        // Where an interval was closed too early, the next version of carbon has the answer.
        let recorded = match quirk(&case) {
            Some("late-overwrite") if !case["master"]["final"].is_null() => {
                &case["master"]["final"]
            }
            _ => &case["final"],
        };
        let expected: BTreeMap<(String, i64), f64> = recorded
            .as_array()
            .unwrap()
            .iter()
            .map(|point| {
                let metric = point[0].as_str().unwrap().to_owned();
                ((metric, number(&point[1]) as i64), number(&point[2]))
            })
            .collect();
        let keys = |map: &BTreeMap<(String, i64), f64>| map.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&made), keys(&expected), "{}", name(&case));
        for (key, expected) in expected {
            let got = made[&key];
            let close = got == expected
                || (got.is_nan() && expected.is_nan())
                || ((got - expected) / expected).abs() <= 1e-9;
            assert!(close, "{}: {key:?}: {got}, not {expected}", name(&case));
        }
    }
}
