//! A small shop and some machines, for tests of the page.

#![allow(dead_code, reason = "each test binary uses its part of this")]

use crate::support::{Server, now};

/// The base of all URLs of a server.
pub(crate) fn at(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.address("render.http"))
}

/// The lines of a series with a value every ten seconds of the last ten minutes.
pub(crate) fn series(name: &str, value: impl Fn(i64) -> f64) -> String {
    let now = now();
    (0..60)
        .map(|n| format!("{name} {} {}\n", value(n), now - n * 10))
        .collect()
}

/// A server with the series of a small shop and of some machines.
pub(crate) fn shop() -> Server {
    let server = Server::with(&[("carbon.infer_step", "false")]);
    let mut lines = String::new();
    for name in ["logins", "pages", "errors.500", "errors.503"] {
        let by = if name.starts_with("errors") {
            0.1
        } else {
            10.0
        };
        let value = move |n: i64| by * (n % 7 + 1) as f64;
        lines += &series(&format!("stats.shop.{name}"), value);
        lines += &series(&format!("stats_counts.shop.{name}"), value);
    }
    for (service, errors) in [("web", 1.0), ("search", 20.0)] {
        for prefix in ["stats", "stats_counts"] {
            lines += &series(&format!("{prefix}.shop.{service}.requests"), |_| 100.0);
            lines += &series(&format!("{prefix}.shop.{service}.500"), |_| errors);
        }
    }
    for host in ["web1", "web2"] {
        lines += &series(&format!("collectd.{host}.load.load.shortterm"), |n| {
            // One value of the first host is absurd.
            if host == "web1" && n == 30 {
                1e300
            } else {
                (n % 5) as f64
            }
        });
        let states = [("idle", 180.0), ("user", 20.0), ("system", 0.0)];
        for (state, value) in states {
            lines += &series(&format!("servers.{host}.cpu.total.{state}"), |_| value);
        }
        lines += &series(&format!("collectd.{host}.memory.memory-used"), |_| {
            2.5 * 1024.0 * 1024.0 * 1024.0
        });
    }
    server.lines(lines);
    server.wait_until("the series", |server| {
        let found = server.json("/metrics/find?query=collectd.*");
        server.json("/received")["graphs"] == true
            && found.as_array().is_some_and(|all| all.len() == 2)
    });
    server
}

pub(crate) fn post(server: &Server, event: &serde_json::Value) {
    let posted = server.post("/events/", &event.to_string());
    assert_eq!(posted.status, 200, "{}", posted.text());
}
