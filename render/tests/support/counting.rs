//! An allocator that counts what it hands out, for tests of memory and the fuzz targets. The counters are
//! of the whole process: one test at a time.

#![allow(unsafe_code, reason = "an allocator is unsafe to implement")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes that are allocated now, from which the peak begins again.
pub(crate) fn restart() -> usize {
    let live = LIVE.load(Ordering::Relaxed);
    PEAK.store(live, Ordering::Relaxed);
    live
}

/// The most bytes that were allocated since [`restart`], beyond the `before` that it returned.
pub(crate) fn most_beyond(before: usize) -> usize {
    PEAK.load(Ordering::Relaxed).saturating_sub(before)
}

fn grown(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: the system's allocator does the work; the counters do not allocate.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: asks of its caller what the system's allocator asks.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller promises that `layout` has a size, which is what the system's allocator asks.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: asks of its caller what the system's allocator asks.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    // SAFETY: asks of its caller what the system's allocator asks.
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller promises that `place` was allocated here with `layout`, so the system's allocator did it.
        unsafe { System.dealloc(place, layout) }
    }

    // SAFETY: asks of its caller what the system's allocator asks.
    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // For a short time there may be both.
        grown(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as for `dealloc`, and the caller promises that `size` is not 0 and does not overflow.
        unsafe { System.realloc(place, layout, size) }
    }
}
