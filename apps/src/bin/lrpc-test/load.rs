//! Priorities, and many calls at once.

use crate::puppet::*;
use crate::stage::*;
use crate::step::*;
use alloc::format;
use rt::capability::{Address, OWN_DOORBELL, Rights};
use rt::dispatcher;
use rt::system_call::Error;

/// Nobody waits for a lower priority than its own. A hog computes meanwhile, and whoever has
/// the highest priority looks how far it has come.
pub fn inversion(stage: &mut Stage) -> Attempt {
    const BEFORE: u64 = 100;
    const AFTER: u64 = 50_000;
    // Who is answered, runs when its turn comes.
    let [server, client, hog] = stage.puppets([3, 1, 2])?;
    stage.link(E, server, &[client])?;
    stage.hand(server, stage.puppets[hog].bell, BELL, Rights::WRITE, 0)?;
    stage.prepare(hog, &[count(AFTER)])?;
    stage.begin(server, &[receive(E)])?;
    stage.begin(client, &[call(E, sample(1)), LOOK])?;
    stage.begin(server, &[ring(BELL), reply_receive(E, sample(2))])?;
    let looked = Some(Ok((AFTER, [0; 5])));
    stage.found(
        "the lowest, answered",
        client,
        &[answered(sample(2)), looked],
    );
    stage.clear()?;
    // The lowest is served while the hog wakes the highest.
    for is_chain in [false, true] {
        let [server, low, hog, high, last] = stage.puppets([1, 1, 2, 3, 1])?;
        stage.link(E, server, &[low, high])?;
        stage.link(E2, last, &[server])?;
        let worker = if is_chain { last } else { server };
        stage.hand(worker, stage.puppets[hog].bell, BELL, Rights::WRITE, 0)?;
        stage.hand(hog, stage.puppets[high].bell, BELL, Rights::WRITE, 0)?;
        stage.prepare(hog, &[count(BEFORE), ring(BELL), count(AFTER)])?;
        stage.prepare(high, &[call(E, sample(1)), LOOK])?;
        if is_chain {
            stage.begin(last, &[receive(E2)])?;
            let serves = [
                receive(E),
                call(E2, sample(9)),
                reply_receive(E, sample(2)),
                reply(sample(3)),
            ];
            stage.begin(server, &serves)?;
            stage.begin(low, &[call(E, sample(4))])?;
            stage.begin(last, &[ring(BELL), reply(sample(5))])?;
        } else {
            stage.begin(server, &[receive(E)])?;
            stage.begin(low, &[call(E, sample(4))])?;
            let serves = [ring(BELL), reply_receive(E, sample(2)), reply(sample(3))];
            stage.begin(server, &serves)?;
        }
        let looked = Some(Ok((BEFORE, [0; 5])));
        stage.found("the highest", high, &[answered(sample(3)), looked]);
        stage.found("the hog", hog, &[DONE_WELL; 3]);
        stage.found("the lowest", low, &[answered(sample(2))]);
        stage.clear()?;
    }
    // The highest waits at another endpoint than the one at which its server is called.
    for deadline in [0, FAR] {
        let [server, low, hog, high] = stage.puppets([1, 1, 2, 3])?;
        stage.link(E, server, &[low])?;
        stage.link(E2, server, &[high])?;
        stage.hand(server, stage.puppets[hog].bell, BELL, Rights::WRITE, 0)?;
        stage.prepare(hog, &[count(AFTER)])?;
        let serves = [
            receive_until(E2, OVER),
            receive_until(E, deadline),
            ring(BELL),
            reply_receive(E2, sample(2)),
            reply(sample(3)),
        ];
        stage.begin(server, &serves)?;
        stage.begin(high, &[call(E2, sample(1)), LOOK])?;
        stage.begin(low, &[call(E, sample(4))])?;
        let what = format!("the highest at another endpoint, deadline {deadline:#x}");
        stage.found(&what, high, &[answered(sample(3)), DONE_WELL]);
        stage.found("the hog", hog, &[DONE_WELL]);
        stage.found("the lowest", low, &[answered(sample(2))]);
        stage.clear()?;
    }
    // Its server is only about to come, and a bell keeps it from taking the call at once.
    let [server, hog, high] = stage.puppets([1, 2, 3])?;
    stage.link(E, server, &[high])?;
    stage.hand(server, stage.puppets[hog].bell, BELL, Rights::WRITE, 0)?;
    stage.prepare(hog, &[count(AFTER)])?;
    stage.begin(high, &[call(E, sample(1)), LOOK])?;
    let serves = [
        ring(OWN_DOORBELL),
        receive(E),
        ring(BELL),
        receive(E),
        reply(sample(2)),
    ];
    stage.begin(server, &serves)?;
    let interrupted = stage.result(server, 1);
    stage.expect("a bell first", &interrupted, &refused(Error::Interrupted));
    let what = "the highest before its server";
    stage.found(what, high, &[answered(sample(2)), DONE_WELL]);
    stage.found("the hog", hog, &[DONE_WELL]);
    Ok(())
}

/// Tens of thousands of calls among domains that compute with vector registers, while another one
/// takes the core from them at any instruction.
pub fn storm(stage: &mut Stage) -> Attempt {
    /// Calls of each client.
    const CALLS: u64 = 10_000;
    const TICKS: u64 = 100;
    const TICK_NS: u64 = 200_000;
    let [first, second, a, b, c, ticker] = stage.puppets([2, 2, 2, 2, 2, 3])?;
    let clients = [a, b, c];
    stage.link(E, first, &clients)?;
    stage.link(E2, second, &clients)?;
    let serve = |endpoint: Address, seed| Step(pseudo::SERVE, [endpoint.0, seed, 0, 0, 0, 0]);
    stage.begin(first, &[serve(E, 0)])?;
    stage.begin(second, &[serve(E2, 0x5eed)])?;
    // Two by themselves, who leave vector registers alone.
    stage.begin(c, &[Step(pseudo::STORM, [2 * CALLS, 3, 1, 0, 0, 0])])?;
    stage.found("calls of two", c, &[DONE_WELL]);
    // They are stopped until all are there: the director would not run beside them.
    for (client, badge) in clients.into_iter().zip(1..) {
        // The last one leaves vector registers alone.
        let computes = u64::from(badge < 3);
        let seed = badge | computes << 8 | (computes * badge) << 16;
        stage.prepare(client, &[Step(pseudo::STORM, [CALLS, seed, 2, 0, 0, 0])])?;
        stage.stop(client)?;
        stage.ring(client)?;
    }
    stage.begin(ticker, &[Step(pseudo::TICK, [TICKS, TICK_NS, 0, 0, 0, 0])])?;
    for client in clients {
        at(
            "start of a client",
            dispatcher::start(stage.puppets[client].slots),
        )?;
    }
    for client in clients {
        stage.finish("a client in the storm", client)?;
        stage.found("a client in the storm", client, &[DONE_WELL]);
    }
    stage.finish("who ticks in the storm", ticker)?;
    stage.found("who ticks in the storm", ticker, &[DONE_WELL]);
    for (endpoint, server) in [(E, first), (E2, second)] {
        let end = [pseudo::END, 0, 0, 0, 0];
        let last = answered(answer_of(1, end));
        stage.script("the last call", a, &[(call(endpoint, end), last)])?;
        stage.found("a server in the storm", server, &[DONE_WELL]);
    }
    Ok(())
}
