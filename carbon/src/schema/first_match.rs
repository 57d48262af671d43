//! The first of many patterns that a name matches, found in one search.
//!
//! All patterns that need no backtracking are one automaton ([`regex::RegexSet`]); the others, those
//! with look-around or back-references, are tried one by one, and only those before the first match
//! of the automaton. The answer is that of trying all patterns in order, which
//! `FirstMatch::find_slowly` does for tests and fuzz targets.

use std::sync::atomic::{AtomicBool, Ordering};

use regex::{Regex, RegexSet, RegexSetBuilder};

use crate::pattern::{Pattern, PatternError, translated};

/// The largest automaton, and the memory of its states while it searches. Hundreds of patterns of
/// real configurations need a few hundred KiB.
const MAX_AUTOMATON: usize = 16 << 20;

/// Patterns in order.
#[derive(Debug, Default)]
pub(super) struct FirstMatch {
    patterns: Vec<Pattern>,
    automaton: Option<RegexSet>,
    /// The number of each pattern of the automaton.
    numbers: Vec<usize>,
    /// The patterns that the automaton does not have, in order.
    others: Vec<usize>,
    /// A search that took too many steps was logged.
    too_slow: AtomicBool,
}

impl FirstMatch {
    /// Compiles `patterns`, which were compiled one by one before.
    pub(super) fn new(patterns: Vec<Pattern>) -> Self {
        Self::within(patterns, MAX_AUTOMATON)
    }

    fn within(patterns: Vec<Pattern>, max_automaton: usize) -> Self {
        let plain: Vec<(usize, String)> = patterns
            .iter()
            .enumerate()
            .map(|(number, pattern)| (number, translated(pattern.text())))
            .filter(|(_, text)| Regex::new(text).is_ok())
            .collect();
        let built = RegexSetBuilder::new(plain.iter().map(|(_, text)| text))
            .size_limit(max_automaton)
            .dfa_size_limit(max_automaton)
            .build();
        let automaton = built.ok();
        let numbers: Vec<usize> = match automaton {
            Some(_) => plain.into_iter().map(|(number, _)| number).collect(),
            None => Vec::new(),
        };
        let others = (0..patterns.len()).filter(|number| !numbers.contains(number));
        Self {
            others: others.collect(),
            patterns,
            automaton,
            numbers,
            too_slow: AtomicBool::new(false),
        }
    }

    /// The number of the first pattern that matches somewhere in `name`.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let matched = self.automaton.as_ref().map(|set| set.matches(name));
        let matched = matched.and_then(|all| all.iter().next());
        let first = matched.map(|index| self.numbers[index]);
        let end = first.unwrap_or(usize::MAX);
        let others = self.others.iter().copied();
        let before = others
            .take_while(|number| *number < end)
            .find(|number| self.matches(*number, name));
        before.or(first)
    }

    /// As [`FirstMatch::find`], one pattern after the other.
    #[cfg(any(test, fuzzing))]
    pub(super) fn find_slowly(&self, name: &str) -> Option<usize> {
        (0..self.patterns.len()).find(|number| self.matches(*number, name))
    }

    fn matches(&self, number: usize, name: &str) -> bool {
        match self.patterns[number].is_in(name) {
            Ok(matches) => matches,
            Err(error) => {
                self.say_slow(name, &error);
                false
            }
        }
    }

    /// Logs once that a pattern was given up.
    fn say_slow(&self, name: &str, error: &PatternError) {
        if !self.too_slow.swap(true, Ordering::Relaxed) {
            tracing::warn!(%name, "{error}; the rule counts as not matching");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(patterns: &[&str]) -> FirstMatch {
        FirstMatch::new(patterns.iter().map(|p| Pattern::new(p).unwrap()).collect())
    }

    #[test]
    fn the_first_in_order_wins_in_both_engines() {
        let all = of(&[r"\.count$", r"^(\w+)\.\1$", r"^a\.", r"^(?!b)", ".*"]);
        assert_eq!((all.numbers.len(), all.others.len()), (3, 2));
        for (name, expected) in [
            ("a.a.count", 0),
            ("a.a", 1),
            ("a.b", 2),
            ("c.d", 3),
            ("b.d", 4),
            ("", 3),
        ] {
            assert_eq!(all.find(name), Some(expected), "{name}");
        }
        assert_eq!(of(&["x"]).find("a"), None);
        assert_eq!(of(&[]).find("a"), None);
    }

    #[test]
    fn an_automaton_that_would_be_too_large_is_done_without() {
        let patterns = ["^b", r"\w\.\w{20}x", "a"];
        let patterns = patterns.map(|text| Pattern::new(text).unwrap());
        let all = FirstMatch::within(patterns.into(), 1_000);
        assert!(all.automaton.is_none());
        assert_eq!((all.find("ca"), all.find("c")), (Some(2), None));
    }

    proptest! {
        #[test]
        fn one_search_equals_one_after_the_other(
            patterns in prop::collection::vec(r"(\^|)(\[ab\]|a|b|\\\.|\.\*|\.|\(\?!a\)|\(a\|b\)|c\+){1,5}(\$|)", 0..12),
            names in prop::collection::vec(r"[abc.]{0,12}", 1..20),
        ) {
            let patterns: Vec<Pattern> = patterns.iter().filter_map(|p| Pattern::new(p).ok()).collect();
            let all = FirstMatch::new(patterns);
            for name in names {
                prop_assert_eq!(all.find(&name), all.find_slowly(&name), "{}", name);
            }
        }
    }
}
