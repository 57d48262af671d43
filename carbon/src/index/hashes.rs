//! The hashes that name the files of tagged series.

use std::collections::HashSet;

use crate::series;

/// Digits of a hash.
pub(super) const HASH: usize = 64;
/// The hash of a tagged series' name.
type Hash = [u8; HASH / 2];

/// Whether the file `stem`.wsp in the directory of `prefix` has a hash for a name.
pub(super) fn is_hashed(prefix: &str, stem: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    stem.len() == HASH
        && stem.bytes().all(is_digit)
        && prefix.strip_prefix("_tagged.").is_some_and(|digits| {
            let digits = digits.as_bytes();
            matches!(digits, [first @ .., b'.'] if first.len() == 7
                && first[..3] == stem.as_bytes()[..3]
                && first[3] == b'.'
                && first[4..] == stem.as_bytes()[3..6])
        })
}

/// Hashes of files that have appeared.
#[derive(Debug, Default)]
pub(super) struct Hashed {
    /// Their series are not known yet.
    pub(super) waiting: HashSet<Hash>,
    /// Created by the server, and not seen yet.
    pub(super) own: HashSet<Hash>,
}

/// The hash in the name of a file.
pub(super) fn hash_of(stem: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    let digit = |at: usize| char::from(stem.as_bytes()[at]).to_digit(16);
    for (n, byte) in hash.iter_mut().enumerate() {
        *byte = (digit(2 * n)? << 4 | digit(2 * n + 1)?) as u8;
    }
    Some(hash)
}

/// The path of a hashed file in the tree of names.
pub(super) fn tree_path_of(hash: &Hash) -> String {
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("_tagged.{}.{}.{hex}", &hex[..3], &hex[3..6])
}

/// The hash of a tagged series.
pub(super) fn hash_of_series(name: &str) -> Option<Hash> {
    let path = series::tree_path(name);
    hash_of(&path[path.len() - HASH..])
}
