//! Names to values: the hot memory of one receiver.
//!
//! ```text
//! index   entries by the hash of their name
//! entries one cache line each, see `cell`
//! ```
//!
//! 1. A table belongs to one thread. What other threads learn is copied out, but for names, which they read
//!    where they are ([`crate::raw::entries`]).
//! 2. A name costs two cache lines: its index slot and its entry. For a batch of tokens both are
//!    prefetched, slots `2 × AHEAD` tokens ahead and entries `AHEAD`; an entry that was guessed
//!    rightly needs no search.
//! 3. Each entry has two cells. [`Table::end_interval`] switches to the other one; what the old one
//!    holds is swept out piece by piece, between batches.
//! 4. Names are keyed as they are sent. The first time a name is seen it is brought into its
//!    canonical form; if that differs, its entry is an alias that links to the canonical entry, so
//!    that sanitising and tags cost once per alias.
//! 5. An alias goes after some intervals without samples, while its name may live for ever: spellings
//!    that come once take no room for long. Where there is no room for another alias, the samples of
//!    a known name are taken without one.
//! 6. Reports name entries by their numbers. So an entry gets another name only when an interval ends, after everything
//!    about the old one has been reported ([`Table::end_interval`]).

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::cell::{
    ABSOLUTE, ALIAS, Carry, Cell, Entry, FORGOTTEN, Hits, MemberList, SampleList, TOUCHED, Value,
};
use crate::index::Index;
use crate::kind::Kind;
use crate::metric::Sample;
use crate::population::{Claim, Limits, Population, prefix};
use crate::raw::entries::{Entries, WORDS};
use crate::raw::memory::make_room;
use crate::report::{NewNames, Refused};
use crate::sanitize;
use crate::token::{self, INLINE, MARGIN, Seeds, Token};

const AHEAD: usize = 16;
/// Intervals without samples after which an alias is forgotten, as long as idle names live on.
const IDLE: f64 = 8.0;
/// Forgotten entries that are worth collecting.
const WORTHWHILE: usize = 4_096;

/// What tokens stand for, beside the received bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aside<'a> {
    /// Names that are not in the received bytes as they are looked up, and texts.
    pub(crate) bytes: &'a [u8],
    /// Where the texts of tokens with text are, in the order of the tokens.
    pub(crate) texts: &'a [Range<usize>],
}

/// The table. See the head of this file.
pub(crate) struct Table {
    seeds: Seeds,
    index: Index,
    /// Names, zeros after them; of a longer one the first 32 bytes, then its place among the long names.
    entries: Entries,
    /// Entries handed out, free ones included.
    len: u32,
    free: Vec<u32>,
    forgotten: usize,
    /// Names longer than an entry holds.
    long: Vec<u8>,
    /// Which cells take samples now.
    parity: usize,
    carry: Carry,
    limits: Limits,
    /// What all tables that share the limits have.
    population: Arc<Population>,
    new_names: u64,
    /// Samples per entry since they were last taken, if they are counted.
    hits: Option<Hits>,
    pub(crate) names: NewNames,
    pub(crate) samples: SampleList,
    pub(crate) members: MemberList,
    pub(crate) refused: Refused,
}

impl Table {
    /// An empty table.
    ///
    /// # Errors
    /// There is no memory for its index.
    pub(crate) fn new(
        limits: Limits,
        carry: Carry,
        count_hits: bool,
        population: Arc<Population>,
    ) -> io::Result<Self> {
        Ok(Self {
            seeds: Seeds::random(),
            index: Index::new()?,
            entries: Entries::new(),
            len: 0,
            free: Vec::new(),
            forgotten: 0,
            long: Vec::new(),
            parity: 0,
            carry,
            limits,
            population,
            new_names: 0,
            hits: count_hits.then(Hits::default),
            names: NewNames::default(),
            samples: SampleList::default(),
            members: MemberList::default(),
            refused: Refused::default(),
        })
    }

    /// The secrets with which tokens' hashes are made.
    pub(crate) fn seeds(&self) -> Seeds {
        self.seeds
    }

    /// Applies `tokens`, whose names are in `received` or aside.
    #[inline(always)]
    pub(crate) fn apply(&mut self, tokens: &[Token], received: &[u8], aside: Aside<'_>) {
        for token in tokens.iter().take(2 * AHEAD) {
            self.index.prefetch(token.hash);
        }
        let mut guesses = [Index::MOST; AHEAD];
        for (token, guess) in tokens.iter().zip(&mut guesses) {
            *guess = self.guess(token.hash);
        }
        let mut texts = aside.texts.iter();
        for (at, token) in tokens.iter().enumerate() {
            if let Some(later) = tokens.get(at + 2 * AHEAD) {
                self.index.prefetch(later.hash);
            }
            let guess = &mut guesses[at % AHEAD];
            let guessed = *guess;
            if let Some(later) = tokens.get(at + AHEAD) {
                *guess = self.guess(later.hash);
            }
            let bytes = if token.is_aside() {
                aside.bytes
            } else {
                received
            };
            let text = if token.kind.takes_text() {
                texts.next().and_then(|text| aside.bytes.get(text.clone()))
            } else {
                None
            };
            self.add(token, guessed, bytes, text.unwrap_or_default());
        }
    }

    #[inline(always)]
    fn add(&mut self, token: &Token, guessed: u32, bytes: &[u8], text: &[u8]) {
        let Some(mut number) = self.find_guessed(token, guessed, bytes) else {
            return;
        };
        let mut entry = self.entries.get_mut(number);
        if entry.flags & (ALIAS | FORGOTTEN) != 0 {
            let Some(taken) = self.resolve(number) else {
                return;
            };
            number = taken;
            entry = self.entries.get_mut(number);
        }
        let mut cell = Cell {
            entry,
            number,
            parity: self.parity,
            carry: self.carry,
            samples: &mut self.samples,
            members: &mut self.members,
            member_limits: &self.limits.members,
            text,
        };
        token.kind.add(&mut cell, token.sample());
        cell.touch();
        if let Some(hits) = &mut self.hits {
            hits.count(number);
        }
    }

    /// [`Table::find`] where [`Table::guess`] was made before.
    #[inline(always)]
    fn find_guessed(&mut self, token: &Token, guessed: u32, bytes: &[u8]) -> Option<u32> {
        let words = token::words(bytes, token.start as usize, usize::from(token.len));
        if guessed < self.len && self.is(guessed, token, &words, bytes) {
            return Some(guessed);
        }
        self.find(token, bytes)
    }

    #[inline(never)]
    fn find(&mut self, token: &Token, bytes: &[u8]) -> Option<u32> {
        let words = token::words(bytes, token.start as usize, usize::from(token.len));
        let is = |at| self.is(at, token, &words, bytes);
        match self.index.find(token.hash, is) {
            Ok(found) => Some(found),
            Err(slot) => self.insert(token, bytes, slot),
        }
    }

    /// Whether the entry `at` is that of the token, whose name begins with `words`.
    #[inline(always)]
    fn is(&self, at: u32, token: &Token, words: &[u64; WORDS], bytes: &[u8]) -> bool {
        let entry = self.entries.get(at);
        if entry.len != token.len || entry.kind != token.kind {
            false
        } else if usize::from(token.len) <= INLINE {
            self.entries.begins::<WORDS>(at, words)
        } else {
            self.entries.begins::<{ WORDS - 1 }>(at, words)
                && long_name(&self.long, &self.entries, at) == named(token, bytes)
        }
    }

    fn push_name(&self, at: u32, out: &mut Vec<u8>) {
        let len = usize::from(self.entries.get(at).len);
        if len > INLINE {
            out.extend_from_slice(long_name(&self.long, &self.entries, at));
        } else {
            let bytes = self.entries.name(at).map(u64::to_le_bytes);
            out.extend_from_slice(&bytes.as_flattened()[..len]);
        }
    }

    /// The entry that takes the samples of `at`: an alias' canonical one, brought back if it was
    /// forgotten; `None` if there is no room for it any more.
    #[cold]
    fn resolve(&mut self, mut at: u32) -> Option<u32> {
        let touched = TOUCHED[self.parity];
        let entry = self.entries.get(at);
        if entry.flags & ALIAS != 0 {
            let (link, flags) = (entry.link, entry.flags);
            if flags != ALIAS | touched {
                self.forgotten -= usize::from(flags & FORGOTTEN != 0);
                self.entries.get_mut(at).flags = flags & !FORGOTTEN | touched;
            }
            at = link;
        }
        let entry = *self.entries.get(at);
        if entry.flags & FORGOTTEN != 0 {
            if !self.names.make_room(usize::from(entry.len)) {
                self.refused.samples += 1;
                return None;
            }
            if self.limits.names_per_prefix > 0 {
                let mut name = Vec::new();
                self.push_name(at, &mut name);
                if !self.prefix_has_room(entry.kind, &name) {
                    self.refused.samples += 1;
                    return None;
                }
            }
            self.forgotten -= 1;
            self.announce(at);
            let entry = self.entries.get_mut(at);
            entry.flags = 0;
            entry.cells = [0.0; 2];
        }
        Some(at)
    }

    /// Tells the aggregator the name of `at`, after [`NewNames::make_room`].
    fn announce(&mut self, at: u32) {
        let entry = *self.entries.get(at);
        let mut name = Vec::with_capacity(usize::from(entry.len));
        self.push_name(at, &mut name);
        self.names.push(at, entry.kind, &name);
    }

    /// Takes up a name that was not seen before, in any notation. Of a known name in a new notation for which
    /// there is no room, this is the entry of the name itself.
    #[cold]
    #[inline(never)]
    fn insert(&mut self, token: &Token, bytes: &[u8], slot: usize) -> Option<u32> {
        let raw = named(token, bytes);
        if !raw.is_empty() && raw.iter().all(|byte| sanitize::is_plain(*byte)) {
            return self.insert_canonical(token, bytes, slot);
        }
        let mut buffer = vec![0; MARGIN];
        if sanitize::canonical(raw, self.limits.sanitize, &mut buffer).is_err() {
            self.refused.empty_names += 1;
            return None;
        }
        let canonical_len = buffer.len() - MARGIN;
        if &buffer[MARGIN..] == raw {
            return self.insert_canonical(token, bytes, slot);
        }
        if canonical_len > usize::from(u16::MAX) {
            self.refused.samples += 1;
            return None;
        }
        buffer.resize(buffer.len() + MARGIN, 0);
        let hash = self.seeds.hash(&buffer, MARGIN, canonical_len, token.kind);
        let canonical = Token::new(hash, MARGIN, canonical_len, token.kind, token.sample());
        // The canonical name maps to itself, so this looks it up or inserts it, and ends here.
        let target = self.find(&canonical, &buffer)?;
        if !self.has_room() {
            return Some(target);
        }
        let slot = self.index.find(token.hash, |_| false).err()?;
        let alias = self.put(token, bytes, slot, ALIAS, target);
        alias.or(Some(target))
    }

    fn insert_canonical(&mut self, token: &Token, bytes: &[u8], slot: usize) -> Option<u32> {
        if !self.has_room() {
            self.refused.samples += 1;
            return None;
        }
        let name = named(token, bytes);
        if !self.names.make_room(name.len()) || !self.prefix_has_room(token.kind, name) {
            self.refused.samples += 1;
            return None;
        }
        let Some(entry) = self.put(token, bytes, slot, 0, 0) else {
            self.refused.samples += 1;
            self.release_prefix(token.kind, name);
            return None;
        };
        self.new_names += 1;
        self.names.push(entry, token.kind, name);
        Some(entry)
    }

    fn has_room(&self) -> bool {
        let most = self.limits.new_names;
        !self.is_full() && (most == 0 || self.new_names < most)
    }

    /// Whether there is no room until entries are freed.
    fn is_full(&self) -> bool {
        let most = self.limits.names;
        (most > 0 && self.population.entries() >= most)
            || self.len == Index::MOST
            || !self.index.has_room()
    }

    /// Claims room below the prefix of `name`, if that is limited.
    fn prefix_has_room(&mut self, kind: Kind, name: &[u8]) -> bool {
        let limit = self.limits.names_per_prefix;
        if limit == 0 {
            return true;
        }
        let prefix = prefix(name, self.limits.prefix_nodes);
        match self.population.claim(prefix, kind, name, limit) {
            Claim::Granted => true,
            Claim::Refused { is_first } => {
                if is_first {
                    self.refused.prefixes.push(prefix.to_vec());
                }
                false
            }
        }
    }

    /// Gives back the room that [`Table::prefix_has_room`] claimed.
    fn release_prefix(&self, kind: Kind, name: &[u8]) {
        if self.limits.names_per_prefix > 0 {
            let prefix = prefix(name, self.limits.prefix_nodes);
            self.population.release(prefix, kind, name);
        }
    }

    /// Takes a free entry, or a new one; `None` if there is no memory for a new one.
    fn free_entry(&mut self) -> Option<u32> {
        if let Some(number) = self.free.pop() {
            return Some(number);
        }
        if self.len as usize == self.entries.room() {
            self.names.chunks.push(self.entries.grow().ok()?);
        }
        self.len += 1;
        Some(self.len - 1)
    }

    /// Makes an entry for the name of `token`; `None` if there is no memory for it. There must be room.
    fn put(
        &mut self,
        token: &Token,
        bytes: &[u8],
        slot: usize,
        flags: u8,
        link: u32,
    ) -> Option<u32> {
        let len = usize::from(token.len);
        if len > INLINE && !make_room(&mut self.long, len) {
            return None;
        }
        let number = self.free_entry()?;
        let mut name = token::words(bytes, token.start as usize, len);
        if len > INLINE {
            name[4] = self.long.len() as u64;
            self.long.extend_from_slice(named(token, bytes));
        }
        let entry = Entry {
            link,
            len: token.len,
            kind: token.kind,
            flags,
            ..Entry::UNUSED
        };
        self.entries.put(number, entry, &name);
        self.index.put(slot, token.hash, number);
        self.population.add(1);
        Some(number)
    }

    /// Guesses the entry of `hash` and asks for its memory.
    #[inline(always)]
    fn guess(&self, hash: u64) -> u32 {
        let guess = self.index.guess(hash);
        if guess < self.len {
            self.entries.prefetch(guess);
        }
        guess
    }

    /// Ends the interval: samples from now on go into the other cells. The old ones must have
    /// been swept, and everything else been reported: an entry may be that of another name afterwards.
    pub(crate) fn end_interval(&mut self) {
        self.parity = 1 - self.parity;
        self.new_names = 0;
        // A pass over all names should free many of them; fewer do if they are in the way.
        let (forgotten, all) = (self.forgotten, self.index.len());
        if forgotten > WORTHWHILE && forgotten * 2 > all || forgotten * 8 > all && self.is_full() {
            self.collect();
        }
        self.index.grow();
    }

    /// Takes out what `budget` entries from `from` on came to before the last interval ended; `from` moves.
    /// Returns whether that was the last of them.
    pub(crate) fn sweep(&mut self, from: &mut u32, budget: u32, out: &mut Vec<Value>) -> bool {
        let old = 1 - self.parity;
        let end = from.saturating_add(budget).min(self.len);
        let running = self.carry == Carry::Running;
        let mut forgotten = 0;
        self.entries.each_mut(*from, end, |at, entry| {
            if entry.flags & (TOUCHED[old] | ALIAS) == 0 {
                return;
            }
            if entry.flags & ALIAS != 0 {
                forgotten += usize::from(has_aged(entry, old));
                return;
            }
            let value = entry.cells[old];
            out.push(Value {
                entry: at,
                is_absolute: entry.flags & ABSOLUTE[old] != 0,
                value,
            });
            if running && entry.kind.carries_on() {
                if entry.flags & TOUCHED[1 - old] == 0 {
                    entry.cells[1 - old] = value;
                }
            } else {
                entry.cells[old] = 0.0;
            }
            entry.flags &= !(TOUCHED[old] | ABSOLUTE[old]);
        });
        self.forgotten += forgotten;
        *from = end.max(*from);
        *from >= self.len
    }

    /// What the running interval has come to so far; nothing changes.
    pub(crate) fn peek(&self) -> Vec<Value> {
        let parity = self.parity;
        (0..self.len)
            .map(|at| (at, self.entries.get(at)))
            .filter(|(_, entry)| entry.flags & (TOUCHED[parity] | ALIAS) == TOUCHED[parity])
            .map(|(at, entry)| Value {
                entry: at,
                is_absolute: entry.flags & ABSOLUTE[parity] != 0,
                value: entry.cells[parity],
            })
            .collect()
    }

    /// Lets go of a name that the aggregator has dropped. What it has received meanwhile goes too
    /// if `with_samples`; otherwise such a name is announced again.
    pub(crate) fn forget(&mut self, at: u32, with_samples: bool) {
        if at >= self.len {
            return;
        }
        let touched = TOUCHED[self.parity];
        let entry = self.entries.get_mut(at);
        if entry.flags & (ALIAS | FORGOTTEN) != 0 || entry.len == 0 {
            return;
        }
        let stays = entry.flags & touched != 0 && !with_samples;
        if stays && self.names.make_room(usize::from(entry.len)) {
            if self.carry == Carry::Running
                && entry.kind.carries_on()
                && entry.flags & ABSOLUTE[self.parity] == 0
            {
                // What was added since the interval ended was added to a value that is gone.
                entry.cells[self.parity] -= entry.cells[1 - self.parity];
            }
            self.announce(at);
            return;
        }
        self.refused.samples += u64::from(stays);
        entry.cells = [0.0; 2];
        entry.flags = FORGOTTEN;
        self.forgotten += 1;
        if self.limits.names_per_prefix > 0 {
            let mut name = Vec::new();
            self.push_name(at, &mut name);
            self.release_prefix(self.entries.get(at).kind, &name);
        }
    }

    /// Frees the entries of forgotten names and of their aliases, and those of forgotten aliases, if there is memory
    /// for the lists of what stays.
    fn collect(&mut self) {
        let Self {
            index,
            entries,
            free,
            long: before,
            ..
        } = self;
        let mut long = Vec::new();
        if !make_room(&mut long, before.len()) || !make_room(free, index.len()) {
            return;
        }
        let gone = index.retain(|at| {
            let entry = *entries.get(at);
            let target = if entry.flags & ALIAS != 0 {
                *entries.get(entry.link)
            } else {
                entry
            };
            let stays = (entry.flags | target.flags) & FORGOTTEN == 0;
            if !stays {
                free.push(at);
            } else if usize::from(entry.len) > INLINE {
                let start = long.len() as u64;
                long.extend_from_slice(long_name(before, entries, at));
                entries.set_last_word(at, start);
            }
            stays
        });
        let Some(gone) = gone else { return };
        // Only now, since an alias may come after its target.
        for at in &self.free {
            self.entries.put(*at, Entry::UNUSED, &[0; WORDS]);
        }
        self.population.sub(gone as u64);
        self.long = long;
        self.forgotten = 0;
    }

    /// Gives a name that carries on its value from before the start.
    pub(crate) fn preload(&mut self, kind: Kind, name: &[u8], value: f64) {
        if self.carry == Carry::Running
            && let Some(mut at) = self.find_name(kind, name)
        {
            let entry = self.entries.get(at);
            if entry.flags & ALIAS != 0 {
                at = entry.link;
            }
            self.entries.get_mut(at).cells = [value; 2];
        }
    }

    /// Takes note of the name of a value that is stored by itself, as a name of [`Kind::Raw`]. Whether there is room
    /// for it: the value is refused otherwise.
    pub(crate) fn admit(&mut self, name: &[u8]) -> bool {
        let found = self.find_name(Kind::Raw, name);
        let Some(at) = found.and_then(|at| self.resolve(at)) else {
            return false;
        };
        self.entries.get_mut(at).flags |= TOUCHED[self.parity];
        true
    }

    /// The entry of a canonical name, a new one if there is none.
    fn find_name(&mut self, kind: Kind, name: &[u8]) -> Option<u32> {
        if name.len() > usize::from(u16::MAX) {
            return None;
        }
        let mut bytes = vec![0; MARGIN];
        bytes.extend_from_slice(name);
        bytes.resize(bytes.len() + MARGIN, 0);
        let hash = self.seeds.hash(&bytes, MARGIN, name.len(), kind);
        let sample = Sample {
            value: 0.0,
            weight: 1.0,
            is_relative: false,
        };
        let token = Token::new(hash, MARGIN, name.len(), kind, sample);
        self.find(&token, &bytes)
    }

    /// Samples per entry since the last call, if they are counted.
    pub(crate) fn take_hits(&mut self) -> Vec<(u32, u32)> {
        self.hits.as_mut().map(Hits::take).unwrap_or_default()
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.population.sub(self.index.len() as u64);
    }
}

/// Lets an alias grow older by the interval of the parity `old`; returns whether it is forgotten with that.
/// Its first cell has the intervals since its last sample.
fn has_aged(alias: &mut Entry, old: usize) -> bool {
    if alias.flags & FORGOTTEN != 0 {
        return false;
    }
    let [age, _] = &mut alias.cells;
    *age = if alias.flags & TOUCHED[old] != 0 {
        0.0
    } else {
        *age + 1.0
    };
    let is_old = *age >= IDLE && alias.flags & TOUCHED[1 - old] == 0;
    alias.flags = alias.flags & !TOUCHED[old] | if is_old { FORGOTTEN } else { 0 };
    is_old
}

/// The name of an entry that does not hold it itself, in `long`.
fn long_name<'a>(long: &'a [u8], entries: &Entries, at: u32) -> &'a [u8] {
    let start = entries.name(at)[WORDS - 1] as usize;
    &long[start..start + usize::from(entries.get(at).len)]
}

fn named<'a>(token: &Token, bytes: &'a [u8]) -> &'a [u8] {
    let start = token.start as usize;
    bytes
        .get(start..start + usize::from(token.len))
        .unwrap_or_default()
}
