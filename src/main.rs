//! Arguments and exit code: 0 done, 1 failed, 2 usage.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use plumbago::config::Refused;
use plumbago::terminal::complain;
use plumbago::verbs::{self, Verb, serve};

/// StatsD, carbon, whisper and Graphite's render API in one program, with a vertical line at
/// every deploy.
///
/// Without a verb plumbago runs the server: StatsD on 127.0.0.1:8125 (UDP), carbon lines on
/// 127.0.0.1:2003, Graphite's HTTP API and dashboards on http://127.0.0.1:8080/. The data directory
/// is ./plumbago-data.
#[derive(Parser)]
#[command(
    name = "plumbago",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  plumbago --demo    # a simulated web shop with a week of data and deploys, http://127.0.0.1:8080/"
)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    serve: serve::Args,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.verb {
        Some(verb) => verbs::run(verb, Cli::command),
        None => serve::run(cli.serve),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            if is_closed_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            let Some(refused) = error.downcast_ref::<Refused>() else {
                complain(format_args!("plumbago: {}", sentence(&error)));
                return ExitCode::from(1);
            };
            for line in &refused.lines {
                complain(line);
            }
            ExitCode::from(if refused.is_usage { 2 } else { 1 })
        }
    }
}

/// Whether nobody reads standard output any more (`| head`). Errors of connections say which one.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    error.chain().count() == 1 && io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

/// An error with its causes, without those that it already ends in.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow::anyhow!("not there").context("opening a: not there");
        assert_eq!(sentence(&error), "opening a: not there");
        let error = anyhow::anyhow!("not there").context("opening a");
        assert_eq!(sentence(&error), "opening a: not there");
    }

    #[test]
    fn the_command_line_is_consistent_and_every_verb_shows_an_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        for verb in command.get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string);
            assert!(
                help.is_some_and(|help| help.contains("Example")),
                "`plumbago {} --help` shows no example",
                verb.get_name()
            );
        }
    }
}
