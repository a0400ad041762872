//! The monitor: one runs on each core, in ring 3, and keeps its part of the system in
//! agreement with all others by messages.
//!
//! It owns its core's memory, starts other cores, runs domains, carries text to the
//! console, and answers what domains and other monitors ask. What it has to agree on with
//! others is in the protocols of the library; this program gives them hands and ears.
//!
//! | module      | what it does                                                         |
//! |-------------|----------------------------------------------------------------------|
//! | `mesh`      | channels to all other monitors                                       |
//! | `boot`      | starts a core: memory, page tables, interrupts                       |
//! | `domains`   | domains of this core: spawn, end, what they hold                     |
//! | `requests`  | what domains ask for, on this core or by way of another              |
//! | `restarts`  | cores that stop in good order, cores that start anew                 |
//! | `devices`   | ports, registers and interrupt lines for drivers (core 0)            |
//! | `family`    | domains' children on whichever core, frames shared with them         |
//! | `registry`  | names, for domains                                                   |
//! | `transfers` | capabilities that domains send to other cores                        |
//! | `loans`     | memory that is borrowed from other cores, and lent to them           |
//! | `strategy`  | how messages to many spread, and what they cost                      |
//! | `traces`    | what is recorded in traces, and by which clocks                      |
//! | `spans`     | domains that run on several cores in one address space               |
//! | `console`   | text: from domains, monitors, CPU drivers to core 0's serial port    |
//! | `report`    | what is said of a domain that died                                   |
//! | `bundle`    | the programs there are                                               |
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod boot;
mod bundle;
mod console;
mod devices;
mod domains;
mod family;
mod loans;
mod mesh;
mod registry;
mod report;
mod requests;
mod restarts;
mod spans;
mod strategy;
mod traces;
mod transfers;

use abi::command_line::CommandLine;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use console::Console;
use devices::Devices;
use domains::{Domains, Spawn, Text};
use family::Family;
use loans::Loans;
use mesh::Mesh;
use protocols::agent::{self, Agent, Line};
use protocols::awake::Awake;
use protocols::core_set::CoreSet;
use protocols::formation::{self, Formation, Progress};
use protocols::tree;
use protocols::view::View;
use registry::Registry;
use requests::Requests;
use restarts::Restarts;
use rt::authority::{self, KernelLog, Store};
use rt::clock;
use spans::Spans;
use strategy::Strategies;
use traces::{Then, Traces};
use transfers::Transfers;

rt::entry!(main);

/// Most messages taken from one core before others have their turn.
const PEER_BATCH: usize = 16;

/// A busy monitor asks the CPU driver what is new after so many turns.
const TURNS: u32 = 64;

/// The part of its core's free private RAM that a monitor takes for its own heap, and the most
/// pages that it takes.
const HEAP_SHARE: u64 = 8;
const MAX_HEAP_PAGES: u64 = 1024;

/// How long a core may be silent until others ask whether it is alive, and how much longer for each
/// core of the machine: an emulator runs all of them by turns.
const PATIENCE_NS: u64 = 1_000_000_000;
const PATIENCE_PER_CORE_NS: u64 = 100_000_000;

/// What a message costs within a node, in nanoseconds, where nobody has measured it: what cannot be
/// measured follows from their ratios, which are those of the machines that `monitor/sim/machines`
/// describes.
const SEND_NS: u32 = 50;
const LATENCY_NS: u32 = 60;
const RECEIVE_NS: u32 = 40;

/// How long core 0 waits for the last lines of other cores before it powers off.
const FLUSH_LIMIT_NS: u64 = 2_000_000_000;

/// One monitor.
pub struct Monitor {
    own: usize,
    store: Store,
    mesh: Mesh,
    console: Console,
    kernel_log: KernelLog,
    formation: Formation,
    /// Its time is that of `awake`.
    agent: Agent,
    /// What its protocols decided and is not done yet.
    decided: VecDeque<agent::Action>,
    is_carrying_out: bool,
    awake: Awake,
    /// Those of the view that held last; in a core that comes back, before it holds one, those of
    /// its starter's.
    cores: CoreSet,
    strategies: Strategies,
    /// Whether a view held here.
    is_member: bool,
    domains: Domains,
    requests: Requests,
    family: Family,
    devices: Devices,
    registry: Registry,
    transfers: Transfers,
    spans: Spans,
    loans: Loans,
    restarts: Restarts,
    traces: Traces,
    /// The domain that the command line named (core 0 only).
    program: Option<u64>,
    shutdown: Option<Shutdown>,
    started_ns: u64,
    /// When the first view held, and when all monitors were connected (core 0 only).
    up_ns: u64,
    connected_ns: u64,
    /// The CPU driver may have something new since it was asked, so many turns ago.
    has_news: bool,
    /// It has not, but what it had could not be served, and is looked at again after the next sleep.
    looks_next_time: bool,
    /// A domain of this core was answered in this turn.
    has_answered: bool,
    turns: u32,
}

/// Core 0 is about to power off: who has still to send its last lines.
struct Shutdown {
    status: i32,
    waiting: CoreSet,
    deadline_ns: u64,
}

fn main() -> i32 {
    traces::phase(2);
    let started_ns = clock::now_ns();
    let (own, life) = (rt::startup().core as usize, rt::startup().life);
    let store = Store::new().and_then(|mut store| {
        let (private, _) = store.pages();
        store.extend_heap((private / HEAP_SHARE).min(MAX_HEAP_PAGES))?;
        Ok(store)
    });
    let store = match store {
        Ok(store) => store,
        Err(error) => rt::abort(format_args!(
            "a monitor cannot take over what is its: {error:?}"
        )),
    };
    let cores = authority::machine().cores().len();
    let patience_ns = PATIENCE_NS + cores as u64 * PATIENCE_PER_CORE_NS;
    let machine = Arc::new(machine_for_trees());
    // A core that comes back is in no view, but those in its starter's know of its former life.
    let (formation, agent, others) = match life {
        0 => (
            Formation::new(own, cores),
            Agent::new(own, patience_ns, machine),
            CoreSet::default(),
        ),
        _ => (
            Formation::over(own),
            Agent::anew(own, patience_ns, machine),
            rt::startup().cores().filter(|core| *core != own).collect(),
        ),
    };
    let mut monitor = Monitor {
        own,
        mesh: Mesh::new(own, &store),
        store,
        console: Console::new(own),
        kernel_log: KernelLog::new(),
        cores: others.clone(),
        strategies: Strategies::default(),
        is_member: false,
        formation,
        agent,
        decided: VecDeque::new(),
        is_carrying_out: false,
        awake: Awake::new(patience_ns / 4 * 3, started_ns),
        domains: Domains::new(life),
        requests: Requests::new(life),
        family: Family::default(),
        devices: Devices::default(),
        registry: Registry::default(),
        transfers: Transfers::default(),
        spans: Spans::new(life),
        loans: Loans::default(),
        restarts: Restarts::default(),
        traces: Traces::default(),
        program: None,
        shutdown: None,
        started_ns,
        up_ns: 0,
        connected_ns: 0,
        has_news: true,
        looks_next_time: false,
        has_answered: false,
        turns: 0,
    };
    authority::running(0);
    if life > 0 {
        // Any of them may ask it to join.
        for core in others.iter() {
            monitor.mesh.connect(&mut monitor.store, core);
        }
        let sponsor = (rt::startup().parent >> 32) as usize;
        let up = urpc::Message::new(mesh::UP, [0; 7]);
        monitor.mesh.send(&mut monitor.store, sponsor, &up);
        monitor.serve()
    }
    if own == 0 {
        // What a core has to say before it has joined must find somebody who listens.
        for core in 1..cores {
            monitor.mesh.connect(&mut monitor.store, core);
        }
        monitor.introduce_machine();
        monitor.open_devices();
    } else {
        monitor.mesh.connect(&mut monitor.store, 0);
    }
    let actions = monitor.formation.start(clock::now_ns());
    let boots = |action: &formation::Action| matches!(action, formation::Action::Boot(_));
    if actions.iter().any(boots) {
        traces::phase(3);
    }
    monitor.form(actions);
    monitor.serve()
}

/// What the machine's own tables say of the way between nodes, as costs, for what was not or cannot be
/// measured: messages between nodes take longer by their distance, of which the firmware says 10 for
/// a node and itself.
fn machine_for_trees() -> tree::Machine {
    let machine = authority::machine();
    let nodes = machine.cores().iter().map(|core| core.node as usize);
    tree::Machine::new(nodes.collect(), |from, to| {
        let known = machine.distance.get(from).and_then(|row| row.get(to));
        let distance = match known.copied().unwrap_or(0) {
            0 if from == to => 10,
            0 => 20,
            known => u32::from(known),
        };
        tree::Cost {
            send_ns: SEND_NS * distance / 10,
            latency_ns: LATENCY_NS * distance / 10,
            receive_ns: RECEIVE_NS * distance / 10,
        }
    })
}

/// Whether this is heard of a core that is in no view any more: whether others are up, how its
/// domains ended and what they were answered before, its text.
fn is_last_word(kind: u16) -> bool {
    use protocols::kinds::{CONSOLE, MEMBERSHIP};
    let of_requests = [mesh::EXITED, rt::interface::REPLY | mesh::FORWARDED];
    MEMBERSHIP.contains(&kind) || CONSOLE.contains(&kind) || of_requests.contains(&kind)
}

impl Monitor {
    /// Serves for ever: whatever arrives, and what the clock brings.
    ///
    /// A turn that only answered what had arrived is not followed by another that would find nothing: whoever
    /// asked may run on this very core, and does when the monitor sleeps. What arrives meanwhile, the last look
    /// before it sleeps finds. Another turn follows where one part of it may have left something to do for another.
    fn serve(&mut self) -> ! {
        loop {
            let looks = self.looks_at_kernel();
            let mut goes_on = looks && self.read_kernel_log();
            self.receive_from_monitors();
            goes_on |= self.serve_domains(looks);
            // Others can go to work while this core does the rest.
            goes_on |= self.mesh.flush();
            goes_on |= self.tick();
            goes_on |= self.serve_forgets();
            goes_on |= self.serve_transfers(looks);
            goes_on |= self.mesh.flush();
            goes_on |= self.console.write();
            self.power_off_if_done();
            if !goes_on && !self.has_news && self.mesh.is_settled() && !self.hears_more() {
                self.sleep();
            }
        }
    }

    /// Whether more has come of other monitors, where it may be worth a moment: in the middle of an exchange with
    /// them, when no domain of this core waits to go on with what it was answered.
    fn hears_more(&mut self) -> bool {
        let exchanges = self.mesh.take_traffic();
        if core::mem::take(&mut self.has_answered) || !exchanges {
            return false;
        }
        core::hint::spin_loop();
        !self.mesh.may_sleep()
    }

    /// Whether to ask the CPU driver what is new: it says when there is anything, and asking costs
    /// system calls. Who is too busy to sleep, and so to be told, asks now and then.
    fn looks_at_kernel(&mut self) -> bool {
        self.turns += 1;
        let looks = core::mem::take(&mut self.has_news) || self.turns >= TURNS;
        if looks {
            self.turns = 0;
        }
        looks
    }

    /// Blocks until somebody rings or something is due.
    fn sleep(&mut self) {
        let backed_up = self.console.is_backed_up(&self.mesh);
        if backed_up && self.own == 0 {
            // Nothing is listened to until the serial port has taken some of the text.
            authority::wait(Some(clock::now_ns() + console::RETRY_NS));
            self.has_news = true;
            return;
        }
        self.mesh.announce_sleep();
        self.domains.announce_sleep(!backed_up);
        urpc::full_fence();
        if self.mesh.may_sleep() && self.domains.may_sleep(!backed_up) {
            self.has_news |= authority::wait(self.deadline_ns());
            self.has_news |= core::mem::take(&mut self.looks_next_time);
        }
        self.mesh.awake();
        self.domains.awake();
    }

    fn deadline_ns(&self) -> Option<u64> {
        let shutdown = self.shutdown.as_ref().map(|shutdown| shutdown.deadline_ns);
        [
            self.formation.deadline_ns(),
            self.agent.deadline_ns().map(|at| self.awake.real(at)),
            self.console.deadline_ns(),
            self.spans.deadline_ns(),
            self.transfers.deadline_ns(),
            self.loans.deadline_ns(),
            self.restarts.deadline_ns(),
            self.clocks_deadline_ns(),
            shutdown,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Says something, with this core's prefix.
    fn log(&mut self, line: &str) {
        self.console.log(&mut self.mesh, line.as_bytes());
    }

    fn read_kernel_log(&mut self) -> bool {
        if self.console.is_backed_up(&self.mesh) {
            return false; // the ring keeps the newest
        }
        let mut text = Vec::new();
        let lost = self.kernel_log.read(&mut text);
        if lost > 0 {
            self.log(&format!(
                "{lost} bytes of this core's log were overwritten before they were read"
            ));
        }
        self.console.add_kernel_log(&mut self.mesh, &text);
        !text.is_empty()
    }

    fn receive_from_monitors(&mut self) {
        for index in 0..self.mesh.connected() {
            let peer = self.mesh.peer(index);
            for _ in 0..PEER_BATCH {
                if self.own == 0 && self.console.is_backed_up(&self.mesh) {
                    break;
                }
                self.strategies.takes_from(peer);
                let Some(message) = self.mesh.receive(peer) else {
                    break;
                };
                self.on_message(peer, &message);
            }
        }
        for peer in self.mesh.take_ended() {
            self.log(&format!(
                "the channel to core {peer} ended: nothing more is sent there"
            ));
        }
    }

    fn on_message(&mut self, from: usize, message: &urpc::Message) {
        let (kind, words) = (message.kind(), &message.payload);
        if self.mesh.is_lost(from) && !is_last_word(kind) {
            // It is asked for nothing any more, and nothing is done for it.
        } else if Agent::is_ours(kind) {
            traces::step(0, words[0], kind);
            let (now_ns, words) = (self.awake_ns(), *words);
            let actions = self.agent.on_message(from, &Line { kind, words }, now_ns);
            self.carry_out(actions);
        } else if let Some(message) = formation::Message::decode(kind, words) {
            let actions = self.formation.on_message(from, &message, clock::now_ns());
            self.form(actions);
        } else if message.kind() == mesh::FLUSH {
            self.flush_for_power_off(from);
        } else if message.kind() == mesh::FLUSHED {
            if let Some(shutdown) = &mut self.shutdown {
                shutdown.waiting.remove(from);
            }
        } else if !self.console.on_message(from, message)
            && !self.on_restart_message(from, message)
            && !self.on_request_message(from, message)
            && !self.on_span_message(from, message)
            && !self.on_trace_message(from, message)
        {
            self.log(&format!(
                "core {from} sent a message of unknown kind {:#x}",
                message.kind()
            ));
        }
    }

    /// The view that holds: the first one, or what became of it.
    fn view(&self) -> &View {
        let later = self.agent.view();
        if later.cores.is_empty() {
            return self.formation.view();
        }
        later
    }

    /// Time has passed; whether anything came of it.
    fn tick(&mut self) -> bool {
        let now_ns = clock::now_ns();
        let formed = self.formation.on_tick(now_ns);
        let changed = self.agent.on_tick(self.awake.at(now_ns));
        let busy = !(formed.is_empty() && changed.is_empty());
        self.send_freed_if_due(now_ns);
        self.form(formed);
        self.carry_out(changed);
        busy | self.loans_tick(now_ns) | self.restarts_tick(now_ns) | self.clocks_tick(now_ns)
    }

    /// Does what forming the first view takes.
    fn form(&mut self, actions: Vec<formation::Action>) {
        use formation::Action;
        for action in actions {
            match action {
                Action::Boot(core) => self.boot(core),
                Action::Send(to, message) => {
                    match message {
                        formation::Message::Joined(_) => traces::phase(4),
                        formation::Message::Connected(_) => traces::phase(6),
                        _ => {}
                    }
                    let (kind, words) = message.encode();
                    self.mesh
                        .send(&mut self.store, to, &urpc::Message::new(kind, words));
                }
                Action::GiveUp(core, progress) => {
                    let how_far = match progress {
                        Progress::Booting => "its monitor did not start",
                        _ => "its monitor started, but what it brings up did not all join",
                    };
                    self.log(&format!(
                        "core {core} is given up: {how_far}; going on without it"
                    ));
                    // It has no part in the system, however late it may come.
                    let _ = authority::reset_core(core);
                }
                Action::Installed(view) => {
                    if self.own == 0 {
                        traces::phase(4);
                        self.up_ns = clock::now_ns();
                        let (up, all) = (view.cores.len(), authority::machine().cores().len());
                        self.log_phase(&format!("{up} of {all} cores up"));
                    }
                    traces::phase(5);
                    let now_ns = self.awake_ns();
                    let begin = self.agent.with_membership(|one| one.begin(view, now_ns));
                    self.carry_out(begin);
                }
                Action::AllConnected => {
                    let up = self.view().cores.len();
                    self.connected_ns = clock::now_ns();
                    traces::phase(6);
                    self.log_phase(&format!("{up} monitors connected, each with each"));
                    self.compare_clocks(Then::Program);
                }
            }
        }
    }

    /// Does what the protocols decided, in the order in which they did: what comes of one action goes
    /// behind all that were decided before it, or messages would overtake each other.
    fn carry_out(&mut self, actions: Vec<agent::Action>) {
        self.decided.extend(actions);
        if self.is_carrying_out {
            return;
        }
        self.is_carrying_out = true;
        self.spans.begin();
        while let Some(action) = self.decided.pop_front() {
            self.carry_out_one(action);
        }
        self.is_carrying_out = false;
        self.settle_spans();
    }

    fn carry_out_one(&mut self, action: agent::Action) {
        use agent::Action;
        match action {
            Action::Send(to, Line { kind, words }) => {
                self.mesh
                    .send(&mut self.store, to, &urpc::Message::new(kind, words));
            }
            Action::Fence(core) => {
                self.log(&format!("core {core} does not answer: it is stopped"));
                if let Err(error) = authority::reset_core(core) {
                    self.log(&format!("core {core} cannot be stopped: {error:?}"));
                }
            }
            Action::Installed(view) => self.installed(view),
            Action::Out(view) => {
                // Only who asked for it is left out while it runs.
                self.log(&format!("out of the view of epoch {:?}", view.epoch));
                self.mesh.flush();
                self.stop();
            }
            Action::Names(action) => self.on_names(&action),
            Action::Regions(action) => self.on_regions(action),
            Action::Spaces(action) => self.on_spaces(action),
            Action::Lending(action) => self.on_lending(&action),
            Action::Ping { to, number, line } => self.send_ping(to, number, line),
            Action::Answer { to, number } => self.answer_ping(to, number),
            Action::Surveyed(number) => self.surveyed(number),
        }
    }

    /// Another view holds: whatever cores that were lost owe, they do not give any more.
    fn installed(&mut self, view: View) {
        authority::running(u64::from(view.epoch.round));
        let mut lost = self.cores.clone();
        lost.subtract(&view.cores);
        let mut come = view.cores.clone();
        come.subtract(&self.cores);
        come.remove(self.own);
        let is_first = !self.is_member;
        self.is_member = true;
        for core in lost.iter() {
            if is_first {
                self.mesh.disconnect(&mut self.store, core);
            }
            self.mesh.lose(core);
            // How its domains ended before it left is among its last words.
            while let Some(message) = self.mesh.receive(core) {
                self.on_message(core, &message);
            }
            self.forget_requests_to(core);
            self.children_lost_with(core);
            self.spans_lost_with(core);
            self.traces_lost_with(core);
            if let Some(shutdown) = &mut self.shutdown {
                shutdown.waiting.remove(core);
            }
        }
        if view.coordinator() == Some(self.own) && !lost.is_empty() {
            let (up, epoch) = (view.cores.len(), view.epoch);
            let lost: Vec<usize> = lost.iter().collect();
            self.log_phase(&format!(
                "view {epoch:?}: {up} cores go on without {lost:?}"
            ));
        }
        self.answer_configured(view.settings);
        // The first view's cores hear from each other in its forming.
        if !self.cores.is_empty() {
            for core in come.iter() {
                self.mesh.connect(&mut self.store, core);
                self.trace_core_that_came(core);
            }
            if view.coordinator() == Some(self.own) && !come.is_empty() {
                let (up, epoch) = (view.cores.len(), view.epoch);
                let come: Vec<usize> = come.iter().collect();
                self.log_phase(&format!("view {epoch:?}: {up} cores, {come:?} came back"));
            }
        }
        self.cores = view.cores;
        self.restarts_installed();
    }

    /// The time by which others are waited for.
    fn awake_ns(&mut self) -> u64 {
        self.awake.at(clock::now_ns())
    }

    fn boot(&mut self, core: usize) {
        // Its first message must find somebody who listens.
        self.mesh.connect(&mut self.store, core);
        // It waits meanwhile, and a doorbell that rings is taken.
        self.has_news = true;
        if let Err(error) = boot::boot(&mut self.store, core, None) {
            self.log(&format!("core {core} cannot be started: {error}"));
            let actions = self.formation.boot_failed(core);
            self.form(actions);
        }
    }

    fn introduce_machine(&mut self) {
        let machine = authority::machine();
        let ram: u64 = machine.ram().iter().map(|range| range.bytes).sum();
        let line = format!(
            "Atoll: {} cores, {} nodes, {} MiB of RAM, {} MiB a core; figures are of `{}`",
            machine.cores().len(),
            machine.node_count,
            ram >> 20,
            (machine.cores[0].private_bytes + machine.cores[0].shared_bytes) >> 20,
            rt::startup().accelerator(),
        );
        self.log(&line);
        let ns = self.started_ns;
        self.log(&format!(
            "CPU driver and monitor of core 0 up after {}.{:03} ms",
            ns / 1_000_000,
            ns / 1000 % 1000
        ));
    }

    fn log_phase(&mut self, what: &str) {
        let ns = clock::now_ns();
        self.log(&format!(
            "{what} after {}.{:03} ms",
            ns / 1_000_000,
            ns / 1000 % 1000
        ));
    }

    fn start_program(&mut self) {
        let Some(words) = CommandLine::parse(authority::machine().command_line()).program else {
            self.log("no program on the command line: the system idles");
            return;
        };
        traces::phase(7);
        let mut text = Vec::new();
        for (index, word) in words.split_ascii_whitespace().enumerate() {
            if index > 0 {
                text.push(0);
            }
            text.extend_from_slice(word.as_bytes());
        }
        let text = Text {
            arguments: text,
            environment: Vec::new(),
        };
        let spawn = Spawn {
            text,
            frame: None,
            parent: 0,
            job: None,
            gift: None,
            traced: None,
            member: None,
        };
        match self.spawn(&spawn) {
            Ok(domain) => self.program = Some(domain),
            Err(error) => {
                self.log(&format!(
                    "`{words}` cannot be started: {error}; there are: {}",
                    bundle::names()
                ));
                self.begin_power_off(127);
            }
        }
    }

    /// A domain of this core ended.
    fn domain_ended(&mut self, id: u64, status: i32) {
        if self.program == Some(id) {
            self.compare_clocks(Then::PowerOff(status));
        }
    }

    /// Asks all cores for their last lines before the power goes.
    fn begin_power_off(&mut self, status: i32) {
        traces::phase(8);
        let others: CoreSet = self
            .view()
            .cores
            .iter()
            .filter(|core| *core != self.own)
            .collect();
        for core in others.iter() {
            self.mesh.send(
                &mut self.store,
                core,
                &urpc::Message::new(mesh::FLUSH, [0; 7]),
            );
        }
        self.shutdown = Some(Shutdown {
            status,
            waiting: others,
            deadline_ns: clock::now_ns() + FLUSH_LIMIT_NS,
        });
    }

    /// Sends on what this core still has to say, and says that this was all.
    fn flush_for_power_off(&mut self, to: usize) {
        traces::phase(8);
        self.read_kernel_log();
        self.serve_domains(true);
        self.mesh.send(
            &mut self.store,
            to,
            &urpc::Message::new(mesh::FLUSHED, [0; 7]),
        );
    }

    fn power_off_if_done(&mut self) {
        let Some(shutdown) = &self.shutdown else {
            return;
        };
        let (status, waiting) = (shutdown.status, shutdown.waiting.clone());
        if !waiting.is_empty() {
            if clock::now_ns() < shutdown.deadline_ns {
                return;
            }
            let silent: Vec<String> = waiting.iter().map(|core| format!("{core}")).collect();
            self.log(&format!(
                "lost: core {} did not answer before power-off",
                silent.join(", ")
            ));
        }
        self.console.drain();
        authority::power_off(status)
    }
}
