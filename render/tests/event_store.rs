//! The event store as its callers see it: what is kept, and what is found.

#![allow(clippy::unwrap_used)]

#[path = "support/events.rs"]
mod support;

use proptest::prelude::*;
use render::events::rules::Rule;
use render::events::{Draft, Error, Event, GraphiteTags, Options, Status, Store, TagQuery};
use render::impact::{Correction, Report};
use support::{band, draft, open, query, verdict, whats};

#[test]
fn events_are_found_by_tag_and_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for (what, tags, when) in [
        ("a", "deploy web", 100.0),
        ("b", "deploy search", 200.0),
        ("c", "config", 150.0),
        ("d", "", 160.0),
        ("e", "deploy web canary", 300.5),
        ("f", "service:web1", 150.0),
    ] {
        store.insert(draft(what, tags, when)).unwrap();
    }
    for (expr, from, until, wanted) in [
        ("deploy", 0.0, 1000.0, &["a", "b", "e"][..]),
        ("deploy", 100.0, 200.0, &["a", "b"]),
        ("deploy", 100.1, 199.9, &[]),
        ("deploy web", 0.0, 1000.0, &["a", "e"]),
        ("deploy -canary", 0.0, 1000.0, &["a", "b"]),
        ("deploy,config", 0.0, 1000.0, &["a", "c", "b", "e"]),
        ("*", 150.0, 160.0, &["c", "f", "d"]),
        ("ser*", 0.0, 1000.0, &["f"]),
        ("-deploy", 0.0, 1000.0, &["c", "f", "d"]),
        ("web ser*", 0.0, 1000.0, &[]),
        ("nosuch,config", 0.0, 1000.0, &["c"]),
        ("deploy nosuch", 0.0, 1000.0, &[]),
        ("", 0.0, 1000.0, &[]),
        ("deploy", 300.0, 100.0, &[]),
    ] {
        let found = store.query(&query(expr), from, until, 100).unwrap();
        assert_eq!(whats(&found), wanted, "{expr} {from} {until}");
    }
    let newest = store.query(&query("deploy,config"), 0.0, 1e9, 2).unwrap();
    assert_eq!(whats(&newest), ["b", "e"]);
}

#[test]
fn events_are_found_by_more_tags_than_a_statement_can_ask_for() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let tags = |numbers: std::ops::Range<usize>| -> Vec<String> {
        numbers.map(|n| format!("t{n}")).collect()
    };
    let insert = |what: &str, numbers: std::ops::Range<usize>, when: f64| {
        let tags = tags(numbers);
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let draft = Draft {
            when: Some(when),
            ..Draft::new(what, &tags)
        };
        store.insert(draft).unwrap();
    };
    for n in 0..12 {
        insert("many", 100 * n..100 * (n + 1), n as f64);
    }
    insert("fewer", 0..19, 20.0);
    let tags = |numbers| tags(numbers).join(" ");
    let find = |words: &str, set: Option<&str>| {
        let tags = GraphiteTags::from_query(Some(words), set);
        let found = store.graphite(&tags, 0.0, 1000.0).unwrap();
        found
            .iter()
            .map(|event| event.what.clone())
            .collect::<Vec<_>>()
    };
    for set in [None, Some("intersection")] {
        assert_eq!(find(&tags(0..19), set), ["many", "fewer"]);
        assert_eq!(find(&tags(0..20), set), ["many"]);
        assert_eq!(find(&tags(0..100), set), ["many"]);
        assert_eq!(find(&tags(0..101), set), [""; 0]);
        assert_eq!(find(&tags(0..1_200), set), [""; 0]);
    }
    assert_eq!(find(&tags(0..1_200), Some("union")).len(), 13);
    let found = store.query(&query(&tags(0..20)), 0.0, 1000.0, 100).unwrap();
    assert_eq!(whats(&found), ["many"]);
}

#[test]
fn graphites_rules_forgive_unknown_words() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.insert(draft("a", "deploy web", 100.0)).unwrap();
    store.insert(draft("b", "deploy", 200.0)).unwrap();
    let gone = store.insert(draft("c", "gone", 300.0)).unwrap();
    store.remove(gone.event.id).unwrap();
    let find = |tags: &str, set: Option<&str>| {
        let tags = GraphiteTags::from_query(Some(tags), set);
        let events = store.graphite(&tags, 0.0, 1000.0).unwrap();
        events
            .into_iter()
            .map(|event| event.what)
            .collect::<String>()
    };
    assert_eq!(find("deploy nosuch", None), "ab");
    assert_eq!(find("nosuch", None), "");
    // A word that was used once is known for good.
    assert_eq!(find("deploy gone", None), "");
    assert_eq!(find("deploy  web", None), "a");
    assert_eq!(find("deploy nosuch", Some("intersection")), "");
    assert_eq!(find("deploy deploy", Some("intersection")), "");
    assert_eq!(find("deploy web", Some("intersection")), "a");
    assert_eq!(find("web nosuch", Some("union")), "a");
    assert_eq!(find("*", None), "");
    assert_eq!(find("", Some("union")), "");
    let per_second = store
        .count_per_second(&GraphiteTags::from_arguments(&["*"]), 99, 200)
        .unwrap();
    assert_eq!(per_second.len(), 101);
    let present: Vec<_> = per_second.iter().filter(|value| !value.is_nan()).collect();
    assert_eq!((per_second[1], present.len()), (1.0, 1));
}

#[test]
fn a_known_key_changes_its_event() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let start = Draft {
        key: Some("run-1".to_owned()),
        status: Some(Status::Started),
        ..draft("deploy", "deploy", 100.0)
    };
    let started = store.insert(start.clone()).unwrap();
    assert!(started.created);
    let again = store.insert(start).unwrap();
    assert!(!again.created);
    assert_eq!(again.event, started.event);
    let end = Draft {
        key: Some("run-1".to_owned()),
        status: Some(Status::Failed),
        ..Draft::default()
    };
    let ended = store.insert_at(end, 160.0).unwrap().event;
    assert_eq!((ended.id, ended.when), (started.event.id, 100.0));
    assert_eq!((ended.until, ended.status), (Some(160.0), Status::Failed));
    assert_eq!(store.query(&query("*"), 0.0, 1e10, 10).unwrap(), [ended]);
}

#[test]
fn changed_and_removed_events_are_found_under_their_new_tags_only() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let id = store
        .insert(draft("a", "old both", 100.0))
        .unwrap()
        .event
        .id;
    let change = Draft {
        tags: Some(vec!["new".to_owned(), "both".to_owned()]),
        when: Some(500.0),
        ..Draft::default()
    };
    store.update(id, change).unwrap();
    let n_found = |expr: &str| store.query(&query(expr), 0.0, 1e10, 10).unwrap().len();
    assert_eq!((n_found("old"), n_found("new"), n_found("both")), (0, 1, 1));
    assert_eq!(store.query(&query("both"), 0.0, 499.0, 10).unwrap(), []);
    store.remove(id).unwrap();
    assert_eq!((n_found("new"), n_found("*")), (0, 0));
    assert!(matches!(store.remove(id), Err(Error::NotFound(_))));
    assert!(matches!(
        store.update(id, Draft::default()),
        Err(Error::NotFound(_))
    ));
    assert!(matches!(store.event(id), Err(Error::NotFound(_))));
}

#[test]
fn every_change_has_its_generation() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut seen = vec![store.generation()];
    let id = store.insert(draft("a", "", 1.0)).unwrap().event.id;
    seen.push(store.generation());
    store.update(id, Draft::new("b", &[])).unwrap();
    seen.push(store.generation());
    store.remove(id).unwrap();
    seen.push(store.generation());
    drop(store);
    seen.push(open(directory.path()).generation());
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
}

#[test]
fn bands_that_reach_into_the_window_are_on_the_picture() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    for draft in [
        band("over", "deploy", 100.0, 1100.0),
        band("long ago", "deploy", 0.0, 99_999.0),
        band("before", "deploy", 100.0, 999.0),
        band("touches", "deploy", 900.0, 1000.0),
        band("inside", "deploy", 1200.0, 1300.0),
        band("after", "deploy", 2001.0, 2100.0),
        band("other", "config", 100.0, 1100.0),
        draft("line", "deploy", 1500.0),
        draft("line before", "deploy", 500.0),
        Draft {
            status: Some(Status::Started),
            ..draft("open", "deploy", 600.0)
        },
    ] {
        store.insert(draft).unwrap();
    }
    let overlay = |now: f64| {
        store
            .overlay(&query("deploy"), 1000.0, 2000.0, now)
            .unwrap()
    };
    assert_eq!(
        whats(&overlay(2000.0)),
        ["long ago", "over", "open", "touches", "inside", "line"]
    );
    // Seen before the window begins, the open one has not reached it yet.
    assert!(!whats(&overlay(700.0)).contains(&"open"));
    assert_eq!(store.overlay(&query(""), 0.0, 9e9, 9e9).unwrap(), []);
}

#[test]
fn looks_come_from_the_rules() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        rules: vec![Rule {
            tags: Some("deploy".to_owned()),
            color: Some("red".to_owned()),
            ..Rule::default()
        }],
        ..Options::default()
    };
    let store = Store::open(&directory.path().join("events.db"), &options).unwrap();
    store.insert(draft("a", "deploy", 1.0)).unwrap();
    let overlay = store.overlay(&TagQuery::every(), 0.0, 2.0, 2.0).unwrap();
    assert_eq!(overlay[0].look.color.as_deref(), Some("red"));
}

#[test]
fn an_answer_holds_so_much_text_and_a_portion_a_little() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let data = "d".repeat(200 << 10);
    for i in 0..200 {
        let mut large = draft("large", "a", f64::from(i));
        large.data = Some(data.clone());
        store.insert(large).unwrap();
    }
    let error = store.query(&query("a"), 0.0, 1e9, 1000).unwrap_err();
    assert!(error.to_string().contains("more than 32 MiB"), "{error}");
    let tags = GraphiteTags::All;
    assert!(matches!(
        store.graphite(&tags, 0.0, 1e9),
        Err(Error::TooLarge(_))
    ));
    // Those who count need no text, and a picture shows the newest.
    let counted = store.count_per_second(&tags, 0, 200).unwrap();
    assert_eq!(counted.iter().sum::<f64>(), 200.0);
    let shown = store.overlay(&query("a"), 0.0, 1e9, 1e9).unwrap();
    assert!(shown.len() > 50 && shown.len() < 100, "{}", shown.len());
    assert_eq!(shown.last().unwrap().when, 199.0);
    let portion = store.export(0, 64 << 10).unwrap();
    assert_eq!(portion.len(), 1);
    let next = store.export(portion[0].id, 500 << 10).unwrap();
    assert_eq!(next.len(), 3);
}

#[test]
fn concurrent_senders_all_get_their_event() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..10 {
                    let what = format!("{thread}/{i}");
                    let saved = store.insert(draft(&what, "t", f64::from(i))).unwrap();
                    assert_eq!(store.event(saved.event.id).unwrap().what, what);
                }
                let refused = store.insert(Draft::default());
                assert!(matches!(refused, Err(Error::Refused(_))));
            });
        }
    });
    assert_eq!(
        store.query(&query("t"), 0.0, 100.0, 1000).unwrap().len(),
        80
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The indexes answer as a walk over all events does.
    #[test]
    fn the_store_finds_what_its_naive_twin_finds(
        events in prop::collection::vec(("[abc]{0,2}( [abc]{1,2}){0,2}", 0..20i32, 0..20i32), 1..12),
        exprs in prop::collection::vec("-?[abc]{1,2}\\*?( -?[abc*]){0,2}(,[abc])?", 1..6),
        from in 0..20i32,
        length in 0..10i32,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        for (tags, when, length) in &events {
            store.insert(band("x", tags, f64::from(*when), f64::from(when + length))).unwrap();
        }
        let mut all = store.export(0, usize::MAX).unwrap();
        all.sort_by(|a, b| a.when.total_cmp(&b.when).then(a.id.cmp(&b.id)));
        let (from, until) = (f64::from(from), f64::from(from + length));
        for expr in exprs {
            let query = query(&expr);
            let selected = all.iter().filter(|event| query.matches(&event.tags));
            let within = selected.clone().filter(|event| (from..=until).contains(&event.when));
            prop_assert_eq!(
                store.query(&query, from, until, 100).unwrap(),
                within.cloned().collect::<Vec<_>>()
            );
            let overlapping = selected.filter(|event| event.when <= until && event.until >= Some(from));
            prop_assert_eq!(
                store.overlay(&query, from, until, 0.0).unwrap(),
                overlapping.cloned().collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn a_verdict_stays_with_its_event_until_that_changes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = store
        .insert(draft("web 1", "deploy", 1000.0))
        .unwrap()
        .event
        .id;
    assert_eq!(store.impact(id).unwrap(), None);
    assert!(store.correct(id, Some(Correction::Right)).is_err());
    let before = store.generation();
    store.set_impact(id, verdict("first")).unwrap();
    assert_ne!(store.generation(), before, "pictures are drawn again");
    // Lists have the strongest series only.
    let event = store.event(id).unwrap();
    let brief = event.impact.unwrap();
    assert_eq!(
        (&*brief.sentence, brief.series.len()),
        ("first", Report::BRIEF)
    );
    assert_eq!(store.impact(id).unwrap().unwrap().series.len(), 5);

    // A correction survives a new verdict, and both a change of other fields and a restart.
    store.correct(id, Some(Correction::Expected)).unwrap();
    store.set_impact(id, verdict("second")).unwrap();
    let data = Draft {
        data: Some("by ann".to_owned()),
        ..Draft::default()
    };
    store.update(id, data).unwrap();
    drop(store);
    let store = open(dir.path());
    let kept = store.impact(id).unwrap().unwrap();
    assert_eq!(kept.correction, Some(Correction::Expected));
    assert_eq!(kept.sentence, "second");

    // Another time is another question.
    let moved = Draft {
        when: Some(2000.0),
        ..Draft::default()
    };
    assert_eq!(store.update(id, moved).unwrap().impact, None);
    assert_eq!(store.impact(id).unwrap(), None);
    store.set_impact(id, verdict("third")).unwrap();
    store.remove(id).unwrap();
    assert_eq!(store.impact(id).unwrap(), None);
    assert!(matches!(
        store.set_impact(id, verdict("late")),
        Err(Error::NotFound(_))
    ));
}

#[test]
fn a_rollback_marks_what_it_names_and_must_name_an_event() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("events.db"), &Options::default()).unwrap();
    let deploy = Draft {
        when: Some(100.0),
        status: Some(Status::Started),
        ..Draft::new("web 2", &["deploy"])
    };
    let deploy = store.insert(deploy).unwrap().event;
    let cure = Draft {
        when: Some(160.0),
        status: Some(Status::RolledBack),
        rollback_of: Some(Some(deploy.id)),
        ..Draft::new("web 1", &["deploy"])
    };
    let cure = store.insert(cure).unwrap().event;
    assert_eq!(
        cure.status,
        Status::Unstated,
        "the cure is not what was undone"
    );
    let undone = store.event(deploy.id).unwrap();
    assert_eq!(
        (undone.status, undone.until),
        (Status::RolledBack, Some(160.0))
    );
    let unknown = Draft {
        rollback_of: Some(Some(99)),
        ..Draft::new("web 0", &["deploy"])
    };
    let refused = store.insert(unknown).unwrap_err();
    assert_eq!(refused.to_string(), "\"rollback_of\": there is no event 99");
    let late = Draft {
        rollback_of: Some(Some(99)),
        ..Draft::default()
    };
    assert!(store.update(cure.id, late).is_err());
}

#[test]
fn delivery_figures_are_of_deploys_with_long_texts_too() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let text = format!("committed:7\n{}", "x".repeat(250_000));
    let events = (0..150).map(|n| Event {
        what: format!("web {n}"),
        tags: vec!["deploy".to_owned()],
        when: 1_000.0 + f64::from(n),
        data: text.clone(),
        ..Event::default()
    });
    store.import(events.collect()).unwrap();
    let (deploys, is_cut) = store.deploys(&query("deploy"), 0.0, 2_000.0).unwrap();
    assert_eq!((deploys.len(), is_cut), (150, false));
    assert!(deploys.iter().all(|event| event.data == "committed:7"));
}

#[test]
fn what_undoes_an_event_is_found_among_long_events() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let undone = store
        .insert(draft("web 1", "deploy", 1_000.0))
        .unwrap()
        .event;
    let long = |n: i32| Event {
        what: "other".to_owned(),
        when: 1_002.0 + f64::from(n),
        data: "x".repeat(250_000),
        ..Event::default()
    };
    store.import((0..140).map(long).collect()).unwrap();
    let undoing = Draft {
        rollback_of: Some(Some(undone.id)),
        ..draft("web 0", "deploy", 1_001.0)
    };
    store.insert(undoing).unwrap();
    let found = store.undone_by(undone.id, 1_000.0, 2_000.0).unwrap();
    assert_eq!(whats(&found), ["web 0"]);
    assert!(store.query(&query("*"), 0.0, 2_000.0, 200).is_err());
}
