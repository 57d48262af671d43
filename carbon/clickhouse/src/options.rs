//! `[store.clickhouse]`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use settings::options::{Checked, at_least, between};
use settings::{ByteSize, Span};

use crate::client::Client;
use crate::events::EventsTable;

settings::options! {
    /// `[store.clickhouse]`.
    #[derive(PartialEq, Eq)]
    pub struct Options {
        /// The HTTP interface of the ClickHouse server. Only http:// is supported: use a proxy on this machine, or a
        /// tunnel, for servers elsewhere.
        url: String = "http://127.0.0.1:8123".to_owned() => check_url;
        /// The user. Queries change settings of the server (limits, below), so its profile needs readonly = 0 or 2.
        /// Empty: the server's default user.
        user: String = String::new();
        /// The user's password. Prefer password_file, which keeps it out of this file.
        password: String = String::new();
        /// A file whose first line is the password. Empty: password is used.
        password_file: String = String::new() => check_file;
        /// The database that has the tables.
        database: String = "default".to_owned() => check_name;
        /// The table of points, as carbon-clickhouse's "points" fills it.
        points_table: String = "graphite".to_owned() => check_name;
        /// The table of names, as carbon-clickhouse's "series" or "index" fills it.
        index_table: String = "graphite_index".to_owned() => check_name;
        /// The table of tagged series.
        tagged_table: String = "graphite_tagged".to_owned() => check_name;
        /// The table in which servers with the same tables of points share their events. Empty: events stay on the
        /// server that got them.
        events_table: String = "graphite_events".to_owned() => check_name_or_empty;
        /// The section of the ClickHouse server's configuration that has the rollup rules of points_table. The rules
        /// are read from the server's table system.graphite_retentions.
        rollup: String = "graphite_rollup".to_owned() => check_name;
        /// Write names with their days into index_table, too, as carbon-clickhouse does unless its
        /// disable-daily-index is set. plumbago reads only those without a day.
        daily_index: bool = true;
        /// Most points in a block that is sent to ClickHouse.
        batch_rows: u32 = 250_000 => between(1_000, 1_000_000);
        /// Most bytes of a block before compression.
        batch_size: ByteSize = ByteSize(32 << 20) => between(ByteSize(64 << 10), ByteSize(512 << 20));
        /// How long points wait for others before they are sent. ClickHouse likes few large blocks. Queries see the
        /// points at once.
        batch_within: Span = Span::seconds(1) => between(Span::millis(100), Span::seconds(60));
        /// How blocks are compressed on their way: "lz4" or "none".
        compression: String = "lz4".to_owned() => check_compression;
        /// How long ClickHouse may take to acknowledge a block before it is sent again. A
        /// shutdown waits for a block that is on its way.
        insert_timeout: Span = Span::seconds(60) => at_least(Span::seconds(1));
        /// How long ClickHouse may work on one query (max_execution_time), if render.timeout does not say less.
        query_timeout: Span = Span::seconds(30) => at_least(Span::seconds(1));
        /// Memory that ClickHouse may use for one query (max_memory_usage). "0B": as the user's profile says.
        query_memory: ByteSize = ByteSize(0);
        /// How long the answers to patterns and tag expressions are kept. Series that another plumbago was the first
        /// to receive are found after this time at the latest; those of this one at once. "0s": not kept.
        find_cache: Span = Span::seconds(30);
        /// Most bytes of such answers.
        find_cache_size: ByteSize = ByteSize(64 << 20);
    }
}

impl Options {
    /// The table in which events are shared, if there is one.
    pub fn events(&self, client: Client) -> Option<EventsTable> {
        (!self.events_table.is_empty()).then(|| EventsTable::new(client, &self.events_table))
    }

    /// The password, from its file if one is named.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn secret(&self) -> Result<String, String> {
        if self.password_file.is_empty() {
            return Ok(self.password.clone());
        }
        let text = carbon::conf::text(Path::new(&self.password_file))
            .map_err(|why| format!("{}: {why}", self.password_file))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

fn check_url(url: &str, checked: &mut Checked<'_>) {
    let example = "\"http://127.0.0.1:8123\"";
    let Some(rest) = url.strip_prefix("http://") else {
        checked.refuse(format!("{url:?} does not begin with http://"), example);
        return;
    };
    let host = rest.trim_end_matches('/');
    if host.contains('@') || !settings::is_address(host) {
        checked.refuse(format!("{url:?} is not http://HOST:PORT"), example);
    }
}

fn check_file(path: &str, checked: &mut Checked<'_>) {
    if path.is_empty() {
        return;
    }
    match fs::metadata(path) {
        // The configuration may be checked by another user than the server's.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
        Err(error) => checked.say(format!("{path:?}: {error}")),
        Ok(_) => {}
    }
}

/// Names go into statements as they are.
fn check_name(name: &str, checked: &mut Checked<'_>) {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(fits) || name.starts_with(|c: char| c.is_ascii_digit())
    {
        let wrong = format!("{name:?} is not a name of letters, digits and underscores");
        checked.refuse(wrong, "\"graphite\"");
    }
}

fn check_name_or_empty(name: &str, checked: &mut Checked<'_>) {
    if !name.is_empty() {
        check_name(name, checked);
    }
}

fn check_compression(name: &str, checked: &mut Checked<'_>) {
    if !matches!(name, "lz4" | "none") {
        checked.refuse(
            format!("{name:?} is not a compression"),
            "\"lz4\" or \"none\"",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Options)) -> Vec<String> {
        let mut options = Options::default();
        change(&mut options);
        let mut problems = settings::Problems::default();
        options.check(&mut problems);
        problems.iter().map(|problem| problem.path.key()).collect()
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        assert!(refused(|_| {}).is_empty());
        assert_eq!(refused(|o| o.url = "https://a:1".into()), ["url"]);
        assert_eq!(refused(|o| o.url = "http://user@a:1".into()), ["url"]);
        assert_eq!(refused(|o| o.url = "http://a".into()), ["url"]);
        assert_eq!(refused(|o| o.points_table = "a b".into()), ["points_table"]);
        assert_eq!(refused(|o| o.events_table = "a.b".into()), ["events_table"]);
        assert!(refused(|o| o.events_table = String::new()).is_empty());
        assert_eq!(refused(|o| o.database = String::new()), ["database"]);
        assert_eq!(refused(|o| o.compression = "zip".into()), ["compression"]);
        assert_eq!(
            refused(|o| o.password_file = "/no/such".into()),
            ["password_file"]
        );
        assert_eq!(refused(|o| o.batch_rows = 1), ["batch_rows"]);
    }

    #[test]
    fn the_first_line_of_a_file_is_the_password() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, "hush\nand more\n").unwrap();
        let options = Options {
            password_file: path.display().to_string(),
            password: "other".into(),
            ..Options::default()
        };
        assert_eq!(options.secret().unwrap(), "hush");
    }
}
