//! A peer: each of two asks the other for its changes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use render::events::{Changes, There};

use super::{End, Here, Position};
use crate::peers::machine::Machine;

/// Another server.
pub(super) struct Peer(Arc<Machine>);

impl Peer {
    /// The server at `url`.
    ///
    /// # Errors
    /// Something that is not a URL.
    pub(super) fn new(url: &str, timeout: Duration) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Machine::new(url, timeout)?)))
    }
}

impl End for Peer {
    fn name(&self) -> String {
        self.0.base().to_owned()
    }

    fn round(&mut self, here: &Here<'_>, position: &mut Position) -> anyhow::Result<()> {
        let own = here.store.name()?;
        let is_stale = position.is_stale();
        let mut known = HashSet::new();
        if is_stale {
            // All that it has, in one round.
            position.taken = 0;
        }
        loop {
            let (machine, own) = (Arc::clone(&self.0), own.clone());
            let after = position.taken.to_string();
            let answer = here.ask(move |budget| {
                let asked = [("after", after.as_str()), ("store", &own)];
                Ok(machine.json("/events/changes", &asked, budget)?)
            })?;
            let Changes {
                store,
                last,
                changes,
                kept_from,
            } = answer.content;
            if store != position.theirs {
                // Its numbers are others than before, and it has been given nothing.
                position.theirs = store;
                position.given = 0;
                if position.taken != 0 {
                    position.taken = 0;
                    continue;
                }
            }
            position.given = position.given.max(here.store.taken_by(&position.theirs));
            if changes.is_empty() {
                if is_stale && let Some(kept_from) = kept_from {
                    let there = There {
                        known,
                        given: position.given,
                        is_table: false,
                        kept_from,
                    };
                    here.forget_absent(self.0.base(), there)?;
                }
                position.meet();
                return Ok(());
            }
            if is_stale {
                known.extend(changes.iter().map(|change| change.mark.uid.clone()));
            }
            here.take(changes, false)?;
            position.taken = last;
            if here.is_over() && !is_stale {
                return Ok(());
            }
        }
    }
}
