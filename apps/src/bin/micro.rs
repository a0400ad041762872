//! Measures the single operations of CPU driver, runtime and monitor: `micro [--quick] [--only lrpc]`.
//!
//! All of it takes place on the core that the program runs on; the other cores sleep. Where a
//! second domain is needed, it is a copy of the program. Each operation is done many times,
//! the first ones for warming up; the time of each is taken by itself, and what reading the
//! clock costs is taken off.
//!
//! Under `icount` figures are instructions that the guest executed, elsewhere cycles of the
//! time-stamp counter. Plain `tcg` has neither, so there everything is done and nothing told.
//!
//! | operation                       | from … to                                                 |
//! |---------------------------------|-----------------------------------------------------------|
//! | null system call                | before and after                                          |
//! | LRPC one way                    | before the call to the first instruction of the server    |
//! | LRPC round trip                 | before and after the call; the server does nothing        |
//! | context switch between domains  | half of a yield to a domain that yields back              |
//! | map, unmap, map+touch+unmap     | a 4 KiB page in the own address space, page table present |
//! | retype                          | a zeroed 4 KiB frame out of RAM                           |
//! | copy, delete, copy+delete       | a second capability to a frame                            |
//! | revoke of 1, of 1,000           | RAM of which endpoints were made                          |
//! | allocate, free a 4 KiB frame    | `rt::memory`: slot, range, retype; identify, revoke, …    |
//! | typed message over urpc         | 56 bytes sent and received in the same address space      |
//! | spawn+exit                      | asking for the domain to having its exit status           |
//! | timer to user code              | the deadline of a wait to the first instruction after     |
#![no_std]
#![no_main]

extern crate alloc;

use abi::layout::PAGE;
use apps::arguments::explain;
use apps::laboratory::{Failure, Laboratory, at, timed, told};
use apps::pattern;
use core::sync::atomic::Ordering;
use rt::capability::{self, Address, ENDPOINT_BYTES, GIFT, Kind, OWN_SPACE, Retype, slots};
use rt::clock::{self, Cycles};
use rt::monitor::{self, Domain, Spawn};
use rt::space::{self, Mapping, PageSize};
use rt::system_call::{self, Error};
use rt::{lrpc, memory};
use urpc::{Side, frame_bytes};

rt::entry!(main);

const USAGE: &str = "micro [--quick] [--only lrpc]";
/// The part of it that may be measured alone.
const LRPC: &str = "lrpc";
/// The words by which a copy of the program knows what it is.
const SERVER: &str = "server";
const YIELDER: &str = "yielder";

/// Descendants of the long revoke.
const MANY: u64 = 1000;
/// Most objects of one retype.
const AT_ONCE: u64 = 256;
/// Slots of the channel that is measured, in each direction.
const SLOTS: usize = 16;
/// How far ahead the deadline of a wait is: enough to fall asleep.
const WAIT_NS: u64 = 200_000;
/// Until a copy of the program must have come up.
const PATIENCE_NS: u64 = 10_000_000_000;

fn main() -> i32 {
    match rt::startup().arguments().nth(1) {
        Some(SERVER) => return serve(),
        Some(YIELDER) => return yield_back(),
        _ => {}
    }
    let (mut laboratory, only) = match Laboratory::of_program("micro", &[LRPC]) {
        Ok((laboratory, only, _)) => (laboratory, only),
        Err(misuse) => return explain(&misuse, USAGE),
    };
    let ended = match only {
        Some(_) => measure_calls(&mut laboratory),
        None => measure_all(&mut laboratory),
    };
    laboratory.close(ended)
}

/// What a call to a server on the same core consists of.
fn measure_calls(laboratory: &mut Laboratory) -> Result<(), Failure> {
    laboratory.measure("null system call", 1, || {
        let (time, ()) = timed(system_call::null);
        Ok(time)
    })?;
    measure_lrpc(laboratory)?;
    measure_switch(laboratory)
}

fn measure_all(laboratory: &mut Laboratory) -> Result<(), Failure> {
    measure_calls(laboratory)?;
    measure_mapping(laboratory)?;
    measure_capabilities(laboratory)?;
    measure_revoke(laboratory, "revoke of 1 descendant", 1, 1)?;
    measure_revoke(laboratory, "revoke of 1,000 descendants", MANY, 50)?;
    measure_memory(laboratory)?;
    measure_message(laboratory)?;
    measure_spawn(laboratory)?;
    measure_timer(laboratory)
}

/// Starts a copy of this program on this core that shares a new endpoint.
fn partner(role: &str) -> Result<(Address, Domain), Failure> {
    let endpoint = told(
        "an endpoint",
        memory::object(Kind::Endpoint, ENDPOINT_BYTES),
    )?;
    let name = rt::startup().arguments().next().unwrap_or("micro");
    let domain = Spawn::new(&[name, role]).gift(endpoint).start();
    Ok((endpoint, told("start of a copy", domain)?))
}

/// Ends such a copy.
fn part(endpoint: Address, domain: Domain) -> Result<(), Failure> {
    told("kill of a copy", monitor::kill(domain))?;
    told("wait for a copy", monitor::wait(domain))?;
    told("free of an endpoint", memory::free(endpoint))
}

/// A server that answers each call with the time at which it arrived.
fn serve() -> i32 {
    let mut call = lrpc::receive(GIFT, None);
    loop {
        let arrived = clock::cycles();
        call = match call {
            Ok(_) => lrpc::reply_receive(GIFT, [arrived.0, 0, 0, 0, 0]),
            Err(Error::Interrupted) => lrpc::receive(GIFT, None),
            Err(_) => return 1,
        };
    }
}

fn measure_lrpc(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let (endpoint, server) = partner(SERVER)?;
    // Until the server listens there is nobody to call.
    let patience = clock::now_ns() + PATIENCE_NS;
    while lrpc::call(endpoint, [0; 5]).is_err() && clock::now_ns() < patience {
        clock::sleep_ns(1_000_000);
    }
    laboratory.measure("LRPC one way", 1, || {
        let start = clock::cycles();
        let [arrived, ..] = at("LRPC", lrpc::call(endpoint, [0; 5]))?;
        Ok(Cycles(arrived.saturating_sub(start.0)))
    })?;
    // On the way, the server reads the clock once more.
    let overhead = laboratory.overhead();
    laboratory.measure("LRPC round trip", 1, || {
        let (time, answer) = timed(|| lrpc::call(endpoint, [0; 5]));
        at("LRPC", answer)?;
        Ok(Cycles(time.0.saturating_sub(overhead.0)))
    })?;
    part(endpoint, server)
}

/// Says that it is there, and then yields for ever.
fn yield_back() -> i32 {
    if lrpc::call(GIFT, [0; 5]).is_err() {
        return 1;
    }
    loop {
        system_call::yield_now();
    }
}

fn measure_switch(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let (endpoint, yielder) = partner(YIELDER)?;
    let patience = Some(clock::now_ns() + PATIENCE_NS);
    while let Err(error) = lrpc::receive(endpoint, patience) {
        if error != Error::Interrupted {
            return at("call of the domain that yields", Err(error));
        }
    }
    at("answer", lrpc::reply([0; 5]))?;
    // The clock is read once for two switches.
    let overhead = laboratory.overhead().0;
    laboratory.measure("context switch between domains", 1, || {
        let (time, ()) = timed(system_call::yield_now);
        Ok(Cycles(time.0.saturating_sub(overhead) / 2 + overhead))
    })?;
    part(endpoint, yielder)
}

fn measure_mapping(laboratory: &mut Laboratory) -> Result<(), Failure> {
    // A place of our own, with a page table; the page goes in and out.
    let place = told("a mapping", Mapping::zeroed(PAGE, PageSize::Small))?;
    let (frame, address) = (place.frame(), place.address());
    let unmap = || space::unmap_at(frame, address);
    let map = || {
        // SAFETY: the place and the frame are `place`'s, and nobody looks at its words but
        // while it is mapped.
        unsafe { space::map(OWN_SPACE, address, frame, 0, 1, space::rights::WRITE) }
    };
    at("unmap", unmap())?;
    laboratory.measure("map a 4 KiB page", 1, || {
        let (time, mapped) = timed(map);
        at("map", mapped)?;
        at("unmap", unmap())?;
        Ok(time)
    })?;
    laboratory.measure("unmap a 4 KiB page", 1, || {
        at("map", map())?;
        place.words()[0].store(1, Ordering::Relaxed);
        let (time, unmapped) = timed(unmap);
        at("unmap", unmapped)?;
        Ok(time)
    })?;
    laboratory.measure("map+touch+unmap", 1, || {
        let (time, done) = timed(|| {
            map().map_err(Error::from)?;
            place.words()[0].store(1, Ordering::Relaxed);
            unmap()
        });
        at("map or unmap", done)?;
        Ok(time)
    })?;
    at("map", map())
}

fn measure_capabilities(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let ram = told("RAM", memory::object(Kind::Ram, PAGE))?;
    let frame = at("a slot", slots::take())?;
    let other = at("a slot", slots::take())?;
    let what = Retype {
        kind: Kind::Frame,
        offset: 0,
        bytes: PAGE,
        count: 1,
    };
    laboratory.measure("retype", 1, || {
        let (time, made) = timed(|| capability::retype(ram, &what, frame));
        at("retype", made)?;
        at("delete of a frame", capability::delete(frame))?;
        Ok(time)
    })?;
    at("retype", capability::retype(ram, &what, frame))?;
    laboratory.measure("copy", 1, || {
        let (time, copied) = timed(|| capability::copy(frame, other));
        at("copy", copied)?;
        at("delete", capability::delete(other))?;
        Ok(time)
    })?;
    laboratory.measure("delete", 1, || {
        at("copy", capability::copy(frame, other))?;
        let (time, deleted) = timed(|| capability::delete(other));
        at("delete", deleted)?;
        Ok(time)
    })?;
    laboratory.measure("copy+delete", 1, || {
        let (time, done) = timed(|| {
            capability::copy(frame, other)?;
            capability::delete(other)
        });
        at("copy or delete", done)?;
        Ok(time)
    })?;
    at("delete of a frame", capability::delete(frame))?;
    slots::give(frame);
    slots::give(other);
    told("free of RAM", memory::free(ram))
}

fn measure_revoke(
    laboratory: &mut Laboratory,
    operation: &'static str,
    descendants: u64,
    slower_by: usize,
) -> Result<(), Failure> {
    let bytes = (descendants * ENDPOINT_BYTES).next_multiple_of(PAGE);
    let ram = told("RAM", memory::object(Kind::Ram, bytes))?;
    let row = at("slots", slots::take_row(descendants))?;
    laboratory.measure(operation, slower_by, || {
        for first in (0..descendants).step_by(AT_ONCE as usize) {
            let what = Retype {
                kind: Kind::Endpoint,
                offset: first * ENDPOINT_BYTES,
                bytes: ENDPOINT_BYTES,
                count: (descendants - first).min(AT_ONCE),
            };
            at("retype", capability::retype(ram, &what, row.plus(first)))?;
        }
        let (time, revoked) = timed(|| capability::revoke(ram));
        at("revoke", revoked)?;
        Ok(time)
    })?;
    for slot in 0..descendants {
        slots::give(row.plus(slot));
    }
    told("free of RAM", memory::free(ram))
}

fn measure_memory(laboratory: &mut Laboratory) -> Result<(), Failure> {
    laboratory.measure("allocate a 4 KiB frame", 1, || {
        let (time, frame) = timed(|| memory::frame(PAGE));
        told("free of a frame", memory::free(told("a frame", frame)?))?;
        Ok(time)
    })?;
    laboratory.measure("free a 4 KiB frame", 1, || {
        let frame = told("a frame", memory::frame(PAGE))?;
        let (time, freed) = timed(|| memory::free(frame));
        told("free of a frame", freed)?;
        Ok(time)
    })
}

fn measure_message(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let frame = told("a frame to share", monitor::frame(frame_bytes(SLOTS)))?;
    let mut sender = frame.channel(0, SLOTS, Side::A);
    let mut receiver = frame.channel(0, SLOTS, Side::B);
    let mut number = 0;
    laboratory.measure("typed message over urpc", 1, || {
        number += 1;
        let message = pattern::message(0, number);
        let (time, (sent, received)) = timed(|| (sender.send(&message), receiver.recv()));
        told("send", sent)?;
        if told("receive", received)? != message {
            return at("receive", Err("another message than was sent"));
        }
        Ok(time)
    })
}

fn measure_spawn(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let here = rt::startup().core as usize;
    laboratory.measure("spawn+exit", 20, || {
        let (time, status) =
            timed(|| monitor::spawn(here, &["exit", "0"], None).and_then(monitor::wait));
        match told("spawn", status)? {
            0 => Ok(time),
            status => at("spawn", Err(status)),
        }
    })
}

fn measure_timer(laboratory: &mut Laboratory) -> Result<(), Failure> {
    let start = rt::startup();
    let hz = u128::from(start.tsc_hz);
    laboratory.measure("timer to user code", 5, || {
        let deadline = clock::now_ns() + WAIT_NS;
        let due = (u128::from(deadline) * hz).div_ceil(1_000_000_000) as u64 + start.tsc_start;
        // A doorbell, say of the monitor, may come first.
        while system_call::wait(Some(deadline)) {}
        Ok(Cycles(clock::cycles().0.saturating_sub(due)))
    })
}
