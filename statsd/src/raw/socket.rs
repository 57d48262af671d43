//! Datagram sockets: many datagrams a call.
//!
//! 1. `recvmmsg` fills slots of one arena, each big enough for the largest datagram. Only the
//!    number of messages that the call returns is looked at.
//! 2. With `UDP_GRO` a slot may hold many equal datagrams of one sender; a control message says
//!    how long each is. A kernel without it is used without it.
//! 3. Reading never blocks; [`Reader::wait`] does, until there is something to read or a
//!    waker wakes it.
//! 4. The kernel's count of drops is read (`SO_MEMINFO`) at the end of each interval. The count
//!    that can come with datagrams (`SO_RXQ_OVFL`) would say nothing of drops that no datagram
//!    follows, and would cost something with each that does.
//! 5. The unsafe code is the system calls. The pointers that they get lead into the boxes and the
//!    arena of the [`Reader`], which stay where they are while it lives and never change size.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::ptr;

use socket2::SockRef;

use crate::token::MARGIN;

/// Messages a call asks for.
pub(crate) const BATCH: usize = 64;
/// The longest datagram, or run of coalesced ones.
const LONGEST: usize = 65_536;
const STRIDE: usize = LONGEST + MARGIN;
const UDP_GRO: libc::c_int = 104;
const SO_MEMINFO: libc::c_int = 55;
const SK_MEMINFO_DROPS: usize = 8;
const CONTROL: usize = 8;

/// A socket's other end of a wake-up.
#[derive(Debug)]
pub(crate) struct Waker(UnixStream);

impl Waker {
    /// A waker and what it wakes.
    pub(crate) fn pair() -> io::Result<(Self, UnixStream)> {
        let (from, to) = UnixStream::pair()?;
        from.set_nonblocking(true)?;
        to.set_nonblocking(true)?;
        Ok((Self(from), to))
    }

    pub(crate) fn wake(&self) {
        use io::Write as _;
        // Full means that it is about to wake up.
        let _ = (&self.0).write(&[1]);
    }
}

/// A message in the arena.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) bytes: Range<usize>,
    /// How long each datagram in it is, but the last one, which may be shorter.
    pub(crate) segment: usize,
    pub(crate) from: Option<IpAddr>,
}

impl Message {
    /// The datagrams in it.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = Range<usize>> {
        let end = self.bytes.end;
        let step = self.segment.max(1);
        self.bytes
            .clone()
            .step_by(step)
            .map(move |start| start..end.min(start + step))
    }
}

/// One datagram socket and room for what it receives.
pub(crate) struct Reader {
    socket: OwnedFd,
    wakes: UnixStream,
    is_udp: bool,
    buffer: usize,
    drops: u32,
    arena: Box<[u8]>,
    headers: Box<[libc::mmsghdr]>,
    controls: Box<[[u64; CONTROL]]>,
    names: Box<[libc::sockaddr_storage]>,
    _vectors: Box<[libc::iovec]>,
    received: usize,
}

// SAFETY: its pointers lead into its own boxes, which move with it, and no other value has them.
unsafe impl Send for Reader {}

/// What a socket was granted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Granted {
    /// Bytes of receive buffer, bookkeeping included.
    pub(crate) buffer: usize,
    pub(crate) gro: bool,
}

/// A datagram socket of either family.
pub(crate) enum Datagrams {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Reader {
    /// Prepares `socket`: its receive buffer is set to `buffer` bytes if that is not 0, and
    /// coalescing asked for if `gro`.
    pub(crate) fn new(
        socket: Datagrams,
        wakes: UnixStream,
        buffer: usize,
        gro: bool,
    ) -> io::Result<(Self, Granted)> {
        let is_udp = matches!(socket, Datagrams::Udp(_));
        let socket: OwnedFd = match socket {
            Datagrams::Udp(socket) => socket.into(),
            Datagrams::Unix(socket) => socket.into(),
        };
        let wants_buffer = buffer > 0;
        if wants_buffer {
            let wanted = libc::c_int::try_from(buffer).unwrap_or(libc::c_int::MAX);
            let fd = socket.as_raw_fd();
            // Only CAP_NET_ADMIN may go beyond `net.core.rmem_max`.
            if !set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, wanted) {
                SockRef::from(&socket).set_recv_buffer_size(buffer)?;
            }
        }
        // What was granted may be less than what was wanted.
        let buffer = SockRef::from(&socket).recv_buffer_size()?;
        let gro = gro && is_udp && set_option(socket.as_raw_fd(), libc::SOL_UDP, UDP_GRO, 1);

        let mut arena = vec![0; MARGIN + BATCH * STRIDE].into_boxed_slice();
        let mut controls = vec![[0; CONTROL]; BATCH].into_boxed_slice();
        // SAFETY: all of these are plain data for which zeros are a value.
        let (mut names, mut vectors, mut headers) = unsafe {
            (
                vec![mem::zeroed::<libc::sockaddr_storage>(); BATCH].into_boxed_slice(),
                vec![mem::zeroed::<libc::iovec>(); BATCH].into_boxed_slice(),
                vec![mem::zeroed::<libc::mmsghdr>(); BATCH].into_boxed_slice(),
            )
        };
        // Each header leads to its slot, its address and its control message for good.
        for at in 0..BATCH {
            let slot = &mut arena[slot(at)..slot(at) + LONGEST];
            vectors[at].iov_base = slot.as_mut_ptr().cast();
            vectors[at].iov_len = slot.len();
            let header = &mut headers[at].msg_hdr;
            header.msg_iov = &raw mut vectors[at];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut names[at]).cast();
            header.msg_control = controls[at].as_mut_ptr().cast();
        }
        let mut reader = Self {
            socket,
            wakes,
            is_udp,
            buffer,
            drops: 0,
            arena,
            headers,
            controls,
            names,
            _vectors: vectors,
            received: 0,
        };
        reader.drops = reader.dropped_in_all();
        Ok((reader, Granted { buffer, gro }))
    }

    /// Bytes of receive buffer, bookkeeping included.
    pub(crate) fn buffer(&self) -> usize {
        self.buffer
    }

    /// Receives up to [`BATCH`] messages, without waiting; returns how many.
    pub(crate) fn read(&mut self) -> io::Result<usize> {
        self.received = 0;
        for header in &mut self.headers {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_controllen = size_of::<[u64; CONTROL]>();
        }
        // SAFETY: there are BATCH headers, and what they point to (see `new`) is as long as they
        // say, owned by `self` and not looked at while the call writes to it.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        match usize::try_from(received) {
            Ok(received) => {
                self.received = received.min(BATCH);
                Ok(self.received)
            }
            Err(_) => {
                let why = io::Error::last_os_error();
                match why.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                    _ => Err(why),
                }
            }
        }
    }

    /// The bytes in which the messages of the last read lie, with a margin before and after each.
    pub(crate) fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// A message of the last read.
    #[inline]
    pub(crate) fn message(&self, at: usize) -> Message {
        let header = &self.headers[..self.received][at];
        let len = (header.msg_len as usize).min(LONGEST);
        let bytes = slot(at)..slot(at) + len;
        let segment = if self.is_udp && header.msg_hdr.msg_controllen > 0 {
            self.segment(at).unwrap_or(len)
        } else {
            len
        };
        Message {
            bytes,
            segment,
            from: if self.is_udp { self.sender(at) } else { None },
        }
    }

    /// The length of coalesced datagrams that came with a message.
    fn segment(&self, at: usize) -> Option<usize> {
        // A control message is its length, level and type, then its data: one word, half a word
        // each, and half a word for an int.
        let given = self.headers[at].msg_hdr.msg_controllen;
        let control = &self.controls[at];
        if given < mem::size_of::<libc::cmsghdr>() + mem::size_of::<libc::c_int>() {
            return None;
        }
        let halves = |word: u64| {
            let bytes = word.to_ne_bytes();
            let half = |at: usize| {
                i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            };
            (half(0), half(4))
        };
        let ((level, kind), (segment, _)) = (halves(control[1]), halves(control[2]));
        (level == libc::SOL_UDP && kind == UDP_GRO)
            .then(|| usize::try_from(segment).ok())
            .flatten()
            .filter(|segment| *segment > 0)
    }

    fn sender(&self, at: usize) -> Option<IpAddr> {
        let name = &self.names[at];
        match libc::c_int::from(name.ss_family) {
            libc::AF_INET => {
                // SAFETY: the kernel wrote an address of this family, which is smaller than the
                // storage it lies in and as strictly aligned.
                let name = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
                Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(
                    name.sin_addr.s_addr,
                ))))
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let name = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
                Some(IpAddr::V6(Ipv6Addr::from(name.sin6_addr.s6_addr)).to_canonical())
            }
            _ => None,
        }
    }

    /// Waits until there is something to read, or a waker wakes.
    pub(crate) fn wait(&self) {
        let mut wanted = [self.socket.as_raw_fd(), self.wakes.as_raw_fd()].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: `wanted` has two elements and lives through the call.
        unsafe {
            libc::poll(wanted.as_mut_ptr(), 2, -1);
        }
        if wanted[1].revents != 0 {
            use io::Read as _;
            let mut bytes = [0; 64];
            let _ = (&self.wakes).read(&mut bytes);
        }
    }

    /// Datagrams that the kernel has dropped since the last call.
    pub(crate) fn dropped(&mut self) -> u64 {
        let all = self.dropped_in_all();
        let new = all.wrapping_sub(mem::replace(&mut self.drops, all));
        u64::from(new)
    }

    fn dropped_in_all(&self) -> u32 {
        let mut info = [0_u32; 16];
        let mut len = size_of_val(&info) as libc::socklen_t;
        // SAFETY: `info` is as long as `len` says.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_MEMINFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result == 0 {
            info[SK_MEMINFO_DROPS]
        } else {
            0
        }
    }
}

fn slot(at: usize) -> usize {
    MARGIN + at * STRIDE
}

fn set_option(socket: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> bool {
    // SAFETY: the value lives through the call and is as long as stated.
    let result = unsafe {
        libc::setsockopt(
            socket,
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    result == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(gro: bool) -> (Reader, Waker, std::net::SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (waker, wakes) = Waker::pair().unwrap();
        let (reader, granted) = Reader::new(Datagrams::Udp(socket), wakes, 1 << 20, gro).unwrap();
        assert!(granted.buffer >= 4_096);
        (reader, waker, address)
    }

    #[test]
    fn datagrams_come_with_their_sender() {
        for gro in [false, true] {
            let (mut reader, _waker, address) = reader(gro);
            assert_eq!(reader.read().unwrap(), 0);
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut found = Vec::new();
            for text in ["a:1|c", "", "b:2|c\nc:3|c"] {
                sender.send_to(text.as_bytes(), address).unwrap();
            }
            while found.len() < 3 {
                reader.wait();
                for at in 0..reader.read().unwrap() {
                    let message = reader.message(at);
                    assert_eq!(message.from, Some("127.0.0.1".parse().unwrap()));
                    if message.bytes.is_empty() {
                        found.push(String::new());
                    }
                    for part in message.datagrams() {
                        let text = &reader.arena()[part];
                        found.push(String::from_utf8(text.to_vec()).unwrap());
                    }
                }
            }
            assert_eq!(found, ["a:1|c", "", "b:2|c\nc:3|c"]);
            assert_eq!(reader.dropped(), 0);
        }
    }

    #[test]
    fn a_waker_wakes() {
        let (reader, waker, _) = reader(false);
        waker.wake();
        reader.wait();
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let (mut reader, _waker, address) = reader(false);
        SockRef::from(&reader.socket)
            .set_recv_buffer_size(4_096)
            .unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..1_000 {
            sender.send_to(&[b'x'; 500], address).unwrap();
        }
        let mut got = 0;
        loop {
            let read = reader.read().unwrap();
            if read == 0 {
                break;
            }
            got += read as u64;
        }
        assert_eq!(reader.dropped(), 1_000 - got);
        assert_eq!(reader.dropped(), 0);
    }

    #[test]
    fn coalesced_datagrams_are_told_apart() {
        let message = Message {
            bytes: 100..125,
            segment: 10,
            from: None,
        };
        let parts: Vec<_> = message.datagrams().collect();
        assert_eq!(parts, [100..110, 110..120, 120..125]);
    }
}
