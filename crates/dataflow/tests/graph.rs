//! Graphs that can't be built say what is wrong; those that can describe themselves.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::error::Error;

use cutwater_dataflow::{GraphError, Job, JobGraph, OperatorKind, discard, from_iter};

fn error(write: impl FnOnce(&mut Job)) -> GraphError {
    named("job", write).unwrap_err()
}

fn named(name: &str, write: impl FnOnce(&mut Job)) -> Result<JobGraph, GraphError> {
    let mut job = Job::new(name);
    write(&mut job);
    job.build()
}

#[test]
fn a_graph_that_can_not_be_built_says_why() {
    type Write = fn(&mut Job);
    let cases: [(&str, Write, &str); 6] = [
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
