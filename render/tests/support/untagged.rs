//! A source without tags.

use render::budget::Budget;
use render::{SourceError, TagValue, Tags};

/// No tags.
pub(crate) struct Untagged;

impl Tags for Untagged {
    fn tags(&self, _: &Budget) -> Result<Vec<(u32, String)>, SourceError> {
        Ok(Vec::new())
    }

    fn values(&self, _: &str, _: &Budget) -> Result<Option<(u32, Vec<TagValue>)>, SourceError> {
        Ok(None)
    }

    fn complete_tags(
        &self,
        _: &[&str],
        _: &str,
        _: usize,
        _: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }

    fn complete_values(
        &self,
        _: &[&str],
        _: &str,
        _: &str,
        _: usize,
        _: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }

    fn register(&self, path: &str) -> Result<String, SourceError> {
        Ok(path.to_owned())
    }

    fn unregister(&self, _: &str) -> Result<(), SourceError> {
        Ok(())
    }
}
