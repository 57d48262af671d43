//! Whether the kernel reports every change below the tree.
//!
//! inotify reports what goes through this machine's kernel and through this directory. It says nothing of changes
//! that other hosts make on a network file system, of what a layer below an overlay does, nor of a file system that is
//! mounted over a directory. So the tree has to lie on a file system of which this is known, and the mounts below
//! and above it have to be those of the start.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// File systems of this machine alone.
const LOCAL: [&str; 6] = ["ext4", "xfs", "btrfs", "tmpfs", "f2fs", "zfs"];

/// What `/proc/self/mountinfo` says of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mounts {
    /// The mounts that the tree is in, and those in it: number, mount point, type.
    mounts: Vec<(String, PathBuf, String)>,
    root: PathBuf,
}

impl Mounts {
    /// The mounts at present.
    pub(super) fn of(root: &Path) -> Self {
        // Without it, no mount holds the tree.
        let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
        let root = fs::canonicalize(root).unwrap_or_default();
        Self::parse(&text, root)
    }

    fn parse(text: &[u8], root: PathBuf) -> Self {
        let text = String::from_utf8_lossy(text);
        let mounts = text.lines().filter_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let mut mount = mount.split(' ');
            let (number, point) = (mount.next()?, unescape(mount.nth(3)?));
            let concerns = point.starts_with(&root) || root.starts_with(&point);
            let kind = system.split(' ').next()?;
            concerns.then(|| (number.to_owned(), point, kind.to_owned()))
        });
        Self {
            mounts: mounts.collect(),
            root,
        }
    }

    /// Whether all changes of the tree's own file system are reported.
    pub(super) fn report_changes(&self) -> bool {
        // Of mounts at the same point, the last one shows.
        let around = self
            .mounts
            .iter()
            .filter(|(_, point, _)| self.root.starts_with(point));
        let holds = around.max_by_key(|(_, point, _)| point.as_os_str().len());
        holds.is_some_and(|(_, _, kind)| LOCAL.contains(&kind.as_str()))
    }

    /// Whether something is mounted at the directory `below` the root.
    pub(super) fn is_mounted(&self, below: &Path) -> bool {
        let directory = self.root.join(below);
        self.mounts.iter().any(|(_, point, _)| *point == directory)
    }
}

/// The path without its octal escapes.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match rest {
            [b'\\', digits @ ..] => digits.get(..3).and_then(|digits| {
                let digits = std::str::from_utf8(digits).ok()?;
                u8::from_str_radix(digits, 8).ok()
            }),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &rest[4..] } else { after };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 21 0:26 / /dev/shm rw shared:4 - tmpfs tmpfs rw
40 21 0:40 / /srv/my\\040data rw - nfs4 host:/x rw
41 21 0:41 / /data rw - xfs /dev/vdb rw
42 41 0:42 / /data/whisper/a rw - xfs /dev/vdc rw
43 21 0:43 / /data rw - overlay overlay rw
";

    fn of(root: &str) -> Mounts {
        Mounts::parse(TEXT.as_bytes(), root.into())
    }

    #[test]
    fn the_innermost_mount_decides() {
        for (root, expected) in [
            ("/var/lib/whisper", true),
            ("/dev/shm/whisper", true),
            ("/srv/my data/whisper", false),
            ("/data/whisper", false),
            ("/data/whisper/a", true),
            ("", false),
        ] {
            assert_eq!(of(root).report_changes(), expected, "{root}");
        }
        assert!(!Mounts::parse(b"", "/data".into()).report_changes());
    }

    #[test]
    fn mounts_below_are_known_and_others_are_no_change() {
        let mounts = of("/data/whisper");
        assert!(mounts.is_mounted(Path::new("a")) && !mounts.is_mounted(Path::new("b")));
        let later = [TEXT, "50 21 0:50 / /elsewhere rw - ext4 /dev/vdd rw\n"].concat();
        assert_eq!(
            Mounts::parse(later.as_bytes(), "/data/whisper".into()),
            mounts
        );
        let later = [TEXT, "50 41 0:50 / /data/whisper/b rw - ext4 /dev/vdd rw\n"].concat();
        assert_ne!(
            Mounts::parse(later.as_bytes(), "/data/whisper".into()),
            mounts
        );
    }

    #[test]
    fn the_mounts_of_this_machine_are_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Mounts::of(dir.path()), Mounts::of(dir.path()));
        assert_ne!(Mounts::of(dir.path()).mounts.len(), 0);
    }
}
