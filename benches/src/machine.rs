//! What the operating system says of the machine and of this process. Linux; elsewhere the figures are zero.

use std::fs;
use std::time::Duration;

use serde::Serialize;

/// On what the figures were measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) cpu: String,
    pub(crate) memory_bytes: u64,
    /// The allocator of this program.
    pub(crate) allocator: &'static str,
    /// Runnable threads in the last minute, when the run began: above 0 others take their part of the cores.
    pub(crate) load: f64,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let meminfo = read("/proc/meminfo");
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
        let loadavg = read("/proc/loadavg");
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            memory_bytes: total.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024,
            allocator: if cfg!(feature = "mimalloc") { "mimalloc" } else { "system" },
            load: loadavg.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The CPU time of all threads of this process so far, in steps of 10 ms (a hundredth of a second is Linux's unit here
/// whatever its own tick is).
pub(crate) fn cpu_time() -> Duration {
    let stat = read("/proc/self/stat");
    // The name of the program, in parentheses, may hold spaces. After it, user and system time are the 12th and 13th.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// How often threads of this process have lost their core to others so far.
pub(crate) fn preemptions() -> u64 {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return 0 };
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:").map(str::trim));
        line.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
    };
    threads.flatten().map(|thread| count(read(&thread.path().join("status").to_string_lossy()))).sum()
}

/// Empties the page cache, so that files are read from the disk. `false` if that is not permitted.
pub(crate) fn drop_page_cache() -> bool {
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// Touches so much memory and gives it back, so that what is measured next need not wait for it: the host of a virtual
/// machine may take as long to give a page at its first touch as a restore takes to fill it, and takes back what is free
/// after some seconds.
pub(crate) fn touch_memory(bytes: u64) {
    const PIECE: usize = 64 << 20;
    let pieces: Vec<Vec<u8>> = (0..bytes.div_ceil(PIECE as u64)).map(|_| vec![1; PIECE]).collect();
    std::hint::black_box(&pieces);
}

/// How many files, sockets and the like this process has open.
pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1)) // not the folder itself
}

/// Memory in use, the most that was, both in bytes, and threads of this process.
#[derive(Clone, Copy, Default)]
pub(crate) struct Footprint {
    pub(crate) resident_bytes: u64,
    pub(crate) peak_bytes: u64,
    pub(crate) threads: u64,
}

pub(crate) fn footprint() -> Footprint {
    let status = read("/proc/self/status");
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    Footprint { resident_bytes: number("VmRSS") * 1024, peak_bytes: number("VmHWM") * 1024, threads: number("Threads") }
}
