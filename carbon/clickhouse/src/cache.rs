//! Answers to patterns and tag expressions, kept for a short time and within a bound on their memory.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use render::Paths;

/// What an answer takes beside its texts and its question.
const PER_ANSWER: usize = 256;

#[derive(Debug)]
struct Kept {
    names: Paths,
    at: Instant,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Inner {
    kept: HashMap<String, Kept>,
    /// The keys, oldest first. Keys that were kept again are there twice.
    order: VecDeque<(Instant, String)>,
    bytes: usize,
}

/// The answers.
#[derive(Debug)]
pub(crate) struct Cache {
    within: Duration,
    most: usize,
    inner: Mutex<Inner>,
}

impl Cache {
    pub(crate) fn new(within: Duration, most: usize) -> Self {
        Self {
            within,
            most,
            inner: Mutex::default(),
        }
    }

    /// The answer to `question`, if it is not too old.
    pub(crate) fn get(&self, question: &str) -> Option<Paths> {
        let inner = self.inner.lock();
        let kept = inner.kept.get(question)?;
        (kept.at.elapsed() < self.within).then(|| kept.names.clone())
    }

    /// Keeps an answer, if it is small enough.
    pub(crate) fn keep(&self, question: &str, names: &Paths) {
        // Each question is there twice.
        let bytes = names.bytes() + 2 * question.len() + PER_ANSWER;
        if self.within.is_zero() || bytes > self.most / 2 {
            return;
        }
        let at = Instant::now();
        let mut inner = self.inner.lock();
        let kept = Kept {
            names: names.unheld(),
            at,
            bytes,
        };
        let before = inner.kept.insert(question.to_owned(), kept);
        inner.bytes = inner.bytes + bytes - before.map_or(0, |before| before.bytes);
        inner.order.push_back((at, question.to_owned()));
        let most = self.most;
        while inner.bytes > most
            || inner
                .order
                .front()
                .is_some_and(|(at, _)| at.elapsed() > self.within)
        {
            let Some((at, oldest)) = inner.order.pop_front() else {
                break;
            };
            // It may have been kept again later.
            if inner.kept.get(&oldest).is_some_and(|kept| kept.at == at)
                && let Some(gone) = inner.kept.remove(&oldest)
            {
                inner.bytes -= gone.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use render::budget::Budget;

    fn names(name: &str) -> Paths {
        Paths::new([name].into_iter(), &Budget::unlimited()).unwrap()
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go_first() {
        let cache = Cache::new(Duration::from_secs(60), 2_000);
        for n in 0..1_000 {
            cache.keep(&n.to_string(), &names("x"));
            cache.keep("again", &names("y"));
        }
        let inner = cache.inner.lock();
        let bytes: usize = inner.kept.values().map(|kept| kept.bytes).sum();
        assert_eq!(bytes, inner.bytes);
        assert!(bytes <= 2_000 && inner.order.len() < 50, "{bytes}");
        drop(inner);
        assert!(cache.get("999").is_some() && cache.get("0").is_none());
        assert!(cache.get("again").is_some());
        cache.keep("large", &names(&"x".repeat(2_000)));
        assert!(cache.get("large").is_none());
    }

    #[test]
    fn nothing_is_kept_for_no_time() {
        let cache = Cache::new(Duration::ZERO, 2_000);
        cache.keep("a", &names("x"));
        assert!(cache.get("a").is_none());
    }
}
