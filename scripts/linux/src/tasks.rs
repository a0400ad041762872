//! Threads and processes, from before they are started to having waited for their end.

use crate::EXIT;
use crate::host::{self, Done, at, failed};
use crate::laboratory::{Laboratory, Operation, timed};
use libc::{c_char, c_int, c_void};
use rustix::process::Pid;
use std::ffi::CStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::ptr::{null, null_mut};

/// How many times slower than a call they are.
const SLOWER_BY: usize = 20;
const THREADS_SLOWER_BY: usize = 5;
/// This program, with the word that has it end at once.
const OWN: Program = Program(c"/init", c"exit");
/// The smallest program there is.
const SMALLEST: Program = Program(c"/smallest", c"exit");
/// What a child has for a stack until it has a program.
const STACK_BYTES: usize = 16 * 1024;
/// Where the smallest program lies.
const BASE: u64 = 0x40_0000;

/// A file to execute, and its one argument.
#[derive(Clone, Copy)]
struct Program(&'static CStr, &'static CStr);

impl Program {
    /// Becomes it; comes back only with an error.
    fn execute(self) -> c_int {
        let arguments: [*const c_char; 3] = [self.0.as_ptr(), self.1.as_ptr(), null()];
        let environment: [*const c_char; 1] = [null()];
        // SAFETY: both lists end in null, and their words in 0.
        unsafe { libc::execve(self.0.as_ptr(), arguments.as_ptr(), environment.as_ptr()) }
    }
}

/// Measures all of them.
///
/// # Errors
/// What the kernel refused.
pub fn measure(laboratory: &Laboratory, cores: usize) -> Done {
    assert_eq!(OWN.1.to_bytes(), EXIT.as_bytes());
    at("writing a program", fs::write("/smallest", smallest()))?;
    let rights = fs::Permissions::from_mode(0o755);
    at(
        "writing a program",
        fs::set_permissions("/smallest", rights),
    )?;

    let name = |name| Operation("spawn", name);
    for core in 0..cores.min(2) {
        let operation = name("thread create+join");
        laboratory.measure(operation, &[("to", core)], THREADS_SLOWER_BY, || {
            let (time, done) = timed(|| thread(core));
            done.map(|()| time)
        })?;
    }
    laboratory.measure(name("fork+exit+wait"), &[], SLOWER_BY, || {
        waited(|| fork(|| 0))
    })?;
    laboratory.measure(name("fork+exec+wait"), &[], SLOWER_BY, || {
        waited(|| fork(|| OWN.execute()))
    })?;
    let mut stack = Box::new(Stack([0; STACK_BYTES]));
    laboratory.measure(name("vfork+exec+wait"), &[], SLOWER_BY, || {
        waited(|| vfork(OWN, &mut stack))
    })?;
    let operation = name("vfork+exec+wait, smallest program");
    laboratory.measure(operation, &[], SLOWER_BY, || {
        waited(|| vfork(SMALLEST, &mut stack))
    })
}

/// The time from before a child is started to having waited for it.
fn waited(start: impl FnOnce() -> Done<Pid>) -> Done<u64> {
    let (time, done) = timed(|| host::wait(start()?));
    done.map(|()| time)
}

/// A thread on a core that ends at once.
fn thread(core: usize) -> Done {
    extern "C" fn nothing(_: *mut c_void) -> *mut c_void {
        null_mut()
    }
    // SAFETY: zeroes are a set without cores; the call below writes inside of it.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        set
    };
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: the attributes are initialised before their use and destroyed after; the thread is
    // joined only where it was made, and touches nothing.
    let error = unsafe {
        libc::pthread_attr_init(attributes.as_mut_ptr());
        libc::pthread_attr_setaffinity_np(attributes.as_mut_ptr(), size_of_val(&set), &set);
        let mut error = libc::pthread_create(
            thread.as_mut_ptr(),
            attributes.as_ptr(),
            nothing,
            null_mut(),
        );
        if error == 0 {
            error = libc::pthread_join(thread.assume_init(), null_mut());
        }
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        error
    };
    match error {
        0 => Ok(()),
        error => failed("thread", &std::io::Error::from_raw_os_error(error)),
    }
}

/// A copy of this process that does some work and ends with what it comes to.
fn fork(work: impl FnOnce() -> c_int) -> Done<Pid> {
    // SAFETY: nobody else runs in this process now; the copy ends here.
    let child = unsafe {
        match libc::fork() {
            0 => libc::_exit(work()),
            child => child,
        }
    };
    started(child)
}

/// Memory for a stack.
#[repr(align(16))]
struct Stack([u8; STACK_BYTES]);

/// A child in this address space, which waits until the child has a program of its own: what vfork
/// does, but on a stack of the child's.
fn vfork(program: Program, stack: &mut Stack) -> Done<Pid> {
    extern "C" fn child(program: *mut c_void) -> c_int {
        // SAFETY: the parent waits in `vfork` below, which holds the program.
        unsafe { *program.cast::<Program>() }.execute()
    }
    let mut program = program;
    // SAFETY: the stack is large enough for the one call, and nobody's while the parent waits;
    // the child leaves this address space or ends.
    let child = unsafe {
        libc::clone(
            child,
            stack.0.as_mut_ptr_range().end.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw mut program).cast(),
        )
    };
    started(child)
}

fn started(child: libc::pid_t) -> Done<Pid> {
    match Pid::from_raw(child).filter(|_| child > 0) {
        Some(child) => Ok(child),
        None => failed("starting a child", &std::io::Error::last_os_error()),
    }
}

/// An ELF file of one page that asks to exit with 0, and no more.
fn smallest() -> Vec<u8> {
    // mov eax, 60; xor edi, edi; syscall
    const CODE: [u8; 9] = [0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];
    const HEADERS: u64 = 64 + 56;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |value: u64, bytes: usize| file.extend(&value.to_le_bytes()[..bytes]);
    let all = HEADERS + CODE.len() as u64;
    // An executable for x86-64 that begins behind its headers.
    for (value, bytes) in [(2, 2), (62, 2), (1, 4), (BASE + HEADERS, 8), (64, 8)] {
        put(value, bytes);
    }
    // No sections; sizes of header and of the one program header.
    for (value, bytes) in [(0, 8), (0, 4), (64, 2), (56, 2), (1, 2), (64, 2), (0, 4)] {
        put(value, bytes);
    }
    // The whole file, readable and executable.
    for (value, bytes) in [(1, 4), (5, 4), (0, 8), (BASE, 8), (BASE, 8), (all, 8)] {
        put(value, bytes);
    }
    for value in [all, 4096] {
        put(value, 8);
    }
    file.extend(CODE);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_smallest_program_runs() {
        let path = std::env::temp_dir().join(format!("smallest-{}", std::process::id()));
        fs::write(&path, smallest()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let status = Command::new(&path).status();
        fs::remove_file(&path).unwrap();
        assert_eq!(status.unwrap().code(), Some(0));
    }

    #[test]
    fn threads_end() {
        thread(0).unwrap();
    }
}
