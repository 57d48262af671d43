//! What the store on ClickHouse reports about itself.

settings::counters! {
    /// Every counter of this crate.
    pub struct Stats in "clickhouse" {
        /// Blocks that ClickHouse has acknowledged. If this stops growing while metricsReceived grows, look at the log.
        blocks = "blocks";
        /// Rows of points in them. For information only.
        rows = "rows";
        /// Rows of names and tags in them. If this grows as fast as rows, senders make new names all the time.
        index_rows = "indexRows";
        /// Bytes sent to ClickHouse, compressed. For information only.
        bytes = "bytesSent";
        /// Blocks that ClickHouse did not acknowledge; they are sent again. If this grows, look at the log.
        refused = "blocksRefused";
        /// Queries sent to ClickHouse. For information only.
        queries = "queries";
        /// Queries that failed. If this grows, look at the answers of render or at ClickHouse's own log.
        query_errors = "queryErrors";
        /// Queries that were ended because their client had gone or their time was over. If this grows, queries are
        /// too large: see store.clickhouse.query_timeout.
        killed = "queriesKilled";
        /// Patterns and tag expressions answered from store.clickhouse.find_cache. For information only.
        found_again = "findCacheHits";
        /// Nanoseconds spent in compressing blocks. Compare with rows: see store.clickhouse.compression.
        block_nanoseconds = "packNanoseconds";
    }
}
