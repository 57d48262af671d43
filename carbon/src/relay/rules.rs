//! relay-rules.conf: destinations by patterns on names.
//!
//! Read from carbon 1.1.10's `relayrules.py` and compared with recordings of carbon: sections in the order
//! of the file with `pattern`, `destinations` and `continue`, and exactly one with `default = true`, which
//! comes last wherever it stands. The first section whose pattern matches anywhere in the name, in upper or
//! lower case, gives the destinations; with `continue = true` further sections add theirs.
//!
//! Different from carbon:
//!
//! - A destination that several sections give is sent a point once.
//! - A section with neither `pattern` nor `default` is named in a warning (carbon passes over it).
//! - A rule of which no destination is configured is refused (carbon drops its points without a word).

use std::collections::HashSet;

use super::member::{FORM, Member};
use crate::conf::Findings;
use crate::conf::ini::{self, Entry, Section};
use crate::pattern::{PYTHON, Pattern};
use crate::rules::Faults;

const KEYS: [&str; 4] = ["pattern", "destinations", "default", "continue"];
/// Python's `getboolean`.
const BOOLEANS: [(&str, bool); 8] = [
    ("1", true),
    ("yes", true),
    ("true", true),
    ("on", true),
    ("0", false),
    ("no", false),
    ("false", false),
    ("off", false),
];

/// A section of the file.
#[derive(Debug)]
pub struct RelayRule {
    /// Its name.
    pub section: String,
    /// The line of its heading.
    pub line: usize,
    /// `None`: it applies to every name.
    pattern: Option<Pattern>,
    /// Where points go; not empty.
    pub destinations: Vec<Member>,
    /// Whether later sections apply, too.
    pub goes_on: bool,
}

/// The sections in the order in which they apply; the last one applies to every name.
pub type RelayRules = Vec<RelayRule>;

/// Reads the text of a relay-rules.conf.
pub fn parse(text: &str, findings: &mut Findings) -> RelayRules {
    let mut rules = Vec::new();
    let mut default: Option<RelayRule> = None;
    for section in ini::parse(text, &KEYS, findings) {
        for entry in &section.entries {
            if !KEYS.contains(&entry.key.as_str()) {
                let place = section.place(&entry.key);
                findings.warn(entry.line, place, "the key has no effect");
            }
        }
        let Some(read) = rule(&section, findings) else {
            continue;
        };
        match (&read.pattern, &default) {
            (Some(_), _) => rules.push(read),
            (None, None) => default = Some(read),
            (None, Some(first)) => {
                let wrong = format!(
                    "[{}] in line {} is the default already",
                    first.section, first.line
                );
                let place = section.place("default");
                findings.refuse(
                    section.line,
                    place,
                    wrong,
                    "one section with \"default = true\"",
                );
            }
        }
    }
    if default.is_none() && !findings.is_refused() {
        let wrong = "no section has \"default = true\": names that no pattern matches would have no destination";
        findings.refuse(0, "", wrong, "one such section, without a pattern");
    }
    rules.extend(default);
    rules
}

/// Reads a section. `None`: it has no effect, or is refused.
fn rule(section: &Section, findings: &mut Findings) -> Option<RelayRule> {
    let heading = format!("[{}]", section.name);
    let Some(listed) = section.get("destinations") else {
        let wrong = "\"destinations\" is missing";
        findings.refuse(section.line, heading, wrong, FORM);
        return None;
    };
    let destinations = destinations(section, listed, findings)?;
    let is_default = boolean(section, "default", findings)?;
    let goes_on = boolean(section, "continue", findings)?.unwrap_or(false);
    let pattern = match (section.get("pattern"), is_default) {
        (Some(_), Some(_)) => {
            let wrong = "the section has both \"pattern\" and \"default\"";
            findings.refuse(section.line, heading, wrong, "one of them");
            return None;
        }
        (Some(entry), None) => {
            // Where carbon has re.I.
            match Pattern::new(&format!("(?i){}", entry.value)) {
                Ok(pattern) => Some(pattern),
                Err(error) => {
                    let place = section.place("pattern");
                    findings.refuse(entry.line, place, error.to_string(), PYTHON);
                    return None;
                }
            }
        }
        (None, Some(true)) => None,
        // Ignored, as in carbon.
        (None, Some(false)) => return None,
        (None, None) => {
            let wrong = "the section has neither \"pattern\" nor \"default\" and no effect";
            findings.ignore(
                section.line,
                heading,
                wrong,
                "one of them, or remove the section",
            );
            return None;
        }
    };
    Some(RelayRule {
        section: section.name.clone(),
        line: section.line,
        goes_on: goes_on && pattern.is_some(),
        pattern,
        destinations,
    })
}

fn destinations(section: &Section, entry: &Entry, findings: &mut Findings) -> Option<Vec<Member>> {
    let mut all = Vec::new();
    for text in entry.value.split(',').map(str::trim) {
        match text.parse::<Member>() {
            Ok(member) => all.push(member),
            Err(error) => {
                let place = section.place("destinations");
                findings.refuse(entry.line, place, error.to_string(), FORM);
                return None;
            }
        }
    }
    Some(all)
}

/// A key that is true or false; the outer `None`: refused.
fn boolean(section: &Section, key: &str, findings: &mut Findings) -> Option<Option<bool>> {
    let Some(entry) = section.get(key) else {
        return Some(None);
    };
    let word = entry.value.to_lowercase();
    let known = BOOLEANS.iter().find(|(text, _)| *text == word);
    if known.is_none() {
        let wrong = format!("{:?} is neither true nor false", entry.value);
        findings.refuse(
            entry.line,
            section.place(key),
            wrong,
            "\"true\" or \"false\"",
        );
    }
    known.map(|(_, value)| Some(*value))
}

/// Keeps only destinations that are in `configured`, as carbon does.
///
/// # Errors
/// The first rule that none are left for.
pub fn limit(rules: &mut RelayRules, configured: &[Member]) -> Result<(), String> {
    for rule in rules {
        rule.destinations
            .retain(|member| configured.contains(member));
        if rule.destinations.is_empty() {
            let (section, line) = (&rule.section, rule.line);
            return Err(format!(
                "none of the destinations of [{section}] in line {line} is configured: its points would \
                 go nowhere"
            ));
        }
    }
    Ok(())
}

/// The destinations of `name`, each once.
pub fn destinations_of<'r>(
    rules: &'r RelayRules,
    name: &str,
    faults: &mut Faults,
) -> Vec<&'r Member> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for rule in rules {
        if !rule.matches(name, faults) {
            continue;
        }
        all.extend(
            rule.destinations
                .iter()
                .filter(|member| seen.insert(*member)),
        );
        if !rule.goes_on {
            break;
        }
    }
    all
}

impl RelayRule {
    /// Whether it applies to `name`. A pattern that takes too many steps does not match.
    pub fn matches(&self, name: &str, faults: &mut Faults) -> bool {
        match &self.pattern {
            None => true,
            Some(pattern) => faults.note(pattern.is_in(name)).unwrap_or(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::load_text;

    #[test]
    fn problems_name_file_line_and_section() {
        let text = "[a]\npattern = (\ndestinations = h:1\n[b]\ndefault = maybe\ndestinations = h:1\n\
                    [c]\npattern = c\ndestinations = h\n[d]\npattern = d\n";
        let problems = load_text("f".as_ref(), text, parse).unwrap_err();
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(
            shown[0].starts_with("f:2: [a] pattern: \"(?i)(\""),
            "{shown:?}"
        );
        assert_eq!(
            shown[1],
            "f:5: [b] default: \"maybe\" is neither true nor false, write \"true\" or \"false\""
        );
        assert!(shown[2].starts_with("f:9: [c] destinations: \"h\" is not a destination"));
        assert!(shown[3].starts_with("f:10: [d]: \"destinations\" is missing"));
        assert_eq!(shown.len(), 4);
        let problems = load_text("f".as_ref(), "", parse).unwrap_err();
        assert!(problems[0].to_string().starts_with("f: no section has"));
    }
}
