//! Dispatchers: what the CPU driver schedules. One is one domain's life on this core.

use crate::arch::entry::Registers;
use crate::arch::float::AREA_OFFSET;
use abi::exception::Detail;
use abi::limits::DOORBELL_SLOTS;
use abi::syscall::DISPATCHER_BYTES;

/// What a dispatcher is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Runs, or stands in the run queue.
    Runnable,
    /// Waits for a doorbell, or for the clock to reach so many nanoseconds.
    Waiting(Option<u64>),
    /// Ended itself with this status.
    Exited(i32),
    /// Met an exception.
    Faulted(Detail),
}

/// The right to ring: a vector of a core. The default rings nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Doorbell {
    /// Local APIC id of the core.
    pub apic_id: u32,
    /// Vector; 0: no doorbell here.
    pub vector: u8,
}

/// A dispatcher. It lives in memory that the monitor gave for it.
#[derive(Debug)]
pub struct Dispatcher {
    /// Registers while it does not run.
    pub registers: Registers,
    /// PML4 of its address space.
    pub root: u64,
    /// What it is about.
    pub state: State,
    /// A doorbell rang that [`abi::syscall::WAIT`] has not taken yet.
    pub pending: bool,
    /// Vector of this core that wakes it.
    pub vector: u8,
    /// Who of those that are ready runs first.
    pub priority: u8,
    /// It uses floating-point registers, which are kept in its register area.
    pub uses_float: bool,
    /// Its name, UTF-8, filled up with zeros.
    pub name: [u8; 16],
    /// Line of text that it is writing to the log.
    pub line: arrayvec::ArrayVec<u8, 160>,
    /// Doorbells that it may ring.
    pub doorbells: [Doorbell; DOORBELL_SLOTS],
}

const _: () = assert!(size_of::<Dispatcher>() <= AREA_OFFSET);

impl Dispatcher {
    /// Makes a dispatcher in the memory at `place`, which runs from `entry` on.
    ///
    /// # Safety
    /// `place` must point to [`DISPATCHER_BYTES`] of page-aligned private RAM that nothing
    /// else uses until the dispatcher is given up.
    pub unsafe fn create(
        place: *mut Self,
        root: u64,
        entry: u64,
        vector: u8,
        priority: u8,
        name: [u8; 16],
    ) -> *mut Self {
        // SAFETY: the caller's promise; every field is written before anybody refers to it,
        // and field by field: the whole would not fit the kernel stack well.
        unsafe {
            place.cast::<u8>().write_bytes(0, DISPATCHER_BYTES as usize);
            (&raw mut (*place).registers).write(Registers {
                rip: entry,
                rsp: abi::layout::USER_STACK_TOP,
                rdi: abi::layout::USER_STARTUP,
                rflags: 0x202,
                all: 1,
                ..Registers::default()
            });
            (&raw mut (*place).root).write(root);
            (&raw mut (*place).state).write(State::Runnable);
            (&raw mut (*place).vector).write(vector);
            (&raw mut (*place).priority).write(priority);
            (&raw mut (*place).name).write(name);
            (&raw mut (*place).line).write(arrayvec::ArrayVec::new());
        }
        place
    }

    /// Where its floating-point registers are kept.
    pub fn float_area(&mut self) -> *mut u8 {
        core::ptr::from_mut(self)
            .cast::<u8>()
            .wrapping_add(AREA_OFFSET)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(16);
        core::str::from_utf8(&self.name[..end]).unwrap_or("?")
    }
}
