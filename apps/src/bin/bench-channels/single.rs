//! One send and one receive: both ends of a channel in one domain, by turns, so that a figure has the
//! instructions of one operation alone.
//!
//! A message of 56 bytes is compared whole, outside of the time. The ring has 16 slots: every
//! fourth receive acknowledges, and a send that has used up the room it knows of looks for more.

use apps::laboratory::{Failure, Laboratory, at, timed, told};
use apps::pattern;
use rt::monitor;
use urpc::{Channel, Message, ReceiveError, Side, frame_bytes};

const SLOTS: usize = 16;

/// Both ends of a new channel.
fn ends() -> Result<(Channel, Channel), Failure> {
    let frame = told("a frame", monitor::frame(frame_bytes(SLOTS)))?;
    let end = |side| frame.channel(0, SLOTS, side);
    Ok((end(Side::A), end(Side::B)))
}

fn compare(received: &Message, sent: &Message) -> Result<(), Failure> {
    match received == sent {
        true => Ok(()),
        false => at("receive", Err("another message than was sent")),
    }
}

pub fn measure_send(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let (mut sender, mut receiver) = ends()?;
    let mut number = 0;
    laboratory.measure("send 56 bytes", 1, || {
        number += 1;
        let message = pattern::message(0, number);
        let (time, sent) = timed(|| sender.send(&message));
        told("send", sent)?;
        compare(&told("receive", receiver.recv())?, &message)?;
        Ok(time)
    })
}

pub fn measure_receive(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let (mut sender, mut receiver) = ends()?;
    let mut number = 0;
    laboratory.measure("receive 56 bytes", 1, || {
        number += 1;
        let message = pattern::message(1, number);
        told("send", sender.send(&message))?;
        let (time, received) = timed(|| receiver.recv());
        compare(&told("receive", received)?, &message)?;
        Ok(time)
    })?;
    laboratory.measure("receive, nothing there", 1, || {
        let (time, received) = timed(|| receiver.recv());
        match received {
            Err(ReceiveError::Empty) => Ok(time),
            other => at("receive of nothing", Err(other)),
        }
    })?;
    laboratory.measure("send and receive 56 bytes", 1, || {
        number += 1;
        let message = pattern::message(1, number);
        let (time, (sent, received)) = timed(|| (sender.send(&message), receiver.recv()));
        told("send", sent)?;
        compare(&told("receive", received)?, &message)?;
        Ok(time)
    })
}
