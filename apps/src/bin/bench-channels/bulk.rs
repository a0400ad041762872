//! Blocks from a domain's own memory to another's own memory on another core: parameter `bytes`.
//! Both ends poll.
//!
//! | operation             | what happens from the start to the receiver's word that it has the block |
//! |-----------------------|---------------------------------------------------------------------------|
//! | block by way of a frame | the sender copies it into a frame that both share and sends a message that says so; the receiver copies it out |
//! | block in messages     | 56 bytes in each message, over a ring of 64 slots                          |
//!
//! Whether each word of it is what it must be, the receiver finds afterwards, outside of the time;
//! every block has other contents than the one before. A rate is `bytes` by the time.
//!
//! ```text
//!  0                  16 KiB                              1 MiB more
//!  ├── channel, 64 slots ──┼── block ───────────────────────┤
//! ```

use crate::{hire, this_core, wait_for};
use abi::layout::PAGE;
use apps::crew::poll;
use apps::laboratory::{Failure, Laboratory, at, timed, told};
use core::array;
use core::hint::spin_loop;
use core::slice;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use rt::frame::Frame;
use rt::space::{Mapping, PageSize};
use urpc::{Channel, Message, PAYLOAD_WORDS, SendError, Side, frame_bytes};

const SLOTS: usize = 64;
const BLOCK: usize = frame_bytes(SLOTS);
const LEAST_BYTES: usize = 64;
const MOST_BYTES: usize = 1 << 20;
/// From one size to the next.
const FACTOR: usize = 4;
/// A block of so many bytes takes about twice as long as none.
const SLOWER_AT: usize = 32 << 10;
/// Words that are copied at once; a block is a multiple of them.
const STRIDE: usize = 8;

const _: () =
    assert!(LEAST_BYTES.is_multiple_of(STRIDE * 8) && BLOCK.is_multiple_of(PAGE as usize));

/// Order: take blocks.
const TAKE: u16 = 5;

/// On the channel: there is a block in the frame (words); it comes in the messages after this one
/// (words); how many words of the last one (words, number) are not as they must be?
const IN_FRAME: u16 = 1;
const IN_MESSAGES: u16 = 2;
const CHECK: u16 = 3;
/// The answer to each: words that are not as they must be, if that was asked.
const HAVE: u16 = 4;
/// A part of a block.
const PIECE: u16 = 5;

/// The words of a shared block.
fn block(frame: &Frame) -> &'static [AtomicU64] {
    let first = frame.word(BLOCK / 8);
    // The last one is there as well, or this panics.
    let _ = frame.word((BLOCK + MOST_BYTES) / 8 - 1);
    // SAFETY: words of the frame from the first to the last, which stay mapped for the life of the
    // domain; other accesses to them are atomic too.
    unsafe { slice::from_raw_parts(first, MOST_BYTES / 8) }
}

fn own_memory() -> Result<Mapping, Failure> {
    let mapping = Mapping::zeroed(MOST_BYTES as u64, PageSize::Small);
    told("memory for a block", mapping)
}

/// Copies whole strides.
fn copy(from: &[AtomicU64], to: &[AtomicU64]) {
    let (from, to) = (from.as_chunks::<STRIDE>().0, to.as_chunks::<STRIDE>().0);
    for (from, to) in from.iter().zip(to) {
        let words: [u64; STRIDE] = array::from_fn(|word| from[word].load(Relaxed));
        for (word, to) in words.into_iter().zip(to) {
            to.store(word, Relaxed);
        }
    }
}

/// A word of a block.
fn content(block: u64, word: usize) -> u64 {
    (block << 32 | word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

pub fn measure(laboratory: &mut Laboratory, other: usize) -> Result<(), Failure> {
    let mut crew = hire(other, BLOCK + MOST_BYTES)?;
    told("order", crew.order(other, &Message::new(TAKE, [0; 7])))?;
    let mut giver = Giver {
        channel: crew.frame().channel(0, SLOTS, Side::A),
        shared: block(crew.frame()),
        own: own_memory()?,
        number: 0,
    };
    for (kind, name) in [
        (IN_FRAME, "block by way of a frame"),
        (IN_MESSAGES, "block in messages"),
    ] {
        let mut bytes = LEAST_BYTES;
        while bytes <= MOST_BYTES {
            let with = [
                ("from", this_core() as u64),
                ("to", other as u64),
                ("bytes", bytes as u64),
            ];
            let slower_by = 1 + bytes / SLOWER_AT;
            laboratory.measure_with(name, &with, slower_by, || {
                giver.fill(bytes / 8);
                let (time, given) = timed(|| giver.give(kind, bytes / 8));
                given?;
                giver.check(bytes / 8)?;
                Ok(time)
            })?;
            bytes *= FACTOR;
        }
    }
    giver.channel.close();
    wait_for(&mut crew, other)?;
    told("end of a copy", crew.dismiss())
}

/// Who has blocks.
struct Giver {
    channel: Channel,
    shared: &'static [AtomicU64],
    own: Mapping,
    number: u64,
}

impl Giver {
    /// Makes the next block.
    fn fill(&mut self, words: usize) {
        self.number += 1;
        for (index, word) in self.own.words()[..words].iter().enumerate() {
            word.store(content(self.number, index), Relaxed);
        }
    }

    fn give(&mut self, kind: u16, words: usize) -> Result<(), Failure> {
        let own = &self.own.words()[..words];
        if kind == IN_FRAME {
            copy(own, self.shared);
            self.ask(kind, words).map(|_| ())
        } else {
            let head = Message::new(kind, [words as u64, 0, 0, 0, 0, 0, 0]);
            send(&mut self.channel, &head)?;
            let (pieces, rest) = own.as_chunks::<PAYLOAD_WORDS>();
            for piece in pieces {
                let words = array::from_fn(|word| piece[word].load(Relaxed));
                send(&mut self.channel, &Message::new(PIECE, words))?;
            }
            if !rest.is_empty() {
                let word = |index| {
                    rest.get(index)
                        .map_or(0, |word: &AtomicU64| word.load(Relaxed))
                };
                send(
                    &mut self.channel,
                    &Message::new(PIECE, array::from_fn(word)),
                )?;
            }
            self.answer().map(|_| ())
        }
    }

    fn check(&mut self, words: usize) -> Result<(), Failure> {
        match self.ask(CHECK, words)? {
            0 => Ok(()),
            bad => at("check of a block", Err((bad, "words are wrong"))),
        }
    }

    fn ask(&mut self, kind: u16, words: usize) -> Result<u64, Failure> {
        let words = [words as u64, self.number, 0, 0, 0, 0, 0];
        send(&mut self.channel, &Message::new(kind, words))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<u64, Failure> {
        match poll(&mut self.channel) {
            Some(answer) => Ok(answer.payload[0]),
            None => at("answer", Err("the other end is gone")),
        }
    }
}

/// Sends, and polls for room where there is none.
#[inline]
fn send(channel: &mut Channel, message: &Message) -> Result<(), Failure> {
    loop {
        match channel.send(message) {
            Ok(()) => return Ok(()),
            Err(SendError::Full) => spin_loop(),
            Err(error) => return told("send", Err(error)),
        }
    }
}

/// Takes blocks until the channel is closed.
pub fn serve(frame: &Frame) {
    let mut channel = frame.channel(0, SLOTS, Side::B);
    let shared = block(frame);
    if let Ok(own) = own_memory() {
        while let Some(question) = poll(&mut channel) {
            let words = (question.payload[0] as usize).min(MOST_BYTES / 8);
            let own = &own.words()[..words];
            let bad = match question.kind() {
                IN_FRAME => {
                    copy(shared, own);
                    0
                }
                IN_MESSAGES => take_messages(&mut channel, own),
                _ => {
                    let number = question.payload[1];
                    let is_bad = |(index, word): &(usize, &AtomicU64)| {
                        word.load(Relaxed) != content(number, *index)
                    };
                    own.iter().enumerate().filter(is_bad).count() as u64
                }
            };
            let answer = Message::new(HAVE, [bad, 0, 0, 0, 0, 0, 0]);
            if send(&mut channel, &answer).is_err() {
                break;
            }
        }
    }
    // Whoever waits for an answer hears of it.
    channel.close();
}

/// Fills this memory with what comes; what is left undone shows when it is checked.
fn take_messages(channel: &mut Channel, own: &[AtomicU64]) -> u64 {
    for place in own.chunks(PAYLOAD_WORDS) {
        let Some(piece) = poll(channel) else {
            break;
        };
        for (word, place) in piece.payload.into_iter().zip(place) {
            place.store(word, Relaxed);
        }
    }
    0
}
