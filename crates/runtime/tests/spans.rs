//! The spans of checkpoints and restores, as any subscriber sees them. One test, since a subscriber is of the process.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutwater_coordinator::Settings;
use cutwater_core::{Attempt, Moment};
use cutwater_dataflow::{Collect, Job, JobGraph, ProcessContext, generator};
use cutwater_restart::Strategy;
use cutwater_runtime::{CheckpointHistory, CheckpointStatus, Clock, JobHandle, JobState, Options, spawn};
use cutwater_storage::LocalFolder;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[derive(Clone, Debug, Default)]
struct Captured {
    name: &'static str,
    fields: BTreeMap<&'static str, String>,
    handles: u64,
    closed: bool,
}

impl Visit for Captured {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// Keeps all spans for ever.
#[derive(Clone, Default)]
struct Capture {
    spans: Arc<Mutex<Vec<Captured>>>,
}

impl Capture {
    fn change<T>(&self, id: &Id, change: impl FnOnce(&mut Captured) -> T) -> T {
        change(&mut self.spans.lock().unwrap()[usize::try_from(id.into_u64()).unwrap() - 1])
    }
}

impl Subscriber for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("cutwater_runtime")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        assert!(span.is_root(), "nobody's span is its parent by chance");
        let mut captured = Captured { name: span.metadata().name(), handles: 1, ..Captured::default() };
        span.record(&mut captured);
        let mut spans = self.spans.lock().unwrap();
        spans.push(captured);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.change(span, |span| {
            assert!(!span.closed, "a span that is closed may have been exported: {span:?}");
            values.record(span);
        });
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.change(id, |span| span.handles += 1);
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        self.change(&id, |span| {
            span.handles -= 1;
            span.closed = span.handles == 0;
            span.closed
        })
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Counts numbers without end; fails once, when the number in `fail` has come down to 0.
fn counts(name: &str, fail: &Arc<AtomicU64>) -> JobGraph {
    let at = Arc::clone(fail);
    let job = Job::new(name);
    job.source("numbers", generator(u64::MAX, |n| n))
        .key_by(|n| n % 10)
        .process("sums", move |cx: &mut ProcessContext<'_, u64, u64, u64>, _| {
            if at.fetch_sub(1, Ordering::SeqCst) == 0 {
                return Err("planned".into());
            }
            *cx.state()? += 1;
            Ok(())
        })
        .sink("out", Collect::<u64>::default());
    job.build().unwrap()
}

fn options() -> Options {
    let mut options = Options::new();
    options.inline_threshold = 0; // files are what it looks at
    options.checkpointing = Settings { tolerable_failures: u32::MAX, ..Settings::default() };
    options.restart = Some(Strategy::FixedDelay { attempts: 1, delay: Duration::ZERO });
    options.parallelism = NonZeroU32::new(2).unwrap();
    options
}

/// Waits until it is so, for a minute at most.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let clock = Clock::new();
    while !is_so() {
        assert!(clock.now().since(Moment::ZERO) < Duration::from_secs(60), "in vain: {what}");
        std::thread::yield_now();
    }
}

fn running(graph: JobGraph, options: Options) -> JobHandle {
    let handle = spawn(graph, options).unwrap();
    wait_until("a record", || handle.status().records_in > 0);
    handle
}

/// A job with a checkpoint, one that fails for a full disk, and a restore whose file is gone.
fn one_that_fails(folder: &Path) -> Arc<CheckpointHistory> {
    let full = Arc::new(AtomicBool::new(false));
    let disk = Arc::clone(&full);
    let steps = move |_, path: &Path| match path.components().any(|part| part.as_os_str() == "chk") {
        true if disk.load(Ordering::SeqCst) => Err(io::ErrorKind::StorageFull.into()),
        true | false => Ok(()),
    };
    let (fail, store) = (Arc::new(AtomicU64::new(u64::MAX)), LocalFolder::new(folder).with_steps(Arc::new(steps)));
    let handle = running(counts("fails", &fail), Options { store: Some(Arc::new(store)), ..options() });
    handle.checkpoint().unwrap();
    full.store(true, Ordering::SeqCst);
    handle.checkpoint().unwrap_err();
    std::fs::remove_dir_all(folder.join("fails/chk")).unwrap();
    fail.store(0, Ordering::SeqCst);
    handle.wait().unwrap_err();
    handle.status().checkpoints
}

#[test]
fn each_checkpoint_and_each_restore_is_a_span_that_is_closed_with_all_its_fields() {
    let capture = Capture::default();
    tracing::subscriber::set_global_default(capture.clone()).unwrap();
    let fail = Arc::new(AtomicU64::new(u64::MAX));
    let handle = running(counts("spans", &fail), options());
    handle.checkpoint().unwrap();
    fail.store(0, Ordering::SeqCst);
    let runs_again = || {
        let status = handle.status();
        (status.attempt, status.state) == (Some(Attempt(2)), JobState::Running)
    };
    wait_until("a second attempt", runs_again);
    handle.checkpoint().unwrap();
    handle.cancel();
    handle.wait().unwrap();

    let history = handle.status().checkpoints;
    let folder = tempfile::tempdir().unwrap();
    let fails = one_that_fails(folder.path());
    let spans = capture.spans.lock().unwrap().clone();
    assert!(spans.iter().all(|span| span.closed), "{spans:?}");
    let checkpoints: Vec<_> = spans.iter().filter(|span| span.name == "checkpoint").collect();
    assert_eq!(checkpoints.len(), history.checkpoints().len() + fails.checkpoints().len());
    assert_eq!(fails.latest(CheckpointStatus::Failed).map(|failed| failed.checkpoint.0), Some(2));
    for (span, told) in checkpoints.iter().zip(history.checkpoints().rev().chain(fails.checkpoints().rev())) {
        let field = |name: &str| span.fields.get(name).cloned().unwrap_or_else(|| panic!("no {name}: {span:?}"));
        let number = |name: &str| field(name).parse::<u64>().unwrap();
        assert_eq!(field("is_unaligned"), "false");
        assert_eq!((number("checkpoint_id"), number("epoch")), (told.checkpoint.0, told.epoch.0));
        assert_eq!((number("attempt"), number("start_ts")), (told.attempt.0.into(), told.triggered_at_unix_ms));
        assert!(number("end_ts") >= number("start_ts"), "{span:?}");
        assert_eq!(field("checkpoint_type"), told.kind.name());
        assert_eq!((number("checkpointed_size"), number("full_size")), (told.written_bytes, told.full_bytes));
        let done = told.status == CheckpointStatus::Completed;
        assert_eq!(field("checkpoint_status"), if done { "COMPLETED" } else { "FAILED" });
        assert_eq!(span.fields.contains_key("metadata_size"), done, "{span:?}");
        assert_eq!(span.fields.get("failure").cloned(), told.failure);
    }
    let restores: Vec<_> = spans.iter().filter(|span| span.name == "restore").collect();
    let [restore, failed] = restores[..] else { panic!("{restores:?}") };
    assert_eq!((failed.fields["job"].as_str(), failed.fields["restore_status"].as_str()), ("fails", "FAILED"));
    assert!(failed.fields["failure"].contains("is missing") && failed.fields.contains_key("end_ts"), "{failed:?}");
    let number = |name: &str| restore.fields[name].parse::<u64>().unwrap();
    assert_eq!((number("checkpoint_id"), number("attempt"), number("epoch")), (1, 2, 1), "{restore:?}");
    assert_eq!(number("full_size"), history.checkpoints().last().unwrap().full_bytes);
    assert_eq!(restore.fields["restore_status"], "COMPLETED");
    assert!(number("sum_restore_state_duration_ms") >= number("max_restore_state_duration_ms"), "{restore:?}");
    assert!(number("end_ts") >= number("start_ts"), "{restore:?}");
}
