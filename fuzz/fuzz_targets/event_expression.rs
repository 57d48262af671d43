//! A tag expression is refused, or prints and reads back as itself and selects the same events.
#![no_main]

use libfuzzer_sys::fuzz_target;
use render::events::TagQuery;

fuzz_target!(|text: &str| {
    let Ok(query) = text.parse::<TagQuery>() else {
        return;
    };
    let again: TagQuery = query.to_string().parse().expect("what was printed is read");
    assert_eq!(again, query);
    let tags: Vec<String> = text
        .split([' ', ',', '-', '*'])
        .map(str::to_owned)
        .collect();
    assert_eq!(again.matches(&tags), query.matches(&tags));
});
