//! carbon's protobuf payloads: any bytes are read or refused; what is read has text as names; and
//! payloads that are appended to each other give the points of both.
#![no_main]

use carbon::protocol::protobuf::points;
use libfuzzer_sys::fuzz_target;

type Points = Vec<(Vec<u8>, u64, u64)>;

fn read(payload: &[u8]) -> Option<Points> {
    let mut found = Vec::new();
    points(payload, |name, at, value| {
        assert!(std::str::from_utf8(name).is_ok());
        found.push((name.to_vec(), at, value.to_bits()));
    })
    .ok()?;
    Some(found)
}

fuzz_target!(|data: &[u8]| {
    let middle = data.len() / 2;
    let (first, second) = data.split_at(middle);
    let _ = read(data);
    if let (Some(first_points), Some(second_points)) = (read(first), read(second)) {
        let both = [first_points, second_points].concat();
        assert_eq!(read(&[first, second].concat()), Some(both));
    }
});
