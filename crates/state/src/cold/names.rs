//! What the names of entries in a tier are made of.

use cutwater_core::KeyGroup;

use super::{group_of_name, group_prefix};
use crate::codec::{checked_length, split_framed};
use crate::{CodecId, StateError, StateKind};

/// The time of a timer, as its value is encoded: later ones are greater as bytes.
pub(crate) const TIME_BYTES: usize = 8;

/// Appends the name of an entry: of its group, its encoded key, and the `rest` that tells it from others of the key. Timers are
/// named by their time first, so that those of a group lie in the order in which they fire.
pub(crate) fn append_name(
    (kind, key_codec): (StateKind, CodecId),
    group: KeyGroup,
    key: &[u8],
    rest: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), StateError> {
    out.extend_from_slice(&group_prefix(group));
    if kind.is_timers() {
        if rest.len() != TIME_BYTES {
            let reason = format!("{} bytes are no time of a timer", rest.len()).into();
            return Err(StateError::Damaged { part: "name of a timer", offset: 0, reason });
        }
        out.extend_from_slice(rest);
        out.extend_from_slice(key);
        return Ok(());
    }
    if key_codec.fixed_width().is_none() {
        out.extend_from_slice(&checked_length(key.len())?.to_le_bytes());
    }
    out.extend_from_slice(key);
    out.extend_from_slice(rest);
    Ok(())
}

/// The group, the encoded key and the rest of a name; `None` if it is none of such a state.
pub(crate) fn split_name((kind, key_codec): (StateKind, CodecId), name: &[u8]) -> Option<(KeyGroup, &[u8], &[u8])> {
    let group = group_of_name(name)?;
    let mut rest = &name[2..];
    if kind.is_timers() {
        let (time, key) = rest.split_at_checked(TIME_BYTES)?;
        let whole = key_codec.fixed_width().is_none_or(|width| key.len() == width);
        return whole.then_some((group, key, time));
    }
    let key = split_framed(key_codec, &mut rest)?;
    Some((group, key, rest))
}
