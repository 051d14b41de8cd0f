//! The memory that a job takes for its state, beside what this machine has or the process may have.

use std::fs;
use std::path::{Component, Path};

use cutwater_config::Resolved;

use super::check::{Check, Trouble};
use super::job::JobSize;
use crate::text::{count, size};

const NAME: &str = "memory";

/// What there is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Memory {
    /// Of the machine.
    total: Option<u64>,
    /// Of that, what nobody uses now.
    available: Option<u64>,
    /// What the control group of this process may use.
    group: Option<u64>,
}

impl Memory {
    fn of_this_machine() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let machine = read("/proc/meminfo");
        Self {
            total: of_machine(&machine, "MemTotal:"),
            available: of_machine(&machine, "MemAvailable:"),
            group: of_group(&read("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")),
        }
    }

    /// What a process may have at the most.
    fn room(self) -> Option<u64> {
        [self.total, self.group].into_iter().flatten().min()
    }
}

/// From a line such as `MemTotal:       24689304 kB`.
fn of_machine(text: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
    let number: u64 = words.next()?.parse().ok()?;
    if words.next() == Some("kB") { number.checked_mul(1024) } else { None }
}

/// The least limit of the group and of those that it lies in; `None` if there is none. `own` is `/proc/self/cgroup`: lines
/// such as `0::/system.slice/flights.service` (version 2) and `4:memory:/docker/1` (version 1).
fn of_group(own: &str, root: &Path) -> Option<u64> {
    let mut least = None;
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            some if some.split(',').any(|one| one == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        // A container sees its own group as the root, and may be told of a path outside.
        let parts: Vec<_> = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect();
        for depth in 0..=parts.len() {
            let folder = parts[..depth].iter().fold(root.clone(), |folder, part| folder.join(part));
            let limit = fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse::<u64>().ok());
            least = limit.filter(|limit| *limit < NO_LIMIT).into_iter().chain(least).min();
        }
    }
    least
}

/// What version 1 writes where there is no limit is about this number.
const NO_LIMIT: u64 = 1 << 60;

pub(super) fn check(settings: &Resolved, job: &JobSize) -> Check {
    judge(Memory::of_this_machine(), settings, job)
}

fn judge(memory: Memory, settings: &Resolved, job: &JobSize) -> Check {
    let Some((needed, of_what, to_do)) = need(settings, job) else {
        let there = memory.room().map_or_else(|| "memory".to_owned(), |room| format!("{} of memory", size(room)));
        let found = format!("state is kept in {there} whole; with --state SIZE it is compared");
        return Check::ok(NAME, found).with_figures(figures(memory));
    };
    let Some(room) = memory.room() else {
        let found = format!("{of_what}; how much memory there is can't be read on this system");
        return Check::warning(NAME, Trouble::NotChecked, found, "compare it yourself");
    };
    let whose =
        if memory.group == Some(room) { "that the control group of this process may use" } else { "of this machine" };
    let found = format!("{of_what}, beside {} {whose}", size(room));
    let check = match memory.available {
        _ if needed > room => Check::error(NAME, Trouble::Memory, found, to_do),
        _ if needed > room / 4 * 3 => {
            let found = format!("{found}: little is left for all else");
            Check::warning(NAME, Trouble::Memory, found, to_do)
        }
        Some(available) if needed > available => {
            let found = format!("{found}, of which {} are free now", size(available));
            Check::warning(NAME, Trouble::Memory, found, &format!("end what else runs here, or {to_do}"))
        }
        Some(_) | None => Check::ok(NAME, found),
    };
    check.with_figures(figures(memory)).with_figures([("needed_bytes", needed)])
}

fn figures(memory: Memory) -> impl Iterator<Item = (&'static str, u64)> {
    let Memory { total, available, group } = memory;
    let named = [("total_bytes", total), ("available_bytes", available), ("group_limit_bytes", group)];
    named.into_iter().filter_map(|(name, bytes)| Some((name, bytes?)))
}

/// How much, of what, and what could be made smaller; `None` if nobody knows.
fn need(settings: &Resolved, job: &JobSize) -> Option<(u64, String, &'static str)> {
    if !job.rocksdb {
        let bytes = job.state_bytes?;
        let to_do = "keep less state, or what was not used for a while on a disk: `state.backend.type: rocksdb`";
        return Some((bytes, format!("at least {} of state, kept in memory whole", size(bytes)), to_do));
    }
    let rocksdb = &settings.rocksdb;
    let tables = u64::from(job.subtasks).saturating_mul(job.states.into());
    let overlays = rocksdb.overlay_bytes.saturating_mul(tables);
    let needed = rocksdb.block_cache_bytes.saturating_add(rocksdb.write_buffer_bytes).saturating_add(overlays);
    let of_what = format!(
        "{} = {} block cache + {} write buffers + {} overlay x {} x {}",
        size(needed),
        size(rocksdb.block_cache_bytes),
        size(rocksdb.write_buffer_bytes),
        size(rocksdb.overlay_bytes),
        count(job.subtasks.into(), "subtask"),
        count(job.states.into(), "state"),
    );
    let to_do = "lower `cutwater.rocksdb.overlay`, `cutwater.rocksdb.block-cache` or `cutwater.rocksdb.write-buffers`";
    Some((needed, of_what, to_do))
}

#[cfg(test)]
mod tests {
    use cutwater_config::Config;

    use super::super::check::Verdict;
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn memory_of_the_machine_is_read() {
        let text = "MemTotal:       2048 kB\nMemAvailable:    1024 kB\nHugePages_Total:       0\n";
        let cases =
            [("MemTotal:", Some(2 << 20)), ("MemAvailable:", Some(1 << 20)), ("HugePages_Total:", None), ("X:", None)];
        for (name, expected) in cases {
            assert_eq!(of_machine(text, name), expected, "{name}");
        }
        assert!(Memory::of_this_machine().room().is_some_and(|room| room > 0), "this test runs on Linux");
    }

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("memory.max", "max\n"),
            ("outer/memory.max", "3000\n"),
            ("outer/inner/memory.max", "5000\n"),
            ("alone/memory.max", "max\n"),
            ("memory/job/memory.limit_in_bytes", "700\n"),
            ("memory/free/memory.limit_in_bytes", "9223372036854771712\n"),
        ] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let cases = [
            ("version 2, the outer one is the least", "0::/outer/inner\n", Some(3000)),
            ("version 2, no limit", "0::/alone\n", None),
            ("a path outside, as in a container", "0::/../outer\n", Some(3000)),
            ("a group that is not there", "0::/gone\n", None),
            ("version 1", "7:cpu,memory:/job\n3:pids:/outer\n", Some(700)),
            ("version 1, no limit", "7:memory:/free\n", None),
            ("another controller", "7:memoryless:/job\n", None),
            ("nothing", "", None),
            ("no lines of groups", "nonsense\n", None),
        ];
        for (name, own, expected) in cases {
            assert_eq!(of_group(own, root.path()), expected, "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error_and_what_hardly_fits_a_warning() {
        use Verdict::{Error, Ok, Warning};
        let machine = |total, available| Memory { total: Some(total), available: Some(available), group: None };
        let roomy = machine(16 * GIB, 15 * GIB);
        let grouped = Memory { group: Some(GIB), ..roomy };
        // 256 + 256 MiB, and 64 MiB for each table.
        let cases = [
            (
                "one table fits",
                roomy,
                true,
                1,
                1,
                None,
                Ok,
                "576.0 MiB = 256.0 MiB block cache + 256.0 MiB write buffers",
            ),
            ("many tables do not", roomy, true, 16, 20, None, Error, "64.0 MiB overlay x 16 subtasks x 20 states"),
            ("they hardly fit", roomy, true, 10, 20, None, Warning, "little is left"),
            ("others use it", machine(16 * GIB, GIB / 2), true, 1, 1, None, Warning, "of which 512.0 MiB are free now"),
            ("the group is smaller", grouped, true, 9, 1, None, Error, "beside 1.0 GiB that the control group"),
            ("in memory, of unknown size", roomy, false, 4, 4, None, Ok, "16.0 GiB of memory whole; with --state"),
            ("in memory, it fits", roomy, false, 1, 1, Some(2 * GIB), Ok, "at least 2.0 GiB of state"),
            ("in memory, it does not", roomy, false, 1, 1, Some(20 * GIB), Error, "state.backend.type: rocksdb"),
            ("in memory, it hardly does", roomy, false, 1, 1, Some(13 * GIB), Warning, "little is left"),
            ("another system", Memory::default(), true, 1, 1, None, Warning, "can't be read"),
            ("absurd sizes", roomy, true, u32::MAX, u32::MAX, None, Error, "16.0 EiB"),
        ];
        let settings = Config::new().resolve().unwrap();
        for (name, memory, rocksdb, subtasks, states, state_bytes, verdict, text) in cases {
            let check = judge(memory, &settings, &JobSize { subtasks, states, state_bytes, rocksdb });
            assert_eq!(check.verdict, verdict, "{name}: {check:?}");
            let said = format!("{} {}", check.found, check.to_do.clone().unwrap_or_default());
            assert!(said.contains(text), "{name}: {said}");
        }
    }
}
