//! What the kernel knows of a process, of a file system and of its device.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// CPU seconds by the names of threads, and of all of them (threads that have ended included).
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) threads: BTreeMap<String, f64>,
    pub(crate) total: f64,
}

impl Cpu {
    /// What the process has used since its start.
    pub(crate) fn of(pid: i32) -> Self {
        let mut threads = BTreeMap::new();
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let comm = read("comm");
            let ran = read("schedstat");
            let ran = ran.split(' ').next().and_then(|n| n.parse::<f64>().ok());
            let comm = comm.trim().trim_end_matches(|c: char| c.is_ascii_digit());
            *threads.entry(comm.to_owned()).or_default() += ran.unwrap_or(0.0) / 1e9;
        }
        let living = threads.values().sum::<f64>();
        Self {
            threads,
            // Ticks of 10 ms, but with the threads that have ended.
            total: ticks(pid).max(living),
        }
    }

    /// What was used since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let used = |(name, now): (&String, &f64)| {
            let before = before.threads.get(name).copied().unwrap_or(0.0);
            (name.clone(), (now - before).max(0.0))
        };
        Self {
            threads: self.threads.iter().map(used).collect(),
            total: self.total - before.total,
        }
    }

    /// With what another phase used.
    pub(crate) fn plus(mut self, other: &Self) -> Self {
        for (name, seconds) in &other.threads {
            *self.threads.entry(name.clone()).or_default() += seconds;
        }
        self.total += other.total;
        self
    }

    /// The threads that used most, in microseconds per unit.
    pub(crate) fn by_thread(&self, units: f64) -> String {
        let mut threads: Vec<_> = self.threads.iter().collect();
        threads.sort_by(|a, b| b.1.total_cmp(a.1));
        let shown = threads
            .iter()
            .filter(|(_, seconds)| **seconds * 1e6 / units >= 0.000_5);
        let shown = shown.map(|(name, seconds)| format!("{name} {:.3}", *seconds * 1e6 / units));
        let ended = self.total - self.threads.values().sum::<f64>();
        let ended = Some(ended * 1e6 / units).filter(|ended| *ended >= 0.01);
        let shown = shown.chain(ended.map(|ended| format!("ended threads {ended:.2}")));
        shown.collect::<Vec<_>>().join(", ")
    }
}

/// User and system time of a process in seconds, from /proc/PID/stat.
fn ticks(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |at: usize| {
        fields
            .get(at)
            .and_then(|n| n.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (field(11) + field(12)) / rustix::param::clock_ticks_per_second() as f64
}

/// Resident memory of a process in MB: all of it, and the anonymous part.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    pub(crate) anonymous: f64,
}

impl Memory {
    pub(crate) fn of(pid: i32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next());
            kib.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) * 1_024.0 / 1e6
        };
        Self {
            resident: field("VmRSS:"),
            anonymous: field("RssAnon:"),
        }
    }

    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            anonymous: self.anonymous.max(other.anonymous),
        }
    }
}

/// Bytes written since the start of the machine to the device that holds `path`, after a sync of all
/// file systems; `None` if it is in memory. All processes that write there are in it.
pub(crate) fn device_bytes(path: &Path) -> Option<u64> {
    let device = fs::metadata(path).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let disks = || fs::read_to_string("/proc/diskstats").ok();
    let is_ours = |line: &str| {
        let mut fields = line.split_whitespace();
        let mut number = || fields.next().and_then(|n| n.parse::<u32>().ok());
        number() == Some(major) && number() == Some(minor)
    };
    disks()?.lines().find(|line| is_ours(line))?;
    rustix::fs::sync();
    let disks = disks()?;
    let line = disks.lines().find(|line| is_ours(line))?;
    let sectors: u64 = line.split_whitespace().nth(9)?.parse().ok()?;
    Some(sectors * 512)
}

/// Bytes of pages that the process made dirty, from /proc/PID/io: what it alone has to write.
pub(crate) fn dirtied(pid: i32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or(0)
}

/// The type of the file system of `path`, from the mount whose directory is the longest prefix.
pub(crate) fn file_system(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let ours = mounts.filter(|(directory, _)| path.starts_with(directory));
    let longest = ours.max_by_key(|(directory, _)| directory.len());
    longest.map_or_else(String::new, |(_, kind)| kind.to_owned())
}
