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

use crate::arch::entry::{fast_call, fast_reply_receive};
use crate::dispatcher::State;
use crate::kernel::{Kernel, count, kernel};
use crate::log;
use crate::lrpc::Outcome;
use crate::processor::MONITOR;
use crate::recording::note;
use crate::scheduler::Wake;
use ::capabilities::Error as Denial;
use abi::capability::{Kind, Resource, Rights, VECTORS};
use abi::syscall::{self, Error};
use core::fmt::{self, Write};
use loader::paging::Refusal;
use trace::event::{CALL, CALL_DONE, CAPABILITY, RING};

/// Arguments of a call, in the order of the ABI.
pub type Arguments = [u64; 6];

/// What a call comes to: results, or an error with at most one result.
type Answer = Result<Outcome, Refusal>;

const DONE: Answer = Ok(Outcome::Done);

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

/// Whether a call is LRPC, which is recorded as such.
const fn is_lrpc(number: u64) -> bool {
    use syscall::{CALL, CALL_GIVE, REPLY, REPLY_GIVE, REPLY_RECEIVE};
    matches!(
        number,
        CALL | CALL_GIVE | REPLY | REPLY_GIVE | REPLY_RECEIVE
    )
}

/// Whether a call changes the capabilities of this core.
const fn changes_capabilities(number: u64) -> bool {
    use syscall::{
        CLEAN, COPY, DELETE, INSERT, MINT, MOVE, NOTE_SHARED, OFFER_SLOT, REMOVE, RETYPE, REVOKE,
    };
    matches!(
        number,
        CLEAN
            | COPY
            | DELETE
            | INSERT
            | MINT
            | MOVE
            | NOTE_SHARED
            | OFFER_SLOT
            | REMOVE
            | RETYPE
            | REVOKE
    )
}

/// Carries out the call `NUMBER` of the current dispatcher; true where somebody else may have to run.
#[inline(always)]
fn enter<const NUMBER: u64>(
    arguments: Arguments,
    call: impl FnOnce(&mut Kernel, Arguments) -> Answer,
) -> bool {
    // SAFETY: an entry into ring 0 from ring 3, and the only reference.
    let kernel = unsafe { kernel() };
    count!(system_calls);
    if !is_lrpc(NUMBER) {
        note(CALL, arguments[0], NUMBER as u32);
    }
    // In each arm by itself: so what is recorded of it is worked out where it is.
    let done = |error: u64| {
        if changes_capabilities(NUMBER) {
            let slot = arguments[usize::from(NUMBER == syscall::INSERT)];
            note(CAPABILITY, slot, NUMBER as u32 | (error as u32) << 16);
        }
        if !is_lrpc(NUMBER) {
            note(CALL_DONE, error, NUMBER as u32);
        }
    };
    match call(kernel, arguments) {
        Ok(Outcome::Done) => {
            done(0);
            kernel.processor.leave_error(0);
        }
        Ok(Outcome::Results(results) | Outcome::Blocked(results)) => {
            done(0);
            kernel.processor.leave_results(0, results);
        }
        Err(Refusal { error, level }) => {
            done(error as u64);
            let results = [level, 0, 0, 0, 0, 0];
            kernel.processor.leave_results(error as u64, results);
        }
    }
    !kernel.processor.goes_on()
}

/// What carries out a call: its arguments; true where somebody else may have to run.
type Entry = extern "C" fn(u64, u64, u64, u64, u64, u64) -> bool;

/// Defines the function that carries out a call.
macro_rules! entry {
    ($name:ident, $number:expr, $call:expr) => {
        pub extern "C" fn $name(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> bool {
            enter::<{ $number }>([a, b, c, d, e, f], $call)
        }
    };
}

entry!(no_such_call, syscall::LAST + 1, |_, _| Err(
    Error::NoSuchCall.into()
));
entry!(
    slow_call,
    syscall::CALL,
    |kernel, [endpoint, words @ ..]| { Ok(kernel.call(endpoint, words, false)?) }
);
entry!(slow_reply_receive, syscall::REPLY_RECEIVE, |kernel,
                                                    [
    endpoint,
    words @ ..,
]| {
    kernel.reply(words, false)?;
    Ok(kernel.receive(endpoint, 0)?)
});

/// What carries out each call, by its number, and last what answers to all other numbers.
pub static CALLS: [Entry; syscall::LAST as usize + 2] = {
    let mut table = [no_such_call as Entry; syscall::LAST as usize + 2];
    macro_rules! fill {
        ($($number:ident: $call:expr;)*) => {$(
            table[syscall::$number as usize] = {
                entry!(call, syscall::$number, $call);
                call
            };
        )*};
    }
    fill! {
        NULL: |_, _| DONE;
        LOG: log_text;
        YIELD: |kernel, _| { kernel.processor.give_way(); DONE };
        WAIT: |kernel, [deadline, ..]| wait(kernel, deadline);
        EXIT: |kernel, [status, ..]| exit(kernel, status as i32);
        RING: |kernel, [doorbell, ..]| ring(kernel, doorbell);
        CALL_GIVE: |kernel, [endpoint, words @ ..]| Ok(kernel.call(endpoint, words, true)?);
        RECEIVE: |kernel, [endpoint, deadline, ..]| Ok(kernel.receive(endpoint, deadline)?);
        REPLY: |kernel, [_, words @ ..]| { kernel.reply(words, false)?; DONE };
        REPLY_GIVE: |kernel, [_, words @ ..]| { kernel.reply(words, true)?; DONE };
        RECEIVE_SLOT: |kernel, [address, ..]| receive_slot(kernel, address);
        COPY: capabilities::copy;
        MINT: capabilities::mint;
        MOVE: capabilities::move_to;
        RETYPE: capabilities::retype;
        CLEAN: capabilities::clean;
        DELETE: capabilities::delete;
        REVOKE: capabilities::revoke;
        IDENTIFY: capabilities::identify;
        INSERT: capabilities::insert;
        MAP: spaces::map;
        MAP_TABLE: spaces::map_table;
        UNMAP: spaces::unmap;
        PROTECT: spaces::protect;
        TRANSLATE: spaces::translate;
        CONFIGURE: dispatchers::configure;
        START: dispatchers::start;
        STOP: dispatchers::stop;
        STATE: dispatchers::state;
        READ_REGISTER: dispatchers::read_register;
        WRITE_REGISTER: dispatchers::write_register;
        PORT_READ: machine::port_read;
        PORT_WRITE: machine::port_write;
        PORT_WRITE_VALUE: machine::port_write_value;
        SEND_INIT: machine::send_init;
        SEND_STARTUP: machine::send_startup;
        POWER_OFF: machine::power_off;
        KERNEL_MAPPING: machine::kernel_mapping;
        WILD_WRITE: machine::wild_write;
        RUNNING: machine::running;
        COUNTER: machine::counter;
        LOG_WRITTEN: machine::log_written;
        NOTE_SHARED: capabilities::note_shared;
        LOOK_UP: capabilities::look_up;
        REMOVE: capabilities::remove;
        OFFER_SLOT: capabilities::offer_slot;
        STOP_CORE: machine::stop_core;
    }
    // In assembly, with the two above to fall back on.
    table[syscall::CALL as usize] = fast_call;
    table[syscall::REPLY_RECEIVE as usize] = fast_reply_receive;
    table
};

fn exit(kernel: &mut Kernel, status: i32) -> Answer {
    let current = kernel.processor.current().ok_or(Error::NotFound)?;
    if let Some(dispatcher) = kernel.processor.dispatcher(current) {
        dispatcher.status = status;
    }
    kernel.processor.end(current, State::Exited);
    DONE
}

fn receive_slot(kernel: &mut Kernel, address: u64) -> Answer {
    let dispatcher = kernel.processor.current_dispatcher();
    dispatcher.ok_or(Error::NotFound)?.receive_slot = address;
    DONE
}

fn wait(kernel: &mut Kernel, deadline_ns: u64) -> Answer {
    let dispatcher = kernel.processor.current_dispatcher();
    let dispatcher = dispatcher.ok_or(Error::NotFound)?;
    if core::mem::take(&mut dispatcher.pending) {
        return value(dispatcher.woken());
    }
    if kernel.processor.block(State::Waiting, deadline_ns) {
        Ok(Outcome::Blocked([0; 6]))
    } else {
        value(0)
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
        let name = Line(dispatcher.name().as_bytes());
        log!("{name}: {}", Line(&dispatcher.line[..end]));
        ended = true;
        dispatcher.line.drain(..end);
        if byte != b'\n' {
            dispatcher.line.push(byte);
        }
    }
    if ended && current != Some(MONITOR) {
        kernel.processor.tell_monitor();
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
    note(RING, number / VECTORS, vector as u32);
    kernel.processor.apic.send(apic_id, vector as u8);
    DONE
}
