//! How the allocator gives memory back to the system.
//!
//! By default glibc raises the size above which it maps a block separately, up to 32 MiB, each time
//! such a block is freed. Large columns and answers then come from its heaps and leave gaps behind
//! that keep the memory in the process. Fixed sizes avoid that. Twelve requests of 31 million values
//! and twelve of 20,000 names, eight at a time, left 144 MB of anonymous memory without and 17 MB
//! with them; jemalloc with its background thread left 20 MB after ten seconds (up to 772 MB before),
//! mimalloc 609 MB.
#![expect(unsafe_code)]

/// Blocks from this size on are mapped and unmapped by themselves.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM: libc::c_int = 256 << 10;
/// So much may stay free at the end of a heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_FREE: libc::c_int = 1 << 20;

/// Fixes the sizes from which freed memory goes back to the system. Call before the first thread
/// is started. Allocators other than glibc's are left as they are.
pub fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: mallopt takes two integers and changes thresholds of the allocator; an option or
        // a value that it does not know is refused with 0 and changes nothing.
        let done = unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) == 1
                && libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_FREE) == 1
        };
        if !done {
            tracing::debug!("the allocator's thresholds could not be fixed");
        }
    }
}
