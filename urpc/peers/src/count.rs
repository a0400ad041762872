//! How many instructions a message takes: a child that passes messages from one hand to the other
//! is executed step by step.

use crate::subject::{Class, Subject, all};
use std::io;

/// Messages that are passed while instructions are counted: whole laps of every ring.
const MESSAGES: usize = 256;
/// Messages before that.
const WARM_UP: usize = 2 * MESSAGES;

/// What brings the step counter to attention: it looks whether a step goes by here.
#[inline(never)]
extern "C" fn mark() {
    // SAFETY: does nothing. It keeps two such functions from becoming one, and calls from going.
    unsafe { std::arch::asm!("nop") };
}

/// What sending and receiving one message takes in each subject that polls and is not deep, in
/// instructions, with all that is due now and then.
pub fn count() -> io::Result<Vec<(Subject, f64)>> {
    let mut counts = Vec::new();
    for mut subject in all() {
        if subject.class == Class::Kernel || subject.class == Class::Floor || !subject.calls {
            continue;
        }
        let steps = steps(&mut subject)?;
        counts.push((subject, steps / MESSAGES as f64));
    }
    Ok(counts)
}

/// Instructions of the child between its second and its third mark, less those between its first
/// and its second.
fn steps(subject: &mut Subject) -> io::Result<f64> {
    // SAFETY: no other thread runs yet, so nothing that the child needs is held by one.
    let child = unsafe { libc::fork() };
    match child {
        0 => {
            trace_me();
            // Both ends send to each other.
            subject.pair.pass(WARM_UP / 2);
            // SAFETY: no handler is there for it; whoever traces is told.
            unsafe { libc::raise(libc::SIGSTOP) };
            mark();
            subject.pair.idle(MESSAGES / 2);
            mark();
            subject.pair.pass(MESSAGES / 2);
            mark();
            // SAFETY: ends the child without what this program does at its own end.
            unsafe { libc::_exit(0) }
        }
        child if child > 0 => {
            let result = follow(child);
            // SAFETY: its own child, which may have ended; then nothing happens.
            unsafe { libc::kill(child, libc::SIGKILL) };
            // SAFETY: as above; how it ended matters to nobody.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            result
        }
        _ => Err(io::Error::last_os_error()),
    }
}

fn trace_me() {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: no memory is involved. When it fails, the parent finds a child that it cannot step.
    unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, none, none) };
}

fn follow(child: libc::pid_t) -> io::Result<f64> {
    stopped(child)?;
    let mark = mark as *const () as usize as i64;
    let mut marks = Vec::new();
    let mut steps = 0_u64;
    while marks.len() < 3 {
        if instruction_pointer(child)? == mark {
            marks.push(steps);
        }
        request(libc::PTRACE_SINGLESTEP, child)?;
        stopped(child)?;
        steps += 1;
    }
    Ok((marks[2] - marks[1]) as f64 - (marks[1] - marks[0]) as f64)
}

fn request(what: libc::c_uint, child: libc::pid_t) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the child is stopped, and nothing of this process's memory is touched.
    match unsafe { libc::ptrace(what, child, none, none) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn instruction_pointer(child: libc::pid_t) -> io::Result<i64> {
    let place =
        std::mem::offset_of!(libc::user, regs) + std::mem::offset_of!(libc::user_regs_struct, rip);
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the child is stopped; the offset lies in what the kernel keeps of it.
    match unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, child, place, none) } {
        // No program has code there.
        -1 => Err(io::Error::last_os_error()),
        pointer => Ok(pointer),
    }
}

fn stopped(child: libc::pid_t) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: its own child, and a status to write to.
    if unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        return Err(io::Error::last_os_error());
    }
    if libc::WIFSTOPPED(status) {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the counted child ended with status {status:#x}"
        )))
    }
}
