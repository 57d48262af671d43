//! What a datapoint costs from the socket to its file, and what the index of a million names costs.
//!
//! - *ingest*: lines over one TCP connection on loopback into cache and journal, each batch of
//!   20 steps of 10,000 names, then *flat*: the persister writes them, 20 points a file; *paced*: 1
//!   point a file, the file up to date before the next. CPU of all threads but the sender's, files
//!   as `wsplimit` has them (`10s:6h,1m:7d`, 146,920 bytes), creates excluded.
//! - *limit*: the same points, 1 a file, written by nothing but system calls: a descriptor kept
//!   open per file, 12 bytes written, 72 read and 12 written for the coarser archive.
//! - *journal*: ingest with group commits of 200 ms against ingest without a journal, alternating.
//! - *bursts*: 200,000 points of 10,000 known metrics over one TCP connection, sent at once as lines and as
//!   pickles of 500 points, from the first byte to the last point in the cache, journal at 200 ms.
//!   *read*: a thread that reads the same bytes from a socket and counts line feeds.
//! - *cache*: 30 points of each of 100,000 series, step by step, into the cache and out of it, by kind of
//!   value, against the same points in a `Vec` for each series; and what queries read of a series.
//! - *restart*: 30 points of each of N series, a step of 10 s after the other, that wait for their files:
//!   memory, bytes of the journal, a start that reads the journal back, a drain that creates all files, and one
//!   that writes existing ones; N is an argument, the data is in `TMPDIR`.
//! - *rules*: resolving the name of a received point with 50 rules (20 patterns of lists, 10 rewrites, 20
//!   aggregation rules of which none matches) against resolving it without rules: a known name, a new one.
//! - *schemas*: finding the section of a storage-schemas.conf of 50 patterns that a name of a new series
//!   matches, each name once and timed by itself, in a tree of a million names that are spread over the
//!   sections; against trying one pattern after the other, as carbon does.
//! - *index*: a million names of the tree that `find` is measured on, read back as at a restart; patterns,
//!   and tag queries by `name`, which find series without tags.
//!
//! `cargo bench --bench carbon`, or `cargo bench --bench carbon -- serve PORT DATA [off|200ms]`
//! for a server that other generators can load; `-- METRICS` for another number of names,
//! `-- rules`, `-- bursts`, `-- cache`, `-- points METRICS` (flat, paced, limit) for that part alone; `-- restart N` is not part of the whole.

#![allow(missing_docs, reason = "a program, not a library")]
#![allow(clippy::unwrap_used, reason = "a bench ends where it goes wrong")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use carbon::cache::Cache;
use carbon::index::Index;
use carbon::listener::Listeners;
use carbon::options::{ByteSize, JournalOptions, Options, Span, SyncPolicy};
use carbon::pattern::Pattern;
use carbon::protocol::pickle::write;
use carbon::protocol::resolver::At;
use carbon::schema::{Schema, load_schemas};
use carbon::{Carbon, Datapoint, PointTime, SeriesId, Setup, Sink, Timestamp};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use whisper::{Needed, Point, Retention};

const STEPS: u32 = 20;
const ROUNDS: usize = 5;

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    if args.first().is_some_and(|arg| arg == "serve") {
        return serve(&args[1..]);
    }
    if args.first().is_some_and(|arg| arg == "index") {
        return read_back(Path::new(&args[1]));
    }
    if args.first().is_some_and(|arg| arg == "bursts") {
        return bursts();
    }
    if args.first().is_some_and(|arg| arg == "rules") {
        return rules();
    }
    if args.first().is_some_and(|arg| arg == "schemas") {
        return schemas();
    }
    if args.first().is_some_and(|arg| arg == "cache") {
        return cache();
    }
    if args.first().is_some_and(|arg| arg == "restart") {
        return restart(args.get(1).map_or(100_000, |arg| arg.parse().unwrap()));
    }
    if args.first().is_some_and(|arg| arg == "points") {
        return points(args.get(1).map_or(10_000, |arg| arg.parse().unwrap()));
    }
    let metrics: u32 = args.first().map_or(10_000, |arg| arg.parse().unwrap());
    rules();
    schemas();
    cache();
    index();
    points(metrics);
    journal(metrics.min(2_000));
    bursts();
}

/// CPU seconds of a clock.
fn cpu(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs() as u32
}

fn setup(sync: SyncPolicy) -> Setup {
    let journal = JournalOptions {
        sync,
        ..JournalOptions::default()
    };
    let retentions = ["10s:6h", "1m:7d"].map(|text| Retention::parse_carbon(text).unwrap());
    Setup {
        schema: Schema::new(retentions.to_vec(), Span::seconds(10)),
        ..Setup::new(options(), journal, Span::seconds(10))
    }
}

/// Files are written at once: the parts of this bench wait for them.
fn options() -> Options {
    Options {
        persist_within: Span::seconds(1),
        ..Options::default()
    }
}

fn name(i: u32) -> String {
    let last = ["requests", "duration", "capacity"][i as usize % 3];
    format!(
        "prod.web.host{:04}.svc{:02}.ep{:03}.{last}",
        i % 1000,
        i / 1000 % 40,
        i / 40_000
    )
}

/// The server alone, until its standard input ends.
fn serve(args: &[String]) {
    let port: u16 = args[0].parse().unwrap();
    let sync = args
        .get(2)
        .map_or(SyncPolicy::Every(Span::millis(200)), |text| {
            text.parse().unwrap()
        });
    let carbon = Carbon::open(setup(sync), Path::new(&args[1])).unwrap();
    Runtime::new().unwrap().block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let mut term =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
        let ended = async move {
            term.recv().await;
        };
        Listeners::new(&carbon).line_tcp(listener, ended).await;
    });
    carbon.drain(|_| {}).unwrap();
}

/// A store with a listener, and a connection to it.
struct Rig {
    carbon: Carbon,
    runtime: Runtime,
    client: TcpStream,
    stop: oneshot::Sender<()>,
    sent: u64,
    sender_cpu: f64,
    names: Vec<String>,
}

impl Rig {
    fn new(data: &Path, metrics: u32, sync: SyncPolicy) -> Self {
        let carbon = Carbon::open(setup(sync), data).unwrap();
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(Listeners::new(&carbon).line_tcp(listener, async {
            let _ = stopped.await;
        }));
        Self {
            carbon,
            runtime,
            client,
            stop,
            sent: 0,
            sender_cpu: 0.0,
            names: (0..metrics).map(name).collect(),
        }
    }

    /// Sends a step of every metric and waits until all is taken.
    fn send(&mut self, at: u32, steps: u32) {
        let before = cpu(ClockId::ThreadCPUTime);
        let mut lines = Vec::with_capacity(80_000);
        for step in 0..steps {
            for (i, name) in self.names.iter().enumerate() {
                let value = (i as u32 * 7 + step) % 1_000;
                writeln!(lines, "{name} {value}.{} {}", step % 10, at + step * 10).unwrap();
                if lines.len() > 60_000 {
                    self.client.write_all(&lines).unwrap();
                    lines.clear();
                }
            }
        }
        self.client.write_all(&lines).unwrap();
        self.sent += u64::from(steps) * self.names.len() as u64;
        while self.carbon.stats().received.get() < self.sent {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.sender_cpu += cpu(ClockId::ThreadCPUTime) - before;
    }

    fn wait_written(&self) {
        let stats = self.carbon.stats();
        while stats.committed.get() + stats.too_old.get() < self.sent {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until the new directories that the kernel has reported are watched and have been read: that belongs
    /// to the creation of their files. What is left for the walk is read at a few hundred a second.
    fn wait_watched(&self) {
        let watched = &self.carbon.stats().watched;
        let mut before = 0;
        while watched.get() > before + 500 {
            before = watched.get();
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// CPU of everything but the sender.
    fn cpu(&self) -> f64 {
        cpu(ClockId::ProcessCPUTime) - self.sender_cpu
    }

    fn end(self) {
        self.stop.send(()).unwrap();
        self.carbon.drain(|_| {}).unwrap();
        drop((self.carbon, self.runtime));
    }
}

fn points(metrics: u32) {
    let n = f64::from(metrics);
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::new(dir.path(), metrics, SyncPolicy::Every(Span::millis(200)));
    let base = now() / 10 * 10 - 2 * 3_600;
    let (before, started) = (rig.cpu(), Instant::now());
    rig.send(base, 1);
    rig.wait_written();
    println!(
        "{metrics} metrics; created {:.0}/s, {:.0} us of CPU each",
        n / started.elapsed().as_secs_f64(),
        (rig.cpu() - before) / n * 1e6
    );
    rig.wait_watched();
    let mut at = base + 10;
    let (mut flat, mut rate, mut paced, mut limit) = (vec![], vec![], vec![], vec![]);
    let files = Limit::new(metrics);
    for round in 0..ROUNDS {
        let (before, started) = (rig.cpu(), Instant::now());
        rig.send(at, STEPS);
        rig.wait_written();
        let points = n * f64::from(STEPS);
        flat.push((rig.cpu() - before) / points * 1e6);
        rate.push(points / started.elapsed().as_secs_f64());
        at += 10 * STEPS;
        let before = rig.cpu();
        for _ in 0..3 {
            rig.send(at, 1);
            rig.wait_written();
            at += 10;
        }
        paced.push((rig.cpu() - before) / n / 3.0 * 1e6);
        limit.push(files.round(round as u32));
    }
    let (flat, paced, limit) = (median(flat), median(paced), median(limit));
    println!(
        "flat, {STEPS} points a file       {flat:.2} us/point   {:.0} points/s",
        median(rate)
    );
    println!("paced, 1 point a file       {paced:.2} us/point");
    println!("limit, descriptors kept     {limit:.2} us/point");
    println!("paced over limit            {:.2}", paced / limit);
    rig.end();
}

/// Writing with kept descriptors and propagating by hand.
struct Limit {
    _dir: tempfile::TempDir,
    files: Vec<File>,
}

impl Limit {
    fn new(metrics: u32) -> Self {
        // As many as are allowed: the rest goes round.
        let most = rustix::process::getrlimit(Resource::Nofile).maximum;
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: most,
                maximum: most,
            },
        );
        let dir = tempfile::tempdir().unwrap();
        let count = u64::from(metrics).min(most.unwrap_or(1 << 16).saturating_sub(200));
        let files = (0..count)
            .map(|n| {
                let path = dir.path().join(n.to_string());
                let file = File::create_new(&path).unwrap();
                file.set_len(146_920).unwrap();
                drop(file);
                File::options().read(true).write(true).open(path).unwrap()
            })
            .collect();
        Self { _dir: dir, files }
    }

    fn round(&self, round: u32) -> f64 {
        let before = cpu(ClockId::ThreadCPUTime);
        let mut read = [0; 72];
        for step in 0..3 {
            let slot = u64::from(round * 3 + step) * 12;
            for file in &self.files {
                file.write_all_at(&[7; 12], 40 + 72 + slot).unwrap();
                file.read_exact_at(&mut read, 40 + slot).unwrap();
                file.write_all_at(&[7; 12], 25_960 + slot / 6 / 12 * 12)
                    .unwrap();
            }
        }
        (cpu(ClockId::ThreadCPUTime) - before) / 3.0 / self.files.len() as f64 * 1e6
    }
}

/// Ingest alone, with the journal and without, alternating.
fn journal(metrics: u32) {
    let dir = tempfile::tempdir().unwrap();
    let syncs = [SyncPolicy::Off, SyncPolicy::Every(Span::millis(200))];
    let mut costs = [vec![], vec![]];
    for _ in 0..ROUNDS {
        for (costs, sync) in costs.iter_mut().zip(syncs) {
            let mut rig = Rig::new(dir.path(), metrics, sync);
            // The files are there before it counts.
            rig.send(now() / 10 * 10 - 3_600, 1);
            rig.wait_written();
            let before = rig.cpu();
            rig.send(now() / 10 * 10 - 1_800, 4 * STEPS);
            costs.push((rig.cpu() - before) / f64::from(metrics * 4 * STEPS) * 1e6);
            rig.end();
        }
    }
    let [off, on] = costs.map(median);
    println!(
        "ingest without journal {off:.3} us/point, with 200ms {on:.3}: {:+.1} %",
        (on / off - 1.0) * 100.0
    );
}

/// The value of step `n` of the series `i`.
type Values = fn(i: u32, n: u32) -> f64;

/// Kinds of series, as statsd makes them.
const KINDS: [(&str, Values); 5] = [
    ("idle counter", |_, _| 0.0),
    ("counter", |i, n| f64::from((i * 7 + n * 37) % 200)),
    ("rate", |i, n| f64::from((i * 7 + n * 37) % 200) / 10.0),
    ("gauge", |i, n| {
        f64::from((i * 31 + n * n * 7) % 10_000) / 100.0
    }),
    ("mean", |i, n| f64::from(i % 100 + n * 37) / 7.0),
];

/// Series and points of each that wait in the cache.
const WAITING: (u32, u32) = (100_000, 30);

/// What points cost that wait in the cache.
fn cache() {
    for (what, value) in KINDS {
        cache_of(what, value);
    }
}

/// The time of the `n`th waiting point.
fn waiting_at(n: u32) -> PointTime {
    PointTime::of_clock(Timestamp(1_700_000_000 + 10 * n))
}

fn cache_of(what: &str, value: Values) {
    let (series, points) = WAITING;
    let all = f64::from(series * points);
    let cache = Cache::new(1 << 30);
    let mut plain: Vec<Vec<Point>> = vec![Vec::new(); series as usize];
    let (mut coded_ns, mut plain_ns) = (0.0, 0.0);
    for n in 0..points {
        let points: Vec<Datapoint> = (0..series)
            .map(|i| Datapoint {
                series: SeriesId(i),
                at: waiting_at(n),
                value: value(i, n),
            })
            .collect();
        let begun = Instant::now();
        for points in points.chunks(1_000) {
            assert_eq!(cache.reserve(points.len()), points.len());
            cache.insert(points, Timestamp(0), &mut Vec::new());
        }
        coded_ns += begun.elapsed().as_nanos() as f64;
        let begun = Instant::now();
        for point in &points {
            plain[point.series.0 as usize].push(Point {
                at: point.at.timestamp(),
                value: point.value,
            });
        }
        plain_ns += begun.elapsed().as_nanos() as f64;
    }
    let bytes = cache.used_bytes() as f64;
    let plain_bytes: usize = plain
        .iter()
        .map(|points| size_of::<Vec<Point>>() + points.capacity() * size_of::<Point>())
        .sum();
    let (reads, plain_read) = (cache_reads(&cache), plain_reads(&plain));
    let mut read = Vec::new();
    let begun = Instant::now();
    for i in 0..series {
        read.clear();
        cache.take(SeriesId(i), &mut read);
        assert_eq!(read.len(), points as usize);
        cache.done(SeriesId(i));
    }
    let taken_ns = begun.elapsed().as_nanos() as f64;
    println!(
        "cache, {what:12} {:5.1} ns in {:5.1} out {:5.2} bytes a point   plain {:5.1} ns {:5.2} bytes",
        coded_ns / all,
        taken_ns / all,
        bytes / all,
        plain_ns / all,
        plain_bytes as f64 / all,
    );
    println!(
        "       a query of a series reads all {points} in {:.0} ns, the last 6 in {:.0}, none in {:.0}   plain: all in {:.0}",
        reads[0], reads[1], reads[2], plain_read,
    );
}

/// Nanoseconds in which queries read all points of a series, the last six, none.
fn cache_reads(cache: &Cache) -> [f64; 3] {
    let (series, points) = WAITING;
    let mut read = Vec::new();
    [0, points - 6, points].map(|from| {
        let needed = Needed {
            from: waiting_at(from).timestamp(),
            until: waiting_at(points + 10).timestamp(),
            oldest: Timestamp(0),
            newest: Timestamp(u32::MAX),
        };
        let begun = Instant::now();
        for i in 0..series {
            read.clear();
            cache.read_needed(SeriesId(i), Some(needed), &mut read);
            assert_eq!(read.len(), (points - from) as usize);
        }
        begun.elapsed().as_nanos() as f64 / f64::from(series)
    })
}

/// The same for all points of plain series.
fn plain_reads(plain: &[Vec<Point>]) -> f64 {
    let mut read = Vec::new();
    let begun = Instant::now();
    for points in plain {
        read.clear();
        read.extend_from_slice(points);
        assert_eq!(read.len(), WAITING.1 as usize);
    }
    begun.elapsed().as_nanos() as f64 / plain.len() as f64
}

/// Opens a store whose points wait for an hour.
fn open_patient(dir: &Path) -> Carbon {
    let options = Options {
        persist_within: Span::seconds(3_600),
        max_cache_size: ByteSize(4 << 30),
        drain_timeout: Span::seconds(0),
        infer_step: false,
        ..Options::default()
    };
    let journal = JournalOptions {
        max_size: ByteSize(64 << 30),
        ..JournalOptions::default()
    };
    let retentions = ["10s:1h", "1m:1d"].map(|text| Retention::parse_carbon(text).unwrap());
    let setup = Setup {
        schema: Schema::new(retentions.to_vec(), Span::seconds(10)),
        ..Setup::new(options, journal, Span::seconds(10))
    };
    Carbon::open(setup, dir).unwrap()
}

/// Submits 30 steps of the mix that statsd makes of counters, timers and gauges.
fn submit_mix(carbon: &Carbon, ids: &[SeriesId], from: u32) {
    // Of 43 series of ten names: seven counters of two series each, two timers of 14, a gauge.
    let value = |i: u32, n: u32| match i % 43 {
        0..14 if !i.is_multiple_of(3) => 0.0,
        0..14 if i.is_multiple_of(2) => f64::from((i * 7 + n * 37) % 50),
        0..14 => f64::from((i * 7 + n * 37) % 50) / 10.0,
        14..28 => f64::from((i * 31 + n * 17) % 400),
        28..42 => f64::from((i * 31 + n * 17) % 400) / 7.0,
        _ => f64::from((i * 31 + n * n * 7) % 10_000) / 100.0,
    };
    for n in 0..30 {
        let points: Vec<Datapoint> = (0..)
            .zip(ids)
            .map(|(i, id)| Datapoint {
                series: *id,
                at: PointTime::of_clock(Timestamp(from + 10 * n)),
                value: value(i, n),
            })
            .collect();
        points
            .chunks(1_024)
            .for_each(|points| carbon.submit(points));
    }
}

fn restart(series: u32) {
    let dir = tempfile::tempdir().unwrap();
    let all = f64::from(series) * 30.0;
    let intern = |carbon: &Carbon| -> Vec<SeriesId> {
        let names = (0..series).map(name);
        names
            .map(|name| carbon.intern(name.as_bytes()).unwrap())
            .collect()
    };
    let carbon = open_patient(dir.path());
    let ids = intern(&carbon);
    let (memory, before) = (anonymous_mb(), cpu(ClockId::ProcessCPUTime));
    submit_mix(&carbon, &ids, now() - 300);
    carbon.commit().unwrap();
    println!(
        "{series} series, 30 points each: {:.3} us of CPU a point taken, {:.0} MB of memory ({:.2} bytes a \
         point), journal {:.0} MB ({:.2} bytes a point)",
        (cpu(ClockId::ProcessCPUTime) - before) / all * 1e6,
        anonymous_mb() - memory,
        (anonymous_mb() - memory) * 1048576.0 / all,
        carbon.journal_bytes() as f64 / 1e6,
        carbon.journal_bytes() as f64 / all,
    );
    carbon.abandon();
    for files in ["files to be created", "files there"] {
        let started = Instant::now();
        let carbon = open_patient(dir.path());
        let opened = started.elapsed().as_secs_f64();
        let points = carbon.cache().len() as f64;
        let (started, before) = (Instant::now(), cpu(ClockId::ProcessCPUTime));
        carbon.drain(|_| {}).unwrap();
        println!(
            "start with {:.1} million points in the journal: {opened:.2} s; drain, {files}: {:.2} s, {:.3} us of \
             CPU a point",
            points / 1e6,
            started.elapsed().as_secs_f64(),
            (cpu(ClockId::ProcessCPUTime) - before) / points * 1e6,
        );
        drop(carbon);
        let carbon = open_patient(dir.path());
        submit_mix(&carbon, &intern(&carbon), now() - 300);
        carbon.commit().unwrap();
        carbon.abandon();
    }
}

/// Points of one burst.
const BURST: u32 = 200_000;
const BURST_METRICS: u32 = 10_000;

/// A burst as lines, and as pickles of 500 points.
fn burst(at: u32) -> [Vec<u8>; 2] {
    let steps = BURST / BURST_METRICS;
    let points: Vec<(String, u32, f64)> = (0..steps)
        .flat_map(|step| {
            (0..BURST_METRICS).map(move |i| {
                let value = f64::from((i * 7 + step) % 1_000) + f64::from(step % 10) / 10.0;
                (name(i), at + step * 10, value)
            })
        })
        .collect();
    let mut lines = Vec::new();
    for (name, at, value) in &points {
        writeln!(lines, "{name} {value} {at}").unwrap();
    }
    let mut pickles = Vec::new();
    for points in points.chunks(500) {
        write::frame(&mut pickles, |out| {
            write::list(out, |out| {
                for (name, at, value) in points {
                    write::text(out, name);
                    write::integer(out, *at);
                    write::float(out, *value);
                    write::pair(out);
                    write::pair(out);
                }
            });
        });
    }
    [lines, pickles]
}

fn bursts() {
    let dir = tempfile::tempdir().unwrap();
    let carbon = Carbon::open(setup(SyncPolicy::Every(Span::millis(200))), dir.path()).unwrap();
    let runtime = Runtime::new().unwrap();
    let listeners = Listeners::new(&carbon);
    let open = || runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let (lines, pickles) = (open(), open());
    let connect =
        |listener: &TcpListener| TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut clients = [connect(&lines), connect(&pickles)];
    runtime.spawn(listeners.clone().line_tcp(lines, std::future::pending()));
    runtime.spawn(listeners.pickle(pickles, std::future::pending()));
    let mut sent = 0;
    let mut at = now() / 10 * 10 - 2 * 3_600;
    let (mut rates, mut costs, mut reads) = ([vec![], vec![]], [vec![], vec![]], [vec![], vec![]]);
    for round in 0..=2 * ROUNDS {
        for (which, bytes) in burst(at).iter().enumerate() {
            let (process, own) = (cpu(ClockId::ProcessCPUTime), cpu(ClockId::ThreadCPUTime));
            let started = Instant::now();
            clients[which].write_all(bytes).unwrap();
            sent += u64::from(BURST);
            while carbon.stats().received.get() < sent {
                std::thread::sleep(Duration::from_micros(50));
            }
            let took = started.elapsed().as_secs_f64();
            let own = cpu(ClockId::ThreadCPUTime) - own;
            let cost = cpu(ClockId::ProcessCPUTime) - process - own;
            // The first round makes the names and the files.
            if round > 0 {
                rates[which].push(f64::from(BURST) / took);
                costs[which].push(cost / f64::from(BURST) * 1e9);
                reads[which].push(f64::from(BURST) / read_bare(bytes));
            }
            while !carbon.cache().is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        at += BURST / BURST_METRICS * 10;
    }
    for (which, what) in ["lines", "pickle"].into_iter().enumerate() {
        let best = rates[which].iter().copied().fold(0.0, f64::max);
        let (rate, read) = (median(rates[which].clone()), median(reads[which].clone()));
        println!(
            "bursts, {what:6}  {rate:.0} points/s (best {best:.0}), {:.0} ns of CPU a point; read alone \
             {read:.0} points/s: {:.2}",
            median(costs[which].clone()),
            rate / read
        );
    }
    carbon.drain(|_| {}).unwrap();
}

/// Seconds until a thread has read `bytes` from a socket and counted their line feeds.
fn read_bare(bytes: &[u8]) -> f64 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let len = bytes.len();
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        let (mut read, mut found) = (0, 0);
        while read < len {
            let n = stream.read(&mut buffer).unwrap();
            found += memchr::memchr_iter(b'\n', &buffer[..n]).count();
            read += n;
        }
        found
    });
    let started = Instant::now();
    client.write_all(bytes).unwrap();
    assert!(reader.join().unwrap() > 0);
    started.elapsed().as_secs_f64()
}

/// Anonymous memory of this process, in MB.
fn anonymous_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon"));
    let kb: f64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kb / 1024.0
}

/// Nanoseconds a name: known ones, new ones.
fn resolve(carbon: &Carbon) -> (f64, f64) {
    const NAMES: u32 = 20_000;
    let at = At::Time(PointTime::of_clock(Timestamp(now())));
    let names: Vec<String> = (0..NAMES).map(name).collect();
    let mut out = Vec::with_capacity(NAMES as usize);
    let mut pass = || {
        let begun = Instant::now();
        let mut resolver = carbon.resolver(&mut out);
        for name in &names {
            resolver.take(name.as_bytes(), at, 1.0);
        }
        drop(resolver);
        assert_eq!(out.len(), names.len());
        out.clear();
        begun.elapsed().as_nanos() as f64 / f64::from(NAMES)
    };
    let new = pass();
    let known = (0..ROUNDS * 4).map(|_| pass()).collect();
    (median(known), new)
}

/// What rules cost a received point.
fn rules() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, lines: Vec<String>| {
        let path = dir.path().join(name);
        fs::write(&path, lines.join("\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let many = |n: u32, line: fn(u32) -> String| (0..n).map(line).collect::<Vec<_>>();
    let mut rewrites = vec!["[pre]".to_owned()];
    rewrites.extend(many(10, |n| format!("^old{n}\\.([^.]+)\\. = new.\\1.")));
    let ruled = Options {
        deny: file("deny", many(20, |n| format!("^noise{n}\\.|\\.debug{n}$"))),
        rewrite_rules: file("rewrite", rewrites),
        aggregation_rules: file(
            "rules",
            many(20, |n| format!("sum{n}.<m> (60) = sum app{n}.<m>.*.count")),
        ),
        ..Options::default()
    };
    let mut times = Vec::new();
    for (n, options) in [Options::default(), ruled].into_iter().enumerate() {
        let setup = Setup {
            options,
            ..setup(SyncPolicy::Off)
        };
        let carbon = Carbon::open(setup, &dir.path().join(n.to_string())).unwrap();
        times.push(resolve(&carbon));
    }
    let [(known, new), (ruled_known, ruled_new)] = times[..] else {
        return;
    };
    println!(
        "rules, known name   {ruled_known:8.0} ns   without {known:6.0} ns   {:5.2}x",
        ruled_known / known
    );
    println!(
        "rules, new name     {ruled_new:8.0} ns   without {new:6.0} ns   {:5.2}x",
        ruled_new / new
    );
}

/// A storage-schemas.conf of 50 sections, as large installations have them: by team, by kind of host, by
/// the end of the name, and one for the rest.
fn fifty_sections() -> (String, Vec<String>) {
    let mut patterns: Vec<String> = Vec::new();
    patterns.extend((0..12).map(|n| format!("^team{n:02}\\.")));
    patterns.extend((0..12).map(|n| format!("^servers\\.rack{n:02}[a-f]?\\..*\\.cpu\\.")));
    patterns.extend(
        (0..10)
            .map(|n| format!("^(stats|summary)\\.timers\\.app{n:02}\\..*\\.(upper|lower)_9\\d$")),
    );
    patterns.extend((0..8).map(|n| format!("\\.interface-eth{n}\\.if_(octets|packets)\\.")));
    patterns.extend((0..7).map(|n| format!("\\.(requests|errors)\\.code{n}\\d\\d\\.count$")));
    patterns.push(".*".to_owned());
    let section = |(n, pattern): (usize, &String)| {
        format!("[section{n}]\npattern = {pattern}\nretentions = 10s:6h,1m:7d\n")
    };
    let text = patterns.iter().enumerate().map(section).collect();
    (text, patterns)
}

/// A name of the tree that those sections are for.
fn spread_name(i: u32) -> String {
    let (kind, host) = (i % 6, i / 6);
    match kind {
        0 => format!(
            "team{:02}.service{:03}.host{host:06}.load",
            host % 14,
            host % 300
        ),
        1 => format!(
            "servers.rack{:02}b.host{host:06}.cpu.{}",
            host % 13,
            host % 8
        ),
        2 => format!(
            "stats.timers.app{:02}.endpoint{host:06}.upper_90",
            host % 11
        ),
        3 => format!(
            "collectd.host{host:06}.interface-eth{}.if_octets.rx",
            host % 9
        ),
        4 => format!("web.site{host:06}.requests.code{}04.count", host % 8),
        _ => name(i),
    }
}

/// What finding the rule of a new series costs.
fn schemas() {
    const NAMES: u32 = 1_000_000;
    /// Names that are searched for one pattern after the other.
    const SLOWLY: usize = 20_000;
    let (text, patterns) = fifty_sections();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("storage-schemas.conf");
    fs::write(&path, text).unwrap();
    let schemas = load_schemas(&path, Span::seconds(10)).unwrap().value;
    assert_eq!(schemas.rules().len(), 50);
    let names: Vec<String> = (0..NAMES).map(spread_name).collect();
    let mut found = vec![0_u32; 50];
    let mut time = |name: &String| {
        let begun = Instant::now();
        let rule = schemas.find(name);
        let nanos = begun.elapsed().as_nanos() as f64;
        let line = rule.unwrap().line;
        found[line / 3] += 1;
        nanos
    };
    let times: Vec<f64> = names.iter().map(&mut time).collect();
    assert!(found.iter().all(|names| *names > 0), "{found:?}");
    let patterns: Vec<Pattern> = patterns.iter().map(|p| Pattern::new(p).unwrap()).collect();
    let one_by_one = |name: &String| {
        let begun = Instant::now();
        let first = patterns.iter().position(|p| p.is_in(name).unwrap());
        let nanos = begun.elapsed().as_nanos() as f64;
        assert_eq!(schemas.find(name).unwrap().line, first.unwrap() * 3 + 1);
        nanos
    };
    let sample = names.iter().step_by(NAMES as usize / SLOWLY);
    let slow = median(sample.map(one_by_one).collect());
    let mut sorted = times;
    sorted.sort_by(f64::total_cmp);
    let part = |share: f64| sorted[(sorted.len() as f64 * share) as usize];
    println!(
        "schemas, 50 patterns{:8.0} ns   one by one {slow:6.0} ns   {:5.2}x   (p99 {:.0} ns)",
        part(0.5),
        part(0.5) / slow,
        part(0.99)
    );
}

fn index() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("names");
    {
        let index = Index::open(dir.path(), log.clone(), false).unwrap();
        for host in 0..1000 {
            for service in 0..40 {
                for metric in 0..25 {
                    let name = format!("find.host{host:04}.svc{service:02}.metric{metric:02}");
                    index.note_stored(name.as_bytes()).unwrap();
                }
            }
        }
        index.sync().unwrap();
    }
    // In a process of its own: memory that the filling left behind is not the index's.
    let program = std::env::current_exe().unwrap();
    let status = std::process::Command::new(program)
        .arg("index")
        .arg(log)
        .status()
        .unwrap();
    assert!(status.success());
}

/// Reads an index back and asks it. Times are CPU of this thread.
fn read_back(log: &Path) {
    let before = anonymous_mb();
    let (started, busy) = (Instant::now(), cpu(ClockId::ThreadCPUTime));
    let index = Index::open(log.parent().unwrap(), log.to_owned(), false).unwrap();
    println!(
        "index of {} names: ready in {:.2} s ({:.2} s of CPU), {:.1} MB ({:.1} by its own account)",
        index.len(),
        started.elapsed().as_secs_f64(),
        cpu(ClockId::ThreadCPUTime) - busy,
        anonymous_mb() - before,
        index.size_bytes() as f64 / 1e6
    );
    for query in [
        "find.*",
        "find.host0001.svc01.*",
        "find.host00*.svc01.metric01",
        "find.*.svc01.metric01",
        "find.host*7.svc{01,02}.metric0[1-3]",
        "find.*.svc*.metric01",
        "find.host0500.svc20.metric12",
    ] {
        let mut times = vec![];
        let mut hits = 0;
        for _ in 0..21 {
            let before = cpu(ClockId::ThreadCPUTime);
            hits = index.find(query).unwrap().len();
            times.push((cpu(ClockId::ThreadCPUTime) - before) * 1e6);
        }
        println!("{query:38} {hits:6} hits {:10.1} us", median(times));
    }
    by_name(&index);
}

/// Asks for series without tags as tag queries do: by the tag `name`, which each of them has.
fn by_name(index: &Index) {
    let ask = |what: &str, search: &dyn Fn() -> usize| {
        let before = anonymous_mb();
        let mut times = vec![];
        let mut hits = 0;
        for _ in 0..11 {
            let before = cpu(ClockId::ThreadCPUTime);
            hits = search();
            times.push((cpu(ClockId::ThreadCPUTime) - before) * 1e6);
        }
        let kept = anonymous_mb() - before;
        println!(
            "{what:38} {hits:6} hits {:10.1} us, {kept:.1} MB kept",
            median(times)
        );
    };
    for expression in [
        "name=find.host0500.svc20.metric12",
        "name=~find\\.host0500\\.svc20\\.",
        "name=~find\\.host05..\\.svc20\\.metric12",
        "name=~.*svc20\\.metric12$",
        "name!=~find",
    ] {
        ask(expression, &|| {
            index
                .find_tagged(&[expression])
                .map_or(0, |found| found.len())
        });
    }
    for prefix in [
        "find.host0500.svc20.",
        "find.host0500.",
        "find.host05",
        "find",
        "",
    ] {
        ask(&format!("autocomplete {prefix:?}"), &|| {
            let found = index.complete_values(&[], "name", prefix, 100, &mut |_| true);
            found.map_or(0, |found| found.len())
        });
    }
    ask("/tags/name", &|| {
        index.values("name").map_or(0, |(_, values)| values.len())
    });
}
