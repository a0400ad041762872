//! What ring 3 must not do, instruction by instruction.

use crate::child::{CODE, Space};
use crate::{Outcome, VICTIM};
use abi::exception::PAGE_FAULT;
use abi::layout::PAGE;
use alloc::format;
use alloc::vec::Vec;
use core::arch::x86_64::__cpuid_count;
use rt::interface::FAULT_STATUS;
use rt::memory::Result;
use rt::monitor;

const DEBUG: u64 = 1;
pub const BREAKPOINT: u64 = 3;
const INVALID_OPCODE: u64 = 6;
pub const PROTECTION: u64 = 13;
const ALIGNMENT: u64 = 17;

/// What must come of an attempt.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// This exception and error code, at the instruction.
    Fault(u64, u64),
    /// A general protection fault with one error code or the other, at the instruction.
    Gate(u64, u64),
    /// This exception, behind the instruction.
    Trap(u64),
    /// One or the other exception, as processors differ.
    Either(u64, u64),
    /// The first exception where the processor has something, else the second.
    With(Feature, u64, u64),
}

use Fate::{Either, Fault, Gate, Trap, With};

/// What processors have or do not have: leaf of `cpuid`, register from `eax` on, bit.
type Feature = (u32, usize, u32);
const UMIP: Feature = (7, 2, 2);
const INVPCID: Feature = (7, 1, 10);
/// Whether `xsetbv` and `xgetbv` are enabled.
const OSXSAVE: Feature = (1, 2, 27);

fn has((leaf, register, bit): Feature) -> bool {
    let found = __cpuid_count(leaf, 0);
    let registers = [found.eax, found.ebx, found.ecx, found.edx];
    registers[register] >> bit & 1 != 0
}

/// A general protection fault without an error code.
const GP: Fate = Fault(PROTECTION, 0);
/// A return to another privilege. QEMU before 9 reads the stack as ring 0 would, which must not
/// read a page of ring 3.
const POPPED: Fate = Either(PROTECTION, PAGE_FAULT);
/// An instruction that is none.
const UD: Fate = Fault(INVALID_OPCODE, 0);

/// A gate that ring 3 may not use by instruction. QEMU before 9 counts them by twos.
const fn gate(vector: u64) -> Fate {
    Gate(vector << 3 | 2, vector << 4 | 2)
}

/// The error code of a selector that ring 3 may not use.
const fn selector(selector: u64) -> Fate {
    Fault(PROTECTION, selector)
}

/// An attempt.
struct Attempt {
    name: &'static str,
    /// Where it begins, and where the instruction is that counts.
    begin: u64,
    at: u64,
    fate: Fate,
}

/// Declares attempts: instructions that lead to it, then the one that counts. A breakpoint follows:
/// who comes there was not caught.
macro_rules! attempts {
    ($($name:ident: [$($before:literal)*] $($line:literal)+ => $fate:expr;)*) => {
        core::arch::global_asm!(
            ".pushsection .text.isolation, \"ax\"",
            ".balign 4096",
            ".global isolation_code",
            "isolation_code:",
            $(
                concat!(".global isolation_", stringify!($name)),
                concat!(".global isolation_", stringify!($name), "_at"),
                concat!("isolation_", stringify!($name), ":"),
                $($before,)*
                concat!("isolation_", stringify!($name), "_at:"),
                $($line,)+
                "int3",
            )*
            ".global isolation_end",
            "isolation_end:",
            ".popsection",
        );

        fn table() -> Vec<Attempt> {
            alloc::vec![$({
                unsafe extern "C" {
                    #[link_name = concat!("isolation_", stringify!($name))]
                    static BEGIN: u8;
                    #[link_name = concat!("isolation_", stringify!($name), "_at")]
                    static AT: u8;
                }
                Attempt {
                    name: stringify!($name),
                    begin: &raw const BEGIN as u64,
                    at: &raw const AT as u64,
                    fate: $fate,
                }
            }),*]
        }
    };
}

unsafe extern "C" {
    static isolation_code: u8;
    static isolation_end: u8;
}

attempts! {
    // Interrupts, halting, caches, translations.
    cli: [] "cli" => GP;
    sti: [] "sti" => GP;
    hlt: [] "hlt" => GP;
    invd: [] "invd" => GP;
    wbinvd: [] "wbinvd" => GP;
    invlpg: [] "invlpg [rdi]" => GP;
    invpcid: [] "invpcid rax, [rdi]" => With(INVPCID, PROTECTION, INVALID_OPCODE);
    clts: [] "clts" => GP;
    stac: [] "stac" => UD;
    clac: [] "clac" => UD;
    monitor: ["mov rax, rdi" "xor ecx, ecx" "xor edx, edx"] "monitor" => UD;
    mwait: ["xor eax, eax" "xor ecx, ecx"] "mwait" => UD;
    rsm: [] "rsm" => UD;
    // Without `SVME` an invalid opcode, with it ring 3 is protected against.
    vmrun: ["mov rax, rdi"] ".byte 0x0f, 0x01, 0xd8" => Either(INVALID_OPCODE, PROTECTION);
    // Control and debug registers.
    read_cr0: [] "mov rax, cr0" => GP;
    read_cr2: [] "mov rax, cr2" => GP;
    read_cr3: [] "mov rax, cr3" => GP;
    read_cr4: [] "mov rax, cr4" => GP;
    read_cr8: [] "mov rax, cr8" => GP;
    write_cr0: ["mov eax, 0x80000011"] "mov cr0, rax" => GP;
    write_cr2: [] "mov cr2, rax" => GP;
    write_cr3: [] "mov cr3, rax" => GP;
    write_cr4: ["mov eax, 0x20"] "mov cr4, rax" => GP;
    write_cr8: [] "mov cr8, rax" => GP;
    read_dr0: [] "mov rax, dr0" => GP;
    read_dr7: [] "mov rax, dr7" => GP;
    write_dr0: [] "mov dr0, rdi" => GP;
    write_dr7: ["mov eax, 0x30001"] "mov dr7, rax" => GP;
    lmsw: [] "lmsw ax" => GP;
    xsetbv: ["mov eax, 7" "xor ecx, ecx" "xor edx, edx"]
        "xsetbv" => With(OSXSAVE, PROTECTION, INVALID_OPCODE);
    // Model-specific registers: local APIC, system calls, features, segments, GS of ring 0.
    read_apic_base: ["mov ecx, 0x1b"] "rdmsr" => GP;
    read_efer: ["mov ecx, 0xc0000080"] "rdmsr" => GP;
    read_lstar: ["mov ecx, 0xc0000082"] "rdmsr" => GP;
    read_x2apic: ["mov ecx, 0x802"] "rdmsr" => GP;
    write_apic_base: ["mov ecx, 0x1b"] "wrmsr" => GP;
    write_efer: ["mov ecx, 0xc0000080"] "wrmsr" => GP;
    write_star: ["mov ecx, 0xc0000081"] "wrmsr" => GP;
    write_lstar: ["mov ecx, 0xc0000082" "mov eax, edi"] "wrmsr" => GP;
    write_fmask: ["mov ecx, 0xc0000084"] "wrmsr" => GP;
    write_fs_base: ["mov ecx, 0xc0000100"] "wrmsr" => GP;
    write_kernel_gs: ["mov ecx, 0xc0000102"] "wrmsr" => GP;
    write_no_such_msr: ["mov ecx, 0x12345678"] "wrmsr" => GP;
    rdpmc: ["xor ecx, ecx"] "rdpmc" => GP;
    swapgs: [] "swapgs" => GP;
    rdfsbase: [] "rdfsbase rax" => UD;
    wrgsbase: [] "wrgsbase rdi" => UD;
    // Descriptor tables.
    lgdt: [] "lgdt [rdi]" => GP;
    lidt: [] "lidt [rdi]" => GP;
    lldt: [] "lldt ax" => GP;
    ltr: ["mov eax, 0x28"] "ltr ax" => GP;
    sgdt: [] "sgdt [rdi]" => With(UMIP, PROTECTION, BREAKPOINT);
    sidt: [] "sidt [rdi]" => With(UMIP, PROTECTION, BREAKPOINT);
    sldt: [] "sldt rax" => With(UMIP, PROTECTION, BREAKPOINT);
    str: [] "str rax" => With(UMIP, PROTECTION, BREAKPOINT);
    smsw: [] "smsw rax" => With(UMIP, PROTECTION, BREAKPOINT);
    // Segments of ring 0, and those that are none.
    kernel_data_ds: ["mov eax, 0x10"] "mov ds, eax" => selector(0x10);
    kernel_data_es: ["mov eax, 0x10"] "mov es, eax" => selector(0x10);
    kernel_data_ss: ["mov eax, 0x10"] "mov ss, eax" => selector(0x10);
    kernel_code_fs: ["mov eax, 0x08"] "mov fs, eax" => selector(0x08);
    task_gs: ["mov eax, 0x28"] "mov gs, eax" => selector(0x28);
    null_ss: ["xor eax, eax"] "mov ss, eax" => GP;
    code_ss: ["mov eax, 0x23"] "mov ss, eax" => selector(0x20);
    local_ds: ["mov eax, 0x0f"] "mov ds, eax" => selector(0x0c);
    beyond_ds: ["mov eax, 0xfff8"] "mov ds, eax" => selector(0xfff8);
    pop_ss: ["push 0x10" "mov eax, 0x10"] ".byte 0x8e, 0xd0" => selector(0x10);
    move_cs: ["mov eax, 0x23"] ".byte 0x8e, 0xc8" => UD;
    // Ways into ring 0 that there are not.
    far_jump: ["mov dword ptr [rdi], 0x1000" "mov word ptr [rdi + 4], 0x08"]
        ".byte 0xff, 0x2f" => selector(0x08);
    far_call: ["mov dword ptr [rdi], 0x1000" "mov word ptr [rdi + 4], 0x08"]
        ".byte 0xff, 0x1f" => selector(0x08);
    far_jump_task: ["mov dword ptr [rdi], 0" "mov word ptr [rdi + 4], 0x28"]
        ".byte 0xff, 0x2f" => selector(0x28);
    far_return: ["push 0x08" "push rdi"] "retfq" => POPPED;
    interrupt_return: ["mov rax, rsp" "push 0x10" "push rax" "push 0x202" "push 0x08" "push rdi"]
        "iretq" => POPPED;
    // As if from a nested task.
    interrupt_return_nested: ["mov rax, rsp" "push 0x1b" "push rax" "push 0x202" "push 0x23"
        "push rdi"
        "pushfq" "or dword ptr [rsp], 0x4000" "popfq"] "iretq" => POPPED;
    // It comes back with the right to use ports, as it thinks.
    interrupt_return_ports: ["mov rax, rsp" "lea rcx, [rip + 77f]" "push 0x1b" "push rax"
        "push 0x3202"
        "push 0x23" "push rcx" "iretq" "77:"] "cli" => POPPED;
    sysret: ["mov rcx, rdi" "mov r11d, 0x3202"] "sysretq" => GP;
    sysexit: ["mov rcx, rsp" "mov rdx, rdi"] "sysexit" => Either(PROTECTION, INVALID_OPCODE);
    sysenter: [] "sysenter" => Either(PROTECTION, INVALID_OPCODE);
    // Gates.
    interrupt_0: [] "int 0" => gate(0);
    interrupt_1: [] "int 1" => gate(1);
    interrupt_2: [] "int 2" => gate(2);
    interrupt_8: [] "int 8" => gate(8);
    interrupt_13: [] "int 13" => gate(13);
    interrupt_14: [] "int 14" => gate(14);
    interrupt_18: [] "int 18" => gate(18);
    interrupt_timer: [] "int 0x20" => gate(0x20);
    interrupt_monitor: [] "int 0x40" => gate(0x40);
    interrupt_doorbell: [] "int 0x41" => gate(0x41);
    interrupt_80: [] "int 0x80" => gate(0x80);
    interrupt_ff: [] "int 0xff" => gate(0xff);
    interrupt_3: [] "int3" => Trap(BREAKPOINT);
    interrupt_debug: [] ".byte 0xf1" => Either(DEBUG, INVALID_OPCODE);
    overflow: [] ".byte 0xce" => UD;
    // Flags that ring 3 cannot set, or that strike at itself only.
    ports_by_flags: ["push 0x3202" "popfq"] "in al, 0x80" => GP;
    interrupts_by_flags: ["push 0x3002" "popfq" "pushfq" "pop rax" "and eax, 0x3200"
        "cmp eax, 0x200" "je 77f"
        "int3" "77:"] "cli" => GP;
    virtual_by_flags: ["mov eax, 0x1a0202" "push rax" "popfq" "pushfq" "pop rax"
        "test eax, 0x1a0000" "jz 77f"
        "int3" "77:"] "cli" => GP;
    trap: ["push 0x302" "popfq"] "nop" => Trap(DEBUG);
    trap_at_system_call: ["xor eax, eax" "push 0x302" "popfq"] "syscall" => Trap(DEBUG);
    trap_at_slow_system_call: ["mov eax, 2" "push 0x302" "popfq"] "syscall" => Trap(DEBUG);
    trap_behind_stack_segment: ["mov ecx, 0x1b" "xor eax, eax" "push 0x302" "popfq" "mov ss, ecx"]
        "syscall" => Trap(DEBUG);
    nested_at_system_call: ["xor eax, eax" "push 0x4202" "popfq" "syscall" "mov eax, 2" "syscall"]
        "cli" => GP;
    alignment_at_system_call: ["mov ebx, 2" "xor eax, eax" "push 0x40202" "popfq" "syscall"
        "mov eax, 2" "syscall"]
        "mov rax, [rdi + 1]" => Either(ALIGNMENT, BREAKPOINT);
    direction_at_system_call: ["xor eax, eax" "std" "syscall" "mov eax, 2" "syscall"] "cli" => GP;
    // For `places`, `registers` and the ports below, which say with what registers.
    read: [] "mov rax, [rdi]" => Trap(BREAKPOINT);
    write: [] "mov [rdi], rax" => Trap(BREAKPOINT);
    jump: ["lea rdi, [rip + 77f]"] "jmp rdi" "77:" => Trap(BREAKPOINT);
    push: [] "push rax" => Trap(BREAKPOINT);
    system_call: ["xor eax, eax"] "syscall" => Trap(BREAKPOINT);
    wait: ["mov eax, 3" "mov edi, 1"] "syscall" => Trap(BREAKPOINT);
    flags: ["pushfq"] "pop rax" => Trap(BREAKPOINT);
    spin: ["rdtsc" "shl rdx, 32" "or rax, rdx" "add rsi, rax" "77:" "rdtsc" "shl rdx, 32"
        "or rax, rdx"
        "cmp rax, rsi" "jb 77b"] "nop" => Trap(BREAKPOINT);
    in_8: [] "in al, dx" => GP;
    in_16: [] "in ax, dx" => GP;
    in_32: [] "in eax, dx" => GP;
    out_8: [] "out dx, al" => GP;
    out_16: [] "out dx, ax" => GP;
    out_32: [] "out dx, eax" => GP;
    in_string: [] "insb" => GP;
    out_string: [] "outsb" => GP;
    in_strings: ["mov ecx, 2"] "rep insd" => GP;
    out_strings: ["mov ecx, 2"] "rep outsd" => GP;
}

/// The instructions as words, for a page of them.
pub fn code() -> Vec<u64> {
    let begin = &raw const isolation_code;
    let bytes = &raw const isolation_end as usize - begin as usize;
    assert!(bytes <= PAGE as usize, "the attempts fit a page");
    // SAFETY: instructions of this program, which nobody writes to.
    let bytes = unsafe { core::slice::from_raw_parts(begin, bytes) };
    let word = |chunk: &[u8]| {
        let mut word = [0xcc; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    };
    bytes.chunks(8).map(word).collect()
}

/// Where in a child something of this program's attempts is.
fn there(address: u64) -> u64 {
    CODE + (address - &raw const isolation_code as u64)
}

/// Where in a child the attempt with this name begins, and where its instruction is.
pub fn places_of(name: &str) -> (u64, u64) {
    let table = table();
    let found = table.iter().find(|attempt| attempt.name == name);
    found.map_or((0, 0), |found| (there(found.begin), there(found.at)))
}

/// Tries each, and all ports.
pub fn all(outcome: &mut Outcome) -> Result {
    let space = Space::new()?;
    for attempt in table() {
        attempt.run(&space, &[], outcome)?;
    }
    for attempt in table() {
        if attempt.name.starts_with("in_") || attempt.name.starts_with("out_") {
            for port in PORTS {
                attempt.run(&space, &[("rdx", port)], outcome)?;
            }
        }
    }
    Ok(())
}

/// DMA, interrupt controllers, timer, keyboard, clock, delay, QEMU's exit, serial ports, ACPI,
/// configuration of PCI, reset, the last.
const PORTS: [u64; 20] = [
    0x00, 0x20, 0x21, 0x40, 0x43, 0x60, 0x64, 0x70, 0x71, 0x80, 0xa1, 0xf4, 0x2f8, 0x3f8, 0x604,
    0xcf8, 0xcf9, 0xcfc, 0xb004, 0xffff,
];

impl Attempt {
    fn run(&self, space: &Space, registers: &[(&str, u64)], outcome: &mut Outcome) -> Result {
        let begin = there(self.begin);
        let death = space.run(&[&[("rip", begin)], registers].concat())?;
        let found = death.map(|death| (death.vector, death.error, death.instruction));
        let at = there(self.at);
        let is_right = found.is_some_and(|(vector, error, rip)| match self.fate {
            Fault(fault, code) => (vector, error, rip) == (fault, code, at),
            Gate(code, other) => {
                vector == PROTECTION && [code, other].contains(&error) && rip == at
            }
            Trap(trap) => vector == trap && (at + 1..=at + 15).contains(&rip),
            Either(one, other) => vector == one || vector == other,
            With(feature, yes, no) => vector == if has(feature) { yes } else { no },
        });
        let what = format!("{} with {registers:x?}", self.name);
        outcome.check(&what, is_right, &found, &(self.fate, at));
        Ok(())
    }
}

/// Some of them once more as domains: the monitor knows what they died of.
pub fn deaths(outcome: &mut Outcome) -> Result {
    let name = rt::startup().arguments().next().unwrap_or("");
    for attempt in ["hlt", "write_lstar", "out_32"] {
        let status = monitor::spawn(rt::startup().core as usize, &[name, VICTIM, attempt], None)
            .and_then(monitor::wait);
        let died = Ok(FAULT_STATUS + PROTECTION as i32);
        outcome.expect(attempt, &status, &died);
    }
    Ok(())
}

/// Makes an attempt as a domain, which ends by it.
pub fn die(name: &str) -> i32 {
    let table = table();
    let Some(attempt) = table.iter().find(|attempt| attempt.name == name) else {
        return 2;
    };
    // SAFETY: not safe, and meant to fault. It ends with a breakpoint, and returns to nobody.
    unsafe {
        core::arch::asm!("jmp {}", in(reg) attempt.begin, in("rdx") 0xcf8, options(noreturn));
    }
}
