//! Segments, the task state segment, and the interrupt descriptor table.

use super::entry;
use crate::local::Local;
use abi::layout::kernel_stack_top;
use x86::dtables::{DescriptorTablePointer, lgdt, lidt, load_ldtr};
use x86::msr;

/// Selector of ring-0 code.
pub const KERNEL_CODE: u16 = 0x08;
/// Selector of ring-0 data.
pub const KERNEL_DATA: u16 = 0x10;
/// Selector of ring-3 data. `sysret` wants it right below the code's.
pub const USER_DATA: u16 = 0x18 | 3;
/// Selector of ring-3 code.
pub const USER_CODE: u16 = 0x20 | 3;
const TASK_STATE: u16 = 0x28;

/// The task state segment: where stacks are found, and no I/O ports for ring 3.
#[repr(C, packed(4))]
struct TaskState {
    reserved0: u32,
    stacks: [u64; 3],
    reserved1: u64,
    interrupt_stacks: [u64; 7],
    reserved2: [u16; 5],
    io_map: u16,
}

/// A gate of the interrupt descriptor table.
#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    offset_low: u16,
    selector: u16,
    stack: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

static SEGMENTS: Local<[u64; 7]> = Local::new([
    0,
    0x00af_9b00_0000_ffff, // ring-0 code
    0x00cf_9300_0000_ffff, // ring-0 data
    0x00cf_f300_0000_ffff, // ring-3 data
    0x00af_fb00_0000_ffff, // ring-3 code
    0,
    0,
]);

static TASK: Local<TaskState> = Local::new(TaskState {
    reserved0: 0,
    stacks: [kernel_stack_top(0), 0, 0],
    reserved1: 0,
    interrupt_stacks: [
        kernel_stack_top(1),
        kernel_stack_top(2),
        kernel_stack_top(3),
        0,
        0,
        0,
        0,
    ],
    reserved2: [0; 5],
    io_map: size_of::<TaskState>() as u16,
});

static GATES: Local<[Gate; 256]> = Local::new(
    [Gate {
        offset_low: 0,
        selector: 0,
        stack: 0,
        kind: 0,
        offset_middle: 0,
        offset_high: 0,
        reserved: 0,
    }; 256],
);

/// Loads this core's descriptor tables and the way in for system calls.
pub fn initialise() {
    // SAFETY: called once, before interrupts are enabled; nobody else refers to the tables
    // while they are filled.
    let (segments, task, gates) = unsafe { (SEGMENTS.get_mut(), TASK.get_mut(), GATES.get_mut()) };
    let base = core::ptr::from_mut(task) as u64;
    let limit = size_of::<TaskState>() as u64 - 1;
    segments[5] = limit | ((base & 0xff_ffff) << 16) | (0x89 << 40) | (((base >> 24) & 0xff) << 56);
    segments[6] = base >> 32;
    for (vector, gate) in gates.iter_mut().enumerate() {
        let stub = entry::stub(vector);
        *gate = Gate {
            offset_low: stub as u16,
            selector: KERNEL_CODE,
            // Exceptions that may strike on a broken stack get one of their own.
            stack: match vector {
                8 => 1,
                2 => 2,
                18 => 3,
                _ => 0,
            },
            // Interrupt gates: interrupts stay off in ring 0. Ring 3 may raise none of
            // them by instruction but the breakpoint.
            kind: if vector == 3 { 0xee } else { 0x8e },
            offset_middle: (stub >> 16) as u16,
            offset_high: (stub >> 32) as u32,
            reserved: 0,
        };
    }
    // SAFETY: the tables are complete and live as long as the CPU driver; the selectors
    // name the segments written above.
    unsafe {
        lgdt(&DescriptorTablePointer::new_from_slice(segments));
        entry::load_segments(KERNEL_CODE, KERNEL_DATA);
        x86::task::load_tr(x86::segmentation::SegmentSelector::from_raw(TASK_STATE));
        // After INIT there is a local table, at address 0: ring 3 could name what it finds there.
        load_ldtr(x86::segmentation::SegmentSelector::from_raw(0));
        lidt(&DescriptorTablePointer::new_from_slice(gates));
        // There is no second way in: with no segment, `sysenter` faults.
        msr::wrmsr(msr::IA32_SYSENTER_CS, 0);
        msr::wrmsr(
            msr::IA32_STAR,
            (u64::from(KERNEL_DATA | 3) << 48) | (u64::from(KERNEL_CODE) << 32),
        );
        msr::wrmsr(
            msr::IA32_LSTAR,
            entry::system_call_entry as *const () as u64,
        );
        // Flags that are cleared on entry: trap, interrupt, direction, nested task,
        // alignment check (which is also what lets ring 0 touch user pages under SMAP).
        msr::wrmsr(msr::IA32_FMASK, 0x4_4700);
    }
}
