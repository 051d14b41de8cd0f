//! The cold tier in memory keeps every sentence of the contract, and so the tests can be kept.

cutwater_state_conformance::cold_tier_suite!(cutwater_state::ModelTier::default);
cutwater_state_conformance::cold_images_suite!(cutwater_state::ModelTier::default);
