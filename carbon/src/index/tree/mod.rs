//! The tree of name parts: which names does this pattern match?
//!
//! 1. A branch has branches and tails, both sorted by label. A tail is a series with the rest of its name
//!    below the branch: a leaf if the rest is one node, a twig if it is more. A twig becomes a branch when a
//!    second series needs it, so a series without neighbours costs four bytes at any depth.
//! 2. Labels are not stored: each is a piece of the name of a series in the tree. When that series is
//!    removed, the label becomes a piece of the name of another series below the branch.
//! 3. New entries are appended and merged into the sorted part 64 at a time, so that a branch of a
//!    million leaves does not move them all for each new one.
//! 4. A pattern that begins with `**` and continues finds only what the rest finds at the root, as in
//!    Graphite, whose directory setting ends in a slash by default.
//! 5. Labels compare bytewise, except that the dot comes first: names that share a node are neighbours.

mod branches;
mod find;

pub(crate) use branches::Tree;
pub use find::{Found, GoOn};
