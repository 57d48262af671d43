//! The verdicts on events, kept beside them.

use rusqlite::Connection;

use super::super::schema;
use super::writer::Job;
use super::{Error, Store, failed};
use crate::impact::{Correction, Report};

/// From the verdict so far to the verdict from now on.
pub(super) type Judge = dyn FnOnce(Option<Report>) -> Result<Report, Error> + Send;

impl Store {
    /// Keeps `report` as the verdict on the event called `id`. A correction by a person stays.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn set_impact(&self, id: i64, report: Report) -> Result<Report, Error> {
        self.change_impact(id, move |old| {
            let correction = old.and_then(|old| old.correction);
            Ok(Report {
                correction: report.correction.or(correction),
                ..report
            })
        })
    }

    /// Keeps a person's opinion of the verdict on the event called `id`, or removes it.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Refused`] if there is no verdict yet.
    pub fn correct(&self, id: i64, correction: Option<Correction>) -> Result<Report, Error> {
        self.change_impact(id, move |old| match old {
            Some(report) => Ok(Report {
                correction,
                ..report
            }),
            None => Err(Error::Refused(format!(
                "there is no verdict on event {id} yet"
            ))),
        })
    }

    fn change_impact(
        &self,
        id: i64,
        change: impl FnOnce(Option<Report>) -> Result<Report, Error> + Send + 'static,
    ) -> Result<Report, Error> {
        self.ask(|answer| Job::Impact(id, Box::new(change), answer))
    }

    /// Lets the writing thread wait until what is returned is dropped.
    #[cfg(test)]
    pub(crate) fn hold(self: &std::sync::Arc<Self>) -> std::sync::mpsc::Sender<()> {
        use std::sync::mpsc::channel;

        let event = self.insert(crate::events::Draft::new("held", &[]));
        let id = event.map_or(0, |saved| saved.event.id);
        let (release, released) = channel();
        let (hold, held) = channel();
        let store = std::sync::Arc::clone(self);
        std::thread::spawn(move || {
            store.change_impact(id, move |_| {
                let _ = hold.send(());
                let _ = released.recv();
                Err(Error::Closed)
            })
        });
        let _ = held.recv();
        release
    }

    /// The verdict on the event called `id`, with all series that changed.
    ///
    /// # Errors
    /// [`Error::Failed`] only.
    pub fn impact(&self, id: i64) -> Result<Option<Report>, Error> {
        self.read("reading a verdict", |db| schema::impact(db, id))
    }
}

/// Replaces the verdict on the event called `id`.
pub(super) fn judge(db: &Connection, id: i64, change: Box<Judge>) -> Result<Report, Error> {
    let refuse = failed("storing a verdict");
    if schema::find(db, id).map_err(&refuse)?.is_none() {
        return Err(Error::NotFound(id));
    }
    let report = change(schema::impact(db, id).map_err(&refuse)?)?;
    schema::write_impact(db, id, &report).map_err(&refuse)?;
    Ok(report)
}
