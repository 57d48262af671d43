//! Bodies of requests in `carbonapi_v3_pb`. Messages with unknown fields among theirs read back;
//! any body is refused or read, what is read is no longer than what was sent, and encodes and
//! reads back as the same message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use render::budget::Budget;
use render::protobuf::{MAX_ITEMS, decode, v3};

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    match input.below(3) {
        0 => any_body(input.0),
        1 => many_items(input.word() as usize % (2 * MAX_ITEMS)),
        _ => reads_back(&mut input),
    }
});

fn any_body(body: &[u8]) {
    let budget = Budget::unlimited();
    if let Ok(request) = decode::<v3::MultiFetchRequest>(body, &budget) {
        let texts = request.metrics.iter();
        let texts = texts.map(|metric| metric.name.len() + metric.path_expression.len());
        assert!(texts.sum::<usize>() <= body.len());
        assert!(request.metrics.len() <= MAX_ITEMS);
        let again = decode(&request.encode_to_vec(), &budget);
        assert_eq!(request, again.unwrap());
    }
    if let Ok(request) = decode::<v3::MultiGlobRequest>(body, &budget) {
        let length: usize = request.metrics.iter().map(String::len).sum();
        assert!(length <= body.len());
        let again = decode(&request.encode_to_vec(), &budget);
        assert_eq!(request, again.unwrap());
    }
}

/// Empty items take two bytes each.
fn many_items(n: usize) {
    let body = b"\x0a\x00".repeat(n);
    let read = decode::<v3::MultiFetchRequest>(&body, &Budget::unlimited());
    assert_eq!(read.is_ok(), n <= MAX_ITEMS, "{n}");
}

fn reads_back(input: &mut Bytes<'_>) {
    let mut body = Vec::new();
    let mut expected = Vec::new();
    while !input.is_empty() {
        if input.below(3) == 0 {
            unknown(input, &mut body);
            continue;
        }
        let metric = v3::FetchRequest {
            name: text(input),
            start_time: i64::from(input.word() as i32),
            stop_time: i64::from(input.word() as i32),
            path_expression: text(input),
        };
        let mut inner = metric.encode_to_vec();
        if input.below(3) == 0 {
            unknown(input, &mut inner);
        }
        encode_key(1, WireType::LengthDelimited, &mut body);
        encode_varint(inner.len() as u64, &mut body);
        body.extend_from_slice(&inner);
        expected.push(metric);
    }
    let read: v3::MultiFetchRequest = decode(&body, &Budget::unlimited()).unwrap();
    assert_eq!(read.metrics, expected);
}

/// A field with a number that no message has.
fn unknown(input: &mut Bytes<'_>, out: &mut Vec<u8>) {
    let tag = 20 + input.below(1_000) as u32;
    match input.below(4) {
        0 => {
            encode_key(tag, WireType::Varint, out);
            encode_varint(u64::from(input.word() as u32), out);
        }
        1 => {
            encode_key(tag, WireType::ThirtyTwoBit, out);
            out.extend_from_slice(&[7; 4]);
        }
        2 => {
            encode_key(tag, WireType::SixtyFourBit, out);
            out.extend_from_slice(&[7; 8]);
        }
        _ => {
            let text = text(input);
            encode_key(tag, WireType::LengthDelimited, out);
            encode_varint(text.len() as u64, out);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

fn text(input: &mut Bytes<'_>) -> String {
    let n = input.below(12);
    String::from_utf8_lossy(input.take(n)).into_owned()
}
