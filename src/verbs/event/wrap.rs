//! `plumbago event wrap`: a command as a band on every graph.
//!
//! 1. The command comes first: if the server cannot be reached, a message says so and the command
//!    runs anyway. `wrap` exits with the command's exit code even if the event is not stored.
//! 2. Both requests carry one key and all fields, so the second request alone is enough. The first
//!    request shows an open band while the command runs.
//! 3. The terminal sends an interrupt to the command directly; `wrap` forwards signals that it
//!    receives. In both cases it waits for the command to end, as it does for the command of `--on-worse`. While no
//!    command runs, a signal ends `wrap`.
//! 4. With `--on-worse` it then waits for the verdict on the event. If the deploy got worse, the given command
//!    runs as an event of its own that rolls back the first, and `wrap` exits with 1. Nothing else, such as a
//!    server that cannot be reached, starts that command.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value};
use tokio::runtime::Runtime;
use tokio::signal::unix::{self as signal, SignalKind};
use tokio::sync::oneshot;

use super::{Described, now};
use crate::client::{self, Client};
use crate::terminal::complain;
use crate::verbs::impact;

/// How many times the final state is posted before giving up, and the pause in between.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// How long after the end of the command a signal is still taken as one that was meant for it.
const LATE: Duration = Duration::from_millis(20);

/// Says what is wrong, and goes on.
macro_rules! warn {
    ($($text:tt)*) => {
        complain(format_args!("plumbago: {}", format_args!($($text)*)))
    };
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago event wrap --tag \"deploy web\" -- cap production deploy\n  plumbago event wrap --tag \"deploy web\" --on-worse \"cap production rollback\" -- cap production deploy\n  plumbago event wrap --tag backup --metric cron.backup -- pg_dumpall -f /backup/all.sql"
)]
pub(super) struct Wrap {
    /// The name of the event; default: the command.
    #[arg(long, value_name = "TEXT")]
    what: Option<String>,
    #[command(flatten)]
    described: Described,
    /// Also send the duration as a StatsD timer of this name.
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// The StatsD server that receives the timer.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "PLUMBAGO_STATSD",
        default_value = "127.0.0.1:8125"
    )]
    statsd: String,
    /// A command for the shell that runs if the deploy got worse, such as a rollback. It has the id of the
    /// event in PLUMBAGO_EVENT and the verdict in PLUMBAGO_SENTENCE. The exit code is 1 then.
    #[arg(long, value_name = "CMD")]
    on_worse: Option<String>,
    /// How long --on-worse waits for the verdict.
    #[arg(
        long,
        value_name = "SPAN",
        default_value = "10m",
        requires = "on_worse"
    )]
    wait: String,
    /// The id of the event that the command rolls back, if it succeeds.
    #[arg(long, value_name = "ID")]
    rollback_of: Option<i64>,
    #[command(flatten)]
    server: client::Args,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn run(args: Wrap) -> anyhow::Result<ExitCode> {
    let Wrap {
        what,
        described,
        metric,
        statsd,
        on_worse,
        wait,
        rollback_of,
        server,
        command,
    } = args;
    let client = Client::new(&server)?;
    let wait = impact::span(&wait)?;
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    let what = what.unwrap_or_else(|| words.join(" ").chars().take(200).collect());
    let began = now();
    let mut event = described.into_json();
    event.insert("what".to_owned(), what.into());
    event.insert("when".to_owned(), began.into());
    event.insert("status".to_owned(), "started".into());
    let key = format!("wrap {} {} {began:.6}", host(), std::process::id());
    event.entry("key").or_insert_with(|| key.into());
    if let Err(why) = client.post("/events/", &Value::Object(event.clone())) {
        warn!("cannot post the event, the command runs anyway: {why:#}");
    }

    // The handlers are installed before the child starts: a signal must not end this process and leave the child
    // running.
    let mut signals = Signals::handled()?;
    let clock = Instant::now();
    let ended = signals.supervise(Command::new(&command[0]).args(&command[1..]));
    let took = clock.elapsed();
    let (code, outcome) = match &ended {
        Ok(status) => (exit_code(*status), describe(*status)),
        Err(why) => {
            warn!("{}: {why}", words[0]);
            let code = if why.kind() == ErrorKind::NotFound {
                127
            } else {
                126
            };
            (code, format!("did not start: {why}"))
        }
    };
    let seconds = took.as_secs_f64();
    let data = event
        .get("data")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let gap = if data.is_empty() { "" } else { "\n" };
    let data = format!("{data}{gap}{outcome}, {seconds:.1} s");
    event.insert("data".to_owned(), data.into());
    event.insert("duration".to_owned(), seconds.into());
    let status = if code == 0 { "succeeded" } else { "failed" };
    event.insert("status".to_owned(), status.into());
    // A rollback that fails undoes nothing.
    if let (Some(id), 0) = (rollback_of, code) {
        event.insert("rollback_of".to_owned(), id.into());
    }
    let id = signals.or_end(|| post(&client, event.clone()));
    if let Some(metric) = metric
        && let Err(why) = send_timer(&statsd, &metric, took)
    {
        warn!("the timer was not sent: {why:#}");
    }
    if let (Some(undo), Some(id), 0) = (on_worse, id, code) {
        return undo_if_worse(&client, &mut signals, &event, id, &undo, wait);
    }
    Ok(ExitCode::from(code))
}

/// Waits for the verdict on `event`, which has the id `id`, and runs `undo` if it is worse.
fn undo_if_worse(
    client: &Client,
    signals: &mut Signals,
    event: &Map<String, Value>,
    id: i64,
    undo: &str,
    wait: Duration,
) -> anyhow::Result<ExitCode> {
    let judged = match signals.or_end(|| impact::wait_for(client, id, wait)) {
        Ok(judged) => judged,
        Err(why) => {
            warn!("no verdict, nothing is rolled back: {why:#}");
            return Ok(ExitCode::SUCCESS);
        }
    };
    if !impact::is_worse(&judged) {
        return Ok(ExitCode::SUCCESS);
    }
    let sentence = judged["impact"]["sentence"].as_str().unwrap_or_default();
    warn!("worse, running {undo:?}: {sentence}");
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut undoing = Map::new();
    let what = format!("rollback of {}", text("what"));
    let what: String = what.chars().take(200).collect();
    undoing.insert("what".to_owned(), what.into());
    undoing.insert(
        "tags".to_owned(),
        format!("{} rollback", text("tags")).into(),
    );
    undoing.insert("data".to_owned(), sentence.into());
    undoing.insert("when".to_owned(), now().into());
    undoing.insert("rollback_of".to_owned(), id.into());
    undoing.insert("key".to_owned(), format!("undo {}", text("key")).into());
    let clock = Instant::now();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", undo])
        .env("PLUMBAGO_EVENT", id.to_string())
        .env("PLUMBAGO_SENTENCE", sentence);
    let shell = signals.supervise(&mut shell);
    let undone = match &shell {
        Ok(status) => status.success(),
        Err(why) => {
            warn!("{undo:?}: {why}");
            false
        }
    };
    undoing.insert("duration".to_owned(), clock.elapsed().as_secs_f64().into());
    let status = if undone { "succeeded" } else { "failed" };
    undoing.insert("status".to_owned(), status.into());
    signals.or_end(|| post(client, undoing));
    if undone {
        let mut event = event.clone();
        event.insert("status".to_owned(), "rolled_back".into());
        signals.or_end(|| post(client, event));
    }
    Ok(ExitCode::from(1))
}

/// What to do with signals: handed on to a running command, otherwise the end of this process.
struct Signals {
    runtime: Runtime,
    interrupt: signal::Signal,
    quit: signal::Signal,
    terminate: signal::Signal,
    hangup: signal::Signal,
}

impl Signals {
    /// Installs the handlers.
    fn handled() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let inside = runtime.enter();
        let (interrupt, quit) = (SignalKind::interrupt(), SignalKind::quit());
        let (terminate, hangup) = (SignalKind::terminate(), SignalKind::hangup());
        let (interrupt, quit) = (signal::signal(interrupt)?, signal::signal(quit)?);
        let (terminate, hangup) = (signal::signal(terminate)?, signal::signal(hangup)?);
        drop(inside);
        Ok(Self {
            runtime,
            interrupt,
            quit,
            terminate,
            hangup,
        })
    }

    /// Runs the command to its end and forwards signals to it.
    fn supervise(&mut self, command: &mut Command) -> io::Result<ExitStatus> {
        let Self {
            runtime,
            interrupt,
            quit,
            terminate,
            hangup,
        } = self;
        runtime.block_on(async {
            let mut child = command.spawn()?;
            let pid = Pid::from_child(&child);
            let mut waiter = tokio::task::spawn_blocking(move || wait(&mut child));
            let ended = loop {
                let handed_on = tokio::select! {
                    ended = &mut waiter => break ended.map_err(io::Error::other)?,
                    _ = interrupt.recv() => continue,
                    _ = quit.recv() => continue,
                    _ = terminate.recv() => Signal::TERM,
                    _ = hangup.recv() => Signal::HUP,
                };
                // The child may have ended in the meantime.
                let _ = kill_process(pid, handed_on);
            };
            // A signal to the whole group, of which the command ended, may be seen only now.
            let late = async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = quit.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => {}
                    }
                }
            };
            let _: Result<(), _> = tokio::time::timeout(LATE, late).await;
            ended
        })
    }

    /// Does `work`; a signal meanwhile ends this process.
    fn or_end<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> T {
        let (done, ended) = oneshot::channel::<()>();
        std::thread::scope(|scope| {
            let work = scope.spawn(move || {
                // Dropped at the end, by a panic too.
                let _done = done;
                work()
            });
            let signal = self.runtime.block_on(async {
                tokio::select! {
                    _ = ended => None,
                    _ = self.interrupt.recv() => Some(Signal::INT),
                    _ = self.quit.recv() => Some(Signal::QUIT),
                    _ = self.terminate.recv() => Some(Signal::TERM),
                    _ = self.hangup.recv() => Some(Signal::HUP),
                }
            });
            if let Some(signal) = signal {
                std::process::exit(128 + signal.as_raw());
            }
            work.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    child.wait()
}

/// The exit code as a shell gives it: 128 and the signal's number for a command that was killed.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Posts `event`, a few times if need be; its id.
fn post(client: &Client, event: Map<String, Value>) -> Option<i64> {
    let event = Value::Object(event);
    for attempt in 1..=ATTEMPTS {
        match client.post("/events/", &event) {
            Ok(stored) => return stored["id"].as_i64(),
            Err(why) if attempt == ATTEMPTS => {
                warn!("the event was not stored: {why:#}");
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
    None
}

fn send_timer(statsd: &str, metric: &str, took: Duration) -> anyhow::Result<()> {
    let local = if statsd.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(local)?;
    let line = format!("{metric}:{:.3}|ms", took.as_secs_f64() * 1000.0);
    socket
        .send_to(line.as_bytes(), statsd)
        .with_context(|| format!("to {statsd}"))?;
    Ok(())
}

fn host() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}
