//! `docs/functions.md` is what the registry says. `PLUMBAGO_BLESS=1` rewrites it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use render::functions::{FAMILIES, signature};

fn written() -> String {
    let mut out = String::from(
        "# Functions\n\n\
         Everything that may stand in a target, by Graphite's own groups. Written from the registry \
         (`render/src/functions/`) by `PLUMBAGO_BLESS=1 cargo test -p render --test docs`; the same is \
         at `/functions` as JSON.\n\n\
         `name=value` shows a default, `=None` that an argument may be left out, `*` that it may be \
         repeated. Arguments may be given by name after those by position.\n",
    );
    for family in FAMILIES {
        let _ = write!(out, "\n## {}\n", family.group);
        for function in family.functions {
            let _ = write!(out, "\n### {}{}\n\n", function.name, signature(function));
            if !function.aliases.is_empty() {
                let aliases: Vec<String> = function
                    .aliases
                    .iter()
                    .map(|alias| format!("`{alias}`"))
                    .collect();
                let _ = write!(out, "Also {}. ", aliases.join(", "));
            }
            let _ = write!(out, "{}\n\n    {}\n", function.help, function.example);
        }
    }
    out
}

#[test]
fn the_reference_of_functions_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/functions.md");
    let written = written();
    if std::env::var_os("PLUMBAGO_BLESS").is_some() {
        fs::write(&path, &written).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == written,
        "docs/functions.md is old: PLUMBAGO_BLESS=1 rewrites it"
    );
}
