//! Properties of pictures of any series, events and parameters.

use super::*;
use proptest::prelude::*;

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        5 => -1e3..1e3f64,
        1 => any::<f64>(),
        1 => Just(f64::NAN),
        1 => Just(0.0),
    ]
}

fn any_series() -> impl Strategy<Value = Series> {
    (
        proptest::collection::vec(number(), 0..60),
        -10_000i64..10_000,
        1i64..4000,
        any::<[bool; 4]>(),
        proptest::option::of(number()),
    )
        .prop_map(|(values, start, step, flags, extra)| {
            let mut s = series("any", start, step, &values);
            s.drawing.second_y_axis = flags[0];
            s.drawing.infinite = flags[1];
            s.drawing.stack = flags[2].then(|| Stack("s".to_owned()));
            s.drawing.invisible = flags[3];
            s.drawing.line_width = extra;
            s.drawing.dashed = extra;
            s.drawing.alpha = extra;
            s
        })
}

const NAMES: &[&str] = &[
    "width",
    "height",
    "margin",
    "fontSize",
    "lineMode",
    "lineWidth",
    "areaMode",
    "areaAlpha",
    "drawNullAsZero",
    "hideLegend",
    "uniqueLegend",
    "hideAxes",
    "hideXAxis",
    "hideYAxis",
    "hideGrid",
    "graphOnly",
    "minorY",
    "minXStep",
    "yMin",
    "yMax",
    "yLimit",
    "yStep",
    "yDivisors",
    "yUnitSystem",
    "yAxisSide",
    "logBase",
    "yMinRight",
    "yMaxLeft",
    "xFormat",
    "leftWidth",
    "rightDashed",
    "connectedLimit",
    "pixelRatio",
    "title",
    "vtitle",
    "vtitleRight",
    "template",
    "graphType",
    "pieMode",
    "valueLabels",
    "pieLabels",
    "fontBold",
    "fontItalic",
];

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        (-100..600i32).prop_map(|n| n.to_string()),
        number().prop_map(|n| n.to_string()),
        proptest::sample::select(vec![
            "true",
            "max",
            "stacked",
            "all",
            "first",
            "staircase",
            "connected",
            "binary",
            "msec",
            "right",
            "e",
            "pie",
            "rotated",
            "number",
            "dark",
            "a\\nb\\nc",
            "%c %",
            "4,5,6",
        ])
        .prop_map(str::to_owned),
        ".{0,12}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes in: a picture or a refusal, and the picture is one.
    #[test]
    fn no_request_is_too_odd(
        all in proptest::collection::vec(any_series(), 0..4),
        pairs in proptest::collection::vec((proptest::sample::select(NAMES), any_value()), 0..8),
        whens in proptest::collection::vec((number(), proptest::option::of(number()), 0..4usize), 0..6),
    ) {
        let pairs: Vec<_> = pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let params = Params::from_pairs(&pairs);
        let events: Vec<Event> = whens
            .into_iter()
            .enumerate()
            .map(|(i, (when, until, status))| {
                let mut e = event(i as i64, "deploy something", when * 10.0);
                e.until = until;
                e.status = Status::GIVEN[status];
                e.rollback_of = (i % 2 == 1).then_some(i as i64 - 1);
                e
            })
            .collect();
        if let Ok(scene) = draw(&params, &all, &hour(), &events) {
            examine(&scene.svg());
            if params.width <= 600 && params.height <= 600 && params.pixel_ratio <= 2.0 {
                prop_assert_eq!(size(&scene.png()), scene.size());
            }
        }
    }

    /// Labels of events never lie over each other.
    #[test]
    fn labels_never_collide(minutes in proptest::collection::vec((0.0..60.0f64, 1..30usize), 1..40), width in 100..1200u32) {
        let events: Vec<Event> = minutes
            .iter()
            .enumerate()
            .map(|(i, (minute, letters))| event(i as i64, &"w".repeat(*letters), minute * 60.0))
            .collect();
        let text = width.to_string();
        let params = params(&[("width", &text), ("height", "300")]);
        let svg = draw(&params, &[ramp("a")], &hour(), &events).unwrap().svg();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let group = document.descendants().find(|n| n.attribute("class") == Some("event-labels"));
        let font = params.font.sized((params.font.size - 1.0).max(8.0));
        let mut boxes: Vec<(f64, f64, f64)> = Vec::new();
        for label in group.iter().flat_map(|g| g.children()).filter(|n| n.has_tag_name("text")) {
            let at = |name| label.attribute(name).unwrap().parse::<f64>().unwrap();
            boxes.push((at("y"), at("x"), at("x") + font.width(label.text().unwrap())));
        }
        for (i, a) in boxes.iter().enumerate() {
            prop_assert!(a.2 <= f64::from(width));
            for b in &boxes[i + 1..] {
                prop_assert!(a.0 != b.0 || a.2 <= b.1 || b.2 <= a.1, "{a:?} {b:?}");
            }
        }
    }
}
