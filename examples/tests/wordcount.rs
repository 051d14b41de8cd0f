//! The first example: README.md begins with it, and it does what it says.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

#[path = "../examples/wordcount.rs"]
mod wordcount;

#[test]
fn the_readme_begins_with_the_example_which_counts_each_word_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(folder.join("../README.md")).unwrap();
    let shown = readme.split("```rust,no_run\n").nth(1).unwrap().split("```").next().unwrap();
    let example = fs::read_to_string(folder.join("examples/wordcount.rs")).unwrap();
    let code: String = example.split_inclusive('\n').skip_while(|line| !line.starts_with("use ")).collect();
    let code = code.replace("/// Public for the test that runs it.\npub(crate) fn main", "fn main");
    assert_eq!(shown, code, "README.md and examples/examples/wordcount.rs differ");

    let place = tempfile::tempdir().unwrap();
    env::set_current_dir(place.path()).unwrap(); // the only test of this process
    fs::create_dir("docs").unwrap();
    fs::write("README.md", "The cat and the hat\n").unwrap();
    fs::write("docs/more.md", "the hat,\n\nand no cat\n").unwrap();
    for run in ["the first", "the second, which has nothing to do"] {
        wordcount::main().unwrap();
        let mut counts = BTreeMap::new();
        for file in fs::read_dir("out/wordcount").unwrap() {
            for line in fs::read_to_string(file.unwrap().path()).unwrap().lines() {
                let (count, word) = line.split_once(' ').unwrap();
                assert_eq!(
                    counts.insert(word.to_owned(), count.parse().unwrap()),
                    None,
                    "{word} twice after {run} run"
                );
            }
        }
        let expected = [("and", 2), ("cat", 2), ("hat", 1), ("hat,", 1), ("no", 1), ("the", 3)];
        assert_eq!(counts, expected.map(|(word, count)| (word.to_owned(), count)).into(), "after {run} run");
    }
}
