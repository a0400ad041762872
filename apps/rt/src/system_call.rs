//! System calls of any domain. Those with capabilities are in [`crate::capability`] and beside
//! it, those of monitors in [`crate::authority`].

use abi::capability::Address;
use abi::syscall;
pub use abi::syscall::Error;
use core::fmt;

/// Makes a system call: number and arguments in, results or the error and its one result out.
///
/// # Safety
/// Some calls change memory behind the compiler's back; see [`abi::syscall`].
pub unsafe fn call(number: u64, arguments: [u64; 6]) -> Result<[u64; 5], (Error, u64)> {
    let [a, b, c, d, e, f] = arguments;
    let (status, r0, r1, r2, r3, r4): (u64, u64, u64, u64, u64, u64);
    // SAFETY: the registers are those of the ABI; memory is the caller's promise.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => status,
            inlateout("rdi") a => r0,
            inlateout("rsi") b => r1,
            inlateout("rdx") c => r2,
            inlateout("r10") d => r3,
            inlateout("r8") e => r4,
            inlateout("r9") f => _,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    match Error::from_code(status) {
        None => Ok([r0, r1, r2, r3, r4]),
        Some(error) => Err((error, r0)),
    }
}

/// Does nothing, by way of the CPU driver.
#[inline]
pub fn null() {
    // SAFETY: the call has no effect on memory.
    let _ = unsafe { call(syscall::NULL, [0; 6]) };
}

/// Lets the next runnable dispatcher of this core run.
#[inline]
pub fn yield_now() {
    // SAFETY: the call has no effect on memory of ours, and loses these registers.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") syscall::YIELD => _,
            lateout("rdi") _, lateout("rsi") _, lateout("rdx") _,
            lateout("r10") _, lateout("r8") _, lateout("r9") _,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
}

/// Blocks until a doorbell is pending, which it takes (true), or until the clock reaches
/// `deadline_ns` (false).
pub fn wait(deadline_ns: Option<u64>) -> bool {
    woken(deadline_ns) != 0
}

/// The same; what it was woken for, of [`syscall::woken`], or 0.
pub(crate) fn woken(deadline_ns: Option<u64>) -> u64 {
    // Zero means for ever; the first nanosecond is over long since.
    let deadline = deadline_ns.map_or(0, |ns| ns.max(1));
    // SAFETY: the call has no effect on memory of ours.
    let answer = unsafe { call(syscall::WAIT, [deadline, 0, 0, 0, 0, 0]) };
    answer.map_or(0, |results| results[0])
}

/// Ends this domain.
pub fn exit(status: i32) -> ! {
    // SAFETY: the call does not return.
    let _ = unsafe { call(syscall::EXIT, [u64::from(status as u32), 0, 0, 0, 0, 0]) };
    unreachable!("a domain that has ended does not go on")
}

/// Rings a doorbell.
pub fn ring(doorbell: Address) -> Result<(), Error> {
    // SAFETY: the call has no effect on memory of ours.
    unsafe { call(syscall::RING, [doorbell.0, 0, 0, 0, 0, 0]) }
        .map(|_| ())
        .map_err(|(error, _)| error)
}

/// Writes to the CPU driver's log.
pub struct LogWriter;

impl fmt::Write for LogWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for chunk in text.as_bytes().chunks(40) {
            let mut arguments = [0; 6];
            arguments[0] = chunk.len() as u64;
            for (index, byte) in chunk.iter().enumerate() {
                arguments[1 + index / 8] |= u64::from(*byte) << (index % 8 * 8);
            }
            // SAFETY: the call has no effect on memory of ours.
            let _ = unsafe { call(syscall::LOG, arguments) };
        }
        Ok(())
    }
}
