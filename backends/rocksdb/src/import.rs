//! Makes a database of images of others.
//!
//! One image becomes the database as it is: its files are linked or copied into the folder, which is opened. What it has of
//! key groups that are not wanted is deleted: whole files at once, of others by a mark, which a compaction beside executes.
//!
//! Of several images each is opened beside, and its files are given to the new database, which takes files of several if no two
//! of a level overlap. So it takes those of an image only if all of them lie within the key groups of the subtask that it was
//! of: one that was cut out of another and not yet compacted may have files that reach further. Of such an image the entries
//! are read and written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cutwater_core::{KeyGroup, KeyGroupRange};
use cutwater_state::{ColdError, ColdView as _, ImageFile, ImageSource, group_prefix};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{ExportImportFilesMetaData, ImportColumnFamilyOptions, LiveFile, WriteBatch};

use crate::RocksBudget;
use crate::database::Database;
use crate::error::{failed, folder_failed};
use crate::steps::{Step, Steps};
use crate::view::RocksView;

/// So many files are read at once.
const AT_ONCE: usize = 4;
/// Bytes that are written at once of an image that can't be taken over.
const BATCH_BYTES: usize = 4 << 20;

/// A database of what the images have of the groups, and whether it goes on from the one that there is.
pub(crate) fn import(
    folder: &Path,
    budget: &RocksBudget,
    steps: &Steps,
    images: &[&dyn ImageSource],
    groups: KeyGroupRange,
) -> Result<(Database, Option<usize>), ColdError> {
    match images {
        [] => Ok((Database::open(folder, budget, steps)?, None)),
        [image] => {
            fetch(*image, folder, steps)?;
            let database = Database::open(folder, budget, steps)?;
            clip(&database, groups)?;
            Ok((database, Some(0)))
        }
        _ => Ok((together(folder, budget, steps, images, groups)?, None)),
    }
}

/// Puts all files of an image into the folder.
fn fetch(image: &dyn ImageSource, folder: &Path, steps: &Steps) -> Result<(), ColdError> {
    fs::create_dir_all(folder).map_err(|error| folder_failed(folder, &error))?;
    let files = image.files();
    let one = |at: usize, file: &ImageFile| {
        if !is_plain(&file.name) {
            return Err(ColdError {
                action: "take over an image".into(),
                reason: format!("{:?} is no name of a file: the checkpoint is damaged", file.name).into(),
            });
        }
        let path = folder.join(&file.name);
        steps.before(Step::Fetch, &path)?;
        let make = &mut || Ok(Box::new(File::create(&path)?) as Box<dyn io::Write>);
        if file.lasting { image.put(at, &path, make) } else { image.read(at, make) }
    };
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((at, file)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            files.get(at).map(|file| (at, file))
        } {
            if let Err(error) = one(at, file) {
                next.store(files.len(), Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    std::thread::scope(|threads| {
        let running: Vec<_> = (1..AT_ONCE.min(files.len())).map(|_| threads.spawn(work)).collect();
        let own = work();
        let died = || ColdError { action: "take over an image".into(), reason: "a thread of it died".into() };
        let ended = running.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(died())));
        ended.fold(own, Result::and)
    })
}

/// Whether it names a file of a folder, and nothing elsewhere.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

/// Deletes what is outside of the groups.
fn clip(database: &Database, groups: KeyGroupRange) -> Result<(), ColdError> {
    let cant = |error| failed(format!("leave out what is not of {groups}"), &error);
    let files = database.db.live_files().map_err(cant)?;
    let outside = outside(groups);
    for (name, family) in database.named_families() {
        for (from, to) in &outside {
            let reaches = |file: &&LiveFile| file.column_family_name == name && overlaps(file, from, to.as_deref());
            if !files.iter().any(|file| reaches(&file)) {
                continue;
            }
            let to = to.as_deref().unwrap_or(BEHIND);
            database.steps.before(Step::Clip, &database.folder)?;
            database.db.delete_file_in_range_cf(&family, &from[..], to).map_err(cant)?;
            database.db.delete_range_cf_opt(&family, &from[..], to, &database.without_wal).map_err(cant)?;
            database.is_cut.store(true, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Behind the names of all groups: there are at most 32,768.
const BEHIND: &[u8] = &[0xff; 4];

/// Where names lie that are not of the groups: from, and up to which if there is an end.
pub(crate) fn outside(groups: KeyGroupRange) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let below = (groups.first.0 > 0).then(|| (Vec::new(), Some(group_prefix(groups.first).to_vec())));
    let above = groups.last.0.checked_add(1).map(|next| (group_prefix(KeyGroup(next)).to_vec(), None));
    below.into_iter().chain(above).collect()
}

/// Whether a file may have names from `from` up to `to`. One that says nothing may.
fn overlaps(file: &LiveFile, from: &[u8], to: Option<&[u8]>) -> bool {
    let ends_before = file.end_key.as_deref().is_some_and(|end| end < from);
    let begins_behind = file.start_key.as_deref().zip(to).is_some_and(|(start, to)| start >= to);
    !ends_before && !begins_behind
}

/// An image that was opened beside.
struct Part {
    database: Arc<Database>,
    groups: KeyGroupRange,
}

fn together(
    folder: &Path,
    budget: &RocksBudget,
    steps: &Steps,
    images: &[&dyn ImageSource],
    groups: KeyGroupRange,
) -> Result<Database, ColdError> {
    let database = Database::open(folder, budget, steps)?;
    let mut parts = Vec::new();
    let beside = |at: usize| folder.join(format!("import-{at}"));
    for (at, image) in images.iter().enumerate() {
        fetch(*image, &beside(at), steps)?;
        parts.push(Part { database: Arc::new(Database::open(&beside(at), budget, steps)?), groups: image.groups() });
    }
    let mut families: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, part) in parts.iter().enumerate() {
        for (name, _) in part.database.named_families() {
            families.entry(name).or_default().push(at);
        }
    }
    for (name, sources) in families {
        let files: Vec<_> = sources
            .iter()
            .map(|at| parts[*at].database.db.live_files().map_err(|error| failed("list the files of an image", &error)))
            .collect::<Result<_, _>>()?;
        let is_whole = |(at, files): (&usize, &Vec<LiveFile>)| {
            let part = &parts[*at];
            let outside = outside(part.groups);
            let own = || files.iter().filter(|file| file.column_family_name == name);
            !own().any(|file| outside.iter().any(|(from, to)| overlaps(file, from, to.as_deref())))
        };
        let (taken, read): (Vec<_>, Vec<_>) = sources.iter().zip(&files).partition(|source| is_whole(*source));
        let taken: Vec<&Part> = taken.into_iter().map(|(at, _)| &parts[*at]).collect();
        take_over(&database, &name, &taken, folder)?;
        for (at, _) in read {
            copy_entries(&database, &name, &parts[*at], groups)?;
        }
    }
    drop(parts);
    for at in 0..images.len() {
        drop(fs::remove_dir_all(beside(at))); // what can't be removed goes with the folder above
    }
    clip(&database, groups)?;
    Ok(database)
}

/// Makes a column family of the files of the same one in others, which are linked.
fn take_over(database: &Database, name: &str, parts: &[&Part], folder: &Path) -> Result<(), ColdError> {
    let cant = |error| failed(format!("take over the column family {name}"), &error);
    database.steps.before(Step::TakeOver, folder)?;
    let mut all = Vec::new();
    let mut folders = BTreeSet::new();
    for (at, part) in parts.iter().enumerate() {
        let Some(family) = part.database.db.cf_handle(name) else { continue };
        let checkpoint = Checkpoint::new(&part.database.db).map_err(cant)?;
        let exported = folder.join(format!("export-{at}"));
        let files = checkpoint.export_column_family(&family, &exported).map_err(cant)?;
        all.extend(files.get_files());
        folders.insert(exported);
    }
    let made = if all.is_empty() {
        database.db.create_cf(name, &database.family_options(name)).map_err(cant)
    } else {
        let mut files = ExportImportFilesMetaData::default();
        files.set_db_comparator_name("leveldb.BytewiseComparator");
        files.set_files(&all).map_err(cant)?;
        let mut options = ImportColumnFamilyOptions::new();
        options.set_move_files(true);
        let made = database.db.create_column_family_with_import(&database.family_options(name), name, &options, &files);
        made.map_err(cant)
    };
    for folder in folders {
        drop(fs::remove_dir_all(folder)); // as above
    }
    made
}

/// Reads what an image has of the groups, and writes it.
fn copy_entries(database: &Database, name: &str, part: &Part, groups: KeyGroupRange) -> Result<(), ColdError> {
    let (first, last) = (part.groups.first.max(groups.first), part.groups.last.min(groups.last));
    if first > last {
        return Ok(());
    }
    let cant = |error| failed(format!("copy entries of the column family {name}"), &error);
    database.steps.before(Step::Copy, &database.folder)?;
    let Some(family) = database.db.cf_handle(name) else { return Ok(()) };
    let state = part.database.numbered(name);
    let view = RocksView::new(Arc::clone(&part.database));
    let (mut batch, mut wrote) = (WriteBatch::default(), Ok(()));
    view.scan(state, KeyGroupRange { first, last }, &mut |entry, value| {
        batch.put_cf(&family, entry, value);
        if batch.size_in_bytes() >= BATCH_BYTES {
            wrote = database.db.write_opt(&batch, &database.without_wal);
            batch.clear();
        }
        if wrote.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    wrote.and_then(|()| database.db.write_opt(&batch, &database.without_wal)).map_err(cant)
}

#[cfg(test)]
mod tests;
