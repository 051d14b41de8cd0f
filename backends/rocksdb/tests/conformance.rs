//! RocksDB keeps every sentence of the contract of a cold tier.

mod common;

cutwater_state_conformance::cold_tier_suite!(common::TempTier::new);

/// The same with write buffers so small that all the time they become files, and with next to no cache.
mod on_the_disk {
    cutwater_state_conformance::cold_tier_suite!(crate::common::TempTier::tiny);
}

mod images {
    cutwater_state_conformance::cold_images_suite!(crate::common::JobTier::new);
}

mod images_with_little_memory {
    cutwater_state_conformance::cold_images_suite!(crate::common::JobTier::tiny);
}
