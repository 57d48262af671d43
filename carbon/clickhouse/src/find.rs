//! Patterns as conditions on the table of names.
//!
//! A name is in the table once for every day (`Date = '1970-02-12'`) with `Level = 20000 + nodes`; branches have a dot
//! at their end. The literal start of a pattern is a range of the table's key, the rest a regular expression, which
//! ClickHouse matches. Rows come in the order of the key, part by part: a name that is in several parts comes several
//! times until they are merged, which the reader drops ([`crate::source`]). To have ClickHouse group them costs more.

use std::fmt::Write;

use crate::sql;

/// The most bytes of a pattern's regular expression.
const MAX_REGEX: usize = 64 << 10;

/// The query for everything that `pattern` matches. `None` if nothing can match it.
///
/// # Errors
/// A sentence saying why the pattern is refused.
pub(crate) fn query(table: &str, pattern: &str) -> Result<Option<String>, String> {
    let text = pattern.replace('\\', "");
    let asks_for_branches = text.ends_with('.');
    let mut nodes: Vec<&str> = text.split('.').filter(|node| !node.is_empty()).collect();
    // As in Graphite, a `**` that begins a longer pattern stands for no node.
    while nodes.first() == Some(&"**") && (nodes.len() > 1 || asks_for_branches) {
        nodes.remove(0);
    }
    if nodes.is_empty() {
        return Ok(None);
    }
    let condition = condition(&nodes)?;
    let ending = match asks_for_branches {
        true => " AND Path LIKE '%.'",
        false => "",
    };
    Ok(Some(format!(
        "SELECT Path FROM {table} WHERE {condition}{ending} AND Date = '1970-02-12' FORMAT Native"
    )))
}

/// The query for the reversed names of the series that `pattern` matches. `None` if the literal nodes at its end do not
/// narrow the search more than those at its beginning, as graphite-clickhouse decides it.
///
/// # Errors
/// As [`query`].
pub(crate) fn reversed(table: &str, pattern: &str) -> Result<Option<String>, String> {
    let text = pattern.replace('\\', "");
    let mut nodes: Vec<&str> = text.split('.').filter(|node| !node.is_empty()).collect();
    let literal = |nodes: &mut dyn Iterator<Item = &&str>| {
        let nodes = nodes.take_while(|node| is_literal(node));
        nodes.count()
    };
    let (at_start, at_end) = (literal(&mut nodes.iter()), literal(&mut nodes.iter().rev()));
    let is_any_depth = nodes.iter().any(|node| node.contains("**"));
    if is_any_depth || text.ends_with('.') || at_end <= at_start || at_end == nodes.len() {
        return Ok(None);
    }
    nodes.reverse();
    let matches = matches(&nodes, regex(&nodes))?;
    Ok(Some(format!(
        "SELECT Path FROM {table} WHERE Level = {}{matches} AND Date = '1970-02-12' FORMAT Native",
        30_000 + nodes.len()
    )))
}

/// The query that has a row if the table has reversed names.
pub(crate) fn any_reversed(table: &str) -> String {
    format!(
        "SELECT Level FROM {table} WHERE Level > 30000 AND Level < 40000 AND Date = '1970-02-12' LIMIT 1 FORMAT RowBinary"
    )
}

fn condition(nodes: &[&str]) -> Result<String, String> {
    let is_any_depth = |node: &&&str| **node == "**";
    let globstars = nodes.iter().filter(is_any_depth).count();
    let level = 20_000 + nodes.len();
    if nodes
        .iter()
        .any(|node| *node != "**" && node.contains("**") && node.contains('{'))
    {
        return Err("a `**` among alternatives cannot be asked of ClickHouse".to_owned());
    }
    if globstars == 0 && nodes.iter().all(|node| is_literal(node)) {
        let path = nodes.join(".");
        let (leaf, branch) = (sql::text(&path), sql::text(&format!("{path}.")));
        return Ok(format!("Level = {level} AND Path IN ({leaf}, {branch})"));
    }
    let levels = match globstars {
        0 => format!("Level = {level}"),
        _ => {
            let at_end = usize::from(nodes.last() == Some(&"**"));
            format!("Level >= {} AND Level < 30000", level - globstars + at_end)
        }
    };
    // `a.b.*` is wholly a prefix.
    let is_prefix = globstars == 0
        && nodes.last() == Some(&"*")
        && nodes[..nodes.len() - 1].iter().all(|node| is_literal(node));
    // Every name is wanted.
    let is_all = nodes == ["**"];
    let regex = match is_prefix || is_all {
        true => String::new(),
        false => regex(nodes),
    };
    Ok(format!("{levels}{}", matches(nodes, regex)?))
}

/// The range of the key that begins like `nodes`, and `regex` unless it is empty.
fn matches(nodes: &[&str], regex: String) -> Result<String, String> {
    if regex.len() > MAX_REGEX {
        return Err(format!(
            "the pattern is a regular expression of {} bytes, more than {MAX_REGEX}",
            regex.len()
        ));
    }
    let mut out = match literal_start(nodes).as_str() {
        "" => String::new(),
        start => format!(" AND Path LIKE {}", sql::prefix(start)),
    };
    if !regex.is_empty() {
        let _ = write!(out, " AND match(Path, {})", sql::text(&regex));
    }
    Ok(out)
}

fn is_literal(node: &str) -> bool {
    !node.contains(['*', '?', '[', '{'])
}

/// The text that every match begins with.
fn literal_start(nodes: &[&str]) -> String {
    let mut start = String::new();
    for (n, node) in nodes.iter().enumerate() {
        let end = node.find(['*', '?', '[', '{']).unwrap_or(node.len());
        start.push_str(&node[..end]);
        if end < node.len() {
            break;
        }
        // A `**` may stand for no node at all.
        let is_last = n + 1 == nodes.len();
        if is_last || nodes[n + 1] == "**" {
            break;
        }
        start.push('.');
    }
    start
}

/// The regular expression (RE2) for leaves and branches. A `**` is any number of nodes, at the end one or more.
fn regex(nodes: &[&str]) -> String {
    let mut out = String::from("^");
    for (n, node) in nodes.iter().enumerate() {
        let is_last = n + 1 == nodes.len();
        match *node {
            "**" if n == 0 => out.push_str("[^.]+(?:[.][^.]+)*"),
            "**" if is_last => out.push_str("(?:[.][^.]+)+"),
            "**" => out.push_str("(?:[.][^.]+)*"),
            node => {
                if n > 0 {
                    out.push_str("[.]");
                }
                push_node(&mut out, node);
            }
        }
    }
    out.push_str("[.]?$");
    out
}

/// Appends the regular expression of one node, as Python's fnmatch reads it after the braces.
fn push_node(out: &mut String, node: &str) {
    let chars: Vec<char> = node.chars().collect();
    push_chars(out, &chars);
}

fn push_chars(out: &mut String, chars: &[char]) {
    let mut at = 0;
    while let Some(c) = chars.get(at) {
        at += 1;
        match c {
            '*' => out.push_str("[^.]*"),
            '?' => out.push_str("[^.]"),
            '[' => match class(&chars[at..]) {
                Some((class, length)) => {
                    out.push_str(&class);
                    at += length;
                }
                None => out.push_str(r"\["),
            },
            '{' => match braces(&chars[at..]) {
                Some((parts, length)) => {
                    out.push_str("(?:");
                    for (n, part) in parts.iter().enumerate() {
                        if n > 0 {
                            out.push('|');
                        }
                        push_chars(out, part);
                    }
                    out.push(')');
                    at += length;
                }
                None => out.push_str(r"\{"),
            },
            c => push_literal(out, *c),
        }
    }
}

fn push_literal(out: &mut String, c: char) {
    match c {
        '.' | '+' | '(' | ')' | '|' | '^' | '$' | ']' | '}' | '*' | '?' | '[' | '{' | '\\' => {
            out.push('\\');
            out.push(c);
        }
        c if c.is_control() => {
            let _ = write!(out, "\\x{{{:X}}}", u32::from(c));
        }
        c => out.push(c),
    }
}

/// The class that begins with `chars`, and its length with the bracket that closes it.
fn class(chars: &[char]) -> Option<(String, usize)> {
    let is_negated = chars.first() == Some(&'!');
    let begin = usize::from(is_negated);
    // A bracket that comes first is meant itself.
    let end = begin + 1 + chars.get(begin + 1..)?.iter().position(|c| *c == ']')?;
    let mut out = String::from(if is_negated { "[^." } else { "[" });
    for c in &chars[begin..end] {
        if matches!(c, '\\' | '[' | ']' | '^') {
            out.push('\\');
        }
        out.push(*c);
    }
    out.push(']');
    Some((out, end + 1))
}

/// The alternatives of the group that begins with `chars`, and its length with the brace that closes it.
fn braces(chars: &[char]) -> Option<(Vec<&[char]>, usize)> {
    let (mut depth, mut from) = (0, 0);
    let mut parts = Vec::new();
    for (at, c) in chars.iter().enumerate() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&chars[from..at]);
                return Some((parts, at + 1));
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&chars[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pattern: &str) -> String {
        let nodes: Vec<&str> = pattern.split('.').collect();
        condition(&nodes).unwrap()
    }

    #[test]
    fn patterns_are_ranges_and_expressions() {
        assert_eq!(asked("a.b"), "Level = 20002 AND Path IN ('a.b', 'a.b.')");
        assert_eq!(asked("a.b.*"), "Level = 20003 AND Path LIKE 'a.b.%'");
        assert_eq!(asked("*"), "Level = 20001");
        assert_eq!(asked("**"), "Level >= 20001 AND Level < 30000");
        assert_eq!(
            asked("a_.x*.c"),
            r"Level = 20003 AND Path LIKE 'a\\_.x%' AND match(Path, '^a_[.]x[^.]*[.]c[.]?$')"
        );
        assert_eq!(
            asked("a.**.c"),
            "Level >= 20002 AND Level < 30000 AND Path LIKE 'a%' AND match(Path, '^a(?:[.][^.]+)*[.]c[.]?$')"
        );
    }

    #[test]
    fn literal_nodes_at_the_end_are_looked_up_in_reverse() {
        let sql = reversed("t", "*.web.h?.cpu.load").unwrap().unwrap();
        assert!(
            sql.contains("Level = 30005 AND Path LIKE 'load.cpu.h%' AND match(Path, '^load[.]cpu[.]h[^.][.]web[.][^.]*[.]?$')"),
            "{sql}"
        );
        for direct in ["a.*.b", "a.b", "*", "**.b", "a.*", "*.b.", "{a,**}.b"] {
            assert!(reversed("t", direct).unwrap().is_none(), "{direct}");
        }
        assert!(reversed("t", "*.b").unwrap().is_some());
    }

    #[test]
    fn nodes_are_expressions() {
        for (node, expected) in [
            ("a?[b-d]", "a[^.][b-d]"),
            ("[!a]", "[^.a]"),
            ("[]a]", r"[\]a]"),
            ("[a", r"\[a"),
            ("{a,b{c,d}}x", "(?:a|b(?:c|d))x"),
            ("{a", r"\{a"),
            ("a+(b)|$", r"a\+\(b\)\|\$"),
            ("{,x}", "(?:|x)"),
        ] {
            let mut out = String::new();
            push_node(&mut out, node);
            assert_eq!(out, expected, "{node}");
        }
    }

    #[test]
    fn depths_match_as_the_tree_of_files_does() {
        for (pattern, yes, no) in [
            ("a.**", &["a.b", "a.b.c"][..], &["a", "b", "ab"][..]),
            ("**", &["a", "a.b"], &[]),
            ("a.**.**.b", &["a.b", "a.x.b", "a.x.y.b"], &["a.bb", "a"]),
            ("a.*.**", &["a.b.c", "a.b.c.d"], &["a.b"]),
        ] {
            let nodes: Vec<&str> = pattern.split('.').collect();
            let regex = carbon::index::regex(&regex(&nodes)).unwrap();
            for path in yes {
                assert!(regex.is_match(path).unwrap(), "{pattern} {path}");
            }
            for path in no {
                assert!(!regex.is_match(path).unwrap(), "{pattern} {path}");
            }
        }
        assert!(asked("a.**").starts_with("Level >= 20002 "));
        let alone = query("t", "**.**.saw").unwrap().unwrap();
        assert!(
            alone.contains("Level = 20001 AND Path IN ('saw', 'saw.')"),
            "{alone}"
        );
        assert!(query("t", "**.").unwrap().is_none());
    }

    #[test]
    fn what_asks_for_branches_gets_them_alone() {
        let sql = query("t", "a.").unwrap().unwrap();
        assert!(sql.contains("'a.') AND Path LIKE '%.'"), "{sql}");
        assert!(query("t", "...").unwrap().is_none());
        assert!(query("t", "{a,**}").is_err());
        assert!(query("t", &format!("{{{}}}", "a,".repeat(40_000))).is_err());
    }
}
