//! Times as people write them: `now`, `-6h`, `noon yesterday`, `20231114`, `midnight+90min`.
//!
//! The language is graphite-web 1.1.10's, its oddities included, because dashboards use them:
//!
//! 1. Case, blanks, commas and underscores mean nothing.
//! 2. All digits are Unix seconds, unless they are eight that read as a date.
//! 3. Else the text splits once, at the first `+`, or without one at the first `-`, into a
//!    reference and an offset.
//! 4. `12am` is noon and `12pm` midnight. A month has 30 days and a year 365 in offsets.
//! 5. Offsets count seconds: `-1d` is 86,400 of them across changes of the clocks. Dates and times of
//!    day are read in the zone; a time that a change of clocks leaves out is read with the offset
//!    before the change, one that it repeats means the second.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// Why a time was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a time: {reason}")]
pub struct TimeError {
    text: String,
    reason: &'static str,
}

const LIMIT: i64 = 253_402_300_799;

/// The Unix seconds that `text` means at the clock `now` in `zone`.
///
/// # Errors
/// If it is not a time, or is a time before 1 or after 9999.
pub fn parse(text: &str, zone: &TimeZone, now: i64) -> Result<i64, TimeError> {
    let refuse = |reason| TimeError {
        text: text.to_owned(),
        reason,
    };
    let plain: String = text
        .trim()
        .chars()
        .flat_map(char::to_lowercase)
        .filter(|c| !matches!(c, '_' | ',' | ' '))
        .collect();
    if is_digits(&plain) && !reads_as_date(&plain) {
        return match plain.parse() {
            Ok(seconds) if seconds <= LIMIT => Ok(seconds),
            _ => Err(refuse("it lies beyond the year 9999")),
        };
    }
    let (reference, shift) = match plain.find('+').or_else(|| plain.find('-')) {
        Some(at) => plain.split_at(at),
        None => (plain.as_str(), ""),
    };
    let reference = self::reference(reference, zone, now).map_err(refuse)?;
    let shift = if shift.is_empty() {
        0
    } else {
        seconds(shift).map_err(refuse)?
    };
    match reference.checked_add(shift) {
        Some(time) if (-62_135_596_800..=LIMIT).contains(&time) => Ok(time),
        _ => Err(refuse("it lies beyond the years 1 to 9999")),
    }
}

/// The seconds of an offset such as `"1h"`, `"-30min"` or `"1d12h"`; without "-" it is positive.
///
/// # Errors
/// If it does not read as one. Empty text is an offset of nothing.
pub fn offset(text: &str) -> Result<i64, TimeError> {
    if text.is_empty() {
        return Ok(0);
    }
    seconds(text).map_err(|reason| TimeError {
        text: text.to_owned(),
        reason,
    })
}

/// The unit that `word` begins, in seconds.
///
/// # Errors
/// If it begins none.
pub fn unit(word: &str) -> Result<(Unit, i64), TimeError> {
    Unit::named(word).ok_or_else(|| TimeError {
        text: word.to_owned(),
        reason: NO_UNIT,
    })
}

/// A unit of time in an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// `s…`
    Seconds,
    /// `min…`
    Minutes,
    /// `h…`
    Hours,
    /// `d…`
    Days,
    /// `w…`
    Weeks,
    /// `mon…`
    Months,
    /// `y…`
    Years,
}

const NO_UNIT: &str = "units are s, min, h, d, w, mon and y";

impl Unit {
    fn named(word: &str) -> Option<(Self, i64)> {
        const UNITS: [(&str, Unit, i64); 7] = [
            ("s", Unit::Seconds, 1),
            ("min", Unit::Minutes, 60),
            ("h", Unit::Hours, 3_600),
            ("d", Unit::Days, 86_400),
            ("w", Unit::Weeks, 7 * 86_400),
            ("mon", Unit::Months, 30 * 86_400),
            ("y", Unit::Years, 365 * 86_400),
        ];
        let mut units = UNITS.into_iter();
        let (_, unit, seconds) = units.find(|(begin, _, _)| word.starts_with(begin))?;
        Some((unit, seconds))
    }
}

/// A timedelta of Python holds no more days than this.
const MAX_OFFSET: i64 = 999_999_999 * 86_400;

fn seconds(text: &str) -> Result<i64, &'static str> {
    let (factor, mut rest) = match text.as_bytes().first() {
        Some(b'+') => (1, &text[1..]),
        Some(b'-') => (-1, &text[1..]),
        Some(b'0'..=b'9') => (1, text),
        _ => return Err("an offset begins with +, - or a digit"),
    };
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit());
        let (number, after) = rest.split_at(digits.unwrap_or(rest.len()));
        if number.is_empty() {
            return Err("a number must stand before each unit");
        }
        let letters = after.find(|c: char| !c.is_alphabetic());
        let (word, after) = after.split_at(letters.unwrap_or(after.len()));
        let (_, unit) = Unit::named(word).ok_or(NO_UNIT)?;
        let part = number.parse::<i64>().ok().and_then(|n| n.checked_mul(unit));
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= MAX_OFFSET)
            .ok_or("the offset is too long")?;
        rest = after;
    }
    Ok(factor * total)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Eight digits that could be a year after 1900, a month and a day.
fn reads_as_date(digits: &str) -> bool {
    let part = |range: std::ops::Range<usize>| digits[range].parse().unwrap_or(0);
    digits.len() == 8 && part(0..4) > 1900 && part(4..6) < 13 && part(6..8) < 32
}

/// A reference in Unix seconds.
fn reference(text: &str, zone: &TimeZone, now: i64) -> Result<i64, &'static str> {
    if text.is_empty() || text == "now" {
        return Ok(now);
    }
    let here = Timestamp::from_second(now)
        .map_err(|_| "the clock lies beyond the years 1 to 9999")?
        .to_zoned(zone.clone())
        .datetime();
    let (hour, minute, day) = time_of_day(text)?;
    let time = Time::new(hour, minute, 0, 0).map_err(|_| "there is no such time of day")?;
    let date = date(day, here.date())?;
    in_zone(date.to_datetime(time), zone)
}

/// The seconds at which the clocks of `zone` show `time`.
fn in_zone(time: DateTime, zone: &TimeZone) -> Result<i64, &'static str> {
    let zoned = zone.to_ambiguous_zoned(time).later();
    let zoned = zoned.map_err(|_| "it lies beyond the years 1 to 9999")?;
    Ok(zoned.timestamp().as_second())
}

/// The hour and minute that `text` begins with, midnight without, and what follows them.
fn time_of_day(text: &str) -> Result<(i8, i8, &str), &'static str> {
    const NOT: &str = "a time of day is H:MM, Ham or Hpm";
    let number = |text: &str| match text {
        _ if is_digits(text) => text.parse::<i8>().map_err(|_| NOT),
        _ => Err(NOT),
    };
    // As far as whole characters go: other text is refused anyway.
    let upto = |text: &'_ str, n: usize| -> usize {
        let n = n.min(text.len());
        (0..=n)
            .rev()
            .find(|&n| text.is_char_boundary(n))
            .unwrap_or(0)
    };
    let early = |text: &str, what: &str| text.find(what).filter(|at| (1..3).contains(at));
    let (mut hour, mut minute, mut rest) = (0, 0, text);
    if let Some(at) = early(rest, ":") {
        hour = number(&rest[..at])?;
        let after = &rest[at + 1..];
        let length = upto(after, 2);
        minute = number(&after[..length])?;
        rest = &after[length..];
        if let Some(after) = rest.strip_prefix("am") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("pm") {
            hour = (hour + 12) % 24;
            rest = after;
        }
    }
    if let Some(at) = early(rest, "am") {
        hour = number(&rest[..at])?;
        rest = &rest[at + 2..];
    }
    if let Some(at) = early(rest, "pm") {
        hour = (number(&rest[..at])? + 12) % 24;
        rest = &rest[at + 2..];
    }
    for (word, at) in [("noon", 12), ("midnight", 0), ("teatime", 16)] {
        if let Some(after) = rest.strip_prefix(word) {
            (hour, minute, rest) = (at, 0, after);
            break;
        }
    }
    Ok((hour, minute, rest))
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The day that `text` names, `today` for none.
fn date(text: &str, today: Date) -> Result<Date, &'static str> {
    const NO_DAY: &str = "there is no such day";
    let day = |year, month, day| Date::new(year, month, day).map_err(|_| NO_DAY);
    let ago = |days: i64| {
        let span = Span::new().try_days(days).map_err(|_| NO_DAY)?;
        today.checked_sub(span).map_err(|_| NO_DAY)
    };
    let begin = text.get(..3).unwrap_or(text);
    match text {
        "" | "today" => return Ok(today),
        "yesterday" => return ago(1),
        "tomorrow" => return ago(-1),
        _ => {}
    }
    if text.matches('/').count() == 2 {
        let mut parts = text.split('/').map(|part| match part {
            part if is_digits(part) => part.parse::<i16>().map_err(|_| NO_DAY),
            _ => Err("a date is MM/DD/YY"),
        });
        let mut next = || parts.next().unwrap_or(Err(NO_DAY));
        let (m, d, mut y) = (next()?, next()?, next()?);
        if y < 1900 {
            y += 1900;
        }
        if y < 1970 {
            y += 100;
        }
        let small = |n: i16| i8::try_from(n).map_err(|_| NO_DAY);
        return day(y, small(m)?, small(d)?);
    }
    if text.len() == 8 && is_digits(text) {
        let part = |range: std::ops::Range<usize>| text[range].parse().map_err(|_| NO_DAY);
        let (m, d): (i16, i16) = (part(4..6)?, part(6..8)?);
        return day(part(0..4)?, m as i8, d as i8);
    }
    if let Some(month) = MONTHS.iter().position(|month| *month == begin) {
        let tail = |n: usize| {
            let at = text.len().checked_sub(n)?;
            text.get(at..).filter(|tail| is_digits(tail))
        };
        let d = tail(2)
            .or_else(|| tail(1))
            .ok_or("a day of the month is needed after its name")?;
        return day(
            today.year(),
            month as i8 + 1,
            d.parse().map_err(|_| NO_DAY)?,
        );
    }
    if let Some(weekday) = WEEKDAYS.iter().position(|weekday| *weekday == begin) {
        let now = today.weekday().to_sunday_zero_offset();
        return ago((i64::from(now) - weekday as i64).rem_euclid(7));
    }
    Err("there is no such day")
}

/// Whether the clocks of `zone` show daylight saving time at `timestamp`.
pub fn is_dst(timestamp: i64, zone: &TimeZone) -> bool {
    Timestamp::from_second(timestamp).is_ok_and(|time| zone.to_offset_info(time).dst().is_dst())
}

/// The Unix seconds of the start of the unit that holds `seconds` in `zone`; `weekday` is on which
/// day weeks begin, 1 for Monday to 7 for Sunday.
pub fn floor(seconds: i64, unit: Unit, weekday: i8, zone: &TimeZone) -> i64 {
    let Ok(timestamp) = Timestamp::from_second(seconds) else {
        return seconds;
    };
    let here = timestamp.to_zoned(zone.clone()).datetime();
    let date = here.date();
    let midnight = |date: Date| date.to_datetime(Time::midnight());
    let floored = match unit {
        Unit::Seconds => return seconds,
        Unit::Minutes => date.to_datetime(Time::constant(here.hour(), here.minute(), 0, 0)),
        Unit::Hours => date.to_datetime(Time::constant(here.hour(), 0, 0, 0)),
        Unit::Days => midnight(date),
        Unit::Weeks => {
            // Days that no week has are counted on with, as in Graphite.
            let back = i64::from(date.weekday().to_monday_one_offset()) - i64::from(weekday);
            let back = if back < 0 { back + 7 } else { back };
            midnight(date.checked_sub(Span::new().days(back)).unwrap_or(date))
        }
        Unit::Months => midnight(date.first_of_month()),
        Unit::Years => midnight(date.first_of_year()),
    };
    in_zone(floored, zone).unwrap_or(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tuesday 2023-11-14 22:13:20 UTC.
    const NOW: i64 = 1_700_000_000;
    /// Its midnight.
    const TODAY: i64 = 1_699_920_000;

    fn utc(text: &str) -> Result<i64, TimeError> {
        parse(text, &TimeZone::UTC, NOW)
    }

    #[test]
    fn times_read_as_graphite_reads_them() {
        for (text, time) in [
            ("now", NOW),
            ("", NOW),
            ("-1h", NOW - 3600),
            ("now-1h30min", NOW - 5400),
            ("+1d", NOW + 86_400),
            ("-1mon", NOW - 30 * 86_400),
            ("-1y", NOW - 365 * 86_400),
            ("1699999999", 1_699_999_999),
            ("20231301", 20_231_301),
            ("20231114", TODAY),
            ("today", TODAY),
            ("midnight", TODAY),
            ("noon", TODAY + 43_200),
            ("noon yesterday", TODAY - 43_200),
            ("teatime_tomorrow", TODAY + 86_400 + 57_600),
            ("12am", TODAY + 43_200),
            ("12pm", TODAY),
            ("12:30am", TODAY + 45_000),
            ("1:15pm", TODAY + 47_700),
            ("5pm 11/13/23", TODAY - 86_400 + 61_200),
            ("08:00 20231113", TODAY - 86_400 + 28_800),
            ("nov 1", TODAY - 13 * 86_400),
            ("january1", 1_672_531_200),
            ("Monday", TODAY - 86_400),
            ("tuesday", TODAY),
            ("wed", TODAY - 6 * 86_400),
            ("1/1/69", 3_124_224_000),
            ("1/1/70", 0),
            ("midnight+90min", TODAY + 5400),
        ] {
            assert_eq!(utc(text), Ok(time), "{text}");
        }
        for text in [
            "-1m",
            "-1h+5min",
            "2023-11-10",
            "noon+monday",
            "nov",
            "25:00",
            "nov 31",
            "1/2",
            "x",
            "-h",
            "-1.5h",
            "99999999999999",
            "é",
            "1:é",
            "-99999999999d",
            "13/1/23",
            "feb 30",
        ] {
            assert!(utc(text).is_err(), "{text}");
        }
    }

    #[test]
    fn days_are_those_of_the_zone() {
        let zone = TimeZone::get("America/New_York").unwrap();
        // Local midnight, EST.
        assert_eq!(parse("today", &zone, NOW), Ok(TODAY + 5 * 3600));
        // The clocks went back on 5 November 2023 at 02:00: 01:30 came twice, the second counts.
        let twice = parse("1:30 11/05/23", &zone, NOW).unwrap();
        assert_eq!(twice, 1_699_165_800);
        // They went forward on 12 March at 02:00: 02:30 is read as 03:30.
        let missing = parse("2:30 03/12/23", &zone, NOW).unwrap();
        assert_eq!(missing, 1_678_606_200);
        assert_eq!(parse("3:30 03/12/23", &zone, NOW), Ok(missing));
        assert!(is_dst(1_690_000_000, &zone) && !is_dst(NOW, &zone));
    }

    #[test]
    fn units_floor_in_the_zone() {
        let zone = TimeZone::UTC;
        assert_eq!(floor(NOW, Unit::Days, 1, &zone), TODAY);
        assert_eq!(floor(NOW, Unit::Weeks, 1, &zone), TODAY - 86_400);
        assert_eq!(floor(NOW, Unit::Weeks, 7, &zone), TODAY - 2 * 86_400);
        // NOW is a Tuesday. Days that no week has count on.
        assert_eq!(floor(NOW, Unit::Weeks, 0, &zone), TODAY - 2 * 86_400);
        assert_eq!(floor(NOW, Unit::Weeks, 8, &zone), TODAY - 86_400);
        assert_eq!(floor(NOW, Unit::Weeks, 9, &zone), TODAY);
        assert_eq!(floor(NOW, Unit::Minutes, 1, &zone), NOW - 20);
        assert_eq!(floor(NOW, Unit::Months, 1, &zone), TODAY - 13 * 86_400);
        assert_eq!(floor(NOW, Unit::Years, 1, &zone), 1_672_531_200);
    }

    proptest::proptest! {
        /// Any text is read or refused, and a time read back in seconds is the same.
        #[test]
        fn any_text_is_read_or_refused(
            text in "[0-9a-z:/+ é_,-]{0,12}|(noon|12am|1:30pm|jan|mon)? ?[a-z0-9/]{0,8}[+-]?[0-9a-z]{0,5}",
            now in 0..4_000_000_000_i64,
        ) {
            let zone = TimeZone::get("Australia/Lord_Howe").unwrap();
            if let Ok(time) = parse(&text, &zone, now)
                && time >= 1_000_000_000
            {
                proptest::prop_assert_eq!(parse(&time.to_string(), &zone, now), Ok(time));
            }
            let _ = offset(&text);
        }
    }

    #[test]
    fn offsets_have_signs_and_units() {
        assert_eq!(offset("1d12h"), Ok(129_600));
        assert_eq!(offset("-30min"), Ok(-1800));
        assert_eq!(offset(""), Ok(0));
        assert!(offset("5m").is_err() && offset("h").is_err() && offset("1").is_err());
    }
}
