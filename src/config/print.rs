//! The configuration as text: every key below its help.

use toml::Value;

use super::{Config, SECTIONS};

impl Config {
    /// The whole configuration as TOML, each key below its comment.
    pub fn print(&self) -> String {
        let table = match Value::try_from(self) {
            Ok(Value::Table(table)) => table,
            _ => toml::Table::new(),
        };
        let mut out = String::from(
            "# Every key of plumbago with the value in effect. A file needs only the keys that differ\n\
             # from the defaults. Durations: \"10s\"; sizes: \"64MiB\"; where a list is shown, a single\n\
             # value is accepted, too. The empty list turns a listener off.\n",
        );
        for section in SECTIONS {
            let values = if section.name.is_empty() {
                Some(&table)
            } else {
                out.push_str(&format!("\n[{}]\n", section.name));
                let mut names = section.name.split('.');
                names.try_fold(&table, |table, name| {
                    table.get(name).and_then(Value::as_table)
                })
            };
            for key in section.keys {
                let Some(value) = values.and_then(|values| values.get(key.name)) else {
                    continue;
                };
                out.push('\n');
                for line in wrap(&key.help.replace('`', ""), 96) {
                    out.push_str(&format!("# {line}\n"));
                }
                out.push_str(&format!("{} = {value}\n", key.name));
            }
        }
        out
    }
}

/// `text` in lines of at most `width` letters, broken at blanks.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
