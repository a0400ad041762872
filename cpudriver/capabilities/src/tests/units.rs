//! One test for every error of every operation, and for what the crate promises in words.

use super::structure::check;
use super::{Event, Memory, ORIGIN, PRIVATE_BYTES, Recorder};
use crate::capability::Marks;
use crate::retype::MAX_OBJECTS;
use crate::*;
use abi::capability::{DISPATCHER_SLOTS, MAX_CNODE_SLOTS, VECTORS};
use abi::layout::PAGE;
use abi::syscall::DISPATCHER_BYTES;

const RAM: SlotId = slot(1);
const FAR: SlotId = slot(2);
const DEVICE: SlotId = slot(3);
const PORTS: SlotId = slot(4);
const CORES: SlotId = slot(5);
const RAM_BASE: u64 = ORIGIN + 0x1_0000;
const RAM_BYTES: u64 = PRIVATE_BYTES - 0x1_0000;
const FAR_BASE: u64 = 1 << 40;

/// Slot `index` of the 1,024 that the tests start with.
const fn slot(index: u64) -> SlotId {
    SlotId(ORIGIN + index * SLOT_BYTES)
}

fn boot() -> Database<Memory> {
    let mut memory = Memory::new();
    memory.clear(slot(1), 1023);
    let mut database = Database::new(memory, ORIGIN);
    let mut far = Capability::original(Kind::Ram, FAR_BASE, 1 << 30);
    far.marks = Marks::UNREACHABLE;
    let ports = Resource::Ports.range();
    let vectors = Resource::Vectors.range().start;
    for (index, capability) in [
        Capability::original(Kind::Ram, RAM_BASE, RAM_BYTES),
        far,
        Capability::original(Kind::DeviceFrame, 0xa_0000, 0x2_0000),
        Capability::original(Kind::IoPort, ports.start, ports.end - ports.start),
        Capability::original(Kind::Core, vectors, 4 * VECTORS),
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(database.insert(slot(index as u64 + 1), capability), Ok(()));
    }
    database
}

fn what(kind: Kind, offset: u64, bytes: u64, count: u64) -> Retype {
    Retype {
        kind,
        offset,
        bytes,
        count,
    }
}

/// Retypes as a user.
fn make(
    database: &mut Database<Memory>,
    source: SlotId,
    what: Retype,
    destination: SlotId,
) -> Result<(), Error> {
    let before = check(database);
    let answer = database.retype(Caller::User, source, &what, destination);
    let after = check(database);
    if answer.is_err() {
        assert_eq!(before, after);
    }
    answer
}

fn delete(database: &mut Database<Memory>, slot: SlotId) -> Result<Deleted, Error> {
    database.delete(Caller::User, slot, &mut Recorder::default())
}

fn revoke(database: &mut Database<Memory>, slot: SlotId) -> Result<Progress, Error> {
    database.revoke_step(Caller::User, slot, u32::MAX, &mut Recorder::default())
}

#[test]
fn names_that_are_no_slots() {
    let mut database = boot();
    let none = &mut Recorder::default();
    for bad in [
        0,
        1,
        ORIGIN,
        ORIGIN - 64,
        ORIGIN + 65,
        ORIGIN + (64 << 32),
        u64::MAX,
        !63,
    ] {
        let bad = SlotId(bad);
        let error = Err(Error::BadSlot);
        assert_eq!(database.identify(bad).err(), error.err());
        assert_eq!(database.copy(bad, slot(9)), error);
        assert_eq!(database.copy(RAM, bad), error);
        assert_eq!(database.mint(bad, slot(9), Rights::READ, 0), error);
        assert_eq!(database.mint(RAM, bad, Rights::READ, 0), error);
        assert_eq!(database.move_to(bad, slot(9)), error);
        assert_eq!(database.move_to(RAM, bad), error);
        assert_eq!(database.attach(bad, 1, 1), error);
        assert_eq!(database.set_shared(bad, true), error);
        assert_eq!(
            database.insert(bad, &Capability::original(Kind::Ram, 0, PAGE)),
            error
        );
        assert_eq!(
            make(&mut database, bad, what(Kind::Frame, 0, PAGE, 1), slot(9)),
            error
        );
        assert_eq!(
            make(&mut database, RAM, what(Kind::Frame, 0, PAGE, 1), bad),
            error
        );
        assert_eq!(
            database.delete(Caller::Monitor, bad, none).err(),
            error.err()
        );
        assert_eq!(
            database.revoke_step(Caller::Monitor, bad, 1, none).err(),
            error.err()
        );
    }
    // The second of two destinations.
    let end = SlotId(u64::MAX - 63);
    assert_eq!(
        make(&mut database, RAM, what(Kind::Frame, 0, PAGE, 2), end),
        Err(Error::BadSlot)
    );
}

#[test]
fn empty_and_occupied_slots() {
    let mut database = boot();
    let none = &mut Recorder::default();
    let error = Err(Error::EmptySlot);
    assert_eq!(database.identify(slot(9)).err(), error.err());
    assert_eq!(database.copy(slot(9), slot(10)), error);
    assert_eq!(database.mint(slot(9), slot(10), Rights::empty(), 0), error);
    assert_eq!(database.move_to(slot(9), slot(10)), error);
    assert_eq!(database.attach(slot(9), 1, 1), error);
    assert_eq!(database.set_shared(slot(9), true), error);
    assert_eq!(
        make(
            &mut database,
            slot(9),
            what(Kind::Frame, 0, PAGE, 1),
            slot(10)
        ),
        error
    );
    assert_eq!(
        database.delete(Caller::User, slot(9), none).err(),
        error.err()
    );
    assert_eq!(
        database.revoke_step(Caller::User, slot(9), 1, none).err(),
        error.err()
    );
    let error = Err(Error::OccupiedSlot);
    assert_eq!(database.copy(RAM, FAR), error);
    assert_eq!(database.copy(RAM, RAM), error);
    assert_eq!(database.mint(RAM, FAR, Rights::empty(), 0), error);
    assert_eq!(database.move_to(RAM, FAR), error);
    assert_eq!(
        database.insert(FAR, &Capability::original(Kind::Ram, 0, PAGE)),
        error
    );
    database.copy(RAM, slot(12)).unwrap();
    // All or nothing: the third of four is taken.
    assert_eq!(
        make(&mut database, RAM, what(Kind::Frame, 0, PAGE, 4), slot(10)),
        error
    );
    assert!(database.identify(slot(10)).is_err());
}

#[test]
fn mint_gives_fewer_rights_and_one_badge() {
    let mut database = boot();
    let fewer = Rights::READ | Rights::GRANT;
    database.mint(RAM, slot(9), fewer, 0).unwrap();
    assert_eq!(database.identify(slot(9)).unwrap().rights, fewer);
    assert_eq!(
        database.mint(slot(9), slot(10), Rights::all(), 0),
        Err(Error::MoreRights)
    );
    assert_eq!(
        database.mint(slot(9), slot(10), Rights::WRITE, 0),
        Err(Error::MoreRights)
    );
    let unknown = Rights::from_bits_retain(0x80);
    assert_eq!(
        database.mint(RAM, slot(10), unknown, 0),
        Err(Error::MoreRights)
    );
    database
        .mint(slot(9), slot(10), Rights::READ, u64::MAX)
        .unwrap();
    assert_eq!(database.identify(slot(10)).unwrap().badge, u64::MAX);
    assert_eq!(
        database.mint(slot(10), slot(11), Rights::READ, 1),
        Err(Error::AlreadyBadged)
    );
    assert_eq!(
        database.mint(slot(10), slot(11), Rights::READ, u64::MAX),
        Err(Error::AlreadyBadged)
    );
    database
        .mint(slot(10), slot(11), Rights::empty(), 0)
        .unwrap();
    assert_eq!(database.identify(slot(11)).unwrap().badge, u64::MAX);
}

#[test]
fn retype_checks_kinds() {
    let mut database = boot();
    for source in [
        Kind::Frame,
        Kind::PageTable3,
        Kind::CNode,
        Kind::Dispatcher,
        Kind::Endpoint,
    ] {
        let bytes = match source {
            Kind::Dispatcher => DISPATCHER_BYTES,
            Kind::Endpoint => 64,
            _ => PAGE,
        };
        make(&mut database, RAM, what(source, 0, bytes, 1), slot(9)).unwrap();
        for result in Kind::ALL {
            if (source, result) != (Kind::Frame, Kind::Frame) {
                assert_eq!(
                    make(&mut database, slot(9), what(result, 0, bytes, 1), slot(10)),
                    Err(Error::WrongKind)
                );
            }
        }
        revoke(&mut database, RAM).unwrap();
        // The tests' memory wants to know what is a slot no more.
        let made = Capability::original(source, RAM_BASE, bytes);
        if let Some((first, count)) = made.kind.slots(made.base, made.bytes) {
            database.slots_mut().forget(SlotId(first), count);
        }
    }
    for source in [RAM, FAR, DEVICE, PORTS, CORES] {
        assert_eq!(
            make(
                &mut database,
                source,
                what(Kind::Null, 0, PAGE, 1),
                slot(10)
            ),
            Err(Error::WrongKind)
        );
    }
    assert_eq!(
        make(
            &mut database,
            RAM,
            what(Kind::DeviceFrame, 0, PAGE, 1),
            slot(10)
        ),
        Err(Error::WrongKind)
    );
    assert_eq!(
        make(
            &mut database,
            DEVICE,
            what(Kind::Frame, 0, PAGE, 1),
            slot(10)
        ),
        Err(Error::WrongKind)
    );
    make(
        &mut database,
        CORES,
        what(Kind::Core, VECTORS, VECTORS, 2),
        slot(10),
    )
    .unwrap();
    make(
        &mut database,
        slot(10),
        what(Kind::Doorbell, 0x40, 1, 1),
        slot(12),
    )
    .unwrap();
    make(
        &mut database,
        PORTS,
        what(Kind::IoPort, 0x3f8, 8, 1),
        slot(13),
    )
    .unwrap();
    assert_eq!(
        make(
            &mut database,
            PORTS,
            what(Kind::IoPort, 0x3ff, 1, 1),
            slot(14)
        ),
        Err(Error::Overlap)
    );
}

#[test]
fn retype_checks_sizes_and_counts() {
    let mut database = boot();
    let wrong = [
        (Kind::Ram, 0),
        (Kind::Ram, 64),
        (Kind::Frame, PAGE + 1),
        (Kind::Frame, u64::MAX),
        (Kind::PageTable4, 2 * PAGE),
        (Kind::CNode, SLOT_BYTES),
        (Kind::CNode, 3 * SLOT_BYTES),
        (Kind::CNode, 2 * MAX_CNODE_SLOTS * SLOT_BYTES),
        (Kind::CNode, 1 << 63),
        (Kind::Dispatcher, PAGE),
        (Kind::Endpoint, 128),
    ];
    for (kind, bytes) in wrong {
        assert_eq!(
            make(&mut database, RAM, what(kind, 0, bytes, 1), slot(9)),
            Err(Error::WrongSize)
        );
    }
    assert_eq!(
        make(&mut database, PORTS, what(Kind::IoPort, 0, 0, 1), slot(9)),
        Err(Error::WrongSize)
    );
    assert_eq!(
        make(&mut database, CORES, what(Kind::Core, 0, 255, 1), slot(9)),
        Err(Error::WrongSize)
    );
    for count in [0, MAX_OBJECTS + 1, u64::MAX] {
        assert_eq!(
            make(
                &mut database,
                RAM,
                what(Kind::Frame, 0, PAGE, count),
                slot(9)
            ),
            Err(Error::WrongCount)
        );
    }
    let half = MAX_CNODE_SLOTS / 2 * SLOT_BYTES;
    assert_eq!(
        make(&mut database, RAM, what(Kind::CNode, 0, half, 3), slot(9)),
        Err(Error::WrongCount)
    );
    make(&mut database, RAM, what(Kind::CNode, 0, half, 2), slot(9)).unwrap();
    let offset = 2 * half;
    make(
        &mut database,
        RAM,
        what(Kind::Frame, offset, PAGE, MAX_OBJECTS),
        slot(20),
    )
    .unwrap();
}

#[test]
fn retype_checks_range_and_alignment() {
    let mut database = boot();
    let outside = [
        (RAM_BYTES, 1),
        (RAM_BYTES - PAGE, 2),
        (RAM_BYTES + PAGE, 1),
        (u64::MAX, 1),
        (!(PAGE - 1), 1),
        (RAM_BASE.wrapping_neg(), 1),
    ];
    for (offset, count) in outside {
        assert_eq!(
            make(
                &mut database,
                RAM,
                what(Kind::Frame, offset, PAGE, count),
                slot(9)
            ),
            Err(Error::OutOfRange)
        );
    }
    for (bytes, count) in [(1 << 63, 2), (1 << 62, 4), (!(PAGE - 1), 256)] {
        assert_eq!(
            make(
                &mut database,
                RAM,
                what(Kind::Frame, 0, bytes, count),
                slot(9)
            ),
            Err(Error::OutOfRange)
        );
    }
    for (kind, offset, bytes) in [
        (Kind::Frame, 64, PAGE),
        (Kind::PageTable1, PAGE / 2, PAGE),
        (Kind::CNode, 128, 256),
        (Kind::Dispatcher, 512, DISPATCHER_BYTES),
        (Kind::Endpoint, 32, 64),
    ] {
        assert_eq!(
            make(&mut database, RAM, what(kind, offset, bytes, 1), slot(9)),
            Err(Error::Misaligned)
        );
    }
    assert_eq!(
        make(
            &mut database,
            CORES,
            what(Kind::Core, 1, VECTORS, 1),
            slot(9)
        ),
        Err(Error::Misaligned)
    );
    make(
        &mut database,
        RAM,
        what(Kind::Frame, RAM_BYTES - PAGE, PAGE, 1),
        slot(9),
    )
    .unwrap();
}

#[test]
fn unreachable_memory_becomes_frames_only() {
    let mut database = boot();
    make(&mut database, FAR, what(Kind::Ram, 0, 4 * PAGE, 1), slot(9)).unwrap();
    for (kind, bytes) in [
        (Kind::PageTable1, PAGE),
        (Kind::CNode, PAGE),
        (Kind::Dispatcher, DISPATCHER_BYTES),
        (Kind::Endpoint, 64),
    ] {
        for source in [FAR, slot(9)] {
            let answer = make(&mut database, source, what(kind, 0, bytes, 1), slot(10));
            assert_eq!(answer, Err(Error::Unreachable));
        }
    }
    make(
        &mut database,
        slot(9),
        what(Kind::Frame, 0, PAGE, 1),
        slot(10),
    )
    .unwrap();
    assert!(
        database
            .identify(slot(10))
            .unwrap()
            .marks
            .contains(Marks::UNREACHABLE)
    );
    // Without the mark, slots must still lie where a link can name them.
    let below = Capability::original(Kind::Ram, 0, 0x2_0000);
    database.insert(slot(11), &below).unwrap();
    for (kind, bytes) in [(Kind::CNode, PAGE), (Kind::Dispatcher, DISPATCHER_BYTES)] {
        assert_eq!(
            make(&mut database, slot(11), what(kind, 0, bytes, 1), slot(12)),
            Err(Error::Unreachable)
        );
    }
}

#[test]
fn nothing_is_made_from_a_badge() {
    let mut database = boot();
    database.mint(RAM, slot(9), Rights::all(), 7).unwrap();
    assert_eq!(
        make(
            &mut database,
            slot(9),
            what(Kind::Frame, 0, PAGE, 1),
            slot(10)
        ),
        Err(Error::Badged)
    );
}

#[test]
fn overlap_through_copies_children_and_orphans() {
    let mut database = boot();
    database.copy(RAM, slot(9)).unwrap();
    make(
        &mut database,
        RAM,
        what(Kind::Ram, 16 * PAGE, 16 * PAGE, 1),
        slot(10),
    )
    .unwrap();
    make(
        &mut database,
        slot(10),
        what(Kind::Frame, 4 * PAGE, PAGE, 1),
        slot(11),
    )
    .unwrap();
    let overlapping = [
        (16, 1),
        (15, 2),
        (31, 1),
        (31, 8),
        (8, 64),
        (20, 1),
        (24, 1),
        (0, 64),
    ];
    for (page, pages) in overlapping {
        for source in [RAM, slot(9)] {
            let frame = what(Kind::Frame, page * PAGE, pages * PAGE, 1);
            assert_eq!(
                make(&mut database, source, frame, slot(12)),
                Err(Error::Overlap)
            );
            let frames = what(Kind::Frame, page * PAGE, PAGE, pages);
            assert_eq!(
                make(&mut database, source, frames, slot(12)),
                Err(Error::Overlap)
            );
        }
    }
    // Without the Ram between, what was made from it still counts, and no more than that.
    delete(&mut database, slot(10)).unwrap();
    let around = what(Kind::Frame, 16 * PAGE, 16 * PAGE, 1);
    assert_eq!(
        make(&mut database, slot(9), around, slot(12)),
        Err(Error::Overlap)
    );
    let before = what(Kind::Frame, 16 * PAGE, PAGE, 4);
    make(&mut database, slot(9), before, slot(12)).unwrap();
    let after = what(Kind::Frame, 21 * PAGE, PAGE, 4);
    make(&mut database, slot(9), after, slot(16)).unwrap();
    // And when all of it is gone, the range is free.
    for gone in 11..20 {
        delete(&mut database, slot(gone)).unwrap();
    }
    make(&mut database, slot(9), around, slot(12)).unwrap();
}

#[test]
fn all_of_a_range_again_and_again_until_too_deep() {
    let mut database = boot();
    make(&mut database, RAM, what(Kind::Ram, 0, PAGE, 1), slot(9)).unwrap();
    let all = what(Kind::Ram, 0, PAGE, 1);
    for depth in 1..=255 {
        make(&mut database, slot(8 + depth), all, slot(9 + depth)).unwrap();
        assert_eq!(
            u64::from(database.identify(slot(9 + depth)).unwrap().depth),
            depth
        );
        assert_eq!(
            make(&mut database, slot(8 + depth), all, slot(900)),
            Err(Error::Overlap)
        );
    }
    assert_eq!(
        make(&mut database, slot(264), all, slot(900)),
        Err(Error::TooDeep)
    );
    // A child of all of it does not revoke its parent.
    revoke(&mut database, slot(100)).unwrap();
    assert!(database.identify(slot(101)).is_err());
    assert!(database.identify(slot(99)).is_ok());
    revoke(&mut database, RAM).unwrap();
    assert_eq!(database.count(), 5);
}

#[test]
fn rights_of_what_is_made() {
    let mut database = boot();
    database.mint(RAM, slot(9), Rights::READ, 0).unwrap();
    make(
        &mut database,
        slot(9),
        what(Kind::Frame, 0, PAGE, 1),
        slot(10),
    )
    .unwrap();
    let rights = database.identify(slot(10)).unwrap().rights;
    assert_eq!(rights, Rights::READ | Rights::REVOKE);
}

#[test]
fn insert_checks_what_comes_from_outside() {
    let mut database = boot();
    let mut refuse = |capability: Capability, error| {
        let before = check(&database);
        assert_eq!(
            database.insert(slot(9), &capability),
            Err(error),
            "{capability:?}"
        );
        assert_eq!(check(&database), before);
    };
    let page = RAM_BASE;
    let original = Capability::original;
    refuse(Capability::NULL, Error::WrongKind);
    refuse(original(Kind::Frame, page, 5), Error::WrongSize);
    refuse(original(Kind::Ram, 1 << 52, PAGE), Error::OutOfRange);
    refuse(
        original(Kind::Ram, (1 << 52) - PAGE, 2 * PAGE),
        Error::OutOfRange,
    );
    refuse(original(Kind::Ram, !4095, PAGE), Error::OutOfRange);
    refuse(original(Kind::Ram, PAGE, !4095), Error::OutOfRange);
    refuse(original(Kind::IoPort, 0x3f8, 1), Error::OutOfRange);
    refuse(original(Kind::Frame, page + 64, PAGE), Error::Misaligned);
    refuse(original(Kind::CNode, 0, PAGE), Error::Unreachable);
    refuse(
        original(Kind::Dispatcher, FAR_BASE, DISPATCHER_BYTES),
        Error::Unreachable,
    );
    let mut far = original(Kind::PageTable1, FAR_BASE, PAGE);
    far.marks = Marks::UNREACHABLE;
    refuse(far, Error::Unreachable);
    refuse(
        original(Kind::Ram, RAM_BASE - PAGE, 2 * PAGE),
        Error::Overlap,
    );
    refuse(
        original(Kind::Ram, RAM_BASE + RAM_BYTES - PAGE, 2 * PAGE),
        Error::Overlap,
    );
    refuse(original(Kind::DeviceFrame, page, PAGE), Error::Conflict); // not from Ram
    refuse(original(Kind::Frame, RAM_BASE, RAM_BYTES), Error::Conflict); // the same object
    refuse(original(Kind::Frame, FAR_BASE, PAGE), Error::Conflict); // not marked
    refuse(
        original(Kind::Frame, ORIGIN, PRIVATE_BYTES),
        Error::Conflict,
    ); // Ram in a Frame
    let mut far = original(Kind::Ram, RAM_BASE, RAM_BYTES);
    far.marks = Marks::UNREACHABLE;
    refuse(far, Error::Conflict);

    // A copy, a child, a grandchild before the child, a parent.
    database
        .insert(slot(9), &original(Kind::Ram, RAM_BASE, RAM_BYTES))
        .unwrap();
    assert_eq!(database.has_copies(RAM), Ok(true));
    database
        .insert(slot(10), &original(Kind::Frame, page, PAGE))
        .unwrap();
    database
        .insert(slot(11), &original(Kind::Ram, page, 2 * PAGE))
        .unwrap();
    database
        .insert(
            slot(12),
            &original(Kind::Ram, 0, 2 * ORIGIN + PRIVATE_BYTES),
        )
        .unwrap_err();
    database
        .insert(slot(12), &original(Kind::Ram, ORIGIN, PRIVATE_BYTES))
        .unwrap();
    check(&database);
    let below: Vec<_> = database.descendants(slot(12)).unwrap().collect();
    assert_eq!(below.len(), 4);
    revoke(&mut database, slot(11)).unwrap();
    assert!(database.identify(slot(10)).is_err());
}

#[test]
fn marks_survive_who_bears_them() {
    let mut database = boot();
    database.copy(RAM, slot(9)).unwrap();
    database.mint(RAM, slot(10), Rights::all(), 3).unwrap();
    for bearer in [slot(9), RAM, slot(10)] {
        database.set_shared(bearer, true).unwrap();
    }
    let frame = what(Kind::Frame, 0, PAGE, 1);
    for gone in [RAM, slot(9)] {
        for slot in [RAM, slot(9), slot(10)] {
            if database.identify(slot).is_ok() {
                assert_eq!(database.is_shared(slot), Ok(true));
            }
        }
        assert_eq!(
            make(&mut database, gone, frame, slot(20)),
            Err(Error::AskMonitor)
        );
        assert_eq!(delete(&mut database, gone), Ok(Deleted::Copy));
        check(&database);
    }
    // One without a badge comes back from another core, and stands before.
    let again = Capability::original(Kind::Ram, RAM_BASE, RAM_BYTES);
    database.insert(RAM, &again).unwrap();
    check(&database);
    assert_eq!(database.is_shared(RAM), Ok(true));
    delete(&mut database, RAM).unwrap();
    let none = &mut Recorder::default();
    assert_eq!(delete(&mut database, slot(10)), Err(Error::AskMonitor));
    assert_eq!(revoke(&mut database, slot(10)), Err(Error::AskMonitor));
    assert_eq!(
        database.delete(Caller::Monitor, slot(10), none),
        Ok(Deleted::Object)
    );
}

#[test]
fn what_other_cores_know_is_the_monitors_matter() {
    let mut database = boot();
    make(&mut database, RAM, what(Kind::Frame, 0, PAGE, 4), slot(9)).unwrap();
    database.set_shared(slot(11), true).unwrap();
    assert_eq!(revoke(&mut database, RAM), Err(Error::AskMonitor));
    // Those before it went; it and those behind stay.
    let alive = [9, 10, 11, 12].map(|index| database.identify(slot(index)).is_ok());
    assert_eq!(alive, [false, false, true, true]);
    let monitor = Caller::Monitor;
    let none = &mut Recorder::default();
    let answer = database.revoke_step(monitor, RAM, u32::MAX, none);
    assert_eq!(answer, Ok(Progress::Done));
    assert_eq!(database.count(), 5);
    database.set_shared(RAM, true).unwrap();
    let frame = what(Kind::Frame, 0, PAGE, 1);
    assert_eq!(
        make(&mut database, RAM, frame, slot(9)),
        Err(Error::AskMonitor)
    );
    database.retype(monitor, RAM, &frame, slot(9)).unwrap();
    assert_eq!(database.is_shared(slot(9)), Ok(false));
    assert_eq!(delete(&mut database, RAM), Err(Error::AskMonitor));
    assert_eq!(revoke(&mut database, RAM), Err(Error::AskMonitor));
    database.set_shared(RAM, false).unwrap();
    assert_eq!(revoke(&mut database, RAM), Ok(Progress::Done));
}

#[test]
fn who_may_not_revoke() {
    let mut database = boot();
    make(&mut database, RAM, what(Kind::Frame, 0, PAGE, 1), slot(9)).unwrap();
    let all_but = Rights::all() - Rights::REVOKE;
    database.mint(slot(9), slot(10), all_but, 0).unwrap();
    assert_eq!(revoke(&mut database, slot(10)), Err(Error::NotRevocable));
    assert_eq!(revoke(&mut database, slot(9)), Ok(Progress::Done));
    assert!(database.identify(slot(10)).is_err());
}

#[test]
fn badges_are_revoked_one_by_one() {
    let mut database = boot();
    make(&mut database, RAM, what(Kind::Endpoint, 0, 64, 1), slot(9)).unwrap();
    for index in 0..12 {
        let badge = index % 3 + 1;
        database
            .mint(slot(9), slot(10 + index), Rights::all(), badge)
            .unwrap();
    }
    database.copy(slot(10), slot(30)).unwrap();
    database.mint(slot(30), slot(31), Rights::WRITE, 0).unwrap();
    revoke(&mut database, slot(13)).unwrap(); // badge 1
    let badges: Vec<u64> = database
        .copies(slot(9))
        .unwrap()
        .map(|slot| database.identify(slot).unwrap().badge)
        .collect();
    assert_eq!(badges, [0, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
    assert!(database.identify(slot(13)).is_ok());
    revoke(&mut database, slot(9)).unwrap();
    assert_eq!(database.has_copies(slot(9)), Ok(false));
}

#[test]
fn attachments_belong_to_one_capability() {
    let mut database = boot();
    make(&mut database, RAM, what(Kind::Frame, 0, PAGE, 1), slot(9)).unwrap();
    database.attach(slot(9), 0x1234_5001, 7).unwrap();
    database.copy(slot(9), slot(10)).unwrap();
    database.mint(slot(9), slot(11), Rights::READ, 4).unwrap();
    database.move_to(slot(9), slot(12)).unwrap();
    assert_eq!(database.identify(slot(9)).err(), Some(Error::EmptySlot));
    let attachment = |index| {
        let capability = database.identify(slot(index)).unwrap();
        (capability.attachment, capability.attachment_detail)
    };
    assert_eq!(
        [10, 11, 12].map(attachment),
        [(0, 0), (0, 0), (0x1234_5001, 7)]
    );
    let mut told = Recorder::default();
    database.delete(Caller::User, slot(12), &mut told).unwrap();
    let [Event::Gone(gone, capability)] = told.events[..] else {
        panic!("{:?}", told.events);
    };
    assert_eq!((gone, capability.attachment), (slot(12), 0x1234_5001));
}

/// CNodes in CNodes in CNodes: as many as fit, with nothing but the outermost left to
/// name. Emptying them needs no stack and no more than its budget.
#[test]
fn a_chain_of_containers_goes_in_bounded_steps() {
    let mut database = boot();
    let depth = 2_000;
    make(&mut database, RAM, what(Kind::CNode, 0, 128, 1), slot(9)).unwrap();
    let mut at = slot(9);
    for index in 1..depth {
        let inner = database.identify(at).unwrap();
        let own = SlotId(inner.base + SLOT_BYTES);
        let cnode = what(Kind::CNode, index * 128, 128, 1);
        database.retype(Caller::User, RAM, &cnode, own).unwrap();
        at = own;
    }
    let all = database.count();
    assert_eq!(delete(&mut database, slot(9)), Ok(Deleted::Container));
    assert!(database.needs_cleaning());
    // Its capability is in its own first slot now, of no use to anybody.
    let own = SlotId(RAM_BASE);
    assert_eq!(database.identify(own).err(), Some(Error::EmptySlot));
    assert_eq!(database.copy(own, slot(10)), Err(Error::EmptySlot));
    assert_eq!(delete(&mut database, own), Err(Error::EmptySlot));
    assert_eq!(database.copy(RAM, own), Err(Error::OccupiedSlot));
    assert_eq!(database.object_at(RAM_BASE), None);
    let frame = what(Kind::Frame, 0, PAGE, 1);
    assert_eq!(
        make(&mut database, RAM, frame, slot(10)),
        Err(Error::Overlap)
    );
    let mut steps = 0;
    let mut told = Recorder::default();
    while database.clean_step(3, &mut told) == Progress::More {
        steps += 1;
        check(&database);
    }
    assert!(steps >= depth / 3);
    assert_eq!(database.count(), all - depth);
    let emptied = told
        .events
        .iter()
        .filter(|event| matches!(event, Event::Emptied(_)));
    assert_eq!(emptied.count() as u64, depth);
    make(&mut database, RAM, frame, slot(10)).unwrap();
}

/// A container goes, and takes with it the capability whose revoke is under way.
#[test]
fn revoking_from_within() {
    let mut database = boot();
    make(
        &mut database,
        RAM,
        what(Kind::Ram, 0, 16 * PAGE, 1),
        slot(9),
    )
    .unwrap();
    make(
        &mut database,
        slot(9),
        what(Kind::CNode, 0, PAGE, 1),
        slot(10),
    )
    .unwrap();
    make(
        &mut database,
        slot(9),
        what(Kind::Dispatcher, PAGE, DISPATCHER_BYTES, 1),
        slot(11),
    )
    .unwrap();
    let inside = SlotId(RAM_BASE + 5 * SLOT_BYTES);
    let dispatcher_slot = SlotId(RAM_BASE + PAGE + DISPATCHER_BYTES - SLOT_BYTES);
    database.move_to(slot(9), inside).unwrap();
    database.move_to(slot(10), dispatcher_slot).unwrap();
    assert_eq!(DISPATCHER_SLOTS, 8);
    let mut told = Recorder::default();
    let mut steps = 0;
    let answer = loop {
        steps += 1;
        match database.revoke_step(Caller::User, inside, 2, &mut told) {
            Ok(Progress::More) => {}
            answer => break answer,
        }
        check(&database);
    };
    assert!(
        matches!(answer, Ok(Progress::Done) | Err(Error::EmptySlot)),
        "{answer:?}"
    );
    assert!(steps > 2);
    while database.clean_step(2, &mut told) == Progress::More {}
    // The CNode went first, and the revoke with it: the dispatcher stays, for those above.
    assert_eq!(database.count(), 6);
    assert_eq!(revoke(&mut database, RAM), Ok(Progress::Done));
    assert_eq!(database.count(), 5);
    check(&database);
}

/// Copies before and behind, copies of what was made, a container in between: one capability
/// or slot a step, in order, and the source of all is left as it was.
#[test]
fn revoking_both_sides_one_by_one() {
    for target in [RAM, slot(10), slot(11)] {
        let mut database = boot();
        for index in 10..12 {
            database.copy(RAM, slot(index)).unwrap();
        }
        make(&mut database, RAM, what(Kind::Frame, 0, PAGE, 2), slot(20)).unwrap();
        database.copy(slot(20), slot(22)).unwrap();
        database.copy(slot(20), slot(23)).unwrap();
        let cnode = what(Kind::CNode, 2 * PAGE, 8 * SLOT_BYTES, 1);
        make(&mut database, RAM, cnode, slot(24)).unwrap();
        let held = SlotId(RAM_BASE + 2 * PAGE + SLOT_BYTES);
        database.copy(slot(21), held).unwrap();
        make(
            &mut database,
            RAM,
            what(Kind::Frame, 3 * PAGE, PAGE, 1),
            slot(25),
        )
        .unwrap();

        let whole = database.identify(target).unwrap();
        let mut recorder = Recorder::default();
        let mut steps = 0;
        while database.revoke_step(Caller::User, target, 1, &mut recorder) == Ok(Progress::More) {
            check(&database);
            steps += 1;
        }
        check(&database);
        // 2 copies, 6 that were made or copied below, one in the container, which is 7 slots.
        assert!((9..=2 + 7 + 7).contains(&steps), "{steps}");
        assert_eq!(database.identify(target), Ok(whole));
        assert_eq!(database.count(), 5);
        let objects = |event: &&Event| matches!(event, Event::Object(_));
        assert_eq!(recorder.events.iter().filter(objects).count(), 4);
        let gone = |event: &&Event| matches!(event, Event::Gone(..));
        assert_eq!(recorder.events.iter().filter(gone).count(), 2 + 7);
    }
}

#[test]
fn the_monitor_inherits_what_other_cores_know() {
    let mut database = boot();
    make(&mut database, RAM, what(Kind::CNode, 0, PAGE, 1), slot(9)).unwrap();
    let inside = SlotId(RAM_BASE + 5 * SLOT_BYTES);
    make(&mut database, RAM, what(Kind::Frame, PAGE, PAGE, 1), inside).unwrap();
    database.set_shared(inside, true).unwrap();
    assert_eq!(delete(&mut database, slot(9)), Ok(Deleted::Container));
    let mut told = Recorder::default();
    assert_eq!(database.clean_step(u32::MAX, &mut told), Progress::Blocked);
    check(&database);
    told.inbox.push(RAM); // not empty, so of no use
    assert_eq!(database.clean_step(u32::MAX, &mut told), Progress::Blocked);
    told.inbox.push(slot(50));
    assert_eq!(database.clean_step(u32::MAX, &mut told), Progress::Done);
    assert_eq!(database.is_shared(slot(50)), Ok(true));
    assert_eq!(database.identify(slot(50)).unwrap().base, RAM_BASE + PAGE);
    check(&database);
}

/// A slot that holds one waits for the monitor; one from which another took it is as good as new.
#[test]
fn what_the_monitor_inherits_comes_one_by_one() {
    let mut database = boot();
    make(&mut database, RAM, what(Kind::CNode, 0, PAGE, 1), slot(9)).unwrap();
    for index in 1..=3 {
        let inside = SlotId(RAM_BASE + index * SLOT_BYTES);
        make(
            &mut database,
            RAM,
            what(Kind::Frame, index * PAGE, PAGE, 1),
            inside,
        )
        .unwrap();
        database.set_shared(inside, true).unwrap();
    }
    assert_eq!(delete(&mut database, slot(9)), Ok(Deleted::Container));
    let mut told = Recorder::default();
    for index in 1..=3 {
        told.inbox = vec![slot(50)];
        let progress = database.clean_step(u32::MAX, &mut told);
        let [more, done] = [Progress::Blocked, Progress::Done];
        assert_eq!(progress, if index < 3 { more } else { done });
        let whose = database.identify(slot(50)).unwrap();
        assert_eq!(whose.base, RAM_BASE + index * PAGE);
        told.inbox = vec![slot(50)];
        assert_eq!(database.clean_step(u32::MAX, &mut told), progress);
        let taken = database.remove_step(&whose, u32::MAX, &mut told);
        assert_eq!(taken, Progress::Done);
        check(&database);
    }
    assert!(!database.needs_cleaning());
}

#[test]
fn a_full_container_is_an_error_and_nothing_else() {
    let mut database = boot();
    let mut index = 6;
    while index < 1024 {
        let offset = (index % 400) * PAGE;
        let answer = make(
            &mut database,
            RAM,
            what(Kind::Frame, offset, PAGE, 1),
            slot(index),
        );
        if answer.is_err() {
            database.copy(RAM, slot(index)).unwrap();
        }
        index += 1;
    }
    for index in 6..1024 {
        assert_eq!(database.copy(RAM, slot(index)), Err(Error::OccupiedSlot));
        let endpoint = what(Kind::Endpoint, RAM_BYTES - 64, 64, 1);
        assert_eq!(
            database.retype(Caller::User, RAM, &endpoint, slot(index)),
            Err(Error::OccupiedSlot)
        );
    }
    assert_eq!(revoke(&mut database, RAM), Ok(Progress::Done));
    assert_eq!(database.count(), 5);
}

#[test]
fn kinds_by_number() {
    for kind in Kind::ALL {
        assert_eq!(Kind::from_code(kind as u64), Some(kind));
    }
    for code in [0, 15, 256, 257, u64::MAX] {
        assert_eq!(Kind::from_code(code), None);
    }
    // What may be made in two steps may be made in one.
    for (a, b, c) in Kind::ALL.into_iter().flat_map(|a| {
        Kind::ALL
            .into_iter()
            .flat_map(move |b| Kind::ALL.into_iter().map(move |c| (a, b, c)))
    }) {
        assert!(!(a.may_become(b) && b.may_become(c)) || a.may_become(c));
        assert!(!a.may_become(b) || a.resource() == b.resource());
    }
}

/// Many capabilities: the tree stays balanced, and steps of a revoke end.
#[test]
fn many_capabilities() {
    let mut database = boot();
    let (cnode_slots, per_cnode) = (MAX_CNODE_SLOTS, MAX_CNODE_SLOTS * SLOT_BYTES);
    let mut slots = Vec::new();
    for index in 0..4 {
        let cnode = what(Kind::CNode, index * per_cnode, per_cnode, 1);
        make(&mut database, RAM, cnode, slot(10 + index)).unwrap();
        let first = RAM_BASE + index * per_cnode;
        slots.extend((1..cnode_slots).map(|index| SlotId(first + index * SLOT_BYTES)));
    }
    make(&mut database, FAR, what(Kind::Ram, 0, 1 << 29, 1), slot(20)).unwrap();
    // Page frames in an order that hops about.
    let pages = slots.len() as u64;
    for (index, destination) in slots.iter().enumerate() {
        let page = index as u64 * 7_919 % pages;
        let frame = what(Kind::Frame, page * PAGE, PAGE, 1);
        database
            .retype(Caller::User, slot(20), &frame, *destination)
            .unwrap();
    }
    check(&database);
    for (index, victim) in slots.iter().enumerate().filter(|(index, _)| index % 3 == 0) {
        assert_eq!(delete(&mut database, *victim), Ok(Deleted::Object));
        if index % 999 == 0 {
            check(&database);
        }
    }
    let below = database.descendants(slot(20)).unwrap().count() as u32;
    let mut steps = 0;
    let none = &mut Recorder::default();
    while database.revoke_step(Caller::User, slot(20), 100, none) == Ok(Progress::More) {
        steps += 1;
        if steps % 16 == 0 {
            check(&database);
        }
    }
    assert_eq!(steps, (below - 1) / 100);
    assert_eq!(database.count(), 5 + 4 + 1);
    check(&database);
}

#[test]
fn what_there_is_of_an_object() {
    let mut database = boot();
    let ram = database.identify(RAM).expect("the RAM");
    let whole = |kind, bytes, depth| Capability {
        depth,
        ..Capability::original(kind, RAM_BASE, bytes)
    };
    let frame = whole(Kind::Frame, PAGE, 0);
    assert_eq!(database.find(&ram), Some(RAM));
    assert!(!database.has_parts(&ram));
    assert_eq!(database.find(&frame), None);
    assert!(!database.is_used(RAM_BASE, PAGE));

    let what = what(Kind::Frame, 0, PAGE, 1);
    assert_eq!(make(&mut database, RAM, what, slot(10)), Ok(()));
    assert_eq!(database.find(&frame), Some(slot(10)));
    assert_eq!(
        database.find(&whole(Kind::Ram, PAGE, 0)),
        None,
        "of another kind"
    );
    assert_eq!(
        database.find(&whole(Kind::Frame, PAGE, 1)),
        None,
        "of another depth"
    );
    assert!(database.has_parts(&ram));
    assert!(!database.has_parts(&frame));
    assert!(database.is_used(RAM_BASE, PAGE));
    assert!(database.is_used(RAM_BASE, 2 * PAGE));
    assert!(!database.is_used(RAM_BASE + PAGE, PAGE));

    // One of the same range as what it was made of.
    assert_eq!(make(&mut database, slot(10), what, slot(11)), Ok(()));
    assert!(database.has_parts(&frame));
    assert_eq!(database.find(&whole(Kind::Frame, PAGE, 1)), Some(slot(11)));
    assert_eq!(delete(&mut database, slot(10)), Ok(Deleted::Object));
    assert_eq!(database.find(&frame), None);
    assert!(
        database.has_parts(&frame),
        "what was made of it is there still"
    );

    assert!(database.is_covered(RAM_BASE, RAM_BASE + RAM_BYTES));
    assert!(!database.is_covered(RAM_BASE, RAM_BASE + RAM_BYTES + 1));
    assert!(!database.is_covered(ORIGIN, ORIGIN + PAGE));
    assert!(!database.is_covered(ORIGIN, RAM_BASE + PAGE));
    assert!(!database.is_covered(RAM_BASE, RAM_BASE));
}

#[test]
fn an_object_that_is_not_here_goes_with_its_parts() {
    let mut database = boot();
    let mut recorder = Recorder::default();
    let pages = what(Kind::Frame, 0, 4 * PAGE, 2);
    assert_eq!(make(&mut database, RAM, pages, slot(10)), Ok(()));
    let page = what(Kind::Frame, 0, PAGE, 3);
    assert_eq!(make(&mut database, slot(10), page, slot(20)), Ok(()));
    assert_eq!(database.copy(slot(20), slot(30)), Ok(()));
    let before = database.count();
    let object = database.identify(slot(10)).expect("a frame");
    // Others know a part, and the monitor has asked them.
    assert_eq!(database.set_shared(slot(21), true), Ok(()));
    assert_eq!(delete(&mut database, slot(10)), Ok(Deleted::Object));
    assert_eq!(
        database.remove_step(&object, 3, &mut recorder),
        Progress::More
    );
    check(&database);
    assert_eq!(
        database.remove_step(&object, 3, &mut recorder),
        Progress::Done
    );
    check(&database);
    assert_eq!(database.count(), before - 5);
    assert!(!database.is_used(object.base, object.bytes));
    assert!(database.identify(slot(11)).is_ok(), "its neighbour stays");
    assert_eq!(database.identify(RAM).map(|ram| ram.bytes), Ok(RAM_BYTES));
    assert_eq!(
        database.remove_step(&object, 0, &mut recorder),
        Progress::Done
    );
}
