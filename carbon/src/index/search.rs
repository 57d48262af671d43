//! Finds series by pattern, by name and by tag.

use std::ops::ControlFlow;
use std::path::PathBuf;

use super::expression::NAME;
use super::glob::{NodePattern, Pattern};
use super::hold::{Hold, is_waited_for};
use super::plain::FIRST_TAG;
use super::state::{Flags, Index};
use super::tag_search::{TagSearch, TagValue, kept};
use super::tagged::unhashed_tree_path;
use super::tree::{Found, GoOn, Tree};
use crate::datapoint::SeriesId;
use crate::error::{PatternError, Result};
use crate::series::{self, Names};

impl Index {
    /// Every node that `pattern` matches (see [`glob`](super::glob) for the syntax), sorted by path
    /// bytewise. A name that is branch and leaf is there twice, the branch first. A pattern with `;` is the
    /// name of one tagged series.
    ///
    /// # Errors
    /// The pattern would cost too much.
    pub fn find(&self, pattern: &str) -> Result<Vec<Found>> {
        self.find_while(pattern, &mut |_| true)
    }

    /// As [`Index::find`], while `go_on` returns true.
    ///
    /// # Errors
    /// As [`Index::find`], and [`PatternError::Ended`].
    pub fn find_while(&self, pattern: &str, go_on: &mut GoOn<'_>) -> Result<Vec<Found>> {
        if pattern.contains(';') && !pattern.starts_with("_tagged") {
            return Ok(self.find_one(pattern).into_iter().collect());
        }
        let pattern = Pattern::parse(pattern)?;
        let _pin = self.pin();
        let mut found = match self.find_at_once(&pattern, go_on)? {
            Some(found) => found,
            None => self.find_in_copy(&pattern, go_on)?,
        };
        let asks_for_tagged = match pattern.nodes.first() {
            Some(NodePattern::AnyDepth(_)) => true,
            Some(NodePattern::OneOf(flats)) => flats.iter().any(|flat| flat.matches("_tagged")),
            Some(NodePattern::Here) | None => false,
        };
        // Files of tagged series are not in the tree: a tree of their paths is built and searched.
        if asks_for_tagged {
            found.extend(self.find_files_of_tagged(&pattern, go_on)?);
            found.sort();
            found.dedup();
        }
        Ok(found)
    }

    /// What `pattern` matches in the tree, which is locked for the whole search; `None` if that would take
    /// long and somebody waits to write.
    fn find_at_once(&self, pattern: &Pattern, go_on: &mut GoOn<'_>) -> Result<Option<Vec<Found>>> {
        let names = self.names();
        let tree = self.tree.read();
        let hold = Hold::long();
        let mut is_over = false;
        let found = tree.find(&names, pattern, &mut |found| {
            is_over = hold.is_over(|| is_waited_for(&self.names) || is_waited_for(&self.tree));
            !is_over && go_on(found)
        });
        match found {
            None if is_over => Ok(None),
            None => Err(PatternError::Ended.into()),
            found => Ok(found),
        }
    }

    /// What `pattern` matches in a copy of the part of the tree that it asks for: the search may take as
    /// long as `go_on` allows. The copy counts as found.
    fn find_in_copy(&self, pattern: &Pattern, go_on: &mut GoOn<'_>) -> Result<Vec<Found>> {
        let ids = {
            let names = self.names();
            let tree = self.tree.read();
            tree.series_below(&names, &pattern.literal_branch())
        };
        let mut copy = TreeCopy::default();
        self.each_name(ids.into_iter().map(|id| id.0), |id, name, flags| {
            if flags.listed.get(id) {
                copy.add(name, go_on)?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        copy.find(pattern, go_on)
    }

    /// What `pattern` matches among the paths of the files of tagged series.
    fn find_files_of_tagged(&self, pattern: &Pattern, go_on: &mut GoOn<'_>) -> Result<Vec<Found>> {
        let mut copy = TreeCopy::default();
        let ids = self.tags.read().all().clone();
        self.each_name(ids.into_iter(), |id, name, flags| {
            let is_unhashed = flags.unhashed.contains(&id);
            if !flags.stored.get(id) && !is_unhashed {
                return Ok(ControlFlow::Continue(()));
            }
            if !go_on(None) {
                return Err(PatternError::Ended.into());
            }
            if !series::is_tagged(name) {
                return Ok(ControlFlow::Continue(()));
            }
            let path = match is_unhashed {
                true => unhashed_tree_path(name),
                false => series::tree_path(name),
            };
            copy.add(&path, go_on)?;
            // The branch `_tagged` alone needs only one series below it.
            Ok(match pattern.nodes[..] {
                [NodePattern::OneOf(_)] => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
        })?;
        copy.find(pattern, go_on)
    }

    /// Calls `visit` with each of `ids`, its name and the flags of all, until it breaks. The caller has a
    /// pin from before it had the ids.
    fn each_name(
        &self,
        mut ids: impl Iterator<Item = u32>,
        mut visit: impl FnMut(u32, &str, &Flags) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        loop {
            let names = self.names();
            let flags = self.flags.read();
            let hold = Hold::short();
            loop {
                let Some(id) = ids.next() else {
                    return Ok(());
                };
                if visit(id, names.name(SeriesId(id)), &flags)?.is_break() {
                    return Ok(());
                }
                if hold.is_over(|| is_waited_for(&self.names) || is_waited_for(&self.flags)) {
                    break;
                }
            }
        }
    }

    /// The tagged series called `name`, if it is known or has a file.
    fn find_one(&self, name: &str) -> Option<Found> {
        let canonical = series::canonical(name.as_bytes()).ok()?;
        let known = {
            let names = self.names();
            let flags = self.flags.read();
            names
                .get(canonical.as_bytes())
                .is_some_and(|id| flags.listed.get(id.0) || flags.stored.get(id.0))
        };
        let on_disk = || {
            let mut path = PathBuf::new();
            series::file_path(&self.root, &canonical, &mut path);
            path.exists() || series::unhashed_path(&self.root, &canonical).exists()
        };
        (known || on_disk()).then(|| Found {
            path: canonical.into_owned(),
            leaf: true,
        })
    }

    /// The canonical names of the series whose tags satisfy every expression, sorted bytewise.
    ///
    /// # Errors
    /// An expression is malformed, or every expression also matches series without its tag.
    pub fn find_tagged(&self, expressions: &[&str]) -> Result<Vec<String>> {
        self.find_tagged_while(expressions, &mut |_| true)
    }

    /// As [`Index::find_tagged`], while `go_on` returns true.
    ///
    /// # Errors
    /// As [`Index::find_tagged`], and [`TagError::Ended`](crate::error::TagError::Ended).
    pub fn find_tagged_while(
        &self,
        expressions: &[&str],
        go_on: &mut GoOn<'_>,
    ) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let _pin = self.pin();
        let ids = TagSearch(&self.tags).find(expressions, go_on)?;
        self.each_name(ids.into_iter(), |_, name, _| {
            found.push(kept(name, go_on)?);
            Ok(ControlFlow::Continue(()))
        })?;
        found.append(&mut self.plain_series(expressions, go_on)?);
        found.sort_unstable();
        // A series may have been registered between the two looks.
        found.dedup();
        Ok(found)
    }

    /// Every tag with its id, sorted.
    pub fn tags(&self) -> Vec<(u32, String)> {
        // A search that is not ended does not fail.
        self.tags_while(&mut |_| true).unwrap_or_default()
    }

    /// As [`Index::tags`], while `go_on` returns true.
    ///
    /// # Errors
    /// [`TagError::Ended`](crate::error::TagError::Ended).
    pub fn tags_while(&self, go_on: &mut GoOn<'_>) -> Result<Vec<(u32, String)>> {
        let mut tags = TagSearch(&self.tags).tags(go_on)?;
        if tags.is_empty() && self.has_plain() {
            let (id, name) = FIRST_TAG;
            tags.push((id, name.to_owned()));
        }
        Ok(tags)
    }

    /// The id of `tag`, and its values sorted; `None` for an unknown tag.
    pub fn values(&self, tag: &str) -> Option<(u32, Vec<TagValue>)> {
        // A search that is not ended does not fail.
        self.values_while(tag, &mut |_| true).unwrap_or_default()
    }

    /// As [`Index::values`], while `go_on` returns true.
    ///
    /// # Errors
    /// [`TagError::Ended`](crate::error::TagError::Ended).
    pub fn values_while(
        &self,
        tag: &str,
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<(u32, Vec<TagValue>)>> {
        let tagged = TagSearch(&self.tags).values(tag, go_on)?;
        if tag != NAME || !self.has_plain() {
            return Ok(tagged);
        }
        let (id, mut values) = tagged.unwrap_or((FIRST_TAG.0, Vec::new()));
        let last = values.iter().map(|value| value.id).max().unwrap_or(0);
        let plain = self.plain_names(go_on)?.into_iter();
        values.extend(plain.map(|(series, value)| TagValue {
            // Beyond those of the tag index.
            id: last.saturating_add(1).saturating_add(series.0),
            value,
            count: 1,
        }));
        values.sort_by(|a, b| a.value.cmp(&b.value).then(a.id.cmp(&b.id)));
        values.dedup_by(|later, first| {
            let same = later.value == first.value;
            if same {
                first.count += later.count;
            }
            same
        });
        Ok(Some((id, values)))
    }

    /// The tags, beginning with `prefix`, of the series that satisfy `expressions`, without those
    /// that the expressions name; sorted, at most `limit`.
    ///
    /// # Errors
    /// As [`Index::find_tagged`].
    pub fn complete_tags(
        &self,
        expressions: &[&str],
        prefix: &str,
        limit: usize,
        go_on: &mut GoOn<'_>,
    ) -> Result<Vec<String>> {
        let mut found = TagSearch(&self.tags).complete_tags(expressions, prefix, limit, go_on)?;
        // An expression that a plain series satisfies names its only tag.
        let (_, name) = FIRST_TAG;
        let shows_name = expressions.is_empty() && name.starts_with(prefix) && self.has_plain();
        if shows_name && !found.iter().any(|tag| tag == name) {
            found.push(name.to_owned());
            found.sort_unstable();
            found.truncate(limit);
        }
        Ok(found)
    }

    /// The values of `tag`, beginning with `prefix`, among the series that satisfy `expressions`;
    /// sorted, at most `limit`.
    ///
    /// # Errors
    /// An expression is malformed.
    pub fn complete_values(
        &self,
        expressions: &[&str],
        tag: &str,
        prefix: &str,
        limit: usize,
        go_on: &mut GoOn<'_>,
    ) -> Result<Vec<String>> {
        let tagged =
            TagSearch(&self.tags).complete_values(expressions, tag, prefix, limit, go_on)?;
        if tag != NAME {
            return Ok(tagged);
        }
        let mut values = self.complete_plain(expressions, prefix, limit, go_on)?;
        values.extend(tagged);
        Ok(values.into_iter().take(limit).collect())
    }
}

/// A tree of its own for one search.
#[derive(Default)]
struct TreeCopy {
    names: Names,
    tree: Tree,
}

impl TreeCopy {
    fn add(&mut self, path: &str, go_on: &mut GoOn<'_>) -> Result<()> {
        // One for its place among the names, one for its branches in the tree.
        if !go_on(Some(path)) || !go_on(Some(path)) {
            return Err(PatternError::Ended.into());
        }
        if let Ok((id, true)) = self.names.intern(path.as_bytes()) {
            self.tree.insert(&self.names, id);
        }
        Ok(())
    }

    fn find(&self, pattern: &Pattern, go_on: &mut GoOn<'_>) -> Result<Vec<Found>> {
        let found = self.tree.find(&self.names, pattern, go_on);
        Ok(found.ok_or(PatternError::Ended)?)
    }
}

/// The paths that `pattern` matches.
#[cfg(test)]
pub(super) fn paths(index: &Index, pattern: &str) -> Vec<String> {
    let found = index.find(pattern).unwrap();
    found.into_iter().map(|found| found.path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Runs `search`, whose steps wait a little for a thread that adds a new series meanwhile: whether the
    /// series was there before the search was over.
    fn lets_a_new_name_in(index: &Index, search: impl FnOnce(&mut GoOn<'_>) -> bool) -> bool {
        let (done, is_done) = std::sync::mpsc::channel();
        let mut came = false;
        std::thread::scope(|scope| {
            let mut steps = 0;
            let ended = search(&mut |_| {
                steps += 1;
                if steps == 1 {
                    let done = done.clone();
                    scope.spawn(move || {
                        let id = index.intern(b"new.name;with=tag").unwrap();
                        index.list(&[id]);
                        done.send(()).unwrap();
                    });
                }
                let wait = Duration::from_millis(5);
                came = came || is_done.recv_timeout(wait).is_ok();
                // As a search without an end would be, if nothing comes in.
                came || steps < 2_000
            });
            assert_eq!(ended, !came);
        });
        came
    }

    #[test]
    fn a_long_search_lets_new_names_in() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), dir.path().join("names"), false).unwrap();
        let name = |n: usize| format!("web.host{n:03}.hits");
        for n in 0..500 {
            let tagged = format!("m;host=h{n:03}");
            let ids = [name(n), tagged].map(|name| index.intern(name.as_bytes()).unwrap());
            index.list(&ids);
        }
        assert!(lets_a_new_name_in(&index, |go_on| {
            match index.find_while("web.{*5,*6}.hits", go_on) {
                Err(_) => true,
                Ok(found) => {
                    let expected = (0..500).filter(|n| [5, 6].contains(&(n % 10))).map(name);
                    let found: Vec<String> = found.into_iter().map(|found| found.path).collect();
                    assert_eq!(found, expected.collect::<Vec<_>>());
                    false
                }
            }
        }));
        for expression in ["host=~.*1$", "name=~m$"] {
            assert!(lets_a_new_name_in(&index, |go_on| {
                index.find_tagged_while(&[expression], go_on).is_err()
            }));
        }
        assert!(lets_a_new_name_in(&index, |go_on| {
            index.complete_values(&[], "host", "", 900, go_on).is_err()
        }));
    }

    #[test]
    fn a_stored_tagged_series_shows_below_tagged() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path(), dir.path().join("names"), false).unwrap();
        let id = index.intern(b"m;a=1").unwrap();
        index.list(&[id]);
        index.stored(id);
        let path = series::tree_path("m;a=1");
        assert_eq!(paths(&index, "*"), ["_tagged"]);
        assert_eq!(paths(&index, "_tagged.*.*.*"), std::slice::from_ref(&path));
        assert!(paths(&index, "**").contains(&path));
    }
}
