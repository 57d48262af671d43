//! `plumbago clickhouse schema`: the tables, and the rollup section of the ClickHouse server's configuration.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use clap::Subcommand;
use clickhouse::schema::{Rules, SPLIT_RULES, Table, tables};
use clickhouse::{Client, Stats};

use crate::config::{Config, Sources};

/// Arguments of `plumbago clickhouse`.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  plumbago clickhouse schema --config plumbago.toml   # tables and rollup rules for the server of store.clickhouse"
)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Prints the statements that make the tables and the rollup section of ClickHouse's configuration.
    #[command(
        after_help = "Examples:\n  plumbago clickhouse schema                          # everything, as text\n  plumbago clickhouse schema --rollup > /etc/clickhouse-server/config.d/graphite_rollup.xml\n  plumbago clickhouse schema --apply --config plumbago.toml   # makes the tables that are missing"
    )]
    Schema(Schema),
}

#[derive(clap::Args)]
struct Schema {
    /// Make the tables that are missing on the server of store.clickhouse.url. The rollup section has to be in
    /// its configuration first.
    #[arg(long, conflicts_with = "rollup")]
    apply: bool,
    /// Print the rollup section alone, as a file for the server's config.d.
    #[arg(long)]
    rollup: bool,
    /// The first number of the server's version: up to 18 the rollup section has another form.
    #[arg(long, value_name = "NUMBER", default_value_t = SPLIT_RULES)]
    server_version: u32,
    /// The configuration file of plumbago: store.clickhouse, carbon.schemas and carbon.aggregation are used.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a key, as in `--set store.clickhouse.url=http://127.0.0.1:8123`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Prints or makes the tables.
///
/// # Errors
/// What is wrong with the configuration, or what the server says.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Verb::Schema(Schema {
        apply,
        rollup,
        server_version,
        config,
        set,
    }) = args.verb;
    let sources = Sources {
        file: config,
        overrides: set,
        data: None,
    };
    let config = sources.read().usable()?;
    let mut out = std::io::stdout().lock();
    if apply {
        return make(&config, &mut out);
    }
    if !rollup {
        for table in tables(&config.store.clickhouse) {
            writeln!(out, "{};\n", table.statement)?;
        }
        writeln!(
            out,
            "-- A file of the server's config.d (schema --rollup prints it alone):"
        )?;
    }
    out.write_all(section(&config, server_version)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The rollup section as a file.
fn section(config: &Config, version: u32) -> anyhow::Result<String> {
    let rules = Rules::of(&config.carbon, config.statsd.flush_interval).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow!("{}", lines.join("\n"))
    })?;
    let section = rules.section(&config.store.clickhouse.rollup, version);
    let root = match version {
        0..=20 => "yandex",
        _ => "clickhouse",
    };
    Ok(format!("<{root}>\n{section}</{root}>\n"))
}

fn make(config: &Config, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let options = &config.store.clickhouse;
    let client =
        Client::new(options, Arc::new(Stats::default())).map_err(|why| anyhow!("{why}"))?;
    let version = client.version().map_err(|why| anyhow!("{why}"))?;
    for Table { name, statement } in tables(options) {
        let exists = client.execute(&format!("EXISTS TABLE {name}"));
        if exists.map_err(|why| anyhow!("{why}"))?.trim() == "1" {
            writeln!(out, "{name}: exists, left as it is")?;
            continue;
        }
        if let Err(why) = client.execute(&statement) {
            if why.contains("Code: 139") {
                bail!(
                    "{name}: the server's configuration has no section <{rollup}>: put the output of `plumbago \
                     clickhouse schema --rollup --server-version {version}` into its config.d and restart it ({why})",
                    rollup = options.rollup
                );
            }
            bail!("{name}: {why}");
        }
        writeln!(out, "{name}: made")?;
    }
    Ok(ExitCode::SUCCESS)
}
