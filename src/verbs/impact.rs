//! `plumbago impact EVENT`: what a deploy changed, as text, JSON and exit code.
//!
//! The exit code is for scripts that act on it: 1 only for a deploy that got worse, so that a server that cannot
//! be reached never looks like one. That is 3, as is a verdict that does not exist yet.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;
use settings::Span;

use crate::client::{self, Client};
use crate::terminal::complain;

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(2);
/// The deploy got worse.
const WORSE: u8 = 1;
/// There is no verdict.
const UNKNOWN: u8 = 3;

/// Arguments of `plumbago impact`.
#[derive(clap::Args)]
#[group(skip)]
#[command(
    after_help = "Exit code: 0 not worse, 1 worse, 2 wrong usage, 3 no verdict: not enough data, too early, or the server cannot be reached.\n\nExamples:\n  plumbago impact 12\n  plumbago impact 12 --wait 10m || ./rollback.sh\n  plumbago impact 12 --json | jq .impact.sentence"
)]
pub struct Args {
    /// The id of the event, as printed by `plumbago event list`.
    event: i64,
    #[command(flatten)]
    answer: Answer,
}

/// How long to wait for a verdict, and how it is printed.
#[derive(Clone, Debug, clap::Args)]
pub struct Answer {
    /// Wait so long for the verdict: until the deploy got worse, or all looks were taken.
    #[arg(long, value_name = "SPAN")]
    wait: Option<String>,
    /// Print the event with its verdict as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: client::Args,
}

/// Runs the verb.
///
/// # Errors
/// None: what goes wrong is printed, and the exit code is 3.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Args { event, answer } = args;
    answer.of(|_| Ok(*event))
}

impl Answer {
    /// Prints the verdict on the event that `find` finds; the exit code says what it is.
    pub(super) fn of(
        &self,
        find: impl FnOnce(&Client) -> anyhow::Result<i64>,
    ) -> anyhow::Result<ExitCode> {
        let ask = || {
            let wait = self.wait.as_deref().map(span).transpose()?;
            let client = Client::new(&self.server)?;
            let id = find(&client)?;
            wait_for(&client, id, wait.unwrap_or_default())
        };
        let event = match ask() {
            Ok(event) => event,
            Err(why) => {
                complain(format_args!("plumbago: {why:#}"));
                return Ok(ExitCode::from(UNKNOWN));
            }
        };
        let text = match self.json {
            true => format!("{event:#}\n"),
            false => text(&event),
        };
        // A closed pipe must not look like a worse deploy.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
        Ok(ExitCode::from(code(&event)))
    }
}

/// A length of time: `10m`.
///
/// # Errors
/// It is not one.
pub(super) fn span(text: &str) -> anyhow::Result<Duration> {
    Ok(text.parse::<Span>().context("--wait")?.0)
}

/// The event called `id` with its verdict: as it is now, or at the latest after `wait`; sooner if it is worse or
/// final.
///
/// # Errors
/// The server cannot be reached, or there is no such event.
pub(super) fn wait_for(client: &Client, id: i64, wait: Duration) -> anyhow::Result<Value> {
    let begun = Instant::now();
    loop {
        let asked = client.get(&format!("/impact?event={id}"));
        let left = wait.saturating_sub(begun.elapsed());
        match asked {
            Ok(event) if left.is_zero() || is_decided(&event) => return Ok(event),
            // A server that restarts meanwhile is waited for.
            Err(why) if left.is_zero() => return Err(why),
            Ok(_) | Err(_) => std::thread::sleep(PAUSE.min(left)),
        }
    }
}

/// Whether waiting longer cannot change what is to be done.
fn is_decided(event: &Value) -> bool {
    is_worse(event) || event["impact"]["complete"] == true
}

/// Whether the verdict is that the deploy got worse.
pub(super) fn is_worse(event: &Value) -> bool {
    event["impact"]["verdict"] == "worse"
}

fn code(event: &Value) -> u8 {
    match event["impact"]["verdict"].as_str() {
        Some("worse") => WORSE,
        None | Some("not_enough_data") => UNKNOWN,
        Some(_) => 0,
    }
}

/// The verdict as lines of text.
fn text(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let impact = &event["impact"];
    let what = text(&event["what"]);
    if impact.is_null() {
        return printable(&format!("{what}: there is no verdict yet"));
    }
    let verdict = text(&impact["verdict"]).replace('_', " ");
    let sentence = text(&impact["sentence"]);
    // The sentence begins with the reason anyway.
    let mut lines = match sentence.starts_with(&verdict) {
        true => printable(&format!("{what}: {sentence}")),
        false => printable(&format!("{what}: {verdict}: {sentence}")),
    };
    let looks = impact["looks"].as_array().into_iter().flatten();
    let looks: Vec<String> = looks.map(|look| look["minutes"].to_string()).collect();
    let looks = match looks.is_empty() {
        true => "none".to_owned(),
        false => looks.join(", "),
    };
    lines += &printable(&format!(
        "  {} series judged, {} compared with, {} comparable times; looks after minutes: {looks}",
        impact["tested"], impact["controls"], impact["moments"]
    ));
    for series in impact["series"].as_array().into_iter().flatten() {
        let number = |key: &str| match series[key].as_f64() {
            Some(value) => format!("{value:.4}"),
            None => "-".to_owned(),
        };
        lines += &printable(&format!(
            "  {:<8}{:<8}  {}  {} -> {}  ({:.1}x its usual change, {} of {})",
            text(&series["worth"]).replace("unknown", "changed"),
            text(&series["state"]).replace('_', " "),
            text(&series["name"]),
            number("before"),
            number("after"),
            series["ratio"].as_f64().unwrap_or_default(),
            series["like"],
            series["moments"],
        ));
    }
    lines
}

/// `line` without characters that a terminal interprets, and its end.
fn printable(line: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    line.chars().map(plain).chain(['\n']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn exit_codes_tell_worse_from_unknown() {
        for (impact, expected) in [
            (json!(null), UNKNOWN),
            (json!({"verdict": "worse"}), WORSE),
            (json!({"verdict": "not_enough_data"}), UNKNOWN),
            (json!({"verdict": "better"}), 0),
            (json!({"verdict": "changed"}), 0),
            (json!({"verdict": "unchanged"}), 0),
        ] {
            assert_eq!(code(&json!({"impact": impact})), expected);
        }
        assert!(is_decided(
            &json!({"impact": {"verdict": "worse", "complete": false}})
        ));
        assert!(is_decided(
            &json!({"impact": {"verdict": "better", "complete": true}})
        ));
        assert!(!is_decided(
            &json!({"impact": {"verdict": "better", "complete": false}})
        ));
        assert!(!is_decided(&json!({"what": "x"})));
    }

    #[test]
    fn a_verdict_is_a_few_lines_without_control_characters() {
        let event = json!({"what": "web\u{1b}[2J 2", "impact": {
            "verdict": "worse", "sentence": "a.errors rose", "tested": 45, "controls": 180, "moments": 612,
            "looks": [{"minutes": 5}, {"minutes": 10}],
            "series": [{"name": "a.errors", "worth": "worse", "state": "so_far", "before": 0.2, "after": null,
                        "ratio": 8.44, "like": 0, "moments": 612}],
        }});
        assert_eq!(
            text(&event),
            "web [2J 2: worse: a.errors rose\n  \
             45 series judged, 180 compared with, 612 comparable times; looks after minutes: 5, 10\n  \
             worse   so far    a.errors  0.2000 -> -  (8.4x its usual change, 0 of 612)\n"
        );
        let none = text(&json!({"what": "web 2"}));
        assert_eq!(none, "web 2: there is no verdict yet\n");
    }
}
