//! The dialect of INI files that carbon reads: that of Python's `ConfigParser`.
//!
//! Read from CPython 3.11's `configparser` and carbon 1.1.10's `conf.py`, and compared with
//! recordings of carbon:
//!
//! - A line whose first character is `#` or `;`, spaces aside, is a comment. A comment after a value
//!   is part of the value; parsers of values refuse it.
//! - `key = value` or `key: value`, cut at the first of the two; keys are case-insensitive.
//! - A line that is indented deeper than the option above continues its value.
//! - `[DEFAULT]` gives its options to every section, and is a section itself.
//! - `%(key)s` stands for the value of another key of the section, `%%` for a percent character.
//!
//! Different from carbon, so that no rule disappears without a word:
//!
//! - `[a] # comment` is the section `a` (carbon reads its options and then ignores them), with a
//!   warning.
//! - A percent character that is neither of the two above is itself (carbon does not start).
//! - U+FEFF at the beginning is skipped.

use std::collections::HashMap;

use super::problem::Findings;
use super::read::lines;

/// The section whose options are those of every section.
const DEFAULT: &str = "DEFAULT";
/// How deep values may refer to each other, as in Python.
const MAX_DEPTH: usize = 10;
/// The longest value after references have been replaced.
const MAX_VALUE: usize = 64 << 10;
/// The most references that are replaced for one value.
const MAX_REFERENCES: usize = 10_000;

/// A section: `[name]` and the options below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The text between the brackets.
    pub name: String,
    /// The line of its heading.
    pub line: usize,
    /// Its options in the order of the file, then those of `[DEFAULT]` that it does not have.
    pub entries: Vec<Entry>,
}

/// An option: `key = value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key in lower case.
    pub key: String,
    /// The value; continuation lines are joined by line feeds.
    pub value: String,
    /// The line of the key.
    pub line: usize,
    /// The first line that continues the value; 0 if it has one line.
    pub continued: usize,
}

impl Section {
    /// The option called `key` (in lower case).
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// How problems name an option of this section: `[name] key`.
    pub fn place(&self, key: &str) -> String {
        format!("[{}] {key}", self.name)
    }
}

/// Reads `text`. `known` are the keys, in lower case, that the file may have: they tell an
/// indented option from a continued value. Unknown keys are kept; their meaning is the caller's.
///
/// Refused: text before the first heading, lines that are neither, sections and options that are
/// given twice, indented headings.
pub fn parse(text: &str, known: &[&str], findings: &mut Findings) -> Vec<Section> {
    let mut reader = Reader {
        known,
        findings,
        sections: Vec::new(),
        open: None,
        indent: 0,
        sectionless: false,
    };
    for (number, line) in lines(text) {
        reader.line(number, line);
    }
    let Reader { mut sections, .. } = reader;
    for entry in sections.iter_mut().flat_map(|section| &mut section.entries) {
        entry.value.truncate(strip_end(&entry.value).len());
    }
    inherit(&mut sections);
    for section in &mut sections {
        interpolate(section, findings);
    }
    sections
}

struct Reader<'a> {
    known: &'a [&'a str],
    findings: &'a mut Findings,
    sections: Vec<Section>,
    /// Which entry of the last section further lines may continue.
    open: Option<usize>,
    /// How far the last heading or option was indented.
    indent: usize,
    /// Text before the first heading was reported.
    sectionless: bool,
}

impl Reader<'_> {
    fn line(&mut self, number: usize, line: &str) {
        let text = strip(line);
        if text.starts_with(['#', ';']) {
            return;
        }
        if text.is_empty() {
            if let Some(entry) = self.open_entry() {
                entry.value.push('\n');
            }
            return;
        }
        let indent = line.chars().take_while(|c| is_space(*c)).count();
        if self.open.is_some() && indent > self.indent {
            return self.go_on(number, text);
        }
        self.indent = indent;
        match heading(text) {
            Some(heading) => self.section(number, heading),
            None if text.starts_with('[') => {
                let wrong = format!("{text:?} is not the heading of a section");
                self.findings.refuse(number, "", wrong, "\"[name]\"");
                self.open = None;
            }
            None if self.sections.is_empty() => {
                if !self.sectionless {
                    let wrong = format!("{text:?} is before the first section");
                    let accepted = "a heading such as \"[name]\" above it";
                    self.findings.refuse(number, "", wrong, accepted);
                }
                self.sectionless = true;
            }
            None => self.option(number, text),
        }
    }

    fn open_entry(&mut self) -> Option<&mut Entry> {
        let open = self.open?;
        self.sections.last_mut()?.entries.get_mut(open)
    }

    /// A line that continues the value above it.
    fn go_on(&mut self, number: usize, text: &str) {
        let known = self.known;
        let Some(entry) = self.open_entry() else {
            return;
        };
        entry.value.push('\n');
        entry.value.push_str(text);
        if entry.continued == 0 {
            entry.continued = number;
        }
        let (key, above) = (entry.key.clone(), entry.line);
        let place = self.place_of(&key);
        let why = format!("{text:?} is indented, so it continues the value of line {above}");
        if text.starts_with('[') && text.ends_with(']') {
            let accepted = "the heading without spaces before it";
            self.findings.refuse(number, place, why, accepted);
        } else if split(text).is_some_and(|(key, _)| known.contains(&key.as_str())) {
            let warning = format!("{why}; remove the spaces before it if it is an option");
            self.findings.warn(number, place, warning);
        }
    }

    fn place_of(&self, key: &str) -> String {
        let section = self.sections.last();
        section.map_or_else(String::new, |section| section.place(key))
    }

    fn section(&mut self, number: usize, Heading { name, rest }: Heading<'_>) {
        self.open = None;
        if !rest.is_empty() {
            let warning = format!(
                "{rest:?} after the heading is ignored; carbon ignores the whole section instead"
            );
            self.findings.warn(number, format!("[{name}]"), warning);
        }
        let before = self
            .sections
            .iter()
            .position(|section| section.name == name);
        if let Some(before) = before {
            if name == DEFAULT {
                let again = self.sections.remove(before);
                self.sections.push(again);
                return;
            }
            let line = self.sections[before].line;
            let wrong = format!("the section was given before, in line {line}");
            let accepted = "another name";
            self.findings
                .refuse(number, format!("[{name}]"), wrong, accepted);
        }
        self.sections.push(Section {
            name: name.to_owned(),
            line: number,
            entries: Vec::new(),
        });
    }

    fn option(&mut self, number: usize, text: &str) {
        self.open = None;
        let Some(section) = self.sections.last_mut() else {
            return;
        };
        let Some((key, value)) = split(text).filter(|(key, _)| !key.is_empty()) else {
            let (place, wrong) = (
                format!("[{}]", section.name),
                format!("{text:?} is not an option"),
            );
            let accepted = "\"key = value\"";
            self.findings.refuse(number, place, wrong, accepted);
            return;
        };
        if let Some(before) = section.get(&key) {
            let wrong = format!("the option was given before, in line {}", before.line);
            let accepted = "one of the two";
            self.findings
                .refuse(number, section.place(&key), wrong, accepted);
        }
        self.open = Some(section.entries.len());
        section.entries.push(Entry {
            key,
            value: value.to_owned(),
            line: number,
            continued: 0,
        });
    }
}

struct Heading<'a> {
    name: &'a str,
    /// What stands after the bracket.
    rest: &'a str,
}

/// `[name]`, where the name may have brackets; after it nothing, or a comment.
fn heading(text: &str) -> Option<Heading<'_>> {
    let inner = text.strip_prefix('[')?;
    // A comment begins after a bracket and a space, and may have brackets itself.
    let commented = inner.match_indices(']').find(|(at, _)| {
        let after = &inner[at + 1..];
        after.starts_with(is_space) && strip(after).starts_with(['#', ';'])
    });
    let end = match commented {
        Some((at, _)) => at,
        None => inner.rfind(']')?,
    };
    let (name, rest) = (&inner[..end], strip(&inner[end + 1..]));
    (!name.is_empty()).then_some(Heading { name, rest })
}

/// Key (in lower case) and value of `key = value` or `key: value`.
fn split(text: &str) -> Option<(String, &str)> {
    let at = text.find(['=', ':'])?;
    let (key, value) = (strip(&text[..at]), strip(&text[at + 1..]));
    Some((key.to_lowercase(), value))
}

/// Gives the options of `[DEFAULT]` to every section that does not have them.
fn inherit(sections: &mut [Section]) {
    let Some(default) = sections.iter().find(|section| section.name == DEFAULT) else {
        return;
    };
    let default = default.entries.clone();
    for section in sections.iter_mut() {
        let missing = default
            .iter()
            .filter(|entry| section.get(&entry.key).is_none());
        let missing: Vec<Entry> = missing.cloned().collect();
        section.entries.extend(missing);
    }
}

/// Replaces `%(key)s` and `%%` in all values.
fn interpolate(section: &mut Section, findings: &mut Findings) {
    if !section
        .entries
        .iter()
        .any(|entry| entry.value.contains('%'))
    {
        return;
    }
    let raw: HashMap<String, String> = section
        .entries
        .iter()
        .map(|entry| (entry.key.clone(), entry.value.clone()))
        .collect();
    let name = section.name.clone();
    for entry in &mut section.entries {
        let mut expansion = Expansion::default();
        if expansion.add(&entry.value, &raw, 1) {
            entry.value = expansion.out;
        } else {
            findings.refuse(
                entry.line,
                format!("[{name}] {}", entry.key),
                "the references of the form %(key)s in this value refer to each other, are too many, or make it too long",
                "the value itself",
            );
        }
    }
}

/// A value while its references are replaced.
#[derive(Default)]
struct Expansion {
    out: String,
    /// How many references were replaced, those to empty values too.
    references: usize,
}

impl Expansion {
    /// Appends `value`; `false` if it is too deep or too long, or has too many references.
    fn add(&mut self, value: &str, raw: &HashMap<String, String>, depth: usize) -> bool {
        if depth > MAX_DEPTH {
            return false;
        }
        let mut rest = value;
        while let Some(at) = rest.find('%') {
            self.out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                self.out.push('%');
                rest = after;
            } else if let Some((referred, after)) = reference(rest)
                && let Some(value) = raw.get(&referred.to_lowercase())
            {
                self.references += 1;
                if self.references > MAX_REFERENCES || !self.add(value, raw, depth + 1) {
                    return false;
                }
                rest = after;
            } else {
                self.out.push('%');
            }
            if self.out.len() > MAX_VALUE {
                return false;
            }
        }
        self.out.push_str(rest);
        self.out.len() <= MAX_VALUE.max(value.len())
    }
}

/// `(key)s` at the beginning of `text`: the key and what follows.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (key, after) = text.strip_prefix('(')?.split_once(')')?;
    let after = after.strip_prefix('s')?;
    (!key.is_empty()).then_some((key, after))
}

/// White space as Python's `str.strip` has it.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

fn strip_end(text: &str) -> &str {
    text.trim_end_matches(is_space)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::load_text;
    use std::path::Path;

    const KNOWN: &[&str] = &["pattern", "retentions"];

    fn read(text: &str) -> (Vec<(String, String, String)>, Vec<String>) {
        let loaded = load_text(Path::new("f"), text, |text, findings| {
            parse(text, KNOWN, findings)
        });
        match loaded {
            Ok(loaded) => {
                let all = loaded.value.into_iter().flat_map(|section| {
                    let name = section.name;
                    let entry = |entry: Entry| (name.clone(), entry.key, entry.value);
                    section.entries.into_iter().map(entry).collect::<Vec<_>>()
                });
                let warnings = loaded.warnings.iter().map(ToString::to_string);
                (all.collect(), warnings.collect())
            }
            Err(problems) => {
                let problems = problems.iter().map(ToString::to_string);
                (Vec::new(), problems.collect())
            }
        }
    }

    fn entries(text: &str) -> Vec<(String, String, String)> {
        let (entries, found) = read(text);
        assert_eq!(found, [""; 0], "{text:?}");
        entries
    }

    fn found(text: &str) -> Vec<String> {
        read(text).1
    }

    fn of(all: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
        let owned = |(a, b, c): &(&str, &str, &str)| (a.to_string(), b.to_string(), c.to_string());
        all.iter().map(owned).collect()
    }

    #[test]
    fn sections_and_options_are_read_as_python_does() {
        let text = "# one\n[a]\nPattern = ^a=b:c\nx:1\n\n; two\n[b]b] \n  pattern=;x\n  # three\n";
        assert_eq!(
            entries(text),
            of(&[
                ("a", "pattern", "^a=b:c"),
                ("a", "x", "1"),
                ("b]b", "pattern", ";x"),
            ])
        );
        assert_eq!(
            entries("[a]\r\nx = 1,\r\n  2,\r\n\r\n  # no\r\n  3\r\n"),
            of(&[("a", "x", "1,\n2,\n\n3")])
        );
    }

    #[test]
    fn defaults_and_references_are_filled_in() {
        assert_eq!(
            entries("[DEFAULT]\nx = 1\ny = %(x)s%%\n[a]\nx = 2\n[b]\nz = 100% %(no)s %(y)s\n"),
            of(&[
                ("DEFAULT", "x", "1"),
                ("DEFAULT", "y", "1%"),
                ("a", "x", "2"),
                ("a", "y", "2%"),
                ("b", "z", "100% %(no)s 1%"),
                ("b", "x", "1"),
                ("b", "y", "1%"),
            ])
        );
    }

    #[test]
    fn references_have_bounds() {
        let looped = found("[a]\nx = %(y)s\ny = %(x)s\n");
        assert_eq!(looped.len(), 2);
        assert!(looped[0].starts_with("f:2: [a] x: the references"));
        let mut text = "[a]\nx0 = 0123456789012345678901234567890123456789\n".to_owned();
        for n in 1..10 {
            let before = n - 1;
            let line = format!("%(x{before})s").repeat(50);
            text.push_str(&format!("x{n} = {line}\n"));
        }
        assert!(!found(&text).is_empty());
        // References to nothing make a value no longer.
        let mut text = "[a]\nx0 =\n".to_owned();
        for n in 1..10 {
            text.push_str(&format!(
                "x{n} = {}\n",
                format!("%(x{})s", n - 1).repeat(20)
            ));
        }
        let found = found(&text);
        assert!(
            found[0].starts_with("f:6: [a] x4: the references"),
            "{found:?}"
        );
    }

    #[test]
    fn faults_name_their_line() {
        for (text, expected) in [
            (
                "x = 1\ny = 2\n[a]\n",
                "f:1: \"x = 1\" is before the first section, write a heading such as \"[name]\" above it",
            ),
            (
                "[a]\nx\n",
                "f:2: [a]: \"x\" is not an option, write \"key = value\"",
            ),
            (
                "[a]\n= x\n",
                "f:2: [a]: \"= x\" is not an option, write \"key = value\"",
            ),
            (
                "[a\nx = 1\n",
                "f:1: \"[a\" is not the heading of a section, write \"[name]\"",
            ),
            (
                "[]\n",
                "f:1: \"[]\" is not the heading of a section, write \"[name]\"",
            ),
            (
                "[a]\n[b]\n[a]\n",
                "f:3: [a]: the section was given before, in line 1, write another name",
            ),
            (
                "[a]\nx = 1\nX = 2\n",
                "f:3: [a] x: the option was given before, in line 2, write one of the two",
            ),
            (
                "[a]\nx = 1\n  [b]\n",
                "f:3: [a] x: \"[b]\" is indented, so it continues the value of line 2, write the heading without spaces before it",
            ),
            (
                "[a]\nx = 1\n  Pattern = 2\n",
                "f:3: [a] x: \"Pattern = 2\" is indented, so it continues the value of line 2; remove the spaces before it if it is an option",
            ),
            (
                "[a] # see [b]\n",
                "f:1: [a]: \"# see [b]\" after the heading is ignored; carbon ignores the whole section instead",
            ),
        ] {
            assert_eq!(found(text).first().map(String::as_str), Some(expected));
        }
    }
}
