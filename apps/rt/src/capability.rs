//! Capabilities: what a domain may do, and how it hands that on.
//!
//! All functions here are thin: one system call each, but where they say otherwise. Errors
//! are those of the calls in [`abi::syscall`].
//!
//! # What is safe about it
//!
//! Addresses of slots are numbers, so safe code can name every capability of its domain,
//! those to its own image, stack and heap included. What it can do with them falls into three:
//!
//! * *Taking away* ([`delete`], [`revoke`], [`crate::space::unmap`]) turns every later access
//!   to that memory into a fault, and the domain ends by it, as by an overflow of its stack.
//!   Nothing goes on with wrong contents, so this is safe.
//! * *Handing on* to another domain trusts that domain as much as the capability says. As with
//!   a debugger, what it does is no matter of this program's types.
//! * *Putting in place*: other memory at an address that something refers to, a second address
//!   for the same memory, another dispatcher in the same address space. This is where Rust code
//!   could go on with memory that changed behind its back. So the calls for it, in
//!   [`crate::space`] and [`crate::dispatcher`], are unsafe, or owned by a type that does
//!   it in a place of its own.
//!
//! What [`retype`] zeroes is memory that nothing was made of, so it is mapped nowhere; frames
//! made of a frame keep their contents.

pub mod slots;

use crate::system_call::{Error, call};
use crate::transfer;
use abi::syscall::{self, CLEAN_BYTES, identity};

pub use abi::capability::{
    Address, ENDPOINT_BYTES, FIRST_CNODE_SLOTS, FIRST_FREE_CNODE, FIRST_FREE_SLOT, GIFT, Kind,
    MEMORY_CNODE, MONITOR_DOORBELL, OWN_DISPATCHER, OWN_DOORBELL, OWN_SPACE, ROOT_CNODE, Resource,
    Rights, SLOT_BYTES, TASK_CNODE,
};

/// What a call with capabilities comes to.
pub type Result<T = ()> = core::result::Result<T, Error>;

/// As a root: the caller's own.
const OWN: Address = Address(0);

/// Makes one of the calls that are safe by what the module says.
fn ask(number: u64, arguments: [u64; 6]) -> Result<[u64; 5]> {
    // SAFETY: the callers below neither map anything nor start anything, and memory that they
    // have zeroed was in no use.
    unsafe { call(number, arguments) }.map_err(|(error, _)| error)
}

/// Puts another capability to the same object into an empty slot.
pub fn copy(source: Address, destination: Address) -> Result {
    copy_to(source, OWN, destination)
}

/// The same with the destination among the slots below another root CNode.
pub fn copy_to(source: Address, root: Address, destination: Address) -> Result {
    ask(
        syscall::COPY,
        [source.0, destination.0, root.0, OWN.0, 0, 0],
    )
    .map(|_| ())
}

/// The same with the source among the slots below another root CNode.
pub fn copy_from(root: Address, source: Address, destination: Address) -> Result {
    ask(
        syscall::COPY,
        [source.0, destination.0, OWN.0, root.0, 0, 0],
    )
    .map(|_| ())
}

/// Copies with these rights, none of which the source may lack, and, where it is not 0, a
/// badge, which the source may not have.
pub fn mint(source: Address, destination: Address, rights: Rights, badge: u64) -> Result {
    mint_to(source, OWN, destination, rights, badge)
}

/// The same with the destination among the slots below another root CNode.
pub fn mint_to(
    source: Address,
    root: Address,
    destination: Address,
    rights: Rights,
    badge: u64,
) -> Result {
    let rights = u64::from(rights.bits());
    ask(
        syscall::MINT,
        [source.0, destination.0, rights, badge, root.0, 0],
    )
    .map(|_| ())
}

/// The same from slots below a root CNode to those below another, without a badge.
pub(crate) fn mint_between(
    from: Address,
    source: Address,
    to: Address,
    destination: Address,
    rights: Rights,
) -> Result {
    let rights = u64::from(rights.bits());
    ask(
        syscall::MINT,
        [source.0, destination.0, rights, 0, to.0, from.0],
    )
    .map(|_| ())
}

/// Moves a capability to an empty slot, with what is mapped by it.
pub fn move_to(source: Address, destination: Address) -> Result {
    move_into(source, OWN, destination)
}

/// The same with the destination among the slots below another root CNode.
pub fn move_into(source: Address, root: Address, destination: Address) -> Result {
    ask(syscall::MOVE, [source.0, destination.0, root.0, 0, 0, 0]).map(|_| ())
}

/// What to make of a part of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retype {
    /// Kind of the objects.
    pub kind: Kind,
    /// Where the first starts, from the start of the source; the others follow without gaps.
    pub offset: u64,
    /// Length of each: bytes for memory, else ports, lines or vectors.
    pub bytes: u64,
    /// How many, at most 256.
    pub count: u64,
}

/// Makes objects of a part of what `source` is to, into as many empty slots of one CNode from
/// `destination` on. Frames come zeroed, whatever their size: large ones take further calls.
/// Where zeroing fails, the frames are there and the error tells why.
pub fn retype(source: Address, what: &Retype, destination: Address) -> Result {
    if make(source, what, OWN, destination)? {
        for index in 0..what.count {
            while clean(destination.plus(index))? > 0 {}
        }
    }
    Ok(())
}

/// The same with the destination among the slots below another root CNode. Frames can only be
/// zeroed in slots of one's own: for more of them than one call zeroes, [`CLEAN_BYTES`], the
/// answer is [`Error::Unclean`] and nothing is made; move them there from slots of one's own. So it is
/// with what is made of something that other cores know too ([`Error::AskMonitor`]).
pub fn retype_to(source: Address, what: &Retype, root: Address, destination: Address) -> Result {
    let bytes = what.bytes.saturating_mul(what.count);
    if what.kind == Kind::Frame && bytes > CLEAN_BYTES {
        return Err(Error::Unclean);
    }
    make(source, what, root, destination).map(|_| ())
}

/// One call of the CPU driver, or of the monitor where other cores have to agree. Whether frames are
/// left to be zeroed.
fn make(source: Address, what: &Retype, root: Address, destination: Address) -> Result<bool> {
    match make_here(source, what, root, destination) {
        Err(Error::AskMonitor) if root == OWN => transfer::retype(source, what, destination),
        made => made,
    }
}

/// One call of the CPU driver. Whether frames are left to be zeroed.
pub(crate) fn make_here(
    source: Address,
    what: &Retype,
    root: Address,
    destination: Address,
) -> Result<bool> {
    // A count without its top byte would be another count.
    if what.count >= 1 << 56 {
        return Err(Error::WrongCount);
    }
    let kind = what.kind as u64 | what.count << 8;
    let arguments = [
        source.0,
        destination.0,
        kind,
        what.offset,
        what.bytes,
        root.0,
    ];
    ask(syscall::RETYPE, arguments).map(|results| results[0] == 1)
}

/// Zeroes more of an unclean frame; returns how many bytes are left.
fn clean(frame: Address) -> Result<u64> {
    ask(syscall::CLEAN, [frame.0, 0, 0, 0, 0, 0]).map(|results| results[0])
}

/// Takes the capability out of a slot; what is mapped by it is unmapped, and an object without
/// further capabilities is gone. Where other cores know the object, the monitor is asked to do it.
pub fn delete(slot: Address) -> Result {
    match delete_in(OWN, slot) {
        Err(Error::AskMonitor) => transfer::delete(slot),
        deleted => deleted.map(|_| ()),
    }
}

/// One call of the CPU driver, for a slot below another root CNode. Whether the capability was the
/// last one of this core to its object.
pub(crate) fn delete_in(root: Address, slot: Address) -> Result<bool> {
    ask(syscall::DELETE, [slot.0, root.0, 0, 0, 0, 0]).map(|results| results[0] == 1)
}

/// Takes away all other capabilities to the object, or those with the same badge if this one
/// has a badge, and all to what was made of it: as many calls as it takes. Where other cores hold any
/// of that, the monitor is asked, and they have none of it either afterwards.
pub fn revoke(slot: Address) -> Result {
    loop {
        match revoke_step(OWN, slot) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(Error::AskMonitor) => return transfer::revoke(slot),
            Err(error) => return Err(error),
        }
    }
}

/// One call of the CPU driver, for a slot below another root CNode. Whether more is left to do.
pub(crate) fn revoke_step(root: Address, slot: Address) -> Result<bool> {
    ask(syscall::REVOKE, [slot.0, root.0, 0, 0, 0, 0]).map(|results| results[0] == 1)
}

/// What capabilities are to. It is the same tuple on every core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// What kind of thing.
    pub kind: Kind,
    /// Where its range starts.
    pub base: u64,
    /// Length of its range.
    pub bytes: u64,
    /// How many objects with the same range it was made from.
    pub depth: u8,
}

/// What a capability is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What it is to.
    pub kind: Kind,
    /// What its holder may do.
    pub rights: Rights,
    /// Where its range starts: a physical address for memory.
    pub base: u64,
    /// Length of its range: bytes for memory, else ports, lines or vectors.
    pub bytes: u64,
    /// How many objects with the same range this one was made from.
    pub depth: u8,
    /// Its badge; 0: none.
    pub badge: u64,
    /// Entries of page tables that are mapped by it.
    pub entries: u64,
    /// Memory that the CPU driver does not map.
    pub is_unreachable: bool,
    /// A frame that is not zeroed yet.
    pub is_unclean: bool,
    /// Other cores have capabilities to the object too.
    pub is_shared: bool,
}

impl Identity {
    /// What it is to.
    pub fn object(&self) -> Object {
        let Self {
            kind,
            base,
            bytes,
            depth,
            ..
        } = *self;
        Object {
            kind,
            base,
            bytes,
            depth,
        }
    }
}

/// Asks what the capability in a slot is.
pub fn identify(slot: Address) -> Result<Identity> {
    identify_in(OWN, slot)
}

/// The same for a slot below another root CNode.
pub fn identify_in(root: Address, slot: Address) -> Result<Identity> {
    let [what, base, bytes, badge, entries] = ask(syscall::IDENTIFY, [slot.0, root.0, 0, 0, 0, 0])?;
    Ok(Identity {
        kind: Kind::from_code(what & 0xff).unwrap_or(Kind::Null),
        rights: Rights::from_bits_truncate((what >> 8) as u8),
        base,
        bytes,
        depth: (what >> identity::DEPTH_SHIFT) as u8,
        badge,
        entries,
        is_unreachable: what & identity::UNREACHABLE != 0,
        is_unclean: what & identity::UNCLEAN != 0,
        is_shared: what & identity::SHARED != 0,
    })
}

/// For monitors: makes a capability to what none on this core covers, memory of other cores or
/// of devices, by the authority over the core.
pub fn insert(
    core: Address,
    destination: Address,
    kind: Kind,
    rights: Rights,
    base: u64,
    bytes: u64,
) -> Result {
    let what = kind as u64 | u64::from(rights.bits()) << 8;
    ask(
        syscall::INSERT,
        [core.0, destination.0, what, base, bytes, 0],
    )
    .map(|_| ())
}

/// The same for what other cores know too, into a slot below another root CNode.
pub(crate) fn insert_object(
    core: Address,
    root: Address,
    destination: Address,
    object: &Object,
    rights: Rights,
) -> Result {
    let Object {
        kind,
        base,
        bytes,
        depth,
    } = *object;
    let depth = u64::from(depth) << identity::DEPTH_SHIFT;
    let what = kind as u64 | u64::from(rights.bits()) << 8 | depth | identity::SHARED;
    ask(
        syscall::INSERT,
        [core.0, destination.0, what, base, bytes, root.0],
    )
    .map(|_| ())
}
