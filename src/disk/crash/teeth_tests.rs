//! A crash test that cannot catch a bug proves nothing: each deliberate bug is caught.
#![expect(
    clippy::print_stdout,
    reason = "what was explored is for a person to see"
)]

use super::acts::by_chance;
use super::explore::{Tally, run};
use super::scenarios::SCENARIOS;
use crate::io::Bug;

/// Rounds of all scenarios before a bug counts as missed.
const ROUNDS: u64 = 12;

/// How the exploration catches a bug, and after how many states.
fn catches(bug: Bug) {
    let mut tally = Tally::default();
    for seed in 0..ROUNDS {
        let named = SCENARIOS.iter().map(|it| it.plan(seed, 6, 0));
        for plan in named.chain([by_chance(seed, 6, 0)]) {
            if let Err(violation) = run(&plan, Some(bug), &mut tally) {
                println!(
                    "{bug:?}: caught after {} states: {violation}",
                    tally.states()
                );
                let without = run(&plan, None, &mut Tally::default());
                assert!(without.is_ok(), "not the bug's fault: {without:?}");
                return;
            }
        }
    }
    panic!("{bug:?} is not caught in {tally:?}");
}

macro_rules! teeth {
    ($($name:ident: $bug:ident,)*) => {
        $(#[test] fn $name() { catches(Bug::$bug); })*

        /// A bug without a test does not compile.
        #[test]
        fn every_bug_has_a_test() {
            let tested = |bug| match bug { $(Bug::$bug => true,)* };
            assert!(tested(Bug::IndexBeforeData));
        }
    };
}

teeth! {
    index_before_data: IndexBeforeData,
    no_second_sync: NoSecondSync,
    a_flush_joins_a_running_round: FlushJoinsRound,
    entries_are_taken_after_the_sync: EntriesAfterSync,
    the_index_tells_all: IndexTellsAll,
    fua_is_forgotten: FuaForgotten,
    entries_are_never_pending: PendingNever,
    entries_are_pending_late: PendingLate,
    entries_are_settled_early: SettledEarly,
    entries_outlive_a_failed_sync: EntriesAfterFailedSync,
    a_pending_file_of_any_boot_is_believed: PendingOfAnyBoot,
    what_is_not_kept_is_answered: UnkeptAnswered,
    the_tail_stays: TailStays,
    the_tail_is_cut_too_short: TailCutTooShort,
    unused_places_stay: UnusedStays,
    pending_places_are_taken_for_unused: UnusedTooMuch,
    what_the_index_knows_stays_pending: KnownStays,
    what_was_left_is_taken_for_synced: CleanAtOpen,
    the_image_is_not_marked: NotMarked,
    the_mark_is_not_synced: MarkNotSynced,
    a_write_leaves_nothing_to_sync: WriteNotDirty,
    a_hole_leaves_nothing_to_sync: HoleNotDirty,
    a_discard_drops_the_entry: DiscardDropsEntry,
    a_discard_is_too_wide: DiscardTooWide,
    a_cluster_is_published_early: PublishedEarly,
    the_rest_is_not_copied_up: CopyUpAlone,
    a_cluster_is_copied_up_twice: CopyUpTwice,
    a_place_is_reused: PlaceReused,
    the_file_is_grown_twice: GrownTwice,
    moved_clusters_are_not_synced: MovedNotSynced,
    left_places_are_not_synced: LeftNotSynced,
    the_room_of_the_index_is_not_zeroed: RoomNotZeroed,
    the_size_is_written_early: GrownEarly,
    moved_clusters_are_looked_for_where_they_were: MovedUnsaid,
    a_seal_is_not_synced: SealNotSynced,
    a_seal_lacks_the_last_entries: SealWithoutFlush,
}
