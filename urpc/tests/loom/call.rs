//! The call line: both ends write one line by turns.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use urpc::{CallLine, Line, Message, PAYLOAD_WORDS, ReceiveError, SendError, Sequence, Side};

use super::{
    CLOSED_STORE, CONTROL_LOAD, CONTROL_STORE, LoomSlot, LoomWord, NOTHING, Weakened, check,
    message,
};

struct Lines {
    slot: LoomSlot,
    closed: [LoomWord; 2],
}

// SAFETY: loom serialises its threads, and checks the accesses to the cells.
unsafe impl Send for Lines {}
// SAFETY: as above.
unsafe impl Sync for Lines {}

struct LoomLine(Arc<Lines>);

impl Line for LoomLine {
    type Word = LoomWord;
    type Slot = LoomSlot;

    fn slot(&self) -> &LoomSlot {
        &self.0.slot
    }

    fn closed(&self, side: Side) -> &LoomWord {
        &self.0.closed[side as usize]
    }
}

fn pair<const WEAKENED: Weakened>() -> [CallLine<LoomLine>; 2] {
    let lines = Arc::new(Lines {
        slot: LoomSlot {
            payload: UnsafeCell::new([0; PAYLOAD_WORDS]),
            control: LoomWord::new(WEAKENED == CONTROL_STORE, WEAKENED == CONTROL_LOAD),
        },
        closed: std::array::from_fn(|_| LoomWord::new(WEAKENED == CLOSED_STORE, false)),
    });
    [Side::A, Side::B]
        .map(|side| CallLine::over(LoomLine(lines.clone()), side, Sequence::nth((1 << 40) - 1)))
}

fn receive(end: &mut CallLine<LoomLine>) -> Result<Message, ReceiveError> {
    loop {
        match end.recv() {
            Err(ReceiveError::Empty) => thread::yield_now(),
            other => return other,
        }
    }
}

/// Calls with their replies: the line is handed over in both directions, and again.
fn calls<const WEAKENED: Weakened>() {
    check(3, || {
        const CALLS: u64 = 3;
        let [mut caller, mut server] = pair::<WEAKENED>();
        let service = thread::spawn(move || {
            for number in 0..CALLS {
                assert_eq!(receive(&mut server), Ok(message(number)));
                assert_eq!(server.send(&message(number + 100)), Ok(()));
                assert_eq!(server.send(&message(0)), Err(SendError::Full));
            }
        });
        for number in 0..CALLS {
            assert_eq!(caller.send(&message(number)), Ok(()));
            assert_eq!(receive(&mut caller), Ok(message(number + 100)));
        }
        service.join().unwrap();
    });
}

#[test]
fn calls_and_replies_arrive_by_turns() {
    calls::<NOTHING>();
}

#[test]
#[should_panic = "Causality violation"]
fn without_release_on_the_control_word_a_call_may_be_missing() {
    calls::<CONTROL_STORE>();
}

#[test]
#[should_panic = "Causality violation"]
fn without_acquire_on_the_control_word_a_call_may_be_missing() {
    calls::<CONTROL_LOAD>();
}

/// The server replies and closes; the reply comes before the close.
fn close_after_reply<const WEAKENED: Weakened>() {
    check(3, || {
        let [mut caller, mut server] = pair::<WEAKENED>();
        caller.send(&message(1)).unwrap();
        let service = thread::spawn(move || {
            assert_eq!(server.recv(), Ok(message(1)));
            server.send(&message(2)).unwrap();
            server.close();
        });
        assert_eq!(receive(&mut caller), Ok(message(2)));
        caller.send(&message(3)).unwrap();
        assert_eq!(receive(&mut caller), Err(ReceiveError::Closed));
        service.join().unwrap();
    });
}

#[test]
fn a_reply_comes_before_the_close() {
    close_after_reply::<NOTHING>();
}

#[test]
#[should_panic = "left: Err(Closed)"]
fn without_release_on_the_closed_word_the_last_reply_may_be_missing() {
    close_after_reply::<CLOSED_STORE>();
}

#[test]
fn either_may_close_out_of_turn() {
    check(3, || {
        let [mut caller, mut server] = pair::<NOTHING>();
        let service = thread::spawn(move || {
            assert_eq!(receive(&mut server), Ok(message(1)));
            // The caller may have hung up by now: then this goes nowhere.
            assert_eq!(server.send(&message(2)), Ok(()));
            assert_eq!(receive(&mut server), Err(ReceiveError::Closed));
            server.close();
        });
        caller.send(&message(1)).unwrap();
        caller.close();
        assert_eq!(caller.recv(), Err(ReceiveError::Closed));
        assert_eq!(caller.send(&message(3)), Err(SendError::Closed));
        service.join().unwrap();
    });
}
