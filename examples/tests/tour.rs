//! docs/tour.md: the code that it shows is that of the examples, and the output that of a run.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

#[expect(dead_code, reason = "its main is that of the step before")]
#[path = "../examples/tour_3_changed.rs"]
mod changed;
#[path = "../examples/tour_2_checkpoints.rs"]
mod checkpoints;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The blocks of the page that are in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// The lines of all files of a folder.
fn output(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    files.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn the_page_shows_code_that_compiles_and_what_it_writes() {
    let page = read("../docs/tour.md");
    let steps = ["tour_1_job", "tour_2_checkpoints", "tour_3_changed"].map(|step| read(&format!("examples/{step}.rs")));
    let for_tests = ["/// Public for the test that runs it.\n", "pub(crate) "];
    let code = for_tests.iter().fold(steps.join("\n"), |code, words| code.replace(words, ""));
    let code = code.replace("#[cfg(all(test, feature = \"simulation\"))]", "#[cfg(test)]");
    let shown = blocks(&page, "rust");
    assert_eq!(shown.len(), 6);
    for block in shown {
        assert!(code.contains(block.trim_end()), "none of the examples has this code of docs/tour.md:\n{block}");
    }

    let place = tempfile::tempdir().unwrap();
    env::set_current_dir(place.path()).unwrap(); // the other tests of this process have no relative paths
    let data = blocks(&page, "sh").into_iter().find(|block| block.contains("awk")).unwrap();
    assert!(Command::new("sh").args(["-c", data]).status().unwrap().success());
    for run in ["the first", "the second, which has nothing to do"] {
        checkpoints::main().unwrap();
        assert_eq!(output(Path::new("out")).len(), 69, "lines after {run} run");
    }
    let graph = changed::graph(changed::readings("readings.csv"), cutwater::file::lines_sink("more").create_folder());
    cutwater::run(graph.unwrap(), cutwater::Options::new()).unwrap();

    let lines = output(Path::new("more"));
    assert_eq!(lines.len(), 70);
    let lines: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
    assert!(output(Path::new("out")).iter().all(|line| lines.contains(line.as_str())));
    let claimed: Vec<&str> = page.lines().filter(|line| line.starts_with('m') && line.contains(" minute ")).collect();
    assert_eq!(claimed.len(), 3);
    for line in claimed.into_iter().chain(["m3 silent since second 399"]) {
        assert!(page.contains(line) && lines.contains(line), "{line}");
    }
}
