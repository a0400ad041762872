//! From real mode to the CPU driver: the code a core runs after its start-up interrupt.
//!
//! One page below 1 MiB serves all cores, and nobody writes to it after boot. A core
//! enables long mode on a small identity map, finds its own entry in the table on the next
//! page by its APIC id, loads the page tables named there, and is in its CPU driver.

use super::entry::core_entry;
use abi::layout::{PAGE, kernel_stack_top};
use abi::machine::{Machine, trampoline::PAGES};
use loader::paging::{LARGE, PRESENT, WRITABLE};

/// Offsets of what the code needs, in its page: null, code and data segment, …
const GDT: usize = 0x200;
/// … their descriptor table pointer, …
const GDT_POINTER: usize = 0x218;
/// … where long mode begins (offset and selector), …
const FAR_POINTER: usize = 0x220;
/// … and the small identity map.
const PAGE_TABLE: usize = 0x228;

core::arch::global_asm!(
    ".pushsection .rodata.trampoline, \"a\"",
    ".balign 16",
    "trampoline_start:",
    ".code16",
    "cli",
    "cld",
    "mov ax, cs",
    "mov ds, ax",
    "mov eax, cr4",
    "or eax, 0x20", // physical address extension
    "mov cr4, eax",
    "mov eax, ds:[{PAGE_TABLE}]",
    "mov cr3, eax",
    "mov ecx, 0xc0000080",
    "rdmsr",
    "or eax, 0x900", // long mode, no-execute
    "wrmsr",
    "lgdtd ds:[{GDT_POINTER}]",
    "mov eax, 0x80010033", // paging and write protection, straight into long mode
    "mov cr0, eax",
    "jmp fword ptr ds:[{FAR}]",
    ".code64",
    "trampoline_long:",
    "lea rbp, [rip + trampoline_start]",
    "mov ax, 0x10",
    "mov ds, ax",
    "mov es, ax",
    "mov ss, ax",
    // The APIC id: leaf 0xb where it tells of a topology, else leaf 1.
    "xor eax, eax",
    "cpuid",
    "cmp eax, 0xb",
    "jb 2f",
    "mov eax, 0xb",
    "xor ecx, ecx",
    "cpuid",
    "test ebx, ebx",
    "jnz 3f",
    "2: mov eax, 1",
    "cpuid",
    "shr ebx, 24",
    "mov edx, ebx",
    "3: mov edx, edx",
    "inc rdx",
    "lea rsi, [rbp + 4096]",
    "mov ecx, {cores}",
    "4: cmp [rsi], rdx",
    "je 6f",
    "add rsi, 16",
    "dec ecx",
    "jnz 4b",
    "5: hlt", // nobody meant to start this core
    "jmp 5b",
    "6: mov rax, [rsi + 8]",
    "movabs rdi, offset {entry}",
    "mov rsp, {stack}",
    "mov cr3, rax",
    "jmp rdi",
    "trampoline_end:",
    // An error where the code would reach into what `install` writes behind it.
    ".org trampoline_start + {GDT}",
    ".popsection",
    cores = const abi::limits::MAX_CORES,
    entry = sym core_entry,
    stack = const kernel_stack_top(0) as i64,
    GDT = const GDT,
    PAGE_TABLE = const PAGE_TABLE,
    GDT_POINTER = const GDT_POINTER,
    FAR = const FAR_POINTER,
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static trampoline_long: u8;
}

/// Writes the trampoline pages, whose first byte is at `pages` for us.
///
/// # Safety
/// `pages` must point to the [`PAGES`] pages at physical `machine.trampoline`, in nobody's use.
pub unsafe fn install(machine: &Machine, pages: *mut u8) {
    let base = machine.trampoline;
    // SAFETY: the symbols delimit the blob above, which ends before `GDT`; all
    // writes stay inside the pages that the caller gave.
    unsafe {
        let start = &raw const trampoline_start;
        let offset = |symbol: *const u8| symbol.offset_from_unsigned(start);
        pages.write_bytes(0, (PAGES * PAGE) as usize);
        pages.copy_from_nonoverlapping(start, offset(&raw const trampoline_end));
        // What the code needs and only now is known, behind the code in its page.
        let at = |offset: usize| pages.add(offset);
        at(GDT)
            .cast::<[u64; 3]>()
            .write([0, 0x0020_9a00_0000_0000, 0x0000_9200_0000_0000]);
        at(GDT_POINTER).cast::<u16>().write(23);
        at(GDT_POINTER + 2)
            .cast::<u32>()
            .write_unaligned(base as u32 + GDT as u32);
        let long = base as u32 + offset(&raw const trampoline_long) as u32;
        at(FAR_POINTER).cast::<u32>().write(long);
        at(FAR_POINTER + 4).cast::<u16>().write(8);
        at(PAGE_TABLE).cast::<u32>().write((base + 2 * PAGE) as u32);

        let table = |index: u64| pages.add((index * PAGE) as usize).cast::<u64>();
        table(2).write(base + 3 * PAGE + (PRESENT | WRITABLE));
        table(3).write(base + 4 * PAGE + (PRESENT | WRITABLE));
        table(4).write(PRESENT | WRITABLE | LARGE);
    }
}
