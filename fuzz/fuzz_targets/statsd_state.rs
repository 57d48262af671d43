//! Any bytes as the file in which StatsD saves an interval: refused without a trace, or taken and
//! saved again as the same. The header and the last line are added, so that the middle is read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((mode, bytes)) = bytes.split_first() else {
        return;
    };
    if mode % 8 == 0 {
        return statsd::fuzzing::state(bytes);
    }
    let mut text = b"plumbago statsd interval 1\n".to_vec();
    text.extend_from_slice(bytes);
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        text.push(b'\n');
    }
    let lines = String::from_utf8_lossy(bytes).lines().count();
    text.extend_from_slice(format!("end {lines}\n").as_bytes());
    statsd::fuzzing::state(&text);
});
