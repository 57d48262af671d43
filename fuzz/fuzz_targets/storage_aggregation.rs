#![no_main]
//! A storage-aggregation.conf and names: read twice, it is the same; each factor is from 0
//! to 1; the first match found in one search is that of trying each pattern.

use carbon::schema::Aggregations;
use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::rule_list;

fuzz_target!(|text: &str| {
    rule_list::check(text, Aggregations::parse, |rule| {
        assert!(
            rule.x_files_factor
                .is_none_or(|factor| (0.0..=1.0).contains(&factor))
        );
    });
});
