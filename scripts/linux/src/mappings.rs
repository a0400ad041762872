//! Mapping, unmapping and protecting a page of 4 KiB, while threads on other cores are in the same
//! address space: awake, or asleep.

use crate::host::{self, Done, PAGE, at, sleep_while_zero};
use crate::laboratory::{Laboratory, Operation, timed};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::thread::futex;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// Until who waits for a futex is asleep.
const FALLING_ASLEEP: Duration = Duration::from_millis(5);
/// Up to so many cores each number is measured, above that each power of two.
const EACH_UP_TO: usize = 8;

/// A page in this address space that nobody else knows.
pub struct Page(*mut u8);

impl Page {
    /// A place for it; memory comes when it is touched.
    pub fn map() -> Done<Self> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: no address is asked for, so nothing that exists is replaced.
        let page = unsafe { mmap_anonymous(null_mut(), PAGE, rights, MapFlags::PRIVATE) };
        at("mmap", page).map(|page| Self(page.cast()))
    }

    /// Writes to it.
    pub fn touch(&self) {
        // SAFETY: the page is mapped and writable, and nobody else's.
        unsafe { self.0.write_volatile(1) };
    }

    /// Takes it out again.
    pub fn unmap(self) -> Done {
        // SAFETY: the page is this value's, which ends here.
        at("munmap", unsafe { munmap(self.0.cast(), PAGE) })
    }

    fn protect(&self, rights: MprotectFlags) -> Done {
        // SAFETY: the page is this value's, and no reference into it exists.
        at("mprotect", unsafe { mprotect(self.0.cast(), PAGE, rights) })
    }
}

/// Measures all of them.
///
/// # Errors
/// What the kernel refused.
pub fn measure(laboratory: &Laboratory, cores: usize) -> Done {
    laboratory.measure(Operation("micro", "map+touch+unmap"), &[], 1, || {
        let (time, done) = timed(|| {
            let page = Page::map()?;
            page.touch();
            page.unmap()
        });
        done.map(|()| time)
    })?;
    for members in steps(cores) {
        with_company(members, false, || {
            unmapping(laboratory, "munmap, threads running", members)?;
            protecting(laboratory, "mprotect, threads running", members)
        })?;
        if members > 1 {
            with_company(members, true, || {
                unmapping(laboratory, "munmap, threads asleep", members)?;
                protecting(laboratory, "mprotect, threads asleep", members)
            })?;
        }
    }
    Ok(())
}

/// Numbers of cores to measure: the first ones, powers of two, and all.
fn steps(cores: usize) -> impl Iterator<Item = usize> {
    (1..=cores).filter(move |members| {
        *members <= EACH_UP_TO || members.is_power_of_two() || *members == cores
    })
}

fn unmapping(laboratory: &Laboratory, name: &'static str, members: usize) -> Done {
    laboratory.measure(Operation("unmap", name), &[("members", members)], 1, || {
        let page = Page::map()?;
        page.touch();
        let (time, done) = timed(|| page.unmap());
        done.map(|()| time)
    })
}

fn protecting(laboratory: &Laboratory, name: &'static str, members: usize) -> Done {
    let page = Page::map()?;
    laboratory.measure(
        Operation("protect", name),
        &[("members", members)],
        1,
        || {
            page.protect(MprotectFlags::READ | MprotectFlags::WRITE)?;
            page.touch();
            let (time, done) = timed(|| page.protect(MprotectFlags::READ));
            done.map(|()| time)
        },
    )?;
    page.unmap()
}

/// Does some work while a thread on each other member's core is there.
fn with_company(members: usize, are_asleep: bool, work: impl FnOnce() -> Done) -> Done {
    let there = AtomicU32::new(0);
    let is_over = AtomicU32::new(0);
    let (there, is_over) = (&there, &is_over);
    thread::scope(|scope| {
        let company: Vec<_> = (1..members)
            .map(|core| {
                scope.spawn(move || {
                    host::pin(core)?;
                    there.fetch_add(1, Ordering::Release);
                    if are_asleep {
                        return sleep_while_zero(is_over, futex::Flags::PRIVATE);
                    }
                    host::poll(is_over, 1);
                    Ok(())
                })
            })
            .collect();
        host::poll(there, members as u32 - 1);
        if are_asleep {
            thread::sleep(FALLING_ASLEEP);
        }
        let done = work();
        is_over.store(1, Ordering::Release);
        at(
            "futex wake",
            futex::wake(is_over, futex::Flags::PRIVATE, u32::MAX >> 1),
        )?;
        for one in company {
            match one.join() {
                Ok(ended) => ended?,
                Err(_) => host::failed("a thread", &"it panicked")?,
            }
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_cores_are_measured_by_powers_of_two() {
        assert_eq!(steps(1).collect::<Vec<_>>(), [1]);
        assert_eq!(steps(4).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(
            steps(24).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6, 7, 8, 16, 24]
        );
    }

    #[test]
    fn company_comes_and_goes() {
        for are_asleep in [false, true] {
            let mut was_done = false;
            with_company(1, are_asleep, || {
                was_done = true;
                Ok(())
            })
            .unwrap();
            assert!(was_done);
        }
    }
}
