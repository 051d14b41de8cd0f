//! A tier in a temporary folder that goes with it.
#![allow(dead_code, reason = "each test file uses a part")]

use std::sync::Arc;

use cutwater_core::{Attempt, Epoch, KeyGroup, KeyGroupRange, MaxParallelism, OperatorUid, SubtaskId, TaskId};
use cutwater_rocksdb::{RocksBudget, RocksDbBackend, RocksTier};
use cutwater_state::{
    CodecId, ColdBatch, ColdError, ColdFound, ColdImage, ColdLoad, ColdState, ColdTier, ColdView, ColdVisitor,
    ImageSource, Schema, StateBackend as _, StateHeader, StateKind, TierOwner,
};
use tempfile::TempDir;

pub(crate) fn header(name: &str, kind: StateKind) -> StateHeader {
    StateHeader {
        operator: OperatorUid::new("operator").expect("a valid uid"),
        name: name.to_owned(),
        kind,
        key_codec: CodecId::Bytes,
        key_schema: Schema::Bytes,
        value_codec: CodecId::Bytes,
        value_schema: Schema::Bytes,
        max_parallelism: MaxParallelism::default(),
    }
}

#[derive(Debug)]
pub(crate) struct TempTier {
    pub(crate) tier: RocksTier,
    pub(crate) folder: TempDir,
}

impl TempTier {
    pub(crate) fn new() -> Self {
        Self::with(&RocksBudget::new(8 << 20, 128 << 20))
    }

    pub(crate) fn tiny() -> Self {
        Self::with(&RocksBudget::new(64 << 10, 64 << 10))
    }

    fn with(budget: &RocksBudget) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { tier: RocksTier::create(folder.path(), budget).expect("an empty folder"), folder }
    }
}

impl ColdTier for TempTier {
    fn open(&self, header: &StateHeader) -> Result<ColdState, ColdError> {
        self.tier.open(header)
    }

    fn get(&self, state: ColdState, names: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<(), ColdError> {
        self.tier.get(state, names, found)
    }

    fn get_all(&self, state: ColdState, prefixes: &[&[u8]], found: &mut ColdFound<'_>) -> Result<(), ColdError> {
        self.tier.get_all(state, prefixes, found)
    }

    fn range(
        &self,
        state: ColdState,
        from: &[u8],
        last: KeyGroup,
        visit: &mut ColdVisitor<'_>,
    ) -> Result<(), ColdError> {
        self.tier.range(state, from, last, visit)
    }

    fn write(&self, state: ColdState, batch: &ColdBatch) -> Result<(), ColdError> {
        self.tier.write(state, batch)
    }

    fn load(&self, state: ColdState) -> Result<Option<Box<dyn ColdLoad>>, ColdError> {
        self.tier.load(state)
    }

    fn view(&self) -> Result<Box<dyn ColdView>, ColdError> {
        self.tier.view()
    }

    fn expire(&self, state: ColdState, horizon: i64) {
        self.tier.expire(state, horizon);
    }

    fn about(&self, state: ColdState) -> Result<u64, ColdError> {
        self.tier.about(state)
    }
}

/// A tier as a job has it.
#[derive(Debug)]
pub(crate) struct JobTier {
    tier: Arc<dyn ColdTier>,
    _folder: TempDir,
}

impl JobTier {
    pub(crate) fn new() -> Self {
        Self::with(RocksBudget::new(8 << 20, 128 << 20))
    }

    pub(crate) fn tiny() -> Self {
        Self::with(RocksBudget::new(64 << 10, 64 << 10))
    }

    fn with(budget: RocksBudget) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let backend = RocksDbBackend::new(Some(folder.path()), 1 << 20, budget);
        let subtask = SubtaskId { task: TaskId(0), index: 0 };
        let owner = TierOwner { job: "job".to_owned(), subtask, epoch: Epoch(1), attempt: Attempt(1) };
        let attached = backend.open_tier(&owner).expect("there can be one").expect("the backend has tiers");
        Self { tier: attached.tier, _folder: folder }
    }
}

impl ColdTier for JobTier {
    fn open(&self, header: &StateHeader) -> Result<ColdState, ColdError> {
        self.tier.open(header)
    }

    fn get(&self, state: ColdState, names: &[&[u8]], found: &mut dyn FnMut(usize, &[u8])) -> Result<(), ColdError> {
        self.tier.get(state, names, found)
    }

    fn get_all(&self, state: ColdState, prefixes: &[&[u8]], found: &mut ColdFound<'_>) -> Result<(), ColdError> {
        self.tier.get_all(state, prefixes, found)
    }

    fn range(
        &self,
        state: ColdState,
        from: &[u8],
        last: KeyGroup,
        visit: &mut ColdVisitor<'_>,
    ) -> Result<(), ColdError> {
        self.tier.range(state, from, last, visit)
    }

    fn write(&self, state: ColdState, batch: &ColdBatch) -> Result<(), ColdError> {
        self.tier.write(state, batch)
    }

    fn load(&self, state: ColdState) -> Result<Option<Box<dyn ColdLoad>>, ColdError> {
        self.tier.load(state)
    }

    fn view(&self) -> Result<Box<dyn ColdView>, ColdError> {
        self.tier.view()
    }

    fn about(&self, state: ColdState) -> Result<u64, ColdError> {
        self.tier.about(state)
    }

    fn image(&self) -> Result<Option<Box<dyn ColdImage>>, ColdError> {
        self.tier.image()
    }

    fn import(&self, images: &[&dyn ImageSource], groups: KeyGroupRange) -> Result<Option<usize>, ColdError> {
        self.tier.import(images, groups)
    }

    fn expire(&self, state: ColdState, horizon: i64) {
        self.tier.expire(state, horizon);
    }

    fn keep_only(&self, states: &[ColdState]) -> Result<(), ColdError> {
        self.tier.keep_only(states)
    }
}
