use std::time::Duration;

use cutwater_core::{Attempt, OperatorUid, SubtaskId, TaskId};
use proptest::prelude::*;

use super::*;
use crate::{FileRef, Last, Phases, SubtaskSnapshot, TaskSnapshot};

const JOB: &str = "daily";
const NAME: &str = "log/00000000000000000007";

fn completed() -> Record {
    let subtask = SubtaskId { task: TaskId(0), index: 1 };
    let phases = Phases { sync: Duration::from_nanos(1500), ..Phases::default() };
    let files = vec![FileRef::stored("chk/3-5/0-1".to_owned(), 1 << 40, 0xdead_beef)];
    let snapshot = SubtaskSnapshot { subtask, files, inline: vec![1, 2, 3, 255], phases, state_bytes: 300 };
    let checkpoint = CompletedCheckpoint {
        epoch: Epoch(3),
        attempt: Attempt(2),
        checkpoint: CheckpointId(5),
        slot: 7,
        job: JOB.to_owned(),
        max_parallelism: MaxParallelism::default(),
        completed_at_unix_ms: 1_700_000_000_123,
        duration: Duration::from_millis(42),
        last: Last::No,
        origin: Some(Origin { job: "old".to_owned(), epoch: Epoch(9), checkpoint: CheckpointId(4) }),
        tasks: vec![TaskSnapshot {
            task: TaskId(0),
            name: "source".to_owned(),
            operators: vec![OperatorUid::new("lines").unwrap()],
            parallelism: 2,
            subtasks: vec![snapshot],
            finished: vec![0],
        }],
    };
    let completed = Completed { checkpoint, retained: vec![3, 5], subsumed: vec![1, 2], swept_below: 0 };
    record(Body::Completed(Box::new(completed)))
}

/// The same with a second and a third file, which the record holds.
fn holding() -> Record {
    let mut record = completed();
    let files = [FileRef::held("chk/3-5/0-1-b".to_owned(), b"small".to_vec()), FileRef::held("c".to_owned(), vec![])];
    completed_of(&mut record).checkpoint.tasks[0].subtasks[0].files.extend(files);
    record
}

fn completed_of(record: &mut Record) -> &mut Completed {
    let Body::Completed(completed) = &mut record.body else { panic!("a checkpoint") };
    completed
}

fn record(body: Body) -> Record {
    let nonce = Nonce { process: 77, counter: 8 };
    Record { slot: 7, epoch: Epoch(3), nonce, job: JOB.to_owned(), newest: Some(5), body }
}

fn claim() -> Record {
    record(Body::Claim(Claim {
        max_parallelism: MaxParallelism::default(),
        restored: Some(CheckpointId(5)),
        origin: None,
    }))
}

/// One with files of the backend's own, of which it holds one or none.
fn native() -> Record {
    let mut record = completed();
    let files = &mut completed_of(&mut record).checkpoint.tasks[0].subtasks[0].files;
    files.push(FileRef::held("chk/0000000001-0000000009-0002-00000-000003-000000.native".to_owned(), vec![7]));
    files.push(FileRef::stored("chk/0000000001-0000000008-0002-00000-000003-000001.native".to_owned(), 8, 9));
    record
}

fn native_without_contents() -> Record {
    let mut record = native();
    completed_of(&mut record).checkpoint.files_mut().for_each(|file| file.content = None);
    record
}

fn read(bytes: &[u8]) -> Result<Record, OpenError> {
    Record::decode(NAME, bytes, 7, JOB)
}

fn is_corrupt(result: &Result<Record, OpenError>) -> bool {
    matches!(result, Err(OpenError::Corrupt { name, .. }) if name == NAME)
}

#[test]
fn records_read_back_as_written() {
    let failed = record(Body::Ended(Outcome::Failed("disk".to_owned())));
    let stopped = record(Body::Ended(Outcome::Stopped { savepoint: Some("file:///s".to_owned()), drained: true }));
    let discarded = record(Body::Discarded(Outcome::Canceled));
    let finished = record(Body::Ended(Outcome::Finished));
    let checkpoints = [completed(), holding(), native(), native_without_contents()];
    for record in checkpoints.into_iter().chain([claim(), failed, stopped, discarded, finished]) {
        assert_eq!(read(&record.encode()), Ok(record));
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    for bytes in [completed().encode(), holding().encode(), native().encode(), claim().encode()] {
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[index] ^= 1 << bit;
                assert!(is_corrupt(&read(&damaged)), "byte {index}, bit {bit}");
            }
        }
    }
}

#[test]
fn every_truncation_and_every_addition_is_noticed() {
    for bytes in [completed().encode(), holding().encode()] {
        for length in 0..bytes.len() {
            assert!(is_corrupt(&read(&bytes[..length])), "{length} bytes");
            if length >= HEADER {
                let mut sealed = bytes[..length].to_vec();
                seal(&mut sealed);
                assert!(is_corrupt(&read(&sealed)), "{length} bytes under a good checksum");
            }
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert!(is_corrupt(&read(&longer)));
        let mut sealed = longer;
        seal(&mut sealed);
        assert!(is_corrupt(&read(&sealed)), "a body that goes on after its end");
    }
}

/// What older programs read is written as they read it.
#[test]
fn only_a_record_that_needs_it_is_of_a_later_version() {
    for (record, version) in [(completed(), 1), (claim(), 1), (holding(), 2), (native(), 3)] {
        assert_eq!(record.encode()[8..10], [version, 0]);
    }
    let files: Vec<_> = completed_of(&mut holding()).checkpoint.files().cloned().collect();
    let stored: Vec<_> = completed_of(&mut holding()).checkpoint.stored_files().cloned().collect();
    assert_eq!((files.len(), stored.as_slice()), (3, &files[..1]));
}

/// What a hostile or confused writer may store under a good checksum.
#[test]
fn a_good_checksum_is_not_trusted() {
    let damage = |change: fn(&mut Completed)| {
        let mut record = completed();
        let Body::Completed(completed) = &mut record.body else { panic!("a checkpoint") };
        change(completed);
        record
    };
    let hold = |change: fn(&mut FileRef)| {
        let mut record = holding();
        change(&mut completed_of(&mut record).checkpoint.tasks[0].subtasks[0].files[1]);
        record
    };
    let rename = |name: &str| {
        let mut record = completed();
        let Body::Completed(completed) = &mut record.body else { panic!("a checkpoint") };
        completed.checkpoint.tasks[0].subtasks[0].files[0].name = name.to_owned();
        record
    };
    let cases = [
        ("a slot that is another", Record { slot: 8, ..claim() }),
        ("epoch 0", Record { epoch: Epoch(0), ..claim() }),
        ("an epoch after which none fits", Record { epoch: Epoch(u64::MAX), ..claim() }),
        ("a newest checkpoint in the future", Record { newest: Some(7), ..claim() }),
        ("a checkpoint of another slot", damage(|completed| completed.checkpoint.slot = 6)),
        ("a checkpoint of another job", damage(|completed| completed.checkpoint.job = "x".to_owned())),
        ("a checkpoint after which none fits", damage(|completed| completed.checkpoint.checkpoint.0 = u64::MAX)),
        ("retained slots out of order", damage(|completed| completed.retained = vec![5, 3])),
        ("a retained slot in the future", damage(|completed| completed.retained = vec![7])),
        ("a subsumed slot in the future", damage(|completed| completed.subsumed = vec![u64::MAX])),
        ("swept in the future", damage(|completed| completed.swept_below = 8)),
        ("more subsumed slots than allowed", {
            let mut record = completed();
            record.slot = 5000;
            let Body::Completed(completed) = &mut record.body else { panic!("a checkpoint") };
            completed.checkpoint.slot = 5000;
            completed.subsumed = (0..4097).collect();
            record
        }),
        ("a small file that is another", hold(|file| file.crc32c ^= 1)),
        ("a small file that is longer", hold(|file| file.bytes += 1)),
        ("a file above the folder", rename("../x")),
        ("a file above the folder, hidden", rename("chk/../../x")),
        ("a file by an absolute name", rename("/etc/passwd")),
        ("a file without a name", rename("")),
        ("a name that goes on too long", rename(&"x".repeat(1025))),
        ("a name with a gap", rename("chk//x")),
        ("a name for another system", rename("chk\\..\\x")),
        ("a file that is a slot of the log", rename("log/00000000000000000001")),
        ("a file that is a boundary", rename("Boundary/00000000000000000001")),
        ("a name with a line feed", rename("chk/a\nb")),
    ];
    for (name, record) in cases {
        let slot = if record.slot == 5000 { 5000 } else { 7 };
        let result = Record::decode(NAME, &record.encode(), slot, JOB);
        assert!(is_corrupt(&result), "{name}: {result:?}");
    }
}

#[test]
fn newer_formats_and_other_jobs_are_told_from_damage() {
    let mut newer = claim().encode();
    newer[8] = 4;
    seal(&mut newer);
    assert_eq!(read(&newer), Err(OpenError::NewerFormat { name: NAME.to_owned(), found: 4, known: 3 }));
    let other = Record { job: "hourly".to_owned(), ..claim() };
    assert!(matches!(read(&other.encode()), Err(OpenError::AnotherJob { found, .. }) if found == "hourly"));
}

#[test]
fn a_boundary_is_not_a_slot_nor_a_slot_a_boundary() {
    let nonce = Nonce { process: 1, counter: 2 };
    let boundary = Boundary { k: 7, epoch: Epoch(3), nonce, job: JOB.to_owned() };
    assert_eq!(Boundary::decode(NAME, &boundary.encode(), 7, JOB), Ok(boundary.clone()));
    assert!(matches!(Boundary::decode(NAME, &boundary.encode(), 8, JOB), Err(OpenError::Corrupt { .. })));
    assert!(is_corrupt(&read(&boundary.encode())));
    assert!(matches!(Boundary::decode(NAME, &claim().encode(), 7, JOB), Err(OpenError::Corrupt { .. })));
}

/// A list that claims to have 2^60 elements must fail without anything being reserved for them.
#[test]
fn a_huge_declared_length_allocates_nothing() {
    let mut record = completed();
    if let Body::Completed(completed) = &mut record.body {
        (completed.retained, completed.subsumed, completed.swept_below) = (vec![], vec![], 0);
    }
    let bytes = record.encode();
    // The three last bytes of the body: no retained, no subsumed slots, swept below 0.
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
    for (name, lists) in
        [("retained", [huge.as_slice(), &[0, 0]].concat()), ("subsumed", [&[0], huge.as_slice(), &[0]].concat())]
    {
        let mut hostile = [&bytes[..bytes.len() - 3], &lists].concat();
        seal(&mut hostile);
        assert!(is_corrupt(&read(&hostile)), "{name}");
    }
    // The same for each byte of the body in turn, wherever it is a length.
    for index in HEADER..bytes.len() {
        let mut hostile = [&bytes[..index], &huge, &bytes[index + 1..]].concat();
        seal(&mut hostile);
        drop(read(&hostile));
    }
}

/// Format version 1 as it is on disks: never to change.
#[test]
fn version_1_is_frozen() {
    let hex: String = claim().encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "435554574c4f470a01000112000000000000006b2b7ec207034d08056461696c790105008001010500");
    let sum = crc32c::crc32c(&completed().encode());
    assert_eq!((completed().encode().len(), sum), (131, 2_839_448_845));
}

#[test]
fn version_2_is_frozen() {
    let sum = crc32c::crc32c(&holding().encode());
    assert_eq!((holding().encode().len(), sum), (165, 292_997_209));
}

#[test]
fn version_3_is_frozen() {
    let sum = crc32c::crc32c(&native().encode());
    assert_eq!((native().encode().len(), sum), (259, 3_818_551_582));
}

/// Files that there are not, twice, or in a record that has none.
#[test]
fn contents_of_no_file_are_refused() {
    let of = |record: &Record, files: &[u32]| {
        let mut record = record.clone();
        let held = files.iter().map(|file| Held { file: *file, content: b"small".to_vec() }).collect();
        if let Body::Completed(completed) = &mut record.body {
            completed.checkpoint.files_mut().for_each(|file| file.content = None);
        }
        let mut bytes = append(&Contents { held }, record.encode());
        bytes[8] = 2;
        seal(&mut bytes);
        read(&bytes)
    };
    assert_eq!(of(&claim(), &[]), Ok(claim()));
    assert!(of(&holding(), &[1]).is_ok());
    for (record, files) in [(holding(), [1, 1].as_slice()), (holding(), &[0]), (holding(), &[3]), (claim(), &[0])] {
        assert!(is_corrupt(&of(&record, files)), "{files:?} of {record:?}");
    }
}

/// The ends that programs wrote before checkpoints could go with them.
#[test]
fn an_end_written_by_an_older_program_is_read() {
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let cases = [
        (Outcome::Finished, "435554574c4f470a0100030e00000000000000ee7afee407034d08056461696c7901050200"),
        (Outcome::Canceled, "435554574c4f470a0100030e00000000000000edf9951607034d08056461696c7901050201"),
        (
            Outcome::Failed("disk".to_owned()),
            "435554574c4f470a0100031300000000000000f10d645307034d08056461696c7901050202046469736b",
        ),
        (
            Outcome::Stopped { savepoint: Some("s".to_owned()), drained: false },
            "435554574c4f470a0100031200000000000000f54e885507034d08056461696c790105020301017300",
        ),
    ];
    for (outcome, hex) in cases {
        assert_eq!(read(&bytes(hex)), Ok(record(Body::Ended(outcome))), "{hex}");
    }
}

proptest! {
    /// Bytes that nobody of us wrote, under a good checksum: an error or a record that keeps the rules, never a panic.
    #[test]
    fn whatever_is_sealed_is_read_or_refused(kind in 0u8..8, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &[kind], &[0; HEADER - 11], &body].concat();
        seal(&mut bytes);
        if let Ok(record) = read(&bytes) {
            prop_assert_eq!(record.slot, 7);
        }
    }

    /// The same for a record with a few bytes changed, which gets further into the decoder.
    #[test]
    fn whatever_is_changed_and_sealed_is_read_or_refused(
        changes in prop::collection::vec((0usize..108, any::<u8>()), 1..4),
        held in any::<bool>(),
    ) {
        let mut bytes = if held { holding() } else { completed() }.encode();
        for (index, byte) in changes {
            bytes[HEADER + index] = byte;
        }
        seal(&mut bytes);
        if let Ok(Record { body: Body::Completed(completed), .. }) = read(&bytes) {
            prop_assert!(completed.checkpoint.files().all(FileRef::has_safe_name));
        }
    }
}
