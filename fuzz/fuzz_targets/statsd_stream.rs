//! A connection of StatsD lines, or of DogStatsD's packets with their lengths: however the bytes come
//! in pieces, each line is handed on whole and those that are too long are dropped and counted. The
//! byte 0xff stands for many letters, so that lines get too long; where packets are sent, 0xfe
//! divides them, and a packet that starts with 0xfd has a wrong length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::bytes::Bytes;

/// About the longest line that is taken.
const LONG: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    let run = [LONG / 4, LONG - 5, LONG + 1, 20][input.below(4)];
    let mut random = input.word();
    let has_packets = input.below(2) == 1;
    let mut text = Vec::new();
    for byte in input.0 {
        match byte {
            0xff if text.len() < 6 * LONG => text.resize(text.len() + run, b'x'),
            byte => text.push(*byte),
        }
    }
    if has_packets {
        text = text.split(|byte| *byte == 0xfe).flat_map(packet).collect();
    }
    let mut pieces = Vec::new();
    let mut rest = &text[..];
    while !rest.is_empty() {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let wanted = match random >> 30 {
            0 => usize::MAX,
            1 => (random >> 12) as usize % (2 * LONG) + 1,
            _ => (random >> 20) as usize % 60 + text.len() / 200 + 1,
        };
        let (piece, more) = rest.split_at(wanted.min(rest.len()));
        pieces.push(piece);
        rest = more;
    }
    statsd::fuzzing::stream(&pieces);
});

/// A packet with its length before it.
fn packet(bytes: &[u8]) -> Vec<u8> {
    let (length, bytes) = match bytes {
        [0xfd, first, second, third, fourth, rest @ ..] => {
            (u32::from_le_bytes([*first, *second, *third, *fourth]), rest)
        }
        bytes => (bytes.len() as u32, bytes),
    };
    [&length.to_le_bytes()[..], bytes].concat()
}
