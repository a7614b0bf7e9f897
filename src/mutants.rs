//! Planted bugs: each undoes one rule of replication or of storage, so that the simulation and the search for lost writes
//! can prove that they would notice.
//!
//! In every build but theirs, `planted` is the constant `false` and the switches do not exist.

/// One planted bug. `docs/replication.md` and `docs/storage.md` say what each breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named after the rule that it undoes; the documents tell its story")]
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
    QueuedIsBlind,
    QueuedKeepsStamp,
    SynchronousNormal,
    SynchronousOff,
    LogNotSettled,
    BrokenConnectionKept,
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
    /// What a new thread is to do, with the bug of this one planted there too.
    #[cfg(feature = "std")]
    pub(crate) fn inherited<T>(run: impl FnOnce() -> T) -> impl FnOnce() -> T {
        let planted = PLANTED.get();
        move || {
            plant(planted);
            run()
        }
    }
}
#[cfg(all(feature = "mutants", feature = "std"))]
pub(crate) use switch::inherited;
#[cfg(feature = "mutants")]
pub use switch::plant;
#[cfg(feature = "mutants")]
pub(crate) use switch::planted;

#[cfg(not(feature = "mutants"))]
pub(crate) const fn planted(_: Mutant) -> bool {
    false
}

#[cfg(all(not(feature = "mutants"), feature = "std"))]
pub(crate) fn inherited<T>(run: impl FnOnce() -> T) -> impl FnOnce() -> T {
    run
}
