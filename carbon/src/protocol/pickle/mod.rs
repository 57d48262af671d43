//! Pickle: the data half of Python's serialisation, protocols 0 to 5.
//!
//! 1. Only opcodes that make data are read ([`machine`]): None, booleans, numbers, text, bytes,
//!    tuples, lists, dictionaries, sets, and the memo. An opcode that names a class or a function, calls
//!    one, or asks for data from outside ([`Malformed::Code`]) ends the reading: nothing is imported,
//!    nothing runs.
//! 2. What is read is what CPython's unpickler would make of the same bytes, with the encoding UTF-8
//!    for the strings of Python 2, as carbon 1.1 sets it.
//! 3. The memory that a pickle needs is limited by its length ([`Malformed::Memory`]). Reading needs no
//!    recursion, and [`Value`]s are walked only as deep as the caller asks.
//! 4. [`metrics`] is the receiver's part: a list of `(name, (timestamp, value))`.

mod input;
pub mod machine;
pub mod metrics;
mod stream;
mod text;
mod value;
pub mod write;

pub use input::{Malformed, Span};
pub use machine::Machine;
pub use stream::Stream;
pub use value::Value;
