//! `plumbago event`, the real binary against the real routes.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use render::events::{Event, Options, Status, Store, TagQuery};
use render::http::events::{EventsState, routes};
use render::http::guard::{Guard, Options as AuthOptions};
use render::http::impact::{self, ImpactState};
use render::impact::{Outcome, Report};
use render::verdicts::Handle;
use rustix::process::{Pid, Signal, kill_process};

struct Server {
    address: SocketAddr,
    store: Arc<Store>,
    _runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        Self::with(&AuthOptions::default())
    }

    fn with(auth: &AuthOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("events.db"), &Options::default()).unwrap();
        let router = routes(EventsState {
            store: Arc::clone(&store),
            guard: Arc::new(Guard::new(auth, true)),
            time_zone: jiff::tz::TimeZone::UTC,
            clock: None,
            room: Default::default(),
            base_path: Default::default(),
            page: None,
        });
        let router = router.merge(impact::routes(ImpactState {
            store: Arc::clone(&store),
            handle: Handle::default(),
            guard: Arc::new(Guard::new(auth, true)),
            room: Default::default(),
            base_path: Default::default(),
            page: None,
            app: None,
        }));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            store,
            _runtime: runtime,
            _directory: directory,
        }
    }

    fn event(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = plumbago(&format!("http://{}", self.address));
        command.args(arguments);
        command
    }

    fn only_event(&self) -> Event {
        let mut events = self.store.export(0, usize::MAX).unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }
}

/// `plumbago event` with nothing of our own environment that it would listen to.
fn plumbago(url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plumbago"));
    command
        .arg("event")
        .env("PLUMBAGO_URL", url)
        .env_remove("PLUMBAGO_TOKEN")
        .env_remove("PLUMBAGO_STATSD");
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_posted_event_is_listed() {
    let server = Server::start();
    let posted = server.event(&[
        "post",
        "web 1.4",
        "--tag",
        "deploy web",
        "-t",
        "env:prod",
        "--data",
        "by me",
        "--when",
        "1700000000",
        "--duration",
        "1m30s",
        "--status",
        "failed",
        "--link",
        "https://ci/7",
    ]);
    assert_eq!(text(&posted.stderr), "");
    assert_eq!(
        text(&posted.stdout),
        format!("http://{}/events/1/\n", server.address)
    );
    let event = server.only_event();
    assert_eq!((event.when, event.until), (1.7e9, Some(1.7e9 + 90.0)));
    assert_eq!(event.tags, ["deploy", "web", "env:prod"]);
    let listed = server.event(&["list", "deploy -canary"]);
    assert_eq!(
        text(&listed.stdout),
        "    ID  WHEN (UTC)             LASTED  STATUS       WHAT  [TAGS]\n     \
         1  2023-11-14 22:13:20     1m30s  failed       web 1.4  [deploy web env:prod]\n"
    );
    assert_eq!(text(&server.event(&["list", "-deploy"]).stdout), "");
    assert_eq!(
        text(&server.event(&["list", "deploy", "--from", "-1d"]).stdout),
        ""
    );
    let json = server.event(&["list", "--json"]).stdout;
    // A terminal's prompt begins on a line of its own.
    assert!(json.ends_with(b"\n"));
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json[0]["data"], "by me");
}

#[test]
fn what_goes_wrong_is_said_and_is_exit_code_1() {
    let server = Server::start();
    for (arguments, part) in [
        (
            &["post", "x", "--status", "odd"][..],
            "\"status\" must be one of",
        ),
        (&["post", "x", "--when", "soonish"], "--when"),
        (&["post", "x", "--duration", "long"], "--duration"),
        (&["list", "a*b"], "a*b"),
        (&["list", "--url", "https://x"], "http://"),
        (&["list", "--url", "http://127.0.0.1:1"], "127.0.0.1:1"),
    ] {
        let output = server.event(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(
            text(&output.stderr).contains(part),
            "{}",
            text(&output.stderr)
        );
    }
    assert_eq!(server.event(&["wrap"]).status.code(), Some(2));
}

#[test]
fn a_token_goes_along() {
    let auth = AuthOptions {
        event_tokens: vec!["secret".to_owned()],
        ..AuthOptions::default()
    };
    let server = Server::with(&auth);
    let refused = server.event(&["post", "x"]);
    assert!(
        text(&refused.stderr).contains("answers 401"),
        "{}",
        text(&refused.stderr)
    );
    assert!(
        server
            .event(&["post", "x", "--token", "secret"])
            .status
            .success()
    );
    let from_environment = server
        .command(&["post", "y"])
        .env("PLUMBAGO_TOKEN", "secret")
        .output();
    assert!(from_environment.unwrap().status.success());
}

#[test]
fn a_wrapped_command_is_a_band_and_a_timer() {
    let server = Server::start();
    let statsd = UdpSocket::bind("127.0.0.1:0").unwrap();
    statsd
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let address = statsd.local_addr().unwrap().to_string();
    let output = server.event(&[
        "wrap",
        "--tag",
        "backup",
        "--data",
        "nightly",
        "--metric",
        "cron.backup",
        "--statsd",
        &address,
        "--",
        "sh",
        "-c",
        "echo out; exit 3",
    ]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(3), "out\n")
    );
    let event = server.only_event();
    assert_eq!(event.status, Status::Failed);
    assert_eq!(event.what, "sh -c echo out; exit 3");
    assert!(
        event.data.starts_with("nightly\nexit status 3, "),
        "{}",
        event.data
    );
    assert!(event.until.unwrap() >= event.when);
    let mut datagram = [0; 100];
    let n_bytes = statsd.recv(&mut datagram).unwrap();
    let line = text(&datagram[..n_bytes]);
    assert!(
        line.starts_with("cron.backup:") && line.ends_with("|ms"),
        "{line}"
    );
}

#[test]
fn the_band_is_open_while_the_command_runs_and_signals_reach_it() {
    let server = Server::start();
    let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut wrapped = server
        .command(&[
            "wrap", "--tag", "deploy", "--what", "deploy", "--", "sh", "-c", script,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(wrapped.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let open = server.only_event();
    assert_eq!((open.status, open.until), (Status::Started, None));
    let overlay = server.store.overlay(
        &TagQuery::every(),
        open.when + 10.0,
        open.when + 20.0,
        open.when + 20.0,
    );
    assert_eq!(
        overlay.unwrap().len(),
        1,
        "an open band reaches into later windows"
    );
    kill_process(Pid::from_child(&wrapped), Signal::TERM).unwrap();
    out.read_to_string(&mut line).unwrap();
    assert_eq!(wrapped.wait().unwrap().code(), Some(7));
    let ended = server.only_event();
    assert_eq!((ended.id, ended.status), (open.id, Status::Failed));
    assert!(ended.data.starts_with("exit status 7, "), "{}", ended.data);
}

#[test]
fn a_command_runs_without_a_server_and_one_that_cannot_is_told() {
    let output = plumbago("http://127.0.0.1:1")
        .args(["wrap", "--", "sh", "-c", "exit 5"])
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(
        text(&output.stderr).contains("not stored"),
        "{}",
        text(&output.stderr)
    );
    let server = Server::start();
    let missing = server.event(&["wrap", "--", "/no/such/command"]);
    assert_eq!(missing.status.code(), Some(127));
    let event = server.only_event();
    assert_eq!(event.status, Status::Failed);
    assert!(event.data.starts_with("did not start"), "{}", event.data);
    let killed = server.event(&["wrap", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.status.code(), Some(137));
}

#[test]
fn a_wrapped_rollback_undoes_its_deploy_if_it_succeeds() {
    let server = Server::start();
    assert!(server.event(&["post", "web 2"]).status.success());
    let deploy = server.only_event().id;
    let status = || server.store.event(deploy).unwrap().status;
    for (command, expected) in [("false", Status::Unstated), ("true", Status::RolledBack)] {
        let id = deploy.to_string();
        server.event(&["wrap", "--rollback-of", &id, "--", command]);
        assert_eq!(status(), expected, "{command}");
    }
}

#[test]
fn a_deploy_that_got_worse_is_rolled_back_by_wrap() {
    for (verdict, expected) in [(Outcome::Worse, 1), (Outcome::Unchanged, 0)] {
        let server = Server::start();
        let directory = tempfile::tempdir().unwrap();
        let undone = directory.path().join("undone");
        let undo = format!(
            "echo \"$PLUMBAGO_EVENT: $PLUMBAGO_SENTENCE\" > {}",
            undone.display()
        );
        let arguments = [
            "wrap",
            "--what",
            "web 2",
            "--tag",
            "deploy web",
            "--wait",
            "50s",
        ];
        let mut wrap = server.command(&arguments);
        wrap.args(["--on-worse", &undo, "--", "true"]);
        let mut wrap = wrap.stderr(Stdio::null()).spawn().unwrap();
        let query: TagQuery = "deploy -rollback".parse().unwrap();
        let event = loop {
            assert!(
                wrap.try_wait().unwrap().is_none(),
                "ended without a verdict"
            );
            let found = server.store.query(&query, 0.0, f64::MAX, 10).unwrap();
            match found.into_iter().find(|event| event.until.is_some()) {
                Some(event) => break event,
                None => std::thread::park_timeout(Duration::from_millis(5)),
            }
        };
        let report = Report {
            verdict,
            complete: true,
            sentence: "web.errors rose".to_owned(),
            ..Report::default()
        };
        server.store.set_impact(event.id, report).unwrap();
        assert_eq!(wrap.wait().unwrap().code(), Some(expected));
        let rollbacks: TagQuery = "rollback".parse().unwrap();
        let rollbacks = server.store.query(&rollbacks, 0.0, f64::MAX, 10).unwrap();
        let event = server.store.event(event.id).unwrap();
        if verdict == Outcome::Worse {
            let text = std::fs::read_to_string(&undone).unwrap();
            assert_eq!(text, format!("{}: web.errors rose\n", event.id));
            assert_eq!(rollbacks.len(), 1);
            assert_eq!(rollbacks[0].rollback_of, Some(event.id));
            assert_eq!(rollbacks[0].status, Status::Succeeded);
            assert_eq!(event.status, Status::RolledBack);
        } else {
            assert!(!undone.exists() && rollbacks.is_empty());
            assert_eq!(event.status, Status::Succeeded);
        }
    }
}

#[test]
fn a_wrapped_command_runs_although_nothing_can_be_said() {
    let directory = tempfile::tempdir().unwrap();
    let ran = directory.path().join("ran");
    let status = plumbago("http://127.0.0.1:1")
        .args(["wrap", "--", "touch"])
        .arg(&ran)
        .stderr(std::fs::File::create("/dev/full").unwrap())
        .status()
        .unwrap();
    assert_eq!((status.code(), ran.exists()), (Some(0), true));
}

#[test]
fn a_signal_ends_the_wait_for_a_verdict() {
    let server = Server::start();
    let arguments = ["--on-worse", "true", "--wait", "60s", "--", "true"];
    let mut wrapped = server
        .command(&["wrap", "--tag", "deploy"])
        .args(arguments)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let is_over = || {
        let events = server.store.export(0, usize::MAX).unwrap();
        events.iter().any(|event| event.status == Status::Succeeded)
    };
    while !is_over() {
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&wrapped), Signal::TERM).unwrap();
    assert_eq!(wrapped.wait().unwrap().code(), Some(128 + 15));
}
