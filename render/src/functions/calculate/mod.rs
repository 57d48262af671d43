//! One series from another that takes its surroundings into account, and values that stand for
//! a whole series.

mod holt_winters;
mod moving;
mod regression;
mod window;

use whisper::is_absent;

use super::support::{DEFAULT_STACK, room_for, room_for_copy};
use super::wall_clock::{as_wall_clock, at_each_step, timestamp};
use super::{Args, Default, Function, Kind, Param, percentile};
use crate::aggregate::Aggregate;
use crate::budget::Reservation;
use crate::context::{Context, Window};
use crate::error::Result;
use crate::python;
use crate::series::{Column, Series, Stack, bytes_of};

const SERIES: Param = Param::series("seriesList");

const WINDOW_SIZE: Param = Param::new("windowSize", Kind::IntOrInterval).suggestions(&[
    "5",
    "7",
    "10",
    "\"1min\"",
    "\"5min\"",
    "\"10min\"",
    "\"30min\"",
    "\"1hour\"",
]);

const BOOTSTRAP: Param = Param::new("bootstrapInterval", Kind::Interval)
    .or(Default::Text("7d"))
    .suggestions(&["\"7d\"", "\"30d\""]);

const SEASONALITY: Param = Param::new("seasonality", Kind::Interval)
    .or(Default::Text("1d"))
    .suggestions(&["\"1d\"", "\"7d\""]);

const BANDS: &[Param] = &[
    SERIES,
    Param::integer("delta").or(Default::Integer(3)),
    BOOTSTRAP,
    SEASONALITY,
];

const MOVING: &[Param] = &[SERIES, WINDOW_SIZE, Param::float("xFilesFactor").optional()];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "aggregateLine",
        params: &[
            SERIES,
            Param::aggregate("func").or(Default::Text("average")),
            Param::boolean("keepStep").or(Default::Boolean(false)),
        ],
        help: "A straight line at an aggregate of the whole series; with `keepStep` it has a \
               value for each of the series' own.",
        example: "aggregateLine(web.a.hits, \"max\")",
        call: aggregate_line,
        ..Function::PLAIN
    },
    Function {
        name: "exponentialMovingAverage",
        params: &[SERIES, WINDOW_SIZE],
        help: "A mean in which older values count for less and less: each new one weighs \
               2 / (windowSize + 1), seconds if it is a time.",
        example: "exponentialMovingAverage(web.a.hits, 10)",
        lazy: true,
        call: moving::exponential,
        ..Function::PLAIN
    },
    Function {
        name: "holtWintersAberration",
        params: BANDS,
        help: "How far the series lies outside its Holt-Winters band, 0 inside.",
        example: "holtWintersAberration(web.a.hits)",
        lazy: true,
        call: aberration,
        ..Function::PLAIN
    },
    Function {
        name: "holtWintersConfidenceArea",
        params: BANDS,
        help: "The Holt-Winters band drawn as an area.",
        example: "holtWintersConfidenceArea(web.a.hits)",
        lazy: true,
        call: confidence_area,
        ..Function::PLAIN
    },
    Function {
        name: "holtWintersConfidenceBands",
        params: BANDS,
        help: "Between which values the series is expected: its Holt-Winters forecast minus and \
               plus `delta` times the usual deviation.",
        example: "holtWintersConfidenceBands(web.a.hits, 3)",
        lazy: true,
        call: confidence_bands,
        ..Function::PLAIN
    },
    Function {
        name: "holtWintersForecast",
        params: &[SERIES, BOOTSTRAP, SEASONALITY],
        help: "What triple exponential smoothing expects, having watched the series for \
               `bootstrapInterval` before the window, with a season of `seasonality`.",
        example: "holtWintersForecast(web.a.hits, \"7d\", \"1d\")",
        lazy: true,
        call: forecast,
        ..Function::PLAIN
    },
    Function {
        name: "identity",
        params: &[Param::string("name")],
        help: "The time itself, in seconds since 1970, every minute.",
        example: "identity(\"clock\")",
        call: |context, args| {
            let name = args.value("name").python_str();
            let step = 60;
            let values = at_each_step(context, step * 1_000_000, |at| at as f64)?;
            let Window { from, until } = context.window;
            let expression = format!("identity(\"{name}\")");
            let mut series = context.made(name, (from, until, step), values);
            series.odd_name = args.odd_name("name");
            series.path_expression = expression;
            Ok(vec![series])
        },
        ..Function::PLAIN
    },
    Function {
        name: "linearRegression",
        params: &[
            SERIES,
            Param::new("startSourceAt", Kind::Date).optional(),
            Param::new("endSourceAt", Kind::Date).optional(),
        ],
        help: "The straight line that fits the series best, between two times or over the \
               window.",
        example: "linearRegression(web.a.disk_used, \"-1d\")",
        lazy: true,
        call: linear_regression,
        ..Function::PLAIN
    },
    Function {
        name: "movingAverage",
        params: MOVING,
        help: "The mean of the last `windowSize` points, or of the last `windowSize` of time, at \
               every point.",
        example: "movingAverage(web.a.hits, \"5min\")",
        lazy: true,
        call: |context, args| moving::moving(context, args, "average"),
        ..Function::PLAIN
    },
    Function {
        name: "movingMax",
        params: MOVING,
        help: "The largest of the last `windowSize` points, or of that time.",
        example: "movingMax(web.a.hits, 10)",
        lazy: true,
        call: |context, args| moving::moving(context, args, "max"),
        ..Function::PLAIN
    },
    Function {
        name: "movingMedian",
        params: MOVING,
        help: "The median of the last `windowSize` points, or of that time.",
        example: "movingMedian(web.a.latency, \"1h\")",
        lazy: true,
        call: |context, args| moving::moving(context, args, "median"),
        ..Function::PLAIN
    },
    Function {
        name: "movingMin",
        params: MOVING,
        help: "The smallest of the last `windowSize` points, or of that time.",
        example: "movingMin(web.a.free, 10)",
        lazy: true,
        call: |context, args| moving::moving(context, args, "min"),
        ..Function::PLAIN
    },
    Function {
        name: "movingSum",
        params: MOVING,
        help: "The sum of the last `windowSize` points, or of that time.",
        example: "movingSum(web.a.errors, \"1h\")",
        lazy: true,
        call: |context, args| moving::moving(context, args, "sum"),
        ..Function::PLAIN
    },
    Function {
        name: "movingWindow",
        params: &[
            SERIES,
            WINDOW_SIZE,
            Param::aggregate("func").or(Default::Text("average")),
            Param::float("xFilesFactor").optional(),
        ],
        help: "An aggregate of the last `windowSize` points, or of the last `windowSize` of time, \
               at every point.",
        example: "movingWindow(web.a.hits, 10, \"max\")",
        lazy: true,
        call: |context, args| {
            let func = args.text("func")?.to_owned();
            moving::moving(context, args, &func)
        },
        ..Function::PLAIN
    },
    Function {
        name: "nPercentile",
        params: &[SERIES, Param::float("n")],
        help: "A straight line at the `n`th percentile of the series.",
        example: "nPercentile(web.a.latency, 95)",
        call: n_percentile,
        ..Function::PLAIN
    },
    Function {
        name: "stdev",
        params: &[
            SERIES,
            Param::integer("points"),
            Param::float("windowTolerance").or(Default::Float(0.1)),
        ],
        help: "The standard deviation of the last `points` points, at every point that has the \
               share `windowTolerance` of them.",
        example: "stdev(web.a.latency, 10)",
        call: |_, args| {
            let points = args.integer("points")?;
            let tolerance = args.number("windowTolerance")?;
            let mut all = args.series("seriesList")?;
            let size = match usize::try_from(points) {
                Ok(size) => size,
                Err(_) if all.is_empty() => return Ok(all),
                Err(_) => return Err(args.refusal("points must not be negative")),
            };
            for series in &mut all {
                series.tag("stdev", points.to_string());
                let values = || Ok(window::deviation(&series.values, size, tolerance));
                let values = series.values.beside(series.values.len(), values)?;
                *series = series.derived(format!("stdev({},{points})", series.name), values);
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
];

fn aggregate_line(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let aggregate = args.aggregate("func")?;
    let keep_step = args.flag("keepStep");
    let mut all = args.series("seriesList")?;
    let _copy = room_for(aggregate, &all, context.budget())?;
    for series in &mut all {
        context.budget().check()?;
        let value = aggregate.of(&series.values);
        let shown = if is_absent(value) {
            "None".to_owned()
        } else {
            python::general(value)
        };
        let name = format!("aggregateLine({}, {shown})", series.name);
        if keep_step {
            let length = series.values.len();
            let values = series.values.beside(length, || Ok(vec![value; length]))?;
            *series = series.derived(name, values);
            continue;
        }
        let name_of_line = match aggregate {
            _ if is_absent(value) => shown,
            Aggregate::Count => shown_whole(value),
            _ => python::float(value),
        };
        *series = context.line(value, &name_of_line);
        series.rename(name);
    }
    Ok(all)
}

fn shown_whole(value: f64) -> String {
    format!("{value:.0}")
}

/// A series of an argument evaluated from `bootstrapInterval` earlier, with what smoothing says
/// about all of it.
struct Smoothed {
    series: Series,
    analysis: holt_winters::Analysis,
    /// The memory of the analysis.
    _room: Reservation,
    /// How many values and seconds lie before the window.
    skipped: usize,
    preview: i64,
}

impl Smoothed {
    /// A new series over the window, with the tags of the old.
    fn over_window(&self, name: String, values: Column) -> Series {
        let series = &self.series;
        let mut made = Series::new(
            name,
            series.start.saturating_add(self.preview),
            series.end,
            series.step,
            values,
        );
        made.tags.clone_from(&series.tags);
        made.x_files_factor = series.x_files_factor;
        made
    }

    /// A column of `n_values` over the window.
    fn column(&self, n_values: usize, make: impl FnOnce() -> Vec<f64>) -> Result<Column> {
        self.series.values.beside(n_values, || Ok(make()))
    }

    fn of_window<'a>(&self, values: &'a [f64]) -> &'a [f64] {
        values.get(self.skipped..).unwrap_or_default()
    }
}

fn smoothed(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Smoothed>> {
    let preview = args.interval("bootstrapInterval")?;
    let seasonality = args.interval("seasonality")?;
    let from = context.window.from.saturating_sub(preview);
    let all = args.over(
        context,
        Window {
            from,
            ..context.window
        },
    )?;
    let budget = context.budget();
    let all = all.into_iter().map(|mut series| {
        let season = seasonality.div_euclid(series.step);
        let season = usize::try_from(season)
            .map_err(|_| args.refusal("seasonality must not be negative"))?;
        let skipped = usize::try_from(preview.div_euclid(series.step))
            .map_err(|_| args.refusal("bootstrapInterval must not be negative"))?;
        series.tag("holtWintersForecast", "1");
        series.tag("holtWintersDeviation", "1");
        budget.check()?;
        let room = holt_winters::room(series.values.len());
        Ok(Smoothed {
            _room: budget.hold(bytes_of(room))?,
            analysis: holt_winters::analyse(&series.values, season),
            series,
            skipped,
            preview,
        })
    });
    all.collect()
}

fn forecast(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let all = smoothed(context, args)?;
    let forecasts = all.iter().map(|smoothed| {
        let name = format!("holtWintersForecast({})", smoothed.series.name);
        let values = smoothed.of_window(&smoothed.analysis.predictions);
        let values = smoothed.column(values.len(), || values.to_vec())?;
        Ok(smoothed.over_window(name, values))
    });
    forecasts.collect()
}

fn confidence_bands(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let delta = args.number("delta")?;
    let mut bands = Vec::new();
    for mut smoothed in smoothed(context, args)? {
        smoothed.series.tag("holtWintersConfidenceUpper", "1");
        smoothed.series.tag("holtWintersConfidenceLower", "1");
        let forecast = smoothed.of_window(&smoothed.analysis.predictions);
        let deviations = smoothed.of_window(&smoothed.analysis.deviations);
        for (edge, delta) in [("Lower", -delta), ("Upper", delta)] {
            let name = format!("holtWintersConfidence{edge}({})", smoothed.series.name);
            let values = || holt_winters::band(forecast, deviations, delta);
            let values = smoothed.column(forecast.len(), values)?;
            let mut band = smoothed.over_window(name, values);
            band.path_expression
                .clone_from(&smoothed.series.path_expression);
            bands.push(band);
        }
    }
    Ok(bands)
}

fn confidence_area(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let mut bands = confidence_bands(context, args)?;
    let [lower, upper] = &mut bands[..] else {
        return Err(args.refusal("seriesList must be exactly one series"));
    };
    lower.drawing.invisible = true;
    let name = format!("holtWintersConfidenceArea({})", upper.path_expression);
    for band in [lower, upper] {
        band.drawing.stack = Some(Stack(DEFAULT_STACK.to_owned()));
        band.tag("holtWintersConfidenceArea", "1");
        band.rename(name.clone());
    }
    Ok(bands)
}

fn aberration(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let bands = confidence_bands(context, args)?;
    let mut results = Vec::new();
    for mut series in args.original(context)? {
        // Of several bands of one name the last counts.
        let band = |edge: &str| {
            let name = format!("holtWintersConfidence{edge}({})", series.name);
            bands.iter().rfind(|band| band.name == name)
        };
        let (Some(lower), Some(upper)) = (band("Lower"), band("Upper")) else {
            return Err(args.refusal(&format!("nothing is known about {}", series.name)));
        };
        let values = series.values.beside(series.values.len(), || {
            let (lower, upper) = (&lower.values, &upper.values);
            Ok(holt_winters::aberration(&series.values, lower, upper))
        })?;
        series.tag("holtWintersAberration", "1");
        let name = format!("holtWintersAberration({})", series.name);
        let mut result = Series::new(name, series.start, series.end, series.step, values);
        result.tags = series.tags;
        result.x_files_factor = series.x_files_factor;
        results.push(result);
    }
    Ok(results)
}

fn linear_regression(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let mut source = context.window;
    let mut shown = as_wall_clock(context);
    if args.given("startSourceAt") {
        source.from = timestamp(context, args, "startSourceAt")?;
        shown.from = source.from;
    }
    if args.given("endSourceAt") {
        source.until = timestamp(context, args, "endSourceAt")?;
        shown.until = source.until;
    }
    if source.from > source.until {
        return Err(args.refusal("startSourceAt must lie before endSourceAt"));
    }
    if source.from == source.until {
        // One point at most: no direction.
        return Ok(Vec::new());
    }
    let sources = args.over(context, source)?;
    let all = args.original(context)?;
    let mut lines = Vec::new();
    for (source, mut series) in sources.iter().zip(all) {
        let Some(line) = regression::fit(&source.values, source.start, source.step) else {
            continue;
        };
        let range = format!("{}, {}", shown.from, shown.until);
        let name = format!("linearRegression({}, {range})", series.name);
        let (start, length) = (series.start, series.values.len());
        let values = || Ok(line.values(start, series.step, length));
        let values = series.values.beside(length, values)?;
        series.tag("linearRegressions", range);
        let mut made = Series::new(name, start, series.end, series.step, values);
        made.tags = series.tags;
        made.x_files_factor = series.x_files_factor;
        lines.push(made);
    }
    Ok(lines)
}

fn n_percentile(_: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let n = args.number("n")?;
    let tag = args.value("n").python_str();
    if n == 0.0 {
        return Err(args.refusal("The requested percent is required to be greater than 0"));
    }
    let mut lines = Vec::new();
    let all = args.series("seriesList")?;
    let _copy = room_for_copy(&all, args.budget())?;
    for mut series in all {
        args.budget().check()?;
        let value = percentile::percentile(&series.values, n, false)
            .map_err(|_| args.refusal("there is no such percentile"))?;
        if is_absent(value) {
            continue;
        }
        series.tag("nPercentile", tag.as_str());
        let name = format!("nPercentile({}, {})", series.name, python::general(n));
        let n_points = (series.end - series.start) / series.step;
        let n_points = usize::try_from(n_points).unwrap_or(0);
        let values = series
            .values
            .beside(n_points, || Ok(vec![value; n_points]))?;
        lines.push(series.derived(name, values));
    }
    Ok(lines)
}
