//! Jobs of unusual size: 500 named states, 1,000 operators, 256 subtasks. They run, take checkpoints, and go on from them at
//! other parallelisms, with the right results. What they cost is measured by the benchmark `scale`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cutwater_coordinator::{CompletedCheckpoint, Settings};
use cutwater_core::MaxParallelism;
use cutwater_dataflow::{
    Collect, Job, JobGraph, ProcessContext, ReadStatus, Source, SourceOutput, SplitReader, States, UserError,
    ValueState,
};
use cutwater_runtime::{JobOutcome, Options, spawn, store_at};

/// The numbers below `ends`, spread over the splits; those from `opened` on wait until that rises.
#[derive(Clone)]
struct Numbers {
    splits: u32,
    ends: u64,
    opened: Arc<AtomicU64>,
}

struct Reader {
    next: u64,
    numbers: Numbers,
}

impl Source for Numbers {
    type Record = u64;
    type Position = u64;
    type Reader = Reader;

    fn splits(&self, _: u32) -> Result<Vec<String>, UserError> {
        Ok((0..self.splits).map(|split| format!("{split:03}")).collect())
    }

    fn open(&self, split: &str, position: Option<&u64>) -> Result<Reader, UserError> {
        Ok(Reader { next: position.copied().map_or_else(|| split.parse(), Ok)?, numbers: self.clone() })
    }
}

impl SplitReader for Reader {
    type Record = u64;
    type Position = u64;

    fn read(&mut self, out: &mut SourceOutput<u64>) -> Result<ReadStatus, UserError> {
        let Numbers { splits, ends, opened } = &self.numbers;
        let opened = opened.load(Ordering::SeqCst);
        while self.next < opened.min(*ends) && out.room() > 0 {
            out.emit(self.next);
            self.next += u64::from(*splits);
        }
        Ok(match () {
            () if self.next >= *ends => ReadStatus::End,
            () if self.next >= opened => ReadStatus::WaitUntil(out.now() + Duration::from_millis(5)),
            () => ReadStatus::More,
        })
    }

    fn position(&self) -> u64 {
        self.next
    }
}

fn options(folder: &Path, parallelism: u32) -> Options {
    let mut options = Options::new();
    options.checkpointing = Settings { enabled: true, ..Settings::default() };
    options.store = Some(store_at(folder.to_str().unwrap()).unwrap());
    options.parallelism = NonZeroU32::new(parallelism).unwrap();
    options.max_parallelism = Some(MaxParallelism::new(512).unwrap());
    options
}

/// Runs the job in as many attempts as there are parallelisms, each from a checkpoint of the one before; returns those.
fn run(
    parallelisms: &[u32],
    records: u64,
    splits: u32,
    graph: impl Fn(Numbers) -> JobGraph,
) -> Vec<CompletedCheckpoint> {
    let folder = tempfile::tempdir().unwrap();
    let numbers = Numbers { splits, ends: records, opened: Arc::default() };
    let mut checkpoints = Vec::new();
    let attempts = parallelisms.len() as u64;
    for (at, &parallelism) in (1..).zip(parallelisms) {
        let opened = records * at / attempts;
        let before = numbers.opened.swap(opened, Ordering::SeqCst);
        let handle = spawn(graph(numbers.clone()), options(folder.path(), parallelism)).unwrap();
        if at < attempts {
            while handle.status().records_in < opened - before {
                assert!(!handle.is_done(), "{:?}", handle.wait());
                std::thread::yield_now();
            }
            checkpoints.push(handle.checkpoint().unwrap());
            handle.cancel();
            assert_eq!(handle.wait().unwrap(), JobOutcome::Canceled);
        } else {
            assert_eq!(handle.wait().unwrap(), JobOutcome::Finished);
        }
        assert_eq!(handle.status().restored.is_some(), at > 1, "attempt {at}");
    }
    checkpoints
}

/// That the rows of each group count from 1 without gaps: each record counted once, in whatever attempt.
fn assert_counted<G: Ord + std::fmt::Debug>(rows: Vec<(G, u64)>, groups: usize) {
    let mut counts: BTreeMap<G, Vec<u64>> = BTreeMap::new();
    rows.into_iter().for_each(|(group, count)| counts.entry(group).or_default().push(count));
    assert_eq!(counts.len(), groups);
    for (group, mut found) in counts {
        found.sort_unstable();
        assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>(), "{group:?}");
    }
}

#[test]
fn an_operator_has_500_named_states() {
    const STATES: u64 = 500;
    let out = Collect::<((u64, u64), u64)>::default();
    let graph = |numbers: Numbers| {
        let job = Job::new("states");
        job.source("numbers", numbers)
            .key_by(|n| n / STATES % 3)
            .process_with_states(
                "counts",
                |states: &mut States<'_, u64>| {
                    (0..STATES).map(|state| states.value::<u64>(&format!("count-{state}"))).collect()
                },
                |cx: &mut ProcessContext<'_, u64, (), ((u64, u64), u64)>, counts: &Vec<ValueState<u64>>, n| {
                    let (key, state) = (*cx.key(), n % STATES);
                    let count = cx.value(counts[state as usize])?.get()?.copied().unwrap_or(0) + 1;
                    cx.value(counts[state as usize])?.set(count)?;
                    cx.emit(((key, state), count));
                    Ok(())
                },
            )
            .sink("out", out.clone());
        job.build().unwrap()
    };
    let checkpoints = run(&[2, 2, 3], 12 * STATES, 2, graph);
    let files = checkpoints.iter().map(|checkpoint| checkpoint.files().count());
    assert_eq!(files.collect::<Vec<_>>(), [2, 2], "one file for all states of a subtask");
    assert_counted(out.take(), 3 * STATES as usize);
}

/// A hundred stages behind exchanges, each of ten operators, and source and sink.
#[test]
fn a_job_has_1_000_operators_in_101_tasks() {
    const STAGES: u64 = 100;
    const KEYS: u64 = 10;
    /// The number, and the sum of what the stages so far have counted of its key.
    type Row = (u64, u64);
    let out = Collect::<Row>::default();
    let graph = |numbers: Numbers| {
        let job = Job::new("operators");
        let mut stream = job.source("numbers", numbers).map(|n| (n, 0)).key_by(|row: &Row| row.0 % KEYS);
        for stage in 0..STAGES {
            let next = stream
                .process(&format!("stage-{stage}"), |cx: &mut ProcessContext<'_, u64, u64, Row>, (n, sum): Row| {
                    *cx.state()? += 1;
                    let count = *cx.state()?;
                    cx.emit((n, sum + count));
                    Ok(())
                })
                .map(|row| row)
                .map(|row| row)
                .map(|row| row)
                .map(|row| row)
                .map(|row| row)
                .map(|row| row)
                .map(|row| row)
                .map(|row| row);
            if stage == STAGES - 1 {
                next.sink("out", out.clone());
                break;
            }
            stream = next.key_by(|row: &Row| row.0 % KEYS);
        }
        let graph = job.build().unwrap();
        let operators: usize = graph.tasks().iter().map(|task| task.operators.len()).sum();
        assert!(graph.tasks().len() == 101 && operators >= 1_000, "{operators}");
        graph
    };
    // Keys and splits go together, so that a stage sees the records of a key in their order.
    let records = 600;
    let checkpoints = run(&[2, 2, 1], records, 2, graph);
    assert!(checkpoints.iter().all(|checkpoint| checkpoint.tasks.len() == 101));
    let mut rows = out.take();
    rows.sort_unstable();
    let expected: Vec<Row> = (0..records).map(|n| (n, STAGES * (n / KEYS + 1))).collect();
    assert!(rows == expected, "{rows:?}");
}

#[test]
fn a_stage_has_256_subtasks() {
    const KEYS: u64 = 1_000;
    let out = Collect::<(u64, u64)>::default();
    let graph = |numbers: Numbers| {
        let job = Job::new("subtasks");
        job.source("numbers", numbers)
            .key_by(|n| n % KEYS)
            .process("counts", |cx: &mut ProcessContext<'_, u64, u64, (u64, u64)>, _| {
                *cx.state()? += 1;
                let count = *cx.state()?;
                cx.emit((*cx.key(), count));
                Ok(())
            })
            .sink("out", out.clone());
        job.build().unwrap()
    };
    let checkpoints = run(&[256, 256, 3, 256], 20_000, 256, graph);
    let subtasks = |checkpoint: &CompletedCheckpoint| checkpoint.tasks.iter().map(|task| task.parallelism).collect();
    let subtasks: Vec<Vec<u32>> = checkpoints.iter().map(subtasks).collect();
    assert_eq!(subtasks, [vec![256, 256], vec![256, 256], vec![3, 3]]);
    assert_counted(out.take(), KEYS as usize);
}
