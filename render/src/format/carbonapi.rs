//! Series as the answers of go-carbon, in `carbonapi_v2_pb` and `carbonapi_v3_pb`.
//!
//! The bytes are those of the messages in [`crate::protobuf`], with the fields in the order of
//! their numbers; the values are written from the columns, so that no message with its own copy of
//! them is made.

use std::ops::Range;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use whisper::Aggregation;

use super::{Document, Layout};
use crate::context::Window;
use crate::protobuf::{v2, v3};
use crate::series::Series;

/// What the answer says about a series beside its values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    /// How its file aggregates.
    pub(crate) aggregation: Aggregation,
    /// The share of known points that it takes to make a coarser one.
    pub(crate) x_files_factor: f32,
    /// The range of the request.
    pub(crate) request: Window,
}

/// `all` as a `MultiFetchResponse` of version 2.
pub(crate) fn version_2(all: Vec<Series>) -> Document {
    Document::new(all, Version2)
}

/// `all` as a `MultiFetchResponse` of version 3; `about` has an item for each series.
pub(crate) fn version_3(all: Vec<Series>, about: Vec<About>) -> Document {
    Document::new(all, Version3 { about })
}

/// The name of a method with a capital, as go-carbon writes it.
pub(crate) fn title(aggregation: Aggregation) -> String {
    let name = aggregation.name();
    let (first, rest) = name.split_at(1);
    first.to_ascii_uppercase() + rest
}

/// The number of the field that repeats a message for each series.
const METRICS: u32 = 1;
/// The fields of values and of absent values in version 2, and of values in version 3.
const VALUES_2: u32 = 5;
const ABSENT_2: u32 = 6;
const VALUES_3: u32 = 9;

/// The most bytes of a key and a length.
const PREFIX: usize = 11;
/// The bytes of one value.
const DOUBLE: usize = size_of::<f64>();

/// A key and the length of what follows.
fn prefix(tag: u32, length: usize, out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// The bytes of a packed field of `length` bytes whose key has one byte; an empty one is left out.
fn packed_size(length: usize) -> usize {
    match length {
        0 => 0,
        _ => 1 + encoded_len_varint(length as u64) + length,
    }
}

/// A value, with one bit pattern for all that are not numbers: Go's.
fn push_value(value: f64, out: &mut Vec<u8>) {
    let bits = if value.is_nan() {
        0x7ff8_0000_0000_0001
    } else {
        value.to_bits()
    };
    out.extend_from_slice(&bits.to_le_bytes());
}

#[derive(Debug)]
struct Version2;

impl Version2 {
    /// The fields before the values.
    fn first_fields(series: &Series) -> v2::FetchResponse {
        v2::FetchResponse {
            name: series.name.clone(),
            // Seconds beyond 2038 wrap, as go-carbon's do.
            start_time: series.start as i32,
            stop_time: series.end as i32,
            step_time: series.step as i32,
            ..Default::default()
        }
    }
}

/// The rows are the values, then whether each is absent.
impl Layout for Version2 {
    fn n_rows(&self, all: &[Series], part: usize) -> usize {
        2 * all[part].values.len()
    }

    fn head_room(&self, all: &[Series], part: usize) -> usize {
        all[part].name.len() + 96
    }

    fn row_room(&self, _: &[Series], _: usize) -> usize {
        // The first of the second half comes after its key.
        PREFIX + 1
    }

    fn row_usual(&self, _: &[Series], _: usize) -> usize {
        5
    }

    fn row_least(&self, _: &[Series], _: usize) -> usize {
        4
    }

    fn head(&self, all: &[Series], part: usize, out: &mut Vec<u8>) {
        let series = &all[part];
        let (fields, n_values) = (Self::first_fields(series), series.values.len());
        let values = packed_size(n_values * DOUBLE) + packed_size(n_values);
        prefix(METRICS, fields.encoded_len() + values, out);
        fields.encode_raw(out);
        if n_values > 0 {
            prefix(VALUES_2, n_values * DOUBLE, out);
        }
    }

    fn rows(
        &self,
        all: &[Series],
        part: usize,
        rows: Range<usize>,
        _: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        let values = &all[part].values;
        let n_values = values.len();
        for &value in &values[rows.start.min(n_values)..rows.end.min(n_values)] {
            push_value(if value.is_nan() { 0.0 } else { value }, out);
        }
        if rows.contains(&n_values) {
            prefix(ABSENT_2, n_values, out);
        }
        let flags = rows.start.max(n_values)..rows.end.max(n_values);
        for &value in &values[flags.start - n_values..flags.end - n_values] {
            out.push(u8::from(value.is_nan()));
        }
        false
    }
}

#[derive(Debug)]
struct Version3 {
    about: Vec<About>,
}

impl Version3 {
    /// The fields before the values.
    fn first_fields(&self, all: &[Series], part: usize) -> v3::FetchResponse {
        let (series, about) = (&all[part], self.about[part]);
        v3::FetchResponse {
            name: series.name.clone(),
            path_expression: series.path_expression.clone(),
            consolidation_func: title(about.aggregation),
            start_time: series.start,
            stop_time: series.end,
            step_time: series.step,
            x_files_factor: about.x_files_factor,
            ..Default::default()
        }
    }

    /// The fields after the values.
    fn last_fields(&self, part: usize) -> v3::FetchResponse {
        let Window { from, until } = self.about[part].request;
        v3::FetchResponse {
            request_start_time: from,
            request_stop_time: until,
            ..Default::default()
        }
    }
}

impl Layout for Version3 {
    fn head_room(&self, all: &[Series], part: usize) -> usize {
        let series = &all[part];
        series.name.len() + series.path_expression.len() + 160
    }

    fn row_room(&self, _: &[Series], _: usize) -> usize {
        DOUBLE
    }

    fn row_least(&self, _: &[Series], _: usize) -> usize {
        DOUBLE
    }

    fn head(&self, all: &[Series], part: usize, out: &mut Vec<u8>) {
        let fields = self.first_fields(all, part);
        let length = all[part].values.len() * DOUBLE;
        let last = self.last_fields(part).encoded_len();
        prefix(
            METRICS,
            fields.encoded_len() + packed_size(length) + last,
            out,
        );
        fields.encode_raw(out);
        if length > 0 {
            prefix(VALUES_3, length, out);
        }
    }

    fn value(&self, value: f64, out: &mut Vec<u8>) {
        push_value(value, out);
    }

    fn tail(&self, _: &[Series], part: usize, out: &mut Vec<u8>) {
        self.last_fields(part).encode_raw(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::format::{Buffer, Position};
    use proptest::prelude::*;
    use whisper::ABSENT;

    const ABOUT: About = About {
        aggregation: Aggregation::Sum,
        x_files_factor: 0.5,
        request: Window {
            from: 100,
            until: 4_000_000_000,
        },
    };

    /// Written in pieces of `chunk` bytes, each within the room that it announced.
    fn in_chunks(document: &Document, chunk: usize) -> Vec<u8> {
        let (mut at, mut all) = (Position::START, Vec::new());
        while !at.is_end() {
            let room = chunk + document.largest_piece();
            let mut out = Buffer::prepaid(room, Budget::unlimited()).unwrap();
            let before = out.as_ptr();
            document.write(&mut at, &mut out, chunk, || Ok(())).unwrap();
            assert_eq!(out.as_ptr(), before);
            all.extend_from_slice(&out);
        }
        all
    }

    /// What the message library encodes for the same series.
    fn encoded_2(all: &[Series]) -> Vec<u8> {
        let metrics = all.iter().map(|series| v2::FetchResponse {
            values: series.iter().map(|value| value.unwrap_or(0.0)).collect(),
            is_absent: series.iter().map(|value| value.is_none()).collect(),
            ..Version2::first_fields(series)
        });
        let metrics = metrics.collect();
        v2::MultiFetchResponse { metrics }.encode_to_vec()
    }

    fn encoded_3(all: &[Series]) -> Vec<u8> {
        let absent = f64::from_bits(0x7ff8_0000_0000_0001);
        let metrics = all.iter().map(|series| v3::FetchResponse {
            name: series.name.clone(),
            path_expression: series.path_expression.clone(),
            consolidation_func: "Sum".into(),
            start_time: series.start,
            stop_time: series.end,
            step_time: series.step,
            x_files_factor: 0.5,
            values: series.iter().map(|value| value.unwrap_or(absent)).collect(),
            request_start_time: 100,
            request_stop_time: 4_000_000_000,
        });
        let metrics = metrics.collect();
        v3::MultiFetchResponse { metrics }.encode_to_vec()
    }

    #[test]
    fn golden_bytes_of_both_versions() {
        let series = || vec![Series::new("a", 60, 180, 60, vec![1.0, ABSENT].into())];
        let two = version_2(series()).whole(&Budget::unlimited()).unwrap();
        let expected = b"\x0a\x20\x0a\x01a\x10\x3c\x18\xb4\x01\x20\x3c\
            \x2a\x10\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\0\x32\x02\0\x01";
        assert_eq!(two[..], expected[..]);
        let three = version_3(series(), vec![ABOUT]);
        let three = three.whole(&Budget::unlimited()).unwrap();
        let expected = b"\x0a\x31\x0a\x01a\x12\x01a\x1a\x03Sum\x20\x3c\x28\xb4\x01\x30\x3c\
            \x3d\0\0\0\x3f\x4a\x10\0\0\0\0\0\0\xf0\x3f\x01\0\0\0\0\0\xf8\x7f\x58\x64\x60\x80\xd0\xac\xf3\x0e";
        assert_eq!(three[..], expected[..]);
    }

    #[test]
    fn methods_begin_with_a_capital() {
        assert_eq!(title(Aggregation::Average), "Average");
        assert_eq!(title(Aggregation::AvgZero), "Avg_zero");
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_messages(
            shapes in prop::collection::vec((0..2_000_usize, 0..3_usize, "[a-zé]{0,5}"), 0..4),
            chunk in 1..4_000_usize,
        ) {
            let all: Vec<Series> = shapes
                .iter()
                .map(|(n, absent, name)| {
                    let values: Vec<f64> = (0..*n)
                        .map(|i| if i % 3 < *absent { ABSENT } else { i as f64 })
                        .collect();
                    Series::new(name.as_str(), 60, 60 + 60 * *n as i64, 60, values.into())
                })
                .collect();
            let about = vec![ABOUT; all.len()];
            for (document, expected) in [
                (version_2(all.clone()), encoded_2(&all)),
                (version_3(all.clone(), about), encoded_3(&all)),
            ] {
                let whole = document.whole(&Budget::unlimited()).unwrap();
                prop_assert_eq!(&whole[..], &expected[..]);
                prop_assert!(document.least_size() <= expected.len() as u64);
                prop_assert_eq!(in_chunks(&document, chunk), expected);
            }
        }
    }
}
