//! Counts the words in this repository's documents: `cargo run --example wordcount`, from its folder. README.md begins
//! with this code.

use std::time::Duration;

use cutwater::prelude::*;

/// Public for the test that runs it.
pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let job = Job::new("wordcount");
    job.source("documents", file::lines(file::glob("*.md")).and(file::glob("docs/*.md")))
        .flat_map(|line: String| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
        .key_by(|word| word.clone())
        .process_with_timers("counts", count, print)
        .sink("out", file::lines_sink("out/wordcount").create_folder());

    let settings = Settings::new().enable_checkpointing(Duration::from_secs(1)).checkpoint_storage("checkpoints");
    let options = Options::from_config(&Config::new().code(settings).resolve()?)?;
    cutwater::run(job.build()?, options)?; // killed? The same command goes on where the last checkpoint was.
    Ok(())
}

fn count(word: &mut ProcessContext<'_, String, u64, String>, _: String) -> Result<(), UserError> {
    *word.state()? += 1;
    Ok(word.register_timer(Timestamp::MAX)?) // fires when all documents have been read
}

fn print(word: &mut ProcessContext<'_, String, u64, String>, _: Timestamp) -> Result<(), UserError> {
    let count = *word.state()?;
    word.emit(format!("{count} {}", word.key()));
    Ok(())
}
