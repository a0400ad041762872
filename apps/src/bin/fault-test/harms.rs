//! All kinds of exceptions: what the handler hears of each, and how it repairs what was wrong.

use crate::code::*;
use crate::victim::{Attempt, Victim, at};
use abi::layout::{KERNEL_IMAGE, PAGE, USER_STACK_BYTES, USER_STACK_TOP, USER_STARTUP};
use core::arch::asm;
use rt::space::{self, rights};

/// Where in a child things are missing, are mapped or are not allowed: beside its startup page,
/// where its page table goes on.
pub const PLACE: u64 = USER_STARTUP + 16 * PAGE;
/// The lowest address of its stack.
pub const STACK_BOTTOM: u64 = USER_STACK_TOP - USER_STACK_BYTES;
/// What is at the start of a page that is mapped there.
pub const CONTENT: u64 = 0x0123_4567_89ab_cdef;
/// Instructions: `mov eax, 7`, `ret`.
pub const CODE: u64 = 0xc300_0000_07b8;

/// An exception and its repair.
pub struct Harm {
    pub name: &'static str,
    pub code: unsafe extern "C" fn(u64) -> u64,
    pub argument: u64,
    /// What it returns once it is repaired.
    pub result: u64,
    /// The words of the call: vector, error code, faulting address, `rip`.
    pub vector: u64,
    pub error: u64,
    pub address: u64,
    pub at: fn() -> u64,
    /// What is mapped at [`PLACE`] before: rights and content.
    pub before: Option<(u64, u64)>,
    pub repair: fn(&mut Victim) -> Attempt,
    /// Emulators do not have the exception; then it is returned right away.
    pub emulators_lack: bool,
}

pub const DIVIDE_ERROR: u64 = 0;
pub const DEBUG_TRAP: u64 = 1;
pub const BREAKPOINT: u64 = 3;
pub const INVALID_OPCODE: u64 = 6;
pub const GENERAL_PROTECTION: u64 = 13;
pub const PAGE_FAULT: u64 = 14;
pub const X87: u64 = 16;
pub const ALIGNMENT: u64 = 17;
pub const VECTOR: u64 = 19;

/// Bits of the error code of a page fault.
pub const PRESENT: u64 = 1;
pub const WRITE: u64 = 2;
pub const USER: u64 = 4;
pub const FETCH: u64 = 16;

/// Flags.
pub const TRAP: u64 = 0x100;
pub const ALIGNMENT_CHECK: u64 = 0x4_0000;

pub const READ_ONLY: Option<(u64, u64)> = Some((rights::READ, CONTENT));

pub const HARM: Harm = Harm {
    name: "",
    code: harm_read,
    argument: PLACE,
    result: 0,
    vector: PAGE_FAULT,
    error: 0,
    address: 0,
    at: read_at::address,
    before: None,
    repair: |_| Ok(()),
    emulators_lack: false,
};

/// All kinds of exceptions.
pub const HARMS: [Harm; 18] = [
    Harm {
        name: "read, not mapped",
        result: CONTENT,
        error: USER,
        address: PLACE,
        repair: |victim| victim.show(PLACE, rights::READ, CONTENT),
        ..HARM
    },
    Harm {
        name: "write, not mapped",
        code: harm_write,
        result: pattern(3),
        error: USER | WRITE,
        address: PLACE,
        at: write_at::address,
        repair: |victim| victim.show(PLACE, rights::WRITE, CONTENT),
        ..HARM
    },
    Harm {
        name: "write, not allowed",
        code: harm_write,
        result: pattern(3),
        error: USER | WRITE | PRESENT,
        address: PLACE,
        at: write_at::address,
        before: READ_ONLY,
        repair: |victim| {
            let frame = victim.frames[0];
            at("protect", space::protect(frame, 0, rights::WRITE))
        },
        ..HARM
    },
    Harm {
        name: "execute, not mapped",
        code: harm_call,
        result: 7,
        error: USER | FETCH,
        address: PLACE,
        at: || PLACE,
        repair: |victim| victim.show(PLACE, rights::EXECUTE, CODE),
        ..HARM
    },
    Harm {
        name: "execute, not allowed",
        code: harm_call,
        result: 9,
        error: USER | FETCH | PRESENT,
        address: PLACE,
        at: || PLACE,
        before: Some((rights::WRITE, CODE)),
        // As if it had been executed, and had returned 9.
        repair: |victim| {
            let stack = victim.read("rsp")?;
            victim.write("rsp", stack + 8)?;
            victim.write("rax", 9)?;
            victim.write("rip", call_next::address())
        },
        ..HARM
    },
    Harm {
        name: "read of the kernel",
        argument: KERNEL_IMAGE,
        result: 5,
        error: USER | PRESENT,
        address: KERNEL_IMAGE,
        repair: |victim| {
            victim.write("rax", 5)?;
            victim.write("rip", read_next::address())
        },
        ..HARM
    },
    Harm {
        name: "stack overflow",
        code: harm_stack,
        argument: STACK_BOTTOM,
        result: pattern(3),
        error: USER | WRITE,
        address: STACK_BOTTOM - 8,
        at: stack_at::address,
        repair: |victim| victim.show(STACK_BOTTOM - PAGE, rights::WRITE, 0),
        ..HARM
    },
    Harm {
        name: "an address that is none",
        argument: 1 << 60,
        result: CONTENT,
        vector: GENERAL_PROTECTION,
        before: READ_ONLY,
        repair: |victim| victim.write("rdi", PLACE),
        ..HARM
    },
    Harm {
        name: "cli",
        code: harm_cli,
        vector: GENERAL_PROTECTION,
        at: cli_at::address,
        repair: |victim| victim.write("rip", cli_next::address()),
        ..HARM
    },
    Harm {
        name: "segment",
        code: harm_segment,
        result: 0x28,
        vector: GENERAL_PROTECTION,
        error: 0x28,
        at: segment_at::address,
        repair: |victim| victim.write("rip", segment_next::address()),
        ..HARM
    },
    Harm {
        name: "divide",
        code: harm_divide,
        result: 42,
        vector: DIVIDE_ERROR,
        at: divide_at::address,
        repair: |victim| victim.write("rcx", 2),
        ..HARM
    },
    Harm {
        name: "invalid opcode",
        code: harm_opcode,
        vector: INVALID_OPCODE,
        at: opcode_at::address,
        repair: |victim| victim.write("rip", opcode_next::address()),
        ..HARM
    },
    Harm {
        name: "breakpoint",
        code: harm_breakpoint,
        vector: BREAKPOINT,
        at: breakpoint_next::address,
        ..HARM
    },
    Harm {
        name: "single step",
        code: harm_step,
        result: 3,
        vector: DEBUG_TRAP,
        at: step_next::address,
        repair: |victim| victim.clear_flag(TRAP),
        ..HARM
    },
    Harm {
        name: "alignment",
        code: harm_alignment,
        result: CONTENT >> 8,
        vector: ALIGNMENT,
        at: alignment_at::address,
        before: READ_ONLY,
        repair: |victim| victim.clear_flag(ALIGNMENT_CHECK),
        emulators_lack: true,
        ..HARM
    },
    Harm {
        name: "x87",
        code: harm_x87,
        result: 4, // division by zero
        vector: X87,
        at: x87_at::address,
        repair: |victim| victim.write("rip", x87_next::address()),
        ..HARM
    },
    Harm {
        name: "vector",
        code: harm_vector,
        result: 4, // division by zero
        vector: VECTOR,
        at: vector_at::address,
        repair: |victim| victim.write("rip", vector_next::address()),
        emulators_lack: true,
        ..HARM
    },
    Harm {
        name: "with vector registers",
        code: harm_registers,
        result: CONTENT,
        error: USER,
        address: PLACE,
        at: registers_at::address,
        repair: |victim| {
            victim.show(PLACE, rights::READ, CONTENT)?;
            // SAFETY: registers that the compiler does not use.
            unsafe {
                asm!(
                    "fninit",
                    "fldz",
                    "pcmpeqd xmm0, xmm0",
                    "pcmpeqd xmm15, xmm15"
                );
            }
            Ok(())
        },
        ..HARM
    },
];

/// Numbers of some of them.
pub const READ_HARM: usize = 0;
pub const WRITE_HARM: usize = 1;
pub const OPCODE_HARM: usize = 11;
pub const BREAKPOINT_HARM: usize = 12;
