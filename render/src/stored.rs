//! Carbon's store as the source of queries.

use carbon::{Carbon, Timestamp};

use crate::budget::Budget;
use crate::error::Result as Checked;
use crate::source::{
    Completion, FetchRange, Fetched, Info, Node, Source, SourceError, TagValue, Tags,
};

/// What one result of a search takes beside its text: a place in a list that moves to twice the
/// room when it is full.
const PER_RESULT: usize = 128;

/// Runs a search of the index for as long as `budget` allows, and reserves what it finds.
fn search<T>(
    budget: &Budget,
    search: impl FnOnce(&mut carbon::index::GoOn<'_>) -> carbon::error::Result<T>,
) -> Result<T, SourceError> {
    let mut pace = budget.pace();
    let mut steps = budget.steps();
    let mut refused = None;
    let mut check = |found: Option<&str>| -> Checked<()> {
        // A step may be a regular expression that runs to its limit.
        pace.check_after(64)?;
        match found {
            Some(path) => steps.take(path.len() + PER_RESULT),
            None => Ok(()),
        }
    };
    let found = search(&mut |found| match check(found) {
        Ok(()) => true,
        Err(error) => {
            refused = Some(error);
            false
        }
    });
    match refused {
        Some(error) => Err(error.into()),
        None => found.map_err(refuse),
    }
}

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
    fn find(&self, pattern: &str, budget: &Budget) -> Result<Vec<Node>, SourceError> {
        let found = search(budget, |go_on| self.index().find_while(pattern, go_on))?;
        Ok(found
            .into_iter()
            .map(|carbon::index::Found { path, leaf }| Node { path, leaf })
            .collect())
    }

    fn find_tagged(
        &self,
        expressions: &[&str],
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        search(budget, |go_on| {
            self.index().find_tagged_while(expressions, go_on)
        })
    }

    fn tagged(&self, budget: &Budget) -> Result<Vec<String>, SourceError> {
        let names = self.index().tagged_names();
        let mut steps = budget.steps();
        for name in &names {
            steps.take(name.len() + PER_RESULT)?;
        }
        Ok(names)
    }

    fn fetch(&self, name: &str, range: FetchRange) -> Result<Option<Fetched>, SourceError> {
        let FetchRange { from, until, now } = range;
        let fetched = Carbon::fetch(self, name, from, until, now).map_err(refuse)?;
        Ok(fetched.map(|fetched| {
            let carbon::Fetched {
                points,
                aggregation,
                x_files_factor,
            } = fetched;
            Fetched {
                start: i64::from(points.start.0),
                end: i64::from(points.end.0),
                step: i64::from(points.step.seconds()),
                values: points.values,
                aggregation,
                x_files_factor,
            }
        }))
    }

    fn announce<'a>(
        &'a self,
        names: &'a [String],
        FetchRange { from, until, now }: FetchRange,
        _: &'a Budget,
    ) -> Box<dyn FnMut(usize) + 'a> {
        let mut ahead = self.read_ahead(names, from, until, now);
        Box::new(move |at| ahead.next(at))
    }

    fn reach(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<(Timestamp, Timestamp)>, SourceError> {
        Carbon::reach(self, name, now).map_err(refuse)
    }

    fn info(&self, name: &str) -> Result<Option<Info>, SourceError> {
        let info = Carbon::info(self, name).map_err(refuse)?;
        Ok(info.map(|info| {
            let carbon::Info {
                retentions,
                aggregation,
                x_files_factor,
            } = info;
            Info {
                retentions,
                aggregation,
                x_files_factor,
            }
        }))
    }
}

impl Tags for Carbon {
    fn tags(&self, budget: &Budget) -> Result<Vec<(u32, String)>, SourceError> {
        search(budget, |go_on| self.index().tags_while(go_on))
    }

    fn values(
        &self,
        tag: &str,
        budget: &Budget,
    ) -> Result<Option<(u32, Vec<TagValue>)>, SourceError> {
        let found = search(budget, |go_on| self.index().values_while(tag, go_on))?;
        Ok(found.map(|(id, values)| {
            let values = values.into_iter();
            let values = values.map(|carbon::index::TagValue { id, value, count }| TagValue {
                id,
                value,
                count,
            });
            (id, values.collect())
        }))
    }

    fn complete_tags(
        &self,
        wanted: &Completion<'_>,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        search(budget, |go_on| {
            let index = self.index();
            index.complete_tags(wanted.expressions, wanted.prefix, wanted.limit, go_on)
        })
    }

    fn complete_values(
        &self,
        tag: &str,
        wanted: &Completion<'_>,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        search(budget, |go_on| {
            let index = self.index();
            index.complete_values(wanted.expressions, tag, wanted.prefix, wanted.limit, go_on)
        })
    }

    fn register(&self, path: &str) -> Result<String, SourceError> {
        self.index().register(path).map_err(refuse)
    }

    fn register_all(&self, paths: &[&str]) -> Result<Vec<String>, SourceError> {
        self.index().register_all(paths).map_err(refuse)
    }

    fn unregister(&self, path: &str) -> Result<(), SourceError> {
        self.index().unregister(path).map_err(refuse)
    }
}
