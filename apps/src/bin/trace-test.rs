//! Tests traces from within: `trace-test [--spoil]`, on a system that was started with `trace=RECORDS`.
//!
//! The program records events and spans of its own, sends messages within this core and between pairs
//! of cores, asks monitors for something, has all cores record this or that or nothing, and then looks
//! for just that in its core's ring; copies of it do so on the other cores. With `--spoil` it writes
//! nonsense to the control page: nobody but the trace may suffer from it.
#![no_std]
#![no_main]

extern crate alloc;

use abi::layout::PAGE;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use apps::checks::Outcome;
use apps::crew::{Crew, CrewError, Post};
use apps::pattern;
use core::fmt::Display;
use rt::clock;
use rt::interface::{self, Error};
use rt::monitor;
use rt::trace::{self, Control, Record, TRACE, event, group};
use urpc::{Message, Side, frame_bytes};

rt::entry!(main);

const NAME: &str = "trace-test";
const USAGE: &str = "usage: trace-test [--spoil]";
/// Slots of a channel between two cores, and messages that are sent on each, which fit it.
const SLOTS: usize = 16;
const MESSAGES: u64 = 12;
/// Events of each sort.
const EVENTS: u64 = 40;
/// Records that the ring must have room for.
const LEAST_RECORDS: u64 = 1024;
/// Ticks of the time-stamp counter an instruction where it counts them: QEMU is started with `-icount shift=3`.
const TICKS_PER_INSTRUCTION: u64 = 8;
/// How often a cost is measured: the least counts. The most that an event may cost.
const TRIES: usize = 32;
const MOST_INSTRUCTIONS: u64 = 40;
/// With more cores than this, each is paired with the first and with the next one only.
const ALL_WITH_ALL: usize = 6;

/// Orders: send, receive: where the channel is, which kind. Look at what is recorded. Find steps: flow.
const SEND: u16 = 1;
const RECEIVE: u16 = 2;
const LOOK: u16 = 3;
const FIND: u16 = 4;
/// What came of it: two words.
const DONE: u16 = 5;
/// Kind of the messages between the cores of a pair, beside its number; of those within this core.
const PAIR: u16 = 0x4000;
const WITHIN: u16 = 0x3fff;

/// Why the test cannot go on.
type Failed = String;

/// Says what failed.
fn that<E: Display>(what: &str) -> impl FnOnce(E) -> Failed {
    move |error| format!("{what}: {error}")
}

fn main() -> i32 {
    if let Some(post) = Post::take_up() {
        return work(post);
    }
    let spoils = match rt::startup().arguments().nth(1) {
        None => false,
        Some("--spoil") => true,
        Some(_) => {
            rt::println!("{USAGE}");
            return 2;
        }
    };
    if !trace::is_there() {
        let refused = trace::start(trace::ALL);
        if refused != Err(Error::NoTrace) {
            rt::println!("{NAME}: failed: a start without a ring: {refused:?}");
            return 1;
        }
        rt::println!("{NAME}: there is no ring for records: start the system with trace=4096");
        return 2;
    }
    if trace::capacity() < LEAST_RECORDS {
        rt::println!("{NAME}: the ring is too small: start the system with trace=4096");
        return 2;
    }
    let before = trace::control();
    let mut outcome = Outcome::default();
    let done = if spoils {
        spoil(&mut outcome)
    } else {
        run(&mut outcome)
    };
    let restored = trace::set_triggers(before.start as u16, before.stop as u16);
    let restored = restored.and_then(|()| trace::start(before.enabled & trace::ALL));
    let Outcome { bad, checks } = outcome;
    match done.and(restored.map_err(that("recording as before"))) {
        Ok(()) if bad == 0 => {
            rt::println!("{NAME}: passed");
            0
        }
        Ok(()) => {
            rt::println!("{NAME}: failed: {bad} of {checks} checks");
            1
        }
        Err(failure) => {
            rt::println!("{NAME}: failed: {failure}");
            1
        }
    }
}

fn run(outcome: &mut Outcome) -> Result<(), Failed> {
    events(outcome)?;
    filters(outcome)?;
    triggers(outcome)?;
    messages_within(outcome)?;
    costs(outcome)?;
    operations(outcome)?;
    let cores: Vec<usize> = rt::startup().cores().collect();
    let here = rt::startup().core as usize;
    let others: Vec<usize> = cores.iter().copied().filter(|core| *core != here).collect();
    if others.is_empty() {
        return Ok(());
    }
    let pairs = pairs(&cores);
    let common = pairs.len() * frame_bytes(SLOTS).next_multiple_of(PAGE as usize);
    // A worker here, too: each end of a channel is a domain of its own.
    let mut crew = Crew::hire(&cores, common).map_err(that("workers"))?;
    on_all_cores(outcome, &mut crew, &cores)?;
    messages_between(outcome, &mut crew, &pairs)?;
    steps_elsewhere(outcome, &mut crew, &others)?;
    crew.dismiss().map_err(that("workers"))
}

/// Records from an index on, which must all be there.
fn since(outcome: &mut Outcome, what: &str, from: u64) -> Vec<Record> {
    let to = trace::control().next;
    let records = trace::records(from, to);
    let kept = (to - from).min(trace::capacity());
    let whole = records.len() as u64;
    outcome.expect(&format!("{what}: records that are whole"), &whole, &kept);
    records
}

/// Events and spans of a program's own, in order.
fn events(outcome: &mut Outcome) -> Result<(), Failed> {
    trace::start(group(event::USER)).map_err(that("a start"))?;
    let from = trace::control().next;
    for number in 0..EVENTS {
        trace::user!("counted", "number {value}", number);
    }
    {
        let _outer = trace::span!("outer", "{value:x}", 0xabc);
        let _inner = trace::span!("inner");
        trace::user!("within");
    }
    trace::stop().map_err(that("a stop"))?;
    let records = since(outcome, "events", from);
    let values: Vec<u64> = records.iter().map(|one| one.value).collect();
    let expected: Vec<u64> = (0..EVENTS).chain([0xabc, 0, 0, 0, 0xabc]).collect();
    outcome.expect("values of events", &values, &expected);
    if records.len() != expected.len() {
        return Ok(());
    }
    let (counted, spans) = records.split_at(EVENTS as usize);
    let is_one = |one: &Record| one.event() == event::USER_EVENT && one.flow == counted[0].flow;
    outcome.expect("events of one place", &counted.iter().all(is_one), &true);
    let kinds: Vec<u16> = spans.iter().map(Record::event).collect();
    let (begin, end) = (event::USER_BEGIN, event::USER_END);
    let nested = [begin, begin, event::USER_EVENT, end, end].to_vec();
    outcome.expect("spans within each other", &kinds, &nested);
    let ends = (spans[3].flow, spans[4].flow);
    let begins = (spans[1].flow, spans[0].flow);
    outcome.expect("which spans end", &ends, &begins);
    let is_later = |pair: &[Record]| pair[0].tsc <= pair[1].tsc;
    let in_order = records.windows(2).all(is_later);
    outcome.expect("times in order", &in_order, &true);
    Ok(())
}

/// What is not asked for is not recorded.
fn filters(outcome: &mut Outcome) -> Result<(), Failed> {
    trace::start(group(event::CLOCKS)).map_err(that("a start"))?;
    let from = trace::control().next;
    for _ in 0..EVENTS {
        trace::user!("filtered");
    }
    let echo = monitor::ask(0, interface::ECHO, [0; 6]);
    echo.map_err(that("an echo"))?;
    outcome.expect("filtered", &(trace::control().next - from), &0);
    trace::stop().map_err(that("a stop"))?;
    let control = trace::control();
    trace::user!("stopped");
    outcome.expect("enabled", &control.enabled, &0);
    outcome.expect("stopped", &(trace::control().next - from), &0);
    let bad = trace::start(1 << 31);
    outcome.refused("a group that there is not", bad, Error::BadArgument);
    let bad = trace::set_triggers(0xfff, 0);
    outcome.refused("an event that there is not", bad, Error::BadArgument);
    if let Some(other) = rt::startup().cores().find(|core| *core != 0) {
        let words = [interface::tracing::ENABLE, 1, 0, 0, 0, 0];
        let elsewhere = monitor::ask(other, interface::TRACE, words);
        outcome.refused("a start by another core", elsewhere, Error::OtherCore);
    }
    Ok(())
}

/// An event that ends the trace is its last.
fn triggers(outcome: &mut Outcome) -> Result<(), Failed> {
    trace::set_triggers(event::USER_BEGIN, event::USER_END).map_err(that("triggers"))?;
    trace::start(group(event::USER)).map_err(that("a start"))?;
    let from = trace::control().next;
    drop(trace::span!("the last"));
    trace::user!("too late");
    let control = trace::control();
    outcome.expect("records up to the trigger", &(control.next - from), &2);
    let found = (control.start, control.stop, control.enabled);
    let expected = (event::USER_BEGIN.into(), event::USER_END.into(), 0);
    outcome.expect("triggers", &found, &expected);
    // What ends it ends nothing before it has begun; and one event may do both.
    let expected = [event::USER_EVENT, event::USER_BEGIN, event::USER_EVENT];
    for begin in [event::USER_BEGIN, event::USER_EVENT] {
        trace::set_triggers(begin, event::USER_EVENT).map_err(that("triggers"))?;
        trace::start(group(event::USER)).map_err(that("a start"))?;
        let from = trace::control().next;
        trace::user!("before");
        let span = trace::span!("the span");
        trace::user!("the last");
        drop(span);
        trace::user!("too late");
        let records = since(outcome, "triggers", from);
        let found: Vec<u16> = records.iter().map(Record::event).collect();
        let what = format!("events with {begin:#x} to begin with");
        outcome.expect(&what, &found.as_slice(), &expected.as_slice());
    }
    trace::set_triggers(0, 0).map_err(that("no triggers"))
}

/// All messages of this core are counted as often as they are recorded.
fn messages_within(outcome: &mut Outcome) -> Result<(), Failed> {
    let frame = monitor::frame(frame_bytes(SLOTS)).map_err(that("a frame"))?;
    let mut sender = frame.channel(0, SLOTS, Side::A);
    let mut receiver = frame.channel(0, SLOTS, Side::B);
    let before = trace::control();
    trace::start(group(event::MESSAGES)).map_err(that("a start"))?;
    let mut flows = Vec::new();
    for number in 0..EVENTS {
        flows.push(sender.flow_ahead(0));
        let payload = pattern::message(0, number).payload;
        let message = Message::new(WITHIN, payload);
        sender.send(&message).map_err(that("a send"))?;
        let received = receiver.recv().map_err(that("a receive"))?;
        outcome.expect("a message", &received, &message);
    }
    trace::stop().map_err(that("a stop"))?;
    let after = trace::control();
    let records = since(outcome, "messages", before.next);
    let count = |number| records.iter().filter(|one| one.event() == number).count() as u64;
    let sent = after.sent - before.sent;
    outcome.expect("messages sent", &count(event::SEND), &sent);
    let received = after.received - before.received;
    outcome.expect("messages received", &count(event::RECEIVE), &received);
    let own = |number| flows_of(&records, number, WITHIN);
    outcome.expect("flows of what was sent", &own(event::SEND), &flows);
    outcome.expect("flows of what was received", &own(event::RECEIVE), &flows);
    Ok(())
}

/// What it takes to record: a message that is sent, one that is received, an event of a program's own. Only where
/// the clock counts instructions.
fn costs(outcome: &mut Outcome) -> Result<(), Failed> {
    if rt::startup().accelerator() != "icount" {
        return Ok(());
    }
    let frame = monitor::frame(frame_bytes(SLOTS)).map_err(that("a frame"))?;
    let mut sender = frame.channel(0, SLOTS, Side::A);
    let mut receiver = frame.channel(0, SLOTS, Side::B);
    let message = Message::new(WITHIN, pattern::message(0, 0).payload);
    let mut measure = || {
        let mut least = [u64::MAX; 3];
        for _ in 0..TRIES {
            let begin = clock::cycles().0;
            let sent = sender.send(&message);
            let middle = clock::cycles().0;
            let received = receiver.recv();
            let end = clock::cycles().0;
            trace::user!("measured", "{value}", begin);
            let last = clock::cycles().0;
            sent.map_err(that("a send"))?;
            received.map_err(that("a receive"))?;
            for (least, time) in least
                .iter_mut()
                .zip([middle - begin, end - middle, last - end])
            {
                *least = time.min(*least);
            }
        }
        Ok::<_, Failed>(least)
    };
    trace::stop().map_err(that("a stop"))?;
    let off = measure()?;
    trace::start(group(event::MESSAGES) | group(event::USER)).map_err(that("a start"))?;
    let on = measure()?;
    trace::stop().map_err(that("a stop"))?;
    let names = ["sent", "received", "of a program"];
    for ((name, off), on) in names.into_iter().zip(off).zip(on) {
        let cost = on.saturating_sub(off) / TICKS_PER_INSTRUCTION;
        rt::println!("{NAME}: an event takes {cost} instructions more when on: {name}");
        let what = format!("{name}: instructions from 1 to {MOST_INSTRUCTIONS}");
        let is_right = (1..=MOST_INSTRUCTIONS).contains(&cost);
        outcome.expect(&what, &is_right, &true);
    }
    Ok(())
}

/// The flows of messages of a kind, in order.
fn flows_of(records: &[Record], number: u16, kind: u16) -> Vec<u64> {
    let of_kind = |one: &&Record| one.event() == number && one.detail() == u32::from(kind);
    records.iter().filter(of_kind).map(|one| one.flow).collect()
}

/// What is asked of this core's monitor begins, is worked on there, and ends.
fn operations(outcome: &mut Outcome) -> Result<(), Failed> {
    let here = rt::startup().core as usize;
    trace::start(group(event::PROTOCOLS)).map_err(that("a start"))?;
    let from = trace::control().next;
    for number in 0..EVENTS / 4 {
        let echo = monitor::ask(here, interface::ECHO, [number, 0, 0, 0, 0, 0]);
        echo.map_err(that("an echo"))?;
    }
    let refused = monitor::ask(here, interface::KILL, [0; 6]);
    outcome.refused("a kill of nobody", refused, Error::NoSuchDomain);
    let records = since(outcome, "operations", from);
    trace::stop().map_err(that("a stop"))?;
    let begins = records.iter().filter(|one| one.event() == event::BEGIN);
    let begins: Vec<&Record> = begins.collect();
    outcome.expect("operations", &(begins.len() as u64), &(EVENTS / 4 + 1));
    for (number, begin) in begins.iter().enumerate() {
        let own = records.iter().filter(|one| one.flow == begin.flow);
        let own: Vec<(u16, u64)> = own.map(|one| (one.event(), one.value)).collect();
        let (argument, error) = match number as u64 == EVENTS / 4 {
            true => (0, Error::NoSuchDomain as u64),
            false => (number as u64, 0),
        };
        let expected = [
            (event::BEGIN, argument),
            (event::STEP, argument),
            (event::STEP, error),
            (event::END, error),
        ];
        outcome.expect("an operation", &own, &expected.to_vec());
    }
    Ok(())
}

/// The pairs of cores that send each other messages.
fn pairs(cores: &[usize]) -> Vec<(usize, usize)> {
    let all = cores.len() <= ALL_WITH_ALL;
    let mut pairs = Vec::new();
    for (at, from) in cores.iter().enumerate() {
        for (other, to) in cores.iter().enumerate() {
            let is_near = at == 0 || other == 0 || other == (at + 1) % cores.len();
            if at != other && (all || is_near) {
                pairs.push((*from, *to));
            }
        }
    }
    pairs
}

fn told(result: Result<(), CrewError>) -> Result<(), Failed> {
    result.map_err(that("a worker"))
}

/// Has a worker do something, and returns what came of it.
fn ask(crew: &mut Crew, core: usize, kind: u16, words: [u64; 2]) -> Result<[u64; 2], Failed> {
    let [a, b] = words;
    told(crew.order(core, &Message::new(kind, [a, b, 0, 0, 0, 0, 0])))?;
    let report = crew.report(core).map_err(that("a report"))?;
    Ok([report.payload[0], report.payload[1]])
}

/// Whatever is started and stopped is so on all cores.
fn on_all_cores(outcome: &mut Outcome, crew: &mut Crew, cores: &[usize]) -> Result<(), Failed> {
    for groups in [group(event::USER) | group(event::BOOT), 0] {
        trace::start(groups).map_err(that("a start"))?;
        for core in cores {
            let [found, triggers] = ask(crew, *core, LOOK, [0; 2])?;
            let what = format!("what core {core} records");
            outcome.expect(&what, &(found, triggers), &(groups.into(), 0));
        }
    }
    Ok(())
}

/// Messages bear the same flows on both cores, and each pair others.
fn messages_between(
    outcome: &mut Outcome,
    crew: &mut Crew,
    pairs: &[(usize, usize)],
) -> Result<(), Failed> {
    trace::start(group(event::MESSAGES)).map_err(that("a start"))?;
    let mut firsts = Vec::new();
    for (number, (from, to)) in pairs.iter().enumerate() {
        let words = [number as u64 * PAGE, number as u64];
        let sent = ask(crew, *from, SEND, words)?;
        let received = ask(crew, *to, RECEIVE, words)?;
        let what = format!("messages recorded by core {from} for core {to}");
        outcome.expect(&what, &sent[0], &MESSAGES);
        let what = format!("messages recorded by core {to} of core {from}");
        outcome.expect(&what, &received, &sent);
        firsts.push(sent[1]);
    }
    trace::stop().map_err(that("a stop"))?;
    firsts.sort_unstable();
    let is_other = firsts.windows(2).all(|pair| pair[0] < pair[1]);
    outcome.expect("each channel has flows of its own", &is_other, &true);
    Ok(())
}

/// What is asked of another core's monitor is named there as it is here.
fn steps_elsewhere(outcome: &mut Outcome, crew: &mut Crew, others: &[usize]) -> Result<(), Failed> {
    trace::start(group(event::PROTOCOLS)).map_err(that("a start"))?;
    let mut flows = Vec::new();
    for core in others {
        let from = trace::control().next;
        let asked = monitor::counter(*core, 0).map(|_| ());
        outcome.expect("a counter", &asked, &Ok(()));
        let records = since(outcome, "an operation elsewhere", from);
        let begin = records.iter().find(|one| one.event() == event::BEGIN);
        flows.push(begin.map_or(0, |one| one.flow));
    }
    trace::stop().map_err(that("a stop"))?;
    for (core, flow) in others.iter().zip(flows) {
        let [steps, _] = ask(crew, *core, FIND, [flow, 0])?;
        outcome.expect(&format!("steps on core {core}"), &steps, &1);
    }
    Ok(())
}

/// A copy of the program on any core: does what it is told.
fn work(mut post: Post) -> i32 {
    while let Some(order) = post.next_order() {
        let [a, b, ..] = order.payload;
        let done = match order.kind() {
            SEND => exchange(&post, a, b, Side::A),
            RECEIVE => exchange(&post, a, b, Side::B),
            LOOK => {
                let control = trace::control();
                Some([
                    control.enabled.into(),
                    (control.start | control.stop).into(),
                ])
            }
            FIND => {
                let to = trace::control().next;
                let records = trace::records(to.saturating_sub(LEAST_RECORDS), to);
                let is_one = |one: &&Record| one.event() == event::STEP && one.flow == a;
                Some([records.iter().filter(is_one).count() as u64, 0])
            }
            _ => None,
        };
        let [a, b] = done.unwrap_or_default();
        post.report(&Message::new(DONE, [a, b, 0, 0, 0, 0, 0]));
    }
    0
}

/// One end of a pair: how many of its messages were recorded here as they should be, and the flow of the
/// first.
fn exchange(post: &Post, offset: u64, pair: u64, side: Side) -> Option<[u64; 2]> {
    let kind = PAIR | pair as u16;
    let mut channel = post.frame().channel(offset as usize, SLOTS, side);
    let from = trace::control().next;
    let number = match side {
        Side::A => {
            for number in 0..MESSAGES {
                let message = Message::new(kind, pattern::message(pair, number).payload);
                channel.send(&message).ok()?;
            }
            event::SEND
        }
        Side::B => {
            for number in 0..MESSAGES {
                let message = Message::new(kind, pattern::message(pair, number).payload);
                // All were sent before this core was told.
                if channel.recv().ok()? != message {
                    return None;
                }
            }
            event::RECEIVE
        }
    };
    let records = trace::records(from, trace::control().next);
    let flows = flows_of(&records, number, kind);
    let first = *flows.first()?;
    let in_order = flows
        .iter()
        .zip(first..)
        .filter(|(flow, next)| *flow == next);
    Some([in_order.count() as u64, first])
}

/// Writes nonsense to the control page, and has CPU driver, monitor, and a child record something.
fn spoil(outcome: &mut Outcome) -> Result<(), Failed> {
    let here = rt::startup().core as usize;
    let page = TRACE as *mut Control;
    let good = trace::control();
    let nonsense = [
        (u64::MAX, 63, u64::MAX - 7),
        (0, 0, 1 << 62),
        (1 << 40, 40, 0x1234_5678_9abc_def0),
    ];
    for (capacity, shift, next) in nonsense {
        let bad = Control {
            enabled: u32::MAX,
            awaited: u32::MAX,
            capacity,
            shift,
            next,
            start: u32::MAX,
            stop: 0,
            sent: u64::MAX,
            received: u64::MAX,
            operation: u64::MAX,
        };
        // SAFETY: the page is there for programs to write to, and what they write is nobody's reference.
        unsafe { page.write_volatile(bad) };
        trace::user!("spoiled", "{value:x}", next);
        let echo = monitor::ask(here, interface::ECHO, [next, 0, 0, 0, 0, 0]);
        let echo = echo.map(|[first, ..]| first);
        outcome.expect("an echo over a spoiled trace", &echo, &Ok(next));
        let child = monitor::spawn(here, &["exit", "7"], None).and_then(monitor::wait);
        outcome.expect("a child over a spoiled trace", &child, &Ok(7));
    }
    // SAFETY: as above.
    unsafe { page.write_volatile(good) };
    Ok(())
}
