//! Names to ids and back.
//!
//! 1. A name is stored once, in canonical form. Ids are dense: a new name gets the id of a name that
//!    was freed, or the next number.
//! 2. A lookup is one hash of the raw bytes and one comparison, without an allocation.
//! 3. Aliases (names that are not canonical: tags in another order, empty nodes) are stored too, up to
//!    [`MAX_ALIASES`] and [`MAX_ALIAS_BYTES`], so that they are normalised once for a client that always
//!    sends them.
//! 4. A name is removed in two steps. After [`Names::unlink`] lookups no longer find it, but its id still
//!    has its name. After [`Names::free`] the id has no name and may be assigned to another. `index::grace`
//!    has the conditions for each step.
//! 5. Names of blocks that are mostly free are moved to the newest block, and the blocks are freed.

mod name;

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::path::Path;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet, HashTable};

pub(crate) use name::MAX_NAME;
pub use name::{canonical, file_path, is_tagged, tags, tree_path, unhashed_path};

use crate::datapoint::{NameError, SeriesId};

/// The most aliases that are stored.
const MAX_ALIASES: usize = 1 << 20;
/// The most bytes of text that they have. No limit on series counts them.
const MAX_ALIAS_BYTES: usize = 128 << 20;

/// The longest path in bytes that the system accepts, less the separator after the root and the longest
/// name of a temporary file.
const LONGEST_PATH: usize = 4_095 - 1 - whisper::create::TEMPORARY_LEN;

/// The shortest time between two messages in the log about refused names.
const QUIET: Duration = Duration::from_secs(10);

/// Bytes per block of names.
const BLOCK_BITS: u32 = 20;
const BLOCK_SIZE: usize = 1 << BLOCK_BITS;

/// In `starts`: the id has no name. No name begins at the last byte of a block.
const FREED: u32 = u32::MAX;

/// The interner.
#[derive(Debug, Default)]
pub struct Names {
    hasher: RandomState,
    table: HashTable<u32>,
    /// Where each id's name begins: block number and offset, two bytes of length before the text.
    starts: Vec<u32>,
    blocks: Vec<Vec<u8>>,
    aliases: HashMap<Box<[u8]>, u32, RandomState>,
    /// The bytes of text in `aliases`.
    alias_bytes: usize,
    /// The length in bytes of the path of the directory of the files.
    root_len: usize,
    /// When a message about a name that is too long was last logged.
    logged: Option<Instant>,
    /// Ids whose name lookups do not find.
    unlinked: HashSet<u32, RandomState>,
    /// Ids without a name.
    free: Vec<u32>,
    /// For each block, the bytes of freed names.
    dead: Vec<u32>,
    /// The block of new names.
    newest: usize,
    /// Blocks without memory.
    free_blocks: Vec<usize>,
    /// Ids that were freed and then assigned to another name.
    reused: Vec<u32>,
}

impl Names {
    /// An interner for series whose files are below `root`: it refuses a new name whose file would have a
    /// path that is too long.
    pub fn below(root: &Path) -> Self {
        Self {
            root_len: root.as_os_str().len(),
            ..Self::default()
        }
    }

    /// The id of the series called `raw`, if the name is known.
    #[inline]
    pub fn get(&self, raw: &[u8]) -> Option<SeriesId> {
        let hash = self.hasher.hash_one(raw);
        if let Some(id) = self.table.find(hash, |id| self.bytes(*id) == raw) {
            return Some(SeriesId(*id));
        }
        if self.aliases.is_empty() {
            return None;
        }
        self.aliases.get(raw).map(|id| SeriesId(*id))
    }

    /// The id of the series called `raw`, and whether it is a new one.
    ///
    /// # Errors
    /// The name cannot be stored.
    pub fn intern(&mut self, raw: &[u8]) -> Result<(SeriesId, bool), NameError> {
        if let Some(id) = self.get(raw) {
            return Ok((id, false));
        }
        let canonical = self.checked(raw)?;
        if let Cow::Borrowed(_) = canonical {
            return Ok((self.add(canonical.as_bytes())?, true));
        }
        let (id, new) = match self.get(canonical.as_bytes()) {
            Some(id) => (id, false),
            None => (self.add(canonical.as_bytes())?, true),
        };
        let alias_bytes = self.alias_bytes + raw.len();
        if self.aliases.len() < MAX_ALIASES && alias_bytes <= MAX_ALIAS_BYTES {
            self.aliases.insert(raw.into(), id.0);
            self.alias_bytes = alias_bytes;
        }
        Ok((id, new))
    }

    /// The canonical form of `raw`, if a file can have the name.
    fn checked<'a>(&mut self, raw: &'a [u8]) -> Result<Cow<'a, str>, NameError> {
        let root_len = self.root_len;
        let fits = |name: &str| is_tagged(name) || root_len + name.len() <= LONGEST_PATH;
        let checked = canonical(raw).and_then(|name| match fits(&name) {
            true => Ok(name),
            false => Err(NameError::PathTooLong),
        });
        if let Err(why @ (NameError::TooLong | NameError::PathTooLong)) = checked {
            // For the operator to find the sender, one name in ten seconds is enough.
            let now = Instant::now();
            if self.logged.is_none_or(|at| now - at > QUIET) {
                self.logged = Some(now);
                let name = raw[..raw.len().min(300)].escape_ascii();
                tracing::warn!(len = raw.len(), "refused, as {why}: {name}");
            }
        }
        checked
    }

    /// As [`Names::intern`], for a name that was stored before and is known to be canonical.
    ///
    /// # Errors
    /// Empty or not UTF-8, or too many names.
    pub(crate) fn restore(&mut self, name: &[u8]) -> Result<SeriesId, NameError> {
        let hash = self.hasher.hash_one(name);
        if let Some(id) = self.table.find(hash, |id| self.bytes(*id) == name) {
            return Ok(SeriesId(*id));
        }
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        std::str::from_utf8(name).map_err(|_| NameError::NotUtf8)?;
        self.add_hashed(name, hash)
    }

    /// Stores a new canonical name.
    fn add(&mut self, name: &[u8]) -> Result<SeriesId, NameError> {
        self.add_hashed(name, self.hasher.hash_one(name))
    }

    fn add_hashed(&mut self, name: &[u8], hash: u64) -> Result<SeriesId, NameError> {
        let next = u32::try_from(self.starts.len()).map_err(|_| NameError::TooMany)?;
        let start = self.store(name)?;
        let id = match self.free.pop() {
            Some(id) => {
                self.starts[id as usize] = start;
                self.reused.push(id);
                id
            }
            None => {
                self.starts.push(start);
                next
            }
        };
        self.link_hashed(id, hash);
        Ok(SeriesId(id))
    }

    /// Writes the text of a name and returns its place.
    fn store(&mut self, name: &[u8]) -> Result<u32, NameError> {
        let len = u16::try_from(name.len()).map_err(|_| NameError::TooLong)?;
        let size = name.len() + 2;
        let fits = |block: &Vec<u8>| block.capacity() > 0 && block.len() + size <= BLOCK_SIZE;
        if !self.blocks.get(self.newest).is_some_and(fits) {
            let number = match self.free_blocks.pop() {
                Some(number) => number,
                None if self.blocks.len() >> (32 - BLOCK_BITS) > 0 => {
                    return Err(NameError::TooMany);
                }
                None => {
                    self.blocks.push(Vec::new());
                    self.dead.push(0);
                    self.blocks.len() - 1
                }
            };
            self.blocks[number] = Vec::with_capacity(BLOCK_SIZE);
            self.newest = number;
        }
        let block = &mut self.blocks[self.newest];
        let start = (self.newest << BLOCK_BITS) | block.len();
        block.extend_from_slice(&len.to_le_bytes());
        block.extend_from_slice(name);
        Ok(start as u32)
    }

    fn link_hashed(&mut self, id: u32, hash: u64) {
        let Self {
            hasher,
            table,
            starts,
            blocks,
            ..
        } = self;
        table.insert_unique(hash, id, |id| hasher.hash_one(bytes(starts, blocks, *id)));
    }

    /// Hides `id` from lookups, by its aliases as well after [`Names::forget_aliases`]. Its name stays
    /// until [`Names::free`].
    pub(crate) fn unlink(&mut self, id: SeriesId) {
        let hash = self.hasher.hash_one(self.bytes(id.0));
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == id.0) {
            entry.remove();
            self.unlinked.insert(id.0);
        }
    }

    /// Removes the aliases of series for which `gone` returns true.
    pub(crate) fn forget_aliases(&mut self, gone: impl Fn(SeriesId) -> bool) {
        let alias_bytes = &mut self.alias_bytes;
        self.aliases.retain(|alias, id| {
            let gone = gone(SeriesId(*id));
            if gone {
                *alias_bytes -= alias.len();
            }
            !gone
        });
    }

    /// Whether `id` has a name that lookups do not find.
    pub(crate) fn is_unlinked(&self, id: SeriesId) -> bool {
        !self.unlinked.is_empty() && self.unlinked.contains(&id.0)
    }

    /// Whether `id` has a name that lookups find.
    pub(crate) fn is_linked(&self, id: SeriesId) -> bool {
        let start = self.starts.get(id.0 as usize);
        start.is_some_and(|start| *start != FREED) && !self.is_unlinked(id)
    }

    /// Whether `id` has the canonical name `name`, and lookups find it.
    #[inline]
    pub(crate) fn is(&self, id: SeriesId, name: &[u8]) -> bool {
        self.is_linked(id) && self.bytes(id.0) == name
    }

    /// Lets lookups find `id` again, unless its name has another id by now. Returns the id of the name.
    pub(crate) fn relink(&mut self, id: SeriesId) -> SeriesId {
        if !self.is_unlinked(id) {
            return id;
        }
        let hash = self.hasher.hash_one(self.bytes(id.0));
        let known = self
            .table
            .find(hash, |other| self.bytes(*other) == self.bytes(id.0));
        if let Some(known) = known {
            return SeriesId(*known);
        }
        self.unlinked.remove(&id.0);
        self.link_hashed(id.0, hash);
        id
    }

    /// Removes the name of an unlinked `id`, which may be assigned to another name from now on.
    pub(crate) fn free(&mut self, id: SeriesId) {
        if !self.unlinked.remove(&id.0) {
            return;
        }
        let start = self.starts[id.0 as usize] as usize;
        let size = self.bytes(id.0).len() + 2;
        self.starts[id.0 as usize] = FREED;
        self.free.push(id.0);
        let number = start >> BLOCK_BITS;
        self.dead[number] += size as u32;
    }

    /// Frees memory of removed names: blocks that are more than half free, and tables that are mostly
    /// empty.
    pub(crate) fn give_back(&mut self) {
        // Moving a name costs a copy: only blocks that are worth it.
        let blocks = 0..self.blocks.len();
        let worn: Vec<usize> = blocks
            .filter(|number| {
                let (dead, all) = (self.dead[*number] as usize, self.blocks[*number].len());
                *number != self.newest && dead * 2 > all
            })
            .collect();
        if !worn.is_empty() {
            let mut moving: Vec<u32> = (0..self.starts.len() as u32)
                .filter(|id| {
                    let start = self.starts[*id as usize];
                    start != FREED && worn.binary_search(&(start as usize >> BLOCK_BITS)).is_ok()
                })
                .collect();
            // In the order in memory, so that names which were added together stay together.
            moving.sort_unstable_by_key(|id| self.starts[*id as usize]);
            let mut whole = vec![true; worn.len()];
            for id in moving {
                let from = self.starts[id as usize] as usize >> BLOCK_BITS;
                let name = self.bytes(id).to_vec();
                match self.store(&name) {
                    Ok(start) => self.starts[id as usize] = start,
                    Err(_) => {
                        if let Ok(at) = worn.binary_search(&from) {
                            whole[at] = false;
                        }
                    }
                }
            }
            // A block with a name that found no other place stays.
            for (number, _) in worn.into_iter().zip(whole).filter(|(_, whole)| *whole) {
                self.blocks[number] = Vec::new();
                self.dead[number] = 0;
                self.free_blocks.push(number);
            }
        }
        // The table grows by doubling and never shrinks by itself.
        if self.table.capacity() > 4 * self.table.len() + 1_024 {
            let Self {
                hasher,
                table,
                starts,
                blocks,
                ..
            } = self;
            let room = table.len() * 2;
            table.shrink_to(room, |id| hasher.hash_one(bytes(starts, blocks, *id)));
        }
    }

    /// Ids that were freed and then assigned to another name. The caller removes those it has handled.
    pub(crate) fn reused(&mut self) -> &mut Vec<u32> {
        &mut self.reused
    }

    /// As [`Names::reused`], for reading.
    pub(crate) fn reused_ids(&self) -> &[u32] {
        &self.reused
    }

    #[inline]
    fn bytes(&self, id: u32) -> &[u8] {
        bytes(&self.starts, &self.blocks, id)
    }

    /// The canonical name of `id`; empty for an id that has no name.
    #[inline]
    pub fn name(&self, id: SeriesId) -> &str {
        if self
            .starts
            .get(id.0 as usize)
            .is_none_or(|start| *start == FREED)
        {
            return "";
        }
        // Only canonical names are stored, so the check never fails.
        std::str::from_utf8(self.bytes(id.0)).unwrap_or_default()
    }

    /// As [`Names::name`], as bytes, of an id that has a name.
    #[inline]
    pub(crate) fn name_bytes(&self, id: u32) -> &[u8] {
        self.bytes(id)
    }

    /// How many names lookups find.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Above every id that was ever assigned.
    pub(crate) fn end(&self) -> usize {
        self.starts.len()
    }

    /// Reserves memory for `more` names.
    pub fn reserve(&mut self, more: usize) {
        let Self {
            hasher,
            table,
            starts,
            blocks,
            ..
        } = self;
        table.reserve(more, |id| hasher.hash_one(bytes(starts, blocks, *id)));
        starts.reserve_exact(more);
    }

    /// Bytes allocated.
    pub fn size_bytes(&self) -> usize {
        (self.blocks.len() - self.free_blocks.len()) * BLOCK_SIZE
            + self.starts.capacity() * 4
            + self.table.capacity() * 8 / 7 * 5
    }
}

#[inline]
fn bytes<'a>(starts: &[u32], blocks: &'a [Vec<u8>], id: u32) -> &'a [u8] {
    let start = starts[id as usize] as usize;
    let block = &blocks[start >> BLOCK_BITS];
    let at = start & (BLOCK_SIZE - 1);
    let len = u16::from_le_bytes([block[at], block[at + 1]]) as usize;
    &block[at + 2..at + 2 + len]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap as StdMap;

    #[test]
    fn long_aliases_have_less_room_than_many() {
        let mut names = Names::default();
        let (series, _) = names.intern(b"a.b").unwrap();
        // As if others had left that much.
        let others = MAX_ALIAS_BYTES - 40;
        names.alias_bytes = others;
        for dots in 2..9 {
            let alias = format!("a{}b", ".".repeat(dots));
            assert_eq!(names.intern(alias.as_bytes()), Ok((series, false)));
        }
        assert_eq!(names.aliases.len(), 6, "of 4 to 9 bytes");
        names.forget_aliases(|gone| gone == series);
        assert_eq!((names.aliases.len(), names.alias_bytes), (0, others));
    }

    #[test]
    fn spellings_of_one_series_have_one_id() {
        let mut names = Names::default();
        let (id, new) = names.intern(b"a..b").unwrap();
        assert!(new);
        assert_eq!(names.intern(b"a.b").unwrap(), (id, false));
        assert_eq!(names.intern(b".a.b").unwrap(), (id, false));
        assert_eq!(names.intern(b"~a.b").unwrap(), (id, false));
        assert_eq!(names.name(id), "a.b");
        let (cut, _) = names.intern(b"~c").unwrap();
        assert_eq!(names.intern(b"~c").unwrap(), (cut, false));
        assert_eq!(names.intern(b"c").unwrap(), (cut, false));
        let (tagged, _) = names.intern(b"m;z=1;a=2").unwrap();
        assert_eq!(names.get(b"m;a=2;z=1"), Some(tagged));
        assert_eq!(names.get(b"m;z=1;a=2"), Some(tagged));
        assert_eq!(names.intern(b"a\0b"), Err(NameError::Forbidden));
        assert_eq!(names.len(), 3);
        assert_eq!(names.name(SeriesId(99)), "");
        assert_eq!(names.restore(b""), Err(NameError::Empty));
    }

    #[test]
    fn a_name_whose_path_would_be_too_long_is_refused() {
        let root = format!("/{}", "r".repeat(199));
        let mut names = Names::below(Path::new(&root));
        let name = |len: usize| [b"n".repeat(199), b"m".repeat(len)].join(&b"."[..]);
        let long = |len: usize| {
            let mut name = [b"n".repeat(199), b".".to_vec()].concat().repeat(19);
            name.extend(b"m".repeat(len - name.len()));
            name
        };
        assert!(names.intern(&name(50)).is_ok());
        let longest = LONGEST_PATH - root.len();
        assert!(names.intern(&long(longest)).is_ok());
        let refused = names.intern(&long(longest + 1));
        assert_eq!(refused, Err(NameError::PathTooLong));
        // A tagged series' file is named by a hash.
        let tagged = [&long(longest + 1)[..], b";a=b"].concat();
        assert!(names.intern(&tagged).is_ok());
        assert_eq!(names.len(), 3);
    }

    #[test]
    fn many_names_against_a_map() {
        let mut names = Names::default();
        let mut twin: StdMap<String, SeriesId> = StdMap::new();
        for i in 0..100_000_u32 {
            let name = format!("host{}.svc{}.metric{}", i % 97, i % 31, i / 7);
            let (id, new) = names.intern(name.as_bytes()).unwrap();
            match twin.get(&name) {
                Some(known) => assert_eq!((id, new), (*known, false)),
                None => {
                    assert!(new);
                    twin.insert(name, id);
                }
            }
        }
        for (name, id) in &twin {
            assert_eq!(names.get(name.as_bytes()), Some(*id));
            assert_eq!(names.name(*id), name);
        }
        assert_eq!(names.len(), twin.len());
    }
}
