//! Cutting the bytes that a fuzzer makes up into the parameters and contents of a target.

/// The bytes that are left; beyond their end all bytes are zero.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Takes up to `count` bytes.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        self.0.split_off(..count.min(self.0.len())).unwrap_or_default()
    }

    /// Takes up to as many bytes as the next two say.
    pub fn chunk(&mut self) -> &'a [u8] {
        let count = self.short();
        self.bytes(count.into())
    }

    /// Takes so many floats: small integers mostly, or any bits.
    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        let float = |_| match self.byte() {
            0xff => f32::from_bits(u32::from(self.short()) << 16 | u32::from(self.short())),
            byte => f32::from(byte as i8),
        };
        (0..count).map(float).collect()
    }
}
