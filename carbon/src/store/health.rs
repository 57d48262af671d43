//! Checks whether points that are taken now can be stored.

use super::carbon::Carbon;
use super::inner::Inner;
use super::setup::Access;
use crate::journal::Journal;
use crate::private;

impl Carbon {
    /// Whether points that are taken now can be stored: the journal can be written, and the directories are
    /// those that were opened. Cheap enough for a readiness check.
    ///
    /// # Errors
    /// A sentence for each problem.
    pub fn health(&self) -> std::result::Result<(), String> {
        self.0.look_around();
        let trouble = self.0.trouble.lock();
        if trouble.is_empty() {
            return Ok(());
        }
        let sentences: Vec<&str> = trouble.values().map(String::as_str).collect();
        Err(sentences.join("; "))
    }
}

impl Inner {
    /// Records the state of the part `what` and logs each change.
    pub(crate) fn note(&self, what: &'static str, state: std::result::Result<(), String>) {
        let mut trouble = self.trouble.lock();
        match state {
            Ok(()) => {
                if trouble.remove(what).is_some() {
                    tracing::info!("{what}: well again");
                }
            }
            Err(why) => {
                if trouble.get(what) != Some(&why) {
                    tracing::error!("{what}: {why}");
                    trouble.insert(what, why);
                }
            }
        }
    }

    /// Checks that directory, lock and journal on the disk are those that were opened.
    pub(crate) fn look_around(&self) {
        if self.access != Access::Serve {
            return;
        }
        self.note("data directory", self.same_root());
        if let Some(guard) = &self.guard {
            self.note("lock", guard());
        }
        let trouble = self.journal.as_ref().and_then(Journal::trouble);
        let state = trouble.map_or(Ok(()), |why| {
            Err(format!("what is taken cannot be written down: {why}"))
        });
        self.note("journal", state);
    }

    /// Checks that the directory of the files is the one that was opened.
    pub(crate) fn same_root(&self) -> std::result::Result<(), String> {
        if self
            .opened
            .as_ref()
            .is_some_and(|opened| private::is_at(opened, &self.root))
        {
            return Ok(());
        }
        let root = self.root.display();
        Err(format!(
            "{root} was removed or replaced while it was in use"
        ))
    }
}
