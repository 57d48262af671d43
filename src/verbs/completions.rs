//! `plumbago completions`: what a shell needs to complete verbs and options.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

/// Arguments of `plumbago completions`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago completions bash > /etc/bash_completion.d/plumbago\n  plumbago completions zsh > /usr/local/share/zsh/site-functions/_plumbago\n  plumbago completions fish > ~/.config/fish/completions/plumbago.fish"
)]
pub struct Args {
    /// The shell.
    shell: Shell,
}

/// Prints the completions of `command`.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: Args, mut command: Command) -> anyhow::Result<ExitCode> {
    let Args { shell } = args;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "plumbago", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
