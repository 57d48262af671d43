//! Any bytes are a StatsD packet. Whatever instructions read it and however it is cut at its line
//! feeds, it flushes to the same lines, each of which carbon understands.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: &[u8]| statsd::fuzzing::packet(packet));
