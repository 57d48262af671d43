//! Any pairs of a query as drawing parameters, on a small picture of a few series: refused with a
//! sentence, or drawn as a PNG of the size that was asked for and an SVG that is sound XML, both
//! the same when they are drawn again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::bytes::Bytes;
use render::Series;
use render::budget::Budget;
use render::draw::{GraphType, Params, Window, draw};

/// What parameters are called. The last stands for any text.
const NAMES: &[&str] = &[
    "areaAlpha",
    "areaMode",
    "bgcolor",
    "colorList",
    "connectedLimit",
    "drawNullAsZero",
    "fgcolor",
    "fontBold",
    "fontItalic",
    "fontName",
    "fontSize",
    "graphOnly",
    "graphType",
    "hideAxes",
    "hideGrid",
    "hideLegend",
    "hideNullFromLegend",
    "hideXAxis",
    "hideYAxis",
    "leftColor",
    "leftDashed",
    "leftWidth",
    "lineMode",
    "lineWidth",
    "logBase",
    "majorGridLineColor",
    "margin",
    "max",
    "min",
    "minXStep",
    "minorGridLineColor",
    "minorY",
    "pieLabels",
    "pieMode",
    "pixelRatio",
    "rightColor",
    "rightDashed",
    "rightWidth",
    "template",
    "thickness",
    "title",
    "uniqueLegend",
    "valueLabels",
    "valueLabelsColor",
    "valueLabelsMin",
    "vtitle",
    "vtitleRight",
    "width",
    "height",
    "xFormat",
    "yAxisSide",
    "yDivisors",
    "yLimit",
    "yLimitLeft",
    "yLimitRight",
    "yMax",
    "yMaxLeft",
    "yMaxRight",
    "yMin",
    "yMinLeft",
    "yMinRight",
    "yStep",
    "yStepLeft",
    "yStepRight",
    "yUnitSystem",
    "",
];
const VALUES: &[&str] = &[
    "0",
    "1",
    "-1",
    "0.001",
    "1e308",
    "-1e308",
    "1e-300",
    "100",
    "max",
    "true",
    "false",
    "pie",
    "line",
    "slope",
    "staircase",
    "connected",
    "stacked",
    "all",
    "first",
    "none",
    "red",
    "80ff0080",
    "red,,blue",
    "binary",
    "sec",
    "msec",
    "si",
    "right",
    "e",
    "10",
    "%H:%M",
    "%Y-%q%%",
    "maximum",
    "rotated",
    "number",
    "percent",
    "plain",
    "mono",
    "4,5,6",
    "nan",
    "a<b>&\"'\u{1}\u{202e}",
];
/// Values that are hard to scale.
const ODD: [f64; 8] = [
    0.0,
    -0.0,
    1e308,
    -1e308,
    5e-324,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];
/// The longest side of a picture.
const MOST: f64 = 120.0;

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    let mut pairs = Vec::new();
    for _ in 0..input.below(10) {
        let name = match NAMES[input.below(NAMES.len())] {
            "" => text(&mut input),
            name => name.to_owned(),
        };
        let value = match input.below(3) {
            0 => text(&mut input),
            _ => VALUES[input.below(VALUES.len())].to_owned(),
        };
        pairs.push((name, value));
    }
    let (from, step) = (1_700_000_000, [1, 60, 3_600, 86_400][input.below(4)]);
    let series: Vec<Series> = (0..input.below(4))
        .map(|_| series(&mut input, from, step))
        .collect();
    let mut params = Params::from_pairs(&pairs);
    let size = |pixels: u32| f64::from(pixels).min((MOST / params.pixel_ratio).floor()) as u32;
    (params.width, params.height) = (size(params.width), size(params.height));
    let window = Window::utc(from, from + step * i64::from(input.byte()));
    let picture = || {
        let budget = Budget::unlimited();
        let scene = draw(&params, &series, &window, &[], &budget)?;
        let png = scene.png().expect("there is no limit").to_vec();
        let svg = scene.svg().expect("there is no limit").to_vec();
        Ok::<_, render::draw::Error>((png, String::from_utf8(svg).expect("text")))
    };
    let (png, svg) = match picture() {
        Ok(picture) => picture,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"));
    let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    let device = |pixels: u32| (f64::from(pixels) * params.pixel_ratio).round().max(1.0) as u32;
    assert_eq!(
        (side(16), side(20)),
        (device(params.width), device(params.height))
    );
    if let Err(error) = roxmltree::Document::parse(&svg) {
        panic!("{error}: {svg}");
    }
    assert!(
        !svg.contains("NaN") || pairs.iter().any(|(_, text)| text.contains("NaN")),
        "{svg}"
    );
    let is_same = picture().is_ok_and(|again| again == (png, svg.clone()));
    assert!(is_same, "drawn again it is another picture");
    if params.graph_type == GraphType::Line {
        assert!(svg.contains("<svg"));
    }
});

fn text(input: &mut Bytes<'_>) -> String {
    let n = input.below(16);
    String::from_utf8_lossy(input.take(n)).into_owned()
}

fn series(input: &mut Bytes<'_>, from: i64, step: i64) -> Series {
    let name = text(input);
    let n = input.below(30);
    let values: Vec<f64> = (0..n)
        .map(|_| match input.below(8) {
            0 => ODD[input.below(ODD.len())],
            1 => whisper::ABSENT,
            2 => f64::from_bits(input.double()),
            _ => f64::from(input.byte()) - 100.0,
        })
        .collect();
    let end = from + step * n as i64;
    let mut series = Series::new(name, from, end, step, values.into());
    match input.below(12) {
        0 => series.drawing.color = Some(text(input)),
        1 => series.drawing.alpha = Some(f64::from_bits(input.double())),
        2 => series.drawing.dashed = Some(f64::from_bits(input.double())),
        3 => series.drawing.line_width = Some(f64::from_bits(input.double())),
        4 => series.drawing.second_y_axis = true,
        5 => series.drawing.infinite = true,
        _ => {}
    }
    series
}
