//! `carbon.expire_after` and `plumbago expire`: files, names and tags of series that have been
//! silent for long go, and nothing else does.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use support::{Server, plumbago};

const DAY: Duration = Duration::from_secs(86_400);
const OLD: [&str; 3] = ["old.a.b", "old.c", "m;kind=old;only=old"];
const NEW: [&str; 3] = ["m;kind=new", "new.a", "written.of.late"];

fn file(server: &Server, name: &str) -> PathBuf {
    let mut path = PathBuf::new();
    carbon::series::file_path(&server.data().join("whisper"), name, &mut path);
    path
}

/// Has a file look as if it had been changed last a hundred days ago.
fn age(path: &Path) {
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - DAY * 100).unwrap();
}

/// Names of all series, tagged or not, sorted.
fn series(server: &Server) -> Vec<String> {
    let found = server.json("/metrics/expand?query=**&leavesOnly=1");
    let found = found["results"].as_array().unwrap().iter();
    let plain = found.map(|one| one.as_str().unwrap().to_owned());
    let plain = plain.filter(|name| !name.starts_with("_tagged."));
    let tagged = server.json("/tags/findSeries?expr=kind=~.%2B");
    let tagged = tagged.as_array().unwrap().iter();
    let tagged = tagged.map(|one| one.as_str().unwrap().to_owned());
    let mut all: Vec<String> = plain.chain(tagged).collect();
    all.sort();
    all
}

/// A stopped server with old and new series; the files of the old ones, and of a new one that some
/// other program writes, were changed last a hundred days ago.
fn aged(settings: &[(&str, &str)]) -> Server {
    let mut server = Server::with(&[("stats.self", "false")]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let then = now - 100 * 86_400;
    let old = OLD.map(|name| format!("{name} 1 {then}\n")).concat();
    let new = NEW.map(|name| format!("{name} 2 {now}\n")).concat();
    server.lines(old + &new);
    server.wait_until("series", |server| series(server).len() == 6);
    assert!(server.stop().success(), "{}", server.log());
    for name in OLD.iter().chain(&["written.of.late"]) {
        age(&file(&server, name));
    }
    let settings = settings.iter();
    server
        .settings
        .extend(settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    server
}

fn assert_only_new(server: &Server) {
    for name in OLD {
        assert!(!file(server, name).exists(), "{name}");
    }
    for name in NEW {
        assert!(file(server, name).exists(), "{name}");
    }
    assert!(!server.data().join("whisper").join("old").exists());
}

#[test]
fn a_running_server_removes_them_and_says_so() {
    let mut server = aged(&[("carbon.expire_after", "90d")]);
    server.run();
    server.wait_until("expiry", |server| series(server) == NEW);
    assert_only_new(&server);
    // Counted when all of them have gone.
    server.wait_until("count", |server| {
        server.metric("plumbago_carbon_expired_total") == 3.0
    });
    let tags = server.json("/tags");
    let tags = tags.as_array().unwrap().iter();
    let tags: Vec<&str> = tags.map(|tag| tag["tag"].as_str().unwrap()).collect();
    assert_eq!(tags, ["kind", "name"]);
    server.wait_until("line in the log", |server| {
        server.log().contains("series without points expired")
    });
    // New data makes the series again.
    server.lines("old.c 7 N\n");
    server.wait_for("old.c", |values| values == [7.0]);
    server.restart();
    assert_eq!(server.points("old.c").len(), 1);
    assert_eq!(series(&server).len(), 4);
}

#[test]
fn the_verb_lists_first_and_removes_when_no_server_runs() {
    let mut server = aged(&[]);
    let expire = |server: &Server, arguments: &[&str]| {
        let mut command = plumbago();
        command.arg("expire").arg("--data").arg(server.data());
        let output = command.args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, _, error) = expire(&server, &["--dry-run"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("carbon.expire_after"), "{error}");

    let (code, list, _) = expire(&server, &["--older-than", "90d", "--dry-run"]);
    assert_eq!(code, Some(0));
    let mut lines: Vec<&str> = list.lines().collect();
    let total = lines.pop().unwrap();
    assert!(total.starts_with("3 of 6 series idle, "), "{list}");
    let mut names = Vec::new();
    for line in lines {
        let [age, size, name] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        assert!(
            age.starts_with("100d") && size.ends_with("KiB") && size != "0KiB",
            "{line}"
        );
        names.push(name);
    }
    names.sort_unstable();
    let mut expected = OLD;
    expected.sort_unstable();
    assert_eq!(names, expected);
    let (_, list, _) = expire(&server, &["--older-than", "101d", "--dry-run"]);
    assert!(list.starts_with("0 of 6 series"), "{list}");

    server.run();
    assert_eq!(series(&server).len(), 6);
    // Beside a server it lists and does not remove.
    let (code, list, _) = expire(&server, &["--older-than", "90d", "--dry-run"]);
    assert!(code == Some(0) && list.contains("3 of 6"), "{list}");
    let (code, _, error) = expire(&server, &["--older-than", "90d"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("in use by another plumbago"), "{error}");
    assert_eq!(series(&server).len(), 6);
    assert!(server.stop().success());

    let (code, list, error) = expire(&server, &["--older-than", "90d"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(list.contains("3 of 6 series removed, "), "{list}");
    assert_only_new(&server);
    server.run();
    assert_eq!(series(&server), NEW);
    assert!(server.stop().success());

    // Ages are whole seconds, and the last points are from just now.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !expire(&server, &["--older-than", "1ms", "--dry-run"])
        .1
        .contains("3 of 3")
    {
        assert!(Instant::now() < deadline, "the series do not age");
    }
    // With a clock that is wrong, everything looks old.
    let (code, _, error) = expire(&server, &["--older-than", "1ms"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("check the clock"), "{error}");
    assert!(file(&server, "new.a").exists());
    let (code, list, error) = expire(&server, &["--older-than", "1ms", "--all"]);
    assert!(
        code == Some(0) && list.contains("3 of 3 series removed"),
        "{list}{error}"
    );
    assert!(!file(&server, "new.a").exists());
}
