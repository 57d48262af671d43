//! Counts, times and durations as the page shows them.

use jiff::tz::TimeZone;

/// `1 metric`, `2,000 metrics`.
pub(super) fn count(number: u64, unit: &str) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {unit}{}", if number == 1 { "" } else { "s" })
}

/// A timestamp in `zone`, to the second, with the zone's name.
pub(crate) fn timestamp(when: f64, zone: &TimeZone) -> String {
    jiff::Timestamp::from_second(when as i64).map_or_else(
        |_| when.to_string(),
        |at| {
            let at = at.to_zoned(zone.clone());
            at.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
        },
    )
}

/// The first line of `text`, cut to `most` characters.
pub(crate) fn first_line(text: &str, most: usize) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// How long ago something happened.
pub(crate) fn ago(seconds: f64) -> String {
    if seconds < 1.0 {
        return "just now".to_owned();
    }
    format!("{} ago", length(seconds))
}

/// A duration in its largest fitting unit: `45 s`, `12 min`, `3 h`, `6 d`.
pub(crate) fn length(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")];
    let fitting = units.into_iter().find(|(unit, _)| seconds >= 2.0 * unit);
    let (unit, name) = fitting.unwrap_or((1.0, "s"));
    format!("{} {name}", (seconds / unit) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_groups_and_durations_a_unit() {
        assert_eq!(count(1, "metric"), "1 metric");
        assert_eq!(count(0, "metric"), "0 metrics");
        assert_eq!(count(1_234_567, "metric"), "1,234,567 metrics");
        assert_eq!(length(45.0), "45 s");
        assert_eq!(length(3_600.0), "60 min");
        assert_eq!(length(7.0 * 86_400.0), "7 d");
    }
}
