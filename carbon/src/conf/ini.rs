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
//! - What references and `[DEFAULT]` make of a file is bounded ([`MAX_FILLED`]), and so are names of sections and
//!   keys: the time to read a file is in proportion to its length.

use std::collections::{HashMap, HashSet};

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
/// What references and `[DEFAULT]` may fill in, all values of a file together: the bytes of the values that are read
/// for it, and [`FILLED`] for each. Sixteen times the largest file.
const MAX_FILLED: usize = 64 << 20;
/// What it costs to fill in a value, in bytes.
const FILLED: usize = 64;
/// The longest name of a section or an option.
const MAX_KEY: usize = 1_000;

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
        names: HashMap::new(),
        keys: HashMap::new(),
        current: 0,
        default_at: None,
        open: None,
        indent: 0,
        sectionless: false,
    };
    for (number, line) in lines(text) {
        reader.line(number, line);
    }
    let mut sections = reader.end();
    for entry in sections.iter_mut().flat_map(|section| &mut section.entries) {
        entry.value.truncate(strip_end(&entry.value).len());
    }
    let mut left = MAX_FILLED;
    inherit(&mut sections, &mut left, findings);
    for section in &mut sections {
        if !interpolate(section, &mut left, findings) {
            break;
        }
    }
    sections
}

struct Reader<'a> {
    known: &'a [&'a str],
    findings: &'a mut Findings,
    sections: Vec<Section>,
    /// Where the section of a name is; of two, the first.
    names: HashMap<String, usize>,
    /// The line of each option of each section; of two, the first.
    keys: HashMap<(usize, String), usize>,
    /// Which section options are added to.
    current: usize,
    /// `[DEFAULT]` was given again, and comes after so many other sections.
    default_at: Option<usize>,
    /// Which entry of the current section further lines may continue.
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
        let section = self.sections.get_mut(self.current)?;
        section.entries.get_mut(open)
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
        let above = entry.line;
        let is_heading = text.starts_with('[') && text.ends_with(']');
        if !is_heading && split(text).is_none_or(|(key, _)| !known.contains(&key.as_str())) {
            return;
        }
        let key = entry.key.clone();
        let section = self.sections.get(self.current);
        let place = section.map_or_else(String::new, |section| section.place(&key));
        let why = format!("{text:?} is indented, so it continues the value of line {above}");
        if is_heading {
            let accepted = "the heading without spaces before it";
            self.findings.refuse(number, place, why, accepted);
        } else {
            let warning = format!("{why}; remove the spaces before it if it is an option");
            self.findings.warn(number, place, warning);
        }
    }

    fn section(&mut self, number: usize, Heading { name, rest }: Heading<'_>) {
        self.open = None;
        let name = self.short(number, name, "the name of the section");
        if !rest.is_empty() {
            let warning = format!(
                "{rest:?} after the heading is ignored; carbon ignores the whole section instead"
            );
            self.findings.warn(number, format!("[{name}]"), warning);
        }
        if let Some(&before) = self.names.get(&name) {
            if name == DEFAULT {
                self.current = before;
                self.default_at = Some(self.sections.len() - 1);
                return;
            }
            let line = self.sections[before].line;
            let wrong = format!("the section was given before, in line {line}");
            let accepted = "another name";
            self.findings
                .refuse(number, format!("[{name}]"), wrong, accepted);
        }
        self.current = self.sections.len();
        self.names.entry(name.clone()).or_insert(self.current);
        self.sections.push(Section {
            name,
            line: number,
            entries: Vec::new(),
        });
    }

    /// `name`, which `what` is; refused if it is too long, and cut.
    fn short(&mut self, number: usize, name: &str, what: &str) -> String {
        if name.len() <= MAX_KEY {
            return name.to_owned();
        }
        let wrong = format!("{what} has {} bytes", name.len());
        let accepted = format!("at most {MAX_KEY} bytes");
        self.findings.refuse(number, "", wrong, accepted);
        name.chars().take(MAX_KEY / 4).collect()
    }

    /// The sections in their order.
    fn end(self) -> Vec<Section> {
        let mut sections = self.sections;
        if let (Some(at), Some(&default)) = (self.default_at, self.names.get(DEFAULT)) {
            let again = sections.remove(default);
            sections.insert(at, again);
        }
        sections
    }

    fn option(&mut self, number: usize, text: &str) {
        self.open = None;
        let Some(section) = self.sections.get(self.current) else {
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
        let key = self.short(number, &key, "the name of the option");
        let section = &mut self.sections[self.current];
        let known = (self.current, key.clone());
        let before = *self.keys.entry(known).or_insert(number);
        if before != number {
            let wrong = format!("the option was given before, in line {before}");
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

/// Gives the options of `[DEFAULT]` to every section that does not have them, which `left` is charged for.
fn inherit(sections: &mut [Section], left: &mut usize, findings: &mut Findings) {
    let Some(default) = sections.iter().find(|section| section.name == DEFAULT) else {
        return;
    };
    let default = default.entries.clone();
    let bytes = |entry: &Entry| entry.key.len() + entry.value.len() + FILLED;
    let cost = default.iter().map(bytes).sum();
    for section in sections
        .iter_mut()
        .filter(|section| section.name != DEFAULT)
    {
        let Some(rest) = left.checked_sub(cost) else {
            let wrong = "the options of [DEFAULT] are too many or too long for so many sections";
            let (line, place) = (section.line, format!("[{}]", section.name));
            findings.refuse(line, place, wrong, "them in the sections that need them");
            return;
        };
        *left = rest;
        let own: HashSet<&str> = section.entries.iter().map(|e| e.key.as_str()).collect();
        let is_missing = |entry: &&Entry| !own.contains(entry.key.as_str());
        let missing: Vec<Entry> = default.iter().filter(is_missing).cloned().collect();
        section.entries.extend(missing);
    }
}

/// Replaces `%(key)s` and `%%` in all values, which `left` is charged for. Whether there was enough of it.
fn interpolate(section: &mut Section, left: &mut usize, findings: &mut Findings) -> bool {
    if !section
        .entries
        .iter()
        .any(|entry| entry.value.contains('%'))
    {
        return true;
    }
    let raw: HashMap<String, String> = section
        .entries
        .iter()
        .map(|entry| (entry.key.clone(), entry.value.clone()))
        .collect();
    let name = section.name.clone();
    for entry in &mut section.entries {
        let mut expansion = Expansion {
            out: String::new(),
            references: 0,
            left,
        };
        if expansion.add(&entry.value, &raw, 1) {
            entry.value = expansion.out;
            continue;
        }
        let is_used_up = *left == 0;
        let wrong = if is_used_up {
            "the references of the form %(key)s in this file up to here are too many, or their values too long"
        } else {
            "the references of the form %(key)s in this value refer to each other, are too many, or make it too long"
        };
        let place = format!("[{name}] {}", entry.key);
        findings.refuse(entry.line, place, wrong, "the value itself");
        if is_used_up {
            return false;
        }
    }
    true
}

/// A value while its references are replaced.
struct Expansion<'l> {
    out: String,
    /// How many references were replaced, those to empty values too.
    references: usize,
    /// What may still be read for all values of the file; 0 once it was not enough.
    left: &'l mut usize,
}

impl Expansion<'_> {
    /// Appends `value`; `false` if it is too deep or too long, or has too many references.
    fn add(&mut self, value: &str, raw: &HashMap<String, String>, depth: usize) -> bool {
        *self.left = self.left.saturating_sub(value.len() + FILLED);
        if depth > MAX_DEPTH || *self.left == 0 {
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
    let text = text.strip_prefix('(')?;
    // A key is not longer: the rest is not looked through for each percent character.
    let mut near = text.bytes().take(MAX_KEY + 1);
    let end = near.position(|byte| byte == b')')?;
    let (key, after) = (&text[..end], &text[end + 1..]);
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
    fn references_of_all_values_together_have_a_bound() {
        let hundred = "%(x)s".repeat(100);
        let mut text = format!("[DEFAULT]\nx =\ny = {hundred}\n");
        // Each value has 10,000 references: no value alone is refused.
        for n in 0..2_000 {
            text.push_str(&format!("[s{n}]\nz = {}\n", "%(y)s".repeat(99)));
        }
        let refused = found(&text);
        assert_eq!(refused.len(), 1, "{refused:?}");
        let (place, why) = refused[0].split_once(": the references").unwrap();
        assert!(place.starts_with("f:") && place.ends_with("] z"), "{place}");
        assert!(
            why.contains("in this file up to here are too many"),
            "{why}"
        );
        // A file without them is not touched by that.
        let sections = |n| -> String { (0..n).map(|n| format!("[s{n}]\nz = {n}\n")).collect() };
        assert_eq!(entries(&sections(20_000)).len(), 20_000);
        let text = format!(
            "[DEFAULT]\nx = {}\n{}",
            "x".repeat(20_000),
            sections(20_000)
        );
        let refused = found(&text);
        assert_eq!(refused.len(), 1);
        assert!(
            refused[0].contains("]: the options of [DEFAULT] are too"),
            "{refused:?}"
        );
    }

    #[test]
    fn a_default_section_in_pieces_is_that_of_its_last_piece() {
        assert_eq!(
            entries("[DEFAULT]\nx = 1\n[a]\n[DEFAULT]\ny = 2\n[b]\n"),
            of(&[
                ("a", "x", "1"),
                ("a", "y", "2"),
                ("DEFAULT", "x", "1"),
                ("DEFAULT", "y", "2"),
                ("b", "x", "1"),
                ("b", "y", "2"),
            ])
        );
        let again = found("[DEFAULT]\nx = 1\n[a]\n[DEFAULT]\nx = 2\n");
        assert!(again[0].starts_with("f:5: [DEFAULT] x: the option was given before, in line 2"));
    }

    #[test]
    fn names_have_a_longest_length() {
        let long = "k".repeat(MAX_KEY + 1);
        let refused = found(&format!("[{long}]\n{long} = %({long})s\n"));
        assert_eq!(
            refused,
            [
                "f:1: the name of the section has 1001 bytes, write at most 1000 bytes",
                "f:2: the name of the option has 1001 bytes, write at most 1000 bytes",
            ]
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
