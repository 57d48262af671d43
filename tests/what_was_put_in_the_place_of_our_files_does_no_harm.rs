//! Links, pipes and directories in the place of our files, loops in the tree, files and directories
//! deleted under a running server.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use support::{Server, now, run};

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn committed(server: &Server) -> f64 {
    let text = server.get("/metrics").text();
    let name = "plumbago_carbon_journal_committed_points_total ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().parse().unwrap()
}

#[test]
fn links_pipes_and_loops_stop_neither_start_nor_queries() {
    let mut server = Server::with(&[
        ("stats.self", "false"),
        // A file for each series, without a wait for its second point.
        ("carbon.infer_step", "false"),
    ]);
    let at = now();
    let lines: String = (0..10).map(|n| format!("d.m{n} {n} {at}\n")).collect();
    server.lines(lines);
    server.statsd("level:42|g");
    server.wait_for("stats.gauges.level", |values| values.contains(&42.0));
    server.wait_until("files", |server| {
        fs::read_dir(server.data().join("whisper/d")).is_ok_and(|files| files.count() == 10)
    });
    assert!(server.stop().success());

    let data = server.data();
    let tree = data.join("whisper");
    let target = server.dir.path().join("target");
    fs::write(&target, "precious").unwrap();
    for (directory, name) in [("index", "names"), (".", "statsd-state")] {
        let path = data.join(directory).join(name);
        fs::remove_file(&path).unwrap();
        symlink(&target, &path).unwrap();
    }
    symlink(&target, data.join("statsd-state.new")).unwrap();
    mkfifo(&data.join("journal/0000000999.journal"));
    for n in [1, 2] {
        fs::remove_file(tree.join(format!("d/m{n}.wsp"))).unwrap();
    }
    fs::create_dir(tree.join("d/m1.wsp")).unwrap();
    mkfifo(&tree.join("d/m2.wsp"));
    symlink(&tree, tree.join("d/loop")).unwrap();
    symlink("..", tree.join("d/again")).unwrap();

    server.run();
    // What cannot be read is left out of an answer; it is listed, as Graphite lists it.
    let series = server.json("/render?format=json&from=-5min&target=d.*");
    assert!((8..=10).contains(&series.as_array().unwrap().len()));
    for n in [0, 3, 9] {
        server.wait_for(&format!("d.m{n}"), |values| values == [f64::from(n)]);
    }
    let found = server.json("/metrics/expand?leavesOnly=1&query=**");
    let found = found["results"].as_array().unwrap().len();
    assert!(found < 100, "{found} names of 10 files in a loop");
    server.lines(format!("d.m1 1 {at}\nd.m2 2 {at}\nafter 5 {at}\n"));
    server.wait_for("after", |values| values == [5.0]);
    assert!(server.stop().success(), "{}", server.log());
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert!(
        data.join("statsd-state")
            .symlink_metadata()
            .unwrap()
            .is_file()
    );
    let log = server.log();
    for said in ["names is not an index", "it is a symbolic link"] {
        assert!(log.contains(said), "{said}:\n{log}");
    }
}

#[test]
fn what_is_ours_is_for_the_owner_alone() {
    let mut server = Server::start();
    server.statsd("a:1|c");
    server.wait_for_sum("stats_counts.a", 1.0);
    assert!(server.stop().success());
    let mode = |name: &str| {
        let path = server.data().join(name);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    for directory in ["index", "journal"] {
        assert_eq!(mode(directory), 0o700, "{directory}");
    }
    for file in ["lock", "index/names", "statsd-state"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    let segments = fs::read_dir(server.data().join("journal")).unwrap();
    for segment in segments {
        let found = segment.unwrap().metadata().unwrap();
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_lock_that_was_deleted_is_noticed_and_a_second_server_still_refused() {
    let server = Server::start();
    fs::remove_file(server.data().join("lock")).unwrap();
    server.wait_until("line in the log", |server| {
        server.log().contains("lock was removed or replaced")
    });
    let second = run(&[
        "serve",
        "--data",
        server.data().to_str().unwrap(),
        "--set",
        "render.http=127.0.0.1:0",
    ]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(
        !second.status.success() && said.contains("in use by another"),
        "{said}"
    );
}

#[test]
fn a_data_directory_that_is_gone_is_noticed_and_nothing_false_is_promised() {
    let server = Server::with(&[("stats.self", "false"), ("journal.sync", "10ms")]);
    server.lines(format!("a.b 1 {}\n", now()));
    server.wait_until("commit", |server| committed(server) >= 1.0);
    let before = committed(&server);
    fs::remove_dir_all(server.data()).unwrap();
    server.lines(format!("a.c 2 {}\na.b 3 {}\n", now(), now() - 10));
    server.wait_for("a.c", |values| values == [2.0]);
    server.wait_until("line in the log", |server| {
        let log = server.log();
        log.contains("was removed or replaced") && log.contains("has been deleted")
    });
    assert_eq!(committed(&server), before);
    // Nor is an event taken that the next start would not have.
    let answer = server.post("/events/", r#"{"what":"gone"}"#);
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(answer.text().contains("was removed or replaced"));
}

#[test]
fn pipes_among_dashboards_and_as_the_configuration_stop_nothing() {
    let mut server = Server::prepared(&[]);
    let file = server.dir.path().join("plumbago.toml");
    fs::write(&file, "[log]\nlevel = \"info\"\n").unwrap();
    server.config = Some(file.clone());
    let dashboards = server.data().join("dashboards");
    fs::create_dir_all(&dashboards).unwrap();
    mkfifo(&dashboards.join("pipe.toml"));
    symlink("/dev/zero", dashboards.join("endless.toml")).unwrap();
    server.run();
    for name in ["pipe", "endless"] {
        let page = server.get(&format!("/dashboards/{name}")).text();
        assert!(page.contains("is not a regular file"), "{page}");
    }
    fs::remove_file(&file).unwrap();
    mkfifo(&file);
    server.signal(Signal::HUP);
    server.wait_until("an answer", |server| {
        server
            .log()
            .contains("plumbago.toml: is not a regular file")
    });
    assert!(server.stop().success(), "{}", server.log());
}
