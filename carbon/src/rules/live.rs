//! The rules while the server runs: files that change, verdicts, aggregates that become due.
//!
//! 1. A thread of the store calls [`Rules::tick`], which compares the generations of the files with those in use. When one
//!    has changed it puts the new rules together, forgets the verdicts, has StatsD's names judged again,
//!    and emits what the aggregates of removed rules hold.
//! 2. The same thread saves the open intervals and submits the aggregates that are due, as a receiver
//!    would: they are journalled and visible at once.
//! 3. Locks are taken in the order verdicts, names; a lock is never held while a name is judged or
//!    admitted. A verdict that was made with older rules is not kept ([`Verdicts`]).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use whisper::Timestamp;

use super::aggregate::{self, Active, Added, Aggregator, Emitted, Left, Limits, Output};
use super::lent::Lent;
use super::lists::{self, List};
use super::rewrite::{self, Rewrites};
use super::saving::Saving;
use super::verdicts::{Fate, Judged, Verdicts};
use super::{Faults, Refusal, Ruleset};
use crate::conf::{Files, Missing, Problem, Watched};
use crate::datapoint::{Datapoint, NameError, PointTime, SeriesId};
use crate::index::Index;
use crate::series::MAX_NAME;
use crate::stats::Stats;

/// How often outputs that are no longer fed are looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// How often verdicts may be forgotten to make room for outputs.
const MAKE_ROOM: Duration = Duration::from_secs(600);
/// Aggregates that are submitted together.
const POINTS: usize = 4_096;

/// What the rules are read from, and their bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    /// The paths of the files; empty: there is no such file.
    pub(crate) allow: &'a str,
    pub(crate) deny: &'a str,
    pub(crate) rewrite_rules: &'a str,
    pub(crate) aggregation_rules: &'a str,
    /// Whether points are stored themselves, beside aggregates.
    pub(crate) forward: bool,
    pub(crate) limits: Limits,
}

/// What the rules work on.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) index: &'a Index,
    pub(crate) stats: &'a Stats,
    pub(crate) now: Timestamp,
    /// Stores points as a receiver does.
    pub(crate) submit: &'a dyn Fn(&[Datapoint]),
    /// Says how often a series has points, in seconds.
    pub(crate) set_step: &'a dyn Fn(SeriesId, u32),
}

/// Rule files and everything that is known because of them.
pub(crate) struct Rules {
    allow: Option<Arc<Watched<List>>>,
    deny: Option<Arc<Watched<List>>>,
    rewrites: Option<Arc<Watched<Rewrites>>>,
    aggregates: Option<Arc<Watched<Vec<Arc<Active>>>>>,
    forward: bool,
    current: RwLock<Current>,
    verdicts: RwLock<Verdicts>,
    pub(super) aggregator: Aggregator,
    pub(super) lent: RwLock<Lent>,
    /// The log has named a rule that cannot be applied within bounds, under these rules.
    logged: AtomicU64,
    swept: Mutex<Swept>,
    /// The file of open intervals.
    saving: Mutex<Option<Saving>>,
    /// What was read back and belongs to no rule, to be submitted.
    left: Mutex<Option<Left>>,
}

#[derive(Debug)]
struct Swept {
    at: Instant,
    made_room: Instant,
}

/// The rules in effect.
#[derive(Clone)]
struct Current {
    set: Arc<Ruleset>,
    /// The generations of the files that they come from.
    files: [u64; 4],
    generation: u64,
}

/// A name that was judged just now.
pub(super) struct Learned {
    pub(super) judged: Judged,
    pub(super) generation: u64,
}

/// Opens a file, unless its key is empty.
fn open<T: Send + Sync + 'static>(
    key: &'static str,
    path: &str,
    parse: fn(&str, &mut crate::conf::Findings) -> T,
    problems: &mut Vec<Problem>,
    files: &mut Files,
) -> Option<Arc<Watched<T>>> {
    if path.is_empty() {
        return None;
    }
    match Watched::open(key, Path::new(path), Missing::Empty, parse) {
        Ok(watched) => {
            let watched = Arc::new(watched);
            files.add(Arc::clone(&watched) as _);
            Some(watched)
        }
        Err(found) => {
            problems.extend(found);
            None
        }
    }
}

impl Rules {
    /// Reads the files that `sources` names and adds them to `files`; `None` if it names none.
    ///
    /// # Errors
    /// Everything that makes a file unusable.
    pub(crate) fn open(
        sources: &Sources<'_>,
        files: &mut Files,
    ) -> Result<Option<Self>, Vec<Problem>> {
        let mut problems = Vec::new();
        let allow = open(
            "carbon.allow",
            sources.allow,
            lists::parse_allowed,
            &mut problems,
            files,
        );
        let deny = open(
            "carbon.deny",
            sources.deny,
            lists::parse,
            &mut problems,
            files,
        );
        let rewrites = open(
            "carbon.rewrite_rules",
            sources.rewrite_rules,
            rewrite::parse,
            &mut problems,
            files,
        );
        let aggregation = open(
            "carbon.aggregation_rules",
            sources.aggregation_rules,
            aggregate::parse,
            &mut problems,
            files,
        );
        if !problems.is_empty() {
            return Err(problems);
        }
        if allow.is_none() && deny.is_none() && rewrites.is_none() && aggregation.is_none() {
            return Ok(None);
        }
        let rules = Self {
            allow,
            deny,
            rewrites,
            aggregates: aggregation,
            forward: sources.forward,
            current: RwLock::new(Current {
                set: Arc::new(Ruleset::default()),
                files: [u64::MAX; 4],
                generation: 0,
            }),
            verdicts: RwLock::default(),
            aggregator: Aggregator::new(sources.limits),
            lent: RwLock::default(),
            logged: AtomicU64::new(u64::MAX),
            swept: Mutex::new(Swept {
                at: Instant::now(),
                made_room: Instant::now(),
            }),
            saving: Mutex::default(),
            left: Mutex::default(),
        };
        rules.update();
        Ok(Some(rules))
    }

    fn generations(&self) -> [u64; 4] {
        let of = |generation: Option<u64>| generation.unwrap_or(0);
        [
            of(self.allow.as_ref().map(|file| file.generation())),
            of(self.deny.as_ref().map(|file| file.generation())),
            of(self.rewrites.as_ref().map(|file| file.generation())),
            of(self.aggregates.as_ref().map(|file| file.generation())),
        ]
    }

    /// Puts the rules of files that have changed into use. What is new in the outputs that go with
    /// them, and these outputs; `None` if no file has changed.
    fn update(&self) -> Option<(Vec<Emitted>, Vec<Arc<Output>>)> {
        let files = self.generations();
        let before = self.current.read().clone();
        if files == before.files {
            return None;
        }
        let changed = files[3] != before.files[3];
        let (aggregates, emitted, gone) = match &self.aggregates {
            Some(watched) if changed => {
                let old = before.set.aggregates.rules();
                let (rules, emitted, gone) = self.aggregator.replace(old, &watched.get());
                (rules.into(), emitted, gone)
            }
            _ => (before.set.aggregates.clone(), Vec::new(), Vec::new()),
        };
        let set = Ruleset {
            allow: self
                .allow
                .as_ref()
                .map(|file| file.get())
                .unwrap_or_default(),
            deny: self
                .deny
                .as_ref()
                .map(|file| file.get())
                .unwrap_or_default(),
            rewrites: self
                .rewrites
                .as_ref()
                .map(|file| file.get())
                .unwrap_or_default(),
            aggregates,
            forward: self.forward,
        };
        let generation = before.generation + 1;
        *self.current.write() = Current {
            set: Arc::new(set),
            files,
            generation,
        };
        self.write_verdicts().begin(generation);
        Some((emitted, gone))
    }

    /// What was made of names before.
    #[inline]
    pub(super) fn read_verdicts(&self) -> RwLockReadGuard<'_, Verdicts> {
        self.verdicts.read()
    }

    /// Which reading of the files is in effect.
    pub(super) fn generation(&self) -> u64 {
        self.current.read().generation
    }

    pub(super) fn write_verdicts(&self) -> RwLockWriteGuard<'_, Verdicts> {
        self.verdicts.write()
    }

    /// Judges a name by the rules in effect.
    ///
    /// # Errors
    /// The name is not UTF-8, or longer than [`MAX_NAME`].
    pub(super) fn judge(&self, raw: &[u8], stats: &Stats) -> Result<Learned, NameError> {
        if raw.len() > MAX_NAME {
            return Err(NameError::TooLong);
        }
        let name = std::str::from_utf8(raw).map_err(|_| NameError::NotUtf8)?;
        let (set, generation) = {
            let current = self.current.read();
            (Arc::clone(&current.set), current.generation)
        };
        let mut faults = Faults::default();
        let verdict = set.judge(name, &mut faults);
        self.report(faults, generation, stats);
        let raw = Box::from(raw);
        let (stored, feeds) = match verdict {
            Ok(verdict) => (verdict.stored, verdict.feeds),
            Err(refusal) => {
                let judged = Judged {
                    raw,
                    fate: Fate::Refused(refusal),
                    outputs: Box::default(),
                    without_room: 0,
                };
                return Ok(Learned { judged, generation });
            }
        };
        let mut outputs = Vec::with_capacity(feeds.len());
        let mut without_room = 0;
        for (by, output) in &feeds {
            match self.aggregator.output(by, output) {
                Ok(output) => outputs.push(output),
                Err(_) => {
                    without_room += 1;
                    say_full(by, "carbon.aggregation_max_series");
                }
            }
        }
        let judged = Judged {
            raw,
            fate: stored.map_or(Fate::Fed, |name| Fate::Stored(name.into())),
            outputs: outputs.into(),
            without_room,
        };
        Ok(Learned { judged, generation })
    }

    /// Counts rules that could not be applied; the log has the first one of each reading of the files.
    fn report(&self, faults: Faults, generation: u64, stats: &Stats) {
        if faults.count == 0 {
            return;
        }
        stats.rules_skipped.add(faults.count);
        if self.logged.swap(generation, Ordering::Relaxed) != generation {
            let why = faults.first.map(|error| error.to_string());
            let why = why.unwrap_or_else(|| "a name would grow too long".to_owned());
            tracing::warn!("a rule was skipped for a name: {why}; further ones are counted");
        }
    }

    /// Counts a point of a name that a list refuses.
    pub(super) fn count_refusal(refusal: Refusal, stats: &Stats) {
        match refusal {
            Refusal::Denied => stats.denied.add(1),
            Refusal::NotAllowed => stats.not_allowed.add(1),
        }
    }

    /// Adds a point to the aggregates that its name feeds.
    pub(super) fn feed(
        &self,
        judged: &Judged,
        (at, value): (PointTime, f64),
        now: Timestamp,
        stats: &Stats,
    ) {
        if judged.outputs.is_empty() && judged.without_room == 0 {
            return;
        }
        let limits = self.aggregator.limits();
        let (mut fed, mut late, mut full) = (0, 0, judged.without_room);
        for output in &judged.outputs {
            match output.add(i64::from(at.timestamp().0), value, i64::from(now.0), limits) {
                Added::Taken => fed += 1,
                Added::Late => late += 1,
                Added::Full => {
                    full += 1;
                    say_full(&output.by, "carbon.aggregation_max_buckets");
                }
            }
        }
        stats.aggregated.add(fed);
        if late > 0 {
            stats.aggregated_late.add(late);
        }
        if full > 0 {
            stats.aggregated_full.add(full);
        }
    }

    /// Outputs, and the values in their open intervals.
    pub(crate) fn len(&self) -> (usize, u64) {
        self.aggregator.len()
    }

    /// How many names were judged and are remembered.
    pub(crate) fn known(&self) -> usize {
        self.verdicts.read().len()
    }

    /// Goes on with the open intervals that the file `path` has, before any point is received, and saves
    /// them there from now on; each time synced, if `synced`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn restore(&self, path: &Path, synced: bool, now: Timestamp) -> io::Result<()> {
        let saving = Saving::new(path.to_owned(), synced);
        let saved = saving.read()?;
        let rules = self.current.read().set.aggregates.clone();
        let left = self
            .aggregator
            .restore(saved, rules.rules(), i64::from(now.0));
        *self.left.lock() = Some(left);
        *self.saving.lock() = Some(saving);
        Ok(())
    }

    /// Saves the open intervals, as far as they have changed.
    fn save(&self, stats: &Stats) {
        if let Some(saving) = &mut *self.saving.lock() {
            // Counted after they were added: what is saved has all of them.
            let added = stats.aggregated.get();
            match saving.save(&self.aggregator) {
                true => stats
                    .aggregates_saved
                    .add(added - stats.aggregates_saved.get()),
                false => stats.aggregates_unsaved.add(1),
            }
        }
    }

    /// Puts changed rules into use, submits what is due, drops what is no longer used.
    pub(crate) fn tick(&self, around: &Around<'_>) {
        let left = self.left.lock().take();
        if let Some((emitted, gone)) = left {
            self.submit(around, emitted);
            self.let_go(around, &gone);
        }
        if let Some((emitted, gone)) = self.update() {
            self.submit(around, emitted);
            self.let_go(around, &gone);
            self.judge_lent_again(around);
        }
        let mut due = Vec::new();
        let now = around.now;
        self.aggregator.due(i64::from(now.0), false, &mut due);
        // Before it is submitted: what is read back has all points of what was stored.
        self.save(around.stats);
        self.submit(around, due);
        let mut swept = self.swept.lock();
        if swept.at.elapsed() < SWEEP {
            return;
        }
        swept.at = Instant::now();
        if self.is_tight() && swept.made_room.elapsed() >= MAKE_ROOM {
            // Verdicts refer to outputs: those of names that no longer come can go without them.
            swept.made_room = Instant::now();
            let generation = self.current.read().generation;
            self.write_verdicts().begin(generation);
        }
        let gone = self.aggregator.sweep(i64::from(now.0));
        self.let_go(around, &gone);
    }

    /// Submits everything that has not been emitted, complete or not: the store is shut down. The next start
    /// goes on with the open intervals.
    pub(crate) fn finish(&self, around: &Around<'_>) {
        let mut due = Vec::new();
        let now = around.now;
        self.aggregator.due(i64::from(now.0), true, &mut due);
        self.save(around.stats);
        self.submit(around, due);
    }

    fn is_tight(&self) -> bool {
        let current = self.current.read();
        let limit = self.aggregator.limits().outputs;
        let mut rules = current.set.aggregates.rules().iter();
        rules.any(|rule| rule.outputs() >= limit)
    }

    /// Submits aggregates as a receiver does.
    fn submit(&self, around: &Around<'_>, emitted: Vec<Emitted>) {
        let stats = around.stats;
        for emitted in emitted.chunks(POINTS) {
            let mut points = Vec::with_capacity(emitted.len());
            for Emitted { output, at, value } in emitted {
                let Some(series) = series_of(output, around) else {
                    continue;
                };
                let at = u32::try_from(*at).ok();
                match at.and_then(|at| PointTime::new(Timestamp(at))) {
                    Some(at) if value.is_finite() => points.push(Datapoint {
                        series,
                        at,
                        value: *value,
                    }),
                    _ => stats.aggregates_unsound.add(1),
                }
            }
            stats.aggregates_sent.add(points.len() as u64);
            (around.submit)(&points);
        }
    }

    /// Gives back the ids of outputs that are gone.
    fn let_go(&self, around: &Around<'_>, gone: &[Arc<Output>]) {
        let ids = gone.iter().filter_map(|output| output.series.lock().take());
        let ids: Vec<SeriesId> = ids.collect();
        around.index.release(&ids);
    }
}

/// Says once for each rule that it is at a bound.
fn say_full(by: &Active, key: &str) {
    if by.is_news() {
        tracing::warn!(
            "{key} is reached by the aggregation rule {:?}: further points of it are counted and not \
             aggregated",
            by.rule.text
        );
    }
}

/// The id of an output; `None`, counted, if its name is refused.
fn series_of(output: &Output, around: &Around<'_>) -> Option<SeriesId> {
    let mut series = output.series.lock();
    if series.is_none() {
        match around.index.hold(output.name.as_bytes()) {
            Ok(id) => {
                *series = Some(id);
                (around.set_step)(id, output.by.rule.frequency);
            }
            Err(reason) => around.stats.count_refusal(reason),
        }
    }
    *series
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").finish_non_exhaustive()
    }
}
