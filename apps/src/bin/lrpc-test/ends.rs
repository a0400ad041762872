//! Clients, servers and endpoints that end or are stopped.

use crate::puppet::*;
use crate::stage::*;
use crate::step::*;
use abi::syscall;
use rt::capability::{self, OWN_DISPATCHER, Rights};
use rt::system_call::Error;
use rt::{clock, memory};

/// Servers and endpoints that go.
pub fn gone(stage: &mut Stage) -> Attempt {
    let peer_gone = refused(Error::PeerGone);
    // With a client that was called and one that queues.
    for is_killed in [false, true] {
        let [server, called, queued, heir] = stage.puppets([2, 2, 1, 1])?;
        let endpoint = stage.link(E, server, &[called, queued])?;
        stage.hand(heir, endpoint, E, Rights::READ, 0)?;
        stage.begin(server, &[receive(E)])?;
        for client in [called, queued] {
            stage.begin(client, &[call(E, sample(1))])?;
            stage.found("a client", client, &[BLOCKED]);
        }
        stage.found("a server", server, &[came(1, sample(1))]);
        if is_killed {
            stage.kill(server)?;
        } else {
            stage.begin(server, &[exit(7)])?;
            stage.ended("status of a server", server, 7);
        }
        for client in [called, queued] {
            stage.found("a client of a server that ended", client, &[peer_gone]);
            stage.script("a call of nobody", client, &[(call(E, [0; 5]), peer_gone)])?;
        }
        // Until somebody else is there, even if only for a moment.
        let waited = refused(Error::TimedOut);
        stage.script("an heir", heir, &[(receive_until(E, OVER), waited)])?;
        stage.begin(queued, &[call(E, sample(2))])?;
        stage.begin(heir, &[receive(E), reply(sample(3))])?;
        stage.found(
            "an heir that serves",
            heir,
            &[came(2, sample(2)), DONE_WELL],
        );
        stage.found("a client of an heir", queued, &[answered(sample(3))]);
        // And one that waits for calls.
        stage.begin(heir, &[receive(E)])?;
        stage.kill(heir)?;
        stage.script("a call of nobody", called, &[(call(E, [0; 5]), peer_gone)])?;
        stage.clear()?;
    }

    // The endpoint goes: first all capabilities to it but the director's, then itself.
    let [server, called, queued, waiting] = stage.puppets([2, 2, 2, 2])?;
    stage.link(E, server, &[called, queued])?;
    let other = stage.link(E2, waiting, &[called])?;
    let empty = refused(Error::EmptySlot);
    stage.begin(waiting, &[receive(E2)])?;
    stage.begin(server, &[receive(E)])?;
    for client in [called, queued] {
        stage.begin(client, &[call(E, sample(4))])?;
    }
    at(
        "revoke of an endpoint",
        capability::revoke(stage.endpoints[0]),
    )?;
    at("revoke of an endpoint", capability::revoke(other))?;
    for client in [called, queued, waiting] {
        stage.found("who waits meanwhile", client, &[BLOCKED]);
    }
    stage.script(
        "a receive without a capability",
        server,
        &[(receive(E), empty)],
    )?;
    for endpoint in core::mem::take(&mut stage.endpoints) {
        at("free of an endpoint", memory::free(endpoint))?;
    }
    stage.found("who waited for calls", waiting, &[peer_gone]);
    stage.found("who queued", queued, &[peer_gone]);
    stage.found("who was served", called, &[BLOCKED]);
    stage.script("who served", server, &[(reply(sample(5)), DONE_WELL)])?;
    stage.found("who was served", called, &[answered(sample(5))]);
    stage.script(
        "a call without a capability",
        called,
        &[(call(E, [0; 5]), empty)],
    )
}

/// Clients that are killed.
pub fn killed(stage: &mut Stage) -> Attempt {
    let [server, called, queued, next] = stage.puppets([2, 2, 3, 1])?;
    stage.link(E, server, &[called, queued, next])?;
    let no_caller = refused(Error::NoCaller);
    stage.begin(server, &[receive(E)])?;
    for client in [called, queued, next] {
        stage.begin(client, &[call(E, sample(6))])?;
    }
    stage.found("a server", server, &[came(1, sample(6))]);
    stage.kill(called)?;
    stage.kill(queued)?;
    stage.script(
        "answers to nobody",
        server,
        &[
            (reply(sample(7)), no_caller),
            (reply_receive(E, sample(7)), no_caller),
            (receive(E), came(3, sample(6))),
            (reply_receive(E, sample(8)), BLOCKED),
        ],
    )?;
    stage.found("the next client", next, &[answered(sample(8))]);
    stage.begin(next, &[call(E, sample(9))])?;
    let heard = stage.result(server, 3);
    stage.expect("and its next call", &heard, &came(3, sample(9)));
    Ok(())
}

/// Clients and servers that are stopped at each point.
pub fn stopped(stage: &mut Stage) -> Attempt {
    let [server, client, other] = stage.puppets([2, 2, 3])?;
    stage.link(E, server, &[client, other])?;
    // A client that queues; its call is taken and answered meanwhile.
    stage.begin(client, &[call(E, sample(1))])?;
    stage.stop(client)?;
    let serves = [
        (receive(E), came(1, sample(1))),
        (reply(sample(2)), DONE_WELL),
    ];
    stage.script("the call of one that was stopped", server, &serves)?;
    stage.found("a client that was stopped", client, &[BLOCKED]);
    stage.start(client)?;
    stage.found("a client that was started", client, &[answered(sample(2))]);
    // One that was called.
    stage.begin(server, &[receive(E)])?;
    stage.begin(client, &[call(E, sample(3))])?;
    stage.stop(client)?;
    stage.begin(server, &[reply_receive(E, sample(4))])?;
    stage.found("a server that waits again", server, &[BLOCKED]);
    stage.found("a client that was stopped", client, &[BLOCKED]);
    stage.start(client)?;
    stage.found("a client that was started", client, &[answered(sample(4))]);
    // A server that waits for calls.
    stage.stop(server)?;
    for (who, number) in [(client, 5), (other, 6)] {
        stage.begin(who, &[call(E, sample(number))])?;
        stage.found("a client of one that was stopped", who, &[BLOCKED]);
    }
    stage.found("a server that was stopped", server, &[BLOCKED]);
    stage.start(server)?;
    stage.found("a server that was started", server, &[came(2, sample(6))]);
    stage.begin(server, &[reply_receive(E, sample(7))])?;
    stage.found("its next call", server, &[came(1, sample(5))]);
    stage.found("its first client", other, &[answered(sample(7))]);
    // One that serves.
    stage.stop(server)?;
    stage.begin(server, &[reply(sample(8))])?;
    stage.found("a client of one that was stopped", client, &[BLOCKED]);
    stage.start(server)?;
    stage.found(
        "a client of one that was started",
        client,
        &[answered(sample(8))],
    );
    // One whose deadline comes meanwhile.
    let mut ahead = PAUSE_NS;
    loop {
        ahead *= 2;
        stage.begin(server, &[receive_until(E, clock::now_ns() + ahead)])?;
        stage.stop(server)?;
        if stage.result(server, 0).is_none() || ahead > PATIENCE_NS {
            break;
        }
        // It was there before the stop.
        stage.start(server)?;
    }
    clock::sleep_ns(2 * ahead);
    stage.begin(other, &[call(E, sample(9))])?;
    stage.found("a server that was stopped", server, &[BLOCKED]);
    stage.start(server)?;
    stage.found(
        "a server that was started",
        server,
        &[refused(Error::TimedOut)],
    );
    let serves = [
        (receive(E), came(2, sample(9))),
        (reply(sample(10)), DONE_WELL),
    ];
    stage.script("what it missed", server, &serves)?;
    stage.found("a client that waited", other, &[answered(sample(10))]);
    // One whose bell rings meanwhile.
    stage.begin(server, &[receive(E)])?;
    stage.stop(server)?;
    stage.ring(server)?;
    stage.found("a server that was stopped", server, &[BLOCKED]);
    stage.start(server)?;
    stage.found(
        "a server that was started",
        server,
        &[refused(Error::Interrupted)],
    );
    // Itself; and who is stopped twice, needs one start.
    stage.begin(client, &[one(syscall::STOP, OWN_DISPATCHER.0), LOOK])?;
    stage.found("one that stopped itself", client, &[BLOCKED]);
    for _ in 0..2 {
        stage.stop(client)?;
    }
    stage.start(client)?;
    stage.found("one that stopped itself", client, &[DONE_WELL, DONE_WELL]);
    stage.start(client)?;
    stage.script("and goes on", client, &[(LOOK, DONE_WELL)])
}
