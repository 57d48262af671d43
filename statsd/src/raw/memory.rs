//! Memory for tables, and hints to the processor and the kernel about it.
//!
//! A table of a million names is a random walk over 80 MB: with pages of 4 KiB each step also
//! misses the processor's list of pages. Pages of 2 MiB are asked for where memory will be used up.

use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Of a large page.
pub(crate) const LARGE: usize = 2 << 20;

/// Asks for the cache line of `what`.
#[inline(always)]
pub(crate) fn prefetch<T>(what: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing but the caches, and a reference points to memory.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(what).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = what;
}

/// Makes room for `more` items, as pushing them would. Whether there is memory for that: what grows with the names
/// that senders make up may not end the process.
pub(crate) fn make_room<T>(list: &mut Vec<T>, more: usize) -> bool {
    #[cfg(test)]
    if tests::DENIED.get() {
        return list.capacity() - list.len() >= more;
    }
    list.try_reserve(more).is_ok()
}

/// Types for which zero bytes are a value, and which need no drop.
///
/// # Safety
///
/// Only for types of which that is true.
pub(crate) unsafe trait Zero {}

// SAFETY: all bits are a number.
unsafe impl Zero for u64 {}

/// A slice of zeros straight from the kernel, of which only what is used takes memory.
#[derive(Debug)]
pub(crate) struct Zeros<T> {
    map: MmapMut,
    len: usize,
    values: PhantomData<T>,
}

impl<T: Zero> Zeros<T> {
    /// `len` zeros; in large pages, which count whole, if `large`.
    ///
    /// # Errors
    /// The kernel has no memory, or the process may not have more of it.
    pub(crate) fn new(len: usize, large: bool) -> io::Result<Self> {
        let bytes = len * size_of::<T>();
        #[cfg(test)]
        if tests::DENIED.get() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        assert!(bytes > 0 && align_of::<T>() <= 4_096, "no slice of pages");
        let map = MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        if large {
            // A kernel that cannot do that does without.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = large;
        Ok(Self {
            map,
            len,
            values: PhantomData,
        })
    }
}

impl<T> Deref for Zeros<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping is that long, page-aligned, and zeros are values of `T` (see `Zero`).
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.len) }
    }
}

impl<T> DerefMut for Zeros<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        /// Whether this thread gets no more memory.
        pub(crate) static DENIED: Cell<bool> = const { Cell::new(false) };
    }

    #[test]
    fn zeros_are_memory() {
        for large in [false, true] {
            let mut zeros: Zeros<u64> = Zeros::new(LARGE / 8, large).unwrap();
            assert!(zeros.iter().all(|zero| *zero == 0));
            for (at, zero) in zeros.iter_mut().enumerate() {
                *zero = at as u64;
            }
            assert_eq!(zeros[LARGE / 8 - 1], LARGE as u64 / 8 - 1);
        }
    }

    /// More than any machine has addresses for is an error, not a panic.
    #[test]
    fn too_many_zeros_are_an_error() {
        assert!(Zeros::<u64>::new(1 << 57, false).is_err());
    }
}
