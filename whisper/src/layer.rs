//! A storage of writes in memory, above another one that is only read.

use crate::archive::SLOT_SIZE;
use crate::error::Result;
use crate::header::Header;
use crate::storage::Storage;
use crate::units::Timestamp;

/// Writes kept in memory above a storage that is only read; zeroes elsewhere.
#[derive(Debug)]
pub(crate) struct Layer<'a, S> {
    under: Option<&'a S>,
    bases: Vec<Option<Timestamp>>,
    patches: Vec<(u64, Box<[u8]>)>,
}

impl<'a, S> Layer<'a, S> {
    pub(crate) fn new(under: Option<&'a S>, header: &Header) -> Self {
        Self {
            under,
            bases: vec![None; header.archives().len()],
            patches: Vec::new(),
        }
    }

    /// What was written, in this order: where, and the bytes.
    pub(crate) fn patches(&self) -> &[(u64, Box<[u8]>)] {
        &self.patches
    }
}

impl<S: Storage> Storage for Layer<'_, S> {
    fn read(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> Result<()> {
        let start = into.len();
        match self.under {
            Some(under) => under.read(offset, len, into)?,
            None => into.resize(start + len, 0),
        }
        let end = offset + len as u64;
        for (at, bytes) in &self.patches {
            let from = offset.max(*at);
            let to = end.min(*at + bytes.len() as u64);
            if from < to {
                let patch = &bytes[(from - at) as usize..(to - at) as usize];
                into[start + (from - offset) as usize..][..patch.len()].copy_from_slice(patch);
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.patches.push((offset, bytes.into()));
        Ok(())
    }

    fn holds(&self, _: u64, _: &[u8; SLOT_SIZE]) -> Result<bool> {
        Ok(false)
    }

    fn base(&self, header: &Header, index: usize) -> Result<Timestamp> {
        match (self.bases[index], self.under) {
            (Some(base), _) => Ok(base),
            (None, Some(under)) => under.base(header, index),
            (None, None) => Ok(Timestamp(0)),
        }
    }

    fn based(&mut self, index: usize, base: Timestamp) {
        self.bases[index] = Some(base);
    }
}

/// The storage below a file that is not there.
#[derive(Debug)]
pub(crate) enum Nothing {}

impl Storage for Nothing {
    fn read(&self, _: u64, _: usize, _: &mut Vec<u8>) -> Result<()> {
        match *self {}
    }

    fn write(&mut self, _: u64, _: &[u8]) -> Result<()> {
        match *self {}
    }

    fn holds(&self, _: u64, _: &[u8; SLOT_SIZE]) -> Result<bool> {
        match *self {}
    }

    fn base(&self, _: &Header, _: usize) -> Result<Timestamp> {
        match *self {}
    }

    fn based(&mut self, _: usize, _: Timestamp) {
        match *self {}
    }
}
