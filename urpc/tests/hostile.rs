//! A peer that writes anything anywhere: its channel fails, and nothing else does.

mod common;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::{Frame, Random, message, mix};
use urpc::{Channel, Message, ReceiveError, SendError, Side, Wait};

/// Scales a number of repetitions down where an interpreter runs the test.
const fn times(count: u64) -> u64 {
    if cfg!(miri) {
        count.div_ceil(500)
    } else {
        count
    }
}

/// An honest end that checks what a channel promises whatever its peer does.
struct Honest {
    channel: Channel,
    broken: bool,
    closed: bool,
}

impl Honest {
    fn new(channel: Channel) -> Self {
        Self {
            channel,
            broken: false,
            closed: false,
        }
    }

    fn sent(&mut self, result: Result<usize, SendError>) {
        match result {
            Ok(_) => assert!(!self.broken && !self.closed),
            Err(SendError::Full) => assert!(!self.broken && !self.closed),
            Err(SendError::Closed) => assert!(!self.broken),
            Err(SendError::Broken) => self.broken = true,
        }
    }

    fn received(&mut self, result: Result<&[Message], ReceiveError>) {
        match result {
            Ok(messages) => {
                assert!(!self.broken && !self.closed);
                for message in messages {
                    assert!(message.as_bytes().len() <= 56);
                }
            }
            Err(ReceiveError::Empty) => assert!(!self.broken && !self.closed),
            Err(ReceiveError::Closed) => {
                assert!(!self.broken);
                self.closed = true;
            }
            Err(ReceiveError::Broken) => {
                assert!(!self.closed);
                self.broken = true;
            }
        }
    }

    fn anything(&mut self, random: &mut Random) {
        match random.below(8) {
            0 | 1 => {
                let result = self.channel.send(&message(random.next())).map(|()| 1);
                self.sent(result);
            }
            2 => {
                let result = self.channel.send_batch(&[message(random.next()); 9]);
                self.sent(result);
            }
            3 | 4 => {
                let result = self.channel.recv().map(|message| [message]);
                self.received(result.as_ref().map(|one| &one[..]).map_err(|error| *error));
            }
            5 => {
                let mut messages = [Message::EMPTY; 9];
                let result = self.channel.recv_batch(&mut messages);
                self.received(result.map(|count| &messages[..count]));
            }
            6 => {
                let wait = [Wait::Message, Wait::Room, Wait::MessageOrRoom][random.below(3)];
                let may_sleep = self.channel.prepare_sleep(wait);
                assert!(!(may_sleep && (self.broken || self.closed)));
                self.channel.awake();
            }
            _ => {
                let free = self.channel.free_slots();
                assert!(free <= self.channel.capacity());
                let _ = self.channel.peer_needs_doorbell();
            }
        }
    }
}

/// A word a vandal would write: noise, a bit, a neighbour, or something seen elsewhere.
fn vandal_word(random: &mut Random, words: &[AtomicU64], target: usize) -> u64 {
    let old = words[target].load(Ordering::Relaxed);
    match random.below(7) {
        0 => random.next(),
        1 => old ^ 1 << random.below(64),
        2 => 0,
        3 => u64::MAX,
        4 => words[random.below(words.len())].load(Ordering::Relaxed),
        // Sequences near the one that was there: a message too many, an old acknowledgement.
        5 => old.wrapping_add((21 << 24) * (random.next() % 64)),
        _ => old.wrapping_sub((21 << 24) * (random.next() % 64)),
    }
}

#[test]
fn scribbling_between_calls_never_misleads_an_end() {
    let (mut broken, mut closed) = (0, 0);
    for seed in 0..times(20_000) {
        let mut random = Random(mix(seed));
        let frame = Frame::new([4, 8, 16, 64][random.below(4)]);
        let (a, mut b) = (frame.attach(Side::A), frame.attach(Side::B));
        let mut honest = Honest::new(a.channel);
        // Sometimes the whole frame is writable for the vandal, sometimes only its half.
        let words = if random.below(2) == 0 {
            frame.words()
        } else {
            frame.half(Side::B)
        };
        for _ in 0..200 {
            match random.below(6) {
                0 => {
                    let target = random.below(words.len());
                    words[target].store(vandal_word(&mut random, words, target), Ordering::Relaxed);
                }
                1 => drop(b.channel.send(&message(random.next()))),
                2 => drop(b.channel.recv()),
                _ => honest.anything(&mut random),
            }
        }
        broken += u64::from(honest.broken);
        closed += u64::from(honest.closed);
        if honest.broken {
            // Final, and closable for the peer's sake.
            honest.channel.close();
            assert_eq!(honest.channel.recv(), Err(ReceiveError::Broken));
            assert_eq!(honest.channel.send(&message(0)), Err(SendError::Broken));
        }
    }
    assert!(
        cfg!(miri) || broken > 1000,
        "only {broken} channels broke: the vandal is too kind"
    );
    println!("{broken} broken, {closed} closed");
}

#[test]
fn scribbling_at_the_same_time_never_misleads_an_end() {
    for seed in 0..times(300) {
        let frame = Frame::new(8);
        let mut honest = Honest::new(frame.attach(Side::A).channel);
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random(mix(seed));
                let mut b = frame.attach(Side::B).channel;
                let words = frame.half(Side::B);
                let mut scribbles = 0;
                while !done.load(Ordering::Relaxed) {
                    let _ = b.send(&message(random.next()));
                    let _ = b.recv();
                    if random.below(64) == 0 && scribbles < 50 {
                        scribbles += 1;
                        let target = random.below(words.len());
                        let word = vandal_word(&mut random, words, target);
                        words[target].store(word, Ordering::Relaxed);
                    }
                    if random.below(32) == 0 {
                        thread::yield_now();
                    }
                }
            });
            let mut random = Random(mix(!seed));
            for step in 0..times(5000) {
                honest.anything(&mut random);
                if step % 32 == 0 {
                    thread::yield_now();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

/// A channel in the midst of traffic: A has received some of what B sent, and the reverse.
fn busy_channel(slots: usize, taken: u64) -> (Frame, Channel, VecDeque<Message>) {
    let frame = Frame::new(slots);
    let (mut a, mut b) = (frame.attach(Side::A).channel, frame.attach(Side::B).channel);
    for number in 0..taken {
        b.send(&message(number)).unwrap();
        assert_eq!(a.recv(), Ok(message(number)));
        a.send(&message(number)).unwrap();
        assert_eq!(b.recv(), Ok(message(number)));
    }
    let mut waiting = VecDeque::new();
    for number in 0..slots as u64 / 2 {
        b.send(&message(number)).unwrap();
        a.send(&message(number)).unwrap();
        waiting.push_back(message(number));
    }
    (frame, a, waiting)
}

#[test]
fn each_single_bit_flipped_breaks_or_alters_one_message_and_no_more() {
    let slots = 8;
    for taken in [0, 3, 13] {
        let words = Frame::new(slots).words().len();
        for target in (0..words).step_by(if cfg!(miri) { 53 } else { 1 }) {
            for bit in (0..64).step_by(if cfg!(miri) { 29 } else { 1 }) {
                let (frame, mut a, waiting) = busy_channel(slots, taken);
                let flipped =
                    frame.words()[target].fetch_xor(1 << bit, Ordering::Relaxed) ^ 1 << bit;
                let is_message_line = target % 16 < 8;

                let mut altered = 0;
                let mut received = 0;
                let end = loop {
                    match a.recv() {
                        Ok(got) => {
                            assert!(received < waiting.len(), "a message nobody sent");
                            altered += usize::from(got != waiting[received]);
                            received += 1;
                        }
                        Err(error) => break error,
                    }
                };
                assert!(altered <= usize::from(is_message_line));
                match end {
                    // The control word of an empty first message is a single bit.
                    ReceiveError::Empty => {
                        assert!(received == waiting.len() || is_message_line && flipped == 0);
                    }
                    // The only bits that close are in the `closed` word and a head, neither of
                    // which a single flip makes valid as a close.
                    ReceiveError::Closed => panic!("closed by a flipped bit {bit} of {target}"),
                    ReceiveError::Broken => assert_eq!(a.recv(), Err(ReceiveError::Broken)),
                }

                let mut sent = slots / 2;
                let end = loop {
                    match a.send(&message(0)) {
                        Ok(()) => sent += 1,
                        Err(error) => break error,
                    }
                };
                // No flip gives the sender more room than the ring has.
                assert!(sent < slots, "overran the ring");
                assert_eq!(a.send(&message(0)), Err(end));
            }
        }
    }
}

/// What only a liar writes, one lie at a time, with the error it must give.
#[test]
fn each_lie_is_told_from_the_truth() {
    const STEP: u64 = 21 << 24;
    let slots = 8;
    // Of B's half: the word that acknowledges, the one that closes, and slot n's control word.
    let (acknowledged, closed) = (8, 9);
    let control = |message: usize| (message * 21 % slots) * 16 + 7;
    let of = |frame: &Frame, word: usize| frame.half(Side::B)[word].load(Ordering::Relaxed);
    let lie = |frame: &Frame, word: usize, value: u64| {
        frame.half(Side::B)[word].store(value, Ordering::Relaxed);
    };
    let after_traffic = || busy_channel(slots, 6);
    let next = 6_usize;

    // A has sent 10 messages, and B acknowledged 6. Now one more than was sent, one less than
    // before, parts of a message, noise.
    for lie_by in [5 * STEP, STEP.wrapping_neg(), 1 << 24, 1, u64::MAX / 2] {
        let (frame, mut a, _) = after_traffic();
        assert_eq!(a.free_slots(), slots - 1 - 4);
        lie(
            &frame,
            acknowledged,
            of(&frame, acknowledged).wrapping_add(lie_by),
        );
        assert_eq!(a.free_slots(), 0, "lie by {lie_by:#x}");
        assert_eq!(
            a.send(&message(0)),
            Err(SendError::Broken),
            "lie by {lie_by:#x}"
        );
        assert_eq!(a.recv(), Err(ReceiveError::Broken));
    }

    // A message of the next lap, of two laps ago, of a length no message has, of noise.
    let (frame, ..) = after_traffic();
    let honest = of(&frame, control(next));
    let laps = STEP * slots as u64;
    let lies = [
        honest.wrapping_add(laps),
        honest.wrapping_sub(2 * laps),
        honest.wrapping_add(STEP),
        honest & !(0x3f << 16) | 57 << 16,
        honest & !(0x3f << 16) | 62 << 16,
        honest & !(0x3f_ffff) | 63 << 16 | 1,
        honest ^ 1 << 22,
        honest ^ 1 << 23,
        1,
        u64::MAX,
    ];
    for word in lies {
        let (frame, mut a, _) = after_traffic();
        lie(&frame, control(next), word);
        assert_eq!(
            a.recv(),
            Err(ReceiveError::Broken),
            "control word {word:#x}"
        );
        lie(&frame, control(next), honest);
        assert_eq!(a.recv(), Err(ReceiveError::Broken), "mended itself");
        assert_eq!(a.send(&message(0)), Err(SendError::Broken));
        assert!(!a.prepare_sleep(Wait::Message));
    }

    // What a slot held a lap ago, or zero, is an empty ring.
    for word in [honest.wrapping_sub(laps), 0] {
        let (frame, mut a, _) = after_traffic();
        lie(&frame, control(next), word);
        assert_eq!(a.recv(), Err(ReceiveError::Empty), "control word {word:#x}");
        lie(&frame, control(next), honest);
        assert_eq!(a.recv(), Ok(message(0)));
    }

    // Says it has closed, but did not close the ring: broken, not empty for ever.
    let (frame, mut a, waiting) = after_traffic();
    lie(&frame, closed, 1);
    assert_eq!(a.free_slots(), 0);
    assert_eq!(a.send(&message(0)), Err(SendError::Closed));
    for expected in waiting {
        assert_eq!(a.recv(), Ok(expected));
    }
    assert_eq!(a.recv(), Err(ReceiveError::Broken));
}
