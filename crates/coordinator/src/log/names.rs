//! Names of the log's objects. Twenty digits hold any `u64`, so that names sort as numbers do.

/// How many slots a boundary moves by.
pub(crate) const SLOTS_PER_BOUNDARY: u64 = 1024;

/// The object of a slot.
pub(crate) fn slot(slot: u64) -> String {
    format!("log/{slot:020}")
}

/// The object that says: slots below `k` times [`SLOTS_PER_BOUNDARY`] may be gone.
pub(crate) fn boundary(k: u64) -> String {
    format!("boundary/{k:020}")
}
