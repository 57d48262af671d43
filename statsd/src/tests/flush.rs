//! What the recordings do not cover.

use super::Bench;
use crate::options::{Choice, Options};

#[test]
fn lines_that_end_the_reference_do_no_harm() {
    let mut bench = Bench::new(&Options::default());
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
        bench.packet(packet.as_bytes());
    }
    let lines = bench.flush_values();
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
    let mut bench = Bench::new(&Options {
        delete_idle_stats: true,
        ..Options::default()
    });
    bench.packet(b"c:1|c\ng:5|g\ns:a|s\nt:1|ms");
    assert!(bench.flush_values().len() > 10);
    for _ in 0..20 {
        assert_eq!(bench.flush_values(), [""; 0]);
    }
    assert_eq!(bench.book.names.len(), 4);
    bench.packet(b"c:2|c\ng:-5|g");
    assert_eq!(
        bench.flush_values(),
        ["stats.c 0.2", "stats.gauges.g -5", "stats_counts.c 2"]
    );
}

#[test]
fn names_that_come_and_go_take_no_more_room() {
    let mut bench = Bench::new(&Options {
        delete_idle_stats: true,
        ..Options::default()
    });
    for round in 0..40 {
        for name in 0..500 {
            let spelled = format!("some name.{round}.{name}:1|c");
            bench.packet(spelled.as_bytes());
        }
        assert_eq!(bench.flush_values().len(), 1_000);
    }
    // Eight intervals' worth, and what the table has not collected yet.
    assert!(bench.book.names.len() < 9 * 500 + 10);
    assert!(bench.book.names.rows.len() < 10 * 500 + 10);
}

#[test]
fn aliases_and_long_names_are_one_series() {
    let mut bench = Bench::new(&Options::default());
    let long = "node.".repeat(20);
    bench.packet(b"a b:1|c\na_b:1|c\na  b:1|c");
    bench.packet(format!("{long}x:1|c\n{long}y:1|c\n{long}x:1|c\n{long} x:1|g").as_bytes());
    bench.packet(b"t:1|c|#b:2,a:1\nt;a=1;b=2:1|c\nt:1|c|#a:1,b:2");
    let lines = bench.flush_values();
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

#[test]
fn gauges_of_several_threads_add_up() {
    let mut bench = Bench::with(&Options::default(), 2, crate::raw::simd::Path::detect());
    bench.packet_to(0, b"g:10|g");
    assert_eq!(bench.flush_values(), ["stats.gauges.g 10"]);
    bench.packet_to(0, b"g:+1|g");
    bench.packet_to(1, b"g:+2|g");
    assert_eq!(bench.flush_values(), ["stats.gauges.g 13"]);
    bench.packet_to(1, b"g:-3|g");
    assert_eq!(bench.flush_values(), ["stats.gauges.g 10"]);
    bench.packet_to(0, b"s:a|s\ns:b|s");
    bench.packet_to(1, b"s:b|s\ns:c|s");
    assert!(
        bench
            .flush_values()
            .contains(&"stats.sets.s.count 3".to_owned())
    );
}

#[test]
fn limits_hold_and_are_counted() {
    let mut bench = Bench::new(&Options {
        max_names: 10,
        max_names_per_prefix: 3,
        prefix_nodes: 1,
        max_name_length: 100,
        ..Options::default()
    });
    for name in 0..20 {
        bench.packet(format!("a.{name}:1|c\nb{name}.x:1|c").as_bytes());
    }
    bench.packet(format!("{}:1|c", "x".repeat(101)).as_bytes());
    bench.turn();
    let lines = bench.flush_values();
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

/// Threads share the room below a prefix; a name that several of them know takes it once.
#[test]
fn the_limit_per_prefix_holds_over_all_threads() {
    let options = Options {
        max_names_per_prefix: 3,
        prefix_nodes: 1,
        delete_counters: Choice::Yes,
        ..Options::default()
    };
    let mut bench = Bench::with(&options, 3, crate::raw::simd::Path::detect());
    let names = |lines: &[String]| {
        let of = |line: &String| line.strip_prefix("stats_counts.a.").map(str::to_owned);
        lines.iter().filter_map(of).collect::<Vec<_>>()
    };
    for intake in 0..3 {
        bench.packet_to(intake, b"a.same:1|c");
        bench.packet_to(intake, format!("a.own{intake}:1|c").as_bytes());
    }
    assert_eq!(names(&bench.flush_values()), ["own0 1", "own1 1", "same 3"]);
    // Dropped names make room for others, and have to ask again.
    for _ in 0..10 {
        bench.flush_values();
    }
    for name in ["x", "y", "z", "same"] {
        bench.packet_to(2, format!("a.{name}:1|c").as_bytes());
    }
    assert_eq!(names(&bench.flush_values()), ["x 1", "y 1", "z 1"]);
}

#[test]
fn timers_beyond_exactness_are_close() {
    let mut exact = Bench::new(&Options::default());
    let mut rough = Bench::new(&Options {
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
fn a_sample_after_the_turn_belongs_to_the_next_interval() {
    let mut bench = Bench::new(&Options {
        delete_counters: Choice::Yes,
        ..Options::default()
    });
    for name in 0..20_000 {
        bench.packet(format!("c{name}:1|c\ng{name}:+1|g").as_bytes());
    }
    // Half swept, then more samples.
    bench
        .shared
        .epoch
        .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    bench.intakes[0].step();
    assert!(bench.intakes[0].is_sweeping());
    for name in 0..20_000 {
        let mut bytes = vec![0; 64];
        bytes.extend_from_slice(format!("c{name}:10|c\ng{name}:+10|g").as_bytes());
        let end = bytes.len();
        bytes.resize(end + 64, 0);
        bench.intakes[0].packet(&bytes, 64..end, None);
        bench.intakes[0].settle(&bytes);
    }
    while bench.intakes[0].is_sweeping() {
        bench.intakes[0].step();
    }
    bench
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
    let first = bench.flush_values();
    assert_eq!(sum(&first, "stats_counts.c"), 20_000.0);
    assert_eq!(sum(&first, "stats.gauges.g"), 20_000.0);
    let second = bench.flush_values();
    assert_eq!(sum(&second, "stats_counts.c"), 200_000.0);
    assert_eq!(sum(&second, "stats.gauges.g"), 220_000.0);
}

#[test]
fn events_become_marks_and_checks_a_gauge_too() {
    use crate::receive::MarkReport;

    let mut bench = Bench::new(&Options::default());
    bench.packet(b"_e{6,4}:deploy|v1.2|#web\n_sc|Redis|2|#env:dev\n_e{9,9}:x|y");
    let Ok(MarkReport::Event(mark)) = bench.marks.try_recv() else {
        panic!("an event comes first");
    };
    assert_eq!((&*mark.what, &*mark.data), ("deploy", "v1.2"));
    assert!(matches!(bench.marks.try_recv(), Ok(MarkReport::Check(_))));
    assert!(bench.marks.try_recv().is_err());
    assert_eq!(
        bench.flush_values(),
        ["stats.gauges.service_checks.Redis;env=dev 2"]
    );
    let bad = bench.shared.stats.bad_lines_by_reason();
    assert_eq!(bad, [("malformed_event", 1)]);
}

/// The end of a line as Windows has it harms neither rates nor tags.
#[test]
fn carriage_returns_do_no_harm() {
    let mut bench = Bench::new(&Options::default());
    bench.packet(b"a:1|c\r\na:1|c|@0.5\r\nb:1|g|#k:v\r\nc:1|c|#k\r\nd:x|s\r\n_sc|e|1\r\n\r\n");
    let lines = bench.flush_values();
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
    assert_eq!(bench.shared.stats.bad_lines_by_reason(), [("no_colon", 1)]);
}

#[test]
fn thresholds_and_bins_named_twice_are_flushed_once() {
    let options = serde_json::json!({
        "percentiles": [50, 50.0, 90],
        "histogram": [{"metric": "", "bins": [10, 10, 20, 10]}],
    });
    let mut bench = Bench::new(&serde_json::from_value(options).unwrap());
    bench.packet(b"t:5|ms\nt:15|ms");
    let lines = bench.flush_values();
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
    let mut bench = Bench::new(&Options {
        delete_gauges: Choice::Yes,
        ..Options::default()
    });
    bench.packet(b"g:225|g\nh:7|g");
    let epoch = &bench.shared.clone().epoch;
    epoch.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    bench.intakes[0].step();
    bench.packet(b"g:+1|g\nh:+1|g\nh:5|g\nh:+1|g");
    epoch.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(
        bench.flush_values(),
        ["stats.gauges.g 225", "stats.gauges.h 7"]
    );
    assert_eq!(
        bench.flush_values(),
        ["stats.gauges.g 1", "stats.gauges.h 6"]
    );
    assert!(bench.flush_values().is_empty());
}

/// Without memory for further names those that are known go on.
#[test]
fn names_without_memory_are_refused_and_counted() {
    use crate::raw::memory::tests::DENIED;
    use std::sync::atomic::Ordering;

    let mut bench = Bench::new(&Options::default());
    let send = |bench: &mut Bench, names: std::ops::Range<u32>| {
        for name in names {
            bench.packet(format!("n{name}:1|c").as_bytes());
        }
    };
    let counted = |bench: &mut Bench| {
        let lines = bench.flush();
        let of = |line: &&String| line.starts_with("stats_counts.n");
        lines
            .iter()
            .filter(of)
            .filter(|line| line.contains(" 1 "))
            .count() as u64
    };
    send(&mut bench, 0..1_000);
    assert_eq!(counted(&mut bench), 1_000);
    DENIED.set(true);
    send(&mut bench, 0..40_000);
    let kept = counted(&mut bench);
    let refused = &bench.shared.stats.names_refused;
    let refused = refused.load(Ordering::Relaxed);
    assert!((1_000..40_000).contains(&kept), "{kept}");
    assert_eq!(kept + refused, 40_000);
    // As soon as there is memory again all are taken.
    DENIED.set(false);
    send(&mut bench, 0..40_000);
    bench.flush();
    send(&mut bench, 0..40_000);
    assert_eq!(counted(&mut bench), 40_000);
}

/// An interval ends without a thread that has died.
#[test]
fn a_thread_that_ends_says_so() {
    use crate::receive::What;

    let bench = Bench::with(&Options::default(), 2, crate::raw::simd::Path::detect());
    let Bench {
        intakes, reports, ..
    } = bench;
    drop(intakes);
    let ended: Vec<usize> = reports
        .try_iter()
        .filter(|report| matches!(report.what, What::Ended))
        .map(|report| report.intake)
        .collect();
    assert_eq!(ended, [0, 1]);
}
