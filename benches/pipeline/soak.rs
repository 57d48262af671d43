//! A long run at a steady rate in which names come and go: is memory flat, is the lag, and is all of it counted?
//!
//! ```text
//! cargo bench --bench pipeline -- 100000 interval=10s soak=1h rate=4000000 retentions=10s:6h
//! ```
//!
//! One name in `lives` is new in each interval; names of which nothing comes any more are forgotten by StatsD
//! (`delete_idle_stats`), and their files expire after a minute. Each tenth of the time has a line: memory at
//! most, the time until a flush was seen by queries, points that waited before flushes, series at its end.
//! Then the server is stopped, and the last values of 200 counters are looked for in their files.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::Arguments;
use crate::load::{Renewing, next_multiple, now, sleep_until};
use crate::measure::{Cpu, Memory, device_bytes, dirtied, file_system};
use crate::run::{Bench, median};

/// Longer than the server may take to read what waits in its receive buffer.
const REST: Duration = Duration::from_secs(2);

/// Runs for `time` with `names` names at a time, and prints a line for each tenth.
pub(crate) fn run(names: u32, time: Duration, arguments: &Arguments) {
    let mut bench = Bench::new(names, arguments);
    for (key, value) in [
        ("statsd.delete_idle_stats", "true"),
        ("carbon.expire_after", "60s"),
    ] {
        let settings = &mut bench.server.settings;
        let _ = settings
            .entry(key.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    println!(
        "soak: {names} names, one of {} new in {:?}, {} metrics a second for {time:?}, files on {}: {:?}",
        arguments.lives,
        arguments.interval,
        arguments.rate,
        file_system(bench.server.dir.path()),
        arguments.settings,
    );
    bench.server.run();
    let device = device_bytes(bench.server.dir.path());
    let address = bench.server.address("statsd.udp");
    let interval = arguments.interval;
    let before = received(&bench);
    sleep_until(next_multiple(interval));
    let sender = Renewing::start((names, arguments.lives), arguments.rate, address, interval);
    let begun = Instant::now();
    println!(
        "      s  cores  MB anon  MB all  visible ms: median, most  waiting: most    series    expired  kernel drops"
    );
    for tenth in 1..=10 {
        let until = time * tenth / 10;
        let cpu = Cpu::of(bench.pid());
        let since = Instant::now();
        let (mut memory, mut visible, mut waiting) = (Memory::default(), Vec::new(), 0.0_f64);
        while begun.elapsed() < until {
            let end = next_multiple(interval);
            sleep_until(end - interval / 10);
            waiting = waiting.max(bench.metric("carbon_cache_size"));
            // The names that this interval began with.
            bench.pass = sender.pass();
            sleep_until(end);
            let seen = bench.look(end);
            visible.push(seen.into_iter().fold(0.0, f64::max));
            memory = memory.max(Memory::of(bench.pid()));
        }
        if visible.is_empty() {
            // Shorter than an interval.
            continue;
        }
        let used = Cpu::of(bench.pid()).since(&cpu).total / since.elapsed().as_secs_f64();
        let most = visible.iter().copied().fold(0.0, f64::max);
        println!(
            "{:>7.0} {used:>6.3} {:>8.1} {:>7.1} {:>12.0} {most:>12.0} {waiting:>15.0} {:>9.0} {:>10.0} {:>13.0}",
            begun.elapsed().as_secs_f64(),
            memory.anonymous,
            memory.resident,
            median(&mut visible),
            bench.metric("carbon_index_series"),
            bench.metric("carbon_expired_total"),
            bench.metric("statsd_kernel_drops_total"),
        );
    }
    bench.pass = sender.pass();
    let sent = sender.end();
    finish(&mut bench, sent, before, device);
}

fn received(bench: &Bench<'_>) -> f64 {
    bench.metric("statsd_metrics_received_total")
}

/// What was lost, and the stop.
fn finish(bench: &mut Bench<'_>, sent: u64, before: f64, device: Option<u64>) {
    let interval = bench.arguments.interval;
    let deadline = now() + REST;
    while received(bench) - before < sent as f64 && now() < deadline {
        sleep_until(now() + Duration::from_millis(10));
    }
    let counted = received(bench) - before;
    println!("  counted    {counted:.0} of {sent} metrics sent");
    sleep_until(next_multiple(interval) + interval / 2);
    let last = now().saturating_sub(interval * bench.arguments.lives);
    bench.figures.answered = bench.ask(last);
    let points = bench.metric("carbon_metrics_received_total");
    let dirty = dirtied(bench.pid());
    bench.server.signal(Signal::TERM);
    let begun = Instant::now();
    let status = bench.server.end();
    assert!(status.success(), "{status}:\n{}", bench.server.log());
    println!(
        "  drain      ended {:.2} s after SIGTERM",
        begun.elapsed().as_secs_f64()
    );
    let written = device_bytes(bench.server.dir.path()).zip(device);
    let written = written.map_or_else(String::new, |(now, before)| {
        format!(
            ", {:.1} written to the device",
            (now - before) as f64 / points
        )
    });
    println!(
        "  points     {points:.0}: {:.1} bytes each of pages made dirty{written}",
        dirty as f64 / points
    );
    bench.compare();
}
