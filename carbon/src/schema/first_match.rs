//! The first of many patterns that a name matches, found in one search.
//!
//! The answer is that of trying all patterns in order, which `FirstMatch::find_slowly` does for tests and
//! fuzz targets. A pattern that takes too many steps counts as not matching.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::pattern::{Pattern, PatternError};
use crate::patterns::Patterns;

/// Patterns in order.
#[derive(Debug, Default)]
pub(super) struct FirstMatch {
    patterns: Vec<Pattern>,
    search: Patterns,
    /// A search that took too many steps was logged.
    too_slow: AtomicBool,
}

impl FirstMatch {
    /// Compiles `patterns`, which were compiled one by one before.
    pub(super) fn new(patterns: Vec<Pattern>) -> Self {
        let search = Patterns::new(patterns.iter().map(Pattern::text));
        Self {
            patterns,
            search,
            too_slow: AtomicBool::new(false),
        }
    }

    /// The number of the first pattern that matches somewhere in `name`.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.search.first(name, |number| self.matches(number, name))
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
        assert_eq!(all.search.len(), (3, 2));
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
        let search = Patterns::within(patterns.iter().map(Pattern::text), 1_000);
        assert_eq!(search.len(), (0, 3));
        let all = FirstMatch {
            search,
            ..FirstMatch::new(patterns.into())
        };
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
