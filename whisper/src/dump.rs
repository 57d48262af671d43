//! Everything a file holds, slot by slot, and whether it is where it should be.

use std::path::Path;

use crate::archive::Archive;
use crate::error::Result;
use crate::file::File;
use crate::header::Header;
use crate::point::Point;
use crate::units::Timestamp;

/// A file's header and all its slots, in the order of the file, empty ones included.
#[derive(Clone, Debug, PartialEq)]
pub struct Dump {
    /// The header.
    pub header: Header,
    /// The slots of each archive.
    pub archives: Vec<Vec<Point>>,
}

impl Dump {
    /// Reads a whole file.
    ///
    /// # Errors
    /// As [`File::open`], and [`crate::Error::Truncated`].
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        Self::of(&file)
    }

    pub(crate) fn of(file: &File) -> Result<Self> {
        let header = file.header().clone();
        let slots = (0..header.archives().len()).map(|index| file.slots(index));
        let archives = slots.collect::<Result<_>>()?;
        Ok(Self { header, archives })
    }

    /// How many slots hold a timestamp that no writer would have put there: one that is no
    /// multiple of the step, or belongs to another slot. Readers take them for absent.
    pub fn misplaced(&self) -> usize {
        let archives = self.header.archives().iter().zip(&self.archives);
        archives
            .map(|(archive, slots)| misplaced(archive, slots))
            .sum()
    }
}

fn misplaced(archive: &Archive, slots: &[Point]) -> usize {
    let base = slots.first().map_or(Timestamp(0), |point| point.at);
    let wrong = |(slot, point): &(usize, &Point)| {
        point.at.0 != 0
            && (archive.step.floor(point.at) != point.at
                || archive.slot(base, i64::from(point.at.0)) as usize != *slot)
    };
    slots.iter().enumerate().filter(wrong).count()
}
