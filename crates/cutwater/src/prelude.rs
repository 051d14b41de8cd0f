//! What most jobs use: `use cutwater::prelude::*`.

pub use crate::{
    CheckpointingMode, Collect, Config, Job, JobOutcome, KeyedProcess, KeyedProcess2, Options, OutputTag,
    ProcessContext, RecordContext, Settings, StartFrom, Strategy, Timestamp, UserError, discard, file, from_iter,
    generator,
};
