//! What only the operating system does: pinning, words shared with children, children, and power.

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::{CpuSet, futex, sched_getaffinity, sched_setaffinity};
use std::fmt::Display;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// The port of QEMU that ends it, and what good and bad ends are there.
const EXIT_PORT: u16 = 0xf4;
const GOOD: u8 = 0x2a;
const BAD: u8 = 0x2b;

/// What went wrong, and with what.
#[derive(Debug)]
pub struct Failure {
    /// What was being done.
    pub step: &'static str,
    /// Why it was not.
    pub reason: String,
}

/// A result of some step.
pub type Done<T = ()> = Result<T, Failure>;

/// Names the step that an error befell.
pub fn at<T, E: Display>(step: &'static str, result: Result<T, E>) -> Done<T> {
    result.or_else(|error| failed(step, &error))
}

/// A step that failed.
pub fn failed<T>(step: &'static str, reason: &dyn Display) -> Done<T> {
    Err(Failure {
        step,
        reason: reason.to_string(),
    })
}

/// Cores that are up.
pub fn cores() -> Done<usize> {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|core| all.set(core));
    at("asking for all cores", sched_setaffinity(None, &all))?;
    let set = at("asking for cores", sched_getaffinity(None))?;
    pin(0)?;
    Ok(set.count() as usize)
}

/// Starts all cores but the first, which the kernel left alone.
///
/// The kernel waits for a core without `pause` and, while it boots, without setting a timer. QEMU
/// before 8.1 never comes to the other core then when it counts instructions; now timers are set.
pub fn start_cores(cores: usize) -> Done {
    at("making /sys", std::fs::create_dir_all("/sys"))?;
    let (name, place) = (c"sysfs".as_ptr(), c"/sys".as_ptr());
    // SAFETY: all strings end in 0, and sysfs takes no data.
    if unsafe { libc::mount(name, place, name, 0, std::ptr::null()) } != 0 {
        return failed("mounting /sys", &std::io::Error::last_os_error());
    }
    for core in 1..cores {
        let file = format!("/sys/devices/system/cpu/cpu{core}/online");
        at("starting a core", std::fs::write(file, "1"))?;
    }
    Ok(())
}

/// Binds this thread to a core; what it starts inherits that.
pub fn pin(core: usize) -> Done {
    let mut set = CpuSet::new();
    set.set(core);
    at("pinning", sched_setaffinity(None, &set))
}

/// A page of zeroes that children share. It is never given back.
pub fn shared<T: Default>() -> Done<&'static T> {
    const { assert!(size_of::<T>() <= PAGE) };
    // SAFETY: no address is asked for, so nothing that exists is replaced.
    let page = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            PAGE,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
        )
    };
    let page = at("mapping a shared page", page)?.cast::<T>();
    // SAFETY: the page is new, aligned, large enough, and stays.
    unsafe {
        page.write(T::default());
        Ok(&*page)
    }
}

/// A process of its own that does some work on a core, and ends.
pub fn process(core: usize, work: impl FnOnce() -> Done) -> Done<Pid> {
    // SAFETY: nobody else runs in this process now, so nobody holds a lock that the copy lacks.
    match unsafe { libc::fork() } {
        0 => {
            let ended = pin(core).and_then(|()| work());
            // SAFETY: ends the copy at once, with nothing of the original's done twice.
            unsafe { libc::_exit(i32::from(ended.is_err())) }
        }
        child => match Pid::from_raw(child).filter(|_| child > 0) {
            Some(child) => Ok(child),
            None => failed("fork", &std::io::Error::last_os_error()),
        },
    }
}

/// Waits for a child to end well.
pub fn wait(child: Pid) -> Done {
    match at(
        "waiting for a child",
        waitpid(Some(child), WaitOptions::empty()),
    )? {
        Some((_, status)) if status.exit_status() == Some(0) => Ok(()),
        status => failed("a child's work", &format!("it ended as {status:?}")),
    }
}

/// Does some work while a thread on another core does its own.
pub fn beside<R>(
    core: usize,
    other: impl FnOnce() -> Done + Send,
    work: impl FnOnce() -> Done<R>,
) -> Done<R> {
    thread::scope(|scope| {
        let other = scope.spawn(move || pin(core).and_then(|()| other()));
        let result = work()?;
        match other.join() {
            Ok(ended) => ended.map(|()| result),
            Err(_) => failed("a thread", &"it panicked"),
        }
    })
}

/// Polls until a word has the value, or a later one.
pub fn poll(word: &AtomicU32, value: u32) {
    while word.load(Ordering::Acquire) < value {
        std::hint::spin_loop();
    }
}

/// Sleeps until a word is not 0.
pub fn sleep_while_zero(word: &AtomicU32, flags: futex::Flags) -> Done {
    while word.load(Ordering::Acquire) == 0 {
        match futex::wait(word, flags, 0, None) {
            Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(error) => return failed("futex wait", &error),
        }
    }
    Ok(())
}

/// Ends the machine, when all that was printed is out.
pub fn power_off(is_good: bool) -> ! {
    let value = if is_good { GOOD } else { BAD };
    let _ = std::io::Write::flush(&mut std::io::stdout());
    let _ = rustix::termios::tcdrain(rustix::stdio::stdout());
    // SAFETY: a port of QEMU's that does nothing but end the machine; where it cannot be had the
    // instruction faults, and the kernel ends in a panic.
    unsafe {
        libc::ioperm(u64::from(EXIT_PORT), 4, 1);
        core::arch::asm!("out dx, al", in("dx") EXIT_PORT, in("al") value);
    }
    loop {
        thread::park();
    }
}
