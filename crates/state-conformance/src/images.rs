//! One function for each sentence of the contract of a [`ColdTier`] that is about its images. Each panics if a tier breaks it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write};

use cutwater_core::KeyGroupRange;
use cutwater_state::{ColdBatch, ColdError, ColdState, ColdTier, ImageFile, ImageSource, MakeFile, StateKind};

use crate::cold::{Entries, contents, get, groups, header, many_loaded, name_of, open, put, write};

/// An image that was stored.
#[derive(Clone, Debug)]
struct Stored {
    files: Vec<ImageFile>,
    contents: Vec<Vec<u8>>,
    groups: KeyGroupRange,
}

impl ImageSource for Stored {
    fn files(&self) -> &[ImageFile] {
        &self.files
    }

    fn groups(&self) -> KeyGroupRange {
        self.groups
    }

    fn read(&self, file: usize, make: &mut MakeFile<'_>) -> Result<(), ColdError> {
        let failed =
            |error: std::io::Error| ColdError { action: "write a file".into(), reason: error.to_string().into() };
        // What came wrong is written anew.
        make().and_then(|mut first| first.write_all(b"damaged on its way")).map_err(failed)?;
        let mut to = make().map_err(failed)?;
        to.write_all(&self.contents[file]).and_then(|()| to.flush()).map_err(failed)
    }
}

/// An image of the tier, which has no entries outside of these groups.
fn image<T: ColdTier>(tier: &T, groups: KeyGroupRange) -> Stored {
    let image = tier.image().expect("there can be an image").expect("the tier has images");
    let read = |(at, file): (usize, &ImageFile)| {
        let mut content = Vec::new();
        image.open(at).and_then(|mut reader| reader.read_to_end(&mut content)).expect("it can be read");
        assert_eq!(content.len() as u64, file.bytes, "the length of {}", file.name);
        content
    };
    let contents = image.files().iter().enumerate().map(read).collect();
    let files = image.files().to_vec();
    assert!(files.is_sorted_by(|one, other| one.name < other.name), "names rise, and none is twice there: {files:?}");
    Stored { files, contents, groups }
}

fn imported<T: ColdTier>(make: impl Fn() -> T, images: &[&Stored], wanted: KeyGroupRange) -> (T, Option<usize>) {
    let tier = make();
    let images: Vec<&dyn ImageSource> = images.iter().map(|image| *image as &dyn ImageSource).collect();
    let goes_on = tier.import(&images, wanted).expect("they can be imported");
    (tier, goes_on)
}

fn of_groups(entries: &Entries, wanted: KeyGroupRange) -> Entries {
    let is_in = |name: &[u8]| (wanted.first.0..=wanted.last.0).contains(&u16::from_be_bytes([name[0], name[1]]));
    entries.iter().filter(|(name, _)| is_in(name)).cloned().collect()
}

/// What is written later is not in it.
fn disturb<T: ColdTier>(tier: &T, state: ColdState, entries: &Entries) {
    let mut batch = ColdBatch::default();
    for (n, (name, _)) in entries.iter().enumerate() {
        if n % 2 == 0 { batch.put(name, b"later") } else { batch.delete(name) }
    }
    tier.write(state, &batch).expect("it can be written");
}

/// One is the tier as it was at the call, whatever is written later.
pub fn an_image_is_the_tier_as_it_was_at_the_call<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let (state, empty) = (open(&tier, "state"), open(&tier, "empty"));
    let expected = many_loaded(&tier, state);
    let other = tier.open(&header("other", "state", StateKind::Map)).expect("a state can be opened");
    put(&tier, other, &name_of(3, b"key"), b"value");
    let made = tier.image().expect("there can be an image").expect("the tier has images");
    disturb(&tier, state, &expected);
    put(&tier, empty, &name_of(3, b"key"), b"later");
    let later = image(&tier, groups(0, 9));
    let read = |at: usize| {
        let mut content = Vec::new();
        made.open(at).and_then(|mut reader| reader.read_to_end(&mut content)).expect("it can be read");
        content
    };
    let contents_of = (0..made.files().len()).map(read).collect();
    let first = Stored { files: made.files().to_vec(), contents: contents_of, groups: groups(0, 9) };
    drop((made, tier));
    let (restored, _) = imported(&make, &[&first], groups(0, 9));
    assert_eq!(contents(&restored, open(&restored, "state")), expected);
    assert_eq!(contents(&restored, open(&restored, "empty")), []);
    let other = restored.open(&header("other", "state", StateKind::Map)).expect("a state can be opened");
    assert_eq!(get(&restored, other, &name_of(3, b"key")), Some(b"value".to_vec()));
    let (restored, _) = imported(&make, &[&later], groups(0, 9));
    assert_eq!(contents(&restored, open(&restored, "empty")).len(), 1);
    assert_eq!(contents(&restored, open(&restored, "state")).len(), expected.len().div_ceil(2));
}

/// A part of it gives the entries of the groups asked for, and no others, which can be written again.
pub fn a_part_of_an_image_is_imported<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let expected = many_loaded(&tier, open(&tier, "state"));
    let whole = image(&tier, groups(0, 9));
    for wanted in [groups(0, 0), groups(0, 4), groups(5, 9), groups(3, 6), groups(9, 9), groups(0, 12), groups(20, 30)]
    {
        let (part, _) = imported(&make, &[&whole], wanted);
        let state = open(&part, "state");
        assert_eq!(contents(&part, state), of_groups(&expected, wanted), "{wanted}");
        for (name, value) in expected.iter().step_by(97) {
            let found = get(&part, state, name);
            assert_eq!(found.as_ref() == Some(value), !of_groups(&vec![(name.clone(), vec![])], wanted).is_empty());
        }
        let name = name_of(wanted.first.0, b"a new one");
        put(&part, state, &name, b"new");
        write(&part, state, &[(&expected[0].0, Some(b"changed"))]);
        assert_eq!(get(&part, state, &name), Some(b"new".to_vec()));
        assert_eq!(get(&part, state, &expected[0].0), Some(b"changed".to_vec()));
    }
}

/// Parts of several images are imported together, whether these were parts of others before or not, and however often.
pub fn parts_of_several_images_are_imported_together<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let expected = many_loaded(&tier, open(&tier, "state"));
    put(&tier, open(&tier, "other"), &name_of(7, b"key"), b"value");
    let whole = image(&tier, groups(0, 9));
    let cases = [vec![groups(0, 4), groups(5, 9)], vec![groups(0, 2), groups(3, 3), groups(4, 8), groups(9, 9)]];
    for parts in cases {
        let parts: Vec<_> = parts
            .into_iter()
            .map(|part| {
                let (tier, _) = imported(&make, &[&whole], part);
                let state = open(&tier, "state");
                // Changed in each part, so that these have newer files than what they have in common.
                let mut batch = ColdBatch::default();
                for (name, value) in &of_groups(&expected, part) {
                    batch.put(name, &[&value[..], b"!"].concat());
                }
                tier.write(state, &batch).expect("it can be written");
                image(&tier, part)
            })
            .collect();
        let changed: Entries =
            expected.iter().map(|(name, value)| (name.clone(), [&value[..], b"!"].concat())).collect();
        for wanted in [groups(0, 9), groups(0, 3), groups(2, 7)] {
            let sources: Vec<_> = parts.iter().collect();
            let (together, _) = imported(&make, &sources, wanted);
            let state = open(&together, "state");
            assert_eq!(contents(&together, state), of_groups(&changed, wanted), "{wanted} of {} parts", parts.len());
            let other = contents(&together, open(&together, "other"));
            assert_eq!(other.len(), usize::from(wanted.last.0 >= 7), "{wanted}");
            put(&together, state, &expected[0].0, b"changed");
            assert_eq!(get(&together, state, &expected[0].0), Some(b"changed".to_vec()));
            // And once more.
            let again = image(&together, wanted);
            let (again, _) = imported(&make, &[&again], groups(0, 9));
            assert_eq!(contents(&again, open(&again, "other")), other);
        }
    }
}

fn check_lasting(images: &[&Stored]) {
    let mut known = BTreeMap::new();
    for image in images {
        for (file, content) in image.files.iter().zip(&image.contents).filter(|(file, _)| file.lasting) {
            let before = known.insert((&file.name, file.bytes), content);
            assert!(before.is_none_or(|before| before == content), "{} is another", file.name);
        }
    }
}

/// A lasting file of an image has the same bytes in every other image of the tier that has one of its name and length.
pub fn lasting_files_of_a_name_are_the_same<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let state = open(&tier, "state");
    let mut images = Vec::new();
    for round in 0..6_u8 {
        let entries = many_loaded(&tier, state);
        put(&tier, state, &name_of(2, &[round]), b"value");
        images.push(image(&tier, groups(0, 9)));
        disturb(&tier, state, &entries);
        images.push(image(&tier, groups(0, 9)));
    }
    check_lasting(&images.iter().collect::<Vec<_>>());
    let lasting = |image: &Stored| image.files.iter().filter(|file| file.lasting).count();
    assert!(images.iter().all(|image| lasting(image) > 0), "what is written lies in lasting files");
}

/// The same if the tier goes on from an image, which one says that was imported alone.
pub fn a_tier_goes_on_from_an_image<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let entries = many_loaded(&tier, open(&tier, "state"));
    let first = image(&tier, groups(0, 9));
    for wanted in [groups(0, 9), groups(0, 4)] {
        let (next, goes_on) = imported(&make, &[&first], wanted);
        assert_eq!(goes_on, Some(0), "{wanted}");
        let state = open(&next, "state");
        let second = image(&next, wanted);
        disturb(&next, state, &entries);
        many_loaded(&next, state);
        let third = image(&next, wanted);
        check_lasting(&[&first, &second, &third]);
    }
}

/// States that nobody has are forgotten: they are in no image any more.
pub fn states_that_nobody_has_are_forgotten<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    let expected = many_loaded(&tier, open(&tier, "state"));
    many_loaded(&tier, open(&tier, "other"));
    let both = image(&tier, groups(0, 9));
    let (restored, _) = imported(&make, &[&both], groups(0, 9));
    let state = open(&restored, "state");
    restored.keep_only(&[state]).expect("states can be forgotten");
    assert_eq!(contents(&restored, state), expected);
    let (again, _) = imported(&make, &[&image(&restored, groups(0, 9))], groups(0, 9));
    assert_eq!(contents(&again, open(&again, "state")), expected);
    assert_eq!(contents(&again, open(&again, "other")), []);
}

/// An image of which the files that say what it is are others is an error.
pub fn a_damaged_image_is_an_error<T: ColdTier>(make: impl Fn() -> T) {
    let tier = make();
    many_loaded(&tier, open(&tier, "state"));
    let mut damaged = image(&tier, groups(0, 9));
    let at = damaged.files.iter().position(|file| !file.lasting).expect("something says what it is");
    damaged.contents[at] = vec![0xff; 40];
    make().import(&[&damaged], groups(0, 9)).expect_err("it is damaged");
}
