//! How much memory the system lets this process have.

/// The bytes of memory that this process may use: the least of what the machine has, what its
/// cgroups allow, and its limits on address space and data.
pub fn available() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = meminfo(&read("/proc/meminfo"));
    let limits = read("/proc/self/limits");
    let address_space = limit_in(&limits, "Max address space");
    let data = limit_in(&limits, "Max data size");
    let mut least = [machine, address_space, data].into_iter().flatten().min();
    for group in groups(&read("/proc/self/cgroup")) {
        if let Ok(bytes) = read(&group).trim().parse() {
            least = Some(least.map_or(bytes, |least| least.min(bytes)));
        }
    }
    least.unwrap_or(UNKNOWN)
}

/// What is assumed where the system does not say how much memory there is.
const UNKNOWN: u64 = 4 << 30;

/// The whole memory by `/proc/meminfo`.
fn meminfo(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// The soft limit called `name` by `/proc/self/limits`, if there is one.
fn limit_in(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The files that hold the memory limits of the cgroups named in `/proc/self/cgroup`, and of the
/// groups above them. In a container the path may lead nowhere, and the root is its own group.
fn groups(text: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            names if names.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{root}{path}/{file}"));
            match path.rfind('/') {
                Some(slash) => path = &path[..slash],
                None => break,
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_the_system_counts() {
        let text = "MemTotal:       24737008 kB\nMemFree:  22 kB\n";
        assert_eq!(meminfo(text), Some(24_737_008 * 1_024));
        assert_eq!(meminfo(""), None);
        let text = "Limit Soft Limit Hard Limit Units\nMax data size 7000 7000 bytes\n\
            Max address space 6000000000 unlimited bytes\n";
        assert_eq!(limit_in(text, "Max address space"), Some(6_000_000_000));
        assert_eq!(limit_in(text, "Max data size"), Some(7_000));
        let text = "Max address space         unlimited            unlimited            bytes";
        assert_eq!(limit_in(text, "Max address space"), None);
        assert_eq!(
            groups("0::/a.slice/b.service\n"),
            [
                "/sys/fs/cgroup/a.slice/b.service/memory.max",
                "/sys/fs/cgroup/a.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(
            groups("4:cpu:/x\n3:memory:/\n0::/\n"),
            [
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert!(available() > 0);
    }
}
