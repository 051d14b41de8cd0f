//! Savepoints that earlier builds made, in `testdata/savepoints`: each later build restores them.
//!
//! After a change of format a new one joins them (the ignored test makes it); none ever goes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cutwater::prelude::*;
use cutwater::{
    AggregatingState, JobGraph, JobHandle, ReadStatus, ReducingState, Source, SourceOutput, SplitReader, StopMode,
    open_checkpoint, spawn, store_at,
};

const KEYS: u64 = 7;
/// A savepoint is made after so many numbers, and the job ends after so many.
const HALF: u64 = 1_000;
const ALL: u64 = 2_000;

/// The numbers from 0 on, one a millisecond; ends after [`ALL`], or waits for ever after [`HALF`].
#[derive(Clone)]
struct Numbers {
    ends: bool,
}

struct Reader {
    next: u64,
    ends: bool,
}

impl Source for Numbers {
    type Record = u64;
    type Position = u64;
    type Reader = Reader;

    fn splits(&self, _: u32) -> Result<Vec<String>, UserError> {
        Ok(vec!["all".to_owned()])
    }

    fn open(&self, _: &str, position: Option<&u64>) -> Result<Reader, UserError> {
        Ok(Reader { next: position.copied().unwrap_or(0), ends: self.ends })
    }
}

impl SplitReader for Reader {
    type Record = u64;
    type Position = u64;

    fn read(&mut self, out: &mut SourceOutput<u64>) -> Result<ReadStatus, UserError> {
        let upto = if self.ends { ALL } else { HALF };
        while self.next < upto && out.room() > 0 {
            out.emit_at(Timestamp(self.next as i64), self.next);
            out.watermark(Timestamp(self.next as i64 - 1));
            self.next += 1;
        }
        match (self.next == upto, self.ends) {
            (false, _) => Ok(ReadStatus::More),
            (true, true) => Ok(ReadStatus::End),
            (true, false) => Ok(ReadStatus::WaitUntil(out.now() + Duration::from_millis(1))),
        }
    }

    fn position(&self) -> u64 {
        self.next
    }
}

type Mean = cutwater::Folding<fn() -> (u64, u64), fn(&mut (u64, u64), u64), fn(&mut (u64, u64), (u64, u64))>;

fn mean() -> Mean {
    folding(
        || (0, 0),
        |sum, n| (sum.0, sum.1) = (sum.0 + n, sum.1 + 1),
        |sum, other| {
            (sum.0, sum.1) = (sum.0 + other.0, sum.1 + other.1);
        },
    )
}

/// State of every kind for each key, told at the end of all data.
#[derive(Clone, Default)]
struct Kinds {
    last: ValueState<String>,
    list: ListState<u64>,
    map: MapState<u64, u64>,
    largest: ReducingState<u64>,
    mean: AggregatingState<u64, Mean>,
}

impl KeyedProcess<u64, u64> for Kinds {
    type State = (u64, Option<String>);
    type Out = String;

    fn initial(&self) -> (u64, Option<String>) {
        (0, None)
    }

    fn open(&mut self, states: &mut States<'_, u64>) -> Result<(), UserError> {
        self.last = states.ttl(Ttl::new(Duration::from_secs(3_600)).by_event_time()).value("last")?;
        self.list = states.list("list")?;
        self.map = states.map("map")?;
        self.largest = states.reducing("largest", |largest: &mut u64, n: u64| *largest = n.max(*largest))?;
        self.mean = states.aggregating("mean", mean())?;
        Ok(())
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, u64, Self::State, String>, n: u64) -> Result<(), UserError> {
        let state = cx.state()?;
        (state.0, state.1) = (state.0 + 1, Some(format!("{n}")));
        cx.value(self.last)?.set(format!("number {n}"))?;
        cx.list(self.list)?.push(n)?;
        *cx.map(self.map)?.get_or_insert_with(&(n % 5), || 0)? += n;
        cx.reducing(self.largest)?.add(n)?;
        cx.aggregating(self.mean)?.add(n)?;
        Ok(cx.register_timer(Timestamp(ALL as i64))?)
    }

    fn on_timer(
        &mut self,
        cx: &mut ProcessContext<'_, u64, Self::State, String>,
        _: Timestamp,
    ) -> Result<(), UserError> {
        let (count, text) = cx.state()?.clone();
        let last = cx.value(self.last)?.get()?.cloned();
        let list: Vec<u64> = cx.list(self.list)?.iter()?.copied().collect();
        let map: BTreeMap<u64, u64> = cx.map(self.map)?.iter()?.map(|(key, value)| (*key, *value)).collect();
        let largest = cx.reducing(self.largest)?.get()?.copied();
        let mean = cx.aggregating(self.mean)?.get()?;
        let sum: u64 = list.iter().sum();
        let key = *cx.key();
        cx.emit(format!("{key}: {count} {text:?} {last:?} {} {sum} {map:?} {largest:?} {mean:?}", list.len()));
        Ok(())
    }
}

/// What the job writes.
#[derive(Clone, Default)]
struct Outputs {
    states: Collect<String>,
    windows: Collect<String>,
    joined: Collect<(u64, u64)>,
}

fn graph(ends: bool, outputs: &Outputs) -> JobGraph {
    let job = Job::new("golden");
    let numbers = job.source("numbers", Numbers { ends }).fan_out();
    numbers
        .branch()
        .key_by(|n| n % KEYS)
        .process_with("kinds", Kinds::default())
        .sink("states", outputs.states.clone());
    numbers
        .branch()
        .key_by(|n| n % KEYS)
        .window(Windows::sliding(Duration::from_millis(300), Duration::from_millis(100)))
        .aggregate("sums", folding(|| 0, |sum: &mut u64, n: u64| *sum += n, |sum, other| *sum += other))
        .map(|(key, window, sum)| format!("{key} {} {sum}", window.start))
        .sink("windows", outputs.windows.clone());
    let more = job.source("more", Numbers { ends });
    numbers
        .branch()
        .key_by(|n| *n % 100)
        .connect(more.key_by(|n| *n % 100))
        .process(
            "pairs",
            |cx: &mut ProcessContext<'_, u64, (u64, u64), (u64, u64)>, n| {
                cx.state()?.0 += n;
                Ok(())
            },
            |cx: &mut ProcessContext<'_, u64, (u64, u64), (u64, u64)>, n| {
                let state = cx.state()?;
                state.1 += n;
                let pair = *state;
                if n >= ALL - 100 {
                    cx.emit(pair);
                }
                Ok(())
            },
        )
        .sink("pairs-out", outputs.joined.clone());
    job.build().unwrap()
}

fn options(folder: &Path, parallelism: u32) -> Options {
    let settings = Settings::new()
        .enable_checkpointing(Duration::from_secs(60))
        .checkpoint_storage(folder.to_str().unwrap())
        .parallelism(parallelism)
        .no_restart();
    Options::from_config(&Config::new().code(settings).resolve().unwrap()).unwrap()
}

/// What is left of the outputs once all has ended: final states, and the windows that were open after [`HALF`].
fn at_the_end(handle: &JobHandle, outputs: &Outputs) -> (Vec<String>, Vec<String>) {
    handle.wait().unwrap();
    let mut states = outputs.states.take();
    states.sort_unstable();
    let open = |line: &String| line.split(' ').nth(1).unwrap().parse::<i64>().unwrap() >= HALF as i64 - 200;
    let mut windows: Vec<String> = outputs.windows.take().into_iter().filter(open).collect();
    windows.sort_unstable();
    (states, windows)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/savepoints")
}

#[test]
fn savepoints_of_all_versions_are_restored_at_any_parallelism() {
    let temp = tempfile::tempdir().unwrap();
    let outputs = Outputs::default();
    let undisturbed = spawn(graph(true, &outputs), options(&temp.path().join("undisturbed"), 2)).unwrap();
    let expected = at_the_end(&undisturbed, &outputs);
    assert!(expected.0.len() == KEYS as usize && expected.1.len() > 50, "{expected:?}");
    let mut found = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        found += 1;
        for parallelism in [1, 2, 5] {
            let outputs = Outputs::default();
            let mut options = options(&temp.path().join(format!("{found}-{parallelism}")), parallelism);
            let (checkpoint, store) = open_checkpoint(path.to_str().unwrap()).unwrap();
            options.from = StartFrom::Checkpoint(Box::new(checkpoint), store);
            options.parallelism = NonZeroU32::new(parallelism).unwrap();
            let handle = spawn(graph(true, &outputs), options).unwrap();
            let what = format!("{} at parallelism {parallelism}", path.display());
            assert_eq!(at_the_end(&handle, &outputs), expected, "{what}");
            assert!(handle.status().restored.is_some() && handle.status().new_operators.is_empty(), "{what}");
            assert_eq!(outputs.joined.take().len(), 100, "{what}");
        }
    }
    assert!(found >= 1, "no savepoint in {}", folder().display());
}

#[test]
#[ignore = "makes a savepoint for testdata, after a change of format"]
fn make() {
    let temp = tempfile::tempdir().unwrap();
    let outputs = Outputs::default();
    let handle = spawn(graph(false, &outputs), options(temp.path(), 3)).unwrap();
    while handle.status().records_in < 2 * HALF {
        assert!(!handle.is_done(), "{:?}", handle.wait());
        std::thread::yield_now();
    }
    let taken = handle.stop_with_savepoint(Some(folder().to_str().unwrap()), StopMode::Suspend).unwrap();
    let made = store_at(&taken.location).unwrap();
    println!("{}", made.url());
}
