//! LRPC: calls between domains of one core, with five words in registers.
//!
//! ```text
//!  client                CPU driver              server
//!    │                                             │ receive(endpoint): blocks
//!    │ call(endpoint, words) ─────────────────────►│
//!    ┊ blocks                                      │ works
//!    │◄─────────────── reply_receive(endpoint, words) and waits for the next call
//! ```
//!
//! Everything here is one system call, inlined into its caller: words that are not used cost
//! nothing. A badge tells the server which of the capabilities to its endpoint was called.

use crate::capability::{Address, Result};
use crate::system_call::Error;
use abi::syscall;

/// What a call or an answer carries.
pub type Words = [u64; 5];

/// What it carries beside a capability.
pub type FewerWords = [u64; 4];

/// Makes a system call: an argument and words in, the first result and words out.
#[inline(always)]
fn transfer(number: u64, argument: u64, words: Words) -> Result<(u64, Words)> {
    let [a, b, c, d, e] = words;
    let (status, first, w0, w1, w2, w3, w4): (u64, u64, u64, u64, u64, u64, u64);
    // SAFETY: the registers are those of the ABI. The calls here hand words and capabilities
    // to other domains; for memory see `capability`.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => status,
            inlateout("rdi") argument => first,
            inlateout("rsi") a => w0,
            inlateout("rdx") b => w1,
            inlateout("r10") c => w2,
            inlateout("r8") d => w3,
            inlateout("r9") e => w4,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    if status == 0 {
        return Ok((first, [w0, w1, w2, w3, w4]));
    }
    Err(error(status))
}

#[cold]
fn error(status: u64) -> Error {
    // The CPU driver knows no other errors.
    Error::from_code(status).unwrap_or(Error::NoSuchCall)
}

#[inline(always)]
fn with(words: FewerWords, capability: Address) -> Words {
    let [a, b, c, d] = words;
    [a, b, c, d, capability.0]
}

/// Calls whoever receives on an endpoint, and waits for the answer.
#[inline(always)]
pub fn call(endpoint: Address, words: Words) -> Result<Words> {
    transfer(syscall::CALL, endpoint.0, words).map(|(_, words)| words)
}

/// The same with a capability of which the receiver gets a copy.
#[inline(always)]
pub fn call_give(endpoint: Address, words: FewerWords, capability: Address) -> Result<Words> {
    transfer(syscall::CALL_GIVE, endpoint.0, with(words, capability)).map(|(_, words)| words)
}

/// Waits for a call: the badge of the capability that was called, and the words. A doorbell
/// ([`Error::Interrupted`]) or the clock, in nanoseconds ([`Error::TimedOut`]), ends the wait.
#[inline(always)]
pub fn receive(endpoint: Address, deadline_ns: Option<u64>) -> Result<(u64, Words)> {
    // Zero means for ever; the first nanosecond is over long since.
    let deadline = deadline_ns.map_or(0, |ns| ns.max(1));
    transfer(syscall::RECEIVE, endpoint.0, [deadline, 0, 0, 0, 0])
}

/// Answers the call that was received last, and waits for the next without deadline. Where it is
/// [`Error::Interrupted`], the answer was given.
#[inline(always)]
pub fn reply_receive(endpoint: Address, words: Words) -> Result<(u64, Words)> {
    transfer(syscall::REPLY_RECEIVE, endpoint.0, words)
}

/// Answers the call that was received last.
#[inline(always)]
pub fn reply(words: Words) -> Result {
    transfer(syscall::REPLY, 0, words).map(|_| ())
}

/// The same with a capability of which the caller gets a copy. [`Error::NoReceiveSlot`]: it takes
/// none, and waits on.
#[inline(always)]
pub fn reply_give(words: FewerWords, capability: Address) -> Result {
    transfer(syscall::REPLY_GIVE, 0, with(words, capability)).map(|_| ())
}

/// Says into which empty slot capabilities go that come with calls and answers; `None`: none
/// are taken.
pub fn receive_slot(slot: Option<Address>) -> Result {
    let slot = slot.map_or(0, |slot| slot.0);
    transfer(syscall::RECEIVE_SLOT, slot, [0; 5]).map(|_| ())
}
