//! Operator states in whole jobs that fail and go on at other parallelisms.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cutwater_coordinator::Settings;
use cutwater_dataflow::exec::OperatorStateError;
use cutwater_dataflow::{
    BroadcastState, Collect, Job, JobGraph, KeyedBroadcastProcess, OperatorListState, OperatorStates, Process,
    ProcessContext, RecordContext, Timestamp, UnionListState, UserError, discard, generator,
};
use cutwater_restart::Strategy;
use cutwater_runtime::{
    Failure, IgnoreUnclaimed, JobError, JobOutcome, Options, RestoreError, StopMode, run, spawn, store_at,
};

const RECORDS: u64 = 36_000;
const KEYS: u64 = 50;
const RULES: u64 = 20;

fn checkpointed(folder: &Path, parallelism: u32) -> Options {
    let mut options = Options::new();
    options.checkpointing = Settings { interval: Some(Duration::from_millis(2)), enabled: true, ..Settings::default() };
    options.restart = Some(Strategy::FixedDelay { attempts: 1 << 20, delay: Duration::from_millis(1) });
    options.store = Some(store_at(folder.to_str().unwrap()).unwrap());
    options.parallelism = NonZeroU32::new(parallelism).unwrap();
    options
}

/// Gives out its records in packets of ten, and at the end all that it has kept of every seventh: each record comes out
/// once, and each seventh twice, if no state is lost or doubled.
#[derive(Clone, Default)]
struct Packets {
    open: OperatorListState<u64>,
    kept: UnionListState<u64>,
}

impl Process<u64> for Packets {
    type Out = u64;

    fn open(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
        self.open = states.list("open")?;
        self.kept = states.union_list("kept")?;
        // Each subtask has been given all of them.
        let (subtask, parallelism) = (u64::from(states.subtask()), u64::from(states.parallelism()));
        states.operator_state(self.kept)?.retain(|n| n % parallelism == subtask);
        Ok(())
    }

    fn process(&mut self, cx: &mut RecordContext<'_, u64>, n: u64) -> Result<(), UserError> {
        if n.is_multiple_of(7) {
            cx.operator_state(self.kept)?.push(n);
        }
        let open = cx.operator_state(self.open)?;
        open.push(n);
        if open.len() == 10 {
            std::mem::take(open).into_iter().for_each(|n| cx.emit(n));
        }
        Ok(())
    }

    fn on_watermark(&mut self, cx: &mut RecordContext<'_, u64>, time: Timestamp) -> Result<(), UserError> {
        if time == Timestamp::MAX {
            std::mem::take(cx.operator_state(self.open)?).into_iter().for_each(|n| cx.emit(n));
            std::mem::take(cx.operator_state(self.kept)?).into_iter().for_each(|n| cx.emit(n));
        }
        Ok(())
    }
}

/// Key, how many records of it, the sums.
type Told = (u64, u64, Vec<u64>);

/// Sums up broadcast records by rule, and tells the sums with the count of each key at the end.
#[derive(Clone, Default)]
struct Ruled {
    sums: BroadcastState<u64, u64>,
}

impl KeyedBroadcastProcess<u64, u64, u64> for Ruled {
    type State = u64;
    type Out = Told;

    fn initial(&self) -> u64 {
        0
    }

    fn open_broadcast(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
        self.sums = states.broadcast("sums")?;
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, u64, u64, Self::Out>, _: u64) -> Result<(), UserError> {
        *cx.state()? += 1;
        Ok(cx.register_timer(Timestamp::MAX)?)
    }

    fn process_broadcast(&mut self, cx: &mut RecordContext<'_, Self::Out>, n: u64) -> Result<(), UserError> {
        *cx.operator_state(self.sums)?.entry(n % RULES).or_default() += n;
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut ProcessContext<'_, u64, u64, Self::Out>, _: Timestamp) -> Result<(), UserError> {
        let sums = cx.broadcast_state(self.sums)?.values().copied().collect();
        let told = (*cx.key(), cx.peek()?.copied().unwrap_or_default(), sums);
        cx.emit(told);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Outs {
    packets: Collect<u64>,
    ruled: Collect<Told>,
}

impl Outs {
    fn take(&self) -> (Vec<u64>, Vec<Told>) {
        let (mut packets, mut ruled) = (self.packets.take(), self.ruled.take());
        packets.sort_unstable();
        ruled.sort_unstable();
        (packets, ruled)
    }
}

fn job(outs: &Outs, fault: impl Fn(u64) -> Result<(), UserError> + Clone + Send + Sync + 'static) -> JobGraph {
    let job = Job::new("operator-states");
    let numbers = || generator(RECORDS, |n| n);
    let may_fail = move |cx: &mut RecordContext<'_, u64>, n| {
        fault(n)?;
        cx.emit(n);
        Ok(())
    };
    let packets = job.source("numbers", numbers()).process(may_fail.clone()).rebalance();
    packets.process_with("packets", Packets::default()).sink("packets-out", outs.packets.clone());
    let rules = job.source("rules", numbers());
    job.source("keyed", numbers())
        .process(may_fail)
        .key_by(|n| n % KEYS)
        .connect_broadcast(rules)
        .process_with("ruled", Ruled::default())
        .sink("ruled-out", outs.ruled.clone());
    job.build().unwrap()
}

fn expected() -> (Vec<u64>, Vec<Told>) {
    let mut packets: Vec<u64> = (0..RECORDS).chain((0..RECORDS).step_by(7)).collect();
    packets.sort_unstable();
    let sums: Vec<u64> = (0..RULES).map(|rule| (rule..RECORDS).step_by(RULES as usize).sum()).collect();
    (packets, (0..KEYS).map(|key| (key, RECORDS / KEYS, sums.clone())).collect())
}

#[expect(clippy::disallowed_methods, reason = "checkpoints are to complete between two failures")]
fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

#[test]
fn all_kinds_of_operator_state_survive_failures_and_other_parallelisms() {
    let outs = Outs::default();
    assert_eq!(run(job(&outs, |_| Ok(())), Options::new()).unwrap(), JobOutcome::Finished);
    assert_eq!(outs.take(), expected());

    for (first, second, third) in [(1, 4, 3), (3, 2, 3)] {
        let folder = tempfile::tempdir().unwrap();
        let outs = Outs::default();
        let (panics, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(1)));
        let graph = || {
            let (panics, gate) = (Arc::clone(&panics), Arc::clone(&gate));
            job(&outs, move |n: u64| {
                if n.is_multiple_of(1_000) {
                    pause(2);
                }
                let wanted = panics.load(Ordering::SeqCst);
                if wanted < 3 && n == u64::from(wanted + 1) * 2_000 {
                    panics.fetch_add(1, Ordering::SeqCst);
                    panic!("planned");
                }
                match n >= u64::from(gate.load(Ordering::SeqCst)) * 12_000 {
                    true => {
                        pause(10);
                        Err("the gate is closed".into())
                    }
                    false => Ok(()),
                }
            })
        };
        for (parallelism, next) in [(first, 2), (second, 4)] {
            let handle = spawn(graph(), checkpointed(folder.path(), parallelism)).unwrap();
            while handle.status().restarts < 4 || handle.status().completed_checkpoints == 0 {
                pause(1);
            }
            handle.cancel();
            assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
            gate.store(next, Ordering::SeqCst);
        }
        let handle = spawn(graph(), checkpointed(folder.path(), third)).unwrap();
        assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
        assert!(handle.status().restored.is_some(), "it went on from a checkpoint");
        assert!(outs.take() == expected(), "the output differs, {first} to {second} to {third}");
    }
}

type Open = fn(&mut OperatorStates<'_>) -> Result<(), UserError>;

#[derive(Clone)]
struct Keeps(Open);

impl Process<u64> for Keeps {
    type Out = u64;

    fn open(&mut self, states: &mut OperatorStates<'_>) -> Result<(), UserError> {
        (self.0)(states)
    }

    fn process(&mut self, cx: &mut RecordContext<'_, u64>, n: u64) -> Result<(), UserError> {
        cx.emit(n);
        Ok(())
    }
}

/// An endless job whose one operator keeps what `open` says.
fn kept(open: Open) -> JobGraph {
    let job = Job::new("kept");
    job.source("numbers", generator(u64::MAX, |n| n)).process_with("op", Keeps(open)).sink("out", discard());
    job.build().unwrap()
}

/// Starts the job, has a checkpoint completed and stops it.
fn stop(graph: JobGraph, options: Options) -> Result<(), JobError> {
    let handle = spawn(graph, options).unwrap();
    while handle.status().completed_checkpoints == 0 && !handle.is_done() {
        std::thread::yield_now();
    }
    if !handle.is_done() {
        handle.stop_with_checkpoint(StopMode::Suspend).unwrap();
    }
    handle.wait().map(drop)
}

fn refusal(ended: Result<(), JobError>) -> (RestoreError, &'static str) {
    let error = ended.unwrap_err();
    let code = error.code();
    let JobError::Failed { source, .. } = error else { panic!("it failed otherwise") };
    match Arc::into_inner(source) {
        Some(Failure::Restore { source, .. }) => (source, code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn operator_state_that_was_dropped_or_changed_is_refused_once_and_dropped_only_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let two: Open = |states| {
        let list = states.list::<u64>("list")?;
        states.operator_state(list)?.push(7);
        states.union_list::<u64>("empty")?;
        Ok(())
    };
    stop(kept(two), checkpointed(folder.path(), 2)).unwrap();
    let (error, code) = refusal(stop(kept(|_| Ok(())), checkpointed(folder.path(), 3)));
    let RestoreError::UnknownState { operator, state, kind } = error else { panic!("{error:?}") };
    assert_eq!((operator.as_str(), state.as_str(), kind, code), ("op", "list", "operator-list", "RST0009"));

    let (error, code) = refusal(stop(kept(|s| Ok(s.list::<u32>("list").map(drop)?)), checkpointed(folder.path(), 3)));
    let RestoreError::OperatorState(error) = error else { panic!("{error:?}") };
    let OperatorStateError::Restore { operator, state, source, .. } = *error else { panic!("{error:?}") };
    assert_eq!((operator.as_str(), state.as_str(), code), ("op", "list", "RST0010"));
    assert!(source.to_string().contains("written as u64, now u32"), "{source}");

    let mut options = checkpointed(folder.path(), 3);
    options.ignore_unclaimed = IgnoreUnclaimed::Of([operator].into());
    stop(kept(|_| Ok(())), options).unwrap();
    // Now it is gone, and one of the same name and another type begins empty.
    let new: Open = |states| {
        let list = states.list::<String>("list")?;
        assert!(states.operator_state(list)?.is_empty());
        Ok(())
    };
    stop(kept(new), checkpointed(folder.path(), 1)).unwrap();
}

#[test]
fn the_size_of_operator_state_that_no_operator_claims_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let large: Open = |states| {
        let list = states.list::<String>("list")?;
        *states.operator_state(list)? = vec!["x".repeat(5_000)];
        Ok(())
    };
    stop(kept(large), checkpointed(folder.path(), 2)).unwrap();
    let job = Job::new("kept");
    job.source("numbers", generator(9, |n| n)).sink("out", discard());
    let (error, code) = refusal(stop(job.build().unwrap(), checkpointed(folder.path(), 2)));
    let RestoreError::Unclaimed { operators } = error else { panic!("{error:?}") };
    assert_eq!((operators.len(), operators[0].operator.as_str(), code), (1, "op", "RST0001"));
    assert!(operators[0].bytes.is_some_and(|bytes| (10_000..12_000).contains(&bytes)), "{operators:?}");
}
