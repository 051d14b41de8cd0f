use std::fmt::Write as _;

use cutwater_state::StateHeader;

/// The name of the column family of a state: `operator/kind/name`.
///
/// A uid and the name of a kind hold no `/`, and in the name of a state all bytes but letters, digits, `-`, `_` and `.` are
/// written as `%` with two hexadecimal digits. So two states never share a name, and none is called `default`, which every
/// database has.
pub(crate) fn family_name(header: &StateHeader) -> String {
    let mut family = format!("{}/{}/", header.operator, header.kind.name());
    for byte in header.name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            family.push(char::from(byte));
        } else {
            write!(family, "%{byte:02x}").expect("a string takes what is written to it");
        }
    }
    family
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cutwater_core::{MaxParallelism, OperatorUid};
    use cutwater_state::{CodecId, Schema, StateKind};

    use super::*;

    fn name_of(operator: &str, kind: StateKind, name: &str) -> String {
        family_name(&StateHeader {
            operator: OperatorUid::new(operator).unwrap(),
            name: name.to_owned(),
            kind,
            key_codec: CodecId::Bytes,
            key_schema: Schema::Bytes,
            value_codec: CodecId::Bytes,
            value_schema: Schema::Bytes,
            max_parallelism: MaxParallelism::default(),
        })
    }

    #[test]
    fn a_plain_name_stays_readable() {
        assert_eq!(name_of("counts", StateKind::NamedValue, "last_seen"), "counts/named-value/last_seen");
        assert_eq!(name_of("counts", StateKind::Map, "à/b%\0"), "counts/map/%c3%a0%2fb%25%00");
    }

    #[test]
    fn no_two_states_share_a_name() {
        let operators = ["a", "a.map", "a-b", "default"];
        let names =
            ["", "a", "A", "map", "a/map/a", "a%2fmap", "%", "%25", "%2", "\0", "\u{e0}", "default", "a.b", "a b"];
        let mut families = BTreeSet::from(["default".to_owned()]);
        for operator in operators {
            for kind in [StateKind::Value, StateKind::Map, StateKind::List, StateKind::Timers] {
                for name in names {
                    let family = name_of(operator, kind, name);
                    assert!(family.is_ascii() && !family.contains('\0'), "{family:?}");
                    assert!(families.insert(family.clone()), "{family} is twice there");
                }
            }
        }
    }
}
