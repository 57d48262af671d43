//! A bit per series.

/// A bit per series.
#[derive(Debug, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn get(&self, id: u32) -> bool {
        self.0
            .get(id as usize / 64)
            .is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    /// Sets the bit. Whether it was clear before.
    pub(crate) fn set(&mut self, id: u32) -> bool {
        let word = id as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let was = self.get(id);
        self.0[word] |= 1 << (id % 64);
        !was
    }

    /// Clears the bit.
    pub(crate) fn clear(&mut self, id: u32) {
        if let Some(word) = self.0.get_mut(id as usize / 64) {
            *word &= !(1 << (id % 64));
        }
    }
}
