//! Contents of test messages: each word depends on the stream, the message's number and the
//! word's place, so that no mix-up goes unnoticed.

use urpc::{Message, PAYLOAD_WORDS};

/// The kind that all test messages bear.
pub const KIND: u16 = 0x7e57;

/// Message `number` of a stream.
#[inline]
pub fn message(stream: u64, number: u64) -> Message {
    let mut words = [number; PAYLOAD_WORDS];
    // An odd factor makes the product a different one for each number.
    let mut word = (stream ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for place in &mut words[1..] {
        word = word.rotate_left(13) ^ stream.wrapping_add(number);
        *place = word;
    }
    Message::new(KIND, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_differ_by_stream_and_number() {
        for stream in 0..20 {
            for number in 0..200 {
                assert_eq!(message(stream, number), message(stream, number));
                assert_ne!(message(stream, number), message(stream, number + 1));
                assert_ne!(message(stream, number), message(stream + 1, number));
            }
        }
    }
}
