//! Floating-point and vector registers: saved for those who use them.
//!
//! A dispatcher starts without: its first such instruction traps, and from then on the
//! registers are saved when it loses the core and loaded when it gets it back. They are
//! never left behind for another to use. (Processors that let a program look at
//! registers speculatively which it may not use, CVE-2018-3665, would need them cleared, too.)
//!
//! What there is to save comes from CPUID: XSAVE with x87, SSE, AVX and AVX-512 as far as
//! the processor has them, else FXSAVE.

use crate::dispatcher::own_slots;
use core::arch::asm;
use core::arch::x86_64::__cpuid_count;
use x86::controlregs::{self, Cr0, Cr4, Xcr0};

/// Where in a dispatcher's memory the registers are kept: behind the dispatcher.
pub const AREA_OFFSET: usize = 2 * 1024;
/// Bytes set aside for them: up to the dispatcher's slots.
const AREA_BYTES: usize = own_slots(0) as usize - AREA_OFFSET;

const BASE: Xcr0 = Xcr0::XCR0_FPU_MMX_STATE.union(Xcr0::XCR0_SSE_STATE);
const AVX512: Xcr0 = Xcr0::XCR0_OPMASK_STATE
    .union(Xcr0::XCR0_ZMM_HI256_STATE)
    .union(Xcr0::XCR0_HI16_ZMM_STATE);

/// How this core saves the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// XSAVE with these features.
    Xsave(u64),
    /// FXSAVE: x87 and SSE.
    Fxsave,
}

impl Method {
    /// Gives ring 3 the registers, but for the trap on first use.
    pub fn initialise() -> Self {
        let has_xsave = raw_cpuid::CpuId::new()
            .get_feature_info()
            .is_some_and(|features| features.has_xsave());
        // SAFETY: setting these bits lets ring 3 use registers that the CPU driver, built
        // without them, never touches.
        unsafe {
            let mut cr4 = controlregs::cr4() | Cr4::CR4_ENABLE_SSE | Cr4::CR4_UNMASKED_SSE;
            if has_xsave {
                cr4 |= Cr4::CR4_ENABLE_OS_XSAVE;
            }
            controlregs::cr4_write(cr4);
        }
        if !has_xsave {
            return Self::Fxsave;
        }
        let leaf = __cpuid_count(0xd, 0);
        let supported = Xcr0::from_bits_truncate(u64::from(leaf.eax));
        let mut chosen = BASE;
        if supported.contains(Xcr0::XCR0_AVX_STATE) {
            chosen |= Xcr0::XCR0_AVX_STATE;
            if supported.contains(AVX512) {
                chosen |= AVX512;
            }
        }
        // SAFETY: features that CPUID reports, x87 and SSE among them.
        unsafe { controlregs::xcr0_write(chosen) };
        // Once features are enabled, EBX tells the room that they take.
        let room = __cpuid_count(0xd, 0).ebx as usize;
        assert!(
            room <= AREA_BYTES,
            "vector registers take {room} bytes, there are {AREA_BYTES}"
        );
        Self::Xsave(chosen.bits())
    }

    /// Saves the registers.
    ///
    /// # Safety
    /// `area` must be the register area of the dispatcher whose registers are loaded.
    pub unsafe fn save(self, area: *mut u8) {
        // SAFETY: the area is aligned to 64 bytes and large enough; see `initialise`.
        unsafe {
            match self {
                Self::Xsave(features) => asm!(
                    "xsave64 [{area}]",
                    area = in(reg) area,
                    in("eax") features as u32,
                    in("edx") (features >> 32) as u32,
                    options(nostack, preserves_flags),
                ),
                Self::Fxsave => asm!(
                    "fxsave64 [{area}]",
                    area = in(reg) area,
                    options(nostack, preserves_flags),
                ),
            }
        }
    }

    /// Loads the registers and lets ring 3 use them without a trap.
    ///
    /// # Safety
    /// `area` must have been written by [`Self::save`] or [`Self::clear`].
    pub unsafe fn load(self, area: *const u8) {
        // SAFETY: as above; ring 3 cannot write to the area, so it holds no state that
        // the instructions would refuse.
        unsafe {
            asm!("clts", options(nomem, nostack, preserves_flags));
            match self {
                Self::Xsave(features) => asm!(
                    "xrstor64 [{area}]",
                    area = in(reg) area,
                    in("eax") features as u32,
                    in("edx") (features >> 32) as u32,
                    options(nostack, preserves_flags),
                ),
                Self::Fxsave => asm!(
                    "fxrstor64 [{area}]",
                    area = in(reg) area,
                    options(nostack, preserves_flags),
                ),
            }
        }
    }

    /// Writes the registers of a program that has not used them yet into an area.
    ///
    /// # Safety
    /// `area` must be the register area of a dispatcher.
    pub unsafe fn clear(self, area: *mut u8) {
        // SAFETY: the area has this size. All zero but the control words: exceptions
        // masked, double extended precision, nearest; XSAVE's header marks every
        // component as being in its initial state.
        unsafe {
            area.write_bytes(0, AREA_BYTES);
            area.cast::<u16>().write(0x37f);
            area.add(24).cast::<u32>().write(0x1f80);
        }
    }
}

/// Makes the next use of the registers trap.
pub fn lock() {
    // SAFETY: sets the task-switched bit and nothing else.
    unsafe { controlregs::cr0_write(controlregs::cr0() | Cr0::CR0_TASK_SWITCHED) };
}
