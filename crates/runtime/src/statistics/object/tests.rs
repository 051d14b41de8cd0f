use std::time::Duration;

use cutwater_core::{Attempt, CheckpointId, SubtaskId, TaskId};
use cutwater_storage::MemoryStore;
use proptest::prelude::*;

use super::*;
use crate::statistics::{CheckpointKind, CheckpointStatus, SubtaskStatistics};

fn checkpoint(id: u64, status: CheckpointStatus, subtasks: u32) -> CheckpointStatistics {
    let subtask = |index| SubtaskStatistics {
        subtask: SubtaskId { task: TaskId(1), index },
        task: "counts \"with\" \\ and ä".to_owned(),
        start_delay: Duration::from_nanos(1),
        alignment: Duration::from_micros(2),
        sync: Duration::from_millis(3),
        asynchronous: Duration::from_secs(4),
        written_bytes: 5,
        full_bytes: 6,
        files: 1,
    };
    CheckpointStatistics {
        checkpoint: CheckpointId(id),
        epoch: Epoch(2),
        attempt: Attempt(3),
        kind: CheckpointKind::Savepoint,
        status,
        failure: (status == CheckpointStatus::Failed).then(|| "the disk\nis full".to_owned()),
        triggered_at_unix_ms: 1_774_789_445_678,
        duration: Duration::from_millis(12),
        written_bytes: 0,
        full_bytes: 0,
        metadata_bytes: Some(77),
        files: 0,
        total_subtasks: subtasks + 1,
        subtasks: Vec::new(),
    }
    .with_subtasks((0..subtasks).map(subtask).collect())
}

fn history() -> CheckpointHistory {
    let mut history = CheckpointHistory::new(10);
    history.add(checkpoint(1, CheckpointStatus::Completed, 2));
    history.add(checkpoint(2, CheckpointStatus::Failed, 1));
    history.add_restored();
    history
}

fn put(store: &MemoryStore, name: &str, bytes: &[u8]) {
    store.create(&ObjectName::parse(name).unwrap(), bytes).unwrap();
}

#[test]
fn what_was_written_is_read_back_and_goes_on() {
    let (store, mut history) = (MemoryStore::new(), history());
    assert_eq!(read_statistics(&store).unwrap(), None);
    put(&store, &statistics_name(Epoch(2), 9), &encode("daily", 5, &CheckpointHistory::new(1)));
    put(&store, &statistics_name(Epoch(2), 10), &encode("daily", 7, &history));
    put(&store, "statistics/notes.json", b"whatever");
    put(&store, "chk/99999999999999999999-99999999999999999999.json", b"whatever");
    let read = read_statistics(&store).unwrap().unwrap();
    assert_eq!((read.job.as_str(), read.written_at_unix_ms), ("daily", 7));
    assert!(read.history.checkpoints().eq(history.checkpoints()));
    assert_eq!(read.history.counts(), history.counts());

    let mut next = CheckpointHistory::new(3);
    next.add(checkpoint(3, CheckpointStatus::Completed, 1));
    next.continue_from(read.clone());
    history.add(checkpoint(3, CheckpointStatus::Completed, 1));
    assert!(next.checkpoints().eq(history.checkpoints()), "older ones come behind");
    assert_eq!(next.counts(), history.counts());
    next.continue_from(read);
    assert_eq!(next.checkpoints().len(), 3, "no more than are kept");
}

#[test]
fn each_changed_missing_or_added_byte_is_found() {
    let bytes = encode("daily", 7, &history());
    let text = std::str::from_utf8(&bytes).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
    let name = statistics_name(Epoch(1), 1);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let error = decode(&name, &damaged).expect_err(&format!("byte {at}"));
        // A digit of the version is the one byte that can mean something else.
        assert!(matches!(error.code(), "STA0001" | "STA0002") && error.to_string().contains(&name), "{at}: {error}");
        assert!(decode(&name, &bytes[..at]).is_err(), "cut at {at}");
    }
    assert!(decode(&name, &[&bytes[..], b"\n"].concat()).is_err());
}

#[test]
fn hostile_statistics_are_refused_with_a_reason() {
    let sealed = |body: &str| [head(crc32c::crc32c(body.as_bytes())).as_bytes(), body.as_bytes(), b"}\n"].concat();
    let deep = "[".repeat(100_000);
    let cases = [
        ("no JSON", b"\0\x01\x02".to_vec(), "no JSON"),
        ("nothing", Vec::new(), "no JSON"),
        ("JSON of somebody else", b"{\"schema\":\"else/1\"}".to_vec(), "none of ours"),
        ("a version that can't be", b"{\"schema\":\"cutwater.statistics/0\"}".to_vec(), "none of ours"),
        ("a newer version", b"{\"schema\":\"cutwater.statistics/2\",\"x\":1}".to_vec(), "format version 2"),
        ("nothing but a schema", b"{\"schema\":\"cutwater.statistics/1\"}".to_vec(), "does not begin"),
        ("lists without end", sealed(&deep), "no JSON"),
        ("a body that is none", sealed("{\"job\":3}"), "invalid type"),
        (
            "a number below zero",
            sealed(
                "{\"job\":\"a\",\"written_at_unix_ms\":-1,\"restored\":0,\"completed\":0,\"failed\":0,\"checkpoints\":[]}",
            ),
            "invalid value",
        ),
    ];
    for (case, bytes, expected) in cases {
        let store = MemoryStore::new();
        put(&store, &statistics_name(Epoch(1), 1), &bytes);
        let error = read_statistics(&store).expect_err(case);
        assert!(error.to_string().contains(expected), "{case}: {error}");
        let code = if case == "a newer version" { "STA0002" } else { "STA0001" };
        assert_eq!(error.code(), code, "{case}");
    }
    let store = MemoryStore::new();
    put(&store, &statistics_name(Epoch(1), 1), &vec![b' '; (MAX_BYTES + 1) as usize]);
    assert_eq!(read_statistics(&store).expect_err("too long").code(), "STA0001");
}

#[test]
fn a_history_that_is_too_long_loses_its_oldest() {
    let mut history = CheckpointHistory::new(1000);
    for id in 0..1000 {
        history.add(checkpoint(id, CheckpointStatus::Completed, 150));
    }
    let bytes = encode("daily", 7, &history);
    assert!(bytes.len() as u64 <= MAX_BYTES, "{} bytes", bytes.len());
    let read = decode("it", &bytes).unwrap();
    assert_eq!(read.history.counts().completed, 1000);
    let kept = read.history.checkpoints().len();
    assert!((100..1000).contains(&kept), "{kept}");
    assert!(read.history.checkpoints().eq(history.checkpoints().take(kept)), "the newest");
}

#[test]
fn only_the_exact_names_are_statistics() {
    let name = statistics_name(Epoch(7), 3);
    assert_eq!(name, "statistics/00000000000000000007-00000000000000000003.json");
    assert_eq!(position_of(&name), Some((Epoch(7), 3)));
    for other in ["statistics/7-3.json", "statistics/x", "7-3", "statistics/00000000000000000007-00000000000000000003"]
    {
        assert!(!is_statistics_name(other), "{other}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), keep in 0usize..120) {
        let whole = encode("daily", 7, &history());
        drop(decode("it", &bytes));
        drop(decode("it", &[&whole[..keep], &bytes[..]].concat()));
    }

    #[test]
    fn later_numbers_have_later_names(a in any::<(u64, u64)>(), b in any::<(u64, u64)>()) {
        let name = |(epoch, number)| statistics_name(Epoch(epoch), number);
        prop_assert_eq!(a.cmp(&b), name(a).cmp(&name(b)));
    }
}
