//! Many patterns, searched for at once.
//!
//! All patterns that need no backtracking are one automaton ([`regex::RegexSet`]); the others, those
//! with look-around or back-references, have to be tried one by one.

use regex::{Regex, RegexSet, RegexSetBuilder};

use crate::pattern::translated;

/// The largest automaton, and the memory of its states while it searches. Hundreds of patterns of
/// real configurations need a few hundred KiB.
const MAX_AUTOMATON: usize = 16 << 20;

/// Patterns in order, of which each was compiled by itself before.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    automaton: Option<RegexSet>,
    /// The number of each pattern of the automaton.
    numbers: Vec<usize>,
    /// The patterns that the automaton does not have, in order.
    others: Vec<usize>,
}

impl Patterns {
    /// A search for `texts`, which are Python's regular expressions.
    pub(crate) fn new<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        Self::within(texts, MAX_AUTOMATON)
    }

    /// As [`Patterns::new`], with another limit on the automaton.
    pub(crate) fn within<'t>(
        texts: impl IntoIterator<Item = &'t str>,
        max_automaton: usize,
    ) -> Self {
        let texts: Vec<String> = texts.into_iter().map(translated).collect();
        let plain: Vec<(usize, &String)> = texts
            .iter()
            .enumerate()
            .filter(|(_, text)| Regex::new(text).is_ok())
            .collect();
        let built = RegexSetBuilder::new(plain.iter().map(|(_, text)| text))
            .size_limit(max_automaton)
            .dfa_size_limit(max_automaton)
            .build();
        let automaton = built.ok().filter(|set| !set.is_empty());
        let numbers: Vec<usize> = match automaton {
            Some(_) => plain.into_iter().map(|(number, _)| number).collect(),
            None => Vec::new(),
        };
        let others = (0..texts.len()).filter(|number| numbers.binary_search(number).is_err());
        Self {
            others: others.collect(),
            automaton,
            numbers,
        }
    }

    /// Whether a pattern matches somewhere in `name`; `others` tries one that the automaton does not have.
    pub(crate) fn any(&self, name: &str, others: impl FnMut(usize) -> bool) -> bool {
        let automaton = self.automaton.as_ref();
        automaton.is_some_and(|set| set.is_match(name)) || self.others.iter().copied().any(others)
    }

    /// The number of the first pattern that matches somewhere in `name`; `others` tries one that the
    /// automaton does not have.
    pub(crate) fn first(&self, name: &str, mut others: impl FnMut(usize) -> bool) -> Option<usize> {
        let matched = self.automaton.as_ref().map(|set| set.matches(name));
        let matched = matched.and_then(|all| all.iter().next());
        let first = matched.map(|index| self.numbers[index]);
        let end = first.unwrap_or(usize::MAX);
        let before = self.others.iter().copied();
        let before = before
            .take_while(|number| *number < end)
            .find(|number| others(*number));
        before.or(first)
    }

    /// The numbers of the patterns that may match in `name`, in order: all others do not.
    pub(crate) fn candidates(&self, name: &str) -> Vec<usize> {
        let mut numbers = self.others.clone();
        if let Some(set) = &self.automaton
            && set.is_match(name)
        {
            numbers.extend(set.matches(name).iter().map(|index| self.numbers[index]));
            numbers.sort_unstable();
        }
        numbers
    }

    /// How many patterns the automaton has, and how many it does not have.
    #[cfg(test)]
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.numbers.len(), self.others.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_search_equals_one_after_the_other(
            patterns in prop::collection::vec(r"(\^|\\A|)(\[ab\]|a|b|\\\.|\.\*|\.|\(\?!a\)|\(a\|b\)|c\+){1,5}(\$|)", 0..12),
            names in prop::collection::vec(r"[abc.]{0,12}", 1..20),
        ) {
            let patterns: Vec<Pattern> = patterns.iter().filter_map(|p| Pattern::new(p).ok()).collect();
            let search = Patterns::new(patterns.iter().map(Pattern::text));
            for name in names {
                let matches = |number: usize| patterns[number].is_in(&name).unwrap();
                let all: Vec<usize> = (0..patterns.len()).filter(|n| matches(*n)).collect();
                prop_assert_eq!(search.any(&name, matches), !all.is_empty());
                prop_assert_eq!(search.first(&name, matches), all.first().copied());
                let mut candidates = search.candidates(&name);
                prop_assert!(candidates.is_sorted());
                candidates.retain(|n| matches(*n));
                prop_assert_eq!(candidates, all);
            }
        }
    }
}
