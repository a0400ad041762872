//! Dispatchers that are set up anew while they wait for something.

use crate::Test;
use crate::threads::thread;
use abi::capability::ENDPOINT_BYTES;
use abi::syscall::priority::NORMAL;
use abi::syscall::{self, property};
use alloc::format;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::capability::{Address, Kind, OWN_DISPATCHER, OWN_SPACE};
use rt::dispatcher::{self, Life, Property};
use rt::memory::{self, Result};
use rt::system_call::{self, Error, LogWriter};
use rt::{clock, lrpc};

/// Calls between two changes.
const CALLS: u64 = 4;
/// How long a wait lasts that has an end.
const LONG_NS: u64 = 100_000_000_000;
/// What the client that waits got.
static ANSWER: AtomicU64 = AtomicU64::new(0);

/// Answers calls with how many there were, by one call of the CPU driver or by two with a
/// deadline, which it does by its fast or by its slow path.
fn serve(endpoint: u64, slow: bool) -> ! {
    let endpoint = Address(endpoint);
    let mut count = 0;
    let mut call = lrpc::receive(endpoint, None);
    loop {
        count += u64::from(call.is_ok());
        let words = [count, 1, 2, 3, 4];
        call = if slow {
            let deadline = clock::now_ns() + LONG_NS;
            lrpc::reply(words).and_then(|()| lrpc::receive(endpoint, Some(deadline)))
        } else {
            lrpc::reply_receive(endpoint, words)
        };
    }
}

extern "C" fn serve_fast(endpoint: u64) -> ! {
    serve(endpoint, false)
}

extern "C" fn serve_slowly(endpoint: u64) -> ! {
    serve(endpoint, true)
}

extern "C" fn call_once(endpoint: u64) -> ! {
    let words = lrpc::call(Address(endpoint), [7; 5]);
    ANSWER.store(words.map_or(0, |words| words[0]), Ordering::Relaxed);
    loop {
        system_call::wait(None);
    }
}

/// Gives a dispatcher the address space that it has already.
fn renew(test: &mut Test, it: Address) {
    // SAFETY: what it executes does not change by that.
    let set = unsafe { dispatcher::set_space(it, OWN_SPACE) };
    test.expect("the address space again", &set, &Ok(()));
    test.expect("its life", &dispatcher::state(it), &Ok(Life::Alive));
}

/// Whoever gets its address space again goes on with what it did.
pub fn space(test: &mut Test) -> Result {
    for (way, code) in [
        ("fast", serve_fast as extern "C" fn(u64) -> !),
        ("slow", serve_slowly),
    ] {
        let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES)?;
        let server = thread(code, endpoint.0, NORMAL)?;
        dispatcher::start(server)?;
        for count in 1..=3 * CALLS {
            let answer = lrpc::call(endpoint, [0; 5]);
            let what = format!("call {count} of a server ({way})");
            test.expect(&what, &answer, &Ok([count, 1, 2, 3, 4]));
            if count % CALLS == 0 {
                renew(test, server);
            }
        }
        // The other way round, it does not run by getting one.
        dispatcher::stop(server)?;
        // SAFETY: as in `renew`.
        unsafe { dispatcher::set_space(server, OWN_SPACE)? };
        let state = dispatcher::state(server);
        test.expect("a server that is stopped", &state, &Ok(Life::Stopped));
        dispatcher::start(server)?;
        let answer = lrpc::call(endpoint, [0; 5]).map(|words| words[0]);
        test.expect("a call after that", &answer, &Ok(3 * CALLS + 1));
        memory::free(server)?;
        memory::free(endpoint)?;
    }

    let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES)?;
    let client = thread(call_once, endpoint.0, NORMAL)?;
    dispatcher::start(client)?;
    let mut call = lrpc::receive(endpoint, None);
    while call == Err(Error::Interrupted) {
        call = lrpc::receive(endpoint, None);
    }
    test.expect("a call", &call, &Ok((0, [7; 5])));
    renew(test, client);
    test.expect("the answer to it", &lrpc::reply([9; 5]), &Ok(()));
    let deadline = clock::now_ns() + LONG_NS;
    while ANSWER.load(Ordering::Relaxed) == 0 && clock::now_ns() < deadline {
        system_call::yield_now();
    }
    let answer = ANSWER.load(Ordering::Relaxed);
    test.expect("what the client got", &answer, &9);
    memory::free(client)?;
    memory::free(endpoint)
}

/// A name with control characters, or without any that are text, and a line in the log by it.
pub fn name(test: &mut Test) -> Result {
    let names: [[u8; 16]; 5] = [
        *b"x\nforged: a line",
        *b"\x1b[2J\r\x08\x07\x7f\x01\x02\x03\x04\x05\x06\x0e\x0f",
        [0xff; 16],
        [b'\n'; 16],
        [0; 16],
    ];
    for name in names {
        let words = [&name[..8], &name[8..]].map(|half| {
            let bytes = half.iter().rev();
            bytes.fold(0, |word, byte| word << 8 | u64::from(*byte))
        });
        let [low, high] = words;
        let arguments = [OWN_DISPATCHER.0, property::NAME, low, high, 0, 0];
        // SAFETY: a name has no effect on memory of this program.
        let named = unsafe { system_call::call(syscall::CONFIGURE, arguments) }.map(|_| ());
        test.expect("a name of anything", &named, &Ok(()));
        let wrote = writeln!(LogWriter, "a line of the attack by name");
        test.expect("a line of it", &wrote, &Ok(()));
    }
    let named = dispatcher::configure(OWN_DISPATCHER, Property::Name("attack-test"));
    test.expect("a proper name", &named, &Ok(()));
    Ok(())
}
