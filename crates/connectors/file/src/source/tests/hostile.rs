//! Whatever a file holds: records or an error, never a panic, and never other records from a position.

use super::*;

/// Reads the file in every way there is; what was read before an error is what is read again from a position.
fn check<T: Clone + Debug + PartialEq + Send + 'static>(source: &FileSource<T>) -> Result<(), TestCaseError> {
    let Ok(mut reader) = open(source, None) else { return Ok(()) };
    let mut all = Vec::new();
    let mut out = SourceOutput::new(1);
    let ended = loop {
        let status = reader.read(&mut out);
        all.extend(out.take().into_iter().map(|(_, record)| (record, reader.position())));
        match status {
            Ok(ReadStatus::More) => {}
            Ok(ReadStatus::End | ReadStatus::WaitUntil(_)) => break Ok(()),
            Err(error) => break Err(text(&error)),
        }
    };
    let places = [0, all.len() / 2, all.len().saturating_sub(1)];
    for (done, (_, position)) in all.iter().enumerate().filter(|(done, _)| places.contains(done)) {
        let mut again = Vec::new();
        let mut reader = open(source, Some(position)).map_err(|error| TestCaseError::fail(text(&error)))?;
        let ended_again = loop {
            let status = reader.read(&mut out);
            again.extend(out.take().into_iter().map(|(_, record)| record));
            match status {
                Ok(ReadStatus::More) => {}
                Ok(ReadStatus::End | ReadStatus::WaitUntil(_)) => break Ok(()),
                Err(error) => break Err(text(&error)),
            }
        };
        let rest: Vec<T> = all[done + 1..].iter().map(|(record, _)| record.clone()).collect();
        prop_assert_eq!(again, rest, "after {}", done + 1);
        prop_assert_eq!(&ended_again, &ended, "after {}", done + 1);
    }
    Ok(())
}

fn check_all(bytes: &[u8]) -> Result<(), TestCaseError> {
    let folder = Folder::new();
    let path = folder.put("input", bytes);
    check(&lines(&path).max_record_bytes(50))?;
    check(&csv::<(String, String)>(&path).max_record_bytes(50))?;
    check(&json_lines::<serde_json::Value>(&path).max_record_bytes(50))?;
    check(&lines(&path).max_record_bytes(50).follow())?;
    check(&csv::<(String, String)>(&path).max_record_bytes(50).follow())?;
    check(&json_lines::<serde_json::Value>(&path).max_record_bytes(50).follow())
}

/// What is special to one reader or another, and anything else.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let special: Vec<&[u8]> = vec![
        b"\n",
        b"\r\n",
        b"\r",
        b"\"",
        b",",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"a,b\n",
        b"{\"a\":1}\n",
        b"[1]",
        b" ",
        b"x",
    ];
    let piece = prop_oneof![
        4 => prop::sample::select(special).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_give_records_or_an_error(bytes in any_bytes()) {
        check_all(&bytes)?;
    }

    #[test]
    fn any_damage_to_compressed_bytes_gives_records_or_an_error(
        bytes in any_bytes(),
        cuts in prop::collection::vec(0usize..1000, 0..3),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        gzip in any::<bool>(),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut * bytes.len() / 1000).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]);
        let mut packed = if gzip { gzip_members(parts) } else { zstd_frames(parts) };
        for (at, byte) in damage {
            let at = at.index(packed.len());
            packed[at] = byte;
        }
        check_all(&packed)?;
    }
}
