//! What the children do: copies of the program.

use crate::code::{breakpoint_next, harm_read};
use crate::harms::{BREAKPOINT, CONTENT, HARMS, PLACE};
use abi::syscall::RESUME;
use core::hint::black_box;
use rt::capability::{Address, OWN_DISPATCHER};
use rt::dispatcher::{self, Property};
use rt::lrpc;
use rt::system_call::{self, Error};

/// Where a child finds the endpoint that it receives at, or calls.
pub const E: Address = Address::new(2, 24);

/// Exit statuses of one that calls a server: it was answered, or the server has gone.
pub const ANSWERED: i32 = 10;
pub const DESERTED: i32 = 11;

/// Meets the exception with this number; as an exit status whether it went on as it should.
pub fn harm(number: &str) -> i32 {
    let harm = number
        .parse()
        .ok()
        .and_then(|number: usize| HARMS.get(number));
    let Some(harm) = harm else {
        return 2;
    };
    // SAFETY: not safe, and meant to fault. It touches what the handler puts there.
    let result = unsafe { (harm.code)(harm.argument) };
    i32::from(result != harm.result)
}

/// Writes where nothing is, from functions that the report will name.
#[inline(never)]
pub fn outermost() -> i32 {
    black_box(innermost(black_box(PLACE)))
}

#[inline(never)]
pub fn innermost(address: u64) -> i32 {
    // SAFETY: not safe, and meant to fault.
    unsafe { (address as *mut u64).write_volatile(1) };
    black_box(1)
}

/// Sets up a fault handler itself: what it receives at, which can never answer it; or none.
pub fn self_made(number: &str) -> i32 {
    let own = lrpc::receive(E, Some(1));
    let set = dispatcher::configure(OWN_DISPATCHER, Property::FaultHandler(Some(E)));
    if own.map(|_| ()) != Err(Error::TimedOut) || set != Ok(()) {
        return 2;
    }
    harm(number)
}

/// Handles a breakpoint as the word says: `resume` it, `exit` before it is answered, or `sit`
/// there.
pub fn handle(how: &str) -> i32 {
    let call = lrpc::receive(E, None);
    let is_right = call.is_ok_and(|(_, words)| {
        let [vector, error, address, rip, _] = words;
        [vector, error, address, rip] == [BREAKPOINT, 0, 0, breakpoint_next::address()]
    });
    match how {
        "exit" => {}
        "resume" => {
            if lrpc::reply([RESUME, 0, 0, 0, 0]).is_err() {
                return 2;
            }
        }
        _ => loop {
            system_call::wait(None);
        },
    }
    i32::from(!is_right)
}

/// Answers calls with what is at [`PLACE`], where nothing is at first.
pub fn serve() -> i32 {
    let mut call = lrpc::receive(E, None);
    while call.is_ok() {
        // SAFETY: meant to fault; the handler may put something there.
        let found = unsafe { harm_read(PLACE) };
        call = lrpc::reply_receive(E, [found, 0, 0, 0, 0]);
    }
    1
}

/// Calls that server; as an exit status what came of it.
pub fn call_server() -> i32 {
    match lrpc::call(E, [0; 5]) {
        Ok([CONTENT, ..]) => ANSWERED,
        Err(Error::PeerGone) => DESERTED,
        _ => 2,
    }
}
