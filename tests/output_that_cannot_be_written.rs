//! A terminal that is gone, a pipe that nobody reads, a log on a full disk: verbs end with the exit code that they
//! would have ended with, or with a sentence.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Output, Stdio};

fn plumbago(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plumbago"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn full() -> Stdio {
    File::options()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

/// A pipe whose reader is gone.
fn closed() -> Stdio {
    let (_, writer) = std::io::pipe().unwrap();
    writer.into()
}

fn said(ran: &Output) -> String {
    let [out, err] = [&ran.stdout, &ran.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

#[test]
fn what_cannot_be_said_on_standard_error_changes_no_exit_code() {
    let statsd = UdpSocket::bind("127.0.0.1:0").unwrap();
    let statsd = statsd.local_addr().unwrap().to_string();
    // A port that refuses.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = silent.local_addr().unwrap().to_string();
    drop(silent);
    let url = format!("http://{nobody}");
    for (arguments, code) in [
        (
            &[
                "load",
                "--statsd",
                &statsd,
                "--admin",
                &nobody,
                "--duration",
                "20ms",
            ][..],
            0,
        ),
        (&["impact", "1", "--url", &url], 3),
        (&["config", "--check", "/nowhere/plumbago.toml"], 1),
        (&["event", "list", "--url", &url], 1),
    ] {
        for stderr in [Stdio::piped(), full(), closed()] {
            let ran = plumbago(arguments).stderr(stderr).output().unwrap();
            assert_eq!(
                ran.status.code(),
                Some(code),
                "{arguments:?}: {}",
                said(&ran)
            );
        }
    }
}

#[test]
fn an_outcome_is_in_the_exit_code_though_nobody_reads_the_report() {
    let dir = tempfile::tempdir().unwrap();
    let names = dir.path().join("names.txt");
    std::fs::write(&names, "a;b=1\na;b\n").unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let [names, data] = [&names, &data].map(|path| path.to_str().unwrap());
    let import = ["tags", "import", names, "--data", data, "--dry-run"];
    for stdout in [Stdio::piped(), closed(), full()] {
        let ran = plumbago(&import).stdout(stdout).output().unwrap();
        assert_eq!(ran.status.code(), Some(1), "{}", said(&ran));
        assert!(!said(&ran).contains("panicked"), "{}", said(&ran));
    }
    // What cannot be printed for want of space is an error, and a reader that has enough is none.
    std::fs::write(names, "a;b=1\n").unwrap();
    let ran = plumbago(&import).stdout(full()).output().unwrap();
    assert_eq!(ran.status.code(), Some(1));
    assert!(
        said(&ran).contains("No space left on device"),
        "{}",
        said(&ran)
    );
    let ran = plumbago(&import).stdout(closed()).output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", said(&ran));
}
