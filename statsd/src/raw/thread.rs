//! Priorities of threads.

/// Lowers the priority of the calling thread: others come first where they compete for one core.
///
/// A receiving thread that waits for milliseconds loses datagrams; the aggregator can wait. Where
/// no threads compete nothing changes.
pub(crate) fn lower_priority() {
    const STEPS: libc::c_int = 10;
    // SAFETY: it changes the calling thread's priority and touches no memory. Lowering one's own
    // is always allowed; should it fail nothing is lost.
    unsafe {
        libc::nice(STEPS);
    }
}
