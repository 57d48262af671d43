//! Problems of a configuration, as sentences with the accepted form.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::node::{Path, Place};

/// Something wrong with one value of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which value, from the section on.
    pub path: Path,
    /// The problem, and the accepted form.
    pub message: String,
}

/// What a crate's `check` has found; it goes on after the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// A problem with the place where the value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where the value was written.
    pub place: Place,
    /// The key with its section; empty where the file itself cannot be understood.
    pub key: String,
    /// The problem, and the accepted form.
    pub message: String,
}

impl Problems {
    /// Adds a problem with the value at `path`, and the accepted form.
    pub fn refuse(&mut self, path: impl Into<Path>, wrong: impl AsRef<str>, accepted: &str) {
        self.say(path, format!("{}, write {accepted}", wrong.as_ref()));
    }

    /// Adds a problem whose sentence already says what to do.
    pub fn say(&mut self, path: impl Into<Path>, message: impl Into<String>) {
        self.0.push(Problem {
            path: path.into(),
            message: message.into(),
        });
    }

    /// Adds a problem.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// What was found, in the order in which it was found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Whether `text` is written HOST:PORT: an IPv4 address, an IPv6 address in brackets, or a host
/// name, and a port from 0 to 65535.
pub fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let port_is_good =
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']');
        // A zone (`fe80::1%eth0`) is the system's to judge.
        let address = inner.map(|inner| inner.split_once('%').map_or(inner, |(bare, _)| bare));
        return port_is_good && address.is_some_and(|text| text.parse::<Ipv6Addr>().is_ok());
    }
    let dotted_number = host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let host_is_good = match dotted_number {
        true => host.parse::<Ipv4Addr>().is_ok(),
        false => {
            host.len() <= 253
                && host.split('.').all(|label| {
                    !label.is_empty()
                        && label.len() <= 63
                        && !label.starts_with('-')
                        && label
                            .bytes()
                            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
                })
        }
    };
    port_is_good && host_is_good
}

/// The known name that differs least from `name`, if it differs little.
pub fn nearest<T: AsRef<str>>(name: &str, known: impl IntoIterator<Item = T>) -> Option<T> {
    let lower = name.to_ascii_lowercase();
    known
        .into_iter()
        .map(|known| {
            let distance =
                strsim::damerau_levenshtein(&lower, &known.as_ref().to_ascii_lowercase());
            (distance, known)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 2.max(name.len() / 4))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in [
            "127.0.0.1:0",
            "0.0.0.0:8125",
            "[::]:8125",
            "[fe80::1%eth0]:8125",
            "localhost:80",
            "carbon-1.example.com:2003",
            "my_host:65535",
        ] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "foo",
            "8125",
            ":8125",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:99999",
            "127.0.0.1:+80",
            "127.0.0:80",
            "::1:80",
            "[::1]",
            "[::1:80",
            "a b:80",
            "-a:80",
            "a..b:80",
            "http://a:80",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("medain", ["mean", "median"]), Some("median"));
        assert_eq!(nearest("MEDIAN", ["mean", "median"]), Some("median"));
        assert_eq!(nearest("xyzzy", ["mean", "median"]), None);
    }
}
