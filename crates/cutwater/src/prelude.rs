//! What most jobs use: `use cutwater::prelude::*`.

pub use crate::{
    CheckpointingMode, Collect, Config, Job, JobOutcome, KeyedProcess, ListState, MapState, Options, ProcessContext,
    Settings, StartFrom, States, Strategy, Timestamp, Ttl, UserError, ValueState, discard, file, from_iter, generator,
};
