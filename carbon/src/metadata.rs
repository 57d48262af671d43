//! The aggregation methods of files, looked up and changed while the server runs.

use std::path::Path;
use std::time::{Duration, Instant};

use whisper::{Aggregation, File, Lock};

use crate::datapoint::SeriesId;
use crate::error::{Error, Result};
use crate::store::{Access, Carbon};

/// How long a change waits for the lock of a file, and for the persister.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the lock of a file is tried.
const TRY_EVERY: Duration = Duration::from_millis(20);

impl Carbon {
    /// The aggregation method of the file of the series called `name`. Reads the disk.
    ///
    /// # Errors
    /// No series can have the name, it has no file, or the file cannot be read.
    pub fn aggregation(&self, name: &str) -> Result<Aggregation> {
        let (_, path) = self.file_of(name)?;
        Ok(whisper::Header::read(&path)?.aggregation)
    }

    /// Sets the aggregation method of the file of the series called `name`; the old one. Points that are
    /// in coarser archives already stay as they are. Writes the disk, after what the persister is
    /// writing.
    ///
    /// # Errors
    /// As [`Carbon::aggregation`]; or the store is read-only, or the file cannot be written, or another
    /// program or the persister is busy for a few seconds.
    pub fn set_aggregation(&self, name: &str, method: Aggregation) -> Result<Aggregation> {
        if self.0.access != Access::Serve {
            return Err(Error::ReadOnly);
        }
        let (known, path) = self.file_of(name)?;
        // First the file: the persister waits for no other program.
        let mut file = open_locked(&path, Instant::now() + PATIENCE)?;
        // The persister is the only writer of files while the server runs.
        let Some(_writer) = self.0.persister.try_lock_for(PATIENCE) else {
            let busy = std::io::ErrorKind::TimedOut.into();
            return Err(Error::io(&path, "waiting for the persister", busy));
        };
        let (old, _) = file.set(Some(method), None)?;
        if let Some(series) = known {
            self.0.maps.forget(series.0);
        }
        Ok(old)
    }

    /// The id of `name`, if it has one, and the path of its file.
    fn file_of(&self, name: &str) -> Result<(Option<SeriesId>, std::path::PathBuf)> {
        let canonical = crate::series::canonical(name.as_bytes());
        let canonical = canonical.map_err(|reason| Error::Name {
            name: name.chars().take(200).collect(),
            reason,
        })?;
        let index = &self.0.index;
        let _pin = index.pin();
        let known = index.names().get(canonical.as_bytes());
        Ok((known, index.path_of(known, &canonical)))
    }
}

/// Opens the file at `path` with its lock, for which it waits until `deadline`.
fn open_locked(path: &Path, deadline: Instant) -> whisper::Result<File> {
    loop {
        match File::open_mut(path, Lock::Try) {
            Err(error) if error.is_busy() && Instant::now() < deadline => {
                std::thread::sleep(TRY_EVERY);
            }
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapoint::{Datapoint, PointTime, Sink};
    use crate::options::{JournalOptions, Options, Span};
    use crate::store::Setup;
    use std::sync::mpsc::channel;
    use whisper::Timestamp;

    #[test]
    fn a_file_that_a_neighbour_has_locked_holds_nothing_else_up() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            flock: true,
            infer_step: false,
            persist_within: Span::seconds(1),
            ..Options::default()
        };
        let setup = Setup::new(options, JournalOptions::default(), Span::seconds(10));
        let carbon = Carbon::open(setup, dir.path()).unwrap();
        let [a, b] = ["a.x", "b.x"].map(|name| carbon.intern(name.as_bytes()).unwrap());
        let at = carbon.now().0;
        let point = move |series, ago| Datapoint {
            series,
            at: PointTime::new(Timestamp(at - ago)).unwrap(),
            value: 1.0,
        };
        carbon.submit(&[point(a, 30)]);
        carbon.persist();
        let path = dir.path().join("whisper/a/x.wsp");
        let neighbour = File::open_mut(&path, Lock::Exclusive).unwrap();
        let (done, finished) = channel();
        let busy = carbon.clone();
        std::thread::spawn(move || {
            busy.submit(&[point(a, 20), point(b, 20)]);
            busy.persist();
            let set = busy.set_aggregation("a.x", Aggregation::Sum);
            done.send(set.is_err()).unwrap();
        });
        let refused = finished.recv_timeout(Duration::from_secs(60));
        assert_eq!(refused, Ok(true));
        assert!(dir.path().join("whisper/b/x.wsp").exists());
        assert_eq!(carbon.cache().count(a), 1, "its points wait");
        drop(neighbour);
        carbon.set_aggregation("a.x", Aggregation::Sum).unwrap();
        carbon.drain(|_| {}).unwrap();
        assert!(carbon.cache().is_empty());
    }
}
