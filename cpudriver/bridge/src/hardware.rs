//! Entry, hand-over, physical memory and COM1: the unsafe part of the bridge. It decides
//! nothing.
//!
//! ```text
//!  pvh_entry    32 bits, paging off, EBX = start info
//!    │          boot tables: the first 4 GiB one to one; control registers as Limine wants them
//!  bridge_main  64 bits, stack in .bss
//!    │          loads the CPU driver, builds its tables, answers its requests
//!  HandOff::go  one page of code mapped both before and after
//!               new tables, GDT, stack, cleared registers, jump
//! ```

use bridge::handover::Extent;
use bridge::memory::{Kind, Map, MapError, PAGE};
use bridge::paging::TableMemory;
use core::arch::{asm, global_asm, x86_64::__cpuid};
use core::fmt::{self, Write};

/// The segments in the order that Limine promises: null, 16-bit code and data, 32-bit
/// code and data, 64-bit code (0x28) and data (0x30).
pub const GDT: [u64; 7] = [
    0,
    0x0000_9b00_0000_ffff,
    0x0000_9300_0000_ffff,
    0x00cf_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x0020_9b00_0000_0000,
    0x0000_9300_0000_0000,
];

/// End of what the boot tables map.
const REACHABLE: u64 = 1 << 32;
const COM1: u16 = 0x3f8;
/// QEMU's isa-debug-exit, where it is configured; nobody listens elsewhere.
const DEBUG_EXIT: u16 = 0xf4;

unsafe extern "C" {
    static bridge_start: u8;
    static bridge_end: u8;
    static bridge_handoff: u8;
    fn bridge_hand_off(state: &HandOff) -> !;
}

// A second entry (multiboot2) would be a label of its own beside `pvh_entry` that says in
// a register which of the two it was, and joins at `enter_long_mode`.
global_asm!(
    r#"
    .pushsection .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18              # name bytes, value bytes, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry
    .popsection

    .pushsection .bss.boot, "aw", @nobits
    .balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd:   .skip 4 * 4096
boot_stack: .skip 128 * 1024
boot_stack_top:
    .popsection

    .pushsection .rodata.boot, "a"
    .balign 8
boot_gdt:
    .quad 0, 0x00009b000000ffff, 0x000093000000ffff, 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff, 0x00209b0000000000, 0x0000930000000000
boot_gdt_descriptor:
    .word . - boot_gdt - 1
    .quad boot_gdt
    .popsection

    .pushsection .text.entry, "ax"
    .code32
    .globl pvh_entry
pvh_entry:
    cli
    cld
enter_long_mode:
    movl $boot_stack_top, %esp
    movl $boot_pdpt + 3, boot_pml4
    xorl %ecx, %ecx
    movl $boot_pd + 3, %eax
1:  movl %eax, boot_pdpt(,%ecx,8)
    addl $4096, %eax
    incl %ecx
    cmpl $4, %ecx
    jne 1b
    xorl %ecx, %ecx
    movl $0x83, %eax            # present, writable, 2 MiB
2:  movl %eax, boot_pd(,%ecx,8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jne 2b

    # Written as a whole, so that nothing a firmware left in them survives: with UEFI
    # that may be SSE, CR4.LA57 or CR0.TS. Paging first goes off for the same reason.
    movl $0x11, %eax            # ET, PE
    movl %eax, %cr0
    movl $0x20, %eax            # PAE, nothing else
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      # EFER
    movl $0x900, %eax           # LME, NXE
    xorl %edx, %edx
    wrmsr
    movl $0x80010011, %eax      # PG, WP, ET, PE
    movl %eax, %cr0
    lgdt boot_gdt_descriptor
    ljmp $0x28, $3f

    .code64
3:  movl $0x30, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %eax, %ss
    movl $0x277, %ecx           # PAT: WB WT UC- UC WP WC UC- UC, as Limine sets it
    movl $0x00070406, %eax
    movl $0x00070105, %edx
    wrmsr
    movl %ebx, %edi
    xorl %ebp, %ebp
    call bridge_main
    ud2
    .popsection

    .pushsection .handoff, "ax"
    .globl bridge_hand_off
bridge_hand_off:
    movq 0(%rdi), %rax
    movq 16(%rdi), %rcx
    movq 8(%rdi), %rsp
    lgdt 24(%rdi)
    movq %rax, %cr3             # from here on only this page, the image and the direct map
    xorl %eax, %eax
    lldt %ax
    pushq $0                    # the return address that leads nowhere
    pushq %rcx
    pushq $0x28
    leaq 4f(%rip), %rax
    pushq %rax
    lretq
4:  movl $0x30, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %eax, %ss
    xorl %eax, %eax
    xorl %ebx, %ebx
    xorl %ecx, %ecx
    xorl %edx, %edx
    xorl %esi, %esi
    xorl %edi, %edi
    xorl %ebp, %ebp
    xorl %r8d, %r8d
    xorl %r9d, %r9d
    xorl %r10d, %r10d
    xorl %r11d, %r11d
    xorl %r12d, %r12d
    xorl %r13d, %r13d
    xorl %r14d, %r14d
    xorl %r15d, %r15d
    pushq $2
    popfq
    ret
    .popsection
    "#,
    options(att_syntax)
);

/// Everything the CPU driver starts with. The assembly reads it by these offsets.
#[repr(C)]
pub struct HandOff {
    root: u64,
    stack_top: u64,
    entry: u64,
    gdt_limit: u16,
    gdt_address: [u16; 4],
}

impl HandOff {
    /// Physical address of the page tables; the others are virtual in them.
    pub fn new(root: u64, stack_top: u64, entry: u64, gdt: u64) -> Self {
        let gdt_address = core::array::from_fn(|i| (gdt >> (16 * i)) as u16);
        Self {
            root,
            stack_top,
            entry,
            gdt_limit: size_of_val(&GDT) as u16 - 1,
            gdt_address,
        }
    }

    /// Starts the CPU driver.
    pub fn go(self) -> ! {
        // SAFETY: masks both legacy interrupt controllers, which nobody uses yet. The IO
        // APICs' lines are masked by reset, and no firmware before us unmasks them.
        unsafe {
            out(0x21, 0xff);
            out(0xa1, 0xff);
        }
        // SAFETY: the tables map this code one to one and the stack, the GDT and the
        // entry where `self` says; nothing of the bridge runs afterwards.
        unsafe { bridge_hand_off(&self) }
    }
}

/// Physical memory of the bridge itself, its stack included.
pub fn own_extent() -> Extent {
    let (start, end) = (&raw const bridge_start as u64, &raw const bridge_end as u64);
    Extent {
        base: start,
        bytes: end - start,
    }
}

/// Address, physical and virtual, of the page that runs while page tables change.
pub fn hand_off_page() -> u64 {
    &raw const bridge_handoff as u64
}

/// Physical memory as bytes.
///
/// # Safety
///
/// It lies in RAM below 4 GiB, and there is no other reference to it while this one is
/// used, unless both only read.
pub unsafe fn memory(base: u64, bytes: u64) -> &'static mut [u8] {
    // SAFETY: mapped one to one by the boot tables; the rest is the caller's promise.
    unsafe { core::slice::from_raw_parts_mut(base as *mut u8, bytes as usize) }
}

/// Reads what the loader before us left; `None` where the boot tables do not reach.
pub fn physical_bytes(base: u64, bytes: u64) -> Option<&'static [u8]> {
    let end = base.checked_add(bytes)?;
    // SAFETY: mapped one to one, and nothing is written before the handover is parsed
    // but the bridge's own memory, where no loader puts anything.
    (base != 0 && end <= REACHABLE)
        .then(|| unsafe { core::slice::from_raw_parts(base as *const u8, bytes as usize) })
}

/// Copies a file to pages of its own and gives their physical address.
pub fn copy(map: &mut Map, from: Extent) -> Result<u64, MapError> {
    let to = map.allocate(from.bytes, PAGE, Kind::ExecutableAndModules)?;
    // SAFETY: the target was free until now, so the two do not overlap.
    unsafe { memory(to, from.bytes).copy_from_slice(memory(from.base, from.bytes)) };
    Ok(to)
}

/// Page tables in physical memory.
pub struct PhysicalTables<'a> {
    /// Where they are taken from.
    pub map: &'a mut Map,
}

impl TableMemory for PhysicalTables<'_> {
    fn allocate(&mut self) -> Result<u64, MapError> {
        let table = self.map.allocate(PAGE, PAGE, Kind::BootloaderReclaimable)?;
        self.table(table).fill(0);
        Ok(table)
    }

    fn table(&mut self, physical: u64) -> &mut [u64; 512] {
        // SAFETY: a page that `allocate` took below 4 GiB; `&mut self` keeps it the only
        // reference to any table.
        unsafe { &mut *(physical as *mut [u64; 512]) }
    }
}

/// Whether page table entries of the third level may map 1 GiB.
pub fn has_gigabyte_pages() -> bool {
    const EXTENDED: u32 = 0x8000_0001;
    __cpuid(0x8000_0000).eax >= EXTENDED && __cpuid(EXTENDED).edx & 1 << 26 != 0
}

/// Writes to an IO port.
///
/// # Safety
///
/// The device behind it must not harm memory that is in use.
unsafe fn out(port: u16, value: u8) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags));
    };
}

fn serial_is_ready() -> bool {
    let status: u8;
    // SAFETY: reading the line status register of COM1 has no side effect that matters.
    unsafe {
        asm!("in al, dx", in("dx") COM1 + 5, out("al") status, options(nomem, nostack, preserves_flags));
    };
    status & 0x20 != 0
}

/// 115,200 baud, 8 data bits, no parity, no interrupts.
pub fn start_serial() {
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
        // SAFETY: COM1's own registers.
        unsafe { out(COM1 + register, value) };
    }
}

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // Bounded, because a machine without COM1 must not hang here.
            let _ = (0..100_000).find(|_| serial_is_ready());
            // SAFETY: COM1's data register.
            unsafe { out(COM1, byte) };
        }
        Ok(())
    }
}

/// Writes to COM1.
pub fn say(text: fmt::Arguments<'_>) {
    // `Serial` cannot fail.
    let _ = Serial.write_fmt(text);
}

/// Ends a machine that cannot go on.
pub fn stop() -> ! {
    // SAFETY: ends QEMU where it listens, and is ignored elsewhere.
    unsafe { out(DEBUG_EXIT, 0x10) };
    loop {
        // SAFETY: interrupts stay off; nothing is left to do.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
