//! Tags to series: an inverted index with a bitmap per value.
//!
//! 1. A series is here while it is listed. Tags and values stay known, with their ids, after their last
//!    series is removed over HTTP. If it expires ([`Tags::expire`]), they are removed as well.
//! 2. The metric's name is the tag `name`. A registered name without tags has only that one.
//! 3. Searches do not keep it locked for long: see [`tag_search`](super::tag_search).

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use crate::datapoint::SeriesId;
use crate::series;

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    pub(super) tags: BTreeMap<Box<str>, Tag>,
    all: RoaringBitmap,
    last_value: u32,
    last_tag: u32,
}

#[derive(Debug, Default)]
pub(super) struct Tag {
    pub(super) id: u32,
    /// All series that carry the tag.
    pub(super) any: RoaringBitmap,
    pub(super) values: BTreeMap<Box<str>, Value>,
}

#[derive(Debug, Default)]
pub(super) struct Value {
    pub(super) id: u32,
    pub(super) series: RoaringBitmap,
}

impl Tags {
    /// Adds the series called `name`.
    pub(crate) fn insert(&mut self, id: SeriesId, name: &str) {
        if !self.all.insert(id.0) {
            return;
        }
        for (tag, value) in series::tags(name) {
            if !self.tags.contains_key(tag) {
                self.last_tag += 1;
                let new = Tag {
                    id: self.last_tag,
                    ..Tag::default()
                };
                self.tags.insert(tag.into(), new);
            }
            let Some(entry) = self.tags.get_mut(tag) else {
                continue;
            };
            entry.any.insert(id.0);
            if !entry.values.contains_key(value) {
                self.last_value += 1;
                let new = Value {
                    id: self.last_value,
                    ..Value::default()
                };
                entry.values.insert(value.into(), new);
            }
            if let Some(value) = entry.values.get_mut(value) {
                value.series.insert(id.0);
            }
        }
    }

    /// Removes the series. Whether it was there.
    pub(crate) fn remove(&mut self, id: SeriesId, name: &str) -> bool {
        if !self.all.remove(id.0) {
            return false;
        }
        for (tag, value) in series::tags(name) {
            if let Some(entry) = self.tags.get_mut(tag) {
                entry.any.remove(id.0);
                if let Some(value) = entry.values.get_mut(value) {
                    value.series.remove(id.0);
                }
            }
        }
        true
    }

    /// As [`Tags::remove`]; also removes tags and values that no series carries any longer.
    pub(crate) fn expire(&mut self, id: SeriesId, name: &str) -> bool {
        let was_in = self.remove(id, name);
        for (tag, value) in series::tags(name) {
            let Some(entry) = self.tags.get_mut(tag) else {
                continue;
            };
            if entry
                .values
                .get(value)
                .is_some_and(|value| value.series.is_empty())
            {
                entry.values.remove(value);
            }
            if entry.any.is_empty() {
                self.tags.remove(tag);
            }
        }
        was_in
    }

    /// Whether the series is there.
    pub(crate) fn contains(&self, id: SeriesId) -> bool {
        self.all.contains(id.0)
    }

    /// Every series.
    pub(crate) fn all(&self) -> &RoaringBitmap {
        &self.all
    }
}
