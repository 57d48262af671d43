use super::*;
use crate::Column;
use crate::events::Status;
use crate::series::Stack;

mod properties;

/// A picture whose budget does not run out.
#[derive(Debug)]
struct Shown(Scene);

impl Shown {
    fn png(&self) -> Vec<u8> {
        self.0.png().unwrap().to_vec()
    }

    fn svg(&self) -> String {
        String::from_utf8(self.0.svg().unwrap().to_vec()).unwrap()
    }
}

impl std::ops::Deref for Shown {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.0
    }
}

fn draw(
    params: &Params,
    series: &[Series],
    window: &Window,
    events: &[Event],
) -> Result<Shown, Error> {
    super::draw(params, series, window, events, &Budget::unlimited()).map(Shown)
}

fn draw_pie(params: &Params, slices: &[Slice]) -> Result<Shown, Error> {
    super::draw_pie(params, slices, &Budget::unlimited()).map(Shown)
}

/// A series held in memory.
pub(crate) fn series(name: &str, start: i64, step: i64, values: &[f64]) -> Series {
    let end = start + step * values.len() as i64;
    Series::new(name, start, end, step, Column::from(values.to_vec()))
}

fn event(id: i64, what: &str, when: f64) -> Event {
    Event {
        id,
        what: what.to_owned(),
        tags: vec!["deploy".to_owned()],
        when,
        ..Event::default()
    }
}

fn params(pairs: &[(&str, &str)]) -> Params {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Params::from_pairs(&pairs)
}

fn hour() -> Window {
    Window::utc(0, 3600)
}

fn ramp(name: &str) -> Series {
    let values: Vec<f64> = (0..60).map(f64::from).collect();
    series(name, 0, 60, &values)
}

/// The size in the header of a PNG.
fn size(png: &[u8]) -> (u32, u32) {
    let word = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"));
    (word(16), word(20))
}

fn texts(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let words = document.descendants().filter(|n| n.has_tag_name("text"));
    words.filter_map(|n| n.text().map(str::to_owned)).collect()
}

fn groups(svg: &str, class: &str) -> usize {
    let document = roxmltree::Document::parse(svg).unwrap();
    let is = |n: &roxmltree::Node<'_, '_>| n.attribute("class") == Some(class);
    document.descendants().filter(is).count()
}

#[test]
fn a_picture_has_the_size_that_was_asked_for() {
    for (query, expected) in [
        (vec![], (330, 250)),
        (vec![("width", "586"), ("height", "308")], (586, 308)),
        (vec![("pixelRatio", "2")], (660, 500)),
        (vec![("width", "1"), ("height", "1")], (1, 1)),
        (vec![("width", "4096"), ("height", "30")], (4096, 30)),
    ] {
        let scene = draw(&params(&query), &[ramp("a")], &hour(), &[]).unwrap();
        assert_eq!(size(&scene.png()), expected);
    }
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let refused = |query: &[(&str, &str)]| {
        let error = draw(&params(query), &[ramp("a")], &hour(), &[]).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        refused(&[("width", "5000")]),
        "a picture of 5000 x 250 pixels is larger than 4096 x 4096"
    );
    assert_eq!(
        refused(&[("width", "3000"), ("pixelRatio", "2")]),
        "a picture of 6000 x 500 pixels is larger than 4096 x 4096"
    );
    assert_eq!(
        refused(&[("lineMode", "curly")]),
        "lineMode=curly is not one of slope, staircase, connected"
    );
    assert_eq!(
        refused(&[("yMin", "5"), ("yMax", "1")]),
        "the value axis cannot go from 5 to 1: the minimum must be below the maximum"
    );
    assert!(refused(&[("width", "1e30")]).contains("larger than"));
}

#[test]
fn without_values_there_are_words() {
    let scene = draw(&params(&[]), &[], &hour(), &[]).unwrap();
    assert_eq!(texts(&scene.svg()), ["No Data"]);
    let empty = series("a", 0, 60, &[]);
    let scene = draw(&params(&[]), &[empty], &hour(), &[]).unwrap();
    assert_eq!(texts(&scene.svg()), ["No Data"]);
    // Events are shown all the same.
    let events = [event(1, "deploy web", 1800.0)];
    let svg = draw(&params(&[]), &[], &hour(), &events).unwrap().svg();
    assert_eq!(groups(&svg, "event"), 1);
}

#[test]
fn more_than_ten_series_have_no_legend_unless_asked_for() {
    let many: Vec<Series> = (0..11).map(|i| ramp(&format!("s{i}"))).collect();
    let has_legend = |series: &[Series], query: &[(&str, &str)]| {
        let svg = draw(&params(query), series, &hour(), &[]).unwrap().svg();
        groups(&svg, "legend") == 1
    };
    assert!(has_legend(&many[..10], &[]));
    assert!(!has_legend(&many, &[]));
    assert!(has_legend(&many, &[("hideLegend", "false")]));
    assert!(!has_legend(&many[..1], &[("hideLegend", "1")]));
    assert!(!has_legend(
        &many[..1],
        &[("graphOnly", "1"), ("hideLegend", "0")]
    ));
}

#[test]
fn a_legend_never_takes_the_whole_picture() {
    let many: Vec<Series> = (0..300)
        .map(|i| ramp(&format!("series.number.{i}")))
        .collect();
    let svg = draw(&params(&[("hideLegend", "false")]), &many, &hour(), &[])
        .unwrap()
        .svg();
    assert!(
        texts(&svg)
            .iter()
            .any(|t| t.starts_with("… and ") && t.ends_with(" more"))
    );
    assert!(groups(&svg, "series") == 300);
}

#[test]
fn names_are_dropped_from_the_legend_when_asked() {
    let twice = [
        ramp("same"),
        ramp("same"),
        series("null", 0, 60, &[f64::NAN; 60]),
    ];
    let names = |query: &[(&str, &str)]| {
        let svg = draw(&params(query), &twice, &hour(), &[]).unwrap().svg();
        let is_name = |t: &String| t == "same" || t == "null";
        texts(&svg).into_iter().filter(is_name).count()
    };
    assert_eq!(names(&[]), 3);
    assert_eq!(names(&[("uniqueLegend", "true")]), 2);
    assert_eq!(names(&[("hideNullFromLegend", "true")]), 2);
}

#[test]
fn axes_and_grid_are_hidden_when_asked() {
    let drawn = |query: &[(&str, &str)]| {
        let svg = draw(&params(query), &[ramp("a")], &hour(), &[])
            .unwrap()
            .svg();
        (groups(&svg, "grid"), groups(&svg, "axes"))
    };
    assert_eq!(drawn(&[]), (1, 2));
    assert_eq!(drawn(&[("hideGrid", "1")]), (0, 2));
    assert_eq!(drawn(&[("hideAxes", "1")]), (0, 0));
    assert_eq!(drawn(&[("hideXAxis", "1")]), (1, 1));
    assert_eq!(drawn(&[("hideYAxis", "1")]), (1, 1));
    assert_eq!(drawn(&[("graphOnly", "1")]), (0, 0));
}

#[test]
fn times_are_written_in_the_zone_of_the_request() {
    let zone = TimeZone::get("Asia/Kathmandu").unwrap();
    let window = Window { zone, ..hour() };
    let svg = draw(
        &params(&[("xFormat", "%H:%M %Z")]),
        &[ramp("a")],
        &window,
        &[],
    )
    .unwrap()
    .svg();
    // 5 hours and 30 minutes east, back then.
    assert!(
        texts(&svg).iter().any(|t| t.starts_with("05:40 ")),
        "{:?}",
        texts(&svg)
    );
}

#[test]
fn a_stacked_axis_holds_the_sum() {
    let two = [
        series("a", 0, 60, &[30.0; 60]),
        series("b", 0, 60, &[50.0; 60]),
    ];
    let scene = draw(&params(&[("areaMode", "stacked")]), &two, &hour(), &[]).unwrap();
    let high = scene.data.iter().find(|(name, _)| *name == "high").unwrap();
    assert!(high.1.parse::<f64>().unwrap() >= 80.0);
}

#[test]
fn the_second_axis_has_labels_of_its_own() {
    let mut right = series("b", 0, 60, &[5000.0; 60]);
    right.values.make_mut()[3] = 9000.0;
    right.drawing.second_y_axis = true;
    let svg = draw(&params(&[]), &[ramp("a"), right], &hour(), &[])
        .unwrap()
        .svg();
    assert!(texts(&svg).contains(&"60.0".to_owned()));
    assert!(texts(&svg).contains(&"9.0 k".to_owned()));
}

#[test]
fn a_logarithmic_axis_says_what_it_leaves_out() {
    let some = series("a", 0, 60, &[0.0, 10.0, 1000.0, -5.0]);
    let svg = draw(&params(&[("logBase", "10")]), &[some], &hour(), &[])
        .unwrap()
        .svg();
    assert!(texts(&svg).contains(&"values of 0 and below are not shown".to_owned()));
    assert!(texts(&svg).contains(&"1.0 k".to_owned()));
}

#[test]
fn infinite_series_are_lines_and_count_for_no_limit() {
    let mut infinite = series("deploys", 0, 60, &[0.0; 60]);
    infinite.values.make_mut()[10] = 1e9;
    infinite.values.make_mut()[20] = 1e9;
    infinite.drawing.infinite = true;
    let scene = draw(&params(&[]), &[ramp("a"), infinite], &hour(), &[]).unwrap();
    let high = scene.data.iter().find(|(name, _)| *name == "high").unwrap();
    assert_eq!(high.1, "60");
    let svg = scene.svg();
    let document = roxmltree::Document::parse(&svg).unwrap();
    let group = document
        .descendants()
        .find(|n| n.attribute("data-name") == Some("deploys"))
        .unwrap();
    let lines = group.children().filter(|n| n.has_tag_name("path")).count();
    assert_eq!(lines, 2);
}

#[test]
fn crowded_lines_become_one_with_a_count() {
    let events: Vec<Event> = (0..4)
        .map(|i| event(i, "deploy", 1800.0 + i as f64))
        .collect();
    let svg = draw(&params(&[]), &[ramp("a")], &hour(), &events)
        .unwrap()
        .svg();
    assert_eq!(groups(&svg, "event"), 1);
    assert!(texts(&svg).contains(&"deploy ×4".to_owned()));
}

#[test]
fn an_event_newer_than_the_last_value_is_seen_at_once() {
    let drawn = |series: &[Series], when: f64| {
        let events = [event(1, "release", when)];
        let scene = draw(&params(&[]), series, &hour(), &events).unwrap();
        texts(&scene.svg()).contains(&"release".to_owned())
    };
    // The last value of the ramp is at 3540, the window ends at 3600.
    for series in [vec![ramp("a")], Vec::new()] {
        assert!(drawn(&series, 3590.0));
        assert!(drawn(&series, 3600.7));
        assert!(!drawn(&series, 3601.0));
    }
}

#[test]
fn events_outside_of_the_picture_stay_out() {
    let mut reaching = event(1, "deploy long", -600.0);
    reaching.until = Some(60.0);
    let mut open = event(2, "backup", 3000.0);
    open.status = Status::Started;
    let mut strange = event(3, "deploy", f64::NAN);
    strange.until = Some(f64::INFINITY);
    let events = [
        reaching,
        open,
        strange,
        event(4, "deploy before", -1.0),
        event(5, "deploy after", 99_999.0),
    ];
    let svg = draw(&params(&[]), &[ramp("a")], &hour(), &events)
        .unwrap()
        .svg();
    assert_eq!(groups(&svg, "event"), 2);
}

#[test]
fn hover_text_tells_all_about_a_deploy() {
    let mut deploy = event(7, "deploy web 1.4.2", 1800.0);
    deploy.until = Some(1920.0);
    deploy.data = "by anna, 3f2c1ab".to_owned();
    deploy.status = Status::Failed;
    deploy.link = Some("https://ci.example/7".to_owned());
    let svg = draw(&params(&[]), &[ramp("a")], &hour(), &[deploy])
        .unwrap()
        .svg();
    let document = roxmltree::Document::parse(&svg).unwrap();
    let group = document
        .descendants()
        .find(|n| n.attribute("class") == Some("event"))
        .unwrap();
    let title = group.children().find(|n| n.has_tag_name("title")).unwrap();
    assert_eq!(
        title.text().unwrap(),
        "deploy web 1.4.2\n1970-01-01 00:30:00 to 1970-01-01 00:32:00 (2 min 0 s) · failed\n\
         deploy\nby anna, 3f2c1ab\nhttps://ci.example/7"
    );
    let link = group.parent().unwrap();
    assert_eq!(link.attribute("href"), Some("https://ci.example/7"));
    assert!(texts(&svg).contains(&"web 1.4.2".to_owned()));
}

/// Text that has broken out of a picture somewhere before.
const HOSTILE: &[&str] = &[
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onload='alert(1)",
    "]]><svg onload=alert(1)>",
    "<!--",
    "&lt;&#60;&amp;",
    "\u{0}\u{1}\u{8}\u{b}\u{1b}[31m\u{7f}\u{85}\u{fffe}\u{ffff}",
    "\u{202e}gnp.exe\u{2066}",
    "a\r\nb\tc",
    "javascript:alert(1)",
    "http://x/\"onmouseover=\"alert(1)",
    "HTTPS://x/?a=1&b=<2>",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "&#x3c;script&#x3e;",
    "url(javascript:alert(1))",
    "}</style><script>alert(1)</script>",
    "日本語 👩‍👩‍👧 \u{301}\u{301}\u{301}",
    "",
];

/// Reads the document strictly and looks at everything in it.
fn examine(svg: &str) {
    let document = roxmltree::Document::parse(svg).unwrap();
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name();
        assert_eq!(name.namespace(), Some("http://www.w3.org/2000/svg"));
        let known = ["svg", "g", "a", "rect", "path", "circle", "text", "title"];
        assert!(known.contains(&name.name()), "{}", name.name());
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(!name.starts_with("on"), "{name}");
            match name {
                "href" => {
                    let scheme = value.to_ascii_lowercase();
                    assert!(scheme.starts_with("http://") || scheme.starts_with("https://"));
                }
                "style" => {
                    let body = value.split_once(":var(--graph-").unwrap().1;
                    assert!(
                        body.bytes()
                            .all(|b| b.is_ascii_alphanumeric() || b",#)".contains(&b))
                    );
                }
                _ => {}
            }
        }
    }
}

fn hostile_picture(text: &str) -> (Vec<Series>, Vec<Event>) {
    let mut one = ramp(text);
    one.drawing.color = Some(text.to_owned());
    let mut two = ramp(text);
    two.drawing.stack = Some(Stack(text.to_owned()));
    let mut plain = event(1, text, 1200.0);
    plain.tags = vec![text.to_owned(), "x".to_owned()];
    plain.data = text.to_owned();
    plain.link = Some(text.to_owned());
    plain.look.label = Some(text.to_owned());
    plain.look.color = Some(text.to_owned());
    let mut band = event(2, text, 2000.0);
    band.until = Some(2500.0);
    band.link = Some(text.to_owned());
    let crowd = event(3, text, 1201.0);
    (vec![one, two], vec![plain, crowd, band])
}

#[test]
fn nothing_hostile_gets_out_of_its_place() {
    for text in HOSTILE {
        let (series, events) = hostile_picture(text);
        let query = params(&[
            ("title", text),
            ("vtitle", text),
            ("xFormat", text),
            ("fontName", text),
            ("template", text),
            ("bgcolor", text),
            ("colorList", text),
            ("yUnitSystem", text),
            ("hideLegend", "false"),
        ]);
        let scene = draw(&query, &series, &hour(), &events).unwrap();
        examine(&scene.svg());
        assert_eq!(size(&scene.png()), (330, 250));
        let slice = Slice {
            name: (*text).to_owned(),
            value: 3.0,
            color: Some((*text).to_owned()),
        };
        let scene = draw_pie(&query, &[slice]).unwrap();
        examine(&scene.svg());
        scene.png();
    }
}

#[test]
fn names_survive_escaping() {
    let name = "a<b>&\"c\" 'd' é";
    let svg = draw(&params(&[("width", "600")]), &[ramp(name)], &hour(), &[])
        .unwrap()
        .svg();
    assert!(texts(&svg).contains(&name.to_owned()));
}

#[test]
fn the_same_request_is_the_same_picture() {
    let events = [
        event(1, "deploy web", 1000.0),
        event(2, "deploy api", 2000.0),
    ];
    let all = [ramp("a"), ramp("b")];
    let scene = || draw(&params(&[("title", "T")]), &all, &hour(), &events).unwrap();
    assert_eq!(scene().png(), scene().png());
    assert_eq!(scene().svg(), scene().svg());
}

#[test]
fn pies_take_series_and_literal_targets() {
    assert_eq!(
        Slice::literal("free:30"),
        Some(Slice {
            name: "free".to_owned(),
            value: 30.0,
            color: None
        })
    );
    for other in [
        "free", "free:", "free:x", ":3", "f(a:1)", "a,b:1", "free:inf",
    ] {
        assert_eq!(Slice::literal(other), None, "{other}");
    }
    let one = series("a", 0, 60, &[1.0, 2.0, f64::NAN, 6.0]);
    assert_eq!(Slice::of(&one, PieMode::Average).value, 3.0);
    assert_eq!(Slice::of(&one, PieMode::Maximum).value, 6.0);
    assert_eq!(Slice::of(&one, PieMode::Minimum).value, 1.0);
    let none = series("a", 0, 60, &[f64::NAN]);
    assert_eq!(Slice::of(&none, PieMode::Maximum).value, 0.0);
}

#[test]
fn small_slices_have_no_label() {
    let pie = |query: &[(&str, &str)]| {
        let slices = ["a:97", "b:3"].map(|t| Slice::literal(t).unwrap());
        texts(&draw_pie(&params(query), &slices).unwrap().svg())
    };
    assert_eq!(pie(&[]), ["a", "b", "%97.00"]);
    assert_eq!(
        pie(&[("valueLabelsMin", "1")]),
        ["a", "b", "%97.00", "%3.00"]
    );
    assert_eq!(pie(&[("valueLabels", "none")]), ["a", "b"]);
    assert_eq!(
        pie(&[("valueLabels", "number"), ("valueLabelsMin", "0")]),
        ["a", "b", "97", "3"]
    );
}
