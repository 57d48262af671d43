//! `plumbago tags`: names of tagged series, from and to other servers.
//!
//! The file of a tagged series is named by a hash of the series' name, so that a tree does not say
//! which tagged series it holds. Their names are kept by graphite-web; these verbs carry them over,
//! in both directions.

mod export;
mod import;
mod names;

use std::process::ExitCode;

use clap::Subcommand;

/// Arguments of `plumbago tags`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  plumbago tags import http://old-graphite:8080              # into the server at http://127.0.0.1:8080\n  plumbago tags import names.txt --data /var/lib/plumbago    # into a data directory; stop the server first\n  plumbago tags export > names.txt\n  plumbago tags import http://127.0.0.1:8080 --url http://old-graphite:8080   # the way back"
)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Registers the names of tagged series that another server or a file has.
    Import(import::Import),
    /// Prints the names of tagged series, a name per line.
    Export(export::Export),
}

/// Imports or exports.
///
/// # Errors
/// The source cannot be read, or the target refuses.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Import(import) => import::run(import),
        What::Export(export) => export::run(export),
    }
}
