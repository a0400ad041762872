//! Statics of a core.
//!
//! Every core runs its own copy of the image, so a static is that core's and nobody
//! else's. The CPU driver is sequential: one stack, interrupts off. So a static needs no
//! lock, only a promise that no two references to it live at once.

use core::cell::UnsafeCell;

/// A static of this core.
pub struct Local<T>(UnsafeCell<T>);

// SAFETY: "shared between threads" never happens: each core has its own copy of the image,
// and within a core the CPU driver is sequential.
unsafe impl<T> Sync for Local<T> {}

impl<T> Local<T> {
    /// Wraps a first value.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// The value.
    ///
    /// # Safety
    /// No other reference to it may be alive.
    #[allow(clippy::mut_from_ref)] // the whole point; the caller takes the promise
    pub unsafe fn get_mut(&self) -> &mut T {
        // SAFETY: the caller promises that this is the only reference.
        unsafe { &mut *self.0.get() }
    }
}
