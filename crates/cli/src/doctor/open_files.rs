//! How many files may be open, beside how many a job may open.

use std::fs;

use super::check::{Check, Trouble};
use super::job::JobSize;
use crate::text::{count, size};

const NAME: &str = "open files";

/// The limits of this process, which a job that is started from the same place has too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// What holds.
    soft: u64,
    /// To what the process may raise it.
    hard: u64,
}

impl Limits {
    fn of_this_process() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/limits").ok()?)
    }

    /// From a line such as `Max open files            1024                 524288               files`.
    fn parse(limits: &str) -> Option<Self> {
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let mut numbers = line.split_whitespace().map(|word| match word {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        });
        Some(Self { soft: numbers.next()??, hard: numbers.next()?? })
    }
}

/// The program itself, sources, sinks, sockets, threads.
const OF_ANY_JOB: u64 = 128;
/// Of each subtask: snapshots under way and their local copies, files being restored.
const OF_A_SUBTASK: u64 = 8;
/// Of each database of RocksDB: manifest, log, lock, folders.
const OF_A_DATABASE: u64 = 8;
/// Of each state in it: what is compacted is there twice for a while.
const OF_A_STATE: u64 = 8;
/// RocksDB makes files of this size.
const FILE_BYTES: u64 = 64 << 20;
/// Less is soon used up by RocksDB.
const ENOUGH_FOR_ROCKSDB: u64 = 4096;

/// How many files the job may have open, for all that is known of it.
fn estimate(job: &JobSize) -> u64 {
    let subtasks = u64::from(job.subtasks);
    let of_any = OF_ANY_JOB + subtasks * OF_A_SUBTASK;
    if !job.rocksdb {
        return of_any;
    }
    let states = u64::from(job.states);
    let of_state = job.state_bytes.unwrap_or(0).div_ceil(FILE_BYTES);
    let of_databases = subtasks.saturating_mul(states.saturating_mul(OF_A_STATE).saturating_add(OF_A_DATABASE));
    of_any.saturating_add(of_databases).saturating_add(of_state)
}

pub(super) fn check(job: &JobSize) -> Check {
    judge(Limits::of_this_process(), job)
}

fn judge(limits: Option<Limits>, job: &JobSize) -> Check {
    let needed = estimate(job);
    let Some(Limits { soft, hard }) = limits else {
        let found = format!("the limit can't be read on this system; the job may need {needed}");
        return Check::warning(NAME, Trouble::NotChecked, found, "compare it with `ulimit -n`");
    };
    let mut found = format!("{} may be open{}; ", shown(soft), up_to(soft, hard));
    found += &match (job.rocksdb, job.state_bytes) {
        (false, _) => format!("the job needs about {needed}"),
        (true, Some(bytes)) => {
            format!("the job needs about {needed}, one for each 64 MiB of {} among them", size(bytes))
        }
        (true, None) => {
            let room = soft.saturating_sub(needed).saturating_mul(FILE_BYTES);
            format!(
                "the job needs about {needed} and one for each 64 MiB of state, so there is room for {}",
                size(room)
            )
        }
    };
    found += &format!(" ({}, {})", count(job.subtasks.into(), "subtask"), count(job.states.into(), "state"));
    let wanted = if job.rocksdb { needed.max(ENOUGH_FOR_ROCKSDB) } else { needed };
    let to_do = raise(wanted, hard);
    let check = match () {
        () if soft < needed => Check::error(NAME, Trouble::OpenFiles, found, &to_do),
        () if soft < wanted => Check::warning(NAME, Trouble::OpenFiles, found, &to_do),
        () => Check::ok(NAME, found),
    };
    check.with_figures([("soft_limit", soft), ("hard_limit", hard), ("needed", needed)])
}

fn shown(limit: u64) -> String {
    if limit == u64::MAX { "any number".to_owned() } else { limit.to_string() }
}

fn up_to(soft: u64, hard: u64) -> String {
    if soft == hard { String::new() } else { format!(", {} if raised", shown(hard)) }
}

fn raise(wanted: u64, hard: u64) -> String {
    let unit = format!("`LimitNOFILE={wanted}` in the unit of a service");
    if wanted <= hard {
        return format!("`ulimit -n {wanted}` in the shell that starts the job, or {unit}");
    }
    format!("more than this user may have: raise `nofile` in /etc/security/limits.conf to {wanted}, or set {unit}")
}

#[cfg(test)]
mod tests {
    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn the_line_of_the_kernel_is_read() {
        let line = |rest: &str| format!("Limit      Soft Limit  Hard Limit  Units\nMax open files            {rest}\n");
        let cases = [
            ("numbers", line("1024                 524288               files"), Some((1024, 524_288))),
            ("no limit", line("1024 unlimited files"), Some((1024, u64::MAX))),
            ("no line", "Max processes 1 1 processes\n".to_owned(), None),
            ("half a line", line("1024"), None),
            ("no number", line("many more files"), None),
        ];
        for (name, text, expected) in cases {
            let found = Limits::parse(&text).map(|limits| (limits.soft, limits.hard));
            assert_eq!(found, expected, "{name}");
        }
        assert!(Limits::of_this_process().is_some_and(|limits| limits.soft > 0), "this test runs on Linux");
    }

    #[test]
    fn too_few_files_are_an_error_and_few_a_warning_with_rocksdb() {
        use Verdict::{Error, Ok, Warning};
        let memory = JobSize { subtasks: 4, states: 3, state_bytes: None, rocksdb: false };
        let rocksdb = JobSize { rocksdb: true, ..memory };
        let large = JobSize { state_bytes: Some(100 << 30), ..rocksdb };
        // The estimates: 160 in memory, 288 with databases, 1888 with 100 GiB in them.
        let cases = [
            ("in memory the usual limit is enough", memory, Some((1024, 4096)), Ok, "1024 may be open, 4096 if raised"),
            ("in memory just enough", memory, Some((160, 160)), Ok, "160 may be open; the job needs about 160 (4 sub"),
            ("in memory one too few", memory, Some((159, 200)), Error, "ulimit -n 160"),
            ("the usual limit is little for RocksDB", rocksdb, Some((1024, 4096)), Warning, "ulimit -n 4096"),
            ("how much state that is, is said", rocksdb, Some((1024, 4096)), Warning, "there is room for 46.0 GiB"),
            ("one less than recommended", rocksdb, Some((4095, 4096)), Warning, "LimitNOFILE=4096"),
            ("as recommended", rocksdb, Some((4096, 4096)), Ok, "about 288 and one for each 64 MiB"),
            ("no room for the databases themselves", rocksdb, Some((287, 4096)), Error, "ulimit -n 4096"),
            ("a large state does not fit", large, Some((1024, 1024)), Error, "limits.conf to 4096"),
            ("a large state is counted", large, Some((2000, 1 << 20)), Warning, "needs about 1888, one for each"),
            ("no limit at all", large, Some((u64::MAX, u64::MAX)), Ok, "any number may be open"),
            ("another system", memory, None, Warning, "can't be read on this system"),
        ];
        for (name, job, limits, verdict, text) in cases {
            let check = judge(limits.map(|(soft, hard)| Limits { soft, hard }), &job);
            assert_eq!(check.verdict, verdict, "{name}: {check:?}");
            let said = format!("{} {}", check.found, check.to_do.clone().unwrap_or_default());
            assert!(said.contains(text), "{name}: {said}");
        }
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let job = JobSize { subtasks: u32::MAX, states: u32::MAX, state_bytes: Some(u64::MAX), rocksdb: true };
        assert_eq!(judge(Some(Limits { soft: 1024, hard: 1024 }), &job).verdict, Verdict::Error);
    }
}
