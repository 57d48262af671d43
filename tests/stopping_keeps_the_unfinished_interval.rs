//! SIGTERM in the middle of an interval: what was counted goes on counting after the next start.

mod support;

use support::Server;

#[test]
fn counts_timers_and_gauges_continue_after_a_restart() {
    // No flush happens within an hour, so whatever arrives comes out of the saved interval.
    let mut server = Server::with(&[("statsd.flush_interval", "1h")]);
    server.statsd("orders:3|c\norders:4|c\nwait:10|ms\nwait:30|ms\nqueue:7|g\nusers:ann|s");
    // The admin interface answers from the same table, so it says when the datagram is in.
    server.wait_for_admin("counters", "orders");
    server.wait_for_admin("timers", "wait");
    let status = server.stop();
    assert!(status.success(), "{status}:\n{}", server.log());

    server
        .settings
        .insert("statsd.flush_interval".into(), "1s".into());
    server.run();
    server.statsd("orders:5|c\nqueue:+1|g");
    server.wait_for_sum("stats_counts.orders", 12.0);
    server.wait_for_sum("stats.timers.wait.count", 2.0);
    server.wait_for_sum("stats.timers.wait.sum", 40.0);
    server.wait_for("stats.gauges.queue", |values| values.last() == Some(&8.0));
    server.wait_for("stats.sets.users.count", |values| values.contains(&1.0));
}
