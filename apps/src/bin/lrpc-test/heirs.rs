//! Endpoints that go over to others, and such whose memory goes.

use crate::puppet::*;
use crate::stage::*;
use crate::step::*;
use abi::layout::PAGE;
use abi::syscall;
use rt::capability::{self, ENDPOINT_BYTES, Kind, Retype, Rights, slots};
use rt::memory;
use rt::system_call::Error;

/// A server ends, and another one takes over its endpoints, one after the other.
pub fn heirs(stage: &mut Stage) -> Attempt {
    let peer_gone = refused(Error::PeerGone);
    let busy = refused(Error::Busy);
    let over = refused(Error::TimedOut);
    for is_killed in [false, true] {
        let [server, heir, called, queued] = stage.puppets([2, 2, 3, 1])?;
        let first = stage.link(E, server, &[called, queued])?;
        let second = stage.link(E2, server, &[called, queued])?;
        for (endpoint, slot) in [(first, E), (second, E2)] {
            stage.hand(heir, endpoint, slot, Rights::READ, 0)?;
        }
        // Both are its, even the one that it has no capability to any more.
        let serves = [receive_until(E2, OVER), delete(E2), receive(E)];
        stage.begin(server, &serves)?;
        stage.begin(called, &[call(E, sample(1))])?;
        stage.begin(queued, &[call(E2, sample(2))])?;
        let found = [over, DONE_WELL, came(1, sample(1))];
        stage.found("an owner", server, &found);
        let tries = [
            (receive_until(E, OVER), busy),
            (receive_until(E2, OVER), busy),
            (receive(E2), busy),
        ];
        stage.script("who is no heir yet", heir, &tries)?;
        let empty = refused(Error::EmptySlot);
        stage.script(
            "an owner without a capability",
            server,
            &[(receive(E2), empty)],
        )?;
        for client in [called, queued] {
            stage.found("a client of an owner", client, &[BLOCKED]);
        }
        if is_killed {
            stage.kill(server)?;
        } else {
            stage.begin(server, &[exit(3)])?;
            stage.ended("status of an owner", server, 3);
        }
        let nobody = [(call(E, [0; 5]), peer_gone), (call(E2, [0; 5]), peer_gone)];
        for client in [called, queued] {
            stage.found("a client of an owner that ended", client, &[peer_gone]);
            stage.script("endpoints of nobody", client, &nobody)?;
        }
        // One that comes later, and likely stands where the owner stood, is no heir by that.
        let late = stage.puppet(2)?;
        stage.hand(late, first, E, Rights::READ, 0)?;
        stage.script("endpoints of nobody", called, &nobody)?;
        // One endpoint, then both.
        stage.script("an heir", heir, &[(receive_until(E, OVER), over)])?;
        stage.script("the other endpoint", called, &nobody[1..])?;
        stage.begin(called, &[call(E, sample(3))])?;
        let serves = [receive_until(E2, OVER), receive(E)];
        stage.begin(heir, &serves)?;
        stage.found("an heir", heir, &[over, came(1, sample(3))]);
        stage.begin(heir, &[reply_receive(E, sample(4))])?;
        stage.found("a client of an heir", called, &[answered(sample(4))]);
        for number in 5..8 {
            stage.begin(called, &[call(E, sample(number))])?;
            stage.found("the next call", heir, &[came(1, sample(number))]);
            stage.begin(heir, &[reply_receive(E, sample(number + 10))])?;
            let answer = answered(sample(number + 10));
            stage.found("a client of an heir", called, &[answer]);
        }
        stage.script("one that came later", late, &[(receive(E), busy)])?;
        stage.begin(queued, &[call(E2, sample(8))])?;
        stage.found("a client at the other endpoint", queued, &[BLOCKED]);
        stage.ring(heir)?;
        let serves = [
            (receive(E2), came(2, sample(8))),
            (reply(sample(9)), DONE_WELL),
        ];
        stage.script("the other endpoint", heir, &serves)?;
        stage.found("its client", queued, &[answered(sample(9))]);
        // And on, while it waits.
        stage.begin(heir, &[receive(E2)])?;
        stage.kill(heir)?;
        stage.script("endpoints of nobody", called, &nobody)?;
        stage.script("the next heir", late, &[(receive_until(E, OVER), over)])?;
        stage.begin(called, &[call(E, sample(10))])?;
        let serves = [
            (receive(E), came(1, sample(10))),
            (reply_receive(E, sample(11)), BLOCKED),
        ];
        stage.script("the next heir", late, &serves)?;
        stage.found("its client", called, &[answered(sample(11))]);
        stage.script("the other endpoint", called, &nobody[1..])?;
        stage.clear()?;
    }
    elsewhere(stage)
}

/// Who answers, may go on at another endpoint: one that is somebody else's, or nobody's yet.
fn elsewhere(stage: &mut Stage) -> Attempt {
    let [server, client, other] = stage.puppets([2, 3, 1])?;
    let home = stage.link(E, server, &[client, other])?;
    let foreign = stage.link(E2, other, &[client])?;
    stage.hand(server, foreign, E2, Rights::READ, 0)?;
    stage.hand(other, home, E3, Rights::READ, 0)?;
    let waited = refused(Error::TimedOut);
    stage.script("an owner", other, &[(receive_until(E2, OVER), waited)])?;
    // Somebody else's.
    stage.begin(server, &[receive(E)])?;
    stage.begin(client, &[call(E, sample(1))])?;
    let busy = refused(Error::Busy);
    let serves = [(reply_receive(E2, sample(2)), busy)];
    stage.script("an answer and a foreign endpoint", server, &serves)?;
    stage.found("its client", client, &[answered(sample(2))]);
    // Nobody's yet: from now on it is the server's, and it goes with it.
    let free = stage.endpoint()?;
    stage.hand(server, free, E3, Rights::READ, 0)?;
    stage.hand(client, free, E3, Rights::WRITE, 5)?;
    stage.begin(server, &[receive(E)])?;
    stage.begin(client, &[call(E, sample(3))])?;
    stage.begin(server, &[reply_receive(E3, sample(4))])?;
    stage.found(
        "a client of one that goes on",
        client,
        &[answered(sample(4))],
    );
    stage.begin(client, &[call(E3, sample(5))])?;
    stage.found("one that went on", server, &[came(5, sample(5))]);
    stage.begin(server, &[reply_receive(E3, sample(6))])?;
    stage.found("a client elsewhere", client, &[answered(sample(6))]);
    stage.begin(other, &[receive(E3)])?;
    stage.found("who would receive at its first one", other, &[busy]);
    stage.kill(server)?;
    let gone = refused(Error::PeerGone);
    let nobody = [(call(E, [0; 5]), gone), (call(E3, [0; 5]), gone)];
    stage.script("endpoints of one that ended", client, &nobody)?;
    stage.clear()
}

/// A third domain takes back the memory that endpoints are made of, and makes others there.
pub fn evicted(stage: &mut Stage) -> Attempt {
    let peer_gone = refused(Error::PeerGone);
    let empty = refused(Error::EmptySlot);
    for is_stopped in [false, true] {
        let all = stage.puppets([1, 2, 2, 3, 2, 2])?;
        let [landlord, server, called, queued, other, waiting] = all;
        // What the landlord has is less than all of it, or the director's would go too.
        let ram = made("RAM", memory::object(Kind::Ram, PAGE))?;
        let row = at("slots", slots::take_row(4))?;
        let plot = Retype {
            kind: Kind::Ram,
            offset: 0,
            bytes: PAGE,
            count: 1,
        };
        at("a plot", capability::retype(ram, &plot, row))?;
        let home = Retype {
            kind: Kind::Endpoint,
            offset: 0,
            bytes: ENDPOINT_BYTES,
            count: 3,
        };
        at("endpoints", capability::retype(row, &home, row.plus(1)))?;
        stage.hand(landlord, row, GIVEN, Rights::all(), 0)?;
        let owners = [server, server, waiting];
        for ((endpoint, slot), owner) in (1..).zip([E, E2, E3]).zip(owners) {
            for who in all {
                let mut hold = Rights::WRITE;
                hold.set(Rights::READ, who == owner);
                stage.hand(who, row.plus(endpoint), slot, hold, who as u64 + 1)?;
            }
        }
        stage.begin(waiting, &[receive(E3)])?;
        stage.begin(server, &[receive_until(E2, OVER), receive(E)])?;
        stage.begin(called, &[call(E, sample(1))])?;
        stage.begin(queued, &[call(E, sample(2))])?;
        stage.begin(other, &[call(E2, sample(3))])?;
        if is_stopped {
            stage.stop(waiting)?;
            stage.stop(queued)?;
        }
        stage.script("a landlord", landlord, &[(revoke(GIVEN), DONE_WELL)])?;
        for slot in 0..4 {
            let gone = capability::identify(row.plus(slot)).map(|_| ());
            stage.expect("what is made of it", &gone, &Err(Error::EmptySlot));
            slots::give(row.plus(slot));
        }
        if is_stopped {
            for who in [waiting, queued] {
                stage.found("who was stopped", who, &[BLOCKED]);
                stage.start(who)?;
            }
        }
        stage.found("who is served", called, &[BLOCKED]);
        stage.found("who queued", queued, &[peer_gone]);
        stage.found("who queued elsewhere", other, &[peer_gone]);
        stage.found("who waited for calls", waiting, &[peer_gone]);
        for who in [queued, other, waiting] {
            let calls = [E, E2, E3].map(|slot| (call(slot, [0; 5]), empty));
            stage.script("calls of what is gone", who, &calls)?;
        }
        let serves = [
            (receive(E), empty),
            // Who answers, has answered.
            (reply_receive(E, sample(4)), empty),
            (reply(sample(5)), refused(Error::NoCaller)),
        ];
        stage.script("who served", server, &serves)?;
        stage.found("who is served", called, &[answered(sample(4))]);
        // Another endpoint where the first was: nothing about it is the old one's.
        let kind = Kind::Endpoint as u64 | 1 << 8;
        let arguments = [GIVEN.0, TAKEN.0, kind, 0, ENDPOINT_BYTES, 0];
        let makes = Step(syscall::RETYPE, arguments);
        stage.script("a landlord", landlord, &[(makes, DONE_WELL)])?;
        let root = stage.puppets[landlord].slots.plus(1);
        let made_anew = at("a slot", slots::take())?;
        let copied = capability::copy_from(root, TAKEN, made_anew);
        at("another endpoint", copied)?;
        stage.hand(waiting, made_anew, E, Rights::READ, 0)?;
        stage.hand(called, made_anew, E, Rights::WRITE, 9)?;
        stage.begin(called, &[call(E, sample(6))])?;
        stage.kill(server)?;
        stage.found("a client of nobody yet", called, &[BLOCKED]);
        let serves = [
            (receive(E), came(9, sample(6))),
            (reply_receive(E, sample(7)), BLOCKED),
        ];
        stage.script("who lives there now", waiting, &serves)?;
        stage.found("its client", called, &[answered(sample(7))]);
        stage.clear()?;
        at("delete of an endpoint", capability::delete(made_anew))?;
        slots::give(made_anew);
        at("free of RAM", memory::free(ram))?;
    }
    Ok(())
}
