//! The files of a tier below the tables, as a checkpoint stores them and a restore reads them. They are numbered as they come, so
//! that another tier has files of the same names.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};

use cutwater_core::KeyGroupRange;
use cutwater_state::{ColdError, ColdImage, ImageFile, ImageSource, MakeFile};

/// Lists the lasting files, and says which number came last. It is another one with each image, and has the same name.
const MANIFEST: &str = "MANIFEST";

/// Which files a tier has.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    last: u32,
    /// Those of the newest image, by content.
    known: BTreeMap<Vec<u8>, u32>,
}

/// A tier as it was once.
#[derive(Clone, Debug)]
pub(crate) struct TierImage {
    pub(crate) files: Vec<ImageFile>,
    pub(crate) contents: Vec<Vec<u8>>,
}

impl Numbers {
    /// Names the files of an image: one that is in the image before keeps its name.
    pub(crate) fn name(&mut self, image: &dyn ColdImage) -> io::Result<TierImage> {
        let mut known = BTreeMap::new();
        let mut files = Vec::new();
        for (at, file) in image.files().iter().enumerate() {
            let mut content = Vec::new();
            image.open(at)?.read_to_end(&mut content)?;
            if !file.lasting {
                files.push((file.name.clone(), false, content));
                continue;
            }
            let number = self.known.get(&content).copied().unwrap_or(self.last + 1);
            self.last = self.last.max(number);
            known.insert(content.clone(), number);
            files.push((format!("{number:06}"), true, content));
        }
        self.known = known;
        files.push((MANIFEST.to_owned(), false, self.manifest().into_bytes()));
        files.sort_unstable();
        let listed = files.iter().map(|(name, lasting, content)| ImageFile {
            name: name.clone(),
            bytes: content.len() as u64,
            lasting: *lasting,
        });
        let listed = listed.collect();
        Ok(TierImage { files: listed, contents: files.into_iter().map(|(_, _, content)| content).collect() })
    }

    fn manifest(&self) -> String {
        let mut files: Vec<_> = self.known.iter().map(|(content, number)| (number, content.len())).collect();
        files.sort_unstable();
        let listed = files.into_iter().map(|(number, bytes)| format!("{number:06} {bytes}\n"));
        format!("{}\n{}", self.last, listed.collect::<String>())
    }

    /// Those of the tier that this image is of; an error if it is none.
    fn of(image: &ReadImage) -> Result<Self, ColdError> {
        let wrong = |reason: &str| ColdError { action: "take over an image".into(), reason: reason.into() };
        let (mut last, mut known) = (None, BTreeMap::new());
        for (file, content) in image.files.iter().zip(&image.contents) {
            let Some(content) = content else { return Err(wrong("a file can't be read")) };
            if file.lasting {
                known.insert(content.clone(), file.name.parse().map_err(|_| wrong("a file has no number"))?);
            } else if file.name == MANIFEST {
                let first = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
                last = str::from_utf8(first).ok().and_then(|number| number.parse().ok());
            }
        }
        let found = Self { last: last.ok_or_else(|| wrong("it has no manifest"))?, known };
        let is_manifest = |(file, _): &(&ImageFile, &Option<Vec<u8>>)| file.name == MANIFEST;
        let manifest =
            image.files.iter().zip(&image.contents).find(is_manifest).and_then(|(_, content)| content.as_ref());
        match manifest == Some(&found.manifest().into_bytes()) {
            true => Ok(found),
            false => Err(wrong("its files are not those of the manifest")),
        }
    }
}

/// An image that is being read from a checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct ReadImage {
    pub(crate) files: Vec<ImageFile>,
    /// What has been read of them.
    pub(crate) contents: Vec<Option<Vec<u8>>>,
    /// The key groups of the subtask that it was of.
    pub(crate) groups: KeyGroupRange,
}

impl ReadImage {
    /// The files of the model, and what numbers they have.
    pub(crate) fn open(&self) -> (Self, Result<Numbers, ColdError>) {
        let files = self.files.iter().zip(&self.contents).filter(|(file, _)| file.name != MANIFEST);
        let (files, contents) = files.map(|(file, content)| (file.clone(), content.clone())).unzip();
        (Self { files, contents, groups: self.groups }, Numbers::of(self))
    }
}

impl ImageSource for ReadImage {
    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn groups(&self) -> KeyGroupRange {
        self.groups
    }

    fn read(&self, file: usize, make: &mut MakeFile<'_>) -> Result<(), ColdError> {
        let failed = |reason: Box<str>| ColdError { action: "read a file of an image".into(), reason };
        let Some(content) = &self.contents[file] else { return Err(failed("it is not there".into())) };
        make().and_then(|mut to| to.write_all(content)).map_err(|error| failed(error.to_string().into()))
    }
}

#[cfg(test)]
mod tests {
    use cutwater_core::MaxParallelism;
    use cutwater_core::OperatorUid;
    use cutwater_state::{ColdBatch, ColdTier, ModelTier, Snapshotable, StateHeader, Table, TableSpec, group_prefix};

    use super::*;

    fn header() -> StateHeader {
        let max_parallelism = MaxParallelism::new(4).unwrap();
        let operator = OperatorUid::new("count").unwrap();
        let spec = TableSpec { operator, name: "n".to_owned(), max_parallelism, key_groups: max_parallelism.all() };
        Table::<u64, u64>::new(spec).header()
    }

    fn put(tier: &ModelTier, group: u16, value: &[u8]) {
        let state = tier.open(&header()).unwrap();
        let mut batch = ColdBatch::default();
        batch.put(&[&group_prefix(cutwater_core::KeyGroup(group))[..], b"key"].concat(), value);
        tier.write(state, &batch).unwrap();
    }

    fn lasting(image: &TierImage) -> Vec<&str> {
        image.files.iter().filter(|file| file.lasting).map(|file| file.name.as_str()).collect()
    }

    fn read(image: &TierImage) -> ReadImage {
        let contents = image.contents.iter().cloned().map(Some).collect();
        ReadImage { files: image.files.clone(), contents, groups: MaxParallelism::new(4).unwrap().all() }
    }

    #[test]
    fn a_file_keeps_its_number_and_whoever_goes_on_counts_on() {
        let tier = ModelTier::with_groups_in_file(2);
        let mut numbers = Numbers::default();
        put(&tier, 0, b"a");
        put(&tier, 2, b"b");
        let first = numbers.name(&*tier.image().unwrap().unwrap()).unwrap();
        assert_eq!(lasting(&first), ["000001", "000002"]);
        put(&tier, 3, b"c");
        let second = numbers.name(&*tier.image().unwrap().unwrap()).unwrap();
        assert_eq!(lasting(&second), ["000001", "000003"]);

        let (model, found) = read(&first).open();
        assert_eq!(model.files.len() + 1, first.files.len(), "the model knows of no manifest");
        let on = ModelTier::with_groups_in_file(2);
        assert_eq!(on.import(&[&model], model.groups).unwrap(), Some(0));
        put(&on, 3, b"d");
        let other = found.unwrap().name(&*on.image().unwrap().unwrap()).unwrap();
        assert_eq!(lasting(&other), ["000001", "000003"], "a name comes again after a restore");
        assert_ne!(other.contents[1], second.contents[1]);
    }

    #[test]
    fn files_that_are_not_those_of_the_manifest_are_no_image() {
        let tier = ModelTier::with_groups_in_file(2);
        let mut numbers = Numbers::default();
        put(&tier, 0, b"a");
        let first = numbers.name(&*tier.image().unwrap().unwrap()).unwrap();
        put(&tier, 2, b"b");
        let second = numbers.name(&*tier.image().unwrap().unwrap()).unwrap();
        let manifest = |image: &TierImage| image.files.iter().position(|file| file.name == MANIFEST).unwrap();
        let mut mixed = read(&second);
        mixed.contents[manifest(&second)] = Some(first.contents[manifest(&first)].clone());
        assert!(mixed.open().1.unwrap_err().to_string().contains("not those of the manifest"));
        let mut cut = read(&second);
        cut.contents[0] = None;
        assert!(cut.open().1.is_err());
    }
}
