//! docs/errors.md and the codes in the code are the same.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn is_code(text: &str) -> bool {
    text.len() == 7
        && text[..3].chars().all(|char| char.is_ascii_uppercase())
        && text[3..].chars().all(|char| char.is_ascii_digit())
}

/// All Rust files of crates, without their tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !matches!(name, "tests" | "target") {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// The codes that some kind of error has (`=> "CFG0001"`), with the files in which that stands.
fn in_code() -> BTreeMap<String, Vec<PathBuf>> {
    let mut files = Vec::new();
    sources(&repository().join("crates"), &mut files);
    let mut codes = BTreeMap::<_, Vec<_>>::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (_, after) in text.match_indices("=> \"").map(|(at, arrow)| text.split_at(at + arrow.len())) {
            if let Some((code, _)) = after.split_once('"').filter(|(code, _)| is_code(code)) {
                codes.entry(code.to_owned()).or_default().push(file.clone());
            }
        }
    }
    codes
}

#[test]
fn each_code_is_in_the_page_once_with_cause_and_advice_and_has_one_meaning() {
    let page = fs::read_to_string(repository().join("docs/errors.md")).unwrap();
    let mut in_page = BTreeSet::new();
    let mut causes = BTreeSet::new();
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Code ")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let &[code, cause, advice] = &cells[..] else { panic!("not three cells: {line}") };
        assert!(is_code(code), "{line}");
        assert!(in_page.insert(code.to_owned()), "{code} stands twice");
        assert!(cause.ends_with('.') && advice.ends_with('.') && cause != advice, "{line}");
        causes.insert(&code[..3]);
    }
    let in_code = in_code();
    for (code, files) in &in_code {
        assert_eq!(files.len(), 1, "{code} has several meanings: {files:?}");
    }
    let in_code: BTreeSet<_> = in_code.into_keys().collect();
    let missing: Vec<_> = in_code.difference(&in_page).collect();
    let unknown: Vec<_> = in_page.difference(&in_code).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not in docs/errors.md: {missing:?}; only there: {unknown:?}");
    assert!(in_page.len() > 60 && causes.len() >= 11, "the page or the code was not read right: {in_page:?}");
}
