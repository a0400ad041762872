//! Calls in circles, and every other error.

use crate::puppet::*;
use crate::stage::*;
use crate::step::*;
use abi::limits::MAX_ENDPOINTS;
use alloc::format;
use alloc::vec::Vec;
use rt::capability::{
    Address, FIRST_CNODE_SLOTS, FIRST_FREE_SLOT, OWN_DOORBELL, OWN_SPACE, Rights,
};
use rt::system_call::Error;
use rt::{clock, memory};

/// Calls in circles.
pub fn deadlock(stage: &mut Stage) -> Attempt {
    let all = stage.puppets([2, 2, 2])?;
    let [a, b, c] = all;
    // Each receives at its own endpoint, and may call all.
    for (owner, slot) in all.into_iter().zip([E, E2, E3]) {
        let endpoint = stage.endpoint()?;
        for (who, badge) in all.into_iter().zip(1..) {
            let mut hold = Rights::WRITE;
            hold.set(Rights::READ, who == owner);
            stage.hand(who, endpoint, slot, hold, badge)?;
        }
        let waits = (receive_until(slot, OVER), refused(Error::TimedOut));
        stage.script("an owner", owner, &[waits])?;
    }
    let never = refused(Error::Deadlock);
    stage.script("itself", a, &[(call(E, [0; 5]), never)])?;
    // Each other: whoever is called may not call back.
    stage.begin(b, &[receive(E2)])?;
    stage.begin(a, &[call(E2, sample(1))])?;
    stage.found("the second of two", b, &[came(1, sample(1))]);
    stage.script(
        "the second of two",
        b,
        &[(call(E, [0; 5]), never), (reply(sample(2)), DONE_WELL)],
    )?;
    stage.found("the first of two", a, &[answered(sample(2))]);
    // Also not where the first still queues.
    stage.begin(a, &[call(E2, sample(3))])?;
    stage.script(
        "the second of two",
        b,
        &[
            (call(E, [0; 5]), never),
            (receive(E2), came(1, sample(3))),
            (reply(sample(4)), DONE_WELL),
        ],
    )?;
    stage.found("the first of two", a, &[answered(sample(4))]);
    // By way of a third, which is a chain and no circle.
    for is_waiting in [true, false] {
        stage.begin(b, &[receive(E2), call(E3, sample(6)), reply(sample(8))])?;
        if is_waiting {
            stage.begin(c, &[receive(E3)])?;
        }
        stage.begin(a, &[call(E2, sample(5))])?;
        if !is_waiting {
            stage.script(
                "the third",
                c,
                &[
                    (call(E, [0; 5]), never),
                    (call(E2, [0; 5]), never),
                    (receive(E3), came(2, sample(6))),
                ],
            )?;
        }
        stage.found("the second", b, &[came(1, sample(5)), BLOCKED]);
        stage.script(
            "the third",
            c,
            &[
                (call(E, [0; 5]), never),
                (call(E2, [0; 5]), never),
                (call(E3, [0; 5]), never),
                (reply(sample(7)), DONE_WELL),
            ],
        )?;
        let all = [came(1, sample(5)), answered(sample(7)), DONE_WELL];
        stage.found("the second", b, &all);
        stage.found("the first", a, &[answered(sample(8))]);
    }
    Ok(())
}

/// Every other error.
pub fn misuse(stage: &mut Stage) -> Attempt {
    let [server, client] = stage.puppets([2, 2])?;
    let endpoint = stage.link(E, server, &[client])?;
    let not_allowed = refused(Error::NotAllowed);
    stage.hand(client, endpoint, E2, Rights::empty(), 0)?;
    stage.hand(client, endpoint, E3, Rights::READ, 0)?;
    stage.script(
        "no right to call",
        server,
        &[(call(E, [0; 5]), not_allowed)],
    )?;
    stage.script(
        "no right to receive",
        client,
        &[
            (receive(E), not_allowed),
            (receive(E2), not_allowed),
            (call(E2, [0; 5]), not_allowed),
        ],
    )?;
    // Slots that are none, are empty, or hold something else.
    let slots = FIRST_CNODE_SLOTS;
    for (slot, error) in [
        (Address(0), Error::NoSuchSlot),
        (Address::new(0, 1), Error::NoSuchSlot),
        (Address::new(2, 0), Error::NoSuchSlot),
        (Address::new(2, slots), Error::NoSuchSlot),
        (Address::new(slots, 1), Error::NoSuchSlot),
        (Address::new(slots - 1, 1), Error::NoSuchSlot),
        (Address(u64::MAX), Error::NoSuchSlot),
        (TAKEN, Error::EmptySlot),
        (OWN_SPACE, Error::WrongKind),
        (BELL, Error::EmptySlot),
    ] {
        let error = refused(error);
        let what = format!("no endpoint, {slot:x?}");
        let steps = [
            (call(slot, [0; 5]), error),
            (receive(slot), error),
            // Who answers, has answered.
            (receive(E), came(1, sample(1))),
            (reply_receive(slot, sample(2)), error),
        ];
        stage.begin(client, &[call(E, sample(1))])?;
        stage.script(&what, server, &steps)?;
        stage.found(&what, client, &[answered(sample(2))]);
    }
    // Answers to nobody; two calls at once; two that receive.
    let no_caller = refused(Error::NoCaller);
    stage.script(
        "no caller",
        server,
        &[
            (reply([0; 5]), no_caller),
            (reply_give([0; 4]), no_caller),
            (reply_receive(E, [0; 5]), no_caller),
        ],
    )?;
    stage.script(
        "two that receive",
        client,
        &[
            (receive(E3), refused(Error::Busy)),
            (receive_until(E3, OVER), refused(Error::Busy)),
        ],
    )?;
    stage.begin(client, &[call(E, sample(3))])?;
    stage.script(
        "two calls at once",
        server,
        &[
            (receive(E), came(1, sample(3))),
            (receive(E), refused(Error::MustReply)),
            (receive_until(E, OVER), refused(Error::MustReply)),
            (reply(sample(4)), DONE_WELL),
            (ring(OWN_DOORBELL), DONE_WELL),
            (receive(E), refused(Error::Interrupted)),
            (receive_until(E, OVER), refused(Error::TimedOut)),
        ],
    )?;
    stage.found("its client", client, &[answered(sample(4))]);
    // A deadline that is not over yet, and one that a call comes before.
    let deadline = clock::now_ns() + 2 * PAUSE_NS;
    stage.begin(server, &[receive_until(E, deadline)])?;
    stage.finish("a deadline", server)?;
    let is_over = clock::now_ns() >= deadline;
    stage.expect("the time of a deadline", &is_over, &true);
    stage.found("a deadline", server, &[refused(Error::TimedOut)]);
    let deadline = clock::now_ns() + PATIENCE_NS;
    stage.begin(server, &[receive_until(E, deadline), receive(E)])?;
    stage.begin(client, &[call(E, sample(5))])?;
    let must_reply = refused(Error::MustReply);
    stage.found(
        "a call before it",
        server,
        &[came(1, sample(5)), must_reply],
    );
    stage.script("its answer", server, &[(reply(sample(6)), DONE_WELL)])?;
    too_many_endpoints(stage)
}

/// One that receives on as many endpoints as it can.
pub fn too_many_endpoints(stage: &mut Stage) -> Attempt {
    stage.clear()?;
    let [server, client] = stage.puppets([2, 2])?;
    let slot = |index: usize| Address::new(2, FIRST_FREE_SLOT + index as u64);
    for index in 0..=MAX_ENDPOINTS {
        let endpoint = stage.endpoint()?;
        stage.hand(server, endpoint, slot(index), Rights::READ, 0)?;
        if index == 0 {
            stage.hand(client, endpoint, E, Rights::WRITE, 7)?;
        }
    }
    let over = (Error::TimedOut, Error::TooMany);
    let all: Vec<_> = (0..=MAX_ENDPOINTS)
        .map(|index| {
            let error = if index < MAX_ENDPOINTS {
                over.0
            } else {
                over.1
            };
            (receive_until(slot(index), OVER), refused(error))
        })
        .collect();
    for some in all.chunks(MAX_STEPS) {
        stage.script("many endpoints", server, some)?;
    }
    // All of them work, and with one less there is room.
    stage.begin(client, &[call(E, sample(1))])?;
    stage.script(
        "the first of many",
        server,
        &[
            (receive(slot(0)), came(7, sample(1))),
            (reply(sample(2)), DONE_WELL),
        ],
    )?;
    stage.found("a client of many", client, &[answered(sample(2))]);
    let gone = stage.endpoints.swap_remove(1);
    at("free of an endpoint", memory::free(gone))?;
    let last = receive_until(slot(MAX_ENDPOINTS), OVER);
    stage.script("one less", server, &[(last, refused(over.0))])
}
