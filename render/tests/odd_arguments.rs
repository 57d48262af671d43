//! Every function with every kind of odd argument in every place: an answer or a refusal, soon,
//! and never a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use render::budget::{Budget, Memory as Allowed};
use render::functions::{self, Function, Kind, Param};
use render::memory::Memory;
use render::{Error, Query, Window, query};

/// What may stand where something else was meant.
const ODD: &[&str] = &[
    "-1",
    "0",
    "3",
    "-9223372036854775808",
    "9223372036854775807",
    "2.5",
    "1e300",
    "-1e300",
    "5e-324",
    "inf",
    "true",
    "none",
    "\"\"",
    "\"x\"",
    "\"-1min\"",
    "\"0s\"",
    "\"1s\"",
    "\"99999999999999y\"",
    "\"(\"",
    "\"\\9\"",
    "\"%\"",
    "\"%d %d\"",
    "\"weeks9\"",
    "\"sum\"",
    "\"timeShift\"",
    "no.such",
    "odd.*",
    "mapSeries(odd.*, 0)",
];

/// What is meant.
fn usual(param: &Param) -> &'static str {
    match param.kind {
        Kind::SeriesList | Kind::Any => "odd.*",
        Kind::SeriesLists => "mapSeries(odd.*, 1)",
        Kind::Float | Kind::Integer | Kind::IntOrInf => "2",
        Kind::IntOrInterval | Kind::Interval => "\"1min\"",
        Kind::Date => "\"-2min\"",
        Kind::Boolean => "true",
        Kind::Node | Kind::NodeOrTag | Kind::Tag => "1",
        Kind::AggFunc | Kind::AggOrSeriesFunc => "\"max\"",
        Kind::String => match param.name {
            "intervalUnit" => "\"1min\"",
            "operator" => "\">\"",
            "templateFunction" => "\"sumSeries(%.*)\"",
            "reduceFunction" => "\"sumSeries\"",
            "newName" => "\"%d\"",
            _ => "\"a\"",
        },
    }
}

/// The function's call with one argument replaced, with each number of arguments.
fn targets(name: &str, function: &Function) -> Vec<String> {
    let arguments: Vec<&str> = function.params.iter().map(usual).collect();
    let mut all = vec![format!("{name}()")];
    for length in 1..=arguments.len() {
        let shown = &arguments[..length];
        all.push(format!("{name}({})", shown.join(", ")));
        for place in 0..length {
            for odd in ODD {
                let mut shown = shown.to_vec();
                shown[place] = odd;
                all.push(format!("{name}({})", shown.join(", ")));
            }
        }
    }
    all
}

/// The function under others that stretch its window or its steps as far as they go.
fn nested(name: &str, function: &Function) -> Vec<String> {
    let arguments: Vec<&str> = function.params.iter().map(usual).collect();
    let call = format!("{name}({})", arguments.join(", "));
    vec![
        call.clone(),
        format!("movingAverage({call}, 9223372036854775807)"),
        format!("movingMedian({call}, \"99999y\")"),
        format!("timeShift({call}, \"-9999999y\")"),
        format!("timeShift(timeShift({call}, \"+9999999y\"), \"+9999999y\")"),
        format!("timeStack({call}, \"999999y\", -9223372036854775808, -9223372036854775800)"),
        format!("smartSummarize({call}, \"1d\", \"sum\", \"years\")"),
        format!("holtWintersForecast({call}, \"99999y\", \"99999y\")"),
        format!("hitcount({call}, \"99999999y\", true)"),
        format!(
            "sumSeries({call}, summarize(odd.gaps, \"999999937s\"), \
             summarize(odd.gaps, \"999999929s\"), summarize(odd.gaps, \"999999893s\"))\
             |hitcount(\"1h\")"
        ),
    ]
}

fn memory() -> Memory {
    let mut memory = Memory::default();
    let none = whisper::ABSENT;
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    memory.insert("odd.gaps", 60, vec![none, 1.0, none, none, 4.0, none]);
    memory.insert("odd.none", 60, vec![none; 6]);
    memory.insert("odd.wild", 7, vec![nan, inf, -inf, 1e308, -1e308, 5e-324]);
    memory.insert("odd.coarse", 3600, vec![1.0, 0.0]);
    memory.insert("odd.empty", 60, vec![]);
    memory
}

#[test]
fn odd_arguments_are_answered_or_refused() {
    let memory = memory();
    let short = Window {
        from: 0,
        until: memory.end(),
    };
    let all_time = Window {
        from: -62_135_596_800,
        until: 253_402_300_799,
    };
    let mut n_answered = 0;
    let mut wrong = Vec::new();
    for (name, _, function) in functions::all() {
        let single = targets(name, function)
            .into_iter()
            .map(|text| (text, short));
        let nested = nested(name, function).into_iter().enumerate();
        let nested = nested.flat_map(|(n, text)| {
            // Over all of time only what does not fill it with buckets.
            let long = (n < 5).then(|| (text.clone(), all_time));
            [(text, short)].into_iter().chain(long)
        });
        for (text, window) in single.chain(nested) {
            let expression = query::parse(&text).unwrap().expression;
            let mut query = Query::new(&memory, memory.end());
            query.limits.max_points = 1_000_000;
            let since = Instant::now();
            let evaluate = AssertUnwindSafe(|| query.evaluate(&[expression], window, 0.0));
            match catch_unwind(evaluate) {
                Ok(Err(Error::Failed(sentence))) => wrong.push(format!("{text} fails: {sentence}")),
                Ok(answer) => n_answered += usize::from(answer.is_ok()),
                Err(_) => wrong.push(format!("{text} panics")),
            }
            let took = since.elapsed();
            if took > Duration::from_secs(5) {
                wrong.push(format!("{text} takes {took:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(n_answered > 1_000, "only {n_answered} were answered");
}

/// As many nodes as a target has room for, of names that have as many.
#[test]
fn many_nodes_are_picked_before_the_deadline_or_refused() {
    let mut memory = Memory::default();
    for n in 0..100 {
        memory.insert(&format!("w.s{n}"), 60, vec![1.0; 4]);
    }
    let name = |n_nodes: usize| format!("alias(w.*,\"{}\")", vec!["a"; n_nodes].join("."));
    let (long, half) = (name(14_000), name(9_000));
    let nodes = |n_nodes: usize, node: &str| vec![node; n_nodes].join(",");
    for target in [
        format!("aliasByNode({long},{})", nodes(14_000, "1")),
        format!("aliasByNode(w.*,{})", nodes(30_000, "9")),
        format!(
            "sumSeriesWithWildcards({long},{})",
            nodes(14_000, "1").replace("1,1,", "1,7,")
        ),
        format!("groupByNodes({long},\"sum\",{})", nodes(14_000, "1")),
        format!("weightedAverage({half},{half},{})", nodes(9_000, "1")),
        format!("groupByTags(w.*,\"sum\",{})", nodes(5_000, "\"name\"")),
    ] {
        let mut query = Query::new(&memory, memory.end());
        let deadline = Instant::now() + Duration::from_secs(1);
        query.limits.budget = Budget::new(Allowed::new(0), Some(deadline));
        let parsed = query::parse(&target).unwrap();
        assert_eq!(parsed.rest, None);
        let window = Window {
            from: 0,
            until: memory.end(),
        };
        let since = Instant::now();
        let result = query.evaluate(&[parsed.expression], window, 0.0);
        let took = since.elapsed();
        assert!(
            took < Duration::from_secs(5),
            "{}… takes {took:?}",
            &target[..20]
        );
        let is_timeout = matches!(result, Err(Error::Timeout));
        assert!(
            result.is_ok() || is_timeout,
            "{}… {result:?}",
            &target[..20]
        );
    }
}
