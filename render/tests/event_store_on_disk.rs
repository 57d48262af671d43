//! The event store's files: what survives, what is refused, what goes.

#![allow(clippy::unwrap_used)]

#[path = "support/events.rs"]
mod support;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;

use render::events::{Draft, Error, Event, Options, Status, Store};
use support::{band, draft, open, query, verdict, whats};

#[test]
fn what_is_past_the_retention_goes() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    store.insert(draft("old", "x", now - 7200.0)).unwrap();
    store
        .insert(band("old, but ends late", "x", now - 7200.0, now - 60.0))
        .unwrap();
    store.insert(draft("new", "x", now)).unwrap();
    drop(store);
    let options = Options {
        retention: settings::Span::seconds(3600),
        ..Options::default()
    };
    let store = Store::open(&directory.path().join("made/events.db"), &options).unwrap();
    // The writer sweeps before its first change, and this waits for one.
    store.insert(draft("newest", "", now)).unwrap();
    let left = store.query(&query("*"), 0.0, 1e11, 10).unwrap();
    assert_eq!(whats(&left), ["old, but ends late", "new", "newest"]);
    assert_eq!(store.query(&query("x"), 0.0, 1e11, 10).unwrap().len(), 2);
}

#[test]
fn importing_twice_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    store.insert(draft("own", "", 5.0)).unwrap();
    let event = |id: i64, what: &str, rollback_of: Option<i64>| Event {
        id,
        what: what.to_owned(),
        when: 7.5,
        rollback_of,
        ..Event::default()
    };
    // The first id is another event's here; two events are equal; the last ones have no ids.
    let file = || {
        vec![
            event(1, "theirs", None),
            event(2, "undoing", Some(1)),
            event(3, "theirs", None),
            event(0, "without id", None),
            event(0, "without id", None),
        ]
    };
    assert_eq!(store.import(file()).unwrap(), 5);
    let before = store.export(0, usize::MAX).unwrap();
    assert_eq!(store.import(file()).unwrap(), 0);
    assert_eq!(store.export(0, usize::MAX).unwrap(), before);
    let undoing = before.iter().find(|event| event.what == "undoing").unwrap();
    let undone = store.event(undoing.rollback_of.unwrap()).unwrap();
    assert_eq!((undone.what.as_str(), undone.id > 1), ("theirs", true));
}

#[test]
fn an_export_imports_into_an_empty_store_as_it_was() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (from, to) = (open(here.path()), open(there.path()));
    from.insert(draft("gap", "", 1.0)).unwrap();
    let first = from
        .insert(band("first é", "a b", 5.25, 9.5))
        .unwrap()
        .event;
    let second = Draft {
        rollback_of: Some(Some(first.id)),
        link: Some(Some("https://x/".to_owned())),
        key: Some("k".to_owned()),
        status: Some(Status::RolledBack),
        ..draft("second", "a", 7.0)
    };
    from.insert(second).unwrap();
    from.remove(1).unwrap();
    let events = from.export(0, usize::MAX).unwrap();
    assert_eq!(to.import(events.clone()).unwrap(), 2);
    assert_eq!(to.export(0, usize::MAX).unwrap(), events);
    assert_eq!(
        to.import(events.clone()).unwrap(),
        0,
        "a second time changes nothing"
    );

    // Into a store whose ids are taken by other events, references move along.
    let elsewhere = tempfile::tempdir().unwrap();
    let busy = open(elsewhere.path());
    for i in 0..3 {
        busy.insert(draft("mine", "", f64::from(i))).unwrap();
    }
    assert_eq!(busy.import(events).unwrap(), 2);
    let moved = busy.query(&query("a"), 0.0, 100.0, 10).unwrap();
    assert_eq!(whats(&moved), ["first é", "second"]);
    assert_eq!(moved[1].rollback_of, Some(moved[0].id));
}

#[test]
fn a_database_of_a_newer_version_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let error = Store::open(&path, &Options::default()).err().unwrap();
    assert!(error.to_string().contains("schema 99"), "{error}");
    assert!(path.exists(), "it is not damaged");
}

/// A closed database with a few events, and its bytes.
fn closed(path: &Path) -> Vec<u8> {
    let store = Store::open(path, &Options::default()).unwrap();
    for i in 0..200 {
        let what = format!("event {i} {}", "x".repeat(300));
        store.insert(draft(&what, "a b", f64::from(i))).unwrap();
    }
    drop(store);
    std::fs::read(path).unwrap()
}

#[test]
fn a_damaged_database_is_set_aside_and_a_new_one_begun() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    let sound = closed(&path);
    let half = sound[..sound.len() / 2].to_vec();
    let zeroed = vec![0; sound.len()];
    let noise = |n: usize| (0..n).map(|i| (i * 167 % 251) as u8 ^ 0x5a);
    let random: Vec<u8> = noise(sound.len()).collect();
    let mut header = sound.clone();
    header.splice(..64, noise(64));
    let mut inside = sound.clone();
    let middle = sound.len() / 2 / 4096 * 4096;
    inside.splice(middle..middle + 4096, noise(4096));
    let text = b"this is no database, it only has its name".to_vec();
    let kinds = [half, zeroed, random, header, inside, text];
    for (n, damaged) in kinds.iter().enumerate() {
        std::fs::write(&path, damaged).unwrap();
        std::fs::write(directory.path().join("events.db-wal"), "left over").unwrap();
        let store = Store::open(&path, &Options::default()).unwrap();
        assert_eq!(store.stats().set_aside.load(Relaxed), 1, "{n}");
        let aside = match n {
            0 => "events.db.corrupt".to_owned(),
            n => format!("events.db.corrupt-{}", n + 1),
        };
        assert_eq!(
            &std::fs::read(directory.path().join(aside)).unwrap(),
            damaged
        );
        assert!(store.export(0, usize::MAX).unwrap().is_empty());
        store.insert(draft("goes on", "a", 1.0)).unwrap();
        drop(store);
        let store = Store::open(&path, &Options::default()).unwrap();
        assert_eq!(store.stats().set_aside.load(Relaxed), 0);
        assert_eq!(store.export(0, usize::MAX).unwrap().len(), 1);
    }
}

#[test]
fn damage_that_shows_later_is_an_error_for_who_asks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    closed(&path);
    let store = Store::open(&path, &Options::default()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    let noise = vec![0x5a; length as usize - 4096];
    std::os::unix::fs::FileExt::write_all_at(&file, &noise, 4096).unwrap();
    let error = store.query(&query("*"), 0.0, 1e9, 1000).unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "{error}");
    assert!(store.stats().damaged.load(Relaxed) > 0);
    // Cut under an open connection: an error again, no signal.
    file.set_len(4096).unwrap();
    assert!(store.export(0, usize::MAX).is_err());
}

#[test]
fn its_files_are_private_plain_files() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let path = file("events.db");
    closed(&path);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let store = Store::open(&path, &Options::default()).unwrap();
    store.insert(draft("x", "a", 1.0)).unwrap();
    for name in ["events.db", "events.db-wal", "events.db-shm"] {
        let mode = std::fs::metadata(file(name)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(store);
    // A directory above may be a link: only the files themselves must not be.
    symlink(directory.path(), file("link")).unwrap();
    let linked = file("link").join("events.db");
    drop(Store::open(&linked, &Options::default()).unwrap());

    let refused = |path: &Path| {
        let error = Store::open(path, &Options::default()).err().unwrap();
        let error = error.to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(error.contains("not a plain file"), "{error}");
    };
    symlink(&path, file("symlink.db")).unwrap();
    refused(&file("symlink.db"));
    std::fs::create_dir(file("directory.db")).unwrap();
    refused(&file("directory.db"));
    let made = std::process::Command::new("mkfifo")
        .arg(file("fifo.db"))
        .status();
    assert!(made.unwrap().success());
    refused(&file("fifo.db"));
}

#[test]
fn a_database_that_somebody_else_writes_to_is_waited_for_and_then_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let other = rusqlite::Connection::open(directory.path().join("made/events.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = store.insert(draft("a", "", 1.0));
    assert!(matches!(refused, Err(Error::Locked(_))), "{refused:?}");
    let reading = store.query(&query("*"), 0.0, 10.0, 10).unwrap();
    assert_eq!(reading, [], "reading goes on");
    other.execute_batch("COMMIT").unwrap();
    store.insert(draft("b", "", 1.0)).unwrap();
    let stored = store.query(&query("*"), 0.0, 10.0, 10).unwrap();
    assert_eq!(whats(&stored), ["b"]);
}

/// Run as a child by the test below: stores events until it is killed, printing each id once the
/// store has answered.
#[test]
fn child_that_posts_until_killed() {
    let Some(directory) = std::env::var_os("PLUMBAGO_TEST_POST_UNTIL_KILLED") else {
        return;
    };
    let store = open(Path::new(&directory));
    for i in 0.. {
        let saved = store.insert(draft("posted", "kill", f64::from(i))).unwrap();
        println!("stored {}", saved.event.id);
    }
}

#[test]
fn what_was_answered_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_posts_until_killed", "--nocapture"])
        .env("PLUMBAGO_TEST_POST_UNTIL_KILLED", directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ids = lines.filter_map(|line| {
        let line = line.ok()?;
        line.rsplit_once("stored ")?.1.parse::<i64>().ok()
    });
    let ids: Vec<i64> = ids.take(25).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(ids.len(), 25);
    let store = open(directory.path());
    for id in ids {
        assert_eq!(store.event(id).unwrap().what, "posted");
    }
}

#[test]
fn a_database_of_version_1_gets_room_for_verdicts() {
    let dir = tempfile::tempdir().unwrap();
    let id = open(dir.path())
        .insert(draft("web 1", "deploy", 1000.0))
        .unwrap()
        .event
        .id;
    let path = dir.path().join("made/events.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(
        "DROP TABLE impacts; DROP TABLE revisions; DROP TABLE store; PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(db);
    let store = open(dir.path());
    assert_eq!(store.event(id).unwrap().what, "web 1");
    store.set_impact(id, verdict("first")).unwrap();
    assert_eq!(store.event(id).unwrap().impact.unwrap().sentence, "first");
}
