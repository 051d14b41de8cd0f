//! The jobs that are measured at two sizes each.

use std::num::NonZeroU32;
use std::sync::Arc;

use cutwater::{Job, JobGraph, MaxParallelism, Options, ProcessContext, States, ValueState, discard};

use crate::keys::{Gate, Keys, key_of};

/// What there is many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dimension {
    /// Named states of one operator.
    States,
    /// Operators of a job, ten behind each exchange.
    Operators,
    /// Subtasks of the source and of one keyed stage, joined all to all.
    Subtasks,
}

/// Entries of all tables together in the first and the last of them, keys in the other.
pub(crate) const ENTRIES: u64 = 50_000;
const STAGE_KEYS: u64 = 1_000;
/// Of a stage: one keyed process, so many maps, one exchange.
const MAPS: u32 = 8;
pub(crate) const STAGE_OPERATORS: u32 = MAPS + 2;

impl Dimension {
    pub(crate) const ALL: [Self; 3] = [Self::States, Self::Operators, Self::Subtasks];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::States => "states",
            Self::Operators => "operators",
            Self::Subtasks => "subtasks",
        }
    }

    /// Many, and few.
    pub(crate) fn sizes(self) -> [u32; 2] {
        match self {
            Self::States => [500, 1],
            Self::Operators => [1_000, 10],
            Self::Subtasks => [256, 2],
        }
    }

    pub(crate) fn parallelism(self, size: u32) -> NonZeroU32 {
        let parallelism = if self == Self::Subtasks { size } else { 2 };
        NonZeroU32::new(parallelism).unwrap_or(NonZeroU32::MIN)
    }

    pub(crate) fn set(self, size: u32, options: &mut Options) -> anyhow::Result<()> {
        options.parallelism = self.parallelism(size);
        options.max_parallelism = Some(MaxParallelism::new(1_024)?);
        Ok(())
    }

    pub(crate) fn graph(self, size: u32, gate: &Arc<Gate>) -> anyhow::Result<JobGraph> {
        let job = Job::new(self.name());
        let keys = if self == Self::Operators { STAGE_KEYS } else { ENTRIES };
        let source = job.source("keys", Keys { keys, gate: Arc::clone(gate), skewed: false });
        match self {
            Self::States => {
                let states = u64::from(size);
                source
                    .key_by(move |record| key_of(*record, ENTRIES) / states)
                    .process_with_states(
                        "sums",
                        move |declare: &mut States<'_, u64>| {
                            (0..states).map(|state| declare.value::<u64>(&format!("sum-{state}"))).collect()
                        },
                        move |cx: &mut ProcessContext<'_, u64, (), u64>, sums: &Vec<ValueState<u64>>, record| {
                            let mut sum = cx.value(sums[(key_of(record, ENTRIES) % states) as usize])?;
                            let now = sum.get()?.copied().unwrap_or(0).wrapping_add(record);
                            sum.set(now)?;
                            cx.emit(now);
                            Ok(())
                        },
                    )
                    .sink("nowhere", discard());
            }
            Self::Operators => {
                let mut stream = source.key_by(|record| key_of(*record, STAGE_KEYS));
                let stages = size / STAGE_OPERATORS;
                for stage in 0..stages {
                    let next = stream
                        .process(&format!("count-{stage}"), |cx: &mut ProcessContext<'_, u64, u64, u64>, record| {
                            *cx.state()? += 1;
                            cx.emit(record);
                            Ok(())
                        })
                        .map(|record| record ^ 1)
                        .map(|record| record ^ 2)
                        .map(|record| record ^ 3)
                        .map(|record| record ^ 4)
                        .map(|record| record ^ 5)
                        .map(|record| record ^ 6)
                        .map(|record| record ^ 7)
                        .map(|record| record ^ 8);
                    if stage + 1 == stages {
                        next.sink("nowhere", discard());
                        break;
                    }
                    stream = next.key_by(|record| key_of(*record, STAGE_KEYS));
                }
            }
            Self::Subtasks => {
                source
                    .key_by(|record| key_of(*record, ENTRIES))
                    .process("sums", |cx: &mut ProcessContext<'_, u64, u64, u64>, record| {
                        let sum = cx.state()?;
                        *sum = sum.wrapping_add(record);
                        let sum = *sum;
                        cx.emit(sum);
                        Ok(())
                    })
                    .sink("nowhere", discard());
            }
        }
        Ok(job.build()?)
    }
}
