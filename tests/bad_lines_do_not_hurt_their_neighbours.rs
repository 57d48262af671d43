//! A bad line is counted and skipped; what stands beside it in the packet or stream is taken.

mod support;

use support::{Server, now};

const HOSTILE: &[&str] = &[
    "",
    ":",
    "|",
    "::|",
    "nonsense",
    "a:1",
    "a:|c",
    "a:x|c",
    "a:1|c|@",
    "a:1|c|@+0.1",
    "a:1|c|@ 0.5",
    "constructor:1|ms|@nan",
    "a:1e999|c",
    "a:nan|g",
    "a:-5|ms",
    "_e{5,1}:abc",
    "_e{99999999999,1}:a|b",
    "_sc|x",
    "a:1|c|#",
    "\u{0}:1|c|@-1",
    "a:1|c|@0|@1",
    "a:0x|c",
];

#[test]
fn in_a_statsd_packet() {
    let server = Server::start();
    for (index, bad) in HOSTILE.iter().enumerate() {
        server.statsd(format!(
            "before:1|c\n{bad}\nafter{index}.x:1|c\nafter:1|c\n"
        ));
    }
    server.statsd(b"before:1|c\n\xff\xfe\x00:\xff|\xffc\nafter:1|c");
    let total = HOSTILE.len() as f64 + 1.0;
    server.wait_for_sum("stats_counts.before", total);
    server.wait_for_sum("stats_counts.after", total);
    server.wait_for("stats_counts.statsd.bad_lines_seen", |values| {
        values.iter().sum::<f64>() > 10.0
    });
}

#[test]
fn in_a_carbon_stream() {
    let server = Server::start();
    let at = now() - 30;
    let mut stream = Vec::new();
    for (index, bad) in [
        "",
        "a",
        "a b c",
        "a 1 x",
        "a nan 1",
        "../../etc/passwd 1 1",
        "a 1 1 1 1",
        ";;; 1 1",
    ]
    .iter()
    .enumerate()
    {
        stream.extend_from_slice(format!("good.n{index} {index} {at}\n{bad}\n").as_bytes());
    }
    stream.extend_from_slice(b"\xff\xfe\x00 1 1\n");
    stream.extend_from_slice(format!("good.last 5 {at}\n").as_bytes());
    server.lines(&stream);
    server.wait_for("good.last", |values| values == [5.0]);
    server.wait_for_sum("sumSeries(good.n*)", (0..8).sum::<i32>().into());
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn bad_requests_get_a_sentence() {
    let server = Server::start();
    for path in [
        "/render?target=sumSeries(&strict=1",
        "/render?target=noSuchFunction(a)",
        "/render?target=a&from=yesterdayish",
        "/metrics/find",
        "/events/999999/",
        "/no/such/path",
        "/dashboards/none",
    ] {
        let answer = server.get(path);
        assert!(
            (400..500).contains(&answer.status),
            "{path}: {}",
            answer.head
        );
        assert!(
            answer.text().split_whitespace().count() >= 2,
            "{path}: {:?}",
            answer.text()
        );
    }
    for (body, path) in [
        ("{", "/events/"),
        ("[]", "/events/"),
        ("{\"tags\": \"deploy\"}", "/events/"),
    ] {
        let answer = server.post(path, body);
        assert!(
            (400..500).contains(&answer.status),
            "{path} {body}: {}",
            answer.head
        );
    }
    assert_eq!(server.get("/healthz").status, 200);
}
