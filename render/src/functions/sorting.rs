//! Order.

use super::{Default, Function, Param};

pub(super) const FUNCTIONS: &[Function] = &[Function {
    name: "sortByName",
    params: &[
        Param::series("seriesList"),
        Param::boolean("natural").or(Default::Boolean(false)),
        Param::boolean("reverse").or(Default::Boolean(false)),
    ],
    help: "Sorts by name; `natural` counts runs of digits as numbers.",
    example: "sortByName(web.*.hits, true)",
    call: |_, args| {
        let (natural, reverse) = (args.flag("natural"), args.flag("reverse"));
        let mut all = args.series("seriesList")?;
        let key = |name: &str| {
            if natural {
                padded(name)
            } else {
                name.to_owned()
            }
        };
        // Equal names keep their order in both directions.
        all.sort_by_cached_key(|series| key(&series.name));
        if reverse {
            all.reverse();
            let mut keyed: Vec<_> = all.into_iter().map(|s| (key(&s.name), s)).collect();
            for run in keyed.chunk_by_mut(|a, b| a.0 == b.0) {
                run.reverse();
            }
            all = keyed.into_iter().map(|(_, series)| series).collect();
        }
        Ok(all)
    },
    ..Function::PLAIN
}];

/// Runs of digits padded to ten with zeros.
fn padded(name: &str) -> String {
    let mut key = String::with_capacity(name.len() + 10);
    let mut rest = name;
    while !rest.is_empty() {
        let plain = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        key.push_str(&rest[..plain]);
        rest = &rest[plain..];
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        if digits > 0 {
            let number = rest[..digits].trim_start_matches('0');
            key.push_str(&format!("{number:0>10}"));
            rest = &rest[digits..];
        }
    }
    key
}
