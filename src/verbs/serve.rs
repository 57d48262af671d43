//! `plumbago serve`: runs the server.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};

use crate::config::Sources;
use crate::log::Log;
use crate::memory;
use crate::server::{self, Ended, Surroundings};

/// For how long a thread waits for further work that blocks: for ever, as far as that goes.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);
/// So much work that blocks is done at once; more waits.
const MOST_BLOCKING: usize = 64;
/// How long an ended server waits for work that blocks, such as that of requests whose clients have
/// been cut off.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `plumbago serve`.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  plumbago serve --data /var/lib/plumbago --set statsd.flush_interval=1s"
)]
pub struct Args {
    /// The configuration file (`plumbago config` prints one).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory: the same as `--set data=DIR`.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Set a key, as in `--set statsd.flush_interval=1s`; takes precedence over the file.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Write the bound addresses to FILE as JSON once all listeners are up.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Run a simulated web shop with a week of history. The data directory is ./demo-data unless
    /// --data is given.
    #[arg(long)]
    demo: bool,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The reason why the server could not start or shut down cleanly.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args {
        config: file,
        data,
        set: overrides,
        ready_file,
        demo,
    } = args;
    let sources = Sources {
        file,
        overrides,
        data: data.or_else(|| demo.then(|| PathBuf::from("demo-data"))),
    };
    let loaded = sources.read();
    let warnings = loaded.warnings().map(str::to_owned).collect::<Vec<_>>();
    let config = loaded.usable()?;
    let surroundings = Surroundings {
        sources,
        ready_file,
        demo,
        notify_socket: env::var("NOTIFY_SOCKET").ok(),
        rust_log: env::var("RUST_LOG").ok(),
    };
    memory::return_freed();
    let log = Log::start(&config.log, surroundings.rust_log.as_deref())?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Work that blocks waits for a thread that is there, should the system give no other.
        .thread_keep_alive(FOR_EVER)
        .max_blocking_threads(MOST_BLOCKING)
        .build()
        .context("cannot start the runtime")?;
    runtime
        .block_on(runtime.spawn_blocking(|| ()))
        .context("starting a thread")?;
    let ended = runtime.block_on(server::run(config, surroundings, log))?;
    match ended {
        Ended::Drained => {
            runtime.shutdown_timeout(PATIENCE);
            Ok(ExitCode::SUCCESS)
        }
        Ended::Early => {
            runtime.shutdown_background();
            Ok(ExitCode::SUCCESS)
        }
        Ended::Died(name) => {
            runtime.shutdown_background();
            Err(anyhow!("{name} ended by a panic: see the log"))
        }
    }
}
