//! Frames that take several calls to zero.

use crate::bench::{Ground, OF_RAM, Outcome, Row, ask, discard, mint};
use crate::contents::{fill, is_zero};
use abi::layout::PAGE;
use abi::syscall::{self, CLEAN_BYTES};
use rt::capability::{
    self, Address, ENDPOINT_BYTES, Kind, OWN_DOORBELL, OWN_SPACE, ROOT_CNODE, Result, Rights,
};
use rt::space::{MapError, rights};
use rt::system_call::Error;
use rt::{lrpc, memory, space};

/// Bytes of what is zeroed by three calls.
const BYTES: u64 = 2 * CLEAN_BYTES + 3 * PAGE;
/// Where nothing of this program is.
const AREA: u64 = 0x1200_0000_0000;

/// Makes frames and leaves them as they are; whether they are to be zeroed.
fn make(ram: Address, offset: u64, bytes: u64, count: u64, slot: Address) -> Result<bool> {
    let what = Kind::Frame as u64 | count << 8;
    let arguments = [ram.0, slot.0, what, offset, bytes, 0];
    ask(syscall::RETYPE, arguments).map(|results| results[0] == 1)
}

/// Zeroes a part; returns how much is left.
fn clean(frame: Address) -> Result<u64> {
    ask(syscall::CLEAN, [frame.0, 0, 0, 0, 0, 0]).map(|results| results[0])
}

/// Tries to map a page where there is no table.
fn map(frame: Address) -> core::result::Result<(), MapError> {
    // SAFETY: nothing of this program is there, and nothing else refers to the frame.
    unsafe { space::map(OWN_SPACE, AREA, frame, 0, 1, rights::READ) }
}

pub fn large(outcome: &mut Outcome) -> memory::Result {
    let ground = Ground::new(BYTES + 2 * PAGE)?;
    let row = Row::take(4)?;
    let [frame, second, third] = [0, 1, 2].map(|number| row.at(number));
    let mut watched = row.slots();
    watched.push(ground.ram);
    let endpoint = ground.make(Kind::Endpoint, BYTES + PAGE, ENDPOINT_BYTES)?;
    let is_unclean = |slot| capability::identify(slot).map(|found| found.is_unclean);
    let soil = || -> memory::Result {
        ground.make_in(Kind::Frame, 0, BYTES, 1, frame)?;
        fill(frame)?;
        Ok(capability::delete(frame)?)
    };

    // Up to what one call zeroes, frames come clean.
    for (bytes, count, unclean) in [
        (PAGE, 1, false),
        (CLEAN_BYTES, 1, false),
        (CLEAN_BYTES / 2, 2, false),
        (CLEAN_BYTES + PAGE, 1, true),
        (CLEAN_BYTES / 2 + PAGE, 2, true),
    ] {
        soil()?;
        let what = alloc::format!("{count} frames of {bytes:#x} bytes");
        let made = make(ground.ram, 0, bytes, count, frame);
        outcome.expect(&what, &made, &Ok(unclean));
        for number in 0..count {
            let slot = frame.plus(number);
            outcome.expect(&what, &is_unclean(slot), &Ok(unclean));
            if unclean {
                outcome.refuse(&what, &watched, Error::Unclean, || {
                    capability::copy(slot, third)
                });
                while clean(slot)? > 0 {}
            }
            outcome.expect(&what, &is_unclean(slot), &Ok(false));
            outcome.expect(&what, &is_zero(slot), &Ok(true));
        }
        row.clear()?;
    }

    // As long as it is not zeroed, it can be deleted and moved and nothing else.
    for cleaned in 0..3 {
        soil()?;
        outcome.expect(
            "a large frame",
            &make(ground.ram, 0, BYTES, 1, frame),
            &Ok(true),
        );
        for call in 1..=cleaned {
            outcome.expect("bytes left", &clean(frame), &Ok(BYTES - call * CLEAN_BYTES));
        }
        let part = Ground::what(Kind::Frame, 0, PAGE, 1);
        for slot in [frame, second] {
            let refusals: [(&str, &dyn Fn() -> Result); 7] = [
                ("copy", &|| capability::copy(slot, third)),
                ("mint", &|| mint(slot, third, Rights::READ)),
                ("mint of nothing", &|| mint(slot, third, Rights::empty())),
                ("retype", &|| capability::retype(slot, &part, third)),
                ("map", &|| map(slot).map_err(Error::from)),
                ("unmap", &|| space::unmap(slot).map(|_| ())),
                ("give", &|| {
                    lrpc::call_give(endpoint, [0; 4], slot).map(|_| ())
                }),
            ];
            for (what, call) in refusals {
                outcome.refuse(what, &watched, Error::Unclean, call);
            }
            outcome.refuse("protect", &watched, Error::NotMapped, || {
                space::protect(slot, 0, rights::READ)
            });
            if slot == frame {
                outcome.expect("move", &capability::move_to(frame, second), &Ok(()));
                outcome.expect("moved", &is_unclean(second), &Ok(true));
            }
        }
        // A revoke finds nothing to take away.
        outcome.expect("revoke", &capability::revoke(second), &Ok(()));
        outcome.expect("still unclean", &is_unclean(second), &Ok(true));
        // Where it is now, the rest is zeroed.
        for call in cleaned + 1..=3 {
            let left = BYTES.saturating_sub(call * CLEAN_BYTES);
            outcome.expect("bytes left", &clean(second), &Ok(left));
            outcome.expect("unclean", &is_unclean(second), &Ok(left > 0));
        }
        outcome.expect("nothing left", &clean(second), &Ok(0));
        let mapped = map(second);
        outcome.expect("map", &mapped, &Err(MapError::NeedTable(3)));
        outcome.expect("all of it", &is_zero(second), &Ok(true));
        // Once it is, what is in it stays, whoever cleans.
        fill(second)?;
        outcome.expect("nothing to do", &clean(second), &Ok(0));
        outcome.expect("what was written", &is_zero(second), &Ok(false));
        outcome.expect("copy", &capability::copy(second, third), &Ok(()));
        outcome.expect("clean of a copy", &clean(third), &Ok(0));
        outcome.expect("a part", &capability::retype(second, &part, frame), &Ok(()));
        outcome.expect("a part keeps it", &is_zero(frame), &Ok(false));
        row.clear()?;
    }

    // What goes half zeroed leaves nothing behind.
    for cleaned in 0..3 {
        soil()?;
        make(ground.ram, 0, BYTES, 1, frame)?;
        for _ in 0..cleaned {
            clean(frame)?;
        }
        outcome.expect("delete", &capability::delete(frame), &Ok(()));
        let (first, last) = (0, BYTES - PAGE);
        for offset in [first, CLEAN_BYTES, last] {
            outcome.expect(
                "a page of it",
                &make(ground.ram, offset, PAGE, 1, second),
                &Ok(false),
            );
            outcome.expect("a page of it", &is_zero(second), &Ok(true));
            capability::delete(second)?;
        }
    }

    // Below another root nobody here could zero it; the runtime does not even ask.
    soil()?;
    let whole = Ground::what(Kind::Frame, 0, BYTES, 1);
    outcome.refuse("below a root", &watched, Error::Unclean, || {
        capability::retype_to(ground.ram, &whole, ROOT_CNODE, frame)
    });
    let asked = [
        ground.ram.0,
        frame.0,
        Kind::Frame as u64 | 1 << 8,
        0,
        BYTES,
        ROOT_CNODE.0,
    ];
    let made = ask(syscall::RETYPE, asked).map(|results| results[0]);
    outcome.expect("below the own root", &made, &Ok(1));
    outcome.refuse("copy from there", &watched, Error::Unclean, || {
        capability::copy_from(ROOT_CNODE, frame, third)
    });
    capability::delete(frame)?;

    // Only frames are zeroed.
    let first = ground.make(Kind::Ram, BYTES, PAGE)?;
    for slot in [ground.ram, first, endpoint, OWN_DOORBELL, OWN_SPACE] {
        outcome.refuse("clean of no frame", &[slot], Error::WrongKind, || {
            clean(slot)
        });
    }
    for kind in OF_RAM.into_iter().filter(|kind| *kind != Kind::Frame) {
        let slot = ground.make_any(kind, 0)?;
        outcome.refuse("clean of no frame", &[slot], Error::WrongKind, || {
            clean(slot)
        });
        discard(slot)?;
    }
    discard(first)?;
    discard(endpoint)?;
    row.give()?;
    ground.free()
}
