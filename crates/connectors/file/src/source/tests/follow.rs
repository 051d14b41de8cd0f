//! Files that grow while they are read.

use std::fs::OpenOptions;
use std::path::Path;

use super::*;

fn append(path: &Path, bytes: impl AsRef<[u8]>) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes.as_ref()).unwrap();
}

/// What can be read until the reader waits, and the position after each record.
fn available<T: Send + 'static>(reader: &mut FileReader<T>) -> Result<Vec<(T, FilePosition)>, UserError> {
    let mut all = Vec::new();
    let mut out = SourceOutput::new(1);
    loop {
        let status = reader.read(&mut out)?;
        all.extend(out.take().into_iter().map(|(_, record)| (record, reader.position())));
        match status {
            ReadStatus::More => {}
            ReadStatus::WaitUntil(moment) => {
                assert_eq!(moment.0, 100_000_000, "ten times a second");
                return Ok(all);
            }
            ReadStatus::End => panic!("a followed file does not end"),
        }
    }
}

fn texts<T>(records: Vec<(T, FilePosition)>) -> Vec<T> {
    records.into_iter().map(|(record, _)| record).collect()
}

#[test]
fn half_a_line_is_no_line() {
    let folder = Folder::new();
    let path = folder.put("input", "");
    let source = lines(&path).follow();
    let mut reader = open(&source, None).unwrap();
    let steps: [(&str, &[&str]); 7] = [
        ("", &[]),
        ("on", &[]),
        ("e\ntwo", &["one"]),
        ("\r", &[]),
        ("\n\nthr", &["two", ""]),
        ("ee", &[]),
        ("\nfour\n", &["three", "four"]),
    ];
    for (appended, expected) in steps {
        append(&path, appended);
        assert_eq!(texts(available(&mut reader).unwrap()), expected, "after {appended:?}");
    }
}

#[test]
fn whatever_else_than_growth_is_an_error() {
    type Step = fn(&Folder, &Path);
    let cases: [(&str, Step, &str); 7] = [
        ("emptied", |_, path| drop(fs::File::create(path).unwrap()), "was cut to 0 bytes, of which 8 had been read"),
        (
            "cut by a byte",
            |_, path| OpenOptions::new().write(true).open(path).unwrap().set_len(7).unwrap(),
            "was cut to 7 bytes",
        ),
        ("written anew, longer", |_, path| fs::write(path, "ONE\ntwo\nthree\n").unwrap(), "was written anew"),
        (
            "replaced by the same and more",
            |folder, path| fs::rename(folder.put("other", "one\ntwo\nthree\n"), path).unwrap(),
            "was replaced by another file",
        ),
        ("moved", |folder, path| fs::rename(path, folder.0.path().join("old")).unwrap(), "was moved or deleted"),
        ("deleted", |_, path| fs::remove_file(path).unwrap(), "was moved or deleted"),
        (
            "deleted and made again",
            |_, path| {
                let _inode_stays_taken = fs::File::open(path).unwrap();
                fs::remove_file(path).unwrap();
                fs::write(path, "one\ntwo\n").unwrap();
            },
            "was replaced by another file",
        ),
    ];
    for (name, step, expected) in cases {
        let folder = Folder::new();
        let path = folder.put("input", "one\ntwo\n");
        let source = lines(&path).follow();
        let mut reader = open(&source, None).unwrap();
        assert_eq!(texts(available(&mut reader).unwrap()), ["one", "two"], "{name}");
        step(&folder, &path);
        let error = available(&mut reader).unwrap_err();
        assert!(NonRecoverable::is(&*error), "{name}: no restart mends it");
        assert_error(name, Err::<(), _>(error), &[expected, "while it was followed"]);
    }
}

#[test]
fn what_happens_between_two_runs_is_noticed_too() {
    let folder = Folder::new();
    let path = folder.put("input", "one\n");
    let source = lines(&path).follow();
    let mut reader = open(&source, None).unwrap();
    available(&mut reader).unwrap();
    append(&path, "two\nthree\n");
    let all = available(&mut reader).unwrap();
    drop(reader);
    let (_, position) = &all[1];
    assert_eq!(position.offset(), 14, "beyond the length at the start");
    append(&path, "four\n");
    assert_eq!(texts(available(&mut open(&source, Some(position)).unwrap()).unwrap()), ["four"]);
    fs::write(&path, "one\ntwo\nthre").unwrap();
    assert_error("cut", open(&source, Some(position)), &["has changed since the checkpoint", "14 bytes and has 12"]);
    fs::write(&path, "ONE\ntwo\nthree\n").unwrap();
    assert_error("anew", open(&source, Some(position)), &["has changed since the checkpoint"]);
}

#[test]
fn what_can_not_be_followed_is_refused() {
    let folder = Folder::new();
    for packed in [zstd_frames([&b"a\n"[..]]), gzip_members([&b"a\n"[..]])] {
        let source = lines(folder.put("input", packed)).follow();
        assert_error("compressed", source.splits(1), &["only plain files can be followed"]);
    }
    for header in ["", "day,origin", "\n"] {
        let source = csv::<Flight>(folder.put("input", header)).follow();
        assert_error("no whole header", open(&source, None), &["names of the columns"]);
    }
    let source = lines(folder.put("input", "x".repeat(200))).max_record_bytes(100).follow();
    let result = available(&mut open(&source, None).unwrap());
    assert_error("a line without end", result, &["line 1", "100 bytes"]);
    let quoted = "day,origin,delay\n1,\"".to_owned() + &"\n".repeat(300_000);
    let source = csv::<Flight>(folder.put("input", quoted)).max_record_bytes(200_000).follow();
    let result = available(&mut open(&source, None).unwrap());
    assert_error("a quote without end", result, &["line 2", "200000 bytes"]);
}

#[test]
fn a_bad_line_is_an_error_when_it_is_whole() {
    let folder = Folder::new();
    let path = folder.put("input", "day,origin,delay\n1,JFK,5\n2,EW");
    let source = csv::<Flight>(&path).follow();
    let mut reader = open(&source, None).unwrap();
    assert_eq!(texts(available(&mut reader).unwrap()), [flight(1, "JFK", Some(5))]);
    append(&path, "R\n");
    assert_error("too few fields", available(&mut reader), &["line 3", "2 fields, expected 3"]);
}

/// Writes the text piece by piece, reads what can be read after each piece, and then all of it once more from each
/// position: it must be what the whole file gives when nobody follows it.
fn grow_and_check<T: Clone + Debug + PartialEq + Send + 'static>(
    make: impl Fn(PathBuf) -> FileSource<T>,
    head: &str,
    rest_of: &str,
    cuts: &[usize],
) -> Result<(), TestCaseError> {
    let folder = Folder::new();
    let path = folder.put("grown", head);
    let source = make(path.clone()).follow();
    let mut reader = open(&source, None).unwrap();
    let mut all = vec![];
    for piece in cut(rest_of, cuts) {
        append(&path, piece);
        all.extend(available(&mut reader).unwrap());
    }
    let whole = records(&make(path), None).unwrap();
    let found: Vec<T> = all.iter().map(|(record, _)| record.clone()).collect();
    prop_assert_eq!(&found, &whole);
    for (done, (_, position)) in all.iter().enumerate() {
        prop_assert_eq!(position.records(), done as u64 + 1);
        let again = texts(available(&mut open(&source, Some(position)).unwrap()).unwrap());
        prop_assert_eq!(&again[..], &whole[done + 1..], "after {}", done + 1);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_that_grows_in_any_pieces_gives_the_same_records(
        rows in prop::collection::vec(([any_field(), any_field()], 0usize..6), 0..6),
        cuts in prop::collection::vec(0usize..1000, 0..8),
        mark in any::<bool>(),
    ) {
        let text = write_csv(mark, &rows, false);
        let header = text.find('\n').unwrap_or(0) + 1;
        // With a lone carriage return as the end of the header, there is no line end to wait for.
        let starts_whole = text[..header].trim_end_matches(['\r', '\n']).ends_with("a,b");
        if starts_whole {
            grow_and_check(csv::<(String, String)>, &text[..header], &text[header..], &cuts)?;
        }
        grow_and_check(lines, "", &text, &cuts)?;
        let values: String =
            rows.iter().map(|([(a, _), (b, _)], _)| serde_json::to_string(&(a, b)).unwrap() + "\n \r\n").collect();
        grow_and_check(json_lines::<(String, String)>, "", &values, &cuts)?;
    }
}
