//! Graphs that can't be built say what is wrong; those that can describe themselves.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::error::Error;
use std::sync::Arc;

use cutwater_core::{EdgeId, TaskId};
use cutwater_dataflow::{GraphError, Job, JobGraph, OperatorKind, OutputTag, ProcessContext, discard, from_iter};

fn error(write: impl FnOnce(&Job)) -> GraphError {
    named("job", write).unwrap_err()
}

fn named(name: &str, write: impl FnOnce(&Job)) -> Result<JobGraph, GraphError> {
    let job = Job::new(name);
    write(&job);
    job.build()
}

#[test]
fn a_graph_that_can_not_be_built_says_why() {
    type Write = fn(&Job);
    let cases: [(&str, Write, &str); 14] = [
        (
            "two operators of one stream",
            |job| {
                let keyed = job.source("numbers", from_iter(0u64..9)).key_by(|n| *n);
                keyed.fold("numbers", 0u64, |sum, n| *sum += n).sink("out", discard());
            },
            "the uid numbers is given twice: to source (operator number 1) and to fold (operator number 2); \
             give one of them another",
        ),
        (
            "two streams",
            |job| {
                job.source("a", from_iter(0u64..9)).sink("out", discard());
                job.source("b", from_iter(0u64..9)).sink("out", discard());
            },
            "the uid out is given twice: to sink (operator number 2) and to sink (operator number 4); \
             give one of them another",
        ),
        (
            "a uid that can't be a file name",
            |job| job.source("a/b", from_iter(0u64..9)).sink("o", discard()),
            "uid of a source",
        ),
        ("nothing", |_| {}, "job job has no stream that ends in a sink; add a source and a sink"),
        (
            "a source without a sink",
            |job| drop(job.source("a", from_iter(0u64..9)).map(|n| n + 1)),
            "job job has no stream that ends in a sink; add a source and a sink",
        ),
        (
            "a keyed stream without a sink",
            |job| drop(job.source("a", from_iter(0u64..9)).key_by(|n| *n)),
            "the records of source \"a\" -> key_by go nowhere; process them and end the stream in a sink, or remove it",
        ),
        (
            "a keyed operator without a sink",
            |job| drop(job.source("a", from_iter(0u64..9)).key_by(|n| *n).fold("sum", 0u64, |sum, n| *sum += n)),
            "the records of fold \"sum\" go nowhere; process them and end the stream in a sink, or remove it",
        ),
        (
            "a source without a sink beside a stream that has one",
            |job| {
                job.source("a", from_iter(0u64..9)).sink("out", discard());
                drop(job.source("b", from_iter(0u64..9)).filter(|n| *n > 3));
            },
            "the records of source \"b\" -> filter go nowhere; process them and end the stream in a sink, or remove it",
        ),
        (
            "a fan-out without a branch",
            |job| drop(job.source("a", from_iter(0u64..9)).map(|n| n + 1).fan_out()),
            "the records of source \"a\" -> map go nowhere; process them and end the stream in a sink, or remove it",
        ),
        (
            "a branch without a sink",
            |job| {
                let numbers = job.source("a", from_iter(0u64..9)).fan_out();
                numbers.branch().sink("out", discard());
                drop(numbers.branch().filter(|n| *n > 3));
            },
            "the records of source \"a\" -> filter go nowhere; process them and end the stream in a sink, or remove it",
        ),
        (
            "two branches with sinks of one uid",
            |job| {
                let numbers = job.source("a", from_iter(0u64..9)).fan_out();
                numbers.branch().sink("out", discard());
                numbers.branch().sink("out", discard());
            },
            "the uid out is given twice: to sink (operator number 2) and to sink (operator number 3); \
             give one of them another",
        ),
        (
            "a side output without a sink",
            |job| {
                let sums = job.source("a", from_iter(0u64..9)).key_by(|n| *n).fold("sum", 0u64, |sum, n| *sum += n);
                drop(sums.side_output(&OutputTag::<u64>::new("late")));
                sums.sink("out", discard());
            },
            "the records of fold \"sum\" -> side output \"late\" go nowhere; process them and end the stream in a sink, \
             or remove it",
        ),
        (
            "a side output that is taken twice",
            |job| {
                let sums = job.source("a", from_iter(0u64..9)).key_by(|n| *n).fold("sum", 0u64, |sum, n| *sum += n);
                sums.side_output(&OutputTag::<u64>::new("late")).sink("one", discard());
                sums.side_output(&OutputTag::<u64>::new("late")).sink("two", discard());
                sums.sink("out", discard());
            },
            "side output \"late\" of fold \"sum\" is taken twice; take it once and fan it out, or give one another name",
        ),
        (
            "a union without a sink",
            |job| {
                let a = job.source("a", from_iter(0u64..9));
                drop(a.union(job.source("b", from_iter(0u64..9))).stream());
            },
            "the records of input go nowhere; process them and end the stream in a sink, or remove it",
        ),
    ];
    for (name, write, expected) in cases {
        assert_eq!(error(write).to_string(), expected, "{name}");
    }
}

#[test]
fn a_bad_name_is_quoted_in_the_cause() {
    let bad = error(|job| job.source(".a", from_iter(0u64..9)).sink("o", discard()));
    assert!(bad.source().unwrap().to_string().starts_with("\".a\" can't name an operator"));
    for name in ["", "a job", "../up"] {
        let bad = named(name, |job| job.source("a", from_iter(0u64..9)).sink("o", discard())).unwrap_err();
        assert!(matches!(bad, GraphError::Name { .. }), "{name:?}");
        assert!(bad.source().unwrap().to_string().contains(&format!("{name:?}")), "{name:?}");
    }
}

#[test]
fn the_first_error_is_told() {
    let first = error(|job| {
        job.source("a b", from_iter(0u64..9)).sink("out", discard());
        job.source("c", from_iter(0u64..9)).sink("out", discard());
    });
    assert!(matches!(first, GraphError::Uid { .. }), "{first}");
}

#[test]
fn a_graph_describes_its_tasks() {
    let graph = named("two", |job| {
        job.source("numbers", from_iter(0u64..9))
            .map(|n| n + 1)
            .key_by(|n| n % 2)
            .fold("sums", 0u64, |sum, n| *sum += n)
            .flat_map(|(_, sum)| [sum, sum])
            .key_by(|sum| *sum)
            .fold("again", 0u64, |count, _| *count += 1)
            .sink("out", discard());
        job.source("other", from_iter(0u64..9)).sink("none", discard());
    })
    .unwrap();
    assert_eq!(
        graph.describe(),
        "job two\n\
         task 0: source \"numbers\" -> map -> key_by ==> task 1\n\
         task 1: fold \"sums\" -> flat_map -> key_by ==> task 2\n\
         task 2: fold \"again\" -> sink \"out\"\n\
         task 3: source \"other\" -> sink \"none\"\n"
    );
    assert_eq!(format!("{graph:?}"), graph.describe());
    let names: Vec<_> = graph.tasks().iter().map(|task| task.name()).collect();
    assert_eq!(names, ["numbers", "sums", "again -> out", "other -> none"]);
    assert_eq!(graph.tasks()[0].operators[1].kind, OperatorKind::Stateless);
}

#[test]
fn streams_of_two_jobs_are_not_joined() {
    let (job, other) = (Job::new("one"), Job::new("two"));
    let stream = job.source("a", from_iter(0u64..9));
    stream
        .union(other.source("b", from_iter(0u64..9)))
        .key_by(|n| *n)
        .fold("s", 0, |s, n| *s += n)
        .sink("o", discard());
    let error = job.build().unwrap_err().to_string();
    assert_eq!(error, "union joins a stream of job one with one of job two; both must come from the same job");
}

#[test]
fn a_graph_with_edges_of_every_kind_describes_them() {
    let graph = named("edges", |job| {
        let a = job.source("a", from_iter(0u64..9)).map(|n| n + 1).fan_out();
        let b = job.source("b", from_iter(0u64..9));
        let c = job.source("c", from_iter(0u64..9));
        a.branch()
            .union(b)
            .union(c)
            .key_by(|n| n % 2)
            .fold("sums", 0u64, |sum, n| *sum += n)
            .sink("sums-out", discard());
        a.branch().filter(|n| n % 2 == 0).rebalance().map(|n| n + 1).sink("even", discard());
        a.branch().broadcast().sink("all", discard());
        let twice = a.branch().union(a.branch()).filter(|n| *n > 1).fan_out();
        twice.branch().sink("twice", discard());
        twice.branch().map(|n| n + 1).sink("more", discard());
        let d = job.source("d", from_iter(0u64..9)).key_by(|n| *n);
        let e = job.source("e", from_iter(0u32..9)).key_by(|n| u64::from(*n));
        let both = d.connect(e).process(
            "both",
            |cx: &mut ProcessContext<'_, u64, u64, u64>, _| Ok(cx.emit_to(&OutputTag::new("odd"), 1u8)?),
            |_, _| Ok(()),
        );
        both.side_output(&OutputTag::<u8>::new("odd")).map(|n| n).sink("odd-out", discard());
        both.sink("both-out", discard());
        let keyed = job.source("f", from_iter(0u64..9)).rebalance().key_by(|n| *n);
        keyed.fold("last", 0u64, |last, n| *last = n).sink("last-out", discard());
    })
    .unwrap();
    assert_eq!(
        graph.describe(),
        "job edges\n\
         task 0: source \"a\" -> map\n\
         \x20   -> key_by ==> task 3\n\
         \x20   -> filter -> rebalance ==> task 4\n\
         \x20   -> broadcast ==> task 5\n\
         \x20   -> union ==> task 6\n\
         \x20   -> union ==> task 6\n\
         task 1: source \"b\" -> key_by ==> task 3\n\
         task 2: source \"c\" -> key_by ==> task 3\n\
         task 3: fold \"sums\" -> sink \"sums-out\"\n\
         task 4: input -> map -> sink \"even\"\n\
         task 5: input -> sink \"all\"\n\
         task 6: input -> filter\n\
         \x20   -> sink \"twice\"\n\
         \x20   -> map -> sink \"more\"\n\
         task 7: source \"d\" -> key_by ==> task 9, input 1\n\
         task 8: source \"e\" -> key_by ==> task 9, input 2\n\
         task 9: connect \"both\"\n\
         \x20   -> side output \"odd\" -> map -> sink \"odd-out\"\n\
         \x20   -> sink \"both-out\"\n\
         task 10: source \"f\" -> rebalance ==> task 11\n\
         task 11: input -> key_by ==> task 12\n\
         task 12: fold \"last\" -> sink \"last-out\"\n"
    );
    // Channels are numbered by edge, then by sender; sources of one split have one subtask.
    let channels: Vec<_> =
        graph.channels(TaskId(3), 4).map(|(input, from)| (input.edge.0, input.input, from)).collect();
    assert_eq!(channels, [(0, 0, 0), (1, 0, 0), (2, 0, 0)]);
    assert_eq!(graph.reader(EdgeId(3)).name(), "even");
    assert_eq!(graph.writer(EdgeId(3)).name(), "a");
    assert_eq!(graph.tasks()[6].committers.len(), 2);
    assert_eq!(graph.tasks()[11].name(), "input -> key_by", "without any uid");
}

#[test]
fn a_source_limits_the_parallelism_of_its_task_only() {
    let graph = named("limits", |job| {
        let keyed = job.source("numbers", from_iter(0u64..9)).key_by(|n| *n);
        keyed.fold("sums", 0u64, |sum, n| *sum += n).sink("out", discard());
    })
    .unwrap();
    let parallelism: Vec<_> = graph.tasks().iter().map(|task| task.parallelism(4)).collect();
    assert_eq!(parallelism, [1, 4]);
    assert_eq!(graph.tasks()[1].parallelism(0), 1, "never none");
}

#[test]
fn a_graph_that_is_dropped_drops_what_its_closures_own() {
    let owned = Arc::new(());
    let use_of = |owned: &Arc<()>| {
        let owned = Arc::clone(owned);
        move |n: &u64| *n < Arc::strong_count(&owned) as u64
    };
    let graph = named("job", |job| {
        let fan = job.source("numbers", from_iter(0u64..9)).filter(use_of(&owned)).fan_out();
        let joined = fan.branch().filter(use_of(&owned)).union(fan.branch().filter(use_of(&owned)));
        let odd: OutputTag<u64> = OutputTag::new("odd");
        let sums = joined
            .key_by(|n| *n)
            .process("sums", move |cx: &mut ProcessContext<'_, u64, u64, u64>, n: u64| Ok(cx.emit_to(&odd, n)?));
        sums.side_output(&odd).filter(use_of(&owned)).sink("odd-out", discard());
        let nested = sums.filter(use_of(&owned)).fan_out();
        nested.branch().filter(use_of(&owned)).sink("first", discard());
        nested.branch().rebalance().filter(use_of(&owned)).sink("second", discard());
    });
    let graph = graph.unwrap();
    assert!(Arc::strong_count(&owned) > 1);
    drop(graph);
    assert_eq!(Arc::strong_count(&owned), 1);
}
