//! Many names in little room: one text for all of them, in bytewise order and each once.
//!
//! They are made of what a server sends ([`Gathering`]): blocks, each in order, of several parts of a table and several
//! threads in turn.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::budget::{Budget, Reservation};
use crate::error::Result;

/// With more runs than this, texts come in no order worth to be kept.
const MOST_RUNS: usize = 4_096;

/// What is reserved at once.
const STEP: usize = 64 << 10;

/// Where a text is.
#[derive(Clone, Copy, Debug)]
struct Span {
    begin: usize,
    length: u32,
}

impl Span {
    fn of(self, text: &str) -> &str {
        &text[self.begin..][..self.length as usize]
    }
}

/// Names in bytewise order, each once. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    list: Arc<List>,
    /// Their memory, unless they are kept for others anyway.
    held: Option<Arc<Reservation>>,
}

#[derive(Debug, Default)]
struct List {
    text: String,
    spans: Vec<Span>,
}

impl Paths {
    fn of(text: String, spans: Vec<Span>) -> Self {
        Self {
            list: Arc::new(List { text, spans }),
            held: None,
        }
    }

    /// Those of `names`, which come in any order, reserved in `budget` as long as they are there.
    ///
    /// # Errors
    /// What `budget` refuses.
    pub fn new<'n>(names: impl Iterator<Item = &'n str>, budget: &Budget) -> Result<Self> {
        let mut held = budget.hold(0)?;
        let mut gathering = Gathering::default();
        for name in names {
            if let Some(more) =
                (gathering.bytes() + Gathering::room(name)).checked_sub(held.bytes())
                && more > 0
            {
                held.grow(more.max(STEP))?;
            }
            gathering.push(name);
        }
        Ok(gathering.finish().holding(held))
    }

    /// They go on holding `held`.
    pub fn holding(mut self, held: Reservation) -> Self {
        self.held = Some(Arc::new(held));
        self
    }

    /// The same, without the memory that a request has reserved for them.
    pub fn unheld(&self) -> Self {
        Self {
            list: Arc::clone(&self.list),
            held: None,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.list.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they take.
    pub fn bytes(&self) -> usize {
        self.list.text.capacity() + self.list.spans.capacity() * size_of::<Span>()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        let list = &*self.list;
        list.spans.iter().map(|span| span.of(&list.text))
    }
}

impl Serialize for Paths {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Makes [`Paths`] of names that come in any order, and fast if that is one of runs.
#[derive(Debug, Default)]
pub struct Gathering {
    text: String,
    spans: Vec<Span>,
    /// Where each run begins.
    runs: Vec<usize>,
    is_cut: bool,
}

impl Gathering {
    /// What a name takes until the list is made: room grows to twice what is needed, and places are sorted in a copy.
    pub fn room(name: &str) -> usize {
        2 * name.len() + 3 * size_of::<Span>()
    }

    /// What is there.
    fn bytes(&self) -> usize {
        2 * self.text.len() + 3 * size_of::<Span>() * self.spans.len()
    }

    /// Adds a name. One of more than 4 GiB is left out.
    #[inline]
    pub fn push(&mut self, name: &str) {
        let Ok(length) = u32::try_from(name.len()) else {
            return;
        };
        let order = match self.spans.last() {
            Some(last) if !self.is_cut => last.of(&self.text).cmp(name),
            _ => Ordering::Greater,
        };
        match order {
            Ordering::Less => {}
            Ordering::Equal => return,
            Ordering::Greater => self.begin_run(),
        }
        let begin = self.text.len();
        self.text.push_str(name);
        self.spans.push(Span { begin, length });
    }

    #[cold]
    fn begin_run(&mut self) {
        self.is_cut = false;
        if self.runs.len() <= MOST_RUNS {
            self.runs.push(self.spans.len());
        }
    }

    /// The next name may be of another part or thread.
    pub fn cut(&mut self) {
        self.is_cut = true;
    }

    /// The names.
    pub fn finish(self) -> Paths {
        let Self {
            text,
            mut spans,
            runs,
            ..
        } = self;
        if runs.len() > MOST_RUNS {
            spans.sort_unstable_by(|a, b| a.of(&text).cmp(b.of(&text)));
            spans.dedup_by(|a, b| a.of(&text) == b.of(&text));
            return Paths::of(text, spans);
        }
        let ends = runs.iter().skip(1).copied().chain([spans.len()]);
        let runs: Vec<Range<usize>> = runs.iter().copied().zip(ends).map(|(a, b)| a..b).collect();
        let mut chains = chains(&text, &spans, runs);
        // Two at a time, the shortest ones first: long ones are copied seldom.
        chains.sort_by_key(|chain| std::cmp::Reverse(chain.len()));
        while let Some(one) = chains.pop() {
            let Some(another) = chains.pop() else {
                return Paths::of(text, one);
            };
            let both = merge(&text, &one, &another);
            let at = chains.partition_point(|chain| chain.len() > both.len());
            chains.insert(at, both);
        }
        Paths::default()
    }
}

/// Joins runs that do not overlap: as many chains are left as runs overlap at one place.
fn chains(text: &str, spans: &[Span], mut runs: Vec<Range<usize>>) -> Vec<Vec<Span>> {
    runs.sort_unstable_by(|a, b| spans[a.start].of(text).cmp(spans[b.start].of(text)));
    let mut chains: Vec<Vec<Span>> = Vec::new();
    for run in runs {
        let first = spans[run.start].of(text);
        let last = |chain: &Vec<Span>| chain.last().map(|span| span.of(text));
        let fits = chains
            .iter_mut()
            .filter(|chain| last(chain) < Some(first))
            .max_by(|a, b| last(a).cmp(&last(b)));
        match fits {
            Some(chain) => chain.extend_from_slice(&spans[run]),
            None => chains.push(spans[run].to_vec()),
        }
    }
    chains
}

fn merge(text: &str, one: &[Span], another: &[Span]) -> Vec<Span> {
    let mut out = Vec::with_capacity(one.len() + another.len());
    let (mut a, mut b) = (0, 0);
    while let (Some(x), Some(y)) = (one.get(a), another.get(b)) {
        let order = x.of(text).cmp(y.of(text));
        out.push(if order.is_le() { *x } else { *y });
        a += usize::from(order.is_le());
        b += usize::from(order.is_ge());
    }
    out.extend_from_slice(&one[a..]);
    out.extend_from_slice(&another[b..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(blocks: &[Vec<&str>]) -> Paths {
        let mut gathering = Gathering::default();
        for block in blocks {
            gathering.cut();
            block.iter().for_each(|text| gathering.push(text));
        }
        gathering.finish()
    }

    #[test]
    fn blocks_of_two_threads_are_two_chains() {
        let mut gathering = Gathering::default();
        for block in [["a1", "a2"], ["c1", "c2"], ["a3", "a4"], ["c3", "c4"]] {
            gathering.cut();
            block.iter().for_each(|text| gathering.push(text));
        }
        assert_eq!(gathering.runs, [0, 2, 4, 6]);
        let all = chains(
            &gathering.text,
            &gathering.spans,
            vec![0..2, 2..4, 4..6, 6..8],
        );
        assert_eq!(all.len(), 1);
        let overlapping = list(&[vec!["a", "c"], vec!["b", "c", "d"]]);
        assert_eq!(overlapping.iter().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    }

    proptest! {
        #[test]
        fn texts_are_in_order_each_once(
            blocks in prop::collection::vec(prop::collection::vec("[ab]{0,6}", 0..50), 0..20),
            is_sorted: bool,
        ) {
            let mut blocks: Vec<Vec<&str>> =
                blocks.iter().map(|block| block.iter().map(String::as_str).collect()).collect();
            if is_sorted {
                blocks.iter_mut().for_each(|block| block.sort_unstable());
            }
            let mut expected = blocks.concat();
            expected.sort_unstable();
            expected.dedup();
            let list = list(&blocks);
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn what_has_no_order_is_sorted() {
        let texts = (0..10_000_u64).map(|n| (n * 7_907 % 7_919).to_string());
        let texts: Vec<String> = texts.collect();
        let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut gathering = Gathering::default();
        texts.iter().for_each(|text| gathering.push(text));
        assert!(gathering.runs.len() > MOST_RUNS);
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(gathering.finish().iter().collect::<Vec<_>>(), texts);
    }
}
