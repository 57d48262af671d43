//! The files of tagged series: which of them say the name of their series?
//!
//! carbon names the file of a tagged series by the SHA-256 of the series' name, below two directories
//! of three digits each. With `TAG_HASH_FILENAMES = False` the file has the name itself, with `_DOT_`
//! for each dot, below the same directories.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::hashes::HASH;
use super::log::Record;
use super::state::Index;
use crate::datapoint::SeriesId;
use crate::error::{Error, Result};
use crate::series::{self, Names};

/// How many `_DOT_` of a file name may be those of the series' name.
const MOST_DOTS: usize = 8;

/// The tagged series whose name the file `stem`.wsp in the directory of `prefix` has, if it has one.
/// The directory, which begins the hash, decides which `_DOT_` was a dot.
pub(super) fn unhashed(prefix: &str, stem: &str) -> Option<String> {
    if !prefix.starts_with("_tagged.") || !stem.contains(';') {
        return None;
    }
    let parts: Vec<&str> = stem.split("_DOT_").collect();
    let dots = parts.len() - 1;
    // Mostly all are dots. A set bit is a `_DOT_` that stays.
    let choices = (0..1_u32 << dots.min(MOST_DOTS)).map(|kept| {
        let mut name = parts[0].to_owned();
        for (n, part) in parts[1..].iter().enumerate() {
            let is_kept = n < MOST_DOTS && kept >> n & 1 == 1;
            name.push_str(if is_kept { "_DOT_" } else { "." });
            name.push_str(part);
        }
        name
    });
    choices
        .filter(|name| series::is_tagged(name) && series::tree_path(name).starts_with(prefix))
        .find(|name| series::canonical(name.as_bytes()).is_ok_and(|canonical| canonical == *name))
}

/// The path under which the file with the name of a tagged series shows in the tree of names.
pub(super) fn unhashed_tree_path(name: &str) -> String {
    let hashed = series::tree_path(name);
    let directory = &hashed[..hashed.len() - HASH];
    [directory, &name.replace('.', "_DOT_")].concat()
}

/// What became of names that were imported.
#[derive(Debug, Default)]
pub struct Imported {
    /// Names that were not known.
    pub added: usize,
    /// Names that were.
    pub known: usize,
    /// Names that cannot be stored, or are over a limit.
    pub refused: Vec<(String, crate::NameError)>,
}

impl Index {
    /// Registers tagged series, as [`Index::register`] does, with one sync for all of them, and
    /// returns their canonical names.
    ///
    /// # Errors
    /// As [`Index::register`], of the first name that is refused; the names before it are registered.
    pub fn register_all(&self, paths: &[&str]) -> Result<Vec<String>> {
        let register = |path: &&str| Ok(self.register_unsynced(path)?.0);
        let registered = paths.iter().map(register).collect();
        self.sync()?;
        registered
    }

    /// Registers those of the tagged series that can be, with one sync for all of them.
    ///
    /// # Errors
    /// The disk failed.
    pub fn import(&self, paths: &[String]) -> Result<Imported> {
        let mut all = Imported::default();
        for path in paths {
            match self.register_unsynced(path) {
                Ok((_, true)) => all.added += 1,
                Ok((_, false)) => all.known += 1,
                Err(Error::Name { name, reason }) => all.refused.push((name, reason)),
                Err(error) => return Err(error),
            }
        }
        self.sync()?;
        Ok(all)
    }

    /// The names of all series that have tags, in no order.
    pub fn tagged_names(&self) -> Vec<String> {
        let names = self.names();
        let tags = self.tags.read();
        let all = tags.all().iter().map(|id| names.name(SeriesId(id)));
        all.filter(|name| series::is_tagged(name))
            .map(str::to_owned)
            .collect()
    }

    /// How many hashed files of tagged series there are whose name is not known: no tag expression
    /// finds them.
    pub fn nameless(&self) -> usize {
        self.nameless.load(Ordering::Relaxed)
    }

    /// The tagged series whose names are known, by the name of their hashed file.
    pub(super) fn hashes(&self) -> HashMap<String, SeriesId> {
        let names = self.names();
        let tags = self.tags.read();
        let all = tags.all().iter().map(SeriesId);
        let tagged = all.filter(|id| series::is_tagged(names.name(*id)));
        tagged
            .map(|id| (series::tree_path(names.name(id)), id))
            .collect()
    }

    /// The names of tagged series have become known: files that were listed by their hashes are
    /// theirs.
    pub(super) fn adopt(&self, names: &Names, ids: &[SeriesId]) {
        if self.nameless() == 0 {
            return;
        }
        for id in ids.iter().filter(|id| series::is_tagged(names.name(**id))) {
            let path = series::tree_path(names.name(*id));
            let Some(leaf) = names.get(path.as_bytes()) else {
                continue;
            };
            let was_stored = {
                let mut tree = self.tree.write();
                let mut flags = self.flags.write();
                if !flags.listed.get(leaf.0) {
                    continue;
                }
                let was_stored = flags.stored.get(leaf.0);
                flags.listed.clear(leaf.0);
                flags.stored.clear(leaf.0);
                if was_stored {
                    flags.stored.set(id.0);
                }
                tree.remove(names, leaf);
                was_stored
            };
            if !was_stored {
                continue;
            }
            self.one_less_nameless();
            self.log.append(Record::Gone, names.name_bytes(leaf.0));
            self.log.append(Record::Stored, names.name_bytes(id.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::hashes::is_hashed;

    #[test]
    fn file_names_say_the_series_name() {
        for name in [
            "m.t;env=prod",
            "a_DOT_b.c;host=x.y",
            "a.b_DOT_c;d=e_DOT_f",
            "plain;a=b;c=d",
            "üml.é;a=b",
        ] {
            let path = unhashed_tree_path(name);
            let (prefix, stem) = path.split_at("_tagged.123.456.".len());
            assert_eq!(unhashed(prefix, stem).as_deref(), Some(name));
            let hashed = series::tree_path(name);
            let stem = &hashed[prefix.len()..];
            assert!(is_hashed(prefix, stem), "{hashed}");
            assert_eq!(unhashed(prefix, stem), None);
        }
        assert_eq!(unhashed("_tagged.123.456.", "m_DOT_t;env=prod"), None);
        assert_eq!(unhashed("a.b.", "m_DOT_t;env=prod"), None);
        let many = format!("a{};b=c", "_DOT_x".repeat(40));
        assert_eq!(unhashed("_tagged.123.456.", &many), None);
        let hex = "0123456789abcdef".repeat(4);
        assert!(is_hashed("_tagged.012.345.", &hex));
        for prefix in [
            "",
            "_tagged.",
            "_tagged.012.346.",
            "_tagged.012.345.x.",
            "a.012.345.",
        ] {
            assert!(!is_hashed(prefix, &hex), "{prefix}");
        }
        assert!(!is_hashed("_tagged.012.345.", &hex[1..]));
        assert!(!is_hashed("_tagged.012.345.", &hex.to_uppercase()));
    }
}
