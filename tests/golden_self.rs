//! The server's own metrics have the names of carbon's, with values that fit.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::net::TcpStream;
use std::path::PathBuf;

use serde_json::Value;
use support::Server;

fn recording() -> Value {
    let golden = std::env::var_os("PLUMBAGO_GOLDEN").map(PathBuf::from);
    let golden = golden.unwrap_or_else(|| {
        [env!("CARGO_MANIFEST_DIR"), "tests/golden"]
            .iter()
            .collect()
    });
    let text = std::fs::read(golden.join("carbon-self.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The names of a list of the recording, without the host.
fn names(recording: &Value, list: &str) -> Vec<String> {
    let names = recording[list].as_array().unwrap().iter();
    let names = names.map(|name| name.as_str().unwrap().split_once('.').unwrap().1);
    names.map(str::to_owned).collect()
}

#[test]
fn golden_self_names_and_values() {
    let recording = recording();
    let names_of = |list: &str| names(&recording, list);
    let server = Server::with(&[
        ("stats.instance", "\"shard-7\""),
        ("stats.interval", "\"1s\""),
    ]);
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .replace('.', "_");
    let prefix = format!("carbon.agents.{host}-shard-7.");
    let _open = TcpStream::connect(server.address("carbon.line_tcp")).unwrap();
    server.lines("a.b 1 N\na.c 2 N\n");
    let mut wanted = names_of("busy");
    wanted.extend(names_of("idle"));
    wanted.extend(names_of("instance"));
    wanted.sort();
    wanted.dedup();
    // The server answers no queries for many series at once here: the mean has nothing to report.
    wanted.retain(|name| name != "cache.bulk_queries_average_size");
    // Without lists of names nothing counts what they match.
    let has_lists = server.get("/metrics").text().contains("blacklist_matches");
    wanted.retain(|name| has_lists || !["blacklistMatches", "whitelistRejects"].contains(&&**name));
    let values = |name: &str| {
        let points = server.points(&format!("{prefix}{name}"));
        points
            .into_iter()
            .map(|(value, _)| value)
            .collect::<Vec<f64>>()
    };
    for name in &wanted {
        server.wait_until(name, |_| !values(name).is_empty());
    }
    server.wait_until("an update", |_| {
        values("updateOperations").iter().any(|n| *n > 0.0)
    });
    let largest = |name: &str| values(name).into_iter().fold(f64::MIN, f64::max);
    for (name, least, most) in [
        ("activeConnections", 1.0, 2.0),
        ("avgUpdateTime", 1e-9, 10.0),
        ("cache.size", 0.0, 1e6),
        ("cache.queues", 0.0, 1e6),
        ("cache.queries", 0.0, 1e6),
        ("committedPoints", 1.0, 1e6),
        ("cpuUsage", 0.0, 6_400.0),
        ("creates", 1.0, 1e6),
        ("memUsage", 1e6, 1e12),
        ("metricsReceived", 1.0, 1e6),
        ("pointsPerUpdate", 1.0, 1e3),
        ("updateOperations", 1.0, 1e6),
        ("blacklistMatches", 0.0, 0.0),
        ("whitelistRejects", 0.0, 0.0),
        ("cache.bulk_queries", 0.0, 0.0),
        ("cache.overflow", 0.0, 0.0),
        ("droppedCreates", 0.0, 0.0),
        ("errors", 0.0, 0.0),
    ] {
        if !wanted.contains(&name.to_owned()) {
            assert!(!has_lists, "{name} is not in the recording");
            continue;
        }
        let largest = largest(name);
        assert!((least..=most).contains(&largest), "{name}: {largest}");
    }
    assert_eq!(wanted.len(), if has_lists { 18 } else { 16 });
}
