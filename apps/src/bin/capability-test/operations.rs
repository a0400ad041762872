//! Copy, mint, move, delete, identify.

use crate::bench::{Ground, OF_RAM, Outcome, Row, ask, discard, look, mint, size};
use abi::capability::MAX_CNODE_SLOTS;
use abi::layout::PAGE;
use abi::syscall;
use alloc::{format, vec};
use rt::capability::{
    self, Address, FIRST_CNODE_SLOTS, Identity, Kind, OWN_DOORBELL, ROOT_CNODE, Result, Rights,
};
use rt::memory;
use rt::system_call::Error;

/// Pages of the RAM.
const PAGES: u64 = 32;

/// What each operation does to an object of each kind.
pub fn all(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(PAGES * PAGE)?;
    let base = capability::identify(ground.ram)?.base;
    let row = Row::take(5)?;
    let [one, two, three, four] = [0, 1, 2, 3].map(|number| row.at(number));
    for kind in OF_RAM {
        let what = |text: &str| format!("{kind:?}: {text}");
        ground.make_in(kind, 4 * PAGE, size(kind), 1, one)?;
        let expected = Identity {
            kind,
            rights: Rights::all(),
            base: base + 4 * PAGE,
            bytes: size(kind),
            depth: 0,
            badge: 0,
            entries: 0,
            is_unreachable: false,
            is_unclean: false,
            is_shared: false,
        };
        let is = |slot| capability::identify(slot);
        outcome.expect(&what("made"), &is(one), &Ok(expected));

        // Copies are alike.
        outcome.expect(&what("copy"), &capability::copy(one, two), &Ok(()));
        outcome.expect(
            &what("copy of a copy"),
            &capability::copy(two, three),
            &Ok(()),
        );
        let found = look(&[one, two, three]);
        outcome.expect(&what("copies"), &found, &vec![Ok(expected); 3]);

        // Minted ones differ in what was asked for; copies of them are as they are.
        let rights = Rights::READ | Rights::GRANT;
        let badge = u64::MAX - 7;
        row_empty(outcome, &what("a slot"), four);
        let minted = capability::mint(two, four, rights, badge);
        outcome.expect(&what("mint"), &minted, &Ok(()));
        let lot = Identity {
            rights,
            badge,
            ..expected
        };
        outcome.expect(&what("minted"), &is(four), &Ok(lot));
        outcome.expect(
            &what("copy of a lot"),
            &capability::copy(four, row.at(4)),
            &Ok(()),
        );
        outcome.expect(&what("a lot"), &is(row.at(4)), &Ok(lot));
        capability::delete(row.at(4))?;
        let less = mint(four, row.at(4), Rights::READ);
        outcome.expect(&what("mint of a lot"), &less, &Ok(()));
        let rights = Rights::READ;
        let less = Identity { rights, ..lot };
        outcome.expect(&what("less of a lot"), &is(row.at(4)), &Ok(less));
        capability::delete(row.at(4))?;

        // Badges are for ever, and nothing is made of what has one.
        let watched = row.slots();
        for badge in [1, badge, u64::MAX] {
            outcome.refuse(
                &what("a second badge"),
                &watched,
                Error::AlreadyBadged,
                || capability::mint(four, row.at(4), Rights::READ, badge),
            );
        }
        outcome.refuse(&what("made of a lot"), &watched, Error::Badged, || {
            capability::retype(four, &Ground::what(kind, 0, size(kind), 1), row.at(4))
        });
        for destination in [one, two] {
            outcome.refuse(&what("move onto"), &watched, Error::OccupiedSlot, || {
                capability::move_to(two, destination)
            });
        }

        // A move leaves nothing behind, and changes nothing else.
        outcome.expect(&what("move"), &capability::move_to(two, row.at(4)), &Ok(()));
        row_empty(outcome, &what("moved from"), two);
        let found = look(&[one, row.at(4), three, four]);
        let expected = [Ok(expected), Ok(expected), Ok(expected), Ok(lot)];
        outcome.expect(&what("after a move"), &found, &expected.to_vec());

        // The object is there as long as one is left, whichever that is.
        let place = Ground::what(Kind::Ram, 4 * PAGE, PAGE, 1);
        for slot in [one, three, row.at(4)] {
            outcome.expect(&what("delete"), &capability::delete(slot), &Ok(()));
            row_empty(outcome, &what("deleted"), slot);
            outcome.refuse(&what("delete twice"), &watched, Error::EmptySlot, || {
                capability::delete(slot)
            });
            outcome.refuse(&what("in its place"), &watched, Error::Overlap, || {
                capability::retype(ground.ram, &place, two)
            });
        }
        outcome.expect(&what("the last delete"), &capability::delete(four), &Ok(()));
        outcome.expect(
            &what("its place"),
            &ground.make_in(Kind::Ram, 4 * PAGE, PAGE, 1, two),
            &Ok(()),
        );
        capability::delete(two)?;
    }

    // A doorbell: of the kinds that are not memory, the one that a program has.
    let own = capability::identify(OWN_DOORBELL)?;
    capability::copy(OWN_DOORBELL, one)?;
    outcome.expect("a doorbell", &capability::identify(one), &Ok(own));
    capability::move_to(one, two)?;
    outcome.expect("a doorbell moved", &capability::identify(two), &Ok(own));
    row.give()?;
    ground.free()
}

fn row_empty(outcome: &mut Outcome, what: &str, slot: Address) {
    outcome.expect_empty(what, [slot]);
}

/// From one slot to another.
type Transfer = fn(Address, Address) -> Result;
/// The same with the destination below a root.
type TransferTo = fn(Address, Address, Address) -> Result;

const TRANSFERS: [(&str, Transfer); 4] = [
    ("copy", capability::copy),
    ("mint", |source, slot| mint(source, slot, Rights::READ)),
    ("move", capability::move_to),
    ("retype", |source, slot| {
        capability::retype(source, &Ground::what(Kind::Frame, 0, PAGE, 1), slot)
    }),
];

const TRANSFERS_TO: [(&str, TransferTo); 4] = [
    ("copy_to", capability::copy_to),
    ("mint_to", |source, root, slot| {
        capability::mint_to(source, root, slot, Rights::READ, 0)
    }),
    ("move_into", capability::move_into),
    ("retype_to", |source, root, slot| {
        capability::retype_to(source, &Ground::what(Kind::Frame, 0, PAGE, 1), root, slot)
    }),
];

/// Calls about one slot.
const LOOKS: [(&str, u64); 4] = [
    ("identify", syscall::IDENTIFY),
    ("delete", syscall::DELETE),
    ("revoke", syscall::REVOKE),
    ("clean", syscall::CLEAN),
];

/// Slots that are none, slots that are empty or full and should not be, roots that are none.
pub fn addresses(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(PAGES * PAGE)?;
    let row = Row::take(6)?;
    let [source, full, empty, weak, below, other] = [0, 1, 2, 3, 4, 5].map(|n| row.at(n));
    ground.make_in(Kind::Frame, 0, PAGE, 1, source)?;
    ground.make_in(Kind::Frame, PAGE, PAGE, 1, full)?;
    // In the last slot of the root CNode, something that is no CNode.
    let last = FIRST_CNODE_SLOTS - 1;
    let in_root = Address::new(1, last);
    capability::copy(source, in_root)?;

    let no_slots = [
        Address(0),
        Address(1),
        Address::new(1, 0),
        Address::new(2, 0),
        Address::new(2, FIRST_CNODE_SLOTS),
        Address::new(2, MAX_CNODE_SLOTS - 1),
        Address::new(last - 1, 1),
        Address::new(last, 1),
        Address::new(FIRST_CNODE_SLOTS, 1),
        Address::new(1 << 32, 1),
        Address::new(1 << 46, 1),
        Address::new(1 << 51, 1),
        Address(u64::MAX),
    ];
    let watched = [source, full, empty, weak, below, other, in_root];
    for (name, transfer) in TRANSFERS {
        for slot in no_slots {
            let what = format!("{name} from {slot:x?}");
            outcome.refuse(&what, &watched, Error::NoSuchSlot, || transfer(slot, empty));
            let what = format!("{name} to {slot:x?}");
            outcome.refuse(&what, &watched, Error::NoSuchSlot, || {
                transfer(source, slot)
            });
        }
        let what = format!("{name} of nothing");
        outcome.refuse(&what, &watched, Error::EmptySlot, || transfer(empty, other));
        for slot in [full, source, in_root] {
            let what = format!("{name} onto something");
            outcome.refuse(&what, &watched, Error::OccupiedSlot, || {
                transfer(source, slot)
            });
        }
    }
    for (name, number) in LOOKS {
        for slot in no_slots {
            let what = format!("{name} of {slot:x?}");
            outcome.refuse(&what, &watched, Error::NoSuchSlot, || {
                ask(number, [slot.0, 0, 0, 0, 0, 0])
            });
        }
        let what = format!("{name} of nothing");
        outcome.refuse(&what, &watched, Error::EmptySlot, || {
            ask(number, [empty.0, 0, 0, 0, 0, 0])
        });
    }

    // Roots: one below which slot (5, 1) is, and what is none.
    let root = ground.make(Kind::CNode, 2 * PAGE, PAGE)?;
    let leaf = ground.make(Kind::CNode, 3 * PAGE, 128)?;
    mint(root, weak, Rights::all() - Rights::WRITE)?;
    // A root CNode finds itself in its first slot, if somebody puts it there.
    capability::copy(root, Address::new(1, last - 1))?;
    capability::copy(leaf, Address::new(last - 1, 5))?;
    capability::delete(Address::new(1, last - 1))?;
    let place = Address::new(5, 1);
    for (name, transfer) in TRANSFERS_TO {
        for (which, root, error) in [
            ("nothing", empty, Error::EmptySlot),
            ("a frame", full, Error::WrongKind),
            ("no right to write", weak, Error::NotAllowed),
            ("no slot", Address(1), Error::NoSuchSlot),
        ] {
            let what = format!("{name}: root: {which}");
            outcome.refuse(&what, &watched, error, || transfer(source, root, place));
        }
        for slot in [Address::new(5, 2), Address::new(4, 1), Address::new(5, 0)] {
            let what = format!("{name}: {slot:x?} below a root");
            outcome.refuse(&what, &watched, Error::NoSuchSlot, || {
                transfer(source, root, slot)
            });
        }
        let before = capability::identify(source);
        let done = transfer(source, root, place);
        outcome.expect(&format!("{name}: below a root"), &done, &Ok(()));
        let found = capability::identify_in(root, place).map(|found| (found.kind, found.bytes));
        outcome.expect(&format!("{name}: there"), &found, &Ok((Kind::Frame, PAGE)));
        if name == "move_into" {
            outcome.expect_empty("moved below a root", [source]);
            let back = capability::copy_from(root, place, source);
            outcome.expect("copied back", &back, &Ok(()));
        }
        outcome.expect(name, &capability::identify(source), &before);
        outcome.refuse(
            &format!("{name}: again"),
            &watched,
            Error::OccupiedSlot,
            || transfer(source, root, place),
        );
        // Seen from here it is behind two more steps than an address has.
        capability::copy(leaf, Address::new(1, last - 1))?;
        capability::delete(Address::new(last - 1, 1))?;
        capability::delete(Address::new(1, last - 1))?;
        let found = capability::identify_in(root, place).map(|found| found.kind);
        outcome.expect(&format!("{name}: gone"), &found, &Err(Error::EmptySlot));
        let back = capability::copy_from(root, place, empty);
        outcome.expect("copy of nothing from below", &back, &Err(Error::EmptySlot));
    }
    for (which, root, error) in [
        ("nothing", empty, Error::EmptySlot),
        ("a frame", full, Error::WrongKind),
        ("no right to write", weak, Error::NotAllowed),
    ] {
        let what = format!("copy_from: root: {which}");
        outcome.refuse(&what, &watched, error, || {
            capability::copy_from(root, place, empty)
        });
        let what = format!("identify_in: root: {which}");
        outcome.refuse(&what, &watched, error, || {
            capability::identify_in(root, place)
        });
    }
    // The caller's own root, by its capability.
    let own = capability::identify_in(ROOT_CNODE, source);
    outcome.expect("the own root", &own, &capability::identify(source));
    capability::delete(in_root)?;
    discard(leaf)?;
    discard(root)?;
    row.give()?;
    ground.free()
}

/// All rights that may be held, and all that may be asked for.
pub fn rights(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(PAGE)?;
    let frame = ground.make(Kind::Frame, 0, PAGE)?;
    let row = Row::take(2)?;
    let (held, asked) = (row.at(0), row.at(1));
    let all = Rights::all().bits();
    for has in 0..=all {
        mint(frame, held, Rights::from_bits_truncate(has))?;
        for wants in 0..=all {
            let minted = mint(held, asked, Rights::from_bits_truncate(wants));
            let expected = match wants & !has {
                0 => Ok(()),
                _ => Err(Error::MoreRights),
            };
            let what = format!("rights {wants:#x} out of {has:#x}");
            outcome.expect(&what, &minted, &expected);
            let found = capability::identify(asked).map(|found| found.rights.bits());
            let expected = expected.map(|()| wants);
            let expected = expected.map_err(|_| Error::EmptySlot);
            outcome.expect(&what, &found, &expected);
            if minted.is_ok() {
                capability::delete(asked)?;
            }
        }
        let revocable = has & Rights::REVOKE.bits() != 0;
        let expected = match revocable {
            true => Ok(()),
            false => Err(Error::NotRevocable),
        };
        // Who may not, takes nothing away.
        if !revocable {
            outcome.refuse("a revoke", &[frame, held], Error::NotRevocable, || {
                capability::revoke(held)
            });
        } else {
            outcome.expect("a revoke", &capability::revoke(held), &expected);
            outcome.expect_empty("what was revoked", [frame]);
            capability::copy(held, asked)?;
            ground.clear()?;
            outcome.expect_empty("what was revoked from above", [held, asked]);
            ground.make_in(Kind::Frame, 0, PAGE, 1, frame)?;
            continue;
        }
        capability::delete(held)?;
    }
    for bits in [1 << 5, 1 << 7, 0x100, 1 << 63, u64::MAX] {
        outcome.refuse("no such rights", &[frame, held], Error::BadArgument, || {
            ask(syscall::MINT, [frame.0, held.0, bits, 0, 0, 0])
        });
    }
    row.give()?;
    discard(frame)?;
    ground.free()
}
