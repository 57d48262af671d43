//! `plumbago check --since-deploy TAGS`: did the newest deploy make something worse?

use std::process::ExitCode;

use anyhow::anyhow;

use super::impact::Answer;
use crate::client::Client;

/// Arguments of `plumbago check`.
#[derive(clap::Args)]
#[group(skip)]
#[command(
    after_help = "Exit code: 0 not worse, 1 worse, 2 wrong usage, 3 no verdict: no such deploy, not enough data, too early, or the server cannot be reached.\n\nExamples:\n  plumbago check --since-deploy \"deploy service:web\"\n  plumbago check --since-deploy \"deploy web\" --wait 10m || ./rollback.sh"
)]
pub struct Args {
    /// Judge the newest event that this tag expression selects: `deploy web`, `deploy,config`,
    /// `deploy -canary`.
    #[arg(long, value_name = "TAGS", allow_hyphen_values = true)]
    since_deploy: String,
    #[command(flatten)]
    answer: Answer,
}

/// Runs the verb.
///
/// # Errors
/// None: what goes wrong is printed, and the exit code is 3.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Args {
        since_deploy,
        answer,
    } = args;
    answer.of(|client| newest(client, since_deploy))
}

/// The id of the newest event that `tags` selects, up to now.
fn newest(client: &Client, tags: &str) -> anyhow::Result<i64> {
    let path = String::from("/events/?");
    let begun = path.len();
    let mut query = form_urlencoded::Serializer::for_suffix(path, begun);
    query.append_pair("tags", tags);
    // Times in queries are whole seconds: a deploy of this second counts.
    query.append_pair("until", "now+1s");
    query.append_pair("limit", "1");
    let events = client.get(&query.finish())?;
    let id = events[0]["id"].as_i64();
    id.ok_or_else(|| anyhow!("no event has the tags {tags:?}"))
}
