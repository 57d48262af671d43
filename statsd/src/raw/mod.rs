//! All unsafe code of this crate: system calls, vector instructions, and hints to the memory.

#![expect(unsafe_code)]

pub(crate) mod entries;
pub(crate) mod memory;
pub(crate) mod simd;
pub(crate) mod socket;
pub(crate) mod thread;
