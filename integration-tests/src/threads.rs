use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Does the work of each index below `count`, in so many threads: most of what tests with processes do is waiting.
///
/// # Panics
///
/// If one of them does, once all others have ended.
pub fn side_by_side(threads: usize, count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    work(index);
                }
            });
        }
    });
}
