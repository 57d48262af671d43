//! The file that keeps the open intervals of aggregates across restarts.
//!
//! ```text
//! "plumbago aggregates 1\n"
//! frame: u32 length of the body | u32 CRC-32 of the body | body: records (`aggregate::saved`)
//! ```
//!
//! 1. The thread of the rules appends a frame with what has changed, several times a second, before it
//!    submits an aggregate: what was read back is never older than what was stored of it.
//! 2. A frame that is incomplete or whose checksum is wrong ends the file; the log says what is lost.
//! 3. A file of many obsolete records is rewritten under another name and renamed. So it is at the
//!    start, and after a write that failed.
//! 4. With a journal each frame is synced, as the journal is: aggregates survive what datapoints survive.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::aggregate::Aggregator;
use super::aggregate::saved::Saved;
use crate::frame::{frame, write_frame};
use crate::private;

const MAGIC: &[u8] = b"plumbago aggregates 1\n";
/// A file is rewritten when it is longer than this and [`GROWTH`] times its length after the last time.
const SMALL: u64 = 1 << 20;
const GROWTH: u64 = 4;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Saving {
    path: PathBuf,
    synced: bool,
    /// `None`: the next write rewrites the file.
    file: Option<File>,
    len: u64,
    /// The length when it was rewritten last.
    begun: u64,
    body: Vec<u8>,
    /// The last write failed, and the log says so.
    failed: bool,
}

impl Saving {
    /// The file `path`, which need not exist; each frame is synced if `synced`.
    pub(crate) fn new(path: PathBuf, synced: bool) -> Self {
        Self {
            path,
            synced,
            file: None,
            len: 0,
            begun: 0,
            body: Vec::new(),
            failed: false,
        }
    }

    /// What was saved.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn read(&self) -> io::Result<Saved> {
        let mut saved = Saved::default();
        let bytes = match private::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(saved),
            Err(why) if private::is_in_the_way(&why) => {
                let aside = private::set_aside(&self.path)?;
                tracing::warn!(
                    "{} has no saved aggregates and was renamed to {}: {why}",
                    self.path.display(),
                    aside.display()
                );
                return Ok(saved);
            }
            Err(error) => return Err(error),
        };
        let mut rest = bytes.strip_prefix(MAGIC).unwrap_or_default();
        let mut sound = bytes.len() - rest.len();
        while let Some(body) = frame(rest) {
            if !saved.apply(body) {
                break;
            }
            sound += 8 + body.len();
            rest = &bytes[sound..];
        }
        if sound < bytes.len() {
            tracing::warn!(
                "{}: {} of {} bytes are torn or damaged and were dropped: aggregates of intervals that \
                 were open may lack points",
                self.path.display(),
                bytes.len() - sound,
                bytes.len()
            );
        }
        Ok(saved)
    }

    /// Saves what has changed in `aggregator`; whether it is saved. A failure is logged once.
    pub(crate) fn save(&mut self, aggregator: &Aggregator) -> bool {
        let saved = self.write(aggregator);
        if let Err(error) = &saved {
            self.file = None;
            if !self.failed {
                tracing::error!(
                    "{}: open intervals of aggregates are not saved, a restart would lose them: {error}",
                    self.path.display()
                );
            }
        }
        self.failed = saved.is_err();
        saved.is_ok()
    }

    fn write(&mut self, aggregator: &Aggregator) -> io::Result<()> {
        let is_large = self.len > SMALL.max(GROWTH * self.begun);
        let all = self.file.is_none() || is_large;
        self.body.clear();
        aggregator.save(all, &mut self.body);
        let new = self.path.with_extension("new");
        if all {
            let mut file = create(&new)?;
            self.len = MAGIC.len() as u64 + write_frame(&mut file, &self.body)?;
            self.begun = self.len;
            if self.synced {
                file.sync_data()?;
            }
            fs::rename(&new, &self.path)?;
            if self.synced {
                private::sync_directory(&self.path)?;
            }
            self.file = Some(file);
        } else if let Some(file) = &mut self.file
            && !self.body.is_empty()
        {
            self.len += write_frame(file, &self.body)?;
            if self.synced {
                file.sync_data()?;
            }
        }
        self.body.shrink_to(SMALL as usize);
        Ok(())
    }
}

/// A file that will take the place of the present one.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private::open(path, OpenOptions::new().write(true).create_new(true))?;
    file.write_all(MAGIC)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::super::aggregate::{self, Active, Added, Aggregator, Emitted, Limits};
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const LIMITS: Limits = Limits {
        outputs: 100,
        intervals: 10_000,
        late: 5,
    };
    const TEXT: &str = "s.<h> (10) = sum in.<h>\np.<h> (60) = p50 in.<h>\nm.<h> (7) = max in.<h>\n";

    fn rules(text: &str) -> Vec<Arc<Active>> {
        let loaded = crate::conf::load_text("f".as_ref(), text, aggregate::parse);
        loaded.unwrap().value
    }

    fn feed(
        aggregator: &Aggregator,
        rules: &[Arc<Active>],
        host: u8,
        at: i64,
        value: f64,
        now: i64,
    ) {
        for rule in rules {
            let name = format!("in.h{host}");
            let output = rule
                .rule
                .output(&name, &mut crate::rules::Faults::default());
            let output = aggregator.output(rule, &output.unwrap()).unwrap();
            assert_eq!(
                output.add(at, value, now, aggregator.limits()),
                Added::Taken
            );
        }
    }

    fn last(emitted: Vec<Emitted>, made: &mut BTreeMap<(String, i64), f64>) {
        for one in emitted {
            made.insert((one.output.name.to_string(), one.at), one.value);
        }
    }

    fn due(aggregator: &Aggregator, now: i64, made: &mut BTreeMap<(String, i64), f64>) {
        let mut emitted = Vec::new();
        aggregator.due(now, false, &mut emitted);
        last(emitted, made);
    }

    proptest! {
        /// Killed after each save that `kills` names, an aggregator makes what one makes that never ends.
        #[test]
        fn what_is_saved_goes_on_as_if_nothing_had_happened(
            points in prop::collection::vec((0..3_i64, -30..5_i64, -50..50_i64, 0..3_u8, 0..8_u8), 1..120),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("aggregates");
            let mut active = rules(TEXT);
            let (whole, mut cut) = (Aggregator::new(LIMITS), Aggregator::new(LIMITS));
            let whole_rules = rules(TEXT);
            let mut saving = Saving::new(path.clone(), false);
            let (mut expected, mut made) = (BTreeMap::new(), BTreeMap::new());
            let mut now = 1_000_000;
            for (pause, delay, value, host, kill) in points {
                now += pause;
                due(&whole, now, &mut expected);
                prop_assert!(saving.save(&cut));
                due(&cut, now, &mut made);
                if kill == 0 {
                    active = rules(TEXT);
                    cut = Aggregator::new(LIMITS);
                    saving = Saving::new(path.clone(), false);
                    let (emitted, gone) = cut.restore(saving.read().unwrap(), &active, now);
                    prop_assert!(emitted.is_empty() && gone.is_empty());
                }
                feed(&whole, &whole_rules, host, now + delay, value as f64, now);
                feed(&cut, &active, host, now + delay, value as f64, now);
            }
            for at in 0..70 {
                due(&whole, now + at, &mut expected);
                due(&cut, now + at, &mut made);
            }
            prop_assert_eq!(&made, &expected);
            // What was given back is known, too.
            due(&cut, now + 100_000, &mut made);
            prop_assert_eq!(cut.len().1, 0);
            for rule in &active {
                prop_assert_eq!(rule.open_intervals(), 0);
            }
        }
    }

    proptest! {
        /// Bytes that are wrong although their checksum is right make no aggregate that cannot be saved.
        #[test]
        fn a_damaged_body_is_read_as_far_as_it_can_be(
            points in prop::collection::vec((-30..5_i64, -50..50_i64, 0..3_u8), 1..20),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let active = rules(TEXT);
            let aggregator = Aggregator::new(LIMITS);
            for (delay, value, host) in points {
                feed(&aggregator, &active, host, 1_000_000 + delay, value as f64, 1_000_000);
            }
            let mut body = Vec::new();
            aggregator.save(true, &mut body);
            for (at, byte) in damage {
                let at = at.index(body.len());
                body[at] = byte;
            }
            let mut saved = Saved::default();
            saved.apply(&body);
            let next = Aggregator::new(LIMITS);
            next.restore(saved, &rules(TEXT), 1_000_000);
            let mut again = Vec::new();
            next.save(true, &mut again);
            prop_assert!(Saved::default().apply(&again));
            next.due(1_000_000, true, &mut Vec::new());
            next.len();
        }
    }

    #[test]
    fn outputs_of_rules_that_are_gone_are_emitted() {
        let dir = tempfile::tempdir().unwrap();
        let mut saving = Saving::new(dir.path().join("aggregates"), true);
        let old = rules(TEXT);
        let aggregator = Aggregator::new(LIMITS);
        feed(&aggregator, &old, 1, 105, 2.0, 105);
        assert!(saving.save(&aggregator));
        let next = Aggregator::new(LIMITS);
        let new = rules("s.<h> (10) = sum in.<h>\n");
        let (emitted, gone) = next.restore(saving.read().unwrap(), &new, 106);
        let mut left = BTreeMap::new();
        last(emitted, &mut left);
        let expected = [
            (("m.h1".to_owned(), 105), 2.0),
            (("p.h1".to_owned(), 60), 2.0),
        ];
        assert_eq!((left, gone.len()), (expected.into(), 2));
        assert_eq!((next.len(), new[0].outputs()), ((1, 1), 1));
    }

    #[test]
    fn damage_costs_the_frames_behind_it_and_the_file_stays_small() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("aggregates");
        let mut saving = Saving::new(path.clone(), false);
        let active = rules(TEXT);
        let aggregator = Aggregator::new(LIMITS);
        for n in 0..60_000 {
            feed(
                &aggregator,
                &active[..1],
                (n % 3) as u8,
                1_000 + n / 100,
                1.0,
                1_000 + n / 100,
            );
            assert!(saving.save(&aggregator));
            if n % 100 == 0 {
                due(&aggregator, 1_000 + n / 100, &mut BTreeMap::new());
            }
        }
        let len = fs::metadata(&path).unwrap().len();
        assert!((1..=SMALL + 1_000).contains(&len), "{len}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let bytes = fs::read(&path).unwrap();
        let mut torn = bytes.clone();
        let at = torn.len() / 2;
        torn[at] ^= 1;
        fs::write(&path, &torn).unwrap();
        assert!(saving.read().unwrap().outputs().count() == 3);
        fs::write(&path, b"something else").unwrap();
        assert_eq!(saving.read().unwrap().outputs().count(), 0);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(saving.read().unwrap().outputs().count(), 0);
        assert!(dir.path().join("aggregates.corrupt").is_dir());
    }

    #[test]
    fn a_write_that_fails_is_made_up_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing/aggregates");
        let mut saving = Saving::new(path.clone(), false);
        let active = rules(TEXT);
        let aggregator = Aggregator::new(LIMITS);
        feed(&aggregator, &active, 1, 105, 2.0, 105);
        assert!(!saving.save(&aggregator) && saving.failed);
        fs::create_dir(dir.path().join("missing")).unwrap();
        assert!(saving.save(&aggregator) && !saving.failed);
        let saved = saving.read().unwrap();
        assert_eq!(saved.outputs().count(), 3);
    }
}
