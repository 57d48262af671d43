//! Graphite's rule files in a store: for received points and for a sink that keeps ids; and what
//! happens when the files change.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use carbon::journal::disk::RealDisk;
use carbon::options::{Options, Span};
use carbon::protocol::resolver::At;
use carbon::{Carbon, Datapoint, NameError, PointTime, Setup, Sink, Timestamp};

use support::{NOW, until};

struct Rig {
    directory: tempfile::TempDir,
    clock: Arc<AtomicU32>,
    carbon: Carbon,
}

/// A store with these files, each by its key.
fn open(files: &[(&str, &str)], change: impl FnOnce(&mut Options)) -> Result<Rig, carbon::Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = |key: &str| {
        let known = files.iter().any(|(file, _)| *file == key);
        let path = directory.path().join(key);
        if known {
            path.to_str().unwrap().to_owned()
        } else {
            String::new()
        }
    };
    for (key, text) in files {
        fs::write(directory.path().join(key), text).unwrap();
    }
    let clock = Arc::new(AtomicU32::new(NOW));
    let mut options = Options {
        allow: path("allow"),
        deny: path("deny"),
        rewrite_rules: path("rewrite_rules"),
        aggregation_rules: path("aggregation_rules"),
        ..support::options()
    };
    change(&mut options);
    let shown = Arc::clone(&clock);
    let setup = Setup {
        options,
        clock: Arc::new(move || Timestamp(shown.load(Ordering::SeqCst))),
        ..support::setup(Arc::new(RealDisk))
    };
    let carbon = Carbon::open(setup, &directory.path().join("data"))?;
    Ok(Rig {
        directory,
        clock,
        carbon,
    })
}

fn time(at: u32) -> PointTime {
    PointTime::new(Timestamp(at)).unwrap()
}

impl Rig {
    /// Receives a point, as each receiver does.
    fn receive(&self, name: &str, at: u32, value: f64) {
        let _pin = self.carbon.index().pin();
        let mut points = Vec::new();
        let mut resolver = self.carbon.resolver(&mut points);
        resolver.take(name.as_bytes(), At::Time(time(at)), value);
        drop(resolver);
        self.carbon.submit(&points);
    }

    fn values(&self, name: &str) -> BTreeMap<u32, f64> {
        support::values(&self.carbon, name)
    }

    fn wait_for(&self, name: &str, expected: &[(u32, f64)]) {
        let expected: BTreeMap<u32, f64> = expected.iter().copied().collect();
        until(&self.carbon, &format!("{name}: {expected:?}"), || {
            self.values(name) == expected
        });
    }

    fn pass(&self, seconds: u32) {
        self.clock.fetch_add(seconds, Ordering::SeqCst);
    }

    fn rewrite(&self, key: &str, text: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, self.directory.path().join(key)).unwrap();
        self.carbon.reload();
    }

    fn level(&self, name: &str) -> f64 {
        let readings = self.carbon.readings();
        readings
            .iter()
            .find(|reading| reading.name == name)
            .unwrap()
            .value
    }

    fn counts(&self) -> (u64, u64) {
        let stats = self.carbon.stats();
        (stats.denied.get(), stats.not_allowed.get())
    }
}

const AT: u32 = NOW - 100;

#[test]
fn lists_rewrites_and_aggregates_come_in_carbons_order() {
    let rig = open(
        &[
            ("deny", "^noise\\.\n\\.\\.\n"),
            ("allow", "^(raw|in|noise|own)\\.\n"),
            ("rewrite_rules", "[pre]\n^raw\\. = in.\n[post]\n^in\\. = kept.\n"),
            (
                "aggregation_rules",
                "sum.<h> (10) = sum in.<h>.*\nin.total (10) = count in.*.*\nown.a (10) = max own.*\n",
            ),
        ],
        |_| {},
    )
    .unwrap();
    for _ in 0..2 {
        rig.receive("noise.x", AT, 1.0);
        rig.receive("raw..x", AT, 1.0);
        rig.receive("other.x", AT, 1.0);
        rig.receive("raw.h1.x", AT, 2.0);
        rig.receive("in.h1.y", AT + 1, 3.0);
        rig.receive("own.a", AT, 4.0);
        rig.receive("own.b", AT, 5.0);
    }
    assert_eq!(rig.counts(), (4, 2));
    // The names as lists see them; a point goes on under its new name.
    rig.wait_for("kept.h1.x", &[(AT, 2.0)]);
    rig.wait_for("kept.h1.y", &[(AT, 3.0)]);
    rig.wait_for("own.b", &[(AT, 5.0)]);
    for absent in ["raw.h1.x", "in.h1.x", "in.h1.y", "noise.x", "other.x"] {
        assert!(rig.values(absent).is_empty(), "{absent}");
    }
    // Old points: due five seconds later. Aggregates are neither rewritten nor aggregated.
    assert!(rig.values("sum.h1").is_empty());
    rig.pass(5);
    rig.wait_for("sum.h1", &[(AT, 10.0)]);
    rig.wait_for("in.total", &[(AT, 4.0)]);
    rig.wait_for("own.a", &[(AT, 5.0)]);
    rig.receive("raw.h1.x", AT, 7.0);
    rig.pass(5);
    rig.wait_for("sum.h1", &[(AT, 17.0)]);
    let stats = rig.carbon.stats();
    assert_eq!(stats.aggregated.get(), 14);
    assert_eq!(
        (stats.aggregates_sent.get(), stats.aggregated_late.get()),
        (5, 0)
    );
    // Closed intervals take no further points, which are stored themselves all the same.
    rig.pass(200);
    until(&rig.carbon, "the intervals close", || {
        rig.level("bufferedDatapoints") == 0.0
    });
    rig.receive("in.h1.y", AT, 9.0);
    rig.wait_for("kept.h1.y", &[(AT, 9.0)]);
    assert_eq!(
        (stats.aggregated.get(), stats.aggregated_late.get()),
        (14, 2)
    );
}

#[test]
fn rules_hold_for_ids_too_and_follow_the_files() {
    let rig = open(
        &[
            ("deny", "^b$\n"),
            ("rewrite_rules", ""),
            ("aggregation_rules", "sum (10) = sum m.*\n"),
        ],
        |_| {},
    )
    .unwrap();
    let sink = rig.carbon.ruled_sink(Span::seconds(10));
    let [a, b, x] = ["a", "b", "m.x"].map(|name| sink.intern(name.as_bytes()).unwrap());
    let submit = |at: u32| {
        let points = [a, b, x].map(|series| Datapoint {
            series,
            at: time(at),
            value: 2.0,
        });
        sink.submit(&points);
    };
    submit(AT);
    rig.wait_for("a", &[(AT, 2.0)]);
    rig.wait_for("m.x", &[(AT, 2.0)]);
    assert_eq!((rig.counts().0, rig.values("b").len()), (1, 0));
    rig.pass(5);
    rig.wait_for("sum", &[(AT, 2.0)]);
    // No id is asked for again: the old ones follow the new rules.
    rig.rewrite("deny", "^a$\n");
    rig.rewrite("rewrite_rules", "[post]\n^b$ = c\n");
    rig.rewrite(
        "aggregation_rules",
        "sum (10) = sum m.*\ncount (10) = count m.*\n",
    );
    until(&rig.carbon, "the new rules", || {
        submit(AT + 10);
        !rig.values("c").is_empty() && rig.counts().0 > 1
    });
    submit(AT + 20);
    assert!(!rig.values("a").contains_key(&(AT + 20)) && rig.values("b").is_empty());
    rig.pass(5);
    // The files are read one after the other: this rule may come after those above.
    until(&rig.carbon, "an aggregate of the new rule", || {
        submit(AT + 20);
        rig.values("count").contains_key(&(AT + 20))
    });
    // The rule that stayed has kept its interval.
    rig.receive("m.y", AT, 5.0);
    rig.pass(6);
    until(&rig.carbon, "a late point", || {
        rig.values("sum").get(&AT) == Some(&7.0)
    });
    // Files with a fault leave the rules as they are.
    let refused = rig.carbon.stats().rules_refused.get();
    rig.rewrite("deny", "^c$\n(\n");
    rig.rewrite("aggregation_rules", "sum (0) = sum m.*\n");
    until(&rig.carbon, "both are refused", || {
        rig.carbon.stats().rules_refused.get() >= refused + 2
    });
    let denied = rig.counts().0;
    submit(AT + 30);
    assert_eq!(rig.counts().0, denied + 1);
    sink.release(&[a, b, x]);
}

#[test]
fn received_names_follow_the_files() {
    let rig = open(&[("deny", "")], |_| {}).unwrap();
    rig.receive("a", AT, 1.0);
    rig.receive("b", AT, 1.0);
    rig.rewrite("deny", "^a$\n");
    until(&rig.carbon, "the list", || {
        rig.receive("a", AT + 10, 1.0);
        rig.counts().0 > 0
    });
    rig.receive("b", AT + 10, 1.0);
    rig.wait_for("b", &[(AT, 1.0), (AT + 10, 1.0)]);
    rig.rewrite("deny", "# nothing\n");
    until(&rig.carbon, "the list", || {
        rig.receive("a", AT + 20, 1.0);
        rig.values("a").contains_key(&(AT + 20))
    });
}

#[test]
fn only_aggregates_are_stored_if_points_are_not_forwarded() {
    let files = [("aggregation_rules", "sum (10) = sum m.*\n")];
    let rig = open(&files, |options| options.aggregation_forward_all = false).unwrap();
    rig.receive("m.x", AT, 1.0);
    rig.receive("other", AT, 1.0);
    rig.pass(5);
    rig.wait_for("sum", &[(AT, 1.0)]);
    assert!(rig.values("m.x").is_empty() && rig.values("other").is_empty());
    assert_eq!(rig.carbon.stats().received.get(), 1);
}

#[test]
fn a_rule_makes_so_many_series_and_no_more() {
    let files = [(
        "aggregation_rules",
        "sum.<x> (10) = sum m.<x>\nall (10) = count m.*\n",
    )];
    let rig = open(&files, |options| options.aggregation_max_series = 3).unwrap();
    for n in 0..10 {
        rig.receive(&format!("m.x{n}"), AT, 1.0);
        rig.receive(&format!("m.x{n}"), AT, 1.0);
    }
    rig.pass(5);
    rig.wait_for("all", &[(AT, 20.0)]);
    for n in 0..10 {
        assert_eq!(rig.values(&format!("sum.x{n}")).len(), usize::from(n < 3));
        assert_eq!(rig.values(&format!("m.x{n}")).len(), 1);
    }
    assert_eq!(rig.carbon.stats().aggregated_full.get(), 14);
}

#[test]
fn names_of_no_file_and_limits_are_counted_as_ever() {
    let files = [("rewrite_rules", "[post]\n/ = .\n^bad = a\\0b\n^long = ..\n")];
    let rig = open(&files, |options| options.max_series = 1).unwrap();
    let stats = rig.carbon.stats();
    rig.receive("x/y", AT, 1.0);
    rig.wait_for("x.y", &[(AT, 1.0)]);
    for _ in 0..2 {
        rig.receive("bad", AT, 1.0);
        rig.receive("long", AT, 1.0);
        rig.receive("new", AT, 1.0);
    }
    assert_eq!(
        (stats.rejected_name.get(), stats.rejected_series.get()),
        (4, 2)
    );
    let sink = rig.carbon.ruled_sink(Span::seconds(10));
    let refused = sink.intern(b"new").unwrap_err();
    assert!(matches!(refused, NameError::Limit(_)), "{refused:?}");
    assert_eq!(sink.intern(b"bad"), Err(NameError::Forbidden));
    assert!(sink.intern(b"x/y").is_ok());
    assert_eq!(sink.intern(b"\xff"), Err(NameError::NotUtf8));
}

#[test]
fn a_shutdown_stores_what_aggregates_hold() {
    let rig = open(&[("aggregation_rules", "sum (60) = sum m.*\n")], |_| {}).unwrap();
    rig.receive("m.x", NOW - 5, 1.0);
    rig.receive("m.y", NOW - 5, 2.0);
    rig.carbon.drain(|_| {}).unwrap();
    assert_eq!(rig.values("sum").into_values().collect::<Vec<_>>(), [3.0]);
}

#[test]
fn a_bad_file_refuses_the_start_with_its_line() {
    for (key, text, line) in [
        ("allow", "^a\n(\n", 2),
        ("rewrite_rules", "[pre]\n^a = \\1\n", 2),
        ("aggregation_rules", "# one\nout (10) = average in\n", 2),
    ] {
        let Err(error) = open(&[(key, text)], |_| {}) else {
            panic!("{key} is accepted");
        };
        let shown = error.to_string();
        let place = format!("{key}:{line}: ");
        assert!(shown.contains(&place), "{shown}");
    }
    // As in carbon, a file that does not exist counts as an empty one.
    let missing = |options: &mut Options| {
        options.allow = Path::new("/nonexistent/allow").to_str().unwrap().to_owned();
    };
    let rig = open(&[], missing).unwrap();
    rig.receive("a", AT, 1.0);
    rig.wait_for("a", &[(AT, 1.0)]);
}
