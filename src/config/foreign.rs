//! Configuration files of the programs that plumbago replaces, given in the place of its own.
//!
//! Headings and keys decide, never the name of the file: distributions rename them. A file is
//! recognised only by what no plumbago.toml can hold, so that a mistake in one is never taken for
//! another program's file. What is said names the keys of plumbago.toml and the table in `docs/`.

use std::path::Path;

use carbon::conf::lines;

/// A file of another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// Graphite's storage-schemas.conf.
    Schemas,
    /// Graphite's storage-aggregation.conf.
    Aggregation,
    /// Graphite's carbon.conf.
    Carbon,
    /// StatsD's config.js.
    StatsD,
    /// go-carbon's TOML.
    GoCarbon,
}

/// Sections of carbon.conf; each may be followed by a colon and the name of an instance.
const CARBON: [&str; 3] = ["cache", "relay", "aggregator"];
/// Keys of StatsD's config.js, of which each file has at least one.
const STATSD: [&str; 9] = [
    "backends",
    "flushInterval",
    "graphite",
    "graphiteHost",
    "graphitePort",
    "mgmt_port",
    "percentThreshold",
    "port",
    "servers",
];
/// Sections of go-carbon.
const GO_CARBON: [&str; 13] = [
    "cache",
    "carbonlink",
    "carbonserver",
    "common",
    "dump",
    "grpc",
    "pickle",
    "pprof",
    "prometheus",
    "tags",
    "tcp",
    "udp",
    "whisper",
];

impl Foreign {
    /// The program that reads files like `text`; `None` if it may be a plumbago.toml.
    pub(super) fn recognise(text: &str) -> Option<Self> {
        if is_statsd(text) {
            return Some(Self::StatsD);
        }
        let mut keys = Keys::default();
        for (_, line) in lines(text) {
            let line = line.trim();
            if let Some(heading) = line
                .strip_prefix('[')
                .and_then(|rest| rest.split(']').next())
            {
                // `[[listener]]` of TOML.
                keys.open(heading.trim_start_matches('['));
            } else if let Some((key, _)) = line.split_once(['=', ':'])
                && !line.starts_with(['#', ';'])
            {
                keys.add(key.trim_end());
            }
            if let Some(found) = keys.decided() {
                return Some(found);
            }
        }
        keys.is_go_carbon().then_some(Self::GoCarbon)
    }

    /// What to do with the file, which was given as `path`.
    pub(super) fn advice(self, path: &Path) -> String {
        let shown = path.display();
        let named = |name: &str, key: &str| {
            format!(
                "{shown}: this is Graphite's {name}; name it in a plumbago.toml, write {key} = \
                 {:?}, or start with --set {key}={shown}",
                shown.to_string()
            )
        };
        match self {
            Self::Schemas => named("storage-schemas.conf", "carbon.schemas"),
            Self::Aggregation => named("storage-aggregation.conf", "carbon.aggregation"),
            Self::Carbon => format!(
                "{shown}: this is Graphite's carbon.conf, which plumbago does not read; write a \
                 plumbago.toml: carbon.whisper_dir for LOCAL_DATA_DIR, carbon.line_tcp for \
                 LINE_RECEIVER_PORT, carbon.pickle for PICKLE_RECEIVER_PORT, carbon.schemas for the \
                 storage-schemas.conf beside it; the table \"carbon.conf\" in docs/carbon.md has \
                 every key"
            ),
            Self::StatsD => format!(
                "{shown}: this is StatsD's config.js, which plumbago does not read; write a \
                 plumbago.toml: statsd.udp for port and address, statsd.flush_interval for \
                 flushInterval, statsd.output for graphiteHost and graphitePort; the table \
                 \"Coming from statsd\" in docs/statsd.md has the other keys"
            ),
            Self::GoCarbon => format!(
                "{shown}: this is go-carbon's configuration, which plumbago does not read; write a \
                 plumbago.toml: carbon.whisper_dir for whisper.data-dir, carbon.schemas for \
                 whisper.schemas-file, carbon.aggregation for whisper.aggregation-file, \
                 carbon.line_tcp for tcp.listen; the table \"go-carbon\" in docs/carbon.md has the \
                 other keys"
            ),
        }
    }
}

/// What was seen of a file in sections.
#[derive(Debug, Default)]
struct Keys {
    heading: String,
    /// The present section has a pattern.
    has_pattern: bool,
    /// What makes the present section one of Graphite's rules, if it has a pattern, too.
    rule: Option<Foreign>,
    /// Keys of carbon.conf in the present section.
    capitals: usize,
    /// Different sections of go-carbon.
    go_carbon: Vec<&'static str>,
    /// A key with a hyphen was seen in one of them.
    has_hyphen: bool,
}

impl Keys {
    fn open(&mut self, heading: &str) {
        self.heading = heading.trim().to_owned();
        (self.has_pattern, self.rule, self.capitals) = (false, None, 0);
        let known = GO_CARBON.iter().find(|known| **known == self.heading);
        self.go_carbon
            .extend(known.filter(|known| !self.go_carbon.contains(known)));
    }

    fn add(&mut self, key: &str) {
        if self.heading.is_empty() {
            return;
        }
        match key.to_ascii_lowercase().as_str() {
            "pattern" => self.has_pattern = true,
            "retentions" => self.rule = Some(Foreign::Schemas),
            "xfilesfactor" | "aggregationmethod" => self.rule = Some(Foreign::Aggregation),
            _ => {}
        }
        let is_capital = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if key.contains('_') && key.chars().all(is_capital) {
            self.capitals += 1;
        }
        self.has_hyphen |= GO_CARBON.contains(&self.heading.as_str()) && key.contains('-');
    }

    /// The program, as soon as further lines cannot change it.
    fn decided(&self) -> Option<Foreign> {
        let section = self.heading.split(':').next().unwrap_or_default();
        if CARBON.contains(&section) && self.capitals > 0 {
            return Some(Foreign::Carbon);
        }
        self.rule.filter(|_| self.has_pattern)
    }

    fn is_go_carbon(&self) -> bool {
        self.go_carbon.len() > 1 || self.has_hyphen
    }
}

/// Whether `text` is an object of JavaScript with keys of StatsD. No TOML begins with a brace.
fn is_statsd(text: &str) -> bool {
    let object = without_comments(text);
    let object = object.trim_start_matches("module.exports").trim_start();
    let object = object.trim_start_matches(['=', '(']).trim_start();
    object.starts_with('{')
        && object.split([',', '{', '\n']).any(|part| {
            let key = part.split(':').next().unwrap_or_default();
            part.contains(':') && STATSD.contains(&key.trim().trim_matches(['"', '\'']))
        })
}

/// The text after the comments of JavaScript with which it begins.
fn without_comments(text: &str) -> &str {
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    loop {
        let after = if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/")
        } else if let Some(comment) = rest.strip_prefix("//") {
            comment.split_once('\n')
        } else {
            return rest;
        };
        rest = after.map_or("", |(_, after)| after.trim_start());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMAS: &str =
        "# Schema definitions\n[carbon]\npattern = ^carbon\\.\nretentions = 60:90d\n";
    const AGGREGATION: &str =
        "[min]\npattern = \\.min$\nxFilesFactor = 0.1\naggregationMethod = min\n";
    const CARBON_CONF: &str = "[cache]\n# Configure carbon directories.\nSTORAGE_DIR = /var/lib/graphite/\nUSER =\n[relay]\n";
    const INSTANCE: &str = "[cache:b]\nLINE_RECEIVER_PORT = 2103\n";
    const CONFIG_JS: &str = "/* This is\n   the example */\n// no more\n{\n  graphitePort: 2003\n, graphiteHost: \"graphite.example.com\"\n, port: 8125\n, backends: [ \"./backends/graphite\" ]\n}\n";
    const CONFIG_JSON: &str = "{\"flushInterval\": 10000, \"servers\": []}";
    const GO_CARBON_TOML: &str = "[common]\nuser = \"carbon\"\nmax-cpu = 4\n[whisper]\ndata-dir = \"/srv\"\n[[logging]]\nlogger = \"\"\n";
    const WHISPER_ONLY: &str =
        "[whisper]\nschemas-file = \"/etc/go-carbon/storage-schemas.conf\"\n";

    #[test]
    fn files_of_other_programs_are_recognised() {
        for (text, expected) in [
            (SCHEMAS, Foreign::Schemas),
            (
                "[stats]\nRetentions: 10s:1h\nPattern: ^stats\n",
                Foreign::Schemas,
            ),
            (AGGREGATION, Foreign::Aggregation),
            (CARBON_CONF, Foreign::Carbon),
            (INSTANCE, Foreign::Carbon),
            (CONFIG_JS, Foreign::StatsD),
            (CONFIG_JSON, Foreign::StatsD),
            ("module.exports = {port: 8125}", Foreign::StatsD),
            (GO_CARBON_TOML, Foreign::GoCarbon),
            (WHISPER_ONLY, Foreign::GoCarbon),
        ] {
            assert_eq!(Foreign::recognise(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_plumbago_toml_with_mistakes_is_not_taken_for_another_file() {
        for text in [
            "",
            "{}",
            "{ font: 1 }",
            "// a comment",
            "/* open",
            "data = \"x\"\n[carbon]\nretentions = \"10s:1h\"\n",
            "[statsd]\nport = 8125\nflushInterval = 10\n",
            "[cache]\nmax_size = 3\n",
            "[carbon]\nLINE_RECEIVER_PORT = 2003\n",
            "[carbon]\nline-tcp = 3\n",
            "[whisper]\n",
            "pattern = 1\nretentions = 2\n",
            "# pattern = 1\n[a]\n# retentions = 2\npattern = 3\n[b]\nretentions = 1\n",
        ] {
            assert_eq!(Foreign::recognise(text), None, "{text}");
        }
        let printed = crate::config::Config::default().print();
        assert_eq!(Foreign::recognise(&printed), None);
    }

    #[test]
    fn the_keys_that_are_named_exist() {
        let all = [
            Foreign::Schemas,
            Foreign::Aggregation,
            Foreign::Carbon,
            Foreign::StatsD,
            Foreign::GoCarbon,
        ];
        for foreign in all {
            let advice = foreign.advice(Path::new("/etc/x"));
            let words = advice.split([' ', ',', ';', '=']);
            let keys =
                words.filter(|word| word.starts_with("carbon.") || word.starts_with("statsd."));
            let keys: Vec<&str> = keys.filter(|word| *word != "carbon.conf").collect();
            assert!(!keys.is_empty(), "{advice}");
            for key in keys {
                assert!(crate::config::is_known(key), "{key}: {advice}");
            }
        }
    }
}
