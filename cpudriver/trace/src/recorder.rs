//! How a record is written.

use crate::{CONTROL_BYTES, Control, Record, TRACE, event, lap};

/// The ring of this core, as this program sees it.
#[derive(Clone, Copy, Debug)]
pub struct Recorder {
    control: *mut Control,
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

    /// Records an event.
    ///
    /// **Invariant.** Each index is given to one record. `xadd` is one instruction, and nothing comes
    /// between its reading and its writing on the core that carries it out; no other core has the ring.
    #[cold]
    #[inline(never)]
    #[cfg(target_os = "none")]
    pub fn write(self, number: u16, flow: u64, value: u64, detail: u32) {
        let control = self.control;
        // SAFETY: the ring is mapped, and belongs to this core; the index is taken modulo its
        // capacity, which the loader chose and whoever spoils it spoils for itself: the CPU driver
        // uses what it knows itself ([`Recorder::write_within`]).
        unsafe {
            let shift = (&raw const (*control).shift).read_volatile();
            self.write_within(shift, number, flow, value, detail);
        }
    }

    /// The same on the host, where there is no ring.
    #[cfg(not(target_os = "none"))]
    pub fn write(self, _number: u16, _flow: u64, _value: u64, _detail: u32) {}

    /// Records an event in a ring of 2^`shift` records.
    ///
    /// # Safety
    /// So many must be mapped behind the control page.
    #[inline(always)]
    #[cfg(target_os = "none")]
    pub unsafe fn write_within(self, shift: u64, number: u16, flow: u64, value: u64, detail: u32) {
        let control = self.control;
        // SAFETY: the caller's promise. A line of another record is never touched: the index is ours.
        unsafe {
            let index = take(&raw mut (*control).next);
            let place = index & ((1 << shift) - 1);
            let records = control.byte_add(CONTROL_BYTES as usize).cast::<Record>();
            let record = records.add(place as usize);
            (&raw mut (*record).tsc).write_volatile(core::arch::x86_64::_rdtsc());
            (&raw mut (*record).flow).write_volatile(flow);
            (&raw mut (*record).value).write_volatile(value);
            let lap = lap(index, 1 << shift);
            (&raw mut (*record).tail).write_volatile(Record::tail(number, lap, detail));
        }
    }
}

/// Adds one to a word of this core's, and returns what it was.
///
/// # Safety
/// It must be mapped, and used by this core alone.
#[inline(always)]
#[cfg(target_os = "none")]
unsafe fn take(word: *mut u64) -> u64 {
    let mut one = 1u64;
    // SAFETY: the caller's promise.
    unsafe {
        core::arch::asm!("xadd [{word}], {one}", word = in(reg) word, one = inout(reg) one, options(nostack));
    }
    one
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

#[cfg(not(target_os = "none"))]
const _: (u64, fn(u64, u64) -> u16) = (CONTROL_BYTES, lap);
const _: () = assert!(size_of::<Record>() as u64 * 128 == CONTROL_BYTES);
