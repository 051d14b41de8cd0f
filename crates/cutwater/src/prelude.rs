//! What most jobs use: `use cutwater::prelude::*`.

pub use crate::{
    Aggregate, BroadcastState, CheckpointingMode, Collect, Config, Job, JobOutcome, KeyedBroadcastProcess,
    KeyedProcess, KeyedProcess2, ListState, MapState, OperatorListState, OperatorStates, Options, OutputTag, Process,
    ProcessContext, RecordContext, Settings, StartFrom, States, Strategy, Timestamp, Ttl, UnionListState, UserError,
    ValueState, Window, Windows, discard, file, folding, from_iter, generator,
};
