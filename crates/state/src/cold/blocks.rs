use std::ops::ControlFlow;

use cutwater_core::KeyGroupRange;

use super::{ColdBatch, ColdError, ColdState, ColdTier, ColdView, group_of_name, group_prefix};
use crate::block::{BLOCK_BYTES, BlockBuilder, read_entries};
use crate::codec::checked_length;
use crate::store::NAME_REST;
use crate::{Block, BlockKind, StateError, StateHeader};

/// Puts what a block holds into the tier: entries, or names of which it deletes the entries. The blocks of a sweep are to be
/// put there in the order in which they were emitted.
///
/// # Errors
///
/// [`StateError::Damaged`] if the block is not one of such a state, [`StateError::Cold`] if the tier can't be written.
pub fn apply_block(
    tier: &dyn ColdTier,
    state: ColdState,
    header: &StateHeader,
    block: &Block,
    batch: &mut ColdBatch,
) -> Result<(), StateError> {
    batch_of(header, block, block.groups, batch)?;
    tier.write(state, batch).map_err(|error| cold_error(header, error))
}

/// What a block says of these key groups, as writes to a tier, in place of what the batch had. Returns how many.
pub(crate) fn batch_of(
    header: &StateHeader,
    block: &Block,
    groups: KeyGroupRange,
    batch: &mut ColdBatch,
) -> Result<u64, StateError> {
    batch.clear();
    let removed = block.kind == BlockKind::Removed;
    let second = if removed { NAME_REST } else { header.value_codec };
    let mut name = Vec::new();
    let entries = read_entries(block, (header.key_codec, second), groups, |group, key, value| {
        name.clear();
        name.extend_from_slice(&group_prefix(group));
        if header.key_codec.fixed_width().is_none() {
            name.extend_from_slice(&checked_length(key.len())?.to_le_bytes());
        }
        name.extend_from_slice(key);
        if removed {
            batch.delete(&name);
        } else {
            batch.put(&name, value);
        }
        Ok(())
    })?;
    batch.sort();
    Ok(entries)
}

/// Calls `emit` with all that a view has of a state in these key groups, as blocks of a full snapshot, in order. Each is for the
/// state with the number 0: whoever writes a file sets it. Returns how many entries there were.
///
/// # Errors
///
/// [`StateError::Cold`] if the view can't be read, [`StateError::Damaged`] if it holds what no table wrote, and what `emit`
/// returns.
pub fn blocks_of_view<E: From<StateError>>(
    view: &dyn ColdView,
    state: ColdState,
    header: &StateHeader,
    groups: KeyGroupRange,
    mut emit: impl FnMut(Block) -> Result<(), E>,
) -> Result<u64, E> {
    let mut block = BlockBuilder::default();
    block.begin(BlockKind::All, u64::MAX);
    let (mut entries, mut failed) = (0, None::<E>);
    let scanned = view.scan(state, groups, &mut |name, value| {
        let Some(group) = group_of_name(name) else {
            let reason = format!("a name of {} bytes", name.len()).into();
            failed = Some(StateError::Damaged { part: "cold entry", offset: 0, reason }.into());
            return ControlFlow::Break(());
        };
        block.open(group);
        block.payload().extend_from_slice(&name[2..]);
        if header.value_codec.fixed_width().is_none() {
            match checked_length(value.len()) {
                Ok(length) => block.payload().extend_from_slice(&length.to_le_bytes()),
                Err(error) => {
                    failed = Some(error.into());
                    return ControlFlow::Break(());
                }
            }
        }
        block.payload().extend_from_slice(value);
        block.added(1);
        entries += 1;
        if block.bytes() >= BLOCK_BYTES
            && let Some(whole) = block.take()
            && let Err(error) = emit(whole)
        {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    scanned.map_err(|error| cold_error(header, error))?;
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some(last) = block.take() {
        emit(last)?;
    }
    Ok(entries)
}

#[cold]
fn cold_error(header: &StateHeader, source: ColdError) -> StateError {
    StateError::Cold {
        operator: header.operator.as_str().into(),
        state: header.name.as_str().into(),
        source: Box::new(source),
    }
}
