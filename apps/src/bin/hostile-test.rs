//! Lets domains misbehave, and looks whether that harms anybody but themselves.
//!
//! `hostile-test [--only NAME]`
//!
//! | attack        | what hostile domains do, and what must not come of it                     |
//! |---------------|---------------------------------------------------------------------------|
//! | `frame-reuse` | die while a child is started with their frame: its RAM is not free yet    |
//! | `steal-bell`  | use a token twice: no answer is taken for that to another request         |
//! | `forge`       | send what only monitors say: it is refused, nobody gets a false answer    |
//! | `texts`       | send text without end, and never spawn: it does not pile up               |
//! | `frames`      | make frames without end: a limit holds, others still get theirs           |
//! | `children`    | start children without end and wait for none: a limit holds               |
//! | `log-flood`   | overwrite the log, again and again, with numbers out of range between     |
//! | `deaf`        | ask and never take an answer: their monitor sleeps, and can kill them     |
//! | `echo-storm`  | ask all monitors at once: the answers of others are right                 |
//! | `close`       | close the channel to their monitor: they are deaf, and can be killed      |
//! | `scribble`    | write garbage over that channel: they are killed, or can be               |
//! | `ring-storm`  | ring their monitor and other domains: nobody is lost                      |
//! | `dismantle`   | revoke, unmap and delete what they consist of: only they end              |
//! | `waits`       | wait without end for another core's domain, and die: limits hold          |
//! | `shares`      | send pages to another core without end: a limit holds                     |
//! | `squat`       | bind the name of a service: who was to export it goes on                  |
//! | `events`      | change a name that is watched and not looked at: others are told of theirs|
//!
//! Copies of the program attack, on this core and on the last one. After each attack the
//! monitors of all cores must answer, all cores start programs, and as much memory be free
//! as before. A monitor that does not answer at all shows as a run that does not end: the
//! last line names the attack.
#![no_std]
#![no_main]

extern crate alloc;

use abi::exception::PAGE_FAULT;
use abi::layout::PAGE;
use abi::limits::{ARGUMENT_BYTES, LOG_BYTES, MAX_CORES, PAGE_CHANNEL_SLOTS};
use abi::syscall::{self, FIRST_DOORBELL};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use apps::arguments::{Misuse, explain};
use core::fmt::{Debug, Write};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::capability::{self, Address, FIRST_CNODE_SLOTS, FIRST_FREE_SLOT, MEMORY_CNODE};
use rt::capability::{Kind, ROOT_CNODE, Retype, TASK_CNODE, slots};
use rt::capability::{MONITOR_DOORBELL, OWN_DISPATCHER, OWN_DOORBELL, OWN_SPACE};
use rt::connection::Connection;
use rt::frame::Frame;
use rt::interface::{self, Error, FAULT_STATUS, KILLED_STATUS};
use rt::monitor::{self, Domain};
use rt::names::{self, Change, Watch};
use rt::service::Service;
use rt::system_call::{self, LogWriter};
use rt::transfer::{self, Receiving};
use rt::{clock, dispatcher, println, space};
use urpc::{Channel, Message, ReceiveError, SendError, Side};

rt::entry!(main);

const USAGE: &str = "hostile-test [--only NAME]";
/// The word by which a copy of the program knows that it has a part to play.
const PART: &str = "part";
/// The name of a service that somebody else has.
const SERVICE: &str = "hostile-service";

/// How long something may take that comes by itself.
const PATIENCE_NS: u64 = 5_000_000_000;
/// How long to wait before looking again.
const PAUSE_NS: u64 = 1_000_000;
/// How long a storm lasts, and for how long its bystanders ask.
const STORM_NS: u64 = 150_000_000;
const BYSTANDER_NS: u64 = 200_000_000;
/// What a core may do in `CALM_NS` when nobody wants anything of it.
const CALM_NS: u64 = 50_000_000;
const CALM_CALLS: u64 = 1000;
/// Index of the counter of system calls in `abi::record::Counters`.
const SYSTEM_CALLS: u64 = 0;

/// What the monitor documents as limits of one domain.
const MAX_FRAMES: usize = 256;
const MAX_CHILDREN: usize = 512;

/// Frames that a `grab` makes: RAM that is free by mistake is among it.
const GRABBED_FRAMES: usize = 64;
/// Words of a frame that marks are written to.
const MARKED_WORDS: u64 = PAGE / 8;
/// Waits of one domain for the ends of others that may be open, and how often it tries.
const MAX_WAITS: usize = 64;
const WAITS: u64 = 1500;
/// Domains that die with their waits open: together they have more than a core keeps.
const WAITERS: usize = 20;
/// Pages that are sent to another core.
const SHARES: u64 = 12_000;
/// More changes than a domain keeps of one watch.
const CHANGES: u64 = 4200;
/// Kinds that a forger tries.
const KINDS: u16 = 0x200;
/// A domain that no core has.
const NO_DOMAIN: u64 = 0x999;

/// What is wrong, in words; the part ends with it.
type Verdict = Result<(), String>;

/// An attack: its name and what the parent does.
type Attack = (&'static str, fn(&mut Test));

const ATTACKS: [Attack; 17] = [
    ("frame-reuse", frame_reuse),
    ("steal-bell", |test| test.unleash("steal-bell", false)),
    ("forge", |test| test.unleash("forge", true)),
    ("texts", |test| test.unleash("texts", true)),
    ("frames", |test| test.unleash("frames", true)),
    ("children", |test| test.unleash("children", false)),
    ("log-flood", log_flood_there),
    ("deaf", |test| test.unleash_and_kill("deaf", &[""])),
    ("echo-storm", |test| test.unleash("echo-storm", true)),
    ("close", |test| {
        test.unleash_and_kill("close", &["idle", "asked", "deaf"]);
    }),
    ("scribble", |test| {
        test.unleash_and_kill(
            "scribble",
            &["ones", "zeros", "own", "noise", "storm", "deaf"],
        );
    }),
    ("ring-storm", ring_storm),
    ("dismantle", dismantling),
    ("waits", waiting),
    ("shares", sharing),
    ("squat", squatting),
    ("events", |test| {
        let domain = test.begin(test.here, &["events"]);
        test.end("events", domain, 0);
    }),
];

fn main() -> i32 {
    let mut words = rt::startup().arguments().skip(1);
    if words.next() == Some(PART) {
        let part = words.next().unwrap_or("");
        return match play(part, &words.collect::<Vec<_>>()) {
            Ok(status) => status,
            Err(complaint) => {
                // Not by way of the monitor: to some parts that is closed.
                let _ = writeln!(LogWriter, "{part}: {complaint}");
                1
            }
        };
    }
    match only() {
        Ok(name) => run(name),
        Err(misuse) => explain(&misuse, USAGE),
    }
}

/// The name of the one attack to run, if one is given.
fn only() -> Result<Option<&'static str>, Misuse> {
    let mut only = None;
    let mut words = rt::startup().arguments().skip(1);
    while let Some(word) = words.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word, None),
        };
        if option != "--only" {
            return Err(Misuse::Unknown(word.to_string()));
        }
        let value = value.or_else(|| words.next());
        let value = value.ok_or_else(|| Misuse::NoValue(option.to_string()))?;
        let attack = ATTACKS.iter().find(|(name, _)| *name == value);
        only = Some(attack.ok_or_else(|| Misuse::Unknown(value.to_string()))?.0);
    }
    Ok(only)
}

fn run(only: Option<&str>) -> i32 {
    let mut test = Test::new();
    // What monitors set up at the first time is there before memory is counted.
    test.unleash_on_all("acquaintance");
    test.memory = test.memory_now();
    for (name, attack) in ATTACKS {
        if only.is_none_or(|only| only == name) {
            println!("hostile-test: {name}");
            test.attack = name;
            attack(&mut test);
            test.look_around();
        }
    }
    println!(
        "hostile-test: {} cores, {} checks",
        test.cores.len(),
        test.checks
    );
    if test.bad > 0 {
        println!("hostile-test: failed: {} checks", test.bad);
        return 1;
    }
    println!("hostile-test: passed");
    0
}

/// What the parent knows.
struct Test {
    cores: Vec<usize>,
    here: usize,
    /// The cores that are attacked from: this one, and the last.
    posts: Vec<usize>,
    /// Free pages of all cores when nobody but the parent is there.
    memory: Vec<Result<(u64, u64), Error>>,
    attack: &'static str,
    checks: u64,
    bad: u64,
}

impl Test {
    fn new() -> Self {
        let start = rt::startup();
        let cores: Vec<usize> = start.cores().collect();
        let here = start.core as usize;
        let mut others = cores.iter().copied().filter(|core| *core != here);
        let posts = [here].into_iter().chain(others.next_back()).collect();
        Self {
            cores,
            here,
            posts,
            memory: Vec::new(),
            attack: "before all attacks",
            checks: 0,
            bad: 0,
        }
    }

    fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.checks += 1;
        if found != expected {
            self.bad += 1;
            let attack = self.attack;
            println!("hostile-test: {attack}: {what}: expected {expected:?}, found {found:?}");
        }
    }

    /// Starts a copy with a part to play.
    fn begin(&mut self, core: usize, words: &[&str]) -> Option<Domain> {
        let arguments = [&["hostile-test", PART], words].concat();
        let domain = patiently(|| monitor::spawn(core, &arguments, None));
        self.expect(&format!("start of {words:?}"), &domain.map(|_| ()), &Ok(()));
        domain.ok()
    }

    /// Waits for a copy, whose status must be this.
    fn end(&mut self, what: &str, domain: Option<Domain>, status: i32) {
        if let Some(domain) = domain {
            let found = monitor::wait(domain);
            let what = format!("status of {what} on core {}", domain.core());
            self.expect(&what, &found, &Ok(status));
        }
    }

    /// Plays a part on all cores.
    fn unleash_on_all(&mut self, part: &str) {
        for core in self.cores.clone() {
            let domain = self.begin(core, &[part]);
            self.end(part, domain, 0);
        }
    }

    /// Attacks from all posts at once, beside bystanders if asked for. An attacker ends by
    /// itself, and says what it should not have found.
    fn unleash(&mut self, part: &str, bystanders: bool) {
        let mut domains = Vec::new();
        for core in self.posts.clone() {
            if bystanders {
                domains.push(("bystander", self.begin(core, &["bystander"])));
            }
            domains.push((part, self.begin(core, &[part])));
        }
        for (part, domain) in domains {
            self.end(part, domain, 0);
        }
    }

    /// Attacks from all posts in several ways at once. An attacker sleeps in the end: its
    /// core does so too, and it is killed, if its monitor did not do that.
    fn unleash_and_kill(&mut self, part: &str, ways: &[&str]) {
        let mut domains = Vec::new();
        for core in self.posts.clone() {
            for way in ways {
                domains.push((*way, self.begin(core, &[part, way])));
            }
        }
        // They come to rest meanwhile; how far they are is not to be asked of them.
        clock::sleep_ns(CALM_NS + STORM_NS);
        for core in self.posts.clone() {
            self.expect_calm(core);
        }
        for (way, domain) in domains {
            let Some(domain) = domain else { continue };
            let killed = patiently(|| monitor::kill(domain));
            let known = matches!(killed, Ok(()) | Err(Error::NoSuchDomain));
            self.expect(&format!("kill of {way}, {killed:?}"), &known, &true);
            self.end(way, Some(domain), KILLED_STATUS);
        }
    }

    /// A core whose domains all sleep sleeps too: its monitor does not wait by polling.
    fn expect_calm(&mut self, core: usize) {
        let calls = || {
            let counter = [SYSTEM_CALLS, 0, 0, 0, 0, 0];
            patiently(|| monitor::ask(core, interface::COUNTER, counter))
                .map_or(0, |results| results[0])
        };
        let deadline = clock::now_ns() + PATIENCE_NS;
        let mut made;
        loop {
            let before = calls();
            clock::sleep_ns(CALM_NS);
            made = calls() - before;
            if made <= CALM_CALLS || clock::now_ns() >= deadline {
                break;
            }
        }
        let what = format!("calm on core {core}, where {made} system calls were made");
        self.expect(&what, &(made <= CALM_CALLS), &true);
    }

    fn memory_now(&self) -> Vec<Result<(u64, u64), Error>> {
        let memory = |core: &usize| patiently(|| monitor::memory(*core));
        self.cores.iter().map(memory).collect()
    }

    /// Whether all is as it was before an attack.
    fn look_around(&mut self) {
        for core in self.cores.clone() {
            let word = core as u64 + 0xe0;
            let echo = patiently(|| monitor::ask(core, interface::ECHO, [word; 6]));
            self.expect(&format!("echo of core {core}"), &echo, &Ok([word; 5]));
            let child = patiently(|| monitor::spawn(core, &["exit", "77"], None));
            let status = child.and_then(monitor::wait);
            self.expect(&format!("a program on core {core}"), &status, &Ok(77));
        }
        // What domains without parents held is free when the news of their ends are around.
        let deadline = clock::now_ns() + PATIENCE_NS;
        let mut memory = self.memory_now();
        while memory != self.memory && clock::now_ns() < deadline {
            clock::sleep_ns(PAUSE_NS);
            memory = self.memory_now();
        }
        let before = self.memory.clone();
        self.expect("free pages, private and shared", &memory, &before);
        // One difference is one complaint.
        self.memory = memory;
    }
}

/// Asks again while the monitor is busy with the requests of others.
fn patiently<T>(mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let deadline = clock::now_ns() + PATIENCE_NS;
    loop {
        match ask() {
            Err(Error::Busy) if clock::now_ns() < deadline => clock::sleep_ns(PAUSE_NS),
            answer => return answer,
        }
    }
}

/// A domain makes a frame, has another core start a child with it, and dies before that is
/// done. While the child lives, nobody else must get the frame's RAM.
///
/// The child waits until the `gate` is gone; the `umpire` hears that its frame was well.
fn frame_reuse(test: &mut Test) {
    let here = test.here;
    let mut pairs = [(here, here)].to_vec();
    for far in test.posts.iter().copied().filter(|core| *core != here) {
        pairs.extend([(here, far), (far, here)]);
    }
    for (makers, childs) in pairs {
        let (Some(gate), Some(umpire)) =
            (test.begin(here, &["idle"]), test.begin(here, &["umpire"]))
        else {
            return;
        };
        let [core, gate_word, umpire_word] =
            [childs as u64, gate.0, umpire.0].map(|n| n.to_string());
        let maker = test.begin(makers, &["maker", &core, &gate_word, &umpire_word]);
        let page = maker.map_or(Err(Error::NoSuchDomain), monitor::wait);
        test.expect("the maker's frame", &page.is_ok_and(|page| page > 1), &true);
        let grab = test.begin(makers, &["grab", &page.unwrap_or(0).to_string()]);
        test.end("a grab while the child starts", grab, 0);
        test.expect("kill of the gate", &monitor::kill(gate), &Ok(()));
        test.end("the gate", Some(gate), KILLED_STATUS);
        test.end("a child with a dead maker's frame", Some(umpire), 0);
    }
}

/// A log is flooded, on one core only: all that is not overwritten is printed.
fn log_flood_there(test: &mut Test) {
    let core = test.posts.last().copied().unwrap_or(test.here);
    let parts = ["bystander", "log-flood"];
    let domains = parts.map(|part| (part, test.begin(core, &[part])));
    for (part, domain) in domains {
        test.end(part, domain, 0);
    }
}

/// Domains are rung by others of their job without a message, while they work.
fn ring_storm(test: &mut Test) {
    let mut domains = Vec::new();
    for core in test.posts.clone() {
        domains.push(("bystander", test.begin(core, &["bystander"])));
    }
    let victims: Vec<String> = domains
        .iter()
        .filter_map(|(_, domain)| domain.map(|domain| domain.0.to_string()))
        .collect();
    let mut words = ["ring-storm"].to_vec();
    words.extend(victims.iter().map(String::as_str));
    for core in test.posts.clone() {
        domains.push(("ring-storm", test.begin(core, &words)));
    }
    for (part, domain) in domains {
        test.end(part, domain, 0);
    }
}

/// How they end is their matter.
fn dismantling(test: &mut Test) {
    let mut domains = Vec::new();
    for core in test.posts.clone() {
        for way in ["revoke", "unmap", "delete", "cnodes", "stop"] {
            domains.push((way, test.begin(core, &["dismantle", way])));
        }
    }
    clock::sleep_ns(STORM_NS);
    for (way, domain) in domains {
        let Some(domain) = domain else { continue };
        let killed = patiently(|| monitor::kill(domain));
        let known = matches!(killed, Ok(()) | Err(Error::NoSuchDomain));
        test.expect(&format!("kill of {way}, {killed:?}"), &known, &true);
        let status = monitor::wait(domain);
        // It can find what should not be, and say so.
        let fair = [0, KILLED_STATUS, FAULT_STATUS + PAGE_FAULT as i32];
        let fair = status.is_ok_and(|status| fair.contains(&status));
        test.expect(&format!("the end of {way}, {status:?}"), &fair, &true);
    }
}

/// Domains wait for one of another core that does not end, as often as they can, and die.
fn waiting(test: &mut Test) {
    let (here, far) = (test.here, elsewhere());
    if here == far {
        return;
    }
    let Some(target) = test.begin(far, &["idle"]) else {
        return;
    };
    for _ in 0..WAITERS {
        let waiter = test.begin(here, &["waits", &target.0.to_string()]);
        test.end("waits", waiter, 0);
    }
    let echo = patiently(|| monitor::ask(far, interface::ECHO, [1; 6]));
    test.expect("an echo after all waits", &echo, &Ok([1; 5]));
    test.expect("kill of the target", &monitor::kill(target), &Ok(()));
    test.end("the target", Some(target), KILLED_STATUS);
}

/// A domain sends another core's more pages than the monitors may keep in mind.
fn sharing(test: &mut Test) {
    let (here, far) = (test.here, elsewhere());
    if here == far {
        return;
    }
    let Some(hoarder) = test.begin(far, &["hoard"]) else {
        return;
    };
    let sender = test.begin(here, &["shares", &hoarder.0.to_string()]);
    test.end("shares", sender, 0);
    test.expect("kill of the hoarder", &monitor::kill(hoarder), &Ok(()));
    test.end("the hoarder", Some(hoarder), KILLED_STATUS);
}

/// Somebody else has the name of a service.
fn squatting(test: &mut Test) {
    let Some(squatter) = test.begin(test.here, &["squatter"]) else {
        return;
    };
    let victim = test.begin(elsewhere(), &["squat"]);
    test.end("squat", victim, 0);
    test.expect("kill of the squatter", &monitor::kill(squatter), &Ok(()));
    test.end("the squatter", Some(squatter), KILLED_STATUS);
}

/// A copy's part; the exit status.
fn play(part: &str, words: &[&str]) -> Result<i32, String> {
    let number = |index: usize| {
        let word = words.get(index).and_then(|word| word.parse::<u64>().ok());
        word.ok_or_else(|| format!("a number is missing in {words:?}"))
    };
    let way = words.first().copied().unwrap_or("");
    match part {
        "acquaintance" => acquaintance(),
        "bystander" => bystander(),
        "idle" => sleep_for_ever(),
        "umpire" => umpire(),
        "maker" => return maker(number(0)? as usize, words),
        "heir" => heir(Domain(number(0)?), Domain(number(1)?)),
        "grab" => grab(number(0)?),
        "steal-bell" => steal_bell(),
        "forge" => forge(),
        "texts" => texts(),
        "frames" => frames(),
        "one-frame" => monitor::frame(1)
            .map(|_| ())
            .map_err(|error| error.to_string()),
        "children" => children(),
        "log-flood" => log_flood(),
        "deaf" => deaf(),
        "echo-storm" => echo_storm(),
        "close" => close(way),
        "scribble" => scribble(way),
        "dismantle" => dismantle(way),
        "waits" => waits(number(0)?),
        "hoard" => hoard(),
        "shares" => shares(Domain(number(0)?)),
        "squatter" => squatter(),
        "squat" => squat(),
        "events" => events(),
        "ring-storm" => {
            let victims: Result<Vec<_>, _> = (0..words.len()).map(number).collect();
            ring(&victims?)
        }
        _ => Err("there is no such part".to_string()),
    }
    .map(|()| 0)
}

fn here() -> usize {
    rt::startup().core as usize
}

fn cores() -> Vec<usize> {
    rt::startup().cores().collect()
}

/// The last core that is not this one; this one if it is alone.
fn elsewhere() -> usize {
    let others = rt::startup().cores().filter(|core| *core != here());
    others.last().unwrap_or(here())
}

fn check<T: PartialEq + Debug>(what: &str, found: &T, expected: &T) -> Verdict {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, found {found:?}"))
}

fn sleep_for_ever() -> ! {
    loop {
        system_call::wait(None);
    }
}

/// Has something to do with all monitors.
fn acquaintance() -> Verdict {
    for core in cores() {
        let child = monitor::spawn(core, &["exit", "3"], None);
        check("a first child", &child.and_then(monitor::wait), &Ok(3))?;
    }
    let frame = monitor::frame(1);
    check(
        "a first frame",
        &frame.map(|frame| frame.bytes()),
        &Ok(PAGE as usize),
    )
}

/// Works as a decent domain does: all monitors answer it what it asked.
fn bystander() -> Verdict {
    let cores = cores();
    let mut answered = alloc::vec![0u64; cores.len()];
    let (start, mut word) = (clock::now_ns(), rt::startup().domain << 20);
    // Longer if it must be, until all have answered.
    while clock::now_ns() < start + BYSTANDER_NS
        || (answered.contains(&0) && clock::now_ns() < start + PATIENCE_NS)
    {
        for (core, answered) in cores.iter().zip(&mut answered) {
            word += 1;
            match monitor::ask(*core, interface::ECHO, [word; 6]) {
                Err(Error::Busy) => clock::sleep_ns(PAUSE_NS),
                answer => {
                    check("a bystander's echo", &answer, &Ok([word; 5]))?;
                    *answered += 1;
                }
            }
        }
    }
    check("a core without answers", &answered.contains(&0), &false)
}

/// Waits to be rung, with a deadline. It asks its monitor for nothing, so nobody else rings.
fn umpire() -> Verdict {
    let rung = system_call::wait(Some(clock::now_ns() + PATIENCE_NS));
    check("the umpire was rung", &rung, &true)
}

/// Makes a frame, asks for a child with it, and does not wait for that. Its status says
/// which page of RAM the frame is.
fn maker(core: usize, words: &[&str]) -> Result<i32, String> {
    let frame = monitor::frame(1).map_err(|error| error.to_string())?;
    let arguments = [
        &["hostile-test", PART, "heir"],
        words.get(1..).unwrap_or(&[]),
    ]
    .concat();
    let _token = monitor::begin_spawn(core, &arguments, Some(&frame)).map_err(|e| e.to_string())?;
    Ok((frame.id() / PAGE) as i32)
}

/// Has the frame of a dead maker; marks it, and rings the umpire if the marks stay.
fn heir(gate: Domain, umpire: Domain) -> Verdict {
    let maker = Domain(rt::startup().parent);
    let frame = Frame::of_parent().ok_or("no frame")?;
    check("the heir's frame", &frame.bytes(), &(PAGE as usize))?;
    mark(rt::startup().frame, 0x5eed);
    for gone in [maker, gate] {
        let deadline = clock::now_ns() + PATIENCE_NS;
        while is_listed(gone)? {
            if clock::now_ns() >= deadline {
                return Err(format!("{gone:x?} does not end"));
            }
            clock::sleep_ns(PAUSE_NS);
        }
    }
    let grab = ["hostile-test", PART, "grab", "0"];
    let grabbed = patiently(|| monitor::spawn(maker.core(), &grab, None)).and_then(monitor::wait);
    check("the heir's grab", &grabbed, &Ok(0))?;
    check_marks(rt::startup().frame, 0x5eed)?;
    let doorbell = monitor::doorbell(umpire).map_err(|error| error.to_string())?;
    check("ring of the umpire", &system_call::ring(doorbell), &Ok(()))
}

/// Whether a domain is there still.
fn is_listed(domain: Domain) -> Result<bool, String> {
    let listed = patiently(|| monitor::list(domain.core())).map_err(|error| error.to_string())?;
    Ok(listed.iter().any(|other| other.domain == domain))
}

/// Makes many frames: they are zero, none is the page that another has, and marks stay.
fn grab(page: u64) -> Verdict {
    let mut marks = Vec::new();
    for index in 0..GRABBED_FRAMES as u64 {
        let question = [PAGE, 0, 0, 0, 0, 0];
        let made = monitor::ask(here(), interface::FRAME, question);
        let [address, _, id, ..] = made.map_err(|error| error.to_string())?;
        if id / PAGE == page {
            return Err(format!("the frame {id:#x} has two owners"));
        }
        check_words(address, |_| 0)?;
        mark(address, index);
        marks.push((address, index));
    }
    for (address, seed) in marks {
        check_marks(address, seed)?;
    }
    Ok(())
}

/// A word of memory that others may write to.
fn word(address: u64, index: u64) -> &'static AtomicU64 {
    // SAFETY: called for pages only that are mapped, readable and writable, for the life of
    // the domain: frames, and the channel to the monitor. Nothing here holds a reference to
    // them but to atomic words.
    unsafe { &*((address + index * 8) as *const AtomicU64) }
}

fn mark(frame: u64, seed: u64) {
    for index in 0..MARKED_WORDS {
        word(frame, index).store(noise(seed, index), Ordering::Relaxed);
    }
}

fn check_marks(frame: u64, seed: u64) -> Verdict {
    check_words(frame, |index| noise(seed, index))
}

fn check_words(frame: u64, expected: impl Fn(u64) -> u64) -> Verdict {
    for index in 0..MARKED_WORDS {
        let found = word(frame, index).load(Ordering::Relaxed);
        if found != expected(index) {
            return Err(format!(
                "word {index} of the frame at {frame:#x} is {found:#x}"
            ));
        }
    }
    Ok(())
}

/// A number that looks random, and is the same each time.
fn noise(seed: u64, index: u64) -> u64 {
    let mut z = (seed << 32 | index)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 31)
}

/// The channel to the monitor, without what `rt::monitor` does about it.
struct Bare(Connection);

impl Bare {
    /// Takes the channel; nothing of this part may use `rt::monitor`.
    fn take() -> Self {
        let page = rt::startup().monitor_channel as *mut u8;
        // SAFETY: the monitor mapped the page for this channel, for the life of the domain,
        // and parts that call this never cause `rt::monitor` to attach it too.
        let channel = unsafe { Channel::attach(page, PAGE_CHANNEL_SLOTS, Side::B) };
        Self(Connection::on_this_core(channel, Some(MONITOR_DOORBELL)))
    }

    /// A request, with a token of the caller's choice.
    fn request(token: u32, core: usize, kind: u16, argument: u64) -> Message {
        let route = u64::from(token) | (core as u64) << 32;
        Message::new(kind, [route, argument, 0, 0, 0, 0, 0])
    }

    /// Sends; the answers have room meanwhile, for they are few.
    fn send(&mut self, token: u32, core: usize, kind: u16, argument: u64) -> Verdict {
        let message = Self::request(token, core, kind, argument);
        let sent = self.0.send(&message);
        sent.map_err(|ended| format!("the channel ended: {ended:?}"))
    }

    /// Sends until nothing finds room for long, and takes no answer: then the monitor keeps
    /// as many answers as it may.
    fn fill_up(&mut self) -> Verdict {
        let (mut sent, mut tries) = (0, 0);
        let targets = cores();
        while tries < 20 {
            let core = targets[sent % targets.len()];
            let message = Self::request(sent as u32, core, interface::ECHO, sent as u64);
            match self.0.channel().send(&message) {
                Ok(()) => (sent, tries) = (sent + 1, 0),
                Err(SendError::Full) => {
                    tries += 1;
                    self.0.ring_if_needed();
                    system_call::wait(Some(clock::now_ns() + PAUSE_NS));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        self.0.ring_if_needed();
        Ok(())
    }

    /// Receives an answer: error and first result.
    fn answer(&mut self) -> Result<(Option<Error>, u64), String> {
        let message = self.0.receive();
        let message = message.map_err(|ended| format!("the channel ended: {ended:?}"))?;
        Ok((Error::from_code(message.payload[1]), message.payload[2]))
    }
}

/// Gives two requests one token: an echo of what the other might be answered with.
fn steal_bell() -> Verdict {
    let mut channel = Bare::take();
    let (near, far) = (here(), elsewhere());
    let vectors = [0, FIRST_DOORBELL, FIRST_DOORBELL + 1, FIRST_DOORBELL + 2];
    for core in [far, near] {
        for (token, vector) in (7..).zip(vectors) {
            let stranger = (core as u64) << 32 | NO_DOMAIN;
            channel.send(token, core, interface::ECHO, vector)?;
            channel.send(token, near, interface::DOORBELL, stranger)?;
            let answers = [channel.answer()?, channel.answer()?];
            let expected = [(None, vector), (Some(Error::NoSuchDomain), 0)];
            check("answers to an echo and a doorbell", &answers, &expected)?;

            // The same with a child: nobody becomes a parent by an echo.
            let child = (core as u64) << 32 | (NO_DOMAIN << 8);
            channel.send(token, core, interface::ECHO, child)?;
            channel.send(token, core, interface::SPAWN, 0)?;
            let answers = [channel.answer()?, channel.answer()?];
            let expected = [(None, child), (Some(Error::NoSuchProgram), 0)];
            check("answers to an echo and a spawn", &answers, &expected)?;
            channel.send(token, near, interface::WAIT, child)?;
            let answer = channel.answer()?;
            check(
                "wait for no child",
                &answer,
                &(Some(Error::NoSuchDomain), 0),
            )?;
        }
    }
    let none = Err(system_call::Error::EmptySlot);
    for slot in FIRST_FREE_SLOT..FIRST_CNODE_SLOTS {
        let rung = system_call::ring(Address::new(2, slot));
        check("ring of a slot never granted", &rung, &none)?;
    }
    Ok(())
}

/// Sends every kind that is no request, to this core's monitor and to another.
fn forge() -> Verdict {
    for core in [here(), elsewhere()] {
        for kind in (0..KINDS).chain([0x7fff, u16::MAX]) {
            // WRITE has no answer.
            if kind == interface::WRITE || interface::REQUESTS.contains(&kind) {
                continue;
            }
            // As news of a child, an answer or a view these words would name core and domain.
            let words = [0x6666, 1 << 32 | 1, rt::startup().domain, 1, 0, u64::MAX];
            let answer = patiently(|| monitor::ask(core, kind, words));
            let what = format!("kind {kind:#x} to core {core}");
            check(&what, &answer, &Err(Error::NoSuchRequest))?;
        }
    }
    for core in [u32::MAX as usize, MAX_CORES, MAX_CORES - 1] {
        if !cores().contains(&core) {
            let answer = monitor::ask(core, interface::ECHO, [0; 6]);
            check("echo of no core", &answer, &Err(Error::NoSuchCore))?;
        }
    }
    Ok(())
}

/// Sends text with ever new tokens, and with one and the same.
fn texts() -> Verdict {
    let end = clock::now_ns() + STORM_NS;
    let mut sent = 0;
    while clock::now_ns() < end {
        for core in [here(), elsewhere()] {
            let text = monitor::request(core, interface::TEXT, [u64::MAX; 6]);
            check("text", &text.map(|_| ()), &Ok(()))?;
        }
        sent += 1;
    }
    for core in [here(), elsewhere()] {
        // None of that is for this spawn.
        let spawned = patiently(|| monitor::ask(core, interface::SPAWN, [0; 6])).map(|_| ());
        check("a spawn without text", &spawned, &Err(Error::NoSuchProgram))?;
        let child = patiently(|| monitor::spawn(core, &["exit", "5"], None));
        check("a spawn after all", &child.and_then(monitor::wait), &Ok(5))?;
        let long = "x".repeat(ARGUMENT_BYTES - 1);
        let spawned = patiently(|| monitor::spawn(core, &[&long], None)).map(|_| ());
        check("a long name", &spawned, &Err(Error::NoSuchProgram))?;
    }
    check("some text was sent", &(sent > 0), &true)
}

/// Makes frames until there are no more.
fn frames() -> Verdict {
    let mut made = 0;
    let error = loop {
        match monitor::frame(1) {
            Ok(_) if made > MAX_FRAMES => return Err(format!("{made} frames and no end")),
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    check("one frame too much", &error, &Error::NoMemory)?;
    check(
        "as many frames as a domain may have",
        &(made > 0 && made <= MAX_FRAMES),
        &true,
    )?;
    let other = ["hostile-test", PART, "one-frame"];
    let other = patiently(|| monitor::spawn(here(), &other, None)).and_then(monitor::wait);
    check("a frame of somebody else", &other, &Ok(0))
}

/// Starts children, here and there, until there may be no more.
fn children() -> Verdict {
    let deadline = clock::now_ns() + 2 * PATIENCE_NS;
    let mut children = Vec::new();
    loop {
        let core = [here(), elsewhere()][children.len() % 2];
        match monitor::spawn(core, &["exit", "9"], None) {
            Ok(child) => children.push(child),
            Err(Error::TooManyChildren) => break,
            // Those before have not ended yet.
            Err(Error::TooManyDomains | Error::NoMemory | Error::Busy)
                if clock::now_ns() < deadline =>
            {
                clock::sleep_ns(PAUSE_NS);
            }
            Err(error) => return Err(format!("after {} children: {error}", children.len())),
        }
        if children.len() > MAX_CHILDREN {
            return Err(format!("{} children and no end", children.len()));
        }
    }
    check("children at once", &children.len(), &MAX_CHILDREN)?;
    let waited = children.pop().map(monitor::wait);
    check("wait for one of them", &waited, &Some(Ok(9)))?;
    let child = patiently(|| monitor::spawn(elsewhere(), &["exit", "8"], None));
    check("one more", &child.and_then(monitor::wait), &Ok(8))
}

/// Overwrites the log of this core before its monitor can read it.
fn log_flood() -> Verdict {
    let line = "a line of the flood that overwrites this log ".repeat(3);
    for _ in 0..LOG_BYTES * 3 / 2 / line.len() {
        let _ = writeln!(LogWriter, "{line}");
    }
    for bytes in [41, 48, 1 << 32, u64::MAX] {
        // SAFETY: the call takes no address, and has no effect on memory of ours.
        let logged = unsafe { system_call::call(syscall::LOG, [bytes, 0, 0, 0, 0, 0]) };
        let refused = Err((system_call::Error::BadArgument, 0));
        check("a log of more than registers", &logged, &refused)?;
    }
    Ok(())
}

/// Sends requests until none finds room, and takes no answer.
fn deaf() -> Verdict {
    Bare::take().fill_up()?;
    sleep_for_ever()
}

/// Asks all monitors as fast as it goes; of the answers it takes as many as it must, and
/// dies without the last of them.
fn echo_storm() -> Verdict {
    let mut channel = Bare::take();
    let targets = cores();
    let end = clock::now_ns() + STORM_NS;
    let mut sent = 0;
    while clock::now_ns() < end {
        let core = targets[sent % targets.len()];
        // Few tokens, so that many requests have the same.
        let message = Bare::request(sent as u32 % 4, core, interface::ECHO, core as u64);
        match channel.0.channel().send(&message) {
            Ok(()) => sent += 1,
            Err(SendError::Full) => {
                channel.0.ring_if_needed();
                let answer = channel.answer()?;
                let right = answer.0 == Some(Error::Busy)
                    || (answer.0.is_none() && targets.contains(&(answer.1 as usize)));
                check(&format!("the answer {answer:?} is one"), &right, &true)?;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    check("some were sent", &(sent > 0), &true)
}

/// Closes the channel to its monitor: right away, with requests in it, or with no room for
/// answers.
fn close(way: &str) -> Verdict {
    let mut channel = Bare::take();
    match way {
        "asked" => {
            for core in cores() {
                channel.send(1, core, interface::ECHO, 1)?;
            }
        }
        "deaf" => channel.fill_up()?,
        _ => {}
    }
    channel.0.close();
    let sent = channel
        .0
        .channel()
        .send(&Bare::request(2, here(), interface::ECHO, 1));
    check("a request after the end", &sent, &Err(SendError::Closed))?;
    let received = channel.0.channel().recv().map(|_| ());
    check(
        "an answer after the end",
        &received,
        &Err(ReceiveError::Closed),
    )?;
    // In the way of who is deaf already.
    for _ in 0..1000 {
        let _ = system_call::ring(MONITOR_DOORBELL);
    }
    sleep_for_ever()
}

/// Writes over the page of the channel to its monitor.
fn scribble(way: &str) -> Verdict {
    let page = rt::startup().monitor_channel;
    let words = PAGE / 8;
    let fill = |seed: u64, from: u64| {
        for index in from..words {
            let value = match way {
                "ones" => u64::MAX,
                "zeros" => 0,
                _ => noise(seed, index),
            };
            word(page, index).store(value, Ordering::SeqCst);
        }
        let _ = system_call::ring(MONITOR_DOORBELL);
    };
    match way {
        // This end's half, the second, alone.
        "own" => fill(1, words / 2),
        // Some of it is read while it changes.
        "storm" => {
            let end = clock::now_ns() + STORM_NS;
            let mut seed = 0;
            while clock::now_ns() < end {
                seed += 1;
                fill(seed, 0);
            }
        }
        // Its monitor has more answers for it than there is room for.
        "deaf" => {
            Bare::take().fill_up()?;
            fill(3, 0);
        }
        _ => fill(2, 0),
    }
    sleep_for_ever()
}

/// Rings its monitor and other domains without anything to tell them.
fn ring(victims: &[u64]) -> Verdict {
    let mut doorbells = Vec::new();
    for victim in victims {
        match patiently(|| monitor::doorbell(Domain(*victim))) {
            Ok(doorbell) => doorbells.push((Domain(*victim), doorbell)),
            // It has ended already.
            Err(Error::NoSuchDomain) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let end = clock::now_ns() + STORM_NS;
    while clock::now_ns() < end {
        check(
            "a ring of the monitor",
            &system_call::ring(MONITOR_DOORBELL),
            &Ok(()),
        )?;
        for at in (0..doorbells.len()).rev() {
            let (victim, doorbell) = doorbells[at];
            let rung = system_call::ring(doorbell);
            if rung == Err(system_call::Error::EmptySlot) {
                // A domain of this core that ends takes its doorbell along.
                let again = patiently(|| monitor::doorbell(victim)).map(|_| ());
                let none = Err(Error::NoSuchDomain);
                check("a doorbell that is gone", &again, &none)?;
                doorbells.swap_remove(at);
            } else {
                check("a ring", &rung, &Ok(()))?;
            }
        }
    }
    Ok(())
}

/// Takes apart what it consists of, as far as it can.
fn dismantle(way: &str) -> Verdict {
    let cnodes = [MEMORY_CNODE, TASK_CNODE, ROOT_CNODE];
    let all = || {
        let indices = cnodes.map(|cnode| cnode.0 & 0xff);
        indices.into_iter().flat_map(|cnode| {
            let slots = (1..FIRST_CNODE_SLOTS).rev();
            slots.map(move |slot| Address::new(cnode, slot))
        })
    };
    match way {
        "revoke" => {
            // What its monitor relies on is not its own to revoke.
            for slot in [
                ROOT_CNODE,
                OWN_DISPATCHER,
                OWN_SPACE,
                MONITOR_DOORBELL,
                OWN_DOORBELL,
            ] {
                let refused = Err(system_call::Error::NotRevocable);
                check("revoke", &capability::revoke(slot), &refused)?;
            }
            for slot in all() {
                let _ = capability::revoke(slot);
            }
        }
        "unmap" => {
            for slot in all() {
                let _ = space::unmap(slot);
            }
        }
        "delete" => {
            for slot in all() {
                let _ = capability::delete(slot);
            }
        }
        "cnodes" => {
            for cnode in cnodes {
                let _ = capability::delete(cnode);
            }
        }
        _ => {
            let _ = dispatcher::stop(OWN_DISPATCHER);
        }
    }
    Ok(())
}

/// Waits for the end of a domain of another core, by way of this one's monitor and directly, each
/// time as if somebody else did. Its monitor hands others on meanwhile.
fn waits(target: u64) -> Verdict {
    let far = (target >> 32) as usize;
    let mut tokens = Vec::new();
    for by in 0..WAITS {
        let core = [far, here()][(by % 2) as usize];
        let token = monitor::request(core, interface::WAIT, [target, by << 8 | 1, 0, 0, 0, 0]);
        tokens.push(token.map_err(|error| error.to_string())?);
    }
    // Handed on in order: its answer comes behind theirs.
    let echo = patiently(|| monitor::ask(far, interface::ECHO, [2; 6]));
    check("an echo beside waits", &echo, &Ok([2; 5]))?;
    let mut open = 0;
    for token in &tokens {
        match monitor::try_answer(token) {
            None => open += 1,
            Some(answer) => check("one wait too much", &answer, &Err(Error::Busy))?,
        }
    }
    check("open waits", &open, &MAX_WAITS)
}

/// Takes all capabilities that it gets, and keeps them.
fn hoard() -> Verdict {
    loop {
        let slot = slots::take().map_err(|error| format!("{error:?}"))?;
        if transfer::receive(slot).is_err() {
            sleep_for_ever();
        }
    }
}

/// Sends a page after the other, and keeps none.
fn shares(hoarder: Domain) -> Verdict {
    let [ram, page] = [slots::take(), slots::take()];
    let ram = ram.map_err(|error| format!("{error:?}"))?;
    let page = page.map_err(|error| format!("{error:?}"))?;
    let (private, _) = monitor::memory(here()).map_err(|error| error.to_string())?;
    let pages = SHARES.min(private / 2);
    monitor::ram(pages * PAGE, ram).map_err(|error| error.to_string())?;
    for number in 0..pages {
        let what = Retype {
            kind: Kind::Frame,
            offset: number * PAGE,
            bytes: PAGE,
            count: 1,
        };
        let made = capability::retype(ram, &what, page);
        check("a page", &made, &Ok(()))?;
        match transfer::send(page, hoarder) {
            Ok(()) => check("deletion", &capability::delete(page), &Ok(()))?,
            Err(Error::NoMemory) => return Ok(()),
            Err(error) => return Err(format!("page {number}: {error}")),
        }
    }
    Err(format!("{pages} pages and no end"))
}

/// Has the name of somebody else's service.
fn squatter() -> Verdict {
    names::bind(SERVICE, 1).map_err(|error| error.to_string())?;
    sleep_for_ever()
}

/// Finds the name of its service taken: it receives capabilities all the same.
fn squat() -> Verdict {
    names::await_binding(SERVICE).map_err(|error| error.to_string())?;
    let exported = Service::export(SERVICE).map(|_| ());
    check("a name that is taken", &exported, &Err(Error::NameTaken))?;
    let slot = slots::take().map_err(|error| format!("{error:?}"))?;
    let receiving = Receiving::begin(slot).map_err(|error| error.to_string())?;
    let received = receiving.withdraw();
    check("what came into a slot", &received, &Ok(None))
}

/// Changes a name without end that it watches, and looks at another watch only.
fn events() -> Verdict {
    let said = |error: Error| error.to_string();
    let (busy, quiet) = ("hostile-busy", "hostile-quiet");
    let mut of_busy = Watch::new(busy).map_err(said)?;
    let mut of_quiet = Watch::new(quiet).map_err(said)?;
    for value in 0..CHANGES {
        names::bind(busy, value).map_err(said)?;
    }
    names::bind(quiet, 1).map_err(said)?;
    let deadline = Some(clock::now_ns() + PATIENCE_NS);
    let change = of_quiet.wait_until(deadline).map_err(said)?;
    let expected = Some(Change::Bound(quiet.to_string(), 1));
    check("a change of the other name", &change, &expected)?;
    // It is told that it has lost some, and of what comes then.
    loop {
        match of_busy.wait_until(deadline).map_err(said)? {
            Some(Change::Bound(..)) => {}
            change => {
                check("the end of the changes", &change, &Some(Change::Overrun))?;
                break;
            }
        }
    }
    names::bind(busy, CHANGES).map_err(said)?;
    let change = of_busy.wait_until(deadline).map_err(said)?;
    let expected = Some(Change::Bound(busy.to_string(), CHANGES));
    check("a change after the overrun", &change, &expected)
}
