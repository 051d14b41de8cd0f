//! What most jobs use: `use cutwater::prelude::*`.

pub use crate::{
    CheckpointingMode, Collect, Config, Job, JobOutcome, KeyedProcess, Options, ProcessContext, Settings, StartFrom,
    Strategy, Timestamp, UserError, discard, file, from_iter, generator,
};
