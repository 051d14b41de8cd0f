use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The folders of processes in the folder where all have their databases of RocksDB, sorted.
///
/// # Panics
///
/// If a name is not UTF-8.
#[must_use]
pub fn database_homes(below: &Path) -> Vec<PathBuf> {
    let mut homes = entries(below);
    homes.retain(|home| name(home).starts_with("cutwater-rocksdb-"));
    homes.sort();
    homes
}

/// The files with the entries of all databases there that belong to the attempt with this number, as far as they stay for so
/// long as it takes to look.
#[must_use]
pub fn database_files(below: &Path, attempt: u32) -> Vec<PathBuf> {
    // `job-epoch-attempt-task-subtask`
    let of_attempt = |folder: &PathBuf| name(folder).rsplit('-').nth(2) == Some(&attempt.to_string());
    let folders = database_homes(below).into_iter().flat_map(|home| entries(&home)).filter(of_attempt);
    let files = folders.flat_map(|folder| entries(&folder));
    files.filter(|file| file.extension().is_some_and(|extension| extension == "sst")).collect()
}

/// Changes a bit in the first block of such a file, as a bad disk does, while others have it open; false if it is still being
/// written, or gone.
#[must_use]
pub fn damage(file: &Path) -> bool {
    const AT: u64 = 20;
    let Ok(file) = OpenOptions::new().read(true).write(true).open(file) else { return false };
    let mut byte = [0];
    let written = file.metadata().is_ok_and(|metadata| metadata.len() >= 200);
    if !written || file.read_exact_at(&mut byte, AT).is_err() {
        return false;
    }
    file.write_all_at(&[byte[0] ^ 0x10], AT).is_ok()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("our names are UTF-8")
}
