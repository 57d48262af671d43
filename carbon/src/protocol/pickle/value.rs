//! What a pickle makes.

use super::input::Span;

/// A value that a pickle made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float, or an integer beyond 64 bits; infinite if it is beyond all floats.
    Float(f64),
    /// Text in the frame.
    Text(Span),
    /// Text that had to be decoded.
    Decoded(Span),
    /// Text that is not UTF-8, because half of a surrogate pair is in it.
    Surrogate,
    /// Bytes in the frame.
    Bytes(Span),
    /// A tuple.
    Tuple(Span),
    /// A list.
    List(u32),
    /// A dictionary: keys and values, alternating.
    Dict(u32),
    /// A set or a frozen set.
    Set(u32),
}
