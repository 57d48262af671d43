//! What hover texts say of events.

use jiff::tz::TimeZone;

use super::super::x_axis::written;
use super::Shown;
use crate::events::{Event, Status};

/// Events that a crowd's text tells of.
const MOST_IN_HOVER: usize = 12;

/// The hover text of `shown`, with times in `zone`.
pub(super) fn hover(shown: &Shown<'_>, zone: &TimeZone) -> String {
    let mut text = String::new();
    if shown.events.len() > 1 {
        text.push_str(&format!("{} events\n", shown.events.len()));
    }
    for event in shown.events.iter().take(MOST_IN_HOVER) {
        if !text.is_empty() && shown.events.len() > 1 {
            text.push('\n');
        }
        tell(event, shown.events.len() == 1, zone, &mut text);
    }
    if shown.events.len() > MOST_IN_HOVER {
        text.push_str(&format!(
            "\n… and {} more",
            shown.events.len() - MOST_IN_HOVER
        ));
    }
    text
}

/// What, when, how it went, and (with room for it) tags, data and link.
fn tell(event: &Event, whole: bool, zone: &TimeZone, text: &mut String) {
    text.push_str(shortened(&event.what, 200));
    let written = |at: f64| written(at as i64, zone, "%Y-%m-%d %H:%M:%S");
    text.push_str(if whole { "\n" } else { " · " });
    text.push_str(&written(event.when));
    if let Some(until) = event.until {
        text.push_str(&format!(
            " to {} ({})",
            written(until),
            span(until - event.when)
        ));
    }
    match event.status {
        Status::Unstated | Status::Succeeded => {}
        Status::Started => text.push_str(" · under way"),
        Status::Failed => text.push_str(" · failed"),
        Status::RolledBack => text.push_str(" · rolled back"),
    }
    if let Some(id) = event.rollback_of {
        text.push_str(&format!(" · undoes {id}"));
    }
    if let Some(impact) = &event.impact {
        let verdict = impact.verdict.name().replace('_', " ");
        text.push_str(if whole { "\n" } else { " · " });
        text.push_str(&verdict);
        // Of a crowd only the verdicts fit.
        if whole && !impact.sentence.starts_with(&verdict) {
            text.push_str(": ");
            text.push_str(shortened(&impact.sentence, 400));
        }
    }
    if !whole {
        return;
    }
    if !event.tags.is_empty() {
        text.push('\n');
        text.push_str(shortened(&event.tags.join(" "), 300));
    }
    for line in [Some(event.data.as_str()), event.link.as_deref()] {
        if let Some(line) = line.filter(|l| !l.trim().is_empty()) {
            text.push('\n');
            text.push_str(shortened(line.trim_end(), 600));
        }
    }
}

fn shortened(text: &str, most: usize) -> &str {
    match text.char_indices().nth(most) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// Seconds in words: `45 s`, `3 min 20 s`, `2 h 5 min`.
fn span(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}
