//! Vector registers with contents that nobody else has.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, _xgetbv};
use core::sync::atomic::{AtomicU64, Ordering};

/// Words that look like nothing else.
pub fn pattern(seed: u64, index: u64) -> u64 {
    let mixed = (seed << 32 ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// What is in the sixteen vector registers, on top of the x87 stack and in both control words.
/// The compiler uses none of them here.
#[repr(C, align(32))]
pub struct Vectors {
    registers: [[u64; 4]; 16],
    top: u64,
    x87_control: u16,
    sse_control: u32,
}

impl Vectors {
    pub fn of(seed: u64) -> Self {
        let rounding = seed % 4;
        Self {
            registers: core::array::from_fn(|register| {
                core::array::from_fn(|word| pattern(seed, (register * 4 + word) as u64))
            }),
            top: pattern(seed, 64) >> 1,
            // Exceptions masked, extended precision; rounding differs.
            x87_control: 0x37f | (rounding as u16) << 10,
            sse_control: 0x1f80 | (rounding as u32) << 13,
        }
    }

    /// Loads the registers.
    pub fn load(&self) {
        // SAFETY: reads `self`; the registers that change are nobody's.
        unsafe {
            asm!(
                "fninit",
                "fldcw word ptr [{control}]",
                "fild qword ptr [{top}]",
                "ldmxcsr dword ptr [{sse}]",
                control = in(reg) &raw const self.x87_control,
                top = in(reg) &raw const self.top,
                sse = in(reg) &raw const self.sse_control,
                options(nostack, readonly),
            );
            if has_avx() {
                asm!(
                    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                    "vmovdqa ymm\\n, [{from} + 32 * \\n]",
                    ".endr",
                    from = in(reg) &raw const self.registers,
                    options(nostack, readonly),
                );
            } else {
                asm!(
                    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                    "movdqa xmm\\n, [{from} + 32 * \\n]",
                    ".endr",
                    from = in(reg) &raw const self.registers,
                    options(nostack, readonly),
                );
            }
        }
    }

    /// How many of the registers do not hold this. Takes the number off the x87 stack.
    pub fn differences(&self) -> u64 {
        let mut found = Self {
            registers: [[0; 4]; 16],
            top: 0,
            x87_control: 0,
            sse_control: 0,
        };
        // SAFETY: writes `found`.
        unsafe {
            if has_avx() {
                asm!(
                    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                    "vmovdqa [{to} + 32 * \\n], ymm\\n",
                    ".endr",
                    to = in(reg) &raw mut found.registers,
                    options(nostack),
                );
            } else {
                asm!(
                    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                    "movdqa [{to} + 32 * \\n], xmm\\n",
                    ".endr",
                    to = in(reg) &raw mut found.registers,
                    options(nostack),
                );
            }
            asm!(
                "fnstcw word ptr [{control}]",
                "fistp qword ptr [{top}]",
                "stmxcsr dword ptr [{sse}]",
                control = in(reg) &raw mut found.x87_control,
                top = in(reg) &raw mut found.top,
                sse = in(reg) &raw mut found.sse_control,
                options(nostack),
            );
        }
        let words = if has_avx() { 4 } else { 2 };
        let pairs = self.registers.iter().zip(&found.registers);
        let registers = pairs.filter(|(own, found)| own[..words] != found[..words]);
        registers.count() as u64
            + u64::from(self.top != found.top)
            + u64::from(self.x87_control != found.x87_control)
            + u64::from(self.sse_control != found.sse_control)
    }
}

/// Whether there are vector registers of 256 bits that the CPU driver lets us use.
pub fn has_avx() -> bool {
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    match KNOWN.load(Ordering::Relaxed) {
        0 => {
            // AVX, and OSXSAVE without which the other question is not allowed.
            let features = __cpuid(1).ecx;
            // SAFETY: CPUID reports the instruction.
            let enabled = features >> 27 & 3 == 3 && unsafe { enabled_state() } & 6 == 6;
            KNOWN.store(1 + u64::from(enabled), Ordering::Relaxed);
            enabled
        }
        known => known == 2,
    }
}

/// What of the processor's state is enabled.
///
/// # Safety
/// The processor must have XSAVE, and the CPU driver use it.
#[target_feature(enable = "xsave")]
pub unsafe fn enabled_state() -> u64 {
    // SAFETY: the caller's promise.
    unsafe { _xgetbv(0) }
}
