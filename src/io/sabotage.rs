//! Deliberate bugs, for the crash tests to catch: a test that cannot catch them proves nothing.
//!
//! Each is one line at the place where somebody could make that mistake. A build that is not a test
//! knows none of them: [`sabotaged`] is then a constant, and what hangs on it is not compiled in.

/// A mistake that somebody could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "only tests make mistakes on purpose")
)]
#[repr(u8)]
pub(crate) enum Bug {
    /// The index is written before the data it speaks of is synced.
    IndexBeforeData,
    /// A flush is answered before the index it wrote is synced.
    NoSecondSync,
    /// A flush that meets a running round is content with that one.
    FlushJoinsRound,
    /// A round takes its entries after the sync that should cover their data.
    EntriesAfterSync,
    /// The index tells of all entries, not only of those whose data is synced.
    IndexTellsAll,
    /// A FUA write is answered like any other.
    FuaForgotten,
    /// No entry is kept in the pending file.
    PendingNever,
    /// An entry is kept only when the next one comes: after its write was answered.
    PendingLate,
    /// Entries leave the pending file before they are in the index.
    SettledEarly,
    /// What was pending when a sync failed is believed by who opens the disk next.
    EntriesAfterFailedSync,
    /// The pending file of an earlier boot is believed.
    PendingOfAnyBoot,
    /// A write for whose entry the pending file has no room is answered without a flush.
    UnkeptAnswered,
    /// What a crash left behind the last place is not cut off.
    TailStays,
    /// What a crash left behind the last place is cut off, and with it what only the pending file names.
    TailCutTooShort,
    /// What a crash left between the places that are used takes its space for good.
    UnusedStays,
    /// What a crash left between the places that are used is freed, and with it what only the pending file names.
    UnusedTooMuch,
    /// An entry that is in the index stays in the pending file of who opens it: growth moves its cluster, and the next
    /// one finds that they contradict each other.
    KnownStays,
    /// What an earlier process wrote is taken for synced: by the first flush, and by who opens an image
    /// that is marked already. (Each of the two syncs alone is enough.)
    CleanAtOpen,
    /// The image is not marked as in use.
    NotMarked,
    /// The in-use mark is not synced.
    MarkNotSynced,
    /// A write in place leaves nothing to sync.
    WriteNotDirty,
    /// A hole leaves nothing to sync.
    HoleNotDirty,
    /// A discard drops the entry: what the parent has shows again.
    DiscardDropsEntry,
    /// A discard frees more than was asked for.
    DiscardTooWide,
    /// A fresh cluster is published before its data is written.
    PublishedEarly,
    /// A copy-up writes zeros where the parent's data belong.
    CopyUpAlone,
    /// A cluster that is being copied up is copied up by a second request too.
    CopyUpTwice,
    /// A place is given out twice.
    PlaceReused,
    /// Two requests lengthen the file at once.
    GrownTwice,
    /// A larger disk's index names moved clusters before they are synced.
    MovedNotSynced,
    /// A larger disk's index takes a place before the index that leaves it is synced.
    LeftNotSynced,
    /// A larger disk's index begins with what lay in its place.
    RoomNotZeroed,
    /// A larger disk's header is written before its index has room.
    GrownEarly,
    /// A larger disk's clusters are where they were before, to who asks.
    MovedUnsaid,
    /// A seal is answered before it is synced.
    SealNotSynced,
    /// A seal does not bring the last entries into the index.
    SealWithoutFlush,
}

/// A hardship that a crash test may choose, and that is no bug.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hardship {
    /// The pending file has no room for every third cluster.
    pub(crate) no_room: bool,
    /// How far ahead a top's file is lengthened, in bytes.
    pub(crate) ahead: Option<u64>,
}

#[cfg(test)]
thread_local! {
    static BUG: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
    static HARDSHIP: std::cell::Cell<Hardship> = const {
        std::cell::Cell::new(Hardship { no_room: false, ahead: None })
    };
}

/// Is this mistake to be made?
#[cfg(test)]
pub(crate) fn sabotaged(bug: Bug) -> bool {
    BUG.get() == Some(bug)
}

/// Is this mistake to be made? Never.
#[cfg(not(test))]
pub(crate) const fn sabotaged(_: Bug) -> bool {
    false
}

/// From now on this thread makes this mistake.
#[cfg(test)]
pub(crate) fn sabotage(bug: Option<Bug>) {
    BUG.set(bug);
}

/// What this thread's disks have to bear.
#[cfg(test)]
pub(crate) fn hardship() -> Hardship {
    HARDSHIP.get()
}

/// From now on this thread's disks have to bear this.
#[cfg(test)]
pub(crate) fn bear(hardship: Hardship) {
    HARDSHIP.set(hardship);
}
