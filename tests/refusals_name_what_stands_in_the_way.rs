//! What cannot start says why: the directory, the address, the process; and the exit codes.

mod support;

use std::fs;
use std::net::TcpListener;
use std::path::Path;

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

const BAD: &str = r#"[statsd]
udp = ["foo", "127.0.0.1:99999"]
flush_interval = "0s"
unix_mode = "999"

[carbon]
whisper_dir = "/nowhere/at/all"

[render]
http = ["127.0.0.1"]
time_zone = "Mars"
default_events = "deploy -"

[events]
rules = [
    {tags = "deploy", color = "red"},
    {label = "a"},
]

[log]
level = "verbose"
"#;

#[test]
fn check_and_serve_report_every_mistake_of_a_file_in_the_same_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plumbago.toml");
    fs::write(&path, BAD).unwrap();
    let file = path.to_str().unwrap();
    let data = dir.path().join("data");
    let expected = r#"FILE:2: statsd.udp: "foo" is not an address, write "127.0.0.1:8125"
FILE:2: statsd.udp: "127.0.0.1:99999" is not an address, write "127.0.0.1:8125"
FILE:3: statsd.flush_interval: "0s" is too small, write "1ms" or more
FILE:4: statsd.unix_mode: "999" is not a file mode in octal, write "0660"
FILE:7: carbon.whisper_dir: "/nowhere/at/all" does not exist: create it first, or leave the key empty for "whisper" in the data directory
FILE:10: render.http: "127.0.0.1" is not an address, write "127.0.0.1:8080"
FILE:11: render.time_zone: "Mars" is not an IANA time zone, write "UTC" or "Europe/Berlin"
FILE:12: render.default_events: "deploy -": a "-" stands alone: write the tag right after it, as in "-canary"
FILE:17: events.rules: a rule has either "tags" or "metric"
FILE:21: log.level: "verbose" is not a log level, write "info", "debug" or "info,carbon=debug"
"#;
    let data = data.to_str().unwrap();
    for arguments in [
        &["config", "--check", file][..],
        &["config", "--config", file],
        &["serve", "--config", file, "--data", data],
    ] {
        let refused = run(arguments);
        let said = String::from_utf8_lossy(&refused.stderr).replace(file, "FILE");
        assert_eq!(said, expected, "{arguments:?}");
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
    }
    assert!(!Path::new(data).exists());
    assert!(!Path::new("/nowhere").exists());
}

#[test]
fn overrides_are_refused_by_their_own_text() {
    let refused = run(&[
        "serve",
        "--set",
        "statsd.flush_interval=0s",
        "--set",
        "statsd.udp=foo",
    ]);
    assert_eq!(
        String::from_utf8_lossy(&refused.stderr),
        "--set statsd.flush_interval=0s: \"0s\" is too small, write \"1ms\" or more\n\
         --set statsd.udp=foo: \"foo\" is not an address, write \"127.0.0.1:8125\"\n"
    );
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn an_unknown_level_in_the_environment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = plumbago()
        .args(["serve", "--data"])
        .arg(dir.path())
        .env("RUST_LOG", "bogus")
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&refused.stderr),
        "plumbago: RUST_LOG: \"bogus\" is not a log level, write \"info\", \"debug\" or \"info,carbon=debug\"\n"
    );
    assert_eq!(refused.status.code(), Some(1));
}

#[test]
fn a_broken_dashboard_is_refused_by_the_check_and_left_out_by_the_server() {
    let mut server = Server::prepared(&[]);
    let dashboards = server.data().join("dashboards");
    fs::create_dir_all(&dashboards).unwrap();
    let broken = dashboards.join("shop.toml");
    let text = "title = \"Shop\"\n\n[[panels]]\ntitle = \"A\"\ntargets = [\"skale(a, 2)\"]\n";
    fs::write(&broken, text).unwrap();
    let file = server.dir.path().join("plumbago.toml");
    fs::write(&file, format!("data = {:?}\n", server.data())).unwrap();
    let expected = format!(
        "{}:5: panels.targets: \"skale(a, 2)\": Received request for unknown function: skale (did you mean scale?)\n",
        broken.display()
    );
    let checked = run(&["config", "--check", file.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&checked.stderr), expected);
    assert_eq!(checked.status.code(), Some(1));
    server.run();
    assert!(server.log().contains(expected.trim()), "{}", server.log());
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_limit_of_open_files_that_is_too_low_is_refused() {
    let mut server = Server::prepared(&[]);
    server.first = Some("ulimit -n 24".to_owned());
    server.launch();
    assert_eq!(server.end().code(), Some(1));
    let log = server.log();
    assert!(
        log.contains("open files: the limit is 24, a server needs 48: raise it"),
        "{log}"
    );
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
    // Options of a verb stand behind it.
    assert_eq!(code(&["--set", "statsd.udp=x", "serve"]), Some(2));
    assert_eq!(code(&["no-such-verb"]), Some(2));
}

#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = plumbago()
        .args(["completions", "bash"])
        .stdout(writer)
        .output();
    let ended = ended.unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert!(ended.status.success());
}
