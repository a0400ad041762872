//! The state of one CPU driver: the capabilities of its core, and its processor.

use crate::arch::entry::{Frame, let_interrupts_in};
use crate::arch::memory::{PrivateRam, TableLives};
use crate::arch::{cpu, descriptors};
use crate::dispatcher::{CSpace, own_slot};
use crate::fault;
use crate::local::Local;
use crate::processor::{DEVICE_NOT_AVAILABLE, MONITOR, Processor};
use crate::recording::{self, note};
use crate::system_calls::refusal;
use abi::capability::{
    Address, INDEX_BITS, Kind, OWN_DISPATCHER, OWN_DOORBELL, OWN_SPACE, ROOT_CNODE, Resource,
    Rights, SLOT_BYTES, TASK_CNODE, VECTORS, monitor,
};
use abi::exception::PAGE_FAULT;
use abi::layout::{DIRECT_MAP, KERNEL_RECORD, PAGE, USER_STACK_TOP, USER_STARTUP};
use abi::machine::Machine;
use abi::record::{CoreRecord, state};
use abi::syscall::{DISPATCHER_BYTES, Error, FIRST_DOORBELL, priority};
use capabilities::capability::Marks;
use capabilities::{Caller, Capability, Database, Progress, Retype, SlotId};
use core::mem::MaybeUninit;
use trace::event;

/// Capabilities that one call takes away, or slots of containers that it looks at.
pub const STEP: u32 = 32;

/// One CPU driver.
pub struct Kernel {
    pub capabilities: Database<PrivateRam>,
    pub processor: Processor,
}

static KERNEL: Local<MaybeUninit<Kernel>> = Local::new(MaybeUninit::uninit());

/// This core's CPU driver, for the length of one entry into ring 0.
///
/// # Safety
/// Only at an entry into ring 0 after [`Kernel::initialise`], once: no other reference may be alive.
pub unsafe fn kernel() -> &'static mut Kernel {
    // SAFETY: the caller's promise.
    unsafe { KERNEL.get_mut().assume_init_mut() }
}

/// The core record.
pub fn record() -> *mut CoreRecord {
    KERNEL_RECORD as *mut CoreRecord
}

/// Adds one to a counter of the core record.
macro_rules! count {
    ($counter:ident) => {{
        let record = $crate::kernel::record();
        // SAFETY: the loader mapped the record, and only this CPU driver writes to it.
        // Volatile, because the host tool reads it behind our back.
        unsafe {
            let counter = &raw mut (*record).counters.$counter;
            counter.write_volatile(counter.read_volatile() + 1);
        }
    }};
}
pub(crate) use count;

/// Tells the world what this core is about.
pub fn set_state(value: u32) {
    // SAFETY: the loader mapped the record, and only this CPU driver writes to it.
    unsafe { (&raw mut (*record()).state).write_volatile(value) };
}

impl Kernel {
    /// Brings this core up in its own memory.
    pub fn initialise() -> &'static mut Self {
        cpu::initialise();
        descriptors::initialise();
        // SAFETY: the loader laid out record and machine before this core started, and
        // they stay; the machine description is never written to.
        let (record, machine) = unsafe {
            let record = record().read();
            (record, &*((DIRECT_MAP + record.machine) as *const Machine))
        };
        let core = &machine.cores[record.core as usize];
        // SAFETY: `core` is this core; the loader mapped its private RAM, and set the lives aside.
        let (mut ram, lives) = unsafe {
            (
                PrivateRam::new(core),
                TableLives::new(core, record.table_lives),
            )
        };
        // The trampoline page was needed for one instruction. Whatever ring 0 has mapped
        // from here on is this core's own.
        loader::paging::TableMemory::write(&mut ram, record.kernel_page_table, 0, 0);
        // SAFETY: this is the kernel's own page table, without a lower half.
        unsafe { cpu::switch_address_space(record.kernel_page_table) };
        let kernel = Self {
            capabilities: Database::new(ram, core.region),
            processor: Processor::new(machine, ram, lives, record.kernel_page_table),
        };
        fault::set_debug_exit(machine.debug_exit != 0);
        // SAFETY: first use; interrupts are still off.
        let kernel = unsafe { KERNEL.get_mut() }.write(kernel);
        // SAFETY: the record is mapped, and this core's to write.
        unsafe { (&raw mut (*self::record()).started_tsc).write_volatile(cpu::time_stamp()) };
        recording::initialise(machine);
        set_state(state::STARTED);
        kernel
    }

    /// Makes the dispatcher of the monitor that the loader put beside us, and gives it
    /// all that there is.
    pub fn create_monitor(&mut self) {
        // SAFETY: the record is mapped; the loader set aside pages for the objects.
        let record = unsafe { record().read() };
        let given = self.give_monitor(&record);
        given.expect("the loader puts the monitor's objects into private RAM");
    }

    fn give_monitor(&mut self, record: &CoreRecord) -> Result<(), Error> {
        let original = Capability::original;
        let machine = self.processor.machine;
        let first_slot = |cnode: u64| record.monitor_cnodes + cnode * PAGE;
        let slot = |address: Address| {
            let cnode = (address.0 >> INDEX_BITS) - 1;
            let index = address.0 & ((1 << INDEX_BITS) - 1);
            SlotId(first_slot(cnode) + index * SLOT_BYTES)
        };
        let vectors = Resource::Vectors.range().start;
        let core_end = record.region + record.private_bytes;
        let mut bundle = original(
            Kind::Frame,
            machine.bundle,
            machine.bundle_bytes.next_multiple_of(PAGE),
        );
        bundle.rights.remove(Rights::WRITE);
        bundle.marks = Marks::UNREACHABLE;
        let cores = u64::from(machine.core_count) * VECTORS;
        let capabilities = [
            (ROOT_CNODE, original(Kind::CNode, first_slot(0), PAGE)),
            (TASK_CNODE, original(Kind::CNode, first_slot(1), PAGE)),
            (
                OWN_DISPATCHER,
                original(
                    Kind::Dispatcher,
                    record.monitor_dispatcher,
                    DISPATCHER_BYTES,
                ),
            ),
            (
                OWN_SPACE,
                original(Kind::PageTable4, record.monitor_page_table, PAGE),
            ),
            (monitor::CORES, original(Kind::Core, vectors, cores)),
            (
                monitor::PRIVATE_RAM,
                original(Kind::Ram, record.free, core_end - record.free),
            ),
            (monitor::BUNDLE, bundle),
        ];
        for (address, capability) in capabilities {
            let inserted = self.capabilities.insert(slot(address), &capability);
            inserted.map_err(refusal)?;
        }
        if record.core == 0 {
            let (ports, lines) = (Resource::Ports.range(), Resource::Lines.range());
            let ports = original(Kind::IoPort, ports.start, ports.end - ports.start);
            let lines = original(Kind::IrqHandler, lines.start, 256);
            for (address, capability) in [(monitor::PORTS, ports), (monitor::LINES, lines)] {
                let inserted = self.capabilities.insert(slot(address), &capability);
                inserted.map_err(refusal)?;
            }
        }
        let doorbell = Retype {
            kind: Kind::Doorbell,
            offset: u64::from(record.core) * VECTORS + FIRST_DOORBELL,
            bytes: 1,
            count: 1,
        };
        let (source, place) = (slot(monitor::CORES), slot(OWN_DOORBELL));
        let made = self
            .capabilities
            .retype(Caller::Monitor, source, &doorbell, place);
        made.map_err(refusal)?;

        self.processor.create(record.monitor_dispatcher, MONITOR);
        self.endow(MONITOR, own_slot::CSPACE, slot(ROOT_CNODE))?;
        self.endow(MONITOR, own_slot::SPACE, slot(OWN_SPACE))?;
        self.endow(MONITOR, own_slot::DOORBELL, slot(OWN_DOORBELL))?;
        self.processor.set_priority(MONITOR, priority::MONITOR);
        let monitor = self.processor.dispatcher(MONITOR).ok_or(Error::NotFound)?;
        monitor.name = *b"monitor\0\0\0\0\0\0\0\0\0";
        recording::made(MONITOR, &monitor.name);
        monitor.registers.rip = record.monitor_entry;
        monitor.registers.rsp = USER_STACK_TOP;
        monitor.registers.rdi = USER_STARTUP;
        self.start(MONITOR);
        Ok(())
    }

    /// The slot that an address of the current dispatcher names.
    pub fn slot(&mut self, address: u64) -> Result<SlotId, Error> {
        let current = self.processor.current_dispatcher();
        let cspace = current.ok_or(Error::NotFound)?.cspace;
        self.slot_in(cspace, address)
    }

    /// The slot that an address names in the slots below a root CNode.
    pub fn slot_in(&self, cspace: CSpace, address: u64) -> Result<SlotId, Error> {
        let (cnode, index) = (address >> INDEX_BITS, address & ((1 << INDEX_BITS) - 1));
        let offset = cnode.checked_mul(SLOT_BYTES).ok_or(Error::NoSuchSlot)?;
        if cnode == 0 || index == 0 || offset >= cspace.bytes {
            return Err(Error::NoSuchSlot);
        }
        let cnode = SlotId(cspace.slots - DIRECT_MAP + offset);
        let cnode = self.capabilities.identify(cnode);
        let cnode = cnode.map_err(|_| Error::NoSuchSlot)?;
        let offset = index * SLOT_BYTES;
        if cnode.kind != Kind::CNode || offset >= cnode.bytes {
            return Err(Error::NoSuchSlot);
        }
        Ok(SlotId(cnode.base + offset))
    }

    /// The slot that an address names in the slots of whom `root` belongs to; 0: the caller.
    pub fn slot_of(&mut self, root: u64, address: u64) -> Result<SlotId, Error> {
        if root == 0 {
            return self.slot(address);
        }
        let root = self.find(root, Kind::CNode, Rights::WRITE)?;
        let cspace = CSpace {
            slots: DIRECT_MAP + root.base,
            bytes: root.bytes,
        };
        self.slot_in(cspace, address)
    }

    /// The capability in a slot.
    pub fn identify(&self, slot: SlotId) -> Result<Capability, Error> {
        self.capabilities.identify(slot).map_err(refusal)
    }

    /// The capability that an address of the current dispatcher names, if it is of a kind and
    /// has these rights.
    pub fn find(&mut self, address: u64, kind: Kind, rights: Rights) -> Result<Capability, Error> {
        let slot = self.slot(address)?;
        let capability = self.identify(slot)?;
        if capability.kind != kind {
            return Err(Error::WrongKind);
        }
        if !capability.rights.contains(rights) {
            return Err(Error::NotAllowed);
        }
        Ok(capability)
    }

    /// A piece of what is left to do for capabilities that went; whether there is more that can be
    /// done at once.
    pub fn clean(&mut self) -> bool {
        self.capabilities.needs_cleaning()
            && self.capabilities.clean_step(STEP, &mut self.processor) == Progress::More
    }

    /// Who goes on in ring 3, or nobody.
    #[inline(always)] // into the only place that calls it
    pub fn go_on(&mut self) -> ! {
        if self.capabilities.needs_cleaning() && self.processor.is_idle() {
            let_interrupts_in();
        }
        self.processor.go_on()
    }

    /// An exception of the dispatcher that ran.
    pub fn exception(&mut self, frame: &Frame) {
        if frame.vector == PAGE_FAULT {
            note(event::PAGE_FAULT, cpu::fault_address(), frame.error as u32);
        }
        if frame.vector != DEVICE_NOT_AVAILABLE || !self.processor.begin_float() {
            self.processor.note_fault(frame);
            self.fault();
        }
    }
}
