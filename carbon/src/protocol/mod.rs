//! Wire protocols: bytes in, datapoints and counted rejects out. No I/O here.

pub mod line;
