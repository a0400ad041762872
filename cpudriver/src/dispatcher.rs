//! Dispatchers: what the CPU driver schedules. One is one domain's life on this core.

use crate::arch::entry::Registers;
use crate::arch::float::AREA_OFFSET;
use abi::capability::{DISPATCHER_SLOTS, SLOT_BYTES};
use abi::exception::{Detail, PAGE_FAULT};
use abi::limits::{DISPATCHER_NAME_BYTES, MAX_DISPATCHERS, MAX_ENDPOINTS};
use abi::syscall::{DISPATCHER_BYTES, PAGED_RANGES, priority, woken};
use arrayvec::ArrayVec;
use core::ops::Range;

/// What a dispatcher is about.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It could run.
    Runnable,
    /// Waits for a doorbell, or for its deadline.
    Waiting,
    /// Waits for a call at its endpoint, a doorbell, or its deadline.
    Receiving,
    /// Called, and stands in the queue of its endpoint.
    Queued,
    /// Called, and waits for the answer of its server.
    Calling,
    /// Ended itself with its status.
    Exited,
    /// Died of its fault.
    Faulted,
    /// Touched a page of its paged range that is not there: goes on with that when it is started.
    Paging,
}

/// A dispatcher by its place in the CPU driver's table, or nobody. All zeros: nobody.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link(u8);

const _: () = assert!(MAX_DISPATCHERS < 256);

impl Link {
    /// Nobody.
    pub const NOBODY: Self = Self(0);

    /// The dispatcher with this handle.
    pub const fn to(handle: usize) -> Self {
        Self(handle as u8 + 1)
    }

    /// Its handle.
    pub fn handle(self) -> Option<usize> {
        usize::from(self.0).checked_sub(1)
    }
}

/// Where the slots of a root CNode are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CSpace {
    /// Address of the first in the direct map.
    pub slots: u64,
    /// Bytes of all of them; 0: there are none.
    pub bytes: u64,
}

/// A dispatcher. It lives in the memory that it was retyped from: this, then room for its
/// vector registers, then the slots of the capabilities that it lives by.
///
/// The assembly of the fast path of LRPC reads and writes the first part of it.
#[repr(C)]
#[derive(Debug)]
pub struct Dispatcher {
    /// Registers while it does not run.
    pub registers: Registers,
    /// Root page table of its address space.
    pub root: u64,
    /// Its root CNode.
    pub cspace: CSpace,
    /// Physical address of the endpoint that it receives at or stands in the queue of.
    pub endpoint: u64,
    /// When its wait ends, in nanoseconds; 0: it does not. Not 0 only while it waits.
    pub deadline_ns: u64,
    /// What it is about.
    pub state: State,
    /// Whatever its state, it does not run. (Next to the state: they are compared as one.)
    pub stopped: bool,
    /// Itself.
    pub link: Link,
    /// Whose call it has to answer.
    pub caller: Link,
    /// Who has to answer its call.
    pub server: Link,
    /// A doorbell rang that it has not taken yet.
    pub pending: bool,
    /// The monitor's: the CPU driver has something for it that it was not told of yet.
    pub news: bool,
    /// Somebody lost a turn because it cannot run: those that wait for it get theirs back as soon
    /// as it can.
    pub owes_turns: bool,
    /// Its name, UTF-8, filled up with zeros.
    pub name: [u8; DISPATCHER_NAME_BYTES],
    /// Its turn has come, or it stands in the run queue: itself, or who answers it, runs then.
    pub scheduled: bool,
    /// Vector of this core that wakes it; 0: none.
    pub vector: u8,
    /// Who of those that are ready runs first.
    pub priority: u8,
    /// It uses floating-point registers, which are kept in its register area.
    pub uses_float: bool,
    /// It called because of its fault.
    pub in_fault: bool,
    /// A capability goes along with its call.
    pub gives: bool,
    /// Its exit status.
    pub status: i32,
    /// The exception that it met last.
    pub fault: Detail,
    /// Its place in the queue of its endpoint: who came earlier has less.
    pub ticket: u64,
    /// Badge of the capability that it called.
    pub badge: u64,
    /// Where capabilities that come are put: an address in its slots; 0: none are taken.
    pub receive_slot: u64,
    /// Page faults at these addresses do not end it; see [`abi::syscall::property::PAGED`].
    pub paged: [Range<u64>; PAGED_RANGES],
    /// Physical addresses of the endpoints that nobody else receives at.
    pub endpoints: ArrayVec<u64, MAX_ENDPOINTS>,
    /// Line of text that it is writing to the log.
    pub line: ArrayVec<u8, 160>,
}

const _: () = assert!(size_of::<Dispatcher>() <= AREA_OFFSET);

/// Slots at the end of a dispatcher's memory, after the database's own.
pub mod own_slot {
    /// Its root CNode.
    pub const CSPACE: u64 = 1;
    /// Its address space.
    pub const SPACE: u64 = 2;
    /// Who is called when it meets an exception.
    pub const FAULT_HANDLER: u64 = 3;
    /// What wakes it.
    pub const DOORBELL: u64 = 4;
}

/// Physical address of the slots of the dispatcher at this one.
pub const fn own_slots(dispatcher: u64) -> u64 {
    dispatcher + DISPATCHER_BYTES - DISPATCHER_SLOTS * SLOT_BYTES
}

impl Dispatcher {
    /// What a doorbell wakes it for, as its [`WAIT`](abi::syscall::WAIT) says; news are told once.
    pub fn woken(&mut self) -> u64 {
        match core::mem::take(&mut self.news) {
            true => woken::DOORBELL | woken::NEWS,
            false => woken::DOORBELL,
        }
    }

    /// A dispatcher that is stopped and has nothing yet.
    pub const fn new(link: Link, root: u64) -> Self {
        Self {
            registers: Registers::START,
            root,
            cspace: CSpace { slots: 0, bytes: 0 },
            endpoint: 0,
            deadline_ns: 0,
            state: State::Runnable,
            stopped: true,
            link,
            caller: Link::NOBODY,
            server: Link::NOBODY,
            pending: false,
            news: false,
            owes_turns: false,
            name: [0; DISPATCHER_NAME_BYTES],
            scheduled: false,
            vector: 0,
            priority: priority::LOW,
            uses_float: false,
            in_fault: false,
            gives: false,
            status: 0,
            fault: Detail {
                vector: 0,
                error: 0,
                address: 0,
            },
            ticket: 0,
            badge: 0,
            receive_slot: 0,
            paged: [const { 0..0 }; PAGED_RANGES],
            endpoints: ArrayVec::new_const(),
            line: ArrayVec::new_const(),
        }
    }

    /// Where its floating-point registers are kept.
    pub fn float_area(&mut self) -> *mut u8 {
        core::ptr::from_mut(self)
            .cast::<u8>()
            .wrapping_add(AREA_OFFSET)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|byte| *byte == 0);
        let end = end.unwrap_or(DISPATCHER_NAME_BYTES);
        core::str::from_utf8(&self.name[..end]).unwrap_or("?")
    }

    /// Its handle, as it is recorded.
    pub fn handle(&self) -> u32 {
        self.link.handle().map_or(u32::MAX, |handle| handle as u32)
    }

    /// Whether it could run right now.
    pub fn can_run(&self) -> bool {
        self.state == State::Runnable && !self.stopped
    }

    /// Whether the exception that it met last is for its pager.
    pub fn is_paged_fault(&self) -> bool {
        let mut paged = self.paged.iter();
        self.fault.vector == PAGE_FAULT && paged.any(|range| range.contains(&self.fault.address))
    }

    /// Whether it will never run again.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Exited | State::Faulted)
    }

    /// Leaves what its system call came to where it finds it.
    pub fn answer(&mut self, error: u64, results: [u64; 6]) {
        let registers = &mut self.registers;
        registers.rax = error;
        [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ] = results;
    }

    /// The words of its call: those of the system call, or what a fault handler is told.
    pub fn words(&self) -> [u64; 5] {
        let registers = &self.registers;
        if self.in_fault {
            let Detail {
                vector,
                error,
                address,
            } = self.fault;
            return [vector, error, address, registers.rip, registers.rsp];
        }
        [
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ]
    }
}

/// Where calls arrive.
#[repr(C)]
#[derive(Debug)]
pub struct Endpoint {
    /// Who waits for a call right now.
    pub receiver: Link,
    /// Who receives here.
    pub owner: Link,
    /// How many stand in the queue.
    pub queued: u16,
    /// Whoever received here ended: calls fail until somebody else receives.
    pub orphaned: bool,
}

const _: () = assert!(size_of::<Endpoint>() as u64 <= abi::capability::ENDPOINT_BYTES);
