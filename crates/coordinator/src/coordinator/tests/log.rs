//! Opening, appending and deleting: one case for each rule. What all of them promise together is for `world`.

use super::*;

fn opened(rig: Rig, settings: Settings, from: RestoreFrom) -> Rig {
    let mut rig = rig.restarted(settings);
    rig.open(from);
    rig
}

/// A job with so many checkpoints, and its last words.
fn job(settings: Settings, checkpoints: u64, outcome: Option<Outcome>) -> Rig {
    let mut rig = Rig::running(settings);
    for _ in 0..checkpoints {
        rig.checkpoint();
    }
    if let Some(outcome) = outcome {
        rig.end(outcome);
    }
    rig
}

#[test]
fn a_job_starts_where_it_should() {
    let rewind = |settings| Settings { allow_rewind: true, ..settings };
    let at = |id| RestoreFrom::Checkpoint(CheckpointId(id));
    let failed = || Some(Outcome::Failed("disk".to_owned()));
    let below = "refused: checkpoint 3 has completed and its output may be published: start from it, or allow a rewind \
                 and expect output twice";
    let none = "refused: checkpoint 1 is not retained, only [CheckpointId(2), CheckpointId(3)]: start from one of these \
                or from the latest";
    let cases = [
        ("a crash resumes", 2, None, by_hand(), RestoreFrom::Latest, "epoch 2 from 2"),
        (
            "without a checkpoint there is nothing to resume",
            0,
            None,
            by_hand(),
            RestoreFrom::Latest,
            "epoch 2 from nothing",
        ),
        ("a canceled job resumes", 2, Some(Outcome::Canceled), by_hand(), RestoreFrom::Latest, "epoch 2 from 2"),
        ("a failed job resumes", 2, failed(), by_hand(), RestoreFrom::Latest, "epoch 2 from 2"),
        (
            "a finished job does not run again",
            2,
            Some(Outcome::Finished),
            by_hand(),
            RestoreFrom::Latest,
            "finished already at 2",
        ),
        ("nor from nothing", 2, Some(Outcome::Finished), by_hand(), RestoreFrom::Nothing, "finished already at 2"),
        (
            "unless it is wanted by name",
            2,
            Some(Outcome::Finished),
            rewind(by_hand()),
            RestoreFrom::Nothing,
            "epoch 2 from nothing",
        ),
        (
            "a rewind by mistake is none",
            2,
            Some(Outcome::Finished),
            rewind(by_hand()),
            RestoreFrom::Latest,
            "finished already at 2",
        ),
        ("from nothing, if nothing was published", 0, None, by_hand(), RestoreFrom::Nothing, "epoch 2 from nothing"),
        ("from nothing, below what was published", 3, None, by_hand(), RestoreFrom::Nothing, below),
        ("from an older one, below what was published", 3, None, retaining(2), at(2), below),
        ("from an older one by name", 3, None, rewind(retaining(2)), at(2), "epoch 2 from 2"),
        ("from the newest by number", 3, None, by_hand(), at(3), "epoch 2 from 3"),
        ("from one that is gone", 3, None, rewind(retaining(2)), at(1), none),
    ];
    for (name, checkpoints, outcome, settings, from, expected) in cases {
        let rig = opened(job(retaining(2), checkpoints, outcome), settings, from);
        assert_eq!(rig.seen[0], expected, "{name}");
    }
}

#[test]
fn numbers_go_on_after_a_rewind() {
    let mut rig = opened(job(by_hand(), 3, None), Settings { allow_rewind: true, ..by_hand() }, RestoreFrom::Nothing);
    rig.run(1);
    rig.seen.clear();
    rig.request();
    assert_eq!(rig.seen, ["trigger 4 at S0 S1"]);
}

#[test]
fn a_checkpoint_of_another_folder_starts_a_job_once() {
    let foreign = |checkpoints| Box::new(job(by_hand(), checkpoints, None).coordinator.latest().unwrap().clone());
    let mut rig = Rig::new(by_hand(), 1);
    rig.open(RestoreFrom::Foreign(foreign(7)));
    rig.run(1);
    rig.fail_over();
    rig.run(1);
    rig.request();
    rig.ack_all(8);
    // Its reign is above that of the other folder: names made of epochs never come twice.
    let expected = ["epoch 2 from 7", "restore 7", "trigger 8 at S0 S1", "completed 8 for [1]"];
    assert_eq!(rig.seen, expected, "its files are not ours to delete");
    let rig = opened(rig, by_hand(), RestoreFrom::Foreign(foreign(7)));
    assert_eq!(rig.seen, ["epoch 3 from 8"], "the same command resumes");
    let rig = opened(rig, by_hand(), RestoreFrom::Foreign(foreign(5)));
    assert!(rig.seen[0].starts_with("refused: checkpoint 8 has completed"), "{:?}", rig.seen);
    let rig = opened(rig, Settings { allow_rewind: true, ..by_hand() }, RestoreFrom::Foreign(foreign(5)));
    assert_eq!(rig.seen, ["epoch 4 from 5"]);
}

#[test]
fn a_damaged_log_is_refused_and_left_alone() {
    type Damage = fn(&mut Rig);
    fn flip(rig: &mut Rig, name: &str) {
        *rig.store.get_mut(name).unwrap().last_mut().unwrap() ^= 1;
    }
    let cases: [(&str, Damage, &str); 4] = [
        (
            "the newest record is damaged",
            |rig| flip(rig, "log/00000000000000000009"),
            "refused: log/00000000000000000009 is damaged: its checksum is wrong",
        ),
        (
            "the boundary is damaged",
            |rig| flip(rig, "boundary/00000000000000000001"),
            "refused: boundary/00000000000000000001 is damaged: its checksum is wrong",
        ),
        (
            "a retained record is gone",
            |rig| drop(rig.store.remove("log/00000000000000000008")),
            "refused: log/00000000000000000008 is damaged: it is missing",
        ),
        (
            "all records above the boundary are gone",
            |rig| rig.store.retain(|name, _| name.starts_with("boundary")),
            "refused: log/00000000000000000008 is damaged: it is missing",
        ),
    ];
    for (name, damage, expected) in cases {
        let mut rig = job(retaining(2), 9, None).restarted(retaining(2));
        damage(&mut rig);
        let before = rig.store.clone();
        rig.open(RestoreFrom::Latest);
        assert!(rig.seen.len() == 1 && rig.seen[0].starts_with(expected), "{name}: {:?}", rig.seen);
        assert_eq!(rig.store, before, "{name}");
    }
}

#[test]
fn the_log_of_another_job_is_refused() {
    let mut rig = job(by_hand(), 1, None).restarted(by_hand());
    let other = Job { name: "other".to_owned(), max_parallelism: MaxParallelism::default() };
    rig.coordinator = Coordinator::new(by_hand(), other, 5);
    rig.open(RestoreFrom::Latest);
    let expected = "refused: log/00000000000000000001 is a record of job \"test\", not of \"other\": give each job a \
                    folder of its own";
    assert_eq!(rig.seen, [expected]);
}

#[test]
fn a_store_that_does_not_answer_is_given_up_after_five_tries() {
    let mut rig = Rig::new(by_hand(), 1);
    rig.fails_reads = true;
    rig.open(RestoreFrom::Latest);
    rig.until(3999);
    assert_eq!(rig.seen, [""; 0]);
    rig.until(4000);
    assert_eq!(rig.seen, ["refused: could not use boundary/00000000000000000001: unreachable"]);
    assert_eq!(rig.coordinator.next_deadline(), None);
}

#[test]
fn a_claim_whose_fate_is_unknown_is_tried_again() {
    for fate in [Fate::UnknownDone, Fate::UnknownNotDone, Fate::Failed] {
        let mut rig = Rig::new(by_hand(), 1);
        rig.outcomes = [fate].into();
        rig.open(RestoreFrom::Latest);
        rig.until(1000);
        assert_eq!((rig.seen, rig.store.len()), (vec!["epoch 1 from nothing".to_owned()], 1));
    }
}

#[test]
fn the_fate_of_a_record_is_settled() {
    let tolerant = || Settings { tolerable_failures: 1, ..by_hand() };
    let append = |rig: &mut Rig, fates: &[Fate]| {
        rig.request();
        rig.outcomes = fates.iter().copied().collect();
        rig.ack_all(1);
    };
    let lost = "aborted 1 for [1]: its record could not be written: the store did not say whether it was written, and \
                it was not";
    let files = "delete c1-a1-S0 c1-a1-S1 c1-a1-T0 c1-a1-T1";
    let cases: [(&str, &[Fate], &[&str], u64); 5] = [
        ("it went well", &[Fate::Well], &["completed 1 for [1]"], 1),
        ("it failed", &[Fate::Failed], &["aborted 1 for [1]: its record could not be written: full", files], 1),
        ("nobody knew, and it was there", &[Fate::UnknownDone], &["completed 1 for [1]"], 1),
        ("nobody knew, and it was not", &[Fate::UnknownNotDone], &[lost, files], 2),
        ("nobody knew of the claim either", &[Fate::UnknownNotDone, Fate::UnknownDone], &[lost, files], 2),
    ];
    for (name, fates, expected, epoch) in cases {
        let mut rig = Rig::running(tolerant());
        append(&mut rig, fates);
        rig.until(5000);
        assert_eq!(rig.seen[1..], *expected, "{name}");
        assert_eq!(rig.coordinator.epoch(), Some(Epoch(epoch)), "{name}");
        rig.seen.clear();
        rig.request();
        rig.ack_all(2);
        assert_eq!(rig.seen[..2], ["trigger 2 at S0 S1", "completed 2 for [2]"], "{name}: it goes on");
    }
    let mut rig = Rig::running(tolerant());
    append(&mut rig, &[Fate::UnknownNotDone]);
    rig.request();
    assert_eq!(rig.coordinator.pending[0].barrier.epoch, Epoch(2), "the barrier tells the new epoch");
}

#[test]
fn who_was_superseded_stops_and_touches_nothing() {
    let settings = || Settings { tolerable_failures: 9, ..by_hand() };
    // Created after the take-over, created before the answer is known, and whatever the store says.
    for fates in [vec![], vec![Fate::UnknownNotDone], vec![Fate::UnknownDone], vec![Fate::UnknownNotDone, Fate::Failed]]
    {
        let mut old = Rig::running(settings());
        old.request();
        let mut new = Rig::new(settings(), 2);
        new.store = old.store.clone();
        new.open(RestoreFrom::Latest);
        old.store = new.store;
        old.outcomes = fates.into();
        old.ack_all(1);
        old.until(5000);
        let expected = ["aborted 1 for [1]: another coordinator has taken over: epoch 2", "superseded by 2"];
        assert_eq!(old.seen[1..], expected);
        old.ack(1, 1, S0);
        old.fail_over();
        old.end(Outcome::Finished);
        old.until(9000);
        assert_eq!((old.seen.len(), old.coordinator.next_deadline()), (3, None), "{:?}", old.seen);
    }
}

/// The dead must not come back: a slot that was deleted can be created once more, but the boundary has passed it.
#[test]
fn a_record_below_the_boundary_counts_for_nothing() {
    let mut old = Rig::running(by_hand());
    old.request();
    let mut new = Rig::new(by_hand(), 2);
    new.store = old.store.clone();
    new.open(RestoreFrom::Latest);
    new.run(1);
    for _ in 0..8 {
        new.checkpoint();
    }
    old.store = new.store;
    assert!(!old.store.contains_key(&format!("log/{:020}", 1)), "its slot is free again");
    old.ack_all(1);
    assert_eq!(old.seen[1..], ["aborted 1 for [1]: another coordinator has taken over: epoch 2", "superseded by 2"]);
}

#[test]
fn boundaries_move_one_by_one_and_only_what_lies_below_goes() {
    let mut rig = Rig::running(by_hand());
    let mut seen = Vec::new();
    for _ in 0..9 {
        rig.request();
        let id = rig.coordinator.pending().unwrap().checkpoint.0;
        rig.ack_all(id);
        seen.extend(rig.seen.drain(..).filter(|line| line.starts_with("delete log")));
    }
    let slots = |slots: std::ops::Range<u64>| {
        let names: Vec<String> = slots.map(|slot| format!("log/{slot:020}")).collect();
        format!("delete {}", names.join(" "))
    };
    assert_eq!(seen, [slots(0..4), slots(4..8)]);
    let left: Vec<&String> = rig.store.keys().collect();
    let expected = [
        "boundary/00000000000000000001",
        "boundary/00000000000000000002",
        "log/00000000000000000008",
        "log/00000000000000000009",
    ];
    assert_eq!(left, expected);
}

#[test]
fn a_deletion_that_failed_is_done_again_after_the_next_checkpoint_and_after_a_crash() {
    let mut rig = Rig::running(by_hand());
    rig.checkpoint();
    rig.fails_deletions = true;
    rig.checkpoint();
    rig.request();
    rig.ack_all(3);
    let files = |id: u64| format!("delete c{id}-a1-S0 c{id}-a1-S1 c{id}-a1-T0 c{id}-a1-T1");
    assert_eq!(rig.seen[2..], [files(1), files(2)], "after the next checkpoint");
    let mut rig = rig.restarted(by_hand());
    rig.open(RestoreFrom::Latest);
    assert_eq!(rig.seen, ["epoch 2 from 3".to_owned(), files(1), files(2)], "after a crash");
    rig.run(1);
    rig.checkpoint();
    rig.request();
    rig.ack_all(5);
    assert_eq!(rig.seen[2..], [files(4)], "once is enough");
}

#[test]
fn more_retained_keeps_more_and_fewer_lets_go() {
    let mut rig = job(retaining(3), 4, None);
    assert_eq!(rig.coordinator.retained(), [2, 3, 4].map(CheckpointId));
    rig = opened(rig, retaining(1), RestoreFrom::Latest);
    assert_eq!(rig.coordinator.retained(), [2, 3, 4].map(CheckpointId), "until one has completed");
    rig.run(1);
    rig.checkpoint();
    assert_eq!(rig.coordinator.retained(), [CheckpointId(5)]);
}

/// A late acknowledgement of a checkpoint that completed must not take its files away.
#[test]
fn an_acknowledgement_that_comes_after_completion_deletes_nothing_retained() {
    let mut rig = Rig::running(retaining(2));
    rig.checkpoint();
    rig.checkpoint();
    rig.ack(1, 1, S0);
    rig.ack(1, 2, T1);
    assert_eq!(rig.seen, [""; 0]);
    rig.checkpoint();
    rig.ack(1, 1, S0);
    assert_eq!(rig.seen, ["delete c1-a1-S0"], "this one is subsumed, so it may");
}

#[test]
fn files_of_lower_epochs_that_no_record_names_are_deleted_once_at_the_start() {
    let file = |epoch, checkpoint| {
        let (epoch, checkpoint) = (Epoch(epoch), CheckpointId(checkpoint));
        snapshot_name(
            Barrier { epoch, attempt: Attempt(1), checkpoint, base: None, form: SnapshotForm::Configured },
            S0,
        )
    };
    let complete = |rig: &mut Rig, files: &[String]| {
        rig.request();
        let checkpoint = rig.coordinator.pending().expect("one has begun").checkpoint;
        for (subtask, name) in ALL.into_iter().zip(files) {
            let files = vec![FileRef::stored(name.clone(), 10, 0)];
            let snapshot =
                SubtaskSnapshot { subtask, files, inline: vec![], phases: Phases::default(), state_bytes: 10 };
            rig.coordinator.handle_ack(rig.now, Attempt(1), checkpoint, snapshot);
            rig.drain();
        }
        rig.seen.clear();
    };
    // Epoch 2 retains checkpoint 2, and could not delete checkpoint 1.
    let mut rig = opened(Rig::running(by_hand()), by_hand(), RestoreFrom::Latest);
    rig.run(1);
    rig.fails_deletions = true;
    let (subsumed, retained) = (file(2, 1), file(2, 2));
    complete(&mut rig, &[subsumed.clone(), file(2, 101), file(2, 102), file(2, 103)]);
    complete(&mut rig, &[retained.clone(), file(2, 201), file(2, 202), file(2, 203)]);
    let others = ["chk/notes.txt", "chk/2-3-0-0-1.snap"].map(str::to_owned);
    let spared = [retained, subsumed.clone(), file(3, 3), file(9, 3)].into_iter().chain(others);
    let listed: Vec<String> = spared.chain([file(1, 1), file(2, 3)]).collect();

    let next = |rig: Rig, files| {
        let mut rig = rig.restarted(by_hand());
        (rig.files, rig.fails_deletions) = (files, true);
        rig.open(RestoreFrom::Latest);
        rig
    };
    let rig = next(rig, Some(listed.clone()));
    let carried_on = format!("delete {subsumed} {} {} {}", file(2, 101), file(2, 102), file(2, 103));
    let orphans = format!("delete {} {}", file(1, 1), file(2, 3));
    assert_eq!(rig.seen, ["epoch 3 from 2".to_owned(), carried_on.clone(), orphans]);

    let rig = next(rig, None);
    assert_eq!(rig.seen, ["epoch 4 from 2".to_owned(), carried_on.clone()], "a listing that fails is no matter");
    let rig = next(rig, Some(listed));
    let orphans = format!("delete {} {} {}", file(1, 1), file(2, 3), file(3, 3));
    assert_eq!(rig.seen, ["epoch 5 from 2".to_owned(), carried_on, orphans.clone()], "the start after finds more");

    // Like all that could not be deleted, they are tried again after the next checkpoint.
    let mut rig = rig;
    (rig.fails_deletions, rig.seen) = (false, Vec::new());
    rig.run(1);
    rig.request();
    rig.ack_all(3);
    assert!(rig.seen.contains(&orphans), "{:?}", rig.seen);
}

#[test]
fn a_long_listing_is_worked_off_over_several_starts() {
    let file = |index| {
        let barrier = Barrier {
            epoch: Epoch(1),
            attempt: Attempt(1),
            checkpoint: CheckpointId(7),
            base: None,
            form: SnapshotForm::Configured,
        };
        snapshot_name(barrier, SubtaskId { task: TaskId(0), index })
    };
    let mut rig = Rig::running(by_hand());
    rig.files = Some((0..5000).map(file).collect());
    for (epoch, left) in [(2, 904), (3, 0), (4, 0)] {
        rig = opened(rig, by_hand(), RestoreFrom::Latest);
        assert_eq!(rig.seen[0], format!("epoch {epoch} from nothing"));
        assert_eq!(rig.files.as_ref().map(Vec::len), Some(left), "epoch {epoch}");
    }
}

#[test]
fn files_of_the_reign_before_a_contest_are_left_to_it() {
    let mut rig = opened(Rig::running(by_hand()), by_hand(), RestoreFrom::Latest);
    let own = Barrier {
        epoch: Epoch(2),
        attempt: Attempt(1),
        checkpoint: CheckpointId(1),
        base: None,
        form: SnapshotForm::Configured,
    };
    rig.files = Some(vec![snapshot_name(own, S0)]);
    let mut rig = rig.restarted(by_hand());
    rig.files = Some(vec![snapshot_name(Barrier { epoch: Epoch(3), ..own }, S0)]);
    rig.coordinator.handle_open(rig.now, RestoreFrom::Latest);
    // The listing is answered only when the epoch has risen.
    let mut listing = None;
    loop {
        match rig.coordinator.poll_action() {
            Some(Action::List { token, .. }) => listing = Some(token),
            Some(question @ (Action::Create { .. } | Action::Read { .. } | Action::Delete { .. })) => {
                rig.answer(question)
            }
            Some(told) => rig.note(told),
            None => break,
        }
    }
    rig.run(1);
    rig.outcomes.push_back(Fate::UnknownNotDone);
    rig.request();
    rig.ack_all(1);
    assert_eq!(rig.coordinator.epoch(), Some(Epoch(4)));
    rig.seen.clear();
    let names = rig.files.clone().unwrap_or_default();
    rig.coordinator.handle_listed(rig.now, listing.expect("it was asked"), Ok(names));
    rig.drain();
    assert_eq!(rig.seen, Vec::<String>::new());
}

#[test]
fn damage_found_while_settling_stops_the_job() {
    let mut rig = Rig::running(by_hand());
    rig.request();
    rig.store.insert(format!("log/{:020}", 1), b"garbage".to_vec());
    rig.ack_all(1);
    assert_eq!(rig.seen[1], "aborted 1 for [1]: the log can't be used any more");
    assert!(rig.seen[2].starts_with("refused: log/00000000000000000001 is damaged"), "{:?}", rig.seen);
    let refused = OpenError::Corrupt { name: "log/1".to_owned(), reason: "x".to_owned() };
    assert_eq!(refused.to_string(), "log/1 is damaged: x; restore it from a copy or start the job in a new folder");
}

/// Of two that open at once one gets the slot; the other looks again and gets the next, and with it the job.
#[test]
fn who_loses_the_race_for_a_claim_claims_the_next_slot() {
    let mut first = Rig::new(by_hand(), 1);
    first.held = true;
    first.open(RestoreFrom::Latest);
    while !matches!(first.waiting.front(), Some(Action::Create { .. })) {
        let question = first.waiting.pop_front().unwrap();
        first.answer(question);
        first.drain();
    }
    let mut second = Rig::new(by_hand(), 2);
    second.open(RestoreFrom::Latest);
    second.run(1);
    second.checkpoint();
    first.store = second.store;
    first.release();
    assert_eq!(first.seen, ["epoch 2 from 1"]);
}

#[test]
fn whoever_was_replaced_learns_it_before_the_next_attempt() {
    // Nothing is appended in between: attempts that fail before they complete anything would never find out.
    let mut old = job(by_hand(), 1, None);
    let mut new = Rig { store: old.store.clone(), ..Rig::new(by_hand(), 77) };
    new.open(RestoreFrom::Latest);
    old.store = new.store;
    old.fail_over();
    assert_eq!(old.seen, ["superseded by 2"]);

    // The same where the slot of the claim is gone, since a boundary has passed it.
    let mut old = job(by_hand(), 1, None);
    let mut new = Rig { store: old.store.clone(), ..Rig::new(by_hand(), 77) };
    new.open(RestoreFrom::Latest);
    new.run(1);
    for _ in 0..8 {
        new.checkpoint();
    }
    assert!(!new.store.contains_key("log/00000000000000000002"), "{:?}", new.store.keys());
    old.store = new.store;
    old.fail_over();
    assert_eq!(old.seen, ["superseded by 2"]);
}

#[test]
fn a_failover_is_answered_once_the_store_is() {
    let mut rig = job(by_hand(), 1, None);
    rig.fails_reads = true;
    rig.fail_over();
    rig.until(20_000);
    assert_eq!(rig.seen, [""; 0], "nobody knows whose the job is");
    rig.fails_reads = false;
    rig.until(21_000);
    assert_eq!(rig.seen, ["restore 1"]);
}

#[test]
fn a_job_that_ends_does_not_wait_to_learn_whose_it_is() {
    let failed = || Outcome::Failed("the token has expired".to_owned());
    // The store refuses for good: the answer would never come.
    let mut rig = job(by_hand(), 1, None);
    rig.fails_reads = true;
    rig.outcomes = [Fate::Failed; 5].into();
    rig.fail_over();
    rig.end(failed());
    rig.until(20_000);
    assert_eq!(rig.seen, ["closed: Some(\"full\")"]);

    // It answers late: that is nothing to anybody any more.
    let mut rig = job(by_hand(), 1, None);
    rig.held = true;
    rig.fail_over();
    let late = rig.waiting.pop_front().expect("it looks whose the job is");
    rig.end(failed());
    rig.answer(late);
    rig.release();
    assert_eq!(rig.seen, ["closed: None"]);

    // Whoever was replaced learns it all the same, from the slot that is taken.
    let mut old = job(by_hand(), 1, None);
    let mut new = Rig { store: old.store.clone(), ..Rig::new(by_hand(), 77) };
    new.open(RestoreFrom::Latest);
    old.store = new.store;
    old.held = true;
    old.fail_over();
    old.end(failed());
    old.release();
    assert_eq!(old.seen, ["superseded by 2"]);
}

#[test]
fn a_job_that_ends_waits_for_its_deletions() {
    let mut rig = job(by_hand(), 1, None);
    rig.request();
    rig.held = true;
    rig.ack_all(2);
    rig.held = false;
    // The record is durable; the deletion of what it subsumes is held back.
    while !rig.seen.iter().any(|said| said.starts_with("completed")) {
        let question = rig.waiting.pop_front().expect("it completes");
        rig.answer(question);
        rig.held = true;
        rig.drain();
    }
    let deletion = rig.waiting.pop_front().expect("the first checkpoint is subsumed");
    assert!(matches!(deletion, Action::Delete { .. }), "{deletion:?}");
    rig.seen.clear();
    rig.held = false;
    rig.end(Outcome::Finished);
    assert_eq!(rig.seen, [""; 0], "recorded, and not closed yet");
    rig.answer(deletion);
    rig.drain();
    assert_eq!(rig.seen.last().map(String::as_str), Some("closed: None"));
}

#[test]
fn a_job_that_ends_waits_for_its_listing_and_deletes_what_it_shows() {
    let orphan = snapshot_name(
        Barrier {
            epoch: Epoch(1),
            attempt: Attempt(1),
            checkpoint: CheckpointId(7),
            base: None,
            form: SnapshotForm::Configured,
        },
        SubtaskId { task: TaskId(0), index: 0 },
    );
    let mut rig = Rig::running(by_hand()).restarted(by_hand());
    rig.files = Some(vec![orphan.clone()]);
    rig.held = true;
    rig.coordinator.handle_open(rig.now, RestoreFrom::Latest);
    rig.drain();
    while !rig.seen.iter().any(|said| said.starts_with("epoch 2")) {
        let question = rig.waiting.pop_front().expect("it opens");
        rig.answer(question);
        rig.drain();
    }
    let at = rig.waiting.iter().position(|question| matches!(question, Action::List { .. }));
    let listing = rig.waiting.remove(at.expect("it asks what is there")).expect("it is there");
    rig.release();
    rig.seen.clear();
    rig.end(Outcome::Finished);
    assert_eq!(rig.seen, [""; 0], "recorded, and not closed yet");
    rig.answer(listing);
    rig.drain();
    assert_eq!(rig.seen, [format!("delete {orphan}"), "closed: None".to_owned()]);
}

#[test]
fn a_resumed_job_keeps_its_key_groups() {
    let resumed = |told: u32, groups: u32| {
        let mut rig = Rig::new(by_hand(), 1);
        rig.coordinator = {
            let max_parallelism = MaxParallelism::new(groups).unwrap();
            Coordinator::new(by_hand(), Job { name: "test".to_owned(), max_parallelism }, 1)
        };
        rig.open(RestoreFrom::Latest);
        rig.run(1);
        rig.checkpoint();
        let store = rig.store;
        let job = Job { name: "test".to_owned(), max_parallelism: MaxParallelism::new(told).unwrap() };
        let mut rig = Rig { store, ..Rig::new(by_hand(), 2) };
        rig.coordinator = Coordinator::new(by_hand(), job, 2);
        rig.open(RestoreFrom::Latest);
        rig.run(1);
        rig.checkpoint();
        rig.coordinator.latest().unwrap().max_parallelism.count()
    };
    assert_eq!(resumed(128, 256), 256, "its state is stored by them, whatever the settings say now");
    assert_eq!(resumed(256, 256), 256);
}

#[test]
fn a_boundary_that_was_found_is_made_durable_before_slots_below_it_go() {
    // Its creator may have died before it was: a loss of power could take it, and the log would begin at no slot at all.
    let mut rig = job(by_hand(), 4, None);
    assert!(rig.store.contains_key("boundary/00000000000000000001"), "{:?}", rig.store.keys());
    rig = rig.restarted(by_hand());
    rig.held = true;
    rig.open(RestoreFrom::Latest);
    let mut confirmed = false;
    while let Some(question) = rig.waiting.pop_front() {
        match &question {
            Action::Create { name, .. } => confirmed |= name == "boundary/00000000000000000001",
            Action::Delete { names, .. } => {
                let slots = names.iter().any(|name| name.starts_with("log/"));
                assert!(confirmed || !slots, "{names:?} are deleted below a boundary that may not be durable");
            }
            _ => {}
        }
        rig.answer(question);
        rig.drain();
    }
    assert!(confirmed, "{:?}", rig.seen);
}
