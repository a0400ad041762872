//! Allocation of pages on all cores at once, by threads of one address space and by processes.

use crate::host::{self, Done, poll, shared};
use crate::laboratory::{Laboratory, Operation, cycles};
use crate::mappings::Page;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Pages that each core takes in a round.
const PAGES: usize = 32;
const SLOWER_BY: usize = 10;
/// The round in which all go home.
const OVER: u32 = u32::MAX;

/// Where cores meet. All of it only grows.
#[derive(Default)]
struct Meeting {
    round: AtomicU32,
    filled: AtomicU32,
    emptied: AtomicU32,
}

impl Meeting {
    /// The part of every other core: a round for each that begins.
    fn take_part(&self) -> Done {
        for round in 1.. {
            poll(&self.round, round);
            if self.round.load(Ordering::Acquire) == OVER {
                break;
            }
            let pages = allocate()?;
            self.filled.fetch_add(1, Ordering::Release);
            free(pages)?;
            self.emptied.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }

    /// A round: the cycles from its begin to when the last core has its pages.
    fn lead(&self, others: u32, round: u32) -> Done<u64> {
        let start = cycles();
        self.round.store(round, Ordering::Release);
        let pages = allocate()?;
        poll(&self.filled, round * others);
        let time = cycles().saturating_sub(start);
        free(pages)?;
        poll(&self.emptied, round * others);
        Ok(time)
    }
}

fn allocate() -> Done<Vec<Page>> {
    let mut pages = Vec::with_capacity(PAGES);
    for _ in 0..PAGES {
        let page = Page::map()?;
        page.touch();
        pages.push(page);
    }
    Ok(pages)
}

fn free(pages: Vec<Page>) -> Done {
    pages.into_iter().try_for_each(Page::unmap)
}

/// Measures both; told is the time of a page, of all that were taken at once.
///
/// # Errors
/// What the kernel refused.
pub fn measure(laboratory: &Laboratory, cores: usize) -> Done {
    let meeting = shared::<Meeting>()?;
    let children: Vec<_> = (1..cores)
        .map(|core| host::process(core, || meeting.take_part()))
        .collect::<Done<_>>()?;
    rounds(
        laboratory,
        meeting,
        "mmap+touch 4 KiB on all cores, processes",
        cores,
    )?;
    for child in children {
        host::wait(child)?;
    }
    let meeting = &Meeting::default();
    thread::scope(|scope| {
        let others: Vec<_> = (1..cores)
            .map(|core| scope.spawn(move || host::pin(core).and_then(|()| meeting.take_part())))
            .collect();
        rounds(
            laboratory,
            meeting,
            "mmap+touch 4 KiB on all cores, threads",
            cores,
        )?;
        for other in others {
            match other.join() {
                Ok(ended) => ended?,
                Err(_) => host::failed("a thread", &"it panicked")?,
            }
        }
        Ok(())
    })
}

fn rounds(laboratory: &Laboratory, meeting: &Meeting, name: &'static str, cores: usize) -> Done {
    let mut round = 0;
    let name = Operation("memory", name);
    let overhead = laboratory.overhead();
    let measured = laboratory.measure(name, &[("members", cores)], SLOWER_BY, || {
        round += 1;
        let time = meeting.lead(cores as u32 - 1, round)?;
        // The clock is read once for all pages.
        Ok(time.saturating_sub(overhead) / (PAGES * cores) as u64 + overhead)
    });
    meeting.round.store(OVER, Ordering::Release);
    measured
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_meet_in_every_round() {
        let meeting = &Meeting::default();
        thread::scope(|scope| {
            let others: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| meeting.take_part().unwrap()))
                .collect();
            for round in 1..=3 {
                assert!(meeting.lead(2, round).unwrap() > 0);
                assert_eq!(meeting.filled.load(Ordering::Relaxed), 2 * round);
            }
            meeting.round.store(OVER, Ordering::Release);
            others.into_iter().for_each(|one| one.join().unwrap());
        });
    }
}
