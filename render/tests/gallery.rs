//! Every kind of picture, drawn from series held in memory and compared with `docs/gallery/`.
//!
//! A changed picture is a changed file: `PLUMBAGO_GALLERY=write cargo test -p render --test gallery`
//! writes them again, and the difference is looked at before it is committed.

#![allow(clippy::unwrap_used, reason = "a test; its helpers too")]

use std::fs;
use std::path::PathBuf;

use render::budget::Budget;
use render::draw::{Params, Scene, Slice, Window, draw, draw_pie};
use render::events::{Event, Status};
use render::series::Stack;
use render::{Column, Drawing, Series};

/// 14 November 2023, 22:13:20 UTC.
const NOW: i64 = 1_700_000_000;

fn series(name: &str, span: i64, step: i64, value: impl Fn(i64) -> f64) -> Series {
    let end = NOW - NOW % step + step;
    let start = end - span;
    let values: Vec<f64> = (0..span / step).map(|i| value(start + i * step)).collect();
    Series::new(name, start, end, step, Column::from(values))
}

/// Noise from -1 to 1 that is the same every time (splitmix64).
fn noise(seed: i64, at: i64) -> f64 {
    let mut z = (seed as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(at as u64)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 30)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn wave(seed: i64, base: f64, swing: f64, period: f64) -> impl Fn(i64) -> f64 {
    move |at| base + swing * (at as f64 / period * std::f64::consts::TAU).sin() + noise(seed, at)
}

fn cpu(hosts: i64) -> Vec<Series> {
    (1..=hosts)
        .map(|h| {
            let name = format!("servers.web{h:02}.cpu.user");
            series(
                &name,
                3600,
                10,
                wave(h, 25.0 + 5.0 * h as f64, 12.0, 1800.0),
            )
        })
        .collect()
}

fn params(query: &str) -> Params {
    let pairs: Vec<(String, String)> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    Params::from_pairs(&pairs)
}

fn window() -> Window {
    Window::utc(NOW - 3600, NOW)
}

fn event(id: i64, what: &str, tags: &[&str], minutes_ago: f64) -> Event {
    Event {
        id,
        what: what.to_owned(),
        data: "by anna, 3f2c1ab".to_owned(),
        tags: tags.iter().map(|t| (*t).to_owned()).collect(),
        when: NOW as f64 - minutes_ago * 60.0,
        ..Event::default()
    }
}

fn deploys() -> Vec<Event> {
    let mut events = vec![
        event(1, "deploy web 1.4.1", &["deploy", "web"], 52.0),
        event(2, "cache size 2 GB", &["config"], 41.0),
        event(3, "deploy web 1.4.2", &["deploy", "web"], 33.0),
        event(4, "deploy search 7", &["deploy", "search"], 20.0),
        event(5, "back to web 1.4.1", &["rollback", "web"], 12.0),
        event(6, "deploy api 88", &["deploy", "api"], 4.0),
    ];
    events[3].until = Some(events[3].when + 240.0);
    events[3].link = Some("https://ci.example/builds/7".to_owned());
    events[4].rollback_of = Some(3);
    events[5].status = Status::Failed;
    events
}

fn crowded() -> Vec<Event> {
    // A fleet, as the store hands it over.
    let mut fleet = event(1, "deploy shop 2.0", &["deploy", "shop"], 50.0);
    fleet.until = Some(fleet.when + 270.0);
    fleet.look.merged = 11;
    let mut events = vec![fleet];
    events.extend((0..9).map(|i| {
        let minutes = 38.0 - i as f64 * 1.7;
        event(
            20 + i,
            &format!("deploy part-{i} release"),
            &["deploy"],
            minutes,
        )
    }));
    events.extend((0..4).map(|i| event(40 + i, "flag", &["config"], 14.0 + i as f64 * 0.1)));
    let mut failed = event(50, "migrate users", &["maintenance"], 9.0);
    failed.until = Some(failed.when + 150.0);
    failed.status = Status::Failed;
    let mut open = event(51, "backup", &["backup"], 2.5);
    open.status = Status::Started;
    events.extend([failed, open]);
    events
}

fn line(query: &str, series: &[Series], events: &[Event]) -> Scene {
    let budget = Budget::unlimited();
    draw(&params(query), series, &window(), events, &budget).unwrap()
}

fn with(mut series: Series, change: impl FnOnce(&mut Drawing)) -> Series {
    change(&mut series.drawing);
    series
}

fn gaps() -> Vec<Series> {
    let nan_when = |absent: fn(i64) -> bool, seed| {
        move |at: i64| {
            if absent(at / 60) {
                whisper::ABSENT
            } else {
                wave(seed, 4.0 * seed as f64, 2.0, 600.0)(at)
            }
        }
    };
    vec![
        series("every other value", 1200, 60, nan_when(|i| i % 2 == 0, 1)),
        series(
            "a long gap",
            1200,
            60,
            nan_when(|i| i % 20 > 7 && i % 20 < 15, 2),
        ),
        series("whole", 1200, 60, nan_when(|_| false, 3)),
    ]
}

fn stacks() -> Vec<Series> {
    (1..=4)
        .map(|h| {
            let name = format!("servers.web{h:02}.requests");
            series(&name, 3600, 60, wave(h, 20.0, 4.0 * h as f64, 1800.0))
        })
        .collect()
}

/// Pictures with their names.
type Pictures = Vec<(&'static str, Scene)>;

/// Every picture: its name, and how it is drawn.
fn pictures() -> Pictures {
    let mut all = Pictures::new();
    in_all_sizes(&mut all);
    with_deploys(&mut all);
    with_modes_of_lines(&mut all);
    with_axes(&mut all);
    with_little_or_much(&mut all);
    with_styles(&mut all);
    with_texts(&mut all);
    in_all_templates(&mut all);
    all.push(("hostile", hostile()));
    pies(&mut all);
    all
}

/// `more` in the usual size.
fn q(more: &str) -> String {
    format!("width=586&height=308&{more}")
}

fn in_all_sizes(all: &mut Pictures) {
    let sizes = [
        ("330x250", "width=330&height=250"),
        ("586x308", "width=586&height=308"),
        ("1600x800", "width=1600&height=800"),
    ];
    for (theme, names) in [
        ("default", ["line-330x250", "line-586x308", "line-1600x800"]),
        ("dark", ["dark-330x250", "dark-586x308", "dark-1600x800"]),
    ] {
        for ((_, size), name) in sizes.iter().zip(names) {
            let query = format!("{size}&template={theme}&title=CPU and deploys");
            all.push((name, line(&query, &cpu(3), &deploys())));
        }
    }
}

fn with_deploys(all: &mut Pictures) {
    all.push(("plain", line("", &cpu(3), &[])));
    all.push((
        "light",
        line(&q("template=light&title=Light"), &cpu(5), &deploys()),
    ));
    all.push(("crowded", line(&q("title=Crowded"), &cpu(2), &crowded())));
    all.push((
        "crowded-dark",
        line(&q("title=Crowded&template=dark"), &cpu(2), &crowded()),
    ));
    all.push(("crowded-330x250", line("", &cpu(1), &crowded())));
}

/// Gaps, stairs, areas, stacks.
fn with_modes_of_lines(all: &mut Pictures) {
    all.push((
        "gaps",
        line(
            &q("title=Gaps, and points without neighbours"),
            &gaps(),
            &[],
        ),
    ));
    all.push((
        "connected",
        line(&q("lineMode=connected&connectedLimit=3"), &gaps(), &[]),
    ));
    all.push(("staircase", line(&q("lineMode=staircase"), &gaps(), &[])));
    all.push((
        "null-as-zero",
        line(&q("drawNullAsZero=true"), &gaps(), &[]),
    ));
    all.push((
        "area-first",
        line(&q("areaMode=first"), &cpu(3), &deploys()),
    ));
    all.push((
        "area-all",
        line(&q("areaMode=all&areaAlpha=0.4"), &cpu(3), &[]),
    ));
    all.push((
        "stacked",
        line(&q("areaMode=stacked&title=Stacked"), &stacks(), &deploys()),
    ));
    all.push((
        "stacked-alpha",
        line(
            &q("areaMode=stacked&areaAlpha=0.4&template=dark"),
            &stacks(),
            &deploys(),
        ),
    ));
}

/// Two of them, logarithms, units, limits.
fn with_axes(all: &mut Pictures) {
    let cpu_and_mem = vec![
        with(cpu(1).remove(0), |_| {}),
        with(
            series(
                "servers.web01.mem.used",
                3600,
                60,
                wave(9, 1500.0, 400.0, 1300.0),
            ),
            |d| d.second_y_axis = true,
        ),
    ];
    all.push((
        "second-axis",
        line(
            &q("vtitle=percent&vtitleRight=MB&title=Two axes"),
            &cpu_and_mem,
            &deploys(),
        ),
    ));
    let big = vec![series("edge.big", 3600, 60, |at| {
        10f64.powf(3.0 + 3.0 * (at as f64 / 900.0).sin())
    })];
    all.push(("log", line(&q("logBase=10"), &big, &[])));
    all.push((
        "binary",
        line(
            &q("yUnitSystem=binary"),
            &[series("mem", 3600, 60, wave(1, 3e9, 1e9, 1800.0))],
            &[],
        ),
    ));
    all.push((
        "seconds",
        line(
            &q("yUnitSystem=sec"),
            &[series("age", 3600, 60, |at| (at % 3600) as f64 * 40.0)],
            &[],
        ),
    ));
    all.push((
        "limits",
        line(&q("yMin=0&yMax=40&yStep=10&yAxisSide=right"), &cpu(4), &[]),
    ));
    all.push((
        "negative",
        line(
            &q("hideLegend=1"),
            &[series("n", 3600, 60, wave(1, -2.0, 6.0, 900.0))],
            &[],
        ),
    ));
}

/// Many series, none, a week.
fn with_little_or_much(all: &mut Pictures) {
    all.push((
        "graph-only",
        line("width=300&height=120&graphOnly=1", &cpu(4), &deploys()),
    ));
    all.push((
        "many",
        line("width=800&height=500&hideLegend=false", &cpu(40), &[]),
    ));
    all.push(("no-data", line("", &[], &[])));
    all.push(("no-data-events", line(&q(""), &[], &deploys())));
    let week = vec![series(
        "season.daily",
        7 * 86_400,
        600,
        wave(1, 100.0, 60.0, 86_400.0),
    )];
    all.push(("one-week", line("width=800&height=300", &week, &[])));
}

/// Colours, dashes, widths, bands between lines.
fn with_styles(all: &mut Pictures) {
    let styled = vec![
        with(cpu(1).remove(0), |d| {
            d.color = Some("#ff8800".to_owned());
            d.dashed = Some(5.0);
        }),
        with(cpu(2).remove(1), |d| {
            d.alpha = Some(0.5);
            d.line_width = Some(4.0);
        }),
        with(series("limit", 3600, 3600 / 2, |_| 40.0), |d| {
            d.color = Some("red".to_owned())
        }),
    ];
    all.push((
        "styled",
        line(&q("title=Colours%2C dashes\\nand widths"), &styled, &[]),
    ));
    let infinite = vec![
        cpu(1).remove(0),
        with(
            series("deploys", 3600, 1, |at| {
                if at % 900 == 300 {
                    1.0
                } else {
                    whisper::ABSENT
                }
            }),
            |d| {
                d.infinite = true;
                d.color = Some("red".to_owned());
            },
        ),
    ];
    all.push(("infinite", line(&q(""), &infinite, &[])));
    let stack = || Some(Stack("areaBetween".to_owned()));
    let between = vec![
        with(series("low", 3600, 60, wave(1, 10.0, 3.0, 1800.0)), |d| {
            d.stack = stack();
            d.invisible = true;
            d.hide_from_legend = true;
        }),
        with(
            series("between", 3600, 60, wave(2, 14.0, 4.0, 700.0)),
            |d| {
                d.stack = stack();
                d.color = Some("green".to_owned());
            },
        ),
        series("middle", 3600, 60, wave(3, 12.0, 3.0, 1800.0)),
    ];
    all.push(("area-between", line(&q(""), &between, &[])));
}

/// Fonts, and twice the pixels.
fn with_texts(all: &mut Pictures) {
    let mono = "width=586&height=308&fontName=DejaVu Sans Mono";
    all.push(("mono", line(mono, &cpu(2), &deploys())));
    all.push((
        "bold-italic",
        line(
            &q("fontBold=true&fontItalic=true&fontSize=13&title=Grüße, Ωμέγα, Привет"),
            &cpu(2),
            &deploys(),
        ),
    ));
    all.push((
        "ratio-2",
        line(
            &q("pixelRatio=2&title=Twice the pixels"),
            &cpu(3),
            &deploys(),
        ),
    ));
}

fn in_all_templates(all: &mut Pictures) {
    for name in [
        "alphas",
        "classic",
        "grafana",
        "noc",
        "solarized-light",
        "solarized-dark",
        "summary",
        "ocean1",
        "lava2",
    ] {
        all.push((
            name,
            line(
                &q(&format!("template={name}&title={name}")),
                &cpu(4),
                &deploys(),
            ),
        ));
    }
}

fn pies(all: &mut Pictures) {
    let slices =
        ["free:30", "used:60", "reserved:10", "lost:2"].map(|t| Slice::literal(t).unwrap());
    let pie = |query: &str| draw_pie(&params(query), &slices, &Budget::unlimited()).unwrap();
    all.push(("pie", pie("width=400&height=300&title=Disk")));
    all.push(("pie-rotated", pie("width=400&height=300&pieLabels=rotated&valueLabels=number&template=dark&valueLabelsColor=white")));
}

/// Names, tags, data and links that would like to be more than that.
fn hostile() -> Scene {
    let script = "<script>document.title='broken'</script>";
    let mut all = cpu(1);
    all[0].name = format!("</text>{script}<img src=x onerror=\"document.title='broken'\">");
    let what = "<b onmouseover=\"document.title='broken'\">deploy</b> & \"more\"";
    let mut attack = event(1, what, &[], 30.0);
    attack.tags = vec![format!("\">{script}")];
    attack.data = "]]><svg onload=document.title='broken'>\u{202e}".to_owned();
    attack.link = Some("javascript:document.title='broken'".to_owned());
    let mut link = event(2, "deploy' onclick='document.title=1", &["deploy"], 10.0);
    link.link = Some("https://x/\" onmouseover=\"document.title='broken'".to_owned());
    let query = format!("width=586&height=308&title={script}&xFormat=<b>%H");
    line(&query, &all, &[attack, link])
}

fn gallery() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/gallery")
}

#[test]
fn pictures_are_those_of_the_gallery() {
    let write = std::env::var("PLUMBAGO_GALLERY").is_ok_and(|v| v == "write");
    let mut changed = Vec::new();
    for (name, scene) in pictures() {
        let (png, svg) = (scene.png().unwrap(), scene.svg().unwrap());
        for (ending, bytes) in [("png", png.to_vec()), ("svg", svg.to_vec())] {
            let path = gallery().join(format!("{name}.{ending}"));
            if write {
                fs::write(&path, bytes).unwrap();
            } else if fs::read(&path).ok().as_deref() != Some(&bytes) {
                changed.push(format!("{name}.{ending}"));
            }
        }
    }
    assert!(
        changed.is_empty(),
        "these differ from docs/gallery (see the head of this file): {changed:?}"
    );
}
