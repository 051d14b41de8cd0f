//! How fast the store writes a large object, beside a plain write and sync of the same bytes on the same disk.
//!
//! `write_bench [MEGABYTES [FOLDER]]`: five pairs in turn, then the medians. The store also computes the checksum.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock and waits")]

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use cutwater_storage::{LocalFolder, ObjectName, Store};

const PIECE: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let megabytes: usize = arguments.next().map_or(Ok(1024), |number| number.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from).join("cutwater-write-bench");
    fs::create_dir_all(&folder)?;
    let piece = noise();

    let (mut store, mut raw) = (Vec::new(), Vec::new());
    for pair in 0..5 {
        // Which one goes first alternates, for the disk may remember.
        for turn in 0..2 {
            if (pair + turn) % 2 == 0 {
                store.push(rate(&folder, megabytes, || through_store(&folder, &piece, megabytes))?);
            } else {
                raw.push(rate(&folder, megabytes, || plain(&folder, &piece, megabytes))?);
            }
        }
        println!("pair {}: store {:.0} MB/s, raw {:.0} MB/s", pair + 1, store[pair], raw[pair]);
    }
    fs::remove_dir_all(&folder)?;
    let (store, raw) = (median(store), median(raw));
    println!("median: store {store:.0} MB/s, raw write and fsync {raw:.0} MB/s, {:.0} %", 100.0 * store / raw);
    Ok(())
}

fn through_store(folder: &Path, piece: &[u8], megabytes: usize) -> Result<(), Box<dyn Error>> {
    let store = LocalFolder::new(folder);
    let name = ObjectName::parse("object")?;
    let mut writer = store.writer(&name)?;
    for _ in 0..megabytes {
        writer.write(piece)?;
    }
    writer.finish()?;
    Ok(())
}

fn plain(folder: &Path, piece: &[u8], megabytes: usize) -> Result<(), Box<dyn Error>> {
    let mut file = File::create_new(folder.join("object"))?;
    for _ in 0..megabytes {
        file.write_all(piece)?;
    }
    file.sync_all()?;
    Ok(())
}

/// MB/s of one run. The file is deleted afterwards, untimed, and the disk gets time to digest that: without it every
/// second run is slow, whichever it is.
fn rate(
    folder: &Path,
    megabytes: usize,
    run: impl FnOnce() -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    run()?;
    let seconds = start.elapsed().as_secs_f64();
    fs::remove_file(folder.join("object"))?;
    File::open(folder)?.sync_all()?;
    thread::sleep(Duration::from_secs(2));
    Ok((megabytes * PIECE) as f64 / 1e6 / seconds)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Bytes that no disk compresses (splitmix64).
fn noise() -> Vec<u8> {
    let mut state = 1u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    });
    words.take(PIECE / 8).flat_map(u64::to_le_bytes).collect()
}
