//! ClickHouse as the source of tags.

use std::time::Duration;

use render::budget::Budget;
use render::source::{Completion, SourceError, TagValue, Tags};

use crate::source::{Clickhouse, PER_NAME};
use crate::wire::{CUT, Rows};
use crate::{names, rows, sql, tagged};

/// How long a registration may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Clickhouse {
    /// The answer to a query with a text and a number in each row.
    fn counted(&self, sql: String, budget: &Budget) -> Result<Vec<(String, u64)>, SourceError> {
        let answer = self.client.query(sql, budget)?;
        let mut steps = budget.steps();
        let mut rows = Rows(&answer.bytes);
        let mut found = Vec::new();
        while !rows.is_empty() {
            let row = rows.text().zip(rows.u64());
            let row = row.ok_or_else(|| SourceError::Failed(CUT.to_owned()))?;
            steps.take(row.0.len() + PER_NAME)?;
            found.push(row);
        }
        Ok(found)
    }

    /// The tags of the series that satisfy `expressions`, or of all.
    fn items(
        &self,
        expressions: &[&str],
        strict: bool,
    ) -> Result<(String, Vec<String>), SourceError> {
        let table = &self.tagged_table;
        if expressions.is_empty() {
            return Ok((
                format!("(SELECT Tag1 AS item, Path FROM {table})"),
                Vec::new(),
            ));
        }
        let (condition, tags) = tagged::named(expressions, strict).map_err(SourceError::Refused)?;
        let from = format!("(SELECT arrayJoin(Tags) AS item, Path FROM {table} WHERE {condition})");
        Ok((from, tags))
    }
}

impl Tags for Clickhouse {
    fn tags(&self, budget: &Budget) -> Result<Vec<(u32, String)>, SourceError> {
        let all = Completion {
            expressions: &[],
            prefix: "",
            limit: usize::MAX,
        };
        let tags = self.complete_tags(&all, budget)?;
        Ok((1..).zip(tags).collect())
    }

    fn values(
        &self,
        tag: &str,
        budget: &Budget,
    ) -> Result<Option<(u32, Vec<TagValue>)>, SourceError> {
        let key = format!("{}=", tagged::to_table(tag));
        let sql = format!(
            "SELECT substring(Tag1, {}) AS value, toUInt64(uniqExact(Path)) FROM {} WHERE Tag1 LIKE {} \
             GROUP BY value FORMAT RowBinary",
            key.len() + 1,
            self.tagged_table,
            sql::prefix(&key),
        );
        let mut found = self.counted(sql, budget)?;
        found.sort_unstable();
        let values: Vec<TagValue> = (1..)
            .zip(found)
            .map(|(id, (value, count))| TagValue {
                id,
                value,
                count: count as usize,
            })
            .collect();
        Ok((!values.is_empty()).then_some((1, values)))
    }

    fn complete_tags(
        &self,
        wanted: &Completion<'_>,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let (from, named) = self.items(wanted.expressions, true)?;
        let sql = format!(
            "SELECT splitByChar('=', item)[1] AS tag, toUInt64(count()) FROM {from} GROUP BY tag FORMAT RowBinary"
        );
        let found = self.counted(sql, budget)?;
        let tags = found.into_iter().filter(|(tag, _)| !named.contains(tag));
        Ok(wanted.of(tags.map(|(tag, _)| tagged::from_table(&tag).to_owned())))
    }

    fn complete_values(
        &self,
        tag: &str,
        wanted: &Completion<'_>,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let (from, _) = self.items(wanted.expressions, false)?;
        let key = format!("{}=", tagged::to_table(tag));
        let sql = format!(
            "SELECT substring(item, {}) AS value, toUInt64(count()) FROM {from} WHERE item LIKE {} \
             GROUP BY value ORDER BY value LIMIT {} FORMAT RowBinary",
            key.len() + 1,
            sql::prefix(&format!("{key}{}", wanted.prefix)),
            wanted.limit.min(1 << 31),
        );
        let found = self.counted(sql, budget)?;
        Ok(found.into_iter().map(|(value, _)| value).collect())
    }

    fn register(&self, path: &str) -> Result<String, SourceError> {
        let canonical = Tags::register(&self.carbon, path)?;
        let now = self.carbon.now().0;
        let mut out = Vec::new();
        let (table, columns) = match carbon::series::is_tagged(&canonical) {
            true => {
                let path = names::to_table(&canonical);
                rows::push_tags(&mut out, &canonical, &path, rows::day(now), now);
                (&self.tagged_table, "Date, Tag1, Path, Tags, Version")
            }
            false => {
                let branches = &mut Default::default();
                rows::push_names(&mut out, &canonical, rows::day(now), now, false, branches);
                (&self.index_table, "Date, Level, Path, Version")
            }
        };
        let inserted = self.client.insert(table, columns, &out, false, PATIENCE);
        inserted.map_err(SourceError::Failed)?;
        Ok(canonical)
    }

    fn unregister(&self, path: &str) -> Result<(), SourceError> {
        Err(SourceError::Refused(format!(
            "{path}: series in ClickHouse are deleted there (ALTER TABLE … DELETE)"
        )))
    }
}
