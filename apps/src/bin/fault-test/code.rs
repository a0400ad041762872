//! Instructions that meet exceptions, with known contents in all registers.

use abi::syscall::REGISTERS;

/// A result that stands for a lost register.
pub const LOST: u64 = 0xbad;

/// What is in register number `n` of [`REGISTERS`] when a child meets its exception, unless
/// the exception is about it.
pub const fn pattern(n: u64) -> u64 {
    0x0101_0101_0101_0101 * (0x10 + n)
}

/// Registers that hold their pattern, by name.
pub const KEPT: [&str; 11] = [
    "rbx", "rdx", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
];

/// The index of a register.
pub fn register(name: &str) -> usize {
    let found = REGISTERS.iter().position(|register| *register == name);
    found.unwrap_or(REGISTERS.len())
}

// Each function takes an address in rdi and returns what it found in rax. `NAME_at` is where the
// exception is said to be, `NAME_next` the instruction behind it.
core::arch::global_asm!(
    ".macro begin_harm name",
    ".global \\name",
    "\\name:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rbx, 0x0101010101010101 * 0x11",
    "mov rdx, 0x0101010101010101 * 0x13",
    "mov rbp, 0x0101010101010101 * 0x16",
    "mov r8, 0x0101010101010101 * 0x18",
    "mov r9, 0x0101010101010101 * 0x19",
    "mov r10, 0x0101010101010101 * 0x1a",
    "mov r11, 0x0101010101010101 * 0x1b",
    "mov r12, 0x0101010101010101 * 0x1c",
    "mov r13, 0x0101010101010101 * 0x1d",
    "mov r14, 0x0101010101010101 * 0x1e",
    "mov r15, 0x0101010101010101 * 0x1f",
    "xor eax, eax",
    ".endm",
    ".macro still register, number",
    "mov rcx, 0x0101010101010101 * \\number",
    "cmp rcx, \\register",
    "jne 99f",
    ".endm",
    ".macro end_harm",
    "still rbx, 0x11",
    "still rdx, 0x13",
    "still rbp, 0x16",
    "still r8, 0x18",
    "still r9, 0x19",
    "still r10, 0x1a",
    "still r11, 0x1b",
    "still r12, 0x1c",
    "still r13, 0x1d",
    "still r14, 0x1e",
    "still r15, 0x1f",
    "jmp 98f",
    "99: mov eax, {LOST}",
    "98: pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".endm",
    "begin_harm harm_read",
    ".global read_at, read_next",
    "read_at: mov rax, [rdi]",
    "read_next:",
    "end_harm",
    "begin_harm harm_write",
    ".global write_at",
    "write_at: mov [rdi], rdx",
    "mov rax, [rdi]",
    "end_harm",
    "begin_harm harm_call",
    ".global call_next",
    "call rdi",
    "call_next:",
    "end_harm",
    "begin_harm harm_cli",
    ".global cli_at, cli_next",
    "cli_at: cli",
    "cli_next:",
    "end_harm",
    "begin_harm harm_segment",
    ".global segment_at, segment_next",
    "mov eax, 0x28", // the task state segment
    "segment_at: mov fs, eax",
    "segment_next:",
    "end_harm",
    "begin_harm harm_divide",
    ".global divide_at",
    "xor ecx, ecx",
    "mov eax, 84",
    "xor edx, edx",
    "divide_at: div ecx",
    "mov rdx, 0x0101010101010101 * 0x13",
    "end_harm",
    "begin_harm harm_opcode",
    ".global opcode_at, opcode_next",
    "opcode_at: ud2",
    "opcode_next:",
    "end_harm",
    "begin_harm harm_breakpoint",
    ".global breakpoint_next",
    "int3",
    "breakpoint_next:",
    "end_harm",
    "begin_harm harm_step",
    ".global step_next",
    "pushfq",
    "or qword ptr [rsp], 0x100",
    "popfq",
    "mov eax, 1", // and then the trap
    "step_next: add eax, 2",
    "end_harm",
    "begin_harm harm_alignment",
    ".global alignment_at",
    "pushfq",
    "or qword ptr [rsp], 0x40000",
    "popfq",
    "alignment_at: mov rax, [rdi + 1]",
    "pushfq",
    "and qword ptr [rsp], ~0x40000",
    "popfq",
    "end_harm",
    "begin_harm harm_x87",
    ".global x87_at, x87_next",
    "fninit",
    "push 0x37b", // division by zero is no longer masked
    "fldcw word ptr [rsp]",
    "fld1",
    "fldz",
    "fdivp st(1), st",
    "x87_at: fwait",
    "x87_next: fnstsw ax",
    "and eax, 0x3f", // what was found
    "fnclex",
    "fninit",
    "pop rcx",
    "end_harm",
    "begin_harm harm_vector",
    ".global vector_at, vector_next",
    "push 0x1d80", // likewise
    "ldmxcsr dword ptr [rsp]",
    "mov eax, 1",
    "cvtsi2ss xmm0, eax",
    "xorps xmm1, xmm1",
    "vector_at: divss xmm0, xmm1",
    "vector_next: stmxcsr dword ptr [rsp]",
    "mov eax, [rsp]",
    "and eax, 0x3f",
    "mov dword ptr [rsp], 0x1f80",
    "ldmxcsr dword ptr [rsp]",
    "pop rcx",
    "end_harm",
    "begin_harm harm_stack",
    ".global stack_at",
    "mov rsi, rsp",
    "mov rsp, rdi",
    "stack_at: push rdx",
    "pop rax",
    "mov rsp, rsi",
    "end_harm",
    "begin_harm harm_registers",
    ".global registers_at",
    "movq xmm0, rdx",
    "movq xmm15, rbx",
    "push r8",
    "fninit",
    "fild qword ptr [rsp]",
    "registers_at: mov rax, [rdi]",
    "fistp qword ptr [rsp]",
    "pop rcx",
    "xor rcx, r8",
    "xor rax, rcx",
    "movq rcx, xmm0",
    "xor rcx, rdx",
    "xor rax, rcx",
    "movq rcx, xmm15",
    "xor rcx, rbx",
    "xor rax, rcx",
    "end_harm",
    LOST = const LOST,
);

/// Declares places in the instructions above.
macro_rules! places {
    ($($name:ident)*) => {
        unsafe extern "C" {
            $(static $name: u8;)*
        }
        $(
            /// Its address, the same in all copies of the program.
            pub mod $name {
                pub fn address() -> u64 {
                    &raw const super::$name as u64
                }
            }
        )*
    };
}

places! {
    read_at read_next write_at call_next cli_at cli_next segment_at segment_next divide_at opcode_at
    opcode_next breakpoint_next step_next alignment_at x87_at x87_next vector_at vector_next
    stack_at registers_at
}

unsafe extern "C" {
    pub fn harm_read(address: u64) -> u64;
    pub fn harm_write(address: u64) -> u64;
    pub fn harm_call(address: u64) -> u64;
    pub fn harm_cli(address: u64) -> u64;
    pub fn harm_segment(address: u64) -> u64;
    pub fn harm_divide(address: u64) -> u64;
    pub fn harm_opcode(address: u64) -> u64;
    pub fn harm_breakpoint(address: u64) -> u64;
    pub fn harm_step(address: u64) -> u64;
    pub fn harm_alignment(address: u64) -> u64;
    pub fn harm_x87(address: u64) -> u64;
    pub fn harm_vector(address: u64) -> u64;
    pub fn harm_stack(address: u64) -> u64;
    pub fn harm_registers(address: u64) -> u64;
}
