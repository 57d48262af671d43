//! Deploys and other events on a picture: lines, bands, and labels that never collide.
//!
//! From events to what is shown, in this order:
//!
//! 1. What lies outside of the picture's time is dropped.
//! 2. Lines closer than a few pixels become one with a count ([`crowds`]).
//! 3. Labels find their places ([`arrange`]): beside the pole of their line, in as few levels as it
//!    takes, cut with an ellipsis or left out rather than laid over each other. The newest event,
//!    failed and undone ones choose first.
//!
//! The deploys of one release to the hosts of a fleet are one event already when they come here
//! ([`crate::events::Store::overlay`]). Lines and bands lie above the grid and the areas, which would hide
//! them, and below the lines of series; the levels of labels get room of their own above the plot.

use std::ops::Range;

use jiff::tz::TimeZone;

use self::hover::hover;
use self::labels::arrange;
use self::shapes::{band, cross, line, tie_line, verdict};
use super::color::Color;
use super::font::Font;
use super::params::Params;
use super::scene::{Align, Group, Item, Label, Paint, spot};
use super::sheet::Sheet;
use crate::error::Result;
use crate::events::{Event, Status};
use crate::impact::Outcome;

mod hover;
mod labels;
mod shapes;

/// Colours of tags that everybody uses, chosen to differ from Graphite's series colours, from
/// each other and from the red of failure.
const KNOWN: &[(&str, Color)] = &[
    ("deploy", Color::opaque(0xd9, 0x6a, 0x0b)),
    ("deployment", Color::opaque(0xd9, 0x6a, 0x0b)),
    ("release", Color::opaque(0xd9, 0x6a, 0x0b)),
    ("config", Color::opaque(0x0b, 0x72, 0x85)),
    ("maintenance", Color::opaque(0x68, 0x72, 0x7d)),
    ("rollback", Color::opaque(0xa6, 0x1e, 0x6d)),
    ("incident", Color::opaque(0xc9, 0x2a, 0x2a)),
    ("backup", Color::opaque(0x4f, 0x7a, 0x28)),
];

/// Colours for all others, by a hash of the tag: the same tag has the same colour everywhere.
const PALETTE: &[Color] = &[
    Color::opaque(0x86, 0x2e, 0x9c),
    Color::opaque(0x18, 0x64, 0xab),
    Color::opaque(0x2b, 0x7a, 0x3e),
    Color::opaque(0x8a, 0x5a, 0x2b),
    Color::opaque(0x5f, 0x3d, 0xc4),
    Color::opaque(0x00, 0x6d, 0x77),
    Color::opaque(0x9c, 0x36, 0x6b),
    Color::opaque(0x6b, 0x70, 0x1f),
];

/// Of a deploy that made something better.
const BETTER: Color = Color::opaque(0x2b, 0x8a, 0x3e);
const BETTER_ON_DARK: Color = Color::opaque(0x69, 0xdb, 0x7c);
const FAILURE: Color = Color::opaque(0xe0, 0x1b, 0x24);
const FAILURE_ON_DARK: Color = Color::opaque(0xff, 0x55, 0x55);

/// The colour of a tag when no rule gives one.
fn tag_color(tag: &str) -> Color {
    if let Some((_, color)) = KNOWN.iter().find(|(name, _)| *name == tag) {
        return *color;
    }
    // FNV-1a.
    let hash = tag.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    PALETTE[(hash >> 32) as usize % PALETTE.len()]
}

/// One thing to be drawn: an event, or several that belong together.
#[derive(Clone, Debug)]
struct Shown<'a> {
    events: Vec<&'a Event>,
    from: f64,
    /// The end of a band.
    until: Option<f64>,
    /// Still under way at the end of the picture.
    open: bool,
    failed: bool,
    undone: bool,
    /// A thread leads here from what undid it.
    tied: bool,
    color: Color,
    /// That of failure, on this ground.
    alarm: Color,
    /// That of success.
    better: Color,
    /// What it did to series, where the direction is known.
    verdict: Option<Outcome>,
    label: String,
    /// Pixels.
    x: f64,
    x_end: f64,
    place: Option<Placed>,
}

/// Where a label stands.
#[derive(Clone, Debug, PartialEq)]
struct Placed {
    level: usize,
    x: f64,
    text: String,
}

/// A thread from what undoes to what was undone, in pixels.
#[derive(Clone, Copy, Debug)]
struct Tie {
    from: f64,
    to: f64,
    color: Color,
}

#[derive(Debug)]
pub(super) struct Overlay<'a> {
    all_shown: Vec<Shown<'a>>,
    ties: Vec<Tie>,
    n_levels: usize,
    font: Font,
    zone: TimeZone,
    background: Color,
}

/// Lines closer than this many pixels become one.
const CROWD: f64 = 3.0;
/// Pixels between a pole and its label, and between a label and the next pole.
const GAP: f64 = 3.0;
/// The least contrast of text with its background that the accessibility guidelines (WCAG, level AA) take.
const CONTRAST: f32 = 4.5;
/// Labels are cut to this many letters.
const LONGEST_LABEL: usize = 28;

impl<'a> Overlay<'a> {
    /// Decides what is shown of `marks` on a plot of the given times on `sheet`, where `x` maps
    /// Unix seconds to pixels.
    pub(super) fn new(
        params: &Params,
        events: &'a [Event],
        times: &Range<i64>,
        zone: &TimeZone,
        sheet: &Sheet,
        x: impl Fn(f64) -> f64,
    ) -> Self {
        let font = params.font.sized((params.font.size - 1.0).max(8.0));
        let dark = params.background.luminance() < 0.5;
        let (start, end) = (times.start as f64, times.end as f64);
        let mut all_shown: Vec<Shown<'a>> = events
            .iter()
            .filter_map(|event| Shown::new(event, start, end, dark))
            .collect();
        all_shown.sort_by(|a, b| {
            let order = a.from.total_cmp(&b.from);
            order.then(a.events[0].id.cmp(&b.events[0].id))
        });
        for shown in &mut all_shown {
            shown.x = x(shown.from.max(start));
            shown.x_end = x(shown.until.unwrap_or(shown.from).min(end));
        }
        let ties = ties(&mut all_shown);
        let mut all_shown = crowds(all_shown);
        let n_levels = if params.graph_only {
            0
        } else {
            let most = match sheet.height() {
                h if h < 50.0 => 0,
                h if h < 100.0 => 1,
                h if h < 230.0 => 2,
                _ => 3,
            };
            arrange(&mut all_shown, font, (sheet.left, sheet.right), most)
        };
        Self {
            all_shown,
            ties,
            n_levels,
            font,
            zone: zone.clone(),
            background: params.background,
        }
    }

    fn level_height(&self) -> f64 {
        self.font.cap_height() + 4.0
    }

    /// Levels of labels above the plot, and the pixels of one.
    pub(super) fn levels(&self) -> (usize, f64) {
        (self.n_levels, self.level_height())
    }

    /// The colour of `event`, as on its line.
    pub(super) fn color(&self, event: &Event) -> String {
        hex(color_of(event, self.background.luminance() < 0.5))
    }

    /// Everything that is shown, as JSON: the ids of its events, its times, its look, and the
    /// place of its label (pixels from its line, level from below, text). What does not hold is left
    /// out.
    pub(super) fn placed(&self) -> Vec<serde_json::Value> {
        let one = |shown: &Shown<'_>| {
            let ids: Vec<i64> = shown.events.iter().map(|event| event.id).collect();
            let mut json = serde_json::json!({
                "ids": ids,
                "from": shown.from,
                "color": hex(shown.color),
                "ink": hex(ink(shown.color, self.background)),
            });
            if let Some(until) = shown.until {
                json["until"] = until.into();
            }
            if let Some(place) = &shown.place {
                // From the line: time goes on, and the line with it.
                let x = ((place.x - shown.x) * 10.0).round() / 10.0;
                json["label"] = serde_json::json!([x, place.level, place.text]);
            }
            if let Some(verdict) = shown.verdict {
                json["verdict"] = verdict.name().into();
            }
            let flags = [
                ("open", shown.open),
                ("failed", shown.failed),
                ("undone", shown.undone),
            ];
            for (name, _) in flags.iter().filter(|(_, is)| *is) {
                json[name] = true.into();
            }
            json
        };
        self.all_shown.iter().map(one).collect()
    }

    /// Pixels above the plot that the labels take.
    pub(super) fn room(&self) -> f64 {
        if self.n_levels == 0 {
            return 0.0;
        }
        (self.n_levels as f64 * self.level_height() + 1.0).ceil()
    }

    /// The lines and bands, on a plot that fills `sheet`.
    ///
    /// # Errors
    /// As [`Sheet::check`].
    pub(super) fn draw(&self, sheet: &mut Sheet) -> Result<()> {
        if self.all_shown.is_empty() {
            return Ok(());
        }
        sheet.push(Item::Open(Group {
            class: "events",
            ..Group::default()
        }));
        let bands = self.all_shown.iter().filter(|s| s.until.is_some());
        let lines = self.all_shown.iter().filter(|s| s.until.is_none());
        for shown in bands.chain(lines) {
            sheet.check()?;
            sheet.push(Item::Open(self.group(shown)));
            let top = self.pole_top(shown, sheet);
            if shown.until.is_some() {
                band(sheet, shown, top);
            } else {
                line(sheet, shown, top);
            }
            if shown.failed {
                cross(sheet, shown.x, sheet.top + 6.0, shown.alarm);
            }
            match shown.verdict {
                Some(Outcome::Worse) => verdict(sheet, shown.x, true, shown.alarm),
                Some(_) => verdict(sheet, shown.x, false, shown.better),
                None => {}
            }
            sheet.push(Item::Close);
        }
        for tie in &self.ties {
            tie_line(sheet, tie);
        }
        sheet.push(Item::Close);
        Ok(())
    }

    /// The labels above the plot.
    pub(super) fn draw_labels(&self, sheet: &mut Sheet) {
        if self.n_levels == 0 {
            return;
        }
        sheet.push(Item::Open(Group {
            class: "event-labels",
            decoration: true,
            ..Group::default()
        }));
        for shown in &self.all_shown {
            let Some(place) = &shown.place else {
                continue;
            };
            let base = sheet.top - 3.0 - place.level as f64 * self.level_height();
            sheet.text(Label {
                text: place.text.clone(),
                at: spot(place.x, base),
                align: Align::Start,
                font: self.font,
                paint: Paint::own(readable(shown.color, self.background)),
                angle: 0.0,
            });
        }
        sheet.push(Item::Close);
    }

    /// The pole of a line reaches up to its label.
    fn pole_top(&self, shown: &Shown<'_>, sheet: &Sheet) -> f64 {
        match &shown.place {
            Some(place) => {
                sheet.top - 2.0 - place.level as f64 * self.level_height() - self.font.cap_height()
            }
            None => sheet.top,
        }
    }

    fn group(&self, shown: &Shown<'_>) -> Group {
        let mut tags: Vec<&str> = shown
            .events
            .iter()
            .flat_map(|m| m.tags.iter().map(String::as_str))
            .collect();
        tags.sort_unstable();
        tags.dedup();
        let mut data = vec![
            ("tags", tags.join(" ")),
            ("when", (shown.from as i64).to_string()),
        ];
        if let Some(until) = shown.until {
            data.push(("until", (until as i64).to_string()));
        }
        let ids: Vec<String> = shown.events.iter().map(|m| m.id.to_string()).collect();
        data.push(("ids", ids.join(" ")));
        Group {
            class: "event",
            title: Some(hover(shown, &self.zone)),
            // A crowd has no single place to read more.
            link: match &shown.events[..] {
                [only] => only.link.clone(),
                _ => None,
            },
            data,
            decoration: false,
        }
    }
}

impl<'a> Shown<'a> {
    fn new(event: &'a Event, start: f64, end: f64, dark: bool) -> Option<Self> {
        if !event.when.is_finite() {
            return None;
        }
        let until = event
            .band_end(end)
            .filter(|until| until.is_finite() && *until > event.when);
        if event.when > end || until.unwrap_or(event.when) < start {
            return None;
        }
        let mut label = match &event.look.label {
            Some(label) => cut(label),
            None => short_label(event),
        };
        if event.look.merged > 0 {
            label.push_str(&format!(" ×{}", event.look.merged + 1));
        }
        Some(Self {
            events: vec![event],
            from: event.when,
            until,
            open: event.until.is_none() && until.is_some(),
            failed: event.status == Status::Failed,
            undone: event.status == Status::RolledBack,
            tied: false,
            color: color_of(event, dark),
            alarm: if dark { FAILURE_ON_DARK } else { FAILURE },
            better: if dark { BETTER_ON_DARK } else { BETTER },
            verdict: (event.impact.as_ref().map(|report| report.verdict))
                .filter(|verdict| matches!(verdict, Outcome::Worse | Outcome::Better)),
            label,
            x: 0.0,
            x_end: 0.0,
            place: None,
        })
    }
}

/// The colour of an event: a rule's, or that of its first tag.
fn color_of(event: &Event, dark: bool) -> Color {
    let ruled = event.look.color.as_deref().and_then(Color::parse);
    if let Some(color) = ruled {
        return color;
    }
    let color = tag_color(event.tags.first().map_or("", String::as_str));
    // Our own colours are made for light ground.
    match dark {
        true => color.towards(Color::opaque(255, 255, 255), 0.4),
        false => color,
    }
}

fn hex(color: Color) -> String {
    let [r, g, b] = color.rgb;
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// What happened in few words: without those that only repeat the tag that gives the colour.
fn short_label(event: &Event) -> String {
    let tag = event.tags.first().map_or("", String::as_str);
    let rest: Vec<&str> = event
        .what
        .split_whitespace()
        .filter(|w| !w.eq_ignore_ascii_case(tag))
        .collect();
    let text = if rest.is_empty() {
        event.what.split_whitespace().collect::<Vec<_>>().join(" ")
    } else {
        rest.join(" ")
    };
    cut(&text)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_LABEL) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

/// A thread for each rollback whose original is shown too; the original counts as undone.
fn ties(all_shown: &mut [Shown<'_>]) -> Vec<Tie> {
    let shown: std::collections::HashMap<i64, usize> = all_shown
        .iter()
        .enumerate()
        .flat_map(|(i, s)| s.events.iter().map(move |m| (m.id, i)))
        .collect();
    let mut ties = Vec::new();
    for i in 0..all_shown.len() {
        let originals: Vec<usize> = all_shown[i]
            .events
            .iter()
            .filter_map(|m| shown.get(&m.rollback_of?).copied())
            .collect();
        for original in originals {
            if original == i {
                continue;
            }
            all_shown[original].undone = true;
            all_shown[original].tied = true;
            ties.push(Tie {
                from: all_shown[i].x,
                to: all_shown[original].x,
                color: all_shown[i].color,
            });
        }
    }
    ties.dedup_by(|a, b| a.from == b.from && a.to == b.to);
    ties
}

/// How much an event matters where one of several is named.
fn weight(shown: &Shown<'_>) -> u8 {
    let is_deploy = |event: &&Event| {
        let tags = ["deploy", "deployment", "release"];
        event.tags.iter().any(|tag| tags.contains(&tag.as_str()))
    };
    match shown {
        Shown { failed: true, .. } => 3,
        Shown { undone: true, .. } => 2,
        Shown { events, .. } => u8::from(events.iter().any(is_deploy)),
    }
}

/// Merges lines that would touch each other into one with a count. Bands stay. The crowd has the
/// name and the colour of what matters most in it, the newest of several.
fn crowds(all_shown: Vec<Shown<'_>>) -> Vec<Shown<'_>> {
    let mut merged: Vec<Shown<'_>> = Vec::with_capacity(all_shown.len());
    // The crowd that is being gathered: its place in `merged`, and where its last line stands.
    let mut last: Option<(usize, f64)> = None;
    // What the crowd is called after: its weight, its label, and whether all are called so.
    let mut name = (0, String::new(), true);
    for shown in all_shown {
        if shown.until.is_some() {
            merged.push(shown);
            continue;
        }
        let near = last.filter(|(_, x)| shown.x - x < CROWD);
        // A crowd does not grow without end: one line may stand for a few pixels, not for fifty.
        match near.and_then(|(i, _)| merged.get_mut(i).map(|s| (i, s))) {
            Some((i, crowd)) if shown.x - crowd.x < 3.0 * CROWD => {
                last = Some((i, shown.x));
                name.2 &= shown.label == name.1;
                if weight(&shown) >= name.0 {
                    name = (weight(&shown), shown.label.clone(), name.2);
                    crowd.color = shown.color;
                }
                crowd.failed |= shown.failed;
                crowd.verdict = match (crowd.verdict, shown.verdict) {
                    (Some(Outcome::Worse), _) | (_, Some(Outcome::Worse)) => Some(Outcome::Worse),
                    (one, other) => one.or(other),
                };
                crowd.undone &= shown.undone;
                crowd.tied |= shown.tied;
                crowd.events.extend(shown.events);
                crowd.label = match (&name, crowd.events.len()) {
                    ((_, name, true), n) => format!("{name} ×{n}").trim_start().to_owned(),
                    ((_, name, false), n) => format!("{name} +{}", n - 1),
                };
            }
            _ => {
                last = Some((merged.len(), shown.x));
                name = (weight(&shown), shown.label.clone(), true);
                merged.push(shown);
            }
        }
    }
    merged
}

/// A colour that can be read on `background`: the event's own, darker or lighter if need be.
fn readable(color: Color, background: Color) -> Color {
    let apart = (color.luminance() - background.luminance()).abs();
    let towards = if background.luminance() < 0.5 {
        Color::opaque(255, 255, 255)
    } else {
        Color::opaque(0, 0, 0)
    };
    if apart >= 0.45 {
        color.with_alpha(1.0)
    } else {
        color.towards(towards, (0.45 - apart).min(0.6) + 0.1)
    }
}

/// The colour of a label on a page with this `background`: the event's own, darker or lighter until the contrast
/// is that of [`CONTRAST`].
fn ink(color: Color, background: Color) -> Color {
    let is_dark = background.luminance() < 0.5;
    let end = if is_dark { 255 } else { 0 };
    let towards = Color::opaque(end, end, end);
    let steps = (0..10u8).map(|tenths| color.towards(towards, f32::from(tenths) / 10.0));
    let mut readable = steps.filter(|color| color.contrast(background) >= CONTRAST);
    readable.next().unwrap_or(towards).with_alpha(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_can_be_read_on_every_ground() {
        let grounds = [0xff, 0xf4, 0xcc, 0x33, 0x18, 0].map(|grey| Color::opaque(grey, grey, grey));
        let known = KNOWN.iter().map(|(_, color)| *color);
        for color in known.chain(PALETTE.iter().copied()) {
            for ground in grounds {
                let ink = ink(color, ground);
                assert!(ink.contrast(ground) >= CONTRAST, "{color:?} on {ground:?}");
            }
        }
    }
}
