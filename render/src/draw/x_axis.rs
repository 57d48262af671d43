//! The time axis: grid lines and labels at round times of the request's zone.
//!
//! The table of steps is Graphite's (rrdtool's before it). Graphite adds plain seconds from the
//! first tick on, so its day ticks slip by an hour when the clocks change and its week ticks begin
//! on any day. Here hours and days are calendar ones: days begin at local midnight, weeks on
//! Monday, and steps of a month or more on the first of one.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

/// A distance between ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Every {
    Seconds(i64),
    Minutes(i64),
    Hours(i64),
    /// Whole days, counted so that 7 is Mondays.
    Days(i64),
    Months(i64),
}

use Every::{Days, Hours, Minutes, Months, Seconds};

#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Least seconds per pixel.
    seconds_per_pixel: f64,
    pub(super) minor: Every,
    pub(super) major: Every,
    pub(super) label: Every,
    pub(super) format: &'static str,
    /// Longest time range, in seconds.
    longest: i64,
}

const fn scale(
    seconds_per_pixel: f64,
    minor: Every,
    major: Every,
    label: Every,
    format: &'static str,
    longest: i64,
) -> Scale {
    Scale {
        seconds_per_pixel,
        minor,
        major,
        label,
        format,
        longest,
    }
}

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

const SCALES: &[Scale] = &[
    scale(
        0.0,
        Seconds(5),
        Minutes(1),
        Seconds(5),
        "%H:%M:%S",
        10 * MINUTE,
    ),
    scale(
        0.07,
        Seconds(10),
        Minutes(1),
        Seconds(10),
        "%H:%M:%S",
        20 * MINUTE,
    ),
    scale(
        0.14,
        Seconds(15),
        Minutes(1),
        Seconds(15),
        "%H:%M:%S",
        30 * MINUTE,
    ),
    scale(0.27, Seconds(30), Minutes(2), Minutes(1), "%H:%M", 2 * HOUR),
    scale(0.5, Minutes(1), Minutes(2), Minutes(1), "%H:%M", 2 * HOUR),
    scale(1.2, Minutes(1), Minutes(4), Minutes(2), "%H:%M", 3 * HOUR),
    scale(2.0, Minutes(1), Minutes(10), Minutes(5), "%H:%M", 6 * HOUR),
    scale(
        5.0,
        Minutes(2),
        Minutes(10),
        Minutes(10),
        "%H:%M",
        12 * HOUR,
    ),
    scale(10.0, Minutes(5), Minutes(20), Minutes(20), "%H:%M", DAY),
    scale(30.0, Minutes(10), Hours(1), Hours(1), "%H:%M", 2 * DAY),
    scale(60.0, Minutes(30), Hours(2), Hours(2), "%H:%M", 2 * DAY),
    scale(100.0, Hours(2), Hours(4), Hours(4), "%a %H:%M", 6 * DAY),
    scale(
        255.0,
        Hours(6),
        Hours(12),
        Hours(12),
        "%m/%d %H:%M",
        10 * DAY,
    ),
    scale(600.0, Hours(6), Days(1), Days(1), "%m/%d", 14 * DAY),
    scale(1000.0, Hours(12), Days(1), Days(1), "%m/%d", 365 * DAY),
    scale(2000.0, Days(1), Days(2), Days(2), "%m/%d", 365 * DAY),
    scale(4000.0, Days(2), Days(4), Days(4), "%m/%d", 365 * DAY),
    // Half weeks in Graphite.
    scale(8000.0, Days(1), Days(7), Days(7), "%m/%d", 365 * DAY),
    scale(16000.0, Days(7), Days(14), Days(14), "%m/%d", 365 * DAY),
    scale(32000.0, Days(7), Months(1), Months(1), "%m/%d", 365 * DAY),
    scale(
        64000.0,
        Months(1),
        Months(2),
        Months(2),
        "%m/%d %Y",
        i64::MAX,
    ),
    scale(
        100_000.0,
        Months(2),
        Months(4),
        Months(4),
        "%m/%d %Y",
        i64::MAX,
    ),
    scale(
        120_000.0,
        Months(4),
        Months(8),
        Months(8),
        "%m/%d %Y",
        i64::MAX,
    ),
    scale(
        300_000.0,
        Months(6),
        Months(24),
        Months(24),
        "%m/%d %Y",
        i64::MAX,
    ),
    scale(
        1_000_000.0,
        Months(24),
        Months(120),
        Months(120),
        "%Y",
        i64::MAX,
    ),
];

impl Scale {
    /// The steps for a range of `range` seconds on `pixels`: the coarsest that still fits.
    pub(super) fn choose(range: i64, pixels: f64) -> &'static Self {
        let density = range as f64 / pixels.max(1.0);
        SCALES
            .iter()
            .rev()
            .find(|s| s.seconds_per_pixel <= density && s.longest >= range)
            .unwrap_or(&SCALES[SCALES.len() - 1])
    }
}

/// More ticks than any picture has pixels for.
const MOST_TICKS: usize = 5000;

/// The ticks from `from` until before `until` (Unix seconds), ascending.
pub(super) fn ticks(every: Every, from: i64, until: i64, zone: &TimeZone) -> Vec<i64> {
    let Some(start) = local(from, zone) else {
        return Vec::new();
    };
    let mut found = match every {
        Seconds(n) => even(n, start.datetime().second().into(), from, until),
        Minutes(n) => {
            let second = i64::from(start.datetime().second());
            even(
                n * 60,
                i64::from(start.datetime().minute()) * 60 + second,
                from,
                until,
            )
        }
        Hours(n) => civil(&start, until, zone, |date| {
            (0..24)
                .step_by(usize::try_from(n).unwrap_or(1).max(1))
                .map(|h| date.at(h, 0, 0, 0))
                .collect()
        }),
        Days(n) => civil(&start, until, zone, |date| {
            // Day 0 is Monday, 5 January 1970.
            let origin = jiff::civil::date(1970, 1, 5);
            let day = (date - origin).get_days();
            let begins = i64::from(day).rem_euclid(n) == 0;
            begins.then(|| date.at(0, 0, 0, 0)).into_iter().collect()
        }),
        Months(n) => months(&start, until, zone, n),
    };
    found.retain(|t| (from..until).contains(t));
    found.dedup();
    found
}

/// Plain steps of `step` seconds; `phase` is how many seconds `from` is past a round time.
fn even(step: i64, phase: i64, from: i64, until: i64) -> Vec<i64> {
    let first = from - phase.rem_euclid(step);
    (0..)
        .map(|i| first + i * step)
        .skip_while(|t| *t < from)
        .take_while(|t| *t < until)
        .take(MOST_TICKS)
        .collect()
}

/// The times that `of_day` names, day after day.
fn civil(
    start: &Zoned,
    until: i64,
    zone: &TimeZone,
    of_day: impl Fn(Date) -> Vec<DateTime>,
) -> Vec<i64> {
    let mut found = Vec::new();
    let mut date = start.date();
    while found.len() < MOST_TICKS {
        for time in of_day(date) {
            // A time that a change of the clocks leaves out is the one just after.
            if let Ok(at) = time.to_zoned(zone.clone()) {
                found.push(at.timestamp().as_second());
            }
        }
        let Ok(next) = date.tomorrow() else {
            break;
        };
        date = next;
        match date.to_zoned(zone.clone()) {
            Ok(midnight) if midnight.timestamp().as_second() < until => {}
            _ => break,
        }
    }
    found.sort_unstable();
    found
}

fn months(start: &Zoned, until: i64, zone: &TimeZone, every: i64) -> Vec<i64> {
    let mut found = Vec::new();
    let count = i64::from(start.year()) * 12 + i64::from(start.month()) - 1;
    let first = count - count.rem_euclid(every);
    let (Ok(year), Ok(month)) = (
        i16::try_from(first.div_euclid(12)),
        i8::try_from(first.rem_euclid(12) + 1),
    ) else {
        return found;
    };
    let Ok(mut date) = Date::new(year, month, 1) else {
        return found;
    };
    while found.len() < MOST_TICKS {
        let Ok(at) = date.to_zoned(zone.clone()) else {
            break;
        };
        let at = at.timestamp().as_second();
        if at >= until {
            break;
        }
        found.push(at);
        let Ok(next) = date.checked_add(every.months()) else {
            break;
        };
        date = next;
    }
    found
}

fn local(at: i64, zone: &TimeZone) -> Option<Zoned> {
    Some(Timestamp::from_second(at).ok()?.to_zoned(zone.clone()))
}

/// `at` written by a strftime `format`. A directive that means nothing stays as it is.
pub(super) fn written(at: i64, zone: &TimeZone, format: &str) -> String {
    let Some(at) = local(at, zone) else {
        return String::new();
    };
    if let Ok(text) = jiff::fmt::strtime::format(format, &at) {
        return text;
    }
    let mut out = String::new();
    let mut rest = format;
    while let Some(place) = rest.find('%') {
        out.push_str(&rest[..place]);
        rest = &rest[place..];
        let flags = rest[1..]
            .find(|c: char| !matches!(c, '-' | '_' | '0' | '^' | '#'))
            .unwrap_or(rest.len() - 1);
        let end = rest[1 + flags..]
            .chars()
            .next()
            .map_or(rest.len(), |c| 1 + flags + c.len_utf8());
        let directive = &rest[..end];
        match jiff::fmt::strtime::format(directive, &at) {
            Ok(text) => out.push_str(&text),
            Err(_) => out.push_str(directive),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn shown(every: Every, from: i64, until: i64, name: &str, format: &str) -> Vec<String> {
        let zone = zone(name);
        ticks(every, from, until, &zone)
            .into_iter()
            .map(|t| written(t, &zone, format))
            .collect()
    }

    #[test]
    fn the_last_fitting_scale_is_taken() {
        // An hour on 280 pixels, as in Graphite's default picture: labels every 20 minutes.
        assert_eq!(Scale::choose(3600, 280.0).label, Minutes(20));
        assert_eq!(Scale::choose(3600, 550.0).label, Minutes(10));
        assert_eq!(Scale::choose(86_400, 750.0).label, Hours(4));
        assert_eq!(Scale::choose(7 * 86_400, 750.0).label, Days(1));
    }

    #[test]
    fn minutes_are_round() {
        assert_eq!(
            shown(
                Minutes(20),
                1_700_000_000 - 3600,
                1_700_000_000,
                "UTC",
                "%H:%M"
            ),
            ["21:20", "21:40", "22:00"]
        );
    }

    #[test]
    fn days_begin_at_midnight_across_a_change_of_the_clocks() {
        // 5 November 2023 had 25 hours in New York.
        let from = 1_698_991_200; // 3 November, 02:00 local
        let days = shown(
            Days(1),
            from,
            from + 5 * 86_400,
            "America/New_York",
            "%d %H:%M",
        );
        assert_eq!(
            days,
            ["04 00:00", "05 00:00", "06 00:00", "07 00:00", "08 00:00"]
        );
        let hours = shown(
            Hours(12),
            from,
            from + 4 * 86_400,
            "America/New_York",
            "%d %H",
        );
        assert_eq!(
            hours,
            [
                "03 12", "04 00", "04 12", "05 00", "05 12", "06 00", "06 12", "07 00"
            ]
        );
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let from = 1_700_000_000;
        let weeks = shown(Days(7), from, from + 30 * 86_400, "UTC", "%a");
        assert!(weeks.len() >= 4 && weeks.iter().all(|d| d == "Mon"));
        let months = shown(Months(2), from, from + 300 * 86_400, "Asia/Tokyo", "%m/%d");
        assert_eq!(months, ["01/01", "03/01", "05/01", "07/01", "09/01"]);
    }

    #[test]
    fn unknown_directives_stay() {
        let utc = zone("UTC");
        assert_eq!(written(0, &utc, "%H:%M %Ö %é%"), "00:00 %Ö %é%");
        assert_eq!(written(0, &utc, "100%"), "100%");
        assert_eq!(written(i64::MAX, &utc, "%H"), "");
    }

    proptest! {
        #[test]
        fn ticks_ascend_within_the_range(from in -3_000_000_000i64..8_000_000_000, range in 1i64..2_000_000_000, pixels in 10.0..2000.0f64, east in any::<bool>()) {
            let zone = zone(if east { "Australia/Lord_Howe" } else { "America/St_Johns" });
            let scale = Scale::choose(range, pixels);
            for every in [scale.minor, scale.major, scale.label] {
                let found = ticks(every, from, from + range, &zone);
                prop_assert!(found.windows(2).all(|w| w[0] < w[1]));
                prop_assert!(found.iter().all(|t| (from..from + range).contains(t)));
            }
        }
    }
}
