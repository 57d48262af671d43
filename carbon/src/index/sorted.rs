//! A sorted list with an unsorted end, for the children of a branch.

use std::cmp::Ordering;

/// Entries that may wait unsorted at the end of a list.
const MAX_UNSORTED: usize = 64;

/// A sorted list with an unsorted end.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) items: Vec<u32>,
    sorted: u32,
}

/// Bytewise, but the dot comes first.
pub(super) fn order(a: &[u8], b: &[u8]) -> Ordering {
    let low = |byte: u8| if byte == b'.' { 0 } else { byte };
    let common = a.len().min(b.len());
    match a[..common]
        .iter()
        .zip(&b[..common])
        .position(|(a, b)| a != b)
    {
        Some(at) => low(a[at]).cmp(&low(b[at])),
        None => a.len().cmp(&b.len()),
    }
}

impl List {
    /// Appends `item`, merging the unsorted end when it has grown long.
    pub(super) fn push<'a>(&mut self, item: u32, key: impl Fn(u32) -> &'a [u8]) {
        let in_order = self.sorted as usize == self.items.len()
            && self
                .items
                .last()
                .is_none_or(|last| order(key(*last), key(item)).is_lt());
        self.items.push(item);
        if in_order {
            self.sorted += 1;
        } else if self.items.len() - self.sorted as usize > MAX_UNSORTED {
            self.merge(key);
        }
    }

    fn merge<'a>(&mut self, key: impl Fn(u32) -> &'a [u8]) {
        let mut end = self.sorted as usize;
        let mut new = self.items.split_off(end);
        new.sort_unstable_by(|a, b| order(key(*a), key(*b)));
        let mut write = end + new.len();
        self.items.resize(write, 0);
        for item in new.into_iter().rev() {
            let at = self.items[..end].partition_point(|old| order(key(*old), key(item)).is_lt());
            write -= end - at;
            self.items.copy_within(at..end, write);
            write -= 1;
            self.items[write] = item;
            end = at;
        }
        self.sorted = self.items.len() as u32;
    }

    /// The sorted entries that begin with `prefix`, then all unsorted ones.
    pub(super) fn beginning<'a>(
        &self,
        prefix: &[u8],
        key: impl Fn(u32) -> &'a [u8],
    ) -> impl Iterator<Item = u32> {
        let (sorted, unsorted) = self.items.split_at(self.sorted as usize);
        let from = sorted.partition_point(|item| order(key(*item), prefix).is_lt());
        let len = sorted[from..].partition_point(|item| key(*item).starts_with(prefix));
        sorted[from..from + len].iter().chain(unsorted).copied()
    }

    /// The entry whose key is `wanted`. The last one is checked first: sorted names, as at the start, go
    /// into the branch of the name before.
    pub(super) fn exact<'a>(&self, wanted: &[u8], key: impl Fn(u32) -> &'a [u8]) -> Option<u32> {
        let last = self.items.last().copied()?;
        if key(last) == wanted {
            return Some(last);
        }
        let (sorted, unsorted) = self.items.split_at(self.sorted as usize);
        let at = sorted.partition_point(|item| order(key(*item), wanted).is_lt());
        let mut candidates = sorted.get(at).into_iter().chain(unsorted);
        candidates.find(|item| key(**item) == wanted).copied()
    }

    /// Removes `item`, whose key is `wanted`. Whether it was there.
    pub(super) fn remove<'a>(
        &mut self,
        item: u32,
        wanted: &[u8],
        key: impl Fn(u32) -> &'a [u8],
    ) -> bool {
        let (sorted, unsorted) = self.items.split_at(self.sorted as usize);
        let near = sorted.partition_point(|item| order(key(*item), wanted).is_lt());
        let at = if sorted.get(near) == Some(&item) {
            near
        } else {
            match unsorted.iter().position(|own| *own == item) {
                Some(at) => sorted.len() + at,
                None => return false,
            }
        };
        self.items.remove(at);
        if self.items.len() * 4 < self.items.capacity() {
            self.items.shrink_to(self.items.len() * 2);
        }
        if at < self.sorted as usize {
            self.sorted -= 1;
        }
        true
    }
}
