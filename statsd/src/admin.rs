//! The management interface: a line is a command, answered as the reference answers.
//!
//! Ours on top: input is buffered by lines (the reference takes each segment for one command),
//! names in answers are what was asked for, `bad_lines` shows reasons and senders, and `counts`
//! all that the server counts about itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tracing::warn;

use crate::metric::Kind;
use crate::options::Options;
use crate::receive::Shared;
use crate::stats::now_ms;

/// The longest command.
const LONGEST: u64 = 64 << 10;

/// What only the aggregator can answer.
#[derive(Debug)]
pub(crate) enum Query {
    /// The live table of a kind.
    Table(Kind, oneshot::Sender<String>),
    /// Deletes names; a final `.*` takes all below.
    Delete(Kind, Vec<String>, oneshot::Sender<String>),
    /// How the last flush went.
    LastFlush(oneshot::Sender<[(&'static str, f64); 4]>),
}

/// What all connections share.
pub(crate) struct Admin {
    pub(crate) shared: Arc<Shared>,
    pub(crate) queries: Sender<Query>,
    pub(crate) started: Instant,
    pub(crate) options: Options,
}

impl Admin {
    /// Serves connections until `stop` changes.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.changed() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (admin, mut stop) = (self.clone(), stop.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            _ = admin.connection(stream) => {}
                            _ = stop.changed() => {}
                        }
                    });
                }
                Err(why) => {
                    warn!("management connection not accepted: {why}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut stream)
                .take(LONGEST)
                .read_until(b'\n', &mut line)
                .await?;
            if read == 0 || (read as u64 == LONGEST && !line.ends_with(b"\n")) {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&line);
            let Some(reply) = self.reply(text.trim()).await else {
                return stream.shutdown().await;
            };
            stream.write_all(reply.as_bytes()).await?;
            stream.flush().await?;
        }
    }

    /// The answer to one command; `None` for "goodbye".
    pub(crate) async fn reply(&self, line: &str) -> Option<String> {
        let mut words = line.split(' ').map(str::trim);
        let command = words.next().unwrap_or_default();
        let names = || words.clone().map(str::to_owned).collect::<Vec<_>>();
        Some(match command {
            "help" => "Commands: stats, counters, timers, gauges, delcounters, deltimers, delgauges, health, config, bad_lines, counts, quit\n\n".to_owned(),
            "stats" => self.stats().await,
            "counters" => self.table(Kind::Counter).await,
            "timers" => self.table(Kind::Timer).await,
            "gauges" => self.table(Kind::Gauge).await,
            "delcounters" => self.delete(Kind::Counter, names()).await,
            "deltimers" => self.delete(Kind::Timer, names()).await,
            "delgauges" => self.delete(Kind::Gauge, names()).await,
            "health" => self.health(words.next()),
            "config" => config(&self.options),
            "bad_lines" => self.shared.stats.bad_lines_text() + "END\n\n",
            "counts" => self.counts(),
            "quit" => return None,
            _ => "ERROR\n".to_owned(),
        })
    }

    async fn stats(&self) -> String {
        let stats = &self.shared.stats;
        let now = now_ms() / 1_000;
        let last = match stats.last_packet.load(Ordering::Relaxed) {
            0 => self.started.elapsed().as_secs(),
            at => now.saturating_sub(at),
        };
        let mut text = format!(
            "uptime: {}\nmessages.last_msg_seen: {last}\nmessages.bad_lines_seen: {}\n",
            self.started.elapsed().as_secs(),
            stats.bad_lines.load(Ordering::Relaxed),
        );
        let (reply, answer) = oneshot::channel();
        if self.queries.send(Query::LastFlush(reply)).is_ok()
            && let Ok(values) = answer.await
        {
            for (name, value) in values {
                // As in the reference: what begins with last_ is shown as its age.
                let value = if name.starts_with("last_") {
                    now as f64 - value
                } else {
                    value
                };
                let _ = writeln!(text, "graphite.{name}: {value}");
            }
        }
        text + "END\n\n"
    }

    fn counts(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.shared.stats.counters() {
            let _ = writeln!(text, "{name}: {value}");
        }
        text + "END\n\n"
    }

    async fn table(&self, kind: Kind) -> String {
        let (reply, answer) = oneshot::channel();
        match self.queries.send(Query::Table(kind, reply)) {
            Ok(()) => answer.await.unwrap_or_default() + "\nEND\n\n",
            Err(_) => "ERROR\n".to_owned(),
        }
    }

    async fn delete(&self, kind: Kind, names: Vec<String>) -> String {
        let (reply, answer) = oneshot::channel();
        match self.queries.send(Query::Delete(kind, names, reply)) {
            Ok(()) => answer.await.unwrap_or_default() + "END\n\n",
            Err(_) => "ERROR\n".to_owned(),
        }
    }

    fn health(&self, wanted: Option<&str>) -> String {
        let is_down = &self.shared.is_down;
        match wanted {
            Some("up") => is_down.store(false, Ordering::Relaxed),
            Some("down") => is_down.store(true, Ordering::Relaxed),
            _ => {}
        }
        let state = if is_down.load(Ordering::Relaxed) {
            "down"
        } else {
            "up"
        };
        format!("health: {state}\n")
    }
}

/// The options as `key: value`, members of lists as `key > index: value`.
fn config(options: &Options) -> String {
    let mut text = "\n".to_owned();
    if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(options) {
        // Sorted here: serde_json's own order depends on features that other crates choose.
        for (key, value) in fields.iter().collect::<BTreeMap<_, _>>() {
            config_value(key, value, &mut text);
        }
    }
    text
}

fn config_value(key: &str, value: &serde_json::Value, text: &mut String) {
    use serde_json::Value;
    match value {
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                config_value(&format!("{key} > {at}"), item, text);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields.iter().collect::<BTreeMap<_, _>>() {
                config_value(&format!("{key} > {name}"), field, text);
            }
        }
        Value::String(value) => {
            let _ = writeln!(text, "{key}: {value}");
        }
        other => {
            let _ = writeln!(text, "{key}: {other}");
        }
    }
}
