//! One run: the phases that the head of the bench describes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use whisper::Timestamp;

use crate::Arguments;
use crate::load::{Kind, Pass, Sender, kind, next_multiple, now, path, sleep_until};
use crate::measure::{Cpu, Memory, device_bytes, dirtied, file_system};
use crate::support::Server;

/// How often the answers are looked at for new points.
const LOOK: Duration = Duration::from_millis(2);
/// How long before the kill the answers are taken: what they hold is committed to the journal meanwhile.
const COMMITTED: Duration = Duration::from_millis(500);
/// How many counters are compared with their files.
const SAMPLE: usize = 200;

/// The columns of a growth table.
pub(crate) const HEAD: &str = "    names     series  creation    steady  +drain  cores  MB anon  MB all  \
                               written  dirtied  visible  restart  drain  missing";

/// A line of it.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    names: u32,
    series: f64,
    /// Microseconds of CPU time per file.
    creation: f64,
    /// The same per point, without and with the rest of the writing.
    steady: f64,
    drained: f64,
    /// Cores busy in the steady phase.
    cores: f64,
    memory: Memory,
    /// Bytes per point.
    written: Option<f64>,
    dirtied: f64,
    /// Median milliseconds.
    visible: f64,
    /// Seconds.
    restart: f64,
    drain: f64,
    missing: usize,
    /// Values that queries answered with before the kill, by series.
    pub(crate) answered: BTreeMap<String, Vec<(u32, f64)>>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = self
            .written
            .map_or_else(|| "-".to_owned(), |n| format!("{n:.1}"));
        write!(
            f,
            "{:>9} {:>10} {:>6.1} us {:>6.3} us {:>6.3} {:>6.3} {:>8.1} {:>7.1} {:>8} {:>8.1} {:>5.0} ms {:>6.2} s {:>4.1} s {:>8}",
            self.names,
            self.series,
            self.creation,
            self.steady,
            self.drained,
            self.cores,
            self.memory.anonymous,
            self.memory.resident,
            written,
            self.dirtied,
            self.visible,
            self.restart,
            self.drain,
            self.missing,
        )
    }
}

/// Runs all phases with `names` names and prints what each took.
pub(crate) fn run(names: u32, arguments: &Arguments) -> Figures {
    let mut bench = Bench::new(names, arguments);
    println!(
        "{names} names, {} flushes of {:?}, files on {}: {} {:?}",
        arguments.flushes,
        arguments.interval,
        file_system(bench.server.dir.path()),
        arguments
            .retentions
            .as_deref()
            .unwrap_or("the server's own retentions"),
        arguments.settings,
    );
    bench.server.run();
    bench.create();
    let device = device_bytes(bench.server.dir.path());
    let begun = next_multiple(arguments.interval);
    let steady = bench.steady();
    bench.crash(begun);
    bench.stop(device, &steady);
    bench.compare();
    bench.figures
}

/// A server in the bench's directory, not started yet.
fn server(arguments: &Arguments) -> Server {
    let interval = format!("{}s", arguments.interval.as_secs());
    let mut server = Server::prepared(&[("statsd.flush_interval", &interval)]);
    // That is for tests that look at files.
    server.settings.remove("carbon.persist_within");
    let own = tempfile::Builder::new()
        .prefix("pipeline")
        .tempdir_in(&arguments.dir);
    server.dir = own.unwrap();
    if let Some(retentions) = &arguments.retentions {
        let rules = server.dir.path().join("storage-schemas.conf");
        let text = format!("[all]\npattern = .*\nretentions = {retentions}\n");
        fs::write(&rules, text).unwrap();
        let rules = rules.display().to_string();
        server.settings.insert("carbon.schemas".to_owned(), rules);
    }
    server.settings.extend(arguments.settings.iter().cloned());
    server
}

/// The server and what is sent to it.
pub(crate) struct Bench<'a> {
    pub(crate) server: Server,
    pub(crate) arguments: &'a Arguments,
    /// What is sent.
    pub(crate) pass: Arc<Pass>,
    pub(crate) figures: Figures,
}

/// The sums of a phase.
#[derive(Default)]
struct Steady {
    cpu: Cpu,
    points: f64,
    dirtied: u64,
}

impl<'a> Bench<'a> {
    /// A bench whose server has not been started.
    pub(crate) fn new(names: u32, arguments: &'a Arguments) -> Self {
        Self {
            server: server(arguments),
            arguments,
            pass: Arc::new(Pass::new(names, arguments.values)),
            figures: Figures {
                names,
                ..Figures::default()
            },
        }
    }
}

impl Bench<'_> {
    pub(crate) fn pid(&self) -> i32 {
        self.server.pid().as_raw_nonzero().get()
    }

    /// A number of /metrics, 0 if it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.server.get("/metrics").text();
        let name = format!("plumbago_{name} ");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name.as_str()));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    fn sender(&self) -> Sender {
        let address = self.server.address("statsd.udp");
        Sender::start(&self.pass, address, self.arguments.interval)
    }

    /// Sends until all series have files.
    fn create(&mut self) {
        let before = Cpu::of(self.pid());
        let sender = self.sender();
        let until = next_multiple(self.arguments.interval)
            + self.arguments.interval * self.arguments.creating;
        // The first flush of all names begins the creation.
        let mut begun = None;
        let mut done: Option<(Cpu, f64)> = None;
        while now() < until {
            std::thread::sleep(LOOK * 100);
            let (created, series) = (self.created(), self.metric("carbon_index_series"));
            let begun = *begun.get_or_insert_with(Instant::now);
            let is_complete =
                sender.passes() > 0 && series > f64::from(self.figures.names) && created >= series;
            match done {
                // Series that come with the second flush.
                Some(_) if is_complete && sender.passes() > 2 => break,
                None if is_complete => {
                    let cpu = Cpu::of(self.pid()).since(&before);
                    done = Some((cpu, begun.elapsed().as_secs_f64()));
                }
                _ => {}
            }
        }
        let (cpu, took) = done.unwrap_or_else(|| (Cpu::of(self.pid()).since(&before), f64::NAN));
        drop(sender);
        let created = self.created();
        self.figures.series = self.metric("carbon_index_series");
        self.figures.creation = cpu.total * 1e6 / created;
        println!(
            "  creation   {created} of {} files in {took:.1} s, {:.1} us of CPU time each: {}",
            self.figures.series,
            self.figures.creation,
            cpu.by_thread(created),
        );
    }

    fn created(&self) -> f64 {
        self.metric("carbon_creates_total")
    }

    /// The measured flushes.
    fn steady(&mut self) -> Steady {
        let interval = self.arguments.interval;
        sleep_until(next_multiple(interval));
        let before = Cpu::of(self.pid());
        let points = self.metric("carbon_metrics_received_total");
        let received = self.metric("statsd_metrics_received_total");
        let dirty = dirtied(self.pid());
        let begun = Instant::now();
        let sender = self.sender();
        let mut memory = Memory::default();
        let (mut first, mut last, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.arguments.flushes {
            let end = next_multiple(interval);
            sleep_until(end - interval / 10);
            waiting.push(self.metric("carbon_cache_size"));
            sleep_until(end);
            let seen = self.look(end);
            first.push(seen[0]);
            last.push(seen.into_iter().fold(0.0, f64::max));
            memory = memory.max(Memory::of(self.pid()));
        }
        let sent = sender.passes() * u64::from(self.figures.names);
        drop(sender);
        let took = begun.elapsed().as_secs_f64();
        let cpu = Cpu::of(self.pid()).since(&before);
        let steady = Steady {
            points: self.metric("carbon_metrics_received_total") - points,
            dirtied: dirtied(self.pid()) - dirty,
            cpu,
        };
        let received = self.metric("statsd_metrics_received_total") - received;
        self.figures.memory = memory;
        self.figures.cores = steady.cpu.total / took;
        self.figures.steady = steady.cpu.total * 1e6 / steady.points;
        println!(
            "  steady     {:.0} points, {:.3} us of CPU time each, {:.3} cores busy: {}",
            steady.points,
            self.figures.steady,
            self.figures.cores,
            steady.cpu.by_thread(steady.points),
        );
        println!(
            "             {received:.0} metrics received of at least {sent}, {} lost by the kernel",
            self.metric("statsd_kernel_drops_total"),
        );
        println!(
            "             memory at most {:.1} MB anonymous, {:.1} MB resident",
            memory.anonymous, memory.resident
        );
        let range = |numbers: &[f64]| {
            numbers.iter().fold((f64::MAX, 0.0_f64), |range, n| {
                (range.0.min(*n), range.1.max(*n))
            })
        };
        println!(
            "             points waiting before a flush: {:.0} at first, {:.0} at last, from {:.0} to {:.0}",
            waiting[0],
            waiting[waiting.len() - 1],
            range(&waiting).0,
            range(&waiting).1,
        );
        self.figures.visible = median(&mut last);
        println!(
            "             visible after the end of the interval: first {:.0} ms, last {:.0} ms (medians), at most {:.0} ms",
            median(&mut first),
            self.figures.visible,
            range(&last).1,
        );
        steady
    }

    /// Milliseconds from `end` until each of the probes has its point.
    pub(crate) fn look(&self, end: Duration) -> [f64; 3] {
        let first = |wanted| self.pass.order.iter().find(|name| kind(**name) == wanted);
        let last = |wanted| {
            self.pass
                .order
                .iter()
                .rev()
                .find(|name| kind(**name) == wanted)
        };
        let probes = [
            first(Kind::Counter).map(|name| format!("stats.{}", path(*name))),
            last(Kind::Timer).map(|name| format!("stats.timers.{}.mean", path(*name))),
            last(Kind::Gauge).map(|name| format!("stats.gauges.{}", path(*name))),
        ];
        let at = end.as_secs();
        let targets: Vec<String> = probes
            .iter()
            .flatten()
            .map(|name| format!("target={name}"))
            .collect();
        let from = at - self.arguments.interval.as_secs();
        let query = format!(
            "/render?format=json&noCache=1&from={from}&until={at}&{}",
            targets.join("&")
        );
        let mut seen = [f64::NAN; 3];
        let deadline = end + self.arguments.interval.mul_f64(0.85);
        loop {
            let answer = self.server.json(&query);
            let after = now().saturating_sub(end).as_secs_f64() * 1e3;
            for series in answer.as_array().into_iter().flatten() {
                let which = probes
                    .iter()
                    .position(|probe| probe.as_deref() == series["target"].as_str());
                let points = series["datapoints"].as_array().into_iter().flatten();
                let has = points
                    .clone()
                    .any(|point| point[1].as_u64() == Some(at) && point[0].is_number());
                if let Some(which) = which
                    && has
                    && seen[which].is_nan()
                {
                    seen[which] = after;
                }
            }
            if seen.iter().all(|seen| !seen.is_nan()) {
                return seen;
            }
            if now() > deadline {
                // Not seen within the interval.
                return seen.map(|seen| if seen.is_nan() { after } else { seen });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Kills the server and starts it again. What queries knew since `begun` is kept for the comparison.
    fn crash(&mut self, begun: Duration) {
        let waiting = self.metric("carbon_cache_size");
        // In the middle of an interval, so that the flush before is over.
        sleep_until(next_multiple(self.arguments.interval) + self.arguments.interval / 2);
        self.figures.answered = self.ask(begun);
        sleep_until(now() + COMMITTED);
        self.server.kill();
        let begun = Instant::now();
        self.server.run();
        let ready = begun.elapsed();
        let cpu = Cpu::of(self.pid());
        let end = next_multiple(self.arguments.interval).as_secs();
        let answer = self.server.get(&format!(
            "/render?format=json&from={}&target=stats.gauges.prod.web.host0001.*.*.*",
            end - 60
        ));
        assert_eq!(answer.status, 200);
        self.figures.restart = begun.elapsed().as_secs_f64();
        println!(
            "  restart    after SIGKILL with {waiting:.0} points in the cache: ready after {:.2} s, {:.2} s of CPU time, answer after {:.2} s, {:.0} points read back",
            ready.as_secs_f64(),
            cpu.total,
            self.figures.restart,
            self.metric("carbon_journal_replayed_points_total"),
        );
    }

    /// The values of some counters since `begun`, as queries answer now. An interval without a value
    /// is one that was not flushed.
    pub(crate) fn ask(&self, begun: Duration) -> BTreeMap<String, Vec<(u32, f64)>> {
        let counters = self.pass.order.iter().copied();
        let counters: Vec<String> = counters
            .filter(|name| kind(*name) == Kind::Counter)
            .map(|name| format!("stats_counts.{}", path(name)))
            .take(SAMPLE)
            .collect();
        let mut answered = BTreeMap::new();
        let mut intervals = 0;
        for some in counters.chunks(50) {
            let (begun, now) = (begun.as_secs(), now().as_secs());
            let targets = some.join("&target=");
            let query =
                format!("/render?format=json&noCache=1&from={begun}&until={now}&target={targets}");
            let answer = self.server.json(&query);
            for series in answer.as_array().unwrap() {
                let points = series["datapoints"].as_array().unwrap();
                intervals = intervals.max(points.len());
                let known = points.iter().filter_map(|point| {
                    let value = point[0].as_f64()?;
                    Some((u32::try_from(point[1].as_u64()?).ok()?, value))
                });
                answered.insert(
                    series["target"].as_str().unwrap().to_owned(),
                    known.collect(),
                );
            }
        }
        assert_eq!(answered.len(), counters.len(), "counters that queries know");
        let flushed = answered.values().map(Vec::len).max().unwrap_or(0);
        println!("  flushed    {flushed} of {intervals} intervals before the end of the server");
        answered
    }

    /// Some more flushes, and the stop.
    fn stop(&mut self, device: Option<u64>, steady: &Steady) {
        let (interval, flushes) = (self.arguments.interval, self.arguments.flushes);
        // What was read back, and these flushes, count too.
        let started = Cpu::default();
        sleep_until(next_multiple(interval));
        let sender = self.sender();
        sleep_until(next_multiple(interval) + interval * flushes + interval / 2);
        drop(sender);
        let waiting = self.metric("carbon_cache_size");
        let received = self.metric("carbon_metrics_received_total");
        let before = Cpu::of(self.pid());
        let dirty = dirtied(self.pid());
        self.server.signal(Signal::TERM);
        let begun = Instant::now();
        let mut last = (before.clone(), dirty);
        let status = loop {
            // The numbers of a process vanish with it.
            let now = Cpu::of(self.pid());
            if now.total > 0.0 && !now.threads.is_empty() {
                last = (now, dirtied(self.pid()).max(last.1));
            }
            if let Some(status) = self.server.ended() {
                break status;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.figures.drain = begun.elapsed().as_secs_f64();
        self.server.end();
        assert!(status.success(), "{status}:\n{}", self.server.log());
        let cpu = last.0.since(&before);
        println!(
            "  drain      SIGTERM with {waiting:.0} points in the cache: ended after {:.2} s, {:.2} s of CPU time",
            self.figures.drain, cpu.total,
        );
        let all = last.0.since(&started).plus(&steady.cpu);
        let points = steady.points + received;
        self.figures.drained = all.total * 1e6 / points;
        self.figures.dirtied = (steady.dirtied + last.1) as f64 / points;
        println!(
            "  all points {points:.0} with restart and drain: {:.3} us of CPU time each: {}",
            self.figures.drained,
            all.by_thread(points),
        );
        let written = device_bytes(self.server.dir.path()).zip(device);
        self.figures.written = written.map(|(now, before)| (now - before) as f64 / points);
        match self.figures.written {
            Some(written) => {
                print!("             {written:.1} bytes a point written to the device, ")
            }
            None => print!("             no device, "),
        }
        println!(
            "{:.1} bytes a point of pages made dirty",
            self.figures.dirtied
        );
    }

    /// Looks in the files for the values that queries answered with before the server was killed.
    pub(crate) fn compare(&mut self) {
        let whisper = self.server.data().join("whisper");
        let (mut missing, mut compared) = (0, 0);
        for (name, points) in &self.figures.answered {
            let (Some(first), Some(last)) = (points.first(), points.last()) else {
                continue;
            };
            let file = whisper.join(name.replace('.', "/")).with_extension("wsp");
            let file = whisper::File::open(&file).unwrap();
            let step = self.arguments.interval.as_secs() as u32;
            let at = |time: Duration| Timestamp(time.as_secs() as u32);
            let fetched = file
                .fetch(at(now()), Timestamp(first.0 - step), Timestamp(last.0))
                .unwrap()
                .unwrap();
            assert_eq!(fetched.step.seconds(), step);
            let in_file: BTreeMap<u32, f64> = fetched.points().map(|(t, v)| (t.0, v)).collect();
            compared += points.len();
            missing += points
                .iter()
                .filter(|(time, value)| in_file.get(time) != Some(value))
                .count();
        }
        self.figures.missing = missing;
        println!("  missing    {missing} of {compared} points of {SAMPLE} counters");
    }
}

pub(crate) fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
