//! All the other registers, which a call is to keep.

use crate::puppet::{Answer, pseudo};
use crate::vectors::pattern;
use rt::system_call::Error;

/// Flags that a program may set and a call keeps: arithmetic, direction, alignment check,
/// identification.
const FLAGS: u64 = 0x24_0cd5;

/// What the assembly loads and leaves, in its order.
#[repr(C)]
struct Registers {
    /// `rax`, then the arguments `rdi rsi rdx r10 r8 r9`; afterwards status and results.
    call: [u64; 7],
    /// `rbx rbp r12 r13 r14 r15`.
    kept: [u64; 6],
    flags: u64,
}

// All that is not in the C convention is done here; the stack pointer is right if what is on the
// stack is still found.
core::arch::global_asm!(
    ".global call_with_registers",
    "call_with_registers:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "pushfq",
    "push rdi",
    "mov rax, rdi",
    "mov rdi, [rax + 8]",
    "mov rsi, [rax + 16]",
    "mov rdx, [rax + 24]",
    "mov r10, [rax + 32]",
    "mov r8, [rax + 40]",
    "mov r9, [rax + 48]",
    "mov rbx, [rax + 56]",
    "mov rbp, [rax + 64]",
    "mov r12, [rax + 72]",
    "mov r13, [rax + 80]",
    "mov r14, [rax + 88]",
    "mov r15, [rax + 96]",
    "push [rax + 104]",
    "mov rax, [rax]",
    "popfq",
    "syscall",
    "pushfq",
    "push rax",
    "mov rax, [rsp + 16]",
    "pop [rax]",
    "pop [rax + 104]",
    "mov [rax + 8], rdi",
    "mov [rax + 16], rsi",
    "mov [rax + 24], rdx",
    "mov [rax + 32], r10",
    "mov [rax + 40], r8",
    "mov [rax + 48], r9",
    "mov [rax + 56], rbx",
    "mov [rax + 64], rbp",
    "mov [rax + 72], r12",
    "mov [rax + 80], r13",
    "mov [rax + 88], r14",
    "mov [rax + 96], r15",
    "pop rdi",
    "popfq",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
);

unsafe extern "C" {
    fn call_with_registers(registers: *mut Registers);
}

/// Makes a system call with patterns in all registers that it is to keep.
pub fn call(number: u64, [first, rest @ ..]: [u64; 6]) -> Answer {
    let [a, b, c, d, e] = rest;
    let seed = rest.iter().fold(number ^ first, |seed, word| seed ^ word);
    let kept = core::array::from_fn(|index| pattern(seed, index as u64));
    // Interrupts are always on.
    let flags = pattern(seed, 6) & FLAGS | 0x202;
    let mut found = Registers {
        call: [number, first, a, b, c, d, e],
        kept,
        flags,
    };
    // SAFETY: the director has it make no call that maps anything; the assembly keeps what the
    // convention says, and the flags.
    unsafe { call_with_registers(&raw mut found) };
    let [status, first, words @ ..] = found.call;
    if let Some(error) = Error::from_code(status) {
        return Err(error);
    }
    let lost = kept.iter().zip(&found.kept).filter(|(own, it)| own != it);
    let lost = lost.count() as u64 + u64::from(found.flags != flags);
    let first = if lost == 0 {
        first
    } else {
        pseudo::LOST + lost
    };
    Ok((first, words))
}
