//! What a copy of the program has, and does when it is told.

use abi::layout::PAGE;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use apps::crew::Post;
use core::sync::atomic::Ordering::Relaxed;
use rt::capability::{self, Address, Kind, Retype, Rights, slots};
use rt::interface;
use rt::memory::{self, Error as Trouble};
use rt::monitor::Domain;
use rt::space::{Mapping, PageSize, rights};
use rt::system_call::Error;
use rt::transfer::{self, Receiving};
use urpc::Message;

/// Cells of each copy.
const CELLS: u64 = 12;
/// What an empty cell is reported as.
pub const EMPTY: u64 = Error::EmptySlot as u64;
/// Added to what a monitor said; the CPU driver's errors are as they are.
pub const MONITORS: u64 = 1000;
/// Nothing has come yet.
pub const NOTHING_YET: u64 = 999;

/// What is to be done: a word of its own, the cell, and more.
#[derive(Clone, Copy)]
pub struct Order([u64; 7]);

/// How it went: an error, 0 for none, and what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub error: u64,
    pub values: [u64; 6],
}

macro_rules! orders {
    ($($(#[$about:meta])* $number:literal $name:ident($($argument:ident: $kind:ty),*);)*) => {
        impl Order {$(
            $(#[$about])*
            pub fn $name($($argument: $kind),*) -> Self {
                let mut words = [$number, 0, 0, 0, 0, 0, 0];
                let arguments: &[u64] = &[$(Word::word($argument)),*];
                words[1..=arguments.len()].copy_from_slice(arguments);
                Self(words)
            }
        )*}
    };
}

/// What an order can carry.
trait Word {
    fn word(self) -> u64;
}

impl Word for u64 {
    fn word(self) -> u64 {
        self
    }
}

impl Word for Domain {
    fn word(self) -> u64 {
        self.0
    }
}

impl Word for Kind {
    fn word(self) -> u64 {
        self as u64
    }
}

impl Word for Rights {
    fn word(self) -> u64 {
        u64::from(self.bits())
    }
}

orders! {
    /// Make a frame of one page of this copy's memory.
    1 frame(cell: u64);
    /// Give back what was made so.
    2 free(cell: u64);
    /// Ask the monitor for RAM of these bytes.
    3 ram(cell: u64, bytes: u64);
    /// Give that back.
    4 free_ram(cell: u64);
    /// Say what is there. Back: kind and rights, base, bytes, whether it is shared.
    5 look(cell: u64);
    /// Map it, to read and write.
    6 map(cell: u64);
    /// Unmap it.
    7 unmap(cell: u64);
    /// Write to a word.
    8 store(cell: u64, index: u64, value: u64);
    /// Read a word. Back: it.
    9 load(cell: u64, index: u64);
    /// Wait for a capability from now on.
    10 listen(cell: u64);
    /// Wait until it has come. Back: who sent it, kind, rights.
    11 taken(cell: u64);
    /// The same without waiting.
    12 poll(cell: u64);
    /// Give up waiting.
    13 withdraw(cell: u64);
    /// Give it to a domain, when that waits for it.
    14 send(cell: u64, to: Domain);
    /// Give it with these rights, at once or not at all.
    15 try_send(cell: u64, to: Domain, rights: Rights);
    /// Make something of a part of it: into this cell, the kind, the offset, the bytes.
    16 retype(cell: u64, into: u64, kind: Kind, offset: u64, bytes: u64);
    /// Delete it.
    17 delete(cell: u64);
    /// Revoke it.
    18 revoke(cell: u64);
    /// Copy it into another cell with these rights and badge.
    19 mint(cell: u64, into: u64, rights: Rights, badge: u64);
    /// Move it into another cell.
    20 shift(cell: u64, into: u64);
    /// Ask for the doorbell of a domain.
    21 doorbell(cell: u64, of: Domain);
    /// Ring it.
    22 ring(cell: u64);
}

impl Order {
    pub fn message(self) -> Message {
        Message::new(1, self.0)
    }
}

impl Report {
    fn message(self) -> Message {
        let [a, b, c, d, e, f] = self.values;
        Message::new(2, [self.error, a, b, c, d, e, f])
    }

    pub fn from(message: &Message) -> Self {
        let [error, values @ ..] = message.payload;
        Self { error, values }
    }
}

/// The number that stands for an error.
trait Code {
    fn code(&self) -> u64;
}

impl Code for Error {
    fn code(&self) -> u64 {
        *self as u64
    }
}

impl Code for interface::Error {
    fn code(&self) -> u64 {
        MONITORS + *self as u64
    }
}

impl Code for Trouble {
    fn code(&self) -> u64 {
        match self {
            Self::NotGiven(error) => error.code(),
            Self::Refused(error) => error.code(),
        }
    }
}

/// Slots with what is mapped of them.
pub struct Cells {
    slots: Vec<Address>,
    mappings: BTreeMap<u64, Mapping>,
    receiving: Option<Receiving>,
}

impl Cells {
    pub fn new() -> memory::Result<Self> {
        let slots = (0..CELLS).map(|_| slots::take());
        Ok(Self {
            slots: slots.collect::<capability::Result<_>>()?,
            mappings: BTreeMap::new(),
            receiving: None,
        })
    }

    /// Where a cell is.
    pub fn slot(&self, cell: u64) -> Address {
        self.slots[cell as usize]
    }

    /// Does what it is told.
    pub fn obey(&mut self, order: Order) -> Report {
        let (error, values) = match self.answer(order.0) {
            Ok(values) => (0, values),
            Err(error) => (error, [0; 6]),
        };
        Report { error, values }
    }

    fn answer(&mut self, words: [u64; 7]) -> Result<[u64; 6], u64> {
        fn of<T, E: Code>(result: Result<T, E>) -> Result<T, u64> {
            result.map_err(|error| error.code())
        }
        let [order, cell, a, b, c, d, _] = words;
        let slot = self.slot(cell);
        let mut back = [0; 6];
        match order {
            1 => {
                let frame = of(memory::frame(PAGE))?;
                of(capability::move_to(frame, slot))?;
                slots::give(frame);
            }
            2 => {
                let frame = of(slots::take())?;
                of(capability::move_to(slot, frame))?;
                of(memory::free(frame))?;
            }
            3 => of(rt::monitor::ram(a, slot))?,
            4 => {
                let base = of(capability::identify(slot))?.base;
                of(rt::monitor::free_ram(base))?;
            }
            5 => {
                let found = of(capability::identify(slot))?;
                back[0] = found.kind as u64 | u64::from(found.rights.bits()) << 8;
                back[1..4].copy_from_slice(&[found.base, found.bytes, u64::from(found.is_shared)]);
            }
            6 => {
                // SAFETY: made for this test; all accesses in this program are to atomic words.
                let mapping = of(unsafe { Mapping::of(slot, PageSize::Small, rights::WRITE) })?;
                self.mappings.insert(cell, mapping);
            }
            7 => drop(self.mappings.remove(&cell)),
            8 => self.mappings[&cell].words()[a as usize].store(b, Relaxed),
            9 => back[0] = self.mappings[&cell].words()[a as usize].load(Relaxed),
            10 => self.receiving = Some(of(Receiving::begin(slot))?),
            11 | 12 => {
                let receiving = self.receiving.take().ok_or(NOTHING_YET)?;
                let came = if order == 11 {
                    receiving.wait()
                } else {
                    match receiving.poll() {
                        Some(came) => came,
                        None => {
                            self.receiving = Some(receiving);
                            return Err(NOTHING_YET);
                        }
                    }
                };
                let came = of(came)?;
                let rights = u64::from(came.rights.bits());
                back[..3].copy_from_slice(&[came.from.0, came.kind as u64, rights]);
            }
            13 => {
                let receiving = self.receiving.take().ok_or(NOTHING_YET)?;
                let came = of(receiving.withdraw())?;
                back[0] = came.map_or(0, |came| came.from.0);
            }
            14 => of(transfer::send(slot, Domain(a)))?,
            15 => {
                let rights = Rights::from_bits_truncate(b as u8);
                of(transfer::try_send(slot, Domain(a), rights))?;
            }
            16 => {
                let what = Retype {
                    kind: Kind::from_code(b).unwrap_or(Kind::Null),
                    offset: c,
                    bytes: d,
                    count: 1,
                };
                of(capability::retype(slot, &what, self.slot(a)))?;
            }
            17 => of(capability::delete(slot))?,
            18 => of(capability::revoke(slot))?,
            19 => {
                let rights = Rights::from_bits_truncate(b as u8);
                of(capability::mint(slot, self.slot(a), rights, c))?;
            }
            20 => of(capability::move_to(slot, self.slot(a)))?,
            21 => {
                let doorbell = of(rt::monitor::doorbell(Domain(a)))?;
                of(capability::move_to(doorbell, slot))?;
                slots::give(doorbell);
            }
            22 => of(rt::system_call::ring(slot))?,
            _ => return Err(Error::NoSuchCall.code()),
        }
        Ok(back)
    }
}

/// What a copy does on another core: orders, until there are none.
pub fn work(mut post: Post) -> i32 {
    let Ok(mut cells) = Cells::new() else {
        return 1;
    };
    while let Some(message) = post.next_order() {
        let report = cells.obey(Order(message.payload));
        post.report(&report.message());
    }
    0
}
