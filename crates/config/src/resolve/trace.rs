//! What was said of each key, and what became of it: for `config show`.

use std::collections::BTreeMap;

use crate::Origin;
use crate::resolved::{Said, Setting};
use crate::source::{Found, Layer};

/// One setting for each key that somebody spoke of. `holds` is what won, `said` all that was read.
pub(super) fn settings(holds: &Layer, said: Vec<Found>) -> Vec<Setting> {
    let mut by_key: BTreeMap<&'static str, Vec<Found>> = BTreeMap::new();
    for found in said {
        by_key.entry(found.key.name).or_default().push(found);
    }
    by_key
        .into_iter()
        .map(|(name, mut all)| {
            let winner = holds.get(name);
            // The place alone does not tell two flags apart, so only one of the equal entries is taken for the winner.
            if let Some(winner) = winner
                && let Some(place) = all.iter().position(|found| same(found, winner))
            {
                all.remove(place);
            }
            all.sort_by_key(|found| std::cmp::Reverse(found.entry.origin.level()));
            Setting {
                key: name,
                value: winner.map(|found| found.entry.shown().trim().to_owned()),
                origin: winner.map_or(Origin::Default, |found| found.entry.origin.clone()),
                written_as: winner.and_then(old_name),
                overridden: all.iter().map(said_by).collect(),
            }
        })
        .collect()
}

fn same(one: &Found, other: &Found) -> bool {
    one.entry.origin == other.entry.origin && one.entry.key == other.entry.key && one.entry.value == other.entry.value
}

fn said_by(found: &Found) -> Said {
    Said {
        value: found.entry.shown().trim().to_owned(),
        origin: found.entry.origin.clone(),
        written_as: old_name(found),
    }
}

fn old_name(found: &Found) -> Option<String> {
    found.new_name().map(|_| found.entry.key.clone())
}
