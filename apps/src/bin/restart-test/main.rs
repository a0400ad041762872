//! Loses cores, stops cores, and starts them again: `restart-test [--rounds N] [--stops N]
//! [--leave 1] [--share N]` (with `--test-hooks`, unless `--rounds 0`).
//!
//! In each round the lowest and the highest core but core 0 are lost at once, by a wild write of
//! their CPU drivers, and started anew, each by another core where there are so many. In the second
//! one, if there are three, the lowest is lost again while it starts the highest. Then as many
//! cores in turn stop in good order as `--stops` says, and are started anew by others; every second
//! core does so at once, and all but core 0. At last one is stopped for good with `--leave 1`. Before
//! each end, the core has a child, an orphan elsewhere that shares memory with a domain of it, and
//! a name; after it, none of them. After each start, the core must be as it was after the boot:
//!
//! - all cores hold one view, with it; a domain that is new finds it there;
//! - it has as much free memory as at the start, and as much in each life; all others have as
//!   much as at the start, but for what a monitor takes once when it first does something;
//! - it answers, has children and gives children to others; they share frames, ring each other and
//!   bind names;
//! - no domain of it has an id that one had before.
//!
//! With `--share N`, the last core is lost so many times while others have memory of it, in their slots
//! and in spans: they have it until the core starts anew, and nobody has any of it then (see `shares`).
//!
//! What makes no sense is refused: to start a core that runs, to stop core 0, cores that are not.
#![no_std]
#![no_main]

extern crate alloc;

mod roles;
mod shares;
mod spans;
mod workers;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use apps::arguments::{Arguments, explain};
use apps::checks::Outcome;
use apps::crew::Post;
use apps::mappings;
use rt::interface::{self, Error, KILLED_STATUS, LOST_STATUS};
use rt::monitor::{self, Domain, Token};
use rt::{clock, names};

rt::entry!(main);

const USAGE: &str = "restart-test [--rounds N] [--stops N] [--leave 1] [--share N]";
/// The program's name.
pub const NAME: &str = "restart-test";
/// The word by which a copy knows that it has a role.
pub const ROLE: &str = "role";
/// Pages that a monitor takes once, whatever it does and how often: tables of its own address space
/// for other cores' memory, a CNode.
const TAKEN_ONCE: u64 = 16;
/// Orphans that a core has room for, besides all else.
const ORPHANS_OF_CORE: usize = 2;
/// How long cores may take to agree, and how long to wait before looking again.
const PATIENCE_NS: u64 = 300_000_000_000;
const PAUSE_NS: u64 = 10_000_000;

fn main() -> i32 {
    if let Some(post) = Post::take_up() {
        return workers::work(post);
    }
    if let Some(status) = roles::play() {
        return status;
    }
    let arguments = Arguments::of_program(&["--rounds", "--stops", "--leave", "--share"]);
    let numbers = arguments.and_then(|arguments| {
        let rounds = arguments.number("--rounds", 0..=1000)?.unwrap_or(1);
        let stops = arguments.number("--stops", 0..=1000)?.unwrap_or(3);
        let share = arguments.number("--share", 1..=1000)?;
        Ok((rounds, stops, arguments.number("--leave", 0..=1)?, share))
    });
    let (rounds, stops, leave, share) = match numbers {
        Ok(numbers) => numbers,
        Err(misuse) => return explain(&misuse, USAGE),
    };
    if rt::startup().cores().count() < 2 {
        rt::println!("{NAME}: there must be a core to start again: --cores 2 or more");
        return 2;
    }
    let mut test = Test::new();
    let run = test.measure().and_then(|()| match share {
        Some(lives) => test.share(lives as usize),
        None => test.run(rounds as usize, stops as usize),
    });
    match run.and_then(|()| test.leave(leave == Some(1))) {
        Ok(()) if test.outcome.bad == 0 => {
            rt::println!("{NAME}: passed");
            0
        }
        Ok(()) => {
            let Outcome { bad, checks } = test.outcome;
            rt::println!("{NAME}: failed: {bad} of {checks} checks");
            1
        }
        Err(failure) => {
            rt::println!("{NAME}: failed: {failure}");
            1
        }
    }
}

/// Why the test cannot go on.
type Failed = String;

/// What failed, on which core.
fn on(core: usize, what: &str) -> impl FnOnce(Error) -> Failed {
    let what = format!("{what}, core {core}");
    move |error| format!("{what}: {error}")
}

/// A set of cores, as views have it.
fn set_of(cores: impl IntoIterator<Item = usize>) -> [u64; 4] {
    let mut words = [0; 4];
    for core in cores {
        words[core / 64] |= 1 << (core % 64);
    }
    words
}

/// What a core has that goes with it.
struct Doomed {
    core: usize,
    child: Domain,
    /// Of that child, on another core.
    orphan: Option<Domain>,
    name: String,
}

struct Test {
    up: Vec<usize>,
    /// Free pages of each of them when the test began, private and shared.
    memory: BTreeMap<usize, (u64, u64)>,
    /// Those of a core that has just started anew.
    fresh: BTreeMap<usize, (u64, u64)>,
    /// Domains that were started.
    seen: BTreeSet<Domain>,
    outcome: Outcome,
}

impl Test {
    /// Of all cores that are up.
    pub fn new() -> Self {
        Self {
            up: rt::startup().cores().collect(),
            memory: BTreeMap::new(),
            fresh: BTreeMap::new(),
            seen: BTreeSet::new(),
            outcome: Outcome::default(),
        }
    }

    /// What all have at the start.
    fn measure(&mut self) -> Result<(), Failed> {
        for core in self.up.iter().copied() {
            let pages = monitor::memory(core).map_err(on(core, "its memory"))?;
            self.memory.insert(core, pages);
        }
        Ok(())
    }

    fn run(&mut self, rounds: usize, stops: usize) -> Result<(), Failed> {
        let (first, last) = (self.up[1], self.up[self.up.len() - 1]);
        self.refusals();
        for core in self.up.clone() {
            self.check(core)?;
        }
        let mut ends: Vec<usize> = [first, last].into();
        ends.dedup();
        for round in 0..rounds {
            self.lose(&ends)?;
            self.start(&ends, round)?;
            if round == 1 && first != last {
                self.lose_starter(first, last)?;
            }
        }
        for stop in 0..stops {
            let core = self.up[1 + stop % (self.up.len() - 1)];
            self.stop(&[core])?;
            self.start(&[core], stop + 1)?;
        }
        let others = self.up[1..].to_vec();
        let second: Vec<usize> = others.iter().step_by(2).copied().collect();
        for cores in [second, others] {
            self.stop(&cores)?;
            self.start(&cores, 0)?;
        }
        self.start_twice(last)?;
        self.refusals();
        rt::println!(
            "{} checks, {} domains",
            self.outcome.checks,
            self.seen.len()
        );
        Ok(())
    }

    /// What makes no sense is refused.
    fn refusals(&mut self) {
        let one = &mut self.outcome;
        let last = self.up[self.up.len() - 1];
        for sponsor in [self.up[0], last] {
            for core in self.up.iter().copied() {
                let answer = monitor::start_core_from(sponsor, core);
                one.refused("starts a core that runs", answer, Error::CoreRuns);
            }
            for core in [last + 1, 255, 1 << 40] {
                let answer = monitor::start_core_from(sponsor, core);
                one.refused("starts what is no core", answer, Error::NoSuchCore);
            }
        }
        one.refused("stops core 0", monitor::stop_core(0), Error::CoreNeeded);
        let answer = monitor::stop_core(last + 1);
        one.refused("stops what is no core", answer, Error::NoSuchCore);
        let answer = monitor::start_core_from(last + 1, 1);
        one.refused("asks what is no core", answer, Error::NoSuchCore);
    }

    /// Starts a copy in a role; its id must be new.
    fn child(&mut self, core: usize, role: &[&str]) -> Result<Domain, Failed> {
        let words = [&[NAME, ROLE], role].concat();
        let child = monitor::spawn(core, &words, None).map_err(on(core, role[0]))?;
        self.outcome
            .expect("an id is new", &self.seen.insert(child), &true);
        Ok(child)
    }

    /// Has a copy play a role that ends, with status 0 if all is well.
    fn play(&mut self, core: usize, role: &[&str]) -> Result<(), Failed> {
        let child = self.child(core, role)?;
        let status = monitor::wait(child).map_err(on(core, role[0]))?;
        self.outcome.expect(&role.join(" "), &status, &0);
        Ok(())
    }

    /// Waits until all of these cores hold the same view, of them.
    fn agree(&mut self, cores: &[usize]) -> Result<(), Failed> {
        let expected = set_of(cores.iter().copied());
        let deadline_ns = clock::now_ns() + PATIENCE_NS;
        loop {
            let views: Vec<_> = cores.iter().map(|core| monitor::view(*core)).collect();
            let is_one = views.iter().all(|view| *view == views[0]);
            if is_one && views[0].is_ok_and(|(_, set)| set == expected) {
                self.outcome.checks += 1;
                return Ok(());
            }
            if clock::now_ns() > deadline_ns {
                return Err(format!("{cores:?} hold {views:x?}, not {expected:x?}"));
            }
            clock::sleep_ns(PAUSE_NS);
        }
    }

    /// A core does all that a core does.
    fn check(&mut self, core: usize) -> Result<(), Failed> {
        let echo = monitor::ask(core, interface::ECHO, [1, 2, 3, 4, 5, 0]);
        self.outcome.expect("echo", &echo, &Ok([1, 2, 3, 4, 5]));
        let words = set_of(self.up.iter().copied());
        let words: Vec<String> = words.iter().map(|word| format!("{word}")).collect();
        let mut role = vec!["members"];
        role.extend(words.iter().map(String::as_str));
        self.play(core, &role)?;

        // Frames of either core, and doorbells both ways.
        let other = self.up.iter().rev().find(|other| **other != core);
        let other = other.copied().unwrap_or(core);
        for (from, to) in [(core, other), (other, core), (0, core)] {
            let to = format!("{to}");
            self.play(from, &["parent", &to])?;
            self.play(from, &["caller", &to])?;
        }

        let name = format!("restart.{core}");
        let value = clock::now_ns();
        names::bind("restart.main", value).map_err(on(core, "a name"))?;
        self.play(core, &["reader", &format!("{value}")])?;
        names::unbind("restart.main").map_err(on(core, "a name"))?;
        let binder = self.child(core, &["binder", &name])?;
        await_name(&name, binder)?;
        let bound = names::lookup(&name).map(|binding| binding.domain);
        self.outcome.expect("who bound it", &bound, &Ok(binder));
        monitor::kill(binder).map_err(on(core, "kill"))?;
        let status = monitor::wait(binder).map_err(on(core, "wait"))?;
        self.outcome.expect("a kill", &status, &KILLED_STATUS);
        Ok(())
    }

    /// What is to go with the core at this place of those that end at once.
    fn doom(&mut self, place: usize, ends: &[usize]) -> Result<Doomed, Failed> {
        let core = ends[place];
        let others = self.up.iter().copied().filter(|core| !ends.contains(core));
        let others: Vec<usize> = others.collect();
        let name = format!("restart.{core}");
        let home = format!("{}", others[others.len() - 1 - place % others.len()]);
        // One core has not room for the orphans of all.
        let has_orphan = place < others.len() * ORPHANS_OF_CORE;
        let child = match has_orphan {
            true => self.child(core, &["mother", &home, &name])?,
            false => self.child(core, &["binder", &name])?,
        };
        let value = await_name(&name, child)?;
        Ok(Doomed {
            core,
            child,
            orphan: has_orphan.then_some(Domain(value)),
            name,
        })
    }

    /// Dooms something on each of these cores.
    fn doom_all(&mut self, ends: &[usize]) -> Result<Vec<Doomed>, Failed> {
        (0..ends.len())
            .map(|place| self.doom(place, ends))
            .collect()
    }

    /// What went with cores is gone, and nothing else is.
    fn gone(&mut self, doomed: &[Doomed], status: i32) -> Result<(), Failed> {
        let ends: Vec<usize> = doomed.iter().map(|one| one.core).collect();
        let rest = self.up.iter().copied().filter(|core| !ends.contains(core));
        let rest: Vec<usize> = rest.collect();
        self.agree(&rest)?;
        for one in doomed {
            let core = one.core;
            let ended = monitor::wait(one.child).map_err(on(core, "a child that went"))?;
            self.outcome.expect("a child that went", &ended, &status);
            let there = monitor::spawn(core, &["exit", "0"], None);
            self.outcome
                .refused("spawns on a core that went", there, Error::NoSuchCore);
            let answer = monitor::stop_core(core);
            self.outcome
                .refused("stops a core that went", answer, Error::NoSuchCore);
            let answer = monitor::start_core_from(core, core);
            self.outcome
                .refused("asks a core that went", answer, Error::NoSuchCore);
            let bound = names::lookup(&one.name).map(|binding| binding.value);
            self.outcome
                .refused("a name that went", bound, Error::NotBound);
            if let Some(orphan) = one.orphan {
                let listed = monitor::list(orphan.core()).map_err(on(core, "an orphan"))?;
                let lives = listed.iter().any(|one| one.domain == orphan);
                self.outcome.expect("an orphan lives on", &lives, &true);
            }
        }
        Ok(())
    }

    /// Loses cores at once.
    fn lose(&mut self, ends: &[usize]) -> Result<(), Failed> {
        let doomed = self.doom_all(ends)?;
        self.lose_all(ends)?;
        self.gone(&doomed, LOST_STATUS)?;
        self.keep_orphans(doomed);
        Ok(())
    }

    /// Has the CPU drivers of cores write where they should not.
    fn lose_all(&mut self, ends: &[usize]) -> Result<(), Failed> {
        let own = rt::startup().core as usize;
        let target = mappings::of_core(own).map_err(on(own, "mappings"))?;
        let target = target
            .iter()
            .filter(|range| range.is_writable() && !range.is_device())
            .max_by_key(|range| range.bytes)
            .ok_or("no memory to hit")?;
        let words = [target.physical + target.bytes / 2, 0, 0, 0, 0, 0];
        let requests: Vec<_> = ends
            .iter()
            .map(|core| (*core, monitor::request(*core, interface::WILD_WRITE, words)))
            .collect();
        for (core, request) in requests {
            let answer = monitor::answer(request.map_err(on(core, "the hook"))?);
            if answer != Err(Error::CoreLost) {
                return Err(format!("core {core} answered {answer:?}; is the hook on?"));
            }
        }
        Ok(())
    }

    /// Stops cores in good order, at once.
    fn stop(&mut self, cores: &[usize]) -> Result<(), Failed> {
        let doomed = self.doom_all(cores)?;
        let stop = |core: &usize| {
            let request = monitor::request(*core, interface::cores::STOP_CORE, [0; 6]);
            (*core, request)
        };
        let requests: Vec<_> = cores.iter().map(stop).collect();
        for (core, request) in requests {
            let request = request.map_err(on(core, "a stop"))?;
            monitor::answer(request).map_err(on(core, "a stop"))?;
        }
        self.gone(&doomed, KILLED_STATUS)?;
        self.keep_orphans(doomed);
        Ok(())
    }

    /// One core is lost while it starts another; then both are started, whatever had become of it.
    fn lose_starter(&mut self, starter: usize, core: usize) -> Result<(), Failed> {
        self.stop(&[core])?;
        let start = begin_start(starter, core).map_err(on(core, "a start"))?;
        // Its address is nobody's: the CPU driver writes where nothing is mapped.
        let words = [0, 0, 0, 0, 0, 0];
        let hook = monitor::request(starter, interface::WILD_WRITE, words);
        let hook = monitor::answer(hook.map_err(on(starter, "the hook"))?);
        self.outcome.refused("a hook", hook, Error::CoreLost);
        let start = monitor::answer(start);
        self.outcome
            .refused("a start by who was lost", start, Error::CoreLost);
        for core in [starter, core] {
            let started = monitor::start_core(core);
            if started != Err(Error::CoreRuns) {
                started.map_err(on(core, "a start"))?;
            }
        }
        self.as_before(&[starter, core])
    }

    /// Stops the last core for good, if it is to.
    fn leave(&mut self, is_to: bool) -> Result<(), Failed> {
        match is_to {
            true => self.stop(&[self.up[self.up.len() - 1]]),
            false => Ok(()),
        }
    }

    /// Notes orphans as domains that must not be there when their core has started.
    fn keep_orphans(&mut self, doomed: impl IntoIterator<Item = Doomed>) {
        self.seen
            .extend(doomed.into_iter().filter_map(|one| one.orphan));
    }

    /// Starts cores at once, each by another one of those that run where there are so many.
    fn start(&mut self, cores: &[usize], shift: usize) -> Result<(), Failed> {
        let running = self.up.iter().copied().filter(|core| !cores.contains(core));
        let running: Vec<usize> = running.collect();
        let requests: Vec<(usize, Result<Token, Error>)> = cores
            .iter()
            .enumerate()
            .map(|(index, core)| {
                let sponsor = running[(index + shift) % running.len()];
                (*core, begin_start(sponsor, *core))
            })
            .collect();
        for (core, request) in requests {
            let request = request.map_err(on(core, "a start"))?;
            monitor::answer(request).map_err(on(core, "a start"))?;
        }
        self.as_before(cores)
    }

    /// All is as it was when the test began.
    fn as_before(&mut self, started: &[usize]) -> Result<(), Failed> {
        let up = self.up.clone();
        self.agree(&up)?;
        // Orphans of former lives are gone.
        for core in up.iter().copied() {
            let listed = monitor::list(core).map_err(on(core, "a list"))?;
            let listed = listed.iter().map(|one| one.domain);
            let left: Vec<Domain> = listed.filter(|one| self.seen.contains(one)).collect();
            self.outcome.expect("who is left", &left, &vec![]);
        }
        for core in started.iter().copied() {
            let pages = monitor::memory(core).map_err(on(core, "its memory"))?;
            let of_life_before = *self.fresh.entry(core).or_insert(pages);
            let what = format!("free pages of core {core} as in its life before");
            self.outcome.expect(&what, &pages, &of_life_before);
            let what = format!("free pages of core {core} as after the boot: {pages:x?}");
            let is_all = pages >= self.memory[&core] && pages.1 == self.memory[&core].1;
            self.outcome.expect(&what, &is_all, &true);
        }
        for core in started.iter().copied() {
            self.check(core)?;
        }
        for core in up.iter().copied() {
            let (private, shared) = monitor::memory(core).map_err(on(core, "its memory"))?;
            let (was_private, was_shared) = self.memory[&core];
            let what = format!("free shared pages of core {core}");
            self.outcome.expect(&what, &shared, &was_shared);
            let what = format!("free pages of core {core}: {private:x} of {was_private:x}");
            let is_all = private + TAKEN_ONCE >= was_private;
            self.outcome.expect(&what, &is_all, &true);
        }
        Ok(())
    }

    /// Two ask for the same core at once: it starts once.
    fn start_twice(&mut self, core: usize) -> Result<(), Failed> {
        self.stop(&[core])?;
        let sponsors = [self.up[0], self.up[self.up.len() - 2]];
        let requests = sponsors.map(|sponsor| begin_start(sponsor, core));
        for request in requests {
            let answer = monitor::answer(request.map_err(on(core, "a start"))?);
            // One of one monitor's is answered as the other, one of another's comes too late.
            let is_good = matches!(answer, Ok(_) | Err(Error::CoreRuns));
            self.outcome
                .expect(&format!("a start twice: {answer:?}"), &is_good, &true);
        }
        self.as_before(&[core])
    }
}

/// What a name is bound to, as soon as a domain has bound it.
fn await_name(name: &str, by: Domain) -> Result<u64, Failed> {
    loop {
        if let Ok(binding) = names::lookup(name) {
            return Ok(binding.value);
        }
        let ended = monitor::try_wait(by).map_err(on(by.core(), name))?;
        if let Some(status) = ended {
            return Err(format!("{name}: it ended with {status} and bound nothing"));
        }
        clock::sleep_ns(PAUSE_NS / 10);
    }
}

fn begin_start(sponsor: usize, core: usize) -> Result<Token, Error> {
    let words = [core as u64, 0, 0, 0, 0, 0];
    monitor::request(sponsor, interface::cores::START_CORE, words)
}
