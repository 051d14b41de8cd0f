/// What the memory, the length and the offset of a write past the page cache are multiples of: the largest sectors of
/// usual devices.
pub(crate) const ALIGNMENT: usize = 4096;

/// Up to so many bytes the memory grows with what is gathered.
const SMALL: usize = 64 << 10;

/// Gathers a piece in memory that is aligned, so that a device can take it from there.
pub(crate) struct AlignedBuffer {
    /// What was needed so far, at most as large as the piece, and what may be left out at the beginning.
    memory: Vec<u8>,
    start: usize,
    filled: usize,
    size: usize,
}

impl AlignedBuffer {
    /// An empty one for a piece of so many bytes.
    pub(crate) fn new(size: usize) -> Self {
        Self { memory: Vec::new(), start: 0, filled: 0, size }
    }

    /// Room for so many bytes: as little as many small files need, or all at once.
    fn grow(&mut self, bytes: usize) {
        let room = if bytes > SMALL { self.size } else { bytes.next_power_of_two().min(self.size) };
        let mut memory = vec![0; room + ALIGNMENT];
        // It may say that it can't tell; then the piece is not aligned, and goes through the page cache.
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        memory[start..start + self.filled].copy_from_slice(self.bytes());
        (self.memory, self.start) = (memory, start);
    }

    /// Appends what there is room for and returns the rest.
    pub(crate) fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (fitting, rest) = bytes.split_at(bytes.len().min(self.size - self.filled));
        let needed = self.filled + fitting.len();
        if self.memory.len() < self.start + needed {
            self.grow(needed);
        }
        let from = self.start + self.filled;
        self.memory[from..from + fitting.len()].copy_from_slice(fitting);
        self.filled += fitting.len();
        rest
    }

    pub(crate) fn is_full(&self) -> bool {
        self.filled == self.size
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.filled]
    }

    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBuffer").field("filled", &self.filled).field("size", &self.size).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_aligned_and_nothing_is_lost_between_them() {
        let mut buffer = AlignedBuffer::new(3 * ALIGNMENT);
        let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
        let mut out = Vec::new();
        for mut rest in bytes.chunks(7_001) {
            while !rest.is_empty() {
                rest = buffer.fill(rest);
                if buffer.is_full() {
                    assert_eq!(buffer.bytes().as_ptr().align_offset(ALIGNMENT), 0);
                    assert_eq!(buffer.bytes().len(), 3 * ALIGNMENT);
                    out.extend_from_slice(buffer.bytes());
                    buffer.clear();
                }
            }
        }
        out.extend_from_slice(buffer.bytes());
        assert_eq!(out, bytes);
    }
}
