//! The spans of checkpoints and restores, as any subscriber sees them. One test, since a subscriber is of the process.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutwater_coordinator::Settings;
use cutwater_core::Attempt;
use cutwater_dataflow::{Collect, Job, ProcessContext, generator};
use cutwater_restart::Strategy;
use cutwater_runtime::{CheckpointStatus, JobState, Options, spawn};
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

#[test]
fn each_checkpoint_and_each_restore_is_a_span_that_is_closed_with_all_its_fields() {
    let capture = Capture::default();
    tracing::subscriber::set_global_default(capture.clone()).unwrap();
    let fail = Arc::new(AtomicU64::new(u64::MAX));
    let at = Arc::clone(&fail);
    let job = Job::new("spans");
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
    let mut options = Options::new();
    options.checkpointing = Settings::default();
    options.restart = Some(Strategy::FixedDelay { attempts: 1, delay: Duration::ZERO });
    options.parallelism = NonZeroU32::new(2).unwrap();
    let handle = spawn(job.build().unwrap(), options).unwrap();
    while handle.status().records_in == 0 {
        std::thread::yield_now();
    }
    handle.checkpoint().unwrap();
    fail.store(0, Ordering::SeqCst);
    let runs_again = || {
        let status = handle.status();
        (status.attempt, status.state) == (Some(Attempt(2)), JobState::Running)
    };
    while !runs_again() {
        std::thread::yield_now();
    }
    handle.checkpoint().unwrap();
    handle.cancel();
    handle.wait().unwrap();

    let history = handle.status().checkpoints;
    let spans = capture.spans.lock().unwrap().clone();
    assert!(spans.iter().all(|span| span.closed), "{spans:?}");
    let checkpoints: Vec<_> = spans.iter().filter(|span| span.name == "checkpoint").collect();
    assert_eq!(checkpoints.len(), history.checkpoints().len());
    for (span, told) in checkpoints.iter().zip(history.checkpoints().rev()) {
        let field = |name: &str| span.fields.get(name).cloned().unwrap_or_else(|| panic!("no {name}: {span:?}"));
        let number = |name: &str| field(name).parse::<u64>().unwrap();
        assert_eq!((field("job"), field("is_unaligned")), ("spans".to_owned(), "false".to_owned()));
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
    let [restore] = restores[..] else { panic!("{restores:?}") };
    let number = |name: &str| restore.fields[name].parse::<u64>().unwrap();
    assert_eq!((number("checkpoint_id"), number("attempt"), number("epoch")), (1, 2, 1), "{restore:?}");
    assert_eq!(number("full_size"), history.checkpoints().last().unwrap().full_bytes);
    assert_eq!(restore.fields["restore_status"], "COMPLETED");
    assert!(number("sum_restore_state_duration_ms") >= number("max_restore_state_duration_ms"), "{restore:?}");
    assert!(number("end_ts") >= number("start_ts"), "{restore:?}");
}
