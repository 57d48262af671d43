//! The messages that carbonapi and go-carbon exchange, `carbonapi_v2_pb` and `carbonapi_v3_pb`.
//!
//! 1. Field numbers and types are those of go-graphite/protocol 1.0. A field that nothing here
//!    reads or writes is left out: it is skipped in requests.
//! 2. Requests come from clients: [`decode`] bounds what a body may hold before it is decoded. Answers come from
//!    peers: [`decode_answer`] reserves what they become before they are decoded.

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::budget::{Budget, Reservation};
use crate::error::{Error, Result};

/// The messages of `carbonapi_v2_pb`.
pub mod v2 {
    /// The answer to `/render/`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MultiFetchResponse {
        /// A message for each series.
        #[prost(message, repeated, tag = "1")]
        pub metrics: Vec<FetchResponse>,
    }

    /// The values of one series.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct FetchResponse {
        /// The name of the series.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Unix seconds of the first value.
        #[prost(int32, tag = "2")]
        pub start_time: i32,
        /// Unix seconds one step after the last value.
        #[prost(int32, tag = "3")]
        pub stop_time: i32,
        /// Seconds per value.
        #[prost(int32, tag = "4")]
        pub step_time: i32,
        /// A value for each step; 0 for an absent one.
        #[prost(double, repeated, tag = "5")]
        pub values: Vec<f64>,
        /// Whether the value of the same index is absent.
        #[prost(bool, repeated, tag = "6")]
        pub is_absent: Vec<bool>,
    }

    /// The answer to `/metrics/find/`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct GlobResponse {
        /// The pattern of the request.
        #[prost(string, tag = "1")]
        pub name: String,
        /// What it matches.
        #[prost(message, repeated, tag = "2")]
        pub matches: Vec<GlobMatch>,
    }

    /// A series or a branch.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct GlobMatch {
        /// The full path.
        #[prost(string, tag = "1")]
        pub path: String,
        /// Whether it is a series.
        #[prost(bool, tag = "2")]
        pub is_leaf: bool,
    }

    /// An archive.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Retention {
        /// Seconds per point.
        #[prost(int32, tag = "1")]
        pub seconds_per_point: i32,
        /// How many points it holds.
        #[prost(int32, tag = "2")]
        pub number_of_points: i32,
    }

    /// The answer to `/info/`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct InfoResponse {
        /// The name of the series.
        #[prost(string, tag = "1")]
        pub name: String,
        /// How points are made coarser.
        #[prost(string, tag = "2")]
        pub aggregation_method: String,
        /// The seconds that the coarsest archive reaches back.
        #[prost(int32, tag = "3")]
        pub max_retention: i32,
        /// The share of known points that it takes to make a coarser one.
        #[prost(float, tag = "4")]
        pub x_files_factor: f32,
        /// The archives, finest first.
        #[prost(message, repeated, tag = "5")]
        pub retentions: Vec<Retention>,
    }

    /// The answer to `/metrics/list/`, the same in both versions.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ListMetricsResponse {
        /// The names of all series.
        #[prost(string, repeated, tag = "1")]
        pub metrics: Vec<String>,
    }
}

/// The messages of `carbonapi_v3_pb`.
pub mod v3 {
    pub use super::v2::{GlobMatch, GlobResponse, ListMetricsResponse};

    /// The answer to `/_internal/capabilities/`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct CapabilityResponse {
        /// The protocols that the server answers, the best first.
        #[prost(string, repeated, tag = "1")]
        pub supported_protocols: Vec<String>,
        /// The name of the host.
        #[prost(string, tag = "2")]
        pub name: String,
        /// Whether timestamps have fractions of a second.
        #[prost(bool, tag = "3")]
        pub high_precision_timestamps: bool,
        /// Whether the server evaluates functions of a fetch request.
        #[prost(bool, tag = "4")]
        pub support_filtering_functions: bool,
        /// Whether a client may split a request into several.
        #[prost(bool, tag = "5")]
        pub like_splitted_requests: bool,
        /// Whether answers can be streamed message by message.
        #[prost(bool, tag = "6")]
        pub support_streaming: bool,
    }

    /// The request to `/render/`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MultiFetchRequest {
        /// A message for each pattern and range.
        #[prost(message, repeated, tag = "1")]
        pub metrics: Vec<FetchRequest>,
    }

    /// A pattern over a range.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct FetchRequest {
        /// The pattern, or a `seriesByTag(…)` call.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Unix seconds, exclusive.
        #[prost(int64, tag = "2")]
        pub start_time: i64,
        /// Unix seconds, inclusive.
        #[prost(int64, tag = "3")]
        pub stop_time: i64,
        /// The text that the answer repeats for each series.
        #[prost(string, tag = "5")]
        pub path_expression: String,
    }

    /// The answer to `/render/`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MultiFetchResponse {
        /// A message for each series.
        #[prost(message, repeated, tag = "1")]
        pub metrics: Vec<FetchResponse>,
    }

    /// The values of one series.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct FetchResponse {
        /// The name of the series.
        #[prost(string, tag = "1")]
        pub name: String,
        /// The expression of the request.
        #[prost(string, tag = "2")]
        pub path_expression: String,
        /// How the file aggregates.
        #[prost(string, tag = "3")]
        pub consolidation_func: String,
        /// Unix seconds of the first value.
        #[prost(int64, tag = "4")]
        pub start_time: i64,
        /// Unix seconds one step after the last value.
        #[prost(int64, tag = "5")]
        pub stop_time: i64,
        /// Seconds per value.
        #[prost(int64, tag = "6")]
        pub step_time: i64,
        /// The file's share of known points that it takes to make a coarser one.
        #[prost(float, tag = "7")]
        pub x_files_factor: f32,
        /// A value for each step; NaN for an absent one.
        #[prost(double, repeated, tag = "9")]
        pub values: Vec<f64>,
        /// The start of the request.
        #[prost(int64, tag = "11")]
        pub request_start_time: i64,
        /// The end of the request.
        #[prost(int64, tag = "12")]
        pub request_stop_time: i64,
    }

    /// The request to `/metrics/find/`, and to `/info/`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MultiGlobRequest {
        /// The patterns.
        #[prost(string, repeated, tag = "1")]
        pub metrics: Vec<String>,
    }

    /// The answer to `/metrics/find/`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MultiGlobResponse {
        /// A message for each pattern.
        #[prost(message, repeated, tag = "1")]
        pub metrics: Vec<GlobResponse>,
    }

    /// An archive.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Retention {
        /// Seconds per point.
        #[prost(int64, tag = "1")]
        pub seconds_per_point: i64,
        /// How many points it holds.
        #[prost(int64, tag = "2")]
        pub number_of_points: i64,
    }

    /// The layout of one file.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetricsInfoResponse {
        /// The name of the series.
        #[prost(string, tag = "1")]
        pub name: String,
        /// How points are made coarser.
        #[prost(string, tag = "2")]
        pub consolidation_func: String,
        /// The seconds that the coarsest archive reaches back.
        #[prost(int64, tag = "3")]
        pub max_retention: i64,
        /// The share of known points that it takes to make a coarser one.
        #[prost(float, tag = "4")]
        pub x_files_factor: f32,
        /// The archives, finest first.
        #[prost(message, repeated, tag = "5")]
        pub retentions: Vec<Retention>,
    }

    /// The answer to `/info/`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MultiMetricsInfoResponse {
        /// A message for each series.
        #[prost(message, repeated, tag = "1")]
        pub metrics: Vec<MetricsInfoResponse>,
    }
}

/// How many messages or texts a request may hold.
pub const MAX_ITEMS: usize = 200_000;

/// What an item of a request takes in memory beside its texts, with growth of the list.
const PER_ITEM: usize = 256;

/// Decodes the body of a request: a message whose only repeated field is number 1.
///
/// # Errors
/// [`Error::Refused`] if `body` is not such a message or holds more than [`MAX_ITEMS`] items;
/// [`Error::Limit`] if `budget` has no memory for it.
pub fn decode<M: Message + Default>(body: &[u8], budget: &Budget) -> Result<M> {
    let n_items = count_items(body)?;
    budget.reserve(n_items * PER_ITEM + body.len())?;
    M::decode(body).map_err(malformed)
}

/// How many items the first field of a message has. An item takes many times its two bytes on the
/// wire once it is decoded, so items are counted before.
fn count_items(mut body: &[u8]) -> Result<usize> {
    let mut n_items = 0;
    while body.has_remaining() {
        let (tag, kind) = decode_key(&mut body).map_err(malformed)?;
        n_items += usize::from(tag == 1);
        skip_field(kind, tag, &mut body, DecodeContext::default()).map_err(malformed)?;
    }
    if n_items > MAX_ITEMS {
        let sentence = format!("the request has {n_items} items, more than {MAX_ITEMS}");
        return Err(Error::refused(sentence));
    }
    Ok(n_items)
}

/// What the bytes of an answer become.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The numbers of the repeated fields that lead to its smallest items.
    path: &'static [u32],
    /// What an item takes beside its texts and numbers.
    per_item: usize,
    /// What its texts and numbers take for each byte.
    per_byte: usize,
}

/// An item of this type in a list that grows, and its smallest text.
const fn grown<T>() -> usize {
    3 * size_of::<T>() + 32
}

/// A [`v3::MultiFetchResponse`], whose values are lists that grow.
pub const SERIES: Shape = Shape {
    path: &[1],
    per_item: grown::<v3::FetchResponse>() + 64,
    per_byte: 3,
};

/// A [`v3::MultiGlobResponse`].
pub const NODES: Shape = Shape {
    path: &[1, 2],
    per_item: grown::<v3::GlobMatch>(),
    per_byte: 1,
};

/// A [`v3::MultiMetricsInfoResponse`].
pub const LAYOUTS: Shape = Shape {
    path: &[1, 5],
    per_item: grown::<v3::MetricsInfoResponse>(),
    per_byte: 1,
};

/// Decodes an answer of this `shape`, and says what it takes in memory at most.
///
/// # Errors
/// [`Error::Refused`] if `body` is not such a message; [`Error::Limit`] if `budget` has no memory for it.
pub fn decode_answer<M: Message + Default>(
    body: &[u8],
    shape: Shape,
    budget: &Budget,
) -> Result<(M, Reservation)> {
    let Shape {
        path,
        per_item,
        per_byte,
    } = shape;
    let n_items = count_along(body, path).map_err(malformed)?;
    let held = budget.hold(n_items * per_item + per_byte * body.len())?;
    Ok((M::decode(body).map_err(malformed)?, held))
}

/// How many items there are in the fields of `path`, those on the way included.
fn count_along(mut body: &[u8], path: &[u32]) -> Result<usize, prost::DecodeError> {
    let Some((&number, deeper)) = path.split_first() else {
        return Ok(0);
    };
    let mut n_items = 0;
    while body.has_remaining() {
        let (tag, kind) = decode_key(&mut body)?;
        if tag != number || kind != WireType::LengthDelimited {
            skip_field(kind, tag, &mut body, DecodeContext::default())?;
            continue;
        }
        let length = decode_varint(&mut body)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // One that is cut off is refused when it is decoded.
        let (item, rest) = body.split_at(length.min(body.len()));
        n_items += 1 + count_along(item, deeper)?;
        body = rest;
    }
    Ok(n_items)
}

fn malformed(error: prost::DecodeError) -> Error {
    Error::refused(format!("malformed protobuf body: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Memory;

    #[test]
    fn unknown_fields_are_skipped_and_damage_is_refused() {
        let budget = Budget::unlimited();
        // name, start, stop, highPrecisionTimestamps, pathExpression, filterFunctions, maxDataPoints
        let metric = b"\x0a\x03a.*\x10\x0a\x18\x14\x20\x01\x2a\x01x\x32\x03\x0a\x01f\x38\x05";
        let body = [b"\x0a\x15".as_slice(), metric].concat();
        let request: v3::MultiFetchRequest = decode(&body, &budget).unwrap();
        let expected = v3::FetchRequest {
            name: "a.*".into(),
            start_time: 10,
            stop_time: 20,
            path_expression: "x".into(),
        };
        assert_eq!(request.metrics, [expected]);
        for end in 1..body.len() {
            let refused = decode::<v3::MultiFetchRequest>(&body[..end], &budget);
            assert!(matches!(refused, Err(Error::Refused(_))), "{end}");
        }
        for bad in [&b"\x0a\x01\xff"[..], b"\x08\x01", b"\xff", b"\x0b"] {
            let refused = decode::<v3::MultiGlobRequest>(bad, &budget);
            assert!(matches!(refused, Err(Error::Refused(_))), "{bad:?}");
        }
        let empty: v3::MultiGlobRequest = decode(b"", &budget).unwrap();
        assert!(empty.metrics.is_empty());
    }

    #[test]
    fn items_are_counted_before_they_are_decoded() {
        let many = |n: usize| b"\x0a\x00".repeat(n);
        let budget = Budget::unlimited();
        assert!(decode::<v3::MultiGlobRequest>(&many(MAX_ITEMS), &budget).is_ok());
        let refused = decode::<v3::MultiGlobRequest>(&many(MAX_ITEMS + 1), &budget).unwrap_err();
        assert!(refused.to_string().contains("200001 items"), "{refused}");
        let small = Budget::new(Memory::new(1 << 20), None);
        let refused = decode::<v3::MultiFetchRequest>(&many(10_000), &small).unwrap_err();
        assert!(matches!(refused, Error::Limit { .. }), "{refused}");
    }

    #[test]
    fn what_an_answer_becomes_is_reserved_before() {
        let message = |field: u8, content: &[u8]| {
            let mut bytes = vec![field << 3 | 2];
            prost::encoding::encode_varint(content.len() as u64, &mut bytes);
            bytes.extend_from_slice(content);
            bytes
        };
        let nodes = b"\x12\x00".repeat(10_000);
        let body = message(1, &nodes);
        let budget = Budget::new(Memory::new(2 << 20), None);
        let (answer, held) = decode_answer::<v3::MultiGlobResponse>(&body, NODES, &budget).unwrap();
        assert_eq!(answer.metrics[0].matches.len(), 10_000);
        let takes = answer.metrics[0].matches.capacity() * size_of::<v3::GlobMatch>();
        assert!(held.bytes() >= takes && budget.reserved() == held.bytes() as u64);
        let twice = [body.as_slice(), &body].concat();
        let refused = decode_answer::<v3::MultiGlobResponse>(&twice, NODES, &budget).unwrap_err();
        assert!(matches!(refused, Error::Limit { .. }), "{refused}");
        drop(held);
        assert_eq!(budget.reserved(), 0);
        for bad in [
            &b"\x0a\x09\x12"[..],
            b"\x0a\x02\x12\xff",
            b"\xff",
            b"\x08\x01",
        ] {
            let refused = decode_answer::<v3::MultiGlobResponse>(bad, NODES, &budget);
            assert!(matches!(refused, Err(Error::Refused(_))), "{bad:?}");
        }
    }
}
