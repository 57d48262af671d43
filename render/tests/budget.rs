//! Requests that grow without bound, under a small budget: what is really allocated stays within
//! it, and each is either answered or refused with a sentence that names the key.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::alloc::System;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use cap::Cap;
use render::budget::{Budget, Memory as Allowed};
use render::memory::Memory;
use render::{Error, Limits, Query, Window, query};

#[global_allocator]
static ALLOCATED: Cap<System> = Cap::new(System, usize::MAX);

/// One test at a time: the counters are everybody's.
static ALONE: Mutex<()> = Mutex::new(());

const MIB: usize = 1 << 20;

/// What a request may take.
const BUDGET: usize = 16 * MIB;

/// The values of the longest series: 512 KiB.
const N_VALUES: usize = 64 << 10;

/// What may be allocated beside the budget: a series that has been fetched before it is known how
/// long it is, the targets parsed, and small things.
const SLACK: usize = 4 * MIB;

/// The long series `a`, and 2,000 short ones below `host`.
fn source() -> Memory {
    let mut memory = Memory::default();
    memory.insert("a", 1, (0..N_VALUES).map(|n| n as f64).collect());
    for n in 0..2_000 {
        let name = format!("host.web{n:04}.{}", "requests".repeat(20));
        memory.insert(&name, 60, vec![1.0; 4]);
    }
    memory
}

fn group(of: &str, times: usize) -> String {
    format!("group({})", vec![of; times].join(","))
}

fn nested(call: &str, inner: &str, depth: usize) -> String {
    (0..depth).fold(inner.to_owned(), |target, _| call.replace('_', &target))
}

/// What is asked, with the values for `$names` in the request.
fn queries() -> Vec<(&'static str, Vec<String>, BTreeMap<String, String>)> {
    let mut all: Vec<(&str, Vec<String>, BTreeMap<String, String>)> = Vec::new();
    let mut one = |what, target: String| all.push((what, vec![target], BTreeMap::new()));
    many_columns(&mut one);
    long_rows(&mut one);
    long_names(&mut one);
    long_texts(&mut one);
    texts_that_multiply(&mut one);
    let asked = (1..25).map(|n| {
        let next = format!("${}", "a".repeat(n + 1));
        ("a".repeat(n), next.repeat(4))
    });
    let body = format!("template(a.{})", "$a".repeat(100));
    all.push(("template of the request", vec![body], asked.collect()));
    let many = (0..20_000).map(|n| (n.to_string(), n.to_string()));
    let within = nested("template(absolute(_))", "a", 30);
    all.push(("variables of the request", vec![within], many.collect()));
    all.push(("targets", vec!["a".to_owned(); 4_000], BTreeMap::new()));
    all.push((
        "many targets",
        vec!["host.*.*".to_owned(); 1_000],
        BTreeMap::new(),
    ));
    all
}

/// Functions of one series, many times the same.
fn many_columns(one: &mut dyn FnMut(&'static str, String)) {
    one("columns derived", group("scale(a,2)", 1_500));
    one("columns of chains", group("scale(derivative(a),2)", 1_500));
    one("columns stacked", group("stacked(a,\"x\")", 1_500));
    one("windows", group("movingMedian(a,5)", 1_500));
    one(
        "windows of averages",
        group("exponentialMovingAverage(a,5)", 1_500),
    );
    one("buckets", group("summarize(a,\"1s\")", 1_500));
    one("hits", group("hitcount(a,\"1s\")", 1_500));
    one(
        "forecasts",
        group("holtWintersForecast(a,\"1s\",\"1min\")", 500),
    );
    one(
        "bands",
        group("holtWintersConfidenceBands(a,3,\"1s\",\"1min\")", 500),
    );
    one("lines", group("linearRegression(a)", 1_500));
    one("percentiles", group("nPercentile(a,50)", 1_500));
    one("gaps", group("interpolate(transformNull(a))", 1_500));
    one("clocks", group("timeFunction(\"a\",1)", 1_500));
    one("walks", group("randomWalk(\"a\",1)", 1_500));
    one("sines", group("sin(\"a\",1,1)", 1_500));
    one("events", group("events(\"*\")", 1_500));
    one("shifts", "timeStack(a,\"1s\",0,900)".to_owned());
}

/// Functions of many series.
fn long_rows(one: &mut dyn FnMut(&'static str, String)) {
    one("rows", format!("percentileOfSeries({},50)", group("a", 50)));
    one(
        "rows of products",
        format!("multiplySeries({})", group("a", 50)),
    );
    one("percentages", format!("asPercent({})", group("a", 50)));
    one(
        "quotients",
        format!("divideSeriesLists({0},{0})", group("a", 100)),
    );
    one(
        "sums",
        format!("sumSeries({})", group("offset(a,1)", 2_000)),
    );
}

/// Names that functions put together.
fn long_names(one: &mut dyn FnMut(&'static str, String)) {
    one(
        "names of many series",
        format!("sumSeries({})", nested("scale(_,1)", "host.*.*", 40)),
    );
    one(
        "names that grow",
        nested(r#"aliasSub(_,"(.*)","\1\1\1\1\1\1\1\1\1\1")"#, "a", 11),
    );
    one(
        "many names that grow",
        nested(r#"aliasSub(_,"(.*)","\1\1")"#, "host.*.*", 9),
    );
    one(
        "names of many matches",
        nested(
            &format!(r#"aliasSub(_,"","{}")"#, "x".repeat(1_000)),
            "host.*.*",
            3,
        ),
    );
    let nodes = vec!["0"; 20_000].join(",");
    one(
        "names of many nodes",
        format!("aliasByNode(host.*.*,{nodes})"),
    );
    one(
        "groups of many nodes",
        format!("groupByNodes(host.*.*,\"sum\",{nodes})"),
    );
    let node = vec!["1"; 8_000].join(",");
    one("names of nodes", format!("aliasByNode(host.*.*,{node})"));
}

/// Texts in arguments.
fn long_texts(one: &mut dyn FnMut(&'static str, String)) {
    let matchers = vec!["\"a\""; 15_000].join(",");
    one(
        "matchers",
        format!("reduceSeries(mapSeries(host.*.*,1),\"sum\",1,{matchers})"),
    );
    one(
        "legends",
        nested(
            &format!("legendValue(_{})", ",\"avg\"".repeat(900)),
            "host.*.*",
            10,
        ),
    );
    let wide = format!("alias(a,\"{}\")", "x".repeat(60_000));
    one(
        "columns of text",
        format!("cactiStyle(group({wide},host.*.*))"),
    );
    one(
        "aliases",
        format!("alias(host.*.*,\"{}\")", "x".repeat(60_000)),
    );
    one(
        "colours",
        format!("color(host.*.*,\"{}\")", "x".repeat(60_000)),
    );
    one(
        "tags",
        format!("consolidateBy(host.*.*,\"{}\")", "x".repeat(60_000)),
    );
    one(
        "targets of names",
        format!(
            "applyByNode(host.*.*,1,\"alias(a,'{}')\")",
            "%".repeat(5_000)
        ),
    );
    one(
        "names of targets",
        format!("applyByNode(host.*.*,1,\"%.*\",\"{}\")", "%".repeat(5_000)),
    );
    one("keys", nested("sortByName(_,true)", "host.*.*", 60));
}

/// Short texts that mean long ones.
fn texts_that_multiply(one: &mut dyn FnMut(&'static str, String)) {
    one(
        "template",
        format!(
            r#"template(h.$a$a$a$a$a$a$a$a$a$a,a="{}",b="{}",c="{}",d="xxxxxxxxxxxxxxxx")"#,
            "$b".repeat(1_000),
            "$c".repeat(1_000),
            "$d".repeat(1_000)
        ),
    );
    one(
        "expressions",
        r#"grep(host.*.*,"(?<a>\w{9})(?<b>\g<a>\g<a>\g<a>)\g<b>\g<b>")"#.to_owned(),
    );
    one(
        "repetitions",
        r#"grep(host.*.*,"(?:(?:(?:\w{500}){500}){500})")"#.to_owned(),
    );
}

#[test]
fn what_is_allocated_stays_within_the_budget() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let source = source();
    let mut n_refused = 0;
    for (what, texts, template) in queries() {
        let before = ALLOCATED.allocated();
        let peak_before = ALLOCATED.max_allocated();
        let allowed = Allowed::new(BUDGET as u64);
        let result = evaluate(&source, &allowed, &texts, template);
        let peak = ALLOCATED.max_allocated();
        // The peak is that of all queries so far.
        if peak > peak_before {
            let taken = peak - before;
            assert!(taken < BUDGET + SLACK, "{what}: {} MiB", taken / MIB);
        }
        let result = result.map_err(|error| error.to_string());
        match result {
            Ok(_) => {}
            Err(sentence) => {
                n_refused += 1;
                let named = [
                    "render.max_memory",
                    "render.max_points",
                    "65536",
                    "bytes",
                    "compil",
                ];
                let said = named.iter().any(|word| sentence.contains(word));
                assert!(said, "{what}: {sentence}");
            }
        }
        assert_eq!(allowed.used(), 0, "{what}");
        assert!(
            ALLOCATED.allocated() < before + MIB,
            "{what} leaves memory behind"
        );
    }
    assert!(n_refused > 25, "{n_refused} refused");
}

/// Room for the series and half of another one: what sorts the values needs a copy, and as much to sort it.
#[test]
fn a_copy_that_is_sorted_is_within_the_budget() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let source = source();
    let bytes = 8 * N_VALUES as u64;
    for (target, copies) in [
        ("sortBy(a,\"median\")", true),
        ("sortBy(a,\"average\")", false),
        ("highest(a,1,\"median\")", true),
        ("filterSeries(a,\"median\",\">\",0)", true),
        ("filterSeries(a,\"max\",\">\",0)", false),
        ("legendValue(a,\"median\")", true),
        ("legendValue(a,\"last\")", false),
        ("aggregateLine(a,\"median\")", true),
        ("aggregateLine(a,\"sum\")", false),
        ("nPercentile(a,50)", true),
        ("removeAbovePercentile(a,50)", true),
        ("removeBelowPercentile(a,50)", true),
        ("removeBelowValue(a,5)", false),
    ] {
        let allowed = Allowed::new(bytes + bytes / 2);
        let result = evaluate(&source, &allowed, &[target.to_owned()], BTreeMap::new());
        let refused =
            matches!(&result, Err(Error::Limit { key, .. }) if *key == "render.max_memory");
        assert_eq!(refused, copies, "{target}: {result:?}");
    }
}

fn evaluate(
    source: &Memory,
    allowed: &std::sync::Arc<Allowed>,
    texts: &[String],
    template: BTreeMap<String, String>,
) -> Result<usize, Error> {
    let mut query = Query::new(source, N_VALUES as i64);
    query.template = template.into();
    query.limits = Limits {
        max_series: 0,
        max_points: 5_000_000,
        budget: Budget::new(allowed.clone(), None),
    };
    let mut targets = Vec::new();
    for text in texts {
        query.limits.budget.reserve(query::size_of_parsed(text))?;
        targets.push(query::parse(text)?.expression);
    }
    let window = Window {
        from: 0,
        until: N_VALUES as i64,
    };
    Ok(query.evaluate(&targets, window, 0.0)?.len())
}
