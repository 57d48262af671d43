//! Runs the command lines of Python's whisper tools and compares output, status and files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../whisper/tests/support/mod.rs"]
mod recordings;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use jiff::tz::TimeZone;
use plumbago::verbs::whisper::{Args, Context, run_with};
use recordings::{recording, sha256};
use serde_json::{Value, json};
use whisper::Timestamp;

/// What precedes a tool's arguments is of no interest to it.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

#[test]
fn golden_whisper_tools() {
    let mut failures = Vec::new();
    let mut n = 0;
    for case in recording("whisper-ops")
        .iter()
        .filter(|case| case["kind"] == "cli")
    {
        // The one deviation: with --drop, times are those of the points that are printed.
        let deviates = case["class"] == "quirk:cli-drop-times";
        if let Err(difference) = replay(case)
            && !deviates
        {
            failures.push(format!("{} {}: {difference}", case["tool"], case["argv"]));
        }
        n += 1;
    }
    assert!(n > 0);
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn replay(case: &Value) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    // The recording names files relative to the working directory; no other test runs here.
    std::env::set_current_dir(dir.path()).unwrap();
    for (name, content) in case["files"].as_object().unwrap() {
        std::fs::write(name, decoded(content.as_str().unwrap())).unwrap();
    }
    let before = digests(dir.path());
    let tool = match case["tool"]
        .as_str()
        .unwrap()
        .strip_prefix("whisper-")
        .unwrap()
    {
        "set-xfilesfactor" => "set-xff",
        "set-aggregation-method" => "set-aggregation",
        tool => tool,
    };
    let argv = case["argv"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arg| arg.as_str().unwrap());
    let now = case["now"].to_string();
    let argv = ["whisper", tool, "--now", &now].into_iter().chain(argv);
    let cli = Cli::try_parse_from(argv).map_err(|refused| refused.to_string())?;

    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let context = Context {
        now: Timestamp(0),
        clock: None,
        zone: TimeZone::UTC,
        out: &mut out,
        notes: &mut notes,
    };
    let done = run_with(cli.args, context);
    let failed = !matches!(&done, Ok(code) if *code == ExitCode::SUCCESS);
    let stdout = String::from_utf8(out).unwrap();
    if stdout != case["stdout"].as_str().unwrap() {
        return Err(format!(
            "printed\n{stdout}\ninstead of\n{}",
            case["stdout"].as_str().unwrap()
        ));
    }
    let notes = String::from_utf8(notes).unwrap();
    let factor = match tool {
        "set-aggregation" if !failed => case["argv"][2].as_str(),
        _ => None,
    };
    let expected = factor.map(|new| format!("-> {new})\n"));
    if !notes.ends_with(expected.as_deref().unwrap_or_default())
        || notes.is_empty() != expected.is_none()
    {
        return Err(format!("noted {notes:?} instead of {expected:?}"));
    }
    if failed != (case["exit"] != 0) {
        return Err(format!("{done:?} instead of exit status {}", case["exit"]));
    }
    if let (Err(error), Some(text)) = (&done, case["stderr"].as_str())
        && !text.contains(&error.to_string())
    {
        return Err(format!("{error} instead of {text}"));
    }
    let changed = digests(dir.path())
        .into_iter()
        .filter(|(name, now)| before.get(name) != Some(now));
    let changed: Value = changed.collect::<serde_json::Map<_, _>>().into();
    if changed != case["changed"] {
        return Err(format!("changed {changed} instead of {}", case["changed"]));
    }
    Ok(())
}

fn digests(dir: &Path) -> BTreeMap<String, Value> {
    let digest = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        let digest = json!({ "size": bytes.len(), "sha256": sha256(&bytes) });
        (entry.file_name().into_string().unwrap(), digest)
    };
    std::fs::read_dir(dir).unwrap().map(digest).collect()
}

fn decoded(base64: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut n_bits) = (0_u32, 0);
    for digit in base64.bytes().filter(|byte| *byte != b'=') {
        let value = DIGITS.iter().position(|known| *known == digit).unwrap() as u32;
        bits = (bits << 6) | value;
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits) as u8);
        }
    }
    bytes
}
