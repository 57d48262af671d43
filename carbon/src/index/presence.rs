//! Files that other programs create and delete while the server runs: one directory, or one file,
//! at a time.

use std::collections::HashSet;
use std::path::PathBuf;

use super::bits::Bits;
use super::log::Record;
use super::reconcile::Reconciled;
use super::state::Index;
use crate::datapoint::SeriesId;
use crate::error::Result;
use crate::series;

impl Index {
    /// The directory with the series that begin with `prefix` (`a.b.`) holds whisper files and
    /// directories of these names, and no others: lists series that are new, and drops those whose
    /// file is gone. Hashed files of tagged series count only if `hashed`: the walk at the start knows of
    /// those that were there. `busy` as for [`Index::reconcile`].
    ///
    /// # Errors
    /// The log cannot be written.
    pub(crate) fn compare_directory(
        &self,
        prefix: &str,
        (stems, directories): (&[String], &[String]),
        hashed: bool,
        busy: impl Fn(SeriesId) -> bool,
    ) -> Result<Reconciled> {
        let _walk = self.no_walk();
        let known: HashSet<&str> = directories.iter().map(String::as_str).collect();
        let mut new = Vec::new();
        let mut report = Reconciled::default();
        let mut present = Bits::default();
        {
            let names = self.names();
            let flags = self.flags.read();
            for stem in stems {
                let name = [prefix, stem].concat();
                match names.get(name.as_bytes()) {
                    Some(id) if flags.stored.get(id.0) => {
                        present.set(id.0);
                    }
                    _ => new.push(name),
                }
            }
        }
        for name in new {
            if hashed {
                self.hashed_came(prefix, &name[prefix.len()..]);
            }
            report.added += usize::from(self.file_came(prefix, &name)?);
        }
        let suspects: Vec<SeriesId> = {
            let names = self.names();
            let tree = self.tree.read();
            let flags = self.flags.read();
            let (mut here, branches) = tree.children_below(&names, prefix);
            here.retain(|id| !present.get(id.0));
            for branch in branches
                .iter()
                .filter(|branch| !known.contains(branch.as_str()))
            {
                here.extend(tree.series_below(&names, &format!("{prefix}{branch}.")));
            }
            here.retain(|id| flags.stored.get(id.0));
            here
        };
        report.removed = self.drop_missing(suspects, busy);
        self.write_log()?;
        Ok(report)
    }

    /// A directory is gone: drops the series that begin with `prefix` and have no file.
    ///
    /// # Errors
    /// The log cannot be written.
    pub(crate) fn directory_gone(
        &self,
        prefix: &str,
        busy: impl Fn(SeriesId) -> bool,
    ) -> Result<Reconciled> {
        let _walk = self.no_walk();
        let suspects: Vec<SeriesId> = {
            let names = self.names();
            let tree = self.tree.read();
            let flags = self.flags.read();
            let below = tree.series_below(&names, prefix).into_iter();
            below.filter(|id| flags.stored.get(id.0)).collect()
        };
        let removed = self.drop_missing(suspects, busy);
        self.write_log()?;
        Ok(Reconciled {
            removed,
            ..Reconciled::default()
        })
    }

    /// The file `stem`.wsp in the directory of `prefix` was created, replaced or deleted: what
    /// changed, and its series if that is known.
    ///
    /// # Errors
    /// The log cannot be written.
    pub(crate) fn file_changed(
        &self,
        prefix: &str,
        stem: &str,
        busy: impl Fn(SeriesId) -> bool,
    ) -> Result<(Reconciled, Option<SeriesId>)> {
        let mut report = Reconciled::default();
        let _walk = self.no_walk();
        let name = [prefix, stem].concat();
        let path = self
            .root
            .join(prefix.replace('.', "/"))
            .join(format!("{stem}.wsp"));
        let is_there = !matches!(path.try_exists(), Ok(false));
        let known = self.names().get(name.as_bytes());
        let is_stored = known.is_some_and(|id| self.flags.read().stored.get(id.0));
        if is_there && !is_stored {
            self.hashed_came(prefix, stem);
            report.added = usize::from(self.file_came(prefix, &name)?);
        } else if let Some(id) = known
            && !is_there
            && is_stored
        {
            report.removed = self.drop_missing(vec![id], busy);
        }
        self.write_log()?;
        Ok((report, known))
    }

    /// Lists the series of a file that was not known. Whether it is new.
    fn file_came(&self, prefix: &str, name: &str) -> Result<bool> {
        let stem = &name[prefix.len()..];
        if stem.contains('.') || super::hashes::is_hashed(prefix, stem) {
            return Ok(false);
        }
        if let Some(tagged) = super::tagged::unhashed(prefix, stem) {
            return Ok(self.found_unhashed(&tagged));
        }
        let mut batch = vec![name.to_owned()];
        Ok(self.found_on_disk(&mut batch, &mut Bits::default())? > 0)
    }

    /// Unlists those of `suspects` that have no file and are not `busy`; how many.
    pub(super) fn drop_missing(
        &self,
        suspects: Vec<SeriesId>,
        busy: impl Fn(SeriesId) -> bool,
    ) -> usize {
        let _pin = self.pin();
        let mut removed = 0;
        let mut path = PathBuf::new();
        for id in suspects {
            self.path(id, &mut path);
            // It may have been created since the walk passed by.
            if !matches!(path.try_exists(), Ok(false)) || busy(id) {
                continue;
            }
            let names = self.names();
            let mut tree = self.tree.write();
            let mut flags = self.flags.write();
            flags.stored.clear(id.0);
            flags.listed.clear(id.0);
            tree.remove(&names, id);
            removed += 1;
            self.leaf_went(names.name(id));
            self.log.append(Record::Gone, names.name_bytes(id.0));
        }
        removed
    }

    /// A tagged series has a file that holds its name. Whether it is new.
    pub(super) fn found_unhashed(&self, name: &str) -> bool {
        let _pin = self.pin();
        let id = {
            let mut names = self.names.write();
            match self.add(&mut names, name.as_bytes()) {
                Ok(id) => id,
                Err(_) => return false,
            }
        };
        let was_listed = self.flags.read().listed.get(id.0);
        self.list(&[id]);
        let mut path = PathBuf::new();
        series::file_path(&self.root, name, &mut path);
        if !path.exists() {
            self.flags.write().unhashed.insert(id.0);
        }
        !was_listed
    }
}
