//! What whisper files cost, beside the least that any program can do with the same files.
//!
//! Each line compares ours with a baseline over the same files, in the same order, in the same
//! run, both alternating; the numbers are processor time of this process (user and system), so
//! that a busy machine changes them little, as medians over the rounds. Files lie below
//! `PLUMBAGO_BENCH_DIR`, else below the system's directory for temporary files.
//!
//! 1. *Opened for the call*: open, header, work, close on 2,000 files of 10s:6h,1m:7d. The baseline
//!    loops open, read the header, write or read as many bytes, and close; they propagate nothing.
//! 2. *Mapped*: 10,000 such files in shuffled order, one point each. The baseline stores the slot
//!    into the same kind of map, reads the six slots of the minute and stores their average.
//! 3. *Round robin*: 100,000 files of 10s:1h,1m:6h, more than are mapped, one point each against
//!    open, write, close; 20 points each against open, read the header, write, close.
//!
//!     cargo bench --bench whisper [-- opened|mapped|robin]
#![allow(
    unsafe_code,
    reason = "the baseline stores into its maps as a C program would"
)]
#![allow(clippy::unwrap_used, reason = "a bench stops where it fails")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{pread, pwrite};
use rustix::time::{ClockId, clock_gettime};
use whisper::{
    Allocation, CreateOptions, File, Lock, MapOptions, Maps, Point, Retention, Timestamp, create,
};

const ROUNDS: usize = 9;
const BASE: u32 = 1_700_000_000 - 1_700_000_000 % 86_400;
const SLOT: usize = 12;

fn main() {
    // `cargo test --benches` runs this too, and wants to know only that it still works.
    let full = std::env::args().any(|arg| arg == "--bench");
    let root =
        std::env::var_os("PLUMBAGO_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(root).unwrap();
    let sized = |n: usize| if full { n } else { n / 100 };
    println!(
        "{:34} {:>10} {:>10}   ratio (spread)",
        "us per call", "ours", "baseline"
    );
    let wanted = |name: &str| {
        let mut names = std::env::args()
            .skip(1)
            .filter(|arg| !arg.starts_with('-'))
            .peekable();
        names.peek().is_none() || names.any(|arg| arg == name)
    };
    if wanted("opened") {
        opened(&dir.path().join("opened"), sized(2_000));
    }
    if wanted("mapped") {
        mapped(&dir.path().join("mapped"), sized(10_000));
    }
    if wanted("robin") {
        round_robin(&dir.path().join("robin"), sized(100_000));
    }
}

fn opened(dir: &Path, n: usize) {
    let paths = files(dir, n, &[(10, 2160), (60, 10_080)], Allocation::Sparse);
    let archive0 = 40_u64;
    let mut now = BASE + 20_000;

    // As Graphite's users have it: each point one step after the one before.
    let mut ours = |round: u32| {
        let at = BASE + round * 10;
        for path in &paths {
            let mut file = File::open_mut(path, Lock::None).unwrap();
            file.update(Timestamp(now), Point::new(at, 1.5)).unwrap();
        }
    };
    let mut baseline = |round: u32| {
        let slot = Point::new(BASE + round * 10, 1.5).to_slot();
        for path in &paths {
            let fd = open(path, OFlags::RDWR, Mode::empty()).unwrap();
            let mut header = [0; 52];
            pread(&fd, &mut header, 0).unwrap();
            pwrite(&fd, &slot, archive0 + u64::from(round) * SLOT as u64).unwrap();
        }
    };
    compare("opened: update", n, &mut ours, &mut baseline);

    now += 30_000;
    let mut ours = |round: u32| {
        let start = BASE + 30_000 + round * 1000;
        let points: Vec<Point> = (0..100)
            .map(|i| Point::new(start + i * 10, f64::from(i)))
            .collect();
        for path in &paths {
            let mut file = File::open_mut(path, Lock::None).unwrap();
            file.update_many(Timestamp(now), &points).unwrap();
        }
    };
    let bytes = [7; 100 * SLOT];
    // The baseline writes nonsense, into files of its own.
    let nonsense = files(
        &dir.join("nonsense"),
        n,
        &[(10, 2160), (60, 10_080)],
        Allocation::Sparse,
    );
    let mut baseline = |round: u32| {
        for path in &nonsense {
            let fd = open(path, OFlags::RDWR, Mode::empty()).unwrap();
            let mut header = [0; 52];
            pread(&fd, &mut header, 0).unwrap();
            pwrite(&fd, &bytes, archive0 + u64::from(round) * 1200).unwrap();
        }
    };
    compare("opened: update_many(100)", n, &mut ours, &mut baseline);

    opened_fetch(&paths);
}

fn opened_fetch(paths: &[PathBuf]) {
    let archive0 = 40_u64;
    let until = BASE + 30_000 + 10_000;
    let mut ours = |_| {
        for path in paths {
            let file = File::open(path).unwrap();
            let (from, now) = (Timestamp(until - 14_400), Timestamp(until));
            let fetched = file.fetch(now, from, now).unwrap().unwrap();
            assert_eq!(fetched.values.len(), 1440);
            black_box(fetched);
        }
    };
    let mut buffer = vec![0; 1440 * SLOT];
    let mut baseline = |_| {
        for path in paths {
            let fd = open(path, OFlags::RDONLY, Mode::empty()).unwrap();
            pread(&fd, &mut buffer[..40], 0).unwrap();
            pread(&fd, &mut buffer[..], archive0).unwrap();
            let mut sum = 0.0;
            for slot in buffer.as_chunks::<SLOT>().0 {
                let point = Point::from_slot(slot);
                if point.at.0 != 0 {
                    sum += point.value;
                }
            }
            black_box(sum);
        }
    };
    compare("opened: fetch(1440)", paths.len(), &mut ours, &mut baseline);
}

/// Slots by which the ring of a file is turned: files start at different times.
fn turned(i: usize) -> u32 {
    (i * 7 % 2000) as u32
}

/// Writes the first point into each file, and into the baseline's.
fn turn(ours: &[PathBuf], raw: &[MmapRaw]) {
    for (i, map) in raw.iter().enumerate() {
        let mut file = File::open_mut(&ours[i], Lock::None).unwrap();
        for (archive, step) in [(0, 10), (1, 60)] {
            let at = BASE - turned(i) * step;
            let offset = 40 + archive * 2160 * SLOT;
            // SAFETY: the offset lies within the 146,920 bytes of each map, which nobody else touches.
            unsafe {
                map.as_mut_ptr()
                    .add(offset)
                    .copy_from(Point::new(at, 0.0).to_slot().as_ptr(), SLOT);
            }
            // Far back enough to reach no finer archive.
            let now = if step == 10 { at } else { at + 21_600 };
            file.update(Timestamp(now), Point::new(at, 0.0)).unwrap();
        }
    }
}

fn mapped(dir: &Path, n: usize) {
    let retentions = [(10, 2160), (60, 10_080)];
    let ours_paths = files(&dir.join("ours"), n, &retentions, Allocation::Reserved);
    let baseline_paths = files(&dir.join("baseline"), n, &retentions, Allocation::Reserved);
    let maps = Maps::new(MapOptions {
        max_maps: n + 16,
        ..MapOptions::default()
    });
    let raw: Vec<MmapRaw> = baseline_paths
        .iter()
        .map(|path| {
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .unwrap();
            MmapOptions::new().map_raw(&file).unwrap()
        })
        .collect();
    let order = shuffled(n);
    turn(&ours_paths, &raw);

    let ours = |round: u32| {
        // Within one period of the check by name: what is measured is a mapped update.
        let (now, at) = (Timestamp(BASE + 30), BASE + round * 10);
        for &i in &order {
            let point = [Point::new(at, f64::from(round))];
            maps.update_many(i as u32, &ours_paths[i], now, &point)
                .unwrap();
        }
    };
    let baseline = |round: u32| {
        let slot = Point::new(BASE + round * 10, f64::from(round)).to_slot();
        for &i in &order {
            let (slot0, slot1) = (
                (turned(i) + round) as usize,
                (turned(i) + round / 6) as usize,
            );
            let minute = round / 6;
            let map = raw[i].as_mut_ptr();
            // SAFETY: the offsets lie within the 146,920 bytes of each map, which nobody else
            // touches.
            unsafe {
                let archive0 = map.add(40);
                archive0.add(slot0 * SLOT).copy_from(slot.as_ptr(), SLOT);
                let first = slot0 - round as usize % 6;
                let slots = archive0.add(first * SLOT).cast::<[u8; SLOT]>();
                let (mut sum, mut known) = (0.0, 0);
                for k in 0..6 {
                    let point = Point::from_slot(&*slots.add(k));
                    if point.at.0 == BASE + minute * 60 + k as u32 * 10 {
                        sum += point.value;
                        known += 1;
                    }
                }
                if known >= 3 {
                    let point = Point::new(BASE + minute * 60, sum / f64::from(known));
                    let archive1 = map.add(40 + (2160 + slot1) * SLOT);
                    archive1.copy_from(point.to_slot().as_ptr(), SLOT);
                }
            }
        }
    };
    // The first rounds map the files and fault their pages in.
    for round in 0..6 {
        ours(round);
        baseline(round);
    }
    let mut ours = |round: u32| ours(round + 6);
    let mut baseline = |round: u32| baseline(round + 6);
    compare("mapped, shuffled: update", n, &mut ours, &mut baseline);
}

fn round_robin(dir: &Path, n: usize) {
    let retentions = [(10, 360), (60, 360)];
    let paths = files(&dir.join("ours"), n, &retentions, Allocation::Reserved);
    let baseline_paths = files(&dir.join("baseline"), n, &retentions, Allocation::Reserved);
    // The default maps a third of 100,000 files.
    let options = MapOptions {
        max_maps: MapOptions::default().max_maps.min(n / 3),
        ..MapOptions::default()
    };
    for (what, options) in [
        ("with maps for a third", options),
        (
            "without maps",
            MapOptions {
                max_maps: 0,
                ..options
            },
        ),
    ] {
        let maps = Maps::new(options);
        let mut ours = |round: u32| {
            let at = BASE + round * 10;
            for (i, path) in paths.iter().enumerate() {
                maps.update_many(i as u32, path, Timestamp(at), &[Point::new(at, 1.5)])
                    .unwrap();
            }
        };
        let mut baseline = |round: u32| {
            let slot = Point::new(BASE + round * 10, 1.5).to_slot();
            for path in &baseline_paths {
                let fd = open(path, OFlags::RDWR, Mode::empty()).unwrap();
                pwrite(&fd, &slot, 40 + u64::from(round) * SLOT as u64).unwrap();
            }
        };
        compare(
            &format!("round robin: 1, {what}"),
            n,
            &mut ours,
            &mut baseline,
        );

        let mut ours = |round: u32| {
            let start = BASE + 1000 + round * 200;
            let points: Vec<Point> = (0..20).map(|i| Point::new(start + i * 10, 1.5)).collect();
            for (i, path) in paths.iter().enumerate() {
                maps.update_many(i as u32, path, Timestamp(start + 190), &points)
                    .unwrap();
            }
        };
        let bytes = [0; 20 * SLOT];
        let mut baseline = |round: u32| {
            for path in &baseline_paths {
                let fd = open(path, OFlags::RDWR, Mode::empty()).unwrap();
                let mut header = [0; 52];
                pread(&fd, &mut header, 0).unwrap();
                pwrite(&fd, &bytes, 40 + u64::from(round) * 240).unwrap();
            }
        };
        compare(
            &format!("round robin: 20, {what}"),
            n,
            &mut ours,
            &mut baseline,
        );
    }
}

/// Runs both alternately and prints the medians of what a call cost, and of their ratios.
fn compare(name: &str, n: usize, ours: &mut dyn FnMut(u32), baseline: &mut dyn FnMut(u32)) {
    let mut costs = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS as u32 {
        // The first one finds cold caches: alternate.
        let cost = if round % 2 == 0 {
            let ours = cpu(|| ours(round));
            (ours, cpu(|| baseline(round)))
        } else {
            let baseline = cpu(|| baseline(round));
            (cpu(|| ours(round)), baseline)
        };
        costs.push(cost);
    }
    let us = |time: Duration| time.as_secs_f64() * 1e6 / n as f64;
    let ratio =
        |&(ours, baseline): &(Duration, Duration)| ours.as_secs_f64() / baseline.as_secs_f64();
    let (ratio, low, high) = median(costs.iter().map(ratio).collect());
    let (ours, ..) = median(costs.iter().map(|cost| us(cost.0)).collect());
    let (baseline, ..) = median(costs.iter().map(|cost| us(cost.1)).collect());
    println!("{name:34} {ours:10.3} {baseline:10.3}   {ratio:.2}x ({low:.2} to {high:.2})");
}

fn cpu(work: impl FnOnce()) -> Duration {
    let time = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let start = time();
    work();
    time() - start
}

fn median(mut numbers: Vec<f64>) -> (f64, f64, f64) {
    numbers.sort_by(f64::total_cmp);
    (
        numbers[numbers.len() / 2],
        numbers[0],
        numbers[numbers.len() - 1],
    )
}

/// `n` new files, a thousand to a directory.
fn files(dir: &Path, n: usize, retentions: &[(u32, u32)], allocation: Allocation) -> Vec<PathBuf> {
    let retentions = retentions
        .iter()
        .map(|&(step, points)| Retention::new(step, points).unwrap());
    let options = CreateOptions {
        allocation,
        ..CreateOptions::new(retentions.collect())
    };
    let name = |i: usize| dir.join(format!("{:03}/{i:06}.wsp", i / 1000));
    let paths: Vec<PathBuf> = (0..n).map(name).collect();
    for path in &paths {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        create(path, &options).unwrap();
    }
    paths
}

/// The numbers below `n` in an order that no prefetcher guesses, the same in each run.
fn shuffled(n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for i in (1..n).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(i, (state % (i as u64 + 1)) as usize);
    }
    order
}
