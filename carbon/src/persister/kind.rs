//! Kinds of passes.

/// Which limits apply to a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Within the budgets, in the order of the write strategy.
    Ordinary,
    /// As `Ordinary`, the series that the hand has come to.
    Hand,
    /// Each series that waits at the beginning once, so that the pass has an end.
    Whole,
    /// As `Whole`, without the budgets.
    Drain,
    /// As `Whole`, but series may wait for a second timestamp: their points go into the next segment
    /// of the journal.
    Checkpoint,
    /// As `Drain`, but series may wait for a second timestamp: a restart is no reason to assume a
    /// step.
    Replay,
}

impl Kind {
    /// Whether the budgets of updates and creations are spent.
    pub(crate) fn is_budgeted(self) -> bool {
        !matches!(self, Self::Drain | Self::Replay)
    }

    /// Whether a new series may wait for a second timestamp.
    pub(super) fn may_wait(self) -> bool {
        matches!(
            self,
            Self::Ordinary | Self::Hand | Self::Checkpoint | Self::Replay
        )
    }
}
