//! Paths by hand, and of any trace.

use super::*;
use crate::model::{Dispatcher, Message, Running};

fn dispatcher(core: u32, name: &str) -> Dispatcher {
    Dispatcher {
        core,
        handle: 1,
        name: name.into(),
    }
}

fn running(core: u32, dispatcher: usize, begin: u64, end: u64) -> Running {
    Running {
        core,
        dispatcher,
        begin,
        end,
    }
}

fn message(flow: u64, from: (u32, usize), to: (u32, usize), sent: u64, received: u64) -> Message {
    Message {
        flow: flow << SEQUENCE_BITS,
        from: from.0,
        to: to.0,
        sender: Some(from.1),
        receiver: Some(to.1),
        sent,
        received,
        kind: 3,
        word: 0,
    }
}

fn operation(core: u32, dispatcher: usize, begin: u64, end: Option<u64>) -> Operation {
    Operation {
        flow: trace::operation_flow(core.into(), begin),
        core,
        dispatcher: Some(dispatcher),
        kind: 0x33,
        begin,
        end,
        error: 0,
    }
}

/// A program (0) of core 0 asks its monitor (1), which asks that of core 1 (2), on which another
/// program (3) runs too.
pub(crate) fn small() -> Model {
    Model {
        dispatchers: vec![
            dispatcher(0, "asks"),
            dispatcher(0, "monitor"),
            dispatcher(1, "monitor"),
            dispatcher(1, "other"),
        ],
        running: vec![
            running(0, 0, 0, 120),
            running(0, 1, 120, 300),
            running(0, 1, 500, 620),
            running(0, 0, 620, 700),
            running(1, 3, 0, 180),
            running(1, 2, 200, 450),
        ],
        messages: vec![
            message(1, (0, 0), (0, 1), 110, 130),
            message(2, (0, 1), (1, 2), 150, 250),
            message(2, (0, 1), (1, 2), 152, 260),
            message(2, (0, 1), (1, 2), 280, 290),
            message(2, (0, 1), (1, 2), 281, 291),
            message(3, (1, 2), (0, 1), 270, 520),
            message(1, (0, 1), (0, 0), 600, 630),
        ],
        operations: vec![
            operation(0, 0, 100, Some(650)),
            operation(0, 0, 690, None),
            operation(1, 3, 10, Some(20)),
        ],
        length: 700,
        ..Model::default()
    }
}

#[test]
fn a_path_is_walked_back_to_its_begin() {
    let model = small();
    let causes = Causes::of(&model);
    let path = causes.path(0).unwrap();
    let messages: Vec<_> = path.iter().map(|hop| hop.message).collect();
    // Of the two messages to core 1, the second was taken last before the answer.
    assert_eq!(messages, [None, Some(0), Some(2), Some(5), Some(6)]);
    let ways: Vec<_> = path.iter().map(|hop| hop.way.0).collect();
    let [work, queue, sleep, wire, other] = [0, 1, 2, 3, 4];
    assert_eq!(ways[0], [0; 5]);
    // To the own monitor: the program goes on for 10, then the monitor runs for 10.
    assert_eq!((ways[1][queue], ways[1][other]), (10, 10));
    // To core 1: 10 is the least of this channel; the other program has the core till 180, nobody
    // till 200, and from then on the monitor takes something else first.
    assert_eq!(ways[2], [0, 60, 20, 10, 18]);
    // Back: the channel carried one message, so the least delay of all counts.
    assert_eq!(ways[3], [0, 20 + 20, 200, 10, 0]);
    assert_eq!(path[0].stay.0, [10, 0, 0, 0, 0]);
    assert_eq!(path[3].stay[Cause::Work], 80);
    assert_eq!(path[4].stay.0[work], 20);
    assert_eq!((path[2].from.core, path[2].to.core), (0, 1));
    assert_eq!((sleep, wire), (2, 3));
    assert_eq!(causes.shares(0).unwrap().sum(), 550);
    assert_eq!(causes.path(1), None);
    assert_eq!(causes.shares(1), None);
    assert_eq!(causes.shares(2), Some(Shares([10, 0, 0, 0, 0])));
    assert_eq!(causes.shares(9), None);
}

#[test]
fn what_an_operation_caused_is_counted_once() {
    let model = small();
    let causes = Causes::of(&model);
    assert_eq!(causes.messages(0), [0, 1, 2, 3, 4, 5, 6]);
    assert!(causes.messages(1).is_empty() && causes.messages(2).is_empty());
    assert!(causes.messages(9).is_empty());
    // After the end only what is sent in the same run of its sender belongs to it.
    let mut model = small();
    model.operations[0].end = Some(275);
    let causes = Causes::of(&model);
    assert_eq!(causes.messages(0), [0, 1, 2, 3, 4, 5, 6]);
    model.running[2].begin = 560;
    assert_eq!(Causes::of(&model).messages(0).len(), 6);
}

#[test]
fn a_message_that_waits_for_room_belongs_to_what_it_was_meant_for() {
    let mut model = small();
    // The answer of core 1 was due at 255, before the second message was taken, and had no room till 270.
    model.steps.push(Step {
        flow: 3 << SEQUENCE_BITS,
        core: 1,
        dispatcher: Some(2),
        kind: 3,
        value: 0,
        at: 255,
    });
    let causes = Causes::of(&model);
    let path = causes.path(0).unwrap();
    let messages: Vec<_> = path.iter().map(|hop| hop.message).collect();
    assert_eq!(messages, [None, Some(0), Some(1), Some(5), Some(6)]);
    assert_eq!(path[3].begin, 255);
    assert_eq!(path[3].way.0, [0, 15 + 20 + 20, 200, 10, 0]);
    assert_eq!(causes.shares(0).unwrap().sum(), 550);
}

#[test]
fn an_answer_without_a_message_comes_from_the_last_step() {
    let mut model = small();
    model.messages.retain(|one| one.from != one.to);
    let step = |core, dispatcher, at| Step {
        flow: model.operations[0].flow,
        core,
        dispatcher: Some(dispatcher),
        kind: 3,
        value: 0,
        at,
    };
    model.steps = vec![step(0, 1, 130), step(1, 2, 250), step(0, 1, 600)];
    let causes = Causes::of(&model);
    let path = causes.path(0).unwrap();
    let messages: Vec<_> = path.iter().map(|hop| hop.message).collect();
    // Without the first and the last, numbers are one less.
    assert_eq!(messages, [None, Some(1), Some(4), None]);
    let last = path[3];
    assert_eq!(
        (last.begin, last.from.dispatcher, last.to.dispatcher),
        (600, Some(1), Some(0))
    );
    assert_eq!(last.stay.0, [30, 0, 0, 0, 20]);
    assert_eq!(causes.shares(0).unwrap().sum(), 550);
    assert_eq!(causes.messages(0), [0, 1, 2, 3, 4]);
}

/// Numbers that are the same in every run.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn any(random: &mut Random, messages: u64, length: u64) -> Model {
    let cores = 1 + random.below(4) as u32;
    let dispatchers: Vec<_> = (0..cores)
        .flat_map(|core| (0..3).map(move |_| dispatcher(core, "any")))
        .collect();
    let mut model = Model {
        dispatchers,
        ..Model::default()
    };
    for core in 0..cores {
        let mut at = 0;
        while at < length && random.below(50) > 0 {
            let begin = at + random.below(9);
            at = begin + random.below(30);
            let which = core as usize * 3 + random.below(3) as usize;
            model.running.push(running(core, which, begin, at));
        }
    }
    let someone = |random: &mut Random| {
        let one = random.below(u64::from(cores) * 3) as usize;
        let known = (random.below(10) > 0).then_some(one);
        ((one / 3) as u32, known)
    };
    for _ in 0..messages {
        let (from, to) = (someone(random), someone(random));
        let sent = random.below(length);
        // Some arrive before they are sent, and many at the same moment.
        let received = (sent + random.below(20)).saturating_sub(2);
        let flow = random.below(9);
        let mut one = message(flow, (from.0, 0), (to.0, 0), sent, received);
        (one.sender, one.receiver) = (from.1, to.1);
        model.messages.push(one);
    }
    model.messages.sort_by_key(|one| one.sent);
    for _ in 0..messages / 4 {
        let ((core, dispatcher), begin) = (someone(random), random.below(length));
        let end = (random.below(9) > 0).then(|| begin + random.below(length / 2));
        let mut one = operation(core, 0, begin, end);
        one.dispatcher = dispatcher;
        model.operations.push(one);
    }
    model.operations.sort_by_key(|one| one.begin);
    for _ in 0..messages / 3 {
        let ((core, dispatcher), at) = (someone(random), random.below(length));
        let flow = match random.below(2) {
            0 => random.below(9) << SEQUENCE_BITS,
            _ => trace::operation_flow(core.into(), random.below(length)),
        };
        model.steps.push(Step {
            flow,
            core,
            dispatcher,
            kind: 1,
            value: 0,
            at,
        });
    }
    model.steps.sort_by_key(|one| one.at);
    model
}

#[test]
fn causes_are_the_whole_length_of_every_operation_of_any_trace() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut ends, mut longest) = (0, 0);
    for _ in 0..300 {
        let length = 10 + random.below(2000);
        let model = any(&mut random, 200, length);
        let causes = Causes::of(&model);
        for (number, operation) in model.operations.iter().enumerate() {
            let Some(end) = operation.end else {
                assert_eq!(causes.path(number), None);
                continue;
            };
            ends += 1;
            let path = causes.path(number).unwrap();
            longest = longest.max(path.len());
            let mut at = operation.begin;
            let mut sum = Shares::default();
            for (place, hop) in path.iter().enumerate() {
                assert_eq!(hop.begin, at);
                assert_eq!(hop.way.sum(), hop.received - hop.begin);
                assert_eq!(hop.stay.sum(), hop.end - hop.received);
                let is_end = place == 0 || place == path.len() - 1;
                assert!(hop.message.is_some() || is_end);
                at = hop.end;
                sum += hop.way + hop.stay;
            }
            assert_eq!(at, end);
            assert_eq!(sum.sum(), end - operation.begin);
            assert_eq!(causes.shares(number), Some(sum));
        }
        let caused = (0..model.operations.len()).map(|one| causes.messages(one).len());
        assert!(caused.sum::<usize>() <= model.messages.len());
    }
    assert!(ends > 10_000 && longest > 20, "{ends} {longest}");
}

#[test]
fn many_long_operations_on_one_long_chain_take_no_long_time() {
    let (count, messages) = (100_000, 400_000);
    let mut model = small();
    let ways = [((0, 1), (1, 2)), ((1, 2), (0, 1))];
    let hop = |at: u64| {
        let (from, to) = ways[at as usize % 2];
        message(at % 2, from, to, at * 10, at * 10 + 9)
    };
    model.messages = (0..messages).map(hop).collect();
    let end = |at| Some(messages * 10 - at % 7);
    model.operations = (0..count).map(|at| operation(0, 1, at, end(at))).collect();
    // In steps that are counted, not in seconds: each walk would be 400,000 long.
    let causes = Causes::of(&model);
    assert_eq!(causes.path(0).unwrap().len(), messages as usize);
    for (number, one) in model.operations.iter().enumerate() {
        let length = one.end.unwrap() - one.begin;
        assert_eq!(causes.shares(number).unwrap().sum(), length);
    }
}
