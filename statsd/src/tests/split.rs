//! The flush does not depend on how lines are spread over packets, threads and pieces of streams, or
//! on the instructions that read them.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};

use super::Harness;
use crate::listener::{Block, Peer};
use crate::options::Options;
use crate::raw::simd::Path;
use crate::report::Shared;
use crate::stream;
use crate::token::MARGIN;

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
    let mut harness = Harness::with(&Options::default(), 1, path);
    let mut packet = String::new();
    for (at, line) in lines.iter().enumerate() {
        packet.push_str(line);
        if cuts.get(at) == Some(&true) {
            harness.packet(packet.as_bytes());
            packet.clear();
        } else {
            packet.push('\n');
        }
    }
    harness.packet(packet.as_bytes());
    let mut values = harness.flush_values();
    values.extend(harness.flush_values());
    let stats = &harness.shared.stats;
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
            let mut harness = Harness::with(&Options::default(), 1, path);
            harness.packet(&packet);
            (harness.flush_values(), harness.shared.stats.bad_lines_by_reason())
        };
        prop_assert_eq!(run(Path::Scalar), run(Path::detect()));
    }
}

/// Lines of one of three senders. Sums do not depend on the order in which they are made: all
/// numbers are multiples of an eighth. Each sender has gauges of its own.
fn sent() -> impl Strategy<Value = (usize, String)> {
    let name = prop_oneof![
        4 => "[a-c]{1,2}",
        1 => "[a-c ./]{1,6}",
        1 => Just("a.very.long.name.that.does.not.fit.into.one.cache.line".to_owned()),
    ];
    let value = prop_oneof![
        (0..4_000_u32).prop_map(|eighths| (f64::from(eighths) / 8.0).to_string()),
        (0..100_000_000_u32).prop_map(|number| number.to_string()),
        "[a-d]{0,2}",
        "[0-9]:[0-9]:[0-9]",
    ];
    let kind = prop::sample::select(vec![
        "c", "ms", "s", "h", "a", "d", "m", "g", "g", "kv", "x", "",
    ]);
    let rest = prop_oneof![
        6 => Just(""), 2 => Just("|@0.5"), 1 => Just("|@0"), 1 => Just("|#t:u,b"),
        1 => Just("|#b,t:u|@0.25"), 1 => Just(":4|c"), 1 => Just("\r"), 1 => Just("|c:1|T1700000000"),
    ];
    let change = prop::sample::select(vec!["", "+", "-"]);
    (0..3_usize, name, change, value, kind, rest).prop_map(
        |(sender, name, change, value, kind, rest)| match kind {
            "g" => (sender, format!("{name}{sender}:{change}{value}|g{rest}")),
            _ => (sender, format!("{name}:{value}|{kind}{rest}")),
        },
    )
}

type Rounds = Vec<Vec<(usize, String)>>;

/// What the intervals come to, and what was counted.
fn outcome(
    mut harness: Harness,
    rounds: &Rounds,
    mut take: impl FnMut(&mut Harness, &[(usize, String)]),
) -> Vec<Vec<String>> {
    let mut flushes = Vec::new();
    for round in rounds {
        take(&mut harness, round);
        flushes.push(harness.flush_values());
    }
    let stats = &harness.shared.stats;
    flushes.push(vec![
        format!("bad {:?}", stats.bad_lines_by_reason()),
        format!("lines {}", stats.metrics.get()),
    ]);
    flushes
}

/// Each sender's lines on a connection of its own, in pieces of these lengths; divided by line feeds,
/// or in packets of so many lines with their lengths before them.
fn through_streams(
    harness: &mut Harness,
    lines: &[(usize, String)],
    pieces: &[usize],
    packets: Option<usize>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for sender in 0..3 {
        let own = lines.iter().filter(|(from, _)| *from == sender);
        let own: Vec<&str> = own.map(|(_, line)| &**line).collect();
        // The last line counts without its end, too.
        let text = match packets {
            None => own.join("\n").into_bytes(),
            Some(count) => own
                .chunks(count)
                .map(|lines| lines.join("\n"))
                .flat_map(|packet| {
                    [&(packet.len() as u32).to_le_bytes(), packet.as_bytes()].concat()
                })
                .collect(),
        };
        let blocks = runtime.block_on(async {
            let (mut writer, reader) = tokio::io::duplex(1 << 20);
            let (blocks_in, mut blocks) = mpsc::channel(100_000);
            let (_stop, stopping) = watch::channel(false);
            let shared = Arc::new(Shared::default());
            let reading =
                stream::connection(reader, None, blocks_in, shared, stopping, Peer::alone());
            let writing = async {
                let mut rest = &text[..];
                let mut lengths = pieces.iter().cycle();
                while !rest.is_empty() {
                    let (piece, after) =
                        rest.split_at(lengths.next().unwrap().min(&rest.len()).to_owned());
                    writer.write_all(piece).await.unwrap();
                    // Lets the reader have exactly this piece.
                    tokio::task::yield_now().await;
                    rest = after;
                }
                drop(writer);
            };
            tokio::join!(reading, writing);
            let mut found = Vec::new();
            while let Ok(Block::Lines(bytes, _)) = blocks.try_recv() {
                found.push(bytes);
            }
            found
        });
        for block in blocks {
            harness.receivers[0].packet(&block, MARGIN..block.len() - MARGIN, None);
            harness.receivers[0].apply(&block);
            harness.receivers[0].step();
        }
    }
}

proptest! {
    #[test]
    fn any_way_in_gives_the_same_flush(
        rounds in prop::collection::vec(prop::collection::vec(sent(), 0..40), 1..4),
        packed in prop::collection::vec(1..6_usize, 8),
        pieces in prop::collection::vec(1..50_usize, 8),
    ) {
        let harness = |receivers, path| Harness::with(&Options::default(), receivers, path);
        let expected = outcome(harness(1, Path::Scalar), &rounds, |harness, lines| {
            for (_, line) in lines {
                harness.packet(line.as_bytes());
            }
        });
        // A socket and a thread for each sender, with several lines in a packet.
        let by_threads = outcome(harness(3, Path::detect()), &rounds, |harness, lines| {
            for sender in 0..3 {
                let own = lines.iter().filter(|(from, _)| *from == sender);
                let mut own: Vec<&str> = own.map(|(_, line)| &**line).collect();
                for count in packed.iter().cycle() {
                    if own.is_empty() {
                        break;
                    }
                    let packet: Vec<_> = own.drain(..own.len().min(*count)).collect();
                    harness.packet_to(sender, packet.join("\n").as_bytes());
                }
            }
        });
        prop_assert_eq!(&by_threads, &expected);
        let by_streams = outcome(harness(1, Path::detect()), &rounds, |harness, lines| {
            through_streams(harness, lines, &pieces, None);
        });
        prop_assert_eq!(&by_streams, &expected);
        let by_packets = outcome(harness(1, Path::detect()), &rounds, |harness, lines| {
            through_streams(harness, lines, &pieces, Some(packed[0]));
        });
        prop_assert_eq!(&by_packets, &expected);
    }
}
