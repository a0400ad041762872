//! Work whose cache lines are worth counting: messages between two cores, in regions of interest.
//!
//! `bench-coherence [--quick]`
//!
//! The lines themselves are counted from outside: `scripts/bench coherence --coherence`. For each
//! region a line says what was done in it and how often,
//!
//! ```text
//! region {"region":1,"operation":"URPC round trip","times":960,"slots":16}
//! ```
//!
//! and before it where the channel lies: see [`name_channel`].
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use apps::crew::{Crew, Post, poll};
use apps::laboratory::{Failure, QUICK, name_channel, told};
use apps::pattern;
use rt::frame::Frame;
use rt::region;
use urpc::{Channel, Message, ReceiveError, SendError, Side, frame_bytes};

rt::entry!(main);

const NAME: &str = "bench-coherence";
/// Slots of the channels that are measured, in each direction.
const SHALLOW: usize = 16;
const DEEP: usize = 64;
/// Laps of a ring that do not count.
const WARM_UP_LAPS: usize = 2;
/// Messages that count, and those of a quick run: whole laps of either ring but for the slot that
/// stays free, so that each has the same number of acknowledgements.
const MESSAGES: u64 = 64 * 60;
const QUICK_MESSAGES: u64 = 64 * 15;
/// Times that each end looks at a channel on which nothing comes.
const LOOKS: u64 = 1000;

/// Send back what comes: messages, slots.
const ECHO: u16 = 1;
/// Take what comes: messages, slots.
const TAKE: u16 = 2;
/// All that came was right.
const RIGHT: u16 = 3;
/// Something was not.
const WRONG: u16 = 4;

fn main() -> i32 {
    if let Some(post) = Post::take_up() {
        return work(post);
    }
    let words = || rt::startup().arguments().skip(1);
    if words().any(|word| word != QUICK) {
        rt::println!("{NAME}: expected nothing or {QUICK}");
        return 2;
    }
    let here = rt::startup().core as usize;
    let Some(there) = rt::startup().cores().find(|core| *core != here) else {
        rt::println!("{NAME}: needs 2 cores: on one, no line moves");
        return 2;
    };
    let messages = if words().next().is_some() {
        QUICK_MESSAGES
    } else {
        MESSAGES
    };
    match measure(there, messages) {
        Ok(()) => {
            rt::println!("{NAME}: passed");
            0
        }
        Err(Failure { step, reason }) => {
            rt::println!("{NAME}: failed: {step}: {reason}");
            1
        }
    }
}

fn measure(there: usize, messages: u64) -> Result<(), Failure> {
    let mut crew = told("hire a worker", Crew::hire(&[there], frame_bytes(DEEP)))?;
    round_trips::<1>(&mut crew, there, messages, SHALLOW)?;
    round_trips::<2>(&mut crew, there, messages, DEEP)?;
    stream::<3>(&mut crew, there, messages, SHALLOW)?;
    stream::<4>(&mut crew, there, messages, DEEP)?;
    idle::<5>(&mut crew, there)?;
    told("dismiss the worker", crew.dismiss())
}

/// A full message there and back, both ends polling.
fn round_trips<const REGION: u8>(
    crew: &mut Crew,
    there: usize,
    messages: u64,
    slots: usize,
) -> Result<(), Failure> {
    let mut channel = open(crew, there, ECHO, messages, slots)?;
    trips(&mut channel, there, 0, warm_up(slots))?;
    region::begin::<REGION>();
    let done = trips(&mut channel, there, warm_up(slots), messages);
    region::end::<REGION>();
    done?;
    trips(&mut channel, there, warm_up(slots) + messages, 1)?;
    tell(REGION, "URPC round trip", messages, slots);
    right(crew, there)
}

/// So many round trips, beginning with the message of number `first`.
fn trips(channel: &mut Channel, there: usize, first: u64, count: u64) -> Result<(), Failure> {
    for number in first..first + count {
        let question = pattern::message(0, number);
        told_of("send", channel.send(&question))?;
        if poll(channel) != Some(question) {
            return Err(wrong(there));
        }
    }
    Ok(())
}

/// Full messages one way, as many as the ring takes.
fn stream<const REGION: u8>(
    crew: &mut Crew,
    there: usize,
    messages: u64,
    slots: usize,
) -> Result<(), Failure> {
    let mut channel = open(crew, there, TAKE, messages, slots)?;
    let mut send = |first: u64, count: u64| -> Result<(), Failure> {
        for number in first..first + count {
            let message = pattern::message(0, number);
            while let Err(error) = channel.send(&message) {
                if error != SendError::Full {
                    return told_of("send", Err(error));
                }
                core::hint::spin_loop();
            }
        }
        Ok(())
    };
    send(0, warm_up(slots))?;
    region::begin::<REGION>();
    let done = send(warm_up(slots), messages);
    region::end::<REGION>();
    done?;
    send(warm_up(slots) + messages, 1)?;
    tell(REGION, "URPC message in a stream", messages, slots);
    right(crew, there)
}

/// Both ends look at a channel again and again, and nothing comes.
fn idle<const REGION: u8>(crew: &mut Crew, there: usize) -> Result<(), Failure> {
    // The worker waits for the last message while the region lasts.
    let mut channel = open(crew, there, ECHO, 0, SHALLOW)?;
    let last = warm_up(SHALLOW);
    trips(&mut channel, there, 0, last)?;
    region::begin::<REGION>();
    let mut empty = 0;
    while empty < LOOKS && channel.recv() == Err(ReceiveError::Empty) {
        empty += 1;
        core::hint::spin_loop();
    }
    region::end::<REGION>();
    if empty < LOOKS {
        return Err(wrong(there));
    }
    trips(&mut channel, there, last, 1)?;
    tell(REGION, "look at an idle URPC channel", LOOKS, SHALLOW);
    right(crew, there)
}

/// This core's end of a new channel, whose other end has its order.
fn open(
    crew: &mut Crew,
    there: usize,
    kind: u16,
    messages: u64,
    slots: usize,
) -> Result<Channel, Failure> {
    // Neither end uses the last one any more: the worker has reported.
    crew.frame().clear(0, frame_bytes(slots));
    let here = rt::startup().core as usize;
    name_channel(crew.frame(), 0, slots, "channel", [here, there]);
    // The last one does not count: what the worker does after it is none of the region's.
    let all = warm_up(slots) + messages + 1;
    let order = Message::new(kind, [all, slots as u64, 0, 0, 0, 0, 0]);
    told("give an order", crew.order(there, &order))?;
    Ok(crew.frame().channel(0, slots, Side::A))
}

/// Whether the worker found all that came right.
fn right(crew: &mut Crew, there: usize) -> Result<(), Failure> {
    let report = told("hear a report", crew.report(there))?;
    if report.kind() == RIGHT {
        Ok(())
    } else {
        Err(wrong(there))
    }
}

fn wrong(there: usize) -> Failure {
    Failure {
        step: "compare messages",
        reason: format!("core {there} got or sent something else than it should"),
    }
}

fn told_of(step: &'static str, sent: Result<(), SendError>) -> Result<(), Failure> {
    sent.map_err(|error| Failure {
        step,
        reason: format!("{error:?}"),
    })
}

const fn warm_up(slots: usize) -> u64 {
    (WARM_UP_LAPS * slots) as u64
}

fn tell(region: u8, operation: &str, times: u64, slots: usize) {
    let name: String = format!("\"region\":{region},\"operation\":\"{operation}\"");
    rt::println!("region {{{name},\"times\":{times},\"slots\":{slots}}}");
}

/// Does what it is told, and sleeps in between.
fn work(mut post: Post) -> i32 {
    while let Some(order) = post.next_order() {
        let frame = *post.frame();
        let [messages, slots, ..] = order.payload;
        let is_right = take(&frame, slots as usize, messages, order.kind() == ECHO);
        let kind = if is_right { RIGHT } else { WRONG };
        post.report(&Message::new(kind, [0; 7]));
    }
    0
}

/// Takes messages, and sends them back if it should. Whether all were right.
fn take(frame: &Frame, slots: usize, messages: u64, sends_back: bool) -> bool {
    let mut channel = frame.channel(0, slots, Side::B);
    for number in 0..messages {
        let message = poll(&mut channel);
        if message != Some(pattern::message(0, number)) {
            channel.close();
            return false;
        }
        // One message is on its way at a time, so there is room.
        let answer = message.filter(|_| sends_back);
        if answer.is_some_and(|answer| channel.send(&answer).is_err()) {
            return false;
        }
    }
    true
}
