//! Writes the parts of the protobuf encoding that a pprof file needs.

/// A message that is being written.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// Writes a number, unless it is zero, which is what a missing one means.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
    }

    /// Writes a signed number, unless it is zero.
    pub(super) fn signed(&mut self, field: u32, value: i64) {
        self.number(field, value.cast_unsigned());
    }

    /// Writes a list of numbers, zeros included.
    pub(super) fn numbers(&mut self, field: u32, values: impl IntoIterator<Item = u64>) {
        let mut packed = Message::default();
        for value in values {
            packed.varint(value);
        }
        self.bytes(field, &packed.0);
    }

    /// Writes a message inside this one.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// Writes bytes or a text, even if empty.
    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        const WITH_LENGTH: u64 = 2;
        self.varint(u64::from(field) << 3 | WITH_LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        let mut message = Message::default();
        message.number(1, 150);
        message.bytes(2, b"testing");
        message.message(3, |inner| inner.number(1, 150));
        message.numbers(6, [3, 270, 86942]);
        message.signed(4, -1);
        message.number(5, 0);
        let expected = [
            &[0x08, 0x96, 0x01, 0x12, 7][..],
            b"testing",
            &[0x1a, 3, 0x08, 0x96, 0x01, 0x32, 6, 3, 0x8e, 2, 0x9e, 0xa7, 5, 0x20],
            &[0xff; 9],
            &[1],
        ];
        assert_eq!(message.into_bytes(), expected.concat());
    }
}
