/// What is to be written to a cold tier: names with their values, and names to delete.
///
/// ```
/// use cutwater_state::ColdBatch;
///
/// let mut batch = ColdBatch::default();
/// batch.put(b"b", b"1");
/// batch.delete(b"a");
/// batch.sort();
/// let writes: Vec<_> = batch.iter().collect();
/// assert_eq!(writes, [(&b"a"[..], None), (b"b", Some(&b"1"[..]))]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ColdBatch {
    bytes: Vec<u8>,
    writes: Vec<Write>,
}

/// Ends of name and value in the bytes; without a value the name is deleted.
#[derive(Clone, Copy, Debug)]
struct Write {
    start: usize,
    name: usize,
    end: Option<usize>,
}

impl ColdBatch {
    /// Sets the value of the name.
    pub fn put(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let name = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.writes.push(Write { start, name, end: Some(self.bytes.len()) });
    }

    /// Removes the name, if it is there.
    pub fn delete(&mut self, name: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.writes.push(Write { start, name: self.bytes.len(), end: None });
    }

    /// Puts the writes in the order of their names; those of one name stay in their order.
    pub fn sort(&mut self) {
        let Self { bytes, writes } = self;
        let name = |write: &Write| &bytes[write.start..write.name];
        let group = |write: &Write| &name(write)[..name(write).len().min(2)];
        if !writes.is_sorted_by_key(group) {
            writes.sort_by(|a, b| name(a).cmp(name(b)));
            return;
        }
        // As a sweep emits them: of a group all are near, and mostly differ in what comes first.
        let front = |name: &[u8]| {
            let mut front = [0; 8];
            let rest = name.get(2..).unwrap_or_default();
            let some = rest.len().min(8);
            front[..some].copy_from_slice(&rest[..some]);
            u64::from_be_bytes(front)
        };
        let mut order = Vec::new();
        for of_group in writes.chunk_by_mut(|a, b| group(a) == group(b)) {
            order.clear();
            order.extend(of_group.iter().map(|write| (front(name(write)), *write)));
            order.sort_by(|(front_a, a), (front_b, b)| front_a.cmp(front_b).then_with(|| name(a).cmp(name(b))));
            for (write, (_, next)) in of_group.iter_mut().zip(&order) {
                *write = *next;
            }
        }
    }

    /// Whether the names rise, or stay.
    #[must_use]
    pub fn is_sorted(&self) -> bool {
        self.writes.is_sorted_by_key(|write| &self.bytes[write.start..write.name])
    }

    /// The writes in order; without a value the name is to be deleted.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>)> {
        let bytes = &self.bytes;
        self.writes
            .iter()
            .map(move |write| (&bytes[write.start..write.name], write.end.map(|end| &bytes[write.name..end])))
    }

    /// How many writes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.writes.len()
    }

    /// Whether there is no write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Bytes of names and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.writes.clear();
    }
}
