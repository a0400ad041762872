//! Steps of scripts, and what they come to.

use crate::puppet::{Answer, GIVEN, pseudo};
use abi::syscall;
use rt::capability::Address;
use rt::lrpc::Words;
use rt::system_call::Error;

/// A step of a script: a number and arguments.
#[derive(Clone, Copy)]
pub struct Step(pub u64, pub [u64; 6]);

pub const fn with(first: u64, words: Words) -> [u64; 6] {
    let [a, b, c, d, e] = words;
    [first, a, b, c, d, e]
}

pub const fn one(number: u64, argument: u64) -> Step {
    Step(number, [argument, 0, 0, 0, 0, 0])
}

pub const fn call(endpoint: Address, words: Words) -> Step {
    Step(syscall::CALL, with(endpoint.0, words))
}

/// Gives what is in [`GIVEN`].
pub const fn call_give(endpoint: Address, words: [u64; 4]) -> Step {
    let [a, b, c, d] = words;
    Step(syscall::CALL_GIVE, [endpoint.0, a, b, c, d, GIVEN.0])
}

pub const fn receive(endpoint: Address) -> Step {
    one(syscall::RECEIVE, endpoint.0)
}

pub const fn receive_until(endpoint: Address, ns: u64) -> Step {
    Step(syscall::RECEIVE, [endpoint.0, ns, 0, 0, 0, 0])
}

pub const fn reply(words: Words) -> Step {
    Step(syscall::REPLY, with(0, words))
}

pub const fn reply_give(words: [u64; 4]) -> Step {
    let [a, b, c, d] = words;
    Step(syscall::REPLY_GIVE, [0, a, b, c, d, GIVEN.0])
}

/// Gives what is in another slot.
pub const fn give_of(endpoint: Address, slot: Address) -> Step {
    Step(syscall::CALL_GIVE, [endpoint.0, 0, 0, 0, 0, slot.0])
}

pub const fn give_of_answer(slot: Address) -> Step {
    Step(syscall::REPLY_GIVE, [0, 0, 0, 0, 0, slot.0])
}

pub const fn reply_receive(endpoint: Address, words: Words) -> Step {
    Step(syscall::REPLY_RECEIVE, with(endpoint.0, words))
}

pub const fn receive_slot(slot: Address) -> Step {
    one(syscall::RECEIVE_SLOT, slot.0)
}

pub const fn ring(doorbell: Address) -> Step {
    one(syscall::RING, doorbell.0)
}

/// Takes a bell if one rang. What comes of it: [`RANG`] or [`SILENT`].
pub const TAKE_BELL: Step = one(syscall::WAIT, OVER);

pub const fn exit(status: u64) -> Step {
    one(syscall::EXIT, status)
}

pub const fn identify(slot: Address) -> Step {
    one(syscall::IDENTIFY, slot.0)
}

pub const fn delete(slot: Address) -> Step {
    one(syscall::DELETE, slot.0)
}

pub const fn revoke(slot: Address) -> Step {
    one(syscall::REVOKE, slot.0)
}

/// The same step, that also checks that all registers are kept.
pub const fn keeping(step: Step) -> Step {
    Step(pseudo::KEEP + step.0, step.1)
}

pub const fn float(seed: u64) -> Step {
    one(pseudo::FLOAT, seed)
}

pub const fn check_float(seed: u64) -> Step {
    one(pseudo::CHECK_FLOAT, seed)
}

pub const fn count(times: u64) -> Step {
    one(pseudo::COUNT, times)
}

pub const LOOK: Step = one(pseudo::LOOK, 0);

/// Five words of which none is like another.
pub const fn sample(number: u64) -> Words {
    [
        number,
        u64::MAX - number,
        0x0123_4567_89ab_cdef ^ number << 32,
        1 << 63 | number,
        number << 56 | 5,
    ]
}

/// Nothing went wrong, and nothing comes back.
pub const DONE_WELL: Option<Answer> = Some(Ok((0, [0; 5])));
/// A bell rang, or none did.
pub const RANG: Option<Answer> = Some(Ok((1, [0; 5])));
pub const SILENT: Option<Answer> = DONE_WELL;
/// The step, or one before it, is not done yet.
pub const BLOCKED: Option<Answer> = None;

pub const fn came(badge: u64, words: Words) -> Option<Answer> {
    Some(Ok((badge, words)))
}

pub const fn answered(words: Words) -> Option<Answer> {
    Some(Ok((0, words)))
}

pub const fn refused(error: Error) -> Option<Answer> {
    Some(Err(error))
}

/// A deadline that no run reaches, and one that is over.
pub const FAR: u64 = u64::MAX;
pub const OVER: u64 = 1;
