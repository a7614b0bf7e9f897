//! Planted bugs: each undoes one rule of replication, so that the simulation can prove that it would notice.
//!
//! In every build but the simulation's own, `planted` is the constant `false` and the switches do not exist.

/// One planted bug. `docs/replication.md` says what each breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after the rule that it undoes; docs/replication.md tells its story")]
pub enum Mutant {
    JoinAtEveryBatch,
    DropBeforeMembersCover,
    DropWithoutMembers,
    DropAtOnceWithoutOwnCover,
    FloorNotRaised,
    NoFloorCheckAtHello,
    NoFloorCheckAtClosure,
    NoFloorCheckOnApply,
    BootstrapKeepsReplica,
    BootstrapKeepsCursors,
    BootstrapInForceEarly,
    BootstrapDropsUncovered,
    SentNotMarked,
    ForkNotNoticed,
    ForkGetsNewStamp,
    ForkClaimsFloor,
    ConfirmBeforeSync,
    AnswerBeforeSync,
    CursorWithoutRows,
    StampNotAboveRow,
    HlcNotPersisted,
    TieKeepsOwn,
    ExpiryForgets,
    EveryClockVotes,
    FutureMovesClock,
    NoRotation,
    RelayAtOnce,
    BatchOvertakes,
    BatchOfAnotherLife,
    VisitorTracked,
    NoReconcile,
    ReconcileKeepsDot,
    LocalLeaves,
    RepairTakesOlder,
    StreamPassesDamage,
}

#[cfg(feature = "mutants")]
mod switch {
    use super::Mutant;
    use core::cell::Cell;
    std::thread_local! {
        static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
    }
    /// Plants one bug, or none, in everything that runs on this thread.
    pub fn plant(mutant: Option<Mutant>) {
        PLANTED.set(mutant);
    }
    pub(crate) fn planted(mutant: Mutant) -> bool {
        PLANTED.get() == Some(mutant)
    }
}
#[cfg(feature = "mutants")]
pub use switch::plant;
#[cfg(feature = "mutants")]
pub(crate) use switch::planted;

#[cfg(not(feature = "mutants"))]
pub(crate) const fn planted(_: Mutant) -> bool {
    false
}
