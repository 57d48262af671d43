//! A map as the storage of updates and fetches.

use std::cell::Cell;

use crate::archive::SLOT_SIZE;
use crate::error::Result;
use crate::header::Header;
use crate::storage::Storage;
use crate::units::Timestamp;

use super::memory::Mapping;
use super::shard::BASES;

/// A map as storage. Copies cannot fail; whether their bytes were there is the watcher's question.
pub(super) struct Mapped<'a> {
    pub(super) mapping: &'a Mapping,
    pub(super) bases: &'a [Cell<u32>; BASES],
}

impl Storage for Mapped<'_> {
    fn read(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> Result<()> {
        self.mapping.read(offset, len, into);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.mapping.write(offset, bytes);
        Ok(())
    }

    fn holds(&self, offset: u64, slot: &[u8; SLOT_SIZE]) -> Result<bool> {
        Ok(self.mapping.holds(offset, slot))
    }

    fn base(&self, header: &Header, index: usize) -> Result<Timestamp> {
        let known = self.bases.get(index).map_or(0, Cell::get);
        if known != 0 {
            return Ok(Timestamp(known));
        }
        let base = self
            .mapping
            .word(u64::from(header.archives()[index].offset));
        if let Some(cell) = self.bases.get(index) {
            cell.set(base);
        }
        Ok(Timestamp(base))
    }

    fn based(&mut self, index: usize, base: Timestamp) {
        if let Some(cell) = self.bases.get(index) {
            cell.set(base.0);
        }
    }
}
