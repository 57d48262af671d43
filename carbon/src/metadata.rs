//! The aggregation methods of files, looked up and changed while the server runs.

use whisper::{Aggregation, File, Lock};

use crate::datapoint::SeriesId;
use crate::error::{Error, Result};
use crate::store::{Access, Carbon};

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
    /// As [`Carbon::aggregation`]; or the store is read-only, or the file cannot be written.
    pub fn set_aggregation(&self, name: &str, method: Aggregation) -> Result<Aggregation> {
        if self.0.access != Access::Serve {
            return Err(Error::ReadOnly);
        }
        let (known, path) = self.file_of(name)?;
        // The persister is the only writer of files while the server runs.
        let _writer = self.0.persister.lock();
        let mut file = File::open_mut(&path, Lock::Exclusive)?;
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
