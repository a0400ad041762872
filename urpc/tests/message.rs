//! Messages: lengths, bytes and words.

use urpc::{Message, PAYLOAD_BYTES, TooLong, frame_bytes};

#[test]
fn bytes_come_out_as_they_went_in() {
    let bytes: Vec<u8> = (1..=56).collect();
    for length in 0..=PAYLOAD_BYTES {
        let message = Message::from_bytes(0xabcd, &bytes[..length]).unwrap();
        assert_eq!(message.kind(), 0xabcd);
        assert_eq!(message.length_bytes(), length);
        assert_eq!(message.as_bytes(), &bytes[..length]);
        assert_eq!(message.as_words().len(), length.div_ceil(8));
    }
    assert_eq!(Message::from_bytes(0, &[0; 57]), Err(TooLong { bytes: 57 }));
}

#[test]
fn words_come_out_as_they_went_in() {
    for length in 0..=7 {
        let words: Vec<u64> = (0..length)
            .map(|word| word * 0x0101_0101_0101_0101)
            .collect();
        let message = Message::from_words(1, &words).unwrap();
        assert_eq!(message.as_words(), words);
        assert_eq!(message.length_bytes(), words.len() * 8);
    }
    assert_eq!(Message::from_words(1, &[0; 8]), Err(TooLong { bytes: 64 }));
    assert_eq!(Message::new(2, [9; 7]).as_words(), [9; 7]);
}

#[test]
fn a_message_is_one_line_and_sixteen_slots_are_one_page() {
    assert_eq!(size_of::<Message>(), 64);
    assert_eq!(frame_bytes(16), 4096);
    assert_eq!(frame_bytes(1024), 256 * 1024);
}

#[test]
#[should_panic = "power of two"]
fn other_numbers_of_slots_are_refused() {
    let _ = frame_bytes(24);
}
