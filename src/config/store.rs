//! `[store]`: where the points end.

use serde::{Deserialize, Serialize};
use settings::Problem;

use super::Config;
use carbon::options::SyncPolicy;

settings::options! {
    /// `[store]`.
    #[derive(PartialEq, Eq)]
    pub struct StoreOptions {
        /// Where the points end: "whisper" (files in the data directory) or "clickhouse" (tables of a
        /// ClickHouse server, see store.clickhouse and docs/clickhouse.md). Until then they are in the cache and the
        /// journal, in the data directory, with both.
        engine: Engine = Engine::default();
        /// The ClickHouse server.
        clickhouse: clickhouse::Options = clickhouse::Options::default();
    }
}

/// Where the points end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Whisper files.
    #[default]
    Whisper,
    /// Tables of a ClickHouse server.
    Clickhouse,
}

impl Config {
    /// What the engine cannot do.
    pub(super) fn check_engine(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.store.engine == Engine::Whisper {
            return problems;
        }
        let mut say = |section: &str, key: &str, message: &str| {
            problems.push(Problem {
                path: settings::Path::from(key).below(section),
                message: message.to_owned(),
            });
        };
        if self.journal.sync == SyncPolicy::Off {
            let why = "with store.engine = \"clickhouse\" the journal keeps what ClickHouse has not acknowledged: \
                       choose another value than \"off\"";
            say("journal", "sync", why);
        }
        if !self.carbon.expire_after.0.is_zero() {
            let why = "series in ClickHouse expire there (ALTER TABLE … DELETE, or a TTL of the tables): with \
                       store.engine = \"clickhouse\" write \"0s\"";
            say("carbon", "expire_after", why);
        }
        problems
    }
}
