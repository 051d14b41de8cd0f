use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[test]
fn it_is_done_once_however_many_ask() {
    let done = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&done);
    let finish = OnceFinish::new(Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }));
    drop(finish.again()); // a snapshot that was given up before it got there
    assert_eq!(done.load(Ordering::Relaxed), 0);
    for again in [finish.again(), finish.again()] {
        again().unwrap();
    }
    assert_eq!(done.load(Ordering::Relaxed), 1);
}

#[test]
fn a_failure_is_told_to_each_that_asks() {
    let finish = OnceFinish::new(Box::new(|| Err("the disk is full".into())));
    for again in [finish.again(), finish.again()] {
        assert_eq!(again().unwrap_err().to_string(), "the disk is full");
    }
}

#[test]
fn a_panic_counts_as_a_failure() {
    let finish = OnceFinish::new(Box::new(|| panic!("a bug in a sink")));
    let first = finish.again();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(first)).is_err());
    assert_eq!(finish.again()().unwrap_err().to_string(), "it panicked");
}
