//! Copies on all cores that have capabilities and do what they are told.

use crate::{Failed, NAME};
use alloc::format;
use alloc::vec::Vec;
use apps::crew::{Crew, Post};
use core::sync::atomic::Ordering::Relaxed;
use rt::capability::{self, Address, Kind, Retype, slots};
use rt::memory;
use rt::monitor::{self, Domain};
use rt::space::{Mapping, PageSize, rights};
use rt::transfer::{self, Receiving};
use urpc::Message;

/// Slots of each copy.
const CELLS: usize = 3;
/// What a report says first of what was done, and of what could not be.
const DONE: u64 = 0;
const FAILED: u64 = 1;
/// What is reported of an empty cell that is looked at.
pub const EMPTY: u64 = 0;

/// What a copy is told to do: with the cell of this number, and another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Order {
    /// Add one to the number; the cell does not matter.
    Add = 1,
    /// Make a frame of one page.
    Frame,
    /// Free it, for everybody.
    Free,
    /// Ask the monitor for RAM of so many bytes.
    Ram,
    /// Give it back.
    FreeRam,
    /// Make a frame of the RAM's first page, in the cell of that number.
    Retype,
    /// Give a copy to the domain of that number.
    Send,
    /// Wait for a capability from now on.
    Listen,
    /// Wait until it has come.
    Taken,
    /// Say where the memory is; [`EMPTY`] if there is none.
    Look,
    /// Map it.
    Map,
    /// Write the number into its first word.
    Store,
    /// Read its first word.
    Load,
    /// Revoke it.
    Revoke,
    /// Unmap it, and delete what is left.
    Clear,
}

const ORDERS: [Order; 15] = [
    Order::Add,
    Order::Frame,
    Order::Free,
    Order::Ram,
    Order::FreeRam,
    Order::Retype,
    Order::Send,
    Order::Listen,
    Order::Taken,
    Order::Look,
    Order::Map,
    Order::Store,
    Order::Load,
    Order::Revoke,
    Order::Clear,
];

struct Cells {
    slots: Vec<Address>,
    mappings: [Option<Mapping>; CELLS],
    receiving: Option<Receiving>,
}

impl Cells {
    fn new() -> capability::Result<Self> {
        Ok(Self {
            slots: (0..CELLS)
                .map(|_| slots::take())
                .collect::<Result<_, _>>()?,
            mappings: Default::default(),
            receiving: None,
        })
    }

    fn obey(&mut self, order: Order, cell: usize, number: u64) -> Result<u64, Failed> {
        fn of<T, E: core::fmt::Debug>(result: Result<T, E>) -> Result<T, Failed> {
            result.map_err(|error| format!("{error:?}"))
        }
        let slot = self.slots[cell];
        match order {
            Order::Add => return Ok(number + 1),
            Order::Frame => {
                let frame = of(memory::frame(abi::layout::PAGE))?;
                of(capability::move_to(frame, slot))?;
                slots::give(frame);
            }
            Order::Free => {
                self.mappings[cell] = None;
                let frame = of(slots::take())?;
                of(capability::move_to(slot, frame))?;
                of(memory::free(frame))?;
            }
            Order::Ram => of(monitor::ram(number, slot))?,
            Order::FreeRam => {
                let base = of(capability::identify(slot))?.base;
                of(monitor::free_ram(base))?;
            }
            Order::Retype => {
                let what = Retype {
                    kind: Kind::Frame,
                    offset: 0,
                    bytes: abi::layout::PAGE,
                    count: 1,
                };
                of(capability::retype(slot, &what, self.slots[number as usize]))?;
            }
            Order::Send => of(transfer::send(slot, Domain(number)))?,
            Order::Listen => self.receiving = Some(of(Receiving::begin(slot))?),
            Order::Taken => {
                let receiving = self.receiving.take().ok_or("it does not wait")?;
                of(receiving.wait())?;
            }
            Order::Look => match capability::identify(slot) {
                Ok(found) => return Ok(found.base),
                Err(rt::system_call::Error::EmptySlot) => return Ok(EMPTY),
                Err(error) => return of(Err(error)),
            },
            Order::Map => {
                // SAFETY: made for this test; all accesses in this program are to atomic words.
                let mapping = unsafe { Mapping::of(slot, PageSize::Small, rights::WRITE) };
                self.mappings[cell] = Some(of(mapping)?);
            }
            Order::Store => self.words(cell)?.store(number, Relaxed),
            Order::Load => return Ok(self.words(cell)?.load(Relaxed)),
            Order::Revoke => of(capability::revoke(slot))?,
            Order::Clear => {
                self.mappings[cell] = None;
                match capability::delete(slot) {
                    Ok(()) | Err(rt::system_call::Error::EmptySlot) => {}
                    Err(error) => return of(Err(error)),
                }
            }
        }
        Ok(0)
    }

    fn words(&self, cell: usize) -> Result<&core::sync::atomic::AtomicU64, Failed> {
        let mapping = self.mappings[cell].as_ref().ok_or("it is not mapped")?;
        Ok(&mapping.words()[0])
    }
}

/// What a copy on another core does: orders, until there are none.
pub fn work(mut post: Post) -> i32 {
    let Ok(mut cells) = Cells::new() else {
        return 1;
    };
    while let Some(message) = post.next_order() {
        let [cell, number, ..] = message.payload;
        let order = ORDERS.into_iter().find(|one| *one as u16 == message.kind());
        let done = match order {
            Some(order) if cell < CELLS as u64 => cells.obey(order, cell as usize, number),
            _ => Err("no such order".into()),
        };
        let (outcome, value) = match done {
            Ok(value) => (DONE, value),
            Err(error) => {
                let core = rt::startup().core;
                rt::println!("{NAME}: core {core}: {order:?} of cell {cell}: {error}");
                (FAILED, 0)
            }
        };
        let report = Message::new(message.kind(), [outcome, value, 0, 0, 0, 0, 0]);
        post.report(&report);
    }
    0
}

/// Copies on some cores.
pub struct Workers(pub Crew);

impl Workers {
    /// Starts a copy on each of these cores.
    pub fn hire(cores: &[usize]) -> Result<Self, Failed> {
        let crew = Crew::hire(cores, 0);
        crew.map(Self).map_err(|error| format!("{error}"))
    }

    /// Has something begun on a core.
    pub fn begin(
        &mut self,
        core: usize,
        order: Order,
        cell: u64,
        number: u64,
    ) -> Result<(), Failed> {
        let message = Message::new(order as u16, [cell, number, 0, 0, 0, 0, 0]);
        let sent = self.0.order(core, &message);
        sent.map_err(|error| format!("{order:?}, core {core}: {error}"))
    }

    /// How that went.
    pub fn end(&mut self, core: usize, order: Order) -> Result<u64, Failed> {
        match self.0.report(core).map(|report| report.payload) {
            Ok([DONE, value, ..]) => Ok(value),
            Ok(_) => Err(format!("{order:?} failed on core {core}")),
            Err(error) => Err(format!("{order:?}, core {core}: {error}")),
        }
    }

    /// Has something done on a core.
    pub fn run(
        &mut self,
        core: usize,
        order: Order,
        cell: u64,
        number: u64,
    ) -> Result<u64, Failed> {
        self.begin(core, order, cell, number)?;
        self.end(core, order)
    }

    /// Sends all home.
    pub fn dismiss(self) -> Result<(), Failed> {
        self.0.dismiss().map_err(|error| format!("{error}"))
    }

    /// One core's copy gives another's a copy of what is in a cell, into the same cell.
    pub fn give(&mut self, from: usize, to: usize, cell: u64) -> Result<(), Failed> {
        let receiver = self.0.domain(to).ok_or("nobody is there")?;
        self.run(to, Order::Listen, cell, 0)?;
        self.run(from, Order::Send, cell, receiver.0)?;
        self.run(to, Order::Taken, cell, 0)?;
        Ok(())
    }
}
