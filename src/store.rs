//! Which store is behind the receivers and the queries.

use std::sync::Arc;

use anyhow::anyhow;
use carbon::Carbon;
use carbon::remote::Delivery;
use clickhouse::{Clickhouse, Client, EventsTable, Known, Stats, Writer};
use parking_lot::Mutex;
use render::source::{Source, Tags};
use settings::Reading;

use crate::config::{Config, Engine};

/// What queries ask.
pub struct Asked {
    /// Series and points.
    pub source: Arc<dyn Source>,
    /// Tags.
    pub tags: Arc<dyn Tags>,
}

impl Asked {
    /// The remote store, or else the whisper files of `carbon`.
    pub fn of(remote: Option<&Remote>, carbon: &Carbon) -> Self {
        if let Some(remote) = remote {
            return remote.asked(carbon);
        }
        let store = Arc::new(carbon.clone());
        Self {
            source: store.clone(),
            tags: store,
        }
    }
}

/// A ClickHouse server in the place of whisper files.
pub struct Remote {
    options: clickhouse::Options,
    client: Client,
    known: Arc<Known>,
    stats: Arc<Stats>,
}

impl Remote {
    /// The server that `config` names, if it is the store. It need not be there now.
    ///
    /// # Errors
    /// Its password cannot be read.
    pub fn of(config: &Config) -> anyhow::Result<Option<Self>> {
        if config.store.engine == Engine::Whisper {
            return Ok(None);
        }
        let options = config.store.clickhouse.clone();
        let stats = Arc::new(Stats::default());
        let client = Client::new(&options, Arc::clone(&stats));
        Ok(Some(Self {
            client: client.map_err(|why| anyhow!("store.clickhouse.password_file: {why}"))?,
            known: Arc::default(),
            options,
            stats,
        }))
    }

    /// The table in which servers share their events.
    pub fn events(&self) -> Option<EventsTable> {
        self.options.events(self.client.clone())
    }

    /// What takes the points.
    pub fn delivery(&self) -> Delivery {
        let writer = Writer::new(&self.options, self.client.clone(), Arc::clone(&self.known));
        Delivery {
            remote: Arc::new(Mutex::new(writer)),
            rows: self.options.batch_rows as usize,
            within: self.options.batch_within.0,
        }
    }

    /// What queries ask; `carbon` has the points that are not acknowledged yet.
    pub fn asked(&self, carbon: &Carbon) -> Asked {
        let (client, known) = (self.client.clone(), Arc::clone(&self.known));
        let stats = Arc::clone(&self.stats);
        let store = Clickhouse::new(&self.options, client, carbon.clone(), known, stats);
        let store = Arc::new(store);
        Asked {
            source: store.clone(),
            tags: store,
        }
    }

    /// Its counters, and how the delivery is.
    pub fn readings(&self, carbon: &Carbon) -> Vec<Reading> {
        let mut readings = self.stats.readings();
        readings.push(Reading::level(
            "clickhouse",
            "away",
            "1 while ClickHouse does not acknowledge blocks. Points wait in cache and journal: compare \
             journal.bytes with journal.max_size.",
            f64::from(u8::from(carbon.delivery_trouble().is_some())),
        ));
        readings.push(Reading::level(
            "clickhouse",
            "spilledSegments",
            "Segments of the journal with points that are neither in the cache nor in ClickHouse. Queries do \
             not see them until they have been sent.",
            carbon.spilled_segments() as f64,
        ));
        readings
    }
}
