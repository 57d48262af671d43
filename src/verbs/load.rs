//! `plumbago load`: sends StatsD or Graphite traffic to a server and measures loss. What follows is about
//! StatsD; `carbon` is in a file of its own.
//!
//! 1. The datagrams are built before the clock starts: a shuffled pass over all names, packed or
//!    single. The sender repeats this pass.
//! 2. Loss is the number of metrics sent minus the number that the server counted, read from the
//!    management interface before and after. Traffic from other clients makes the loss look smaller.
//! 3. The target rate holds for the whole run: after a pause the sender catches up.
//! 4. A port without a listener is a failure: the system says so (ICMP) at a later datagram. A run whose loss is
//!    measured goes on while a server restarts, and ends when at least half of its datagrams were refused.

use std::io::{BufRead, BufReader, ErrorKind, IsTerminal, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use settings::Span;

mod carbon;

use crate::random::Random;
use crate::terminal::{complain, say};

/// How long the server may take to read the rest of its receive buffer.
const LAST_FLUSHES: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(3);
/// Datagrams between two readings of the clock.
const BURST: usize = 16;

/// Sends metrics at a given rate and reports loss.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago load --statsd 127.0.0.1:8125\n  plumbago load --statsd 127.0.0.1:8125 --names 100000 --rate 1000000 --duration 30s\n  plumbago load --statsd 127.0.0.1:8125 --single --mix c:1,ms:1,g:1,s:1\n  plumbago load --carbon 127.0.0.1:2004 --protocol pickle --max-loss 0"
)]
pub struct Args {
    /// The UDP address of the StatsD server.
    #[arg(
        long,
        value_name = "ADDRESS",
        required_unless_present = "carbon",
        conflicts_with = "carbon"
    )]
    statsd: Option<String>,
    /// The TCP address of a receiver of carbon, instead of StatsD.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["admin", "mix", "packet", "single"])]
    carbon: Option<String>,
    /// What --carbon sends.
    #[arg(long, value_enum, default_value = "lines", requires = "carbon")]
    protocol: carbon::Protocol,
    /// The address of the /metrics that reports the number of received datapoints to --carbon; default:
    /// port 8080 of the same host.
    #[arg(long, value_name = "ADDRESS", requires = "carbon")]
    http: Option<String>,
    /// The server's management interface, which reports the number of received metrics; default:
    /// port 8126 of the same host.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// The number of distinct names.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    names: u32,
    /// The proportions of the types c, ms, h, d, g, s and a.
    #[arg(long, value_name = "TYPE:SHARE,...", default_value = "c:70,ms:20,g:10")]
    mix: String,
    /// Metrics per second; 0 sends as fast as possible.
    #[arg(long, value_name = "N", default_value_t = 0)]
    rate: u64,
    /// The duration of the run.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    duration: Span,
    /// The maximum size of a datagram in bytes.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 1_432,
        conflicts_with = "single"
    )]
    packet: usize,
    /// Send one metric per datagram.
    #[arg(long)]
    single: bool,
    /// Exit with 1 if more than this percentage is lost.
    #[arg(long, value_name = "PERCENT")]
    max_loss: Option<f64>,
}

/// The datagrams of one pass: each with the number of metrics in it.
struct Pass {
    datagrams: Vec<(Vec<u8>, u64)>,
}

/// The totals of a run.
struct Outcome {
    metrics: u64,
    datagrams: u64,
    /// Datagrams that were not sent; most of them because an earlier one met no listener.
    refused: u64,
    took: Duration,
}

/// Sends, and reports on standard output. Exit code 1 if more than `--max-loss` or everything was lost, or if
/// nothing listened.
///
/// # Errors
/// The address or the mix is invalid, the socket fails, or nothing listens at the address.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {
        statsd,
        carbon,
        protocol,
        http,
        admin,
        names,
        mix,
        rate,
        duration,
        packet,
        single,
        max_loss,
    } = args;
    if names == 0 {
        bail!("--names: at least one is needed");
    }
    if let Some(carbon) = &carbon {
        let run = carbon::Run {
            carbon,
            protocol,
            http: http.as_deref(),
            names,
            rate,
            duration: duration.0,
            max_loss,
        };
        return run.run();
    }
    let target = resolve(&statsd.unwrap_or_default())?;
    let admin = match &admin {
        Some(admin) => resolve(admin)?,
        None => SocketAddr::new(target.ip(), 8126),
    };
    let mix = parse_mix(&mix)?;
    let limit = if single { 0 } else { packet };
    let pass = Pass::new(names, &mix, limit);
    let before = match received(admin) {
        Ok(before) => Some(before),
        Err(why) if max_loss.is_some() => return Err(why.context("--max-loss cannot be checked")),
        Err(why) => {
            complain(format_args!("loss cannot be measured: {why:#}"));
            None
        }
    };
    let outcome = send(target, &pass, rate, duration.0)?;
    let seconds = outcome.took.as_secs_f64();
    say(&format!(
        "sent      {} metrics in {} datagrams over {seconds:.1} s: {:.0} a second\n",
        outcome.metrics,
        outcome.datagrams,
        outcome.metrics as f64 / seconds,
    ))?;
    if outcome.refused > 0 {
        say(&format!(
            "refused   {} datagrams: not sent\n",
            outcome.refused
        ))?;
    }
    let Some(before) = before else {
        if outcome.refused > 0 {
            bail!("nothing listened at {target} for at least a part of the time");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let after = arrived(admin, before + outcome.metrics)?;
    report("metrics", target, outcome.metrics, after - before, max_loss)
}

/// Prints how many of `sent` have arrived at `target`, and judges the loss.
fn report(
    what: &str,
    target: SocketAddr,
    sent: u64,
    arrived: u64,
    max_loss: Option<f64>,
) -> anyhow::Result<ExitCode> {
    let lost = sent.saturating_sub(arrived);
    let share = lost as f64 / sent.max(1) as f64 * 100.0;
    say(&format!(
        "received  {arrived} {what}, counted by the server\nlost      {lost} ({share:.3} %)\n"
    ))?;
    if arrived == 0 && sent > 0 {
        complain(format_args!("plumbago: nothing arrived at {target}"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(match max_loss {
        Some(most) if share > most => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

fn resolve(text: &str) -> anyhow::Result<SocketAddr> {
    text.to_socket_addrs()
        .with_context(|| format!("{text:?} is not an address with a port"))?
        .next()
        .ok_or_else(|| anyhow!("{text:?} has no address"))
}

/// `c:70,ms:20` as types with their shares.
fn parse_mix(text: &str) -> anyhow::Result<Vec<(&'static str, u64)>> {
    let mut mix = Vec::new();
    for part in text.split(',') {
        let (kind, share) = part.split_once(':').unwrap_or((part, "1"));
        let kind = ["c", "ms", "h", "d", "g", "s", "a"]
            .into_iter()
            .find(|known| *known == kind.trim())
            .ok_or_else(|| anyhow!("--mix: {kind:?} is not one of c, ms, h, d, g, s, a"))?;
        let share = share
            .trim()
            .parse()
            .with_context(|| format!("--mix: {share:?} is not a share"))?;
        mix.push((kind, share));
    }
    if mix.iter().all(|(_, share)| *share == 0) {
        bail!("--mix: all shares are 0");
    }
    Ok(mix)
}

impl Pass {
    /// All names once, shuffled; small numbers of names several times, so that the pass is long
    /// enough for values to vary. `limit` 0 makes datagrams of one line.
    fn new(names: u32, mix: &[(&'static str, u64)], limit: usize) -> Self {
        let shares: u64 = mix.iter().map(|(_, share)| share).sum();
        let mut random = Random::new(1);
        let rounds = (20_000 / names).max(1);
        let mut order: Vec<u32> = (0..rounds).flat_map(|_| 0..names).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, random.below(at as u64 + 1) as usize);
        }
        let mut datagrams: Vec<(Vec<u8>, u64)> = Vec::new();
        for name in order {
            // The type belongs to the name.
            let mut choice = Random::new(u64::from(name)).below(shares);
            let mut kind = "c";
            for (known, share) in mix {
                if choice < *share {
                    kind = known;
                    break;
                }
                choice -= share;
            }
            let value = match kind {
                "c" => 1,
                "g" => random.below(1_000_000),
                _ => random.below(2_000),
            };
            let line = format!(
                "load.web.host{:04}.svc{:02}.ep{:03}.metric:{value}|{kind}",
                name % 1_000,
                name / 1_000 % 40,
                name / 40_000,
            );
            match datagrams.last_mut() {
                Some((packet, count)) if packet.len() + 1 + line.len() <= limit => {
                    packet.push(b'\n');
                    packet.extend_from_slice(line.as_bytes());
                    *count += 1;
                }
                _ => datagrams.push((line.into_bytes(), 1)),
            }
        }
        Self { datagrams }
    }
}

fn send(target: SocketAddr, pass: &Pass, rate: u64, duration: Duration) -> anyhow::Result<Outcome> {
    let any = if target.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).context("a UDP socket")?;
    socket
        .connect(target)
        .with_context(|| format!("connecting to {target}"))?;
    let bar = progress(duration);
    let mut outcome = Outcome {
        metrics: 0,
        datagrams: 0,
        refused: 0,
        took: Duration::ZERO,
    };
    let mut shown = Instant::now();
    let start = shown;
    let mut datagrams = pass.datagrams.iter().cycle();
    loop {
        let now = Instant::now();
        let elapsed = now - start;
        if elapsed >= duration {
            break;
        }
        if now - shown >= Duration::from_millis(100) {
            shown = now;
            bar.set_position(elapsed.as_millis() as u64);
            let so_far = outcome.metrics as f64 / elapsed.as_secs_f64();
            bar.set_message(format!("{so_far:.0} metrics/s"));
        }
        if rate > 0 {
            let due = elapsed.as_secs_f64() * rate as f64;
            if outcome.metrics as f64 > due {
                let ahead = (outcome.metrics as f64 - due) / rate as f64;
                std::thread::sleep(Duration::from_secs_f64(ahead.min(0.005)));
                continue;
            }
        }
        for (packet, count) in datagrams.by_ref().take(BURST) {
            match socket.send(packet) {
                Ok(_) => {
                    outcome.datagrams += 1;
                    outcome.metrics += count;
                }
                // About an earlier datagram: every second one is refused if nothing listens on this machine.
                Err(why)
                    if why.kind() == ErrorKind::ConnectionRefused
                        && outcome.refused + 1 >= outcome.datagrams =>
                {
                    bar.finish_and_clear();
                    return Err(why).with_context(|| format!("nothing listens at {target}"));
                }
                Err(_) => outcome.refused += 1,
            }
        }
    }
    bar.finish_and_clear();
    // What was learned about the last datagrams.
    outcome.refused += u64::from(socket.take_error()?.is_some());
    outcome.took = start.elapsed();
    Ok(outcome)
}

fn progress(duration: Duration) -> ProgressBar {
    let bar = ProgressBar::new(duration.as_millis() as u64);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}") {
        bar.set_style(style);
    }
    bar
}

/// How many metrics the server has received since its start.
fn received(admin: SocketAddr) -> anyhow::Result<u64> {
    let asked = || format!("management interface {admin}");
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).with_context(asked)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"counts\n").with_context(asked)?;
    for line in BufReader::new(stream).lines() {
        let line = line.with_context(asked)?;
        if let Some(count) = line.strip_prefix("metrics_received: ") {
            return Ok(count.parse()?);
        }
        if line == "END" || line == "ERROR" {
            break;
        }
    }
    bail!("{}: the answer has no metrics_received", asked());
}

/// The count when it has reached `expected`, or has stopped growing.
fn arrived(admin: SocketAddr, expected: u64) -> anyhow::Result<u64> {
    let until = Instant::now() + LAST_FLUSHES;
    let mut last = received(admin)?;
    loop {
        if last >= expected || Instant::now() >= until {
            return Ok(last);
        }
        std::thread::sleep(Duration::from_millis(200));
        let now = received(admin)?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_has_all_names_in_its_mix() {
        let mix = parse_mix("c:7,ms:2,g").unwrap();
        assert_eq!(mix, [("c", 7), ("ms", 2), ("g", 1)]);
        let packed = Pass::new(1_000, &mix, 1_432);
        let single = Pass::new(1_000, &mix, 0);
        let metrics = |pass: &Pass| pass.datagrams.iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(metrics(&packed), 20_000);
        assert_eq!(metrics(&single), 20_000);
        assert_eq!(single.datagrams.len(), 20_000);
        assert!(
            packed
                .datagrams
                .iter()
                .all(|(bytes, _)| bytes.len() <= 1_432)
        );
        let counters = single
            .datagrams
            .iter()
            .filter(|(bytes, _)| bytes.ends_with(b"|c"))
            .count();
        assert!((12_000..16_000).contains(&counters), "{counters}");
    }

    #[test]
    fn odd_mixes_are_refused() {
        for bad in ["", "x:1", "c:x", "c:0", "c:1,,g:1"] {
            assert!(parse_mix(bad).is_err(), "{bad}");
        }
    }
}
