//! The process that holds an address, read from `/proc` where permissions allow.

use std::fs;
use std::net::{IpAddr, SocketAddr};

/// Which of the kernel's tables to look in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Listening TCP sockets.
    Tcp,
    /// Bound UDP sockets.
    Udp,
}

/// The process that holds `address`, as `process 123 (node)`; `None` if `/proc` does not show it.
pub(super) fn find(address: &SocketAddr, protocol: Protocol) -> Option<String> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    tables.iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines()
            .skip(1)
            .filter_map(|line| inode(line, address, protocol))
            .find_map(|inode| owner(&format!("socket:[{inode}]")))
    })
}

/// The inode of the socket in `line` of a table, if it conflicts with `address`.
fn inode<'a>(line: &'a str, address: &SocketAddr, protocol: Protocol) -> Option<&'a str> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    if protocol == Protocol::Tcp && state != LISTEN {
        return None;
    }
    if u16::from_str_radix(port, 16).ok()? != address.port() {
        return None;
    }
    let everywhere = ip.bytes().all(|digit| digit == b'0');
    if !everywhere && !address.ip().is_unspecified() && ip != as_the_kernel_prints(address.ip()) {
        return None;
    }
    fields.nth(5)
}

/// Words of 32 bits in the machine's order, as hexadecimal.
fn as_the_kernel_prints(ip: IpAddr) -> String {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes
        .chunks_exact(4)
        .map(|word| {
            format!(
                "{:08X}",
                u32::from_ne_bytes([word[0], word[1], word[2], word[3]])
            )
        })
        .collect()
}

fn owner(socket: &str) -> Option<String> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        files.find(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket)
        })?;
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        Some(format!("process {pid} ({})", name.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_line_is_read() {
        let line = "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3318 1 0 100 0 0 10 0";
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let look = |text| inode(line, &address(text), Protocol::Tcp);
        if cfg!(target_endian = "little") {
            assert_eq!(look("127.0.0.1:8080"), Some("3318"));
        }
        assert_eq!(look("0.0.0.0:8080"), Some("3318"));
        assert_eq!(look("127.0.0.2:8080"), None);
        assert_eq!(look("127.0.0.1:8081"), None);
        assert_eq!(
            inode("garbage", &address("127.0.0.1:1"), Protocol::Udp),
            None
        );
    }
}
