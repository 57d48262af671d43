//! How the kernel is to share out the processor.

/// Steps back behind the other threads wherever they compete for one core.
///
/// A receiving thread that waits for milliseconds loses datagrams; who sums up can wait. Where
/// nobody competes nothing changes.
pub(crate) fn step_back() {
    const STEPS: libc::c_int = 10;
    // SAFETY: it changes the calling thread's priority and touches no memory. Lowering one's own
    // is always allowed; should it fail nothing is lost.
    unsafe {
        libc::nice(STEPS);
    }
}
