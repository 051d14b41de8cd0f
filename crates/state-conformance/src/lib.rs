//! The contract of a state backend as a test suite, for anyone's backend.
//!
//! Each sentence of the contract on [`StateBackend`](cutwater_state::StateBackend) is a function of [`contract`], named
//! like the sentence; [`suite!`] makes a `#[test]` of each, so that a failure names the sentence that was broken. The whole
//! test file of a backend:
//!
//! ```
//! # use cutwater_state::{Capabilities, StateBackend};
//! # #[derive(Debug, Default)]
//! # struct MyBackend;
//! # impl StateBackend for MyBackend {
//! #     fn name(&self) -> &'static str { "mine" }
//! #     fn capabilities(&self) -> Capabilities { Capabilities::default() }
//! # }
//! cutwater_state_conformance::suite!(MyBackend::default);
//! ```
//!
//! A new sentence enters the suite first, and then holds for all backends.
//!
//! The contract of what lies below the tables, on [`ColdTier`](cutwater_state::ColdTier), is in [`cold`] in the same way, with
//! [`cold_tier_suite!`]; what it says of images is in [`images`], with [`cold_images_suite!`].

mod changes;
pub mod cold;
pub mod contract;
mod harness;
pub mod images;
mod kinds;

/// Makes a test of every sentence of the contract, against the backends that the argument makes: a function or closure
/// without arguments.
#[macro_export]
macro_rules! suite {
    ($make:expr) => {
        $crate::suite! { @tests $make;
            a_read_sees_earlier_writes
            a_removed_key_is_gone
            keys_do_not_disturb_each_other
            every_kind_of_type_can_be_key_and_value
            a_cut_is_the_state_at_the_call
            inserts_during_the_sweep_are_left_out
            changes_during_the_sweep_do_not_show
            removals_during_the_sweep_do_not_show
            growth_during_the_sweep_does_not_show
            a_cut_takes_no_time_that_grows_with_the_state
            a_second_cut_waits_for_the_end_of_the_sweep
            a_sweep_without_a_cut_emits_nothing
            blocks_come_in_key_group_order
            a_sweep_keeps_near_its_budget
            the_cost_of_changes_is_seen
            an_abort_leaves_the_state_as_it_is
            a_snapshot_restores_into_any_parallelism
            a_restore_takes_only_the_groups_asked_for
            a_restore_during_a_sweep_is_refused
            a_damaged_block_is_refused
            the_same_block_twice_is_refused
            timers_fire_in_order_of_time_and_key
            a_timer_fires_once_however_often_registered
            a_deleted_timer_does_not_fire
            a_timer_set_while_firing_takes_its_place
            a_snapshot_holds_the_timers_set_at_the_cut
            timers_restore_into_any_parallelism
            timers_of_processing_time_do_the_same
            a_map_keeps_its_entries_by_user_key
            a_cleared_map_is_gone_and_others_stay
            a_list_keeps_the_order_of_its_elements
            an_append_does_not_copy_the_list
            an_accumulator_is_one_value_for_each_key
            snapshots_of_every_kind_are_the_state_at_the_cut
            every_kind_restores_into_any_parallelism
            a_damaged_block_of_any_kind_is_no_panic
            what_has_expired_is_left_out_of_snapshots
            cleaning_removes_what_has_expired_in_steps
            a_cut_since_another_makes_it_the_later_one
            blocks_of_changes_come_in_key_group_order
            a_cut_may_be_since_any_that_is_not_forgotten
            a_cut_of_changes_takes_no_time_that_grows
            every_kind_can_be_cut_since_another
            what_has_expired_is_gone_in_a_cut_since_another
            what_is_kept_of_removed_entries_is_bounded
            the_header_tells_types_apart
            undeclared_capabilities_are_absent
        }
    };
    (@tests $make:expr; $($sentence:ident)*) => {
        $(
            #[test]
            fn $sentence() {
                $crate::contract::$sentence($make);
            }
        )*
    };
}

/// Makes a test of every sentence of the contract of a cold tier, against the tiers that the argument makes: a function or
/// closure without arguments, which makes an empty one.
#[macro_export]
macro_rules! cold_tier_suite {
    ($make:expr) => {
        $crate::cold_tier_suite! { @tests $make;
            a_read_sees_every_earlier_write_of_any_thread
            a_lookup_finds_each_of_many_names
            a_lookup_by_prefixes_finds_all_that_begin_with_them
            a_range_begins_at_its_name_and_ends_with_its_group
            of_one_batch_the_last_write_of_a_name_counts
            a_deleted_name_is_gone
            what_is_loaded_is_written_once_the_load_is_finished
            a_load_that_is_not_finished_leaves_nothing
            names_do_not_disturb_each_other
            states_do_not_disturb_each_other
            a_scan_visits_the_groups_asked_for_in_order
            a_scan_stops_when_it_is_told
            a_view_is_the_tier_as_it_was_at_the_call
            a_view_stays_after_later_views
            a_view_can_be_read_while_the_tier_is_written
            two_threads_may_use_two_states_at_once
            any_bytes_can_be_a_name_or_a_value
            values_may_have_megabytes
            a_state_opened_again_is_the_same
            a_state_of_another_header_is_another
            it_says_about_how_many_entries_there_are
            what_expires_may_go_but_nothing_else_and_not_from_earlier_views
        }
    };
    (@tests $make:expr; $($sentence:ident)*) => {
        $(
            #[test]
            fn $sentence() {
                $crate::cold::$sentence($make);
            }
        )*
    };
}

/// The same for what the contract says of images, for tiers that have some.
#[macro_export]
macro_rules! cold_images_suite {
    ($make:expr) => {
        $crate::cold_images_suite! { @tests $make;
            an_image_is_the_tier_as_it_was_at_the_call
            a_part_of_an_image_is_imported
            parts_of_several_images_are_imported_together
            lasting_files_of_a_name_are_the_same
            a_tier_goes_on_from_an_image
            states_that_nobody_has_are_forgotten
            a_damaged_image_is_an_error
        }
    };
    (@tests $make:expr; $($sentence:ident)*) => {
        $(
            #[test]
            fn $sentence() {
                $crate::images::$sentence($make);
            }
        )*
    };
}
