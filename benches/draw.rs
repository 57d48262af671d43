//! What a picture costs: laying it out, painting it, writing PNG and SVG.
//!
//! Data: 10 noisy series of 1,440 points and a day of deploy lines on 586 x 308 pixels, the size of
//! a dashboard's panel; seeds are fixed. Times are this thread's CPU time, the median of many runs
//! alternating, because the machine may be busy. The reference beside PNG is the same picture's
//! pixels written by the png crate as RGB (`Balanced`, no filter), what one would do at first.
//!
//! `cargo bench --bench draw`

#![allow(missing_docs, reason = "a program, not a library")]

use std::hint::black_box;

use render::budget::Budget;
use render::draw::{Params, Scene, Window, draw};
use render::events::{Event, Status};
use render::format::Buffer;
use render::{Column, Series};
use rustix::time::{ClockId, clock_gettime};

const NOW: i64 = 1_700_000_000;
const RUNS: usize = 61;

fn main() {
    let series = series(10, 1440);
    let events = events();
    let window = Window::utc(NOW - 86_400, NOW);
    let params = params(&[("width", "586"), ("height", "308"), ("title", "Requests")]);
    let scene = || drawn(&params, &series, &window, &events);

    let shown = scene();
    let (png, svg) = (png_of(&shown), svg_of(&shown));
    let pixels = decode(&png);
    println!(
        "586 x 308, 10 series of 1,440 points, {} events",
        events.len()
    );
    println!("  png {} bytes, svg {} bytes", png.len(), svg.len());

    let mut times = [const { Vec::new() }; 5];
    for _ in 0..RUNS {
        times[0].push(time(scene));
        times[1].push(time(|| png_of(&shown)));
        times[2].push(time(|| svg_of(&shown)));
        times[3].push(time(|| png_of(&scene())));
        times[4].push(time(|| plain(&pixels)));
    }
    let [layout, png, svg, whole, reference] = times.map(median);
    println!("  layout            {layout:6.2} ms");
    println!("  svg from it       {svg:6.2} ms");
    println!("  png from it       {png:6.2} ms");
    println!("  request to png    {whole:6.2} ms");
    println!(
        "  only encoding, RGB by the png crate: {reference:.2} ms, {} bytes ({:.1}x our whole png)",
        plain(&pixels).len(),
        reference / png,
    );

    let mut wall = Vec::new();
    for _ in 0..9 {
        let start = std::time::Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..6 {
                        black_box(png_of(&drawn(&params, &series, &window, &events)));
                    }
                });
            }
        });
        wall.push(start.elapsed().as_secs_f64() * 1e3);
    }
    println!(
        "  12 panels on two threads, wall clock: {:.1} ms",
        median(wall)
    );

    for (width, height) in [("330", "250"), ("1600", "800")] {
        let params = params_of(width, height);
        let scene = drawn(&params, &series, &window, &events);
        let mut times = Vec::new();
        for _ in 0..RUNS {
            times.push(time(|| png_of(&drawn(&params, &series, &window, &events))));
        }
        println!(
            "{width} x {height}: request to png {:.2} ms, {} bytes",
            median(times),
            png_of(&scene).len()
        );
    }
}

fn params_of(width: &str, height: &str) -> Params {
    params(&[("width", width), ("height", height)])
}

fn drawn(params: &Params, series: &[Series], window: &Window, events: &[Event]) -> Scene {
    match draw(params, series, window, events, &Budget::unlimited()) {
        Ok(scene) => scene,
        Err(e) => panic!("{e}"),
    }
}

fn png_of(scene: &Scene) -> Buffer {
    match scene.png() {
        Ok(png) => png,
        Err(e) => panic!("{e}"),
    }
}

fn svg_of(scene: &Scene) -> Buffer {
    match scene.svg() {
        Ok(svg) => svg,
        Err(e) => panic!("{e}"),
    }
}

fn params(pairs: &[(&str, &str)]) -> Params {
    let pairs: Vec<(String, String)> = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Params::from_pairs(&pairs)
}

/// CPU milliseconds of one call.
fn time<T>(call: impl FnOnce() -> T) -> f64 {
    let now = || {
        let t = clock_gettime(ClockId::ThreadCPUTime);
        t.tv_sec as f64 * 1e3 + t.tv_nsec as f64 / 1e6
    };
    let start = now();
    black_box(call());
    now() - start
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

fn series(count: i64, points: i64) -> Vec<Series> {
    (0..count)
        .map(|n| {
            let step = 60;
            let end = NOW - NOW % step + step;
            let start = end - points * step;
            let values: Vec<f64> = (0..points)
                .map(|i| {
                    let day = (i as f64 / points as f64 * std::f64::consts::TAU).sin();
                    100.0 + 15.0 * n as f64 + 40.0 * day + 6.0 * noise(n, i)
                })
                .collect();
            let name = format!("stats.timers.app{n}.request.mean");
            Series::new(name, start, end, step, Column::from(values))
        })
        .collect()
}

fn noise(seed: i64, at: i64) -> f64 {
    let mut z = (seed as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(at as u64)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 30)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn events() -> Vec<Event> {
    (0..8)
        .map(|n| Event {
            id: n,
            what: format!("deploy web 1.4.{n}"),
            tags: vec!["deploy".to_owned(), "web".to_owned()],
            when: (NOW - 86_400 + 9_000 * (n + 1)) as f64,
            until: (n % 3 == 0).then_some((NOW - 86_400 + 9_000 * (n + 1) + 600) as f64),
            status: if n == 5 {
                Status::Failed
            } else {
                Status::Succeeded
            },
            ..Event::default()
        })
        .collect()
}

struct Pixels {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

fn decode(file: &[u8]) -> Pixels {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let Ok(mut reader) = decoder.read_info() else {
        panic!("our own PNG is unreadable");
    };
    let mut rgb = vec![0; reader.output_buffer_size().unwrap_or(0)];
    let Ok(info) = reader.next_frame(&mut rgb) else {
        panic!("our own PNG is unreadable");
    };
    rgb.truncate(info.buffer_size());
    Pixels {
        width: info.width,
        height: info.height,
        rgb,
    }
}

fn plain(pixels: &Pixels) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, pixels.width, pixels.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Balanced);
    encoder.set_filter(png::Filter::NoFilter);
    let written = encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(&pixels.rgb));
    if let Err(e) = written {
        panic!("{e}");
    }
    out
}
