//! Images of tiers on their way into the store, and out of it.

use std::collections::VecDeque;

use cutwater_coordinator::FileRef;
use cutwater_driver::{Place, Stored};
use cutwater_state::Block;
use cutwater_state::format::{NativeIndex, NativeState};

use crate::image::{ReadImage, TierImage};
use crate::process::Upload;

/// What a tier had at the end of a snapshot, as files.
pub(crate) struct Native {
    pub(crate) states: Vec<NativeState>,
    pub(crate) image: TierImage,
    /// The same as blocks, for the oracle.
    pub(crate) blocks: Vec<Block>,
}

/// An image on its way into the store.
pub(crate) struct Storing {
    /// The files of the snapshot besides.
    pub(crate) beside: Vec<FileRef>,
    pub(crate) places: Vec<Place>,
    /// What is where it is to be, and the places of what is still to be stored.
    pub(crate) stored: Vec<Option<Stored>>,
    pub(crate) to_store: VecDeque<usize>,
}

/// So many files of an image are stored at once.
const AT_ONCE: usize = 4;

impl Storing {
    /// Whether some of its files were stored just now, and others are still to be.
    pub(crate) fn is_begun(&self) -> bool {
        let done = |(place, stored): (&Place, &Option<Stored>)| matches!(place, Place::Object(_)) && stored.is_some();
        !self.to_store.is_empty() && self.places.iter().zip(&self.stored).any(done)
    }

    /// The names of those that have been stored just now, or may be on their way.
    pub(crate) fn begun(&self) -> impl Iterator<Item = &String> {
        let later: Vec<usize> = self.to_store.iter().copied().skip(AT_ONCE).collect();
        self.places.iter().enumerate().filter_map(move |(at, place)| match place {
            Place::Object(name) if !later.contains(&at) => Some(name),
            Place::Object(_) | Place::Index | Place::Shared(_) => None,
        })
    }

    /// The places of the files that may be on their way.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = usize> + '_ {
        self.to_store.iter().copied().take(AT_ONCE)
    }

    /// The places of those that may be on their way beside one that has just come to its end.
    pub(crate) fn still_under_way(&self) -> impl Iterator<Item = usize> + '_ {
        self.to_store.iter().copied().take(AT_ONCE - 1)
    }
}

impl Upload {
    /// The object that a file of its image becomes.
    pub(crate) fn object(&self, storing: &Storing, at: usize) -> Option<(String, Vec<u8>)> {
        match storing.places.get(at)? {
            Place::Object(name) => Some((name.clone(), self.native.as_ref()?.image.contents.get(at)?.clone())),
            Place::Index | Place::Shared(_) => None,
        }
    }
}

/// Images that are being read from a checkpoint.
pub(crate) struct Reading {
    pub(crate) images: Vec<(NativeIndex, Vec<Option<FileRef>>, ReadImage)>,
}

impl Reading {
    /// The file that is read next: of which image, its place there, and where it is stored.
    pub(crate) fn next(&self) -> Option<(usize, usize, &FileRef)> {
        let images = self.images.iter().enumerate();
        let mut unread = images.flat_map(|(image, (_, stored, read))| {
            let files = stored.iter().zip(&read.contents).enumerate();
            files
                .filter(|(_, (_, content))| content.is_none())
                .filter_map(move |(at, (stored, _))| Some((image, at, stored.as_ref()?)))
        });
        unread.next()
    }

    /// Whether a file of them has been read that is not in the index.
    pub(crate) fn is_begun(&self) -> bool {
        let mut files = self.images.iter().flat_map(|(_, stored, read)| stored.iter().zip(&read.contents));
        files.any(|(stored, content)| stored.is_some() && content.is_some())
    }
}
