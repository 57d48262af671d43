//! `plumbago load --carbon`: datapoints over TCP, as lines or pickles.
//!
//! 1. The pieces are built before the clock starts: a pass over all names, with the timestamp -1, which is
//!    the time of receipt in carbon, too. The sender repeats this pass.
//! 2. Loss is the number of datapoints sent minus the number that the server counted, read from its
//!    `/metrics` before and after. Datapoints of other clients make the loss look smaller.
//! 3. A server that is full stops reading, and the sender waits for it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use carbon::protocol::pickle::write;

use super::{LAST_FLUSHES, PATIENCE, progress, report, resolve};
use crate::random::Random;
use crate::terminal::{complain, say};

/// Datapoints in one piece: carbon's relays send as many in a pickle.
const PIECE: usize = 500;
/// The counter of `/metrics` that has all datapoints taken.
const COUNTER: &str = "plumbago_carbon_metrics_received_total ";

/// How datapoints are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Protocol {
    /// Graphite's lines, for carbon.line_tcp.
    Lines,
    /// Framed pickles, for carbon.pickle.
    Pickle,
}

/// A run.
pub(super) struct Run<'r> {
    pub(super) carbon: &'r str,
    pub(super) protocol: Protocol,
    /// The address of `/metrics`; port 8080 of the same host if it is not given.
    pub(super) http: Option<&'r str>,
    pub(super) names: u32,
    /// Datapoints per second; 0 for as many as the server takes.
    pub(super) rate: u64,
    pub(super) duration: Duration,
    pub(super) max_loss: Option<f64>,
}

impl Run<'_> {
    /// Sends, and reports on standard output. Exit code 1 if more than `max_loss` was lost.
    ///
    /// # Errors
    /// An address is invalid, or the connection fails.
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let target = resolve(self.carbon)?;
        let http = match self.http {
            Some(http) => resolve(http)?,
            None => SocketAddr::new(target.ip(), 8080),
        };
        let before = match received(http) {
            Ok(before) => Some(before),
            Err(why) if self.max_loss.is_some() => {
                return Err(why.context("--max-loss cannot be checked"));
            }
            Err(why) => {
                complain(format_args!("loss cannot be measured: {why:#}"));
                None
            }
        };
        let (sent, took) = self.send(target)?;
        let seconds = took.as_secs_f64();
        say(&format!(
            "sent      {sent} datapoints over {seconds:.1} s: {:.0} a second\n",
            sent as f64 / seconds
        ))?;
        let Some(before) = before else {
            return Ok(ExitCode::SUCCESS);
        };
        let arrived = arrived(http, before + sent)? - before;
        report("datapoints", target, sent, arrived, self.max_loss)
    }

    /// Sends for the duration; how many datapoints, and how long it took.
    fn send(&self, target: SocketAddr) -> anyhow::Result<(u64, Duration)> {
        let pieces = pieces(self.names, self.protocol);
        let mut stream = TcpStream::connect_timeout(&target, PATIENCE)
            .with_context(|| format!("connecting to {target}"))?;
        let bar = progress(self.duration);
        let (mut sent, mut shown) = (0_u64, Instant::now());
        let start = shown;
        for (piece, count) in pieces.iter().cycle() {
            let elapsed = start.elapsed();
            if elapsed >= self.duration {
                break;
            }
            if shown.elapsed() >= Duration::from_millis(100) {
                shown = Instant::now();
                bar.set_position(elapsed.as_millis() as u64);
                let so_far = sent as f64 / elapsed.as_secs_f64();
                bar.set_message(format!("{so_far:.0} datapoints/s"));
            }
            if self.rate > 0 {
                // When the datapoints so far were due.
                let due = Duration::from_secs_f64(sent as f64 / self.rate as f64);
                std::thread::sleep(due.min(self.duration).saturating_sub(elapsed));
            }
            let written = stream.write_all(piece);
            written.with_context(|| format!("sending to {target}"))?;
            sent += count;
        }
        bar.finish_and_clear();
        Ok((sent, start.elapsed()))
    }
}

/// The bytes of a pass over all names, in pieces, each with its number of datapoints.
fn pieces(names: u32, protocol: Protocol) -> Vec<(Vec<u8>, u64)> {
    let mut random = Random::new(1);
    let points: Vec<(String, f64)> = (0..names)
        .map(|n| {
            let (host, service, endpoint) = (n % 1_000, n / 1_000 % 40, n / 40_000);
            let name = format!("load.web.host{host:04}.svc{service:02}.ep{endpoint:03}.metric");
            (name, random.below(1_000_000) as f64 / 100.0)
        })
        .collect();
    let piece = |points: &[(String, f64)]| {
        let bytes = match protocol {
            Protocol::Lines => {
                let mut text = String::new();
                for (name, value) in points {
                    let _ = writeln!(text, "{name} {value} -1");
                }
                text.into_bytes()
            }
            Protocol::Pickle => {
                let mut bytes = Vec::new();
                write::frame(&mut bytes, |out| {
                    write::list(out, |out| {
                        for (name, value) in points {
                            write::text(out, name);
                            write::float(out, -1.0);
                            write::float(out, *value);
                            write::pair(out);
                            write::pair(out);
                        }
                    });
                });
                bytes
            }
        };
        (bytes, points.len() as u64)
    };
    points.chunks(PIECE).map(piece).collect()
}

/// How many datapoints the server has taken since its start.
fn received(http: SocketAddr) -> anyhow::Result<u64> {
    let asked = || format!("http://{http}/metrics");
    let mut stream = TcpStream::connect_timeout(&http, PATIENCE).with_context(asked)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(asked)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(asked)?;
    let count = answer.lines().find_map(|line| line.strip_prefix(COUNTER));
    match count {
        Some(count) => Ok(count.trim().parse::<f64>().with_context(asked)? as u64),
        None => bail!("{}: the answer has no {}", asked(), COUNTER.trim()),
    }
}

/// The count when it has reached `expected`, or has stopped growing.
fn arrived(http: SocketAddr, expected: u64) -> anyhow::Result<u64> {
    let until = Instant::now() + LAST_FLUSHES;
    let mut last = received(http)?;
    while last < expected && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(200));
        let now = received(http)?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}
