//! A destination as configurations name it: `host:port` or `host:port:instance`.

use std::fmt;
use std::str::FromStr;

/// A destination: carbon's `DESTINATIONS` and carbon-c-relay's cluster members have the same parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// A host name or an address, an IPv6 address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// What distinguishes members of one host in a ring.
    pub instance: Option<String>,
}

/// Text that is not a destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a destination")]
pub struct NotAMember {
    text: String,
}

/// The accepted form of a destination, for messages.
pub const FORM: &str = "\"host:port\" or \"host:port:instance\", an IPv6 address in brackets";

impl Member {
    /// `host:port`, for connecting.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())?;
        match &self.instance {
            Some(instance) => write!(f, ":{instance}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Member {
    type Err = NotAMember;

    fn from_str(text: &str) -> Result<Self, NotAMember> {
        let parts = || {
            let (host, rest) = match text.strip_prefix('[') {
                Some(rest) => {
                    let (host, rest) = rest.split_once(']')?;
                    host.parse::<std::net::Ipv6Addr>().ok()?;
                    (host, rest.strip_prefix(':')?)
                }
                None => text.split_once(':')?,
            };
            let (port, instance) = match rest.split_once(':') {
                Some((port, instance)) => (port, Some(instance)),
                None => (rest, None),
            };
            let plain = |part: &str| {
                let odd = |c: char| c.is_whitespace() || c.is_control() || "'\"\\,/".contains(c);
                !part.is_empty() && !part.contains(odd)
            };
            let port = port
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then_some(port)?;
            let member = Self {
                host: host.to_owned(),
                port: port.parse().ok().filter(|port| *port != 0)?,
                instance: instance.map(str::to_owned),
            };
            let sound = plain(host)
                && instance.is_none_or(|instance| plain(instance) && !instance.contains(':'));
            sound.then_some(member)
        };
        parts().ok_or_else(|| NotAMember {
            text: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_read_back() {
        for text in [
            "10.0.0.1:2004",
            "relay.example:2004:a",
            "[::1]:2004:b",
            "[2001:db8::1]:1",
        ] {
            assert_eq!(text.parse::<Member>().unwrap().to_string(), text);
        }
        for text in [
            "", "a", "a:", "a:0", "a:+1", "a:65536", ":1", "::1:2004", "a:1:", "a:1:b:c", "[a]:1",
            "a b:1", "a:1:b'",
        ] {
            assert!(text.parse::<Member>().is_err(), "{text}");
        }
    }
}
