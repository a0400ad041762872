//! What it costs to wake a receiver that sleeps.
//!
//! | operation                          | from … to                                               |
//! |------------------------------------|---------------------------------------------------------|
//! | wake another core                  | before the send to the receiver's first instruction     |
//! | blocking round trip                | there and back; both sleep meanwhile, and neither polls |
//! | round trip, polls first            | the same as programs wait that do not say otherwise     |
//! | wake on the same core              | before the send, and going to sleep, to the receiver    |
//! | blocking round trip, same core     | there and back                                          |
//!
//! Before each the sender sleeps for a while itself; it counts only if the receiver had announced
//! its sleep by then. Under `icount` a round trip has what both cores do until the sender has its
//! answer: the way to sleep of each included.

use crate::{hire, insist, settle, this_core, wait_for};
use apps::crew::Crew;
use apps::figures::since;
use apps::laboratory::{Failure, Laboratory, at, told};
use apps::pattern;
use core::hint::spin_loop;
use rt::capability::Address;
use rt::clock::{self, Cycles};
use rt::connection::Connection;
use rt::frame::Frame;
use rt::monitor::{self, Domain};
use rt::system_call;
use urpc::{Message, ReceiveError, Side, Wait, frame_bytes};

const SLOTS: usize = 16;
/// Until the receiver must sleep.
const SETTLE_NS: u64 = 50_000;

/// Orders: answer with the time of waking up; send back what comes, and block at once where there is
/// nothing; the same after some polls.
pub const STAMP: u16 = 1;
pub const ECHO: u16 = 2;
pub const POLLED_ECHO: u16 = 3;

/// This end's channel, by which it waits as the order says.
fn connect(frame: &Frame, side: Side, doorbell: Address, order: u16) -> Connection {
    let channel = frame.channel(0, SLOTS, side);
    if order == POLLED_ECHO {
        Connection::new(channel, Some(doorbell))
    } else {
        // Wherever the peer is: that blocks at once.
        Connection::on_this_core(channel, Some(doorbell))
    }
}

pub fn measure(laboratory: &mut Laboratory, other: usize) -> Result<(), Failure> {
    let far = [
        (STAMP, "wake another core"),
        (ECHO, "blocking round trip"),
        (POLLED_ECHO, "round trip, polls first"),
    ];
    let near = [
        (STAMP, "wake on the same core"),
        (ECHO, "blocking round trip, same core"),
    ];
    measure_with(laboratory, other, &far)?;
    measure_with(laboratory, this_core(), &near)
}

fn measure_with(
    laboratory: &mut Laboratory,
    core: usize,
    operations: &[(u16, &str)],
) -> Result<(), Failure> {
    let mut crew = hire(core, frame_bytes(SLOTS))?;
    let worker = crew.domain(core).ok_or("no worker");
    let doorbell = told("a doorbell", monitor::doorbell(told("a worker", worker)?))?;
    let pair = [("from", this_core() as u64), ("to", core as u64)];
    for (order, name) in operations {
        let mut caller = Caller::begin(&mut crew, core, doorbell, *order)?;
        laboratory.measure_with(name, &pair, 1, || insist(|| caller.once()))?;
        caller.connection.close();
        wait_for(&mut crew, core)?;
    }
    told("end of a copy", crew.dismiss())
}

/// The end that takes the time.
struct Caller {
    connection: Connection,
    doorbell: Address,
    order: u16,
    number: u64,
}

impl Caller {
    fn begin(crew: &mut Crew, core: usize, doorbell: Address, order: u16) -> Result<Self, Failure> {
        crew.frame().clear(0, frame_bytes(SLOTS));
        let connection = connect(crew.frame(), Side::A, doorbell, order);
        let ordered = crew.order(core, &Message::new(order, [0; 7]));
        told("order to a copy", ordered)?;
        Ok(Self {
            connection,
            doorbell,
            order,
            number: 0,
        })
    }

    /// `None`: somebody was awake who should not have been.
    fn once(&mut self) -> Result<Option<Cycles>, Failure> {
        self.number += 1;
        let question = pattern::message(u64::from(self.order), self.number);
        settle(SETTLE_NS);
        let start = clock::cycles();
        told("send", self.connection.channel().send(&question))?;
        let was_asleep = self.connection.channel().peer_needs_doorbell();
        if was_asleep {
            at("doorbell", system_call::ring(self.doorbell))?;
        }
        if self.order == STAMP {
            spin_loop();
        }
        let (answer, slept) = self.receive()?;
        let taken = since(start);
        let has_come_back = match self.order {
            STAMP => answer.payload[0] == question.payload[0],
            _ => answer == question,
        };
        if !has_come_back {
            return at("answer", Err("another one than was sent"));
        }
        let time = match self.order {
            // Before: something else had rung.
            STAMP => answer.payload[1].checked_sub(start.0).map(Cycles),
            ECHO => slept.then_some(taken),
            _ => Some(taken),
        };
        Ok(time.filter(|_| was_asleep))
    }

    /// What [`Connection::receive`] does; and whether that took sleep.
    fn receive(&mut self) -> Result<(Message, bool), Failure> {
        let (mut polls, mut slept) = (0, false);
        loop {
            match self.connection.channel().recv() {
                Ok(message) => {
                    self.connection.ring_if_needed();
                    return Ok((message, slept));
                }
                Err(ReceiveError::Empty) => {
                    self.connection.wait(&mut polls, Wait::Message);
                    slept = true;
                }
                Err(error) => return told("receive", Err(error)),
            }
        }
    }
}

/// The other end, until the channel is closed.
pub fn serve(frame: &Frame, order: &Message) {
    // Without one, the other end is gone.
    let Ok(doorbell) = monitor::doorbell(Domain(rt::startup().parent)) else {
        return;
    };
    let mut connection = connect(frame, Side::B, doorbell, order.kind());
    if order.kind() == STAMP {
        return stamp(&mut connection);
    }
    while let Ok(question) = connection.receive() {
        // An emulator that runs cores by turns lets the other one go on here, and so to sleep, as it
        // does by itself where both run at once.
        spin_loop();
        if connection.send(&question).is_err() {
            return;
        }
    }
}

/// Answers what comes with the time of waking up.
fn stamp(connection: &mut Connection) {
    let mut woke = Cycles::default();
    loop {
        match connection.channel().recv() {
            Ok(question) => {
                let words = [question.payload[0], woke.0, 0, 0, 0, 0, 0];
                if connection.send(&Message::new(STAMP, words)).is_err() {
                    return;
                }
            }
            Err(ReceiveError::Empty) => {
                connection.ring_if_needed();
                if connection.channel().prepare_sleep(Wait::Message) {
                    system_call::wait(None);
                    woke = clock::cycles();
                    connection.channel().awake();
                }
            }
            Err(_) => return,
        }
    }
}
