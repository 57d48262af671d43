//! `plumbago event`: posts events to a running server, runs a command as an event, lists events.

mod wrap;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use settings::Span;

use crate::client::{self, Client};

/// The columns of `plumbago event list`, as [`line()`] fills them.
const HEADING: &str = "    ID  WHEN (UTC)             LASTED  STATUS       WHAT  [TAGS]\n";

/// Arguments of `plumbago event`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago event post \"web 1.4.2\" --tag \"deploy web\" --data \"by $USER\"\n  plumbago event wrap --tag \"deploy web\" -- ./deploy.sh\n  plumbago event list \"deploy -canary\" --from -1d"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Posts an event: a vertical line on every graph, or a band if it has a duration.
    Post(Post),
    /// Prints the stored events, oldest first.
    List(List),
    /// Runs a command as a band with its duration and exit status, and exits with its exit code.
    Wrap(wrap::Wrap),
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago event post \"web 1.4.2\" --tag \"deploy web\" --link https://ci.example.com/7\n  plumbago event post \"new switch\" --tag maintenance --when 14:00 --duration 30m\n  plumbago event post \"web 1.4.1\" --tag \"deploy web\" --rollback-of 12"
)]
struct Post {
    /// The name of the event, one line.
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    what: String,
    #[command(flatten)]
    described: Described,
    /// The timestamp: Unix seconds, 2026-11-20T13:00:00Z, or as in a graph's `from` (UTC): -10min,
    /// 14:00.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "now",
        allow_hyphen_values = true
    )]
    when: String,
    /// The duration: 90s, 5m, or plain seconds.
    #[arg(long, value_name = "SPAN", conflicts_with = "until")]
    duration: Option<String>,
    /// The timestamp of the end.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// The status: started, succeeded, failed or rolled_back.
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// The id of the event that this event rolls back.
    #[arg(long, value_name = "ID")]
    rollback_of: Option<i64>,
    #[command(flatten)]
    server: client::Args,
}

/// The fields that posted and wrapped events share.
#[derive(clap::Args)]
struct Described {
    /// The tags, separated by spaces; may be repeated.
    #[arg(short, long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Further text.
    #[arg(short, long, value_name = "TEXT")]
    data: Option<String>,
    /// A link to more information.
    #[arg(long, value_name = "URL")]
    link: Option<String>,
    /// A key of your choice: posting it again updates the event instead of adding one.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

impl Described {
    fn into_json(self) -> Map<String, Value> {
        let Self {
            tags,
            data,
            link,
            key,
        } = self;
        let mut json = Map::new();
        json.insert("tags".to_owned(), tags.join(" ").into());
        for (name, value) in [("data", data), ("link", link), ("key", key)] {
            if let Some(value) = value {
                json.insert(name.to_owned(), value.into());
            }
        }
        json
    }
}

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago event list \"deploy web\" --from -1w\n  plumbago event list --json | jq -r .[].what"
)]
struct List {
    /// A tag expression: `deploy web`, `deploy,config`, `deploy -canary`, `service:web*`.
    #[arg(default_value = "*", allow_hyphen_values = true)]
    tags: String,
    /// The earliest timestamp, as in a graph's `from`.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// The latest timestamp, as in a graph's `until`.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// The maximum number of events; the newest ones are listed.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// Print JSON instead of columns.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: client::Args,
}

/// Runs the subcommand.
///
/// # Errors
/// The server cannot be reached, or refuses the request, with the reason it gives.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Post(args) => post(args),
        What::List(args) => list(&args),
        What::Wrap(args) => wrap::run(args),
    }
}

fn post(args: Post) -> anyhow::Result<ExitCode> {
    let Post {
        what,
        described,
        when,
        duration,
        until,
        status,
        rollback_of,
        server,
    } = args;
    let client = Client::new(&server)?;
    let mut json = described.into_json();
    json.insert("what".to_owned(), what.into());
    json.insert("when".to_owned(), timestamp(&when).context("--when")?);
    if let Some(duration) = duration {
        json.insert("duration".to_owned(), seconds(&duration)?.into());
    }
    if let Some(until) = until {
        json.insert("until".to_owned(), timestamp(&until).context("--until")?);
    }
    if let Some(status) = status {
        json.insert("status".to_owned(), status.into());
    }
    if let Some(id) = rollback_of {
        json.insert("rollback_of".to_owned(), id.into());
    }
    let event = client.post("/events/", &Value::Object(json))?;
    let id = event["id"].as_i64();
    let id = id.ok_or_else(|| anyhow!("{} answers without an id", client.url("")))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", client.url(&format!("/events/{id}/")))?;
    Ok(ExitCode::SUCCESS)
}

fn list(args: &List) -> anyhow::Result<ExitCode> {
    let List {
        tags,
        from,
        until,
        limit,
        json,
        server,
    } = args;
    let client = Client::new(server)?;
    let path = String::from("/events/?");
    let begun = path.len();
    let mut query = form_urlencoded::Serializer::for_suffix(path, begun);
    query.append_pair("tags", tags);
    query.append_pair("limit", &limit.to_string());
    for (name, value) in [("from", from), ("until", until)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let events = client.get(&query.finish())?;
    let mut out = std::io::stdout().lock();
    if *json {
        writeln!(out, "{events:#}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let events = events.as_array().map_or(&[][..], Vec::as_slice);
    if !events.is_empty() {
        out.write_all(HEADING.as_bytes())?;
    }
    for event in events {
        out.write_all(line(event).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One event as a line below the [`HEADING`].
fn line(event: &Value) -> String {
    let when = event["when"].as_i64().unwrap_or_default();
    let at = jiff::Timestamp::from_second(when).map_or_else(
        |_| when.to_string(),
        |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    );
    let length = match event["until"].as_i64() {
        Some(until) => {
            let seconds = until.saturating_sub(when).try_into().unwrap_or_default();
            Span::seconds(seconds).to_string()
        }
        None => "-".to_owned(),
    };
    let status = event["status"].as_str().unwrap_or("-");
    let tags: Vec<&str> = event["tags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let id = event["id"].as_i64().unwrap_or_default();
    let what = event["what"].as_str().unwrap_or_default();
    let line = format!(
        "{id:>6}  {at}  {length:>8}  {status:<11}  {what}  [{}]",
        tags.join(" ")
    );
    // A terminal interprets control characters, and events come from many senders.
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    line.chars().map(printable).chain(['\n']).collect()
}

/// A timestamp for the server. Seconds and RFC 3339 are sent unchanged, since the server reads them;
/// relative times are resolved here.
fn timestamp(text: &str) -> anyhow::Result<Value> {
    if text == "now" {
        return Ok(json!(now()));
    }
    if let Ok(seconds) = text.parse::<f64>()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Ok(json!(seconds));
    }
    if text.parse::<jiff::Timestamp>().is_ok() {
        return Ok(text.into());
    }
    let seconds = render::attime::parse(text, &TimeZone::UTC, now() as i64)?;
    Ok(seconds.into())
}

/// Seconds in a duration: `90`, `1.5`, `90s`, `5m`.
fn seconds(text: &str) -> anyhow::Result<f64> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 => Ok(seconds),
        _ => Ok(text.parse::<Span>().context("--duration")?.0.as_secs_f64()),
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read_in_every_form() {
        assert_eq!(timestamp("1700000000.5").unwrap(), json!(1_700_000_000.5));
        assert_eq!(
            timestamp("2023-11-14T22:13:20Z").unwrap(),
            json!("2023-11-14T22:13:20Z")
        );
        let ago = now() - timestamp("-10min").unwrap().as_f64().unwrap();
        assert!((599.0..602.0).contains(&ago), "{ago}");
        assert!(timestamp("soonish").is_err());
        assert_eq!(seconds("90").unwrap(), 90.0);
        assert_eq!(seconds("5m").unwrap(), 300.0);
        assert!(seconds("-5").is_err());
    }

    #[test]
    fn a_line_holds_no_control_characters() {
        let line =
            line(&json!({"id": 1, "when": 0, "what": "a\n\u{1b}[2Jb", "tags": ["x"], "until": 5}));
        assert_eq!(
            line,
            "     1  1970-01-01 00:00:00        5s  -            a  [2Jb  [x]\n"
        );
    }
}
