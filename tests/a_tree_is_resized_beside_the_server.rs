//! `plumbago whisper resize --schemas` over the tree of a running server that is written to all the time:
//! a dry run changes nothing, the rate is kept, and no point is missing.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{Server, now, plumbago, run};
use tempfile::TempDir;
use whisper::Header;

const SERIES: usize = 60;
const RATE: u64 = 20;

/// How many archives the files of the tree have: how many files for each number.
fn archives(tree: &Path) -> BTreeMap<usize, usize> {
    let mut found = BTreeMap::new();
    for n in 0..SERIES {
        let header = Header::read(&tree.join(format!("web/h{n}/hits.wsp"))).unwrap();
        *found.entry(header.archives().len()).or_default() += 1;
    }
    found
}

/// The values of a series by their seconds.
fn values(server: &Server, n: usize, from: i64) -> BTreeMap<i64, f64> {
    let path = format!("/render?format=json&from={}&target=web.h{n}.hits", from - 1);
    let series = server.json(&path);
    let points = series[0]["datapoints"].as_array().cloned();
    let points = points.unwrap_or_default().into_iter();
    points
        .filter_map(|point| Some((point[1].as_i64()?, point[0].as_f64()?)))
        .collect()
}

/// A tree that is written to while it is resized.
struct Tree {
    server: Server,
    schemas: PathBuf,
    /// The second of the first point of each series.
    from: i64,
    _directory: TempDir,
}

impl Tree {
    /// A server with one point in each series, half an hour old.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let schemas = directory.path().join("storage-schemas.conf");
        fs::write(&schemas, "[web]\npattern = ^web\\.\nretentions = 1s:1h\n").unwrap();
        let server = Server::with(&[
            ("carbon.schemas", &format!("{schemas:?}")),
            ("stats.self", "false"),
        ]);
        let tree = Self {
            server,
            schemas,
            from: now() - 1_800,
            _directory: directory,
        };
        tree.send(0);
        tree.server.wait_until("all files", |_| {
            (0..SERIES).all(|n| tree.files().join(format!("web/h{n}/hits.wsp")).exists())
        });
        tree
    }

    fn files(&self) -> PathBuf {
        self.server.data().join("whisper")
    }

    /// Sends one point for each series, `round` seconds after the first.
    fn send(&self, round: i64) {
        let at = self.from + round;
        let line = |n: usize| format!("web.h{n}.hits {} {at}\n", round * 100 + n as i64);
        self.server.lines((0..SERIES).map(line).collect::<String>());
    }

    /// Waits until all points of the first `rounds` and the next one are there.
    fn has_all(&self, rounds: i64) {
        for n in 0..SERIES {
            let expected: BTreeMap<i64, f64> = (0..=rounds)
                .map(|round| (self.from + round, (round * 100 + n as i64) as f64))
                .collect();
            self.server
                .wait_until(&format!("all points of web.h{n}.hits"), |server| {
                    values(server, n, self.from) == expected
                });
        }
    }

    /// Runs the verb while points are sent; how many rounds were sent, what it printed, how long it took.
    fn resize_while_written(&self, arguments: &[&str]) -> (i64, String, Duration) {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut round = 1;
                while !ended.load(Ordering::Relaxed) {
                    self.send(round);
                    round += 1;
                    std::thread::park_timeout(Duration::from_millis(10));
                }
                round
            });
            let begun = Instant::now();
            let child = plumbago()
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let done = child.unwrap().wait_with_output().unwrap();
            let took = begun.elapsed();
            ended.store(true, Ordering::Relaxed);
            let said = String::from_utf8_lossy(&done.stdout).into_owned();
            assert!(
                done.status.success(),
                "{said}{}",
                String::from_utf8_lossy(&done.stderr)
            );
            (writer.join().unwrap(), said, took)
        })
    }
}

#[test]
fn no_point_is_missing_after_a_resize_beside_a_writing_server() {
    let mut tree = Tree::start();
    let two = "[web]\npattern = ^web\\.\nretentions = 1s:2h,1m:7d\n";
    fs::write(&tree.schemas, two).unwrap();
    let (files, schemas) = (tree.files(), tree.schemas.clone());
    let rate = RATE.to_string();
    let mut arguments = vec!["whisper", "resize", "--schemas", schemas.to_str().unwrap()];
    arguments.extend(["--rate", &rate, files.to_str().unwrap()]);

    let dry = run(&[&arguments[..], &["--dry-run"]].concat());
    let said = String::from_utf8_lossy(&dry.stdout).into_owned();
    assert!(dry.status.success(), "{said}");
    assert!(
        said.contains(&format!("{SERIES} files would be resized")),
        "{said}"
    );
    assert_eq!(archives(&files), [(1, SERIES)].into());

    let (rounds, said, took) = tree.resize_while_written(&arguments);
    // Each file is named with what it was and what it is.
    let named = said.lines().filter(|line| line.contains(": 1:3600 0 "));
    assert_eq!(named.count(), SERIES, "{said}");
    assert!(said.contains(&format!("{SERIES} files resized")), "{said}");
    let least = Duration::from_secs(SERIES as u64 / RATE);
    assert!(took >= least.mul_f64(0.9), "{took:?} for {SERIES} files");
    tree.send(rounds);
    assert_eq!(archives(&files), [(2, SERIES)].into());

    tree.has_all(rounds);
    // In the files as well, and without the process that wrote them.
    tree.server.kill();
    tree.server.run();
    tree.has_all(rounds);
    tree.server.restart();
    tree.has_all(rounds);
    let again = run(&arguments);
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(
        said.contains(&format!("{SERIES} have their retentions")),
        "{said}"
    );
}
