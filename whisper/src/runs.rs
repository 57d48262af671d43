//! Writing points of one archive: a run of neighbouring slots at a time.

use crate::archive::{Archive, SLOT_SIZE};
use crate::error::Result;
use crate::header::Header;
use crate::point::Point;
use crate::storage::{Storage, write_slots};
use crate::units::Timestamp;

/// Writes points whose timestamps are multiples of the step, ascending and all different.
pub(crate) fn write_runs<S: Storage>(
    storage: &mut S,
    header: &Header,
    index: usize,
    aligned: &[Point],
    bytes: &mut Vec<u8>,
) -> Result<()> {
    let Some(oldest) = aligned.first() else {
        return Ok(());
    };
    let archive = &header.archives()[index];
    let mut base = storage.base(header, index)?;
    if base.0 == 0 {
        base = oldest.at;
        storage.based(index, base);
    }
    let step = u64::from(archive.step.seconds());
    for run in aligned.chunk_by(|a, b| u64::from(a.at.0) + step == u64::from(b.at.0)) {
        write_run(storage, archive, base, run, bytes)?;
    }
    Ok(())
}

fn write_run<S: Storage>(
    storage: &mut S,
    archive: &Archive,
    base: Timestamp,
    run: &[Point],
    bytes: &mut Vec<u8>,
) -> Result<()> {
    // A run longer than the ring, which only points of the future can make, keeps its newest.
    let run = &run[run.len().saturating_sub(archive.points as usize)..];
    let slot = archive.slot(base, i64::from(run[0].at.0));
    if let [point] = run {
        return storage.write(archive.byte(slot), &point.to_slot());
    }
    bytes.clear();
    bytes.reserve(run.len() * SLOT_SIZE);
    for point in run {
        bytes.extend_from_slice(&point.to_slot());
    }
    write_slots(storage, archive, slot, bytes)
}
