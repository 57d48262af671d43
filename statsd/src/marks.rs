//! What an application says beside its metrics: events (`_e`) and service checks (`_sc`).

/// A mark in time that arrived as a datagram; `src/` hands it to the event store.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Title of the event, or the name of the service check.
    pub what: String,
    /// Text of the event, or the message of the check; may be empty.
    pub data: String,
    /// Tags as sent (`env:prod`), and those that the chunks imply (`host:web1`, `error`).
    pub tags: Vec<String>,
    /// Unix seconds if the sender said when, else the receiver's clock decides.
    pub when: Option<i64>,
    /// The aggregation key (`k:`), which makes repeated deliveries one event.
    pub key: Option<String>,
}

/// Where marks go. Called from a thread that may wait, never from the receiving one.
pub trait Marks: Send + Sync {
    /// Stores one mark. Failures are counted and logged by the implementation.
    fn mark(&self, mark: Mark);
}
