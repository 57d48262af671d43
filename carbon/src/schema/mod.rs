//! Which archives and which aggregation a new file gets.
//!
//! ```text
//! a rule of carbon.schemas matches ──────────────────────────────► its retentions
//!   │ no
//! files of the directory have retentions that an operator chose,
//! and they are not coarser than what is known of the sender ─────► theirs        (carbon.infer_siblings)
//!   │ no
//! the server itself writes the series ──────────────────────────► by its interval
//!   │ no
//! two timestamps are there ─────────────────────────────────────► by their distance (carbon.infer_step)
//!   │ no
//! may it wait for a second one? ────────────────────────────────► the file waits
//!   │ no
//! the step of the files beside it, else the smaller of 10 s and the flush interval
//! ```
//!
//! With carbon.infer_step off, a series that no rule matches gets carbon's default of 60 s for 7
//! days where a file of rules is configured, and the built-in archives otherwise.
//!
//! How a file aggregates is chosen by its name alone: by the first rule of carbon.aggregation, or
//! carbon's default (0.5, average) if it has none for the name; without that file by
//! [`aggregation()`], with a factor of 0.

mod aggregation;
pub mod built_in;
mod first_match;
pub mod infer;
mod known;
mod load;
mod retentions;
mod rule_list;
pub mod siblings;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use whisper::{Aggregation, Allocation, CreateOptions, Point, Retention};

pub use aggregation::{AggregationRule, Aggregations, aggregation};
pub(crate) use known::Known;
use load::{coarse, parse_schemas};
pub use load::{load_aggregations, load_schemas};
pub use retentions::{SchemaRule, Schemas};
pub use rule_list::RuleList;
use siblings::{Branch, Branches};

use crate::conf::{Files, Findings, Missing, Problem, Watched};
use crate::options::{Options, Span};

/// Files up to this long get all their disk space when they are made. Longer ones are sparse: with
/// the built-in retentions a file is 3.3 MB, of which a new series needs three blocks, and reserving
/// the rest takes milliseconds per file and fills the disk for years ahead.
pub const RESERVE_UP_TO: u64 = 256 << 10;

/// carbon's default for names that no section of storage-schemas.conf matches: 60 s for 7 days.
const CARBON_DEFAULT: (u32, u32) = (60, 7 * 24 * 60);
/// carbon's default where storage-aggregation.conf sets no factor.
const CARBON_FACTOR: f64 = 0.5;
/// What is known of a series whose file is to be created.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// Its name in canonical form.
    pub name: &'a str,
    /// The directory of its file.
    pub directory: &'a Path,
    /// Its first points, in any order.
    pub points: &'a [Point],
    /// How often its points come, in seconds, where that is known from its source.
    pub interval: Option<u32>,
}

/// What a new file is like, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// What it is created with.
    pub options: CreateOptions,
    /// Where its archives come from.
    pub reason: Reason,
    /// The section of storage-aggregation.conf that applies, and its line.
    pub aggregation_rule: Option<(String, usize)>,
    /// The step is a guess, because the series has one timestamp only.
    pub is_assumed: bool,
}

/// Where the archives of a file come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A section of storage-schemas.conf.
    Rule {
        /// Its name.
        section: String,
        /// The line of its heading.
        line: usize,
    },
    /// No section of storage-schemas.conf matches, and carbon.infer_step is off.
    CarbonDefault,
    /// The files of the same directory have them.
    Siblings {
        /// One of these files.
        example: PathBuf,
    },
    /// The series comes from the server itself, every so many seconds.
    Source(u32),
    /// The first points were so many seconds apart.
    Interval(u32),
    /// Nothing is known of the sender.
    BuiltIn,
    /// The program that opened the store gave them.
    Fixed,
}

/// The choice of archives and aggregation. Clones share the files of rules and what was learnt.
#[derive(Clone, Debug)]
pub struct Schema {
    fixed: Option<Vec<Retention>>,
    flush_seconds: u64,
    infer_step: bool,
    infer_siblings: bool,
    schemas: Option<Arc<Watched<Schemas>>>,
    aggregations: Option<Arc<Watched<Aggregations>>>,
    branches: Arc<Branches>,
    pub(crate) known: Arc<Known>,
    /// Rules that were warned of, each with the generation of the file.
    warned: Arc<Mutex<HashSet<(u64, usize)>>>,
}

impl Schema {
    /// The built-in schema for a statsd that flushes every `flush_interval`; no file is looked at
    /// and nothing is inferred before [`Schema::configured`].
    pub fn built_in(flush_interval: Span) -> Self {
        Self {
            fixed: None,
            flush_seconds: flush_interval.0.as_secs().max(1),
            infer_step: false,
            infer_siblings: false,
            schemas: None,
            aggregations: None,
            branches: Arc::default(),
            known: Arc::default(),
            warned: Arc::default(),
        }
    }

    /// A schema that gives every new file `retentions`, regardless of the options.
    pub fn new(retentions: Vec<Retention>, flush_interval: Span) -> Self {
        Self {
            fixed: Some(retentions),
            ..Self::built_in(flush_interval)
        }
    }

    /// The schema with what `options` say: files of rules, which are read and added to `files`, and
    /// whether step and retentions are inferred.
    ///
    /// # Errors
    /// Everything that makes the files unusable.
    pub(crate) fn configured(
        mut self,
        options: &Options,
        files: &mut Files,
    ) -> Result<Self, Vec<Problem>> {
        self.infer_step = options.infer_step;
        self.infer_siblings = options.infer_siblings;
        let mut problems = Vec::new();
        let flush_seconds = self.flush_seconds;
        if !options.schemas.is_empty() {
            let parse = move |text: &str, findings: &mut Findings| {
                parse_schemas(text, flush_seconds, findings)
            };
            let path = Path::new(&options.schemas);
            match Watched::open("carbon.schemas", path, Missing::Refused, parse) {
                Ok(watched) => self.schemas = Some(Arc::new(watched)),
                Err(found) => problems.extend(found),
            }
        }
        if !options.aggregation.is_empty() {
            let path = Path::new(&options.aggregation);
            let parse = Aggregations::parse;
            match Watched::open("carbon.aggregation", path, Missing::Empty, parse) {
                Ok(watched) => self.aggregations = Some(Arc::new(watched)),
                Err(found) => problems.extend(found),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        if let Some(schemas) = &self.schemas {
            files.add(Arc::clone(schemas) as _);
        }
        if let Some(aggregations) = &self.aggregations {
            files.add(Arc::clone(aggregations) as _);
        }
        Ok(self)
    }

    /// The schema of a server with `options` whose statsd flushes every `flush_interval`, as if the
    /// file at `path` were not there: it says what a new file in its place would be like.
    ///
    /// # Errors
    /// Everything that makes the files of rules unusable.
    pub fn without(
        options: &Options,
        flush_interval: Span,
        path: &Path,
    ) -> Result<Self, Vec<Problem>> {
        let schema = Self {
            branches: Arc::new(Branches::without(path)),
            ..Self::built_in(flush_interval)
        };
        schema.configured(options, &mut Files::default())
    }

    /// What the file of `new` is created with; `None` if it should wait for a second timestamp.
    pub fn choose(&self, new: New<'_>) -> Option<Chosen> {
        let (retentions, reason) = self.retentions(new)?;
        Some(self.with_aggregation(new, retentions, reason, false))
    }

    /// What the file of `new` is created with, if it has to be created now.
    pub fn choose_now(&self, new: New<'_>) -> Chosen {
        let known = self.retentions(new);
        let is_assumed = known.is_none();
        let (retentions, reason) = known.unwrap_or_else(|| self.without_second_timestamp(new));
        self.with_aggregation(new, retentions, reason, is_assumed)
    }

    fn with_aggregation(
        &self,
        new: New<'_>,
        retentions: Vec<Retention>,
        reason: Reason,
        is_assumed: bool,
    ) -> Chosen {
        let (x_files_factor, aggregation, aggregation_rule) = self.aggregation(new.name);
        Chosen {
            options: CreateOptions {
                allocation: allocation(&retentions),
                retentions,
                x_files_factor,
                aggregation,
            },
            reason,
            aggregation_rule,
            is_assumed,
        }
    }

    fn retentions(&self, new: New<'_>) -> Option<(Vec<Retention>, Reason)> {
        if let Some(fixed) = &self.fixed {
            return Some((fixed.clone(), Reason::Fixed));
        }
        let interval = new.interval.or_else(|| infer::interval(new.points));
        if let Some(found) = self.by_rule(new.name, interval) {
            return Some(found);
        }
        // Files of tagged series are spread by a hash: their neighbours have nothing in common.
        if self.infer_siblings && !new.name.contains(';') {
            let branch = self.branches.of(new.directory);
            if let Some(found) = by_siblings(&branch, interval) {
                return Some(found);
            }
        }
        if !self.infer_step {
            return Some(self.without_inference());
        }
        match (new.interval, interval) {
            (Some(seconds), _) => Some((
                built_in::built_in(u64::from(seconds)),
                Reason::Source(seconds),
            )),
            (None, Some(seconds)) => Some((self.for_sender(seconds), Reason::Interval(seconds))),
            (None, None) => None,
        }
    }

    /// The retentions of the first rule that matches `name`, whose points come every `interval`
    /// seconds.
    fn by_rule(&self, name: &str, interval: Option<u32>) -> Option<(Vec<Retention>, Reason)> {
        let watched = self.schemas.as_ref()?;
        let schemas = watched.get();
        let rule = schemas.find(name)?;
        if let Some(interval) = interval.filter(|interval| *interval < rule.finest())
            && self.is_first_warning(watched.generation(), rule.line)
        {
            tracing::warn!(
                %name,
                "carbon.schemas: {}:{}: [{}]: points come every {interval} s, and the finest step is \
                 {} s: of several points in one step only the last is kept",
                watched.path().display(),
                rule.line,
                rule.section,
                rule.finest(),
            );
        }
        let reason = Reason::Rule {
            section: rule.section.clone(),
            line: rule.line,
        };
        Some((rule.retentions.clone(), reason))
    }

    fn is_first_warning(&self, generation: u64, line: usize) -> bool {
        let mut warned = self.warned.lock();
        warned.retain(|(of, _)| *of == generation);
        warned.insert((generation, line))
    }

    fn for_sender(&self, seconds: u32) -> Vec<Retention> {
        match infer::step(seconds) {
            // The built-in finest step may be shorter, for a statsd that flushes more often.
            10 => built_in::built_in(self.flush_seconds.min(10)),
            step => built_in::built_in(u64::from(step)),
        }
    }

    fn without_inference(&self) -> (Vec<Retention>, Reason) {
        match &self.schemas {
            Some(_) => {
                let (step, points) = CARBON_DEFAULT;
                let default = Retention::new(step, points).into_iter().collect();
                (default, Reason::CarbonDefault)
            }
            None => (self.default(), Reason::BuiltIn),
        }
    }

    /// The choice for a series that has waited long enough: as the files beside it, whose senders
    /// are the nearest that is known, else the built-in finest step.
    fn without_second_timestamp(&self, new: New<'_>) -> (Vec<Retention>, Reason) {
        if self.infer_siblings && !new.name.contains(';') {
            let mut found = self.branches.of(new.directory).found.into_iter();
            if let Some(sibling) = found.next() {
                let example = sibling.example;
                return (sibling.retentions, Reason::Siblings { example });
            }
        }
        (self.default(), Reason::BuiltIn)
    }

    fn default(&self) -> Vec<Retention> {
        built_in::built_in(self.flush_seconds.min(10))
    }

    /// Factor and method for `name`, and the rule that they come from.
    fn aggregation(&self, name: &str) -> (f64, Aggregation, Option<(String, usize)>) {
        let Some(watched) = &self.aggregations else {
            return (0.0, aggregation(name), None);
        };
        match watched.get().find(name) {
            Some(rule) => (
                rule.x_files_factor.unwrap_or(CARBON_FACTOR),
                rule.method.unwrap_or_default(),
                Some((rule.section.clone(), rule.line)),
            ),
            None => (CARBON_FACTOR, Aggregation::default(), None),
        }
    }

    /// For how many seconds new files keep points, at most.
    pub fn longest_retention(&self) -> u32 {
        let rules = self.schemas.as_ref().map(|schemas| schemas.get());
        let rules = rules.iter().flat_map(|schemas| schemas.rules());
        let of_rules = rules.flat_map(|rule| rule.retentions.clone());
        let other = self.fixed.clone().unwrap_or_else(|| self.default());
        let longest = of_rules.chain(other).map(Retention::seconds).max();
        u32::try_from(longest.unwrap_or(0)).unwrap_or(u32::MAX)
    }

    /// A warning when points come more often than the finest step, of which only the last in each
    /// step is kept. The built-in schema never needs one; those of rules are found when their file
    /// is read.
    pub fn warning(&self) -> Option<String> {
        let fixed = self.fixed.as_ref()?;
        let finest = fixed.iter().map(|r| r.step.seconds()).min()?;
        (u64::from(finest) > self.flush_seconds).then(|| coarse(finest, self.flush_seconds))
    }
}

fn allocation(retentions: &[Retention]) -> Allocation {
    let points: u64 = retentions.iter().map(|r| u64::from(r.points)).sum();
    if points * 12 <= RESERVE_UP_TO {
        Allocation::Reserved
    } else {
        Allocation::Sparse
    }
}

/// The retentions of files of the same directory that an operator chose: those that agree, or,
/// once the interval of the sender is known, the most common that are not coarser.
fn by_siblings(branch: &Branch, interval: Option<u32>) -> Option<(Vec<Retention>, Reason)> {
    let step = interval.map(infer::step);
    let fits = |finest: u32| step.is_none_or(|step| finest <= step);
    let mut chosen = branch.chosen();
    let first = chosen.next()?;
    let sibling = if step.is_none() && chosen.next().is_some() {
        return None;
    } else {
        branch.chosen().find(|sibling| fits(sibling.finest()))?
    };
    debug_assert!(sibling.files <= first.files);
    let example = sibling.example.clone();
    Some((sibling.retentions.clone(), Reason::Siblings { example }))
}

#[cfg(test)]
mod tests;
