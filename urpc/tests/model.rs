//! Both ends against a model: two queues, two flags, and what each end sleeps for.

mod common;

use std::collections::VecDeque;

use common::{End, Frame, message};
use proptest::prelude::*;
use urpc::{Channel, Message, ReceiveError, SendError, Sequence, Side, Wait};

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(usize),
    SendBatch(usize, usize),
    Receive(usize),
    ReceiveBatch(usize, usize),
    FreeSlots(usize),
    Sleep(usize, Wait),
    Awake(usize),
    Doorbell(usize),
    Close(usize),
}

struct ModelEnd {
    end: End,
    /// What this end sent and the peer has not received.
    sent: VecDeque<Message>,
    closed: bool,
    /// This end has been told that the channel is closed.
    told_closed: bool,
    asleep: Option<Wait>,
    rung: bool,
}

struct Model {
    ends: [ModelEnd; 2],
    slots: usize,
    next_message: u64,
}

impl Model {
    fn new(slots: usize, first: Sequence) -> Self {
        let frame = Frame::new(slots);
        let ends = [Side::A, Side::B].map(|side| ModelEnd {
            end: frame.attach_at(side, first),
            sent: VecDeque::new(),
            closed: false,
            told_closed: false,
            asleep: None,
            rung: false,
        });
        Self {
            ends,
            slots,
            next_message: 0,
        }
    }

    fn channel(&mut self, end: usize) -> &mut Channel {
        &mut self.ends[end].end.channel
    }

    fn anybody_closed(&self) -> bool {
        self.ends[0].closed || self.ends[1].closed
    }

    fn messages(&mut self, count: usize) -> Vec<Message> {
        let first = self.next_message;
        self.next_message += count as u64;
        (first..self.next_message).map(message).collect()
    }

    /// Checks what sending `messages` gave: how many went, and why not more.
    fn sent(&mut self, end: usize, messages: &[Message], result: Result<usize, SendError>) {
        let capacity = self.slots - 1;
        let closed = self.anybody_closed();
        let me = &mut self.ends[end];
        let count = match result {
            Ok(count) => count,
            Err(SendError::Full) => 0,
            Err(SendError::Closed) => {
                assert!(closed);
                me.told_closed = true;
                return;
            }
            Err(SendError::Broken) => panic!("an honest peer broke the channel"),
        };
        assert!(count == 0 || !me.closed && !me.told_closed);
        // Messages sent to an end that has closed go nowhere.
        if !closed {
            me.sent.extend(&messages[..count]);
            assert!(me.sent.len() <= capacity, "more sent than fits");
            if count < messages.len() {
                // Up to a quarter ring may be received and not yet acknowledged.
                assert!(me.sent.len() + self.slots / 4 >= capacity, "full too early");
            }
        }
    }

    /// Checks what receiving up to `limit` messages gave.
    fn received(&mut self, end: usize, limit: usize, result: Result<&[Message], ReceiveError>) {
        let (me, peer) = two(&mut self.ends, end);
        match result {
            Ok(messages) => {
                assert!(!me.closed && !messages.is_empty());
                assert_eq!(messages.len(), limit.min(peer.sent.len()));
                for message in messages {
                    assert_eq!(Some(*message), peer.sent.pop_front());
                }
            }
            Err(ReceiveError::Empty) => {
                assert!(peer.sent.is_empty() && !me.closed && !peer.closed);
            }
            Err(ReceiveError::Closed) => {
                assert!(me.closed || peer.closed && peer.sent.is_empty());
                me.told_closed = true;
            }
            Err(ReceiveError::Broken) => panic!("an honest peer broke the channel"),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send(end) => {
                let messages = self.messages(1);
                let result = self.channel(end).send(&messages[0]).map(|()| 1);
                self.sent(end, &messages, result);
            }
            Step::SendBatch(end, count) => {
                let messages = self.messages(count);
                let result = self.channel(end).send_batch(&messages);
                self.sent(end, &messages, result);
            }
            Step::Receive(end) => {
                let result = self.channel(end).recv().map(|message| [message]);
                self.received(
                    end,
                    1,
                    result.as_ref().map(|one| &one[..]).map_err(|error| *error),
                );
            }
            Step::ReceiveBatch(end, limit) => {
                let mut messages = vec![Message::EMPTY; limit];
                let result = self.channel(end).recv_batch(&mut messages);
                self.received(end, limit, result.map(|count| &messages[..count]));
            }
            Step::FreeSlots(end) => {
                let free = self.channel(end).free_slots();
                let (slots, closed) = (self.slots, self.anybody_closed());
                let me = &self.ends[end];
                if closed {
                    // A peer's close shows when this end looks, and it has just looked.
                    assert_eq!(free, 0);
                } else {
                    assert!(free + me.sent.len() < slots);
                    assert!(free + me.sent.len() + slots / 4 >= slots - 1);
                }
            }
            Step::Sleep(end, wait) => {
                let may_sleep = self.channel(end).prepare_sleep(wait);
                let closed = self.anybody_closed();
                let (me, peer) = two(&mut self.ends, end);
                me.asleep = may_sleep.then_some(wait);
                me.rung = false;
                let waits_for_message = wait != Wait::Room;
                if may_sleep {
                    assert!(!me.closed);
                    assert!(!waits_for_message || peer.sent.is_empty());
                    assert!(!closed, "slept through a close");
                } else if !closed {
                    let message = waits_for_message && !peer.sent.is_empty();
                    let room = wait != Wait::Message && me.end.channel.free_slots() > 0;
                    assert!(message || room, "kept awake by nothing");
                }
            }
            Step::Awake(end) => {
                self.channel(end).awake();
                self.ends[end].asleep = None;
            }
            Step::Doorbell(end) => {
                let rings = self.channel(end).peer_needs_doorbell();
                let (me, peer) = two(&mut self.ends, end);
                if rings {
                    assert!(peer.asleep.is_some(), "rang for one awake");
                    assert!(!peer.rung, "rang twice for one sleep");
                    peer.rung = true;
                }
                // Whatever a sleeper waits for is there only if its doorbell rang.
                if let Some(wait) = peer.asleep
                    && !peer.rung
                {
                    assert!(!me.closed, "a close was slept through");
                    assert!(
                        wait == Wait::Room || me.sent.is_empty(),
                        "a message was slept through"
                    );
                    assert!(
                        wait == Wait::Message || peer.end.channel.free_slots() == 0,
                        "room was slept through"
                    );
                }
            }
            Step::Close(end) => {
                self.channel(end).close();
                let (me, peer) = two(&mut self.ends, end);
                me.closed = true;
                peer.sent.clear();
            }
        }
    }
}

fn two(ends: &mut [ModelEnd; 2], end: usize) -> (&mut ModelEnd, &mut ModelEnd) {
    let [a, b] = ends;
    if end == 0 { (a, b) } else { (b, a) }
}

fn step() -> impl Strategy<Value = Step> {
    let end = || 0..2_usize;
    let wait = prop_oneof![
        Just(Wait::Message),
        Just(Wait::Room),
        Just(Wait::MessageOrRoom)
    ];
    prop_oneof![
        30 => end().prop_map(Step::Send),
        10 => (end(), 1..40_usize).prop_map(|(end, count)| Step::SendBatch(end, count)),
        30 => end().prop_map(Step::Receive),
        10 => (end(), 1..40_usize).prop_map(|(end, limit)| Step::ReceiveBatch(end, limit)),
        4 => end().prop_map(Step::FreeSlots),
        10 => (end(), wait).prop_map(|(end, wait)| Step::Sleep(end, wait)),
        4 => end().prop_map(Step::Awake),
        20 => end().prop_map(Step::Doorbell),
    ]
}

/// A run without a close, mostly; then one, and what follows it.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = if cfg!(miri) { 40 } else { 400 };
    let tail = (0..2_usize, prop::collection::vec(step(), 0..40));
    (
        prop::collection::vec(step(), 1..length),
        prop::option::of(tail),
    )
        .prop_map(|(mut steps, tail)| {
            if let Some((end, after)) = tail {
                steps.push(Step::Close(end));
                steps.extend(after);
            }
            steps
        })
}

fn first() -> impl Strategy<Value = u64> {
    // Sequences wrap after 2^40 messages: begin at 0, shortly before the wrap, anywhere.
    prop_oneof![Just(0), (1 << 40) - 200..(1_u64 << 40), any::<u64>()]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 2000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn both_ends_behave_like_two_queues(
        slots in prop::sample::select(vec![4, 8, 16, 32, 64]),
        first in first(),
        steps in steps(),
    ) {
        let mut model = Model::new(slots, Sequence::nth(first));
        for step in steps {
            model.step(step);
        }
    }
}

#[test]
fn every_size_fills_and_empties_over_many_laps() {
    let mut slots = urpc::MIN_SLOTS;
    while slots <= if cfg!(miri) { 8 } else { urpc::MAX_SLOTS } {
        let mut model = Model::new(slots, Sequence::nth((1 << 40) - slots as u64));
        assert_eq!(model.channel(0).capacity(), slots - 1);
        assert_eq!(model.channel(0).free_slots(), slots - 1);
        for lap in 1..5 * slots {
            let burst = 1 + lap % (slots - 1);
            for end in [0, 1] {
                model.step(Step::SendBatch(end, burst));
            }
            for end in [1, 0] {
                model.step(Step::ReceiveBatch(end, burst));
                model.step(Step::Receive(end));
            }
            if lap > 3 * slots {
                break;
            }
        }
        slots *= 2;
    }
}

#[test]
fn what_was_sent_before_the_peer_attached_or_closed_is_received() {
    let frame = Frame::new(8);
    let mut a = frame.attach(Side::A).channel;
    for number in 0..7 {
        a.send(&message(number)).unwrap();
    }
    assert_eq!(a.send(&message(7)), Err(SendError::Full));
    a.close();
    assert_eq!(a.send(&message(7)), Err(SendError::Closed));
    assert_eq!(a.recv(), Err(ReceiveError::Closed));

    let mut b = frame.attach(Side::B).channel;
    assert!(!b.prepare_sleep(Wait::Message));
    for number in 0..7 {
        assert_eq!(b.recv(), Ok(message(number)));
    }
    assert_eq!(b.recv(), Err(ReceiveError::Closed));
    assert_eq!(b.recv(), Err(ReceiveError::Closed));
    assert_eq!(b.send(&message(0)), Err(SendError::Closed));
    assert!(!b.prepare_sleep(Wait::Message));
    assert!(!b.prepare_sleep(Wait::Room));
}

#[test]
fn closing_wakes_a_sleeper_whatever_it_waits_for() {
    for wait in [Wait::Message, Wait::Room, Wait::MessageOrRoom] {
        let frame = Frame::new(4);
        let (mut a, mut b) = (frame.attach(Side::A), frame.attach(Side::B));
        let (a, b) = (&mut a.channel, &mut b.channel);
        while b.send(&message(0)).is_ok() {}
        assert!(b.prepare_sleep(wait));
        assert!(!a.peer_needs_doorbell());
        a.close();
        assert!(a.peer_needs_doorbell());
        assert!(!a.peer_needs_doorbell());
        b.awake();
        assert_eq!(b.recv(), Err(ReceiveError::Closed));
        assert_eq!(b.send(&message(0)), Err(SendError::Closed));
    }
}

#[test]
fn one_fence_serves_many_channels() {
    let mut pairs: Vec<_> = (0..10)
        .map(|_| {
            let frame = Frame::new(4);
            (frame.attach(Side::A), frame.attach(Side::B))
        })
        .collect();
    for (monitor, _) in &mut pairs {
        monitor.channel.announce_sleep(Wait::Message);
    }
    urpc::full_fence();
    assert!(
        pairs
            .iter_mut()
            .all(|(monitor, _)| monitor.channel.may_sleep(Wait::Message))
    );
    for (_, peer) in pairs.iter_mut().step_by(3) {
        peer.channel.send(&message(1)).unwrap();
    }
    for (number, (_, peer)) in pairs.iter_mut().enumerate() {
        assert_eq!(peer.channel.has_published(), number % 3 == 0);
    }
    urpc::full_fence();
    for (number, (_, peer)) in pairs.iter_mut().enumerate() {
        assert_eq!(
            peer.channel.peer_needs_doorbell_after_fence(),
            number % 3 == 0
        );
    }
    for (number, (monitor, _)) in pairs.iter_mut().enumerate() {
        monitor.channel.awake();
        assert_eq!(monitor.channel.recv().is_ok(), number % 3 == 0);
    }
}

#[test]
fn an_acknowledgement_that_is_due_wakes_a_sender_without_another_receive() {
    let frame = Frame::new(16);
    let (mut a, mut b) = (frame.attach(Side::A), frame.attach(Side::B));
    let (a, b) = (&mut a.channel, &mut b.channel);
    while a.send(&message(0)).is_ok() {}
    assert!(a.prepare_sleep(Wait::Room));
    for _ in 0..3 {
        b.recv().unwrap();
        assert!(!b.peer_needs_doorbell());
    }
    // The fourth completes a quarter of the ring.
    b.recv().unwrap();
    assert!(b.peer_needs_doorbell());
    assert_eq!(a.free_slots(), 4);
}
