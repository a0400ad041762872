//! How fast the time-stamp counter and the local APIC's timer run; it sets no clock.
//!
//! The counter's rate comes from CPUID or the hypervisor where they tell, else it is
//! measured against the PIT, which every PC has at one fixed rate. The timer is then
//! measured against the counter. A virtual machine may be stopped by its host at any
//! point, so every sample is bracketed: it counts only as good as the bracket is narrow.

use super::DiscoverError;
use super::window::{Caching, Window};
use abi::machine::Machine;
use core::ptr::NonNull;
use raw_cpuid::{CpuId, CpuIdReaderNative};
use x86::io::{inb, outb};
use x86::msr::{rdmsr, wrmsr};
use x86::time::rdtsc;

/// The PIT's rate, in ticks a second.
const PIT_HZ: u64 = 1_193_182;
/// Ticks of one measurement: 10 ms.
const PIT_TICKS: u16 = 11_932;
/// Polls of the PIT after which it counts as absent: each takes 0.2 µs and more.
const PIT_POLLS: u32 = 1_000_000;
/// Channel 0, because its gate is always open: channel 2 wants port 0x61, which small
/// virtual machines lack. Its interrupt is masked, and nobody uses it afterwards.
const PIT_CHANNEL_0: u16 = 0x40;
const PIT_COMMAND: u16 = 0x43;
/// Channel 0, low byte then high byte, mode 0: the output is low until the count is 0.
const PIT_COUNT_ONCE: u8 = 0b0011_0000;
/// Read back the status of channel 0: bit 7 is the output, bits 0 to 5 repeat the command.
const PIT_READ_STATUS: u8 = 0b1110_0010;
const PIT_OUTPUT: u8 = 1 << 7;
/// In the status while the count has not been loaded.
const PIT_NULL_COUNT: u8 = 1 << 6;

/// A sample is good enough when its bracket is narrower than this part of it.
const GOOD: u64 = 500;
/// Otherwise the best of so many is taken.
const TRIES: u32 = 3;
/// Samples that may be spoilt before that: a busy host may stop a virtual machine for
/// longer than a sample takes, many times in a row.
const SPOILT_TRIES: u32 = 200;

const IA32_APIC_BASE: u32 = 0x1b;
const X2APIC_ENABLED: u64 = 1 << 10;
const X2APIC_FIRST: u32 = 0x800;
// Registers of the local APIC, as offsets of its page.
const SPURIOUS: u32 = 0xf0;
const LVT_TIMER: u32 = 0x320;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;
/// Software-enabled, spurious vector 255.
const APIC_ON: u32 = 0x1ff;
const LVT_MASKED: u32 = 1 << 16;
const DIVIDE_BY_1: u32 = 0b1011;

/// The time-stamp counter.
pub fn time_stamp() -> u64 {
    // SAFETY: reading it changes nothing.
    unsafe { rdtsc() }
}

/// Fills in both rates.
pub fn calibrate(
    machine: &mut Machine,
    window: &Window,
    processor: &CpuId<CpuIdReaderNative>,
) -> Result<(), DiscoverError> {
    let told = told_rate(processor);
    machine.tsc_hz = told.or_else(measured_rate).ok_or(DiscoverError::NoClock)?;
    let apic = LocalApic::new(machine.local_apic, window).ok_or(DiscoverError::NoApicTimer)?;
    machine.apic_timer_hz = apic
        .timer_rate(machine.tsc_hz)
        .ok_or(DiscoverError::NoApicTimer)?;
    Ok(())
}

/// The time-stamp counter's rate as processor or hypervisor tell it.
fn told_rate(processor: &CpuId<CpuIdReaderNative>) -> Option<u64> {
    let from_hypervisor = || {
        processor
            .get_hypervisor_info()?
            .tsc_frequency()
            .map(|kilohertz| u64::from(kilohertz) * 1000)
    };
    let from_crystal = || processor.get_tsc_info()?.tsc_frequency();
    // The base frequency of leaf 0x16 is the counter's where the crystal's is left out,
    // and only if the ratio to it is there: otherwise it is a name, not a clock.
    let from_base = || {
        let ratio = processor.get_tsc_info()?;
        let base = processor
            .get_processor_frequency_info()?
            .processor_base_frequency();
        (ratio.numerator() != 0 && ratio.denominator() != 0).then(|| u64::from(base) * 1_000_000)
    };
    [from_hypervisor(), from_crystal(), from_base()]
        .into_iter()
        .flatten()
        .find(|&rate| rate > 0)
}

/// The time-stamp counter's rate by the PIT.
fn measured_rate() -> Option<u64> {
    let best = best_sample(pit_sample)?;
    Some((u128::from(best.ticks) * u128::from(PIT_HZ) / u128::from(PIT_TICKS)) as u64)
}

/// What was measured, and how wide the bracket around it was; both in ticks of the
/// time-stamp counter.
struct Sample<T = ()> {
    ticks: u64,
    uncertain: u64,
    counted: T,
}

/// Why there is no sample.
enum NoSample {
    /// What was to be measured is not there.
    Absent,
    /// Something came in between: the next may be good.
    Spoilt,
}

fn best_sample<T>(sample: impl Fn() -> Result<Sample<T>, NoSample>) -> Option<Sample<T>> {
    let mut best: Option<Sample<T>> = None;
    let mut tries = 0;
    for _ in 0..SPOILT_TRIES {
        let new = match sample() {
            Ok(new) => new,
            Err(NoSample::Absent) => return None,
            Err(NoSample::Spoilt) => continue,
        };
        tries += 1;
        if best
            .as_ref()
            .is_none_or(|best| new.uncertain < best.uncertain)
        {
            best = Some(new);
        }
        if best
            .as_ref()
            .is_some_and(|best| tries == TRIES || best.uncertain < best.ticks / GOOD)
        {
            break;
        }
    }
    best
}

/// Lets the PIT count down once.
fn pit_sample() -> Result<Sample, NoSample> {
    let [low, high] = PIT_TICKS.to_le_bytes();
    // SAFETY: nobody else uses the PIT, and its interrupt is masked.
    unsafe {
        outb(PIT_COMMAND, PIT_COUNT_ONCE);
        outb(PIT_CHANNEL_0, low);
        let before_start = time_stamp();
        outb(PIT_CHANNEL_0, high);
        let after_start = time_stamp();
        let mut before_end = after_start;
        for _ in 0..PIT_POLLS {
            outb(PIT_COMMAND, PIT_READ_STATUS);
            let status = inb(PIT_CHANNEL_0);
            let now = time_stamp();
            if status & !(PIT_OUTPUT | PIT_NULL_COUNT) != PIT_COUNT_ONCE {
                return Err(NoSample::Absent);
            }
            if status & PIT_OUTPUT != 0 {
                let longest = now.checked_sub(before_start).ok_or(NoSample::Spoilt)?;
                // Over at the very first look: nothing tells how long ago.
                let shortest = before_end
                    .checked_sub(after_start)
                    .filter(|&ticks| ticks > 0)
                    .ok_or(NoSample::Spoilt)?;
                let ticks = shortest + (longest - shortest) / 2;
                return Ok(Sample {
                    ticks,
                    uncertain: longest - shortest,
                    counted: (),
                });
            }
            before_end = now;
        }
    }
    Err(NoSample::Absent)
}

/// The local APIC of this core, in the mode it was found in.
enum LocalApic {
    /// Registers in memory.
    XApic(NonNull<u8>),
    /// Registers as MSRs.
    X2Apic,
}

impl LocalApic {
    fn new(physical: u64, window: &Window) -> Option<Self> {
        // SAFETY: every processor with a local APIC has this register.
        if unsafe { rdmsr(IA32_APIC_BASE) } & X2APIC_ENABLED != 0 {
            return Some(Self::X2Apic);
        }
        window
            .map(physical, 0x1000, Caching::Uncached)
            .map(Self::XApic)
    }

    fn read(&self, register: u32) -> u32 {
        // SAFETY: registers of our own APIC, whose page is mapped; reading those that are
        // named above has no effect.
        unsafe {
            match self {
                Self::XApic(base) => base
                    .byte_add(register as usize)
                    .cast::<u32>()
                    .read_volatile(),
                Self::X2Apic => rdmsr(X2APIC_FIRST + register / 16) as u32,
            }
        }
    }

    fn write(&self, register: u32, value: u32) {
        // SAFETY: as for `read`; only the masked timer is set up, and interrupts are off.
        unsafe {
            match self {
                Self::XApic(base) => base
                    .byte_add(register as usize)
                    .cast::<u32>()
                    .write_volatile(value),
                Self::X2Apic => wrmsr(X2APIC_FIRST + register / 16, u64::from(value)),
            }
        }
    }

    /// Reads the timer between two looks at the time-stamp counter.
    fn bracketed(&self) -> (u64, u32, u64) {
        let before = time_stamp();
        let count = self.read(TIMER_CURRENT);
        (before, count, time_stamp())
    }

    /// The timer's rate, in ticks a second, against a time-stamp counter of known rate.
    fn timer_rate(&self, tsc_hz: u64) -> Option<u64> {
        let spurious = self.read(SPURIOUS);
        self.write(SPURIOUS, APIC_ON);
        self.write(LVT_TIMER, LVT_MASKED);
        self.write(TIMER_DIVIDE, DIVIDE_BY_1);
        let best = best_sample(|| {
            self.write(TIMER_INITIAL, u32::MAX);
            let start = self.bracketed();
            // No `pause` here: with many emulated cores each one visits all of them.
            while time_stamp().wrapping_sub(start.0) < tsc_hz / 100 {}
            let end = self.bracketed();
            let longest = end.2.checked_sub(start.0).ok_or(NoSample::Spoilt)?;
            let shortest = end.0.checked_sub(start.2).ok_or(NoSample::Spoilt)?;
            // One that stands still has run out, or does not run at all.
            let counted = start
                .1
                .checked_sub(end.1)
                .filter(|&counted| counted > 0)
                .ok_or(NoSample::Spoilt)?;
            let ticks = shortest + (longest - shortest) / 2;
            Ok(Sample {
                ticks,
                uncertain: longest - shortest,
                counted,
            })
        });
        self.write(TIMER_INITIAL, 0);
        self.write(SPURIOUS, spurious);
        let best = best?;
        Some((u128::from(best.counted) * u128::from(tsc_hz) / u128::from(best.ticks)) as u64)
    }
}
