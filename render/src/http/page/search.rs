//! Search over all names: every name that contains each of the words, or that a glob matches.
//!
//! 1. The names stand one after the other in one piece of memory, a line each, so that a search is a
//!    walk over memory and not over a tree. It is made in the background when the explorer is opened or
//!    its search gets the focus, made again when it is older than [`FRESH`], and dropped after [`IDLE`]
//!    without a search. Searches that come before it is made wait for it together, without a thread and
//!    each within its own time; for [`SORRY`] after it could not be made, none tries again.
//! 2. A search looks for its longest piece of literal text and compares the other words in the lines
//!    where that is found. It stops after [`MOST_HITS`] names.
//! 3. If no name has all the words, names that have their letters in order are found (`shlgn` in
//!    `stats.shop.logins`). Which characters a name has at all is kept as bits, and how long it is, so that the
//!    text of most names is not read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter, memrchr};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

use self::glob::{alternatives, matches};
use crate::budget::Budget;
use crate::error::Error;
use crate::http::pool;
use crate::source::{Source, SourceError};

pub(super) use self::glob::fits;

mod glob;

/// The age at which the list of names is made again.
const FRESH: Duration = Duration::from_secs(20);
/// How long the list is kept without a search.
const IDLE: Duration = Duration::from_secs(300);
/// How long a page waits for the list before it is shown without.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long a failure to list the names is the answer to all searches.
const SORRY: Duration = Duration::from_secs(2);
/// Hits after which a search stops.
const MOST_HITS: usize = 5_000;
/// The longest query, in bytes.
const LONGEST: usize = 500;
/// Queries below this many bytes are not searched for letter by letter.
const SHORTEST_FUZZY: usize = 3;
/// The words that are looked at.
const MOST_WORDS: usize = 8;

/// All names at one time.
pub(super) struct Names {
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
pub(super) struct Search {
    list: Mutex<List>,
    /// Changes when a list was made, or could not be.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct List {
    /// The names, and when they were last searched.
    names: Option<(Arc<Names>, Instant)>,
    is_making: bool,
    /// When the last list could not be made, and why.
    failed: Option<(Instant, String)>,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            list: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Search {
    /// The names, as soon as they are listed. Others that ask meanwhile wait for the same list; a wait takes no
    /// thread, and ends with `budget`, within whose memory and time a list is made that is begun here.
    ///
    /// # Errors
    /// As [`Source::find`]; for [`SORRY`] everybody gets the error of the last list.
    pub(super) async fn names(
        self: &Arc<Self>,
        source: &Arc<dyn Source>,
        budget: &Budget,
    ) -> Result<Arc<Names>, SourceError> {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(names) = self.listed(source, budget)? {
                return Ok(names);
            }
            // The sender is this very search.
            let change = changed.changed();
            match budget.deadline() {
                None => drop(change.await),
                Some(deadline) => {
                    if timeout_at(deadline.into(), change).await.is_err() {
                        return Err(Error::Timeout.into());
                    }
                }
            }
        }
    }

    /// As [`Search::names`]; `None` if they are not listed soon.
    ///
    /// # Errors
    /// As [`Search::names`].
    pub(super) async fn names_soon(
        self: &Arc<Self>,
        source: &Arc<dyn Source>,
        budget: &Budget,
    ) -> Result<Option<Arc<Names>>, SourceError> {
        match timeout(PATIENCE, self.names(source, budget)).await {
            Ok(names) => names.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Drops the list if it is not used.
    pub(super) fn tidy(&self) {
        let unused = |(_, used): &mut (_, Instant)| used.elapsed() > IDLE;
        let names = self.list.lock().names.take_if(unused);
        // Not under the lock: it may be large.
        drop(names);
    }

    /// The names, if they are listed. If not, or if the list is old, it is being made from now on.
    fn listed(
        self: &Arc<Self>,
        source: &Arc<dyn Source>,
        budget: &Budget,
    ) -> Result<Option<Arc<Names>>, SourceError> {
        let mut list = self.list.lock();
        let List {
            names,
            is_making,
            failed,
        } = &mut *list;
        let sorry = failed.as_ref().filter(|(at, _)| at.elapsed() < SORRY);
        let known = names.as_mut().map(|(names, used)| {
            *used = Instant::now();
            Arc::clone(names)
        });
        let is_fresh = known
            .as_ref()
            .is_some_and(|names| names.made.elapsed() <= FRESH);
        if is_fresh || *is_making {
            return Ok(known);
        }
        match (&known, sorry) {
            (None, Some((_, why))) => return Err(SourceError::Failed(why.clone())),
            (Some(_), Some(_)) => return Ok(known),
            (_, None) => {}
        }
        let (search, source) = (Arc::clone(self), Arc::clone(source));
        let budget = Budget::new(Arc::clone(budget.memory()), budget.deadline());
        let work = move || search.make(&source, &budget);
        let thread = std::thread::Builder::new().name("names".to_owned());
        match thread.spawn(work) {
            Ok(_) => *is_making = true,
            Err(error) => {
                let why = format!("starting a thread: {error}");
                *failed = Some((Instant::now(), why));
            }
        }
        Ok(known)
    }

    fn make(&self, source: &Arc<dyn Source>, budget: &Budget) {
        // A panic must not leave the others waiting.
        let made = pool::caught(|| Names::of(source, budget));
        let made = made.unwrap_or_else(|_| Err(SourceError::Failed("listing panicked".to_owned())));
        let mut list = self.list.lock();
        list.is_making = false;
        match made {
            Ok(names) => {
                let used = list
                    .names
                    .as_ref()
                    .map_or_else(Instant::now, |(_, used)| *used);
                list.names = Some((Arc::new(names), used));
                list.failed = None;
            }
            Err(why) => list.failed = Some((Instant::now(), why.to_string())),
        }
        drop(list);
        self.changed.send_replace(());
    }
}

impl Names {
    fn of(source: &Arc<dyn Source>, budget: &Budget) -> Result<Self, SourceError> {
        let made = Instant::now();
        let mut text = Vec::new();
        let mut push = |name: &str| {
            // A name with a line feed, or longer than any query, cannot be typed.
            if !name.contains('\n') && u16::try_from(name.len()).is_ok() {
                text.extend_from_slice(name.as_bytes());
                text.push(b'\n');
            }
        };
        for node in source.find("**", budget)? {
            if node.leaf {
                push(&node.path);
            }
        }
        for name in source.tagged(budget)? {
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

    /// The best `limit` names for `query`.
    pub(super) fn find(&self, query: &str, limit: usize) -> Found {
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crossbeam::channel::{Receiver, Sender, bounded};
    use proptest::prelude::*;
    use tokio::task::JoinSet;

    use super::*;
    use crate::memory::Memory;
    use crate::source::{FetchRange, Fetched, Node};

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

    /// Names that are found when the test says so.
    struct Slow {
        n_listed: AtomicUsize,
        answers: Receiver<Option<Vec<Node>>>,
    }

    impl Source for Slow {
        fn find(&self, pattern: &str, _: &Budget) -> Result<Vec<Node>, SourceError> {
            assert_eq!(pattern, "**");
            self.n_listed.fetch_add(1, Ordering::Relaxed);
            let answer = self.answers.recv().unwrap();
            answer.ok_or(SourceError::Failed("away".to_owned()))
        }

        fn find_tagged(&self, _: &[&str], _: &Budget) -> Result<Vec<String>, SourceError> {
            Ok(Vec::new())
        }

        fn fetch(&self, _: &str, _: FetchRange) -> Result<Option<Fetched>, SourceError> {
            Ok(None)
        }
    }

    type Answering = Sender<Option<Vec<Node>>>;

    fn slow() -> (Arc<Slow>, Arc<dyn Source>, Answering) {
        let (answering, answers) = bounded(1);
        let slow = Arc::new(Slow {
            n_listed: AtomicUsize::new(0),
            answers,
        });
        (Arc::clone(&slow), slow, answering)
    }

    fn node(path: &str) -> Node {
        Node {
            path: path.to_owned(),
            leaf: true,
        }
    }

    #[tokio::test]
    async fn searches_wait_for_one_list_and_each_within_its_own_time() {
        let (slow, source, answering) = slow();
        let search = Arc::<Search>::default();
        let unlimited = Budget::unlimited();
        let mut waiting = JoinSet::new();
        for _ in 0..100 {
            let (search, source) = (Arc::clone(&search), Arc::clone(&source));
            let budget = unlimited.clone();
            waiting.spawn(async move { search.names(&source, &budget).await });
        }
        while slow.n_listed.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        // The store is silent: who has no time does not wait, and nothing is locked.
        let late = Budget::new(crate::budget::Memory::new(0), Some(Instant::now()));
        let refused = search.names(&source, &late).await.err();
        assert!(
            matches!(refused, Some(SourceError::Budget(_))),
            "{refused:?}"
        );
        assert!(
            search
                .names_soon(&source, &unlimited)
                .await
                .unwrap()
                .is_none()
        );
        search.tidy();
        answering
            .send(Some(vec![node("stats.shop.logins")]))
            .unwrap();
        while let Some(names) = waiting.join_next().await {
            let found = names.unwrap().unwrap().find("shop", 5);
            assert_eq!(found.names, ["stats.shop.logins"]);
        }
        assert_eq!(slow.n_listed.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_failure_is_the_answer_for_a_while() {
        let (slow, source, answering) = slow();
        let search = Arc::<Search>::default();
        let budget = Budget::unlimited();
        answering.send(None).unwrap();
        for _ in 0..10 {
            let refused = search.names(&source, &budget).await.err();
            assert!(matches!(&refused, Some(SourceError::Failed(why)) if why == "away"));
            // The machine may be so slow that the while is over.
            let _ = answering.try_send(None);
        }
        assert!(slow.n_listed.load(Ordering::Relaxed) < 10);
        search.list.lock().failed = None;
        let _ = slow.answers.try_recv();
        answering.send(Some(vec![node("disk.used")])).unwrap();
        assert_eq!(
            search
                .names(&source, &budget)
                .await
                .unwrap()
                .find("disk", 5)
                .of,
            1
        );
    }

    #[tokio::test]
    async fn tagged_names_are_in_the_list() {
        let mut names = Memory::default();
        names.insert("stats.shop.logins", 10, Vec::new());
        names.insert("disk.used;dc=a", 10, Vec::new());
        let source: Arc<dyn Source> = Arc::new(names);
        let search = Arc::<Search>::default();
        let names = search.names(&source, &Budget::unlimited()).await.unwrap();
        assert_eq!(names.find("disk", 5).of, 2);
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
