//! What is in registers to deceive the fast paths, which look up slots by themselves.

use crate::puppet::*;
use crate::stage::*;
use crate::step::*;
use abi::capability::INDEX_BITS;
use abi::layout::{DIRECT_MAP, KERNEL_IMAGE, PAGE};
use abi::syscall;
use alloc::format;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use rt::capability::{self, Address, FIRST_CNODE_SLOTS, Kind, Retype, Rights, SLOT_BYTES, slots};
use rt::memory;
use rt::space::{Mapping, PageSize};
use rt::system_call::Error;

/// Slots of the root CNode of puppets where things are put: a frame that looks like a CNode, a
/// small CNode, the one behind it in memory.
const FORGED: u64 = 8;
const SMALL: u64 = 9;
const BEHIND: u64 = 10;
/// Slots of a small CNode.
const SMALL_SLOTS: u64 = 4;

/// The slot of the root CNode with this index.
const fn in_root(index: u64) -> Address {
    Address::new(1, index)
}

/// Addresses of slots that are none, of forged ones, and numbers of calls that are none.
pub fn hostile(stage: &mut Stage) -> Attempt {
    // The client's turn, or the server's: whose it is, decides about the path of the answer.
    for priorities in [[2, 3], [2, 2]] {
        let pair = stage.puppets(priorities)?;
        let [server, client] = pair;
        let endpoint = stage.link(E, server, &[client])?;
        // Beside it, where one bit leads, the same without the rights.
        let but = |hold: Rights| Rights::all().difference(hold);
        let less = but(Rights::READ | Rights::WRITE);
        stage.hand(client, endpoint, E2, but(Rights::WRITE), 0)?;
        stage.hand(client, endpoint, E3, less, 0)?;
        stage.hand(server, endpoint, E2, but(Rights::READ), 0)?;
        stage.hand(server, endpoint, E3, less, 0)?;
        for address in addresses() {
            refused_alike(stage, pair, Address(address))?;
        }
        forged(stage, pair)?;
        neighbours(stage, pair, endpoint)?;
        numbers(stage, client)?;
        // After all that, both are as they were.
        let well = [
            (receive(E), came(1, sample(1))),
            (reply(sample(2)), DONE_WELL),
        ];
        stage.begin(client, &[call(E, sample(1))])?;
        stage.script("a call afterwards", server, &well)?;
        stage.found("a call afterwards", client, &[answered(sample(2))]);
        stage.clear()?;
    }
    Ok(())
}

/// What one bit makes of a good address, every index of the root CNode and around the end of a
/// CNode, and numbers that would be useful to get at memory with.
fn addresses() -> impl Iterator<Item = u64> {
    let flipped = (0..64).map(|bit| E.0 ^ 1 << bit);
    let cnodes = (0..FIRST_CNODE_SLOTS + 2).map(|cnode| Address::new(cnode, 1).0);
    let edge = FIRST_CNODE_SLOTS - 1;
    let slots = (edge..edge + 3).map(|slot| Address::new(2, slot).0);
    let huge = [
        u64::MAX,
        u64::MAX << INDEX_BITS,
        u64::MAX << INDEX_BITS | 24,
        i64::MAX as u64,
        1 << 63,
        // Offsets that are multiples of 2^32 and 2^58, beside the right index.
        E.0 | 1 << (32 - 6 + INDEX_BITS),
        E.0 | 1 << (58 - 6 + INDEX_BITS - 1),
        E.0 | ((1 << INDEX_BITS) - 1),
        DIRECT_MAP,
        KERNEL_IMAGE,
        KERNEL_IMAGE | E.0,
    ];
    flipped.chain(cnodes).chain(slots).chain(huge)
}

/// Both fast paths, and RECEIVE, say of an address what follows from asking about it.
fn refused_alike(stage: &mut Stage, [server, client]: [Who; 2], address: Address) -> Attempt {
    let what = format!("no endpoint, {address:x?}");
    // All else is as the fast path wants it.
    stage.begin(server, &[receive(E)])?;
    stage.begin(client, &[identify(address), call(address, sample(3))])?;
    let error = expected(stage.result(client, 0), Rights::WRITE);
    if address.0 >> INDEX_BITS >= FIRST_CNODE_SLOTS {
        stage.expect(&what, &error, &refused(Error::NoSuchSlot));
    }
    let called = stage.result(client, 1);
    stage.expect(&format!("{what}, by a call"), &called, &error);
    stage.begin(client, &[call(E, sample(4))])?;
    stage.found(&what, server, &[came(1, sample(4))]);
    let answers = [identify(address), reply_receive(address, sample(5))];
    stage.begin(server, &answers)?;
    let error = expected(stage.result(server, 0), Rights::READ);
    let received = stage.result(server, 1);
    stage.expect(&format!("{what}, by an answer"), &received, &error);
    // Who answers, has answered.
    stage.found(&what, client, &[answered(sample(5))]);
    stage.script(&what, server, &[(receive(address), error)])
}

/// What a call comes to by a slot that is no endpoint's, or is one without this right.
fn expected(asked: Option<Answer>, right: Rights) -> Option<Answer> {
    let Some(Ok((what, _))) = asked else {
        return asked;
    };
    let hold = Rights::from_bits_truncate((what >> 8) as u8);
    if what & 0xff != Kind::Endpoint as u64 {
        refused(Error::WrongKind)
    } else if !hold.contains(right) {
        refused(Error::NotAllowed)
    } else {
        BLOCKED
    }
}

/// A frame full of slots that a program made up, where a CNode is looked for.
fn forged(stage: &mut Stage, pair: [Who; 2]) -> Attempt {
    let frame = made("a frame", Mapping::zeroed(PAGE, PageSize::Small))?;
    for who in pair {
        let root = stage.puppets[who].slots.plus(1);
        let copied = capability::copy_to(frame.frame(), root, in_root(FORGED));
        at("a frame among CNodes", copied)?;
    }
    // Kind and rights lie next to each other, one way or the other.
    let kinds = [Kind::Endpoint, Kind::CNode].map(|kind| kind as u64);
    let all = u64::from(Rights::all().bits());
    for halves in kinds
        .into_iter()
        .flat_map(|kind| [kind << 8 | all, all << 8 | kind])
    {
        for word in frame.words() {
            word.store(halves * 0x1_0001_0001_0001, Ordering::Relaxed);
        }
        for index in [0, 1, 2, FIRST_CNODE_SLOTS - 1, FIRST_CNODE_SLOTS] {
            refused_alike(stage, pair, Address::new(FORGED, index))?;
        }
    }
    for who in pair {
        stage.script(
            "a frame among CNodes",
            who,
            &[(delete(in_root(FORGED)), DONE_WELL)],
        )?;
    }
    Ok(())
}

/// Two small CNodes one behind the other in memory: what is in the second, the first has not.
fn neighbours(stage: &mut Stage, pair: [Who; 2], endpoint: Address) -> Attempt {
    let [server, client] = pair;
    let ram = made("RAM", memory::object(Kind::Ram, PAGE))?;
    let row = at("slots", slots::take_row(4))?;
    let cnodes = Retype {
        kind: Kind::CNode,
        offset: 0,
        bytes: SMALL_SLOTS * SLOT_BYTES,
        count: 4,
    };
    at("small CNodes", capability::retype(ram, &cnodes, row))?;
    for (who, first) in pair.into_iter().zip([row, row.plus(2)]) {
        let root = stage.puppets[who].slots.plus(1);
        for (source, index) in [(first, SMALL), (first.plus(1), BEHIND)] {
            let copied = capability::copy_to(source, root, in_root(index));
            at("a small CNode", copied)?;
        }
        let hold = Rights::READ | Rights::WRITE;
        stage.hand(who, endpoint, Address::new(BEHIND, 1), hold, 0)?;
        let empty = [(identify(Address::new(SMALL, 1)), refused(Error::EmptySlot))];
        stage.script("a small CNode", who, &empty)?;
    }
    for index in 0..2 * SMALL_SLOTS {
        refused_alike(stage, pair, Address::new(SMALL, index))?;
    }
    // The slot itself is a good one.
    let there = Address::new(BEHIND, 1);
    stage.begin(server, &[receive(there)])?;
    stage.begin(client, &[call(there, sample(6))])?;
    stage.found("a small CNode", server, &[came(0, sample(6))]);
    stage.begin(server, &[reply_receive(there, sample(7))])?;
    stage.found("a small CNode", client, &[answered(sample(7))]);
    stage.ring(server)?;
    stage.found("a small CNode", server, &[refused(Error::Interrupted)]);
    at("free of small CNodes", memory::free(ram))?;
    for slot in 0..4 {
        slots::give(row.plus(slot));
    }
    refused_alike(stage, pair, there)
}

/// Numbers of calls that are none, among them such whose lower half is one.
fn numbers(stage: &mut Stage, who: Who) -> Attempt {
    let huge = [0, 1 << 32, 1 << 63]
        .map(|high| [syscall::CALL, syscall::REPLY_RECEIVE, syscall::EXIT].map(|low| high | low));
    let none = huge.concat().split_off(3);
    let none = none.into_iter().chain([
        u64::MAX,
        1 << 63,
        syscall::LAST + 1,
        syscall::RECEIVE_SLOT + 1,
        syscall::IDENTIFY | 1 << 16,
    ]);
    let steps: Vec<_> = none
        .map(|number| {
            let step = Step(pseudo::NUMBERED, [E.0, number, 1, 2, 3, 4]);
            (step, refused(Error::NoSuchCall))
        })
        .collect();
    stage.script("no such call", who, &steps)
}
