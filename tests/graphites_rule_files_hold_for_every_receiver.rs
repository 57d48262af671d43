//! whitelist.conf, blacklist.conf, rewrite-rules.conf and aggregation-rules.conf, as Graphite has
//! them: lines and statsd metrics go where the rules say, files are read again when they change, and
//! a bad file is named.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{Server, now, run};

/// Writes a file as editors do; its path.
fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let (new, path) = (directory.join("new"), directory.join(name));
    fs::write(&new, text).unwrap();
    fs::rename(&new, &path).unwrap();
    path
}

#[test]
fn lines_and_statsd_metrics_go_where_the_files_say_and_follow_them() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = write(directory.path(), name, text);
        format!("{:?}", path.to_str().unwrap())
    };
    let deny = file(
        "blacklist.conf",
        "# noise\n^noise\\.\nstats_counts\\.secret$\n",
    );
    let allow = file("whitelist.conf", "");
    let rewrite = file("rewrite-rules.conf", "[pre]\n^raw\\. = web.\n");
    let rules = file(
        "aggregation-rules.conf",
        "web.all.<what> (1) = sum web.*.<what>\nclicks.<kind> (1) = sum stats_counts.click.<kind>.*\n",
    );
    let server = Server::with(&[
        ("carbon.deny", &deny),
        ("carbon.allow", &allow),
        ("carbon.rewrite_rules", &rewrite),
        ("carbon.aggregation_rules", &rules),
    ]);
    let at = now();
    server.lines(format!(
        "raw.h1.hits 1 {at}\nweb.h2.hits 2 {at}\nnoise.x 1 {at}\nnoise.y 1 {at}\n"
    ));
    server.statsd("click.red.a:3|c\nclick.red.b:4|c\nsecret:1|c\nseen:1|c");
    server.wait_for("web.h1.hits", |values| values == [1.0]);
    server.wait_for("web.all.hits", |values| values == [3.0]);
    server.wait_for_sum("stats_counts.seen", 1.0);
    server.wait_for_sum("stats_counts.click.red.a", 3.0);
    server.wait_for_sum("clicks.red", 7.0);
    assert_eq!(
        server.json("/metrics/find?query=noise.*"),
        serde_json::json!([])
    );
    assert_eq!(
        server.json("/metrics/find?query=stats_counts.secret"),
        serde_json::json!([])
    );
    let denied = "plumbago_carbon_blacklist_matches_total";
    assert!(server.metric(denied) >= 3.0);

    // Changed files are noticed without a signal.
    file("blacklist.conf", "^web\\.h2\\.\n");
    file(
        "rewrite-rules.conf",
        "[post]\n^stats_counts\\.seen$ = seen.total\n",
    );
    server.wait_until("both files are read again", |server| {
        server.metric("plumbago_carbon_rules_reloads_total") >= 2.0
    });
    server.wait_until("the new list", |server| {
        server.lines(format!("noise.x 7 {at}\n"));
        !server.points("noise.x").is_empty()
    });
    server.wait_until("the new rules for the ids of statsd", |server| {
        server.statsd("seen:2|c\nsecret:1|c");
        !server.points("seen.total").is_empty() && !server.points("stats_counts.secret").is_empty()
    });
    let before = server.metric(denied);
    server.lines(format!("web.h2.hits 5 {at}\n"));
    server.wait_until("web.h2 is denied", |server| server.metric(denied) > before);

    // A file with a fault is named, and the rules stay.
    file("blacklist.conf", "^noise\\.\n(\n");
    server.wait_until("the bad file", |server| {
        server.log().contains("blacklist.conf:2: ")
    });
    server.lines(format!("noise.z 1 {at}\n"));
    server.wait_for("noise.z", |values| values == [1.0]);
}

#[test]
fn a_bad_file_is_refused_by_the_check_and_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = write(
        directory.path(),
        "aggregation-rules.conf",
        "a (10) = sum b\na (10) = last b\n",
    );
    let config = directory.path().join("plumbago.toml");
    let line = format!(
        "[carbon]\naggregation_rules = {:?}\n",
        path.to_str().unwrap()
    );
    fs::write(&config, line).unwrap();
    let checked = run(&["config", "--check", config.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(!checked.status.success(), "{said}");
    let expected = "aggregation-rules.conf:2: \"last\" is not a method, write one of sum, avg";
    assert!(said.contains(expected), "{said}");
    let mut server = Server::prepared(&[]);
    server.config = Some(config);
    server.launch();
    let status = server.end();
    assert!(!status.success());
    assert!(server.log().contains(expected), "{}", server.log());
}

#[test]
fn a_line_without_effect_fails_the_check_and_not_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = write(directory.path(), name, text);
        format!("{:?}", path.to_str().unwrap())
    };
    let rewrite = file("rewrite-rules.conf", "[pre]\n^a\\. = b.\n^b -> c\n");
    let deny = file("blacklist.conf", "^noise\\.\n");
    let text = format!("[carbon]\nrewrite_rules = {rewrite}\ndeny = {deny}\n");
    let config = directory.path().join("plumbago.toml");
    fs::write(&config, text).unwrap();
    let checked = run(&["config", "--check", config.to_str().unwrap()]);
    let (out, said) = (checked.stdout, checked.stderr);
    let (out, said) = (
        String::from_utf8_lossy(&out),
        String::from_utf8_lossy(&said),
    );
    assert!(!checked.status.success(), "{out}{said}");
    for summary in [
        "rewrite-rules.conf: 1 rule (1 in [pre], 0 in [post])",
        "blacklist.conf: 1 pattern",
    ] {
        assert!(out.contains(summary), "{out}");
    }
    let expected = "rewrite-rules.conf:3: \"^b -> c\" is neither a section nor a rule and is ignored, \
                    write \"pattern = replacement\"";
    assert!(
        said.contains("plumbago.toml:2: carbon.rewrite_rules: "),
        "{said}"
    );
    assert!(said.contains(expected), "{said}");
    let mut server = Server::prepared(&[]);
    server.config = Some(config);
    server.run();
    server.lines(format!("a.x 3 {}\n", now()));
    server.wait_for("b.x", |values| values == [3.0]);
    assert!(server.log().contains(expected), "{}", server.log());
}
