//! Search over all names: every name that contains each of the words, or that a glob matches.
//!
//! 1. The names stand one after the other in one piece of memory, a line each, so that a search is a
//!    walk over memory and not over a tree. It is made in the background when the explorer is opened or
//!    its search gets the focus, made again when it is older than [`FRESH`], and dropped after [`IDLE`]
//!    without a search. A search that comes before it is made waits for it.
//! 2. A search looks for its longest piece of literal text and compares the other words in the lines
//!    where that is found. It stops after [`MOST_HITS`] names.
//! 3. If no name has all the words, names that have their letters in order are found (`shlgn` in
//!    `stats.shop.logins`). Which characters a name has at all is kept as bits, and how long it is, so that the
//!    text of most names is not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter, memrchr};
use parking_lot::Mutex;

use self::glob::{alternatives, matches};
use crate::budget::Budget;
use crate::source::{Source, SourceError};

pub(super) use self::glob::fits;

mod glob;

/// The age at which the list of names is made again.
const FRESH: Duration = Duration::from_secs(20);
/// How long the list is kept without a search.
const IDLE: Duration = Duration::from_secs(300);
/// How long a page waits for the list before it is shown without.
const PATIENCE: Duration = Duration::from_millis(100);
/// Hits after which a search stops.
const MOST_HITS: usize = 5_000;
/// The longest query, in bytes.
const LONGEST: usize = 500;
/// Queries below this many bytes are not searched for letter by letter.
const SHORTEST_FUZZY: usize = 3;
/// The words that are looked at.
const MOST_WORDS: usize = 8;

/// All names at one time.
struct Names {
    /// As they are, each followed by a line feed; sorted.
    text: Vec<u8>,
    /// In lower case, if that is another text.
    lower: Option<Vec<u8>>,
    /// The characters of each name ([`characters`]).
    sets: Vec<u64>,
    /// The bytes of each name.
    lengths: Vec<u16>,
    made: Instant,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found {
    /// The best names: those in which the words begin a node first, then the shortest.
    pub(super) names: Vec<String>,
    /// How many names match; at most [`MOST_HITS`] are counted.
    pub(super) hits: usize,
    /// Whether there are more.
    pub(super) more: bool,
    /// How many names there are in all.
    pub(super) of: usize,
    /// No name has the words; these have their letters.
    pub(super) is_fuzzy: bool,
}

/// The list of names, made when it is needed.
#[derive(Default)]
pub(super) struct Search {
    names: Mutex<Option<(Arc<Names>, Instant)>>,
    is_making: AtomicBool,
}

impl Search {
    /// The best `limit` names for `query`. It may take the disk, and the time to list all names.
    ///
    /// # Errors
    /// As [`Source::find`].
    pub(super) fn find(
        self: &Arc<Self>,
        source: &Arc<dyn Source>,
        query: &str,
        limit: usize,
    ) -> Result<Found, SourceError> {
        Ok(self.names(source)?.find(query, limit))
    }

    /// As [`Search::find`] if the list is there or made soon; else `None`, while it is made in the background.
    pub(super) fn find_listed(
        self: &Arc<Self>,
        source: &Arc<dyn Source>,
        query: &str,
        limit: usize,
    ) -> Option<Found> {
        // It is locked while the list is made.
        let mut slot = self.names.try_lock_for(PATIENCE)?;
        if slot.is_none() {
            drop(slot);
            let (done, made) = channel();
            self.in_background(source, move |search, source| {
                // What is wrong is reported to the one who searches.
                let _ = search.names(source);
                // Nobody waits any more.
                let _ = done.send(());
            });
            // If another thread is making it, this ends at once.
            let _ = made.recv_timeout(PATIENCE);
            slot = self.names.try_lock()?;
        }
        let names = Arc::clone(&slot.as_ref()?.0);
        drop(slot);
        Some(names.find(query, limit))
    }

    /// Drops the list if it is not used.
    pub(super) fn tidy(&self) {
        if let Some(mut names) = self.names.try_lock() {
            names.take_if(|(_, used)| used.elapsed() > IDLE);
        }
    }

    fn names(self: &Arc<Self>, source: &Arc<dyn Source>) -> Result<Arc<Names>, SourceError> {
        let mut slot = self.names.lock();
        if let Some((names, used)) = &mut *slot {
            *used = Instant::now();
            if names.made.elapsed() > FRESH {
                self.in_background(source, Self::make_again);
            }
            return Ok(Arc::clone(names));
        }
        // Others that search meanwhile wait for this list.
        let names = Arc::new(Names::of(source)?);
        *slot = Some((Arc::clone(&names), Instant::now()));
        Ok(names)
    }

    fn make_again(self: &Arc<Self>, source: &Arc<dyn Source>) {
        if let (Ok(made), Some((names, _))) = (Names::of(source), &mut *self.names.lock()) {
            *names = Arc::new(made);
        }
    }

    /// Runs `work` on a thread of its own, unless such a thread is running.
    fn in_background(
        self: &Arc<Self>,
        source: &Arc<dyn Source>,
        work: impl FnOnce(&Arc<Self>, &Arc<dyn Source>) + Send + 'static,
    ) {
        if self.is_making.swap(true, Ordering::AcqRel) {
            return;
        }
        let (search, source) = (Arc::clone(self), Arc::clone(source));
        let running = std::thread::Builder::new()
            .name("names".to_owned())
            .spawn(move || {
                work(&search, &source);
                search.is_making.store(false, Ordering::Release);
            });
        if running.is_err() {
            self.is_making.store(false, Ordering::Release);
        }
    }
}

impl Names {
    fn of(source: &Arc<dyn Source>) -> Result<Self, SourceError> {
        let made = Instant::now();
        // Their number is limited by the limits on series.
        let budget = Budget::unlimited();
        let mut text = Vec::new();
        let mut push = |name: &str| {
            // A name with a line feed, or longer than any query, cannot be typed.
            if !name.contains('\n') && u16::try_from(name.len()).is_ok() {
                text.extend_from_slice(name.as_bytes());
                text.push(b'\n');
            }
        };
        for node in source.find("**", &budget)? {
            if node.leaf {
                push(&node.path);
            }
        }
        for name in source.tagged(&budget)? {
            push(&name);
        }
        text.shrink_to_fit();
        Ok(Self::in_text(text, made))
    }

    fn in_text(text: Vec<u8>, made: Instant) -> Self {
        let lower = text.to_ascii_lowercase();
        let (mut sets, mut lengths) = (Vec::new(), Vec::new());
        let mut start = 0;
        for end in memchr_iter(b'\n', &lower) {
            sets.push(characters(&lower[start..end]));
            lengths.push(u16::try_from(end - start).unwrap_or(u16::MAX));
            start = end + 1;
        }
        sets.shrink_to_fit();
        lengths.shrink_to_fit();
        Self {
            lower: (lower != text).then_some(lower),
            text,
            sets,
            lengths,
            made,
        }
    }

    fn find(&self, query: &str, limit: usize) -> Found {
        let query = query.trim().to_ascii_lowercase();
        let mut found = Found {
            of: self.sets.len(),
            ..Found::default()
        };
        if query.len() > LONGEST {
            return found;
        }
        let words: Vec<Word<'_>> = query
            .split_whitespace()
            .take(MOST_WORDS)
            .map(Word::new)
            .collect();
        let longest = words
            .iter()
            .map(Word::literal)
            .max_by_key(|text| text.len());
        let needle = longest.unwrap_or_default();
        let lower = self.lower.as_deref().unwrap_or(&self.text);
        let finder = Finder::new(needle);
        let mut hits: Vec<Hit> = Vec::new();
        let mut at = 0;
        while at < lower.len() {
            let Some(place) = finder.find(&lower[at..]) else {
                break;
            };
            let place = at + place;
            let start = memrchr(b'\n', &lower[..place]).map_or(0, |end| end + 1);
            let Some(end) = memchr(b'\n', &lower[place..]).map(|length| place + length) else {
                break;
            };
            at = end + 1;
            let name = &lower[start..end];
            if words.iter().all(|word| word.fits(name)) {
                if hits.len() == MOST_HITS {
                    found.more = true;
                    break;
                }
                let rank = words.first().map_or(0, |word| word.rank(name));
                hits.push((rank, end - start, start, end));
            }
        }
        let is_plain = words.iter().all(|word| matches!(word, Word::Text(_)));
        if hits.is_empty() && is_plain && query.len() >= SHORTEST_FUZZY {
            (hits, found.more) = self.fuzzy(lower, &words);
            found.is_fuzzy = !hits.is_empty();
        }
        found.hits = hits.len();
        hits.sort_unstable();
        let name = |(_, _, start, end): &Hit| {
            String::from_utf8_lossy(&self.text[*start..*end]).into_owned()
        };
        found.names = hits.iter().take(limit).map(name).collect();
        found
    }

    /// The names that have the letters of each word in order, and whether there are more. Those in
    /// which they are closest together come first.
    fn fuzzy(&self, lower: &[u8], words: &[Word<'_>]) -> (Vec<Hit>, bool) {
        let needed = words
            .iter()
            .fold(0, |set, word| set | characters(word.literal()));
        let mut hits = Vec::new();
        let mut start = 0;
        for (length, set) in self.lengths.iter().zip(&self.sets) {
            let line = start..start + usize::from(*length);
            start = line.end + 1;
            if set & needed != needed {
                continue;
            }
            let name = &lower[line.clone()];
            let spans = words.iter().map(|word| span(word.literal(), name));
            let Some(span) = spans.sum::<Option<usize>>() else {
                continue;
            };
            if hits.len() == MOST_HITS {
                return (hits, true);
            }
            hits.push((span, line.len(), line.start, line.end));
        }
        (hits, false)
    }
}

/// A found name: its rank, its length, and where it begins and ends.
type Hit = (usize, usize, usize, usize);

/// The bit of each byte: letters, digits, and others by their last bits.
const BITS: [u64; 256] = {
    let mut bits = [0; 256];
    let mut byte = 0_u8;
    loop {
        let bit = match byte {
            b'a'..=b'z' => byte - b'a',
            b'0'..=b'9' => 26 + byte - b'0',
            other => 36 + other % 28,
        };
        bits[byte as usize] = 1 << bit;
        if byte == u8::MAX {
            break bits;
        }
        byte += 1;
    }
};

/// The characters in `name` as [`BITS`].
fn characters(name: &[u8]) -> u64 {
    name.iter()
        .fold(0, |set, byte| set | BITS[usize::from(*byte)])
}

/// The bytes over which the letters of `word` lie in `name`, in order: the fewest before the first
/// place where they end.
fn span(word: &[u8], name: &[u8]) -> Option<usize> {
    let mut end = 0;
    for letter in word {
        end += memchr(*letter, &name[end..])? + 1;
    }
    let mut start = end;
    for letter in word.iter().rev() {
        start = memrchr(*letter, &name[..start])?;
    }
    Some(end - start)
}

/// A word of a query: text that a name must contain, or a glob that it must match.
enum Word<'q> {
    Text(&'q [u8]),
    /// With the longest text in it.
    Glob(Vec<String>, &'q [u8]),
}

impl<'q> Word<'q> {
    fn new(word: &'q str) -> Self {
        if !word.contains(['*', '?', '[', '{']) {
            return Self::Text(word.as_bytes());
        }
        // Text in brackets or braces is one of several: not text that every match has.
        let mut depth = 0;
        let literal = word
            .split(|c| {
                let inside = depth > 0;
                match c {
                    '[' | '{' => depth += 1,
                    ']' | '}' => depth -= 1,
                    _ => {}
                }
                inside || matches!(c, '*' | '?' | '[' | ']' | '{' | '}')
            })
            .max_by_key(|text| text.len())
            .unwrap_or_default();
        Self::Glob(alternatives(word), literal.as_bytes())
    }

    fn literal(&self) -> &'q [u8] {
        match self {
            Self::Text(text) | Self::Glob(_, text) => text,
        }
    }

    fn fits(&self, name: &[u8]) -> bool {
        match self {
            Self::Text(text) => memchr::memmem::find(name, text).is_some(),
            Self::Glob(globs, _) => globs.iter().any(|glob| matches(glob.as_bytes(), name)),
        }
    }

    /// 0 if the word begins a node of the name, else 1.
    fn rank(&self, name: &[u8]) -> usize {
        let text = self.literal();
        let begins = name.starts_with(text)
            || memchr::memmem::find_iter(name, text)
                .any(|at| matches!(name.get(at.wrapping_sub(1)), Some(b'.' | b';' | b'=')));
        usize::from(!begins)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::Memory;

    fn names(all: &[&str]) -> Names {
        let text: String = all.iter().map(|name| format!("{name}\n")).collect();
        Names::in_text(text.into_bytes(), Instant::now())
    }

    #[test]
    fn every_word_must_be_in_the_name_and_the_best_come_first() {
        let names = names(&[
            "collectd.web1.cpu.idle",
            "collectd.web2.cpu.idle",
            "stats.shop.Logins",
            "stats.shop.weblogins",
            "stats.timers.login.upper",
        ]);
        let found = |query: &str| names.find(query, 10).names;
        assert_eq!(
            found("login"),
            [
                "stats.shop.Logins",
                "stats.timers.login.upper",
                "stats.shop.weblogins"
            ]
        );
        assert_eq!(found("shop LOGIN").len(), 2);
        assert_eq!(found("cpu web2"), ["collectd.web2.cpu.idle"]);
        assert_eq!(found("nothing"), [""; 0]);
        assert_eq!(found("").len(), 5);
        let one = names.find("", 1);
        assert_eq!(
            (one.names.len(), one.hits, one.more, one.of),
            (1, 5, false, 5)
        );
    }

    #[test]
    fn letters_in_order_are_found_if_the_words_are_not() {
        let names = names(&[
            "stats.shop.logins",
            "stats.timers.shop.login_time.upper",
            "carbon.agents.a.metricsReceived",
        ]);
        let found = names.find("shlgn", 10);
        assert!(found.is_fuzzy);
        assert_eq!(
            found.names,
            ["stats.shop.logins", "stats.timers.shop.login_time.upper"]
        );
        assert_eq!(
            names.find("metrecv", 10).names,
            ["carbon.agents.a.metricsReceived"]
        );
        assert!(!names.find("shop", 10).is_fuzzy);
        assert_eq!(
            names.find("zzz", 10),
            Found {
                of: 3,
                ..Found::default()
            }
        );
        assert_eq!(span(b"shlgn", b"stats.shop.logins"), Some(10));
        assert_eq!(span(b"ns", b"logins"), Some(2));
        assert_eq!(span(b"sn", b"logins"), None);
    }

    #[test]
    fn a_list_that_is_not_there_is_made_in_the_background() {
        let mut names = Memory::default();
        names.insert("stats.shop.logins", 10, Vec::new());
        names.insert("disk.used;dc=a", 10, Vec::new());
        let source: Arc<dyn Source> = Arc::new(names);
        let search = Arc::<Search>::default();
        let is_being_made = search.names.lock();
        assert_eq!(search.find_listed(&source, "shop", 5), None);
        drop(is_being_made);
        assert_eq!(search.find(&source, "disk", 5).unwrap().of, 2);
        let listed = search.find_listed(&source, "shop", 5).unwrap();
        assert_eq!(listed.names, ["stats.shop.logins"]);
    }

    proptest! {
        #[test]
        fn a_search_finds_what_a_scan_finds(all in proptest::collection::vec("[abA.]{1,6}", 0..20), query in "[ab. *]{0,5}") {
            let mut all = all;
            all.sort();
            all.dedup();
            let listed: Vec<&str> = all.iter().map(String::as_str).collect();
            let found = names(&listed).find(&query, 100);
            prop_assume!(!found.is_fuzzy);
            let lower = query.to_ascii_lowercase();
            let words: Vec<Word<'_>> = lower.split_whitespace().map(Word::new).collect();
            let mut expected: Vec<String> = listed.iter()
                .filter(|name| words.iter().all(|word| word.fits(name.to_ascii_lowercase().as_bytes())))
                .map(|name| (*name).to_owned())
                .collect();
            let mut names = found.names.clone();
            names.sort();
            expected.sort();
            prop_assert_eq!(names, expected);
        }

        #[test]
        fn no_query_panics(query in any::<String>()) {
            names(&["a.b", "é.c;t=1"]).find(&query, 5);
        }
    }
}
