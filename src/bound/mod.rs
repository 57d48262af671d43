//! Every socket, bound before the data directory is opened.
//!
//! 1. Binding is all or nothing: the first address that is refused ends the start, with an error
//!    that names the key, the address and, if `/proc` shows it, the process that holds the address.
//! 2. Port 0 asks for any free port; [`Binder::addresses`] has the addresses actually bound.
//! 3. Connections and datagrams that arrive before the server is ready wait in the kernel, in
//!    receive buffers that are as big from the beginning as they are later.
//! 4. A Unix socket's file without a listener is left over from a crash and is replaced; a file
//!    with a listener is refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::receivers::Receivers;
use anyhow::{Context, anyhow};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use settings::Problem;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub mod descriptors;
mod holder;

/// What `sun_path` holds, without the zero at its end.
const LONGEST_UNIX_PATH: usize = 107;

/// The receive buffer of `carbon.line_udp`.
const CARBON_BUFFER: usize = 4 << 20;

/// Every socket of the configuration.
pub struct Bound {
    /// `statsd.*`.
    pub statsd: statsd::Sockets,
    /// `carbon.*`.
    pub carbon: Receivers,
    /// `render.http`.
    pub http: Vec<TcpListener>,
    /// The bound addresses by key; removes the files of Unix sockets when dropped.
    pub binder: Binder,
}

impl Bound {
    /// Binds all that these options name.
    ///
    /// # Errors
    /// The first address that is refused.
    pub fn open(
        statsd: &statsd::Options,
        carbon: &carbon::options::Options,
        render: &render::options::Options,
    ) -> anyhow::Result<Self> {
        let mut binder = Binder::default();
        let statsd_buffer = statsd.receive_buffer.0.min(1 << 30) as usize;
        Ok(Self {
            statsd: statsd::Sockets {
                udp: binder.udp("statsd.udp", &statsd.udp, statsd_buffer)?,
                tcp: binder.tcp("statsd.tcp", &statsd.tcp)?,
                unix: binder.unix("statsd.unix", &statsd.unix)?,
                unix_stream: binder.unix_stream("statsd.unix_stream", &statsd.unix_stream)?,
                admin: binder.tcp("statsd.admin", &statsd.admin)?,
            },
            carbon: Receivers {
                line_tcp: binder.tcp("carbon.line_tcp", &carbon.line_tcp)?,
                line_udp: binder.udp("carbon.line_udp", &carbon.line_udp, CARBON_BUFFER)?,
                relay_line_tcp: binder.tcp("carbon.relay_line_tcp", &carbon.relay_line_tcp)?,
                pickle: binder.tcp("carbon.pickle", &carbon.pickle)?,
                protobuf: binder.tcp("carbon.protobuf", &carbon.protobuf)?,
                http: binder.tcp("carbon.http", &carbon.http)?,
                carbonlink: binder.tcp("carbon.carbonlink", &carbon.carbonlink)?,
            },
            http: binder.tcp("render.http", &render.http)?,
            binder,
        })
    }
}

/// Binds sockets and records the key and the bound address of each.
#[derive(Debug, Default)]
pub struct Binder {
    addresses: BTreeMap<&'static str, Vec<String>>,
    files: Vec<PathBuf>,
}

impl Binder {
    /// Listens on TCP at each address.
    ///
    /// # Errors
    /// The first address that is refused.
    pub fn tcp(
        &mut self,
        key: &'static str,
        wanted: &[String],
    ) -> anyhow::Result<Vec<TcpListener>> {
        self.each(key, wanted, |text, _| {
            let address = resolve(text)?;
            let listener = TcpListener::bind(address)
                .map_err(|error| refused(error, &address, holder::Protocol::Tcp))?;
            listener.set_nonblocking(true)?;
            let shown = listener.local_addr()?.to_string();
            Ok((listener, shown))
        })
    }

    /// Receives UDP at each address. An address that is listed several times gets several
    /// sockets, among which the kernel divides the senders (`SO_REUSEPORT`). Each asks for a receive
    /// buffer of `buffer` bytes, unless that is 0.
    ///
    /// # Errors
    /// The first address that is refused.
    pub fn udp(
        &mut self,
        key: &'static str,
        wanted: &[String],
        buffer: usize,
    ) -> anyhow::Result<Vec<UdpSocket>> {
        self.each(key, wanted, |text, index| {
            let address = resolve(text)?;
            let count = wanted.iter().filter(|other| *other == text).count();
            let first = !wanted[..index].contains(text);
            let shared = count > 1 && address.port() != 0;
            if shared && first {
                // SO_REUSEPORT would allow sharing the port with another process that set it too.
                // Binding once without the option detects such a process.
                bind_udp(address, false)
                    .map_err(|error| refused(error, &address, holder::Protocol::Udp))?;
            }
            let socket = bind_udp(address, shared)
                .map_err(|error| refused(error, &address, holder::Protocol::Udp))?;
            if buffer > 0 && set_socket_recv_buffer_size_force(&socket, buffer).is_err() {
                // Without the privilege the system's limit applies. A smaller buffer is accepted.
                let _ = SockRef::from(&socket).set_recv_buffer_size(buffer);
            }
            let shown = socket.local_addr()?.to_string();
            Ok((socket, shown))
        })
    }

    /// Receives datagrams at each path.
    ///
    /// # Errors
    /// The first path that is refused.
    pub fn unix(
        &mut self,
        key: &'static str,
        wanted: &[String],
    ) -> anyhow::Result<Vec<UnixDatagram>> {
        let sockets = self.each(key, wanted, |path, _| {
            let path = Path::new(path);
            clear_leftover(path, || UnixDatagram::unbound()?.connect(path))?;
            Ok((UnixDatagram::bind(path)?, path.display().to_string()))
        })?;
        self.files.extend(wanted.iter().map(PathBuf::from));
        Ok(sockets)
    }

    /// Listens for streams at each path.
    ///
    /// # Errors
    /// The first path that is refused.
    pub fn unix_stream(
        &mut self,
        key: &'static str,
        wanted: &[String],
    ) -> anyhow::Result<Vec<UnixListener>> {
        let sockets = self.each(key, wanted, |path, _| {
            let path = Path::new(path);
            clear_leftover(path, || UnixStream::connect(path).map(drop))?;
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            Ok((listener, path.display().to_string()))
        })?;
        self.files.extend(wanted.iter().map(PathBuf::from));
        Ok(sockets)
    }

    /// The bound addresses of each key, in the order of the configuration.
    pub fn addresses(&self) -> &BTreeMap<&'static str, Vec<String>> {
        &self.addresses
    }

    fn each<T>(
        &mut self,
        key: &'static str,
        wanted: &[String],
        bind: impl Fn(&String, usize) -> anyhow::Result<(T, String)>,
    ) -> anyhow::Result<Vec<T>> {
        let mut sockets = Vec::with_capacity(wanted.len());
        let mut shown = Vec::with_capacity(wanted.len());
        for (index, text) in wanted.iter().enumerate() {
            let (socket, address) =
                bind(text, index).with_context(|| format!("{key}: cannot listen on {text}"))?;
            sockets.push(socket);
            shown.push(address);
        }
        self.addresses.insert(key, shown);
        Ok(sockets)
    }
}

impl Drop for Binder {
    /// Removes the files of Unix sockets, so that sending to them fails at once.
    fn drop(&mut self) {
        for path in &self.files {
            let _ = fs::remove_file(path);
        }
    }
}

/// Writes `addresses` as a JSON object to `path`, complete or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write_ready_file(
    path: &Path,
    addresses: &BTreeMap<&'static str, Vec<String>>,
) -> anyhow::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let text = serde_json::to_string_pretty(addresses)? + "\n";
    fs::write(&partial, text)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("ready file {}", path.display()))
}

/// Looks for listeners that could not be bound on any machine like this one: names without an
/// address, Unix paths that cannot be, and one address for two listeners. Nothing is bound: a
/// server that runs has these addresses already.
pub fn check(
    statsd: &statsd::Options,
    carbon: &carbon::options::Options,
    render: &render::options::Options,
) -> Vec<Problem> {
    let tcp = [
        ("statsd", "tcp", &statsd.tcp),
        ("statsd", "admin", &statsd.admin),
        ("carbon", "line_tcp", &carbon.line_tcp),
        ("carbon", "relay_line_tcp", &carbon.relay_line_tcp),
        ("carbon", "pickle", &carbon.pickle),
        ("carbon", "protobuf", &carbon.protobuf),
        ("carbon", "http", &carbon.http),
        ("carbon", "carbonlink", &carbon.carbonlink),
        ("render", "http", &render.http),
    ];
    let udp = [
        ("statsd", "udp", &statsd.udp),
        ("carbon", "line_udp", &carbon.line_udp),
    ];
    let unix = [
        ("statsd", "unix", &statsd.unix),
        ("statsd", "unix_stream", &statsd.unix_stream),
    ];
    let mut found = Vec::new();
    let mut say = |(section, key, n): Listener, message: String| {
        found.push(Problem {
            path: settings::Path::from((key, n)).below(section),
            message,
        });
    };
    check_addresses(&tcp, false, &mut say);
    // Several sockets of one key share an address on purpose.
    check_addresses(&udp, true, &mut say);
    let mut seen: Vec<(Listener, &Path)> = Vec::new();
    for (listener, path) in each(&unix) {
        let path = Path::new(path);
        if let Err(why) = check_unix(path) {
            say(listener, format!("{:?} {why}", path.display().to_string()));
        } else if let Some(((section, key, _), _)) = seen.iter().find(|(_, other)| *other == path) {
            let message = format!("{} is listened on by {section}.{key}, too", path.display());
            say(listener, message);
        }
        seen.push((listener, path));
    }
    found
}

/// Section, key and place in the list.
type Listener = (&'static str, &'static str, usize);

fn each<'a>(
    lists: &'a [(&'static str, &'static str, &'a Vec<String>)],
) -> impl Iterator<Item = (Listener, &'a str)> {
    lists.iter().flat_map(|(section, key, list)| {
        let listeners = list.iter().enumerate();
        listeners.map(move |(n, text)| ((*section, *key, n), text.as_str()))
    })
}

fn check_addresses(
    lists: &[(&'static str, &'static str, &Vec<String>)],
    may_repeat: bool,
    say: &mut impl FnMut(Listener, String),
) {
    let mut seen: Vec<(Listener, SocketAddr)> = Vec::new();
    for (listener, text) in each(lists) {
        // What is written wrongly has been reported by the crate that owns the key.
        if !settings::is_address(text) {
            continue;
        }
        let address = match resolve(text) {
            Ok(address) => address,
            Err(why) => {
                say(
                    listener,
                    format!("the address of {text:?} cannot be found: {why}"),
                );
                continue;
            }
        };
        let (section, key, _) = listener;
        let other = seen.iter().find(|((other_section, other_key, _), other)| {
            let same_key = (section, key) == (*other_section, *other_key);
            meet(&address, other) && !(may_repeat && same_key && address == *other)
        });
        if let Some(((section, key, _), other)) = other {
            let message = match *other == address {
                true => format!("{text:?} is listened on by {section}.{key}, too"),
                false => format!("{text:?} has the port of {other}, which is in {section}.{key}"),
            };
            say(listener, message);
        }
        seen.push((listener, address));
    }
}

/// Whether the kernel refuses one of two listeners because of the other.
fn meet(a: &SocketAddr, b: &SocketAddr) -> bool {
    let any = |address: &SocketAddr, other: &SocketAddr| {
        // `[::]` takes IPv4, too; `0.0.0.0` takes nothing else.
        address.ip().is_unspecified() && (address.is_ipv6() || other.is_ipv4())
    };
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || any(a, b) || any(b, a))
}

/// Whether a Unix socket could have this path.
fn check_unix(path: &Path) -> Result<(), String> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.contains(&0) {
        return Err("is not a path, write \"/run/plumbago/statsd.sock\"".to_owned());
    }
    if bytes.len() > LONGEST_UNIX_PATH {
        return Err(format!(
            "has {} bytes, and the path of a socket has {LONGEST_UNIX_PATH} at most",
            bytes.len()
        ));
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match fs::metadata(parent) {
        Ok(directory) if directory.is_dir() => {}
        // The user of the check may not be the user of the server.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
        Ok(_) | Err(_) => return Err(format!("is in no directory: create {}", parent.display())),
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err("exists and is not a socket".to_owned()),
        _ => Ok(()),
    }
}

fn resolve(text: &str) -> anyhow::Result<SocketAddr> {
    text.to_socket_addrs()
        .map_err(|error| match text.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => anyhow!(error),
            _ => anyhow!("the format is HOST:PORT, for example 127.0.0.1:2003"),
        })?
        .next()
        .ok_or_else(|| anyhow!("the host name resolves to no address"))
}

fn bind_udp(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The reason in words, with the process that holds the address if it is in use.
fn refused(error: io::Error, address: &SocketAddr, protocol: holder::Protocol) -> anyhow::Error {
    match error.kind() {
        ErrorKind::AddrInUse => match holder::find(address, protocol) {
            Some(who) => anyhow!("the address is in use by {who}"),
            None => anyhow!("the address is in use by another program"),
        },
        ErrorKind::PermissionDenied => {
            anyhow!("permission denied: ports below 1024 need CAP_NET_BIND_SERVICE")
        }
        ErrorKind::AddrNotAvailable => anyhow!("this machine has no such address"),
        _ => anyhow!(error),
    }
}

fn clear_leftover(path: &Path, connect: impl Fn() -> io::Result<()>) -> anyhow::Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !meta.file_type().is_socket() {
        return Err(anyhow!("path exists and is not a socket"));
    }
    match connect() {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).context("cannot remove the stale socket")
        }
        _ => Err(anyhow!("another program listens on that path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn port_0_is_resolved_to_what_was_bound() {
        let mut binder = Binder::default();
        let tcp = binder.tcp("a.tcp", &list(&["127.0.0.1:0"])).unwrap();
        let udp = binder
            .udp("a.udp", &list(&["127.0.0.1:0", "127.0.0.1:0"]), 0)
            .unwrap();
        binder.tcp("a.off", &[]).unwrap();
        let plain = SockRef::from(&udp[0]).recv_buffer_size().unwrap();
        let small = binder
            .udp("a.small", &list(&["127.0.0.1:0"]), 8_192)
            .unwrap();
        let small = SockRef::from(&small[0]).recv_buffer_size().unwrap();
        assert!(small < plain, "{small} {plain}");
        let addresses = binder.addresses();
        assert_eq!(
            addresses["a.tcp"],
            [tcp[0].local_addr().unwrap().to_string()]
        );
        assert_eq!(addresses["a.udp"].len(), 2);
        assert_ne!(udp[0].local_addr().unwrap().port(), 0);
        assert!(addresses["a.off"].is_empty());

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready.json");
        write_ready_file(&path, addresses).unwrap();
        let read: BTreeMap<String, Vec<String>> =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["a.tcp"], addresses["a.tcp"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_address_in_use_is_refused_with_key_address_and_holder() {
        let mut binder = Binder::default();
        for protocol in ["tcp", "udp"] {
            let (taken, refusal) = if protocol == "tcp" {
                let held = TcpListener::bind("127.0.0.1:0").unwrap();
                let taken = held.local_addr().unwrap().to_string();
                let refusal = binder.tcp("x.y", &list(&[&taken])).unwrap_err();
                (taken, refusal)
            } else {
                let held = UdpSocket::bind("127.0.0.1:0").unwrap();
                let taken = held.local_addr().unwrap().to_string();
                let refusal = binder.udp("x.y", &list(&[&taken, &taken]), 0).unwrap_err();
                (taken, refusal)
            };
            let refusal = format!("{refusal:#}");
            let beginning = format!("x.y: cannot listen on {taken}: the address is in use by ");
            assert!(refusal.starts_with(&beginning), "{refusal}");
            let pid = format!("process {}", std::process::id());
            assert!(refusal.contains(&pid), "{refusal}");
        }
    }

    #[test]
    fn an_address_listed_twice_gets_two_sockets() {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let twice = list(&[&address, &address]);
        let sockets = Binder::default().udp("x.y", &twice, 0).unwrap();
        assert_eq!(sockets.len(), 2);
    }

    #[test]
    fn an_invalid_address_is_refused_with_an_example() {
        let refusal = Binder::default().tcp("x.y", &list(&["8125"])).unwrap_err();
        assert_eq!(
            format!("{refusal:#}"),
            "x.y: cannot listen on 8125: the format is HOST:PORT, for example 127.0.0.1:2003"
        );
    }

    #[test]
    fn left_over_unix_sockets_are_replaced_and_live_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| vec![dir.path().join(name).display().to_string()];
        drop(UnixDatagram::bind(&path("d")[0]).unwrap());
        drop(UnixListener::bind(&path("s")[0]).unwrap());
        let mut binder = Binder::default();
        let _datagrams = binder.unix("u.d", &path("d")).unwrap();
        let _streams = binder.unix_stream("u.s", &path("s")).unwrap();
        let mut second = Binder::default();
        for refusal in [
            second.unix("u.d", &path("d")).unwrap_err(),
            second.unix_stream("u.s", &path("s")).unwrap_err(),
        ] {
            assert!(format!("{refusal:#}").contains("another program listens"));
        }
        fs::write(&path("f")[0], "precious").unwrap();
        assert!(second.unix("u.d", &path("f")).is_err());
        assert_eq!(fs::read(&path("f")[0]).unwrap(), b"precious");
        drop(second);
        drop(binder);
        assert!(!Path::new(&path("d")[0]).exists());
    }
}
