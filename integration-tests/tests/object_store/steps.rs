//! A process that is killed at each of the named durable steps of its object store.
//!
//! Each of its subtasks stores files of more than 8 MiB, so that they go in parts. One part fails in each run, so that an
//! upload is thrown away too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cutwater::object_store::Step;
use cutwater_coordinator::inspect::epoch_of_snapshot;
use cutwater_core::Epoch;
use cutwater_integration_tests::{BUCKET, Ended, Flights, Kind, Log, Server, assert_same_output, tell};

use crate::stepped::{Counts, Stepped, counts};
use crate::{Env, cutwater};

const OPTIONS: &str = "--ballast 75000 --pause 3 --tolerate 1000 --fail object.upload.part:3";
const SIGKILL: i32 = 9;
/// How often a death may come too late: the number of checkpoints differs from run to run.
const TRIES: u64 = 10;

/// One death and what follows.
struct Case {
    step: Step,
    /// Of all times that the step is taken: 0 the first, 1 one in the middle, 2 the last.
    place: u64,
    /// Milliseconds from the beginning of the step; 0 for right before it.
    after: u64,
}

impl Case {
    /// Dies there. A run may have fewer such steps than the undisturbed one: then it is no test, and the next aims at an
    /// earlier one.
    fn die<'a>(&self, env: &'a Env, below: &str, taken: u64) -> (Stepped<'a>, String, Ended) {
        let mut number = 1 + (taken - 1) * self.place / 2;
        for attempt in 0..TRIES {
            let stepped = Stepped::new(env, format!("{below}-{attempt}"), OPTIONS);
            let moment = format!("{}:{number}+{}", self.step, self.after);
            let ended = stepped.run(&format!("--die {moment}"));
            if ended.code.is_none() {
                return (stepped, moment, ended);
            }
            let last = counts(&ended.with_code(0)).get(&self.step.to_string()).copied().unwrap_or(1);
            number = last.min(number - u64::from(number > 1));
        }
        panic!("always ends before it can die at {} of {taken}", self.step);
    }

    /// The bytes of parts that lay in the bucket after the death, and the uploads without parts that stay.
    fn run(&self, server: &Server, below: &str, taken: u64, expected: &[u8], parallelism: usize) -> (u64, usize) {
        let env = server.env();
        let (stepped, moment, dead) = self.die(&env, below, taken);
        let what = format!("{}, {moment} of {taken}, then at parallelism {parallelism}", server.kind());
        assert_eq!(dead.signal, Some(SIGKILL), "{what}: {dead}");
        assert!(dead.stderr.contains("dies "), "{what}: {dead}");
        let store = server.storage(&stepped.job());
        let over = Log::read_in(&store).finished();
        let dead = Left::of(server, &stepped);
        if dead.in_parts() > 0 {
            // What is still on its way to the server comes in between.
            let shown = shown_by_gc(&env, &stepped);
            let later = Left::of(server, &stepped).in_parts();
            let range = dead.in_parts().min(later)..=dead.in_parts().max(later);
            assert!(
                range.contains(&shown),
                "{what}: gc shows {shown} B of unfinished uploads, and there are {range:?}"
            );
        }

        let stepped = stepped.moved();
        drop(stepped.run(&format!("--parallelism {parallelism}")).with_code(0));
        assert_same_output(&stepped.output(), expected, &what);
        assert_eq!(stepped.unpublished(), [""; 0], "{what}");
        let verified = cutwater(&Flights::new(), &env, &format!("checkpoints verify s3://{BUCKET}/{}", stepped.job()));
        assert_eq!(verified.code, Some(0), "{what}: {verified}");

        // One more start, and nothing is left but what the log names.
        drop(stepped.run("").with_code(0));
        let log = Log::read_in(&store);
        assert!(log.finished(), "{what}");
        let newest = log.newest().expect("it has finished");
        let named: BTreeSet<String> = newest.files().map(|file| format!("{}/{}", stepped.job(), file.name)).collect();
        let left = Left::of(server, &stepped).but_late(&dead, newest.epoch, &what);
        assert!(named.is_subset(&left.files), "{what}: {named:?} of {:?}", left.files);
        // A job that has finished is not started again: what it was about to delete stays.
        if !(over && self.step == Step::Delete) {
            assert_eq!(left.files, named, "{what}");
        }
        assert_eq!(left.notes, [""; 0], "{what}");
        assert_eq!(shown_by_gc(&env, &stepped), 0, "{what}");
        // Each of the two subtasks may have died between the beginning of an upload and its note, and so before its first part.
        assert!(left.uploads.len() <= 2 && left.uploads.iter().all(Vec::is_empty), "{what}: {:?}", left.uploads);
        (dead.in_parts(), left.uploads.len())
    }
}

/// What lies in the job's part of the bucket, besides its log.
pub(crate) struct Left {
    pub(crate) files: BTreeSet<String>,
    pub(crate) notes: Vec<String>,
    /// The bytes of the parts of each unfinished upload.
    pub(crate) uploads: Vec<Vec<u64>>,
}

impl Left {
    /// What a process had sent to the store when it was killed may come to be after the next one has looked for what is left, if
    /// the store is slow. `before` is what there was at the start of the last process, of this epoch.
    pub(crate) fn but_late(mut self, before: &Self, epoch: Epoch, what: &str) -> Self {
        let is_late = |name: &String| {
            let of_job = name.find("/chk/").map(|at| &name[at + 1..]);
            !before.files.contains(name) && of_job.and_then(epoch_of_snapshot).is_some_and(|of| of < epoch)
        };
        let late: Vec<String> = self.files.iter().filter(|name| is_late(name)).cloned().collect();
        for name in late {
            tell(&format!("{what}: {name} came late"));
            self.files.remove(&name);
        }
        self
    }

    fn in_parts(&self) -> u64 {
        self.uploads.iter().flatten().sum()
    }

    fn of(server: &Server, stepped: &Stepped<'_>) -> Self {
        Self::of_job(server, &stepped.job())
    }

    pub(crate) fn of_job(server: &Server, job: &str) -> Self {
        let (files, noted) = (format!("{job}/chk/"), format!("/.uploads/{job}/"));
        let objects = server.objects();
        let notes = objects.iter().filter(|name| format!("/{name}").contains(&noted)).cloned().collect();
        let uploads = server.uploads().into_iter().filter(|upload| upload.key.starts_with(&files));
        Self {
            files: objects.iter().filter(|name| name.starts_with(&files)).cloned().collect(),
            notes,
            uploads: uploads.filter_map(|upload| server.parts(&upload)).collect(),
        }
    }
}

/// The bytes of unfinished uploads that `cutwater checkpoints gc` shows.
fn shown_by_gc(env: &Env, stepped: &Stepped<'_>) -> u64 {
    let shown =
        cutwater(&Flights::new(), env, &format!("checkpoints gc --dry-run --json s3://{BUCKET}/{}", stepped.job()));
    assert_eq!(shown.code, Some(0), "{shown}");
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).expect("it was asked for JSON");
    let job = &shown["jobs"][0];
    let objects = ["garbage", "may_be_in_use"].into_iter().flat_map(|list| job[list].as_array().into_iter().flatten());
    let unfinished = objects.filter(|object| object["why"] == "unfinished-upload");
    unfinished.map(|object| object["bytes"].as_u64().expect("S3 tells")).sum()
}

/// The output of a run that nobody disturbs, and its steps, of which none may be missing.
fn undisturbed(server: &Server) -> (Vec<u8>, Counts) {
    let env = server.env();
    let stepped = Stepped::new(&env, "undisturbed", OPTIONS);
    let mut counts = counts(&stepped.run("").with_code(0));
    counts.retain(|step, _| step.starts_with("object."));
    let steps: BTreeSet<String> = Step::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(counts.keys().cloned().collect::<BTreeSet<_>>(), steps, "{}: {counts:?}", server.kind());
    let output = stepped.output();
    assert!(output.split(|byte| *byte == b'\n').count() > 9_000, "the job writes too little to prove anything");
    (output, counts)
}

/// Runs the cases two at a time, since most of a run is waiting, and tells what they left.
fn run(server: &Server, cases: &[Case]) {
    let (expected, counts) = undisturbed(server);
    let (next, parts) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<Step, (u32, u64, usize)>::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { break };
                    let taken = counts[&case.step.to_string()];
                    let left = case.run(server, &format!("steps-{index}"), taken, &expected, 1 + index % 3);
                    let mut parts = parts.lock().expect("no case panics with it");
                    let (deaths, bytes, empty) = parts.entry(case.step).or_default();
                    *deaths += 1;
                    *bytes += left.0;
                    *empty += left.1;
                }
            });
        }
    });
    let parts = parts.into_inner().expect("no case panics with it");
    let kind = server.kind();
    let mut table = format!("{kind}: STEP             TAKEN  DEATHS  B OF PARTS SWEPT  UPLOADS WITHOUT PARTS");
    for (step, (deaths, bytes, empty)) in &parts {
        let taken = counts[&step.to_string()];
        table += &format!("\n  {:<24} {taken:>5}  {deaths:>6}  {bytes:>16}  {empty:>21}", step.to_string());
    }
    tell(&table);
    let left = |step| parts.get(&step).map_or(0, |(_, bytes, _)| *bytes);
    assert!(left(Step::CompleteUpload) > 0, "no death in the midst of an upload: nothing was swept");
}

#[test]
fn a_process_killed_at_any_durable_step_on_minio_leaves_no_trace_in_the_output_and_nothing_in_the_bucket() {
    let places = Step::ALL.into_iter().flat_map(|step| (0..3).map(move |place| Case { step, place, after: 0 }));
    let moments = Step::ALL.into_iter().map(|step| Case { step, place: 1, after: 4 });
    run(&Server::start(Kind::MinIo), &places.chain(moments).collect::<Vec<_>>());
}

#[test]
fn a_process_killed_at_the_steps_of_an_upload_on_seaweedfs_leaves_no_trace_either() {
    let steps = [Step::BeginUpload, Step::NoteUpload, Step::PutPart, Step::CompleteUpload, Step::ForgetUpload];
    let cases = steps.into_iter().flat_map(|step| [0, 8].map(|after| Case { step, place: 1, after }));
    run(&Server::start(Kind::SeaweedFs), &cases.collect::<Vec<_>>());
}
