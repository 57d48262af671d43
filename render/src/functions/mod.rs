//! All functions of the query language, a file per family.
//!
//! # Adding one
//!
//! 1. Open the family's file (`transform/mod.rs`, …) and add an entry to its `FUNCTIONS`, in
//!    alphabetical order: name, parameters with kinds and defaults, a sentence of help, an
//!    example that parses, and `call`. Start from a neighbour of the same shape:
//!    - every value on its own: `scale` in `transform/mod.rs`;
//!    - a new series from an old one: `derivative` (name and values change, [`Series::derived`]);
//!    - other steps: `summarize`;
//!    - many series to one: `sumSeries` in `combine/mod.rs` ([`Context::aggregate`]);
//!    - needs more of the past, or another window: `movingAverage` in `calculate/moving.rs`,
//!      `timeShift` in `transform/mod.rs`: `lazy: true`, then [`Args::over`];
//!    - only names: `aliasByNode` in `alias.rs`; only looks: `color` in `graph.rs`;
//!    - from nothing: `constantLine` in `special.rs`;
//!    - a call that later ones depend on, or that refuses a window: `stacked` in `graph.rs`:
//!      `effects: true`.
//!
//!    Code that several families need is in `support.rs` and `wall_clock.rs`.
//! 2. `call` gets the [`Context`] (window, clock, zone, store) and its [`Args`]. Take arguments
//!    by the parameter's name: `args.series("seriesList")?`, `args.number("factor")?`,
//!    `args.flag("reverse")`, `args.given("label")`. What is missing or of the wrong kind is refused there with a
//!    sentence; refuse what else is wrong with [`Error::refused`]: never a panic.
//! 3. Mind the three things that Graphite's answers are compared in: the name (with numbers by
//!    [`crate::python`]), `path_expression` (what combining functions print: [`Series::rename`]
//!    and [`Series::derived`] set it, assigning `name` alone leaves it), and tags.
//! 4. Add a case to `render/tests/scripts/<family>.txt`: a test insists on one for every name.
//!    `cargo test -p render` also checks order, uniqueness and that the example parses, and
//!    `PLUMBAGO_BLESS=1 cargo test -p render --test docs` rewrites `docs/functions.md`.
//!
//! # How arguments are read
//!
//! Graphite converts all arguments to their parameters' kinds (`"2"` for a float is 2.0), and
//! leaves all of them as they were if one does not fit, for the function to cope. So does
//! [`Args::bind`]; the accessors cope.

mod alias;
mod args;
mod calculate;
mod combine;
mod describe;
mod filter_data;
mod filter_series;
mod graph;
mod node;
mod param;
mod pattern;
mod percentile;
mod pie;
mod sorting;
mod special;
mod support;
mod transform;
mod units;
mod wall_clock;

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::aggregate::Aggregate;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::series::Series;

pub use crate::value::Value;
pub use args::Args;
pub use describe::{describe, signature};
pub use node::{NodeOrTag, node_key};
pub use param::{Default, Kind, Param};
pub use pie::{PIE, PieFunction};

/// One function: what it is called, what it takes, what it does.
#[derive(Debug)]
pub struct Function {
    /// Its name; case matters.
    pub name: &'static str,
    /// Other names for it.
    pub aliases: &'static [&'static str],
    /// What it takes, in order. Only the last may be repeated.
    pub params: &'static [Param],
    /// What it does, in a sentence or two.
    pub help: &'static str,
    /// A target that uses it.
    pub example: &'static str,
    /// The function itself.
    pub call: fn(&mut Context<'_>, &mut Args<'_>) -> Result<Vec<Series>>,
    /// For functions that make lists of lists (`mapSeries`): called instead.
    pub lists: Option<Lists>,
    /// Whether the first argument is left to the function to evaluate, over windows of its own
    /// choice: [`Args::over`], [`Args::original`].
    pub lazy: bool,
    /// Whether a call changes what the request evaluates after it, or may refuse the window: then
    /// it is evaluated where it stands, also below a lazy function.
    pub effects: bool,
    /// For functions that are nothing but an aggregate by step of all their series.
    pub fold: Option<Aggregate>,
    /// Whether `groupByNode` and the like list it as a callback.
    pub aggregator: bool,
    /// How `/functions` shows the parameters, where that differs from `params`.
    pub signature: Option<&'static str>,
}

/// A function of lists of lists.
pub type Lists = fn(&mut Context<'_>, &mut Args<'_>) -> Result<Vec<Vec<Series>>>;

impl Function {
    /// What most functions are not: `Function { name: …, ..Function::PLAIN }`.
    pub const PLAIN: Self = Self {
        name: "",
        aliases: &[],
        params: &[],
        help: "",
        example: "",
        call: |_, _| Ok(Vec::new()),
        lists: None,
        lazy: false,
        effects: false,
        fold: None,
        aggregator: false,
        signature: None,
    };

    /// `sum` for `sumSeries`: what names its result.
    pub(crate) fn aggregate_word(&self) -> &'static str {
        self.name.strip_suffix("Series").unwrap_or(self.name)
    }
}

/// A family of functions under the heading that Graphite files it.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// `Combine`, `Filter Data`, …
    pub group: &'static str,
    /// Its functions by name.
    pub functions: &'static [Function],
}

/// Every family, by name.
pub const FAMILIES: &[Family] = &[
    Family {
        group: "Alias",
        functions: alias::FUNCTIONS,
    },
    Family {
        group: "Calculate",
        functions: calculate::FUNCTIONS,
    },
    Family {
        group: "Combine",
        functions: combine::FUNCTIONS,
    },
    Family {
        group: "Filter Data",
        functions: filter_data::FUNCTIONS,
    },
    Family {
        group: "Filter Series",
        functions: filter_series::FUNCTIONS,
    },
    Family {
        group: "Graph",
        functions: graph::FUNCTIONS,
    },
    Family {
        group: "Sorting",
        functions: sorting::FUNCTIONS,
    },
    Family {
        group: "Special",
        functions: special::FUNCTIONS,
    },
    Family {
        group: "Transform",
        functions: transform::FUNCTIONS,
    },
];

/// Every name and alias, with its group.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str, &'static Function)> {
    FAMILIES.iter().flat_map(|family| {
        family.functions.iter().flat_map(move |function| {
            let names = std::iter::once(function.name).chain(function.aliases.iter().copied());
            names.map(move |name| (name, family.group, function))
        })
    })
}

/// The function called `name`, if the registry has it.
pub fn find(name: &str) -> Option<&'static Function> {
    static BY_NAME: LazyLock<HashMap<&'static str, &'static Function>> =
        LazyLock::new(|| all().map(|(name, _, function)| (name, function)).collect());
    BY_NAME.get(name).copied()
}

/// The function called `name`.
///
/// # Errors
/// [`Error::Refused`] if the registry has no such function, naming the nearest.
pub fn named(name: &str) -> Result<&'static Function> {
    find(name).ok_or_else(|| {
        let mut sentence = format!("Received request for unknown function: {name}");
        if let Some(near) = nearest(name) {
            sentence += &format!(" (did you mean {near}?)");
        }
        Error::refused(sentence)
    })
}

/// Calls `name` on `series` alone, for functions that take another's name (`groupByNode`): one
/// of the registry, or else an aggregate.
///
/// # Errors
/// If it is neither, or fails.
pub fn call_back(
    context: &mut Context<'_>,
    name: &str,
    series: Vec<Series>,
) -> Result<Vec<Series>> {
    match named(name) {
        Ok(_) => call_on(context, name, vec![series]),
        Err(_) => {
            let word = name.strip_suffix("Series").unwrap_or(name);
            let aggregate = Aggregate::named(word)?;
            context.aggregate(series, aggregate, word, None)
        }
    }
}

/// Calls the function called `name` on lists of series and nothing else.
///
/// # Errors
/// If no function has that name, or it fails.
pub fn call_on(
    context: &mut Context<'_>,
    name: &str,
    lists: Vec<Vec<Series>>,
) -> Result<Vec<Series>> {
    let function = named(name)?;
    let lists = lists.into_iter().map(Value::Series).collect();
    let budget = context.budget();
    budget.check()?;
    let mut args = Args::bind(function, lists, Vec::new(), None, None, budget)?;
    let series = (function.call)(context, &mut args)?;
    budget.release(args.finish());
    Ok(series)
}

/// The known name that differs least from `name`, if it differs little.
fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > 40 {
        return None;
    }
    let lower = name.to_ascii_lowercase();
    let (near, distance) = all()
        .map(|(known, _, _)| {
            let distance = strsim::levenshtein(&lower, &known.to_ascii_lowercase());
            (known, distance)
        })
        .min_by_key(|(_, distance)| *distance)?;
    (distance <= 2.max(name.len() / 4)).then_some(near)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::query;

    #[test]
    fn names_are_unique_and_families_in_order() {
        let mut seen = HashSet::new();
        for (name, _, _) in all() {
            assert!(seen.insert(name), "{name} twice");
        }
        for family in FAMILIES {
            let names: Vec<String> = family
                .functions
                .iter()
                .map(|f| f.name.to_lowercase())
                .collect();
            assert!(names.is_sorted(), "{} is out of order", family.group);
        }
        assert!(FAMILIES.is_sorted_by_key(|family| family.group));
    }

    #[test]
    fn entries_are_whole() {
        for (name, _, function) in all() {
            assert!(function.help.ends_with('.'), "{name}: help is a sentence");
            let parsed = query::parse(function.example).unwrap();
            assert_eq!(parsed.rest, None, "{name}: the example parses");
            let printed = parsed.expression.to_string();
            let uses = |name: &str| printed.contains(&format!("{name}("));
            assert!(
                uses(function.name) || function.aliases.iter().any(|alias| uses(alias)),
                "{name}: the example uses it"
            );
            let (_, before_last) = function.params.split_last().unzip();
            let before_last: &[Param] = before_last.unwrap_or_default();
            assert!(before_last.iter().all(|param| !param.multiple), "{name}");
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_nearest() {
        let error = named("SUMSERIES").unwrap_err().to_string();
        assert!(error.contains("unknown function: SUMSERIES"), "{error}");
        assert!(error.contains("did you mean sumSeries?"), "{error}");
        assert!(
            !named("qqqqqqqq")
                .unwrap_err()
                .to_string()
                .contains("did you mean")
        );
    }
}
