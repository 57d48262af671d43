//! A peer: each of two asks the other for its changes.

use std::time::Duration;

use render::events::Changes;

use super::{End, Here, Position};
use crate::peers::machine::Machine;

/// Another server.
pub(super) struct Peer(Machine);

impl Peer {
    /// The server at `url`.
    ///
    /// # Errors
    /// Something that is not a URL.
    pub(super) fn new(url: &str, timeout: Duration) -> anyhow::Result<Self> {
        Ok(Self(Machine::new(url, timeout)?))
    }
}

impl End for Peer {
    fn name(&self) -> String {
        self.0.base().to_owned()
    }

    fn round(&mut self, here: &Here<'_>, position: &mut Position) -> anyhow::Result<()> {
        loop {
            let after = position.taken.to_string();
            let answer = self.0.json("/events/changes", &[("after", &after)])?;
            let Changes {
                store,
                last,
                changes,
            } = serde_json::from_value(answer)?;
            if store != position.theirs {
                // Its numbers are others than before.
                position.theirs = store;
                if position.taken != 0 {
                    position.taken = 0;
                    continue;
                }
            }
            if changes.is_empty() {
                return Ok(());
            }
            here.take(changes, false)?;
            position.taken = last;
            if here.is_over() {
                return Ok(());
            }
        }
    }
}
