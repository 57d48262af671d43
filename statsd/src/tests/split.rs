//! However lines are spread over packets, and whatever instructions read them, the flush is one.

use proptest::prelude::*;

use super::Bench;
use crate::options::Options;
use crate::simd::Path;

fn line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "[a-c]{1,2}",
        "[a-c .;=/#,|]{1,12}",
        Just("a.very.long.name.that.does.not.fit.into.one.cache.line".to_owned()),
    ];
    let value = prop_oneof![
        "[0-9]{1,9}",
        "[-+]?[0-9]{0,3}\\.?[0-9]{0,4}",
        "[a-z:]{0,3}",
        "[0-9]:[0-9]:[0-9]"
    ];
    let kind = prop_oneof![
        Just("c"),
        Just("ms"),
        Just("g"),
        Just("s"),
        Just("h"),
        Just("a"),
        Just("d"),
        Just("m"),
        Just("kv"),
        Just("x"),
        Just("")
    ];
    let rest = prop_oneof![
        6 => Just(String::new()),
        1 => Just("|@0.5".to_owned()),
        1 => Just("|@".to_owned()),
        1 => Just("|#a:b,c".to_owned()),
        1 => Just("|c:1|T1700000000".to_owned()),
        1 => Just(":4|c".to_owned()),
        1 => "[ -~]{0,10}".prop_map(|text| format!("|{text}")),
    ];
    prop_oneof![
        9 => (name, value, kind, rest)
            .prop_map(|(name, value, kind, rest)| format!("{name}:{value}|{kind}{rest}")),
        1 => "[ -~]{0,40}",
    ]
}

/// Flushes `lines` cut into packets after each line whose number is in `cuts`.
fn flushed(lines: &[String], cuts: &[bool], path: Path) -> Vec<String> {
    let mut bench = Bench::with(&Options::default(), 1, path);
    let mut packet = String::new();
    for (at, line) in lines.iter().enumerate() {
        packet.push_str(line);
        if cuts.get(at) == Some(&true) {
            bench.packet(packet.as_bytes());
            packet.clear();
        } else {
            packet.push('\n');
        }
    }
    bench.packet(packet.as_bytes());
    let mut values = bench.flush_values();
    values.extend(bench.flush_values());
    let stats = &bench.shared.stats;
    values.push(format!("bad {:?}", stats.bad_lines_by_reason()));
    let lines = stats.metrics.load(std::sync::atomic::Ordering::Relaxed);
    values.push(format!("lines {lines}"));
    values
}

proptest! {
    #[test]
    fn any_split_gives_the_same_flush(
        lines in prop::collection::vec(line(), 0..60),
        cuts in prop::collection::vec(any::<bool>(), 60),
    ) {
        let whole = flushed(&lines, &[], Path::detect());
        prop_assert_eq!(&flushed(&lines, &cuts, Path::detect()), &whole);
        prop_assert_eq!(&flushed(&lines, &cuts, Path::Scalar), &whole);
    }

    #[test]
    fn any_bytes_are_read_alike(packet in prop::collection::vec(
        prop_oneof![
            4 => Just(b':'), 4 => Just(b'|'), 2 => Just(b'\n'), 1 => Just(b'@'), 1 => Just(b'#'),
            4 => b'0'..=b'9', 2 => Just(b'c'), 2 => Just(b'm'), 2 => Just(b's'), 2 => Just(b'g'),
            4 => any::<u8>(),
        ],
        0..300,
    )) {
        let run = |path| {
            let mut bench = Bench::with(&Options::default(), 1, path);
            bench.packet(&packet);
            (bench.flush_values(), bench.shared.stats.bad_lines_by_reason())
        };
        prop_assert_eq!(run(Path::Scalar), run(Path::detect()));
    }
}
