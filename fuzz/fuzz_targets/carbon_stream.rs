//! A stream of Graphite's lines: however it is cut, the datapoints and the counted refusals are
//! those of the whole. The byte 0xff stands for many letters, so that lines get too long.
#![no_main]

use std::path::Path;

use carbon::index::Index;
use carbon::protocol::line::{MAX_LINE, Stream, read};
use carbon::protocol::{Buffer, Metrics, Resolver};
use carbon::stats::Stats;
use carbon::{Datapoint, Timestamp};
use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::bytes::Bytes;

const NOW: Timestamp = Timestamp(1_700_000_000);

/// Counters of refusals that are not zero.
fn refused(stats: &Stats) -> Vec<(&'static str, u64)> {
    let counters = stats
        .each()
        .filter(|(name, _, n)| name.starts_with("rejects") && *n > 0);
    counters.map(|(name, _, n)| (name, n)).collect()
}

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    let run = [MAX_LINE / 4, MAX_LINE - 12, MAX_LINE + 1, 20][input.below(4)];
    let seed = input.word();
    let mut text = Vec::new();
    for byte in input.0 {
        match byte {
            0xff if text.len() < 8 * MAX_LINE => text.resize(text.len() + run, b'x'),
            byte => text.push(*byte),
        }
    }
    let nowhere = Path::new("/nonexistent");
    let index = Index::open(nowhere, nowhere.join("names"), true).unwrap();
    let whole = Stats::default();
    let mut expected: Vec<Datapoint> = Vec::new();
    let read = read(
        &text,
        &mut Resolver::new(&index, &whole, NOW, &mut expected),
    );
    let torn = &text[read..];
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c);
    if torn.len() > MAX_LINE {
        whole.rejected_length.add(1);
    } else if !torn.iter().all(is_blank) {
        whole.rejected_torn.add(1);
    }

    let pieces = Stats::default();
    let mut out = Vec::new();
    let mut stream = Stream::default();
    let mut rest = &text[..];
    let mut random = seed;
    while !rest.is_empty() {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let wanted = match random >> 30 {
            0 => usize::MAX,
            1 => (random >> 12) as usize % (2 * MAX_LINE) + 1,
            _ => (random >> 20) as usize % 60 + text.len() / 500 + 1,
        };
        let space = stream.space();
        assert!(!space.is_empty());
        let n = rest.len().min(wanted).min(space.len());
        space[..n].copy_from_slice(&rest[..n]);
        let _ = stream.advance(n, &mut Resolver::new(&index, &pieces, NOW, &mut out));
        rest = &rest[n..];
    }
    stream.end(&mut Resolver::new(&index, &pieces, NOW, &mut out));
    assert_eq!(out, expected);
    assert_eq!(refused(&pieces), refused(&whole));
});
