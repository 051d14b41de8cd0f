//! zstd and gzip.

use super::*;

#[test]
fn many_frames_are_entered_in_the_middle() {
    let folder = Folder::new();
    let content = numbered(20_000);
    let mut packed = zstd_frames(content.as_bytes().chunks(50_000));
    let source = lines(folder.put("input", &packed));
    let all = rest(&mut open(&source, None).unwrap()).unwrap();
    assert_eq!(all.len(), 20_000);
    let (_, position) = &all[14_999];
    let frame = position.frame.unwrap();
    assert!(position.offset() - frame.offset < 50_000 && frame.compressed > 5000, "{position:?}");
    // If it read what is before that frame, it would fail on this.
    packed[4096..5000].fill(0xff);
    folder.put("input", &packed);
    assert_eq!(records(&source, Some(position)).unwrap().len(), 5000);
    assert_error("damaged", records(&source, None), &["is corrupt after byte"]);
}

#[test]
fn a_cut_or_damaged_zstd_file_is_never_taken_for_a_whole_one() {
    let folder = Folder::new();
    let content = numbered(30);
    let packed = zstd_frames([content.as_bytes()]);
    for length in 4..packed.len() {
        let source = lines(folder.put("input", &packed[..length]));
        assert_error("cut", records(&source, None), &["is cut off", "decompressed text"]);
    }
    let trailing = [&packed[..], b"garbage"].concat();
    assert_error("trailing", records(&lines(folder.put("input", trailing)), None), &["is corrupt after byte"]);
    let skippable = [&b"\x50\x2a\x4d\x18\x03\0\0\0abc"[..], &packed].concat();
    assert_eq!(records(&lines(folder.put("input", skippable)), None).unwrap().len(), 30);
}

#[test]
fn gzip_members_are_entered_in_the_middle() {
    let folder = Folder::new();
    let content = numbered(20_000);
    let mut packed = gzip_members(content.as_bytes().chunks(50_000));
    let source = lines(folder.put("input", &packed));
    let all = rest(&mut open(&source, None).unwrap()).unwrap();
    assert_eq!(all.len(), 20_000);
    let (_, position) = &all[14_999];
    let frame = position.frame.unwrap();
    assert!(position.offset() - frame.offset < 50_000 && frame.compressed > 5000, "{position:?}");
    // If it read what is before that member, it would fail on this.
    packed[4096..5000].fill(0xff);
    folder.put("input", &packed);
    assert_eq!(records(&source, Some(position)).unwrap().len(), 5000);
    assert_error("damaged", records(&source, None), &["is corrupt after byte"]);
}

#[test]
fn a_cut_or_damaged_gzip_file_is_never_taken_for_a_whole_one() {
    let folder = Folder::new();
    let content = numbered(30);
    let packed = gzip_members([content.as_bytes()]);
    for length in 2..packed.len() {
        let source = lines(folder.put("input", &packed[..length]));
        assert_error("cut", records(&source, None), &["is cut off", "decompressed text"]);
    }
    let twice = [&packed[..], &packed].concat();
    assert_eq!(records(&lines(folder.put("input", &twice)), None).unwrap().len(), 60);
    for length in packed.len() + 1..twice.len() {
        let source = lines(folder.put("input", &twice[..length]));
        assert_error("the second cut", records(&source, None), &["is cut off", "decompressed text"]);
    }
    let trailing = [&packed[..], b"garbage, which is long enough for a header"].concat();
    assert_error("trailing", records(&lines(folder.put("input", trailing)), None), &["is corrupt after byte"]);
    // From the compressed data on: what the header says of time and name does not matter.
    for at in 15..packed.len() {
        let mut damaged = packed.clone();
        damaged[at] ^= 0x10;
        let result = records(&lines(folder.put("input", damaged)), None);
        // The last byte of the data may have bits that mean nothing.
        let harmless = || {
            result
                .as_ref()
                .is_ok_and(|lines| lines.iter().map(|line| format!("{line}\n")).eq(content.split_inclusive('\n')))
        };
        assert!(result.is_err() || at == packed.len() - 9 && harmless(), "byte {at} of {}", packed.len());
    }
    let empty = gzip_members([&b""[..], b"a\n", b"", b"", b"b\n", b""]);
    assert_eq!(records(&lines(folder.put("input", empty)), None).unwrap(), ["a", "b"]);
}

/// A header may have a name of any length: what is read of it is bounded.
#[test]
fn a_gzip_header_without_end_does_not_fill_the_memory() {
    let folder = Folder::new();
    let mut packed = b"\x1f\x8b\x08\x08\0\0\0\0\0\x03".to_vec();
    packed.resize(1 << 20, b'x');
    assert_error("a long name", records(&lines(folder.put("input", packed)), None), &["is corrupt after byte 0"]);
}
