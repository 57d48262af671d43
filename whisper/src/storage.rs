//! What the mathematics need of a file: slots by the byte, read and written.
//!
//! Two things are storage: a file opened for one call ([`crate::file::File`], where each method is
//! a system call and is counted) and a mapped one (`crate::map`, where it is a copy).

use crate::archive::{Archive, SLOT_SIZE};
use crate::error::Result;
use crate::header::Header;
use crate::units::Timestamp;

/// The bytes of one whisper file whose header has been checked.
pub(crate) trait Storage {
    /// Appends `len` bytes from `offset` on to `into`.
    fn read(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> Result<()>;

    /// Writes `bytes` at `offset`. The range lies within the archives.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Whether `slot` is at `offset`. `false` where asking costs more than writing it again.
    fn holds(&self, offset: u64, slot: &[u8; SLOT_SIZE]) -> Result<bool>;

    /// The interval in slot 0 of the archive numbered `index`, 0 for an empty archive. May be
    /// remembered from an earlier read (see the second rule of [`crate::archive`]).
    fn base(&self, header: &Header, index: usize) -> Result<Timestamp>;

    /// Slot 0 of the archive numbered `index` was empty and holds `base` now.
    fn based(&mut self, index: usize, base: Timestamp);
}

/// Appends the bytes of `n` slots from `slot` on, going round the ring once at most.
pub(crate) fn read_slots<S: Storage>(
    storage: &S,
    archive: &Archive,
    slot: u32,
    n: u32,
    into: &mut Vec<u8>,
) -> Result<()> {
    let before_end = n.min(archive.points - slot);
    storage.read(archive.byte(slot), before_end as usize * SLOT_SIZE, into)?;
    if n > before_end {
        storage.read(archive.byte(0), (n - before_end) as usize * SLOT_SIZE, into)?;
    }
    Ok(())
}

/// Writes the bytes of whole slots from `slot` on, going round the ring once at most.
pub(crate) fn write_slots<S: Storage>(
    storage: &mut S,
    archive: &Archive,
    slot: u32,
    bytes: &[u8],
) -> Result<()> {
    let before_end = (archive.points - slot) as usize * SLOT_SIZE;
    if bytes.len() <= before_end {
        return storage.write(archive.byte(slot), bytes);
    }
    storage.write(archive.byte(slot), &bytes[..before_end])?;
    storage.write(archive.byte(0), &bytes[before_end..])
}
