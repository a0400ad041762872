//! The ways in and out of ring 3.
//!
//! A system call goes through one of three:
//!
//! - Most calls change nothing about who runs. The caller goes on with the results, which are left
//!   in its dispatcher; its other registers were never touched.
//! - Where somebody else may have to run, those are saved there too, and [`crate::choose`] goes on with
//!   whoever does.
//! - The call of a server that waits for it, and the answer to a client that waits for it,
//!   change from one to the other right here: the *fast path*, which does what `lrpc` would.
//!
//! Interrupts and exceptions save all registers. The one kernel stack is empty again on the way
//! out: nothing of the CPU driver survives from one entry to the next but its statics.

use super::descriptors::{USER_CODE, USER_DATA};
use crate::dispatcher::{Dispatcher, Endpoint, State};
use crate::recording;
use crate::system_calls::{self, CALLS};
use crate::{choose, interrupt, work};
use abi::capability::{INDEX_BITS, Kind, Rights};
use abi::layout::{DIRECT_MAP, KERNEL_RECORD, KERNEL_TRACE, kernel_stack_top};
use abi::limits::MAX_DISPATCHERS;
use abi::record::{CoreRecord, Counters};
use abi::syscall;
use capabilities::Capability;
use core::mem::offset_of;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64};

/// Registers of a dispatcher that does not run. The first 18 are those that
/// [`abi::syscall::REGISTERS`] names, in its order.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
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
    /// system call, which leaves `rcx` and `r11` undefined.
    pub all: u64,
}

impl Registers {
    /// Those of a dispatcher that has not run yet.
    pub const START: Self = Self {
        rax: 0,
        rbx: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rdi: 0,
        rbp: 0,
        rsp: 0,
        r8: 0,
        r9: 0,
        r10: 0,
        r11: 0,
        r12: 0,
        r13: 0,
        r14: 0,
        r15: 0,
        rip: 0,
        rflags: 0x202,
        all: 1,
    };
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

/// Who runs in ring 3, or did last.
pub static CURRENT: AtomicPtr<Dispatcher> = AtomicPtr::new(null_mut());
/// Whose turn it is: whom the current one runs for. Often it is itself.
pub static CONTEXT: AtomicPtr<Dispatcher> = AtomicPtr::new(null_mut());
/// All dispatchers, by handle.
pub static TABLE: [AtomicPtr<Dispatcher>; MAX_DISPATCHERS] =
    [const { AtomicPtr::new(null_mut()) }; MAX_DISPATCHERS];
/// Whose floating-point registers are in the processor: the handle plus 1; 0: nobody's.
pub static FLOAT_HOLDER: AtomicU64 = AtomicU64::new(0);
static USER_STACK: AtomicU64 = AtomicU64::new(0);

core::arch::global_asm!(
    ".pushsection .text.entry, \"ax\"",
    // ---- system calls -------------------------------------------------------------
    ".balign 64",
    ".global system_call_entry",
    "system_call_entry:",
    "mov [rip + {user_stack}], rsp",
    "mov rsp, {stack} - 8", // functions find it aligned after three words and an address
    "push [rip + {user_stack}]",
    "push rcx",
    "push r11",
    "mov rcx, r10",
    "mov r11d, {LAST} + 1",
    "cmp rax, r11",
    "cmova rax, r11",
    "lea r11, [rip + {calls}]",
    "call [r11 + rax * 8]",
    "test al, al",
    "jnz 11f",
    "mov r11, [rip + {current}]",
    "mov rax, [r11 + {RAX}]",
    "mov rdi, [r11 + {RDI}]",
    "mov rsi, [r11 + {RSI}]",
    "mov rdx, [r11 + {RDX}]",
    "mov r10, [r11 + {R10}]",
    "mov r8, [r11 + {R8}]",
    "mov r9, [r11 + {R9}]",
    "pop r11",
    "pop rcx",
    "pop rsp",
    "sysretq",
    // Somebody else may run next. The caller's registers that functions keep are as they were.
    "11:",
    "mov rdi, [rip + {current}]",
    "pop [rdi + {RFLAGS}]",
    "pop [rdi + {RIP}]",
    "pop [rdi + {RSP}]",
    "mov [rdi + {RBX}], rbx",
    "mov [rdi + {RBP}], rbp",
    "mov [rdi + {R12}], r12",
    "mov [rdi + {R13}], r13",
    "mov [rdi + {R14}], r14",
    "mov [rdi + {R15}], r15",
    "mov qword ptr [rdi + {ALL}], 0",
    "mov rsp, {stack}",
    "xor ebp, ebp", // backtraces end here
    "call {choose}",
    "ud2", // it does not come back
    // ---- the fast path of LRPC ------------------------------------------------------
    // Two functions that stand in the table of calls. Where they can do what they are for, they
    // do not return; else they go on as the function of the slow path.
    //
    // Leaves the current dispatcher's registers that functions keep in it, which rax points
    // to, and looks up the endpoint capability that rdi names: rbp its slot, r13 the endpoint,
    // r12 the direct map. Where that is not so easy, the slow path finds out why.
    ".macro look_up_endpoint right",
    "mov rax, [rip + {current}]",
    "mov [rax + {RBX}], rbx",
    "mov [rax + {RBP}], rbp",
    "mov [rax + {R12}], r12",
    "mov [rax + {R13}], r13",
    "mov [rax + {R14}], r14",
    "mov [rax + {R15}], r15",
    "mov rbx, rdi",
    "shr rbx, {INDEX_BITS}",
    "shl rbx, 6",
    "cmp rbx, [rax + {CSPACE_BYTES}]",
    "jae 40f",
    "add rbx, [rax + {CSPACE}]",
    "cmp byte ptr [rbx + {KIND}], {CNODE}",
    "jne 40f",
    "mov ebp, edi",
    "and ebp, (1 << {INDEX_BITS}) - 1",
    "shl ebp, 6",
    "cmp rbp, [rbx + {BYTES}]",
    "jae 40f",
    "mov r12, {DIRECT_MAP}",
    "add rbp, r12",
    "add rbp, [rbx + {BASE}]",
    "cmp byte ptr [rbp + {KIND}], {ENDPOINT}",
    "jne 40f",
    "test byte ptr [rbp + {RIGHTS}], \\right",
    "jz 40f",
    "mov r13, [rbp + {BASE}]",
    "add r13, r12",
    ".endm",
    ".macro leave_look_up",
    "mov rbx, [rax + {RBX}]",
    "mov rbp, [rax + {RBP}]",
    "mov r12, [rax + {R12}]",
    "mov r13, [rax + {R13}]",
    "mov r14, [rax + {R14}]",
    "mov r15, [rax + {R15}]",
    "mov rcx, r10",
    ".endm",
    // A call: rax is the client, rbx becomes the server.
    ".global fast_call",
    "fast_call:",
    "look_up_endpoint {WRITE}",
    "movzx ebx, byte ptr [r13 + {RECEIVER}]",
    "test ebx, ebx",
    "jz 40f",
    "lea r14, [rip + {table}]",
    "mov rbx, [r14 + rbx * 8 - 8]",
    "cmp qword ptr [rbx + {DEADLINE}], 0",
    "jne 40f",
    "cmp byte ptr [rbx + {OWES_TURNS}], 0",
    "jne 40f",
    "cmp qword ptr [rbx + {ALL}], 0", // somebody wrote its registers
    "jne 40f",
    "cmp qword ptr [rip + {float_holder}], 0",
    "jne 40f",
    "mov byte ptr [r13 + {RECEIVER}], 0",
    "mov cl, [rax + {LINK}]",
    "mov [rbx + {CALLER}], cl",
    "mov cl, [rbx + {LINK}]",
    "mov [rax + {SERVER}], cl",
    "mov byte ptr [rax + {STATE}], {CALLING}",
    "mov byte ptr [rbx + {STATE}], {RUNNABLE}",
    "mov rdi, [rbp + {BADGE}]",
    // From the one in rax to the one in rbx, which was stopped in a system call.
    "25:",
    "test byte ptr [{enabled}], {RECORDED}",
    "jnz 27f",
    "26:",
    "pop rcx", // where this function would return to
    "pop [rax + {RFLAGS}]",
    "pop [rax + {RIP}]",
    "pop [rax + {RSP}]",
    "mov qword ptr [rax + {ALL}], 0",
    "mov [rip + {current}], rbx",
    "inc qword ptr [{record} + {SYSTEM_CALLS}]",
    "inc qword ptr [{record} + {SWITCHES}]",
    "lea rcx, [rbx + {NAME}]",
    "sub rcx, r12",
    "mov [{record} + {CURRENT_NAME}], rcx",
    "mov rcx, [rbx + {ROOT}]",
    "mov cr3, rcx",
    "xor eax, eax",
    "mov rcx, [rbx + {RIP}]",
    "mov r11, [rbx + {RFLAGS}]",
    "mov rsp, [rbx + {RSP}]",
    "mov rbp, [rbx + {RBP}]",
    "mov r12, [rbx + {R12}]",
    "mov r13, [rbx + {R13}]",
    "mov r14, [rbx + {R14}]",
    "mov r15, [rbx + {R15}]",
    "mov rbx, [rbx + {RBX}]",
    "sysretq",
    "40:",
    "leave_look_up",
    "jmp {slow_call}",
    // It is recorded: what goes along is kept meanwhile.
    "27:",
    "push rax",
    "push rdi",
    "push rsi",
    "push rdx",
    "push r10",
    "push r8",
    "push r9", // and so functions find the stack aligned
    "mov rdx, rsi",
    "mov rsi, rbx",
    "mov rdi, rax",
    "call {record_lrpc}",
    "pop r9",
    "pop r8",
    "pop r10",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "pop rax",
    "jmp 26b",
    // An answer: rax is the server, rbx becomes the client.
    ".global fast_reply_receive",
    "fast_reply_receive:",
    "look_up_endpoint {READ}",
    "mov cl, [rax + {LINK}]",
    "cmp cl, [r13 + {OWNER}]",
    "jne 40f",
    "cmp word ptr [r13 + {QUEUED}], 0",
    "jne 40f",
    "cmp byte ptr [rax + {PENDING}], 0",
    "jne 40f",
    "movzx ebx, byte ptr [rax + {CALLER}]",
    "test ebx, ebx",
    "jz 40f",
    "lea r14, [rip + {table}]",
    "mov rbx, [r14 + rbx * 8 - 8]",
    "cmp rbx, [rip + {context}]",
    "jne 40f",
    "cmp word ptr [rbx + {STATE}], {CALLING}", // and not stopped
    "jne 40f",
    "cmp qword ptr [rbx + {ALL}], 0", // a fault
    "jne 40f",
    "cmp qword ptr [rip + {float_holder}], 0",
    "jne 40f",
    "mov [r13 + {RECEIVER}], cl",
    "sub r13, r12",
    "mov [rax + {AT_ENDPOINT}], r13",
    "mov byte ptr [rax + {CALLER}], 0",
    "mov byte ptr [rbx + {SERVER}], 0",
    "mov byte ptr [rax + {STATE}], {RECEIVING}",
    "mov byte ptr [rbx + {STATE}], {RUNNABLE}",
    "xor edi, edi",
    "jmp 25b",
    "40:",
    "leave_look_up",
    "jmp {slow_reply_receive}",
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
    "mov r9, [rdi + {R9}]",
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
    "ud2", // it does not come back
    // ---- nobody to run: waiting for an interrupt, or working between two ------------------
    ".global idle",
    "idle:",
    "mov rsp, {stack}",
    "sti",
    "4: hlt",
    "jmp 4b",
    ".global breathe",
    "breathe:",
    "mov rsp, {stack}",
    "sti",
    "nop", // whatever is pending strikes after this one
    "cli",
    "xor ebp, ebp",
    "call {work}",
    "ud2", // it does not come back
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
    calls = sym CALLS,
    slow_call = sym system_calls::slow_call,
    slow_reply_receive = sym system_calls::slow_reply_receive,
    record_lrpc = sym recording::fast_path,
    LAST = const syscall::LAST,
    interrupt = sym interrupt,
    choose = sym choose,
    work = sym work,
    main = sym crate::main,
    context = sym CONTEXT,
    table = sym TABLE,
    float_holder = sym FLOAT_HOLDER,
    record = const KERNEL_RECORD as i64,
    enabled = const KERNEL_TRACE as i64,
    RECORDED = const 1 << trace::event::DISPATCH | 1 << trace::event::LRPC,
    INDEX_BITS = const INDEX_BITS,
    DIRECT_MAP = const DIRECT_MAP as i64,
    CNODE = const Kind::CNode as u8,
    ENDPOINT = const Kind::Endpoint as u8,
    READ = const Rights::READ.bits(),
    WRITE = const Rights::WRITE.bits(),
    // A slot begins with its capability.
    KIND = const offset_of!(Capability, kind),
    RIGHTS = const offset_of!(Capability, rights),
    BASE = const offset_of!(Capability, base),
    BYTES = const offset_of!(Capability, bytes),
    BADGE = const offset_of!(Capability, badge),
    CSPACE = const offset_of!(Dispatcher, cspace.slots),
    CSPACE_BYTES = const offset_of!(Dispatcher, cspace.bytes),
    ROOT = const offset_of!(Dispatcher, root),
    NAME = const offset_of!(Dispatcher, name),
    AT_ENDPOINT = const offset_of!(Dispatcher, endpoint),
    DEADLINE = const offset_of!(Dispatcher, deadline_ns),
    STATE = const offset_of!(Dispatcher, state),
    LINK = const offset_of!(Dispatcher, link),
    CALLER = const offset_of!(Dispatcher, caller),
    SERVER = const offset_of!(Dispatcher, server),
    PENDING = const offset_of!(Dispatcher, pending),
    OWES_TURNS = const offset_of!(Dispatcher, owes_turns),
    RUNNABLE = const State::Runnable as u8,
    RECEIVING = const State::Receiving as u8,
    CALLING = const State::Calling as u8,
    RECEIVER = const offset_of!(Endpoint, receiver),
    OWNER = const offset_of!(Endpoint, owner),
    QUEUED = const offset_of!(Endpoint, queued),
    SYSTEM_CALLS = const offset_of!(CoreRecord, counters) + offset_of!(Counters, system_calls),
    SWITCHES = const offset_of!(CoreRecord, counters) + offset_of!(Counters, switches),
    CURRENT_NAME = const offset_of!(CoreRecord, current_name),
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
    /// [`abi::syscall::CALL`] by the fast path.
    pub safe fn fast_call(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> bool;
    /// [`abi::syscall::REPLY_RECEIVE`] by the fast path.
    pub safe fn fast_reply_receive(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> bool;
    /// Entry of `syscall`.
    pub fn system_call_entry();
    /// First instructions of a core in its own memory.
    pub fn core_entry();
    fn interrupt_stubs();
    fn idle() -> !;
    fn breathe() -> !;
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

/// Lets interrupts in that are pending, with an empty kernel stack, then goes on with
/// [`crate::work`].
pub fn let_interrupts_in() -> ! {
    // SAFETY: as above.
    unsafe { breathe() }
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
