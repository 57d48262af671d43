//! Any text as a target: it is refused, or read as a prefix that prints to what parses to itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use render::query::{expand_tabs, parse};

fuzz_target!(|text: &str| {
    let text = expand_tabs(text);
    let Ok(parsed) = parse(&text) else {
        return;
    };
    assert!(
        parsed
            .rest
            .is_none_or(|at| text.is_char_boundary(at) && at > 0)
    );
    let printed = parsed.expression.to_string();
    let again = parse(&printed).expect("what is printed parses");
    assert_eq!(again.rest, None, "{printed:?}");
    assert_eq!(again.expression, parsed.expression, "{printed:?}");
});
