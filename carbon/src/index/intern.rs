//! Names to ids, and the holders of ids.

use std::time::Instant;

use super::state::Index;
use crate::datapoint::{NameError, SeriesId};
use crate::series::{self, Names};

impl Index {
    /// The id of the series called `raw`, a new one if the name is new, without limits. Valid while a pin
    /// exists that was taken before.
    ///
    /// # Errors
    /// No file can have the name.
    pub fn intern(&self, raw: &[u8]) -> std::result::Result<SeriesId, NameError> {
        if let Some(id) = self.names().get(raw) {
            return Ok(id);
        }
        self.add(&mut self.names.write(), raw)
    }

    /// As [`Index::intern`], but a new name may be over a limit.
    ///
    /// # Errors
    /// No file can have the name, or the name is new and over a limit.
    pub fn admit(&self, raw: &[u8]) -> std::result::Result<SeriesId, NameError> {
        if let Some(id) = self.names().get(raw) {
            return Ok(id);
        }
        let canonical = series::canonical(raw)?;
        {
            let names = self.names();
            let mut limits = self.limits();
            if !limits.is_off() && names.get(canonical.as_bytes()).is_none() {
                limits.admit(&canonical, names.len(), Instant::now())?;
            }
        }
        // Concurrent receivers may exceed a limit by one name each.
        self.add(&mut self.names.write(), raw)
    }

    pub(super) fn add(
        &self,
        names: &mut Names,
        raw: &[u8],
    ) -> std::result::Result<SeriesId, NameError> {
        let (id, new) = names.intern(raw)?;
        if new {
            self.limits().added(names.name(id));
        }
        Ok(id)
    }

    /// As [`Index::admit`], for a caller that keeps the id until [`Index::release`].
    ///
    /// # Errors
    /// As [`Index::admit`].
    pub fn hold(&self, raw: &[u8]) -> std::result::Result<SeriesId, NameError> {
        let _pin = self.pin();
        loop {
            let id = self.admit(raw)?;
            let names = self.names();
            // The name was unlinked in between and gets another id.
            if names.is_unlinked(id) {
                continue;
            }
            let mut held = self.held();
            let at = id.0 as usize;
            if held.len() <= at {
                held.resize(at + 1, 0);
            }
            held[at] = held[at].saturating_add(1);
            return Ok(id);
        }
    }

    /// Gives back ids from [`Index::hold`].
    pub fn release(&self, ids: &[SeriesId]) {
        let mut held = self.held();
        for id in ids {
            if let Some(count) = held.get_mut(id.0 as usize) {
                *count = count.saturating_sub(1);
            }
        }
    }
}
