//! aggregation-rules.conf: series that are made of the points of others.
//!
//! 1. A [`Rule`] says which output series a name feeds. An [`Output`] gathers the points of an interval
//!    and gives out one value for it ([`buffer`]).
//! 2. There is one output for a name, whichever rules make it. The rule that makes it first decides
//!    frequency and method, as in carbon.
//! 3. Nothing here reads a clock: the time is an argument.
//! 4. Open intervals can be saved ([`saved`]): [`Aggregator::save`] has what has changed since the last
//!    call, [`Aggregator::restore`] goes on with what was read back.
//! 5. What clients can make larger is bounded for each rule: its output series, and its open intervals
//!    (with the values that percentiles keep). At a bound further points are refused and counted.

pub mod buffer;
pub mod method;
pub mod rule;
pub mod saved;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

pub use buffer::Added;
use buffer::{Buffer, Timing};
use method::Method;
pub use rule::Rule;
use saved::{Restored, Saved};
use writer::Writer;

use crate::conf::Findings;
use crate::datapoint::SeriesId;

/// The bounds of each rule, and how long late points are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most output series of a rule.
    pub outputs: usize,
    /// Most open intervals of a rule.
    pub intervals: usize,
    /// For how many intervals without a point an interval stays open.
    pub late: u32,
}

/// A rule in use.
#[derive(Debug)]
pub struct Active {
    /// The rule.
    pub rule: Rule,
    outputs: AtomicUsize,
    /// The room that open intervals take, see [`Buffer::weight`].
    intervals: AtomicUsize,
    /// The log says that a bound is reached.
    logged: AtomicBool,
}

/// Reads the text of aggregation-rules.conf.
pub fn parse(text: &str, findings: &mut Findings) -> Vec<Arc<Active>> {
    let rules = rule::parse(text, findings).into_iter();
    rules.map(|rule| Arc::new(Active::new(rule))).collect()
}

impl Active {
    fn new(rule: Rule) -> Self {
        Self {
            rule,
            outputs: AtomicUsize::new(0),
            intervals: AtomicUsize::new(0),
            logged: AtomicBool::new(false),
        }
    }

    /// How many outputs it has.
    pub fn outputs(&self) -> usize {
        self.outputs.load(Ordering::Relaxed)
    }

    /// How much of its room for open intervals is taken.
    pub fn open_intervals(&self) -> usize {
        self.intervals.load(Ordering::Relaxed)
    }

    /// Takes one of `limit`, if there is one left.
    fn take(&self, taken: &AtomicUsize, limit: usize) -> bool {
        if taken.fetch_add(1, Ordering::Relaxed) < limit {
            return true;
        }
        taken.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// Whether this is the first refusal since the rule was read: for the log.
    pub fn is_news(&self) -> bool {
        !self.logged.swap(true, Ordering::Relaxed)
    }
}

/// One output series.
#[derive(Debug)]
pub struct Output {
    /// Its name.
    pub name: Box<str>,
    /// The rule that decides frequency and method.
    pub by: Arc<Active>,
    buffer: Mutex<Buffer>,
    /// The id under which the store knows it, once it has been emitted.
    pub(crate) series: Mutex<Option<SeriesId>>,
    /// Its number among those that are saved; 0: it was not saved.
    number: AtomicU32,
}

impl Output {
    fn new(name: &str, by: &Arc<Active>, buffer: Buffer) -> Self {
        Self {
            name: name.into(),
            by: Arc::clone(by),
            buffer: Mutex::new(buffer),
            series: Mutex::default(),
            number: AtomicU32::new(0),
        }
    }

    fn timing(&self, limits: &Limits) -> (Timing, Method) {
        let rule = &self.by.rule;
        let timing = Timing {
            frequency: i64::from(rule.frequency),
            late: i64::from(limits.late),
        };
        (timing, rule.method)
    }

    /// Adds a point with the timestamp `at`.
    pub fn add(&self, at: i64, value: f64, now: i64, limits: &Limits) -> Added {
        let timing = self.timing(limits);
        let start = self.by.rule.interval(at);
        let room = || self.by.take(&self.by.intervals, limits.intervals);
        self.buffer.lock().add(timing, start, value, now, room)
    }
}

/// Everything that is being aggregated.
#[derive(Debug)]
pub struct Aggregator {
    limits: Limits,
    outputs: RwLock<HashMap<Box<str>, Arc<Output>>>,
    saving: Mutex<Numbers>,
}

/// The numbers of outputs that are saved.
#[derive(Debug, Default)]
struct Numbers {
    /// The last one that was given out.
    last: u32,
    /// Those of outputs that are gone.
    gone: Vec<u32>,
}

/// What is new in outputs, and outputs that are no longer in use.
pub type Left = (Vec<Emitted>, Vec<Arc<Output>>);

/// There is no room for another output of the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A value for the interval that begins at `at`.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// Of this series.
    pub output: Arc<Output>,
    /// The start of the interval, in seconds.
    pub at: i64,
    /// May be infinite or NaN.
    pub value: f64,
}

impl Aggregator {
    /// An aggregator without outputs.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            outputs: RwLock::default(),
            saving: Mutex::default(),
        }
    }

    /// Its bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The rules to use after those of `old`, for a file that says `new`: rules that were in use before
    /// keep their open intervals. The outputs of the others go: they are returned, with what is new in
    /// them.
    pub fn replace(
        &self,
        old: &[Arc<Active>],
        new: &[Arc<Active>],
    ) -> (Vec<Arc<Active>>, Vec<Emitted>, Vec<Arc<Output>>) {
        let mut left: Vec<&Arc<Active>> = old.iter().collect();
        let in_use = |new: &Arc<Active>| {
            let same = left.iter().position(|old| old.rule.text == new.rule.text);
            Arc::clone(same.map_or(new, |at| left.swap_remove(at)))
        };
        let active: Vec<Arc<Active>> = new.iter().map(in_use).collect();
        let gone = |output: &Output| left.iter().any(|old| Arc::ptr_eq(old, &output.by));
        let mut outputs = self.write();
        let going: Vec<Arc<Output>> = outputs
            .values()
            .filter(|output| gone(output))
            .cloned()
            .collect();
        outputs.retain(|_, output| !gone(output));
        drop(outputs);
        let mut emitted = Vec::new();
        for output in &going {
            self.emit(output, 0, true, &mut emitted);
        }
        self.note_gone(&going);
        (active, emitted, going)
    }

    /// The numbers of `gone` are no longer in use.
    fn note_gone(&self, gone: &[Arc<Output>]) {
        let numbers = gone
            .iter()
            .map(|output| output.number.load(Ordering::Relaxed));
        self.saving
            .lock()
            .gone
            .extend(numbers.filter(|number| *number > 0));
    }

    /// Appends to `body` what has changed since the last call, in the form of [`saved`]; everything, if
    /// `all`, and it is all that has to be read back then.
    pub fn save(&self, all: bool, body: &mut Vec<u8>) {
        let mut numbers = self.saving.lock();
        for number in std::mem::take(&mut numbers.gone) {
            if !all {
                Writer { body, number }.gone();
            }
        }
        if all {
            numbers.last = 0;
        }
        for output in self.outputs.read().values() {
            let mut buffer = output.buffer.lock();
            if !all && !buffer.is_changed() {
                continue;
            }
            let mut number = output.number.load(Ordering::Relaxed);
            let is_new = all || number == 0;
            if is_new {
                number = match all && buffer.is_empty() {
                    true => 0,
                    false => numbers.last + 1,
                };
                output.number.store(number, Ordering::Relaxed);
                numbers.last = numbers.last.max(number);
            }
            if number == 0 {
                continue;
            }
            let mut writer = Writer { body, number };
            if is_new {
                writer.output(&output.by.rule.text, &output.name);
            }
            buffer.save(is_new, &mut writer);
        }
    }

    /// Goes on at `now` with what was saved, under the rules `active`. Outputs whose rules are not among
    /// these are returned, with what is in them.
    pub fn restore(&self, saved: Saved, active: &[Arc<Active>], now: i64) -> Left {
        let (mut emitted, mut gone) = (Vec::new(), Vec::new());
        let mut outputs = self.write();
        for Restored {
            rule: text,
            name,
            mut buffer,
        } in saved.outputs()
        {
            let known = active.iter().find(|active| active.rule.text == text);
            let by = match known {
                Some(by) => Arc::clone(by),
                None => {
                    let mut findings = Findings::new("".as_ref());
                    match rule::parse(&text, &mut findings).pop() {
                        Some(rule) => Arc::new(Active::new(rule)),
                        None => continue,
                    }
                }
            };
            let weight = buffer.weight();
            let frequency = i64::from(by.rule.frequency);
            let late = i64::from(self.limits.late);
            buffer.resume(Timing { frequency, late }, now);
            let output = Arc::new(Output::new(&name, &by, buffer));
            if known.is_some() && by.take(&by.outputs, self.limits.outputs) {
                by.intervals.fetch_add(weight, Ordering::Relaxed);
                outputs.insert(name.into(), output);
            } else {
                self.emit(&output, 0, true, &mut emitted);
                gone.push(output);
            }
        }
        (emitted, gone)
    }

    /// The output called `name`; a new one of the rule `by` if it is unknown.
    ///
    /// # Errors
    /// The rule has as many outputs as it may have.
    pub fn output(&self, by: &Arc<Active>, name: &str) -> Result<Arc<Output>, Full> {
        let known = self.outputs.read();
        if let Some(output) = known.get(name) {
            return Ok(Arc::clone(output));
        }
        drop(known);
        let mut outputs = self.write();
        if let Some(output) = outputs.get(name) {
            return Ok(Arc::clone(output));
        }
        if !by.take(&by.outputs, self.limits.outputs) {
            return Err(Full);
        }
        let output = Arc::new(Output::new(name, by, Buffer::default()));
        outputs.insert(name.into(), Arc::clone(&output));
        Ok(output)
    }

    /// Appends what is due at `now` to `emitted`; everything that is new, if `all`.
    pub fn due(&self, now: i64, all: bool, emitted: &mut Vec<Emitted>) {
        let outputs = self.outputs.read();
        for output in outputs.values() {
            self.emit(output, now, all, emitted);
        }
    }

    fn emit(&self, output: &Arc<Output>, now: i64, all: bool, emitted: &mut Vec<Emitted>) {
        let timing = output.timing(&self.limits);
        let given_back = output.buffer.lock().emit(timing, now, all, |at, value| {
            let output = Arc::clone(output);
            emitted.push(Emitted { output, at, value });
        });
        output.by.intervals.fetch_sub(given_back, Ordering::Relaxed);
    }

    /// Drops the outputs that nothing refers to and that have been idle for long; returns them.
    pub fn sweep(&self, now: i64) -> Vec<Arc<Output>> {
        let mut swept = Vec::new();
        self.write().retain(|_, output| {
            let idle = || {
                output
                    .buffer
                    .lock()
                    .is_idle(output.timing(&self.limits).0, now)
            };
            // Only this table has it, and its lock is held: nothing can add to it.
            let goes = Arc::strong_count(output) == 1 && idle();
            if goes {
                output.by.outputs.fetch_sub(1, Ordering::Relaxed);
                output.by.logged.store(false, Ordering::Relaxed);
                swept.push(Arc::clone(output));
            }
            !goes
        });
        self.note_gone(&swept);
        swept
    }

    /// Outputs, and the values in their open intervals.
    pub fn len(&self) -> (usize, u64) {
        let outputs = self.outputs.read();
        let values = outputs.values().map(|output| output.buffer.lock().len().1);
        (outputs.len(), values.sum())
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Box<str>, Arc<Output>>> {
        self.outputs.write()
    }
}

#[cfg(test)]
mod tests;
