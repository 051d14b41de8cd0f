//! A job with a large state, for the cases that store and restore it.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use cutwater::{Job, JobGraph, JobState, KeyedProcess, Options, ProcessContext, UserError};

use crate::job::Running;
use crate::keys::{Gate, Keys, key_of, splitmix64};
use crate::meter::{BatchWatch, Meter};

/// Arguments that say how large the state is.
#[derive(clap::Args)]
pub(crate) struct StateSize {
    /// Size of all keys and values together, in units of 1e9 bytes.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) gb: f64,
    /// Size of each value in bytes; keys have 8.
    #[arg(long, default_value = "100")]
    pub(crate) value: NonZeroU32,
    /// Subtasks; as many worker threads, up to the cores. By default as many as there are cores.
    #[arg(long, default_value_t = cores())]
    pub(crate) parallelism: NonZeroU32,
}

fn cores() -> NonZeroU32 {
    let cores = std::thread::available_parallelism().ok();
    cores.and_then(|cores| NonZeroU32::try_from(cores).ok()).unwrap_or(NonZeroU32::MIN)
}

impl StateSize {
    pub(crate) fn keys(&self) -> NonZeroU64 {
        let keys = (self.gb * 1e9 / (f64::from(self.value.get()) + 8.0)) as u64;
        NonZeroU64::new(keys).unwrap_or(NonZeroU64::MIN)
    }

    pub(crate) fn graph(&self, gate: &Arc<Gate>, meter: &Arc<Meter>) -> anyhow::Result<JobGraph> {
        let keys = self.keys().get();
        let job = Job::new("state");
        job.source("keys", Keys { keys, gate: Arc::clone(gate), skewed: false })
            .key_by(move |record| key_of(*record, keys))
            .process_with("blobs", Blobs { bytes: self.value.get() as usize, watch: BatchWatch::new(meter) })
            .sink("nowhere", cutwater::discard());
        Ok(job.build()?)
    }

    /// Starts the job and waits until all keys are in its state.
    pub(crate) fn fill(&self, gate: &Arc<Gate>, meter: &Arc<Meter>, options: Options) -> anyhow::Result<Running> {
        let job = Running::spawn(self.graph(gate, meter)?, options)?;
        let splits = u64::from(self.parallelism.get());
        let step = Duration::from_millis(1);
        job.wait_for_state(JobState::Running, step)?;
        job.wait_for("all keys", step, |_| gate.filled() == splits)?;
        Ok(job)
    }
}

/// Keeps bytes that can't be compressed for each key, and changes the first of them with each record.
#[derive(Clone)]
struct Blobs {
    bytes: usize,
    watch: BatchWatch,
}

impl KeyedProcess<u64, u64> for Blobs {
    type State = Vec<u8>;
    type Out = ();

    fn initial(&self) -> Vec<u8> {
        Vec::new()
    }

    fn process(&mut self, cx: &mut ProcessContext<'_, u64, Vec<u8>, ()>, record: u64) -> Result<(), UserError> {
        let bytes = self.bytes;
        let blob = cx.state()?;
        if blob.is_empty() {
            *blob = noise(record, bytes);
        }
        let len = blob.len().min(8);
        blob[..len].copy_from_slice(&record.to_le_bytes()[..len]);
        self.watch.note_record();
        Ok(())
    }
}

/// So many pseudo-random bytes.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = Vec::with_capacity(bytes);
    let mut at = 0;
    while noise.len() < bytes {
        let word = splitmix64(seed, at).to_le_bytes();
        noise.extend_from_slice(&word[..word.len().min(bytes - noise.len())]);
        at += 1;
    }
    noise
}
