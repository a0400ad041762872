//! The hog: takes all that there is of something, as it is told.

use abi::capability::{ENDPOINT_BYTES, MIN_CNODE_SLOTS, SLOT_BYTES};
use abi::layout::PAGE;
use abi::limits::MAX_DISPATCHERS;
use abi::syscall::DISPATCHER_BYTES;
use alloc::vec::Vec;
use rt::capability::{self, Address, FIRST_CNODE_SLOTS, GIFT, Kind, OWN_DOORBELL, slots};
use rt::interface::Error;
use rt::lrpc;
use rt::system_call::Error as Refusal;
use rt::{memory, monitor, println};

/// The limit of pieces of RAM of a domain.
const MAX_PIECES: usize = 64;
/// What is left to a hog of CNodes and of pieces of RAM: a thousand slots, some MiB.
const FEW_CNODES: u64 = 8;
const FEW_PIECES: usize = 16;
/// Bytes of the large frames.
const LARGE_FRAME: u64 = 256 << 10;
/// How often a hog asks for more while others are looked at.
const STORM: u64 = 50;

/// Words of a call to a worker or a hog: what to do.
pub mod order {
    /// Answer with the number of rounds so far and the square of the next word.
    pub const WORK: u64 = 1;
    /// Take all; answer with how many there were and why there are no more.
    pub const TAKE: u64 = 2;
    /// Ask for more, which must fail as before.
    pub const MORE: u64 = 3;
    /// Answer right away, and ask for more meanwhile, again and again.
    pub const STORM: u64 = 4;
    /// Give so many back, 0: all.
    pub const GIVE: u64 = 5;
    /// End.
    pub const END: u64 = 6;
}

/// Why there is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum End {
    /// The monitor gives no more RAM.
    NoMemory = 1,
    /// The domain has as many pieces of RAM as it may have.
    TooMuchRam,
    /// The domain has no slots left, or the core has as many dispatchers as it can.
    TooMany,
    /// Something else.
    Other,
}

pub use End::{NoMemory, Other, TooMany, TooMuchRam};

impl End {
    /// The reason behind a number.
    pub fn from_code(code: u64) -> Self {
        let mut all = [NoMemory, TooMuchRam, TooMany].into_iter();
        all.find(|end| *end as u64 == code).unwrap_or(Other)
    }

    fn of(error: memory::Error) -> Self {
        match error {
            memory::Error::NotGiven(Error::NoMemory) => NoMemory,
            memory::Error::NotGiven(Error::TooMuchRam) => TooMuchRam,
            memory::Error::Refused(Refusal::TooMany) => TooMany,
            error => {
                println!("exhaustion-test: a hog: {error:?}");
                Other
            }
        }
    }
}

/// What hogs take.
#[derive(Clone, Copy)]
pub enum What {
    /// Objects of a kind and size.
    Object(Kind, u64),
    /// Copies of a capability.
    Copies,
    /// RAM, in the largest pieces there are.
    Ram,
    /// RAM, a page at a time.
    Pieces,
}

/// What hogs take by name, and with what they may end.
pub const HOGS: [(&str, What, &[End]); 11] = [
    (
        "dispatchers",
        What::Object(Kind::Dispatcher, DISPATCHER_BYTES),
        &[TooMany],
    ),
    (
        "cnodes",
        What::Object(Kind::CNode, MIN_CNODE_SLOTS * SLOT_BYTES),
        &[TooMany],
    ),
    (
        "large-cnodes",
        What::Object(Kind::CNode, LARGE_FRAME),
        &[TooMuchRam, TooMany],
    ),
    (
        "endpoints",
        What::Object(Kind::Endpoint, ENDPOINT_BYTES),
        &[TooMany],
    ),
    (
        "tables-1",
        What::Object(Kind::PageTable1, PAGE),
        &[TooMuchRam, TooMany],
    ),
    (
        "tables-4",
        What::Object(Kind::PageTable4, PAGE),
        &[TooMuchRam, TooMany],
    ),
    (
        "frames",
        What::Object(Kind::Frame, PAGE),
        &[TooMuchRam, TooMany],
    ),
    (
        "large-frames",
        What::Object(Kind::Frame, LARGE_FRAME),
        &[TooMuchRam],
    ),
    ("copies", What::Copies, &[TooMany]),
    ("pieces", What::Pieces, &[TooMuchRam]),
    ("ram", What::Ram, &[NoMemory]),
];

impl What {
    /// How many there must be, where that is known.
    pub fn limit(self, core: usize) -> memory::Result<Option<u64>> {
        Ok(match self {
            // This domain's, the worker's and the hog's are there already, and whoever else's.
            Self::Object(Kind::Dispatcher, _) => {
                let there = monitor::list(core)?.len() + 1;
                Some((MAX_DISPATCHERS - there - 1) as u64)
            }
            Self::Pieces => Some(MAX_PIECES as u64 - 1),
            _ => None,
        })
    }
}

/// Takes orders about what it takes.
pub fn hog(name: &str) -> i32 {
    let found = HOGS.iter().find(|(other, ..)| *other == name);
    let Some((_, what, _)) = found else {
        return 2;
    };
    if matches!(what, What::Object(..)) && leave_little().is_err() {
        return 3;
    }
    let mut held = Vec::new();
    let mut call = lrpc::receive(GIFT, None);
    loop {
        let words = match call {
            Ok((_, [order::STORM, ..])) => {
                if lrpc::reply([0; 5]).is_err() {
                    return 4;
                }
                for _ in 0..STORM {
                    take_all(*what, &mut held);
                }
                call = lrpc::receive(GIFT, None);
                continue;
            }
            Ok((_, [order, argument, ..])) => match obey(*what, &mut held, order, argument) {
                Some([a, b]) => [a, b, 0, 0, 0],
                None => return 0,
            },
            Err(Refusal::Interrupted) => {
                call = lrpc::receive(GIFT, None);
                continue;
            }
            Err(_) => return 2,
        };
        call = lrpc::reply_receive(GIFT, words);
    }
}

/// Puts something into most slots of the root CNode, and takes most of the pieces of RAM that a
/// domain may have: there is enough left to run out of.
fn leave_little() -> memory::Result {
    for index in FEW_CNODES..FIRST_CNODE_SLOTS {
        capability::copy(OWN_DOORBELL, Address::new(1, index))?;
    }
    for _ in FEW_PIECES..MAX_PIECES {
        ram(PAGE)?;
    }
    Ok(())
}

fn obey(what: What, held: &mut Vec<Address>, order: u64, argument: u64) -> Option<[u64; 2]> {
    let before = held.len();
    Some(match order {
        order::TAKE | order::MORE => {
            let end = take_all(what, held);
            [(held.len() - before) as u64, end as u64]
        }
        order::GIVE => {
            let count = if argument == 0 {
                before as u64
            } else {
                argument
            };
            let mut given = 0;
            for _ in 0..count {
                given += u64::from(held.pop().is_some_and(|one| give(what, one)));
            }
            [given, 0]
        }
        _ => return None,
    })
}

fn take_all(what: What, held: &mut Vec<Address>) -> End {
    // The list of what is held must not be what there is too little memory for.
    loop {
        if held.try_reserve(1).is_err() {
            return Other;
        }
        match take(what) {
            Ok(one) => held.push(one),
            Err(error) => return End::of(error),
        }
    }
}

fn take(what: What) -> memory::Result<Address> {
    match what {
        What::Object(kind, bytes) => memory::object(kind, bytes),
        What::Copies => {
            let slot = slots::take()?;
            capability::copy(OWN_DOORBELL, slot)?;
            Ok(slot)
        }
        What::Ram => {
            // As large a piece as there is.
            let mut bytes = 1 << 40;
            loop {
                match ram(bytes) {
                    Err(memory::Error::NotGiven(Error::NoMemory)) if bytes > PAGE => bytes /= 2,
                    other => return other,
                }
            }
        }
        What::Pieces => ram(PAGE),
    }
}

/// A piece of RAM, in a slot that it takes.
fn ram(bytes: u64) -> memory::Result<Address> {
    let slot = slots::take()?;
    match monitor::ram(bytes, slot) {
        Ok(()) => Ok(slot),
        Err(error) => {
            slots::give(slot);
            Err(error.into())
        }
    }
}

/// Gives one back; whether that worked.
fn give(what: What, one: Address) -> bool {
    let given = match what {
        What::Object(..) => return memory::free(one).is_ok(),
        What::Copies => capability::delete(one).is_ok(),
        What::Ram | What::Pieces => {
            let base = capability::identify(one).map(|ram| ram.base);
            base.is_ok_and(|base| monitor::free_ram(base).is_ok())
        }
    };
    if given {
        slots::give(one);
    }
    given
}
