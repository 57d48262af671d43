//! Limits on new series.
//!
//! 1. Only unknown names are checked: a known series is never refused.
//! 2. A prefix is the first [`Limits::nodes`] nodes of a name without its tags, as for
//!    `statsd.max_names_per_prefix`. Prefixes are identified by a hash of 64 bits with a secret of this
//!    process, and counted only if there is a limit on them.
//! 3. Refusals are counted by prefix for the first [`MAX_COUNTED`] prefixes, and together for all others.
//!    Each counted prefix is logged at its first refusal, and all refusals together at most once in
//!    [`LOG_PAUSE`].

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::datapoint::{MAX_NEW, MAX_PER_PREFIX, MAX_SERIES, NameError};
use crate::options::Options;

/// Prefixes whose refusals are counted separately.
const MAX_COUNTED: usize = 64;
/// Bytes of a prefix that are kept for the log and the counters.
const MAX_COUNTED_BYTES: usize = 120;
/// The shortest time between two messages about refusals.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// The limits and their use.
#[derive(Debug)]
pub(crate) struct Limits {
    max: u64,
    max_per_prefix: u64,
    max_new_per_minute: u64,
    nodes: usize,
    /// New series that were still allowed at the time `at`.
    left: f64,
    at: Option<Instant>,
    hasher: RandomState,
    /// Series below each prefix, by its hash; empty without a limit on them.
    prefixes: HashMap<u64, u32, RandomState>,
    refused: BTreeMap<Box<str>, u64>,
    refused_elsewhere: u64,
    /// When refusals were last logged, and the refusals since.
    logged: Option<Instant>,
    untold: u64,
}

/// Names that were refused, by prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Prefixes and the number of refusals below each; a name that is sent again counts again.
    pub prefixes: Vec<(String, u64)>,
    /// The same for all other prefixes together.
    pub elsewhere: u64,
}

/// The first `nodes` nodes of `name` without its tags.
pub(crate) fn prefix(name: &str, nodes: usize) -> &str {
    let path = name.split(';').next().unwrap_or(name);
    match memchr::memchr_iter(b'.', path.as_bytes()).nth(nodes.max(1) - 1) {
        Some(end) => &path[..end],
        None => path,
    }
}

impl Limits {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            max: options.max_series,
            max_per_prefix: options.max_series_per_prefix,
            max_new_per_minute: options.max_new_series_per_minute,
            nodes: options.prefix_nodes as usize,
            left: options.max_new_series_per_minute as f64,
            at: None,
            hasher: RandomState::default(),
            prefixes: HashMap::default(),
            refused: BTreeMap::new(),
            refused_elsewhere: 0,
            logged: None,
            untold: 0,
        }
    }

    /// Whether nothing is limited.
    pub(crate) fn is_off(&self) -> bool {
        self.max == 0 && self.max_per_prefix == 0 && self.max_new_per_minute == 0
    }

    /// Whether the unknown series `name` may be added to `known` others. If so, it counts as a new one.
    pub(crate) fn admit(
        &mut self,
        name: &str,
        known: usize,
        now: Instant,
    ) -> Result<(), NameError> {
        let prefix = prefix(name, self.nodes);
        let key = if self.max > 0 && known as u64 >= self.max {
            MAX_SERIES
        } else if self.max_per_prefix > 0 && self.count(prefix) >= self.max_per_prefix {
            MAX_PER_PREFIX
        } else if !self.spend(now) {
            MAX_NEW
        } else {
            return Ok(());
        };
        self.refuse(key, prefix, now);
        Err(NameError::Limit(key))
    }

    fn count(&self, prefix: &str) -> u64 {
        let hash = self.hasher.hash_one(prefix);
        self.prefixes.get(&hash).copied().unwrap_or(0).into()
    }

    fn spend(&mut self, now: Instant) -> bool {
        if self.max_new_per_minute == 0 {
            return true;
        }
        let most = self.max_new_per_minute as f64;
        let before = self.at.replace(now).unwrap_or(now);
        let elapsed = now.saturating_duration_since(before).as_secs_f64();
        self.left = (self.left + elapsed * most / 60.0).min(most);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }

    fn refuse(&mut self, key: &'static str, prefix: &str, now: Instant) {
        let most = prefix.len().min(MAX_COUNTED_BYTES);
        let end = (0..=most).rev().find(|end| prefix.is_char_boundary(*end));
        let shown = &prefix[..end.unwrap_or(0)];
        let mut is_first = false;
        if let Some(count) = self.refused.get_mut(shown) {
            *count += 1;
        } else if self.refused.len() < MAX_COUNTED {
            self.refused.insert(shown.into(), 1);
            is_first = true;
        } else {
            self.refused_elsewhere += 1;
        }
        self.untold += 1;
        let rested = self
            .logged
            .is_none_or(|at| now.saturating_duration_since(at) >= LOG_PAUSE);
        if rested || is_first && self.max_per_prefix > 0 && key == MAX_PER_PREFIX {
            let refused = std::mem::take(&mut self.untold);
            self.logged = Some(now);
            tracing::warn!(
                prefix = shown,
                refused,
                "{key} is reached: new series are refused and counted"
            );
        }
    }

    /// Counts the series `name` as known.
    pub(crate) fn added(&mut self, name: &str) {
        if self.max_per_prefix > 0 {
            let hash = self.hasher.hash_one(prefix(name, self.nodes));
            *self.prefixes.entry(hash).or_default() += 1;
        }
    }

    /// No longer counts the series `name` as known.
    pub(crate) fn removed(&mut self, name: &str) {
        if self.max_per_prefix == 0 {
            return;
        }
        let hash = self.hasher.hash_one(prefix(name, self.nodes));
        if let Some(count) = self.prefixes.get_mut(&hash) {
            *count -= 1;
            if *count == 0 {
                self.prefixes.remove(&hash);
            }
        }
    }

    /// Refusals since the start.
    pub(crate) fn refused(&self) -> Refused {
        let each = self.refused.iter();
        Refused {
            prefixes: each
                .map(|(prefix, count)| (prefix.to_string(), *count))
                .collect(),
            elsewhere: self.refused_elsewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn a_prefix_is_the_first_nodes_without_tags() {
        for (name, expected) in [
            ("a.b.c", "a.b"),
            ("a.b", "a.b"),
            ("a", "a"),
            ("a.b.c;x=y.z", "a.b"),
            ("m;a=b.c.d", "m"),
        ] {
            assert_eq!(prefix(name, 2), expected, "{name}");
        }
        assert_eq!(prefix("a.b.c", 0), "a");
    }

    #[test]
    fn new_series_come_back_with_time() {
        let options = Options {
            max_new_series_per_minute: 60,
            ..Options::default()
        };
        let mut limits = Limits::new(&options);
        let start = Instant::now();
        for n in 0..60 {
            assert_eq!(limits.admit(&format!("a.b.m{n}"), n, start), Ok(()));
        }
        let refusal = Err(NameError::Limit(MAX_NEW));
        assert_eq!(limits.admit("a.b.x", 60, start), refusal);
        let later = start + Duration::from_secs(2);
        assert_eq!(limits.admit("a.b.x", 60, later), Ok(()));
        assert_eq!(limits.admit("a.b.y", 61, later), Ok(()));
        assert_eq!(limits.admit("a.b.z", 62, later), refusal);
        assert_eq!(limits.refused().prefixes, [("a.b".to_owned(), 2)]);
    }

    #[test]
    fn the_table_of_prefixes_is_bounded() {
        let options = Options {
            max_series: 1,
            ..Options::default()
        };
        let mut limits = Limits::new(&options);
        let now = Instant::now();
        for n in 0..1_000 {
            let name = format!("{}{n}.b.c", "é".repeat(100));
            assert_eq!(
                limits.admit(&name, 1, now),
                Err(NameError::Limit(MAX_SERIES))
            );
            let name = format!("p{n}.b.c");
            assert_eq!(
                limits.admit(&name, 1, now),
                Err(NameError::Limit(MAX_SERIES))
            );
        }
        let refused = limits.refused();
        assert_eq!(refused.prefixes.len(), MAX_COUNTED);
        let counted: u64 = refused.prefixes.iter().map(|(_, count)| count).sum();
        assert_eq!(counted + refused.elsewhere, 2_000);
    }

    proptest! {
        #[test]
        fn as_a_set_of_names(
            steps in prop::collection::vec(("[ab]\\.[ab](\\.[a-d]){0,2}", any::<bool>()), 0..200),
            max in 0_u64..12,
            per_prefix in 0_u64..6,
        ) {
            let options = Options {
                max_series: max,
                max_series_per_prefix: per_prefix,
                ..Options::default()
            };
            let mut limits = Limits::new(&options);
            let mut known: HashSet<String> = HashSet::new();
            let now = Instant::now();
            for (name, adds) in steps {
                if !adds {
                    if known.remove(&name) {
                        limits.removed(&name);
                    }
                    continue;
                }
                if known.contains(&name) {
                    continue;
                }
                let below = known.iter().filter(|other| prefix(other, 2) == prefix(&name, 2));
                let expected = if max > 0 && known.len() as u64 >= max {
                    Err(NameError::Limit(MAX_SERIES))
                } else if per_prefix > 0 && below.count() as u64 >= per_prefix {
                    Err(NameError::Limit(MAX_PER_PREFIX))
                } else {
                    Ok(())
                };
                prop_assert_eq!(limits.admit(&name, known.len(), now), expected);
                if expected.is_ok() {
                    limits.added(&name);
                    known.insert(name);
                }
            }
        }
    }
}
