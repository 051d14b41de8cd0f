//! The memory backend keeps every sentence of the contract.

cutwater_state_conformance::suite!(cutwater_memory::MemoryBackend::default);
