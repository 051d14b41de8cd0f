use std::fmt::Debug;

use proptest::prelude::*;

use super::*;

fn encoded<T: Data>(value: &T) -> Vec<u8> {
    let mut out = vec![7];
    encode(value, &mut out).unwrap();
    assert_eq!(out.remove(0), 7, "what was there before stays");
    out
}

fn round_trip<T: Data + PartialEq + Debug>(value: T) {
    let bytes = encoded(&value);
    if let Some(width) = codec_of::<T>().fixed_width() {
        assert_eq!(bytes.len(), width, "{value:?}");
    }
    assert_eq!(decode::<T>(&bytes).unwrap(), value);
    assert_eq!(hash_key(&value, &mut Vec::new()), KeyHash::of(&bytes), "{value:?}");
    let mut longer = bytes.clone();
    longer.push(0);
    if !matches!(codec_of::<T>(), CodecId::Bytes | CodecId::String) {
        assert!(decode::<T>(&longer).is_err(), "{value:?} with a byte too many");
        if let Some((_, shorter)) = bytes.split_last() {
            assert!(decode::<T>(shorter).is_err(), "{value:?} with a byte too few");
        }
    }
    let mut framed = Vec::new();
    encode_framed(&value, &mut framed).unwrap();
    framed.push(9);
    let mut rest = framed.as_slice();
    assert_eq!(split_framed(codec_of::<T>(), &mut rest).unwrap(), bytes);
    assert_eq!(rest, [9]);
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Route {
    from: String,
    to: Option<String>,
    runs: Vec<i32>,
}

#[test]
fn the_encodings_are_fixed_for_ever() {
    assert_eq!(encoded(&0x0102_0304_u32), [1, 2, 3, 4]);
    assert_eq!(encoded(&-1_i16), [0x7f, 0xff]);
    assert_eq!(encoded(&1_i16), [0x80, 0x01]);
    assert_eq!(encoded(&true), [1]);
    assert!(encoded(&()).is_empty());
    assert_eq!(encoded(&"JFK".to_owned()), *b"JFK");
    assert_eq!(encoded(&vec![1_u8, 0]), [1, 0]);
    assert_eq!(encoded(&(1_u8, 300_u16)), [1, 0xac, 2]);
    let ids = [codec_of::<u64>(), codec_of::<Vec<u8>>(), codec_of::<(u8,)>(), codec_of::<i128>()];
    assert_eq!(ids.map(u8::from), [6, 13, 0, 12]);
}

#[test]
fn ids_survive_their_number() {
    for id in 0..=u8::MAX {
        match CodecId::try_from(id) {
            Ok(codec) => assert_eq!(u8::from(codec), id),
            Err(message) => assert!(id > 14 && message.contains(&id.to_string())),
        }
    }
}

#[test]
fn a_type_that_cannot_be_encoded_is_an_error() {
    struct Broken;
    impl Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    impl<'de> Deserialize<'de> for Broken {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Self)
        }
    }
    assert!(matches!(encode(&Broken, &mut Vec::new()), Err(StateError::Encode { .. })));
}

proptest! {
    #[test]
    fn all_integers_survive_and_keep_their_order(a: i64, b: i64, c: u128, d: i128, small: (u8, i8, u16, i16, u32, i32)) {
        round_trip(a);
        round_trip(c);
        round_trip(d);
        round_trip(c as u64);
        round_trip(small.0);
        round_trip(small.1);
        round_trip(small.2);
        round_trip(small.3);
        round_trip(small.4);
        round_trip(small.5);
        prop_assert_eq!(encoded(&a).cmp(&encoded(&b)), a.cmp(&b));
        prop_assert_eq!(encoded(&(a as u64)).cmp(&encoded(&(b as u64))), (a as u64).cmp(&(b as u64)));
    }

    #[test]
    fn other_types_survive(
        text in ".{0,20}",
        bytes: Vec<u8>,
        flag: bool,
        to in proptest::option::of(".{0,3}"),
        runs: Vec<i32>,
    ) {
        round_trip(flag);
        round_trip(());
        round_trip((text.clone(), flag));
        round_trip(Route { from: text.clone(), to, runs });
        round_trip(text);
        round_trip(bytes);
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes: Vec<u8>) {
        let _ = decode::<u64>(&bytes);
        let _ = decode::<String>(&bytes);
        let _ = decode::<bool>(&bytes);
        let _ = decode::<Route>(&bytes);
    }
}
