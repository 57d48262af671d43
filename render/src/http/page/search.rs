//! Search over all names: every name that contains each of the words, or that a glob matches.
//!
//! 1. The names stand one after the other in one piece of memory, a line each, so that a search is a
//!    walk over memory and not over a tree. It is made at the first search, made again in the
//!    background when it is older than [`FRESH`], and dropped after [`IDLE`] without a search.
//! 2. A search looks for its longest piece of literal text and compares the other words in the lines
//!    where that is found. It stops after [`MOST_HITS`] names.
//! 3. If no name has all the words, names that have their letters in order are found (`shlgn` in
//!    `stats.shop.logins`). Which characters a name has at all is kept as bits, so that most names need no look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter, memrchr};
use parking_lot::Mutex;

use crate::budget::Budget;
use crate::source::{Source, SourceError};

/// The age at which the list of names is made again.
const FRESH: Duration = Duration::from_secs(20);
/// How long the list is kept without a search.
const IDLE: Duration = Duration::from_secs(300);
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

    /// Drops the list if it is not used.
    pub(super) fn tidy(&self) {
        let mut names = self.names.lock();
        names.take_if(|(_, used)| used.elapsed() > IDLE);
    }

    fn names(self: &Arc<Self>, source: &Arc<dyn Source>) -> Result<Arc<Names>, SourceError> {
        let mut slot = self.names.lock();
        if let Some((names, used)) = &mut *slot {
            *used = Instant::now();
            if names.made.elapsed() > FRESH && !self.is_making.swap(true, Ordering::AcqRel) {
                let (search, source) = (Arc::clone(self), Arc::clone(source));
                let made = std::thread::Builder::new()
                    .name("names".to_owned())
                    .spawn(move || search.make_again(&source));
                if made.is_err() {
                    self.is_making.store(false, Ordering::Release);
                }
            }
            return Ok(Arc::clone(names));
        }
        // Others that search meanwhile wait for this list.
        let names = Arc::new(Names::of(source)?);
        *slot = Some((Arc::clone(&names), Instant::now()));
        Ok(names)
    }

    fn make_again(&self, source: &Arc<dyn Source>) {
        let made = Names::of(source);
        if let (Ok(made), Some((names, _))) = (made, &mut *self.names.lock()) {
            *names = Arc::new(made);
        }
        self.is_making.store(false, Ordering::Release);
    }
}

impl Names {
    fn of(source: &Arc<dyn Source>) -> Result<Self, SourceError> {
        let made = Instant::now();
        // Their number is limited by the limits on series.
        let budget = Budget::unlimited();
        let mut text = Vec::new();
        let mut push = |name: &str| {
            // A name with a line feed cannot be typed.
            if !name.contains('\n') {
                text.extend_from_slice(name.as_bytes());
                text.push(b'\n');
            }
        };
        for node in source.find("**", &budget)? {
            if node.leaf {
                push(&node.path);
            }
        }
        for name in source.find_tagged(&["name=~."], &budget)? {
            if name.contains(';') {
                push(&name);
            }
        }
        text.shrink_to_fit();
        Ok(Self::in_text(text, made))
    }

    fn in_text(text: Vec<u8>, made: Instant) -> Self {
        let lower = text.to_ascii_lowercase();
        let lines = lower.split(|byte| *byte == b'\n');
        let mut sets: Vec<u64> = lines.map(characters).collect();
        // After the last line feed there is no name.
        sets.pop();
        sets.shrink_to_fit();
        Self {
            lower: (lower != text).then_some(lower),
            text,
            sets,
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
        for (end, set) in memchr_iter(b'\n', lower).zip(&self.sets) {
            let line = start..end;
            start = end + 1;
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

/// The characters in `name` as bits: letters, digits, and others by their last bits.
fn characters(name: &[u8]) -> u64 {
    let bit = |byte: &u8| match byte {
        b'a'..=b'z' => byte - b'a',
        b'0'..=b'9' => 26 + byte - b'0',
        other => 36 + other % 28,
    };
    name.iter().fold(0, |set, byte| set | 1 << bit(byte))
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

/// Whether `glob` matches the whole of `name`.
pub(super) fn fits(glob: &str, name: &str) -> bool {
    let globs = alternatives(glob);
    globs
        .iter()
        .any(|glob| matches(glob.as_bytes(), name.as_bytes()))
}

/// The globs without braces that `glob` stands for; at most 64.
fn alternatives(glob: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut left = vec![glob.to_owned()];
    while let Some(one) = left.pop() {
        let open = one.find('{');
        let close = open.and_then(|open| one[open..].find('}').map(|length| open + length));
        match (open, close) {
            (Some(open), Some(close)) if done.len() + left.len() < 64 => {
                for part in one[open + 1..close].split(',') {
                    left.push(format!("{}{part}{}", &one[..open], &one[close + 1..]));
                }
            }
            _ => done.push(one),
        }
    }
    done
}

/// Whether `glob` (`*`, `**`, `?`, `[a-z]`, `[!a]`) matches the whole of `name`. `*` and `?` stay
/// within a node.
fn matches(glob: &[u8], name: &[u8]) -> bool {
    let (mut g, mut n) = (0, 0);
    // Where to go on after a star took one more character: glob, name, whether it crosses dots.
    let mut again: Option<(usize, usize, bool)> = None;
    // The innermost `**`, which may go on when an inner star cannot.
    let mut outer: Option<(usize, usize, bool)> = None;
    loop {
        if glob.get(g) == Some(&b'*') {
            let is_deep = glob.get(g + 1) == Some(&b'*');
            g += if is_deep { 2 } else { 1 };
            again = Some((g, n, is_deep));
            if is_deep {
                outer = again;
            }
            continue;
        }
        match (glob.get(g), name.get(n)) {
            (None, None) => return true,
            (Some(_), Some(&c)) => {
                if let Some(next) = one(glob, g, c) {
                    (g, n) = (next, n + 1);
                    continue;
                }
            }
            _ => {}
        }
        loop {
            let Some((star, at, is_deep)) = again else {
                return false;
            };
            match name.get(at) {
                Some(&c) if is_deep || c != b'.' => {
                    again = Some((star, at + 1, is_deep));
                    if is_deep {
                        outer = again;
                    }
                    (g, n) = (star, at + 1);
                    break;
                }
                _ if is_deep => return false,
                _ => again = outer,
            }
        }
    }
}

/// The position after the part of `glob` at `g` if that matches `c`.
fn one(glob: &[u8], g: usize, c: u8) -> Option<usize> {
    match glob.get(g)? {
        b'?' => (c != b'.').then_some(g + 1),
        b'[' => {
            let close = g + 2 + memchr(b']', glob.get(g + 2..)?)?;
            let (is_not, set) = match glob.get(g + 1)? {
                b'!' => (true, &glob[g + 2..close]),
                _ => (false, &glob[g + 1..close]),
            };
            let mut i = 0;
            let mut has = false;
            while i < set.len() {
                if let (Some(b'-'), Some(last)) = (set.get(i + 1), set.get(i + 2)) {
                    has |= (set[i]..=*last).contains(&c);
                    i += 3;
                } else {
                    has |= set[i] == c;
                    i += 1;
                }
            }
            (has != is_not).then_some(close + 1)
        }
        plain => (*plain == c).then_some(g + 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
    fn globs_match_whole_names_node_by_node() {
        for (glob, name, fits) in [
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.b.c", false),
            ("a.**.c", "a.b.b.c", true),
            ("**.c", "a.b.b.c", true),
            ("**b*", "a.b.b", true),
            ("a?c", "abc", true),
            ("a?c", "a.c", false),
            ("a[0-9]", "a7", true),
            ("a[!0-9]", "a7", false),
            ("a[", "a[", false),
            ("*", "a", true),
            ("*", "a.b", false),
            ("a.{b,c}.d", "a.c.d", true),
            ("*.*x", "a.xyx", true),
        ] {
            let word = Word::new(glob);
            assert_eq!(word.fits(name.as_bytes()), fits, "{glob} {name}");
        }
    }

    /// The definition of a glob, slowly.
    fn slow(glob: &[u8], name: &[u8]) -> bool {
        match glob {
            [] => name.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=name.len()).any(|n| slow(rest, &name[n..])),
            [b'*', rest @ ..] => {
                let most = memchr(b'.', name).unwrap_or(name.len());
                (0..=most).any(|n| slow(rest, &name[n..]))
            }
            [b'?', rest @ ..] => name.first().is_some_and(|c| *c != b'.') && slow(rest, &name[1..]),
            [c, rest @ ..] => name.first() == Some(c) && slow(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn the_fast_matcher_is_the_slow_one(glob in "[ab.*?]{0,8}", name in "[ab.]{0,8}") {
            // Three stars in a row have no meaning.
            prop_assume!(!glob.contains("***"));
            prop_assert_eq!(matches(glob.as_bytes(), name.as_bytes()), slow(glob.as_bytes(), name.as_bytes()));
        }

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
