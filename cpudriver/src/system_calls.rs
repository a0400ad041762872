//! System calls: what each does. Numbers, arguments and results are [`abi::syscall`]'s.
//!
//! | module         | calls                                                        |
//! |----------------|--------------------------------------------------------------|
//! | here           | those without capabilities, doorbells, the way to LRPC       |
//! | `capabilities` | copy, retype, revoke, …                                      |
//! | `spaces`       | map, unmap, …                                                |
//! | `dispatchers`  | set up, start, stop, look at dispatchers                     |
//! | `machine`      | ports, other cores, and what only a monitor asks of its core |

mod capabilities;
mod dispatchers;
mod machine;
mod spaces;

use crate::arch::entry::RESULTS;
use crate::dispatcher::State;
use crate::kernel::{Kernel, count};
use crate::log;
use crate::lrpc::Outcome;
use crate::processor::MONITOR;
use crate::scheduler::Wake;
use ::capabilities::Error as Denial;
use abi::capability::{Kind, Resource, Rights, VECTORS};
use abi::syscall::{self, Error};
use core::fmt::{self, Write};
use core::sync::atomic::Ordering::Relaxed;
use loader::paging::Refusal;

/// Arguments of a call, in the order of the ABI.
pub type Arguments = [u64; 6];

/// What a call comes to: results, or an error with at most one result.
type Answer = Result<Outcome, Refusal>;

const DONE: Answer = Ok(Outcome::Results([0; 6]));

fn value(value: u64) -> Answer {
    Ok(Outcome::Results([value, 0, 0, 0, 0, 0]))
}

/// The error of the ABI for one of the capability database.
pub fn refusal(error: Denial) -> Error {
    match error {
        Denial::BadSlot => Error::NoSuchSlot,
        Denial::EmptySlot => Error::EmptySlot,
        Denial::OccupiedSlot => Error::OccupiedSlot,
        Denial::MoreRights => Error::MoreRights,
        Denial::AlreadyBadged => Error::AlreadyBadged,
        Denial::Badged => Error::Badged,
        Denial::WrongKind => Error::WrongKind,
        Denial::WrongSize => Error::WrongSize,
        Denial::WrongCount => Error::WrongCount,
        Denial::OutOfRange => Error::OutOfRange,
        Denial::Misaligned => Error::Misaligned,
        Denial::Unreachable => Error::Unreachable,
        Denial::TooDeep => Error::TooDeep,
        Denial::Overlap => Error::Overlap,
        Denial::Conflict => Error::Conflict,
        Denial::NotRevocable => Error::NotRevocable,
        Denial::AskMonitor => Error::AskMonitor,
    }
}

/// Leaves what a call comes to where the way out finds it.
pub fn leave_results(error: u64, results: [u64; 6]) {
    RESULTS[0].store(error, Relaxed);
    for (place, result) in RESULTS[1..].iter().zip(results) {
        place.store(result, Relaxed);
    }
}

/// Carries out call `number` of the current dispatcher.
pub fn call(kernel: &mut Kernel, number: u64, arguments: Arguments) -> Answer {
    let [a, b, c, d, e, f] = arguments;
    let words = [b, c, d, e, f];
    match number {
        syscall::NULL => DONE,
        syscall::LOG => log_text(kernel, arguments),
        syscall::YIELD => {
            kernel.processor.give_way();
            DONE
        }
        syscall::WAIT => wait(kernel, a),
        syscall::EXIT => {
            if let Some(current) = kernel.processor.current() {
                if let Some(dispatcher) = kernel.processor.dispatcher(current) {
                    dispatcher.status = a as i32;
                }
                kernel.processor.end(current, State::Exited);
            }
            DONE
        }
        syscall::RING => ring(kernel, a),
        syscall::CALL => Ok(kernel.call(a, words, false)?),
        syscall::CALL_GIVE => Ok(kernel.call(a, words, true)?),
        syscall::RECEIVE => Ok(kernel.receive(a, b)?),
        syscall::REPLY_RECEIVE => {
            kernel.reply(words, false)?;
            Ok(kernel.receive(a, 0)?)
        }
        syscall::REPLY | syscall::REPLY_GIVE => {
            kernel.reply(words, number == syscall::REPLY_GIVE)?;
            DONE
        }
        syscall::RECEIVE_SLOT => {
            if let Some(dispatcher) = kernel.processor.current_dispatcher() {
                dispatcher.receive_slot = a;
            }
            DONE
        }
        syscall::COPY..=syscall::INSERT => capabilities::call(kernel, number, arguments),
        syscall::MAP..=syscall::TRANSLATE => spaces::call(kernel, number, arguments),
        syscall::CONFIGURE..=syscall::WRITE_REGISTER => {
            dispatchers::call(kernel, number, arguments)
        }
        syscall::PORT_READ..=syscall::LAST => machine::call(kernel, number, arguments),
        _ => Err(Error::NoSuchCall.into()),
    }
}

fn wait(kernel: &mut Kernel, deadline_ns: u64) -> Answer {
    let dispatcher = kernel.processor.current_dispatcher();
    let dispatcher = dispatcher.ok_or(Error::NotFound)?;
    if core::mem::take(&mut dispatcher.pending) {
        return value(1);
    }
    if kernel.processor.block(State::Waiting, deadline_ns) {
        Ok(Outcome::Blocked([0; 6]))
    } else {
        DONE
    }
}

fn log_text(kernel: &mut Kernel, arguments: Arguments) -> Answer {
    let bytes = arguments[0] as usize;
    if arguments[0] > 40 {
        return Err(Error::BadArgument.into());
    }
    let current = kernel.processor.current();
    let dispatcher = kernel.processor.current_dispatcher();
    let dispatcher = dispatcher.ok_or(Error::NotFound)?;
    let mut ended = false;
    for index in 0..bytes {
        let byte = (arguments[1 + index / 8] >> (index % 8 * 8)) as u8;
        if byte != b'\n' && dispatcher.line.try_push(byte).is_ok() {
            continue;
        }
        // A line that grew too long ends before a character that would be cut.
        let tail = match byte {
            b'\n' => 0,
            _ => cut_character(&dispatcher.line),
        };
        let end = dispatcher.line.len() - tail;
        log!("{}: {}", dispatcher.name(), Line(&dispatcher.line[..end]));
        ended = true;
        dispatcher.line.drain(..end);
        if byte != b'\n' {
            dispatcher.line.push(byte);
        }
    }
    if ended && current != Some(MONITOR) {
        kernel.processor.signal(MONITOR, Wake::Call);
    }
    DONE
}

/// A line as a domain wrote it, with dots for what would not show as text.
struct Line<'a>(&'a [u8]);

impl fmt::Display for Line<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                formatter.write_char(if character.is_control() {
                    '.'
                } else {
                    character
                })?;
            }
            if !chunk.invalid().is_empty() {
                formatter.write_char('.')?;
            }
        }
        Ok(())
    }
}

/// Bytes at the end that are the beginning of a UTF-8 character, and not all of it.
fn cut_character(text: &[u8]) -> usize {
    for (index, byte) in text.iter().rev().take(3).enumerate() {
        let bytes = byte.leading_ones() as usize;
        match bytes {
            1 => {} // in the middle of a character
            2..=4 if bytes > index + 1 => return index + 1,
            _ => return 0,
        }
    }
    0
}

fn ring(kernel: &mut Kernel, doorbell: u64) -> Answer {
    let doorbell = kernel.find(doorbell, Kind::Doorbell, Rights::WRITE)?;
    if doorbell.bytes != 1 {
        return Err(Error::WrongSize.into());
    }
    let number = doorbell.base - Resource::Vectors.range().start;
    let (core, vector) = (number / VECTORS, number % VECTORS);
    if core == kernel.processor.own_core() {
        if let Some(owner) = kernel.processor.doorbells[vector as usize].handle() {
            kernel.processor.signal(owner, Wake::Call);
        }
        return DONE;
    }
    // Nobody is woken by a vector that is no doorbell's, and some of those do harm.
    if !(syscall::FIRST_DOORBELL..=syscall::LAST_DOORBELL).contains(&vector) {
        return Err(Error::BadVector.into());
    }
    let core = kernel.processor.machine.cores().get(core as usize);
    let apic_id = core.ok_or(Error::NotFound)?.apic_id;
    count!(doorbells_sent);
    kernel.processor.apic.send(apic_id, vector as u8);
    DONE
}
