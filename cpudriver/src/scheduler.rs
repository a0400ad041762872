//! Who runs next and for how long: the highest priority first, turn by turn within one.
//!
//! The policy is data without hardware, and is tested on the host with the loader's tests.
//!
//! - Whoever is woken at a higher priority than the one that runs takes the core at once.
//! - Whom an *interrupt* wakes at an equal priority goes first too: a doorbell speaks of a
//!   message that somebody waits for, a deadline of a time that somebody chose. Whom a
//!   *call* of the one that runs wakes stands in front of its equals, and waits.
//! - Each has one time slice, and going first does not renew it: whoever has used it up goes
//!   behind its equals, and gets a fresh one there. So those that wake each other for ever
//!   get a slice each, and then it is somebody else's turn. Blocking renews the slice only
//!   where no equal was kept waiting.
//! - What a higher priority takes out of the middle of a slice is charged to that slice:
//!   most of what a monitor does, it does for the one that it interrupts.

use abi::limits::{PRIORITIES, TIME_SLICE_NS};

/// What woke a dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// A system call of the one that runs.
    Call,
    /// A doorbell from another core, or the timer.
    Interrupt,
}

/// What is left of a time slice, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slice {
    /// So much, whenever it runs.
    Left(u64),
    /// Until this time, whether it runs or not: a higher priority came in between.
    Until(u64),
}

const FRESH: Slice = Slice::Left(TIME_SLICE_NS);
/// Whoever is new stands behind its equals, where it gets its first slice: else those that make
/// each other anew would always go first.
const NEW: Slice = Slice::Left(0);

/// Stands for no handle in a queue.
const NONE: u8 = u8::MAX;

/// Those that are ready at one priority, in the order in which they will run.
#[derive(Clone, Copy, Debug)]
struct Queue {
    first: u8,
    last: u8,
}

const EMPTY: Queue = Queue {
    first: NONE,
    last: NONE,
};

/// What is kept of each handle.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Unless it runs.
    slice: Slice,
    /// Of the queue that it stands in; [`NONE`]: it stands in none.
    priority: u8,
    /// Neighbours in the queue.
    before: u8,
    after: u8,
}

const UNKNOWN: Node = Node {
    slice: NEW,
    priority: NONE,
    before: NONE,
    after: NONE,
};

/// The one that has the core.
#[derive(Clone, Copy, Debug)]
struct Running {
    handle: u8,
    priority: u8,
    slice_end: u64,
}

/// At most `N` dispatchers, by handles below `N`, a power of two: so no index needs a check.
pub struct Scheduler<const N: usize> {
    running: Option<Running>,
    queues: [Queue; PRIORITIES],
    /// Bit `p`: somebody is ready at priority `p`.
    waiting: u8,
    nodes: [Node; N],
}

const _: () = assert!(PRIORITIES <= 8);

impl<const N: usize> Scheduler<N> {
    /// Nobody is ready.
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two() && N <= NONE as usize) };
        Self {
            running: None,
            queues: [EMPTY; PRIORITIES],
            waiting: 0,
            nodes: [UNKNOWN; N],
        }
    }

    /// Adds a new one, behind its equals.
    pub fn add(&mut self, handle: usize, priority: u8) {
        debug_assert!(usize::from(priority) < PRIORITIES);
        self.queue_behind(handle as u8, priority);
    }

    /// Takes one out that ends.
    pub fn remove(&mut self, handle: usize) {
        if self.nodes[handle % N].priority != NONE {
            self.unlink(handle as u8);
        }
        if self.running() == Some(handle) {
            self.running = None;
        }
        self.nodes[handle % N].slice = NEW; // for whoever has the handle next
    }

    /// The one that blocked is ready again. It must be neither ready nor running.
    pub fn wake(&mut self, handle: usize, priority: u8, by: Wake, now_ns: u64) {
        let woken = handle as u8;
        let has_time = self.nodes[handle % N].slice != Slice::Left(0);
        if let Some(running) = self.running {
            let goes_first = by == Wake::Interrupt && has_time;
            if priority > running.priority {
                self.displace(running, Slice::Until(running.slice_end));
            } else if priority == running.priority && goes_first {
                let rest = Slice::Left(running.slice_end.saturating_sub(now_ns));
                self.displace(running, rest);
            }
        }
        if has_time {
            // Nobody pays for the time of equals.
            let mut at = self.queues[usize::from(priority) % PRIORITIES].first;
            while at != NONE {
                let equal = &mut self.nodes[usize::from(at) % N];
                if let Slice::Until(end) = equal.slice {
                    equal.slice = Slice::Left(end.saturating_sub(now_ns));
                }
                at = equal.after;
            }
            self.queue_in_front(woken, priority);
        } else {
            self.queue_behind(woken, priority);
        }
    }

    /// The one that runs waits for something.
    pub fn block(&mut self, now_ns: u64) {
        if let Some(running) = self.running.take() {
            self.nodes[usize::from(running.handle) % N].slice =
                if self.competes_with(running.priority) {
                    Slice::Left(running.slice_end.saturating_sub(now_ns))
                } else {
                    FRESH
                };
        }
    }

    /// The one that runs lets its equals go first.
    pub fn give_way(&mut self) {
        if let Some(running) = self.running
            && self.competes_with(running.priority)
        {
            self.running = None;
            self.queue_behind(running.handle, running.priority);
        }
    }

    /// The timer struck: ends the slice of the one that runs, if it is over.
    pub fn tick(&mut self, now_ns: u64) {
        if self.running.is_some_and(|one| one.slice_end <= now_ns) {
            self.give_way();
        }
    }

    /// Who has the core, if somebody does.
    #[inline]
    pub fn running(&self) -> Option<usize> {
        self.running.map(|one| usize::from(one.handle))
    }

    /// Who has the core from now on; `None`: nobody is ready. Asks for the time only where that
    /// changes.
    #[inline]
    pub fn next(&mut self, now_ns: impl FnOnce() -> u64) -> Option<usize> {
        if let Some(running) = self.running() {
            return Some(running);
        }
        let now_ns = now_ns();
        loop {
            let priority = self.highest()?;
            let handle = self.take_first(priority);
            let slice_end = match self.nodes[usize::from(handle) % N].slice {
                Slice::Left(ns) => now_ns + ns,
                Slice::Until(end) => end,
            };
            if slice_end > now_ns {
                self.running = Some(Running {
                    handle,
                    priority,
                    slice_end,
                });
                return Some(usize::from(handle));
            }
            self.queue_behind(handle, priority);
        }
    }

    /// When the slice of the one that runs ends; `None`: nobody else wants the core.
    #[inline]
    pub fn slice_end(&self) -> Option<u64> {
        let running = self.running?;
        self.competes_with(running.priority)
            .then_some(running.slice_end)
    }

    /// The highest priority at which somebody is ready.
    #[inline]
    fn highest(&self) -> Option<u8> {
        self.waiting.checked_ilog2().map(|priority| priority as u8)
    }

    /// Whether one that runs at `priority` must share the core: somebody ready is its
    /// equal or more.
    #[inline]
    fn competes_with(&self, priority: u8) -> bool {
        self.waiting >> priority != 0
    }

    /// Takes the core away from the one that runs, which keeps the `rest` of its slice.
    fn displace(&mut self, running: Running, rest: Slice) {
        self.running = None;
        self.nodes[usize::from(running.handle) % N].slice = rest;
        self.queue_in_front(running.handle, running.priority);
    }

    /// Queues one behind its equals, with a fresh slice.
    #[inline]
    fn queue_behind(&mut self, handle: u8, priority: u8) {
        self.nodes[usize::from(handle) % N].slice = FRESH;
        let last = self.queues[usize::from(priority) % PRIORITIES].last;
        self.link(handle, priority, last, NONE);
    }

    /// Queues one in front of its equals, with the slice that it has.
    fn queue_in_front(&mut self, handle: u8, priority: u8) {
        let first = self.queues[usize::from(priority) % PRIORITIES].first;
        self.link(handle, priority, NONE, first);
    }

    /// Puts one between two neighbours of a queue.
    #[inline]
    fn link(&mut self, handle: u8, priority: u8, before: u8, after: u8) {
        let node = &mut self.nodes[usize::from(handle) % N];
        debug_assert!(node.priority == NONE);
        node.priority = priority;
        (node.before, node.after) = (before, after);
        let queue = &mut self.queues[usize::from(priority) % PRIORITIES];
        match before {
            NONE => queue.first = handle,
            before => self.nodes[usize::from(before) % N].after = handle,
        }
        match after {
            NONE => queue.last = handle,
            after => self.nodes[usize::from(after) % N].before = handle,
        }
        self.waiting |= 1 << priority;
    }

    /// Takes the first out of a queue that is not empty.
    #[inline]
    fn take_first(&mut self, priority: u8) -> u8 {
        let queue = &mut self.queues[usize::from(priority) % PRIORITIES];
        let handle = queue.first;
        let node = &mut self.nodes[usize::from(handle) % N];
        node.priority = NONE;
        let after = node.after;
        queue.first = after;
        if after == NONE {
            queue.last = NONE;
            self.waiting &= !(1 << priority);
        } else {
            self.nodes[usize::from(after) % N].before = NONE;
        }
        handle
    }

    /// Takes one out of its queue.
    fn unlink(&mut self, handle: u8) {
        let node = &mut self.nodes[usize::from(handle) % N];
        let Node {
            priority,
            before,
            after,
            ..
        } = core::mem::replace(
            node,
            Node {
                slice: node.slice,
                ..UNKNOWN
            },
        );
        let queue = &mut self.queues[usize::from(priority) % PRIORITIES];
        match before {
            NONE => queue.first = after,
            before => self.nodes[usize::from(before) % N].after = after,
        }
        match after {
            NONE => queue.last = before,
            after => self.nodes[usize::from(after) % N].before = before,
        }
        if queue.first == NONE {
            self.waiting &= !(1 << priority);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::syscall::priority::{LOW, MONITOR, NORMAL};
    use proptest::prelude::*;
    use std::vec::Vec;

    const MS: u64 = 1_000_000;
    const SLICE: u64 = TIME_SLICE_NS;

    fn with(dispatchers: &[(usize, u8)]) -> Scheduler<16> {
        let mut scheduler = Scheduler::new();
        for (handle, priority) in dispatchers {
            scheduler.add(*handle, *priority);
        }
        scheduler
    }

    /// Who has the core at the end of each of the next slices, while nobody blocks.
    fn turns(scheduler: &mut Scheduler<16>, mut now: u64, count: usize) -> Vec<usize> {
        (0..count)
            .map(|_| {
                let turn = scheduler.next(|| now).expect("somebody is ready");
                now = scheduler.slice_end().unwrap_or(now + SLICE);
                scheduler.tick(now);
                turn
            })
            .collect()
    }

    #[test]
    fn equals_take_turns_and_lower_ones_wait() {
        let mut scheduler = with(&[(1, NORMAL), (9, LOW), (2, NORMAL), (3, NORMAL)]);
        assert_eq!(turns(&mut scheduler, 0, 6), [1, 2, 3, 1, 2, 3]);
        for handle in 1..4 {
            scheduler.remove(handle);
        }
        assert_eq!(turns(&mut scheduler, 0, 2), [9, 9]);
        assert_eq!(scheduler.slice_end(), None, "alone: no end");
    }

    #[test]
    fn a_higher_priority_preempts_and_renews_nothing() {
        let mut scheduler = with(&[(0, MONITOR), (1, NORMAL), (2, NORMAL)]);
        assert_eq!(scheduler.next(|| 0), Some(0));
        scheduler.block(0);
        assert_eq!(scheduler.next(|| 0), Some(1));
        assert_eq!(scheduler.slice_end(), Some(SLICE));
        for by in [Wake::Call, Wake::Interrupt] {
            scheduler.wake(0, MONITOR, by, MS);
            assert_eq!(scheduler.next(|| MS), Some(0));
            assert_eq!(scheduler.slice_end(), None, "no equal is ready");
            scheduler.block(2 * MS);
            assert_eq!(scheduler.next(|| 2 * MS), Some(1), "in front of its equals");
            assert_eq!(scheduler.slice_end(), Some(SLICE));
        }
        scheduler.wake(0, MONITOR, Wake::Interrupt, 3 * MS);
        assert_eq!(scheduler.next(|| 3 * MS), Some(0));
        scheduler.block(SLICE);
        assert_eq!(scheduler.next(|| SLICE), Some(2), "the slice is over");
    }

    #[test]
    fn an_interrupt_lets_an_equal_go_first_and_a_call_next() {
        let mut scheduler = with(&[(4, NORMAL), (1, NORMAL), (2, NORMAL)]);
        scheduler.next(|| 0);
        scheduler.block(MS);
        assert_eq!(scheduler.next(|| MS), Some(1));
        scheduler.wake(4, NORMAL, Wake::Call, 2 * MS);
        assert_eq!(scheduler.next(|| 2 * MS), Some(1));
        scheduler.block(3 * MS);
        assert_eq!(scheduler.next(|| 3 * MS), Some(4), "in front of 2");
        scheduler.wake(1, NORMAL, Wake::Interrupt, 4 * MS);
        assert_eq!(scheduler.next(|| 4 * MS), Some(1));
        scheduler.block(5 * MS);
        assert_eq!(
            scheduler.next(|| 5 * MS),
            Some(4),
            "displaced, in front of 2"
        );
        assert_eq!(scheduler.slice_end(), Some(5 * MS + SLICE - 2 * MS));
        scheduler.add(9, LOW);
        scheduler.remove(9);
        scheduler.wake(1, LOW, Wake::Interrupt, 6 * MS);
        assert_eq!(scheduler.next(|| 6 * MS), Some(4), "lower ones wait");
    }

    /// 1 and 2 run for `step_ns`, wake each other and block; an interrupt after each step of
    /// 3 wakes them too, if `interrupts`. How much of 20 slices 3 gets.
    fn time_of_a_third(interrupts: bool, step_ns: u64) -> u64 {
        let mut scheduler = with(&[(1, NORMAL), (2, NORMAL), (3, NORMAL)]);
        let mut blocked = [false; 4];
        let (mut now, mut of_third) = (0, 0);
        while now < 20 * SLICE {
            let runs = scheduler.next(|| now).expect("3 is always ready");
            let end = scheduler.slice_end().unwrap_or(u64::MAX);
            let step_ns = step_ns.min(end - now);
            now += step_ns;
            of_third += if runs == 3 { step_ns } else { 0 };
            if now == end {
                scheduler.tick(now);
                continue;
            }
            for woken in [1, 2] {
                let by = match runs {
                    3 if interrupts => Wake::Interrupt,
                    3 => continue,
                    _ => Wake::Call,
                };
                if core::mem::take(&mut blocked[woken]) {
                    scheduler.wake(woken, NORMAL, by, now);
                }
            }
            if runs != 3 {
                scheduler.block(now);
                blocked[runs] = true;
            }
        }
        of_third
    }

    #[test]
    fn two_that_ring_each_other_do_not_starve_a_third() {
        for step_ns in [1000, MS / 100, MS, 9 * MS, SLICE - 1] {
            for interrupts in [false, true] {
                let of_third = time_of_a_third(interrupts, step_ns);
                assert!(of_third >= 6 * SLICE, "{of_third} {interrupts} {step_ns}");
            }
        }
    }

    #[test]
    fn nobody_pays_for_an_equal_that_a_monitor_wakes() {
        let mut scheduler = with(&[(0, MONITOR), (2, NORMAL), (1, NORMAL), (3, NORMAL)]);
        for _ in [0, 2] {
            scheduler.next(|| 0);
            scheduler.block(0);
        }
        assert_eq!(scheduler.next(|| 0), Some(1));
        scheduler.wake(0, MONITOR, Wake::Interrupt, 2 * MS);
        assert_eq!(scheduler.next(|| 2 * MS), Some(0));
        scheduler.wake(2, NORMAL, Wake::Call, 3 * MS);
        scheduler.block(3 * MS);
        assert_eq!(scheduler.next(|| 3 * MS), Some(2), "its message came");
        scheduler.block(9 * MS);
        assert_eq!(scheduler.next(|| 9 * MS), Some(1));
        assert_eq!(scheduler.slice_end(), Some(9 * MS + SLICE - 3 * MS));
    }

    #[test]
    fn requests_to_a_monitor_do_not_starve_an_equal() {
        let mut scheduler = with(&[(0, MONITOR), (1, NORMAL), (2, NORMAL)]);
        scheduler.next(|| 0);
        scheduler.block(0);
        let (mut now, mut of_second) = (0, 0);
        while now < 20 * SLICE {
            if scheduler.next(|| now) == Some(2) {
                let end = scheduler.slice_end().expect("1 is ready");
                of_second += end - now;
                now = end;
                scheduler.tick(now);
            } else {
                // 1 asks, and the monitor takes its time.
                scheduler.wake(0, MONITOR, Wake::Call, now);
                assert_eq!(scheduler.next(|| now), Some(0));
                now += MS * 3 / 2;
                scheduler.block(now);
            }
        }
        assert!(of_second >= 20 * SLICE * 4 / 10, "{of_second}");
    }

    proptest! {
        /// Whatever happens: nobody is lost, nobody lower runs before a higher one, and one
        /// that is always ready gets the core after each of its equals had two slices.
        #[test]
        fn nobody_waits_longer_than_the_slices_of_its_equals(
            steps in proptest::collection::vec((0u8..4, 1usize..6, any::<bool>(), 1..2 * SLICE), 1..600)) {
            let mut scheduler = with(&[(1, NORMAL), (2, NORMAL), (3, NORMAL), (4, NORMAL), (5, NORMAL)]);
            let mut blocked = [false; 6];
            let (mut now, mut last) = (0, 0);
            for (step, handle, call, ns) in steps {
                let runs = scheduler.next(|| now);
                if runs == Some(5) || runs.is_none() {
                    last = now;
                }
                prop_assert!(now - last <= 9 * SLICE, "{}", now - last);
                let end = scheduler.slice_end();
                let over = end.is_some_and(|end| end <= now + ns);
                now = if over { end.expect("over").max(now) } else { now + ns };
                let by = if call { Wake::Call } else { Wake::Interrupt };
                match (step, runs) {
                    _ if over => scheduler.tick(now),
                    (0, Some(runs)) if runs != 5 => {
                        scheduler.block(now);
                        blocked[runs] = true;
                    }
                    (1, _) if blocked[handle] => {
                        scheduler.wake(handle, NORMAL, by, now);
                        blocked[handle] = false;
                    }
                    (2, _) => scheduler.give_way(),
                    _ => {}
                }
                let ready = scheduler.nodes.iter().filter(|node| node.priority != NONE).count();
                let known = ready + usize::from(scheduler.running.is_some());
                prop_assert_eq!(known, blocked[1..].iter().filter(|one| !**one).count());
            }
        }
    }
}
