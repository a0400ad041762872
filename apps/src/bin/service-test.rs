//! Tests channels between domains that know no more of each other than a name.
//!
//! `service-test`
//!
//! A server that echoes runs on one core, clients on all; on its own core as well as on others. They
//! connect by name, send messages and compare what comes back; some end in the middle of it, or are
//! killed, and the server goes on. Then it runs on another core.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use apps::checks::Outcome;
use rt::clock;
use rt::interface::KILLED_STATUS;
use rt::monitor;
use rt::service::{self, Service, Session};
use rt::system_call;
use urpc::{Message, ReceiveError};

rt::entry!(main);

const NAME: &str = "echo";
const SERVER: &str = "server";
const CLIENT: &str = "client";
/// A client that ends without a word.
const DESERTER: &str = "deserter";
/// A client that waits until it is killed.
const SLEEPER: &str = "sleeper";

/// Messages of a client, several laps of a ring.
const MESSAGES: u64 = 100;
/// How long an idle server sleeps, in nanoseconds.
const PAUSE_NS: u64 = 20_000;
/// The kind of a message after which nothing comes.
const END: u16 = 1;

fn main() -> i32 {
    let start = rt::startup();
    let cores: Vec<usize> = start.cores().collect();
    let mut outcome = Outcome::default();
    match start.arguments().nth(1) {
        Some(SERVER) => {
            let clients = start.arguments().nth(2).and_then(|word| word.parse().ok());
            return serve(clients.unwrap_or(0));
        }
        Some(CLIENT) => ask(&mut outcome),
        Some(DESERTER) => drop(connect(&mut outcome)),
        Some(SLEEPER) => {
            let _session = connect(&mut outcome);
            loop {
                system_call::wait(None);
            }
        }
        Some(other) => {
            rt::println!("usage: service-test, without `{other}`");
            return 2;
        }
        None => {
            let last = cores[cores.len() - 1];
            for core in [cores[0], last] {
                run(core, &cores, &mut outcome);
            }
            rt::println!(
                "service-test: {} cores, {} checks",
                cores.len(),
                outcome.checks
            );
            if outcome.bad > 0 {
                rt::println!("service-test: failed: {} checks", outcome.bad);
                return 1;
            }
            rt::println!("service-test: passed");
        }
    }
    i32::from(outcome.bad > 0)
}

/// A server on a core, and clients on all.
fn run(core: usize, cores: &[usize], outcome: &mut Outcome) {
    // Each core has a client; the last one others that leave in bad order.
    let count = format!("{}", cores.len());
    let spawn = |core: usize, words: &[&str]| monitor::spawn(core, words, None);
    let server = spawn(core, &["service-test", SERVER, &count]);
    let last = cores[cores.len() - 1];
    let deserter = spawn(last, &["service-test", DESERTER]);
    let status = deserter.and_then(monitor::wait);
    outcome.expect("the status of a deserter", &status, &Ok(0));
    let sleeper = spawn(last, &["service-test", SLEEPER]);
    let clients: Vec<_> = cores
        .iter()
        .map(|core| spawn(*core, &["service-test", CLIENT]))
        .collect();
    for client in clients {
        let status = client.and_then(monitor::wait);
        outcome.expect("the status of a client", &status, &Ok(0));
    }
    let killed = sleeper.and_then(monitor::kill);
    outcome.expect("a kill", &killed, &Ok(()));
    let status = sleeper.and_then(monitor::wait);
    outcome.expect("the status of a sleeper", &status, &Ok(KILLED_STATUS));
    let status = server.and_then(monitor::wait);
    outcome.expect("the status of the server", &status, &Ok(0));
}

fn connect(outcome: &mut Outcome) -> Option<Session> {
    let session = service::connect(NAME);
    outcome.expect("a connection", &session.as_ref().map(|_| ()).err(), &None);
    session.ok()
}

/// Sends, and compares what comes back.
fn ask(outcome: &mut Outcome) {
    let Some(mut session) = connect(outcome) else {
        return;
    };
    let own = rt::startup().domain;
    for number in 0..MESSAGES {
        let message = Message::new(7, [own, number, !number, 0, number << 32, 1, own]);
        let sent = session.connection().send(&message);
        outcome.expect("a send", &sent, &Ok(()));
        let come = session.connection().receive();
        outcome.expect("what comes back", &come, &Ok(message));
    }
    let sent = session.connection().send(&Message::new(END, [0; 7]));
    outcome.expect("the last send", &sent, &Ok(()));
}

/// Echoes what comes until so many clients have said that they end.
fn serve(clients: u64) -> i32 {
    let Ok(mut service) = Service::export(NAME) else {
        return 10;
    };
    let (mut ended, mut sessions) = (0, Vec::new());
    while ended < clients {
        match service.poll() {
            Ok(session) => sessions.extend(session.map(|session| (session, false))),
            Err(_) => return 11,
        }
        let mut is_idle = true;
        sessions.retain_mut(|(session, has_ended): &mut (Session, bool)| {
            let connection = session.connection();
            let stays = match connection.channel().recv() {
                Ok(message) if message.kind() == END => {
                    *has_ended = true;
                    true
                }
                Ok(message) => connection.send(&message).is_ok(),
                // Until a client is through, its channel must be there: so must this server.
                Err(_) if *has_ended => {
                    let is_through = connection.channel().peer_has_closed();
                    ended += u64::from(is_through);
                    return !is_through;
                }
                Err(ReceiveError::Empty) => return true,
                Err(_) => false,
            };
            is_idle = false;
            stays
        });
        if is_idle {
            clock::sleep_ns(PAUSE_NS);
        }
    }
    0
}
