//! Graphite's rule files that act on names as they are received: whitelist.conf, blacklist.conf,
//! rewrite-rules.conf, aggregation-rules.conf.
//!
//! 1. The order is that of carbon-aggregator-cache: blacklist, whitelist, `[pre]` rewrites, aggregation
//!    (where the point itself goes on, unless its name is that of one of its aggregates), `[post]`
//!    rewrites. Lists see names as they were sent. Points that aggregation makes are stored as they are:
//!    no list, rewrite or rule sees them.
//! 2. Parsers and [`Ruleset::judge`] are pure: no I/O, no clock, no locks. `live` has what changes
//!    while the server runs.
//! 3. A name is judged once ([`verdicts`]); afterwards it costs one hash.
//! 4. The open intervals of aggregates are saved ([`saving`]) and survive a restart.
//! 5. Receivers ask through `Resolver`, StatsD through a [`crate::Sink`] of its own
//!    (`store::ruled`), whose ids follow the rules when these are read again ([`lending`]).

pub mod aggregate;
mod faults;
mod lending;
mod lent;
pub mod lists;
mod live;
pub mod rewrite;
mod saving;
mod session;
mod verdicts;

use std::borrow::Cow;
use std::sync::Arc;

use crate::patterns::Patterns;
use aggregate::Active;
pub use faults::Faults;
use lists::List;
pub(crate) use live::{Around, Rules, Sources};
use rewrite::Rewrites;
pub(crate) use session::Session;

/// Why a list refuses a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// blacklist.conf has it.
    Denied,
    /// whitelist.conf does not have it.
    NotAllowed,
}

/// All rules that are in effect at a time.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    /// whitelist.conf; an empty list allows every name.
    pub allow: Arc<List>,
    /// blacklist.conf.
    pub deny: Arc<List>,
    /// rewrite-rules.conf.
    pub rewrites: Arc<Rewrites>,
    /// aggregation-rules.conf.
    pub aggregates: Aggregates,
    /// Whether points of aggregated names, and of names that no rule is for, are stored
    /// (FORWARD_ALL).
    pub forward: bool,
}

/// The rules of aggregation-rules.conf, searched for together.
#[derive(Clone, Debug, Default)]
pub struct Aggregates {
    rules: Vec<Arc<Active>>,
    search: Arc<Patterns>,
}

impl From<Vec<Arc<Active>>> for Aggregates {
    fn from(rules: Vec<Arc<Active>>) -> Self {
        let search = Patterns::new(rules.iter().map(|active| active.rule.pattern()));
        Self {
            rules,
            search: Arc::new(search),
        }
    }
}

impl Aggregates {
    /// The rules in order.
    pub fn rules(&self) -> &[Arc<Active>] {
        &self.rules
    }
}

/// What the rules make of a name.
#[derive(Debug)]
pub struct Verdict<'n> {
    /// The name under which its points are stored; `None`: they only feed aggregates.
    pub stored: Option<Cow<'n, str>>,
    /// The rules that it feeds, and the names of their series.
    pub feeds: Vec<(Arc<Active>, String)>,
}

impl Ruleset {
    /// What becomes of the points of `name`.
    ///
    /// # Errors
    /// A list refuses it.
    pub fn judge<'n>(&self, name: &'n str, faults: &mut Faults) -> Result<Verdict<'n>, Refusal> {
        if self.deny.matches(name, faults) {
            return Err(Refusal::Denied);
        }
        if !self.allow.is_empty() && !self.allow.matches(name, faults) {
            return Err(Refusal::NotAllowed);
        }
        let name = self.rewrites.pre.apply(Cow::Borrowed(name), faults);
        let mut feeds = Vec::new();
        let Aggregates { rules, search } = &self.aggregates;
        for active in search.candidates(&name).into_iter().map(|n| &rules[n]) {
            if let Some(output) = active.rule.output(&name, faults) {
                feeds.push((Arc::clone(active), output));
            }
        }
        let is_own = feeds.iter().any(|(_, output)| *output == *name);
        let stored = (self.forward && !is_own).then(|| self.rewrites.post.apply(name, faults));
        Ok(Verdict { stored, feeds })
    }
}
