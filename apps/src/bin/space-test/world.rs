//! An address space, and who is in it: what is asked for and what comes of accesses.

use abi::capability::INDEX_BITS;
use abi::exception::PAGE_FAULT;
use abi::layout::{KERNEL_IMAGE, KERNEL_RECORD, LARGE_PAGE, PAGE};
use abi::syscall;
use alloc::format;
pub use apps::checks::Outcome;
use apps::mappings::probe::{Met, Probe};
use core::fmt::Debug;
use rt::capability::{self, Address, Kind, MEMORY_CNODE, OWN_SPACE, Retype, Rights, slots};
use rt::dispatcher;
use rt::memory::{self, Result};
use rt::monitor;
use rt::space::{self, Translation, rights};
use rt::system_call::{self, Error};

/// Bytes of the largest pages.
pub const HUGE_PAGE: u64 = 1 << 30;
/// Entries of a page table.
pub const ENTRIES: u64 = 512;
/// Where all is mapped: 512 GiB that nothing else is in.
pub const AREA: u64 = 0x1200_0000_0000;
/// Where its first table of level 1 ends.
pub const END: u64 = AREA + LARGE_PAGE;
/// Where its first table of level 2 ends, and a second one would begin.
pub const UPPER: u64 = AREA + HUGE_PAGE;
/// Where its table of level 3 ends.
pub const BEYOND: u64 = AREA + ENTRIES * HUGE_PAGE;
/// First word of every page: the first byte of it is a breakpoint.
pub const MARK: u64 = 0x5eed_0000_0000_00cc;
/// Vector of the breakpoint that ends what a probe does.
pub const BREAKPOINT: u64 = 3;

/// Error codes of page faults.
pub mod fault {
    /// A read where nothing is.
    pub const READ: u64 = 4;
    /// A write where nothing is.
    pub const WRITE: u64 = 6;
    /// A fetch where nothing is.
    pub const FETCH: u64 = 0x14;
    /// In addition: something is there, which does not allow it.
    pub const DENIED: u64 = 1;
}

core::arch::global_asm!(
    ".pushsection .text.space_test, \"ax\"",
    ".balign 64", // all of it on one page
    ".global space_test_read",
    "space_test_read:",
    "mov rax, [rdi]",
    "int3",
    ".global space_test_write",
    "space_test_write:",
    "mov [rdi], rsi",
    "int3",
    ".global space_test_jump",
    "space_test_jump:",
    "jmp rdi",
    ".global space_test_call",
    "space_test_call:",
    "syscall",
    "int3",
    ".popsection",
);

unsafe extern "C" {
    // Instructions and no functions: nobody calls them.
    pub fn space_test_read();
    pub fn space_test_write();
    pub fn space_test_jump();
    pub fn space_test_call();
}

/// Where the instructions of a probe are.
pub fn code(function: unsafe extern "C" fn()) -> u64 {
    function as *const () as u64
}

/// Why something was refused: the error, and the level of a table that is missing, else 0.
pub type Refused = (Error, u64);

/// An error without a level.
pub const fn no<T>(error: Error) -> core::result::Result<T, Refused> {
    Err((error, 0))
}

/// The error of a table that is missing.
pub const fn no_table<T>(level: u64) -> core::result::Result<T, Refused> {
    Err((Error::NeedTable, level))
}

/// Makes a call about an address space as numbers: nothing is refused before the CPU driver
/// sees it.
pub fn ask(number: u64, arguments: [u64; 6]) -> core::result::Result<[u64; 5], Refused> {
    // SAFETY: the callers map in the area and at other addresses where nothing of this program
    // lies, and only memory that nothing else in it refers to.
    unsafe { system_call::call(number, arguments) }
}

/// What should be mapped.
#[derive(Clone, Copy)]
pub struct Wish {
    /// The frame.
    pub frame: Address,
    /// Where.
    pub address: u64,
    /// What of the frame comes first, in bytes.
    pub offset: u64,
    /// How many pages.
    pub pages: u64,
    /// Their level.
    pub level: u64,
    /// Of [`rights`].
    pub rights: u64,
}

/// One page from the start of a frame.
pub const fn page(frame: Address, address: u64, rights: u64) -> Wish {
    Wish {
        frame,
        address,
        offset: 0,
        pages: 1,
        level: 1,
        rights,
    }
}

/// What came of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It was done; what was read.
    Done(u64),
    /// A page fault at the address, with this error code.
    Fault(u64),
    /// Neither.
    Other(Met),
}

pub use Access::{Done, Fault};

/// A read, a write and a fetch where nothing is mapped.
pub const ABSENT: [Access; 3] = [Fault(fault::READ), Fault(fault::WRITE), Fault(fault::FETCH)];

/// The same where [`MARK`] is mapped with these rights.
pub fn present(with: u64) -> [Access; 3] {
    let allowed = |right, error| match with & right {
        0 => Fault(error | fault::DENIED),
        _ => Done(0),
    };
    [
        Done(MARK),
        allowed(rights::WRITE, fault::WRITE),
        allowed(rights::EXECUTE, fault::FETCH),
    ]
}

/// An address space, and who is in it.
pub struct World {
    /// What it is called in reports.
    pub name: &'static str,
    /// Its root page table.
    pub root: Address,
    /// Who accesses what is in it.
    pub probe: Probe,
    /// Page tables of the area, of levels 1 to 3.
    pub tables: [Address; 3],
}

impl World {
    /// Maps.
    pub fn map(&self, wish: &Wish) -> core::result::Result<(), Refused> {
        let pages = wish.pages | wish.level << 32;
        let arguments = [
            self.root.0,
            wish.address,
            wish.frame.0,
            wish.offset,
            pages,
            wish.rights,
        ];
        ask(syscall::MAP, arguments).map(|_| ())
    }

    /// Enters a page table.
    pub fn enter(&self, address: u64, table: Address) -> core::result::Result<(), Refused> {
        ask(syscall::MAP_TABLE, [self.root.0, address, table.0, 0, 0, 0]).map(|_| ())
    }

    /// What the tables say of an address.
    pub fn at(&self, address: u64) -> core::result::Result<Translation, Refused> {
        let found = ask(syscall::TRANSLATE, [self.root.0, address, 0, 0, 0, 0]);
        found.map(|[physical, bytes, rights, ..]| Translation {
            physical,
            bytes,
            rights,
        })
    }

    /// Reads a word.
    pub fn read(&mut self, address: u64) -> Result<Access> {
        let from = code(space_test_read);
        let met = self.probe.run(&[("rip", from), ("rdi", address)])?;
        Ok(match met.vector {
            BREAKPOINT => Done(self.probe.register("rax")?),
            PAGE_FAULT if met.address == address => Fault(met.error),
            _ => Access::Other(met),
        })
    }

    /// Writes a word.
    pub fn write(&mut self, address: u64, value: u64) -> Result<Access> {
        let from = code(space_test_write);
        let registers = [("rip", from), ("rdi", address), ("rsi", value)];
        let met = self.probe.run(&registers)?;
        Ok(match met.vector {
            BREAKPOINT => Done(0),
            PAGE_FAULT if met.address == address => Fault(met.error),
            _ => Access::Other(met),
        })
    }

    /// Executes what is there, a breakpoint.
    pub fn fetch(&mut self, address: u64) -> Result<Access> {
        let from = code(space_test_jump);
        let met = self.probe.run(&[("rip", from), ("rdi", address)])?;
        Ok(match met.vector {
            BREAKPOINT if met.instruction == address + 1 => Done(0),
            PAGE_FAULT if (met.address, met.instruction) == (address, address) => Fault(met.error),
            _ => Access::Other(met),
        })
    }

    /// Reads, writes and executes.
    pub fn accesses(&mut self, address: u64) -> Result<[Access; 3]> {
        Ok([
            self.read(address)?,
            self.write(address, MARK)?,
            self.fetch(address)?,
        ])
    }

    /// Checks what is mapped at an address, by what the tables say and by accesses.
    pub fn expect_page(
        &mut self,
        outcome: &mut Outcome,
        what: &str,
        address: u64,
        expected: Translation,
    ) -> Result {
        let what = format!("{}: {what}", self.name);
        outcome.expect(&what, &self.at(address), &Ok(expected));
        let found = self.accesses(address)?;
        outcome.expect(&what, &found, &present(expected.rights));
        Ok(())
    }

    /// Checks that an access to an address faults, and what the tables say about it.
    pub fn expect_nothing(
        &mut self,
        outcome: &mut Outcome,
        what: &str,
        address: u64,
        why: Refused,
    ) -> Result {
        let what = format!("{}: {what}", self.name);
        let found = self.accesses(address)?;
        outcome.expect(&what, &found, &ABSENT);
        outcome.expect(&what, &self.at(address), &Err(why));
        Ok(())
    }

    /// Maps a page, checks that it is there, and leaves the processor knowing it.
    pub fn settle(&mut self, outcome: &mut Outcome, what: &str, wish: &Wish) -> Result {
        let mapped = self.map(wish);
        outcome.expect(&format!("{}: {what}: mapping", self.name), &mapped, &Ok(()));
        let expected = small(wish)?;
        self.expect_page(outcome, what, wish.address, expected)
    }

    /// Writes the marks of a frame's pages: [`MARK`], and the number of the page behind it.
    pub fn mark(&mut self, frame: Address) -> Result {
        let pages = capability::identify(frame)?.bytes / PAGE;
        let copy = copy(frame)?;
        for number in 0..pages {
            let wish = Wish {
                offset: number * PAGE,
                ..page(copy, AREA, rights::WRITE)
            };
            self.map(&wish).map_err(|(error, _)| error)?;
            self.write(AREA, MARK)?;
            self.write(AREA + 8, number)?;
            space::unmap(copy)?;
        }
        discard(copy)
    }
}

/// What the tables say where the first page of a wish is mapped.
pub fn small(wish: &Wish) -> Result<Translation> {
    Ok(Translation {
        physical: capability::identify(wish.frame)?.base + wish.offset,
        bytes: PAGE,
        rights: wish.rights,
    })
}

/// Another capability to the same object, in a slot of its own.
pub fn copy(source: Address) -> Result<Address> {
    let slot = slots::take()?;
    capability::copy(source, slot)?;
    Ok(slot)
}

/// The same with these rights.
pub fn minted(source: Address, with: Rights) -> Result<Address> {
    let slot = slots::take()?;
    capability::mint(source, slot, with, 0)?;
    Ok(slot)
}

/// Deletes a capability, and gives its slot back.
pub fn discard(slot: Address) -> Result {
    capability::delete(slot)?;
    slots::give(slot);
    Ok(())
}

/// How many entries of page tables a capability fills.
pub fn entries(capability: Address) -> capability::Result<u64> {
    capability::identify(capability).map(|found| found.entries)
}

/// Whether there is nothing in a slot.
pub fn is_empty(slot: Address) -> bool {
    capability::identify(slot) == Err(Error::EmptySlot)
}

/// The address space of this domain, with a probe beside this dispatcher.
pub fn own(_: &mut Outcome) -> Result<World> {
    let probe = Probe::new()?;
    // SAFETY: it runs the few instructions above and what is in the area, none of which touches
    // memory of this program.
    unsafe { dispatcher::set_space(probe.dispatcher(), OWN_SPACE)? };
    Ok(World {
        name: "own",
        root: OWN_SPACE,
        probe,
        tables: tables_of_all_levels()?,
    })
}

/// Page tables of levels 1 to 3.
pub fn tables_of_all_levels() -> Result<[Address; 3]> {
    Ok([
        memory::object(Kind::PageTable1, PAGE)?,
        memory::object(Kind::PageTable2, PAGE)?,
        memory::object(Kind::PageTable3, PAGE)?,
    ])
}

/// The capability to the frame that this program's code is in, and where in it an address is.
pub fn text(address: u64) -> Result<(Address, u64)> {
    let physical = space::translate(OWN_SPACE, address)?.physical;
    let cnode = MEMORY_CNODE.0 & ((1 << INDEX_BITS) - 1);
    let mut slot = Address::new(cnode, 1);
    loop {
        match capability::identify(slot) {
            Ok(found)
                if found.kind == Kind::Frame
                    && found.rights.contains(Rights::READ | Rights::EXECUTE)
                    && (found.base..found.base + found.bytes).contains(&physical) =>
            {
                return Ok((slot, physical - found.base));
            }
            Ok(_) | Err(Error::EmptySlot) => slot = slot.plus(1),
            Err(error) => return Err(error.into()),
        }
    }
}

/// An address space without anything but the page of this program's code that the probe needs.
pub fn scratch(outcome: &mut Outcome) -> Result<World> {
    let root = memory::object(Kind::PageTable4, PAGE)?;
    scratch_of(root, outcome)
}

/// The same with this root.
pub fn scratch_of(root: Address, outcome: &mut Outcome) -> Result<World> {
    let probe = Probe::new()?;
    let started = dispatcher::start(probe.dispatcher());
    outcome.expect("a start nowhere", &started, &Err(Error::NotReady));
    // SAFETY: an address space of its own.
    unsafe { dispatcher::set_space(probe.dispatcher(), root)? };
    let mut world = World {
        name: "scratch",
        root,
        probe,
        tables: tables_of_all_levels()?,
    };
    let first = code(space_test_read);
    let what = "scratch: the first instruction";
    outcome.expect(what, &world.at(first), &no_table(3));
    let nothing = Met {
        vector: PAGE_FAULT,
        error: fault::FETCH,
        address: first,
        instruction: first,
    };
    let met = world.probe.run(&[("rip", first)])?;
    outcome.expect(what, &met, &nothing);
    for table in tables_of_all_levels()?.into_iter().rev() {
        outcome.expect(what, &world.enter(first & !(PAGE - 1), table), &Ok(()));
    }
    let (frame, offset) = text(first)?;
    let wish = Wish {
        offset,
        ..page(copy(frame)?, first & !(PAGE - 1), rights::EXECUTE)
    };
    outcome.expect(what, &world.map(&wish), &Ok(()));
    // Now that it runs, it finds nothing else, and what it must not touch.
    let found = world.read(AREA)?;
    outcome.expect(what, &found, &Fault(fault::READ));
    for kernel in [KERNEL_IMAGE, KERNEL_RECORD] {
        let found = world.read(kernel)?;
        let denied = Fault(fault::READ | fault::DENIED);
        outcome.expect("scratch: the kernel's memory", &found, &denied);
    }
    Ok(world)
}

/// RAM of which objects are made at places of one's choice.
pub struct Bench {
    /// The capability to it, without the right to revoke.
    pub ram: Address,
}

impl Bench {
    /// RAM of so many bytes.
    pub fn new(bytes: u64) -> Result<Self> {
        let ram = slots::take()?;
        monitor::ram(bytes, ram)?;
        Ok(Self { ram })
    }

    /// Makes an object from this page on, in a slot of its own.
    pub fn make(&self, kind: Kind, page: u64, bytes: u64) -> Result<Address> {
        let slot = slots::take()?;
        let what = Retype {
            kind,
            offset: page * PAGE,
            bytes,
            count: 1,
        };
        capability::retype(self.ram, &what, slot)?;
        Ok(slot)
    }

    /// Gives the RAM back, and with it whatever was made of it.
    pub fn free(self) -> Result {
        monitor::free_ram(capability::identify(self.ram)?.base)?;
        slots::give(self.ram);
        Ok(())
    }
}
