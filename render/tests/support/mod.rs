//! What replaying recordings needs: unpacking, decoding and comparing.

pub(crate) mod compare;
pub(crate) mod decode;
pub(crate) mod golden;
