//! The verbs: one module each, with its arguments and a `run` that gives the exit code.

use std::process::ExitCode;

use clap::{Command, Subcommand};

pub mod check;
pub mod clickhouse;
pub mod completions;
pub mod config;
pub mod event;
pub mod expire;
pub mod fill;
pub mod impact;
pub mod load;
pub mod serve;
pub mod statsd_proxy;
pub mod tags;
pub mod whisper;

/// The verbs of the command line.
#[derive(Subcommand)]
pub enum Verb {
    /// Runs the server (the default without a verb).
    Serve(serve::Args),
    /// Prints the effective configuration with a comment for every key, or checks a file.
    Config(config::Args),
    /// Load-tests a StatsD server and reports loss.
    Load(load::Args),
    /// Shares StatsD's metrics out among several servers by their names.
    StatsdProxy(statsd_proxy::Args),
    /// Creates, reads, changes and checks whisper files.
    Whisper(whisper::Args),
    /// Removes or lists series without recent points.
    Expire(expire::Args),
    /// Prints or makes the tables of store.engine = "clickhouse".
    Clickhouse(clickhouse::Args),
    /// Copies values that this server does not have from another one.
    Fill(fill::Args),
    /// Carries the names of tagged series from and to other servers.
    Tags(tags::Args),
    /// Posts and lists events (deploys, incidents, maintenance) on a running server.
    Event(event::Args),
    /// Says what a deploy changed, as text, JSON and exit code.
    Impact(impact::Args),
    /// Says by its exit code whether the newest deploy made something worse.
    Check(check::Args),
    /// Prints the completions for a shell.
    Completions(completions::Args),
}

/// Runs `verb`; `command` makes the whole command line, for the completions.
///
/// # Errors
/// The reason why the verb failed, as a sentence for the terminal.
pub fn run(verb: Verb, command: fn() -> Command) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Serve(args) => serve::run(args),
        Verb::Config(args) => config::run(&args),
        Verb::Load(args) => load::run(args),
        Verb::StatsdProxy(args) => statsd_proxy::run(&args),
        Verb::Whisper(args) => whisper::run(args),
        Verb::Expire(args) => expire::run(args),
        Verb::Clickhouse(args) => clickhouse::run(args),
        Verb::Fill(args) => fill::run(&args),
        Verb::Tags(args) => tags::run(args),
        Verb::Event(args) => event::run(args),
        Verb::Impact(args) => impact::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Completions(args) => completions::run(args, command()),
    }
}
