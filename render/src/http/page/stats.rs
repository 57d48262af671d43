//! What the page counts about itself.

settings::counters! {
    /// Counters since the start.
    pub struct Stats in "page" {
        /// Pages that connected for live updates. For information only.
        opened = "live_opened";
        /// Pages refused live updates because too many were connected (503); they ask every few
        /// seconds instead. If this grows, close forgotten tabs or wall displays.
        refused = "live_refused";
        /// Messages that a page did not read in time and that were left out; the next message has
        /// the newest state. If this grows, the network of a client is slow.
        skipped = "live_skipped";
    }
}
