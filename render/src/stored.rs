//! Carbon's store as the source of queries.

use carbon::{Carbon, Timestamp};

use crate::source::{Fetched, Node, Source, SourceError, TagValue, Tags};

/// Wrong questions are the client's, the rest is ours.
fn refuse(error: carbon::Error) -> SourceError {
    match error {
        carbon::Error::Pattern(_) | carbon::Error::Tag(_) | carbon::Error::Name { .. } => {
            SourceError::Refused(error.to_string())
        }
        other => SourceError::Failed(other.to_string()),
    }
}

impl Source for Carbon {
    fn find(&self, pattern: &str) -> Result<Vec<Node>, SourceError> {
        let found = self.index().find(pattern).map_err(refuse)?;
        Ok(found
            .into_iter()
            .map(|carbon::index::Found { path, leaf }| Node { path, leaf })
            .collect())
    }

    fn find_tagged(&self, expressions: &[&str]) -> Result<Vec<String>, SourceError> {
        self.index().find_tagged(expressions).map_err(refuse)
    }

    fn fetch(
        &self,
        name: &str,
        from: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Fetched>, SourceError> {
        let fetched = Carbon::fetch(self, name, from, until, now).map_err(refuse)?;
        Ok(fetched.map(|fetched| {
            let carbon::Fetched {
                points,
                aggregation,
            } = fetched;
            Fetched {
                start: i64::from(points.start.0),
                end: i64::from(points.end.0),
                step: i64::from(points.step.seconds()),
                values: points.values,
                aggregation,
            }
        }))
    }

    fn reach(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<(Timestamp, Timestamp)>, SourceError> {
        Carbon::reach(self, name, now).map_err(refuse)
    }
}

impl Tags for Carbon {
    fn tags(&self) -> Vec<(u32, String)> {
        self.index().tags()
    }

    fn values(&self, tag: &str) -> Option<(u32, Vec<TagValue>)> {
        let (id, values) = self.index().values(tag)?;
        let values = values
            .into_iter()
            .map(|carbon::index::TagValue { id, value, count }| TagValue { id, value, count })
            .collect();
        Some((id, values))
    }

    fn complete_tags(
        &self,
        expressions: &[&str],
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<String>, SourceError> {
        self.index()
            .complete_tags(expressions, prefix, limit)
            .map_err(refuse)
    }

    fn complete_values(
        &self,
        expressions: &[&str],
        tag: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<String>, SourceError> {
        self.index()
            .complete_values(expressions, tag, prefix, limit)
            .map_err(refuse)
    }

    fn register(&self, path: &str) -> Result<String, SourceError> {
        self.index().register(path).map_err(refuse)
    }

    fn unregister(&self, path: &str) -> Result<(), SourceError> {
        self.index().unregister(path).map_err(refuse)
    }
}
