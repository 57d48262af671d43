//! Replays where carbon 1.1.10 and carbon-c-relay 3.7.3 send names: `carbon-rings.jsonl`, and the
//! relay-rules.conf cases of `carbon-rules.jsonl`.
//!
//! `PLUMBAGO_GOLDEN` names another directory of recordings. Cases with a `quirk` are placed as recorded,
//! except those that docs/relay.md names ("Differences").

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

#[path = "support/golden.rs"]
mod golden;

use std::collections::BTreeMap;

use carbon::conf::load_text;
use carbon::relay::member::Member;
use carbon::relay::placement::{Method, Placement, PlacementError, Spec};
use carbon::relay::rules::{destinations_of, limit, parse};
use carbon::rules::{Faults, aggregate};
use carbon::series::canonical;
use golden::recording;
use serde_json::Value;

fn name(case: &Value) -> &str {
    case["name"].as_str().unwrap()
}

fn quirk(case: &Value) -> Option<&str> {
    let quirk = case["quirk"].as_str()?;
    Some(quirk.split([':', '[']).next().unwrap())
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().unwrap().iter();
    texts
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// The members of a case; ports that were assigned when it was recorded are 1.
fn members(case: &Value) -> Vec<Member> {
    let texts = texts(&case["destinations"]).into_iter();
    texts
        .map(|text| text.replace(":PORT", ":1").parse().unwrap())
        .collect()
}

/// The method of a case by its recorded words.
fn method(case: &Value) -> Method {
    let word = match case["kind"].as_str().unwrap() {
        "carbon" => case["method"].as_str(),
        _ => case["cluster"].as_str().unwrap().split(' ').next(),
    };
    serde_json::from_value(word.unwrap().into()).unwrap()
}

fn placement(case: &Value) -> Result<Placement, PlacementError> {
    let spec = Spec {
        members: &members(case),
        method: method(case),
        hash: serde_json::from_value(case["hash"].clone()).unwrap(),
        replication: case["replication"].as_u64().unwrap() as usize,
        diverse: case["diverse"].as_bool().unwrap_or(false),
    };
    let rules = case["rules"].as_str().unwrap_or_default();
    let rules = load_text("rules".as_ref(), rules, aggregate::rule::parse).unwrap();
    Placement::new(&spec, rules.value)
}

/// The destinations as the recordings have them.
fn shown(case: &Value, mut places: Vec<usize>) -> String {
    if case["unordered"] == true {
        places.sort_unstable();
    }
    let width = case["width"].as_u64().unwrap() as usize;
    let digits: String = places.iter().map(|n| format!("{n:x}")).collect();
    format!("{digits:-<width$}")
}

fn check(case: &Value, names: &[String]) {
    let placement = match placement(case) {
        Ok(placement) => placement,
        // carbon does not start, carbon-c-relay never answers.
        Err(PlacementError::SamePlaces { .. }) if case["error"].is_object() => return,
        Err(PlacementError::TooFew { .. }) if case["hangs"] == true => return,
        Err(error) => panic!("{}: {error}", name(case)),
    };
    assert!(case["to"].is_string(), "{}: placed", name(case));
    if let Some(ring) = case["ring"].as_object() {
        let entries = placement.entries();
        assert_eq!(entries.len() as u64, ring["size"].as_u64().unwrap());
        let pairs =
            |list: &Value| serde_json::from_value::<Vec<(i64, usize)>>(list.clone()).unwrap();
        let (first, last) = (pairs(&ring["first"]), pairs(&ring["last"]));
        assert_eq!(entries[..first.len()], first, "{}", name(case));
        assert_eq!(
            entries[entries.len() - last.len()..],
            last,
            "{}",
            name(case)
        );
    }
    let width = case["width"].as_u64().unwrap() as usize;
    let expected = case["to"].as_str().unwrap();
    assert_eq!(expected.len(), width * names.len());
    for (n, metric) in names.iter().enumerate() {
        let expected = &expected[n * width..][..width];
        // carbon-c-relay was not asked.
        if case["kind"] != "carbon" && expected == "-".repeat(width) {
            continue;
        }
        let key = match case["kind"].as_str().unwrap() {
            "c-relay-live" => method(case).key(metric).to_owned(),
            _ if case["normalized"] == true => canonical(metric.as_bytes()).unwrap().into_owned(),
            _ => metric.clone(),
        };
        let got = shown(case, placement.place(&key));
        assert_eq!(got, expected, "{}: {metric}", name(case));
    }
}

#[test]
fn golden_rings() {
    let mut cases = recording("carbon-rings").into_iter();
    let lists = cases.next().unwrap();
    let all = texts(&lists["names"]);
    let some: Vec<String> = all.iter().step_by(4).cloned().collect();
    let tagged = texts(&lists["tagged"]);
    let mut kinds = BTreeMap::<String, usize>::new();
    for case in cases {
        match case["over"].as_str().unwrap() {
            "names" => check(&case, &all),
            "some" => check(&case, &some),
            "tagged" => check(&case, &tagged),
            "live" => check(&case, &texts(&case["names"])),
            other => panic!("{other}"),
        }
        *kinds
            .entry(case["kind"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    assert!(
        kinds.len() == 3 && kinds.values().sum::<usize>() > 100,
        "{kinds:?}"
    );
}

#[test]
fn golden_relay_rules() {
    let cases = recording("carbon-rules").into_iter();
    let cases: Vec<Value> = cases.filter(|case| case["kind"] == "relay-rules").collect();
    assert!(cases.len() >= 10, "{}", cases.len());
    for case in cases {
        let configured = members(&case);
        let loaded = load_text(
            "relay-rules.conf".as_ref(),
            case["text"].as_str().unwrap(),
            parse,
        );
        let loaded = match (loaded, case["load"].as_str().unwrap()) {
            (Err(problems), "error") => {
                let located =
                    |text: &str| text.contains(".conf:") || text.contains("default = true");
                assert!(
                    problems.iter().all(|problem| located(&problem.to_string())),
                    "{problems:?}"
                );
                continue;
            }
            (Err(problems), _) => panic!("{}: {problems:?}", name(&case)),
            (Ok(_), "error") => panic!("{} is accepted", name(&case)),
            (Ok(loaded), _) => loaded,
        };
        assert_eq!(
            !loaded.ignored.is_empty(),
            quirk(&case) == Some("no-condition")
        );
        let mut rules = loaded.value;
        let limited = limit(&mut rules, &configured);
        assert_eq!(
            limited.is_err(),
            quirk(&case) == Some("unknown-destination"),
            "{}",
            name(&case)
        );
        if limited.is_err() {
            continue;
        }
        for (metric, expected) in case["route"].as_object().unwrap() {
            let place = |member: &&Member| {
                configured
                    .iter()
                    .position(|other| other == *member)
                    .unwrap()
            };
            let got: Vec<usize> = destinations_of(&rules, metric, &mut Faults::default())
                .iter()
                .map(place)
                .collect();
            let mut expected: Vec<usize> = serde_json::from_value(expected.clone()).unwrap();
            if quirk(&case) == Some("sent-twice") {
                expected.dedup();
            }
            assert_eq!(got, expected, "{}: {metric}", name(&case));
        }
    }
}
