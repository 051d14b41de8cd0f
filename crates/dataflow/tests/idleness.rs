//! When splits and source subtasks are idle, by moments given by hand.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::time::Duration;

use cutwater_core::{Attempt, Epoch, MaxParallelism, Moment, SubtaskId, TaskId, Timestamp};
use cutwater_dataflow::exec::{BuildContext, Chain, ClaimedStates, Exec, Outbox, SourcePoll};
use cutwater_dataflow::{
    GraphError, Job, ReadStatus, Source, SourceOutput, SplitReader, UserError, discard, from_iter,
};

/// What a split does at a millisecond.
#[derive(Clone, Copy)]
enum Say {
    Record(i64),
    Watermark(i64),
    Nothing,
    End,
}

use Say::{End, Nothing, Record, Watermark};

/// Each split says one thing a read, once its time has come.
#[derive(Clone)]
struct Scripted(BTreeMap<&'static str, Vec<(u64, Say)>>);

struct Reader(std::vec::IntoIter<(u64, Say)>);

impl Source for Scripted {
    type Record = u64;
    type Position = u64;
    type Reader = Reader;

    fn splits(&self, _: u32) -> Result<Vec<String>, UserError> {
        Ok(self.0.keys().map(ToString::to_string).collect())
    }

    fn open(&self, split: &str, _: Option<&u64>) -> Result<Reader, UserError> {
        Ok(Reader(self.0[split].clone().into_iter()))
    }
}

impl SplitReader for Reader {
    type Record = u64;
    type Position = u64;

    fn read(&mut self, out: &mut SourceOutput<u64>) -> Result<ReadStatus, UserError> {
        let due = |&(at, _): &(u64, Say)| Moment::from_millis(at) <= out.now();
        if let Some((_, say)) = self.0.as_slice().first().copied().filter(due) {
            self.0.next();
            match say {
                Record(watermark) => {
                    out.emit(0);
                    out.watermark(Timestamp(watermark));
                }
                Watermark(watermark) => out.watermark(Timestamp(watermark)),
                Nothing => {}
                End => return Ok(ReadStatus::End),
            }
        }
        let next = self.0.as_slice().first().map_or(Moment::MAX, |(at, _)| Moment::from_millis(*at));
        Ok(if next <= out.now() { ReadStatus::More } else { ReadStatus::WaitUntil(next) })
    }

    fn position(&self) -> u64 {
        0
    }
}

/// A source subtask without the task around it.
struct Subtask {
    chain: Box<dyn Chain>,
    exec: Exec,
}

impl Subtask {
    fn new(splits: &[(&'static str, Vec<(u64, Say)>)]) -> Self {
        let job = Job::new("test");
        let source = job.source("in", Scripted(splits.iter().cloned().collect())).idleness(Duration::from_millis(100));
        source.rebalance().sink("out", discard());
        let graph = job.build().unwrap();
        let outputs: Vec<_> = graph.tasks()[0].outputs.iter().map(|output| (output.edge, 1, u64::MAX)).collect();
        let chain = (graph.tasks()[0].build)(&BuildContext {
            job: "test",
            subtask: SubtaskId { task: TaskId(0), index: 0 },
            parallelism: 1,
            max_parallelism: MaxParallelism::default(),
            receivers: &[1],
            epoch: Epoch(1),
            attempt: Attempt(1),
            watermark: Timestamp::MIN,
            from_nothing: true,
            restored: &[],
            claimed: &ClaimedStates::default(),
            tier: None,
        });
        Self { chain: chain.unwrap(), exec: Exec::new(Outbox::new(&outputs)) }
    }

    fn read(&mut self, millis: u64) -> SourcePoll {
        self.exec.now = Moment::from_millis(millis);
        self.chain.read(&mut self.exec, 10).unwrap()
    }

    /// Reads until there is nothing more at this moment; what was sent, and when to read again.
    fn read_all(&mut self, millis: u64) -> (Vec<String>, SourcePoll) {
        let poll = loop {
            match self.read(millis) {
                SourcePoll::More => {}
                other @ (SourcePoll::WaitUntil(_) | SourcePoll::End) => break other,
            }
        };
        (self.sent(), poll)
    }

    fn sent(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.exec.outbox.pop()).map(|(_, element)| format!("{element:?}")).collect()
    }
}

/// What is sent at which millisecond, when the subtask is asked at its deadlines.
fn timeline(splits: &[(&'static str, Vec<(u64, Say)>)]) -> Vec<(u64, String)> {
    let mut subtask = Subtask::new(splits);
    let (mut now, mut timeline) = (0, Vec::new());
    loop {
        let (sent, poll) = subtask.read_all(now);
        timeline.extend(sent.into_iter().filter(|element| !element.starts_with("Batch")).map(|element| (now, element)));
        match poll {
            SourcePoll::WaitUntil(moment) => {
                let next = u64::try_from(moment.since(Moment::ZERO).as_millis()).unwrap();
                assert!(next > now, "it asks to be read at once");
                now = next;
            }
            SourcePoll::End => return timeline,
            SourcePoll::More => unreachable!("it was read until there was no more"),
        }
    }
}

type Split = (&'static str, Vec<(u64, Say)>);

/// What is sent when.
type Sent<'a> = &'a [(u64, &'a str)];

#[test]
fn a_silent_split_is_idle_until_its_next_record_and_holds_nothing_back() {
    let cases: [(&str, Vec<Split>, Sent<'_>); 7] = [
        (
            "one that is silent for 100 ms is idle, and active with its next record",
            vec![("a", vec![(0, Record(10)), (350, Record(20)), (360, End)])],
            &[
                (0, "Watermark(10 ms)"),
                (100, "Idle"),
                (350, "Active"),
                (350, "Watermark(20 ms)"),
                (360, "Watermark(after all)"),
            ],
        ),
        (
            "one that comes in time is not",
            vec![("a", vec![(0, Record(10)), (99, Record(20)), (198, End)])],
            &[(0, "Watermark(10 ms)"), (99, "Watermark(20 ms)"), (198, "Watermark(after all)")],
        ),
        (
            "the others go on without it, and what it then says changes nothing that was said",
            vec![
                ("a", vec![(0, Record(10)), (50, Record(20)), (140, Record(30)), (230, Record(40)), (320, End)]),
                ("b", vec![(0, Record(5)), (200, Record(7)), (210, Record(35)), (310, End)]),
            ],
            &[
                (0, "Watermark(5 ms)"),
                (100, "Watermark(20 ms)"),
                (140, "Watermark(30 ms)"),
                (230, "Watermark(35 ms)"),
                (310, "Watermark(40 ms)"),
                (320, "Watermark(after all)"),
            ],
        ),
        (
            "if all are idle, nothing is waited for",
            vec![("a", vec![(0, Record(10)), (500, End)]), ("b", vec![(0, Record(5)), (50, Record(6)), (500, End)])],
            &[
                (0, "Watermark(5 ms)"),
                (50, "Watermark(6 ms)"),
                (150, "Watermark(10 ms)"),
                (150, "Idle"),
                (500, "Watermark(after all)"),
                (500, "Active"),
            ],
        ),
        (
            "a watermark that rises is something, one that does not is nothing",
            vec![("a", vec![(0, Watermark(1)), (90, Watermark(2)), (180, Watermark(2)), (300, Record(3)), (301, End)])],
            &[
                (0, "Watermark(1 ms)"),
                (90, "Watermark(2 ms)"),
                (190, "Idle"),
                (300, "Active"),
                (300, "Watermark(3 ms)"),
                (301, "Watermark(after all)"),
            ],
        ),
        (
            "one that has ended says nothing of those that are idle",
            vec![("a", vec![(0, Record(10)), (50, End)]), ("b", vec![(0, Record(5)), (250, Record(8)), (260, End)])],
            &[
                (0, "Watermark(5 ms)"),
                (100, "Idle"),
                (250, "Active"),
                (250, "Watermark(8 ms)"),
                (260, "Watermark(after all)"),
            ],
        ),
        (
            "one that is asked again and again without having anything",
            vec![("a", vec![(0, Nothing), (40, Nothing), (80, Nothing), (120, Nothing), (130, Record(1)), (140, End)])],
            &[(100, "Idle"), (130, "Active"), (130, "Watermark(1 ms)"), (140, "Watermark(after all)")],
        ),
    ];
    for (name, splits, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|(at, element)| (*at, (*element).to_owned())).collect();
        assert_eq!(timeline(&splits), expected, "{name}");
    }
}

#[test]
fn a_split_that_nobody_asks_is_not_idle() {
    // As while output waits for credit.
    let mut subtask = Subtask::new(&[("a", vec![(0, Record(1)), (0, Record(2)), (40, Record(3)), (2_000, Record(4))])]);
    assert_eq!(subtask.read(0), SourcePoll::More);
    assert_eq!(subtask.read(500), SourcePoll::More);
    assert_eq!(subtask.sent(), ["Batch(1 records)", "Watermark(1 ms)", "Batch(1 records)", "Watermark(2 ms)"]);
    assert_eq!(subtask.read(1_000), SourcePoll::More, "it was quiet since 500, and has something once it is asked");
    assert_eq!(subtask.sent(), ["Batch(1 records)", "Watermark(3 ms)"]);
    assert_eq!(subtask.read_all(1_000), (vec![], SourcePoll::WaitUntil(Moment::from_millis(1_100))));
    assert_eq!(subtask.read_all(1_100), (vec!["Idle".to_owned()], SourcePoll::WaitUntil(Moment::from_millis(2_000))));
    let (sent, _) = subtask.read_all(2_000);
    assert_eq!(sent, ["Active", "Batch(1 records)", "Watermark(4 ms)"], "active before its records");
}

#[test]
fn an_idleness_of_zero_is_an_error_of_the_graph() {
    let job = Job::new("test");
    job.source("in", from_iter(0..9_u64)).idleness(Duration::ZERO).sink("out", discard());
    let error = job.build().unwrap_err();
    assert!(matches!(&error, GraphError::Idleness { operator } if operator.as_str() == "in"), "{error:?}");
    assert_eq!(error.code(), "GRF0010");
}
