//! The example runs to its end; it checks its own output.

#[path = "../examples/plain_threads.rs"]
mod plain_threads;

#[test]
fn every_count_is_published_exactly_once_across_a_crash() {
    plain_threads::main();
}
