//! Gives capabilities to other cores, and takes them away again.
//!
//! `transfer-test [lose]` (`lose` with `--test-hooks`)
//!
//! A crew of copies of the program, one on each other core, has cells: slots with capabilities,
//! and mappings of them. This copy tells each what to do with them, one after the other or at the
//! same time, and looks at what is left on every core.
//!
//! | module      | what it checks                                                      |
//! |-------------|---------------------------------------------------------------------|
//! | `sends`     | who may send what to whom; chains and floods of sends               |
//! | `shares`    | a frame on all cores; its revoke ends all mappings                  |
//! | `objects`   | retypes on several cores; deletes; what comes home                  |
//! | `races`     | revokes against sends, retypes, deletes and ends                    |
//! | `losses`    | with `lose`, in place of all this: a core stops in the midst         |
//!
//! At the end all cores have as much memory as at the start.
#![no_std]
#![no_main]

extern crate alloc;

mod bells;
mod cells;
mod losses;
mod objects;
mod races;
mod sends;
mod shares;

use abi::layout::PAGE;
use alloc::vec::Vec;
use apps::checks::Outcome;
use apps::crew::{Crew, CrewError, Post};
use cells::{Cells, Order, Report};
use core::fmt;
use rt::clock;
use rt::interface::{Error, KILLED_STATUS};
use rt::memory::{self, Error as Trouble};
use rt::monitor::{self, Domain};

rt::entry!(main);

/// Times that each race is run.
const ROUNDS: u64 = 6;
/// Frames that a copy has at one time, and more.
const WARM_UP: u64 = 10;
/// How long something may take that comes by itself.
const PATIENCE_NS: u64 = 30_000_000_000;

/// Why the test cannot go on.
enum Failure {
    Crew(CrewError),
    Monitor(Error),
    Memory(Trouble),
    /// The core could not be stopped.
    NotLost(usize),
}

impl From<CrewError> for Failure {
    fn from(error: CrewError) -> Self {
        Self::Crew(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Monitor(error)
    }
}

impl From<Trouble> for Failure {
    fn from(error: Trouble) -> Self {
        Self::Memory(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crew(error) => write!(formatter, "{error}"),
            Self::Monitor(error) => write!(formatter, "{error}"),
            Self::Memory(error) => write!(formatter, "{error}"),
            Self::NotLost(core) => write!(formatter, "core {core} goes on: is the hook on?"),
        }
    }
}

type Result<T = ()> = core::result::Result<T, Failure>;

/// All copies of the program, this one included, by their cores.
struct Stage {
    crew: Crew,
    own: Cells,
    home: usize,
    /// This core first.
    cores: Vec<usize>,
    outcome: Outcome,
}

impl Stage {
    /// Tells the copy on a core to do something. Its report must be taken, but for this core's.
    fn begin(&mut self, core: usize, order: Order) -> Result {
        Ok(self.crew.order(core, &order.message())?)
    }

    /// Waits for the report of the copy on another core.
    fn end(&mut self, core: usize) -> Result<Report> {
        Ok(Report::from(&self.crew.report(core)?))
    }

    /// Has the copy on a core do something.
    fn on(&mut self, core: usize, order: Order) -> Result<Report> {
        if core == self.home {
            return Ok(self.own.obey(order));
        }
        self.begin(core, order)?;
        self.end(core)
    }

    /// The same, and it must come to nothing but zeros.
    fn must(&mut self, what: &str, core: usize, order: Order) -> Result<Report> {
        let report = self.on(core, order)?;
        self.outcome.expect(what, &report.error, &0);
        Ok(report)
    }

    fn domain(&self, core: usize) -> Domain {
        let own = Domain(rt::startup().domain);
        self.crew.domain(core).unwrap_or(own)
    }

    /// Gives a copy of what is in a cell of one core to a cell of another.
    fn give(&mut self, from: usize, cell: u64, to: usize, into: u64) -> Result {
        let domain = self.domain(to);
        self.must("a receive", to, Order::listen(into))?;
        self.must("a send", from, Order::send(cell, domain))?;
        let came = self.must("what came", to, Order::taken(into))?;
        let from = self.domain(from);
        self.outcome.expect("who sent it", &came.values[0], &from.0);
        Ok(())
    }

    /// Checks that a cell of each of these cores is empty.
    fn nowhere(&mut self, what: &str, cell: u64) -> Result {
        for core in self.cores.clone() {
            let found = self.on(core, Order::look(cell))?;
            self.outcome.expect(what, &found.error, &cells::EMPTY);
        }
        Ok(())
    }

    /// Checks that a copy can soon do something: other cores may have to tell it first.
    fn soon(&mut self, what: &str, core: usize, order: Order) -> Result {
        let deadline = clock::now_ns() + PATIENCE_NS;
        while self.on(core, order)?.error != 0 {
            if clock::now_ns() > deadline {
                self.must(what, core, order)?;
                break;
            }
            rt::system_call::wait(Some(clock::now_ns() + 100_000));
        }
        Ok(())
    }

    /// Checks that a cell is soon empty.
    fn soon_empty(&mut self, what: &str, core: usize, cell: u64) -> Result {
        let deadline = clock::now_ns() + PATIENCE_NS;
        while self.on(core, Order::look(cell))?.error == 0 && clock::now_ns() < deadline {
            rt::system_call::wait(Some(clock::now_ns() + 100_000));
        }
        let found = self.on(core, Order::look(cell))?;
        self.outcome.expect(what, &found.error, &cells::EMPTY);
        Ok(())
    }

    /// Checks that what is in a cell is soon shared with no other core.
    fn settled(&mut self, core: usize, cell: u64) -> Result {
        let deadline = clock::now_ns() + PATIENCE_NS;
        loop {
            let found = self.must("what is shared", core, Order::look(cell))?;
            if found.values[3] == 0 || clock::now_ns() > deadline {
                self.outcome
                    .expect("shared with nobody", &found.values[3], &0);
                return Ok(());
            }
            rt::system_call::wait(Some(clock::now_ns() + 100_000));
        }
    }

    /// Free pages of all cores.
    fn memory(&self) -> Result<Vec<(u64, u64)>> {
        let memory = self.cores.iter().map(|core| monitor::memory(*core));
        Ok(memory.collect::<core::result::Result<_, _>>()?)
    }
}

fn main() -> i32 {
    let mut is_to_lose = false;
    let mut words = rt::startup().arguments().skip(1);
    match words.next() {
        None => {}
        Some(shares::TOUCH) => return shares::touch(),
        Some(bells::SLEEP) => return bells::sleep(),
        Some(races::WAIT) => return races::wait(),
        Some(races::LEND) => return races::lend(),
        Some(losses::LOSE) => is_to_lose = true,
        Some(_) => match Post::take_up() {
            Some(post) => return cells::work(post),
            None => {
                rt::println!("usage: transfer-test [lose]");
                return 2;
            }
        },
    }
    if rt::startup().core_count < 2 {
        rt::println!("transfer-test: there is nobody to send to: start with --cores 2 or more");
        return 2;
    }
    if is_to_lose && rt::startup().core_count < 3 {
        rt::println!("transfer-test: too few cores to lose one: start with --cores 3 or more");
        return 2;
    }
    match run(is_to_lose) {
        Ok(Outcome { bad: 0, checks }) => {
            rt::println!("transfer-test: {checks} checks");
            rt::println!("transfer-test: passed");
            0
        }
        Ok(outcome) => {
            rt::println!(
                "transfer-test: {} of {} checks failed",
                outcome.bad,
                outcome.checks
            );
            1
        }
        Err(error) => {
            rt::println!("transfer-test: failed: {error}");
            1
        }
    }
}

fn run(is_to_lose: bool) -> Result<Outcome> {
    let start = rt::startup();
    let home = start.core as usize;
    let others: Vec<usize> = start.cores().filter(|core| *core != home).collect();
    let crew = Crew::hire(&others, 0)?;
    let mut stage = Stage {
        crew,
        own: Cells::new()?,
        home,
        cores: core::iter::once(home).chain(others).collect(),
        outcome: Outcome::default(),
    };
    // All copies have what RAM they ever need when memory is counted.
    for core in stage.cores.clone() {
        for cell in 0..WARM_UP {
            stage.must("a frame", core, Order::frame(cell))?;
        }
        stage.must("a mapping", core, Order::map(0))?;
        stage.must("no mapping", core, Order::unmap(0))?;
        for cell in 0..WARM_UP {
            stage.must("no frame", core, Order::free(cell))?;
        }
    }
    // Frames of this copy whose last capability is deleted elsewhere are its memory still, and it
    // does not learn of it.
    let room = memory::frame(2 * ROUNDS * PAGE + WARM_UP * PAGE)?;
    memory::free(room)?;
    if is_to_lose {
        losses::check(&mut stage)?;
        let Stage { crew, outcome, .. } = stage;
        crew.dismiss()?;
        return Ok(outcome);
    }
    sends::check(&mut stage)?;
    shares::check(&mut stage)?;
    let before = stage.memory()?;
    sends::check(&mut stage)?;
    shares::check(&mut stage)?;
    bells::check(&mut stage)?;
    objects::check(&mut stage)?;
    races::check(&mut stage)?;
    // What ends gives its memory back a little later.
    let deadline = clock::now_ns() + PATIENCE_NS;
    while stage.memory()? != before && clock::now_ns() < deadline {
        rt::system_call::wait(Some(clock::now_ns() + 1_000_000));
    }
    let after = stage.memory()?;
    stage
        .outcome
        .expect("free pages of all cores", &after, &before);
    let Stage { crew, outcome, .. } = stage;
    crew.dismiss()?;
    Ok(outcome)
}

/// Waits for a child, which must end with this status.
fn ends_with(outcome: &mut Outcome, what: &str, child: Domain, status: i32) -> Result {
    let ended = monitor::wait(child)?;
    outcome.expect(what, &ended, &status);
    Ok(())
}

/// Ends a child.
fn end(outcome: &mut Outcome, child: Domain) -> Result {
    monitor::kill(child)?;
    ends_with(outcome, "a child that was killed", child, KILLED_STATUS)
}
