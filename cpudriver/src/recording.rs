//! The trace of this core: what the CPU driver records in it.
//!
//! The ring is ring 3's to write to as well, so nothing is believed that stands in it or in its control page:
//! how large it is, the CPU driver remembers itself. What is recorded costs two instructions where it is off.

use crate::dispatcher::{Dispatcher, State};
use crate::kernel::record;
use crate::scheduler::Wake;
use abi::command_line::{CommandLine, Trace};
use abi::layout::KERNEL_TRACE;
use abi::limits::DISPATCHER_NAME_BYTES;
use abi::machine::Machine;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use trace::event::{BLOCKS, LRPC_CALL, LRPC_REPLY, MADE, PHASE, RUNS, WAKES};
use trace::{CONTROL_BYTES, Control, Fixed, Record, Recorder};
use zerocopy::FromZeros;

/// The phase in which a CPU driver has control.
const CPU_DRIVER: u32 = 1;

// SAFETY: the loader mapped it, as long as the core runs; see `initialise`.
const RECORDER: Recorder = unsafe { Recorder::at(KERNEL_TRACE as *mut Control) };

/// How large the ring is: binary logarithm of the records, and one less than there are. Where there is none,
/// nothing is ever on.
static SHIFT: AtomicU64 = AtomicU64::new(0);
static MASK: AtomicU64 = AtomicU64::new(0);

/// Clears the ring and switches on what the system's command line asks for.
pub fn initialise(machine: &Machine) {
    let trace = CommandLine::parse(machine.command_line()).trace;
    let Ok(Trace {
        records: records @ 1..,
        groups,
        from_start,
        start,
        stop,
    }) = trace
    else {
        return;
    };
    let Fixed {
        capacity, shift, ..
    } = Fixed::new(records);
    SHIFT.store(shift, Relaxed);
    MASK.store(capacity - 1, Relaxed);
    let control = Control {
        enabled: if from_start { groups } else { 0 },
        awaited: Control::awaiting(start.into(), stop.into()),
        capacity,
        shift,
        start: start.into(),
        stop: stop.into(),
        ..Control::new_zeroed()
    };
    // SAFETY: the loader set aside and mapped control page and ring for so many records, and ring 3 does not
    // run yet.
    unsafe {
        let page = KERNEL_TRACE as *mut u8;
        page.write_bytes(0, CONTROL_BYTES as usize);
        let ring = page.add(CONTROL_BYTES as usize).cast::<Record>();
        ring.write_bytes(0, records as usize);
        page.cast::<Control>().write_volatile(control);
    }
    note(PHASE, 0, CPU_DRIVER);
}

/// Whether an event is recorded.
#[inline(always)]
pub fn is_on(event: u16) -> bool {
    RECORDER.is_on(event)
}

/// Records an event if that is on.
#[inline(always)]
pub fn note(event: u16, value: u64, detail: u32) {
    if is_on(event) {
        write(event, 0, value, detail);
    }
}

/// Records an event.
#[inline(always)]
pub fn write(event: u16, flow: u64, value: u64, detail: u32) {
    write_tail(Record::tail(event, 0, detail), flow, value);
}

#[cold]
#[inline(never)]
fn write_tail(tail: u64, flow: u64, value: u64) {
    let (shift, mask) = (SHIFT.load(Relaxed), MASK.load(Relaxed));
    // SAFETY: so many records are mapped; and where something is on, there is a ring.
    unsafe { RECORDER.write_tail(shift, mask, tail, flow, value) };
}

/// The fast path of LRPC went from one dispatcher to another, with this first word.
pub extern "C" fn fast_path(from: &Dispatcher, to: &Dispatcher, word: u64) {
    let (shift, mask) = (SHIFT.load(Relaxed), MASK.load(Relaxed));
    // In a row, and each only if the one before did not end the trace.
    let note = |event, value, detail| {
        if is_on(event) {
            // SAFETY: as in `write_tail`.
            unsafe { RECORDER.write_tail(shift, mask, Record::tail(event, 0, detail), 0, value) };
        }
    };
    let (waits, to) = (from.state as u64, to.handle());
    if from.state == State::Calling {
        note(LRPC_CALL, word, to);
    } else {
        note(LRPC_REPLY, word, to);
    }
    note(BLOCKS, waits, from.handle());
    note(WAKES, Wake::Call as u64, to);
    note(RUNS, 0, to);
}

/// A dispatcher was made, or got a name.
pub fn made(handle: usize, name: &[u8; DISPATCHER_NAME_BYTES]) {
    // SAFETY: the record is mapped, and this core's to write; handles are below the number of names.
    unsafe { (&raw mut (*record()).names[handle]).write_volatile(*name) };
    if is_on(MADE) {
        let [first, second]: [u64; 2] = zerocopy::transmute!(*name);
        write(MADE, first, second, handle as u32);
    }
}
