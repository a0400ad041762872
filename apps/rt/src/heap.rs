//! The heap: crate `talc` over the memory that the domain was started with.

use spin::Mutex;
use talc::TalcLock;
use talc::source::Manual;

// The lock is never contended: a domain has one dispatcher.
#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: TalcLock<Mutex<()>, Manual> = TalcLock::new(Manual);

/// Hands the heap more memory.
///
/// # Safety
/// It must be mapped, writable, and used for nothing else.
pub unsafe fn extend(address: u64, bytes: u64) {
    // SAFETY: the caller's promise. A piece too small to be of use is left aside.
    let _ = unsafe { HEAP.lock().claim(address as *mut u8, bytes as usize) };
}

/// Hands the heap its memory.
pub fn initialise() {
    let start = crate::startup();
    // SAFETY: the memory was mapped for the heap and nothing else, and this runs once.
    let claimed = unsafe {
        HEAP.lock()
            .claim(start.heap as *mut u8, start.heap_bytes as usize)
    };
    if claimed.is_none() {
        crate::abort(format_args!(
            "a heap of {} bytes is too small: at least a page is needed",
            start.heap_bytes
        ));
    }
}
