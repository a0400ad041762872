//! The state of one CPU driver, and what it decides: who runs next, and until when.

use crate::arch::apic::{LocalApic, TIMER_VECTOR};
use crate::arch::entry::{CURRENT, Frame, Registers, resume_user, wait_for_interrupt};
use crate::arch::memory::PrivateRam;
use crate::arch::{cpu, descriptors, float};
use crate::clock::Clock;
use crate::dispatcher::{Dispatcher, State};
use crate::fault;
use crate::local::Local;
use crate::scheduler::{Scheduler, Wake};
use crate::system_calls::{self, Arguments};
use abi::exception::{Detail, PAGE_FAULT};
use abi::layout::{DIRECT_MAP, KERNEL_RECORD};
use abi::limits::MAX_DISPATCHERS;
use abi::machine::Machine;
use abi::record::{CoreRecord, state};
use abi::syscall::{self, DISPATCHER_BYTES, FIRST_DOORBELL, LAST_DOORBELL, priority};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

/// Handle of the monitor's dispatcher, the only one with authority over the core.
pub const MONITOR: usize = 0;

/// Stands for no dispatcher.
const NOBODY: usize = MAX_DISPATCHERS;

/// The exception of a floating-point instruction that is not allowed yet.
const DEVICE_NOT_AVAILABLE: u64 = 7;

/// One CPU driver.
pub struct Kernel {
    pub machine: &'static Machine,
    pub ram: PrivateRam,
    pub apic: LocalApic,
    pub clock: Clock,
    /// Where they live: memory that the monitor gave, until it destroys them.
    pub dispatchers: [Option<NonNull<Dispatcher>>; MAX_DISPATCHERS],
    /// Whose registers a system call saves: who runs in ring 3, or did last.
    pub current: usize,
    /// Handle plus 1 of whom each vector wakes; 0: nobody.
    pub doorbells: [u8; 256],
    pub scheduler: Scheduler<MAX_DISPATCHERS>,
    pub test_hooks: bool,
    loaded_root: u64,
    float: float::Method,
    /// Whose floating-point registers are in the processor.
    float_holder: Option<usize>,
    /// When the timer strikes, in nanoseconds; `None`: it does not.
    armed: Option<u64>,
}

static KERNEL: Local<Option<Kernel>> = Local::new(None);

/// This core's CPU driver, for the length of one entry into ring 0.
///
/// # Safety
/// Only at an entry into ring 0, once: no other reference may be alive.
pub unsafe fn kernel() -> Option<&'static mut Kernel> {
    // SAFETY: the caller's promise.
    unsafe { KERNEL.get_mut().as_mut() }
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
        let clock = Clock::new(machine);
        // SAFETY: `core` is this core, and the loader mapped its private RAM.
        let mut ram = unsafe { PrivateRam::new(core, record.free) };
        // The trampoline page was needed for one instruction. Whatever ring 0 has mapped
        // from here on is this core's own.
        loader::paging::TableMemory::write(&mut ram, record.kernel_page_table, 0, 0);
        // SAFETY: this is the kernel's own page table, without a lower half.
        unsafe { cpu::switch_address_space(record.kernel_page_table) };
        let kernel = Self {
            machine,
            ram,
            apic: LocalApic::new(machine.apic_timer_hz),
            clock,
            dispatchers: [const { None }; MAX_DISPATCHERS],
            current: NOBODY,
            doorbells: [0; 256],
            scheduler: Scheduler::new(),
            test_hooks: machine.test_hooks != 0,
            loaded_root: record.kernel_page_table,
            float: float::Method::initialise(),
            float_holder: None,
            armed: None,
        };
        fault::set_debug_exit(machine.debug_exit != 0);
        // SAFETY: first use; interrupts are still off.
        let kernel = unsafe { KERNEL.get_mut() }.insert(kernel);
        // SAFETY: the record is mapped, and this core's to write.
        unsafe { (&raw mut (*self::record()).started_tsc).write_volatile(cpu::time_stamp()) };
        set_state(state::STARTED);
        kernel
    }

    /// Makes the dispatcher of the monitor that the loader put beside us.
    pub fn create_monitor(&mut self) {
        // SAFETY: the record is mapped; the loader set aside pages for the dispatcher.
        let record = unsafe { record().read() };
        let place = self
            .ram
            .pointer(record.monitor_dispatcher, DISPATCHER_BYTES);
        let place = place.expect("the loader puts the monitor's dispatcher into private RAM");
        let (root, entry) = (record.monitor_page_table, record.monitor_entry);
        let vector = FIRST_DOORBELL as u8;
        let name = *b"monitor\0\0\0\0\0\0\0\0\0";
        // SAFETY: the pages were set aside for this and nothing else.
        let monitor =
            unsafe { Dispatcher::create(place, root, entry, vector, priority::MONITOR, name) };
        self.dispatchers[MONITOR] = NonNull::new(monitor);
        self.doorbells[usize::from(vector)] = MONITOR as u8 + 1;
        self.scheduler.add(MONITOR, priority::MONITOR);
    }

    /// The dispatcher behind a handle.
    pub fn dispatcher(&mut self, handle: usize) -> Option<&mut Dispatcher> {
        let dispatcher = (*self.dispatchers.get(handle)?)?;
        // SAFETY: it lives until it is taken out of the table, and the only references to it
        // come from here, each for as long as this CPU driver is borrowed.
        Some(unsafe { &mut *dispatcher.as_ptr() })
    }

    /// Rings: the dispatcher is ready if it was waiting, and its next wait ends at once
    /// otherwise.
    pub fn signal(&mut self, handle: usize, by: Wake) {
        let Some(dispatcher) = self.dispatcher(handle) else {
            return;
        };
        match dispatcher.state {
            State::Waiting(_) => {
                dispatcher.registers.rdi = 1;
                self.make_ready(handle, by);
            }
            State::Runnable => dispatcher.pending = true,
            State::Exited(_) | State::Faulted(_) => {}
        }
    }

    fn make_ready(&mut self, handle: usize, by: Wake) {
        let now = self.clock.now_ns();
        if let Some(dispatcher) = self.dispatcher(handle) {
            dispatcher.state = State::Runnable;
            let priority = dispatcher.priority;
            self.scheduler.wake(handle, priority, by, now);
        }
    }

    /// Blocks the current dispatcher until a doorbell or a deadline.
    pub fn wait(&mut self, deadline_ns: u64) {
        let now = self.clock.now_ns();
        let current = self.current;
        let Some(dispatcher) = self.dispatcher(current) else {
            return;
        };
        if core::mem::take(&mut dispatcher.pending) {
            dispatcher.registers.rdi = 1;
        } else if deadline_ns != 0 && deadline_ns <= now {
            dispatcher.registers.rdi = 0;
        } else {
            dispatcher.state = State::Waiting((deadline_ns != 0).then_some(deadline_ns));
            self.scheduler.block(now);
        }
    }

    /// Ends the current dispatcher, and tells the monitor.
    fn end(&mut self, state: State) {
        let current = self.current;
        self.scheduler.remove(current);
        let Some(dispatcher) = self.dispatcher(current) else {
            return;
        };
        dispatcher.state = state;
        if current == MONITOR {
            fault::monitor_ended(state, &dispatcher.registers);
        }
        self.signal(MONITOR, Wake::Call);
    }

    /// Takes a dispatcher away for good. It is not the current one: that is the monitor,
    /// which asked for it. So neither its registers nor its page tables are in use.
    pub fn destroy(&mut self, handle: usize) {
        debug_assert!(handle != self.current && self.float_holder != Some(handle));
        self.scheduler.remove(handle);
        if let Some(dispatcher) = self.dispatcher(handle) {
            let vector = dispatcher.vector;
            self.doorbells[usize::from(vector)] = 0;
            self.dispatchers[handle] = None;
        }
    }

    /// Whether a page table root is the one in use, so that a change of it must reach the
    /// translation cache.
    pub fn is_loaded(&self, root: u64) -> bool {
        self.loaded_root == root
    }

    /// Carries out a system call of the current dispatcher.
    pub fn system_call(&mut self, number: u64, arguments: Arguments) -> *const Registers {
        count!(system_calls);
        match number {
            syscall::YIELD => {
                self.answer(0, [0; 5]);
                self.scheduler.give_way();
            }
            syscall::WAIT => {
                self.answer(0, [0; 5]);
                self.wait(arguments[0]);
            }
            syscall::EXIT => self.end(State::Exited(arguments[0] as i32)),
            _ => match system_calls::call(self, number, arguments) {
                Ok(results) => self.answer(0, results.0),
                Err(refusal) => self.answer(refusal.error as u64, [refusal.level, 0, 0, 0, 0]),
            },
        }
        self.next()
    }

    /// Leaves the results of a call where the current dispatcher finds them.
    fn answer(&mut self, error: u64, results: [u64; 5]) {
        let current = self.current;
        if let Some(dispatcher) = self.dispatcher(current) {
            let registers = &mut dispatcher.registers;
            registers.rax = error;
            [
                registers.rdi,
                registers.rsi,
                registers.rdx,
                registers.r10,
                registers.r8,
            ] = results;
        }
    }

    /// Who goes on in ring 3, or nobody. Every way out of ring 0 leads through here, so the
    /// timer is set here and nowhere else.
    pub fn next(&mut self) -> *const Registers {
        if self.scheduler.running().is_none() {
            let now = self.clock.now_ns();
            self.scheduler.next(now);
        }
        if self.scheduler.take_changed() {
            self.arm_timer();
        }
        match self.scheduler.running() {
            None => {
                count!(idle);
                wait_for_interrupt();
            }
            Some(next) if next != self.current => self.switch(next),
            Some(next) => {
                let dispatcher = self.dispatcher(next);
                &raw const dispatcher.expect("whoever runs exists").registers
            }
        }
    }

    /// Gives the core to another dispatcher.
    fn switch(&mut self, next: usize) -> *const Registers {
        count!(switches);
        self.switch_float(next);
        self.current = next;
        let Some(dispatcher) = self.dispatcher(next) else {
            unreachable!("the scheduler knows dispatchers that exist");
        };
        let registers = &raw mut dispatcher.registers;
        let (root, name) = (dispatcher.root, dispatcher.name);
        CURRENT.store(registers, Ordering::Relaxed);
        if self.loaded_root != root {
            // SAFETY: `MAKE_ROOT` or the loader put this core's kernel half into it.
            unsafe { cpu::switch_address_space(root) };
            self.loaded_root = root;
        }
        let record = record();
        // SAFETY: the record is mapped, and this core's to write.
        unsafe {
            (&raw mut (*record).current)
                .cast::<[u8; 16]>()
                .write_volatile(name);
        };
        registers
    }

    /// Saves the floating-point registers of who had them, and loads those of who is next.
    fn switch_float(&mut self, next: usize) {
        if self.float_holder == Some(next) {
            return;
        }
        let method = self.float;
        if let Some(holder) = self.float_holder.take()
            && let Some(dispatcher) = self.dispatcher(holder)
        {
            // SAFETY: the registers in the processor are this dispatcher's.
            unsafe { method.save(dispatcher.float_area()) };
            float::lock();
        }
        if let Some(dispatcher) = self.dispatcher(next)
            && dispatcher.uses_float
        {
            // SAFETY: they were saved, or cleared on first use.
            unsafe { method.load(dispatcher.float_area()) };
            self.float_holder = Some(next);
        }
    }

    /// The current dispatcher used floating-point registers for the first time.
    fn begin_float(&mut self) {
        let (method, current) = (self.float, self.current);
        if let Some(dispatcher) = self.dispatcher(current) {
            dispatcher.uses_float = true;
            // SAFETY: its own area, cleared right before.
            unsafe {
                method.clear(dispatcher.float_area());
                method.load(dispatcher.float_area());
            }
            self.float_holder = Some(current);
        }
    }

    /// Sets the timer to the next thing that has to happen: somebody's deadline, or the end
    /// of the time slice if somebody else is ready. Nothing to happen, no timer.
    fn arm_timer(&mut self) {
        let mut next = self.scheduler.slice_end();
        for handle in 0..MAX_DISPATCHERS {
            if let Some(dispatcher) = self.dispatcher(handle)
                && let State::Waiting(Some(deadline)) = dispatcher.state
            {
                next = Some(next.map_or(deadline, |next| next.min(deadline)));
            }
        }
        if next == self.armed {
            return;
        }
        self.armed = next;
        match next {
            Some(ns) => {
                let from_now = ns.saturating_sub(self.clock.now_ns());
                self.apic.arm(from_now, self.clock.time_stamp_at(ns));
            }
            None => self.apic.disarm(),
        }
    }

    /// The timer struck: wakes whose deadline has come, and ends a time slice that is over.
    fn timer(&mut self) {
        count!(timer);
        self.armed = None;
        let now = self.clock.now_ns();
        for handle in 0..MAX_DISPATCHERS {
            if let Some(dispatcher) = self.dispatcher(handle)
                && matches!(dispatcher.state, State::Waiting(Some(deadline)) if deadline <= now)
            {
                dispatcher.registers.rdi = 0;
                self.make_ready(handle, Wake::Interrupt);
            }
        }
        self.scheduler.tick(now);
    }

    /// An interrupt from outside.
    pub fn interrupt(&mut self, frame: &Frame) -> *const Registers {
        count!(interrupts);
        let vector = frame.vector;
        if vector == u64::from(TIMER_VECTOR) {
            self.apic.end_of_interrupt();
            self.timer();
        } else if (FIRST_DOORBELL..=LAST_DOORBELL).contains(&vector) {
            self.apic.end_of_interrupt();
            count!(doorbells_received);
            let owner = self.doorbells[vector as usize];
            if owner != 0 {
                self.signal(usize::from(owner) - 1, Wake::Interrupt);
            }
        }
        self.next()
    }

    /// An exception of the dispatcher that ran.
    pub fn exception(&mut self, frame: &Frame) -> *const Registers {
        if frame.vector == DEVICE_NOT_AVAILABLE && self.float_holder != Some(self.current) {
            self.begin_float();
            return self.next();
        }
        let fault = Detail {
            vector: frame.vector,
            error: frame.error,
            address: if frame.vector == PAGE_FAULT {
                cpu::fault_address()
            } else {
                0
            },
        };
        self.end(State::Faulted(fault));
        self.next()
    }

    /// Saves what an interrupt found in the registers.
    pub fn save(&mut self, frame: &Frame) {
        let current = self.current;
        if let Some(dispatcher) = self.dispatcher(current) {
            dispatcher.registers = frame.registers();
        }
    }

    /// Lets the first dispatcher run.
    pub fn start(&mut self) -> ! {
        let registers = self.next();
        // SAFETY: `next` loaded its address space.
        unsafe { resume_user(registers) }
    }
}
