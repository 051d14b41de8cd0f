//! Decisions as text: numbers, with runs of zeros as `0*n`. Most decisions are zero.

use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(decisions: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    let mut parts = Vec::new();
    let mut zeros = 0;
    for decision in decisions.iter().chain([&1]) {
        match decision {
            0 => zeros += 1,
            _ => {
                match zeros {
                    0 => {}
                    1 => parts.push("0".to_owned()),
                    _ => parts.push(format!("0*{zeros}")),
                }
                zeros = 0;
                parts.push(decision.to_string());
            }
        }
    }
    parts.pop(); // the 1 that ended the last run
    serializer.serialize_str(&parts.join(" "))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    use serde::de::Error;
    let text = String::deserialize(deserializer)?;
    let mut decisions = Vec::new();
    for part in text.split_whitespace() {
        match part.strip_prefix("0*") {
            Some(zeros) => {
                let zeros: usize = zeros.parse().map_err(|_| D::Error::custom(format!("a decision {part:?}")))?;
                if zeros > 10_000_000 {
                    return Err(D::Error::custom("a tape of more than ten million decisions"));
                }
                decisions.resize(decisions.len() + zeros, 0);
            }
            None => decisions.push(part.parse().map_err(|_| D::Error::custom(format!("a decision {part:?}")))?),
        }
    }
    Ok(decisions)
}
