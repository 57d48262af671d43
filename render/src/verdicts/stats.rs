//! What the judge of deploys counts.

settings::counters! {
    /// Counters since the start.
    pub struct Stats in "impact" {
        /// Verdicts that were computed, first ones and later ones. For information only.
        judged = "judged";
        /// Verdicts that say worse for the first time. For information only.
        worse = "worse";
        /// Series that could not be read for a verdict. If this grows, check the disk and the log.
        unread = "unread";
        /// Verdicts that failed, or found no memory within render.max_memory. If this grows, the log
        /// says why.
        failed = "failed";
        /// Webhooks that were not delivered. If this grows, check impact.webhook and its receiver.
        webhooks_failed = "webhooksFailed";
    }
}
