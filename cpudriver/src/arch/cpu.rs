//! Control registers and time-stamp counter.

use crate::recording;
use x86::controlregs::{Cr0, Cr4};
use x86::msr;

/// Brings this core's control registers into the state that all CPU drivers run with.
pub fn initialise() {
    let features = raw_cpuid::CpuId::new();
    let extended = features.get_extended_feature_info();
    let mut cr4 = Cr4::CR4_ENABLE_PAE | Cr4::CR4_ENABLE_GLOBAL_PAGES;
    // Without it, an error of the machine is a shutdown instead of a report.
    if features
        .get_feature_info()
        .is_some_and(|info| info.has_mce())
    {
        cr4 |= Cr4::CR4_ENABLE_MACHINE_CHECK;
    }
    if let Some(extended) = &extended {
        if extended.has_smep() {
            cr4 |= Cr4::CR4_ENABLE_SMEP;
        }
        if extended.has_smap() {
            cr4 |= Cr4::CR4_ENABLE_SMAP;
        }
        if extended.has_umip() {
            cr4 |= Cr4::CR4_ENABLE_UMIP;
        }
    }
    // Task switched: the first floating-point instruction of a dispatcher traps.
    let cr0 = Cr0::CR0_ENABLE_PAGING
        | Cr0::CR0_ALIGNMENT_MASK
        | Cr0::CR0_WRITE_PROTECT
        | Cr0::CR0_NUMERIC_ERROR
        | Cr0::CR0_EXTENSION_TYPE
        | Cr0::CR0_TASK_SWITCHED
        | Cr0::CR0_MONITOR_COPROCESSOR
        | Cr0::CR0_PROTECTED_MODE;
    // SAFETY: the values keep long mode, paging and the current page tables as they are;
    // what they add restricts ring 3 and makes ring 0 obey read-only pages. The extended
    // feature register gets `syscall` and no-execute, which the page tables rely on.
    unsafe {
        x86::controlregs::cr0_write(cr0);
        x86::controlregs::cr4_write(cr4);
        // Entry 4 of the page attribute table is write-combining, which by default it is not;
        // the first four, which all other mappings use, stay as they are after a reset.
        if features
            .get_feature_info()
            .is_some_and(|info| info.has_pat())
        {
            msr::wrmsr(msr::IA32_PAT, 0x0007_0401_0007_0406);
        }
        let efer = msr::rdmsr(msr::IA32_EFER);
        msr::wrmsr(msr::IA32_EFER, efer | 1 | (1 << 11));
    }
}

/// Makes `root` the address space in use.
///
/// # Safety
/// Its kernel half must be this core's.
pub unsafe fn switch_address_space(root: u64) {
    // SAFETY: the caller vouches for the kernel half, on which alone ring 0 relies.
    unsafe { x86::controlregs::cr3_write(root) };
}

/// Whether pages of 1 GiB can be mapped.
pub fn has_giant_pages() -> bool {
    raw_cpuid::CpuId::new()
        .get_extended_processor_and_feature_identifiers()
        .is_some_and(|features| features.has_1gib_pages())
}

/// The root page table in use.
pub fn loaded_root() -> u64 {
    // SAFETY: reading CR3 has no effect.
    unsafe { x86::controlregs::cr3() }
}

/// Drops all translations of the lower half.
pub fn forget_translations() {
    recording::note(trace::event::FLUSH, 0, 0);
    // SAFETY: the same root again; dropping translations makes the processor read the tables
    // again.
    unsafe { x86::controlregs::cr3_write(x86::controlregs::cr3()) };
}

/// Drops the translation of one address.
pub fn forget_translation(address: u64) {
    // SAFETY: dropping a translation makes the processor read the tables again.
    unsafe { x86::tlb::flush(address as usize) };
}

/// The time-stamp counter.
pub fn time_stamp() -> u64 {
    // SAFETY: reading the counter has no effect.
    unsafe { x86::time::rdtsc() }
}

/// The address that the last page fault complained of.
pub fn fault_address() -> u64 {
    // SAFETY: reading CR2 has no effect.
    unsafe { x86::controlregs::cr2() as u64 }
}

/// Stops this core for good.
pub fn halt() -> ! {
    loop {
        // SAFETY: with interrupts off nothing but an NMI or a reset continues from here.
        unsafe {
            x86::irq::disable();
            x86::halt();
        }
    }
}

/// Ends QEMU through its `isa-debug-exit` device.
pub fn debug_exit(value: u8) {
    // SAFETY: port 0xf4 belongs to nobody on machines without that device; the command
    // line promised that it is there.
    unsafe { x86::io::outl(0xf4, u32::from(value)) };
}
