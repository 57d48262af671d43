#![no_main]
//! A line of Graphite's protocol: no panic, and what is taken reads back from its own print.

use carbon::protocol::At;
use carbon::protocol::line::{Line, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(Ok(Line { name, value, at })) = parse(bytes) else {
        return;
    };
    assert!(value.is_finite());
    let print = |at| match at {
        At::Time(at) => at.to_string(),
        At::Now => "N".to_owned(),
    };
    let at = print(at);
    let mut printed = name.to_vec();
    printed.extend_from_slice(format!(" {value} {at}").as_bytes());
    let again = parse(&printed).unwrap().unwrap();
    assert_eq!(again.name, name);
    assert_eq!(again.value.to_bits(), value.to_bits());
    assert_eq!(print(again.at), at);
});
