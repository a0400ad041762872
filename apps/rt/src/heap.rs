//! The heap: crate `talc` over the memory that the domain was started with, as much of it as is in use: what
//! lies behind is not touched, and what nobody touches is not mapped.

use abi::layout::PAGE;
use core::alloc::Layout;
use core::ptr::NonNull;
use spin::Mutex;
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

/// Least bytes that the heap grows by.
const GROWTH: usize = 64 << 10;

/// What there is behind the part that is in use.
#[derive(Debug)]
struct Rest {
    /// Where that begins, as `talc` knows it; `None` before it has any.
    end: Option<NonNull<u8>>,
    /// Where it ends.
    limit: *mut u8,
}

// SAFETY: the memory is the domain's, whoever of it has this.
unsafe impl Send for Rest {}

// SAFETY: it does not allocate, and hands over memory that only `initialise` named, once.
unsafe impl Source for Rest {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        let (Some(end), limit) = (talc.source.end, talc.source.limit) else {
            return Err(());
        };
        let left = limit.addr() - end.addr().get();
        // Beside what was asked for, `talc` keeps some words, and aligns.
        let wanted = layout
            .size()
            .saturating_add(layout.align())
            .saturating_add(GROWTH);
        let more = wanted.min(left) / PAGE as usize * PAGE as usize;
        if more == 0 {
            return Err(());
        }
        // SAFETY: within the memory that was mapped, or is when it is touched, for the heap and nothing else.
        talc.source.end = Some(unsafe { talc.extend(end, end.as_ptr().add(more)) });
        Ok(())
    }
}

// The lock is never contended: a domain has one dispatcher.
#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: TalcLock<Mutex<()>, Rest> = TalcLock::new(Rest {
    end: None,
    limit: core::ptr::null_mut(),
});

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
    let (base, bytes) = (start.heap as *mut u8, start.heap_bytes as usize);
    let mut heap = HEAP.lock();
    // SAFETY: the memory is there for the heap and nothing else, and this runs once.
    heap.source = unsafe {
        Rest {
            end: heap.claim(base, bytes.min(GROWTH)),
            limit: base.add(bytes),
        }
    };
    if heap.source.end.is_none() {
        crate::abort(format_args!(
            "a heap of {bytes} bytes is too small: at least a page is needed"
        ));
    }
}
