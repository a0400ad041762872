//! The local APIC: interrupts to other cores, end of interrupt, the timer.
//!
//! x2APIC by model-specific registers where the processor has it, else xAPIC through the
//! page at [`KERNEL_LOCAL_APIC`]. Both have the same registers.

use abi::layout::KERNEL_LOCAL_APIC;
use x86::msr;

/// Vector of the timer.
pub const TIMER_VECTOR: u8 = 0x20;
/// Vector of interrupts that went away before they were taken.
pub const SPURIOUS_VECTOR: u8 = 0xff;

const TASK_PRIORITY: u32 = 0x8;
const END_OF_INTERRUPT: u32 = 0xb;
const SPURIOUS: u32 = 0xf;
const COMMAND_LOW: u32 = 0x30;
const COMMAND_HIGH: u32 = 0x31;
const TIMER: u32 = 0x32;
const TIMER_INITIAL: u32 = 0x38;
const TIMER_DIVIDE: u32 = 0x3e;

const ENABLE: u64 = 1 << 11;
const ENABLE_X2: u64 = 1 << 10;
const DELIVERY_PENDING: u32 = 1 << 12;
const LEVEL_ASSERT: u32 = 1 << 14;
const MASKED: u32 = 1 << 16;
const MODE_DEADLINE: u32 = 2 << 17;
const MODE_INIT: u32 = 5 << 8;
const MODE_STARTUP: u32 = 6 << 8;

/// The local APIC of this core.
pub struct LocalApic {
    x2: bool,
    deadline: bool,
    timer_hz: u64,
}

impl LocalApic {
    /// Switches this core's local APIC on.
    pub fn new(timer_hz: u64) -> Self {
        let features = raw_cpuid::CpuId::new().get_feature_info();
        let x2 = features
            .as_ref()
            .is_some_and(raw_cpuid::FeatureInfo::has_x2apic);
        let deadline = features
            .as_ref()
            .is_some_and(raw_cpuid::FeatureInfo::has_tsc_deadline);
        // SAFETY: enabling the local APIC, in x2APIC mode where there is one, affects this
        // core only.
        unsafe {
            let base = msr::rdmsr(msr::IA32_APIC_BASE);
            let base = base | ENABLE;
            msr::wrmsr(msr::IA32_APIC_BASE, base);
            if x2 {
                msr::wrmsr(msr::IA32_APIC_BASE, base | ENABLE_X2);
            }
        }
        let apic = Self {
            x2,
            deadline,
            timer_hz,
        };
        apic.write(TASK_PRIORITY, 0);
        apic.write(SPURIOUS, (1 << 8) | u32::from(SPURIOUS_VECTOR));
        apic.write(TIMER_DIVIDE, 0b1011); // undivided
        let mode = if deadline { MODE_DEADLINE } else { 0 };
        apic.write(TIMER, mode | u32::from(TIMER_VECTOR));
        apic
    }

    fn read(&self, register: u32) -> u32 {
        if self.x2 {
            // SAFETY: a local APIC register of this core, in x2APIC mode.
            unsafe { msr::rdmsr(0x800 + register) as u32 }
        } else {
            let at = KERNEL_LOCAL_APIC + u64::from(register) * 16;
            // SAFETY: the loader mapped the registers there, uncached.
            unsafe { (at as *const u32).read_volatile() }
        }
    }

    fn write(&self, register: u32, value: u32) {
        if self.x2 {
            // SAFETY: a local APIC register of this core, in x2APIC mode.
            unsafe { msr::wrmsr(0x800 + register, u64::from(value)) };
        } else {
            let at = KERNEL_LOCAL_APIC + u64::from(register) * 16;
            // SAFETY: the loader mapped the registers there, uncached.
            unsafe { (at as *mut u32).write_volatile(value) };
        }
    }

    fn command(&self, apic_id: u32, command: u32) {
        if self.x2 {
            // A write to this register is not ordered behind earlier stores; the message
            // that a doorbell speaks of must be visible first. It takes both fences: the
            // first orders memory, the second keeps the instruction from starting early.
            x86::fence::mfence();
            x86::fence::lfence();
            let value = (u64::from(apic_id) << 32) | u64::from(command);
            // SAFETY: the interrupt command register of this core.
            unsafe { msr::wrmsr(0x800 + COMMAND_LOW, value) };
        } else {
            while self.read(COMMAND_LOW) & DELIVERY_PENDING != 0 {
                core::hint::spin_loop();
            }
            self.write(COMMAND_HIGH, apic_id << 24);
            self.write(COMMAND_LOW, command);
        }
    }

    /// Sends interrupt `vector` to another core, or to this one.
    pub fn send(&self, apic_id: u32, vector: u8) {
        self.command(apic_id, LEVEL_ASSERT | u32::from(vector));
    }

    /// Resets a core; it then waits for a start-up interrupt.
    pub fn send_init(&self, apic_id: u32) {
        self.command(apic_id, LEVEL_ASSERT | MODE_INIT);
    }

    /// Starts a core at physical address `page * 4096`, in real mode.
    pub fn send_startup(&self, apic_id: u32, page: u8) {
        self.command(apic_id, LEVEL_ASSERT | MODE_STARTUP | u32::from(page));
    }

    /// Ends the interrupt in service.
    pub fn end_of_interrupt(&self) {
        self.write(END_OF_INTERRUPT, 0);
    }

    /// Makes the timer strike in `ns` nanoseconds, when the time-stamp counter reads
    /// `tsc`, or earlier: a 32-bit counter does not reach far.
    pub fn arm(&self, ns: u64, tsc: u64) {
        if self.deadline {
            // SAFETY: the timer of this core. The local vector table entry was written
            // long ago, so the order that the manual asks for holds.
            unsafe { msr::wrmsr(msr::IA32_TSC_DEADLINE, tsc) };
        } else {
            let ticks = (u128::from(ns) * u128::from(self.timer_hz)).div_ceil(1_000_000_000);
            let ticks = ticks.clamp(1, u128::from(u32::MAX)) as u32;
            self.write(TIMER_INITIAL, ticks);
        }
    }

    /// Keeps all interrupts out: the core is about to halt for good.
    pub fn silence(&self) {
        self.write(TIMER, MASKED);
        self.write(TASK_PRIORITY, 0xff);
    }
}
