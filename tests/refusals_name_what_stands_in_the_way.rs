//! What cannot start says why: the directory, the address, the process; and the exit codes.

mod support;

use std::net::TcpListener;

use support::{Server, plumbago, run};

#[test]
fn a_second_instance_is_refused_with_directory_and_process() {
    let server = Server::start();
    let second = plumbago().args(server.arguments()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stderr);
    let data = server.data().canonicalize().unwrap();
    assert!(text.contains(&data.display().to_string()), "{text}");
    let pid = format!("process {}", server.pid().as_raw_nonzero());
    assert!(text.contains(&pid), "{text}");
    // The one that runs is not disturbed.
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn an_address_in_use_is_refused_with_key_address_and_process() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    let server = Server::prepared(&[("carbon.line_tcp", &address)]);
    let refused = plumbago().args(server.arguments()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8_lossy(&refused.stderr);
    let expected = format!(
        "carbon.line_tcp: cannot listen on {address}: the address is in use by process {}",
        std::process::id()
    );
    assert!(text.contains(&expected), "{text}");
    assert!(!server.dir.path().join("ready.json").exists());
}

#[test]
fn exit_codes_are_0_done_1_failed_2_usage() {
    let code = |arguments: &[&str]| run(arguments).status.code();
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&["--version"]), Some(0));
    assert_eq!(code(&["config"]), Some(0));
    assert_eq!(
        code(&["config", "--check", "/nowhere/plumbago.toml"]),
        Some(1)
    );
    assert_eq!(
        code(&["serve", "--config", "/nowhere/plumbago.toml"]),
        Some(1)
    );
    assert_eq!(code(&["config", "--set", "statsd.udpp=x"]), Some(2));
    assert_eq!(code(&["--no-such-option"]), Some(2));
    assert_eq!(code(&["no-such-verb"]), Some(2));
}
