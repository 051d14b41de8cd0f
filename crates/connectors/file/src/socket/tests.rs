use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use cutwater_dataflow::NonRecoverable;

use super::*;

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads until the reader waits or ends.
fn read(reader: &mut SocketReader, lines: &mut Vec<String>) -> Result<ReadStatus, UserError> {
    let mut out = SourceOutput::new(3);
    loop {
        let status = reader.read(&mut out);
        lines.extend(out.take().into_iter().map(|(_, line)| line));
        match status {
            Ok(ReadStatus::More) => {}
            done => return done,
        }
    }
}

/// Until the other side has closed; what it sent may take a moment to arrive.
fn read_all(reader: &mut SocketReader) -> Result<Vec<String>, UserError> {
    let mut lines = Vec::new();
    while read(reader, &mut lines)? != ReadStatus::End {
        std::thread::yield_now();
    }
    Ok(lines)
}

fn received(sent: &[u8], limit: usize) -> Result<Vec<String>, UserError> {
    let (listener, address) = listen();
    let mut reader = socket_lines(address.to_string()).max_record_bytes(limit).open("socket", None)?;
    let mut stream = listener.accept().unwrap().0;
    stream.write_all(sent).unwrap();
    drop(stream);
    read_all(&mut reader)
}

#[test]
fn what_is_sent_is_read_by_lines() {
    let long = "x".repeat(40_000);
    let cases: [(&str, &str, Vec<&str>); 8] = [
        ("nothing", "", vec![]),
        ("lines", "one\ntwo\n", vec!["one", "two"]),
        ("an empty line", "\n\nx\n", vec!["", "", "x"]),
        ("half a line, and the end", "one\ntw", vec!["one", "tw"]),
        ("Windows line ends", "one\r\ntwo\r\n", vec!["one", "two"]),
        ("a carriage return of its own", "o\rne\ntwo\r", vec!["o\rne", "two\r"]),
        ("a NUL", "a\0b\n", vec!["a\0b"]),
        ("more than one read", &(long.clone() + "\n" + &long + "\n"), vec![&long, &long]),
    ];
    for (name, sent, expected) in cases {
        assert_eq!(received(sent.as_bytes(), 50_000).unwrap(), expected, "{name}");
    }
}

#[test]
fn a_line_is_waited_for_until_it_is_whole() {
    let (listener, address) = listen();
    let mut reader = socket_lines(address.to_string()).open("socket", None).unwrap();
    let mut stream = listener.accept().unwrap().0;
    let mut lines = Vec::new();
    for (sent, expected) in [("o", 0), ("ne\ntw", 1), ("o\n", 2)] {
        stream.write_all(sent.as_bytes()).unwrap();
        // Once it waits with the number expected, it waits with that number for ever: nothing else was sent.
        while lines.len() < expected {
            assert!(matches!(read(&mut reader, &mut lines).unwrap(), ReadStatus::WaitUntil(_)));
        }
        assert!(
            matches!(read(&mut reader, &mut lines).unwrap(), ReadStatus::WaitUntil(moment) if moment > cutwater_core::Moment::ZERO)
        );
        assert_eq!(lines.len(), expected, "{lines:?}");
        assert_eq!(reader.position().lines(), expected as u64);
    }
    assert_eq!(lines, ["one", "two"]);
}

#[test]
fn a_restart_goes_on_with_what_comes_then() {
    let (listener, address) = listen();
    let source = socket_lines(address.to_string());
    let mut reader = source.open("socket", None).unwrap();
    listener.accept().unwrap().0.write_all(b"one\ntwo\n").unwrap();
    assert_eq!(read_all(&mut reader).unwrap(), ["one", "two"]);
    let position = reader.position();
    drop(reader);
    let mut reader = source.open("socket", Some(&position)).unwrap();
    listener.accept().unwrap().0.write_all(b"three\n").unwrap();
    assert_eq!(read_all(&mut reader).unwrap(), ["three"]);
    assert_eq!(reader.position().lines(), 3);
}

#[test]
fn what_can_not_be_used_is_named() {
    for (name, sent) in [("without an end", "x".repeat(1000)), ("with one", "x".repeat(101) + "\n")] {
        let error = received(format!("{}\n{sent}", "x".repeat(100)).as_bytes(), 100).unwrap_err();
        assert!(error.to_string().contains("line 2 from 127.0.0.1:"), "{name}: {error}");
        assert!(error.to_string().contains("longer than 100 bytes"), "{name}: {error}");
    }
    let error = received(b"ok\nb\xffd\n", 100).unwrap_err();
    assert!(error.to_string().contains("line 2") && error.to_string().contains("after 1 bytes"), "{error}");
    assert!(NonRecoverable::is(&*error));

    let (listener, address) = listen();
    drop(listener);
    let error = socket_lines(address.to_string()).open("socket", None).unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(!NonRecoverable::is(&*error), "somebody may listen later");
    let error = socket_lines("no port").open("socket", None).unwrap_err();
    assert!(error.to_string().contains("no port"), "{error}");
}
