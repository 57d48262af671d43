//! What carbon's receivers take of recorded input, compared with what carbon 1.1.10 takes.
//!
//! The recordings lie in `tests/golden`, or in the directory that `PLUMBAGO_GOLDEN` names. A case
//! without `quirk` must be taken as recorded. A case with one shows behaviour of carbon that has a
//! documented reason to differ: it must be taken as `documented` reads it, and `docs/carbon.md` lists each
//! of this project's own recordings that is not taken as recorded.

#![allow(
    clippy::unwrap_used,
    reason = "a recording that cannot be read ends the test"
)]

mod carbonlink;
mod documented;
#[path = "../support/golden.rs"]
mod golden;
mod lines;
mod pickle;
mod recorded;
mod tags;
