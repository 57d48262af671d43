//! Other programs create, replace and delete files below a running server: no point is lost, and
//! what is on disk is what queries find, within seconds.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::{Server, plumbago};
use whisper::{CreateOptions, File, Lock, Point, Retention, Timestamp, create};

/// What is noticed within seconds is noticed within so many, on a busy machine too.
const SECONDS: Duration = Duration::from_secs(30);

fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs() as u32
}

/// A file with a point a second for two hours.
fn seconds(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let retention = Retention::new(1, 7_200).unwrap();
    create(path, &CreateOptions::new([retention].into())).unwrap();
}

/// The points that the file has.
fn stored(path: &Path) -> BTreeSet<u32> {
    let Ok(file) = File::open(path) else {
        return BTreeSet::new();
    };
    let now = Timestamp(now());
    let from = Timestamp(now.0 - 7_000);
    let fetched = file.fetch(now, from, now).unwrap().unwrap();
    let known = fetched.points().filter(|(_, value)| !value.is_nan());
    known.map(|(at, _)| at.0).collect()
}

/// As whisper-resize does it: a new file with what the old one had takes its name.
fn replace(path: &Path) {
    let new = path.with_extension("tmp");
    fs::copy(path, &new).unwrap();
    fs::rename(&new, path).unwrap();
}

struct Tree {
    server: Server,
    /// The time of the next point.
    at: u32,
    sent: BTreeSet<u32>,
}

impl Tree {
    /// A server over a tree with a file for each of `names`.
    fn new(names: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut server = Server::prepared(&[("stats.self", "false")]);
        let settings = settings.iter();
        server
            .settings
            .extend(settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let tree = Self {
            at: now() - 6_000,
            sent: BTreeSet::new(),
            server,
        };
        for name in names {
            seconds(&tree.path(name));
        }
        tree
    }

    fn start(mut self) -> Self {
        self.server.run();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        let mut path = PathBuf::new();
        carbon::series::file_path(&self.server.data().join("whisper"), name, &mut path);
        path
    }

    /// Sends `n` points, a second apart, one after the other: each is in the file before the next is
    /// sent, as with a sender that sends a point a second.
    fn send(&mut self, name: &str, n: u32) {
        for _ in 0..n {
            let at = self.at;
            self.at += 1;
            self.sent.insert(at);
            let written = self.written();
            self.server.lines(format!("{name} {at} {at}\n"));
            self.server
                .wait_until("point in its file", |_| self.written() > written);
        }
    }

    fn written(&self) -> u64 {
        self.counter("committed_points_total")
    }

    fn counter(&self, name: &str) -> u64 {
        let metrics = self.server.get("/metrics").text();
        let name = format!("plumbago_carbon_{name} ");
        let line = metrics.lines().find(|line| line.starts_with(&name));
        let value = line.and_then(|line| line.split(' ').next_back());
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until the file at the name has all points that were sent since `since`.
    fn wait_for_all(&self, name: &str, since: u32) {
        let path = self.path(name);
        let wanted: BTreeSet<u32> = self.sent.range(since..).copied().collect();
        let deadline = Instant::now() + SECONDS;
        loop {
            let stored = stored(&path);
            let missing: Vec<_> = wanted.difference(&stored).collect();
            if missing.is_empty() {
                return;
            }
            let log = self.server.log();
            assert!(
                Instant::now() < deadline,
                "{name} lacks {missing:?}:\n{log}"
            );
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn found(&self, query: &str) -> Vec<String> {
        let found = self
            .server
            .json(&format!("/metrics/expand?leavesOnly=1&query={query}"));
        let found = found["results"].as_array().unwrap().iter();
        found
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    fn wait_for_names(&self, query: &str, wanted: &[&str]) {
        let begun = Instant::now();
        self.server
            .wait_until(query, |_| self.found(query) == wanted);
        assert!(begun.elapsed() < SECONDS, "{:?}", begun.elapsed());
    }
}

#[test]
fn a_file_that_is_replaced_loses_no_point() {
    for flock in ["false", "true"] {
        let mut tree = Tree::new(&["a.b"], &[("carbon.flock", flock)]).start();
        let first = tree.at;
        tree.send("a.b", 5);
        let path = tree.path("a.b");
        for _ in 0..3 {
            replace(&path);
            tree.send("a.b", 5);
        }
        tree.wait_for_all("a.b", first);
        // What is sent now goes into the file at the name at once.
        tree.send("a.b", 1);
        tree.wait_for_all("a.b", first);
        assert!(tree.counter("files_replaced_total") >= 3);
        assert_eq!(tree.server.points("a.b").len(), 0, "they are older");
    }
}

#[test]
fn a_file_that_is_deleted_comes_back_with_the_points_since() {
    for flock in ["false", "true"] {
        let mut tree = Tree::new(&["a.b", "a.c"], &[("carbon.flock", flock)]).start();
        tree.send("a.b", 5);
        fs::remove_file(tree.path("a.b")).unwrap();
        let deleted = tree.at;
        tree.send("a.b", 5);
        // The new file has the built-in retentions, which begin with the flush interval.
        tree.wait_for_all("a.b", deleted);
        tree.wait_for_names("a.*", &["a.b", "a.c"]);
    }
}

#[test]
fn a_stop_or_a_crash_after_a_replacement_loses_no_point() {
    for crash in [false, true] {
        let mut tree = Tree::new(&["a.b"], &[("journal.sync", "\"always\"")]).start();
        let first = tree.at;
        tree.send("a.b", 3);
        replace(&tree.path("a.b"));
        tree.send("a.b", 3);
        if crash {
            tree.server.kill();
            tree.server.run();
        } else {
            assert!(tree.server.stop().success(), "{}", tree.server.log());
        }
        tree.wait_for_all("a.b", first);
    }
}

#[test]
fn a_stop_right_after_a_deletion_leaves_a_file() {
    let mut tree = Tree::new(&["a.b"], &[]).start();
    tree.send("a.b", 1);
    let path = tree.path("a.b");
    fs::remove_file(&path).unwrap();
    tree.send("a.b", 1);
    assert!(tree.server.stop().success(), "{}", tree.server.log());
    assert!(stored(&path).contains(&(tree.at - 1)));
}

#[test]
fn files_and_directories_that_come_and_go_are_found_within_seconds() {
    // Watched, walked, and something of each.
    for watches in ["65536", "0", "2"] {
        let tree = Tree::new(&["a.b"], &[("carbon.max_watches", watches)]).start();
        let whisper = tree.server.data().join("whisper");
        tree.wait_for_names("*.*", &["a.b"]);
        seconds(&tree.path("a.new"));
        seconds(&tree.path("deep.er.and.deeper"));
        tree.wait_for_names("**", &["a.b", "a.new", "deep.er.and.deeper"]);
        // A point that the other program writes is drawn.
        let mut file = File::open_mut(&tree.path("a.new"), Lock::None).unwrap();
        let at = now();
        file.update(Timestamp(at), Point::new(at, 7.0)).unwrap();
        tree.server.wait_for("a.new", |values| values == [7.0]);
        // A tree that was made elsewhere.
        let elsewhere = tree.server.dir.path().join("elsewhere");
        seconds(&elsewhere.join("x/y.wsp"));
        seconds(&elsewhere.join("z.wsp"));
        fs::rename(&elsewhere, whisper.join("moved")).unwrap();
        tree.wait_for_names("moved.**", &["moved.x.y", "moved.z"]);
        seconds(&tree.path("moved.x.w"));
        tree.wait_for_names("moved.x.*", &["moved.x.w", "moved.x.y"]);
        fs::rename(whisper.join("moved"), whisper.join("again")).unwrap();
        tree.wait_for_names("moved.**", &[]);
        tree.wait_for_names("again.**", &["again.x.w", "again.x.y", "again.z"]);
        fs::remove_file(tree.path("a.new")).unwrap();
        fs::remove_dir_all(whisper.join("again")).unwrap();
        tree.wait_for_names("**", &["a.b", "deep.er.and.deeper"]);
    }
}

/// A name per file of the tree: hashed or not, as carbon has it.
fn tagged_tree() -> Tree {
    let tree = Tree::new(&["plain.a"], &[]);
    let whisper = tree.server.data().join("whisper");
    for name in ["m.t;env=prod;host=a", "m_DOT_t.x;env=prod"] {
        seconds(&carbon::series::unhashed_path(&whisper, name));
    }
    for name in ["h.t;env=prod;host=a", "h.t;env=test;host=a"] {
        seconds(&tree.path(name));
    }
    tree.start()
}

fn tagged(tree: &Tree) -> Vec<String> {
    let found = tree.server.json("/tags/findSeries?expr=env=~.");
    let found = found.as_array().unwrap().iter();
    found
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

fn tags(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = plumbago().arg("tags").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    (output.status.code(), out, error)
}

const UNHASHED: [&str; 2] = ["m.t;env=prod;host=a", "m_DOT_t.x;env=prod"];
const ALL: [&str; 4] = [
    "h.t;env=prod;host=a",
    "h.t;env=test;host=a",
    "m.t;env=prod;host=a",
    "m_DOT_t.x;env=prod",
];

#[test]
fn tagged_files_are_found_by_their_names_and_the_others_are_counted() {
    let tree = tagged_tree();
    assert_eq!(tagged(&tree), UNHASHED);
    tree.server.wait_until("the warning", |server| {
        server
            .log()
            .contains("2 tagged files whose names are not known yet")
    });
    assert_eq!(tree.counter("index_files_without_name"), 2);
    // One that another program makes now is found, too.
    let whisper = tree.server.data().join("whisper");
    seconds(&carbon::series::unhashed_path(&whisper, "n.t;env=new"));
    tree.server.wait_until("a new tagged file", |_| {
        tagged(&tree).contains(&"n.t;env=new".to_owned())
    });
}

#[test]
fn names_are_imported_from_a_file_and_from_a_server() {
    let mut tree = tagged_tree();
    let url = format!("http://{}", tree.server.address("render.http"));
    let file = tree.server.dir.path().join("names");
    let names = "# of the old server\nh.t;host=a;env=prod\nh.t;env=test;host=a\nm.t;env=prod;host=a\nplain.a\nbad;tag\n";
    fs::write(&file, names).unwrap();
    let file = file.to_str().unwrap();
    let (code, out, error) = tags(&["import", file, "--url", &url, "--dry-run"]);
    assert_eq!(
        out, "2 to add, 1 known already, 1 without tags, 1 refused\n",
        "{error}"
    );
    assert_eq!(code, Some(1));
    assert!(error.starts_with("refused: bad;tag: "), "{error}");
    assert_eq!(tagged(&tree), UNHASHED);
    let (_, out, error) = tags(&["import", file, "--url", &url]);
    assert_eq!(
        out, "2 added, 1 known already, 1 without tags, 1 refused\n",
        "{error}"
    );
    assert_eq!(tagged(&tree), ALL);
    assert_eq!(tree.counter("index_files_without_name"), 0);
    let (code, out, _) = tags(&["export", "--url", &url]);
    assert_eq!(
        (code, out.lines().collect::<Vec<_>>()),
        (Some(0), ALL.to_vec())
    );
    // Into another server, and into a directory.
    let other = Server::with(&[("stats.self", "false")]);
    let target = format!("http://{}", other.address("render.http"));
    let (code, out, error) = tags(&["import", &url, "--url", &target]);
    // A server answers with its untagged series, too, which need no registration.
    let added = "4 added, 0 known already, 1 without tags, 0 refused\n";
    assert_eq!((code, &*out), (Some(0), added), "{error}");
    let (_, out, _) = tags(&["export", "--url", &target, "--json"]);
    assert_eq!(serde_json::from_str::<Vec<String>>(&out).unwrap(), ALL);
    let directory = tree.server.dir.path().join("third");
    fs::create_dir(&directory).unwrap();
    let directory = directory.to_str().unwrap();
    let (code, out, error) = tags(&["import", &url, "--data", directory]);
    assert_eq!((code, &*out), (Some(0), added), "{error}");
    let (_, out, error) = tags(&["export", "--data", directory]);
    assert_eq!(out.lines().collect::<Vec<_>>(), ALL, "{error}");
    // What was imported is there after a restart, and its files are not nameless.
    tree.server.restart();
    assert_eq!(tagged(&tree), ALL);
    tree.server.wait_until("the count", |_| {
        tree.counter("index_files_without_name") == 0
    });
}

#[test]
fn hashed_files_that_appear_are_counted_and_those_of_known_series_are_not() {
    let tree = Tree::new(&["plain.a"], &[("carbon.infer_step", "false")]).start();
    let nameless = |server: &Server| server.metric("plumbago_carbon_index_files_without_name");
    // The round of the start is over when files are found at once.
    seconds(&tree.path("plain.b"));
    let found = |server: &Server, query: &str| server.json(&format!("/metrics/find?query={query}"));
    tree.server.wait_until("the new file is found", |server| {
        found(server, "plain.b") != serde_json::json!([])
    });
    // The server's own, whose name it knows.
    tree.server.lines(format!("own;dc=ams 1 {}\n", now()));
    let own = tree.path("own;dc=ams");
    tree.server.wait_until("its own file", |_| own.exists());
    // Another program's: in new directories, then in directories that are watched.
    for name in ["foreign;dc=ams", "foreign;dc=fra"] {
        seconds(&tree.path(name));
    }
    tree.server
        .wait_until("two files without a name", |server| nameless(server) == 2.0);
    let warning = "2 tagged files whose names are not known yet";
    assert!(tree.server.log().contains(warning), "{}", tree.server.log());
    fs::remove_file(tree.path("foreign;dc=ams")).unwrap();
    tree.server
        .wait_until("one file without a name", |server| nameless(server) == 1.0);
    // Its name comes with its next point.
    tree.server.lines(format!("foreign;dc=fra 1 {}\n", now()));
    tree.server
        .wait_until("no file without a name", |server| nameless(server) == 0.0);
}
