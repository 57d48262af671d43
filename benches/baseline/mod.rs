//! What benches ask of the kernel directly: a baseline receiver, a cheap sender, and cores of their own.

#![allow(unsafe_code)]

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;
const MESSAGES: usize = 64;
const STRIDE: usize = 65_536;

fn set(socket: &UdpSocket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> bool {
    // SAFETY: the value lives through the call and is as long as stated.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    result == 0
}

/// Lets each `send` carry many datagrams of `segment` bytes.
pub(crate) fn segment(socket: &UdpSocket, segment: usize) {
    assert!(
        set(socket, libc::SOL_UDP, UDP_SEGMENT, segment as libc::c_int),
        "UDP_SEGMENT: {}",
        io::Error::last_os_error()
    );
}

/// Keeps the calling thread, and those that it starts, on one core, if there are several.
pub(crate) fn stay_on(core: usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: a set of cores is plain data; the calls read it or write to it, no further.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if cores > 1 {
            libc::CPU_SET(core, &mut set);
        } else {
            return;
        }
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

/// The least that a server can do: `recvmmsg` of 64 messages, coalesced or not, into memory of its
/// own, and look at none of it.
pub(crate) struct Baseline {
    socket: UdpSocket,
    _store: Vec<u8>,
    _vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: its pointers lead into its own vectors, whose contents stay where they are.
unsafe impl Send for Baseline {}

impl Baseline {
    pub(crate) fn new(socket: UdpSocket, coalesce: bool, buffer: usize) -> Self {
        if !set(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            buffer as libc::c_int,
        ) {
            set(
                &socket,
                libc::SOL_SOCKET,
                libc::SO_RCVBUF,
                buffer as libc::c_int,
            );
        }
        if coalesce {
            set(&socket, libc::SOL_UDP, UDP_GRO, 1);
        }
        let mut store = vec![0_u8; MESSAGES * STRIDE];
        // SAFETY: both are plain data for which zeros are a value.
        let (mut vectors, mut headers) = unsafe {
            (
                vec![std::mem::zeroed::<libc::iovec>(); MESSAGES],
                vec![std::mem::zeroed::<libc::mmsghdr>(); MESSAGES],
            )
        };
        for (at, slot) in store.chunks_mut(STRIDE).enumerate() {
            vectors[at].iov_base = slot.as_mut_ptr().cast();
            vectors[at].iov_len = slot.len();
            headers[at].msg_hdr.msg_iov = &raw mut vectors[at];
            headers[at].msg_hdr.msg_iovlen = 1;
        }
        Self {
            socket,
            _store: store,
            _vectors: vectors,
            headers,
        }
    }

    /// Waits for messages (for as long as the socket's time-out says); returns how many bytes they had.
    pub(crate) fn read(&mut self) -> usize {
        // SAFETY: the headers point into the vectors above, which are as long as they say.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                MESSAGES as libc::c_uint,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).unwrap_or(0);
        self.headers[..received]
            .iter()
            .map(|header| header.msg_len as usize)
            .sum()
    }
}
