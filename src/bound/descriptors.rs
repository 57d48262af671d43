//! The limit of file descriptors, and the share of it that connections may take.
//!
//! 1. The soft limit is raised to the hard one before anything is opened: the usual soft limit of
//!    1,024 exists for programs that use `select`.
//! 2. [`KEPT`] descriptors are reserved for files, independent of network load: whisper files,
//!    journal, index and event store can always be opened. All caps on connections together
//!    are cut until that holds.

use anyhow::bail;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Descriptors kept for files, or half of all where there are fewer than twice as many.
pub const KEPT: u64 = 256;
/// The largest limit that is requested: the kernel's default bound (`fs.nr_open`).
const MOST: u64 = 1 << 20;
/// Below this limit the log has a warning.
const FEW: u64 = 4_096;
/// A server needs this many to start: sockets, stores, and a few connections and files.
const NEEDED: u64 = 48;
/// Every listener gets at least this many connections.
const LEAST: usize = 4;

/// A cap on the connections of some listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// The key of the configuration.
    pub key: &'static str,
    /// The configured limit on connections; 0 for as many as there are descriptors.
    pub wanted: usize,
}

/// Raises the soft limit to the hard one and returns the limit in effect.
///
/// # Errors
/// The limit is too low for a server.
pub fn raise() -> anyhow::Result<u64> {
    let limit = raised();
    if limit < NEEDED {
        bail!(
            "open files: the limit is {limit}, a server needs {NEEDED}: raise it (LimitNOFILE=, ulimit -Hn)"
        );
    }
    Ok(limit)
}

fn raised() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let hard = maximum.unwrap_or(MOST).min(MOST);
    let soft = current.unwrap_or(MOST).min(MOST);
    if soft >= hard {
        return soft;
    }
    let raised = Rlimit {
        current: Some(hard),
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => hard,
        Err(why) => {
            warn!("open files: cannot raise the soft limit from {soft} to {hard}: {why}");
            soft
        }
    }
}

/// Reduces `caps` so that the descriptors kept for files stay free while `open` are in use, and logs
/// the result. Returns the caps in the same order.
pub fn share(limit: u64, open: u64, caps: &[Cap]) -> Vec<usize> {
    let kept = KEPT.min(limit / 2);
    let shared = cut(limit.saturating_sub(kept).saturating_sub(open), caps);
    let lines = caps.iter().zip(&shared).map(|(cap, got)| {
        let Cap { key, wanted } = cap;
        match got == wanted {
            true => format!("{key} {got}"),
            false => format!("{key} {got} (configured: {wanted})"),
        }
    });
    let lines: Vec<String> = lines.collect();
    info!(
        "open files: {limit} allowed, {kept} reserved for files; connections: {}",
        lines.join(", ")
    );
    if limit < FEW {
        warn!("the hard limit of open files is {limit}, raise it (LimitNOFILE=, ulimit -Hn)");
    }
    shared
}

/// `caps` in proportion, so that together they are at most `available`.
fn cut(available: u64, caps: &[Cap]) -> Vec<usize> {
    let available = usize::try_from(available).unwrap_or(usize::MAX);
    let wanted = caps.iter().map(|cap| match cap.wanted {
        0 => available,
        wanted => wanted,
    });
    let wanted: Vec<usize> = wanted.collect();
    let total = wanted.iter().fold(0_u128, |sum, one| sum + *one as u128);
    let fits = total <= available as u128;
    let part = |one: usize| match fits {
        true => one,
        false => (one as u128 * available as u128 / total.max(1)) as usize,
    };
    wanted
        .into_iter()
        .map(|one| part(one).max(LEAST.min(one.max(1))))
        .collect()
}

/// How many descriptors this process has open.
pub fn open() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(32, |entries| entries.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(wanted: &[usize]) -> Vec<Cap> {
        let key = "a.max_connections";
        wanted.iter().map(|&wanted| Cap { key, wanted }).collect()
    }

    #[test]
    fn caps_are_cut_in_proportion_until_files_have_their_part() {
        assert_eq!(share(20_000, 30, &caps(&[1_000, 4_000])), [1_000, 4_000]);
        let shared = share(1_024, 30, &caps(&[1_000, 4_000]));
        assert_eq!(shared, [147, 590]);
        assert!(shared.iter().sum::<usize>() as u64 + 30 + KEPT <= 1_024);
        assert_eq!(share(1_024, 24, &caps(&[0])), [744]);
        assert_eq!(share(64, 60, &caps(&[1_000, 2])), [4, 2]);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let limit = raise().unwrap();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current.unwrap_or(MOST).min(MOST), limit);
        assert_eq!(maximum.unwrap_or(MOST).min(MOST), limit);
    }
}
