//! What is prepared, published and left of the output.

use std::path::{Path, PathBuf};

use cutwater_core::{CheckpointId, Epoch};
use cutwater_storage::Files;

use super::Oracle;
use crate::job::OUT;
use crate::marks::Mark;
use crate::shared::Rule;

impl Oracle {
    /// A durable checkpoint names this prepared output.
    pub(super) fn name_output(&mut self, checkpoint: CheckpointId, handle: &[u8]) {
        let names = handle.split_first().and_then(|(_, body)| postcard::take_from_bytes::<(String, String)>(body).ok());
        let Some(((temporary, name), _)) = names else { return };
        match self.finals.entry(name.clone()) {
            std::collections::btree_map::Entry::Occupied(_) => self.shared.hit(Mark::HandlesCarriedOn),
            std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(checkpoint)),
        }
        self.named.insert(temporary, name);
    }

    /// A file of the output got its final name.
    pub(crate) fn published(&mut self, path: &Path) {
        let name = file_name(path);
        if self.bygone.contains(&name) {
            // By somebody who slept: whoever has moved the others away moves it too.
            let _ = self.disk.unlink(path);
            let _ = self.disk.sync_folder(Path::new(OUT));
            return;
        }
        match self.finals.get(&name) {
            Some(_) => self.shared.hit(Mark::OutputPublished),
            None => self.violated(Rule::Commit, || format!("{name} is published, and no durable checkpoint names it")),
        }
        self.read_lines(name);
    }

    pub(super) fn read_lines(&mut self, name: String) {
        let Some(text) = self.content(&name) else { return };
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if let Err(detail) = self.judge.check_file(&name, &lines, self.newest) {
            self.violated(Rule::Out, || format!("{name}: {detail}"));
        }
        self.lines.insert(name, lines);
    }

    fn content(&self, name: &str) -> Option<String> {
        let file = self.disk.open(&Path::new(OUT).join(name)).ok()?;
        let mut bytes = vec![0; usize::try_from(file.len()).ok()?];
        file.read_at(0, &mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A temporary name was removed.
    pub(crate) fn removed(&mut self, path: &Path) {
        let temporary = file_name(path);
        match self.named.get(&temporary) {
            Some(name) if !self.lines.contains_key(name) && !self.gone.contains(name) => {
                let name = name.clone();
                self.violated(Rule::Commit, || format!("{name} is durable, unpublished, and its file is removed"));
            }
            Some(_) => {}
            None => self.shared.hit(Mark::LeftoverSwept),
        }
    }

    /// A driver was told that the output of this checkpoint is published.
    pub(crate) fn told_published(&mut self, epoch: Epoch, checkpoint: CheckpointId) {
        if epoch < self.anew {
            return; // of before the job began anew
        }
        let named = self.finals.iter().filter(|(_, of)| **of <= checkpoint);
        let missing = named.clone().find(|(name, _)| !self.lines.contains_key(*name) && !self.gone.contains(*name));
        if let Some((name, _)) = missing {
            let name = name.clone();
            self.violated(Rule::Commit, || format!("{name} should be published with checkpoint {checkpoint}"));
        }
        let names: Vec<String> = named.map(|(name, _)| name.clone()).collect();
        self.settled.extend(names.into_iter().filter(|name| !self.gone.contains(name)));
        if let Err(detail) = self.judge.check_published(checkpoint) {
            self.violated(Rule::Out, || format!("after checkpoint {checkpoint} was published: {detail}"));
        }
    }

    /// Names below the output folder that were not published.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let entries = self.disk.list_folder(Path::new(OUT)).unwrap_or_default();
        entries
            .into_iter()
            .map(|entry| PathBuf::from(entry.name))
            .filter(|name| file_name(name).starts_with('.') && !self.excused.contains(&file_name(name)))
            .collect()
    }
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
}
