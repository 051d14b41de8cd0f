//! Many files as splits.

use super::*;
use crate::glob;

fn tree() -> (Folder, String) {
    let folder = Folder::new();
    for name in ["logs", "logs/b", "logs/a", "logs/c.log"] {
        fs::create_dir(folder.0.path().join(name)).unwrap();
    }
    for name in ["logs/1.log", "logs/10.log", "logs/2.log", "logs/.3.log", "logs/1.txt", "logs/b/1.log", "logs/a/1.log"]
    {
        folder.put(name, format!("{name}\n"));
    }
    let base = folder.0.path().to_str().unwrap().to_owned();
    (folder, base)
}

#[test]
fn patterns_name_files_in_one_order() {
    let (_folder, base) = tree();
    let cases: [(&str, &str, &[&str]); 7] = [
        ("a folder", "logs/*.log", &["1.log", "10.log", "2.log"]),
        ("one character", "logs/?.log", &["1.log", "2.log"]),
        ("some characters", "logs/[2-9].*", &["2.log"]),
        ("a folder between", "logs/*/1.log", &["a/1.log", "b/1.log"]),
        ("all folders below", "logs/**/1.log", &["1.log", "a/1.log", "b/1.log"]),
        ("hidden files are never meant", "logs/[.1]*.log", &["1.log", "10.log"]),
        ("no wildcard", "logs/1.txt", &["1.txt"]),
    ];
    for (name, pattern, expected) in cases {
        let source = lines(glob(format!("{base}/{pattern}")));
        assert_eq!(source.parallelism_limit() as usize, expected.len(), "{name}");
        assert_eq!(source.splits(7).unwrap(), expected, "{name}");
        for split in expected {
            let mut out = SourceOutput::new(9);
            assert_eq!(source.open(split, None).unwrap().read(&mut out).unwrap(), ReadStatus::End, "{name}");
            let (_, line) = out.take().remove(0);
            assert!(line.ends_with(split), "{name}: split {split} has {line}");
        }
    }
}

#[test]
fn several_patterns_and_files_make_one_source() {
    let (folder, base) = tree();
    let source = lines(glob(format!("{base}/logs/*.log"))).and(glob(format!("{base}/logs/*/1.log")));
    assert_eq!(source.splits(1).unwrap(), ["1.log", "10.log", "2.log", "a/1.log", "b/1.log"]);
    let source = lines(glob(format!("{base}/logs/?.log"))).and(glob(format!("{base}/logs/a/*")));
    let expected = [format!("{base}/logs/1.log"), format!("{base}/logs/a/1.log"), "2.log".to_owned()];
    assert_eq!(source.splits(1).unwrap(), expected, "names that two files would have");
    let twice = lines(glob(format!("{base}/logs/*.log"))).and(folder.0.path().join("logs/2.log"));
    assert!(text(&twice.splits(1).unwrap_err()).contains("logs/2.log is given twice"));
    let twice = lines(glob(format!("{base}/logs/*.log"))).and(glob(format!("{base}/**/2.log")));
    assert!(text(&twice.splits(1).unwrap_err()).contains("logs/2.log is given twice"));
}

#[test]
fn the_folder_is_looked_at_once() {
    let (folder, base) = tree();
    let make = || lines(glob(format!("{base}/logs/*.log")));
    let source = make();
    assert_eq!(source.splits(1).unwrap(), ["1.log", "10.log", "2.log"]);
    folder.put("logs/0.log", "new\n");
    assert_eq!(source.splits(1).unwrap(), ["1.log", "10.log", "2.log"], "the subtasks share out the same list");
    assert!(text(&source.open("0.log", None).unwrap_err()).contains("0.log"));
    assert_eq!(make().splits_after_restore(1, &["1.log", "10.log"]).unwrap()[0], "0.log", "the next run has it");
}

#[test]
fn what_matches_nothing_is_an_error_unless_all_was_read() {
    let (_folder, base) = tree();
    let none = || lines(glob(format!("{base}/logs/*.csv")));
    assert!(text(&none().splits(1).unwrap_err()).contains("no file matches"));
    assert_eq!(none().splits_after_restore(1, &["1.csv"]).unwrap(), [""; 0]);
    assert!(text(&none().open("1.csv", None).unwrap_err()).contains("\"1.csv\""), "unless it was read to its end");
    assert!(none().splits_after_restore(1, &[]).is_err());
    let bad = lines(glob(format!("{base}/logs/[2"))).splits(1).unwrap_err();
    assert!(text(&bad).contains("is no pattern") && NonRecoverable::is(&*bad), "{bad}");
}
