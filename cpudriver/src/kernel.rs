//! The state of one CPU driver, and what it decides: who runs next, and until when.

use crate::arch::apic::{LocalApic, TIMER_VECTOR};
use crate::arch::entry::{CURRENT, Frame, Registers, resume_user, wait_for_interrupt};
use crate::arch::memory::PrivateRam;
use crate::arch::{cpu, descriptors, float};
use crate::clock::Clock;
use crate::dispatcher::{Dispatcher, Fault, State};
use crate::fault;
use crate::local::Local;
use crate::scheduler::RunQueue;
use crate::system_calls::{self, Arguments};
use abi::layout::{DIRECT_MAP, KERNEL_RECORD};
use abi::limits::{MAX_DISPATCHERS, TIME_SLICE_NS};
use abi::machine::Machine;
use abi::record::{CoreRecord, state};
use abi::syscall::{self, DISPATCHER_BYTES, FIRST_DOORBELL, LAST_DOORBELL};
use core::sync::atomic::Ordering;

/// Handle of the monitor's dispatcher, the only one with authority over the core.
pub const MONITOR: usize = 0;

/// The exception of a floating-point instruction that is not allowed yet.
const DEVICE_NOT_AVAILABLE: u64 = 7;

/// One CPU driver.
pub struct Kernel {
    pub machine: &'static Machine,
    pub ram: PrivateRam,
    pub apic: LocalApic,
    pub clock: Clock,
    pub dispatchers: [Option<&'static mut Dispatcher>; MAX_DISPATCHERS],
    /// Who runs, or ran last and waits in ring 0 to be told what comes next.
    pub current: usize,
    /// Handle plus 1 of whom each vector wakes; 0: nobody.
    pub doorbells: [u8; 256],
    pub run_queue: RunQueue,
    pub test_hooks: bool,
    pub debug_exit: bool,
    loaded_root: u64,
    float: float::Method,
    /// Whose floating-point registers are in the processor.
    float_holder: Option<usize>,
    /// When the timer strikes, in nanoseconds; `None`: it does not.
    armed: Option<u64>,
    slice_end: u64,
    idle: bool,
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
        let mut ram = unsafe { PrivateRam::new(core) };
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
            current: MONITOR,
            doorbells: [0; 256],
            run_queue: RunQueue::default(),
            test_hooks: machine.test_hooks != 0,
            debug_exit: machine.debug_exit != 0,
            loaded_root: record.kernel_page_table,
            float: float::Method::initialise(),
            float_holder: None,
            armed: None,
            slice_end: 0,
            idle: false,
        };
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
        let monitor = unsafe { Dispatcher::create(place, root, entry, vector, name) };
        self.dispatchers[MONITOR] = Some(monitor);
        self.doorbells[usize::from(vector)] = MONITOR as u8 + 1;
        self.run_queue.push_back(MONITOR);
    }

    /// The dispatcher behind a handle.
    pub fn dispatcher(&mut self, handle: usize) -> Option<&mut Dispatcher> {
        self.dispatchers.get_mut(handle)?.as_deref_mut()
    }

    /// Rings: the dispatcher is ready if it was waiting, and its next wait ends at once
    /// otherwise. Returns whether it was waiting.
    pub fn signal(&mut self, handle: usize) -> bool {
        let Some(dispatcher) = self.dispatcher(handle) else {
            return false;
        };
        match dispatcher.state {
            State::Waiting(_) => {
                dispatcher.state = State::Runnable;
                dispatcher.registers.rdi = 1;
                self.run_queue.push_front(handle);
                // Whoever runs is no longer alone: its time slice has an end.
                self.arm_timer();
                true
            }
            State::Runnable => {
                dispatcher.pending = true;
                false
            }
            State::Exited(_) | State::Faulted(_) => false,
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
        }
    }

    /// Ends a dispatcher, and tells the monitor.
    pub fn end(&mut self, handle: usize, state: State) {
        self.run_queue.remove(handle);
        let Some(dispatcher) = self.dispatcher(handle) else {
            return;
        };
        dispatcher.state = state;
        if handle == MONITOR {
            fault::monitor_ended(
                state,
                &self.dispatchers[MONITOR]
                    .as_ref()
                    .expect("present")
                    .registers,
            );
        }
        self.signal(MONITOR);
    }

    /// Takes a dispatcher away for good.
    pub fn destroy(&mut self, handle: usize) {
        self.run_queue.remove(handle);
        if self.float_holder == Some(handle) {
            self.float_holder = None;
            float::lock();
        }
        if let Some(dispatcher) = self.dispatchers[handle].take() {
            self.doorbells[usize::from(dispatcher.vector)] = 0;
            if self.loaded_root == dispatcher.root {
                // Its page tables may be gone the next moment.
                // SAFETY: the record's page table is the kernel's own.
                unsafe {
                    let root = record().read().kernel_page_table;
                    cpu::switch_address_space(root);
                    self.loaded_root = root;
                }
            }
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
                return self.yield_now();
            }
            syscall::WAIT => {
                self.answer(0, [0; 5]);
                self.wait(arguments[0]);
            }
            syscall::EXIT => self.end(self.current, State::Exited(arguments[0] as i32)),
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

    /// Who goes on in ring 3: the current dispatcher if it can, else the next.
    pub fn next(&mut self) -> *const Registers {
        let current = self.current;
        match self.dispatcher(current) {
            Some(dispatcher) if dispatcher.state == State::Runnable => {
                &raw const dispatcher.registers
            }
            _ => self.switch(),
        }
    }

    /// Gives the core to the next in the run queue, or idles.
    pub fn switch(&mut self) -> *const Registers {
        let Some(next) = self.run_queue.pop() else {
            count!(idle);
            self.idle = true;
            self.arm_timer();
            wait_for_interrupt();
        };
        if next != self.current {
            count!(switches);
        }
        self.switch_float(next);
        self.current = next;
        self.slice_end = self.clock.now_ns() + TIME_SLICE_NS;
        self.arm_timer();
        let Some(dispatcher) = self.dispatchers[next].as_deref_mut() else {
            unreachable!("the run queue holds dispatchers that exist");
        };
        CURRENT.store(&raw mut dispatcher.registers, Ordering::Relaxed);
        let root = dispatcher.root;
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
                .write_volatile(dispatcher.name);
        };
        &raw const dispatcher.registers
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

    /// Puts the current dispatcher at the back and gives the core to the next.
    pub fn yield_now(&mut self) -> *const Registers {
        if self.run_queue.is_empty() {
            return self.next();
        }
        self.run_queue.push_back(self.current);
        self.switch()
    }

    /// Sets the timer to the next thing that has to happen: somebody's deadline, or the end
    /// of the time slice if somebody else is ready. Nothing to happen, no timer.
    pub fn arm_timer(&mut self) {
        let deadlines = self
            .dispatchers
            .iter()
            .flatten()
            .filter_map(|dispatcher| match dispatcher.state {
                State::Waiting(deadline) => deadline,
                _ => None,
            });
        let slice = (!self.run_queue.is_empty()).then_some(self.slice_end);
        let next = deadlines.chain(slice).min();
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
    fn timer(&mut self, interrupted: bool) {
        count!(timer);
        self.armed = None;
        let now = self.clock.now_ns();
        for handle in 0..MAX_DISPATCHERS {
            if let Some(dispatcher) = self.dispatcher(handle)
                && matches!(dispatcher.state, State::Waiting(Some(deadline)) if deadline <= now)
            {
                dispatcher.state = State::Runnable;
                dispatcher.registers.rdi = 0;
                self.run_queue.push_back(handle);
            }
        }
        if interrupted && now >= self.slice_end && !self.run_queue.is_empty() {
            self.run_queue.push_back(self.current);
            self.current = MAX_DISPATCHERS; // whoever is next, it is a switch
        }
    }

    /// An interrupt from outside.
    pub fn interrupt(&mut self, frame: &Frame) -> *const Registers {
        count!(interrupts);
        let interrupted = frame.interrupted_user();
        let was_idle = core::mem::take(&mut self.idle);
        let vector = frame.vector;
        let mut preempted = false;
        if vector == u64::from(TIMER_VECTOR) {
            self.apic.end_of_interrupt();
            self.timer(interrupted);
            preempted = interrupted && self.current == MAX_DISPATCHERS;
        } else if (FIRST_DOORBELL..=LAST_DOORBELL).contains(&vector) {
            self.apic.end_of_interrupt();
            count!(doorbells_received);
            let owner = self.doorbells[vector as usize];
            if owner != 0 && self.signal(usize::from(owner) - 1) && interrupted {
                // Whom the doorbell woke goes first, and the one that ran right after it.
                let woken = self.run_queue.pop();
                self.run_queue.push_front(self.current);
                if let Some(woken) = woken {
                    self.run_queue.push_front(woken);
                }
                preempted = true;
            }
        }
        if interrupted && !preempted {
            self.arm_timer();
            return self.next();
        }
        debug_assert!(preempted || was_idle);
        self.switch()
    }

    /// An exception of the dispatcher that ran.
    pub fn exception(&mut self, frame: &Frame) -> *const Registers {
        if frame.vector == DEVICE_NOT_AVAILABLE && self.float_holder != Some(self.current) {
            self.begin_float();
            return self.next();
        }
        let fault = Fault {
            vector: frame.vector,
            error: frame.error,
            address: if frame.vector == 14 {
                cpu::fault_address()
            } else {
                0
            },
        };
        self.end(self.current, State::Faulted(fault));
        self.switch()
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
        let registers = self.switch();
        // SAFETY: `switch` loaded its address space.
        unsafe { resume_user(registers) }
    }
}
