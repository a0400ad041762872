//! Who starts whom.
//!
//! A core has a range of cores to bring up, itself first. It starts the core in the middle
//! and leaves the upper half to it, then does the same with what is left:
//!
//! ```text
//!  0 brings up 0-7:   starts 4 (4-7), then 2 (2-3), then 1
//!                     4 starts 6 (6-7), then 5;   2 starts 3;   6 starts 7
//! ```
//!
//! So after each step twice as many cores start others, and since neighbours in number are
//! neighbours in the machine, halves stay together: a socket is brought up from within.

use alloc::vec::Vec;
use core::ops::Range;

/// The cores that `core` starts, in order, each with the range it brings up.
pub fn children(core: usize, cores: usize) -> Vec<Range<usize>> {
    let mut range = range_of(core, cores);
    let mut children = Vec::new();
    while range.len() > 1 {
        let middle = range.start + range.len() / 2;
        children.push(middle..range.end);
        range.end = middle;
    }
    children
}

/// Who starts `core`; nobody starts core 0.
pub fn parent(core: usize, cores: usize) -> Option<usize> {
    descend(core, cores).1
}

fn range_of(core: usize, cores: usize) -> Range<usize> {
    descend(core, cores).0
}

/// The range that `core` brings up, and who starts it.
fn descend(core: usize, cores: usize) -> (Range<usize>, Option<usize>) {
    let mut range = 0..cores;
    let mut parent = None;
    while range.start != core {
        // `range.start` gives away halves until the one with `core` in it is gone.
        let mut rest = range.clone();
        loop {
            let middle = rest.start + rest.len() / 2;
            if rest.len() <= 1 {
                return (core..core, None); // no such core
            }
            if core >= middle {
                parent = Some(range.start);
                range = middle..rest.end;
                break;
            }
            rest.end = middle;
        }
        if !range.contains(&core) {
            return (core..core, None);
        }
    }
    (range, parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_is_started_once_by_its_parent() {
        for cores in 1..=256 {
            let mut started = alloc::vec![false; cores];
            started[0] = true;
            let mut depth = alloc::vec![0u32; cores];
            for core in 0..cores {
                // Parents have smaller numbers, so they were started before.
                assert!(
                    started[core],
                    "core {core} of {cores} starts nobody before it runs"
                );
                for child in children(core, cores) {
                    assert!(!core::mem::replace(&mut started[child.start], true));
                    assert_eq!(parent(child.start, cores), Some(core));
                    depth[child.start] = depth[core] + 1;
                }
            }
            assert!(started.iter().all(|core| *core));
            assert_eq!(parent(0, cores), None);
            let rounds = usize::BITS - (cores - 1).leading_zeros();
            assert!(depth.iter().all(|depth| *depth <= rounds), "{cores} cores");
        }
    }

    #[test]
    fn a_core_that_is_not_there_has_no_place() {
        assert_eq!(children(9, 8), Vec::new());
        assert_eq!(parent(9, 8), None);
    }
}
