//! `plumbago config` prints a file that says the same, and `--check` finds what is wrong in one.

mod support;

use std::fs;

use support::{plumbago, run};

#[test]
fn what_config_prints_is_a_file_that_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plumbago.toml");
    let file = path.to_str().unwrap();
    let set = [
        "--set",
        "statsd.flush_interval=2s",
        "--set",
        "log.format=json",
    ];
    let printed = run(&[&["config"], &set[..]].concat());
    assert!(printed.status.success());
    fs::write(&path, &printed.stdout).unwrap();

    let checked = run(&["config", "--check", file]);
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    let again = run(&["config", "--config", file]);
    assert_eq!(again.stdout, printed.stdout);

    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.contains("flush_interval = \"2s\"\n"), "{text}");
    let mut last = "";
    for line in text.lines() {
        if line.contains(" = ") && !line.starts_with('#') {
            assert!(last.starts_with("# "), "no comment above {line:?}");
        }
        last = line;
    }
}

#[test]
fn a_check_whose_output_cannot_be_written_fails_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plumbago.toml");
    fs::write(&path, "").unwrap();
    let checked = plumbago()
        .args(["config", "--check"])
        .arg(&path)
        .stdout(fs::File::create("/dev/full").unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert!(
        said.contains("No space left") && !said.contains("panicked"),
        "{said}"
    );
}

#[test]
fn a_wrong_key_is_named_with_file_line_and_nearest_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plumbago.toml");
    fs::write(
        &path,
        "[statsd]\n# every second\nflush_intervall = \"1s\"\n",
    )
    .unwrap();
    let checked = run(&["config", "--check", path.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(1));
    let expected = format!(
        "{}:3: statsd.flush_intervall: unknown key; did you mean statsd.flush_interval?\n",
        path.display()
    );
    assert_eq!(String::from_utf8_lossy(&checked.stderr), expected);
}
