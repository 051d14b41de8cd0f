use std::any::{Any, TypeId, type_name};

use cutwater_core::KeyHash;
use postcard::ser_flavors::Flavor;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::StateError;

/// What can be kept as a value and can cross an edge of the graph: any serde type that owns its data.
pub trait Data: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Data for T {}

/// What state can be keyed by.
///
/// Equal keys must have equal encodings, since the encoding decides the key group; derived `Serialize` and `Eq` agree.
pub trait Key: Data + Eq + Clone {}

impl<T: Data + Eq + Clone> Key for T {}

macro_rules! codecs {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $name:literal, $width:expr;)*) => {
        /// How a type is encoded. The number is part of the snapshot format and never changes its meaning.
        ///
        /// Integers have a fixed width and keep their order as bytes: big-endian, signed ones with the sign bit
        /// flipped. Everything without a codec of its own is `Postcard`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u8", into = "u8")]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum CodecId {
            $($(#[$doc])* $variant = $id,)*
        }

        impl CodecId {
            /// The name, for messages.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How many bytes every value takes; `None` if they differ, then a length goes before each.
            #[must_use]
            #[inline]
            pub fn fixed_width(self) -> Option<usize> {
                match self { $(Self::$variant => $width,)* }
            }
        }

        impl TryFrom<u8> for CodecId {
            type Error = String;

            fn try_from(id: u8) -> Result<Self, String> {
                match id {
                    $($id => Ok(Self::$variant),)*
                    _ => Err(format!("codec {id} is unknown to this release")),
                }
            }
        }
    };
}

codecs! {
    /// The postcard format of serde's data model.
    Postcard = 0, "postcard", None;
    /// `()`: nothing.
    Unit = 1, "unit", Some(0);
    /// `bool`: 0 or 1.
    Bool = 2, "bool", Some(1);
    /// `u8`.
    U8 = 3, "u8", Some(1);
    /// `u16`.
    U16 = 4, "u16", Some(2);
    /// `u32`.
    U32 = 5, "u32", Some(4);
    /// `u64`.
    U64 = 6, "u64", Some(8);
    /// `u128`.
    U128 = 7, "u128", Some(16);
    /// `i8`.
    I8 = 8, "i8", Some(1);
    /// `i16`.
    I16 = 9, "i16", Some(2);
    /// `i32`.
    I32 = 10, "i32", Some(4);
    /// `i64`.
    I64 = 11, "i64", Some(8);
    /// `i128`.
    I128 = 12, "i128", Some(16);
    /// `Vec<u8>`: the bytes themselves.
    Bytes = 13, "bytes", None;
    /// `String`: UTF-8.
    String = 14, "string", None;
}

impl From<CodecId> for u8 {
    fn from(codec: CodecId) -> u8 {
        codec as u8
    }
}

/// The unsigned and signed integers with the codec of each. The signed ones are shifted so that the least is 0, which
/// keeps their order as bytes.
macro_rules! for_each_integer {
    ($with:ident) => {
        $with! {
            unsigned: (u8, U8) (u16, U16) (u32, U32) (u64, U64) (u128, U128);
            signed: (i8, u8, I8) (i16, u16, I16) (i32, u32, I32) (i64, u64, I64) (i128, u128, I128);
        }
    };
}

/// The codec of a type. Folds to a constant.
#[must_use]
#[inline]
pub fn codec_of<T: Data>() -> CodecId {
    let id = TypeId::of::<T>();
    macro_rules! integers {
        (unsigned: $(($u:ty, $cu:ident))*; signed: $(($s:ty, $su:ty, $cs:ident))*;) => {
            $(if id == TypeId::of::<$u>() { return CodecId::$cu; })*
            $(if id == TypeId::of::<$s>() { return CodecId::$cs; })*
        };
    }
    for_each_integer!(integers);
    if id == TypeId::of::<Vec<u8>>() {
        CodecId::Bytes
    } else if id == TypeId::of::<String>() {
        CodecId::String
    } else if id == TypeId::of::<()>() {
        CodecId::Unit
    } else if id == TypeId::of::<bool>() {
        CodecId::Bool
    } else {
        CodecId::Postcard
    }
}

/// Appends the encoding of `value` to `out`. The same value always has the same encoding.
///
/// # Errors
///
/// [`StateError::Encode`] if the type's `Serialize` fails; `out` may then end in a part of the value.
#[inline]
pub fn encode<T: Data>(value: &T, out: &mut Vec<u8>) -> Result<(), StateError> {
    // The type is known when this is compiled, so that all but one of these branches vanish.
    let any = value as &dyn Any;
    macro_rules! integers {
        (unsigned: $(($u:ty, $cu:ident))*; signed: $(($s:ty, $su:ty, $cs:ident))*;) => {
            $(if let Some(value) = any.downcast_ref::<$u>() {
                out.extend_from_slice(&value.to_be_bytes());
                return Ok(());
            })*
            $(if let Some(value) = any.downcast_ref::<$s>() {
                out.extend_from_slice(&(*value ^ <$s>::MIN).to_be_bytes());
                return Ok(());
            })*
        };
    }
    for_each_integer!(integers);
    if let Some(bytes) = any.downcast_ref::<Vec<u8>>() {
        out.extend_from_slice(bytes);
        Ok(())
    } else if let Some(text) = any.downcast_ref::<String>() {
        out.extend_from_slice(text.as_bytes());
        Ok(())
    } else if any.is::<()>() {
        Ok(())
    } else if let Some(&value) = any.downcast_ref::<bool>() {
        out.push(u8::from(value));
        Ok(())
    } else {
        encode_with_postcard(value, out)
    }
}

/// Decodes a value from exactly these bytes.
///
/// # Errors
///
/// [`StateError::Decode`] if the bytes are not the encoding of a `T`, or some are left over.
#[inline]
pub fn decode<T: Data>(bytes: &[u8]) -> Result<T, StateError> {
    let mut slot: Option<T> = None;
    let any = &mut slot as &mut dyn Any;
    macro_rules! integers {
        (unsigned: $(($u:ty, $cu:ident))*; signed: $(($s:ty, $su:ty, $cs:ident))*;) => {
            $(if let Some(slot) = any.downcast_mut::<Option<$u>>() {
                *slot = bytes.try_into().ok().map(<$u>::from_be_bytes);
            } else)*
            $(if let Some(slot) = any.downcast_mut::<Option<$s>>() {
                *slot = bytes.try_into().ok().map(|bytes| <$s>::from_be_bytes(bytes) ^ <$s>::MIN);
            } else)*
            if let Some(slot) = any.downcast_mut::<Option<Vec<u8>>>() {
                *slot = Some(bytes.to_vec());
            } else if let Some(slot) = any.downcast_mut::<Option<String>>() {
                *slot = std::str::from_utf8(bytes).ok().map(str::to_owned);
            } else if let Some(slot) = any.downcast_mut::<Option<()>>() {
                *slot = bytes.is_empty().then_some(());
            } else if let Some(slot) = any.downcast_mut::<Option<bool>>() {
                *slot = match bytes {
                    [0] => Some(false),
                    [1] => Some(true),
                    _ => None,
                };
            } else {
                return decode_with_postcard(bytes);
            }
        };
    }
    for_each_integer!(integers);
    match slot {
        Some(value) => Ok(value),
        None => Err(not_a::<T>(&format!("{} bytes are not a {}", bytes.len(), codec_of::<T>().name()))),
    }
}

/// The hash of a key: [`KeyHash::of`] its encoding. `scratch` is any vector; it is overwritten, or left alone.
///
/// A key whose `Serialize` fails hashes as what it wrote until then; the first snapshot reports it.
#[must_use]
#[inline]
pub fn hash_key<K: Data>(key: &K, scratch: &mut Vec<u8>) -> KeyHash {
    let any = key as &dyn Any;
    macro_rules! integers {
        (unsigned: $(($u:ty, $cu:ident))*; signed: $(($s:ty, $su:ty, $cs:ident))*;) => {
            $(if let Some(key) = any.downcast_ref::<$u>() {
                return KeyHash::of(&key.to_be_bytes());
            })*
            $(if let Some(key) = any.downcast_ref::<$s>() {
                return KeyHash::of(&(*key ^ <$s>::MIN).to_be_bytes());
            })*
        };
    }
    for_each_integer!(integers);
    if let Some(bytes) = any.downcast_ref::<Vec<u8>>() {
        return KeyHash::of(bytes);
    }
    if let Some(text) = any.downcast_ref::<String>() {
        return KeyHash::of(text.as_bytes());
    }
    scratch.clear();
    // The same failure comes up, and is reported, when the entry is encoded.
    let _ = encode(key, scratch);
    KeyHash::of(scratch)
}

/// Appends the value as it stands in a block: after its length, unless the codec has a fixed width.
#[inline]
pub(crate) fn encode_framed<T: Data>(value: &T, out: &mut Vec<u8>) -> Result<(), StateError> {
    if codec_of::<T>().fixed_width().is_some() {
        return encode(value, out);
    }
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    encode(value, out)?;
    let length = checked_length(out.len() - start - 4)?;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Appends what has no codec of its own, such as a tuple of references, as it stands in a block.
#[inline]
pub(crate) fn encode_framed_parts<T: Serialize>(parts: &T, out: &mut Vec<u8>) -> Result<(), StateError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    encode_with_postcard(parts, out)?;
    let length = checked_length(out.len() - start - 4)?;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Appends an encoding of a `T` that passed [`checked_length`] as [`encode_framed`] would.
pub(crate) fn append_framed<T: Data>(encoded: &[u8], out: &mut Vec<u8>) {
    if codec_of::<T>().fixed_width().is_none() {
        let length = checked_length(encoded.len()).expect("it was checked when it was made");
        out.extend_from_slice(&length.to_le_bytes());
    }
    out.extend_from_slice(encoded);
}

pub(crate) fn checked_length(bytes: usize) -> Result<u32, StateError> {
    match u32::try_from(bytes) {
        Ok(length) if length <= MAX_ENCODED => Ok(length),
        _ => Err(StateError::TooLarge { what: "a key or value", bytes: bytes as u64, limit: MAX_ENCODED.into() }),
    }
}

/// Splits the encoding of one key or value off the front of a block's payload; `None` if there are too few bytes.
#[inline]
pub(crate) fn split_framed<'a>(codec: CodecId, payload: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = match codec.fixed_width() {
        Some(width) => width,
        None => {
            let (length, rest) = payload.split_first_chunk::<4>()?;
            *payload = rest;
            usize::try_from(u32::from_le_bytes(*length)).ok()?
        }
    };
    let (value, rest) = payload.split_at_checked(length)?;
    *payload = rest;
    Some(value)
}

/// A key or a value is at most 1 GiB, so that a block of one entry fits its 32-bit length.
pub(crate) const MAX_ENCODED: u32 = 1 << 30;

/// Lets postcard append to a vector that it does not own, slice by slice.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends the value in the format of postcard, whatever codec its type has.
pub(crate) fn encode_with_postcard<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), StateError> {
    postcard::serialize_with_flavor(value, Append(out))
        .map_err(|error| StateError::Encode { type_name: type_name::<T>(), reason: error.to_string().into() })
}

/// Decodes a value from the front of these bytes in the format of postcard, and returns the rest.
pub(crate) fn decode_front<T: Data>(bytes: &[u8]) -> Result<(T, &[u8]), StateError> {
    postcard::take_from_bytes(bytes).map_err(|error| not_a::<T>(&error.to_string()))
}

fn decode_with_postcard<T: Data>(bytes: &[u8]) -> Result<T, StateError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(not_a::<T>(&format!("{} of {} bytes are left over", rest.len(), bytes.len()))),
        Err(error) => Err(not_a::<T>(&error.to_string())),
    }
}

#[cold]
fn not_a<T>(reason: &str) -> StateError {
    StateError::Decode { type_name: type_name::<T>(), reason: reason.into() }
}

#[cfg(test)]
mod tests;
