//! What the event store counts.

use super::file;

settings::counters! {
    /// Counters since the start.
    pub struct Stats in "events" {
        /// New events. For information only.
        created = "created";
        /// Changes to existing events. For information only.
        updated = "updated";
        /// Events deleted on request or after events.retention. For information only.
        removed = "removed";
        /// Changes that came from other servers (render.peers, or the table of ClickHouse). For information
        /// only.
        taken = "taken";
        /// Events that were refused because something in them was wrong. If this grows, the answer
        /// to the client says what.
        refused = "refused";
        /// Events from datagrams and metrics dropped because the event store was behind. If this
        /// grows, check the disk, or send fewer events.
        dropped = "dropped";
        /// Changes that the database refused. If this grows, check the disk and the log.
        failed = "failed";
        /// Queries and changes that met damage in the database. If this grows, restore events.db
        /// from a backup.
        damaged = "damaged";
        /// Damaged databases that were set aside at the start. If this is not 0, restore events.db
        /// from a backup: the log names the damaged file.
        set_aside = "set_aside";
        /// Requests refused because too many changes, imports, questions or large answers were in progress. If
        /// this grows, ask for less at once.
        busy = "busy";
        /// Answers with events that were broken off, because their clients read slowly and others needed the
        /// room. If this grows, find these clients, or let them ask for less.
        displaced = "displaced";
        /// Events in datagrams refused because tokens are set. If they are wanted, set
        /// events.allow_datagrams.
        datagrams_refused = "datagrams_refused";
        /// Events in datagrams dropped because of events.max_per_second. If this grows, raise the
        /// limit, or send fewer events.
        datagrams_limited = "datagrams_limited";
    }
}

impl Stats {
    /// Counts `error` if it says that the database is damaged.
    pub(super) fn see(&self, error: &rusqlite::Error) {
        if file::is_damage(error) {
            self.damaged.add(1);
        }
    }
}
