//! Words, badges, queues, and contents of frames.

use crate::LOWEST;
use crate::puppet::*;
use crate::stage::*;
use crate::step::*;
use alloc::format;
use alloc::vec::Vec;
use rt::capability::{OWN_DOORBELL, Rights};
use rt::dispatcher::{self, Property};
use rt::memory;
use rt::system_call::Error;

/// How a call can find client and server.
pub struct Way {
    name: &'static str,
    /// Before and after the server receives and the client calls.
    server: Option<[Step; 2]>,
    client: Option<[Step; 2]>,
    /// When the server stops waiting; 0: never.
    deadline: u64,
    calls_first: bool,
    /// A bell rings before the answer.
    bell: bool,
    /// Another client calls meanwhile.
    queued: bool,
}

pub const PLAIN: Way = Way {
    name: "plain",
    server: None,
    client: None,
    deadline: 0,
    calls_first: false,
    bell: false,
    queued: false,
};

pub const COMPUTES: Option<[Step; 2]> = Some([float(77), check_float(77)]);
pub const COMPUTES_TOO: Option<[Step; 2]> = Some([float(55), check_float(55)]);

/// Those who compute come last: once they have, the fast paths are not for them any more.
#[rustfmt::skip]
pub const WAYS: [Way; 9] = [
    PLAIN,
    Way { name: "deadline", deadline: FAR, ..PLAIN },
    Way { name: "client first", calls_first: true, ..PLAIN },
    Way { name: "bell", bell: true, ..PLAIN },
    Way { name: "another waits", queued: true, ..PLAIN },
    Way { name: "client computes", client: COMPUTES, ..PLAIN },
    Way { name: "server computes", server: COMPUTES, ..PLAIN },
    Way { name: "both compute", client: COMPUTES, server: COMPUTES_TOO, ..PLAIN },
    Way { name: "both compute, client first", client: COMPUTES, server: COMPUTES_TOO, calls_first: true, ..PLAIN },
];

/// A call and its answer, found the same on every way.
pub fn words(stage: &mut Stage) -> Attempt {
    // The server's turn, or the client's: whose it is, decides about the path of the answer.
    for priorities in [[2, 2, 1], [3, 2, 1], [2, 3, 1]] {
        let [server, client, other] = stage.puppets(priorities)?;
        stage.link(E, server, &[client, other])?;
        for (number, way) in (100..).step_by(10).zip(&WAYS) {
            for keeps in [false, true] {
                exchange(stage, [server, client, other], way, keeps, number)?;
            }
        }
        stage.clear()?;
    }
    Ok(())
}

pub fn exchange(
    stage: &mut Stage,
    [server, client, other]: [Who; 3],
    way: &Way,
    keeps: bool,
    number: u64,
) -> Attempt {
    let name = &format!("{}{}", way.name, if keeps { ", all kept" } else { "" });
    let keep = |step: Step| if keeps { keeping(step) } else { step };
    let (question, answer) = (sample(number), sample(number + 1));
    let around = |outer: Option<[Step; 2]>, step: Step| match outer {
        Some([before, after]) => Vec::from([before, step, after]),
        None => Vec::from([step]),
    };
    let serves = around(way.server, keep(receive_until(E, way.deadline)));
    let calls = around(way.client, keep(call(E, question)));
    if way.calls_first {
        stage.begin(client, &calls)?;
        stage.begin(server, &serves)?;
    } else {
        stage.begin(server, &serves)?;
        stage.begin(client, &calls)?;
    }
    if way.queued {
        stage.begin(other, &[call(E, sample(number + 2))])?;
    }
    let heard = stage.result(server, usize::from(way.server.is_some()));
    stage.expect(
        &format!("{name}: what the server hears"),
        &heard,
        &came(1, question),
    );
    if way.server.is_some() {
        let kept = stage.result(server, 2);
        stage.expect(
            &format!("{name}: registers of the server"),
            &kept,
            &DONE_WELL,
        );
    }
    let step = usize::from(way.client.is_some());
    let heard = stage.result(client, step);
    stage.expect(&format!("{name}: the client waits"), &heard, &BLOCKED);

    let bell = [ring(OWN_DOORBELL), keep(reply_receive(E, answer))];
    stage.begin(server, &bell[usize::from(!way.bell)..])?;
    let heard = stage.result(client, step);
    stage.expect(
        &format!("{name}: what the client hears"),
        &heard,
        &answered(answer),
    );
    if way.client.is_some() {
        let kept = stage.result(client, 2);
        stage.expect(
            &format!("{name}: registers of the client"),
            &kept,
            &DONE_WELL,
        );
    }
    let expected = match (way.bell, way.queued) {
        (true, _) => refused(Error::Interrupted),
        (_, true) => came(2, sample(number + 2)),
        _ => BLOCKED,
    };
    let heard = stage.result(server, usize::from(way.bell));
    stage.expect(&format!("{name}: what comes next"), &heard, &expected);
    // Back to rest: nobody calls, nobody receives.
    match expected {
        Some(Ok(_)) => {
            stage.script(name, server, &[(reply(answer), DONE_WELL)])?;
            stage.found(name, other, &[answered(answer)]);
        }
        Some(Err(_)) => {}
        None => {
            stage.begin(client, &[call(E, answer)])?;
            stage.found(name, server, &[came(1, answer)]);
            stage.script(name, server, &[(reply(question), DONE_WELL)])?;
            stage.found(name, client, &[answered(question)]);
        }
    }
    Ok(())
}

/// The smallest and the largest badge, and words of that kind: no path takes them for others.
pub fn badges(stage: &mut Stage) -> Attempt {
    for priorities in [[2, 2], [2, 3]] {
        let [server, client] = stage.puppets(priorities)?;
        let endpoint = stage.endpoint()?;
        stage.hand(server, endpoint, E, Rights::READ, 0)?;
        let all = [(E, 0), (E2, u64::MAX), (E3, 1 << 63)];
        for (slot, badge) in all {
            stage.hand(client, endpoint, slot, Rights::WRITE, badge)?;
        }
        let all = all.into_iter();
        let all = all.flat_map(|one| [[0; 5], [u64::MAX; 5], sample(7)].map(|words| (one, words)));
        // A server that waits, and then one that finds a client in the queue.
        stage.begin(server, &[receive(E)])?;
        for ((slot, badge), words) in all.clone() {
            let what = format!("badge {badge:#x}");
            stage.begin(client, &[call(slot, words)])?;
            stage.found(&what, server, &[came(badge, words)]);
            stage.begin(server, &[reply_receive(E, words)])?;
            stage.found(&what, client, &[answered(words)]);
        }
        stage.ring(server)?;
        for ((slot, badge), words) in all {
            let what = format!("badge {badge:#x} in the queue");
            stage.begin(client, &[call(slot, words)])?;
            let serves = [(receive(E), came(badge, words)), (reply(words), DONE_WELL)];
            stage.script(&what, server, &serves)?;
            stage.found(&what, client, &[answered(words)]);
        }
        stage.clear()?;
    }
    Ok(())
}

/// Who queues is served by priority, and then in the order of coming.
pub fn queue(stage: &mut Stage) -> Attempt {
    let [server, a, b, c, d] = stage.puppets([2, 1, 3, 2, 3])?;
    let clients = [a, b, c, d];
    stage.link(E, server, &clients)?;
    for (number, client) in clients.iter().enumerate() {
        stage.begin(*client, &[call(E, sample(number as u64))])?;
        stage.found("a client that queues", *client, &[BLOCKED]);
    }
    // b and d have the highest, of them b came first; badges are places in the list plus one.
    let order: [u64; 4] = [2, 4, 3, 1];
    let mut steps = Vec::from([(receive(E), came(order[0], sample(order[0] - 1)))]);
    for pair in order.windows(2) {
        let next = came(pair[1], sample(pair[1] - 1));
        steps.push((reply_receive(E, sample(pair[0] + 10)), next));
    }
    steps.push((reply(sample(order[3] + 10)), DONE_WELL));
    stage.script("the order of serving", server, &steps)?;
    for (client, badge) in clients.iter().zip(1..) {
        stage.found(
            "the answer of a queue",
            *client,
            &[answered(sample(badge + 10))],
        );
    }
    // A priority that changes in the queue counts.
    for client in clients {
        stage.begin(client, &[call(E, [0; 5])])?;
    }
    let row = stage.puppets[b].slots;
    let lowered = dispatcher::configure(row, Property::Priority(LOWEST));
    at("another priority", lowered)?;
    let steps = [4, 3, 1, 2].map(|badge| {
        let came = came(badge, [0; 5]);
        [(receive(E), came), (reply([badge; 5]), DONE_WELL)]
    });
    stage.script("another order of serving", server, &steps.concat())?;
    for (client, badge) in clients.iter().zip(1..) {
        stage.found("the answer of a queue", *client, &[answered([badge; 5])]);
    }
    Ok(())
}

/// More than words: the contents of a frame.
pub fn shared_payload(stage: &mut Stage) -> Attempt {
    let [server, client] = stage.puppets([2, 2])?;
    stage.link(E, server, &[client])?;
    let frame = made("a frame", memory::frame(PAYLOAD_BYTES))?;
    for who in [server, client] {
        stage.puppets[who].show(frame, PAYLOAD)?;
    }
    let (fill, check) = (pseudo::FILL, pseudo::CHECK);
    stage.begin(server, &[receive(E)])?;
    for seed in 1..4 {
        let calls = [one(fill, seed), call(E, [seed; 5]), one(check, seed + 10)];
        stage.begin(client, &calls)?;
        stage.begin(
            server,
            &[
                one(check, seed),
                one(fill, seed + 10),
                reply_receive(E, [0; 5]),
            ],
        )?;
        let well = [DONE_WELL, DONE_WELL, BLOCKED];
        stage.found("what the server found", server, &well);
        stage.found("what the client found", client, &[DONE_WELL; 3]);
    }
    stage.clear()?;
    at("free of a frame", memory::free(frame))
}
