//! Every execution of small programs over the code that runs, as the memory model allows them.
//!
//! The channel runs over loom's atomics and tracked cells: a payload that is written while it is
//! read is reported, as is a message lost, altered or out of order, and a sleeper that nobody
//! wakes is a deadlock. Each ordering that the crate's documentation names is also taken away
//! once ([`Weakened`]); then loom must find the fault, else these tests prove nothing.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p urpc --release --test loom`
#![cfg(loom)]

#[path = "loom/call.rs"]
mod call;

// Not loom's: dropping that one while a found fault unwinds would abort.
use std::sync::Arc;
use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::sync::Notify;
use loom::sync::atomic::{AtomicU64, fence};
use loom::thread;
use urpc::{
    Channel, Half, Message, PAYLOAD_WORDS, ReceiveError, SendError, Sequence, Sleeper, Slot, Wait,
    Word,
};

/// Slots of every channel here: the least, so that few messages make a lap.
const SLOTS: usize = 4;

/// What a memory is made to do worse than it is asked to.
type Weakened = u8;
const NOTHING: Weakened = 0;
const CONTROL_STORE: Weakened = 1;
const CONTROL_LOAD: Weakened = 2;
const ACKNOWLEDGED_STORE: Weakened = 3;
const ACKNOWLEDGED_LOAD: Weakened = 4;
const FULL_FENCE: Weakened = 5;
const CLOSED_STORE: Weakened = 6;

/// A word that forgets the ordering of its stores or loads.
struct LoomWord {
    atomic: AtomicU64,
    relaxed_store: bool,
    relaxed_load: bool,
}

impl LoomWord {
    fn new(relaxed_store: bool, relaxed_load: bool) -> Self {
        Self {
            atomic: AtomicU64::new(0),
            relaxed_store,
            relaxed_load,
        }
    }
}

impl Word for LoomWord {
    fn load(&self, ordering: Ordering) -> u64 {
        self.atomic.load(if self.relaxed_load {
            Ordering::Relaxed
        } else {
            ordering
        })
    }

    fn store(&self, value: u64, ordering: Ordering) {
        self.atomic.store(
            value,
            if self.relaxed_store {
                Ordering::Relaxed
            } else {
                ordering
            },
        );
    }
}

struct LoomSlot {
    payload: UnsafeCell<[u64; PAYLOAD_WORDS]>,
    control: LoomWord,
}

impl Slot for LoomSlot {
    type Word = LoomWord;

    fn control(&self) -> &LoomWord {
        &self.control
    }

    fn write_payload(&self, payload: &[u64; PAYLOAD_WORDS]) {
        // SAFETY: loom reports an access that races with this one instead of letting it happen.
        self.payload
            .with_mut(|shared| unsafe { *shared = *payload });
    }

    fn read_payload(&self) -> [u64; PAYLOAD_WORDS] {
        // SAFETY: as above.
        self.payload.with(|shared| unsafe { *shared })
    }
}

struct LoomLines {
    slots: [LoomSlot; SLOTS],
    acknowledged: LoomWord,
    closed: LoomWord,
}

// SAFETY: loom serialises its threads, and checks the accesses to the cells.
unsafe impl Send for LoomLines {}
// SAFETY: as above.
unsafe impl Sync for LoomLines {}

struct LoomHalf<const WEAKENED: Weakened> {
    lines: Arc<LoomLines>,
    asleep: Arc<LoomWord>,
}

impl<const WEAKENED: Weakened> LoomHalf<WEAKENED> {
    fn new() -> Self {
        Self::sleeping_by(Arc::new(LoomWord::new(false, false)))
    }

    fn sleeping_by(asleep: Arc<LoomWord>) -> Self {
        let lines = Arc::new(LoomLines {
            slots: std::array::from_fn(|_| LoomSlot {
                payload: UnsafeCell::new([0; PAYLOAD_WORDS]),
                control: LoomWord::new(WEAKENED == CONTROL_STORE, WEAKENED == CONTROL_LOAD),
            }),
            acknowledged: LoomWord::new(
                WEAKENED == ACKNOWLEDGED_STORE,
                WEAKENED == ACKNOWLEDGED_LOAD,
            ),
            closed: LoomWord::new(WEAKENED == CLOSED_STORE, false),
        });
        Self { lines, asleep }
    }

    /// The same memory, as the other end sees it.
    fn seen_by<const OTHER: Weakened>(&self) -> LoomHalf<OTHER> {
        LoomHalf {
            lines: self.lines.clone(),
            asleep: self.asleep.clone(),
        }
    }
}

impl<const WEAKENED: Weakened> Half for LoomHalf<WEAKENED> {
    type Word = LoomWord;
    type Slot = LoomSlot;

    fn slot(&self, place: Sequence) -> &LoomSlot {
        &self.lines.slots[place.slot(SLOTS)]
    }

    fn prefetch_ahead(&self, _place: Sequence) -> impl FnOnce() + use<WEAKENED> {
        || {}
    }

    fn acknowledged(&self) -> &LoomWord {
        &self.lines.acknowledged
    }

    fn closed(&self) -> &LoomWord {
        &self.lines.closed
    }

    fn asleep(&self) -> &LoomWord {
        &self.asleep
    }

    fn full_fence() {
        if WEAKENED != FULL_FENCE {
            fence(Ordering::SeqCst);
        }
    }
}

type End<const WEAKENED: Weakened> = Channel<LoomHalf<WEAKENED>>;

/// Two ends of which each runs over memory weakened in its own way; what is weak about a word
/// is decided where it is written.
fn pair<const A: Weakened, const B: Weakened>() -> (End<A>, End<B>) {
    let (a, b) = (LoomHalf::<A>::new(), LoomHalf::<B>::new());
    let (a_seen_by_b, b_seen_by_a) = (a.seen_by(), b.seen_by());
    let first = Sequence::FIRST;
    (
        Channel::over(a, b_seen_by_a, SLOTS, first),
        Channel::over(b, a_seen_by_b, SLOTS, first),
    )
}

fn message(number: u64) -> Message {
    Message::new(
        number as u16,
        std::array::from_fn(|word| number * 8 + word as u64),
    )
}

fn receive<H: Half>(channel: &mut Channel<H>) -> Result<Message, ReceiveError> {
    loop {
        match channel.recv() {
            Err(ReceiveError::Empty) => thread::yield_now(),
            other => return other,
        }
    }
}

fn send<H: Half>(channel: &mut Channel<H>, message: &Message) -> Result<(), SendError> {
    loop {
        match channel.send(message) {
            Err(SendError::Full) => thread::yield_now(),
            other => return other,
        }
    }
}

/// Runs all executions with at most `preemptions` involuntary switches of thread.
fn check(preemptions: usize, program: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(program);
}

/// More than a lap in one direction: each slot is handed over and back.
fn stream<const WEAKENED: Weakened>() {
    check(3, || {
        const MESSAGES: u64 = SLOTS as u64 + 2;
        let (mut a, mut b) = pair::<WEAKENED, WEAKENED>();
        let receiver = thread::spawn(move || {
            for number in 0..MESSAGES {
                assert_eq!(receive(&mut b), Ok(message(number)));
            }
        });
        for number in 0..MESSAGES {
            assert_eq!(send(&mut a, &message(number)), Ok(()));
        }
        receiver.join().unwrap();
    });
}

#[test]
fn messages_arrive_in_order_and_slots_are_not_reused_early() {
    stream::<NOTHING>();
}

#[test]
#[should_panic = "Causality violation"]
fn without_release_on_the_control_word_the_payload_may_be_missing() {
    stream::<CONTROL_STORE>();
}

#[test]
#[should_panic = "Causality violation"]
fn without_acquire_on_the_control_word_the_payload_may_be_missing() {
    stream::<CONTROL_LOAD>();
}

#[test]
#[should_panic = "Causality violation"]
fn without_release_on_the_acknowledgement_a_slot_is_reused_early() {
    stream::<ACKNOWLEDGED_STORE>();
}

#[test]
#[should_panic = "Causality violation"]
fn without_acquire_on_the_acknowledgement_a_slot_is_reused_early() {
    stream::<ACKNOWLEDGED_LOAD>();
}

#[test]
fn calls_and_replies_over_more_than_a_lap() {
    check(2, || {
        const CALLS: u64 = SLOTS as u64 + 1;
        let (mut client, mut server) = pair::<NOTHING, NOTHING>();
        let service = thread::spawn(move || {
            while let Ok(call) = receive(&mut server) {
                send(&mut server, &message(u64::from(call.kind()) + 100)).unwrap();
            }
        });
        for number in 0..CALLS {
            send(&mut client, &message(number)).unwrap();
            assert_eq!(receive(&mut client), Ok(message(number + 100)));
        }
        client.close();
        service.join().unwrap();
    });
}

/// One end closes while the other fills its ring.
fn close<const WEAKENED: Weakened>() {
    check(3, || {
        let (mut a, mut b) = pair::<WEAKENED, WEAKENED>();
        let closer = thread::spawn(move || {
            send(&mut b, &message(0)).unwrap();
            b.close();
        });
        // This end fills its ring, which the peer never empties.
        let mut number = 0;
        assert_eq!(
            loop {
                match send(&mut a, &message(number)) {
                    Ok(()) => number += 1,
                    Err(error) => break error,
                }
            },
            SendError::Closed
        );
        assert_eq!(receive(&mut a), Ok(message(0)));
        assert_eq!(receive(&mut a), Err(ReceiveError::Closed));
        closer.join().unwrap();
    });
}

#[test]
fn a_close_comes_after_all_messages_and_unblocks_a_sender() {
    close::<NOTHING>();
}

#[test]
#[should_panic = "left: Err(Broken)"]
fn without_release_on_the_closed_word_messages_before_it_may_be_missing() {
    close::<CLOSED_STORE>();
}

/// Both ends block instead of polling: the receiver while the ring is empty, the sender while it
/// is full. A lost wake-up leaves both threads blocked, which loom reports.
fn sleepers<const A: Weakened, const B: Weakened>(messages: u64, preemptions: usize) {
    check(preemptions, move || {
        let (mut a, mut b) = pair::<A, B>();
        let (bell_a, bell_b) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let receiver = {
            let (bell_a, bell_b) = (bell_a.clone(), bell_b.clone());
            thread::spawn(move || {
                for number in 0..messages {
                    let received = loop {
                        match b.recv() {
                            Err(ReceiveError::Empty) => {
                                if b.prepare_sleep(Wait::Message) {
                                    bell_b.wait();
                                }
                                b.awake();
                            }
                            other => break other,
                        }
                    };
                    assert_eq!(received, Ok(message(number)));
                    if b.peer_needs_doorbell() {
                        bell_a.notify();
                    }
                }
            })
        };
        for number in 0..messages {
            while let Err(error) = a.send(&message(number)) {
                assert_eq!(error, SendError::Full);
                if a.prepare_sleep(Wait::Room) {
                    bell_a.wait();
                }
                a.awake();
            }
            if a.peer_needs_doorbell() {
                bell_b.notify();
            }
        }
        receiver.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost_on_an_empty_ring() {
    sleepers::<NOTHING, NOTHING>(3, 4);
}

#[test]
fn no_wake_up_is_lost_on_a_full_ring() {
    sleepers::<NOTHING, NOTHING>(SLOTS as u64 + 1, 3);
}

#[test]
#[should_panic = "deadlock"]
fn without_the_sender_s_fence_a_wake_up_is_lost() {
    sleepers::<FULL_FENCE, NOTHING>(1, 3);
}

#[test]
#[should_panic = "deadlock"]
fn without_the_sleeper_s_fence_a_wake_up_is_lost() {
    sleepers::<NOTHING, FULL_FENCE>(1, 3);
}

/// One end of two channels, which announces sleep on both by one word: as a monitor does.
fn sleeper_on_two_channels<const SENDER: Weakened, const SLEEPER: Weakened>() {
    check(2, || {
        let word = Arc::new(LoomWord::new(false, false));
        let bell = Arc::new(Notify::new());
        let mut channels = Vec::new();
        let mut senders = Vec::new();
        for number in 0..2 {
            let own = LoomHalf::<SLEEPER>::sleeping_by(word.clone());
            let peers = LoomHalf::<SENDER>::new();
            let (seen_by_us, seen_by_peer) = (peers.seen_by(), own.seen_by());
            let first = Sequence::FIRST;
            channels.push(Channel::over(own, seen_by_us, SLOTS, first));
            let mut peer: End<SENDER> = Channel::over(peers, seen_by_peer, SLOTS, first);
            let bell = bell.clone();
            senders.push(thread::spawn(move || {
                peer.send(&message(number)).unwrap();
                if peer.peer_needs_doorbell() {
                    bell.notify();
                }
            }));
        }
        let mut sleeper = Sleeper::new(&*word);
        let mut received = 0;
        while received < 2 {
            let came = channels
                .iter_mut()
                .filter_map(|channel| channel.recv().ok());
            let came = came.count();
            received += came;
            if came > 0 {
                continue;
            }
            sleeper.announce(Wait::Message);
            LoomHalf::<SLEEPER>::full_fence();
            let mut all = channels.iter_mut();
            if all.all(|channel| channel.may_sleep(Wait::Message)) {
                bell.wait();
            }
            sleeper.awake();
        }
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
fn no_wake_up_is_lost_by_one_word_for_two_channels() {
    sleeper_on_two_channels::<NOTHING, NOTHING>();
}

#[test]
#[should_panic = "deadlock"]
fn without_the_sender_s_fence_a_wake_up_by_one_word_is_lost() {
    sleeper_on_two_channels::<FULL_FENCE, NOTHING>();
}

#[test]
#[should_panic = "deadlock"]
fn without_the_sleeper_s_fence_a_wake_up_by_one_word_is_lost() {
    sleeper_on_two_channels::<NOTHING, FULL_FENCE>();
}

/// The sender fills its ring before the receiver starts, so that only the wake-up for room can
/// be lost.
fn sleeping_sender<const WEAKENED: Weakened>() {
    check(3, || {
        let (mut a, mut b) = pair::<WEAKENED, WEAKENED>();
        for number in 0..SLOTS as u64 - 1 {
            a.send(&message(number)).unwrap();
        }
        let bell = Arc::new(Notify::new());
        let receiver = {
            let bell = bell.clone();
            thread::spawn(move || {
                assert_eq!(b.recv(), Ok(message(0)));
                if b.peer_needs_doorbell() {
                    bell.notify();
                }
            })
        };
        while a.send(&message(9)).is_err() {
            if a.prepare_sleep(Wait::Room) {
                bell.wait();
            }
            a.awake();
        }
        receiver.join().unwrap();
    });
}

#[test]
fn a_sender_that_sleeps_for_room_is_woken() {
    sleeping_sender::<NOTHING>();
}

#[test]
#[should_panic = "deadlock"]
fn without_the_full_fences_a_sender_sleeps_on() {
    sleeping_sender::<FULL_FENCE>();
}

/// A peer that closes wakes a sleeper, whatever it waits for.
fn sleeper_and_closer<const WEAKENED: Weakened>(wait: Wait) {
    check(3, move || {
        let (mut a, mut b) = pair::<WEAKENED, WEAKENED>();
        for number in 0..SLOTS as u64 - 1 {
            a.send(&message(number)).unwrap();
        }
        let bell = Arc::new(Notify::new());
        let closer = {
            let bell = bell.clone();
            thread::spawn(move || {
                b.close();
                if b.peer_needs_doorbell() {
                    bell.notify();
                }
            })
        };
        loop {
            let ended = match wait {
                Wait::Room => a.send(&message(9)) == Err(SendError::Closed),
                _ => a.recv() == Err(ReceiveError::Closed),
            };
            if ended {
                break;
            }
            if a.prepare_sleep(wait) {
                bell.wait();
            }
            a.awake();
        }
        closer.join().unwrap();
    });
}

#[test]
fn a_close_wakes_one_that_waits_for_messages() {
    sleeper_and_closer::<NOTHING>(Wait::Message);
}

#[test]
fn a_close_wakes_one_that_waits_for_room() {
    sleeper_and_closer::<NOTHING>(Wait::Room);
}

#[test]
#[should_panic = "deadlock"]
fn without_the_full_fences_a_close_is_slept_through() {
    sleeper_and_closer::<FULL_FENCE>(Wait::MessageOrRoom);
}
