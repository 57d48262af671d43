//! Numbers as JSON and the other text formats print them.

use whisper::is_absent;

/// Appends a value as JSON: `null` for none and for NaN, `1e9999` for infinity.
#[inline]
pub(crate) fn push_value(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        // Most values are small and have two decimals at the most: those digits are the shortest
        // that read back, since no two decimals of 15 digits are the same float.
        let hundredths = (value * 100.0).round();
        if hundredths / 100.0 == value && hundredths.abs() < 1e15 {
            push_hundredths(out, value.is_sign_negative(), hundredths.abs() as u64);
        } else {
            let mut buffer = ryu::Buffer::new();
            out.extend_from_slice(buffer.format_finite(value).as_bytes());
        }
    } else if is_absent(value) || value.is_nan() {
        out.extend_from_slice(b"null");
    } else if value > 0.0 {
        out.extend_from_slice(b"1e9999");
    } else {
        out.extend_from_slice(b"-1e9999");
    }
}

#[inline]
fn push_hundredths(out: &mut Vec<u8>, negative: bool, hundredths: u64) {
    if negative {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(hundredths / 100).as_bytes());
    let (tenth, hundredth) = (hundredths / 10 % 10, hundredths % 10);
    out.extend_from_slice(&[b'.', b'0' + tenth as u8]);
    if hundredth > 0 {
        out.push(b'0' + hundredth as u8);
    }
}

/// Appends a whole number.
#[inline]
pub(crate) fn push_whole(out: &mut Vec<u8>, number: i64) {
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(number).as_bytes());
}
