//! Sleep and wake-up over doorbells, checked exhaustively: every order in which the steps of two or
//! three cores, their store buffers and their interrupts can follow each other.
//!
//! loom runs the code itself, but bounds preemptions and knows no kernel. Here the code is
//! modelled, down to single accesses of shared memory, and the rest of the way with it: stores
//! wait in a buffer a core until they reach memory in order (x86-TSO), a doorbell is an interrupt
//! that travels, and one that finds nobody waiting stays pending. Every step that matters is also
//! left out or altered once ([`Fault`]), and then the check must fail. And the code is run side
//! by side with the model (`code`): both must make the same accesses.
//!
//! | step              | stands for                                                          |
//! |-------------------|---------------------------------------------------------------------|
//! | `Acknowledge`     | `acknowledge_if_due`: the store to `acknowledged`                   |
//! | `Poll`            | `recv`: the load of `control`                                       |
//! | `Idle`            | `explain`: `look_for_acknowledgement`, on the way of `recv` and `may_sleep` |
//! | `Room`            | `find_room`: `look_for_acknowledgement`                             |
//! | `Line`            | `send`: `write_payload` and the store to `control`, in order as all stores are |
//! | `RingFence`       | `peer_needs_doorbell`: `full_fence`                                 |
//! | `RingLook`        | `peer_needs_doorbell_after_fence`: the load of `asleep`             |
//! | `RingCall`        | the caller's `system_call::ring`                                    |
//! | `Announce`        | `announce_sleep`: the store to `asleep`                             |
//! | `SleepFence`      | `prepare_sleep`, or the monitor's `sleep`: `full_fence`             |
//! | `Look`            | `may_sleep`: the load of `control`                                  |
//! | `LookRoom`        | `may_sleep`: `free_slots`, the load of `acknowledged`               |
//! | `Wait`, `Waiting` | `system_call::wait`: the kernel takes what is pending, or blocks    |
//! | `Awake`           | `awake`: the store to `asleep`                                      |
//! | `Step::Drain`     | the oldest store of a core reaches memory, or its interrupt command the bus |
//! | `Step::Arrive`    | the interrupt reaches the local APIC, where several become one      |
//! | `Step::Interrupt` | the kernel's `signal`: ready if waiting, else pending               |
//! | `Step::Deadline`  | `WAIT` ends by the clock                                            |
//!
//! A step that nobody else notices follows at once on what makes it possible, and the state before
//! it does not count: see `is_unnoticed`.
//!
//! What runs on the cores is [`Program::Connection`], `send` and `receive` of a program's
//! connection that does not poll, and [`Program::Monitor`], the loop of a monitor over all its
//! channels. No channel is closed here, so `closed` is never looked at; a doorbell of the same
//! core, which has no store buffer in between, is left out.
//!
//! Sequences and the numbers of sleeps only grow, and no program comes round its loop without
//! one of them growing. So no execution visits a state twice, all that were visited are
//! finitely many, and what holds wherever nobody can take a step comes about in the end.
#![cfg(not(any(loom, miri)))]

mod code;
mod cores;
mod model;

use cores::{Call, Duty, Fault, Program};
use model::{DRAINED, IN_ORDER, Machine, NOT_LOST};
use stateright::{Checker, HasDiscoveries, Model};

fn explore(machine: Machine) -> impl Checker<Machine> {
    let checker = machine.checker().finish_when(HasDiscoveries::AnyFailures);
    checker.threads(2).spawn_bfs().join()
}

fn check(name: &str, machine: Machine) {
    let cores = machine.duties.len();
    let checker = explore(machine);
    checker.assert_properties();
    assert!(checker.is_done());
    println!(
        "model urpc doorbell, {name}, {cores} cores: {} states",
        checker.unique_state_count()
    );
}

fn connection(calls: &[Call]) -> Program {
    Program::Connection(calls.to_vec())
}

fn sends(messages: usize) -> Program {
    connection(&vec![Call::Send; messages])
}

fn receives(messages: usize) -> Program {
    connection(&vec![Call::Receive; messages])
}

/// A channel from each of some cores to the last one.
fn machine(programs: &[Program], last: &Program) -> Machine {
    let duty = |program: &Program, ends| Duty {
        program: program.clone(),
        ends,
        outbox: 0,
        is_full: false,
        deadlines: 0,
        fault: None,
    };
    let cores = 0..programs.len();
    let clients = cores.clone().zip(programs);
    let clients = clients.map(|(core, program)| duty(program, vec![(2 * core, programs.len())]));
    let their_ends = cores.map(|core| (2 * core + 1, core)).collect();
    Machine {
        duties: clients.chain([duty(last, their_ends)]).collect(),
    }
}

/// The same after so many cores have filled their rings.
fn full(cores: usize, mut machine: Machine) -> Machine {
    for duty in &mut machine.duties[..cores] {
        duty.is_full = true;
    }
    machine
}

/// Two monitors, with so many messages for each other.
fn monitors(messages: [u8; 2]) -> Machine {
    let mut machine = machine(&[Program::Monitor], &Program::Monitor);
    for (duty, messages) in machine.duties.iter_mut().zip(messages) {
        duty.outbox = messages;
    }
    machine
}

/// The sender waits for room, too.
#[test]
fn doorbells_between_a_sender_and_a_receiver() {
    check("5 messages", machine(&[sends(5)], &receives(5)));
    check("a full ring", full(1, machine(&[sends(3)], &receives(6))));
}

#[test]
fn doorbells_for_calls_and_replies() {
    let (call, reply) = ([Call::Send, Call::Receive], [Call::Receive, Call::Send]);
    let (client, server) = (connection(&call.repeat(3)), connection(&reply.repeat(3)));
    check("3 calls", machine(&[client], &server));
}

/// Waits end by the clock, too, before and after somebody has rung.
#[test]
fn doorbells_and_deadlines() {
    let mut machine = machine(&[sends(4)], &Program::Monitor);
    machine.duties[1].deadlines = 1;
    check("4 messages to a monitor, 1 deadline", machine);
}

/// One announces on two channels, and sleeps once for both.
#[test]
fn doorbells_of_two_senders_to_one_sleeper() {
    let two = |messages| machine(&[sends(messages), sends(messages)], &Program::Monitor);
    check("two senders of 1", two(1));
    check("two senders of 1, one ring full", full(1, two(1)));
    check("two senders of 2", two(2));
}

/// Both fill the ring of the other, and wait for messages and room at once.
#[test]
fn doorbells_between_two_monitors() {
    check("two monitors, 2 and 2 messages", monitors([2, 2]));
    check("two monitors, 4 and 0 messages", monitors([4, 0]));
    check("two monitors, full rings", full(2, monitors([1, 1])));
}

/// What the check says of a machine with this fault in one core.
fn found(fault: Fault, core: usize, mut machine: Machine) -> &'static str {
    machine.duties[core].fault = Some(fault);
    let checker = explore(machine);
    let found = checker.discoveries();
    let properties = [IN_ORDER, NOT_LOST, DRAINED];
    let broken = properties.into_iter().find(|name| found.contains_key(name));
    println!("mutation urpc doorbell, {fault:?} of core {core}: {broken:?}");
    broken.unwrap_or("nothing")
}

/// The receiver sleeps for a message. What is wrong with the sleep of one that never sleeps does not show.
#[test]
fn doorbell_faults_lose_a_wake_up_for_a_message() {
    let machine = || machine(&[sends(1)], &receives(1));
    assert_eq!(found(Fault::NoRingFence, 0, machine()), NOT_LOST);
    assert_eq!(found(Fault::LooksFirst, 0, machine()), NOT_LOST);
    assert_eq!(found(Fault::NoSleepFence, 1, machine()), NOT_LOST);
    assert_eq!(found(Fault::NoLastLook, 1, machine()), NOT_LOST);
    assert_eq!(found(Fault::NothingPending, 1, machine()), NOT_LOST);
    assert_eq!(found(Fault::NoSleepFence, 0, machine()), "nothing");
}

/// The sender sleeps for room; the faults are such that no other wake-up can be lost.
#[test]
fn doorbell_faults_lose_a_wake_up_for_room() {
    let machine = || full(1, machine(&[sends(1)], &receives(4)));
    assert_eq!(found(Fault::NoRingFence, 1, machine()), NOT_LOST);
    assert_eq!(found(Fault::NoSleepFence, 0, machine()), NOT_LOST);
    assert_eq!(found(Fault::NoLastLook, 0, machine()), NOT_LOST);
    assert_eq!(found(Fault::NothingPending, 0, machine()), NOT_LOST);
}

/// Of a sleeper with two channels.
#[test]
fn doorbell_faults_lose_a_wake_up_of_a_monitor() {
    let machine = || machine(&[sends(1), sends(1)], &Program::Monitor);
    assert_eq!(found(Fault::NoRingFence, 1, machine()), NOT_LOST);
    assert_eq!(found(Fault::LooksFirst, 1, machine()), NOT_LOST);
    assert_eq!(found(Fault::NoSleepFence, 2, machine()), NOT_LOST);
    assert_eq!(found(Fault::NoLastLook, 2, machine()), NOT_LOST);
    assert_eq!(found(Fault::NothingPending, 2, machine()), NOT_LOST);
}

/// A second sleep would pass for the first, which was answered.
#[test]
fn doorbell_faults_lose_the_second_of_two_wake_ups() {
    let machine = machine(&[sends(2)], &receives(2));
    assert_eq!(found(Fault::OneNumber, 1, machine), NOT_LOST);
}
