//! `storage-schemas.conf`: which archives a new file has.
//!
//! Semantics of carbon 1.1.10 (`carbon/storage.py`), checked against recordings of it: sections in
//! the order of the file, `pattern` searched anywhere in the name, first match wins. A section
//! without `pattern` or `retentions`, or whose archives whisper cannot have, is left out with a
//! warning. An invalid retention or an invalid pattern refuses the file. The differences (units such as `min`, comments after values, …) are in `docs/carbon.md`.

use whisper::{Aggregation, Header, Retention};

use super::rule_list::{RuleList, comment, compile, other_keys, unknown};
use crate::conf::Findings;
use crate::conf::ini::{Entry, Section};
use crate::pattern::Pattern;

/// The keys of a section in lower case, with those of go-carbon that mean nothing here.
const KEYS: [&str; 5] = [
    "pattern",
    "retentions",
    "priority",
    "compressed",
    "migration",
];

/// One section of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct SchemaRule {
    /// The name of the section.
    pub section: String,
    /// The line of its heading.
    pub line: usize,
    /// The regular expression, as it was written.
    pub pattern: String,
    /// The archives, in the order in which they were written.
    pub retentions: Vec<Retention>,
}

impl SchemaRule {
    /// The seconds per point of the finest archive.
    pub fn finest(&self) -> u32 {
        let steps = self
            .retentions
            .iter()
            .map(|retention| retention.step.seconds());
        steps.min().unwrap_or(0)
    }
}

/// The rules of a storage-schemas.conf.
pub type Schemas = RuleList<SchemaRule>;

impl Schemas {
    /// Reads the text of a storage-schemas.conf.
    pub fn parse(text: &str, findings: &mut Findings) -> Self {
        Self::read(text, &KEYS, findings, rule)
    }
}

fn rule(section: Section, findings: &mut Findings) -> Option<(SchemaRule, Pattern)> {
    other_keys(&section, unused, findings);
    let skip = |findings: &mut Findings, why: &str| {
        let warning = format!("{why}; the section is left out, as in carbon");
        findings.warn(section.line, format!("[{}]", section.name), warning);
        None
    };
    let Some(entry) = section.get("retentions") else {
        return skip(findings, "\"retentions\" is missing");
    };
    let retentions = archives(&section, entry, findings)?;
    let Some(pattern) = section
        .get("pattern")
        .filter(|pattern| !pattern.value.is_empty())
    else {
        return skip(findings, "\"pattern\" is missing");
    };
    let compiled = compile(&section, pattern, findings)?;
    if let Err(why) = Header::new(&retentions, 0.0, Aggregation::Average) {
        let warning = format!("{why}; the section is left out, as in carbon");
        findings.warn(entry.line, section.place("retentions"), warning);
        return None;
    }
    let rule = SchemaRule {
        line: section.line,
        pattern: pattern.value.clone(),
        retentions,
        section: section.name,
    };
    Some((rule, compiled))
}

/// Reads `10s:6h,1m:7d`. What cannot be read is refused; what is cut is warned of.
fn archives(section: &Section, entry: &Entry, findings: &mut Findings) -> Option<Vec<Retention>> {
    let place = || section.place("retentions");
    if let Some(wrong) = comment(&entry.value) {
        findings.refuse(
            entry.line,
            place(),
            wrong,
            "the comment on a line of its own",
        );
        return None;
    }
    let mut retentions = Vec::new();
    let mut sound = true;
    for definition in entry.value.split(',') {
        match Retention::parse_whisper(definition) {
            Ok(retention) => {
                if let Some(cut) = cut(definition, retention) {
                    findings.warn(entry.line, place(), cut);
                }
                retentions.push(retention);
            }
            Err(why) => {
                findings.refuse(
                    entry.line,
                    place(),
                    why.to_string(),
                    "\"10s:6h,1m:7d,10m:5y\"",
                );
                sound = false;
            }
        }
    }
    sound.then_some(retentions)
}

/// What a warning says where the length is no multiple of the step.
fn cut(definition: &str, retention: Retention) -> Option<String> {
    let (_, length) = definition.split_once(':')?;
    // A plain number is a number of points.
    let wanted = Retention::parse_whisper(&format!("1:{}", length.trim_end())).ok()?;
    let is_duration = length
        .trim_end()
        .ends_with(|c: char| c.is_ascii_alphabetic());
    let (wanted, kept) = (u64::from(wanted.points), retention.seconds());
    (is_duration && wanted != kept).then(|| {
        format!(
            "{:?} keeps {kept} s in {} points, because {wanted} s is not a multiple of {} s",
            definition.trim(),
            retention.points,
            retention.step.seconds()
        )
    })
}

/// Why a key has no effect.
fn unused(key: &str) -> Option<String> {
    Some(match key {
        "pattern" | "retentions" => return None,
        "priority" => {
            "has no effect, as in carbon: the sections apply in the order of the file".to_owned()
        }
        "compressed" | "migration" => "is go-carbon's and has no effect".to_owned(),
        "xfilesfactor" | "aggregationmethod" => {
            "has no effect here; it belongs in storage-aggregation.conf".to_owned()
        }
        key => unknown(settings::nearest(key, ["pattern", "retentions"])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::load_text;
    use std::path::Path;

    fn said(text: &str) -> Vec<String> {
        match load_text(Path::new("f"), text, Schemas::parse) {
            Ok(loaded) => {
                let mut all: Vec<String> = Vec::new();
                all.extend(loaded.value.rules().iter().map(|rule| rule.section.clone()));
                all.extend(loaded.warnings.iter().map(ToString::to_string));
                all
            }
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn faults_and_warnings_name_line_section_and_key() {
        for (text, expected) in [
            (
                "[a]\npattern = ^a\nretentions = 10s:1h # an hour\n",
                vec![
                    "f:3: [a] retentions: \"# an hour\" after the value would be part of it, write the comment on a line of its own",
                ],
            ),
            (
                "[a]\npattern = ^a ; of a\nretentions = 10s:1h\n",
                vec![
                    "f:2: [a] pattern: \"; of a\" after the value would be part of it, write the comment on a line of its own",
                ],
            ),
            (
                "[a]\npattern = ;env=prod(;|$)\nretentions = 1min:1day\n",
                vec!["a"],
            ),
            (
                "[a]\npattern = ^a\nretentions = 10s:1h,never\n",
                vec![
                    "f:3: [a] retentions: invalid retention definition \"never\": no colon between step and length, write \"10s:6h,1m:7d,10m:5y\"",
                ],
            ),
            (
                "[a]\npattern = ^a\nretentions = 7s:1h,60s:1d\n[b]\npattern = b\nretentions = 7s:1m\n",
                vec![
                    "b",
                    "f:3: [a] retentions: \"7s:1h\" keeps 3598 s in 514 points, because 3600 s is not a multiple of 7 s",
                    "f:3: [a] retentions: Higher precision archives' precision must evenly divide all lower precision archives' precision (archive0: 7, archive1: 60); the section is left out, as in carbon",
                    "f:6: [b] retentions: \"7s:1m\" keeps 56 s in 8 points, because 60 s is not a multiple of 7 s",
                ],
            ),
            (
                "[a]\npriority = 110\npatern = x\nxFilesFactor = 0\nretentions = 60:1440\n",
                vec![
                    "f:2: [a] priority: has no effect, as in carbon: the sections apply in the order of the file",
                    "f:3: [a] patern: is unknown and has no effect; did you mean pattern?",
                    "f:4: [a] xfilesfactor: has no effect here; it belongs in storage-aggregation.conf",
                    "f:1: [a]: \"pattern\" is missing; the section is left out, as in carbon",
                ],
            ),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
        let bad = said("[a]\npattern = ^(a\nretentions = 10s:1h\n");
        assert!(bad[0].starts_with("f:2: [a] pattern: "), "{bad:?}");
    }
}
