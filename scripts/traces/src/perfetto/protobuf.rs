//! Protocol buffers: fields as they lie on the wire.

/// A message that is being written.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Its bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A field of any integer type, or an enumeration.
    pub fn uint(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    /// A field of eight bytes.
    pub fn fixed64(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    /// A string.
    pub fn string(&mut self, field: u32, value: &str) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value.as_bytes());
    }

    /// A message within this one.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        self.varint(u64::from(field) << 3 | 2);
        // Nearly all are shorter than 128 bytes, and so is their length: one byte.
        let start = self.0.len();
        self.0.push(0);
        write(self);
        let length = self.0.len() - start - 1;
        if length < 0x80 {
            self.0[start] = length as u8;
        } else {
            let mut prefix = Self::default();
            prefix.varint(length as u64);
            self.0.splice(start..=start, prefix.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_as_they_should() {
        let mut out = Writer::default();
        out.uint(1, 150);
        out.string(2, "testing");
        out.message(3, |inner| inner.uint(1, 150));
        out.fixed64(47, 5);
        let expected = [
            &[0x08, 0x96, 0x01][..],
            &[0x12, 0x07],
            b"testing",
            &[0x1a, 0x03, 0x08, 0x96, 0x01],
            &[0xf9, 0x02, 5, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(out.into_bytes(), expected);
    }

    #[test]
    fn a_long_message_has_a_long_length() {
        let mut out = Writer::default();
        out.message(1, |inner| inner.string(1, &"x".repeat(300)));
        let bytes = out.into_bytes();
        assert_eq!(bytes[..3], [0x0a, 0xaf, 0x02]); // 303
        assert_eq!(bytes.len(), 306);
    }
}
