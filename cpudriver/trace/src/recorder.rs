//! How a record is written.

#[cfg(target_os = "none")]
use crate::BEGUN;
use crate::{CONTROL_BYTES, Control, FIXED, Fixed, Record, TRACE, event, lap};
#[cfg(target_os = "none")]
use core::mem::offset_of;

/// The ring of this core, as this program sees it.
#[derive(Clone, Copy, Debug)]
pub struct Recorder {
    control: *mut Control,
}

impl Fixed {
    /// That of the core that this runs on. On the host there is no ring.
    #[inline(always)]
    pub fn own() -> Self {
        #[cfg(target_os = "none")]
        // SAFETY: the page is mapped wherever the control page is, for all programs of this core, and
        // nobody in ring 3 can write to it. Not volatile: it never changes.
        unsafe {
            *(FIXED as *const Self)
        }
        #[cfg(not(target_os = "none"))]
        Self::new(0)
    }
}

/// What a program declares with [`user!`](crate::user): where the host tool finds it in the program's file.
#[repr(C)]
#[derive(Debug)]
pub struct User {
    /// [`User::MAGIC`].
    pub magic: u64,
    /// Its name: address and bytes.
    pub name: *const u8,
    /// As above.
    pub name_bytes: u64,
    /// Its text, with at most `{value}` in it: address and bytes.
    pub text: *const u8,
    /// As above.
    pub text_bytes: u64,
}

// SAFETY: it points to constants, and nobody writes to it.
unsafe impl Sync for User {}

impl User {
    /// First word of each: "ATOLLUSR" as it lies in memory.
    pub const MAGIC: u64 = u64::from_le_bytes(*b"ATOLLUSR");

    /// Declares one. The text is checked when the program is compiled.
    pub const fn new(name: &'static str, text: &'static str) -> Self {
        assert!(
            event::is_sound(text),
            "a text with an argument that there is not"
        );
        Self {
            magic: Self::MAGIC,
            name: name.as_ptr(),
            name_bytes: name.len() as u64,
            text: text.as_ptr(),
            text_bytes: text.len() as u64,
        }
    }
}

impl Recorder {
    /// The ring of the core that this runs on, where every address space has it.
    #[inline(always)]
    pub const fn own() -> Self {
        Self {
            control: TRACE as *mut Control,
        }
    }

    /// The ring whose control page is mapped there.
    ///
    /// # Safety
    /// A control page, and behind it as many records as that says, must be mapped there as long as
    /// this is used, and belong to the core that it is used on.
    #[inline(always)]
    pub const unsafe fn at(control: *mut Control) -> Self {
        Self { control }
    }

    /// Whether an event is recorded: two instructions, and a branch that is not taken where it is not.
    #[inline(always)]
    #[cfg(target_os = "none")]
    pub fn is_on(self, event: u16) -> bool {
        // SAFETY: the control page is mapped as long as the core runs. Volatile: others write to it.
        let enabled = unsafe { (&raw const (*self.control).enabled).read_volatile() };
        enabled & 1 << event::group(event) != 0
    }

    /// On the host there is no ring.
    #[cfg(not(target_os = "none"))]
    pub fn is_on(self, _event: u16) -> bool {
        let _ = self.control;
        false
    }

    /// Records an event if that is on.
    #[inline(always)]
    pub fn record(self, event: u16, flow: u64, value: u64, detail: u32) {
        if self.is_on(event) {
            self.write(event, flow, value, detail);
        }
    }

    /// Records an event in the ring of this core, whatever recorder this is: [`writing`] tells how.
    #[inline(always)]
    #[cfg(target_os = "none")]
    pub fn write(self, number: u16, flow: u64, value: u64, detail: u32) {
        core::hint::cold_path();
        // SAFETY: the ring is mapped as the page of what never changes says, and belongs to this core. Where there
        // is none, somebody wrote to the control page what does not belong there, and spoils the page that stands
        // for one. All registers that it writes to are named.
        unsafe { writing::call!(writing::any, number, flow, value, detail) }
    }

    /// Records that a message was sent, and counts it: [`writing`] tells how.
    #[inline(always)]
    #[cfg(target_os = "none")]
    pub fn write_sent(flow: u64, word: u64, kind: u32) {
        // SAFETY: as in `write`.
        unsafe { writing::call!(writing::sent, event::SEND, flow, word, kind) }
    }

    /// Records that a message was received, and counts it.
    #[inline(always)]
    #[cfg(target_os = "none")]
    pub fn write_received(flow: u64, word: u64, kind: u32) {
        // SAFETY: as in `write`.
        unsafe { writing::call!(writing::received, event::RECEIVE, flow, word, kind) }
    }

    /// Whether something is to be done when this event is recorded.
    ///
    /// # Safety
    /// The control page must be mapped.
    #[inline(always)]
    #[cfg(target_os = "none")]
    unsafe fn awaits(self, number: u16) -> bool {
        // SAFETY: the caller's promise. Volatile: others write to it.
        let awaited = unsafe { (&raw const (*self.control).awaited).read_volatile() };
        awaited as u16 == number
    }

    /// Does it: after the event that starts the trace, the one that ends it is waited for; after that one,
    /// nothing more is recorded.
    ///
    /// # Safety
    /// As above.
    #[cold]
    #[inline(never)]
    #[cfg(target_os = "none")]
    unsafe fn reached(self) {
        let control = self.control;
        // SAFETY: the caller's promise. One store, so that who interrupts this finds the one or the other.
        unsafe {
            let awaited = &raw mut (*control).awaited;
            if awaited.read_volatile() & BEGUN == 0 {
                let stop = (&raw const (*control).stop).read_volatile();
                awaited.write_volatile(u32::from(stop as u16) | BEGUN);
            } else {
                (&raw mut (*control).enabled).write_volatile(0);
            }
        }
    }

    /// The control page as it is now; all zero where there is none.
    #[cfg(target_os = "none")]
    pub fn control(self) -> Control {
        // SAFETY: it is mapped as long as the core runs, and all bits make one. Volatile: others write to it.
        unsafe { self.control.read_volatile() }
    }

    /// Has these groups recorded from now on, a bit each; 0: nothing.
    #[cfg(target_os = "none")]
    pub fn enable(self, groups: u32) {
        // SAFETY: the control page is mapped, and meant to be written to by whoever runs on this core.
        unsafe { (&raw mut (*self.control).enabled).write_volatile(groups) }
    }

    /// Sets the events that start and stop the trace; 0: none.
    #[cfg(target_os = "none")]
    pub fn set_triggers(self, start: u32, stop: u32) {
        // SAFETY: as above.
        unsafe {
            (&raw mut (*self.control).start).write_volatile(start);
            (&raw mut (*self.control).stop).write_volatile(stop);
            let awaited = Control::awaiting(start, stop);
            (&raw mut (*self.control).awaited).write_volatile(awaited);
        }
    }

    /// The record with this index, if it was written and not overwritten yet.
    #[cfg(target_os = "none")]
    pub fn read(self, index: u64) -> Option<Record> {
        let capacity = Fixed::own().capacity;
        if capacity == 0 {
            return None;
        }
        let place = (index & (capacity - 1)) as usize;
        // SAFETY: within the ring, as in `write`; all bits make a record.
        let record = unsafe {
            let records = self
                .control
                .byte_add(CONTROL_BYTES as usize)
                .cast::<Record>();
            records.add(place).read_volatile()
        };
        (record.lap() == lap(index, capacity)).then_some(record)
    }

    /// The same on the host, where there is no ring.
    #[cfg(not(target_os = "none"))]
    pub fn write(self, _number: u16, _flow: u64, _value: u64, _detail: u32) {}

    /// The same on the host.
    #[cfg(not(target_os = "none"))]
    pub fn write_sent(_flow: u64, _word: u64, _kind: u32) {}

    /// The same on the host.
    #[cfg(not(target_os = "none"))]
    pub fn write_received(_flow: u64, _word: u64, _kind: u32) {}

    /// The same on the host.
    #[cfg(not(target_os = "none"))]
    pub fn control(self) -> Control {
        zerocopy::FromZeros::new_zeroed()
    }

    /// The same on the host.
    #[cfg(not(target_os = "none"))]
    pub fn enable(self, _groups: u32) {}

    /// The same on the host.
    #[cfg(not(target_os = "none"))]
    pub fn set_triggers(self, _start: u32, _stop: u32) {}

    /// The same on the host.
    #[cfg(not(target_os = "none"))]
    pub fn read(self, _index: u64) -> Option<Record> {
        None
    }

    /// Records an event in a ring of 2^`shift` records.
    ///
    /// # Safety
    /// So many must be mapped behind the control page.
    #[inline(always)]
    #[cfg(target_os = "none")]
    pub unsafe fn write_within(self, shift: u64, number: u16, flow: u64, value: u64, detail: u32) {
        let tail = Record::tail(number, 0, detail);
        // SAFETY: the caller's promise.
        unsafe { self.write_tail(shift, (1 << shift) - 1, tail, flow, value) };
    }

    /// The same with what is known before put together: one less than 2^`shift`, and [`Record::tail`] with a
    /// lap of 0.
    ///
    /// # Safety
    /// As above.
    #[inline(always)]
    #[cfg(target_os = "none")]
    pub unsafe fn write_tail(self, shift: u64, mask: u64, tail: u64, flow: u64, value: u64) {
        let control = self.control;
        // SAFETY: the caller's promise. A line of another record is never touched: the index is ours.
        unsafe {
            let index = take(control);
            let records = control.byte_add(CONTROL_BYTES as usize).cast::<Record>();
            let record = records.add((index & mask) as usize);
            (&raw mut (*record).tsc).write_volatile(core::arch::x86_64::_rdtsc());
            (&raw mut (*record).flow).write_volatile(flow);
            (&raw mut (*record).value).write_volatile(value);
            let lap = lap(index, 1 << shift);
            (&raw mut (*record).tail).write_volatile(tail | u64::from(lap) << 16);
            if self.awaits(tail as u16) {
                self.reached();
            }
        }
    }

    /// Begins a span of a program's own, which ends with the guard.
    #[inline(always)]
    pub fn span(self, declared: &'static User, value: u64) -> Span {
        self.record(event::USER_BEGIN, address_of(declared), value, 0);
        Span { declared, value }
    }
}

/// A span of a program's own: it ends when this is dropped. Made by [`span!`](crate::span).
#[derive(Debug)]
#[must_use = "the span ends when this is dropped"]
pub struct Span {
    declared: &'static User,
    value: u64,
}

impl Drop for Span {
    #[inline(always)]
    fn drop(&mut self) {
        let flow = address_of(self.declared);
        Recorder::own().record(event::USER_END, flow, self.value, 0);
    }
}

fn address_of(declared: &'static User) -> u64 {
    core::ptr::from_ref(declared) as u64
}

/// Takes the index of the next record.
///
/// # Safety
/// The control page must be mapped, and used by this core alone.
#[inline(always)]
#[cfg(target_os = "none")]
unsafe fn take(control: *mut Control) -> u64 {
    let mut one = 1u64;
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!(
            "xadd [{control} + {next}], {one}",
            control = in(reg) control,
            next = const offset_of!(Control, next),
            one = inout(reg) one,
            options(nostack),
        );
    }
    one
}

/// How ring 3 writes a record: without a frame, in the order that takes the fewest instructions, and in registers
/// that the caller can spare: what it has in others, such as the words of a message, it need not put away.
///
/// **Invariants.** Each index is given to one record: `xadd` is one instruction, and nothing comes between its
/// reading and its writing on the core that carries it out; no other core has the ring. What says that a record is
/// whole is stored last.
#[cfg(target_os = "none")]
mod writing {
    use crate::{BEGUN, CONTROL_BYTES, Control, FIXED, Fixed, Record, TRACE};
    use core::mem::offset_of;

    /// Declares one of them: what else it does before the clock is read.
    macro_rules! writing {
        ($(#[$doc:meta])* $name:ident, [$($first:literal),*], [$($key:ident = $value:expr),*]) => {
            $(#[$doc])*
            ///
            /// # Safety
            /// Control page, [`Fixed`] and ring must be mapped, and belong to this core.
            /// For [`call`] alone: event, flow, value and detail come in r8d, rax, rcx and edx, as no calling
            /// convention has it.
            #[unsafe(naked)]
            pub unsafe extern "C" fn $name() {
                core::arch::naked_asm!(
                    "movabs r9, {trace}",
                    "mov r10, [r9 + {mask}]",
                    $($first,)*
                    "mov r11d, 1",
                    "xadd [r9 + {next}], r11",
                    "and r10, r11",
                    "shl r10, {bytes}",
                    // What came in the registers that the clock and the shift are for.
                    "mov [r9 + r10 + {flow}], rax",
                    "mov [r9 + r10 + {value}], rcx",
                    "mov [r9 + r10 + {tail} + 4], edx",
                    "rdtsc",
                    "mov [r9 + r10 + {tsc}], eax",
                    "mov [r9 + r10 + {tsc} + 4], edx",
                    "mov ecx, [r9 + {shift}]",
                    "shr r11, cl",
                    "shl r11d, 16",
                    "lea r11d, [r11 + r8 + (1 << 16)]",
                    "mov [r9 + r10 + {tail}], r11d",
                    "cmp word ptr [r9 + {awaited}], r8w",
                    "je 2f",
                    "ret",
                    // As `Recorder::reached`.
                    "2: bt dword ptr [r9 + {awaited}], {begun}",
                    "jc 3f",
                    "movzx eax, word ptr [r9 + {stop}]",
                    "or eax, 1 << {begun}",
                    "mov [r9 + {awaited}], eax",
                    "ret",
                    "3: mov dword ptr [r9 + {enabled}], 0",
                    "ret",
                    $($key = const $value,)*
                    trace = const TRACE,
                    shift = const FIXED - TRACE + offset_of!(Fixed, shift) as u64,
                    mask = const FIXED - TRACE + offset_of!(Fixed, mask) as u64,
                    next = const offset_of!(Control, next),
                    awaited = const offset_of!(Control, awaited),
                    bytes = const size_of::<Record>().trailing_zeros(),
                    tsc = const CONTROL_BYTES + offset_of!(Record, tsc) as u64,
                    flow = const CONTROL_BYTES + offset_of!(Record, flow) as u64,
                    value = const CONTROL_BYTES + offset_of!(Record, value) as u64,
                    tail = const CONTROL_BYTES + offset_of!(Record, tail) as u64,
                    begun = const BEGUN.trailing_zeros(),
                    stop = const offset_of!(Control, stop),
                    enabled = const offset_of!(Control, enabled),
                )
            }
        };
    }

    writing! {
        /// Records any event.
        any, [], []
    }
    writing! {
        /// Records that a message was sent, and counts it.
        sent, ["inc qword ptr [r9 + {count}]"], [count = offset_of!(Control, sent)]
    }
    writing! {
        /// Records that a message was received, and counts it. The fence: the clock is read when the message is
        /// there, not before.
        received, ["inc qword ptr [r9 + {count}]", "lfence"], [count = offset_of!(Control, received)]
    }

    /// Calls one of them.
    macro_rules! call {
        ($which:path, $event:expr, $flow:expr, $value:expr, $detail:expr) => {
            core::arch::asm!(
                "call {which}",
                which = sym $which,
                in("r8d") u32::from($event),
                inout("rax") $flow => _,
                inout("rcx") $value => _,
                inout("edx") $detail => _,
                out("r9") _,
                out("r10") _,
                out("r11") _,
            )
        };
    }
    pub(super) use call;
}

/// Records an event of a program's own: `user!("rounds", "{value} of them", value)`.
#[macro_export]
macro_rules! user {
    ($name:literal, $text:literal, $value:expr) => {{
        static DECLARED: $crate::User = $crate::User::new($name, $text);
        $crate::Recorder::own().record(
            $crate::event::USER_EVENT,
            &raw const DECLARED as u64,
            $value as u64,
            0,
        );
    }};
    ($name:literal) => {
        $crate::user!($name, "", 0)
    };
}

/// Begins a span of a program's own, which ends when what this gives is dropped:
/// `let _round = span!("round", "{value}", round);`.
#[macro_export]
macro_rules! span {
    ($name:literal, $text:literal, $value:expr) => {{
        static DECLARED: $crate::User = $crate::User::new($name, $text);
        $crate::Recorder::own().span(&DECLARED, $value as u64)
    }};
    ($name:literal) => {
        $crate::span!($name, "", 0)
    };
}

#[cfg(not(target_os = "none"))]
const _: (u64, u64, fn(u64, u64) -> u16) = (CONTROL_BYTES, FIXED, lap);
const _: () = assert!(size_of::<Record>() as u64 * 128 == CONTROL_BYTES);
