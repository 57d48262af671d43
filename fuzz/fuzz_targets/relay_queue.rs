#![no_main]
//! A segment of a destination's queue: what is appended to any bytes is read after what was valid in them,
//! in order, and twice after a broken connection.

use carbon::fuzzing::relay_queue;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], Vec<Vec<u8>>)| {
    let (segment, chunks) = input;
    relay_queue(segment, &chunks);
});
