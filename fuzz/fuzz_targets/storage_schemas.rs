#![no_main]
//! A storage-schemas.conf and names: read twice, it is the same; each rule has archives with a
//! step; the first match found in one search is that of trying each pattern.

use carbon::schema::Schemas;
use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::rule_list;

fuzz_target!(|text: &str| {
    rule_list::check(text, Schemas::parse, |rule| {
        assert!(!rule.retentions.is_empty());
        assert!(rule.finest() > 0);
    });
});
