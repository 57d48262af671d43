//! Any text as a time and as an offset, in zones with and without changes of clocks.

#![no_main]

use jiff::tz::TimeZone;
use libfuzzer_sys::fuzz_target;
use render::attime;

fuzz_target!(|input: (u8, i64, &str)| {
    let (zone, now, text) = input;
    let zones = [
        "UTC",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Kolkata",
        "Pacific/Apia",
    ];
    let zone = TimeZone::get(zones[usize::from(zone) % zones.len()]).expect("a zone");
    let now = now.rem_euclid(4_102_444_800);
    if let Ok(time) = attime::parse(text, &zone, now) {
        // The same time again, as seconds; small ones of eight digits may read as dates.
        if time >= 1_000_000_000 {
            assert_eq!(attime::parse(&time.to_string(), &zone, now), Ok(time));
        }
    }
    if let Ok(seconds) = attime::offset(text) {
        let unsigned = text.trim_start_matches(['+', '-']);
        let mirrored = attime::offset(&format!("-{unsigned}"));
        assert_eq!(mirrored.map(i64::abs), Ok(seconds.abs()));
    }
});
