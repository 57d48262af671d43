//! What the page reads from this server.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use jiff::tz::TimeZone;
use render::Error;
use render::budget::Budget;
use render::events::{self, Event, Store, TagQuery};
use render::http::App;
use render::http::impact::with_verdict;
use render::http::page::Host;
use render::verdicts::{Asked, Happened, what_happened};
use tracing::warn;

/// The server's data for the page.
pub struct Around {
    /// The bound addresses.
    pub addresses: BTreeMap<&'static str, Vec<String>>,
    /// The events.
    pub events: Arc<Store>,
    /// The number of metrics and datapoints received from clients.
    pub received: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The series, and the zone in which pages write times.
    pub app: App,
    /// `impact.events`.
    pub deploys: String,
    /// The sentence on top of every page.
    pub banner: Option<&'static str>,
    /// `render.base_path`.
    pub base_path: String,
}

impl Around {
    fn found(
        &self,
        expression: &str,
        read: impl FnOnce(&TagQuery) -> Result<Vec<Event>, events::Error>,
    ) -> Vec<Event> {
        let Ok(query) = expression.parse::<TagQuery>() else {
            return Vec::new();
        };
        read(&query).unwrap_or_else(|why| {
            warn!("cannot read the events of the page: {why}");
            Vec::new()
        })
    }
}

impl Host for Around {
    fn received(&self) -> u64 {
        (self.received)()
    }

    fn addresses(&self) -> &BTreeMap<&'static str, Vec<String>> {
        &self.addresses
    }

    fn events(&self, expression: &str, from: f64, until: f64, limit: usize) -> Vec<Event> {
        self.found(expression, |query| {
            self.events.brief(query, from, until, limit)
        })
    }

    fn around(&self, expression: &str, from: f64, until: f64, limit: usize) -> Vec<Event> {
        let now = self.app.now() as f64;
        self.found(expression, |query| {
            self.events.around(query, from, until, now, limit)
        })
    }

    fn event(&self, id: i64) -> Option<Event> {
        with_verdict(&self.events, id).ok()
    }

    fn happened(
        &self,
        targets: &[String],
        at: i64,
        budget: &Budget,
    ) -> Result<Option<Happened>, Error> {
        let Ok(deploys) = self.deploys.parse::<TagQuery>() else {
            return Ok(None);
        };
        let now = self.app.now();
        let asked = Asked { targets, at, now };
        what_happened(&*self.app.source, &self.events, &deploys, asked, budget)
    }

    fn budget(&self) -> Budget {
        self.app.limits().budget
    }

    fn refuse(&self, error: &Error) -> StatusCode {
        self.app.refuse(error)
    }

    fn generation(&self) -> u64 {
        self.events.generation()
    }

    fn time_zone(&self) -> TimeZone {
        self.app.time_zone.clone()
    }

    fn banner(&self) -> Option<&str> {
        self.banner
    }

    fn base_path(&self) -> &str {
        &self.base_path
    }
}
