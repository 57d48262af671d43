//! Finds damaged files in directory trees.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use whisper::create::is_temporary_name;
use whisper::{Dump, Error, Header, map};

use super::Context;

/// `whisper verify`.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  plumbago whisper verify --set-aside /var/lib/graphite/whisper")]
pub(super) struct Verify {
    /// Rename damaged files to NAME.corrupt, so that the server can create new files.
    #[arg(long)]
    set_aside: bool,
    /// Also check every slot for misplaced points.
    #[arg(long)]
    slots: bool,
    /// Print the name of each file before it is checked.
    #[arg(long)]
    verbose: bool,
    /// Files, and directories whose *.wsp files are checked.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// The counts of a run.
#[derive(Default)]
struct Found {
    files: u64,
    damaged: u64,
    misplaced: u64,
    unfinished: u64,
    unreadable: u64,
}

impl Verify {
    pub(super) fn run(&self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let mut found = Found::default();
        let progress = progress();
        let mut waiting: Vec<PathBuf> = self.paths.iter().rev().cloned().collect();
        while let Some(path) = waiting.pop() {
            if !path.is_dir() {
                self.look_at(&path, &mut found, context.out)?;
                progress.inc(1);
                continue;
            }
            match entries(&path) {
                Ok(inside) => waiting.extend(inside.into_iter().rev()),
                Err(error) => {
                    found.unreadable += 1;
                    writeln!(context.out, "Unreadable: {}: {error}", path.display())?;
                }
            }
        }
        progress.finish_and_clear();
        let Found {
            files,
            damaged,
            misplaced,
            unfinished,
            unreadable,
        } = found;
        write!(
            context.out,
            "{files} files: {damaged} damaged, {unreadable} unreadable"
        )?;
        if self.slots {
            write!(context.out, ", {misplaced} with misplaced points")?;
        }
        writeln!(context.out, "; {unfinished} left from unfinished creates")?;
        let clean = damaged + unreadable + misplaced == 0;
        Ok(if clean {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn look_at(&self, path: &Path, found: &mut Found, out: &mut dyn Write) -> anyhow::Result<()> {
        let name = path.display();
        if path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(is_temporary_name)
        {
            found.unfinished += 1;
            writeln!(out, "Left from an unfinished create: {name}")?;
            return Ok(());
        }
        if self.verbose {
            writeln!(out, "Scanning {name}...")?;
        }
        found.files += 1;
        match self.check(path) {
            Ok(0) => {}
            Ok(misplaced) => {
                found.misplaced += 1;
                writeln!(out, "Misplaced points: {name}: {misplaced}")?;
            }
            Err(error) if error.is_damage() => {
                found.damaged += 1;
                writeln!(out, "Corrupt Whisper file: {error}")?;
                if self.set_aside {
                    let aside = map::set_aside(path)?;
                    writeln!(out, "Set aside: {}", aside.display())?;
                }
            }
            Err(error) => {
                found.unreadable += 1;
                writeln!(out, "Unreadable: {error}")?;
            }
        }
        Ok(())
    }

    /// The number of misplaced points; 0 without `--slots`.
    fn check(&self, path: &Path) -> whisper::Result<usize> {
        let needed = Header::read(path)?.file_size();
        let len = std::fs::metadata(path).map_or(0, |found| found.len());
        if len < needed {
            return Err(Error::Truncated {
                path: path.to_owned(),
                needed,
                len,
            });
        }
        if self.slots {
            Dump::read(path).map(|dump| dump.misplaced())
        } else {
            Ok(0)
        }
    }
}

/// The directories, whisper files and temporary files of unfinished creates in a directory, by name.
/// Symbolic links to files are followed. Links to directories are not, so that a walk cannot loop.
fn entries(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut inside = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        let wanted = path.extension().is_some_and(|extension| extension == "wsp")
            || name.to_str().is_some_and(is_temporary_name);
        if entry.file_type()?.is_dir() || (wanted && !path.is_dir()) {
            inside.push(path);
        }
    }
    inside.sort();
    Ok(inside)
}

fn progress() -> ProgressBar {
    let visible = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal();
    let target = if visible {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    let style = ProgressStyle::with_template("{spinner} {pos} files, {per_sec}, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar
}
