use cutwater_core::{KeyGroupRange, MaxParallelism, OperatorUid};
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::BlockKind;
use crate::{Block, CodecId, ColdState, Schema, SchemaMismatch, StateError};

/// What a table or a set of timers is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// The operator that owns the state.
    pub operator: OperatorUid,
    /// The name of the state within the operator.
    pub name: String,
    /// Into how many key groups keys fall.
    pub max_parallelism: MaxParallelism,
    /// The key groups of this subtask; a key of another group must not be put here.
    pub key_groups: KeyGroupRange,
}

/// What kind of state a header describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateKind {
    /// One value for each key.
    Value,
    /// Event-time timers: the value is the time in milliseconds, a key may have several.
    Timers,
    /// Processing-time timers: as [`Self::Timers`], by the wall clock since 1970-01-01 UTC.
    ProcessingTimers,
    /// One value for each key, beside others of the operator.
    NamedValue,
    /// A map for each key: each of its entries is an entry of the state.
    Map,
    /// A list for each key: each chunk of it is an entry of the state, numbered in order.
    List,
    /// A value for each key that records are reduced into.
    Reducing,
    /// An accumulator for each key.
    Aggregating,
    /// An operator state: a list whose items are spread evenly over the subtasks at another parallelism.
    OperatorList,
    /// An operator state: a list of which each subtask gets the items of all at a restore.
    UnionList,
    /// An operator state: a map that is the same in all subtasks.
    Broadcast,
}

impl StateKind {
    /// The name in the header of a snapshot, such as `map`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Timers => "timers",
            Self::ProcessingTimers => "processing-timers",
            Self::NamedValue => "named-value",
            Self::Map => "map",
            Self::List => "list",
            Self::Reducing => "reducing",
            Self::Aggregating => "aggregating",
            Self::OperatorList => "operator-list",
            Self::UnionList => "union-list",
            Self::Broadcast => "broadcast",
        }
    }

    pub(crate) fn is_timers(self) -> bool {
        matches!(self, Self::Timers | Self::ProcessingTimers)
    }

    /// Whether a key may have several entries, which then differ in what their values begin with.
    #[must_use]
    pub fn has_several(self) -> bool {
        matches!(self, Self::Timers | Self::ProcessingTimers | Self::Map | Self::List)
    }
}

/// Describes one state in a snapshot, enough to tell whether the program that restores it can read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHeader {
    /// The operator that owns the state.
    pub operator: OperatorUid,
    /// The name of the state within the operator.
    pub name: String,
    /// What kind of state it is.
    pub kind: StateKind,
    /// How keys are encoded.
    pub key_codec: CodecId,
    /// What a key is made of.
    pub key_schema: Schema,
    /// How values are encoded.
    pub value_codec: CodecId,
    /// What a value is made of.
    pub value_schema: Schema,
    /// Into how many key groups keys fall.
    pub max_parallelism: MaxParallelism,
}

impl StateHeader {
    /// Whether what was `written` can be restored into this state.
    ///
    /// # Errors
    ///
    /// [`StateError::Schema`] with every difference if kind, codecs, schemas or maximum parallelism differ.
    pub fn check(&self, written: &Self) -> Result<(), StateError> {
        let mut differences = Vec::new();
        let mut differ = |what: &str, now: String, was: String| {
            if now != was {
                differences.push(format!("{what}: written as {was}, now {now}"));
            }
        };
        differ("kind", self.kind.name().to_owned(), written.kind.name().to_owned());
        differ("key codec", self.key_codec.name().to_owned(), written.key_codec.name().to_owned());
        differ("value codec", self.value_codec.name().to_owned(), written.value_codec.name().to_owned());
        let max = |header: &Self| header.max_parallelism.count().to_string();
        differ("max parallelism", max(self), max(written));
        self.key_schema.differences(&written.key_schema, "key", &mut differences);
        self.value_schema.differences(&written.value_schema, "value", &mut differences);
        if differences.is_empty() {
            return Ok(());
        }
        Err(StateError::Schema {
            operator: self.operator.as_str().into(),
            state: self.name.as_str().into(),
            mismatch: SchemaMismatch { differences },
        })
    }
}

/// A cut of a state, counted from 1 on: later ones are greater. The states of one task are cut together, so that they agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cut(pub u64);

impl Cut {
    /// What was there before the first cut: what was restored, or nothing.
    pub const RESTORED: Self = Self(0);
}

/// Whether a sweep has more to emit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepProgress {
    /// Call again.
    More,
    /// All blocks of this cut were emitted.
    Done,
}

/// State that can be cut, swept and restored, whatever its types: what the task core sees of tables and timers.
pub trait Snapshotable: Send {
    /// Describes the state, for the header of the snapshot file.
    fn header(&self) -> StateHeader;
    /// Fixes what the snapshot holds: the state at this call, in O(1). Later changes do not change it.
    ///
    /// # Panics
    ///
    /// If the sweep of the cut before has neither ended nor been aborted.
    fn cut(&mut self) -> Cut {
        self.cut_since(None)
    }
    /// [`Self::cut`], but if there is a `base` the snapshot holds only what has changed since that cut, and the names of what
    /// has gone: blocks of the kinds [`BlockKind::Changed`] and [`BlockKind::Removed`]. It may hold some of what had changed
    /// before, as it is now.
    ///
    /// # Panics
    ///
    /// As [`Self::cut`]; if [`Self::changed_since`] knows nothing of the base.
    fn cut_since(&mut self, base: Option<Cut>) -> Cut;
    /// Notes from now on what changes, for [`Self::cut_since`]. To be called after what is restored was, and before the first
    /// change: then [`Cut::RESTORED`] can be a base. Costs a bit for each entry and cut that is not forgotten, the names of
    /// what was removed, and some time with each change. Once half of the entries have changed since the last cut, they may all
    /// count as changed, so that no more need be noted until the next.
    fn track_changes(&mut self);
    /// How many entries and names a cut since `base` would hold at the most, if made now. `None` if nothing is known of the
    /// changes since then: none are tracked, it was forgotten, or so many entries have gone since that it would not pay.
    fn changed_since(&self, base: Cut) -> Option<u64>;
    /// No later cut will be since one before `base`: what is kept for those can go.
    fn forget(&mut self, base: Cut);
    /// Emits about `budget_bytes` of the snapshot, at least one entry, as blocks in key-group order.
    ///
    /// Without a cut to sweep it emits nothing and returns [`SweepProgress::Done`].
    ///
    /// # Errors
    ///
    /// [`StateError::Encode`] or [`StateError::TooLarge`] if an entry can't be encoded. The sweep can then only be
    /// aborted.
    fn sweep(&mut self, budget_bytes: usize, out: &mut dyn FnMut(Block)) -> Result<SweepProgress, StateError>;
    /// Gives the running sweep up and frees what was kept for it; the state itself stays as it is.
    fn abort(&mut self);
    /// Whether a cut has not been swept to its end or aborted.
    fn sweeping(&self) -> bool;
    /// How many bytes are kept for the sweep because entries changed after the cut. Whoever drives the sweep sets the
    /// limit.
    fn undo_bytes(&self) -> u64;
    /// Makes room for about so many entries before they are restored, which makes the restore faster.
    fn reserve(&mut self, entries: u64);
    /// Puts the entries of the block whose key groups are in `groups` and in this subtask's own range into the state, or removes
    /// them, as its kind says. Returns how many. Of a snapshot that builds on another, after all of that one's: first the
    /// blocks of removed entries, then those of changed ones.
    ///
    /// # Errors
    ///
    /// [`StateError::Damaged`] or [`StateError::Decode`] if the payload is not what a sweep of such a state emits, or
    /// repeats a key; [`StateError::Sweeping`] during a sweep. The state may then hold a part of the block and should
    /// be dropped.
    fn restore(&mut self, block: &Block, groups: KeyGroupRange) -> Result<u64, StateError>;
    /// The state in the tier below, if this one has a tier. Then each cut is since what the tier has, whatever the base: the
    /// blocks of its sweep are to be put there in order, by [`apply_block`](crate::apply_block), and nobody else writes
    /// there until [`Self::applied`] or [`Self::not_applied`] was called. Where a key has several entries, those that have changed
    /// come in blocks of the kind [`BlockKind::ForTier`].
    fn cold(&self) -> Option<ColdState> {
        None
    }
    /// The tier below had about so many entries of the state when that was attached. To be called before anything is restored
    /// or changed. Does nothing if there is no tier.
    fn imported(&mut self, entries: u64);
    /// The tier has everything that the sweep of this cut, the last one, has emitted.
    ///
    /// # Panics
    ///
    /// If it is not the last cut, or was not swept to its end.
    fn applied(&mut self, cut: Cut) {
        let _ = cut;
    }
    /// Whether there is twice as much in memory as there should be, while the last cut waits to be applied: what has changed can't
    /// go to the tier before that. Whoever changes the state should wait. Without a tier never.
    fn is_crowded(&self) -> bool {
        false
    }

    /// Nothing more of the last cut, which was aborted or whose blocks could not be stored, is put into the tier. Another cut
    /// can follow.
    ///
    /// # Panics
    ///
    /// During a sweep: it is aborted first.
    fn not_applied(&mut self) {}
    /// How many entries there are.
    fn len(&self) -> u64;
    /// Whether there is no entry.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Memory held by the table in bytes, without what keys and values own on the heap.
    fn memory_bytes(&self) -> u64;
}
