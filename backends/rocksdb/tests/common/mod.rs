//! A tier in a temporary folder that goes with it.
#![allow(dead_code, reason = "each test file uses a part")]

use cutwater_core::{MaxParallelism, OperatorUid};
use cutwater_rocksdb::{RocksBudget, RocksTier};
use cutwater_state::{CodecId, ColdBatch, ColdError, ColdState, ColdTier, ColdView, Schema, StateHeader, StateKind};
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

    fn write(&self, state: ColdState, batch: &ColdBatch) -> Result<(), ColdError> {
        self.tier.write(state, batch)
    }

    fn view(&self) -> Result<Box<dyn ColdView>, ColdError> {
        self.tier.view()
    }
}
