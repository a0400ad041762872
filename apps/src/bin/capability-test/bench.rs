//! RAM to try things on, and looks at what there is before and after.

use abi::layout::PAGE;
use alloc::vec::Vec;
use core::fmt::Debug;
use rt::capability::{self, Address, Identity, Kind, Result, Retype, Rights, slots};
use rt::system_call::{self, Error};
use rt::{clock, memory, monitor};

/// How long to wait before looking again.
const PAUSE_NS: u64 = 100_000;
/// How often to look for what takes the CPU driver a while.
const LOOKS: u32 = 3000;

/// Counts what was not as it should be.
#[derive(Default)]
pub struct Outcome {
    /// Checks made.
    pub checks: u64,
    /// Checks that failed.
    pub bad: u64,
}

impl Outcome {
    /// Checks that something is as it should be.
    pub fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.checks += 1;
        if found != expected {
            self.bad += 1;
            let name = crate::NAME;
            rt::println!("{name}: {what}: expected {expected:x?}, found {found:x?}");
        }
    }

    /// Checks that a call is refused with this error, and that in these slots nothing changed.
    pub fn refuse<T: PartialEq + Debug>(
        &mut self,
        what: &str,
        watched: &[Address],
        error: Error,
        call: impl FnOnce() -> Result<T>,
    ) {
        let before = look(watched);
        self.expect(what, &call(), &Err(error));
        self.checks += 1;
        if look(watched) != before {
            self.bad += 1;
            rt::println!("{}: {what}: was refused, and did something", crate::NAME);
        }
    }

    /// Checks that there is nothing in these slots.
    pub fn expect_empty(&mut self, what: &str, slots: impl IntoIterator<Item = Address>) {
        for slot in slots {
            let found = capability::identify(slot).map(|found| found.kind);
            self.expect(what, &found, &Err(Error::EmptySlot));
        }
    }
}

/// What is in slots.
pub fn look(slots: &[Address]) -> Vec<Result<Identity>> {
    slots
        .iter()
        .map(|slot| capability::identify(*slot))
        .collect()
}

/// Makes a call as numbers: nothing is refused before the CPU driver sees it.
pub fn ask(number: u64, arguments: [u64; 6]) -> Result<[u64; 5]> {
    // SAFETY: the callers copy, make and take away capabilities, by which nothing is mapped.
    unsafe { system_call::call(number, arguments) }.map_err(|(error, _)| error)
}

/// Slots in a row, given back when done with.
pub struct Row {
    first: Address,
    count: u64,
}

impl Row {
    /// So many empty slots.
    pub fn take(count: u64) -> Result<Self> {
        let first = slots::take_row(count)?;
        Ok(Self { first, count })
    }

    /// The slot with this number.
    pub fn at(&self, number: u64) -> Address {
        self.first.plus(number)
    }

    /// All of them.
    pub fn slots(&self) -> Vec<Address> {
        (0..self.count).map(|number| self.at(number)).collect()
    }

    /// Deletes what is in them.
    pub fn clear(&self) -> Result {
        for slot in self.slots() {
            match capability::delete(slot) {
                Ok(()) | Err(Error::EmptySlot) => {}
                error => return error,
            }
        }
        Ok(())
    }

    /// Deletes what is in them, and gives them back.
    pub fn give(self) -> Result {
        self.clear()?;
        self.slots().into_iter().for_each(slots::give);
        Ok(())
    }
}

/// RAM of which objects are made at places of one's choice.
pub struct Ground {
    /// As the monitor gave it: without the right to revoke.
    pub given: Address,
    /// The same range, with all rights.
    pub ram: Address,
}

impl Ground {
    /// RAM of so many bytes.
    pub fn new(bytes: u64) -> memory::Result<Self> {
        let (given, ram) = (slots::take()?, slots::take()?);
        monitor::ram(bytes, given)?;
        let what = Retype {
            kind: Kind::Ram,
            offset: 0,
            bytes,
            count: 1,
        };
        capability::retype(given, &what, ram)?;
        Ok(Self { given, ram })
    }

    /// What to make of it.
    pub fn what(kind: Kind, offset: u64, bytes: u64, count: u64) -> Retype {
        Retype {
            kind,
            offset,
            bytes,
            count,
        }
    }

    /// Makes objects. Where something in their place is not done with going, this waits.
    pub fn make_in(
        &self,
        kind: Kind,
        offset: u64,
        bytes: u64,
        count: u64,
        slot: Address,
    ) -> Result {
        let what = Self::what(kind, offset, bytes, count);
        for _ in 0..LOOKS {
            match capability::retype(self.ram, &what, slot) {
                Err(Error::Overlap) => clock::sleep_ns(PAUSE_NS),
                made => return made,
            }
        }
        Err(Error::Overlap)
    }

    /// Makes an object in a slot of its own.
    pub fn make(&self, kind: Kind, offset: u64, bytes: u64) -> Result<Address> {
        let slot = slots::take()?;
        self.make_in(kind, offset, bytes, 1, slot)?;
        Ok(slot)
    }

    /// Makes an object of the size that its kind has, a frame or RAM of a page.
    pub fn make_any(&self, kind: Kind, offset: u64) -> Result<Address> {
        self.make(kind, offset, size(kind))
    }

    /// Takes away whatever was made of it.
    pub fn clear(&self) -> Result {
        capability::revoke(self.ram)
    }

    /// Gives it back.
    pub fn free(self) -> memory::Result {
        monitor::free_ram(capability::identify(self.given)?.base)?;
        slots::give(self.ram);
        slots::give(self.given);
        Ok(())
    }
}

/// A size that objects of a kind may have.
pub fn size(kind: Kind) -> u64 {
    match kind {
        Kind::Dispatcher => abi::syscall::DISPATCHER_BYTES,
        Kind::Endpoint => capability::ENDPOINT_BYTES,
        Kind::Doorbell | Kind::IrqHandler | Kind::IoPort => 1,
        Kind::Core => abi::capability::VECTORS,
        _ => PAGE,
    }
}

/// Kinds that are made of RAM.
pub const OF_RAM: [Kind; 9] = [
    Kind::Ram,
    Kind::Frame,
    Kind::PageTable1,
    Kind::PageTable2,
    Kind::PageTable3,
    Kind::PageTable4,
    Kind::CNode,
    Kind::Dispatcher,
    Kind::Endpoint,
];

/// Deletes a capability, and gives its slot back.
pub fn discard(slot: Address) -> Result {
    capability::delete(slot)?;
    slots::give(slot);
    Ok(())
}

/// Copies with other rights and without a badge.
pub fn mint(source: Address, destination: Address, rights: Rights) -> Result {
    capability::mint(source, destination, rights, 0)
}

/// Looks again and again, with pauses, until something is so; whether it came to that.
pub fn comes_true(mut is_so: impl FnMut() -> bool) -> bool {
    for _ in 0..LOOKS {
        if is_so() {
            return true;
        }
        clock::sleep_ns(PAUSE_NS);
    }
    false
}
