//! docs/errors.md and the codes in the code are the same; what the command line rejects has one, too.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn is_code(text: &str) -> bool {
    text.len() == 7
        && text[..3].chars().all(|char| char.is_ascii_uppercase())
        && text[3..].chars().all(|char| char.is_ascii_digit())
}

/// All Rust files below a folder, without their tests.
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
    sources(&repository().join("backends"), &mut files);
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

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn cutwater(args: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_cutwater")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn what_the_grammar_of_the_command_line_rejects_has_a_code_and_honours_json() {
    let cases: [(&str, &[&str], &str); 12] = [
        ("no command", &[], "a command is missing: --help lists them"),
        ("a command that lacks one", &["checkpoints"], "a command is missing: --help lists them"),
        ("no such command", &["nonsense"], "unrecognized subcommand 'nonsense'"),
        ("no such flag", &["checkpoints", "list", "x", "--al"], "unexpected argument '--al' found; tip: "),
        ("a flag of another command", &["checkpoints", "verify", "x", "--all"], "unexpected argument '--all' found"),
        ("a missing path", &["checkpoints", "list"], "arguments were not provided: <PATH>"),
        ("a missing value", &["checkpoints", "inspect", "x", "--checkpoint"], "a value is required for"),
        ("a wrong value", &["checkpoints", "inspect", "x", "--checkpoint", "y"], "invalid value 'y'"),
        ("a size that is none", &["doctor", "--state", "1.5gb"], "invalid value '1.5gb'"),
        ("no time at all", &["doctor", "--limit", "0"], "invalid value '0'"),
        ("one path too many", &["savepoint", "verify", "x", "y"], "unexpected argument 'y' found"),
        ("flags that exclude each other", &["simulate", "--seed", "1", "--from", "2"], "cannot be used with"),
    ];
    for (case, args, message) in cases {
        let ran = cutwater(args);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{case}: {}", ran.err);
        assert!(ran.err.lines().any(|line| line.starts_with("error[CLI0005]: ")), "{case}: {}", ran.err);
        let said = ran.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(message.split("; ").all(|part| said.contains(part)), "{case}: {said}");
        let ran = cutwater(&[args, &["--json"]].concat());
        let document: serde_json::Value =
            serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{case}: {}", ran.out));
        assert_eq!((ran.code, &document["schema"]), (2, &"cutwater.error/1".into()), "{case}");
        assert_eq!((&document["code"], &document["exit_code"]), (&"CLI0005".into(), &2.into()), "{case}");
        let found = document["message"].as_str().unwrap();
        // To a command that lacks another, and to none, --json is what it does not know.
        assert!(found.contains(message) || found.contains("'--json'"), "{case}: {found}");
        assert!(!found.contains("Usage") && !found.contains('\n'), "{case}: {found}");
        assert!(ran.err.starts_with("error[CLI0005]: "), "{case}: {}", ran.err);
    }
    let behind = cutwater(&["nonsense", "--", "--json"]);
    assert_eq!((behind.code, behind.out.as_str()), (2, ""), "what stands behind -- is no flag");
}

#[test]
fn help_and_version_are_no_errors_and_fit_80_columns() {
    let commands: [&[&str]; 18] = [
        &[],
        &["checkpoints"],
        &["checkpoints", "list"],
        &["checkpoints", "inspect"],
        &["checkpoints", "history"],
        &["checkpoints", "gc"],
        &["checkpoints", "verify"],
        &["savepoint"],
        &["savepoint", "inspect"],
        &["savepoint", "verify"],
        &["savepoint", "copy"],
        &["savepoint", "delete"],
        &["config"],
        &["config", "show"],
        &["config", "explain"],
        &["doctor"],
        &["simulate"],
        &["help"],
    ];
    for command in commands {
        for flag in ["--help", "-h"] {
            let args = if command == ["help"] { command.to_vec() } else { [command, &[flag]].concat() };
            let ran = cutwater(&args);
            assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
            for line in ran.out.lines() {
                assert!(line.chars().count() <= 80, "{args:?}: {} columns: {line}", line.chars().count());
            }
            assert!(ran.out.contains("Usage: cutwater") && !ran.out.contains("error["), "{args:?}: {}", ran.out);
        }
    }
    let version = cutwater(&["--version"]);
    assert_eq!((version.code, version.out), (0, format!("cutwater {}\n", env!("CARGO_PKG_VERSION"))));
}
