//! What is refused, and in which words.

use std::io::Write;

use super::*;

fn from_text(text: &str) -> Result<Config, Refused> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let sources = Sources {
        file: Some(file.path().to_owned()),
        ..Sources::default()
    };
    let shown = file.path().display().to_string();
    sources.read().flawless().map_err(|refused| Refused {
        lines: refused
            .lines
            .iter()
            .map(|line| line.replace(&shown, "FILE"))
            .collect(),
        ..refused
    })
}

fn refusals(text: &str) -> Vec<String> {
    let refused = from_text(text).unwrap_err();
    assert!(!refused.is_usage);
    refused.lines
}

#[test]
fn every_key_has_a_comment_and_every_comment_a_key() {
    let Value::Table(table) = Value::try_from(Config::default()).unwrap() else {
        panic!("a configuration is a table");
    };
    let mut real: Vec<String> = Vec::new();
    let mut tables = vec![(String::new(), &table)];
    while let Some((above, table)) = tables.pop() {
        for (name, value) in table {
            let name = format!("{above}{name}");
            match value {
                Value::Table(inner) => tables.push((format!("{name}."), inner)),
                _ => real.push(name),
            }
        }
    }
    let mut listed: Vec<String> = keys().collect();
    real.sort();
    listed.sort();
    assert_eq!(real, listed);
    for section in SECTIONS {
        for key in section.keys {
            assert!(key.help.len() > 10, "{}: say what it means", key.name);
        }
    }
}

#[test]
fn what_is_printed_reads_back() {
    let config = Config::load(
        None,
        &["log.format=json".into(), "data=/srv/a \"b\"".into()],
    )
    .unwrap();
    assert_eq!(from_text(&config.print()).unwrap(), config);
    assert_eq!(
        from_text(&Config::default().print()).unwrap(),
        Config::default()
    );
}

/// One mistake each: the section, the line, and what is said about it.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "",
        "data = 5",
        "5 is not text in quotes, write \"plumbago-data\"",
    ),
    (
        "",
        "data = \"\"",
        "the data directory has no name, write \"plumbago-data\"",
    ),
    (
        "",
        "data = \"/dev/null/data\"",
        "/dev/null is not a directory",
    ),
    ("", "dta = \"x\"", "unknown key; did you mean data?"),
    ("", "log = 3", "a section, write [log]"),
    (
        "",
        "flush_interval = \"10s\"",
        "unknown key; did you mean statsd.flush_interval?",
    ),
    (
        "",
        "zyzzyva = 1",
        "unknown key; `plumbago config` prints all keys",
    ),
    (
        "log",
        "level = \"verbose\"",
        "\"verbose\" is not a log level, write \"info\", \"debug\" or \"info,carbon=debug\"",
    ),
    (
        "log",
        "format = \"xml\"",
        "\"xml\" is not a choice, write \"text\" or \"json\"",
    ),
    (
        "log",
        "format = 1",
        "1 is not a choice, write \"text\" or \"json\"",
    ),
    (
        "stats",
        "self = \"yes\"",
        "\"yes\" is neither true nor false, write true or false",
    ),
    (
        "statsd",
        "udp = \"foo\"",
        "\"foo\" is not an address, write \"127.0.0.1:8125\"",
    ),
    (
        "statsd",
        "udp = [\"127.0.0.1:8125\", \"127.0.0.1:99999\"]",
        "\"127.0.0.1:99999\" is not an address, write \"127.0.0.1:8125\"",
    ),
    (
        "statsd",
        "udp = 8125",
        "8125 is not text in quotes, write \"127.0.0.1:8125\"",
    ),
    (
        "statsd",
        "http = \"127.0.0.1:8080\"",
        "unknown key; did you mean carbon.http?",
    ),
    (
        "statsd",
        "tcp = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
        "\"127.0.0.1:1\" is listened on by statsd.tcp, too",
    ),
    (
        "statsd",
        "tcp = \"0.0.0.0:8080\"",
        "\"127.0.0.1:8080\" has the port of 0.0.0.0:8080, which is in statsd.tcp",
    ),
    (
        "statsd",
        "unix = \"/nowhere/statsd.sock\"",
        "\"/nowhere/statsd.sock\" is in no directory: create /nowhere",
    ),
    (
        "statsd",
        "unix = \"/dev/null\"",
        "\"/dev/null\" exists and is not a socket",
    ),
    (
        "statsd",
        "unix_stream = \"/tmp/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/x\"",
        "\"/tmp/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/0123456789/x\" \
         has 116 bytes, and the path of a socket has 107 at most",
    ),
    (
        "statsd",
        "unix_mode = \"999\"",
        "\"999\" is not a file mode in octal, write \"0660\"",
    ),
    (
        "statsd",
        "receive_buffer = \"2GiB\"",
        "\"2GiB\" is too large, write \"1GiB\" or less",
    ),
    (
        "statsd",
        "flush_interval = 10",
        "10 is not a duration, write \"10s\"",
    ),
    (
        "statsd",
        "flush_interval = \"10\"",
        "\"10\" is not a duration, write \"10s\"",
    ),
    (
        "statsd",
        "flush_interval = \"0s\"",
        "\"0s\" is too small, write \"1ms\" or more",
    ),
    (
        "statsd",
        "timestamp = \"now\"",
        "\"now\" is not a choice, write \"end\" or \"start\"",
    ),
    (
        "statsd",
        "output = \"tcp://nohost.invalid\"",
        "the address of \"nohost.invalid:2003\" cannot be found: ",
    ),
    (
        "statsd",
        "output = [\"embedded\", \"embedded\"]",
        "\"embedded\" is listed twice",
    ),
    (
        "statsd",
        "output = \"udp://a:1\"",
        "\"udp://a:1\" is not an output, write \"embedded\", \"tcp://HOST:2003\", \
         \"pickle://HOST:2004\", \"console\" or \"discard\"",
    ),
    (
        "statsd",
        "output_queue = \"0B\"",
        "\"0B\" is too small, write \"64KiB\" or more",
    ),
    (
        "statsd",
        "percentiles = [90, 101]",
        "101 is not a number from -100 to 100, write 90",
    ),
    (
        "statsd",
        "delete_sets = 1",
        "1 is not true, false or \"idle\", write \"idle\"",
    ),
    (
        "statsd",
        "gauges_max_ttl = 0",
        "0 is too small, write 1 or more",
    ),
    (
        "statsd",
        "histogram = [{metric = \"a\", bins = [2, 1]}]",
        "the bins are not in ascending order, write [1, 10, 100, \"inf\"]",
    ),
    (
        "statsd",
        "histogram = [{metric = \"a\"}]",
        "the key \"bins\" is missing",
    ),
    (
        "statsd",
        "calculated_timer_metrics = [\"medain\"]",
        "\"medain\" is not a statistic of timers, write \"median\"",
    ),
    (
        "statsd",
        "prefix_stats = \"a b\"",
        "\"a b\" cannot be part of a series' name, write letters, digits, \"_\", \"-\" and single dots",
    ),
    (
        "statsd",
        "max_names = -1",
        "-1 is not a whole number of 0 or more, write 5000000",
    ),
    (
        "statsd",
        "max_name_length = 70000",
        "70000 is too large, write 65000 or less",
    ),
    (
        "statsd",
        "key_flush_percent = 0",
        "0 is not a percentage, write a number above 0 and up to 100",
    ),
    (
        "carbon",
        "line_tcp = \"127.0.0.1\"",
        "\"127.0.0.1\" is not an address, write \"127.0.0.1:2003\"",
    ),
    (
        "carbon",
        "whisper_dir = \"/nowhere/at/all\"",
        "\"/nowhere/at/all\" does not exist: create it first, or leave the key empty for \
         \"whisper\" in the data directory",
    ),
    (
        "carbon",
        "whisper_dir = \"/dev/null\"",
        "\"/dev/null\" is not a directory",
    ),
    (
        "carbon",
        "max_cache_size = 512",
        "512 is not a size, write \"512B\"",
    ),
    (
        "carbon",
        "max_cache_size = \"0B\"",
        "\"0B\" is too small, write \"64KiB\" or more",
    ),
    (
        "carbon",
        "write_strategy = \"fast\"",
        "\"fast\" is not a choice, write \"sorted\", \"max\", \"timesorted\" or \"naive\"",
    ),
    (
        "journal",
        "sync = 200",
        "200 is not a time to sync, write \"200ms\"",
    ),
    (
        "journal",
        "sync = \"often\"",
        "\"often\" is not a time to sync, write \"always\", \"200ms\" or \"off\"",
    ),
    (
        "journal",
        "max_size = \"1B\"",
        "\"1B\" is too small, write \"1MiB\" or more",
    ),
    (
        "render",
        "http = [\"127.0.0.1\"]",
        "\"127.0.0.1\" is not an address, write \"127.0.0.1:8080\"",
    ),
    (
        "render",
        "time_zone = \"Mars\"",
        "\"Mars\" is not an IANA time zone, write \"UTC\" or \"Europe/Berlin\"",
    ),
    (
        "render",
        "default_events = \"deploy -\"",
        "\"deploy -\": a \"-\" stands alone: write the tag right after it, as in \"-canary\"",
    ),
    (
        "render",
        "concurrency = 5000",
        "5000 is too large, write 1024 or less",
    ),
    ("render", "now = -1", "-1 is too small, write 0 or more"),
    (
        "events",
        "rules = [{label = \"a\"}]",
        "a rule has either \"tags\" or \"metric\"",
    ),
    (
        "events",
        "rules = 5",
        "5 is not a table, write {tags = \"deploy\", color = \"red\"}",
    ),
    (
        "auth",
        "tokens = \"\"",
        "an empty token protects nothing, write ASCII letters and digits, such as the output of `openssl rand -hex 16`",
    ),
    (
        "auth",
        "hosts = \"https://graphs.example.com/\"",
        "\"https://graphs.example.com/\" is not a host name without a port, write \"graphs.example.com\"",
    ),
];

#[test]
fn every_mistake_is_reported_with_file_line_key_and_what_to_write() {
    for (section, line, message) in MISTAKES {
        let header = match *section {
            "" => String::new(),
            section => format!("[{section}]"),
        };
        let said = refusals(&format!("# a comment\n{header}\n{line}\n")).join("\n");
        let name = line.split(' ').next().unwrap_or_default();
        let key = match *section {
            "" => name.to_owned(),
            section => format!("{section}.{name}"),
        };
        // Two listeners at one address: the later key is named.
        if message.contains("which is in") {
            assert_eq!(said, format!("render.http: {message}"));
            continue;
        }
        let said = said.replace(".metric: ", ": ").replace(".bins: ", ": ");
        let expected = format!("FILE:3: {key}: {message}");
        // The system's own words may follow.
        let open = message.ends_with(": ");
        assert!(
            said == expected || open && said.starts_with(&expected),
            "{said}\n{expected}"
        );
    }
}

#[test]
fn a_file_of_another_program_is_answered_with_what_to_do() {
    let said = refusals("[stats]\npattern = ^stats\\.\nretentions = 10s:6h,1m:7d\n");
    assert_eq!(
        said,
        [
            "FILE: this is Graphite's storage-schemas.conf; name it in a plumbago.toml, write \
             carbon.schemas = \"FILE\", or start with --set carbon.schemas=FILE"
        ]
    );
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let mut text = String::new();
    let mut expected = 0;
    let mut last = "";
    let mut seen = Vec::new();
    for (section, line, message) in MISTAKES {
        let key = (section, line.split(' ').next());
        // A key can be written once, and sections after the keys above them.
        if *line == "log = 3" || seen.contains(&key) || message.contains("which is in") {
            continue;
        }
        seen.push(key);
        if *section != last {
            text += &format!("[{section}]\n");
            last = section;
        }
        text += &format!("{line}\n");
        expected += 1;
    }
    let said = refusals(&text);
    assert_eq!(said.len(), expected, "{said:#?}");
    let line = |text: &String| text.split(':').nth(1).and_then(|n| n.parse::<usize>().ok());
    assert!(said.is_sorted_by_key(line), "{said:#?}");
    for word in [
        "invalid type",
        "expected",
        "struct",
        "sequence",
        "u32",
        "variant",
    ] {
        assert!(
            !said.iter().any(|text| text.contains(word)),
            "{word}: {said:#?}"
        );
    }
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_each_line() {
    assert_eq!(
        refusals("data = \n[log]\nlevel = info\n"),
        [
            "FILE:1: the value is missing, or is text without quotes, write KEY = \"TEXT\"",
            "FILE:3: the value is missing, or is text without quotes, write KEY = \"TEXT\"",
        ]
    );
}

#[test]
fn a_single_value_is_a_list_of_one() {
    let config = from_text("[statsd]\nudp = \"127.0.0.1:1\"\npercentiles = 95\n").unwrap();
    assert_eq!(config.statsd.udp, ["127.0.0.1:1"]);
    assert_eq!(config.statsd.percentiles.0, [95.0]);
}

#[test]
fn overrides_take_toml_bare_words_and_say_what_is_wrong() {
    let set = |text: &str| Config::load(None, &[text.to_owned()]);
    assert_eq!(set("data=/a/b").unwrap().data, Path::new("/a/b"));
    assert_eq!(set("data=\"/a b\"").unwrap().data, Path::new("/a b"));
    assert_eq!(set("data=2024").unwrap().data, Path::new("2024"));
    assert!(!set("stats.self=false").unwrap().stats.own);
    assert_eq!(set("log.level=0").unwrap().log.level, "0");
    assert_eq!(set("statsd.udp=[::1]:1").unwrap().statsd.udp, ["[::1]:1"]);
    assert_eq!(set("statsd.admin=").unwrap().statsd.admin, [""; 0]);
    for (text, why) in [
        (
            "data",
            "not KEY=VALUE, write for example statsd.flush_interval=1s",
        ),
        ("log.lvel=x", "unknown key; did you mean log.level?"),
        (
            "stats.self=perhaps",
            "\"perhaps\" is neither true nor false, write true or false",
        ),
        (
            "statsd.flush_interval=10",
            "\"10\" is not a duration, write \"10s\"",
        ),
        (
            "statsd.udp=foo",
            "\"foo\" is not an address, write \"127.0.0.1:8125\"",
        ),
        (
            "carbon.whisper_dir=/dev/null",
            "\"/dev/null\" is not a directory",
        ),
    ] {
        let refused = set(text).unwrap_err();
        assert!(refused.is_usage);
        assert_eq!(refused.lines, [format!("--set {text}: {why}")]);
    }
}

#[test]
fn the_data_directory_of_the_command_line_is_checked_by_its_name() {
    let sources = Sources {
        data: Some("/dev/null".into()),
        ..Sources::default()
    };
    let refused = sources.read().usable().unwrap_err();
    assert_eq!(
        refused.lines,
        ["--data /dev/null: /dev/null is not a directory"]
    );
    assert!(refused.is_usage);
}

#[test]
fn the_file_may_come_through_a_pipe_but_not_into_a_server_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    let sources = Sources {
        file: Some(pipe.clone()),
        ..Sources::default()
    };
    let refused = sources.read_again().usable().unwrap_err();
    let shown = pipe.display();
    assert_eq!(refused.lines, [format!("{shown}: is not a regular file")]);
    let writer = std::thread::spawn(move || std::fs::write(pipe, "data = \"elsewhere\"\n"));
    let config = sources.read().usable().unwrap();
    assert_eq!(config.data, Path::new("elsewhere"));
    writer.join().unwrap().unwrap();
}
