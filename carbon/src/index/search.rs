//! Finds series by pattern, by name and by tag.

use std::path::PathBuf;

use super::expression::NAME;
use super::glob::{NodePattern, Pattern};
use super::plain::FIRST_TAG;
use super::state::Index;
use super::tagged::unhashed_tree_path;
use super::tags::TagValue;
use super::tree::{Found, GoOn, Tree};
use crate::datapoint::SeriesId;
use crate::error::{PatternError, Result, TagError};
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
        let names = self.names();
        let mut found = self
            .tree
            .read()
            .find(&names, &pattern, go_on)
            .ok_or(PatternError::Ended)?;
        let asks_for_tagged = match pattern.nodes.first() {
            Some(NodePattern::AnyDepth(_)) => true,
            Some(NodePattern::OneOf(flats)) => flats.iter().any(|flat| flat.matches("_tagged")),
            Some(NodePattern::Here) | None => false,
        };
        // Files of tagged series are not in the tree: a tree of their paths is built and searched.
        if asks_for_tagged {
            let mut paths = Names::default();
            let mut tree = Tree::default();
            {
                let tags = self.tags.read();
                let flags = self.flags.read();
                let has_file = |id: &u32| flags.stored.get(*id) || flags.unhashed.contains(id);
                let path_of = |id: u32, name: &str| match flags.unhashed.contains(&id) {
                    true => unhashed_tree_path(name),
                    false => series::tree_path(name),
                };
                for id in tags.all().iter().filter(has_file) {
                    let name = names.name(SeriesId(id));
                    if !go_on(None) {
                        return Err(PatternError::Ended.into());
                    }
                    if !series::is_tagged(name) {
                        continue;
                    }
                    let path = path_of(id, name);
                    // One for its place among the paths, one for its branches in the tree.
                    if !go_on(Some(&path)) || !go_on(Some(&path)) {
                        return Err(PatternError::Ended.into());
                    }
                    if let Ok((id, true)) = paths.intern(path.as_bytes()) {
                        tree.insert(&paths, id);
                        // The branch `_tagged` alone needs only one series below it.
                        if let [NodePattern::OneOf(_)] = pattern.nodes[..] {
                            break;
                        }
                    }
                }
            }
            found.extend(
                tree.find(&paths, &pattern, go_on)
                    .ok_or(PatternError::Ended)?,
            );
            found.sort();
            found.dedup();
        }
        Ok(found)
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
    /// As [`Index::find_tagged`], and [`TagError::Ended`].
    pub fn find_tagged_while(
        &self,
        expressions: &[&str],
        go_on: &mut GoOn<'_>,
    ) -> Result<Vec<String>> {
        let mut found = Vec::new();
        {
            let names = self.names();
            let ids = self.tags.read().find(expressions, go_on)?;
            for id in &ids {
                let name = names.name(SeriesId(id));
                if !go_on(Some(name)) {
                    return Err(TagError::Ended.into());
                }
                found.push(name.to_owned());
            }
        }
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
    /// [`TagError::Ended`].
    pub fn tags_while(&self, go_on: &mut GoOn<'_>) -> Result<Vec<(u32, String)>> {
        let mut tags = self.tags.read().tags(go_on)?;
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
    /// [`TagError::Ended`].
    pub fn values_while(
        &self,
        tag: &str,
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<(u32, Vec<TagValue>)>> {
        let tagged = self.tags.read().values(tag, go_on)?;
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
        let mut found = self
            .tags
            .read()
            .complete_tags(expressions, prefix, limit, go_on)?;
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
        let tagged = self
            .tags
            .read()
            .complete_values(expressions, tag, prefix, limit, go_on)?;
        if tag != NAME {
            return Ok(tagged);
        }
        let mut values = self.complete_plain(expressions, prefix, limit, go_on)?;
        values.extend(tagged);
        Ok(values.into_iter().take(limit).collect())
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
