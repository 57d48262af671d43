//! Wire protocols: bytes in, datapoints and counted rejects out. No I/O here.
//!
//! A protocol takes its bytes apart and hands each metric to the [`Resolver`]: name, timestamp and
//! value. What happens to a metric from there on is the same for all of them.

pub mod carbonlink;
pub mod frame;
pub mod line;
pub mod number;
pub mod pickle;
pub mod protobuf;
pub mod resolver;

pub use resolver::{At, Refused, Reject, Resolver};

/// Memory for the bytes of a connection that have not been read.
pub trait Buffer: Send + 'static {
    /// Where the next bytes go; never empty.
    fn space(&mut self) -> &mut [u8];

    /// Gives back the memory that is not in use: the sender pauses.
    fn rest(&mut self);

    /// Bytes of a line or a frame whose end has not come.
    fn unread(&self) -> usize;
}

/// A stream of metrics.
pub trait Metrics: Buffer {
    /// `n` bytes were put into the space: takes the metrics that are whole now.
    fn advance(&mut self, n: usize, resolver: &mut Resolver<'_>) -> Flow;

    /// The stream has ended: counts what is left of it.
    fn end(&mut self, resolver: &mut Resolver<'_>);
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// The next bytes can be read.
    Continue,
    /// What follows cannot be divided into frames any more: the connection is closed.
    Close,
}
