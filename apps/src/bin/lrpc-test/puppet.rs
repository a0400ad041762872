//! Puppets: what they find, and how they carry out their scripts.

use crate::registers;
use crate::vectors::{Vectors, pattern};
use abi::layout::{PAGE, USER_STARTUP};
use abi::syscall;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::capability::{self, Address};
use rt::clock;
use rt::lrpc::{self, Words};
use rt::system_call::{self, Error};

/// Where the script of a puppet is in it, what all puppets share, and what is shared in a scene:
/// beside its startup page, where its page table goes on.
pub const BOARD: u64 = USER_STARTUP + 16 * PAGE;
pub const COMMON: u64 = BOARD + PAGE;
pub const PAYLOAD: u64 = BOARD + 2 * PAGE;
/// Bytes of the latter.
pub const PAYLOAD_BYTES: u64 = 16 * PAGE;

/// Words of a board: the number of the script, which is written last; its length; the number of the
/// last script that was done; the number of steps done of this one.
pub const SCRIPT: usize = 0;
pub const LENGTH: usize = 1;
pub const DONE: usize = 2;
pub const STEPS: usize = 3;
/// Where steps and results begin, and how many words each has.
pub const FIRST_STEP: usize = 8;
pub const FIRST_RESULT: usize = 256;
pub const STRIDE: usize = 8;
pub const MAX_STEPS: usize = 24;
/// Word of the common page that `count` counts in.
pub const COUNTER: usize = 0;

/// Where puppets find what they are given: endpoints, doorbells of others, a capability to give,
/// and an empty slot to take one.
pub const E: Address = Address::new(2, 24);
pub const E2: Address = Address::new(2, 25);
pub const E3: Address = Address::new(2, 26);
pub const BELL: Address = Address::new(2, 28);
pub const GIVEN: Address = Address::new(2, 29);
pub const TAKEN: Address = Address::new(2, 30);

/// Steps that are no system calls.
pub mod pseudo {
    /// Fills the vector registers with a pattern of this seed.
    pub const FLOAT: u64 = 1000;
    /// How many of them do not hold it.
    pub const CHECK_FLOAT: u64 = 1001;
    /// Counts so far in the common page.
    pub const COUNT: u64 = 1002;
    /// Looks how far somebody else has counted.
    pub const LOOK: u64 = 1003;
    /// Fills the shared frame with a pattern of this seed.
    pub const FILL: u64 = 1004;
    /// How many words of it are not of that pattern.
    pub const CHECK: u64 = 1005;
    /// Answers calls on an endpoint until one says [`END`].
    pub const SERVE: u64 = 1006;
    /// Calls so many times, with this seed and at so many endpoints.
    pub const STORM: u64 = 1007;
    /// Wakes so many times, so many nanoseconds apart.
    pub const TICK: u64 = 1008;
    /// Makes the call with this number, whatever it is.
    pub const NUMBERED: u64 = 1009;
    /// With the number of a call added: the call with patterns in all registers that it is to
    /// keep. What comes first is [`LOST`] and more if one of them was not kept.
    pub const KEEP: u64 = 2000;
    /// Stands for lost registers, of which there may be fewer than hundred.
    pub const LOST: u64 = 0xbad << 32;

    /// First word of the last call to a server.
    pub const END: u64 = u64::MAX;
}

/// What a step came to: the first result, mostly a badge, and the words.
pub type Answer = Result<(u64, Words), Error>;

/// A page that the director put into the address space of this puppet.
pub fn page(address: u64) -> &'static [AtomicU64] {
    // SAFETY: a puppet is started after its pages were mapped, and they stay for its life; all
    // accesses are atomic.
    unsafe { core::slice::from_raw_parts(address as *const AtomicU64, (PAGE / 8) as usize) }
}

pub fn puppet() -> i32 {
    let board = page(BOARD);
    let mut last = 0;
    loop {
        let script = board[SCRIPT].load(Ordering::Acquire);
        if script == last {
            system_call::wait(None);
            continue;
        }
        last = script;
        for step in 0..board[LENGTH].load(Ordering::Relaxed) as usize {
            let at = FIRST_STEP + step * STRIDE;
            let word = |index: usize| board[at + index].load(Ordering::Relaxed);
            let answer = perform(word(0), core::array::from_fn(|index| word(1 + index)));
            let (status, (first, words)) = match answer {
                Ok(results) => (0, results),
                Err(error) => (error as u64, (0, [0; 5])),
            };
            let at = FIRST_RESULT + step * STRIDE;
            board[at].store(status, Ordering::Relaxed);
            board[at + 1].store(first, Ordering::Relaxed);
            for (place, word) in board[at + 2..].iter().zip(words) {
                place.store(word, Ordering::Relaxed);
            }
            board[STEPS].store(step as u64 + 1, Ordering::Release);
        }
        board[DONE].store(script, Ordering::Release);
    }
}

/// Does what a step says.
pub fn perform(number: u64, arguments: [u64; 6]) -> Answer {
    let [first, rest @ ..] = arguments;
    let at = Address(first);
    let value = |value| Ok((value, [0; 5]));
    let nothing = |()| (0, [0; 5]);
    match number {
        syscall::CALL => lrpc::call(at, rest).map(|words| (0, words)),
        syscall::CALL_GIVE => {
            let [a, b, c, d, given] = rest;
            lrpc::call_give(at, [a, b, c, d], Address(given)).map(|words| (0, words))
        }
        syscall::RECEIVE => lrpc::receive(at, (rest[0] != 0).then_some(rest[0])),
        syscall::REPLY_RECEIVE => lrpc::reply_receive(at, rest),
        syscall::REPLY => lrpc::reply(rest).map(nothing),
        syscall::REPLY_GIVE => {
            let [a, b, c, d, given] = rest;
            lrpc::reply_give([a, b, c, d], Address(given)).map(nothing)
        }
        syscall::RECEIVE_SLOT => lrpc::receive_slot((first != 0).then_some(at)).map(nothing),
        syscall::REVOKE => capability::revoke(at).map(nothing),
        pseudo::FLOAT => {
            Vectors::of(first).load();
            value(0)
        }
        pseudo::CHECK_FLOAT => value(Vectors::of(first).differences()),
        pseudo::COUNT => {
            for _ in 0..first {
                page(COMMON)[COUNTER].fetch_add(1, Ordering::Relaxed);
            }
            value(0)
        }
        pseudo::LOOK => value(page(COMMON)[COUNTER].load(Ordering::Relaxed)),
        pseudo::FILL => {
            let fill = |(index, word): (usize, &AtomicU64)| {
                word.store(pattern(first, index as u64), Ordering::Relaxed);
            };
            payload().enumerate().for_each(fill);
            value(0)
        }
        pseudo::CHECK => {
            let differs = |(index, word): &(usize, &AtomicU64)| {
                word.load(Ordering::Relaxed) != pattern(first, *index as u64)
            };
            value(payload().enumerate().filter(differs).count() as u64)
        }
        pseudo::SERVE => value(serve(at, rest[0])),
        pseudo::STORM => value(storm_of_calls(first, rest[0], rest[1])),
        pseudo::TICK => value(tick(first, rest[0])),
        pseudo::NUMBERED => {
            let [number, a, b, c, d] = rest;
            registers::call(number, [first, a, b, c, d, 0])
        }
        pseudo::KEEP.. => registers::call(number - pseudo::KEEP, arguments),
        _ => {
            // SAFETY: the director has it make no call that maps anything.
            let results = unsafe { system_call::call(number, arguments) };
            let [first, a, b, c, d] = results.map_err(|(error, _)| error)?;
            // Others leave nothing that means something.
            Ok(match number {
                syscall::IDENTIFY => (first, [a, b, c, d, 0]),
                syscall::WAIT => (first, [0; 5]),
                _ => (0, [0; 5]),
            })
        }
    }
}

/// The words of the frame that puppets of a scene share.
pub fn payload() -> impl Iterator<Item = &'static AtomicU64> {
    (PAYLOAD..PAYLOAD + PAYLOAD_BYTES)
        .step_by(PAGE as usize)
        .flat_map(page)
}

/// What a server makes of a call.
pub fn answer_of(badge: u64, words: Words) -> Words {
    let [a, b, c, d, e] = words;
    [
        a.wrapping_add(badge),
        b ^ a,
        c.rotate_left(7),
        d.wrapping_mul(3),
        !e,
    ]
}

/// Answers calls until one says that it is the last, and keeps its vector registers meanwhile if
/// `seed` is not 0. Back: how often something was wrong.
pub fn serve(endpoint: Address, seed: u64) -> u64 {
    let mut bad = 0;
    let mut calls = 0;
    let mut call = lrpc::receive(endpoint, None);
    loop {
        let Ok((badge, words)) = call else {
            return bad + 1;
        };
        if seed != 0 && calls % 8 == 7 {
            // Several calls come in between, and whoever made them.
            bad += Vectors::of(seed ^ (calls / 8)).differences();
        }
        if seed != 0 && calls % 8 == 0 {
            Vectors::of(seed ^ (calls / 8)).load();
        }
        calls += 1;
        if words[0] == pseudo::END {
            return bad + u64::from(lrpc::reply(answer_of(badge, words)).is_err());
        }
        call = lrpc::reply_receive(endpoint, answer_of(badge, words));
    }
}

/// Calls the servers in turns, and keeps its vector registers meanwhile if `seed` is not 0. The
/// badge that it bears is the seed's lowest byte. Back: how often something was wrong.
pub fn storm_of_calls(rounds: u64, seed: u64, servers: u64) -> u64 {
    let badge = seed & 0xff;
    let computes = seed >> 8 != 0;
    let mut bad = 0;
    for round in 0..rounds {
        let endpoint = E.plus(round % servers);
        let words = core::array::from_fn(|index| pattern(seed ^ round, index as u64) >> 1);
        if computes {
            Vectors::of(seed ^ round).load();
        }
        let answer = lrpc::call(endpoint, words);
        if computes {
            bad += Vectors::of(seed ^ round).differences();
        }
        bad += u64::from(answer != Ok(answer_of(badge, words)));
    }
    bad
}

/// Takes the core from the others again and again, and has vector registers of its own. Back: how
/// often those were wrong.
pub fn tick(times: u64, ns: u64) -> u64 {
    let mut bad = 0;
    for time in 0..times {
        Vectors::of(time).load();
        system_call::wait(Some(clock::now_ns() + ns));
        bad += Vectors::of(time).differences();
    }
    bad
}
