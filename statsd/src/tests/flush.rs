//! What the recordings do not cover.

use super::Harness;
use crate::kind::Kind;
use crate::options::{Choice, Options};

#[test]
fn lines_that_end_the_reference_do_no_harm() {
    let mut harness = Harness::new(&Options::default());
    for packet in [
        "x:1|c|@+0.1",
        "x:1|c|@ 0.5",
        "constructor:1|ms",
        "toString:1|s",
        "constructor:1|c",
        "valueOf:+1|g",
        "__proto__:1|c",
        "members:__proto__|s",
        "",
        "\n\n\n",
        ":",
        "|",
        "::::",
        "||||",
        "a:|:|c",
        "a:1|c|@|#|c:",
        "\0\u{1}:1|c",
    ] {
        harness.packet(packet.as_bytes());
    }
    let lines = harness.flush_values();
    for expected in [
        "stats_counts.constructor 1",
        "stats_counts.__proto__ 1",
        "stats.gauges.valueOf 1",
        "stats.sets.toString.count 1",
        "stats.sets.members.count 1",
        "stats.timers.constructor.count 1",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected}");
    }
}

#[test]
fn deleted_names_come_back() {
    let mut harness = Harness::new(&Options {
        delete_idle_stats: true,
        ..Options::default()
    });
    harness.packet(b"c:1|c\ng:5|g\ns:a|s\nt:1|ms");
    assert!(harness.flush_values().len() > 10);
    for _ in 0..20 {
        assert_eq!(harness.flush_values(), [""; 0]);
    }
    assert_eq!(harness.aggregator.registry().len(), 4);
    harness.packet(b"c:2|c\ng:-5|g");
    assert_eq!(
        harness.flush_values(),
        ["stats.c 0.2", "stats.gauges.g -5", "stats_counts.c 2"]
    );
}

#[test]
fn names_that_come_and_go_take_no_more_room() {
    let mut harness = Harness::new(&Options {
        delete_idle_stats: true,
        ..Options::default()
    });
    for round in 0..40 {
        for name in 0..500 {
            let spelled = format!("some name.{round}.{name}:1|c");
            harness.packet(spelled.as_bytes());
        }
        assert_eq!(harness.flush_values().len(), 1_000);
    }
    // Eight intervals' worth, and what the table has not collected yet.
    assert!(harness.aggregator.registry().len() < 9 * 500 + 10);
    assert!(harness.aggregator.registry().end() < 10 * 500 + 10);
}

#[test]
fn aliases_and_long_names_are_one_series() {
    let mut harness = Harness::new(&Options::default());
    let long = "node.".repeat(20);
    harness.packet(b"a b:1|c\na_b:1|c\na  b:1|c");
    harness.packet(format!("{long}x:1|c\n{long}y:1|c\n{long}x:1|c\n{long} x:1|g").as_bytes());
    harness.packet(b"t:1|c|#b:2,a:1\nt;a=1;b=2:1|c\nt:1|c|#a:1,b:2");
    let lines = harness.flush_values();
    for expected in [
        "stats_counts.a_b 3".to_owned(),
        format!("stats_counts.{long}x 2"),
        format!("stats_counts.{long}y 1"),
        format!("stats.gauges.{long}_x 1"),
        "stats_counts.t;a=1;b=2 3".to_owned(),
    ] {
        assert!(lines.contains(&expected), "{expected} in {lines:?}");
    }
}

/// The name lives on, what it was written as goes.
#[test]
fn idle_spellings_make_room_for_names() {
    let mut harness = Harness::new(&Options {
        max_names: 20,
        ..Options::default()
    });
    harness.packet(b"a_b:1|c\na b:1|c");
    for blanks in 0..30 {
        harness.packet(format!("a{}_b:1|c|#\n", "!".repeat(blanks + 1)).as_bytes());
    }
    let count = |lines: &[String], name: &str| {
        let of = format!("stats_counts.{name} ");
        let found = lines.iter().find_map(|line| line.strip_prefix(&of));
        found.map(str::to_owned)
    };
    // Those for which there was no room are counted all the same.
    assert_eq!(count(&harness.flush_values(), "a_b").as_deref(), Some("32"));
    let refused = |harness: &Harness| harness.shared.stats.names_refused.get();
    assert_eq!(refused(&harness), 0);
    harness.packet(b"new:1|c\nne w:1|c");
    assert_eq!(count(&harness.flush_values(), "new"), None);
    assert_eq!(refused(&harness), 2);
    // One of them goes on being used.
    for _ in 0..10 {
        harness.packet(b"a b:1|c");
        assert_eq!(count(&harness.flush_values(), "a_b").as_deref(), Some("1"));
    }
    for name in 0..18 {
        harness.packet(format!("new{name}:1|c").as_bytes());
    }
    let lines = harness.flush_values();
    for name in 0..18 {
        let name = format!("new{name}");
        assert_eq!(count(&lines, &name).as_deref(), Some("1"), "{name}");
    }
    assert_eq!(refused(&harness), 2);
    harness.packet(b"one_more:1|c\na!_b:1|c\na b:1|c");
    assert_eq!(count(&harness.flush_values(), "a_b").as_deref(), Some("2"));
    assert_eq!(refused(&harness), 3);
}

/// However names are written, and whenever: what was sent is what is flushed.
#[test]
fn spellings_that_come_and_go_lose_nothing() {
    for (max_names, delete) in [(0, false), (40, false), (0, true)] {
        let mut harness = Harness::new(&Options {
            max_names,
            delete_idle_stats: delete,
            ..Options::default()
        });
        let mut state = 11_u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        // There is room for each name, if not for its spellings.
        for name in 0..30 {
            harness.packet(format!("node.{name}:0|c").as_bytes());
        }
        harness.flush_values();
        for _ in 0..300 {
            let mut sent = 0;
            for _ in 0..random(60) {
                // Some are written in ways that come once, some in few, some are quiet for a while.
                let (name, way) = (random(30), random(3) * random(100_000));
                let line = format!("{}node.{name}:3|c", "!".repeat((way % 50) as usize));
                let line = match way % 3 {
                    0 => line,
                    1 => format!("{line}|#"),
                    _ => format!("{line}|#:{way}"),
                };
                harness.packet(line.as_bytes());
                sent += 3;
            }
            let lines = harness.flush_values();
            let counts = lines.iter().filter_map(|line| {
                let line = line.strip_prefix("stats_counts.node.")?;
                line.split_once(' ')?.1.parse::<u64>().ok()
            });
            let refused = harness.shared.stats.names_refused.get();
            assert_eq!((counts.sum::<u64>(), refused), (sent, 0));
        }
    }
}

#[test]
fn gauges_of_several_threads_add_up() {
    let mut harness = Harness::with(&Options::default(), 2, crate::raw::simd::Path::detect());
    harness.packet_to(0, b"g:10|g");
    assert_eq!(harness.flush_values(), ["stats.gauges.g 10"]);
    harness.packet_to(0, b"g:+1|g");
    harness.packet_to(1, b"g:+2|g");
    assert_eq!(harness.flush_values(), ["stats.gauges.g 13"]);
    harness.packet_to(1, b"g:-3|g");
    assert_eq!(harness.flush_values(), ["stats.gauges.g 10"]);
    harness.packet_to(0, b"s:a|s\ns:b|s");
    harness.packet_to(1, b"s:b|s\ns:c|s");
    assert!(
        harness
            .flush_values()
            .contains(&"stats.sets.s.count 3".to_owned())
    );
}

#[test]
fn limits_hold_and_are_counted() {
    let mut harness = Harness::new(&Options {
        max_names: 10,
        max_names_per_prefix: 3,
        prefix_nodes: 1,
        max_name_length: 100,
        ..Options::default()
    });
    for name in 0..20 {
        harness.packet(format!("a.{name}:1|c\nb{name}.x:1|c").as_bytes());
    }
    harness.packet(format!("{}:1|c", "x".repeat(101)).as_bytes());
    harness.end_interval();
    let lines = harness.flush_values();
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("stats_counts.a."))
            .count(),
        3
    );
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("stats_counts."))
            .count(),
        10
    );
}

/// Names that come and go do not use the limit up.
#[test]
fn forgotten_names_make_room_for_others() {
    for (line, prefix) in [
        ("1|c", "stats_counts.n"),
        ("1|kv", "n"),
        ("1|ms", "stats.timers.n"),
    ] {
        let mut harness = Harness::new(&Options {
            // Each name has two entries for nine intervals.
            max_names: 1_500,
            delete_idle_stats: true,
            calculated_timer_metrics: vec!["count".to_owned()],
            ..Options::default()
        });
        for round in 0..40 {
            for name in 0..50 {
                harness.packet(format!("n n.{round}.{name}:{line}").as_bytes());
            }
            let lines = harness.flush_values();
            let kept = lines.iter().filter(|line| line.starts_with(prefix));
            assert_eq!(kept.count(), 50, "{line} {round}");
        }
    }
}

/// Names of values that are stored by themselves are names, too; they go when they are idle.
#[test]
fn names_of_single_values_count_towards_the_limits() {
    let values = |lines: Vec<String>| {
        let of = |line: &String| line.starts_with("n") || line.starts_with("stats_counts.n");
        lines.into_iter().filter(of).count()
    };
    for line in ["1|kv", "1|r|1700000000", "1|c|T1700000000"] {
        for (options, most) in [
            (serde_json::json!({"max_names": 10}), 10),
            (serde_json::json!({"max_new_names": 7}), 7),
            (
                serde_json::json!({"max_names_per_prefix": 4, "prefix_nodes": 1}),
                4,
            ),
        ] {
            let mut harness = Harness::new(&serde_json::from_value(options).unwrap());
            for name in 0..20 {
                harness.packet(format!("n.{name}:{line}\nn.{name}:{line}").as_bytes());
            }
            harness.end_interval();
            let kept = values(harness.flush_values());
            assert_eq!(kept, 2 * most, "{line}");
            let refused = harness.shared.stats.names_refused.get();
            assert_eq!(refused, 40 - 2 * most as u64, "{line}");
        }
    }

    let mut harness = Harness::new(&Options::default());
    harness.packet(b"n.a:1|kv\nb:1|c");
    assert_eq!(values(harness.flush_values()), 1);
    let is_known = |harness: &Harness| {
        let registry = harness.aggregator.registry();
        registry.find(Kind::Raw, b"n.a").is_some()
    };
    assert!(is_known(&harness));
    // They are in no flush: nothing is repeated, and the number of series is that of `b` and of the server's own.
    harness.packet(b"n.a:1|kv");
    let lines = harness.flush();
    assert!(lines.contains(&"statsd.numStats 5 1700000020".to_owned()));
    for _ in 0..8 {
        assert!(is_known(&harness));
        assert_eq!(values(harness.flush_values()), 0);
    }
    assert!(!is_known(&harness));
    harness.packet(b"n.a:1|kv");
    assert_eq!(values(harness.flush_values()), 1);
}

/// Threads share the room below a prefix; a name that several of them know takes it once.
#[test]
fn the_limit_per_prefix_holds_over_all_threads() {
    let options = Options {
        max_names_per_prefix: 3,
        prefix_nodes: 1,
        delete_counters: Choice::Yes,
        ..Options::default()
    };
    let mut harness = Harness::with(&options, 3, crate::raw::simd::Path::detect());
    let names = |lines: &[String]| {
        let of = |line: &String| line.strip_prefix("stats_counts.a.").map(str::to_owned);
        lines.iter().filter_map(of).collect::<Vec<_>>()
    };
    for receiver in 0..3 {
        harness.packet_to(receiver, b"a.same:1|c");
        harness.packet_to(receiver, format!("a.own{receiver}:1|c").as_bytes());
    }
    assert_eq!(
        names(&harness.flush_values()),
        ["own0 1", "own1 1", "same 3"]
    );
    // Dropped names make room for others, and have to ask again.
    for _ in 0..10 {
        harness.flush_values();
    }
    for name in ["x", "y", "z", "same"] {
        harness.packet_to(2, format!("a.{name}:1|c").as_bytes());
    }
    assert_eq!(names(&harness.flush_values()), ["x 1", "y 1", "z 1"]);
}

#[test]
fn timers_beyond_exactness_are_close() {
    let mut exact = Harness::new(&Options::default());
    let mut rough = Harness::new(&Options {
        timer_exact_samples: 100,
        ..Options::default()
    });
    let mut state = 7_u64;
    for _ in 0..5_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let value = ((state >> 33) % 1_000_000) as f64 / 1_000.0;
        let line = format!("t:{value}|ms");
        exact.packet(line.as_bytes());
        rough.packet(line.as_bytes());
    }
    let (exact, rough) = (exact.flush_values(), rough.flush_values());
    assert_eq!(exact.len(), rough.len());
    for (exact, rough) in exact.iter().zip(&rough) {
        let (name, exact) = exact.split_once(' ').unwrap();
        let (same, rough) = rough.split_once(' ').unwrap();
        assert_eq!(name, same);
        let (exact, rough): (f64, f64) = (exact.parse().unwrap(), rough.parse().unwrap());
        assert!(
            (exact - rough).abs() <= exact * 0.001,
            "{name} {exact} {rough}"
        );
    }
}

#[test]
fn a_sample_after_the_end_belongs_to_the_next_interval() {
    let mut harness = Harness::new(&Options {
        delete_counters: Choice::Yes,
        ..Options::default()
    });
    for name in 0..20_000 {
        harness.packet(format!("c{name}:1|c\ng{name}:+1|g").as_bytes());
    }
    // Half swept, then more samples.
    harness
        .shared
        .epoch
        .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    harness.receivers[0].step();
    assert!(harness.receivers[0].is_sweeping());
    for name in 0..20_000 {
        let mut bytes = vec![0; 64];
        bytes.extend_from_slice(format!("c{name}:10|c\ng{name}:+10|g").as_bytes());
        let end = bytes.len();
        bytes.resize(end + 64, 0);
        harness.receivers[0].packet(&bytes, 64..end, None);
        harness.receivers[0].apply(&bytes);
    }
    while harness.receivers[0].is_sweeping() {
        harness.receivers[0].step();
    }
    harness
        .shared
        .epoch
        .fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    let sum = |lines: &[String], prefix: &str| -> f64 {
        lines
            .iter()
            .filter(|line| line.starts_with(prefix))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
            .sum()
    };
    let first = harness.flush_values();
    assert_eq!(sum(&first, "stats_counts.c"), 20_000.0);
    assert_eq!(sum(&first, "stats.gauges.g"), 20_000.0);
    let second = harness.flush_values();
    assert_eq!(sum(&second, "stats_counts.c"), 200_000.0);
    assert_eq!(sum(&second, "stats.gauges.g"), 220_000.0);
}

#[test]
fn events_are_handed_on_and_checks_are_gauges_too() {
    use crate::events::EventReport;

    let mut harness = Harness::new(&Options::default());
    harness.packet(b"_e{6,4}:deploy|v1.2|#web\n_sc|Redis|2|#env:dev\n_e{9,9}:x|y");
    let Ok(EventReport::Event(event)) = harness.events.try_recv() else {
        panic!("an event comes first");
    };
    assert_eq!((&*event.what, &*event.data), ("deploy", "v1.2"));
    assert!(matches!(
        harness.events.try_recv(),
        Ok(EventReport::Check(_))
    ));
    assert!(harness.events.try_recv().is_err());
    assert_eq!(
        harness.flush_values(),
        ["stats.gauges.service_checks.Redis;env=dev 2"]
    );
    let bad = harness.shared.stats.bad_lines_by_reason();
    assert_eq!(bad, [("malformed_event", 1)]);
}

/// The end of a line as Windows has it harms neither rates nor tags.
#[test]
fn carriage_returns_do_no_harm() {
    let mut harness = Harness::new(&Options::default());
    harness.packet(b"a:1|c\r\na:1|c|@0.5\r\nb:1|g|#k:v\r\nc:1|c|#k\r\nd:x|s\r\n_sc|e|1\r\n\r\n");
    let lines = harness.flush_values();
    for expected in [
        "stats_counts.a 3",
        "stats.gauges.b;k=v 1",
        "stats_counts.c;k=true 1",
        "stats.sets.d.count 1",
        "stats.gauges.service_checks.e 1",
    ] {
        assert!(
            lines.contains(&expected.to_owned()),
            "{expected} in {lines:?}"
        );
    }
    // The empty line has one character for the reference.
    assert_eq!(
        harness.shared.stats.bad_lines_by_reason(),
        [("no_colon", 1)]
    );
}

#[test]
fn thresholds_and_bins_named_twice_are_flushed_once() {
    let options = serde_json::json!({
        "percentiles": [50, 50.0, 90],
        "histogram": [{"metric": "", "bins": [10, 10, 20, 10]}],
    });
    let mut harness = Harness::new(&serde_json::from_value(options).unwrap());
    harness.packet(b"t:5|ms\nt:15|ms");
    let lines = harness.flush_values();
    for (line, count) in [
        ("stats.timers.t.count_50 1", 1),
        ("stats.timers.t.histogram.bin_10 1", 1),
        ("stats.timers.t.histogram.bin_20 1", 1),
    ] {
        assert_eq!(
            lines.iter().filter(|known| *known == line).count(),
            count,
            "{lines:?}"
        );
    }
}

/// A difference that comes in between the end of an interval and the end of its flush belongs to
/// a gauge that is gone.
#[test]
fn a_deleted_gauge_starts_from_nothing() {
    let mut harness = Harness::new(&Options {
        delete_gauges: Choice::Yes,
        ..Options::default()
    });
    harness.packet(b"g:225|g\nh:7|g");
    let epoch = &harness.shared.clone().epoch;
    epoch.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    harness.receivers[0].step();
    harness.packet(b"g:+1|g\nh:+1|g\nh:5|g\nh:+1|g");
    epoch.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(
        harness.flush_values(),
        ["stats.gauges.g 225", "stats.gauges.h 7"]
    );
    assert_eq!(
        harness.flush_values(),
        ["stats.gauges.g 1", "stats.gauges.h 6"]
    );
    assert!(harness.flush_values().is_empty());
}

/// A set has its other members, and its line if it has no others.
#[test]
fn members_that_are_too_long_are_refused_and_counted() {
    let mut harness = Harness::new(&Options {
        max_name_length: 100,
        ..Options::default()
    });
    let (fits, too_long) = ("x".repeat(100), "x".repeat(101));
    harness.packet(format!("s:{fits}|s\ns:{too_long}|s\ns:a|s\nt:{too_long}|s").as_bytes());
    assert_eq!(
        harness.flush_values(),
        ["stats.sets.s.count 2", "stats.sets.t.count 0"]
    );
    assert_eq!(harness.shared.stats.members_refused.get(), 2);
    assert_eq!(harness.shared.stats.bad_lines.get(), 0);
}

/// A sample that a receiver reports before the flush of the interval before stays with its name, even if that flush
/// finds the name idle, or an operator deletes it.
#[test]
fn samples_of_a_deleted_timer_are_not_those_of_another() {
    let options = Options {
        delete_timers: Choice::Yes,
        ..Options::default()
    };
    // As many samples as are reported before the interval ends.
    let many = "old:7|ms\n".repeat(4_096);
    let send = |harness: &mut Harness| (0..8).for_each(|_| harness.packet_to(1, many.as_bytes()));
    let of = |lines: &[String], name: &str| {
        let prefix = format!("stats.timers.{name}.");
        let of = |line: &String| line.strip_prefix(&prefix).map(str::to_owned);
        lines.iter().filter_map(of).collect::<Vec<_>>()
    };
    let expect = |lines: &[String], name: &str, expected: &[&str]| {
        let found = of(lines, name);
        for line in expected {
            assert!(found.iter().any(|found| found == line), "{found:?}");
        }
    };

    let mut harness = Harness::with(&options, 2, crate::raw::simd::Path::detect());
    harness.packet_to(1, b"old:7|ms");
    expect(&harness.flush_values(), "old", &["count 1"]);
    for _ in 0..7 {
        harness.flush_values();
    }
    // The interval in which it would be dropped ends, and receiver 1 is first in the next one.
    let shared = harness.shared.clone();
    shared
        .epoch
        .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    for receiver in &mut harness.receivers {
        receiver.step();
        assert!(!receiver.is_sweeping());
    }
    send(&mut harness);
    shared
        .epoch
        .fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(of(&harness.flush_values(), "old"), [""; 0]);
    harness.packet_to(0, b"new:1|ms");
    let lines = harness.flush_values();
    expect(&lines, "new", &["count 1", "upper 1", "sum 1"]);
    expect(&lines, "old", &["count 32768", "upper 7", "sum 229376"]);

    // The same where an operator deletes a name that has samples.
    send(&mut harness);
    harness.take_reports();
    let old = harness.aggregator.registry().find(Kind::Timer, b"old");
    let dropped = harness.aggregator.delete(&[old.unwrap()]);
    harness.forget(dropped, true);
    harness.packet_to(0, b"newer:1|ms");
    let lines = harness.flush_values();
    expect(&lines, "newer", &["count 1", "upper 1", "sum 1"]);
    assert_eq!(of(&lines, "old"), [""; 0]);
    // Then the place of its samples is free.
    let before = harness.aggregator.slots();
    harness.packet_to(0, b"newest:1|ms");
    expect(&harness.flush_values(), "newest", &["count 1"]);
    assert_eq!(harness.aggregator.slots(), before);
}

/// What an operator deletes goes with the samples that are not reported yet, which are not those of the next names.
#[test]
fn samples_of_many_deleted_timers_are_not_those_of_others() {
    let mut harness = Harness::new(&Options {
        delete_timers: Choice::Yes,
        ..Options::default()
    });
    let send = |harness: &mut Harness, name: &str, value: u32| {
        for number in 0..5_000 {
            harness.packet(format!("{name}{number}:{value}|ms").as_bytes());
        }
    };
    send(&mut harness, "old", 7);
    harness.flush_values();
    send(&mut harness, "old", 7);
    let registry = harness.aggregator.registry();
    let timers = registry
        .live()
        .filter(|(_, series)| series.kind() == Kind::Timer);
    let timers: Vec<u32> = timers.map(|(number, _)| number).collect();
    assert_eq!(timers.len(), 5_000);
    let dropped = harness.aggregator.delete(&timers);
    harness.forget(dropped, true);
    for name in ["new", "newer"] {
        send(&mut harness, name, 1);
        let lines = harness.flush_values();
        let of = |stat: &str| {
            let end = format!(".{stat} 1");
            let names = lines.iter().filter(|line| line.contains(name));
            names.filter(|line| line.ends_with(&end)).count()
        };
        assert_eq!((of("count"), of("upper"), of("sum")), (5_000, 5_000, 5_000));
    }
}

/// Without memory for further names those that are known go on.
#[test]
fn names_without_memory_are_refused_and_counted() {
    use crate::raw::memory::tests::DENIED;
    use std::sync::atomic::Ordering;

    let mut harness = Harness::new(&Options::default());
    let send = |harness: &mut Harness, names: std::ops::Range<u32>| {
        for name in names {
            harness.packet(format!("n{name}:1|c").as_bytes());
        }
    };
    let counted = |harness: &mut Harness| {
        let lines = harness.flush();
        let of = |line: &&String| line.starts_with("stats_counts.n");
        lines
            .iter()
            .filter(of)
            .filter(|line| line.contains(" 1 "))
            .count() as u64
    };
    send(&mut harness, 0..1_000);
    assert_eq!(counted(&mut harness), 1_000);
    DENIED.set(true);
    send(&mut harness, 0..40_000);
    let kept = counted(&mut harness);
    let refused = &harness.shared.stats.names_refused;
    let refused = refused.load(Ordering::Relaxed);
    assert!((1_000..40_000).contains(&kept), "{kept}");
    assert_eq!(kept + refused, 40_000);
    // Long names are elsewhere; they, too, may be forgotten and come back.
    let long = "long.name.".repeat(10);
    let counts = |harness: &mut Harness, names: std::ops::Range<u32>| {
        let before = harness.shared.stats.names_refused.get();
        for name in names {
            harness.packet(format!("{long}{name}:1|c").as_bytes());
        }
        let lines = harness.flush();
        let of = |line: &&String| line.starts_with("stats_counts.long") && line.contains(" 1 ");
        let kept = lines.iter().filter(of).count() as u64;
        (kept, harness.shared.stats.names_refused.get() - before)
    };
    assert_eq!(counts(&mut harness, 0..1_000), (0, 1_000));
    DENIED.set(false);
    assert_eq!(counts(&mut harness, 0..1_000), (1_000, 0));
    DENIED.set(true);
    let (kept, refused) = counts(&mut harness, 0..2_000);
    assert!((1_000..2_000).contains(&kept), "{kept}");
    assert_eq!(kept + refused, 2_000);
    // As soon as there is memory again all are taken.
    DENIED.set(false);
    send(&mut harness, 0..40_000);
    harness.flush();
    send(&mut harness, 0..40_000);
    assert_eq!(counted(&mut harness), 40_000);
}

/// A line of very many values with a long name would fill memory with copies of it, and time with making them.
#[test]
fn the_values_of_a_line_with_a_time_share_its_name() {
    use crate::report::Contents;
    use std::sync::{Arc, atomic::Ordering};

    let mut harness = Harness::new(&Options::default());
    harness.packet(b"a b:1:2:3|c|#k:v|T1700000000\na_b;k=v:4|g|T1700000000\n!:1:2|g|T1700000000");
    harness.shared.epoch.fetch_add(1, Ordering::SeqCst);
    harness.receivers[0].step();
    let found = harness
        .reports
        .try_iter()
        .find_map(|report| match report.contents {
            Contents::Points(points) => Some(points),
            _ => None,
        });
    let points = found.unwrap();
    let values: Vec<f64> = points.iter().map(|point| point.value).collect();
    assert_eq!(values, [1.0, 2.0, 3.0, 4.0]);
    assert!(points.iter().all(|point| *point.name == *b"a_b;k=v"));
    for point in &points[1..3] {
        assert!(Arc::ptr_eq(&point.name, &points[0].name));
    }
    let bad = harness.shared.stats.bad_lines_by_reason();
    assert_eq!(bad, [("empty_name", 2)]);
}

/// What is per second is of the time that the values are of; all else is as they are.
#[test]
fn rates_after_missed_flushes_are_of_all_the_time() {
    let options = Options {
        timer_exact_samples: 10,
        distributions: true,
        ..Options::default()
    };
    let mut harness = Harness::new(&options);
    let timer = "t:5|ms\n".repeat(60);
    let many = "m:5|ms\n".repeat(60_000);
    let packet = format!("c:60|c\n{timer}s:a|s\ns:b|s\na:3|a\nd:7|d\nown:60|c|T1700000000\n");
    for (intervals, seconds) in [(1, 10.0), (3, 30.0), (1, 10.0)] {
        harness.packet(packet.as_bytes());
        harness.packet(many.as_bytes());
        let lines = harness.flush_after(intervals);
        for (name, value) in [
            ("stats.c", 60.0 / seconds),
            ("stats_counts.c", 60.0),
            ("stats.timers.t.count_ps", 60.0 / seconds),
            ("stats.timers.t.count", 60.0),
            ("stats.timers.t.mean", 5.0),
            ("stats.timers.m.count_ps", 60_000.0 / seconds),
            ("stats.sets.s.count", 2.0),
            ("stats.averages.a", 3.0),
            ("stats.distributions.d.count", 1.0),
            // A value with its own time is of one interval of its client's.
            ("stats.own", 6.0),
            ("stats.statsd.packets_received", 2.0 / seconds),
        ] {
            let line = format!("{name} {} ", crate::number::text(value));
            let found = lines.iter().any(|found| found.starts_with(&line));
            assert!(found, "{line}in {lines:?}");
        }
    }
}

/// An interval ends without a thread that has died.
#[test]
fn a_thread_that_ends_says_so() {
    use crate::report::Contents;

    let harness = Harness::with(&Options::default(), 2, crate::raw::simd::Path::detect());
    let Harness {
        receivers, reports, ..
    } = harness;
    drop(receivers);
    let ended: Vec<usize> = reports
        .try_iter()
        .filter(|report| matches!(report.contents, Contents::Ended))
        .map(|report| report.receiver)
        .collect();
    assert_eq!(ended, [0, 1]);
}

/// As a type of its own a distribution is apart from a timer of the same name; otherwise it is one.
#[test]
fn distributions_are_a_type_of_their_own_if_wanted() {
    let packet = |harness: &mut Harness| {
        for value in 1..=100 {
            harness.packet(format!("x:{value}|d").as_bytes());
        }
        harness.packet(b"x:1000|d|@0.1|#a:b\nx:7|ms");
    };
    let mut timers = Harness::new(&Options::default());
    packet(&mut timers);
    let lines = timers.flush_values();
    assert!(lines.contains(&"stats.timers.x.count 101".to_owned()));
    assert!(lines.contains(&"stats.timers.x.count;a=b 10".to_owned()));
    assert!(!lines.iter().any(|line| line.contains("distributions")));

    let options = Options {
        distributions: true,
        ..Options::default()
    };
    let mut own = Harness::new(&options);
    packet(&mut own);
    let lines = own.flush_values();
    let untagged = |line: &String| {
        let rest = line.strip_prefix("stats.distributions.x.")?;
        (!rest.contains(';')).then(|| rest.to_owned())
    };
    assert_eq!(
        lines.iter().filter_map(untagged).collect::<Vec<_>>(),
        [
            "avg 50.5",
            "count 100",
            "max 100",
            "min 1",
            "p50 50",
            "p75 75",
            "p90 90",
            "p95 95",
            "p99 99",
            "sum 5050"
        ]
    );
    assert!(lines.contains(&"stats.distributions.x.count;a=b 10".to_owned()));
    assert!(lines.contains(&"stats.distributions.x.p50;a=b 1000".to_owned()));
    assert!(lines.contains(&"stats.timers.x.count 1".to_owned()));
    // Without samples there is nothing to say.
    let idle = own.flush_values();
    assert!(
        !idle.iter().any(|line| line.contains("distributions")),
        "{idle:?}"
    );
}

/// Samples that no longer fit one by one survive a restart, too, of every type.
#[test]
fn sample_buffers_come_back_as_the_type_that_they_were() {
    use crate::state::{self, Extent};

    let options = Options {
        distributions: true,
        timer_exact_samples: 10,
        ..Options::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let mut before = Harness::new(&options);
    // More than a log holds before it is folded.
    for _ in 0..100 {
        let lines = "a:3|a\na:5|a\nt:3|ms\nd:3|d\n".repeat(1_000);
        before.packet(lines.as_bytes());
    }
    before.end_interval();
    state::save(&path, &mut before.aggregator, 0, Extent::All).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    for letter in ["q a ", "p t ", "e d "] {
        assert!(
            text.lines().any(|line| line.starts_with(letter)),
            "{letter}"
        );
    }
    let mut after = Harness::new(&options);
    let restored = state::load(&path, &mut after.aggregator, 0)
        .unwrap()
        .unwrap();
    assert_eq!(restored.unread, 0);
    assert!(
        restored
            .preloads
            .iter()
            .all(|preload| preload.name.starts_with(b"statsd."))
    );
    let lines = after.flush_values();
    for expected in [
        "stats.averages.a 4",
        "stats.timers.t.count 100000",
        "stats.timers.t.mean 3",
        "stats.distributions.d.count 100000",
        "stats.distributions.d.sum 300000",
    ] {
        assert!(
            lines.contains(&expected.to_owned()),
            "{expected} in {lines:?}"
        );
    }
}
