//! Writes the wire format of protocol buffers, as far as an ONNX file needs it: varints, 32-bit floats and
//! length-delimited fields.
//!
//! This module does not read messages and knows no schema: [`super::graph`] has the field numbers of `onnx.proto`.

/// One message. Fields are written in the order of the calls, so the same calls give the same bytes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            // The low seven bits, and the bit that says that more bytes follow.
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    /// An `int32`, an `int64` or an enum. The format requires ten bytes for a negative value.
    pub(crate) fn int(&mut self, field: u64, value: i64) {
        self.tag(field, VARINT);
        self.varint(value.cast_unsigned());
    }

    pub(crate) fn float(&mut self, field: u64, value: f32) {
        self.tag(field, FIXED32);
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, field: u64, value: &[u8]) {
        self.tag(field, LENGTH_DELIMITED);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(crate) fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    pub(crate) fn message(&mut self, field: u64, value: &Message) {
        self.bytes(field, &value.0);
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's documentation: `150` in field 1 and `testing` in field 2.
    #[test]
    fn bytes_are_those_of_the_documentation() {
        let mut m = Message::new();
        m.int(1, 150);
        m.text(2, "testing");
        assert_eq!(m.into_bytes(), b"\x08\x96\x01\x12\x07testing");
    }

    #[test]
    fn a_negative_number_takes_ten_bytes() {
        let mut m = Message::new();
        m.int(1, -1);
        assert_eq!(m.into_bytes(), b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    }

    #[test]
    fn messages_nest() {
        let (mut inner, mut outer) = (Message::new(), Message::new());
        inner.float(2, 1.0);
        outer.message(3, &inner);
        assert_eq!(outer.into_bytes(), b"\x1a\x05\x15\x00\x00\x80\x3f");
    }
}
