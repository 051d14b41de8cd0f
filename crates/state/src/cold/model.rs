use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cutwater_core::{KeyGroup, KeyGroupRange};
use serde::{Deserialize, Serialize};

use super::{
    ColdBatch, ColdError, ColdFound, ColdImage, ColdLoad, ColdState, ColdTier, ColdView, ColdVisitor, ImageFile,
    ImageSource, group_of_name, group_prefix, stamp_of_value,
};
use crate::{StateHeader, StateKind};

/// A cold tier in memory, for tests and simulations: what a tier has to do, without a disk.
#[derive(Debug)]
pub struct ModelTier {
    inner: Arc<Mutex<Inner>>,
    /// Entries of so many key groups are in a file of an image together.
    groups_in_file: u16,
}

impl Default for ModelTier {
    fn default() -> Self {
        Self::with_groups_in_file(16)
    }
}

#[derive(Debug, Default)]
struct Inner {
    states: Vec<Identity>,
    /// Shared with the views.
    entries: Arc<Entries>,
    /// The most entries there were after a write.
    most: usize,
}

/// Names and values in a file of an image.
type Held = Vec<(Vec<u8>, Vec<u8>)>;
type Identity = (String, String, StateKind);
type Entries = BTreeMap<(ColdState, Vec<u8>), Vec<u8>>;

impl Inner {
    fn state(&mut self, wanted: Identity) -> ColdState {
        let states = &mut self.states;
        let found = states.iter().position(|state| *state == wanted).unwrap_or_else(|| {
            states.push(wanted);
            states.len() - 1
        });
        ColdState(u32::try_from(found).expect("fewer states than 2^32"))
    }

    fn write(&mut self, state: ColdState, batch: &ColdBatch) {
        let entries = Arc::make_mut(&mut self.entries);
        for (name, value) in batch.iter() {
            match value {
                Some(value) => entries.insert((state, name.to_vec()), value.to_vec()),
                None => entries.remove(&(state, name.to_vec())),
            };
        }
        self.most = self.most.max(self.entries.len());
    }
}

/// Keeps what it gets until all of it is there.
#[derive(Debug)]
struct ModelLoad {
    inner: Arc<Mutex<Inner>>,
    state: ColdState,
    batches: Vec<ColdBatch>,
}

impl ColdLoad for ModelLoad {
    fn write(&mut self, batch: &ColdBatch) -> Result<(), ColdError> {
        self.batches.push(batch.clone());
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), ColdError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        self.batches.iter().for_each(|batch| inner.write(self.state, batch));
        Ok(())
    }
}

impl ModelTier {
    /// An empty one in whose images entries of so many key groups of a state, at least 1, are in a file together; 16 by default.
    #[must_use]
    pub fn with_groups_in_file(groups: u16) -> Self {
        Self { inner: Arc::default(), groups_in_file: groups.max(1) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many entries it has, of all states.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner().entries.len()
    }

    /// The most entries that it has ever had after a write, of all states.
    #[must_use]
    pub fn most(&self) -> usize {
        self.inner().most
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ColdTier for ModelTier {
    fn open(&self, header: &StateHeader) -> Result<ColdState, ColdError> {
        let wanted = (header.operator.as_str().to_owned(), header.name.clone(), header.kind);
        Ok(self.inner().state(wanted))
    }

    fn get(&self, state: ColdState, names: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<(), ColdError> {
        let inner = self.inner();
        for (at, name) in names.iter().enumerate() {
            if let Some(value) = inner.entries.get(&(state, name.to_vec())) {
                found(at, value);
            }
        }
        Ok(())
    }

    fn get_all(&self, state: ColdState, prefixes: &[&[u8]], found: &mut ColdFound<'_>) -> Result<(), ColdError> {
        let inner = self.inner();
        for (at, prefix) in prefixes.iter().enumerate() {
            let from = inner.entries.range((state, prefix.to_vec())..);
            for ((_, name), value) in from.take_while(|((of, name), _)| *of == state && name.starts_with(prefix)) {
                found(at, name, value);
            }
        }
        Ok(())
    }

    fn range(
        &self,
        state: ColdState,
        from: &[u8],
        last: KeyGroup,
        visit: &mut ColdVisitor<'_>,
    ) -> Result<(), ColdError> {
        visit_range(&self.inner().entries, state, from, last, visit);
        Ok(())
    }

    fn write(&self, state: ColdState, batch: &ColdBatch) -> Result<(), ColdError> {
        self.inner().write(state, batch);
        Ok(())
    }

    fn load(&self, state: ColdState) -> Result<Option<Box<dyn ColdLoad>>, ColdError> {
        Ok(Some(Box::new(ModelLoad { inner: Arc::clone(&self.inner), state, batches: Vec::new() })))
    }

    fn view(&self) -> Result<Box<dyn ColdView>, ColdError> {
        Ok(Box::new(ModelView { entries: Arc::clone(&self.inner().entries) }))
    }

    fn image(&self) -> Result<Option<Box<dyn ColdImage>>, ColdError> {
        let inner = self.inner();
        let mut groups: BTreeMap<_, Vec<(&[u8], &[u8])>> = BTreeMap::new();
        for ((state, name), value) in &*inner.entries {
            let some = group_of_name(name).map_or(-1, |group| i32::from(group.0 / self.groups_in_file));
            groups.entry((*state, some)).or_default().push((name, value));
        }
        let mut files = vec![("STATES".to_owned(), false, encoded(&inner.states)?)];
        for ((ColdState(state), group), entries) in groups {
            let content = encoded(&(&inner.states[state as usize], entries))?;
            // The sum of what it holds is in its name, so that it lasts.
            files.push((format!("{state}-{group}-{:08x}", crc32c::crc32c(&content)), true, content));
        }
        files.sort_unstable();
        let listed = files.iter().map(|(name, lasting, content)| ImageFile {
            name: name.clone(),
            bytes: content.len() as u64,
            lasting: *lasting,
        });
        let listed = listed.collect();
        Ok(Some(Box::new(ModelImage { listed, contents: files.into_iter().map(|(_, _, content)| content).collect() })))
    }

    fn import(&self, images: &[&dyn ImageSource], groups: KeyGroupRange) -> Result<Option<usize>, ColdError> {
        let mut inner = self.inner();
        for image in images {
            for (at, file) in image.files().iter().enumerate() {
                let read = Arc::new(Mutex::new(Vec::new()));
                image.read(at, &mut || {
                    read.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    Ok(Box::new(Shared(Arc::clone(&read))))
                })?;
                let content = std::mem::take(&mut *read.lock().unwrap_or_else(PoisonError::into_inner));
                if !file.lasting {
                    for state in decoded::<Vec<Identity>>(&content, file)? {
                        inner.state(state);
                    }
                    continue;
                }
                let (state, held): (Identity, Held) = decoded(&content, file)?;
                let state = inner.state(state);
                let entries = Arc::make_mut(&mut inner.entries);
                for (name, value) in held {
                    if group_of_name(&name).is_some_and(|group| groups.contains(group)) {
                        entries.insert((state, name), value);
                    }
                }
            }
        }
        Ok((images.len() == 1).then_some(0))
    }

    fn about(&self, state: ColdState) -> Result<u64, ColdError> {
        let inner = self.inner();
        let entries = inner.entries.range((state, Vec::new())..).take_while(|((of, _), _)| *of == state);
        Ok(entries.count() as u64)
    }

    /// All of them go at once.
    fn expire(&self, state: ColdState, horizon: i64) {
        let mut inner = self.inner();
        let has_expired = |value: &[u8]| stamp_of_value(value).is_some_and(|stamp| stamp <= horizon);
        let of_state = (state, Vec::new())..(ColdState(state.0 + 1), Vec::new());
        if inner.entries.range(of_state).any(|(_, value)| has_expired(value)) {
            Arc::make_mut(&mut inner.entries).retain(|(of, _), value| *of != state || !has_expired(value));
        }
    }

    fn keep_only(&self, states: &[ColdState]) -> Result<(), ColdError> {
        let kept: BTreeSet<_> = states.iter().collect();
        Arc::make_mut(&mut self.inner().entries).retain(|(state, _), _| kept.contains(state));
        Ok(())
    }
}

fn encoded<T: Serialize>(value: &T) -> Result<Vec<u8>, ColdError> {
    let failed =
        |error: postcard::Error| ColdError { action: "make an image".into(), reason: error.to_string().into() };
    postcard::to_allocvec(value).map_err(failed)
}

fn decoded<T: for<'a> Deserialize<'a>>(content: &[u8], file: &ImageFile) -> Result<T, ColdError> {
    let failed = |error: postcard::Error| ColdError {
        action: format!("read the file {} of an image", file.name).into(),
        reason: error.to_string().into(),
    };
    postcard::from_bytes(content).map_err(failed)
}

/// A file that is being read into memory.
struct Shared(Arc<Mutex<Vec<u8>>>);

impl io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct ModelImage {
    listed: Vec<ImageFile>,
    contents: Vec<Vec<u8>>,
}

impl ColdImage for ModelImage {
    fn files(&self) -> &[ImageFile] {
        &self.listed
    }

    fn open(&self, file: usize) -> io::Result<Box<dyn io::Read + Send>> {
        let content = self.contents.get(file).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(content)))
    }
}

#[derive(Debug)]
struct ModelView {
    entries: Arc<Entries>,
}

impl ColdView for ModelView {
    fn scan(&self, state: ColdState, groups: KeyGroupRange, visit: &mut ColdVisitor<'_>) -> Result<(), ColdError> {
        visit_range(&self.entries, state, &group_prefix(groups.first), groups.last, visit);
        Ok(())
    }
}

fn visit_range(entries: &Entries, state: ColdState, from: &[u8], last: KeyGroup, visit: &mut ColdVisitor<'_>) {
    let last = group_prefix(last);
    for ((found, name), value) in entries.range((state, from.to_vec())..) {
        if *found != state || name[..] > last[..] && !name.starts_with(&last) {
            break;
        }
        // A name without a whole group is in none.
        if name.len() >= 2 && visit(name, value).is_break() {
            break;
        }
    }
}
