//! carbon's protobuf payloads (`carbon.proto`, since carbon 1.1), length-framed.
//!
//! ```text
//! Payload: metrics = 1, repeated Metric
//! Metric:  metric = 1, string        points = 2, repeated Point
//! Point:   timestamp = 1, uint32     value = 2, double
//! ```
//!
//! 1. A payload is checked whole before any of it is taken: carbon refuses a malformed one whole, too.
//! 2. Unknown fields are skipped, and so are known ones of another wire type. Of a field that must
//!    not repeat, the last one counts. A field that is not there is zero or empty.
//! 3. Nothing is allocated, and messages are nested as deep as the schema says.

use super::frame::Frames;
use super::resolver::{At, Reject, Resolver};
use super::{Buffer, Flow, Metrics};

/// A payload is not protobuf, or not of this schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload is malformed")]
pub struct Malformed;

/// The value of a field, by its wire type.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wire<'p> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'p [u8]),
    /// Nothing in the schema has this type.
    Fixed32,
}

/// The fields of a message: number and value.
struct Fields<'p>(&'p [u8]);

impl<'p> Fields<'p> {
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            number |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, n: usize) -> Option<&'p [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Wire<'p>)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(*self.take(8)?.first_chunk()?),
            2 => {
                let len = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed32)?,
            _ => return None,
        };
        // Numbers of fields begin at 1 and have 29 bits.
        let number = tag >> 3;
        ((1..1 << 29).contains(&number)).then_some((number, wire))
    }
}

impl<'p> Iterator for Fields<'p> {
    type Item = Result<(u64, Wire<'p>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

/// The fields with `number` that are messages or text.
fn nested(message: &[u8], number: u64) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    Fields(message).filter_map(move |field| match field {
        Ok((found, Wire::Bytes(bytes))) if found == number => Some(Ok(bytes)),
        Ok(_) => None,
        Err(malformed) => Some(Err(malformed)),
    })
}

/// Calls `each` with name, timestamp and value of each point of `payload`, in their order.
///
/// # Errors
/// The payload is malformed, or a name is not UTF-8. `each` may have been called before that is found.
pub fn points(payload: &[u8], mut each: impl FnMut(&[u8], u64, f64)) -> Result<(), Malformed> {
    for metric in nested(payload, 1) {
        let metric = metric?;
        let mut name = &b""[..];
        for found in nested(metric, 1) {
            name = found?;
            std::str::from_utf8(name).map_err(|_| Malformed)?;
        }
        for point in nested(metric, 2) {
            let (mut at, mut value) = (0, 0.0);
            for field in Fields(point?) {
                match field? {
                    (1, Wire::Varint(number)) => at = number,
                    (2, Wire::Fixed64(bytes)) => value = f64::from_le_bytes(bytes),
                    _ => {}
                }
            }
            each(name, at, value);
        }
    }
    Ok(())
}

/// Takes the metrics of `payload`.
pub fn read(payload: &[u8], resolver: &mut Resolver<'_>) {
    if points(payload, |_, _, _| ()).is_err() {
        return resolver.reject(Reject::Frame, payload);
    }
    let taken = points(payload, |name, at, value| {
        match u32::try_from(at)
            .ok()
            .and_then(|at| At::seconds(f64::from(at)))
        {
            Some(at) => resolver.take(name, at, value),
            None => resolver.reject(Reject::Timestamp, name),
        }
    });
    debug_assert_eq!(taken, Ok(()), "checked above");
}

/// Takes the metrics of framed payloads.
#[derive(Debug)]
pub struct Stream(Frames);

impl Stream {
    /// Frames of up to `max` bytes.
    pub fn new(max: usize) -> Self {
        Self(Frames::new(max))
    }
}

impl Buffer for Stream {
    fn space(&mut self) -> &mut [u8] {
        self.0.space()
    }

    fn rest(&mut self) {
        self.0.rest();
    }

    fn unread(&self) -> usize {
        self.0.unread().len()
    }
}

impl Metrics for Stream {
    fn advance(&mut self, n: usize, resolver: &mut Resolver<'_>) -> Flow {
        let outcome = self.0.advance(n, |payload| read(payload, resolver));
        self.0.flow(outcome, resolver)
    }

    fn end(&mut self, resolver: &mut Resolver<'_>) {
        self.0.end(resolver);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Index;
    use crate::stats::Stats;
    use proptest::prelude::*;
    use whisper::Timestamp;

    fn varint(mut number: u64, out: &mut Vec<u8>) {
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }

    fn bytes(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
        varint(number << 3 | 2, out);
        varint(bytes.len() as u64, out);
        out.extend(bytes);
    }

    fn point(at: u64, value: f64) -> Vec<u8> {
        let mut out = vec![0x08];
        varint(at, &mut out);
        out.push(0x11);
        out.extend(value.to_le_bytes());
        out
    }

    fn payload(metrics: &[(String, Vec<(u32, f64)>)]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (name, points) in metrics {
            let mut metric = Vec::new();
            bytes(1, name.as_bytes(), &mut metric);
            for (at, value) in points {
                bytes(2, &point((*at).into(), *value), &mut metric);
            }
            bytes(1, &metric, &mut payload);
        }
        payload
    }

    fn read_points(payload: &[u8]) -> Result<Vec<(String, u64, f64)>, Malformed> {
        let mut found = Vec::new();
        points(payload, |name, at, value| {
            found.push((String::from_utf8(name.to_vec()).unwrap(), at, value));
        })?;
        Ok(found)
    }

    #[test]
    fn what_google_s_python_library_writes() {
        // Payload(metrics=[Metric(metric="a.b", points=[Point(timestamp=1700000000, value=1.5)])])
        let written =
            b"\x0a\x16\x0a\x03a.b\x12\x0f\x08\x80\xe2\xcf\xaa\x06\x11\0\0\0\0\0\0\xf8\x3f";
        let expected = [("a.b".to_owned(), 1_700_000_000, 1.5)];
        assert_eq!(read_points(written).unwrap(), expected);
    }

    #[test]
    fn fields_in_any_order_unknown_ones_and_those_that_are_not_there() {
        let mut metric = Vec::new();
        bytes(2, &point(7, 1.0), &mut metric);
        bytes(2, b"", &mut metric);
        metric.extend(b"\x18\x05\x25\0\0\0\0");
        bytes(1, b"first", &mut metric);
        bytes(1, b"last", &mut metric);
        let mut payload = b"\x10\x01".to_vec();
        bytes(1, &metric, &mut payload);
        let last = |at, value| ("last".to_owned(), at, value);
        assert_eq!(read_points(&payload).unwrap(), [last(7, 1.0), last(0, 0.0)]);
        assert_eq!(read_points(b"").unwrap(), []);
    }

    #[test]
    fn malformed_payloads_are_refused_whole() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), dir.path().join("names"), true).unwrap();
        let stats = Stats::default();
        let mut out = Vec::new();
        let good = payload(&[("a".to_owned(), vec![(5, 1.0)])]);
        let mut resolver = Resolver::new(&index, &stats, Timestamp(50), &mut out);
        for bad in [
            &b"\x0a"[..],
            b"\x0a\x05abc",
            b"\x0b",
            b"\x02\x00",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0a\x03\x0a\x01\xff",
        ] {
            let payload = [&good, bad].concat();
            read(&payload, &mut resolver);
        }
        read(&good, &mut resolver);
        let mut far = Vec::new();
        bytes(1, b"a", &mut far);
        bytes(2, &point(1 << 32, 1.0), &mut far);
        bytes(2, &point(0, 1.0), &mut far);
        let mut payload = Vec::new();
        bytes(1, &far, &mut payload);
        read(&payload, &mut resolver);
        drop(resolver);
        assert_eq!((out.len(), stats.rejected_frame.get()), (1, 6));
        assert_eq!(stats.rejected_timestamp.get(), 2);
    }

    proptest! {
        #[test]
        fn payloads_read_back(
            metrics in prop::collection::vec(
                ("[a-z.]{0,20}", prop::collection::vec((any::<u32>(), any::<f64>()), 0..5)),
                0..5,
            ),
        ) {
            let expected: Vec<_> = metrics
                .iter()
                .flat_map(|(name, points)| {
                    points.iter().map(|(at, value)| (name.clone(), u64::from(*at), value.to_bits()))
                })
                .collect();
            let found = read_points(&payload(&metrics)).unwrap();
            let found: Vec<_> = found
                .into_iter()
                .map(|(name, at, value)| (name, at, value.to_bits()))
                .collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_points(&bytes);
        }
    }
}
