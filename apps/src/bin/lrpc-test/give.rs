//! Capabilities that go along with calls and answers.

use crate::puppet::*;
use crate::stage::*;
use crate::step::*;
use abi::layout::PAGE;
use abi::syscall;
use rt::capability::{self, Address, Kind, Rights};
use rt::memory;
use rt::system_call::Error;

/// Capabilities that go along.
pub fn give(stage: &mut Stage) -> Attempt {
    let [server, client, other] = stage.puppets([2, 2, 1])?;
    let endpoint = stage.link(E, server, &[client, other])?;
    let frame = made("a frame", memory::frame(PAGE))?;
    let mut hold = Rights::READ | Rights::WRITE;
    for who in [server, client, other] {
        stage.hand(who, frame, GIVEN, hold, 0)?;
        hold = Rights::READ;
    }
    // What IDENTIFY says of it: kind and rights, base, bytes, badge, entries.
    let base = at("a frame", capability::identify(frame))?.base;
    let frame_with = |hold: Rights| {
        let what = Kind::Frame as u64 | u64::from(hold.bits()) << 8;
        came(what, [base, PAGE, 0, 0, 0])
    };
    let given_by_client = frame_with(Rights::READ);
    let given_by_server = frame_with(Rights::READ | Rights::WRITE);
    let nothing = refused(Error::EmptySlot);
    let no_slot = refused(Error::NoReceiveSlot);
    let words = [1, 2, 3, u64::MAX];
    // The fifth word is not the giver's.
    let hears = |stage: &mut Stage, what: &str, who: Who, step: usize, badge: u64| {
        let found = stage
            .result(who, step)
            .map(|answer| answer.map(|(first, [a, b, c, d, _])| (first, [a, b, c, d])));
        stage.expect(what, &found, &Some(Ok((badge, words))));
    };

    // The server waits, without a slot first, then with one that is taken, or is none.
    stage.begin(server, &[receive(E)])?;
    stage.script("no slot", client, &[(call_give(E, words), no_slot)])?;
    stage.found("a server that got no call", server, &[BLOCKED]);
    for slot in [GIVEN, Address::new(9, 9), Address(u64::MAX)] {
        stage.ring(server)?;
        stage.found("a bell", server, &[refused(Error::Interrupted)]);
        stage.begin(server, &[receive_slot(slot), receive(E)])?;
        stage.script("a bad slot", client, &[(call_give(E, words), no_slot)])?;
        stage.found("a server that got no call", server, &[DONE_WELL, BLOCKED]);
        // What is without a capability goes on.
        stage.begin(client, &[call(E, [5; 5])])?;
        stage.found("a server", server, &[DONE_WELL, came(1, [5; 5])]);
        stage.begin(server, &[reply_receive(E, [6; 5])])?;
        stage.found("a client", client, &[answered([6; 5])]);
    }
    stage.ring(server)?;
    // Now it has one: a capability comes before it calls, and after.
    for is_waiting in [true, false] {
        let serves = [receive_slot(TAKEN), receive(E), identify(TAKEN)];
        let calls = [call_give(E, words), identify(GIVEN)];
        if is_waiting {
            stage.begin(server, &serves)?;
            stage.begin(client, &calls)?;
        } else {
            stage.begin(client, &calls)?;
            stage.script(
                "before the call is taken",
                server,
                &[(identify(TAKEN), nothing)],
            )?;
            stage.begin(server, &serves)?;
        }
        hears(stage, "a call with a capability", server, 1, 1);
        let found = stage.result(server, 2);
        stage.expect("what the server got", &found, &given_by_client);
        stage.begin(server, &[reply([7; 5]), delete(TAKEN)])?;
        stage.found("a giver", client, &[answered([7; 5]), given_by_client]);
    }
    // One that cannot be given when its call is taken hears of it, and the next one is served.
    stage.begin(client, &[call_give(E, words)])?;
    stage.begin(other, &[call(E, [8; 5])])?;
    stage.script(
        "no slot when the call is taken",
        server,
        &[
            (receive_slot(Address(0)), DONE_WELL),
            (receive(E), came(2, [8; 5])),
            (reply([9; 5]), DONE_WELL),
            (receive_slot(TAKEN), DONE_WELL),
        ],
    )?;
    stage.found("a giver", client, &[no_slot]);
    stage.found("the next one", other, &[answered([9; 5])]);
    // Without the right to give, or something to give.
    stage.hand(client, endpoint, E2, Rights::WRITE, 0)?;
    stage.script(
        "no right to give",
        client,
        &[
            (call_give(E2, words), refused(Error::NotAllowed)),
            (give_of(E, TAKEN), nothing),
            (give_of(E, Address(0)), refused(Error::NoSuchSlot)),
        ],
    )?;

    // An answer may bring one too. Who takes none waits on.
    stage.begin(server, &[receive(E)])?;
    stage.begin(client, &[receive_slot(Address(0)), call(E, [1; 5])])?;
    stage.script(
        "an answer without a slot",
        server,
        &[
            (reply_give(words), no_slot),
            (give_of_answer(TAKEN), nothing),
            (reply([2; 5]), DONE_WELL),
            (reply_give(words), refused(Error::NoCaller)),
        ],
    )?;
    stage.found(
        "a client without a slot",
        client,
        &[DONE_WELL, answered([2; 5])],
    );
    stage.begin(client, &[receive_slot(GIVEN), call(E, [1; 5])])?;
    stage.script(
        "an answer to a full slot",
        server,
        &[
            (receive(E), came(1, [1; 5])),
            (reply_give(words), no_slot),
            (reply([2; 5]), DONE_WELL),
        ],
    )?;
    stage.begin(
        client,
        &[receive_slot(TAKEN), call(E, [3; 5]), identify(TAKEN)],
    )?;
    stage.script(
        "an answer with a capability",
        server,
        &[
            (receive(E), came(1, [3; 5])),
            (reply_give(words), DONE_WELL),
            (identify(GIVEN), given_by_server),
        ],
    )?;
    hears(stage, "an answer with a capability", client, 1, 0);
    let got = stage.result(client, 2);
    stage.expect("what the client got", &got, &given_by_server);

    // A session: an endpoint that comes with an answer, and is called.
    let session = stage.endpoint()?;
    stage.hand(server, session, E3, Rights::READ, 0)?;
    stage.hand(server, session, E2, Rights::WRITE, 42)?;
    stage.begin(
        client,
        &[delete(TAKEN), call(E, [4; 5]), call(TAKEN, [5; 5])],
    )?;
    stage.script(
        "a session",
        server,
        &[
            (receive(E), came(1, [4; 5])),
            (
                Step(syscall::REPLY_GIVE, [0, 1, 2, 3, u64::MAX, E2.0]),
                DONE_WELL,
            ),
            (receive(E3), came(42, [5; 5])),
            (reply([6; 5]), DONE_WELL),
        ],
    )?;
    let last = stage.result(client, 2);
    stage.expect("the call of a session", &last, &answered([6; 5]));

    // What is taken back before the call is taken, does not arrive.
    stage.begin(client, &[call_give(E, words)])?;
    at("revoke of a frame", capability::revoke(frame))?;
    stage.script(
        "a gift that is gone",
        server,
        &[
            (receive_until(E, OVER), refused(Error::TimedOut)),
            (identify(TAKEN), nothing),
        ],
    )?;
    stage.found("a giver", client, &[nothing]);
    at("free of a frame", memory::free(frame))
}
