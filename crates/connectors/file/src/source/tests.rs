use std::fmt::Debug;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use cutwater_core::Timestamp;
use cutwater_dataflow::{NonRecoverable, ReadStatus, Source, SourceOutput, SplitReader, UserError};
use proptest::prelude::*;
use serde::Deserialize;
use tempfile::TempDir;

use super::*;

mod compressed;
mod follow;
mod hostile;
mod json;
mod many;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Flight {
    day: i64,
    origin: String,
    delay: Option<i32>,
}

fn flight(day: i64, origin: &str, delay: Option<i32>) -> Flight {
    Flight { day, origin: origin.to_owned(), delay }
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn zstd_frames<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut packed = Vec::new();
    for part in parts {
        let mut encoder = zstd::Encoder::new(&mut packed, 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap();
    }
    packed
}

fn gzip_members<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut packed = Vec::new();
    for part in parts {
        let mut encoder = flate2::GzBuilder::new().filename("part").write(packed, flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        packed = encoder.finish().unwrap();
    }
    packed
}

fn open<T: Send + 'static>(
    source: &FileSource<T>,
    position: Option<&FilePosition>,
) -> Result<FileReader<T>, UserError> {
    let splits = source.splits(1)?;
    source.open(&splits[0], position)
}

/// All further records, and the position after each.
fn rest<T: Send + 'static>(reader: &mut FileReader<T>) -> Result<Vec<(T, FilePosition)>, UserError> {
    let mut all = Vec::new();
    let mut out = SourceOutput::new(1);
    loop {
        let status = reader.read(&mut out)?;
        all.extend(out.take().into_iter().map(|(_, record)| (record, reader.position())));
        match status {
            ReadStatus::End => return Ok(all),
            ReadStatus::More => {}
            ReadStatus::WaitUntil(_) => panic!("no pace was set"),
        }
    }
}

fn records<T: Send + 'static>(source: &FileSource<T>, position: Option<&FilePosition>) -> Result<Vec<T>, UserError> {
    Ok(rest(&mut open(source, position)?)?.into_iter().map(|(record, _)| record).collect())
}

/// Message and causes in one line.
fn text(error: &UserError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Each error holds all these parts, and the name of the file.
fn assert_error<T>(name: &str, result: Result<T, UserError>, parts: &[&str]) {
    let message = text(&result.err().expect(name));
    for part in parts.iter().chain(&["input"]) {
        assert!(message.contains(part), "{name}: {part:?} is not in {message:?}");
    }
}

#[test]
fn good_files_give_their_records() {
    let cases: [(&str, &[u8], Vec<Flight>); 7] = [
        (
            "in the order of the lines",
            b"day,origin,delay\n1,JFK,5\n2,EWR,\n",
            vec![flight(1, "JFK", Some(5)), flight(2, "EWR", None)],
        ),
        (
            "in another order of columns, with one too many",
            b"x,origin,delay,day\n-,JFK,5,1\n",
            vec![flight(1, "JFK", Some(5))],
        ),
        ("without a last line end", b"day,origin,delay\n1,JFK,5", vec![flight(1, "JFK", Some(5))]),
        ("with Windows line ends", b"day,origin,delay\r\n1,JFK,5\r\n", vec![flight(1, "JFK", Some(5))]),
        ("with a byte order mark", b"\xef\xbb\xbfday,origin,delay\n1,JFK,5\n", vec![flight(1, "JFK", Some(5))]),
        (
            "with quotes around anything",
            b"day,origin,delay\n1,\"a\"\"b,\nc\",5\n",
            vec![flight(1, "a\"b,\nc", Some(5))],
        ),
        ("with a header only", b"day,origin,delay\n", vec![]),
    ];
    let folder = Folder::new();
    for (name, bytes, expected) in cases {
        let plain = csv::<Flight>(folder.put("plain", bytes));
        assert_eq!(records(&plain, None).unwrap(), expected, "{name}");
        let packed = csv::<Flight>(folder.put("packed", zstd_frames([bytes])));
        assert_eq!(records(&packed, None).unwrap(), expected, "{name}, compressed");
    }
}

#[test]
fn other_delimiters_separate_too() {
    let folder = Folder::new();
    let path = folder.put("tabs", "day\torigin\tdelay\n1\tJFK,\t5\n");
    assert_eq!(records(&delimited::<Flight>(path, b'\t'), None).unwrap(), [flight(1, "JFK,", Some(5))]);
}

#[test]
fn bad_csv_is_an_error_that_says_where() {
    let cases: [(&str, &[u8], &[&str]); 14] = [
        ("an empty file", b"", &["is empty", "names of the columns"]),
        ("a missing column", b"day,delay\n1,5\n", &["line 2", "missing column `origin`", "day, delay"]),
        (
            "a bad number",
            b"day,origin,delay\n1,JFK,5\nmon,JFK,5\n",
            &["line 3", "column day", "\"mon\"", "whole number"],
        ),
        ("a bad optional number", b"day,origin,delay\n1,JFK,NA\n", &["line 2", "column delay", "\"NA\""]),
        (
            "a bad number after quoted line ends",
            b"day,origin,delay\n1,\"\n\n\",5\nx,JFK,5\n",
            &["line 5", "column day"],
        ),
        (
            "a bad number with Windows line ends",
            b"day,origin,delay\r\n1,JFK,5\r\nx,JFK,5\r\n",
            &["line 3", "column day"],
        ),
        ("a bad number after empty lines", b"day,origin,delay\n\n\r\n\nx,JFK,5\n", &["line 5", "column day"]),
        ("too few fields", b"day,origin,delay\n1,JFK\n2,EWR,5\n", &["line 2", "2 fields, expected 3"]),
        ("too many fields", b"day,origin,delay\n1,JFK,5,\n", &["line 2", "4 fields, expected 3"]),
        (
            "half a last line",
            b"day,origin,delay\n1,JFK,5\n2,EW",
            &["line 3", "2 fields", "in the midst of this record"],
        ),
        ("an open quote at the end", b"day,origin,delay\n1,JFK,5\n2,EWR,\"5", &["line 3", "inside a quoted field"]),
        (
            "an open quote that takes whole lines",
            b"day,origin,delay\n1,\"JFK,5\n2,EWR,5\n",
            &["line 2", "inside a quoted"],
        ),
        ("no UTF-8", b"day,origin,delay\n1,JF\xff,5\n", &["line 2", "column origin", "after 2 bytes"]),
        ("no UTF-8 in the header", b"day,\xff\n", &["line 1", "field 2"]),
    ];
    let folder = Folder::new();
    for (name, bytes, parts) in cases {
        assert_error(name, records(&csv::<Flight>(folder.put("input", bytes)), None), parts);
        let packed = folder.put("input", zstd_frames(bytes.chunks(5)));
        if !bytes.is_empty() {
            assert_error(name, records(&csv::<Flight>(packed), None), parts);
        }
    }
}

#[test]
fn errors_of_a_type_s_own_name_the_column() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its errors matter")]
    struct Row {
        a: String,
        #[serde(deserialize_with = "even")]
        b: u32,
    }
    fn even<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let number = u32::deserialize(deserializer)?;
        if number % 2 == 0 { Ok(number) } else { Err(serde::de::Error::custom("expected an even number")) }
    }
    let folder = Folder::new();
    let path = folder.put("input", "a,c,b\n1,1,2\n1,1,3\n");
    assert_error("odd", records(&csv::<Row>(path), None), &["line 3", "column b", "\"3\"", "an even number"]);
}

#[test]
fn only_errors_that_a_retry_may_mend_are_retried() {
    let folder = Folder::new();
    let bad = records(&csv::<Flight>(folder.put("input", "day,origin,delay\nx,JFK,5\n")), None).unwrap_err();
    assert!(NonRecoverable::is(&*bad), "the file will not get better");
    let missing = lines(folder.0.path().join("missing")).splits(1).unwrap_err();
    assert!(!NonRecoverable::is(&*missing), "its disk may be mounted later");
}

#[test]
fn records_before_an_error_count_as_read() {
    let folder = Folder::new();
    let source = csv::<Flight>(folder.put("input", "day,origin,delay\n1,JFK,5\n2,EWR,x\n"));
    let mut reader = open(&source, None).unwrap();
    let mut out = SourceOutput::new(10);
    reader.read(&mut out).unwrap_err();
    assert_eq!(out.take(), [(None, flight(1, "JFK", Some(5)))]);
    let position = reader.position();
    assert_eq!((position.records(), position.lines(), position.offset()), (1, 2, 25));
    assert_error("again", records(&source, Some(&position)), &["line 3", "column delay"]);
}

#[test]
fn lines_are_as_they_stand() {
    let folder = Folder::new();
    let source = lines(folder.put("input", "one\r\n\n three \nfour\r"));
    assert_eq!(records(&source, None).unwrap(), ["one", "", " three ", "four\r"]);
    assert_eq!(records(&lines(folder.put("input", "")), None).unwrap(), [""; 0]);
    let long = "x".repeat(DEFAULT_MAX_RECORD_BYTES);
    let source = lines(folder.put("input", format!("a\0b\n\0\n{long}\nhalf")));
    assert_eq!(records(&source, None).unwrap(), ["a\0b", "\0", long.as_str(), "half"]);
    let source = lines(folder.put("input", b"good\nba\xffd\n"));
    assert_error("no UTF-8", records(&source, None), &["line 2", "byte 3"]);
}

#[test]
fn a_record_without_end_does_not_fill_the_memory() {
    let folder = Folder::new();
    let cases = [
        ("no line end", "day,origin,delay\n1,JFK,5\n".to_owned() + &"x".repeat(1 << 20), "line 3"),
        ("an open quote", "day,origin,delay\n1,\"JFK,5\n".to_owned() + &"2,EWR,5\n".repeat(1 << 17), "line 2"),
        ("an endless header", "day,".repeat(1 << 18), "line 1"),
    ];
    for (name, content, line) in cases {
        let source = csv::<Flight>(folder.put("input", content)).max_record_bytes(100_000);
        assert_error(name, records(&source, None), &[line, "100000 bytes"]);
    }
    let of_100 = "x".repeat(100) + "\n";
    let source = lines(folder.put("input", of_100.repeat(3))).max_record_bytes(100);
    assert_eq!(records(&source, None).unwrap().len(), 3, "the limit itself is allowed");
    let source = lines(folder.put("input", of_100.repeat(3) + "x" + &of_100)).max_record_bytes(100);
    assert_error("a long line", records(&source, None), &["line 4", "100 bytes"]);
}

#[test]
fn what_is_no_readable_file_is_an_error_at_the_start() {
    let folder = Folder::new();
    let missing = folder.0.path().join("input-missing");
    assert_error("missing", csv::<Flight>(missing).splits(1), &["could not open", "not there"]);
    fs::create_dir(folder.0.path().join("input-folder")).unwrap();
    assert_error("a folder", lines(folder.0.path().join("input-folder")).splits(1), &["not a plain file"]);
    let path = folder.put("input", "a\n");
    let twice = lines(&path).and(&path);
    assert_error("the same file twice", twice.splits(1), &["given twice"]);
    assert!(text(&lines(&path).pace(0.0).splits(1).unwrap_err()).contains("above zero"));
    assert!(text(&lines(&path).watermark_on_advance().splits(1).unwrap_err()).contains("event_time"));
}

#[test]
fn each_file_is_a_split_by_its_name() {
    let folder = Folder::new();
    fs::create_dir(folder.0.path().join("other")).unwrap();
    let (b, a) = (folder.put("b", "b\n"), folder.put("a", "a\n"));
    let source = lines(&b).and(&a);
    assert_eq!(source.splits(9).unwrap(), ["a", "b"]);
    assert_eq!(source.parallelism_limit(), 2);
    let other = folder.put("other/a", "a\n");
    let names = lines(&b).and(&a).and(&other).splits(1).unwrap();
    assert_eq!(names, [a.to_str().unwrap(), other.to_str().unwrap(), "b"]);
    let error = lines(&b).open("a", None).unwrap_err();
    assert!(error.to_string().contains("\"a\""), "{error}");
}

#[test]
fn a_file_that_changed_is_not_read_on() {
    let folder = Folder::new();
    let content = "day,origin,delay\n1,JFK,5\n2,EWR,5\n3,LGA,5\n";
    let source = csv::<Flight>(folder.put("input", content));
    let position = rest(&mut open(&source, None).unwrap()).unwrap().swap_remove(1).1;

    let grown = content.to_owned() + "4,JFK,5\n";
    folder.put("input", &grown);
    assert_eq!(records(&source, Some(&position)).unwrap(), [flight(3, "LGA", Some(5)), flight(4, "JFK", Some(5))]);
    let packed = zstd_frames([content.as_bytes()]);
    let cases = [
        ("shorter", content.as_bytes()[..content.len() - 1].to_vec()),
        ("empty", Vec::new()),
        ("another header", grown.replace("origin", "Origin").into_bytes()),
        ("another first record", grown.replace("JFK,5\n2", "LGA,5\n2").into_bytes()),
        ("now compressed", packed),
    ];
    for (name, bytes) in cases {
        folder.put("input", bytes);
        let message = text(&records(&source, Some(&position)).unwrap_err());
        let found = message.contains("has changed since the checkpoint") || message.contains("is empty");
        assert!(found, "{name}: {message}");
    }
}

#[test]
fn a_file_grows_after_a_line_end_only() {
    let folder = Folder::new();
    let last = |content: &str| {
        let source = lines(folder.put("input", content));
        rest(&mut open(&source, None).unwrap()).unwrap().pop().unwrap().1
    };
    let (open_end, line_end) = (last("one\ntwo"), last("one\ntwo\n"));
    let source = lines(folder.put("input", "one\ntwo"));
    let mut reader = open(&source, Some(&open_end)).unwrap();
    assert_eq!(rest(&mut reader).unwrap().len(), 0, "unchanged");
    assert_eq!(reader.position(), open_end, "and still known to be open");
    let source = lines(folder.put("input", "one\ntwo\nthree"));
    assert_error("open end", records(&source, Some(&open_end)), &["has grown", "no line end"]);
    assert_eq!(records(&source, Some(&line_end)).unwrap(), ["three"]);
}

#[test]
fn a_long_header_is_compared_whole() {
    let folder = Folder::new();
    let header = format!("day,origin,delay,{}x", "_".repeat(5000));
    let content = format!("{header}\n1,JFK,5,\n2,EWR,5,\n");
    let source = csv::<Flight>(folder.put("input", &content));
    let position = rest(&mut open(&source, None).unwrap()).unwrap().swap_remove(0).1;
    folder.put("input", content.replace("_x", "_y"));
    assert_error("header", records(&source, Some(&position)), &["header is another"]);
}

fn numbered(count: usize) -> String {
    (0..count).map(|number| format!("line {number} {:x}\n", number * 7919)).collect()
}

#[test]
fn watermarks_go_before_the_first_record_of_a_new_time() {
    let folder = Folder::new();
    let content = "day,origin,delay\n1,A,\n1,B,\n2,C,\n1,D,\n2,E,\n5,F,\n";
    let timed = || csv::<Flight>(folder.put("input", content)).event_time(|flight| Timestamp(flight.day * 10));
    let mut out = SourceOutput::new(10);
    let source = timed().watermark_on_advance();
    assert_eq!(open(&source, None).unwrap().read(&mut out).unwrap(), ReadStatus::End);
    let expected = [(0, Timestamp(9)), (2, Timestamp(19)), (5, Timestamp(49))];
    assert_eq!(out.watermarks(), expected);
    let times: Vec<_> = out.take().into_iter().map(|(time, _)| time.unwrap().0).collect();
    assert_eq!(times, [10, 10, 20, 10, 20, 50]);

    let position = rest(&mut open(&source, None).unwrap()).unwrap().swap_remove(3).1;
    assert_eq!(position.greatest_time(), Some(Timestamp(20)));
    open(&source, Some(&position)).unwrap().read(&mut out).unwrap();
    assert_eq!(out.watermarks(), [(0, Timestamp(19)), (1, Timestamp(49))], "the greatest time survives");
    out.take();

    let source = timed().bounded_out_of_orderness(std::time::Duration::from_millis(15));
    open(&source, None).unwrap().read(&mut out).unwrap();
    assert_eq!(out.watermarks(), [(0, Timestamp(-6)), (2, Timestamp(4)), (5, Timestamp(34))]);
    out.take();
    open(&source, Some(&position)).unwrap().read(&mut out).unwrap();
    assert_eq!(out.watermarks()[0], (0, Timestamp(4)), "also behind a restore");
    out.take();

    open(&timed(), None).unwrap().read(&mut out).unwrap();
    assert_eq!(out.watermarks(), [], "without a policy no watermarks");
}

#[test]
fn a_paced_source_asks_to_wait() {
    let folder = Folder::new();
    let source = lines(folder.put("input", "a\nb\n")).pace(100.0);
    let mut out = SourceOutput::new(10);
    let mut reader = open(&source, None).unwrap();
    let ReadStatus::WaitUntil(moment) = reader.read(&mut out).unwrap() else { panic!("it must wait") };
    assert_eq!(out.take().len(), 1);
    assert!((10_000_000..10_010_000).contains(&moment.0), "{moment:?}");
    assert!(matches!(reader.read(&mut out).unwrap(), ReadStatus::WaitUntil(_)), "no time has passed");
    assert_eq!(out.take().len(), 0);
}

/// A field of what is hard for a CSV reader, and whether to quote it without need.
fn any_field() -> impl Strategy<Value = (String, bool)> {
    let piece = prop::sample::select(vec!["\"", "\"\"", "\n", "\r\n", "\r", ",", "a", " ", "ä", "\u{feff}", "🛫"]);
    (prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat()), any::<bool>())
}

type Row = [(String, bool); 2];

/// The file, with a line end of its own for each row, and now and then an empty line.
fn write_csv(mark: bool, rows: &[(Row, usize)], open_end: bool) -> String {
    let mut text = if mark { "\u{feff}a,b" } else { "a,b" }.to_owned();
    for (row, end) in rows {
        text += ["\n", "\r\n", "\r", "\n\n", "\r\n\r\n", "\n\r\n"][*end];
        let field = |(field, quote): &(String, bool)| {
            let must = field.contains(['"', ',', '\n', '\r']);
            if must || *quote { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.clone() }
        };
        // A row can't begin with a byte order mark at the beginning of the file, but anywhere else.
        text += &format!("{},{}", field(&row[0]), field(&row[1]));
    }
    if !open_end {
        text += "\n";
    }
    text
}

/// Reads the file, and from each position in it once more.
fn check_all_positions<T: Clone + Debug + PartialEq + Send + 'static>(
    source: &FileSource<T>,
    text: &str,
    expected: &[T],
) -> Result<(), TestCaseError> {
    let mut first = open(source, None).unwrap();
    let start = first.position();
    let all = rest(&mut first).unwrap();
    let found: Vec<T> = all.iter().map(|(record, _)| record.clone()).collect();
    prop_assert_eq!(&found, expected);
    for (done, position) in std::iter::once(&start).chain(all.iter().map(|(_, position)| position)).enumerate() {
        let offset = usize::try_from(position.offset()).unwrap();
        prop_assert_eq!(position.lines(), text[..offset].matches('\n').count() as u64);
        prop_assert_eq!(position.records(), done as u64);
        prop_assert!(!(text[..offset].ends_with('\r') && text[offset..].starts_with('\n')), "within a line end");
        let again = rest(&mut open(source, Some(position)).unwrap()).unwrap();
        // The same records, and the same positions after them.
        prop_assert!(again[..] == all[done..] || same_but_frames(&again, &all[done..]), "after {}: {:?}", done, again);
    }
    Ok(())
}

fn same_but_frames<T: PartialEq>(a: &[(T, FilePosition)], b: &[(T, FilePosition)]) -> bool {
    let strip = |position: &FilePosition| FilePosition { frame: None, ..position.clone() };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && strip(&a.1) == strip(&b.1))
}

/// The text cut at these places, given in thousandths.
fn cut<'a>(text: &'a str, cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut * text.len() / 1000).collect();
    cuts.sort_unstable();
    let mut begin = 0;
    let mut parts: Vec<_> = Vec::new();
    for end in cuts.into_iter().chain([text.len()]) {
        parts.push(&text.as_bytes()[begin..end]);
        begin = end;
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn csv_can_be_left_and_entered_after_any_record(
        mark in any::<bool>(),
        rows in prop::collection::vec(([any_field(), any_field()], 0usize..6), 0..8),
        open_end in any::<bool>(),
        cuts in prop::collection::vec(0usize..1000, 0..5),
    ) {
        let text = write_csv(mark, &rows, open_end);
        let expected: Vec<(String, String)> =
            rows.into_iter().map(|([(a, _), (b, _)], _)| (a, b)).collect();
        let folder = Folder::new();
        let plain = csv(folder.put("plain", &text));
        check_all_positions(&plain, &text, &expected)?;
        let frames = csv(folder.put("frames", zstd_frames(cut(&text, &cuts))));
        check_all_positions(&frames, &text, &expected)?;
        let members = csv(folder.put("members", gzip_members(cut(&text, &cuts))));
        check_all_positions(&members, &text, &expected)?;
    }

    #[test]
    fn lines_can_be_left_and_entered_after_any_record(
        expected in prop::collection::vec("[a-cäß\u{feff}🛫\r]{0,5}[a-c]|", 0..8),
        end in prop::sample::select(vec!["\n", "\r\n"]),
        cuts in prop::collection::vec(0usize..1000, 0..5),
    ) {
        let text: String = expected.iter().map(|line| line.clone() + end).collect();
        let folder = Folder::new();
        check_all_positions(&lines(folder.put("plain", &text)), &text, &expected)?;
        let frames = lines(folder.put("frames", zstd_frames(cut(&text, &cuts))));
        check_all_positions(&frames, &text, &expected)?;
        let members = lines(folder.put("members", gzip_members(cut(&text, &cuts))));
        check_all_positions(&members, &text, &expected)?;
    }
}
