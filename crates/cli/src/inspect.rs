//! `cutwater checkpoints inspect`.

use std::time::Duration;

use cutwater_coordinator::inspect::slot_name;
use cutwater_coordinator::{CompletedCheckpoint, SubtaskSnapshot};
use cutwater_core::Timestamp;
use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::folder::{JobFolder, Log, Summary, nanos, only_job};
use crate::report::{Problem, ProblemKind, Report};
use crate::snapshot::{InlineParts, Owner, PreparedOutput, SourcePosition, State};
use crate::text::{count, duration, safe, size, table, time, wrap};

/// All that one checkpoint says of itself.
#[derive(Debug, Serialize)]
pub(crate) struct Inspection {
    schema: &'static str,
    job: String,
    folder: String,
    #[serde(skip)]
    object: String,
    drained: bool,
    record: String,
    #[serde(flatten)]
    summary: Summary,
    max_parallelism: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    tasks: Vec<Task>,
    states: Vec<State>,
    sources: Vec<SourcePosition>,
    prepared_output: Vec<PreparedOutput>,
    problems: Vec<Problem>,
}

/// The checkpoint of another folder that this line of checkpoints began from.
#[derive(Debug, Serialize)]
struct Origin {
    job: String,
    epoch: u64,
    checkpoint: u64,
}

#[derive(Debug, Serialize)]
struct Task {
    task: u32,
    name: String,
    operators: Vec<String>,
    parallelism: u32,
    finished_subtasks: Vec<u32>,
    subtasks: Vec<Subtask>,
}

#[derive(Debug, Serialize)]
struct Subtask {
    subtask: u32,
    start_delay_ns: u64,
    alignment_ns: u64,
    sync_ns: u64,
    async_ns: u64,
    state_bytes: u64,
    /// Over all attempts; missing if the part can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watermark_ms: Option<i64>,
    files: Vec<File>,
}

#[derive(Debug, Serialize)]
struct File {
    name: String,
    bytes: u64,
    crc32c: String,
    /// Whether the record of the checkpoint holds it: then no object has its name.
    in_record: bool,
}

impl File {
    fn row(&self) -> Vec<String> {
        let place = if self.in_record { "in the record" } else { "" };
        vec![self.name.clone(), size(self.bytes), self.crc32c.clone(), place.to_owned()]
    }
}

pub(crate) fn gather(location: &str, checkpoint: Option<u64>) -> Result<Inspection, Failure> {
    let folder = only_job(location)?;
    let log = folder.log()?;
    let found = match checkpoint {
        Some(wanted) => log.checkpoints().filter(|found| found.checkpoint.0 == wanted).last(),
        None => log.retained().last(),
    };
    let Some(found) = found else {
        for problem in &log.problems {
            eprint!("{}", problem.text());
        }
        let exit = if log.problems.is_empty() { Exit::NotFound } else { Exit::Damaged };
        let (path, ids) = (folder.path.display(), log.retained_ids());
        let message = match checkpoint {
            Some(id) => format!("{path} has no record of checkpoint {id}; retained: {ids}"),
            None => format!("{path} has no record of a completed checkpoint"),
        };
        return Err(Failure::new(exit, message));
    };
    Ok(Inspection::of(&folder, &log, found, &slot_name(found.slot), "cutwater.checkpoints.inspect/1"))
}

impl Inspection {
    /// Of a checkpoint whose record is this object.
    pub(crate) fn of(
        folder: &JobFolder,
        log: &Log,
        checkpoint: &CompletedCheckpoint,
        object: &str,
        schema: &'static str,
    ) -> Self {
        let record = folder.path_of(object);
        let summary = Summary::of(checkpoint, log);
        let mut problems = log.problems.clone();
        let (mut states, mut inline, mut tasks) = (Vec::new(), InlineParts::default(), Vec::new());
        for task in &checkpoint.tasks {
            let mut subtasks = Vec::new();
            for subtask in &task.subtasks {
                let part = inline.add(subtask).map_err(|reason| {
                    problems.push(Problem::new(record.clone(), ProblemKind::Damaged, reason));
                });
                subtasks.push(Subtask::of(subtask, part.ok().map(|part| (part.records, part.watermark))));
                // Those of a checkpoint no longer retained are deleted.
                for file in subtask.files.iter().filter(|_| summary.retained) {
                    let owner = Owner { folder, checkpoint, task, subtask };
                    problems.extend(owner.read_states(file, &mut states).err());
                }
            }
            tasks.push(Task {
                task: task.task.0,
                name: task.name.clone(),
                operators: task.operators.iter().map(ToString::to_string).collect(),
                parallelism: task.parallelism,
                finished_subtasks: task.finished.clone(),
                subtasks,
            });
        }
        states.append(&mut inline.operator_states);
        let origin = checkpoint.origin.as_ref();
        let origin =
            origin.map(|from| Origin { job: from.job.clone(), epoch: from.epoch.0, checkpoint: from.checkpoint.0 });
        Self {
            schema,
            object: object.to_owned(),
            drained: checkpoint.is_drained(),
            job: checkpoint.job.clone(),
            folder: folder.path.display().to_string(),
            record,
            summary,
            max_parallelism: checkpoint.max_parallelism.count(),
            origin,
            tasks,
            states,
            sources: inline.sources.into_values().collect(),
            prepared_output: inline.prepared.into_values().collect(),
            problems,
        }
    }

    fn head(&self) -> String {
        let Summary { checkpoint, epoch, attempt, state_bytes, files, file_bytes, .. } = self.summary;
        let completed = (time(self.summary.completed_at_unix_ms), self.summary.took());
        let mut out = format!("checkpoint {checkpoint} of job {}\n", safe(&self.job));
        let mut line = |what: &str, text: String| out += &format!("  {what:<12}{text}\n");
        line("folder", safe(&self.folder));
        line("record", format!("{}, epoch {epoch}, attempt {attempt}", self.object));
        line("completed", format!("{} UTC, took {}", completed.0, completed.1));
        line("key groups", self.max_parallelism.to_string());
        line("state", format!("{}; {}, {}", size(state_bytes), count(files, "file"), size(file_bytes)));
        if let Some(Origin { job, epoch, checkpoint }) = &self.origin {
            line("began from", format!("checkpoint {checkpoint} of job {}, epoch {epoch}", safe(job)));
        }
        if self.summary.final_ {
            let why = if self.drained { "the sources had been ended for it" } else { "all data had been read" };
            line("final", format!("yes: {why}"));
        }
        if !self.summary.retained {
            line("retained", "no: its files are deleted".to_owned());
        }
        out
    }
}

impl Subtask {
    fn of(subtask: &SubtaskSnapshot, inline: Option<(u64, i64)>) -> Self {
        let phases = &subtask.phases;
        let file = |file: &cutwater_coordinator::FileRef| File {
            name: file.name.clone(),
            bytes: file.bytes,
            crc32c: format!("{:08x}", file.crc32c),
            in_record: file.content.is_some(),
        };
        Self {
            subtask: subtask.subtask.index,
            start_delay_ns: nanos(phases.start_delay),
            alignment_ns: nanos(phases.alignment),
            sync_ns: nanos(phases.sync),
            async_ns: nanos(phases.asynchronous),
            state_bytes: subtask.state_bytes,
            records: inline.map(|(records, _)| records),
            watermark_ms: inline.map(|(_, watermark)| watermark),
            files: subtask.files.iter().map(file).collect(),
        }
    }

    fn row(&self) -> Vec<String> {
        let took = |ns: u64| duration(Duration::from_nanos(ns));
        let known = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
        vec![
            self.subtask.to_string(),
            took(self.start_delay_ns),
            took(self.alignment_ns),
            took(self.sync_ns),
            took(self.async_ns),
            size(self.state_bytes),
            known(self.records.map(|records| records.to_string())),
            known(self.watermark_ms.map(|ms| Timestamp(ms).to_string())),
        ]
    }
}

impl Report for Inspection {
    fn text(&self) -> String {
        let mut out = self.head();
        for task in &self.tasks {
            let operators = if task.operators.is_empty() { "none".to_owned() } else { task.operators.join(", ") };
            let title = format!("\ntask {}: {}", task.task, safe(&task.name));
            out += &format!("{title}\n");
            out += &wrap("  operators   ", &operators);
            out += &format!("  parallelism {}\n", task.parallelism);
            if !task.finished_subtasks.is_empty() {
                let finished: Vec<_> = task.finished_subtasks.iter().map(ToString::to_string).collect();
                out += &wrap("  finished    ", &finished.join(", "));
            }
            if !task.subtasks.is_empty() {
                let titles = [">SUBTASK", ">START", ">ALIGN", ">SYNC", ">ASYNC", ">STATE", ">RECORDS", ">WATERMARK"];
                out += &table(2, &titles, task.subtasks.iter().map(Subtask::row).collect());
            }
        }
        let files = self.tasks.iter().flat_map(|task| &task.subtasks).flat_map(|subtask| &subtask.files);
        let files: Vec<_> = files.map(File::row).collect();
        if !files.is_empty() {
            out += &format!("\nfiles\n{}", table(2, &["NAME", ">SIZE", "CRC32C", ""], files));
        }
        if !self.states.is_empty() {
            out += "\nstates\n";
        }
        for state in &self.states {
            let (name, kind) = (safe(&state.name), state.kind);
            let (entries, stored) = (state.entries, size(state.stored_bytes));
            let mut entries = format!("{entries} {}", if entries == 1 { "entry" } else { "entries" });
            let stored = match &state.native {
                Some(backend) => {
                    entries = format!("about {entries}");
                    format!("in the files of {}", safe(backend))
                }
                None => stored,
            };
            if state.changes > 0 {
                entries += &format!(" and {}", count(state.changes, "later change"));
            }
            out += &wrap("  ", &format!("{}/{name}: {kind}, {entries}, {stored}", safe(&state.operator)));
            out += &wrap("    key    ", &format!("{} ({})", state.key_schema, state.key_codec));
            out += &wrap("    value  ", &format!("{} ({})", state.value_schema, state.value_codec));
        }
        if !self.sources.is_empty() {
            let titles = ["OPERATOR", ">SPLITS", ">ENDED", ">RECORDS"];
            out += &format!("\nsources\n{}", table(2, &titles, self.sources.iter().map(source_row).collect()));
        }
        if !self.prepared_output.is_empty() {
            let row = |sink: &PreparedOutput| vec![sink.operator.clone(), sink.handles.to_string(), size(sink.bytes)];
            let rows = self.prepared_output.iter().map(row).collect();
            out += &format!("\nprepared output\n{}", table(2, &["OPERATOR", ">HANDLES", ">SIZE"], rows));
        }
        out
    }

    fn problems(&self) -> Vec<&Problem> {
        self.problems.iter().collect()
    }
}

fn source_row(source: &SourcePosition) -> Vec<String> {
    let ended = source.splits.iter().filter(|split| split.ended).count();
    let records: u64 = source.splits.iter().fold(0, |sum, split| sum.saturating_add(split.records));
    vec![source.operator.clone(), source.splits.len().to_string(), ended.to_string(), records.to_string()]
}
