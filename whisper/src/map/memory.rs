//! The mapped bytes of one file, and what happens when they vanish.
//!
//! This and nothing else in the crate is `unsafe`. Three things make it so, and each has its rule (the fourth,
//! [`prefetch`], needs none):
//!
//! 1. **Others may write the same bytes.** They are only ever touched as relaxed atomic words of
//!    32 bits (every field of a whisper file starts at a multiple of four), never through `&[u8]`.
//! 2. **Others may cut the file.** Touching a page that is gone raises SIGBUS, which would end the
//!    process. While a thread works on a map, [`Mapping::watched`] says so in a thread-local, and
//!    the handler then puts an empty page of memory in the place of the lost one and notes the
//!    fault; the work finishes on zeroes, and the caller discards map and result.
//!    A disk that fails, or is full under a file with holes, looks the same and is treated so.
//! 3. **Not every SIGBUS is ours.** One at an address that no thread of ours works on goes to
//!    whatever handled it before.
#![expect(unsafe_code)]

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::archive::SLOT_SIZE;

/// A shared, writable map of the first bytes of a file.
#[derive(Debug)]
pub(super) struct Mapping {
    map: MmapRaw,
}

impl Mapping {
    /// Maps the first `len` bytes, which the caller has found to be there and on disk.
    pub(super) fn new(file: &File, len: u64) -> io::Result<Self> {
        handle_faults()?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let map = MmapOptions::new().len(len).map_raw(file)?;
        // Points lie far apart: reading ahead of each would read, or make of a hole, pages that
        // nobody asked for (with 8 MiB of read-ahead, milliseconds per new file). A kernel that
        // does not take the advice is only slower.
        let _ = map.advise(Advice::Random);
        Ok(Self { map })
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// The map as words, in the byte order of the file.
    fn words(&self) -> &[AtomicU32] {
        let words = self.map.as_mut_ptr().cast::<AtomicU32>();
        // SAFETY: the map starts at a page, so words are aligned; it is as long as `MmapRaw` says
        // and lives as long as `self`, lost pages being replaced by the handler below; every word
        // is valid whatever its bits; and nobody in this process touches it but as atomics.
        unsafe { std::slice::from_raw_parts(words, self.map.len() / 4) }
    }

    /// The four bytes at `offset`, a multiple of four.
    pub(super) fn word(&self, offset: u64) -> u32 {
        u32::from_be(self.words()[offset as usize / 4].load(Ordering::Relaxed))
    }

    /// Replaces the four bytes at `offset`.
    #[cfg(test)]
    pub(super) fn set_word(&self, offset: u64, word: u32) {
        self.words()[offset as usize / 4].store(word.to_be(), Ordering::Relaxed);
    }

    /// Appends `len` bytes from `offset` on, both multiples of four.
    pub(super) fn read(&self, offset: u64, len: usize, into: &mut Vec<u8>) {
        let first = offset as usize / 4;
        let at = into.len();
        into.resize(at + len, 0);
        let words = &self.words()[first..first + len / 4];
        for (bytes, word) in into[at..].as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
    }

    /// Writes whole slots at `offset`. In each slot the value comes before the timestamp, so that
    /// a reader never finds a new timestamp on a value that is half there.
    pub(super) fn write(&self, offset: u64, slots: &[u8]) {
        let first = offset as usize / 4;
        let words = &self.words()[first..first + slots.len() / 4];
        let (slots, _) = slots.as_chunks::<SLOT_SIZE>();
        for (slot, words) in slots.iter().zip(words.as_chunks::<{ SLOT_SIZE / 4 }>().0) {
            let [t0, t1, t2, t3, a0, a1, a2, a3, b0, b1, b2, b3] = *slot;
            words[1].store(u32::from_ne_bytes([a0, a1, a2, a3]), Ordering::Relaxed);
            words[2].store(u32::from_ne_bytes([b0, b1, b2, b3]), Ordering::Relaxed);
            words[0].store(u32::from_ne_bytes([t0, t1, t2, t3]), Ordering::Release);
        }
    }

    /// Whether these bytes are at `offset`, a multiple of four.
    pub(super) fn holds(&self, offset: u64, slot: &[u8; SLOT_SIZE]) -> bool {
        let words = &self.words()[offset as usize / 4..];
        let bytes = slot.as_chunks::<4>().0.iter();
        bytes
            .zip(words)
            .all(|(bytes, word)| word.load(Ordering::Relaxed).to_ne_bytes() == *bytes)
    }

    /// Tells the processor that `len` bytes from `offset` on will be written.
    pub(super) fn prefetch(&self, offset: u64, len: usize) {
        prefetch(self.map.as_mut_ptr().wrapping_add(offset as usize), len);
    }

    /// Does `work` on the map; `None` if pages of it were lost meanwhile, so that whatever came
    /// out of it means nothing.
    pub(super) fn watched<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let start = self.map.as_mut_ptr() as usize;
        WATCHED.set(Watched {
            start,
            end: start + self.map.len(),
            faulted: false,
        });
        let _unwatch = Unwatch;
        let done = work();
        (!WATCHED.get().faulted).then_some(done)
    }
}

/// Tells the processor that the `len` bytes at `start` will be written, so that it has them in its caches by then.
#[cfg(target_arch = "x86_64")]
pub(super) fn prefetch(start: *const u8, len: usize) {
    use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
    /// Bytes that it loads at once.
    const LINE: usize = 64;
    let before = start.addr() % LINE;
    for offset in (0..before + len).step_by(LINE) {
        let line = start.wrapping_sub(before).wrapping_add(offset);
        // SAFETY: whatever the address, nothing is read that the program could see, and nothing faults.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(line.cast()) };
    }
}

/// Does nothing here.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn prefetch(_start: *const u8, _len: usize) {}

/// The map that a thread works on now.
#[derive(Clone, Copy)]
struct Watched {
    start: usize,
    end: usize,
    faulted: bool,
}

const NOTHING: Watched = Watched {
    start: 0,
    end: 0,
    faulted: false,
};

thread_local! {
    // Constant and without a destructor: the handler can use it without allocating.
    static WATCHED: Cell<Watched> = const { Cell::new(NOTHING) };
}

struct Unwatch;

impl Drop for Unwatch {
    fn drop(&mut self) {
        WATCHED.set(NOTHING);
    }
}

static PAGE_SIZE: AtomicUsize = AtomicUsize::new(0);
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handler, once per process.
fn handle_faults() -> io::Result<()> {
    static INSTALLED: OnceLock<Option<i32>> = OnceLock::new();
    let refused = INSTALLED.get_or_init(|| {
        PAGE_SIZE.store(rustix::param::page_size(), Ordering::Relaxed);
        install()
            .err()
            .map(|e| e.raw_os_error().unwrap_or(libc::EINVAL))
    });
    refused.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
}

fn install() -> io::Result<()> {
    let mut previous = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: asks only for the present action, which is written to `previous`.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded and has filled it in.
    PREVIOUS.get_or_init(|| unsafe { previous.assume_init() });

    // SAFETY: a `sigaction` of zeroes is valid: no flags, an empty mask, the default action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `action` is filled in, and `on_sigbus` does only what a signal handler may.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

extern "C" fn on_sigbus(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid `siginfo_t` to a handler installed with SA_SIGINFO, and
    // both fields are filled in for SIGBUS.
    let (address, code) = unsafe { ((*info).si_addr() as usize, (*info).si_code) };
    let watched = WATCHED.get();
    let ours = code > 0 && (watched.start..watched.end).contains(&address);
    if ours && replace_page(address) {
        WATCHED.set(Watched {
            faulted: true,
            ..watched
        });
        return;
    }
    // Not ours, or beyond help: put back what was there before. A fault happens again as soon as
    // this returns and meets it; a signal that was sent by a process must be sent again.
    if let Some(previous) = PREVIOUS.get() {
        // SAFETY: `previous` is what the kernel once gave us; both calls are allowed in handlers.
        unsafe {
            libc::sigaction(signal, previous, ptr::null_mut());
            if code <= 0 {
                libc::raise(signal);
            }
        }
    }
}

/// Puts an empty page where `address` is. Only calls what a signal handler may call.
fn replace_page(address: usize) -> bool {
    let size = PAGE_SIZE.load(Ordering::Relaxed);
    let page = (address & !(size - 1)) as *mut libc::c_void;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // Unmapping the whole range later takes the replacement along. `errno` belongs to the code that was
    // interrupted and is put back.
    // SAFETY: the page lies within a map that this thread holds and no other uses, since a map is
    // worked on under the lock of its shard; replacing it changes nothing but its content.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        let mapped = libc::mmap(page, size, protection, flags, -1, 0);
        *errno = saved;
        mapped != libc::MAP_FAILED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(len: u64) -> (File, Mapping) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        let mapping = Mapping::new(&file, len).unwrap();
        (file, mapping)
    }

    #[test]
    fn words_and_slots_read_back() {
        let (_file, mapping) = mapped(64);
        mapping.write(4, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(mapping.word(4), 0x0102_0304);
        let mut bytes = vec![0xff];
        mapping.read(0, 20, &mut bytes);
        assert_eq!(
            bytes[1..],
            [
                0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 0
            ]
        );
    }

    #[test]
    fn a_lost_page_spoils_the_work_and_not_the_process() {
        let page = rustix::param::page_size() as u64;
        let (file, mapping) = mapped(3 * page);
        mapping.set_word(0, 7);
        file.set_len(page).unwrap();
        assert_eq!(mapping.watched(|| mapping.word(0)), Some(7));
        assert_eq!(mapping.watched(|| mapping.word(2 * page)), None);
        let write = || mapping.write(page, &[1; SLOT_SIZE]);
        assert_eq!(mapping.watched(write), None);
        // The lost pages are memory now: nothing faults any more, and nothing is on disk.
        assert_eq!(mapping.watched(|| mapping.word(2 * page)), Some(0));
        assert_eq!(file.metadata().unwrap().len(), page);
    }

    #[test]
    fn faults_on_many_threads_are_told_apart() {
        let page = rustix::param::page_size() as u64;
        std::thread::scope(|scope| {
            for n in 0..8 {
                scope.spawn(move || {
                    let (file, mapping) = mapped(2 * page);
                    if n % 2 == 0 {
                        file.set_len(page).unwrap();
                    }
                    let faulted = mapping.watched(|| mapping.word(page)).is_none();
                    assert_eq!(faulted, n % 2 == 0);
                });
            }
        });
    }
}
