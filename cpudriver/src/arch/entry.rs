//! The ways in and out of ring 3.
//!
//! On the way in, the registers of the dispatcher that ran are saved in its own object; on
//! the way out, those of the next are loaded. The one kernel stack is empty again by then:
//! nothing of the CPU driver survives from one entry to the next but its statics.

use super::descriptors::{USER_CODE, USER_DATA};
use crate::{interrupt, system_call};
use abi::layout::kernel_stack_top;
use core::mem::offset_of;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64};

/// Registers of a dispatcher that does not run. The first 18 are those that
/// [`abi::syscall::REGISTERS`] names, in its order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
    /// Not 0: stopped between any two instructions, every register counts. 0: stopped in a
    /// system call, which leaves `rcx`, `r9` and `r11` undefined.
    pub all: u64,
}

/// What an exception or interrupt leaves on the kernel stack, `rax` to `r15` included.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl Frame {
    /// Whether ring 3 was interrupted.
    pub fn interrupted_user(&self) -> bool {
        self.cs & 3 == 3
    }

    /// The registers as a dispatcher keeps them.
    pub fn registers(&self) -> Registers {
        Registers {
            rax: self.rax,
            rbx: self.rbx,
            rcx: self.rcx,
            rdx: self.rdx,
            rsi: self.rsi,
            rdi: self.rdi,
            rbp: self.rbp,
            rsp: self.rsp,
            r8: self.r8,
            r9: self.r9,
            r10: self.r10,
            r11: self.r11,
            r12: self.r12,
            r13: self.r13,
            r14: self.r14,
            r15: self.r15,
            rip: self.rip,
            rflags: self.rflags,
            all: 1,
        }
    }
}

/// The registers into which a system call saves what the caller wants back.
pub static CURRENT: AtomicPtr<Registers> = AtomicPtr::new(null_mut());
static USER_STACK: AtomicU64 = AtomicU64::new(0);

core::arch::global_asm!(
    ".pushsection .text.entry, \"ax\"",
    // ---- system calls -------------------------------------------------------------
    ".balign 64",
    ".global system_call_entry",
    "system_call_entry:",
    "mov [rip + {user_stack}], rsp",
    "mov rsp, [rip + {current}]",
    "mov [rsp + {RIP}], rcx",
    "mov [rsp + {RFLAGS}], r11",
    "mov rcx, [rip + {user_stack}]",
    "mov [rsp + {RSP}], rcx",
    "mov [rsp + {RBX}], rbx",
    "mov [rsp + {RBP}], rbp",
    "mov [rsp + {R12}], r12",
    "mov [rsp + {R13}], r13",
    "mov [rsp + {R14}], r14",
    "mov [rsp + {R15}], r15",
    "mov qword ptr [rsp + {ALL}], 0",
    "mov rsp, {stack}",
    "mov rcx, r10",
    "xor ebp, ebp", // backtraces end here
    "push rbp",
    "push rax", // the number is the seventh argument
    "call {system_call}",
    "mov rdi, rax",
    // ---- out: rdi points to the registers to go on with -----------------------------
    ".global resume",
    "resume:",
    "cmp qword ptr [rdi + {ALL}], 0",
    "jne 2f",
    "mov rcx, [rdi + {RIP}]",
    "mov r11, [rdi + {RFLAGS}]",
    "mov rsp, [rdi + {RSP}]",
    "mov rbx, [rdi + {RBX}]",
    "mov rbp, [rdi + {RBP}]",
    "mov r12, [rdi + {R12}]",
    "mov r13, [rdi + {R13}]",
    "mov r14, [rdi + {R14}]",
    "mov r15, [rdi + {R15}]",
    "mov rax, [rdi + {RAX}]",
    "mov rsi, [rdi + {RSI}]",
    "mov rdx, [rdi + {RDX}]",
    "mov r10, [rdi + {R10}]",
    "mov r8, [rdi + {R8}]",
    "xor r9d, r9d", // nothing of the kernel's leaks out
    "mov rdi, [rdi + {RDI}]",
    "sysretq",
    "2:",
    "mov rsp, {stack}",
    "push {user_data}",
    "push [rdi + {RSP}]",
    "push [rdi + {RFLAGS}]",
    "push {user_code}",
    "push [rdi + {RIP}]",
    "mov rax, [rdi + {RAX}]",
    "mov rbx, [rdi + {RBX}]",
    "mov rcx, [rdi + {RCX}]",
    "mov rdx, [rdi + {RDX}]",
    "mov rsi, [rdi + {RSI}]",
    "mov rbp, [rdi + {RBP}]",
    "mov r8, [rdi + {R8}]",
    "mov r9, [rdi + {R9}]",
    "mov r10, [rdi + {R10}]",
    "mov r11, [rdi + {R11}]",
    "mov r12, [rdi + {R12}]",
    "mov r13, [rdi + {R13}]",
    "mov r14, [rdi + {R14}]",
    "mov r15, [rdi + {R15}]",
    "mov rdi, [rdi + {RDI}]",
    "iretq",
    // ---- exceptions and interrupts ----------------------------------------------------
    ".balign 16",
    ".global interrupt_stubs",
    "interrupt_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    // These push an error code themselves.
    ".if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30",
    ".else",
    "push 0",
    ".endif",
    "push vector",
    "jmp 3f",
    ".set vector, vector + 1",
    ".endr",
    "3:",
    "push rax",
    "push rbx",
    "push rcx",
    "push rdx",
    "push rsi",
    "push rdi",
    "push rbp",
    "push r8",
    "push r9",
    "push r10",
    "push r11",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    // Ring 3 chose the direction and alignment-check flags; the latter would switch off
    // the protection of user pages against us.
    "push 2",
    "popfq",
    "mov rdi, rsp",
    "xor ebp, ebp",
    "call {interrupt}",
    "mov rdi, rax",
    "jmp resume",
    // ---- waiting for an interrupt -------------------------------------------------------
    ".global idle",
    "idle:",
    "mov rsp, {stack}",
    "sti",
    "4: hlt",
    "jmp 4b",
    // ---- the first instructions of a core in its own memory -----------------------------
    ".global core_entry",
    "core_entry:",
    "xor ebp, ebp",
    "call {main}",
    "ud2",
    // ---- core 0 leaves the boot loader's memory for its own: page table, stack -----------
    ".global leave_for",
    "leave_for:",
    // The boot loader's global pages would outlive its page tables.
    "mov rax, cr4",
    "and rax, ~0x80",
    "mov cr4, rax",
    "mov cr3, rdi",
    "mov rsp, rsi",
    "jmp core_entry",
    ".popsection",
    user_stack = sym USER_STACK,
    current = sym CURRENT,
    stack = const kernel_stack_top(0) as i64,
    system_call = sym system_call,
    interrupt = sym interrupt,
    main = sym crate::main,
    user_data = const USER_DATA,
    user_code = const USER_CODE,
    RAX = const offset_of!(Registers, rax),
    RBX = const offset_of!(Registers, rbx),
    RCX = const offset_of!(Registers, rcx),
    RDX = const offset_of!(Registers, rdx),
    RSI = const offset_of!(Registers, rsi),
    RDI = const offset_of!(Registers, rdi),
    RBP = const offset_of!(Registers, rbp),
    RSP = const offset_of!(Registers, rsp),
    R8 = const offset_of!(Registers, r8),
    R9 = const offset_of!(Registers, r9),
    R10 = const offset_of!(Registers, r10),
    R11 = const offset_of!(Registers, r11),
    R12 = const offset_of!(Registers, r12),
    R13 = const offset_of!(Registers, r13),
    R14 = const offset_of!(Registers, r14),
    R15 = const offset_of!(Registers, r15),
    RIP = const offset_of!(Registers, rip),
    RFLAGS = const offset_of!(Registers, rflags),
    ALL = const offset_of!(Registers, all),
);

unsafe extern "C" {
    /// Entry of `syscall`.
    pub fn system_call_entry();
    /// First instructions of a core in its own memory.
    pub fn core_entry();
    fn interrupt_stubs();
    fn idle() -> !;
    fn resume(registers: *const Registers) -> !;
    fn leave_for(page_table: u64, stack: u64) -> !;
}

/// Address of the stub for `vector`.
pub fn stub(vector: usize) -> u64 {
    interrupt_stubs as *const () as u64 + vector as u64 * 16
}

/// Waits for an interrupt with an empty kernel stack.
pub fn wait_for_interrupt() -> ! {
    // SAFETY: nothing on the stack is needed again: an interrupt ends in `resume` or here.
    unsafe { idle() }
}

/// Goes on in ring 3.
///
/// # Safety
/// The address space of the dispatcher that `registers` belong to must be loaded.
pub unsafe fn resume_user(registers: *const Registers) -> ! {
    // SAFETY: the caller's promise.
    unsafe { resume(registers) }
}

/// Leaves the boot loader's memory for the copy of the CPU driver behind `page_table`.
///
/// # Safety
/// The copy must be of this very image, so that the next instruction is the same in both.
pub unsafe fn enter_own_memory(page_table: u64) -> ! {
    // SAFETY: the caller's promise.
    unsafe { leave_for(page_table, kernel_stack_top(0)) }
}

/// Loads the segment registers.
///
/// # Safety
/// The selectors must name a 64-bit code and a data segment of ring 0.
pub unsafe fn load_segments(code: u16, data: u16) {
    // SAFETY: the caller's promise; the far return goes to the next instruction.
    unsafe {
        core::arch::asm!(
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ds, {data:e}",
            "mov es, {data:e}",
            "mov ss, {data:e}",
            "mov fs, {zero:e}",
            "mov gs, {zero:e}",
            code = in(reg) u64::from(code),
            data = in(reg) u64::from(data),
            zero = in(reg) 0u64,
            scratch = out(reg) _,
        );
    }
}
