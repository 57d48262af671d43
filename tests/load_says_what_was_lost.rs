//! `plumbago load` against a real server, and against nobody.

mod support;

use std::net::UdpSocket;
use std::process::Output;

use support::{Server, reserved, run};

fn load(statsd: &str, admin: &str, more: &[&str]) -> Output {
    let mut arguments = vec!["load", "--statsd", statsd, "--admin", admin];
    arguments.extend(["--duration", "200ms", "--rate", "20000"]);
    arguments.extend(more);
    run(&arguments)
}

#[test]
fn what_was_sent_has_arrived_or_is_counted_as_lost() {
    let server = Server::start();
    let (statsd, admin) = (server.address("statsd.udp"), server.address("statsd.admin"));
    for more in [
        &["--names", "50"][..],
        &["--single", "--mix", "c:1,ms:2,h:1,d:1,g:1,s:1,a:1"],
    ] {
        let ran = load(statsd, admin, &[more, &["--max-loss", "0"]].concat());
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(
            ran.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        assert!(said.contains("lost      0 (0.000 %)"), "{said}");
    }
}

#[test]
fn datapoints_over_either_protocol_of_carbon_arrive() {
    let server = Server::start();
    let http = server.address("render.http");
    for (protocol, key) in [("lines", "carbon.line_tcp"), ("pickle", "carbon.pickle")] {
        let address = server.address(key);
        let ran = run(&[
            "load",
            "--carbon",
            address,
            "--protocol",
            protocol,
            "--http",
            http,
            "--names",
            "1200",
            "--rate",
            "20000",
            "--duration",
            "200ms",
            "--max-loss",
            "0",
        ]);
        let output = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(
            ran.status.success(),
            "{output}{}",
            String::from_utf8_lossy(&ran.stderr)
        );
        assert!(output.contains("lost      0 (0.000 %)"), "{output}");
    }
    server.wait_for("load.web.host0007.svc01.ep000.metric", |values| {
        !values.is_empty()
    });
    // The pickle receiver refuses lines: all are lost.
    let ran = run(&[
        "load",
        "--carbon",
        server.address("carbon.pickle"),
        "--http",
        http,
        "--duration",
        "50ms",
        "--max-loss",
        "0",
    ]);
    assert!(!ran.status.success());
}

#[test]
fn a_limit_of_loss_that_cannot_be_checked_is_a_failure() {
    let server = Server::start();
    let [nobody] = reserved();
    let statsd = server.address("statsd.udp");
    let ran = load(statsd, &nobody, &["--max-loss", "1"]);
    assert!(!ran.status.success());
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(
        said.contains("--max-loss cannot be checked") && said.contains(&nobody),
        "{said}"
    );
    assert!(load(statsd, &nobody, &[]).status.success());
}

#[test]
fn a_port_without_a_listener_is_a_failure() {
    let server = Server::start();
    let [nobody] = reserved();
    let http = server.address("render.http");
    let carbon = ["load", "--carbon", &nobody, "--http", http];
    let ran = run(&[&carbon[..], &["--duration", "200ms"]].concat());
    fails_at(&ran, &nobody);

    // Datagrams from elsewhere do not reach a connected socket, and its port is not given to others.
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    taken.connect(server.address("statsd.udp")).unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    // Whether or not the loss can be measured, here at another server.
    for admin in [&nobody, server.address("statsd.admin")] {
        fails_at(&load(&taken, admin, &[]), &taken);
    }
}

/// `ran` has failed with a sentence about `address`.
fn fails_at(ran: &Output, address: &str) {
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains(address), "{said}");
}
