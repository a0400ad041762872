//! A message as programs see it: a kind, a length and up to 56 bytes.

use core::fmt;

use zerocopy::IntoBytes;

/// Words of payload in one message: what a line of 64 bytes holds beside its control word.
pub const PAYLOAD_WORDS: usize = 7;

/// Bytes of payload in one message.
pub const PAYLOAD_BYTES: usize = PAYLOAD_WORDS * 8;

/// Bit at which the length stands in a head.
const LENGTH_SHIFT: u32 = 16;

/// Bits of a control word that are the head: 16 of kind, 6 of length.
pub(crate) const HEAD_MASK: u64 = (1 << 22) - 1;

/// The largest head of a message. Heads above it up to [`HEAD_MASK`] carry lengths that no
/// message has, so one comparison tells a message from anything else.
pub(crate) const MAX_HEAD: u64 = (PAYLOAD_BYTES as u64) << LENGTH_SHIFT | u16::MAX as u64;

/// The head that closes a channel: a length no message has.
pub(crate) const CLOSING_HEAD: u64 = 63 << LENGTH_SHIFT;

/// One message: 56 bytes of payload, a kind that means what the two ends agree on, and the
/// number of payload bytes in use.
///
/// All 56 bytes travel whatever the length says; constructors fill the rest with zeros.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Message {
    /// The payload as words.
    pub payload: [u64; PAYLOAD_WORDS],
    /// Length and kind as they stand in the low bits of a control word: at most [`MAX_HEAD`].
    pub(crate) head: u64,
}

/// More payload was offered than a message holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// Bytes offered; a message holds [`PAYLOAD_BYTES`].
    pub bytes: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a message holds {PAYLOAD_BYTES} bytes, {} were given: split them, or send a frame",
            self.bytes
        )
    }
}

impl core::error::Error for TooLong {}

impl Message {
    /// A message of kind 0 and length 0, to receive into.
    pub const EMPTY: Self = Self {
        payload: [0; PAYLOAD_WORDS],
        head: 0,
    };

    /// A message whose seven words are all in use (length 56).
    #[inline]
    #[must_use]
    pub const fn new(kind: u16, payload: [u64; PAYLOAD_WORDS]) -> Self {
        Self {
            payload,
            head: (PAYLOAD_BYTES as u64) << LENGTH_SHIFT | kind as u64,
        }
    }

    /// A message of up to seven words.
    ///
    /// # Errors
    /// [`TooLong`] beyond seven words.
    #[inline]
    pub fn from_words(kind: u16, words: &[u64]) -> Result<Self, TooLong> {
        Self::from_bytes(kind, words.as_bytes())
    }

    /// A message of up to 56 bytes.
    ///
    /// # Errors
    /// [`TooLong`] beyond 56 bytes.
    #[inline]
    pub fn from_bytes(kind: u16, bytes: &[u8]) -> Result<Self, TooLong> {
        let mut payload = [0; PAYLOAD_WORDS];
        payload
            .as_mut_bytes()
            .get_mut(..bytes.len())
            .ok_or(TooLong { bytes: bytes.len() })?
            .copy_from_slice(bytes);
        Ok(Self {
            payload,
            head: (bytes.len() as u64) << LENGTH_SHIFT | u64::from(kind),
        })
    }

    /// What the two ends agreed this message is.
    #[inline]
    #[must_use]
    pub const fn kind(&self) -> u16 {
        self.head as u16
    }

    /// Bytes of payload in use, 0 to 56.
    #[inline]
    #[must_use]
    pub const fn length_bytes(&self) -> usize {
        (self.head >> LENGTH_SHIFT) as usize
    }

    /// The payload bytes in use.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.payload.as_bytes()[..self.length_bytes()]
    }

    /// The payload words in use; one that is in use in part counts whole.
    #[inline]
    #[must_use]
    pub fn as_words(&self) -> &[u64] {
        &self.payload[..self.length_bytes().div_ceil(8)]
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("kind", &self.kind())
            .field("length_bytes", &self.length_bytes())
            .field("payload", &self.payload)
            .finish()
    }
}
