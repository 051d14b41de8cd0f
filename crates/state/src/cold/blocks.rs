use std::ops::ControlFlow;

use cutwater_core::KeyGroupRange;

use super::{ColdBatch, ColdError, ColdLoad, ColdState, ColdTier, ColdView, append_name, split_name};
use crate::block::{BLOCK_BYTES, BlockBuilder, read_entries};
use crate::codec::checked_length;
use crate::store::NAME_REST;
use crate::{Block, BlockKind, StateError, StateHeader, StateKind};

/// Puts what a block holds into the tier: entries, or names of which it deletes the entries. The blocks of a sweep are to be
/// put there in the order in which they were emitted.
///
/// # Errors
///
/// [`StateError::Damaged`] if the block is not one that such a state with a tier emits, [`StateError::Cold`] if the tier can't
/// be written.
pub fn apply_block(
    tier: &dyn ColdTier,
    state: ColdState,
    header: &StateHeader,
    block: &Block,
    batch: &mut ColdBatch,
) -> Result<(), StateError> {
    batch_for_tier(header, block, batch)?;
    batch.sort();
    tier.write(state, batch).map_err(|error| cold_error(header, error))
}

/// As [`apply_block`], with a [load](ColdTier::load) of the state.
///
/// # Errors
///
/// As [`apply_block`].
pub fn load_block(
    load: &mut dyn ColdLoad,
    header: &StateHeader,
    block: &Block,
    batch: &mut ColdBatch,
) -> Result<(), StateError> {
    batch_for_tier(header, block, batch)?;
    batch.sort();
    load.write(batch).map_err(|error| cold_error(header, error))
}

fn batch_for_tier(header: &StateHeader, block: &Block, batch: &mut ColdBatch) -> Result<u64, StateError> {
    batch_of(header, block, block.groups, batch, |value| match (block.kind, header.kind) {
        (BlockKind::ForTier, _) => split_for_tier(value),
        (_, kind) if kind.is_timers() => Ok((value, &[])),
        (BlockKind::All | BlockKind::Changed, StateKind::Map | StateKind::List) => {
            let reason = format!("no table with a tier has written this {}", header.kind.name()).into();
            Err(StateError::Damaged { part: "block for a tier", offset: 0, reason })
        }
        _ => Ok((&[], value)),
    })
}

/// What a block says of these key groups, as writes to a tier, in place of what the batch had; `split` parts what belongs to the
/// name of an entry from its value. Returns how many there are.
pub(crate) fn batch_of(
    header: &StateHeader,
    block: &Block,
    groups: KeyGroupRange,
    batch: &mut ColdBatch,
    split: impl Fn(&[u8]) -> Result<(&[u8], &[u8]), StateError>,
) -> Result<u64, StateError> {
    batch.clear();
    let removed = block.kind == BlockKind::Removed;
    let second = if removed { NAME_REST } else { header.value_codec };
    let mut name = Vec::new();
    let entries = read_entries(block, (header.key_codec, second), groups, |group, key, value| {
        name.clear();
        let (rest, value) =
            if removed { (value, None) } else { split(value).map(|(rest, value)| (rest, Some(value)))? };
        append_name((header.kind, header.key_codec), group, key, rest, &mut name)?;
        match value {
            Some(value) => batch.put(&name, value),
            None => batch.delete(&name),
        }
        Ok(())
    })?;
    Ok(entries)
}

/// What belongs to the name and what does not, of a value as it stands in a block for a tier.
pub(crate) fn split_for_tier(value: &[u8]) -> Result<(&[u8], &[u8]), StateError> {
    let split = value
        .split_first_chunk()
        .and_then(|(length, rest)| rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?));
    let reason = || format!("a value of {} bytes has no name in it", value.len()).into();
    split.ok_or_else(|| StateError::Damaged { part: "block for a tier", offset: 0, reason: reason() })
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
        let Some((group, key, rest)) = split_name((header.kind, header.key_codec), name) else {
            let reason = format!("a name of {} bytes", name.len()).into();
            failed = Some(StateError::Damaged { part: "cold entry", offset: 0, reason }.into());
            return ControlFlow::Break(());
        };
        block.open(group);
        // What tells the entries of a key apart is the front of their values.
        for (codec, parts) in [(header.key_codec, [key, &[]]), (header.value_codec, [rest, value])] {
            if codec.fixed_width().is_none() {
                match checked_length(parts[0].len() + parts[1].len()) {
                    Ok(length) => block.payload().extend_from_slice(&length.to_le_bytes()),
                    Err(error) => {
                        failed = Some(error.into());
                        return ControlFlow::Break(());
                    }
                }
            }
            parts.iter().for_each(|part| block.payload().extend_from_slice(part));
        }
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
