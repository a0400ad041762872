//! The code beside the model: both must make the same accesses of shared memory, in the same order.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use urpc::{Channel, Half, Message, PAYLOAD_WORDS, ReceiveError, SendError, Sequence, Slot, Wait};

use crate::cores::{Access, Call, SLOTS, Word};
use crate::model::{Machine, World};
use crate::{connection, machine};

thread_local! {
    static ACCESSES: RefCell<Vec<Access>> = const { RefCell::new(Vec::new()) };
}

fn note(access: Access) {
    ACCESSES.with_borrow_mut(|accesses| accesses.push(access));
}

fn take_accesses() -> Vec<Access> {
    ACCESSES.take()
}

/// A word of the code, and which of the model's it is, if any.
struct NotedWord(Cell<u64>, Option<Word>);

impl NotedWord {
    fn new(word: Option<Word>) -> Self {
        Self(Cell::new(0), word)
    }

    fn note(&self, access: fn(Word, u8) -> Access) {
        let value = self.0.get();
        match self.1 {
            // The kind of a message says here which one it is.
            Some(word @ Word::Control(_)) => note(access(word, value as u8)),
            Some(Word::Acknowledged) => {
                let mut counts = 0..=u8::MAX;
                let is_it = |count: &u8| value == sequence_word((*count).into());
                let count = if value == 0 {
                    Some(0)
                } else {
                    counts.find(is_it)
                };
                note(access(Word::Acknowledged, count.expect("a sequence")));
            }
            Some(Word::Asleep) => note(access(Word::Asleep, value as u8)),
            None => {}
        }
    }
}

/// The word that acknowledges so many messages: see the crate's documentation.
fn sequence_word(messages: u64) -> u64 {
    (messages * 21) << 24 | 1 << 23
}

impl urpc::Word for NotedWord {
    fn load(&self, _: Ordering) -> u64 {
        self.note(Access::Load);
        self.0.get()
    }

    fn store(&self, value: u64, _: Ordering) {
        self.0.set(value);
        self.note(Access::Store);
    }
}

struct NotedSlot(NotedWord, Cell<[u64; PAYLOAD_WORDS]>);

impl Slot for NotedSlot {
    type Word = NotedWord;

    fn control(&self) -> &NotedWord {
        &self.0
    }

    fn write_payload(&self, payload: &[u64; PAYLOAD_WORDS]) {
        self.1.set(*payload);
    }

    fn read_payload(&self) -> [u64; PAYLOAD_WORDS] {
        self.1.get()
    }
}

struct NotedLines {
    slots: [NotedSlot; SLOTS as usize],
    acknowledged: NotedWord,
    closed: NotedWord,
    asleep: NotedWord,
}

impl NotedLines {
    fn new() -> Rc<Self> {
        let slot = |slot| NotedWord::new(Some(Word::Control(slot as u8)));
        Rc::new(Self {
            slots: std::array::from_fn(|number| NotedSlot(slot(number), Cell::default())),
            acknowledged: NotedWord::new(Some(Word::Acknowledged)),
            closed: NotedWord::new(None),
            asleep: NotedWord::new(Some(Word::Asleep)),
        })
    }
}

struct NotedHalf(Rc<NotedLines>);

impl Half for NotedHalf {
    type Word = NotedWord;
    type Slot = NotedSlot;

    fn slot(&self, place: Sequence) -> &NotedSlot {
        &self.0.slots[place.slot(SLOTS.into())]
    }

    fn prefetch_ahead(&self, _place: Sequence) -> impl FnOnce() + use<> {
        || {}
    }

    fn acknowledged(&self) -> &NotedWord {
        &self.0.acknowledged
    }

    fn closed(&self) -> &NotedWord {
        &self.0.closed
    }

    fn asleep(&self) -> &NotedWord {
        &self.0.asleep
    }

    fn full_fence() {
        note(Access::Fence);
    }
}

/// The code on a core: a connection that does not poll.
struct Connection {
    channel: Channel<NotedHalf>,
    calls: Vec<Call>,
    call: usize,
    sent: u64,
    received: u64,
    is_asleep: bool,
}

impl Connection {
    fn new(own: &Rc<NotedLines>, peer: &Rc<NotedLines>, calls: &[Call]) -> Self {
        let (own, peer) = (NotedHalf(own.clone()), NotedHalf(peer.clone()));
        Self {
            channel: Channel::over(own, peer, SLOTS.into(), Sequence::FIRST),
            calls: calls.to_vec(),
            call: 0,
            sent: 0,
            received: 0,
            is_asleep: false,
        }
    }

    /// Whether the call succeeds at once, and else what to wait for.
    fn make(&mut self, call: Call) -> Result<(), Wait> {
        match call {
            Call::Send => {
                let message = Message::new(self.sent as u16 + 1, [self.sent; PAYLOAD_WORDS]);
                match self.channel.send(&message) {
                    Ok(()) => self.sent += 1,
                    Err(error) => {
                        assert_eq!(error, SendError::Full);
                        return Err(Wait::Room);
                    }
                }
            }
            Call::Receive => match self.channel.recv() {
                Ok(message) => {
                    assert_eq!(message.payload, [self.received; PAYLOAD_WORDS]);
                    self.received += 1;
                }
                Err(error) => {
                    assert_eq!(error, ReceiveError::Empty);
                    return Err(Wait::Message);
                }
            },
        }
        Ok(())
    }

    /// Runs until a call has succeeded, as that of the model does; false if there is none or it
    /// sleeps. `own` and `peer` say which doorbells are pending.
    fn turn(&mut self, own: &mut bool, peer: &mut bool) -> bool {
        loop {
            if self.is_asleep {
                if !std::mem::take(own) {
                    return false;
                }
                self.is_asleep = false;
                self.channel.awake();
            }
            let Some(call) = self.calls.get(self.call) else {
                return false;
            };
            let made = self.make(*call);
            if self.channel.peer_needs_doorbell() {
                note(Access::Ring);
                *peer = true;
            }
            match made {
                Ok(()) => {
                    self.call += 1;
                    return true;
                }
                Err(wait) => {
                    if self.channel.prepare_sleep(wait) {
                        note(Access::Wait);
                        self.is_asleep = true;
                    }
                }
            }
        }
    }
}

/// The same of the model; every store is seen, and every doorbell heard, at once.
fn model_turn(machine: &Machine, world: &mut World, core: usize) -> bool {
    let call = world.cores[core].call;
    while world.cores[core].can_run() {
        note(world.run(machine, core));
        while !world.cores[core].buffer.is_empty() {
            world.drain(core);
        }
        for other in 0..world.cores.len() {
            if std::mem::take(&mut world.cores[other].under_way) > 0 {
                world.interrupt(machine, other);
            }
        }
        if world.cores[core].call != call {
            return true;
        }
    }
    false
}

/// Code and model take turns of all lengths that matter, and each turn's accesses are the same.
#[test]
fn the_code_takes_the_steps_of_the_doorbell_model() {
    use Call::{Receive, Send};
    let (mut sleeps, mut rings) = (0, 0);
    let programs: [[Vec<Call>; 2]; 4] = [
        [vec![Send; 9], vec![Receive; 9]],
        [[Send, Receive].repeat(6), [Receive, Send].repeat(6)],
        [
            [Send, Send, Receive].repeat(4),
            [Receive, Receive, Send].repeat(4),
        ],
        [
            [vec![Send; 4], vec![Receive; 5]].concat(),
            [vec![Receive; 3], vec![Send; 5], vec![Receive]].concat(),
        ],
    ];
    for calls in programs {
        // Which core has the next turn is what the bits say, one after the other.
        for turns in 0..1u32 << 12 {
            let halves = [NotedLines::new(), NotedLines::new()];
            let mut code = [
                Connection::new(&halves[0], &halves[1], &calls[0]),
                Connection::new(&halves[1], &halves[0], &calls[1]),
            ];
            let mut bells = [false; 2];
            let machine = machine(&[connection(&calls[0])], &connection(&calls[1]));
            let mut world = World::new(&machine);
            for turn in 0..48 {
                let core = (turns >> (turn % 12) & 1) as usize;
                let [first, second] = &mut bells;
                let (own, peer) = if core == 0 {
                    (first, second)
                } else {
                    (second, first)
                };
                let model = (model_turn(&machine, &mut world, core), take_accesses());
                assert_eq!(
                    (code[core].turn(own, peer), take_accesses()),
                    model,
                    "{turns:b}"
                );
                sleeps += model
                    .1
                    .iter()
                    .filter(|access| **access == Access::Wait)
                    .count();
                rings += model
                    .1
                    .iter()
                    .filter(|access| **access == Access::Ring)
                    .count();
            }
        }
    }
    assert!(
        sleeps > 10_000 && rings > 10_000,
        "{sleeps} sleeps, {rings} rings"
    );
}
