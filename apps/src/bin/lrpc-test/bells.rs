//! Bells and deadlines that come while a call is on its way.

use crate::puppet::*;
use crate::stage::*;
use crate::step::*;
use rt::capability::Rights;
use rt::clock;
use rt::system_call::Error;

/// No call ends by a bell, however the answer comes, and no bell is lost or found twice.
pub fn bells(stage: &mut Stage) -> Attempt {
    let interrupted = refused(Error::Interrupted);
    // Whose turn it is decides about the path of the answer.
    for priorities in [[2, 2], [3, 2], [2, 3]] {
        let [server, client] = stage.puppets(priorities)?;
        stage.link(E, server, &[client])?;
        stage.hand(server, stage.puppets[client].bell, BELL, Rights::WRITE, 0)?;
        for (is_queued, number) in [(false, 10), (true, 20)] {
            for (rings, number) in (0..=2).zip(number..) {
                let calls = [call(E, sample(number)), TAKE_BELL, TAKE_BELL];
                if is_queued {
                    stage.begin(client, &calls)?;
                } else {
                    stage.begin(server, &[receive(E)])?;
                    stage.begin(client, &calls)?;
                    stage.found("a server", server, &[came(1, sample(number))]);
                }
                // The first bell comes from a third one, the second from the server.
                if rings > 0 {
                    stage.ring(client)?;
                    stage.found("a client with a bell", client, &[BLOCKED]);
                }
                if is_queued {
                    let serves = [(receive(E), came(1, sample(number)))];
                    stage.script("a server of a queue", server, &serves)?;
                    stage.found("a client that was taken", client, &[BLOCKED]);
                }
                let answer = [ring(BELL), reply_receive(E, sample(number + 50))];
                let after = usize::from(rings < 2);
                stage.begin(server, &answer[after..])?;
                let bell = if rings > 0 { RANG } else { SILENT };
                let all = [answered(sample(number + 50)), bell, SILENT];
                stage.found("a client with a bell", client, &all);
                // Its own bells are another matter.
                let waits = stage.result(server, 1 - after);
                stage.expect("a server that waits again", &waits, &BLOCKED);
                stage.ring(server)?;
                let rang = stage.result(server, 1 - after);
                stage.expect("a server with a bell", &rang, &interrupted);
            }
        }
        stage.clear()?;
    }
    // One that serves another, calls meanwhile, and has a bell by the time that it answers.
    for priorities in [[2, 2, 2], [2, 2, 3], [3, 2, 1]] {
        let [server, between, client] = stage.puppets(priorities)?;
        stage.link(E, server, &[between])?;
        stage.link(E2, between, &[client])?;
        stage.begin(server, &[receive(E)])?;
        let serves = [
            receive(E2),
            call(E, sample(2)),
            reply_receive(E2, sample(4)),
            receive_until(E2, OVER),
        ];
        stage.begin(between, &serves)?;
        stage.begin(client, &[call(E2, sample(1))])?;
        stage.ring(between)?;
        stage.found("one between", between, &[came(1, sample(1)), BLOCKED]);
        stage.script("its server", server, &[(reply(sample(3)), DONE_WELL)])?;
        let all = [
            came(1, sample(1)),
            answered(sample(3)),
            interrupted,
            refused(Error::TimedOut),
        ];
        stage.found("one between", between, &all);
        stage.found("its client", client, &[answered(sample(4))]);
        stage.clear()?;
    }
    deadline_of_before(stage)
}

/// A call comes before the deadline of who waits for it; that does not end its next wait.
fn deadline_of_before(stage: &mut Stage) -> Attempt {
    let [server, client] = stage.puppets([2, 3])?;
    stage.link(E, server, &[client])?;
    let mut ahead = PAUSE_NS;
    loop {
        ahead *= 2;
        let until = receive_until(E, clock::now_ns() + ahead);
        stage.begin(server, &[until, reply_receive(E, sample(2))])?;
        stage.begin(client, &[call(E, sample(1))])?;
        if stage.result(server, 0) != refused(Error::TimedOut) || ahead > PATIENCE_NS {
            break;
        }
        // The deadline was there before the call.
        let serves = [
            (receive(E), came(1, sample(1))),
            (reply(sample(2)), DONE_WELL),
        ];
        stage.script("a call after a deadline", server, &serves)?;
    }
    stage.found("a call before a deadline", client, &[answered(sample(2))]);
    clock::sleep_ns(2 * ahead);
    let waits = [came(1, sample(1)), BLOCKED];
    stage.found("a deadline of before", server, &waits);
    stage.begin(client, &[call(E, sample(3))])?;
    let all = [came(1, sample(1)), came(1, sample(3))];
    stage.found("a deadline of before", server, &all);
    stage.script(
        "a deadline of before",
        server,
        &[(reply(sample(4)), DONE_WELL)],
    )?;
    stage.found("a call after it", client, &[answered(sample(4))]);
    Ok(())
}
