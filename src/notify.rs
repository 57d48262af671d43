//! Notifies a service manager (systemd) of readiness and shutdown.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state` (`READY=1`, `STOPPING=1`) to the socket called `name`, if there is one.
///
/// `name` is `NOTIFY_SOCKET`: a path, or `@` and an abstract name. A failure is only logged: the
/// server works without a service manager.
pub fn notify(name: Option<&str>, state: &str) {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return;
    };
    let sent = match name.strip_prefix('@') {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name),
        None => SocketAddr::from_pathname(name),
    }
    .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!("NOTIFY_SOCKET {name}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_arrives_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut buffer = [0; 64];
        notify(path.to_str(), "READY=1");
        let n = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"READY=1");

        let name = format!("plumbago-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        notify(Some(&format!("@{name}")), "STOPPING=1");
        let n = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"STOPPING=1");

        notify(Some("/nowhere/at/all"), "READY=1");
        notify(None, "READY=1");
    }
}
