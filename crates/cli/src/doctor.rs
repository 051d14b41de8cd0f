//! `cutwater doctor`: whether a job with these settings can run on this machine, before it is started.
//!
//! What is measured and what is made of it are apart: each judgement is a function of figures, with a table of cases.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use cutwater_config::{Resolved, size_in_bytes};
use cutwater_runtime::{OptionsError, StoreResolver, job_folder};
use cutwater_storage::Store;
use serde::Serialize;

use crate::config::Sources;
use crate::failure::{Exit, Failure, chain};
use crate::report::print_plain;
use crate::text::count;

mod check;
mod disk;
mod job;
mod memory;
mod open_files;
mod settings;
mod trial;

use check::{Check, Trouble, Verdict};
use disk::{Disk, Role};
use job::JobSize;

/// Arguments of `doctor`.
#[derive(Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    sources: Sources,
    /// How large the state may get [default: not known].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    state: Option<u64>,
    /// How many states by key the job has.
    #[arg(long, value_name = "N", default_value_t = NonZeroU32::MIN)]
    states: NonZeroU32,
    /// Seconds that a folder or store may take.
    #[arg(long, value_name = "SECONDS", default_value = "20")]
    limit: NonZeroU32,
    /// Print one JSON document; the units are in its keys.
    #[arg(long)]
    json: bool,
}

fn size(text: &str) -> Result<u64, String> {
    size_in_bytes(text).ok_or_else(|| "give a whole number and a unit (kb, mb, gb, tb), as in `20gb`".to_owned())
}

/// What was found.
#[derive(Debug, Serialize)]
struct Diagnosis {
    schema: &'static str,
    verdict: Verdict,
    errors: u64,
    warnings: u64,
    checks: Vec<Check>,
}

impl Doctor {
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        let resolved = self.sources.config().and_then(|config| Ok(config.resolve()?));
        let checks = match resolved {
            Ok(settings) => self.checks(&settings),
            Err(failure) if failure.exit == Exit::Usage => return Err(failure),
            Err(failure) => settings::refused(&failure),
        };
        let diagnosis = Diagnosis::of(checks);
        print_plain(&diagnosis, self.json, || diagnosis.text())?;
        Ok(if diagnosis.verdict == Verdict::Error { Exit::Failed } else { Exit::Ok })
    }

    fn checks(&self, settings: &Resolved) -> Vec<Check> {
        let job = JobSize::of(settings, self.states.get(), self.state);
        let mut checks = settings::check(settings);
        checks.extend(self.places(settings, &job));
        checks.push(open_files::check(&job));
        checks.push(memory::check(settings, &job));
        checks
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.limit.get().into())
    }

    /// All folders and stores that the settings name.
    fn places(&self, settings: &Resolved, job: &JobSize) -> Vec<Check> {
        let mut checks = Vec::new();
        let mut folders = Vec::new();
        match self.stores(settings) {
            Ok(stores) => {
                let named = [
                    (Role::Checkpoints, settings.checkpoint_dir.as_deref()),
                    (Role::Savepoints, settings.savepoint_dir.as_deref()),
                ];
                for (role, url) in named {
                    let Some(url) = url else { continue };
                    let (check, folder) = self.store(role, url, settings, &stores);
                    checks.push(check);
                    folders.extend(folder.map(|folder| (role, folder)));
                }
                checks.extend(settings.recovery.path.as_deref().map(|path| self.start(path, &stores)));
            }
            Err(error) => checks.push(of_options(Role::Checkpoints, &error)),
        }
        let checkpointing = &settings.checkpointing;
        if checkpointing.local_backup {
            for folder in checkpointing.local_backup_dirs.iter().map(PathBuf::from) {
                let store: Arc<dyn Store> = Arc::new(cutwater_storage::LocalFolder::new(&folder));
                // A copy that can't be written costs the copy, no more.
                checks.push(self.probe(Role::LocalCopies, store).but_a_warning());
                folders.push((Role::LocalCopies, folder));
            }
        }
        if job.rocksdb {
            let folder = settings.rocksdb.local_dir.as_ref().map_or_else(std::env::temp_dir, PathBuf::from);
            let (limit, tried) = (self.limit(), folder.clone());
            let tried = trial::within(limit, move || trial::try_folder(&tried));
            checks.push(trial::judge_folder(Role::RocksDb, &folder, tried, limit));
            folders.push((Role::RocksDb, folder));
        }
        checks.extend(self.disks(settings, job, &folders));
        checks
    }

    /// The stores of the settings, none of which keeps anybody waiting for longer than the limit.
    fn stores(&self, settings: &Resolved) -> Result<StoreResolver, OptionsError> {
        let mut settings = settings.clone();
        let stores = &mut settings.object_stores;
        stores.deadline = stores.deadline.min(self.limit());
        stores.request_timeout = stores.request_timeout.min(stores.deadline);
        StoreResolver::from_config(&settings)
    }

    /// What a job would find at the URL; and its folder, if it is one of this machine.
    fn store(&self, role: Role, url: &str, settings: &Resolved, stores: &StoreResolver) -> (Check, Option<PathBuf>) {
        let store = match stores.store_at(url) {
            Ok(store) => store,
            Err(error) => return (of_options(role, &error), None),
        };
        let folder = trial::local_folder(store.as_ref());
        // Only there the job may have any rights.
        let store = match &settings.name {
            Some(name) if role == Role::Checkpoints => job_folder(store, name),
            Some(_) | None => store,
        };
        (self.probe(role, store), folder)
    }

    /// Whether there is a checkpoint where the job is to start.
    fn start(&self, path: &str, stores: &StoreResolver) -> Check {
        const NAME: &str = "start";
        let (stores, url, limit) = (stores.clone(), path.to_owned(), self.limit() * 4);
        match trial::within(limit, move || stores.open_checkpoint(&url).map(|(checkpoint, _)| checkpoint)) {
            Some(Ok(found)) => {
                Check::ok(NAME, format!("{path} holds checkpoint {} of the job {}", found.checkpoint, found.job))
            }
            Some(Err(error)) => Check::of_job(NAME, error.code(), chain(&error)),
            None => trial::no_answer(NAME, path, limit),
        }
    }

    fn probe(&self, role: Role, store: Arc<dyn Store>) -> Check {
        // Three requests in a row may come to their deadlines, before the store is given up.
        let (url, limit) = (store.url(), self.limit());
        let longest = if trial::local_folder(store.as_ref()).is_some() { limit } else { limit * 4 };
        let probed = trial::within(longest, move || trial::timed(|| trial::probe(store.as_ref())));
        trial::judge_probe(role, &url, probed, longest)
    }

    /// Room and kind of the disks under the folders.
    fn disks(&self, settings: &Resolved, job: &JobSize, folders: &[(Role, PathBuf)]) -> Vec<Check> {
        let mut checks = Vec::new();
        let mut disks = Vec::new();
        for (role, folder) in folders {
            let (limit, path) = (self.limit(), folder.clone());
            match trial::within(limit, move || Disk::of(&path)) {
                Some(Ok(disk)) => disks.push((*role, folder, disk)),
                Some(Err(error)) => {
                    let found =
                        format!("{}: the system does not tell how much room there is: {error}", folder.display());
                    checks.push(Check::warning(
                        role.name(),
                        Trouble::NotChecked,
                        found,
                        "see whether the folder is right",
                    ));
                }
                None => checks.push(trial::no_answer(role.name(), &folder.display().to_string(), limit)),
            }
        }
        let needed = needed(settings, job, disks.iter().map(|(role, _, disk)| (*role, disk.device)));
        for (role, folder, disk) in disks {
            checks.push(disk::judge_room(role, folder, &disk, needed.get(&disk.device).copied()));
            checks.extend(disk::judge_kind(role, folder, disk.kind));
        }
        checks
    }
}

/// What the folders of each disk may need together, if the size of the state is known.
fn needed(settings: &Resolved, job: &JobSize, folders: impl Iterator<Item = (Role, u64)>) -> BTreeMap<u64, u64> {
    let mut needed = BTreeMap::new();
    let Some(state) = job.state_bytes else { return needed };
    for (role, device) in folders {
        let times = match role {
            // The retained ones, and one being written.
            Role::Checkpoints => u64::from(settings.checkpointing.num_retained.get()) + 1,
            Role::Savepoints => 1,
            // Of the newest checkpoint and of one being written; what is compacted is there twice for a while.
            Role::LocalCopies | Role::RocksDb => 2,
        };
        let several =
            if role == Role::LocalCopies { settings.checkpointing.local_backup_dirs.len().max(1) as u64 } else { 1 };
        let sum: &mut u64 = needed.entry(device).or_default();
        *sum = sum.saturating_add(state.saturating_mul(times) / several);
    }
    needed
}

/// A store that can't be asked. If that is for want of a feature of this program, nothing is known of the job's.
fn of_options(role: Role, error: &OptionsError) -> Check {
    let check = Check::of_job(role.name(), error.code(), chain(error));
    if matches!(error, OptionsError::Feature { .. } | OptionsError::Key { .. }) {
        let to_do = "not checked: build this command with the feature, as the program of the job must be";
        return Check { to_do: Some(to_do.to_owned()), ..check };
    }
    check
}

impl Diagnosis {
    fn of(checks: Vec<Check>) -> Self {
        let with = |verdict| checks.iter().filter(|check| check.verdict == verdict).count() as u64;
        let verdict = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
        let (errors, warnings) = (with(Verdict::Error), with(Verdict::Warning));
        Self { schema: "cutwater.doctor/1", verdict, errors, warnings, checks }
    }

    fn text(&self) -> String {
        let lines: String = self.checks.iter().map(Check::text).collect();
        let checks = count(self.checks.len() as u64, "check");
        let verdict = match self.verdict {
            Verdict::Ok => format!("all {checks} are well"),
            Verdict::Warning => format!("{} in {checks}", count(self.warnings, "warning")),
            Verdict::Error => {
                format!("{}, {} in {checks}", count(self.errors, "error"), count(self.warnings, "warning"))
            }
        };
        format!("{lines}\n{verdict}\n")
    }
}

#[cfg(test)]
mod tests {
    use cutwater_config::Config;

    use super::*;

    #[test]
    fn folders_on_one_disk_need_room_together() {
        let settings = Config::new()
            .flag("execution.checkpointing.num-retained", "3")
            .flag("execution.checkpointing.local-backup.enabled", "true")
            .flag("execution.checkpointing.local-backup.dirs", "/a,/b")
            .resolve()
            .unwrap();
        let job = JobSize { subtasks: 1, states: 1, state_bytes: Some(10), rocksdb: true };
        let all = [
            (Role::Checkpoints, 7),
            (Role::Savepoints, 8),
            (Role::LocalCopies, 7),
            (Role::LocalCopies, 8),
            (Role::RocksDb, 7),
        ];
        let expected = BTreeMap::from([(7, 40 + 10 + 20), (8, 10 + 10)]);
        assert_eq!(needed(&settings, &job, all.into_iter()), expected);
        let unknown = JobSize { state_bytes: None, ..job };
        assert_eq!(needed(&settings, &unknown, all.into_iter()), BTreeMap::new());
        let absurd = JobSize { state_bytes: Some(u64::MAX), ..job };
        assert_eq!(needed(&settings, &absurd, [(Role::Checkpoints, 7)].into_iter())[&7], u64::MAX);
    }

    #[test]
    fn the_worst_check_decides() {
        let (ok, warning, error) = (
            Check::ok("a", "b"),
            Check::warning("a", Trouble::Memory, "b", "c"),
            Check::error("a", Trouble::Memory, "b", "c"),
        );
        let cases = [
            (vec![ok.clone()], Verdict::Ok, "all 1 check are well"),
            (vec![ok.clone(), ok.clone()], Verdict::Ok, "all 2 checks are well"),
            (vec![ok.clone(), warning.clone()], Verdict::Warning, "1 warning in 2 checks"),
            (vec![error, ok, warning], Verdict::Error, "1 error, 1 warning in 3 checks"),
        ];
        for (checks, verdict, last) in cases {
            let diagnosis = Diagnosis::of(checks);
            assert_eq!(diagnosis.verdict, verdict);
            assert_eq!(diagnosis.text().lines().last(), Some(last));
        }
    }

    #[test]
    fn a_store_that_this_program_cant_ask_is_not_passed_over() {
        let error = OptionsError::Feature { url: "s3://b".to_owned(), scheme: "s3".to_owned(), feature: "s3" };
        let check = of_options(Role::Checkpoints, &error);
        assert_eq!((check.verdict, check.code), (Verdict::Error, Some("OPT0003")));
        assert!(check.to_do.is_some_and(|to_do| to_do.starts_with("not checked")));
        let error = OptionsError::Scheme { url: "ftp://b".to_owned(), scheme: "ftp".to_owned() };
        let check = of_options(Role::Checkpoints, &error);
        assert_eq!((check.code, check.to_do), (Some("OPT0001"), None));
    }
}
