//! What carbon's receivers take of recorded input, compared with what carbon 1.1.10 takes.
//!
//! The recordings lie in `tests/golden`, or in the directory that `PLUMBAGO_GOLDEN` names. A case
//! without `quirk` must be taken as recorded. A case with one shows behaviour of carbon that has a
//! documented reason to differ (`docs/carbon.md`); the tests state what holds instead.

#![allow(
    clippy::unwrap_used,
    reason = "a recording that cannot be read ends the test"
)]

mod carbonlink;
mod lines;
mod pickle;
mod recorded;
mod tags;
