#![no_main]
//! A storage-aggregation.conf and names: read twice, it is the same; each factor is from 0
//! to 1; the first match found in one search is that of trying each pattern.

use std::path::Path;

use carbon::conf::load_text;
use carbon::schema::Aggregations;
use carbon::series::canonical;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Names after an empty line with a dot.
    let (file, names) = text.split_once("\n.\n").unwrap_or((text, ""));
    let read = || load_text(Path::new("f"), file, Aggregations::parse);
    let (first, second) = match (read(), read()) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(first), Err(second)) => return assert_eq!(first, second),
        _ => panic!("accepted once, refused once"),
    };
    assert_eq!(first.value.rules(), second.value.rules());
    assert_eq!(first.warnings, second.warnings);
    for rule in first.value.rules() {
        assert!(
            rule.x_files_factor
                .is_none_or(|factor| (0.0..=1.0).contains(&factor))
        );
    }
    for name in names.lines().take(32) {
        let Ok(name) = canonical(name.as_bytes()) else {
            continue;
        };
        assert_eq!(
            first.value.find(&name),
            first.value.find_slowly(&name),
            "{name}"
        );
    }
});
