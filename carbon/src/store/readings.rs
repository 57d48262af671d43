//! The counters of the store, and the sizes of its parts.

use settings::Reading;

use super::carbon::Carbon;
use crate::relay::live::Relay;

impl Carbon {
    /// Every counter, and the sizes of cache and index.
    pub fn readings(&self) -> Vec<Reading> {
        let mut readings = self.stats().readings();
        readings.push(Reading::count(
            "carbon",
            "droppedCreates",
            "New series whose datapoints were thrown away because of carbon.max_creates_per_minute. \
             Always 0, for dashboards of carbon: they wait (createsDelayed).",
            0,
        ));
        readings.extend(
            self.levels()
                .map(|(name, help, value)| Reading::level("carbon", name, help, value as f64)),
        );
        readings.extend(self.0.relay.iter().flat_map(Relay::readings));
        self.read_rules(&mut readings);
        self.read_refused(&mut readings);
        readings
    }

    /// The sizes of connections, cache and index: name, help and value of each.
    fn levels(&self) -> [(&'static str, &'static str, usize); 9] {
        let cache = self.cache();
        let stats = self.stats();
        let closed = stats.connections_closed.get();
        let open = stats.connections_opened.get().saturating_sub(closed);
        [
            (
                "activeConnections",
                "TCP connections of receivers that are open now. Compare with carbon.max_connections.",
                open as usize,
            ),
            (
                "cache.size",
                "Datapoints that are not in their files yet. If this grows without end, the disk is \
                 too slow, or carbon.max_updates_per_second too low.",
                cache.len(),
            ),
            (
                "cache.queues",
                "Series that have such datapoints. For information only.",
                cache.waiting(),
            ),
            (
                "cache.bytes",
                "Memory of these datapoints. Compare with carbon.max_cache_size.",
                cache.used_bytes(),
            ),
            (
                "cache.oldestSeconds",
                "Seconds that the oldest of these datapoints has waited. If this stays above \
                 carbon.persist_within, the disk is too slow, or carbon.max_updates_per_second or \
                 carbon.max_creates_per_minute too low.",
                cache.oldest_age().as_secs() as usize,
            ),
            (
                "cache.bytesPerPoint",
                "Memory of these datapoints divided by their number. For information only.",
                cache.used_bytes() / cache.len().max(1),
            ),
            (
                "undecided",
                "New series whose file waits for a second timestamp, which decides its step. If this \
                 stays high, many series get one point each.",
                self.undecided(),
            ),
            (
                "index.series",
                "Series known. If this grows without end, a sender makes new names all the time.",
                self.index().len(),
            ),
            (
                "index.filesWithoutName",
                "Files of tagged series whose names are not known, so that no tag expression finds \
                 them. If this is not 0, import the names from the old \
                 graphite-web with `plumbago tags import`.",
                self.index().nameless(),
            ),
        ]
    }

    /// The names that were refused because of a limit, by prefix.
    fn read_refused(&self, readings: &mut Vec<Reading>) {
        let refused = self.index().refused();
        let help = "Lines and statsd names of new series refused because of a limit, by the first \
                    nodes of the name. If this grows, fix the sender of that prefix or raise the limit.";
        let elsewhere = Some(("(others)".to_owned(), refused.elsewhere)).filter(|(_, n)| *n > 0);
        readings.extend(
            refused
                .prefixes
                .into_iter()
                .chain(elsewhere)
                .map(|(prefix, n)| {
                    Reading::count("carbon", "rejects.prefix", help, n).labelled("prefix", prefix)
                }),
        );
    }

    /// The levels of the rules, if any are configured.
    fn read_rules(&self, readings: &mut Vec<Reading>) {
        let Some(rules) = &self.0.rules else {
            return;
        };
        let (outputs, values) = rules.len();
        let levels = [
            (
                "rules.names",
                "Names for which it is known what the rules make of them. For information only.",
                rules.known() as f64,
            ),
            (
                "allocatedBuffers",
                "Series that aggregation rules make. If this grows without end, a field of a rule is \
                 filled with ever new text: compare with carbon.aggregation_max_series.",
                outputs as f64,
            ),
            (
                "bufferedDatapoints",
                "Datapoints in intervals of aggregates that are still open. For information only.",
                values as f64,
            ),
        ];
        readings
            .extend(levels.map(|(name, help, value)| Reading::level("carbon", name, help, value)));
    }
}
