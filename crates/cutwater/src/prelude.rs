//! What most jobs use: `use cutwater::prelude::*`.

pub use crate::{
    Aggregate, CheckpointingMode, Collect, Config, Job, JobOutcome, KeyedProcess, KeyedProcess2, ListState, MapState,
    Options, OutputTag, ProcessContext, RecordContext, Settings, StartFrom, States, Strategy, Timestamp, Ttl,
    UserError, ValueState, Window, Windows, discard, file, folding, from_iter, generator,
};
