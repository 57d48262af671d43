//! `/graph/NAME.png`, `.svg` and `.txt`: a graph under a short address, for chats and scripts.
//!
//! NAME is a target: a series name, a glob, or functions. Further parameters are those of `/render`;
//! without them, the graph shows the last hour with its deploys.

use std::fmt::Write as _;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};

use super::{Ignored, Request, handle};
use crate::draw::short;
use crate::error::Result;
use crate::events::{Event, TagQuery};
use crate::http::page::words::ago;
use crate::http::pool::Lane;
use crate::http::{Answer, App, Params};
use crate::series::Series;

/// Events that count as deploys.
const DEPLOYS: &str = "deploy,deployment,release,rollback";
/// Seconds that a chat may keep a picture.
const KEPT: &str = "max-age=30";
/// Seconds before and after a deploy over which values are averaged.
const SPAN: f64 = 600.0;
/// Series in a text.
const MOST_SERIES: usize = 20;

pub(super) async fn graph(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
    params: Params,
) -> Answer {
    let Some((target, format)) = name.rsplit_once('.') else {
        return unknown(&name);
    };
    let is_known = ["png", "svg", "txt"].contains(&format);
    if !is_known || target.is_empty() {
        return unknown(&name);
    }
    let mut pairs = vec![
        ("target".to_owned(), target.to_owned()),
        // The text is made of the series themselves.
        ("format".to_owned(), format.replace("txt", "json")),
    ];
    let defaults = [
        ("from", "-1h"),
        ("width", "800"),
        ("height", "400"),
        ("events", DEPLOYS),
        ("title", target),
        ("template", "plain"),
        ("strict", "1"),
        ("cacheTimeout", "30"),
    ];
    let defaults = defaults
        .into_iter()
        .filter(|(key, _)| params.get(key).is_none());
    pairs.extend(defaults.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let own = |key: &str| !["target", "format"].contains(&key);
    pairs.extend(params.pairs().iter().filter(|(key, _)| own(key)).cloned());
    let params = Params::from_pairs(pairs);
    let answer = match format {
        "txt" => text(app, &params).await,
        _ => handle(State(app), headers, params).await,
    };
    match answer.status {
        StatusCode::OK => answer.kept(KEPT),
        _ => answer,
    }
}

fn unknown(name: &str) -> Answer {
    let sentence = format!("{name:?} does not end in .png, .svg or .txt");
    Answer::error(StatusCode::NOT_FOUND, &sentence)
}

async fn text(app: App, params: &Params) -> Answer {
    let request = match Request::read(&app, params) {
        Ok(request) => request,
        Err(error) => return Answer::text(app.refuse(&error), format!("{error}\n")),
    };
    let budget = request.limits.budget.clone();
    app.compute(budget, Lane::Small, move |app| match request.text(app) {
        Ok(text) => Answer::text(StatusCode::OK, text),
        Err(error) => Answer::text(app.refuse(&error), format!("{error}\n")),
    })
    .await
}

impl Request {
    /// The figures of each series, and what changed at the last deploy.
    fn text(&self, app: &App) -> Result<String> {
        let series = self.evaluate(app, &self.targets, &mut Ignored::default())?;
        let deploys: TagQuery = DEPLOYS.parse().unwrap_or_default();
        let (from, until) = (self.window.from as f64, self.window.until as f64 + 1.0);
        let shown = app.events.overlay(&deploys, from, until, self.now as f64)?;
        let last = shown.last();
        let mut text = String::new();
        for one in series.iter().take(MOST_SERIES) {
            self.limits.budget.check()?;
            text += &line(one);
            if let Some(deploy) = last {
                text += &change(one, deploy, self.now as f64);
            }
        }
        if series.len() > MOST_SERIES {
            let _ = writeln!(text, "and {} more series", series.len() - MOST_SERIES);
        }
        if series.is_empty() {
            text.push_str("no data\n");
        }
        Ok(text)
    }
}

fn line(series: &Series) -> String {
    let known = || series.values.iter().copied().filter(|v| v.is_finite());
    let n = known().count();
    let figure = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    let average = (n > 0).then(|| known().sum::<f64>() / n as f64);
    format!(
        "{}: last {}, min {}, max {}, average {}\n",
        series.name,
        figure(known().next_back()),
        figure(known().reduce(f64::min)),
        figure(known().reduce(f64::max)),
        figure(average),
    )
}

/// The averages before and after `deploy`.
fn change(series: &Series, deploy: &Event, now: f64) -> String {
    let end = deploy.until.unwrap_or(deploy.when);
    let before = average(series, deploy.when - SPAN, deploy.when);
    let after = average(series, end, end + SPAN);
    let what = format!("  since {} ({}): ", deploy.what, ago(now - deploy.when));
    match (before, after) {
        (Some(before), Some(after)) if before != 0.0 => {
            let percent = (after / before - 1.0) * 100.0;
            let (before, after) = (short(before), short(after));
            format!("{what}{after}, before {before} ({percent:+.0} %)\n")
        }
        (Some(before), Some(after)) => {
            format!("{what}{}, before {}\n", short(after), short(before))
        }
        _ => format!("{what}not enough data\n"),
    }
}

fn average(series: &Series, from: f64, until: f64) -> Option<f64> {
    let times = (0..).map(|n| (series.start + n * series.step) as f64);
    let inside = times
        .zip(series.values.iter().copied())
        .filter(|(at, value)| (from..until).contains(at) && value.is_finite());
    let (n, sum) = inside.fold((0, 0.0), |(n, sum), (_, value)| (n + 1, sum + value));
    (n > 0).then(|| sum / f64::from(n))
}
