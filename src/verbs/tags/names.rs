//! Where names come from: a server's tag API, in pages if it has many, or a file.

use std::fs::File;
use std::io::{BufReader, Read};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::client::{self, Client};

/// How long a server may take for one answer: graphite-web reads all tags from its database.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The bytes of a pattern of one page, so that its URL is short enough for every server.
const PAGE_BYTES: usize = 1_500;
/// The largest file of names.
const MAX_FILE: u64 = 4 << 30;

/// A client for the tag API of a server.
pub(super) fn client(server: &client::Args) -> anyhow::Result<Client> {
    Client::with_timeout(server, TIMEOUT)
}

/// The names that `source` has: a URL, a file, or `-` for standard input.
///
/// # Errors
/// The source cannot be read, or is neither a JSON list of names nor lines of text.
pub(super) fn read(source: &str, token: Option<String>) -> anyhow::Result<Vec<String>> {
    if source.starts_with("http://") || source.starts_with("https://") {
        let server = client::Args {
            url: source.to_owned(),
            token,
        };
        return of_server(&client(&server)?);
    }
    let text = match source {
        "-" => text(std::io::stdin().lock()).context("standard input")?,
        path => {
            let file = File::open(path).with_context(|| path.to_owned())?;
            text(BufReader::new(file)).with_context(|| path.to_owned())?
        }
    };
    parse(&text).with_context(|| source.to_owned())
}

fn text(source: impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = source.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_FILE {
        bail!("more than {} GiB of names", MAX_FILE >> 30);
    }
    Ok(text)
}

/// The names in a JSON list of strings, or in lines; blank lines and lines that begin with `#` are
/// skipped.
fn parse(text: &str) -> anyhow::Result<Vec<String>> {
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).context("not a JSON list of names");
    }
    let lines = text.lines().map(str::trim);
    let names = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(names.map(str::to_owned).collect())
}

/// The names of all series that a server knows by their tags: in one answer, else in pages by the
/// tag `name`.
pub(super) fn of_server(client: &Client) -> anyhow::Result<Vec<String>> {
    let whole = find(client, "name=~.");
    let Err(refused) = whole else {
        return whole;
    };
    let values = client.get("/tags/name").unwrap_or(Value::Null);
    let Some(values) = values["values"]
        .as_array()
        .filter(|values| !values.is_empty())
    else {
        return Err(refused);
    };
    let values = values.iter().filter_map(|value| value["value"].as_str());
    let mut names = Vec::new();
    for expression in pages(values) {
        names.extend(find(client, &expression)?);
    }
    Ok(names)
}

/// Tag expressions that together select series with one of `values` as their name.
fn pages<'a>(values: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut pages: Vec<String> = Vec::new();
    let mut page: Vec<String> = Vec::new();
    let mut bytes = 0;
    let mut close = |page: &mut Vec<String>| {
        if !page.is_empty() {
            pages.push(format!("name=~^(?:{})$", page.join("|")));
            page.clear();
        }
    };
    for value in values {
        let value = escaped(value);
        if bytes + value.len() > PAGE_BYTES {
            close(&mut page);
            bytes = 0;
        }
        bytes += value.len() + 1;
        page.push(value);
    }
    close(&mut page);
    pages
}

/// `text` as a regular expression that matches it alone, for Python, PCRE and POSIX alike.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn find(client: &Client, expression: &str) -> anyhow::Result<Vec<String>> {
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("expr", expression)
        .finish();
    let found = client.get(&format!("/tags/findSeries?{query}"))?;
    serde_json::from_value(found).context("/tags/findSeries: not a list of names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_json_or_lines() {
        let names = ["a;b=c", "d;e=f"];
        assert_eq!(parse("a;b=c\nd;e=f").unwrap(), names);
        assert_eq!(parse("# names\r\n\r\n a;b=c \r\nd;e=f\r\n").unwrap(), names);
        assert_eq!(parse(" [\"a;b=c\",\n\"d;e=f\"]").unwrap(), names);
        assert!(parse("[1]").is_err());
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn pages_select_each_name_once() {
        let values: Vec<String> = (0..500).map(|n| format!("a.b+{n}")).collect();
        let pages = pages(values.iter().map(String::as_str));
        assert!(pages.len() > 3, "{} pages", pages.len());
        for page in &pages {
            assert!(page.len() < PAGE_BYTES + 30, "{} bytes", page.len());
        }
        for value in &values {
            let matching = pages.iter().filter(|page| {
                let pattern = page.strip_prefix("name=~").unwrap();
                carbon::index::regex(pattern)
                    .unwrap()
                    .is_match(value)
                    .unwrap()
            });
            assert_eq!(matching.count(), 1, "{value}");
        }
        assert!(super::pages(std::iter::empty()).is_empty());
    }
}
