//! The verbs: one module each, with its arguments and a `run` that gives the exit code.

use std::process::ExitCode;

use clap::Subcommand;

pub mod config;
pub mod event;
pub mod expire;
pub mod load;
pub mod serve;
pub mod whisper;

/// What the program is asked to do.
#[derive(Subcommand)]
pub enum Verb {
    /// Runs the whole pipeline (the same as no verb at all).
    Serve(serve::Args),
    /// Prints the effective configuration, every key with its comment; checks a file.
    Config(config::Args),
    /// Sends metrics to a server and says what was lost.
    Load(load::Args),
    /// Creates, reads, changes and checks whisper files.
    Whisper(whisper::Args),
    /// Removes series that have had no point for long, or lists them.
    Expire(expire::Args),
    /// Tells a running server about a deploy or another change; lists what it knows.
    Event(event::Args),
}

/// Does it.
///
/// # Errors
/// Whatever the verb could not do, as a sentence for the terminal.
pub fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Serve(args) => serve::run(args),
        Verb::Config(args) => config::run(&args),
        Verb::Load(args) => load::run(args),
        Verb::Whisper(args) => whisper::run(args),
        Verb::Expire(args) => expire::run(args),
        Verb::Event(args) => event::run(args),
    }
}
