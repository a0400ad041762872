//! The call line: against a model, against a vandal, and between two threads.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use common::{Frame, Random, message, mix};
use proptest::prelude::*;
use urpc::{CallLine, MappedLine, Message, ReceiveError, SLOT_BYTES, SendError, Sequence, Side};

/// Zeroed memory of which a call line is the first pair of lines.
fn memory() -> Frame {
    Frame::new(urpc::MIN_SLOTS)
}

/// The words of the call line.
fn words(memory: &Frame) -> &[AtomicU64] {
    &memory.words()[..SLOT_BYTES / 8]
}

/// An end of it, which must not outlive the memory.
fn end(memory: &Frame, side: Side, first: Sequence) -> CallLine {
    let base = memory.words().as_ptr().cast_mut().cast();
    // SAFETY: zeroed, aligned and large enough; all tests keep the memory to their end.
    CallLine::over(unsafe { MappedLine::new(base) }, side, first)
}

fn pair(memory: &Frame) -> [CallLine; 2] {
    [Side::A, Side::B].map(|side| end(memory, side, Sequence::FIRST))
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(usize),
    Receive(usize),
    Close(usize),
}

/// What the two ends must do: at most one message is under way, and whose turn it is follows.
struct Model {
    ends: [CallLine; 2],
    /// Whose message comes next.
    turn: usize,
    /// The message sent and not received.
    under_way: Option<Message>,
    closed: [bool; 2],
    told_closed: [bool; 2],
    sent: u64,
}

impl Model {
    fn step(&mut self, step: Step) {
        match step {
            Step::Send(end) => {
                let message = message(self.sent);
                self.sent += 1;
                let expected = if self.closed[end] || self.told_closed[end] {
                    Err(SendError::Closed)
                } else if self.turn == end && self.under_way.is_none() {
                    self.under_way = Some(message);
                    Ok(())
                } else {
                    Err(SendError::Full)
                };
                assert_eq!(self.ends[end].send(&message), expected);
            }
            Step::Receive(end) => {
                let peer = 1 - end;
                let expected = if self.closed[end] || self.told_closed[end] {
                    Err(ReceiveError::Closed)
                } else if self.turn == peer
                    && let Some(message) = self.under_way.take()
                {
                    self.turn = end;
                    Ok(message)
                } else if self.closed[peer] && (self.turn == peer || self.under_way.is_some()) {
                    self.told_closed[end] = true;
                    Err(ReceiveError::Closed)
                } else {
                    Err(ReceiveError::Empty)
                };
                assert_eq!(self.ends[end].recv(), expected);
            }
            Step::Close(end) => {
                self.ends[end].close();
                self.closed[end] = true;
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let end = || 0..2_usize;
    prop_oneof![
        50 => end().prop_map(Step::Send),
        50 => end().prop_map(Step::Receive),
        1 => end().prop_map(Step::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 2000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_line_changes_hands_by_turns(
        first in prop_oneof![Just(0), (1 << 40) - 100..(1_u64 << 40), any::<u64>()],
        steps in prop::collection::vec(step(), 1..if cfg!(miri) { 40 } else { 300 }),
    ) {
        let memory = memory();
        let mut model = Model {
            ends: [Side::A, Side::B].map(|side| end(&memory, side, Sequence::nth(first))),
            turn: 0,
            under_way: None,
            closed: [false; 2],
            told_closed: [false; 2],
            sent: 0,
        };
        for step in steps {
            model.step(step);
        }
    }
}

#[test]
fn what_was_sent_before_the_peer_attached_or_closed_is_received() {
    let memory = memory();
    let mut a = end(&memory, Side::A, Sequence::FIRST);
    a.send(&message(7)).unwrap();
    a.close();
    let mut b = end(&memory, Side::B, Sequence::FIRST);
    assert_eq!(b.recv(), Ok(message(7)));
    assert_eq!(b.recv(), Err(ReceiveError::Empty));
    b.send(&message(8)).unwrap();
    assert_eq!(b.recv(), Err(ReceiveError::Closed));
    assert_eq!(b.send(&message(9)), Err(SendError::Closed));
    assert_eq!(a.recv(), Err(ReceiveError::Closed));
}

#[test]
#[should_panic = "aligned to 128 bytes"]
fn a_line_that_is_not_aligned_is_refused() {
    let memory = memory();
    let base = memory.words()[8..].as_ptr().cast_mut().cast();
    // SAFETY: never used: the address is refused.
    let _never = unsafe { CallLine::attach(base, Side::A) };
}

#[test]
fn calls_are_answered_between_threads() {
    let calls = if cfg!(miri) { 50 } else { 1_000_000 };
    let memory = memory();
    let [mut caller, mut server] = pair(&memory);
    let receive = |end: &mut CallLine| {
        for polls in 1_u64.. {
            match end.recv() {
                Err(ReceiveError::Empty) => {}
                other => return other,
            }
            if polls.is_multiple_of(64) || cfg!(miri) {
                thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        unreachable!("polls for ever");
    };
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut number = 0;
            while let Ok(call) = receive(&mut server) {
                assert_eq!(call, message(number));
                server.send(&message(!number)).unwrap();
                number += 1;
            }
            assert_eq!(number, calls);
        });
        for number in 0..calls {
            caller.send(&message(number)).unwrap();
            assert_eq!(receive(&mut caller), Ok(message(!number)));
        }
        caller.close();
    });
}

/// An end that checks what a call line promises whatever its peer does.
struct Honest {
    end: CallLine,
    told: Option<ReceiveError>,
}

impl Honest {
    fn send(&mut self, number: u64) {
        let result = self.end.send(&message(number));
        match self.told {
            Some(ReceiveError::Broken) => assert_eq!(result, Err(SendError::Broken)),
            Some(_) => assert_eq!(result, Err(SendError::Closed)),
            None => assert!(matches!(result, Ok(()) | Err(SendError::Full))),
        }
    }

    fn receive(&mut self) {
        let result = self.end.recv();
        match (self.told, result) {
            (Some(told), result) => assert_eq!(result, Err(told)),
            (None, Ok(message)) => assert!(message.as_bytes().len() <= 56),
            (None, Err(ReceiveError::Empty)) => {}
            (None, Err(told)) => self.told = Some(told),
        }
    }

    fn anything(&mut self, random: &mut Random) {
        match random.below(3) {
            0 => self.send(random.next()),
            _ => self.receive(),
        }
    }
}

fn scribble(words: &[AtomicU64], random: &mut Random) {
    // The control word is what there is to lie about: every other lie is there.
    let target = match random.below(2) {
        0 => 7,
        _ => random.below(words.len()),
    };
    let old = words[target].load(Ordering::Relaxed);
    let word = match random.below(6) {
        0 => random.next(),
        1 => old ^ 1 << random.below(64),
        2 => 0,
        3 => u64::MAX,
        4 => old.wrapping_add((21 << 24) * (random.next() % 4)),
        _ => old.wrapping_sub((21 << 24) * (random.next() % 4)),
    };
    words[target].store(word, Ordering::Relaxed);
}

#[test]
fn scribbling_between_calls_never_misleads_an_end() {
    let (mut broken, mut closed) = (0, 0);
    for seed in 0..if cfg!(miri) { 40 } else { 20_000 } {
        let mut random = Random(mix(seed));
        let memory = memory();
        let side = [Side::A, Side::B][random.below(2)];
        let mut honest = Honest {
            end: end(&memory, side, Sequence::FIRST),
            told: None,
        };
        let mut peer = end(&memory, side.peer(), Sequence::FIRST);
        for _ in 0..100 {
            match random.below(12) {
                0 => scribble(words(&memory), &mut random),
                1..3 => drop(peer.send(&message(random.next()))),
                3..6 => drop(peer.recv()),
                _ => honest.anything(&mut random),
            }
        }
        broken += u64::from(honest.told == Some(ReceiveError::Broken));
        closed += u64::from(honest.told == Some(ReceiveError::Closed));
        if honest.told == Some(ReceiveError::Broken) {
            honest.end.close();
            assert_eq!(honest.end.recv(), Err(ReceiveError::Broken));
            assert_eq!(honest.end.send(&message(0)), Err(SendError::Broken));
        }
    }
    assert!(
        cfg!(miri) || broken > 1000 && closed > 100,
        "only {broken} broke and {closed} closed: the vandal is too kind"
    );
}

#[test]
fn scribbling_at_the_same_time_never_misleads_an_end() {
    for seed in 0..if cfg!(miri) { 2 } else { 300 } {
        let memory = memory();
        let side = [Side::A, Side::B][seed as usize % 2];
        let mut honest = Honest {
            end: end(&memory, side, Sequence::FIRST),
            told: None,
        };
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random(mix(seed));
                let mut peer = end(&memory, side.peer(), Sequence::FIRST);
                while !done.load(Ordering::Relaxed) {
                    let _ = peer.recv();
                    let _ = peer.send(&message(random.next()));
                    match random.below(256) {
                        0 => scribble(words(&memory), &mut random),
                        1..16 => thread::yield_now(),
                        _ => {}
                    }
                }
            });
            let mut random = Random(mix(!seed));
            for step in 0..if cfg!(miri) { 100 } else { 5000 } {
                honest.anything(&mut random);
                if step % 32 == 0 {
                    thread::yield_now();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

/// What only a liar writes, one lie at a time, with what comes of it.
#[test]
fn each_lie_is_told_from_the_truth() {
    const STEP: u64 = 21 << 24;
    // Two calls were answered and a third was sent, which B has not looked at or has answered.
    let waiting = |answered: bool| {
        let memory = memory();
        let [mut a, mut b] = pair(&memory);
        for number in 0..3 {
            a.send(&message(number)).unwrap();
            if number < 2 || answered {
                assert_eq!(b.recv(), Ok(message(number)));
                b.send(&message(number + 10)).unwrap();
            }
            if number < 2 {
                assert_eq!(a.recv(), Ok(message(number + 10)));
            }
        }
        (memory, a)
    };
    let control = |memory: &Frame| words(memory)[7].load(Ordering::Relaxed);
    let (memory, _) = waiting(false);
    let call = control(&memory);
    let (memory, _) = waiting(true);
    let reply = control(&memory);
    for lie in [
        0,
        1,
        u64::MAX,
        call ^ 1,
        call.wrapping_add(2 * STEP),
        reply.wrapping_add(STEP),
        reply.wrapping_sub(2 * STEP),
        reply & !(0x3f << 16) | 57 << 16,
        reply & !(0x3f << 16) | 63 << 16,
        reply ^ 1 << 22,
        reply ^ 1 << 23,
    ] {
        for closed in [0, 1] {
            let (memory, mut a) = waiting(false);
            words(&memory)[9].store(closed, Ordering::Relaxed);
            words(&memory)[7].store(lie, Ordering::Relaxed);
            assert_eq!(a.recv(), Err(ReceiveError::Broken), "control word {lie:#x}");
            words(&memory)[7].store(reply, Ordering::Relaxed);
            assert_eq!(a.recv(), Err(ReceiveError::Broken), "mended itself");
            assert_eq!(a.send(&message(0)), Err(SendError::Broken));
        }
    }
    // Its own call is no reply, and the reply is one with any payload and any kind.
    let (memory, mut a) = waiting(false);
    assert_eq!(a.recv(), Err(ReceiveError::Empty));
    words(&memory)[0].store(5, Ordering::Relaxed);
    words(&memory)[7].store(reply ^ 0xff, Ordering::Relaxed);
    let altered = a.recv().unwrap();
    assert_eq!(altered.payload[0], 5);
    assert_eq!(altered.kind(), message(12).kind() ^ 0xff);
}
