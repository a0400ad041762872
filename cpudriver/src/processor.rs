//! The processor: the dispatchers of this core, who runs next and until when.
//!
//! Two things are told apart. Whose *turn* it is, the scheduler decides; who *runs*, follows from
//! it: whoever has called another gives its turn to the one that has to answer, and on from there
//! ([`Processor::stands_in_for`]). So a server runs on its clients' time and at their priority, one that
//! is called while it serves somebody else included, and no client waits for one of lower priority
//! than its own.
//!
//! **Invariant.** A dispatcher is `scheduled` (its turn is now, or it stands in the run queue) if
//! somebody can run for it, and may be if not: a turn that nobody can use is taken away when it
//! comes, and whoever could not run for it `owes_turns` from then on. Whatever makes a dispatcher
//! runnable that owes turns, or makes it serve those that queue already, calls
//! [`Processor::rouse`], which gives them back.

use crate::arch::apic::{LocalApic, TIMER_VECTOR};
use crate::arch::entry::{
    CONTEXT, CURRENT, FLOAT_HOLDER, Frame, TABLE, resume_user, wait_for_interrupt,
};
use crate::arch::memory::{PrivateRam, TableLives};
use crate::arch::{cpu, float};
use crate::clock::Clock;
use crate::dispatcher::{Dispatcher, Endpoint, Link, State};
use crate::fault;
use crate::kernel::{count, record};
use crate::local::Local;
use crate::recording::{self, note};
use crate::scheduler::{Scheduler, Wake};
use abi::capability::ENDPOINT_BYTES;
use abi::exception::{Detail, PAGE_FAULT};
use abi::layout::DIRECT_MAP;
use abi::limits::{DISPATCHER_NAME_BYTES, MAX_DISPATCHERS};
use abi::machine::Machine;
use abi::syscall::{DISPATCHER_BYTES, Error, FIRST_DOORBELL, LAST_DOORBELL};
use arrayvec::ArrayVec;
use capabilities::SlotId;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::Relaxed;
use trace::event::{BLOCKS, ENDED, IDLE, INTERRUPT, RESUMES, RUNS, WAKES};

/// Handle of the monitor's dispatcher, without which the core has no part in the system.
pub const MONITOR: usize = 0;

/// The exception of a floating-point instruction that is not allowed yet.
pub const DEVICE_NOT_AVAILABLE: u64 = 7;

/// Stands for whoever runs while nobody does, and takes the registers of one that is gone.
static NOBODY: Local<Dispatcher> = Local::new(Dispatcher::new(Link::NOBODY, 0));

/// In the record that a dispatcher does not run: it was stopped. Else it is its state.
const STOPPED: u64 = 8;

/// Records that one can run that could not.
pub fn woken(handle: usize, by: Wake) {
    note(WAKES, by as u64, handle as u32);
}

/// Records that one cannot run any more.
pub fn blocked(handle: usize, state: State) {
    note(BLOCKS, state as u64, handle as u32);
}

/// Some of the dispatchers.
pub type Handles = ArrayVec<usize, MAX_DISPATCHERS>;

/// The processor of this core.
pub struct Processor {
    pub machine: &'static Machine,
    pub ram: PrivateRam,
    pub lives: TableLives,
    pub apic: LocalApic,
    pub clock: Clock,
    pub kernel_root: u64,
    pub test_hooks: bool,
    /// It has pages of 1 GiB.
    pub giant_pages: bool,
    /// Whom each vector wakes.
    pub doorbells: [Link; 256],
    /// The monitor's slot for what only it may delete.
    pub offered_slot: Option<SlotId>,
    /// Who runs may have to change.
    pub attention: bool,
    /// Nobody has run since the core went idle.
    was_idle: bool,
    scheduler: Scheduler<MAX_DISPATCHERS>,
    /// Deadlines of those that wait, the next first: nanoseconds and handle.
    deadlines: ArrayVec<(u64, u8), MAX_DISPATCHERS>,
    /// When the timer strikes, in nanoseconds; `u64::MAX`: it does not.
    armed_ns: u64,
    float: float::Method,
    /// How many callers queued so far.
    tickets: u64,
}

impl Processor {
    /// The processor without dispatchers.
    pub fn new(
        machine: &'static Machine,
        ram: PrivateRam,
        lives: TableLives,
        kernel_root: u64,
    ) -> Self {
        // SAFETY: only its address is kept; the assembly writes to it.
        CURRENT.store(unsafe { NOBODY.get_mut() }, Relaxed);
        Self {
            machine,
            ram,
            lives,
            apic: LocalApic::new(machine.apic_timer_hz),
            clock: Clock::new(machine),
            kernel_root,
            test_hooks: machine.test_hooks != 0,
            giant_pages: cpu::has_giant_pages(),
            doorbells: [Link::NOBODY; 256],
            offered_slot: None,
            attention: true,
            was_idle: false,
            scheduler: Scheduler::new(),
            deadlines: ArrayVec::new(),
            armed_ns: u64::MAX,
            float: float::Method::initialise(),
            tickets: 0,
        }
    }

    /// The dispatcher behind a handle.
    #[inline]
    pub fn dispatcher(&mut self, handle: usize) -> Option<&mut Dispatcher> {
        let dispatcher = TABLE[handle % MAX_DISPATCHERS].load(Relaxed);
        // SAFETY: it lives until it is taken out of the table, and the only references to it
        // come from here, each for as long as the processor is borrowed.
        unsafe { dispatcher.as_mut() }
    }

    /// Handle of the dispatcher that runs, or did last.
    pub fn current(&self) -> Option<usize> {
        let current = CURRENT.load(Relaxed);
        // SAFETY: it points to a dispatcher of the table, or to `NOBODY`; nobody borrows it now.
        unsafe { (*current).link }.handle()
    }

    /// Leaves what a call comes to with the current dispatcher, or with nobody if it is gone.
    #[inline]
    pub fn leave_results(&mut self, error: u64, results: [u64; 6]) {
        let current = CURRENT.load(Relaxed);
        // SAFETY: it points to a dispatcher of the table, or to `NOBODY`; nobody borrows it now.
        unsafe { (*current).answer(error, results) };
    }

    /// The same for a call without results.
    #[inline]
    pub fn leave_error(&mut self, error: u64) {
        let current = CURRENT.load(Relaxed);
        // SAFETY: as above.
        unsafe { (*current).registers.rax = error };
    }

    /// The dispatcher that runs.
    pub fn current_dispatcher(&mut self) -> Option<&mut Dispatcher> {
        let current = self.current()?;
        self.dispatcher(current)
    }

    /// The endpoint at a physical address.
    pub fn endpoint(&mut self, physical: u64) -> Option<&mut Endpoint> {
        let endpoint: *mut Endpoint = self.ram.pointer(physical, ENDPOINT_BYTES)?;
        // SAFETY: addresses of endpoints come from capabilities to them, or from dispatchers
        // that receive there, which are told when one goes. The only references come from here.
        Some(unsafe { &mut *endpoint })
    }

    /// A place in the table for a new dispatcher.
    pub fn free_handles(&self) -> impl Iterator<Item = usize> {
        (0..MAX_DISPATCHERS).filter(|handle| TABLE[*handle].load(Relaxed).is_null())
    }

    /// Makes the dispatcher in the memory at `physical`, which holds zeros, and enters it.
    pub fn create(&mut self, physical: u64, handle: usize) {
        let Some(place) = self.ram.pointer::<Dispatcher>(physical, DISPATCHER_BYTES) else {
            return;
        };
        let dispatcher = Dispatcher::new(Link::to(handle), self.kernel_root);
        // SAFETY: private RAM that was just retyped for this, or set aside by the loader.
        unsafe { place.write(dispatcher) };
        TABLE[handle].store(place, Relaxed);
        recording::made(handle, &[0; DISPATCHER_NAME_BYTES]);
    }

    /// Handle of the dispatcher whose memory starts at `physical`.
    pub fn handle_at(&self, physical: u64) -> Option<usize> {
        let address = (DIRECT_MAP + physical) as *mut Dispatcher;
        TABLE
            .iter()
            .position(|entry| entry.load(Relaxed) == address)
    }

    /// Physical address of a dispatcher.
    pub fn physical(&self, handle: usize) -> Option<u64> {
        let address = TABLE[handle % MAX_DISPATCHERS].load(Relaxed) as u64;
        address.checked_sub(DIRECT_MAP)
    }

    /// Number of this core.
    pub fn own_core(&self) -> u64 {
        // SAFETY: the record is mapped; this field of it never changes.
        u64::from(unsafe { (&raw const (*record()).core).read() })
    }

    /// Forgets a dispatcher whose memory goes.
    pub fn destroy(&mut self, handle: usize) {
        self.retire(handle);
        if FLOAT_HOLDER.load(Relaxed) == handle as u64 + 1 {
            FLOAT_HOLDER.store(0, Relaxed);
            float::lock();
        }
        for owner in &mut self.doorbells {
            if *owner == Link::to(handle) {
                *owner = Link::NOBODY;
            }
        }
        if self.current() == Some(handle) {
            // SAFETY: as in `new`.
            CURRENT.store(unsafe { NOBODY.get_mut() }, Relaxed);
        }
        TABLE[handle].store(null_mut(), Relaxed);
    }

    /// A dispatcher ends, and the monitor hears of it.
    pub fn end(&mut self, handle: usize, state: State) {
        if let Some(dispatcher) = self.dispatcher(handle) {
            dispatcher.in_fault = false;
            dispatcher.state = state;
            note(ENDED, 0, handle as u32);
            if handle == MONITOR {
                fault::monitor_ended(dispatcher);
            }
        }
        self.retire(handle);
        self.tell_monitor();
    }

    /// Takes one out of all that it has to do with, for good or because it ended. Who waits for
    /// its answer hears that it is gone; whoever called because of a fault has died of it then,
    /// and is taken out in its turn: in a loop, since they may be many, and the stack is small.
    fn retire(&mut self, handle: usize) {
        let mut ending = Handles::new();
        ending.push(handle);
        while let Some(handle) = ending.pop() {
            let deserted = self.withdraw(handle);
            self.desert(deserted, &mut ending);
        }
    }

    /// One ends: takes it out of the run queue and of its own call, and tells who waited for it.
    fn withdraw(&mut self, handle: usize) -> Handles {
        self.attention = true;
        self.scheduler.remove(handle);
        self.leave_call(handle);
        let mut deserted = Handles::new();
        let Some(dispatcher) = self.dispatcher(handle) else {
            return deserted;
        };
        dispatcher.scheduled = false;
        if !dispatcher.has_ended() {
            dispatcher.state = State::Exited;
            note(ENDED, 0, handle as u32);
        }
        let caller = core::mem::take(&mut dispatcher.caller);
        let endpoints = core::mem::take(&mut dispatcher.endpoints);
        deserted.extend(caller.handle());
        for physical in endpoints {
            if let Some(endpoint) = self.endpoint(physical) {
                endpoint.owner = Link::NOBODY;
                endpoint.orphaned = true;
            }
            // Each waits at one place only, so there is room for all.
            deserted.extend(self.queue(physical));
        }
        deserted
    }

    /// Nobody will answer these callers. Those that have died of it are added to `ending`.
    fn desert(&mut self, deserted: Handles, ending: &mut Handles) {
        for handle in deserted {
            let Some(dispatcher) = self.dispatcher(handle) else {
                continue;
            };
            if dispatcher.in_fault {
                dispatcher.in_fault = false;
                self.leave_call(handle);
                if let Some(dispatcher) = self.dispatcher(handle) {
                    dispatcher.state = State::Faulted;
                }
                note(ENDED, 0, handle as u32);
                ending.push(handle);
                self.tell_monitor();
            } else {
                self.fail(handle, Error::PeerGone);
            }
        }
    }

    /// An endpoint goes.
    pub fn close(&mut self, physical: u64) {
        let Some(endpoint) = self.endpoint(physical) else {
            return;
        };
        let owner = endpoint.owner.handle();
        if let Some(owner) = owner
            && let Some(owner) = self.dispatcher(owner)
        {
            owner.endpoints.retain(|other| *other != physical);
            if owner.state == State::Receiving && owner.endpoint == physical {
                let owner = owner.link.handle();
                owner
                    .into_iter()
                    .for_each(|owner| self.fail(owner, Error::PeerGone));
            }
        }
        let queue = self.queue(physical);
        let mut ending = Handles::new();
        self.desert(queue, &mut ending);
        for handle in ending {
            self.retire(handle);
        }
    }

    /// One does not wait for its deadline any more.
    pub fn forget_deadline(&mut self, handle: usize) {
        if let Some(dispatcher) = self.dispatcher(handle)
            && dispatcher.deadline_ns != 0
        {
            dispatcher.deadline_ns = 0;
            let is_its = |(_, waiting): &mut (u64, u8)| usize::from(*waiting) != handle;
            self.deadlines.retain(is_its);
        }
    }

    /// Takes one out of whatever wait it is in.
    fn leave_call(&mut self, handle: usize) {
        self.forget_deadline(handle);
        let Some(dispatcher) = self.dispatcher(handle) else {
            return;
        };
        let (state, physical) = (dispatcher.state, dispatcher.endpoint);
        let server = core::mem::take(&mut dispatcher.server);
        match state {
            State::Receiving => {
                if let Some(endpoint) = self.endpoint(physical) {
                    endpoint.receiver = Link::NOBODY;
                }
            }
            State::Queued => {
                if let Some(endpoint) = self.endpoint(physical) {
                    endpoint.queued -= 1;
                }
            }
            State::Calling => {
                if let Some(server) = server.handle() {
                    if let Some(server) = self.dispatcher(server) {
                        server.caller = Link::NOBODY;
                    }
                    self.rouse(server, Wake::Call); // on its own time from now on
                }
            }
            _ => {}
        }
    }

    /// A call, or the wait for one, comes to this error.
    pub fn fail(&mut self, handle: usize, error: Error) {
        self.leave_call(handle);
        if let Some(dispatcher) = self.dispatcher(handle)
            && !dispatcher.has_ended()
        {
            dispatcher.state = State::Runnable;
            dispatcher.answer(error as u64, [0; 6]);
            woken(handle, Wake::Call);
            self.rouse(handle, Wake::Call);
        }
    }

    /// The handles of those that queue at an endpoint.
    pub fn queue(&mut self, endpoint: u64) -> Handles {
        let queues = |handle: &usize| {
            let dispatcher = self.dispatcher(*handle);
            dispatcher.is_some_and(|one| one.state == State::Queued && one.endpoint == endpoint)
        };
        (0..MAX_DISPATCHERS).filter(queues).collect()
    }

    /// A ticket for the queue of an endpoint.
    pub fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Whom it comes down to when it is the turn of `handle`: itself, or who has to answer its
    /// call, or who has to answer that one's. That one runs then, if it can.
    fn stands_in_for(&mut self, handle: usize) -> Option<usize> {
        let mut at = handle;
        // As many steps as there are dispatchers: those that wait for each other in a ring end here.
        for _ in 0..MAX_DISPATCHERS {
            let dispatcher = self.dispatcher(at)?;
            let next = match dispatcher.state {
                State::Calling => dispatcher.server.handle(),
                State::Queued => {
                    let physical = dispatcher.endpoint;
                    self.endpoint(physical)?.owner.handle()
                }
                _ => None,
            };
            match next {
                Some(next) => at = next,
                None => return Some(at),
            }
        }
        None
    }

    /// One became runnable, or an endpoint of its own got it callers: those for whom it runs from
    /// now on get their turns.
    pub fn rouse(&mut self, handle: usize, by: Wake) {
        self.attention = true;
        let Some(dispatcher) = self.dispatcher(handle) else {
            return;
        };
        let serves = dispatcher.caller != Link::NOBODY || !dispatcher.endpoints.is_empty();
        let can_run = dispatcher.can_run();
        if can_run {
            dispatcher.owes_turns = false;
            if !dispatcher.scheduled {
                self.schedule(handle, by);
            }
        }
        if !(serves && can_run) {
            return;
        }
        for other in 0..MAX_DISPATCHERS {
            let waits = self.dispatcher(other).is_some_and(|other| {
                !other.scheduled && matches!(other.state, State::Queued | State::Calling)
            });
            if waits && self.stands_in_for(other) == Some(handle) {
                self.schedule(other, by);
            }
        }
    }

    fn schedule(&mut self, handle: usize, by: Wake) {
        let now = self.clock.now_ns();
        if let Some(dispatcher) = self.dispatcher(handle) {
            dispatcher.scheduled = true;
            let priority = dispatcher.priority;
            self.scheduler.wake(handle, priority, by, now);
            self.attention = true;
        }
    }

    /// A dispatcher misses a page: it stays where it is, with all who wait for it, and the monitor
    /// hears of it.
    pub fn await_page(&mut self, handle: usize) {
        self.attention = true;
        if let Some(dispatcher) = self.dispatcher(handle) {
            dispatcher.state = State::Paging;
        }
        blocked(handle, State::Paging);
        self.tell_monitor();
    }

    /// Lets a dispatcher run on that was stopped, or that waits for a page: it begins anew with the
    /// instruction that missed it.
    pub fn start(&mut self, handle: usize) {
        let Some(dispatcher) = self.dispatcher(handle) else {
            return;
        };
        let waited = core::mem::take(&mut dispatcher.stopped) || dispatcher.state == State::Paging;
        if dispatcher.state == State::Paging {
            dispatcher.state = State::Runnable;
        }
        if waited && dispatcher.can_run() {
            woken(handle, Wake::Call);
        } else if waited && !dispatcher.has_ended() {
            blocked(handle, dispatcher.state);
        }
        let (state, physical, link) = (dispatcher.state, dispatcher.endpoint, dispatcher.link);
        if state == State::Receiving
            && let Some(endpoint) = self.endpoint(physical)
        {
            endpoint.receiver = link;
        }
        self.rouse(handle, Wake::Call);
    }

    /// Keeps a dispatcher from running.
    pub fn stop(&mut self, handle: usize) {
        self.attention = true;
        let Some(dispatcher) = self.dispatcher(handle) else {
            return;
        };
        let was_stopped = core::mem::replace(&mut dispatcher.stopped, true);
        if !was_stopped && !dispatcher.has_ended() {
            note(BLOCKS, STOPPED, handle as u32);
        }
        let (state, physical) = (dispatcher.state, dispatcher.endpoint);
        if state == State::Receiving
            && let Some(endpoint) = self.endpoint(physical)
        {
            endpoint.receiver = Link::NOBODY;
        }
    }

    /// Sets the priority of a dispatcher.
    pub fn set_priority(&mut self, handle: usize, priority: u8) {
        let Some(dispatcher) = self.dispatcher(handle) else {
            return;
        };
        dispatcher.priority = priority;
        if dispatcher.scheduled {
            self.scheduler.remove(handle);
            self.scheduler.add(handle, priority);
            self.attention = true;
        }
    }

    /// Rings: the dispatcher is ready if it was waiting, and its next wait ends at once
    /// otherwise.
    pub fn signal(&mut self, handle: usize, by: Wake) {
        let Some(dispatcher) = self.dispatcher(handle) else {
            return;
        };
        match dispatcher.state {
            State::Waiting => {
                dispatcher.registers.rdi = dispatcher.woken();
                self.end_wait(handle, by);
            }
            State::Receiving => {
                dispatcher.answer(Error::Interrupted as u64, [0; 6]);
                self.end_wait(handle, by);
            }
            State::Exited | State::Faulted => {}
            _ => dispatcher.pending = true,
        }
    }

    /// Rings the monitor because of something that the CPU driver has for it: text, a dispatcher that ended or
    /// misses a page, a capability that was moved to it.
    pub fn tell_monitor(&mut self) {
        if let Some(monitor) = self.dispatcher(MONITOR) {
            monitor.news = true;
        }
        self.signal(MONITOR, Wake::Call);
    }

    fn end_wait(&mut self, handle: usize, by: Wake) {
        self.leave_call(handle);
        if let Some(dispatcher) = self.dispatcher(handle) {
            dispatcher.state = State::Runnable;
        }
        woken(handle, by);
        self.rouse(handle, by);
    }

    /// The current dispatcher waits from now on, until `deadline_ns` if that is not 0; false:
    /// that is over already.
    pub fn block(&mut self, state: State, deadline_ns: u64) -> bool {
        if deadline_ns != 0 && deadline_ns <= self.clock.now_ns() {
            return false;
        }
        self.attention = true;
        if let Some(current) = self.current()
            && let Some(dispatcher) = self.dispatcher(current)
        {
            dispatcher.state = state;
            blocked(current, state);
            dispatcher.deadline_ns = deadline_ns;
            if deadline_ns != 0 {
                let earlier = |entry: &(u64, u8)| entry.0 <= deadline_ns;
                let at = self.deadlines.partition_point(earlier);
                self.deadlines.insert(at, (deadline_ns, current as u8));
            }
        }
        true
    }

    /// The current one lets its equals go first.
    pub fn give_way(&mut self) {
        self.scheduler.give_way();
        self.attention = true;
    }

    /// Whether nobody wants to run.
    #[cold]
    pub fn is_idle(&mut self) -> bool {
        self.choose().is_none()
    }

    /// Whether the current dispatcher goes on, and nothing about the timer changes.
    pub fn goes_on(&self) -> bool {
        !self.attention
    }

    /// Whose turn it is, and who runs.
    #[inline(always)] // into `go_on`, above all
    fn choose(&mut self) -> Option<(*mut Dispatcher, *mut Dispatcher)> {
        loop {
            let turn = self.scheduler.next(|| self.clock.now_ns())?;
            // Nearly always.
            if let Some(one) = self.dispatcher(turn)
                && one.can_run()
            {
                let one: *mut Dispatcher = one;
                return Some((one, one));
            }
            let one = self.stands_in_for(turn).unwrap_or(turn);
            if let Some(one) = self.dispatcher(one)
                && one.can_run()
            {
                let one: *mut Dispatcher = one;
                return Some((TABLE[turn % MAX_DISPATCHERS].load(Relaxed), one));
            }
            let now = self.clock.now_ns();
            self.scheduler.block(now);
            if let Some(dispatcher) = self.dispatcher(turn) {
                dispatcher.scheduled = false;
            }
            if one != turn
                && let Some(one) = self.dispatcher(one)
            {
                one.owes_turns = true;
            }
        }
    }

    /// Who goes on in ring 3, or nobody. Every way out of ring 0 that may change who runs
    /// leads through here, so the timer is set here and nowhere else.
    #[inline(always)] // as above
    pub fn go_on(&mut self) -> ! {
        self.attention = false;
        let chosen = self.choose();
        self.arm_timer();
        let Some((context, next)) = chosen else {
            count!(idle);
            note(IDLE, 0, 0);
            self.was_idle = true;
            wait_for_interrupt();
        };
        CONTEXT.store(context, Relaxed);
        // SAFETY: it is in the table, and nobody borrows it now.
        let dispatcher = unsafe { &mut *next };
        if next != CURRENT.load(Relaxed) {
            self.switch(dispatcher);
        } else if recording::is_on(RESUMES) && self.was_idle {
            recording::write(RESUMES, 0, 0, dispatcher.handle());
        }
        self.was_idle = false;
        // SAFETY: its address space was loaded when it became the current one.
        unsafe { resume_user(&dispatcher.registers) }
    }

    /// Gives the core to another dispatcher.
    #[inline]
    fn switch(&mut self, dispatcher: &mut Dispatcher) {
        count!(switches);
        note(RUNS, 0, dispatcher.handle());
        let holder = FLOAT_HOLDER.load(Relaxed);
        if holder != 0 || dispatcher.uses_float {
            self.switch_float(holder, dispatcher);
        }
        CURRENT.store(dispatcher, Relaxed);
        if cpu::loaded_root() != dispatcher.root {
            // SAFETY: retyping or the loader put this core's kernel half into it, and it is
            // the kernel's own once it is no page table any more.
            unsafe { cpu::switch_address_space(dispatcher.root) };
        }
        let name = dispatcher.name.as_ptr() as u64 - DIRECT_MAP;
        // SAFETY: the record is mapped, and this core's to write.
        unsafe { (&raw mut (*record()).current_name).write_volatile(name) };
    }

    /// The floating-point registers of who has them make room for those of another dispatcher.
    fn switch_float(&mut self, holder: u64, next: &mut Dispatcher) {
        let own = next.link.handle().map_or(0, |handle| handle as u64 + 1);
        if holder == own {
            return;
        }
        if holder != 0 {
            self.save_float(holder as usize - 1);
        }
        if next.uses_float {
            // SAFETY: they were saved, or cleared on first use.
            unsafe { self.float.load(next.float_area()) };
            FLOAT_HOLDER.store(own, Relaxed);
        }
    }

    /// Saves the floating-point registers of who has them.
    fn save_float(&mut self, holder: usize) {
        let method = self.float;
        if let Some(dispatcher) = self.dispatcher(holder) {
            // SAFETY: the registers in the processor are this dispatcher's.
            unsafe { method.save(dispatcher.float_area()) };
        }
        float::lock();
        FLOAT_HOLDER.store(0, Relaxed);
    }

    /// The current dispatcher used floating-point registers that are not loaded: it never did, or
    /// it came here by the fast path of LRPC, which leaves them aside.
    pub fn begin_float(&mut self) -> bool {
        let method = self.float;
        let Some(current) = self.current() else {
            return false;
        };
        let Some(dispatcher) = self.dispatcher(current) else {
            return false;
        };
        if FLOAT_HOLDER.load(Relaxed) != 0 {
            return false;
        }
        // SAFETY: its own area, saved before or cleared right here.
        unsafe {
            if !dispatcher.uses_float {
                method.clear(dispatcher.float_area());
            }
            method.load(dispatcher.float_area());
        }
        dispatcher.uses_float = true;
        FLOAT_HOLDER.store(current as u64 + 1, Relaxed);
        true
    }

    /// Sets the timer to the next thing that has to happen: somebody's deadline, or the end
    /// of the time slice if somebody else is ready. Nothing to happen, no timer. One that will strike
    /// earlier than it must is left alone: it is set anew then, and those who take turns
    /// quickly need not set it each time.
    #[inline]
    fn arm_timer(&mut self) {
        let never = u64::MAX;
        let deadline = self
            .deadlines
            .first()
            .map_or(never, |(deadline, _)| *deadline);
        let next = deadline.min(self.scheduler.slice_end().unwrap_or(never));
        if next < self.armed_ns {
            self.set_timer(next);
        }
    }

    #[cold]
    fn set_timer(&mut self, ns: u64) {
        self.armed_ns = ns;
        let from_now = ns.saturating_sub(self.clock.now_ns());
        self.apic.arm(from_now, self.clock.time_stamp_at(ns));
    }

    /// The timer struck: wakes whose deadline has come, and ends a time slice that is over.
    fn timer(&mut self) {
        count!(timer);
        self.armed_ns = u64::MAX;
        let now = self.clock.now_ns();
        while let Some((deadline, handle)) = self.deadlines.first().copied()
            && deadline <= now
        {
            let handle = usize::from(handle);
            if let Some(dispatcher) = self.dispatcher(handle) {
                match dispatcher.state {
                    State::Receiving => dispatcher.answer(Error::TimedOut as u64, [0; 6]),
                    _ => dispatcher.registers.rdi = 0,
                }
            }
            self.end_wait(handle, Wake::Interrupt);
        }
        self.scheduler.tick(now);
    }

    /// An interrupt from outside.
    pub fn interrupt(&mut self, vector: u64) {
        count!(interrupts);
        note(INTERRUPT, 0, vector as u32);
        if vector == u64::from(TIMER_VECTOR) {
            self.apic.end_of_interrupt();
            self.timer();
        } else if (FIRST_DOORBELL..=LAST_DOORBELL).contains(&vector) {
            self.apic.end_of_interrupt();
            count!(doorbells_received);
            if let Some(owner) = self.doorbells[vector as usize].handle() {
                self.signal(owner, Wake::Interrupt);
            }
        }
    }

    /// Notes the exception that the current dispatcher met.
    pub fn note_fault(&mut self, frame: &Frame) {
        let fault = Detail {
            vector: frame.vector,
            error: frame.error,
            address: if frame.vector == PAGE_FAULT {
                cpu::fault_address()
            } else {
                0
            },
        };
        if let Some(dispatcher) = self.current_dispatcher() {
            dispatcher.fault = fault;
        }
    }

    /// Saves what an interrupt found in the registers.
    pub fn save(&mut self, frame: &Frame) {
        if let Some(dispatcher) = self.current_dispatcher() {
            dispatcher.registers = frame.registers();
        }
    }
}
