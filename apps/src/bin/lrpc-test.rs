//! Calls between domains of one core, from all sides: `lrpc-test`.
//!
//! The program directs *puppets*: copies of itself that make the system calls they are told, one
//! script after the other. The director has the lowest priority there is. So whenever it runs, each
//! puppet has either finished its script or is blocked, and no check depends on time.
//!
//! All of it takes place on the core that the program runs on, and, by another copy of it, on the
//! last core at the same time.
//!
//! | scene       | what is checked                                                              |
//! |-------------|------------------------------------------------------------------------------|
//! | `words`     | words and badges both ways, the same on every path through the CPU driver     |
//! | `queue`     | who queues is served by priority, then in the order of coming                 |
//! | `give`      | capabilities that go with calls and answers                                   |
//! | `gone`      | servers and endpoints that go while others wait for them                      |
//! | `killed`    | clients that are killed                                                       |
//! | `stopped`   | clients and servers that are stopped and started at each point                |
//! | `deadlock`  | calls in circles; chains that are none                                        |
//! | `misuse`    | every other error                                                             |
//! | `payload`   | contents of a frame that client and server share                              |
//! | `inversion` | nobody waits for a lower priority than its own                                |
//! | `storm`     | tens of thousands of calls, with vector registers that are to survive         |
#![no_std]
#![no_main]

extern crate alloc;

use abi::layout::{PAGE, USER_STARTUP};
use abi::limits::MAX_ENDPOINTS;
use abi::syscall::{self, property};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::arch::asm;
use core::arch::x86_64::{__cpuid, _xgetbv};
use core::fmt::Debug;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::capability::{self, Address, ENDPOINT_BYTES, FIRST_CNODE_SLOTS, FIRST_FREE_SLOT, Kind};
use rt::capability::{OWN_DISPATCHER, OWN_DOORBELL, OWN_SPACE, Rights, slots};
use rt::dispatcher::{self, Life, Property};
use rt::interface::{Error::NoMemory, KILLED_STATUS};
use rt::lrpc::{self, Words};
use rt::monitor::{self, Domain, Spawn};
use rt::space::{self, Mapping, PageSize, rights};
use rt::system_call::{self, Error};
use rt::{clock, memory, println};

rt::entry!(main);

/// The words by which a copy of the program knows what it is.
const PUPPET: &str = "puppet";
const ELSEWHERE: &str = "elsewhere";

/// Priority of the director: below all puppets.
const LOWEST: u8 = 0;
/// How long something may take that comes by itself.
const PATIENCE_NS: u64 = 20_000_000_000;
/// How long to wait before looking again.
const PAUSE_NS: u64 = 500_000;
/// Free pages of a core that suffice for all scenes.
const AMPLE_PAGES: u64 = 4096;
/// A deadline that no run reaches, and one that is over.
const FAR: u64 = u64::MAX;
const OVER: u64 = 1;

/// Where the script of a puppet is in it, what all puppets share, and what is shared in a scene:
/// beside its startup page, where its page table goes on.
const BOARD: u64 = USER_STARTUP + 16 * PAGE;
const COMMON: u64 = BOARD + PAGE;
const PAYLOAD: u64 = BOARD + 2 * PAGE;
/// Bytes of the latter.
const PAYLOAD_BYTES: u64 = 16 * PAGE;

/// Words of a board: the number of the script, which is written last; its length; the number of the
/// last script that was done; the number of steps done of this one.
const SCRIPT: usize = 0;
const LENGTH: usize = 1;
const DONE: usize = 2;
const STEPS: usize = 3;
/// Where steps and results begin, and how many words each has.
const FIRST_STEP: usize = 8;
const FIRST_RESULT: usize = 256;
const STRIDE: usize = 8;
const MAX_STEPS: usize = 24;
/// Word of the common page that `count` counts in.
const COUNTER: usize = 0;

/// Where puppets find what they are given: endpoints, doorbells of others, a capability to give,
/// and an empty slot to take one.
const E: Address = Address::new(2, 24);
const E2: Address = Address::new(2, 25);
const E3: Address = Address::new(2, 26);
const BELL: Address = Address::new(2, 28);
const GIVEN: Address = Address::new(2, 29);
const TAKEN: Address = Address::new(2, 30);

/// Steps that are no system calls.
mod pseudo {
    /// Fills the vector registers with a pattern of this seed.
    pub const FLOAT: u64 = 1000;
    /// How many of them do not hold it.
    pub const CHECK_FLOAT: u64 = 1001;
    /// Counts so far in the common page.
    pub const COUNT: u64 = 1002;
    /// Looks how far somebody else has counted.
    pub const LOOK: u64 = 1003;
    /// Fills the shared frame with a pattern of this seed.
    pub const FILL: u64 = 1004;
    /// How many words of it are not of that pattern.
    pub const CHECK: u64 = 1005;
    /// Answers calls on an endpoint until one says [`END`].
    pub const SERVE: u64 = 1006;
    /// Calls so many times, with this seed and at so many endpoints.
    pub const STORM: u64 = 1007;
    /// Wakes so many times, so many nanoseconds apart.
    pub const TICK: u64 = 1008;

    /// First word of the last call to a server.
    pub const END: u64 = u64::MAX;
}

fn main() -> i32 {
    match rt::startup().arguments().nth(1) {
        Some(PUPPET) => puppet(),
        Some(ELSEWHERE) => direct(),
        None => everywhere(),
        Some(word) => {
            println!("lrpc-test: `{word}` is no option of it");
            println!("usage: lrpc-test");
            2
        }
    }
}

/// Plays all scenes on this core, and on the last one.
fn everywhere() -> i32 {
    let start = rt::startup();
    let here = start.core as usize;
    let elsewhere = start.cores().filter(|core| *core != here).last();
    let begun = elsewhere.map(|core| monitor::begin_spawn(core, &["lrpc-test", ELSEWHERE], None));
    let mut status = direct();
    if let Some(token) = begun {
        let ended = token.and_then(monitor::end_spawn).and_then(monitor::wait);
        if ended != Ok(0) {
            println!("lrpc-test: expected status 0 of the copy on the last core, found {ended:?}");
            status = 1;
        }
    }
    if status == 0 {
        println!("lrpc-test: passed");
    }
    status
}

// ---- puppets ---------------------------------------------------------------------------------

/// What a step came to: the first result, mostly a badge, and the words.
type Answer = Result<(u64, Words), Error>;

/// A page that the director put into the address space of this puppet.
fn page(address: u64) -> &'static [AtomicU64] {
    // SAFETY: a puppet is started after its pages were mapped, and they stay for its life; all
    // accesses are atomic.
    unsafe { core::slice::from_raw_parts(address as *const AtomicU64, (PAGE / 8) as usize) }
}

fn puppet() -> i32 {
    let board = page(BOARD);
    let mut last = 0;
    loop {
        let script = board[SCRIPT].load(Ordering::Acquire);
        if script == last {
            system_call::wait(None);
            continue;
        }
        last = script;
        for step in 0..board[LENGTH].load(Ordering::Relaxed) as usize {
            let at = FIRST_STEP + step * STRIDE;
            let word = |index: usize| board[at + index].load(Ordering::Relaxed);
            let answer = perform(word(0), core::array::from_fn(|index| word(1 + index)));
            let (status, (first, words)) = match answer {
                Ok(results) => (0, results),
                Err(error) => (error as u64, (0, [0; 5])),
            };
            let at = FIRST_RESULT + step * STRIDE;
            board[at].store(status, Ordering::Relaxed);
            board[at + 1].store(first, Ordering::Relaxed);
            for (place, word) in board[at + 2..].iter().zip(words) {
                place.store(word, Ordering::Relaxed);
            }
            board[STEPS].store(step as u64 + 1, Ordering::Release);
        }
        board[DONE].store(script, Ordering::Release);
    }
}

/// Does what a step says.
fn perform(number: u64, arguments: [u64; 6]) -> Answer {
    let [first, rest @ ..] = arguments;
    let at = Address(first);
    let value = |value| Ok((value, [0; 5]));
    let nothing = |()| (0, [0; 5]);
    match number {
        syscall::CALL => lrpc::call(at, rest).map(|words| (0, words)),
        syscall::CALL_GIVE => {
            let [a, b, c, d, given] = rest;
            lrpc::call_give(at, [a, b, c, d], Address(given)).map(|words| (0, words))
        }
        syscall::RECEIVE => lrpc::receive(at, (rest[0] != 0).then_some(rest[0])),
        syscall::REPLY_RECEIVE => lrpc::reply_receive(at, rest),
        syscall::REPLY => lrpc::reply(rest).map(nothing),
        syscall::REPLY_GIVE => {
            let [a, b, c, d, given] = rest;
            lrpc::reply_give([a, b, c, d], Address(given)).map(nothing)
        }
        syscall::RECEIVE_SLOT => lrpc::receive_slot((first != 0).then_some(at)).map(nothing),
        pseudo::FLOAT => {
            Vectors::of(first).load();
            value(0)
        }
        pseudo::CHECK_FLOAT => value(Vectors::of(first).differences()),
        pseudo::COUNT => {
            for _ in 0..first {
                page(COMMON)[COUNTER].fetch_add(1, Ordering::Relaxed);
            }
            value(0)
        }
        pseudo::LOOK => value(page(COMMON)[COUNTER].load(Ordering::Relaxed)),
        pseudo::FILL => {
            let fill = |(index, word): (usize, &AtomicU64)| {
                word.store(pattern(first, index as u64), Ordering::Relaxed);
            };
            payload().enumerate().for_each(fill);
            value(0)
        }
        pseudo::CHECK => {
            let differs = |(index, word): &(usize, &AtomicU64)| {
                word.load(Ordering::Relaxed) != pattern(first, *index as u64)
            };
            value(payload().enumerate().filter(differs).count() as u64)
        }
        pseudo::SERVE => value(serve(at, rest[0])),
        pseudo::STORM => value(storm_of_calls(first, rest[0], rest[1])),
        pseudo::TICK => value(tick(first, rest[0])),
        _ => {
            // SAFETY: the director has it make no call that maps anything.
            let results = unsafe { system_call::call(number, arguments) };
            let [first, a, b, c, d] = results.map_err(|(error, _)| error)?;
            // Others leave nothing that means something.
            let has_results = number == syscall::IDENTIFY;
            Ok(if has_results {
                (first, [a, b, c, d, 0])
            } else {
                (0, [0; 5])
            })
        }
    }
}

/// The words of the frame that puppets of a scene share.
fn payload() -> impl Iterator<Item = &'static AtomicU64> {
    (PAYLOAD..PAYLOAD + PAYLOAD_BYTES)
        .step_by(PAGE as usize)
        .flat_map(page)
}

/// Words that look like nothing else.
fn pattern(seed: u64, index: u64) -> u64 {
    let mixed = (seed << 32 ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// What is in the sixteen vector registers, on top of the x87 stack and in both control words.
/// The compiler uses none of them here.
#[repr(C, align(32))]
struct Vectors {
    registers: [[u64; 4]; 16],
    top: u64,
    x87_control: u16,
    sse_control: u32,
}

impl Vectors {
    fn of(seed: u64) -> Self {
        let rounding = seed % 4;
        Self {
            registers: core::array::from_fn(|register| {
                core::array::from_fn(|word| pattern(seed, (register * 4 + word) as u64))
            }),
            top: pattern(seed, 64) >> 1,
            // Exceptions masked, extended precision; rounding differs.
            x87_control: 0x37f | (rounding as u16) << 10,
            sse_control: 0x1f80 | (rounding as u32) << 13,
        }
    }

    /// Loads the registers.
    fn load(&self) {
        // SAFETY: reads `self`; the registers that change are nobody's.
        unsafe {
            asm!(
                "fninit",
                "fldcw word ptr [{control}]",
                "fild qword ptr [{top}]",
                "ldmxcsr dword ptr [{sse}]",
                control = in(reg) &raw const self.x87_control,
                top = in(reg) &raw const self.top,
                sse = in(reg) &raw const self.sse_control,
                options(nostack, readonly),
            );
            if has_avx() {
                asm!(
                    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                    "vmovdqa ymm\\n, [{from} + 32 * \\n]",
                    ".endr",
                    from = in(reg) &raw const self.registers,
                    options(nostack, readonly),
                );
            } else {
                asm!(
                    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                    "movdqa xmm\\n, [{from} + 32 * \\n]",
                    ".endr",
                    from = in(reg) &raw const self.registers,
                    options(nostack, readonly),
                );
            }
        }
    }

    /// How many of the registers do not hold this. Takes the number off the x87 stack.
    fn differences(&self) -> u64 {
        let mut found = Self {
            registers: [[0; 4]; 16],
            top: 0,
            x87_control: 0,
            sse_control: 0,
        };
        // SAFETY: writes `found`.
        unsafe {
            if has_avx() {
                asm!(
                    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                    "vmovdqa [{to} + 32 * \\n], ymm\\n",
                    ".endr",
                    to = in(reg) &raw mut found.registers,
                    options(nostack),
                );
            } else {
                asm!(
                    ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                    "movdqa [{to} + 32 * \\n], xmm\\n",
                    ".endr",
                    to = in(reg) &raw mut found.registers,
                    options(nostack),
                );
            }
            asm!(
                "fnstcw word ptr [{control}]",
                "fistp qword ptr [{top}]",
                "stmxcsr dword ptr [{sse}]",
                control = in(reg) &raw mut found.x87_control,
                top = in(reg) &raw mut found.top,
                sse = in(reg) &raw mut found.sse_control,
                options(nostack),
            );
        }
        let words = if has_avx() { 4 } else { 2 };
        let pairs = self.registers.iter().zip(&found.registers);
        let registers = pairs.filter(|(own, found)| own[..words] != found[..words]);
        registers.count() as u64
            + u64::from(self.top != found.top)
            + u64::from(self.x87_control != found.x87_control)
            + u64::from(self.sse_control != found.sse_control)
    }
}

/// Whether there are vector registers of 256 bits that the CPU driver lets us use.
fn has_avx() -> bool {
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    match KNOWN.load(Ordering::Relaxed) {
        0 => {
            // AVX, and OSXSAVE without which the other question is not allowed.
            let features = __cpuid(1).ecx;
            // SAFETY: CPUID reports the instruction.
            let enabled = features >> 27 & 3 == 3 && unsafe { enabled_state() } & 6 == 6;
            KNOWN.store(1 + u64::from(enabled), Ordering::Relaxed);
            enabled
        }
        known => known == 2,
    }
}

/// What of the processor's state is enabled.
///
/// # Safety
/// The processor must have XSAVE, and the CPU driver use it.
#[target_feature(enable = "xsave")]
unsafe fn enabled_state() -> u64 {
    // SAFETY: the caller's promise.
    unsafe { _xgetbv(0) }
}

/// What a server makes of a call.
fn answer_of(badge: u64, words: Words) -> Words {
    let [a, b, c, d, e] = words;
    [
        a.wrapping_add(badge),
        b ^ a,
        c.rotate_left(7),
        d.wrapping_mul(3),
        !e,
    ]
}

/// Answers calls until one says that it is the last, and keeps its vector registers meanwhile if
/// `seed` is not 0. Back: how often something was wrong.
fn serve(endpoint: Address, seed: u64) -> u64 {
    let mut bad = 0;
    let mut calls = 0;
    let mut call = lrpc::receive(endpoint, None);
    loop {
        let Ok((badge, words)) = call else {
            return bad + 1;
        };
        if seed != 0 && calls % 8 == 7 {
            // Several calls come in between, and whoever made them.
            bad += Vectors::of(seed ^ (calls / 8)).differences();
        }
        if seed != 0 && calls % 8 == 0 {
            Vectors::of(seed ^ (calls / 8)).load();
        }
        calls += 1;
        if words[0] == pseudo::END {
            return bad + u64::from(lrpc::reply(answer_of(badge, words)).is_err());
        }
        call = lrpc::reply_receive(endpoint, answer_of(badge, words));
    }
}

/// Calls the servers in turns, and keeps its vector registers meanwhile if `seed` is not 0. The
/// badge that it bears is the seed's lowest byte. Back: how often something was wrong.
fn storm_of_calls(rounds: u64, seed: u64, servers: u64) -> u64 {
    let badge = seed & 0xff;
    let computes = seed >> 8 != 0;
    let mut bad = 0;
    for round in 0..rounds {
        let endpoint = E.plus(round % servers);
        let words = core::array::from_fn(|index| pattern(seed ^ round, index as u64) >> 1);
        if computes {
            Vectors::of(seed ^ round).load();
        }
        let answer = lrpc::call(endpoint, words);
        if computes {
            bad += Vectors::of(seed ^ round).differences();
        }
        bad += u64::from(answer != Ok(answer_of(badge, words)));
    }
    bad
}

/// Takes the core from the others again and again, and has vector registers of its own. Back: how
/// often those were wrong.
fn tick(times: u64, ns: u64) -> u64 {
    let mut bad = 0;
    for time in 0..times {
        Vectors::of(time).load();
        system_call::wait(Some(clock::now_ns() + ns));
        bad += Vectors::of(time).differences();
    }
    bad
}

// ---- steps -----------------------------------------------------------------------------------

/// A step of a script: a number and arguments.
#[derive(Clone, Copy)]
struct Step(u64, [u64; 6]);

const fn with(first: u64, words: Words) -> [u64; 6] {
    let [a, b, c, d, e] = words;
    [first, a, b, c, d, e]
}

const fn one(number: u64, argument: u64) -> Step {
    Step(number, [argument, 0, 0, 0, 0, 0])
}

const fn call(endpoint: Address, words: Words) -> Step {
    Step(syscall::CALL, with(endpoint.0, words))
}

/// Gives what is in [`GIVEN`].
const fn call_give(endpoint: Address, words: [u64; 4]) -> Step {
    let [a, b, c, d] = words;
    Step(syscall::CALL_GIVE, [endpoint.0, a, b, c, d, GIVEN.0])
}

const fn receive(endpoint: Address) -> Step {
    one(syscall::RECEIVE, endpoint.0)
}

const fn receive_until(endpoint: Address, ns: u64) -> Step {
    Step(syscall::RECEIVE, [endpoint.0, ns, 0, 0, 0, 0])
}

const fn reply(words: Words) -> Step {
    Step(syscall::REPLY, with(0, words))
}

const fn reply_give(words: [u64; 4]) -> Step {
    let [a, b, c, d] = words;
    Step(syscall::REPLY_GIVE, [0, a, b, c, d, GIVEN.0])
}

/// Gives what is in another slot.
const fn give_of(endpoint: Address, slot: Address) -> Step {
    Step(syscall::CALL_GIVE, [endpoint.0, 0, 0, 0, 0, slot.0])
}

const fn give_of_answer(slot: Address) -> Step {
    Step(syscall::REPLY_GIVE, [0, 0, 0, 0, 0, slot.0])
}

const fn reply_receive(endpoint: Address, words: Words) -> Step {
    Step(syscall::REPLY_RECEIVE, with(endpoint.0, words))
}

const fn receive_slot(slot: Address) -> Step {
    one(syscall::RECEIVE_SLOT, slot.0)
}

const fn ring(doorbell: Address) -> Step {
    one(syscall::RING, doorbell.0)
}

const fn exit(status: u64) -> Step {
    one(syscall::EXIT, status)
}

const fn identify(slot: Address) -> Step {
    one(syscall::IDENTIFY, slot.0)
}

const fn delete(slot: Address) -> Step {
    one(syscall::DELETE, slot.0)
}

const fn float(seed: u64) -> Step {
    one(pseudo::FLOAT, seed)
}

const fn check_float(seed: u64) -> Step {
    one(pseudo::CHECK_FLOAT, seed)
}

const fn count(times: u64) -> Step {
    one(pseudo::COUNT, times)
}

const LOOK: Step = one(pseudo::LOOK, 0);

/// Five words of which none is like another.
const fn sample(number: u64) -> Words {
    [
        number,
        u64::MAX - number,
        0x0123_4567_89ab_cdef ^ number << 32,
        1 << 63 | number,
        number << 56 | 5,
    ]
}

/// Nothing went wrong, and nothing comes back.
const DONE_WELL: Option<Answer> = Some(Ok((0, [0; 5])));
/// The step, or one before it, is not done yet.
const BLOCKED: Option<Answer> = None;

const fn came(badge: u64, words: Words) -> Option<Answer> {
    Some(Ok((badge, words)))
}

const fn answered(words: Words) -> Option<Answer> {
    Some(Ok((0, words)))
}

const fn refused(error: Error) -> Option<Answer> {
    Some(Err(error))
}

// ---- the director ------------------------------------------------------------------------------

/// Why a scene cannot be played.
enum Failure {
    /// The core has too little memory for all its puppets.
    NoMemory,
    /// Something else, in words.
    Refused(String),
}

type Attempt<T = ()> = Result<T, Failure>;

/// Names the step that a refusal befell.
fn at<T, E: Debug>(step: &str, result: Result<T, E>) -> Attempt<T> {
    result.map_err(|error| Failure::Refused(format!("{step}: {error:?}")))
}

/// The same for what takes memory.
fn made<T, E: Into<memory::Error>>(step: &str, result: Result<T, E>) -> Attempt<T> {
    match result.map_err(Into::into) {
        Err(memory::Error::NotGiven(NoMemory)) => Err(Failure::NoMemory),
        result => at(step, result),
    }
}

/// A puppet, as the director sees it.
struct Puppet {
    domain: Domain,
    /// The first of three slots: its dispatcher, its root CNode, its address space.
    slots: Address,
    bell: Address,
    board: Mapping,
    /// Further capabilities to what is mapped in it, slots of the director's.
    mapped: Vec<Address>,
    script: u64,
    is_there: bool,
}

/// Puppets by their place on the stage.
type Who = usize;

/// The director, its puppets, and what it thinks of them.
struct Stage {
    scene: &'static str,
    puppets: Vec<Puppet>,
    endpoints: Vec<Address>,
    common: Mapping,
    checks: u64,
    bad: u64,
}

type Scene = (&'static str, fn(&mut Stage) -> Attempt);

const SCENES: [Scene; 11] = [
    ("words", words),
    ("queue", queue),
    ("give", give),
    ("gone", gone),
    ("killed", killed),
    ("stopped", stopped),
    ("deadlock", deadlock),
    ("misuse", misuse),
    ("payload", shared_payload),
    ("inversion", inversion),
    ("storm", storm),
];

/// Plays all scenes on this core; returns the exit status.
fn direct() -> i32 {
    match play() {
        Ok(0) => 0,
        Ok(bad) => {
            println!("lrpc-test: failed: {bad} checks");
            1
        }
        Err(Failure::NoMemory) => {
            println!("lrpc-test: failed: the core has too little memory left");
            1
        }
        Err(Failure::Refused(reason)) => {
            println!("lrpc-test: failed: {reason}");
            1
        }
    }
}

/// Plays all scenes; returns how many checks failed.
fn play() -> Attempt<u64> {
    let lowered = dispatcher::configure(OWN_DISPATCHER, Property::Priority(LOWEST));
    at("priority of the director", lowered)?;
    let free = monitor::memory(rt::startup().core as usize);
    let (free, _) = at("free memory", free)?;
    let mut stage = Stage {
        scene: "",
        puppets: Vec::new(),
        endpoints: Vec::new(),
        common: made("a common page", Mapping::zeroed(PAGE, PageSize::Small))?,
        checks: 0,
        bad: 0,
    };
    for (name, scene) in SCENES {
        stage.scene = name;
        match scene(&mut stage) {
            Ok(()) => {}
            Err(Failure::NoMemory) if free < AMPLE_PAGES => {
                println!("lrpc-test: {name} is left out: there is too little memory for it");
            }
            Err(Failure::NoMemory) => {
                let reason = format!("{name}: no memory, of {free} pages");
                return Err(Failure::Refused(reason));
            }
            Err(Failure::Refused(reason)) => {
                return Err(Failure::Refused(format!("{name}: {reason}")));
            }
        }
        stage.clear()?;
    }
    Ok(stage.bad)
}

impl Stage {
    fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.checks += 1;
        if found != expected {
            self.bad += 1;
            let scene = self.scene;
            println!("lrpc-test: {scene}: {what}: expected {expected:?}, found {found:?}");
        }
    }

    /// A new puppet of this priority. It waits for its first script.
    fn puppet(&mut self, priority: u8) -> Attempt<Who> {
        let board = made("a board", Mapping::zeroed(PAGE, PageSize::Small))?;
        let row = at("slots", slots::take_row(3))?;
        let begun = Spawn::new(&["lrpc-test", PUPPET]).traced(row).start();
        if begun == Err(NoMemory) {
            (0..3).for_each(|slot| slots::give(row.plus(slot)));
        }
        let domain = made("start of a puppet", begun)?;
        let mut puppet = Puppet {
            domain,
            slots: row,
            bell: at("doorbell of a puppet", monitor::doorbell(domain))?,
            board,
            mapped: Vec::new(),
            script: 0,
            is_there: true,
        };
        let frame = puppet.board.frame();
        puppet.show(frame, BOARD)?;
        puppet.show(self.common.frame(), COMMON)?;
        at("start of a puppet", dispatcher::start(row))?;
        self.puppets.push(puppet);
        let who = self.puppets.len() - 1;
        let lower = [
            OWN_DISPATCHER.0,
            property::PRIORITY,
            priority.into(),
            0,
            0,
            0,
        ];
        self.begin(who, &[Step(syscall::CONFIGURE, lower)])?;
        self.found("priority of a puppet", who, &[DONE_WELL]);
        Ok(who)
    }

    fn puppets<const N: usize>(&mut self, priorities: [u8; N]) -> Attempt<[Who; N]> {
        let mut all = [0; N];
        for (who, priority) in all.iter_mut().zip(priorities) {
            *who = self.puppet(priority)?;
        }
        Ok(all)
    }

    /// A new endpoint, in a slot of the director's.
    fn endpoint(&mut self) -> Attempt<Address> {
        let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES);
        let endpoint = made("an endpoint", endpoint)?;
        self.endpoints.push(endpoint);
        Ok(endpoint)
    }

    /// Gives a puppet a capability, with these rights and a badge.
    fn hand(&self, who: Who, source: Address, slot: Address, hold: Rights, badge: u64) -> Attempt {
        let root = self.puppets[who].slots.plus(1);
        let minted = capability::mint_to(source, root, slot, hold, badge);
        at("a capability for a puppet", minted)
    }

    /// Lets puppets call, and one receive, at an endpoint: all find it in the same slot. Badges
    /// count from 1 on, in their order.
    fn link(&mut self, slot: Address, server: Who, clients: &[Who]) -> Attempt<Address> {
        let endpoint = self.endpoint()?;
        self.hand(server, endpoint, slot, Rights::READ, 0)?;
        for (client, badge) in clients.iter().zip(1..) {
            let hold = Rights::WRITE | Rights::GRANT;
            self.hand(*client, endpoint, slot, hold, badge)?;
        }
        Ok(endpoint)
    }

    /// Writes a script for a puppet that somebody else will wake.
    fn prepare(&mut self, who: Who, steps: &[Step]) -> Attempt {
        if steps.len() > MAX_STEPS {
            return Err(Failure::Refused("a script that is too long".to_string()));
        }
        let puppet = &mut self.puppets[who];
        let board = puppet.board.words();
        for (index, Step(number, arguments)) in steps.iter().enumerate() {
            let place = &board[FIRST_STEP + index * STRIDE..];
            place[0].store(*number, Ordering::Relaxed);
            for (place, argument) in place[1..].iter().zip(arguments) {
                place.store(*argument, Ordering::Relaxed);
            }
        }
        board[LENGTH].store(steps.len() as u64, Ordering::Relaxed);
        board[STEPS].store(0, Ordering::Relaxed);
        puppet.script += 1;
        board[SCRIPT].store(puppet.script, Ordering::Release);
        Ok(())
    }

    /// Has a puppet that waits begin with a script. Then all puppets have come to rest, but for
    /// those that wait for the clock.
    fn begin(&mut self, who: Who, steps: &[Step]) -> Attempt {
        self.prepare(who, steps)?;
        self.ring(who)
    }

    fn ring(&mut self, who: Who) -> Attempt {
        at(
            "ring of a puppet",
            system_call::ring(self.puppets[who].bell),
        )
    }

    /// What a step came to, if it is done.
    fn result(&self, who: Who, step: usize) -> Option<Answer> {
        let board = self.puppets[who].board.words();
        if board[STEPS].load(Ordering::Acquire) <= step as u64 {
            return None;
        }
        let at = FIRST_RESULT + step * STRIDE;
        let word = |index: usize| board[at + index].load(Ordering::Relaxed);
        Some(match Error::from_code(word(0)) {
            None => Ok((word(1), core::array::from_fn(|index| word(2 + index)))),
            Some(error) => Err(error),
        })
    }

    /// Checks what the steps of a puppet came to.
    fn found(&mut self, what: &str, who: Who, expected: &[Option<Answer>]) {
        for (step, expected) in expected.iter().enumerate() {
            let found = self.result(who, step);
            self.expect(&format!("{what}, step {step}"), &found, expected);
        }
    }

    /// Has a puppet carry out a script, and checks what comes of it.
    fn script(&mut self, what: &str, who: Who, steps: &[(Step, Option<Answer>)]) -> Attempt {
        let (steps, expected): (Vec<_>, Vec<_>) = steps.iter().copied().unzip();
        self.begin(who, &steps)?;
        self.found(what, who, &expected);
        Ok(())
    }

    /// Sleeps until a puppet has done its script.
    fn finish(&mut self, what: &str, who: Who) -> Attempt {
        let deadline = clock::now_ns() + PATIENCE_NS;
        let puppet = &self.puppets[who];
        while puppet.board.words()[DONE].load(Ordering::Acquire) != puppet.script {
            if clock::now_ns() >= deadline {
                let reason = format!("{what}: a puppet does not finish");
                return Err(Failure::Refused(reason));
            }
            clock::sleep_ns(PAUSE_NS);
        }
        Ok(())
    }

    /// Waits for a puppet that ends.
    fn ended(&mut self, what: &str, who: Who, status: i32) {
        let ended = monitor::wait(self.puppets[who].domain);
        self.puppets[who].is_there = false;
        self.expect(what, &ended, &Ok(status));
    }

    fn kill(&mut self, who: Who) -> Attempt {
        at("kill of a puppet", monitor::kill(self.puppets[who].domain))?;
        self.ended("status of a puppet that was killed", who, KILLED_STATUS);
        Ok(())
    }

    /// Stops a puppet, wherever it is.
    fn stop(&mut self, who: Who) -> Attempt {
        let row = self.puppets[who].slots;
        at("stop of a puppet", dispatcher::stop(row))?;
        self.expect(
            "a puppet that was stopped",
            &dispatcher::state(row),
            &Ok(Life::Stopped),
        );
        Ok(())
    }

    fn start(&mut self, who: Who) -> Attempt {
        let row = self.puppets[who].slots;
        at("start of a puppet", dispatcher::start(row))?;
        self.expect(
            "a puppet that was started",
            &dispatcher::state(row),
            &Ok(Life::Alive),
        );
        Ok(())
    }

    /// Ends all puppets, and takes their endpoints back.
    fn clear(&mut self) -> Attempt {
        for who in 0..self.puppets.len() {
            if self.puppets[who].is_there {
                self.kill(who)?;
            }
        }
        for puppet in self.puppets.drain(..) {
            for slot in puppet.mapped {
                at("delete of a page", capability::delete(slot))?;
                slots::give(slot);
            }
            // They went with the domain.
            for slot in 0..3 {
                slots::give(puppet.slots.plus(slot));
            }
            slots::give(puppet.bell);
        }
        for endpoint in self.endpoints.drain(..) {
            at("free of an endpoint", memory::free(endpoint))?;
        }
        self.common.words()[COUNTER].store(0, Ordering::Relaxed);
        Ok(())
    }
}

impl Puppet {
    /// Maps a frame into it.
    fn show(&mut self, frame: Address, address: u64) -> Attempt {
        let copy = at("a slot", slots::take())?;
        at("copy of a frame", capability::copy(frame, copy))?;
        let pages = at("a frame", capability::identify(copy))?.bytes / PAGE;
        let root = self.slots.plus(2);
        // SAFETY: not an address space of this program's, and both look at the memory by atomic
        // words alone.
        let mapped = unsafe { space::map(root, address, copy, 0, pages, rights::WRITE) };
        at("map into a puppet", mapped)?;
        self.mapped.push(copy);
        Ok(())
    }
}

// ---- scenes ------------------------------------------------------------------------------------

/// How a call can find client and server.
struct Way {
    name: &'static str,
    /// Before and after the server receives and the client calls.
    server: Option<[Step; 2]>,
    client: Option<[Step; 2]>,
    /// When the server stops waiting; 0: never.
    deadline: u64,
    calls_first: bool,
    /// A bell rings before the answer.
    bell: bool,
    /// Another client calls meanwhile.
    queued: bool,
}

const PLAIN: Way = Way {
    name: "plain",
    server: None,
    client: None,
    deadline: 0,
    calls_first: false,
    bell: false,
    queued: false,
};

const COMPUTES: Option<[Step; 2]> = Some([float(77), check_float(77)]);
const COMPUTES_TOO: Option<[Step; 2]> = Some([float(55), check_float(55)]);

#[rustfmt::skip]
const WAYS: [Way; 9] = [
    PLAIN,
    Way { name: "deadline", deadline: FAR, ..PLAIN },
    Way { name: "client first", calls_first: true, ..PLAIN },
    Way { name: "client computes", client: COMPUTES, ..PLAIN },
    Way { name: "server computes", server: COMPUTES, ..PLAIN },
    Way { name: "both compute", client: COMPUTES, server: COMPUTES_TOO, ..PLAIN },
    Way { name: "both compute, client first", client: COMPUTES, server: COMPUTES_TOO, calls_first: true, ..PLAIN },
    Way { name: "bell", bell: true, ..PLAIN },
    Way { name: "another waits", queued: true, ..PLAIN },
];

/// A call and its answer, found the same on every way.
fn words(stage: &mut Stage) -> Attempt {
    // The server's turn, or the client's: whose it is, decides about the path of the answer.
    for priorities in [[2, 2, 1], [3, 2, 1], [2, 3, 1]] {
        let [server, client, other] = stage.puppets(priorities)?;
        stage.link(E, server, &[client, other])?;
        for (number, way) in (100..).step_by(10).zip(&WAYS) {
            exchange(stage, [server, client, other], way, number)?;
        }
        stage.clear()?;
    }
    Ok(())
}

fn exchange(
    stage: &mut Stage,
    [server, client, other]: [Who; 3],
    way: &Way,
    number: u64,
) -> Attempt {
    let name = way.name;
    let (question, answer) = (sample(number), sample(number + 1));
    let around = |outer: Option<[Step; 2]>, step: Step| match outer {
        Some([before, after]) => Vec::from([before, step, after]),
        None => Vec::from([step]),
    };
    let serves = around(way.server, receive_until(E, way.deadline));
    let calls = around(way.client, call(E, question));
    if way.calls_first {
        stage.begin(client, &calls)?;
        stage.begin(server, &serves)?;
    } else {
        stage.begin(server, &serves)?;
        stage.begin(client, &calls)?;
    }
    if way.queued {
        stage.begin(other, &[call(E, sample(number + 2))])?;
    }
    let heard = stage.result(server, usize::from(way.server.is_some()));
    stage.expect(
        &format!("{name}: what the server hears"),
        &heard,
        &came(1, question),
    );
    if way.server.is_some() {
        let kept = stage.result(server, 2);
        stage.expect(
            &format!("{name}: registers of the server"),
            &kept,
            &DONE_WELL,
        );
    }
    let step = usize::from(way.client.is_some());
    let heard = stage.result(client, step);
    stage.expect(&format!("{name}: the client waits"), &heard, &BLOCKED);

    let bell = [ring(OWN_DOORBELL), reply_receive(E, answer)];
    stage.begin(server, &bell[usize::from(!way.bell)..])?;
    let heard = stage.result(client, step);
    stage.expect(
        &format!("{name}: what the client hears"),
        &heard,
        &answered(answer),
    );
    if way.client.is_some() {
        let kept = stage.result(client, 2);
        stage.expect(
            &format!("{name}: registers of the client"),
            &kept,
            &DONE_WELL,
        );
    }
    let expected = match (way.bell, way.queued) {
        (true, _) => refused(Error::Interrupted),
        (_, true) => came(2, sample(number + 2)),
        _ => BLOCKED,
    };
    let heard = stage.result(server, usize::from(way.bell));
    stage.expect(&format!("{name}: what comes next"), &heard, &expected);
    // Back to rest: nobody calls, nobody receives.
    match expected {
        Some(Ok(_)) => {
            stage.script(name, server, &[(reply(answer), DONE_WELL)])?;
            stage.found(name, other, &[answered(answer)]);
        }
        Some(Err(_)) => {}
        None => {
            stage.begin(client, &[call(E, answer)])?;
            stage.found(name, server, &[came(1, answer)]);
            stage.script(name, server, &[(reply(question), DONE_WELL)])?;
            stage.found(name, client, &[answered(question)]);
        }
    }
    Ok(())
}

/// Who queues is served by priority, and then in the order of coming.
fn queue(stage: &mut Stage) -> Attempt {
    let [server, a, b, c, d] = stage.puppets([2, 1, 3, 2, 3])?;
    let clients = [a, b, c, d];
    stage.link(E, server, &clients)?;
    for (number, client) in clients.iter().enumerate() {
        stage.begin(*client, &[call(E, sample(number as u64))])?;
        stage.found("a client that queues", *client, &[BLOCKED]);
    }
    // b and d have the highest, of them b came first; badges are places in the list plus one.
    let order: [u64; 4] = [2, 4, 3, 1];
    let mut steps = Vec::from([(receive(E), came(order[0], sample(order[0] - 1)))]);
    for pair in order.windows(2) {
        let next = came(pair[1], sample(pair[1] - 1));
        steps.push((reply_receive(E, sample(pair[0] + 10)), next));
    }
    steps.push((reply(sample(order[3] + 10)), DONE_WELL));
    stage.script("the order of serving", server, &steps)?;
    for (client, badge) in clients.iter().zip(1..) {
        stage.found(
            "the answer of a queue",
            *client,
            &[answered(sample(badge + 10))],
        );
    }
    // A priority that changes in the queue counts.
    for client in clients {
        stage.begin(client, &[call(E, [0; 5])])?;
    }
    let row = stage.puppets[b].slots;
    let lowered = dispatcher::configure(row, Property::Priority(LOWEST));
    at("another priority", lowered)?;
    let steps = [4, 3, 1, 2].map(|badge| {
        let came = came(badge, [0; 5]);
        [(receive(E), came), (reply([badge; 5]), DONE_WELL)]
    });
    stage.script("another order of serving", server, &steps.concat())?;
    for (client, badge) in clients.iter().zip(1..) {
        stage.found("the answer of a queue", *client, &[answered([badge; 5])]);
    }
    Ok(())
}

/// Capabilities that go along.
fn give(stage: &mut Stage) -> Attempt {
    let [server, client, other] = stage.puppets([2, 2, 1])?;
    let endpoint = stage.link(E, server, &[client, other])?;
    let frame = made("a frame", memory::frame(PAGE))?;
    let mut hold = Rights::READ | Rights::WRITE;
    for who in [server, client, other] {
        stage.hand(who, frame, GIVEN, hold, 0)?;
        hold = Rights::READ;
    }
    // What IDENTIFY says of it: kind and rights, base, bytes, badge, entries.
    let base = at("a frame", capability::identify(frame))?.base;
    let frame_with = |hold: Rights| {
        let what = Kind::Frame as u64 | u64::from(hold.bits()) << 8;
        came(what, [base, PAGE, 0, 0, 0])
    };
    let given_by_client = frame_with(Rights::READ);
    let given_by_server = frame_with(Rights::READ | Rights::WRITE);
    let nothing = refused(Error::EmptySlot);
    let no_slot = refused(Error::NoReceiveSlot);
    let words = [1, 2, 3, u64::MAX];
    // The fifth word is not the giver's.
    let hears = |stage: &mut Stage, what: &str, who: Who, step: usize, badge: u64| {
        let found = stage
            .result(who, step)
            .map(|answer| answer.map(|(first, [a, b, c, d, _])| (first, [a, b, c, d])));
        stage.expect(what, &found, &Some(Ok((badge, words))));
    };

    // The server waits, without a slot first, then with one that is taken, or is none.
    stage.begin(server, &[receive(E)])?;
    stage.script("no slot", client, &[(call_give(E, words), no_slot)])?;
    stage.found("a server that got no call", server, &[BLOCKED]);
    for slot in [GIVEN, Address::new(9, 9), Address(u64::MAX)] {
        stage.ring(server)?;
        stage.found("a bell", server, &[refused(Error::Interrupted)]);
        stage.begin(server, &[receive_slot(slot), receive(E)])?;
        stage.script("a bad slot", client, &[(call_give(E, words), no_slot)])?;
        stage.found("a server that got no call", server, &[DONE_WELL, BLOCKED]);
        // What is without a capability goes on.
        stage.begin(client, &[call(E, [5; 5])])?;
        stage.found("a server", server, &[DONE_WELL, came(1, [5; 5])]);
        stage.begin(server, &[reply_receive(E, [6; 5])])?;
        stage.found("a client", client, &[answered([6; 5])]);
    }
    stage.ring(server)?;
    // Now it has one: a capability comes before it calls, and after.
    for is_waiting in [true, false] {
        let serves = [receive_slot(TAKEN), receive(E), identify(TAKEN)];
        let calls = [call_give(E, words), identify(GIVEN)];
        if is_waiting {
            stage.begin(server, &serves)?;
            stage.begin(client, &calls)?;
        } else {
            stage.begin(client, &calls)?;
            stage.script(
                "before the call is taken",
                server,
                &[(identify(TAKEN), nothing)],
            )?;
            stage.begin(server, &serves)?;
        }
        hears(stage, "a call with a capability", server, 1, 1);
        let found = stage.result(server, 2);
        stage.expect("what the server got", &found, &given_by_client);
        stage.begin(server, &[reply([7; 5]), delete(TAKEN)])?;
        stage.found("a giver", client, &[answered([7; 5]), given_by_client]);
    }
    // One that cannot be given when its call is taken hears of it, and the next one is served.
    stage.begin(client, &[call_give(E, words)])?;
    stage.begin(other, &[call(E, [8; 5])])?;
    stage.script(
        "no slot when the call is taken",
        server,
        &[
            (receive_slot(Address(0)), DONE_WELL),
            (receive(E), came(2, [8; 5])),
            (reply([9; 5]), DONE_WELL),
            (receive_slot(TAKEN), DONE_WELL),
        ],
    )?;
    stage.found("a giver", client, &[no_slot]);
    stage.found("the next one", other, &[answered([9; 5])]);
    // Without the right to give, or something to give.
    stage.hand(client, endpoint, E2, Rights::WRITE, 0)?;
    stage.script(
        "no right to give",
        client,
        &[
            (call_give(E2, words), refused(Error::NotAllowed)),
            (give_of(E, TAKEN), nothing),
            (give_of(E, Address(0)), refused(Error::NoSuchSlot)),
        ],
    )?;

    // An answer may bring one too. Who takes none waits on.
    stage.begin(server, &[receive(E)])?;
    stage.begin(client, &[receive_slot(Address(0)), call(E, [1; 5])])?;
    stage.script(
        "an answer without a slot",
        server,
        &[
            (reply_give(words), no_slot),
            (give_of_answer(TAKEN), nothing),
            (reply([2; 5]), DONE_WELL),
            (reply_give(words), refused(Error::NoCaller)),
        ],
    )?;
    stage.found(
        "a client without a slot",
        client,
        &[DONE_WELL, answered([2; 5])],
    );
    stage.begin(client, &[receive_slot(GIVEN), call(E, [1; 5])])?;
    stage.script(
        "an answer to a full slot",
        server,
        &[
            (receive(E), came(1, [1; 5])),
            (reply_give(words), no_slot),
            (reply([2; 5]), DONE_WELL),
        ],
    )?;
    stage.begin(
        client,
        &[receive_slot(TAKEN), call(E, [3; 5]), identify(TAKEN)],
    )?;
    stage.script(
        "an answer with a capability",
        server,
        &[
            (receive(E), came(1, [3; 5])),
            (reply_give(words), DONE_WELL),
            (identify(GIVEN), given_by_server),
        ],
    )?;
    hears(stage, "an answer with a capability", client, 1, 0);
    let got = stage.result(client, 2);
    stage.expect("what the client got", &got, &given_by_server);

    // A session: an endpoint that comes with an answer, and is called.
    let session = stage.endpoint()?;
    stage.hand(server, session, E3, Rights::READ, 0)?;
    stage.hand(server, session, E2, Rights::WRITE, 42)?;
    stage.begin(
        client,
        &[delete(TAKEN), call(E, [4; 5]), call(TAKEN, [5; 5])],
    )?;
    stage.script(
        "a session",
        server,
        &[
            (receive(E), came(1, [4; 5])),
            (
                Step(syscall::REPLY_GIVE, [0, 1, 2, 3, u64::MAX, E2.0]),
                DONE_WELL,
            ),
            (receive(E3), came(42, [5; 5])),
            (reply([6; 5]), DONE_WELL),
        ],
    )?;
    let last = stage.result(client, 2);
    stage.expect("the call of a session", &last, &answered([6; 5]));

    // What is taken back before the call is taken, does not arrive.
    stage.begin(client, &[call_give(E, words)])?;
    at("revoke of a frame", capability::revoke(frame))?;
    stage.script(
        "a gift that is gone",
        server,
        &[
            (receive_until(E, OVER), refused(Error::TimedOut)),
            (identify(TAKEN), nothing),
        ],
    )?;
    stage.found("a giver", client, &[nothing]);
    at("free of a frame", memory::free(frame))
}

/// Servers and endpoints that go.
fn gone(stage: &mut Stage) -> Attempt {
    let peer_gone = refused(Error::PeerGone);
    // With a client that was called and one that queues.
    for is_killed in [false, true] {
        let [server, called, queued, heir] = stage.puppets([2, 2, 1, 1])?;
        let endpoint = stage.link(E, server, &[called, queued])?;
        stage.hand(heir, endpoint, E, Rights::READ, 0)?;
        stage.begin(server, &[receive(E)])?;
        for client in [called, queued] {
            stage.begin(client, &[call(E, sample(1))])?;
            stage.found("a client", client, &[BLOCKED]);
        }
        stage.found("a server", server, &[came(1, sample(1))]);
        if is_killed {
            stage.kill(server)?;
        } else {
            stage.begin(server, &[exit(7)])?;
            stage.ended("status of a server", server, 7);
        }
        for client in [called, queued] {
            stage.found("a client of a server that ended", client, &[peer_gone]);
            stage.script("a call of nobody", client, &[(call(E, [0; 5]), peer_gone)])?;
        }
        // Until somebody else is there, even if only for a moment.
        let waited = refused(Error::TimedOut);
        stage.script("an heir", heir, &[(receive_until(E, OVER), waited)])?;
        stage.begin(queued, &[call(E, sample(2))])?;
        stage.begin(heir, &[receive(E), reply(sample(3))])?;
        stage.found(
            "an heir that serves",
            heir,
            &[came(2, sample(2)), DONE_WELL],
        );
        stage.found("a client of an heir", queued, &[answered(sample(3))]);
        // And one that waits for calls.
        stage.begin(heir, &[receive(E)])?;
        stage.kill(heir)?;
        stage.script("a call of nobody", called, &[(call(E, [0; 5]), peer_gone)])?;
        stage.clear()?;
    }

    // The endpoint goes: first all capabilities to it but the director's, then itself.
    let [server, called, queued, waiting] = stage.puppets([2, 2, 2, 2])?;
    stage.link(E, server, &[called, queued])?;
    let other = stage.link(E2, waiting, &[called])?;
    let empty = refused(Error::EmptySlot);
    stage.begin(waiting, &[receive(E2)])?;
    stage.begin(server, &[receive(E)])?;
    for client in [called, queued] {
        stage.begin(client, &[call(E, sample(4))])?;
    }
    at(
        "revoke of an endpoint",
        capability::revoke(stage.endpoints[0]),
    )?;
    at("revoke of an endpoint", capability::revoke(other))?;
    for client in [called, queued, waiting] {
        stage.found("who waits meanwhile", client, &[BLOCKED]);
    }
    stage.script(
        "a receive without a capability",
        server,
        &[(receive(E), empty)],
    )?;
    for endpoint in core::mem::take(&mut stage.endpoints) {
        at("free of an endpoint", memory::free(endpoint))?;
    }
    stage.found("who waited for calls", waiting, &[peer_gone]);
    stage.found("who queued", queued, &[peer_gone]);
    stage.found("who was served", called, &[BLOCKED]);
    stage.script("who served", server, &[(reply(sample(5)), DONE_WELL)])?;
    stage.found("who was served", called, &[answered(sample(5))]);
    stage.script(
        "a call without a capability",
        called,
        &[(call(E, [0; 5]), empty)],
    )
}

/// Clients that are killed.
fn killed(stage: &mut Stage) -> Attempt {
    let [server, called, queued, next] = stage.puppets([2, 2, 3, 1])?;
    stage.link(E, server, &[called, queued, next])?;
    let no_caller = refused(Error::NoCaller);
    stage.begin(server, &[receive(E)])?;
    for client in [called, queued, next] {
        stage.begin(client, &[call(E, sample(6))])?;
    }
    stage.found("a server", server, &[came(1, sample(6))]);
    stage.kill(called)?;
    stage.kill(queued)?;
    stage.script(
        "answers to nobody",
        server,
        &[
            (reply(sample(7)), no_caller),
            (reply_receive(E, sample(7)), no_caller),
            (receive(E), came(3, sample(6))),
            (reply_receive(E, sample(8)), BLOCKED),
        ],
    )?;
    stage.found("the next client", next, &[answered(sample(8))]);
    stage.begin(next, &[call(E, sample(9))])?;
    let heard = stage.result(server, 3);
    stage.expect("and its next call", &heard, &came(3, sample(9)));
    Ok(())
}

/// Clients and servers that are stopped at each point.
fn stopped(stage: &mut Stage) -> Attempt {
    let [server, client, other] = stage.puppets([2, 2, 3])?;
    stage.link(E, server, &[client, other])?;
    // A client that queues; its call is taken and answered meanwhile.
    stage.begin(client, &[call(E, sample(1))])?;
    stage.stop(client)?;
    let serves = [
        (receive(E), came(1, sample(1))),
        (reply(sample(2)), DONE_WELL),
    ];
    stage.script("the call of one that was stopped", server, &serves)?;
    stage.found("a client that was stopped", client, &[BLOCKED]);
    stage.start(client)?;
    stage.found("a client that was started", client, &[answered(sample(2))]);
    // One that was called.
    stage.begin(server, &[receive(E)])?;
    stage.begin(client, &[call(E, sample(3))])?;
    stage.stop(client)?;
    stage.begin(server, &[reply_receive(E, sample(4))])?;
    stage.found("a server that waits again", server, &[BLOCKED]);
    stage.found("a client that was stopped", client, &[BLOCKED]);
    stage.start(client)?;
    stage.found("a client that was started", client, &[answered(sample(4))]);
    // A server that waits for calls.
    stage.stop(server)?;
    for (who, number) in [(client, 5), (other, 6)] {
        stage.begin(who, &[call(E, sample(number))])?;
        stage.found("a client of one that was stopped", who, &[BLOCKED]);
    }
    stage.found("a server that was stopped", server, &[BLOCKED]);
    stage.start(server)?;
    stage.found("a server that was started", server, &[came(2, sample(6))]);
    stage.begin(server, &[reply_receive(E, sample(7))])?;
    stage.found("its next call", server, &[came(1, sample(5))]);
    stage.found("its first client", other, &[answered(sample(7))]);
    // One that serves.
    stage.stop(server)?;
    stage.begin(server, &[reply(sample(8))])?;
    stage.found("a client of one that was stopped", client, &[BLOCKED]);
    stage.start(server)?;
    stage.found(
        "a client of one that was started",
        client,
        &[answered(sample(8))],
    );
    // One whose deadline comes meanwhile.
    let mut ahead = PAUSE_NS;
    loop {
        ahead *= 2;
        stage.begin(server, &[receive_until(E, clock::now_ns() + ahead)])?;
        stage.stop(server)?;
        if stage.result(server, 0).is_none() || ahead > PATIENCE_NS {
            break;
        }
        // It was there before the stop.
        stage.start(server)?;
    }
    clock::sleep_ns(2 * ahead);
    stage.begin(other, &[call(E, sample(9))])?;
    stage.found("a server that was stopped", server, &[BLOCKED]);
    stage.start(server)?;
    stage.found(
        "a server that was started",
        server,
        &[refused(Error::TimedOut)],
    );
    let serves = [
        (receive(E), came(2, sample(9))),
        (reply(sample(10)), DONE_WELL),
    ];
    stage.script("what it missed", server, &serves)?;
    stage.found("a client that waited", other, &[answered(sample(10))]);
    // One whose bell rings meanwhile.
    stage.begin(server, &[receive(E)])?;
    stage.stop(server)?;
    stage.ring(server)?;
    stage.found("a server that was stopped", server, &[BLOCKED]);
    stage.start(server)?;
    stage.found(
        "a server that was started",
        server,
        &[refused(Error::Interrupted)],
    );
    // Itself; and who is stopped twice, needs one start.
    stage.begin(client, &[one(syscall::STOP, OWN_DISPATCHER.0), LOOK])?;
    stage.found("one that stopped itself", client, &[BLOCKED]);
    for _ in 0..2 {
        stage.stop(client)?;
    }
    stage.start(client)?;
    stage.found("one that stopped itself", client, &[DONE_WELL, DONE_WELL]);
    stage.start(client)?;
    stage.script("and goes on", client, &[(LOOK, DONE_WELL)])
}

/// Calls in circles.
fn deadlock(stage: &mut Stage) -> Attempt {
    let all = stage.puppets([2, 2, 2])?;
    let [a, b, c] = all;
    // Each receives at its own endpoint, and may call all.
    for (owner, slot) in all.into_iter().zip([E, E2, E3]) {
        let endpoint = stage.endpoint()?;
        for (who, badge) in all.into_iter().zip(1..) {
            let mut hold = Rights::WRITE;
            hold.set(Rights::READ, who == owner);
            stage.hand(who, endpoint, slot, hold, badge)?;
        }
        let waits = (receive_until(slot, OVER), refused(Error::TimedOut));
        stage.script("an owner", owner, &[waits])?;
    }
    let never = refused(Error::Deadlock);
    stage.script("itself", a, &[(call(E, [0; 5]), never)])?;
    // Each other: whoever is called may not call back.
    stage.begin(b, &[receive(E2)])?;
    stage.begin(a, &[call(E2, sample(1))])?;
    stage.found("the second of two", b, &[came(1, sample(1))]);
    stage.script(
        "the second of two",
        b,
        &[(call(E, [0; 5]), never), (reply(sample(2)), DONE_WELL)],
    )?;
    stage.found("the first of two", a, &[answered(sample(2))]);
    // Also not where the first still queues.
    stage.begin(a, &[call(E2, sample(3))])?;
    stage.script(
        "the second of two",
        b,
        &[
            (call(E, [0; 5]), never),
            (receive(E2), came(1, sample(3))),
            (reply(sample(4)), DONE_WELL),
        ],
    )?;
    stage.found("the first of two", a, &[answered(sample(4))]);
    // By way of a third, which is a chain and no circle.
    for is_waiting in [true, false] {
        stage.begin(b, &[receive(E2), call(E3, sample(6)), reply(sample(8))])?;
        if is_waiting {
            stage.begin(c, &[receive(E3)])?;
        }
        stage.begin(a, &[call(E2, sample(5))])?;
        if !is_waiting {
            stage.script(
                "the third",
                c,
                &[
                    (call(E, [0; 5]), never),
                    (call(E2, [0; 5]), never),
                    (receive(E3), came(2, sample(6))),
                ],
            )?;
        }
        stage.found("the second", b, &[came(1, sample(5)), BLOCKED]);
        stage.script(
            "the third",
            c,
            &[
                (call(E, [0; 5]), never),
                (call(E2, [0; 5]), never),
                (call(E3, [0; 5]), never),
                (reply(sample(7)), DONE_WELL),
            ],
        )?;
        let all = [came(1, sample(5)), answered(sample(7)), DONE_WELL];
        stage.found("the second", b, &all);
        stage.found("the first", a, &[answered(sample(8))]);
    }
    Ok(())
}

/// Every other error.
fn misuse(stage: &mut Stage) -> Attempt {
    let [server, client] = stage.puppets([2, 2])?;
    let endpoint = stage.link(E, server, &[client])?;
    let not_allowed = refused(Error::NotAllowed);
    stage.hand(client, endpoint, E2, Rights::empty(), 0)?;
    stage.hand(client, endpoint, E3, Rights::READ, 0)?;
    stage.script(
        "no right to call",
        server,
        &[(call(E, [0; 5]), not_allowed)],
    )?;
    stage.script(
        "no right to receive",
        client,
        &[
            (receive(E), not_allowed),
            (receive(E2), not_allowed),
            (call(E2, [0; 5]), not_allowed),
        ],
    )?;
    // Slots that are none, are empty, or hold something else.
    let slots = FIRST_CNODE_SLOTS;
    for (slot, error) in [
        (Address(0), Error::NoSuchSlot),
        (Address::new(0, 1), Error::NoSuchSlot),
        (Address::new(2, 0), Error::NoSuchSlot),
        (Address::new(2, slots), Error::NoSuchSlot),
        (Address::new(slots, 1), Error::NoSuchSlot),
        (Address::new(slots - 1, 1), Error::NoSuchSlot),
        (Address(u64::MAX), Error::NoSuchSlot),
        (TAKEN, Error::EmptySlot),
        (OWN_SPACE, Error::WrongKind),
        (BELL, Error::EmptySlot),
    ] {
        let error = refused(error);
        let what = format!("no endpoint, {slot:x?}");
        let steps = [
            (call(slot, [0; 5]), error),
            (receive(slot), error),
            // Who answers, has answered.
            (receive(E), came(1, sample(1))),
            (reply_receive(slot, sample(2)), error),
        ];
        stage.begin(client, &[call(E, sample(1))])?;
        stage.script(&what, server, &steps)?;
        stage.found(&what, client, &[answered(sample(2))]);
    }
    // Answers to nobody; two calls at once; two that receive.
    let no_caller = refused(Error::NoCaller);
    stage.script(
        "no caller",
        server,
        &[
            (reply([0; 5]), no_caller),
            (reply_give([0; 4]), no_caller),
            (reply_receive(E, [0; 5]), no_caller),
        ],
    )?;
    stage.script(
        "two that receive",
        client,
        &[
            (receive(E3), refused(Error::Busy)),
            (receive_until(E3, OVER), refused(Error::Busy)),
        ],
    )?;
    stage.begin(client, &[call(E, sample(3))])?;
    stage.script(
        "two calls at once",
        server,
        &[
            (receive(E), came(1, sample(3))),
            (receive(E), refused(Error::MustReply)),
            (receive_until(E, OVER), refused(Error::MustReply)),
            (reply(sample(4)), DONE_WELL),
            (ring(OWN_DOORBELL), DONE_WELL),
            (receive(E), refused(Error::Interrupted)),
            (receive_until(E, OVER), refused(Error::TimedOut)),
        ],
    )?;
    stage.found("its client", client, &[answered(sample(4))]);
    // A deadline that is not over yet, and one that a call comes before.
    let deadline = clock::now_ns() + 2 * PAUSE_NS;
    stage.begin(server, &[receive_until(E, deadline)])?;
    stage.finish("a deadline", server)?;
    let is_over = clock::now_ns() >= deadline;
    stage.expect("the time of a deadline", &is_over, &true);
    stage.found("a deadline", server, &[refused(Error::TimedOut)]);
    let deadline = clock::now_ns() + PATIENCE_NS;
    stage.begin(server, &[receive_until(E, deadline), receive(E)])?;
    stage.begin(client, &[call(E, sample(5))])?;
    let must_reply = refused(Error::MustReply);
    stage.found(
        "a call before it",
        server,
        &[came(1, sample(5)), must_reply],
    );
    stage.script("its answer", server, &[(reply(sample(6)), DONE_WELL)])?;
    too_many_endpoints(stage)
}

/// One that receives on as many endpoints as it can.
fn too_many_endpoints(stage: &mut Stage) -> Attempt {
    stage.clear()?;
    let [server, client] = stage.puppets([2, 2])?;
    let slot = |index: usize| Address::new(2, FIRST_FREE_SLOT + index as u64);
    for index in 0..=MAX_ENDPOINTS {
        let endpoint = stage.endpoint()?;
        stage.hand(server, endpoint, slot(index), Rights::READ, 0)?;
        if index == 0 {
            stage.hand(client, endpoint, E, Rights::WRITE, 7)?;
        }
    }
    let over = (Error::TimedOut, Error::TooMany);
    let all: Vec<_> = (0..=MAX_ENDPOINTS)
        .map(|index| {
            let error = if index < MAX_ENDPOINTS {
                over.0
            } else {
                over.1
            };
            (receive_until(slot(index), OVER), refused(error))
        })
        .collect();
    for some in all.chunks(MAX_STEPS) {
        stage.script("many endpoints", server, some)?;
    }
    // All of them work, and with one less there is room.
    stage.begin(client, &[call(E, sample(1))])?;
    stage.script(
        "the first of many",
        server,
        &[
            (receive(slot(0)), came(7, sample(1))),
            (reply(sample(2)), DONE_WELL),
        ],
    )?;
    stage.found("a client of many", client, &[answered(sample(2))]);
    let gone = stage.endpoints.swap_remove(1);
    at("free of an endpoint", memory::free(gone))?;
    let last = receive_until(slot(MAX_ENDPOINTS), OVER);
    stage.script("one less", server, &[(last, refused(over.0))])
}

/// More than words: the contents of a frame.
fn shared_payload(stage: &mut Stage) -> Attempt {
    let [server, client] = stage.puppets([2, 2])?;
    stage.link(E, server, &[client])?;
    let frame = made("a frame", memory::frame(PAYLOAD_BYTES))?;
    for who in [server, client] {
        stage.puppets[who].show(frame, PAYLOAD)?;
    }
    let (fill, check) = (pseudo::FILL, pseudo::CHECK);
    stage.begin(server, &[receive(E)])?;
    for seed in 1..4 {
        let calls = [one(fill, seed), call(E, [seed; 5]), one(check, seed + 10)];
        stage.begin(client, &calls)?;
        stage.begin(
            server,
            &[
                one(check, seed),
                one(fill, seed + 10),
                reply_receive(E, [0; 5]),
            ],
        )?;
        let well = [DONE_WELL, DONE_WELL, BLOCKED];
        stage.found("what the server found", server, &well);
        stage.found("what the client found", client, &[DONE_WELL; 3]);
    }
    stage.clear()?;
    at("free of a frame", memory::free(frame))
}

/// Nobody waits for a lower priority than its own. A hog computes meanwhile, and whoever has
/// the highest priority looks how far it has come.
fn inversion(stage: &mut Stage) -> Attempt {
    const BEFORE: u64 = 100;
    const AFTER: u64 = 50_000;
    // The lowest is served while the hog wakes the highest.
    for is_chain in [false, true] {
        let [server, low, hog, high, last] = stage.puppets([1, 1, 2, 3, 1])?;
        stage.link(E, server, &[low, high])?;
        stage.link(E2, last, &[server])?;
        let worker = if is_chain { last } else { server };
        stage.hand(worker, stage.puppets[hog].bell, BELL, Rights::WRITE, 0)?;
        stage.hand(hog, stage.puppets[high].bell, BELL, Rights::WRITE, 0)?;
        stage.prepare(hog, &[count(BEFORE), ring(BELL), count(AFTER)])?;
        stage.prepare(high, &[call(E, sample(1)), LOOK])?;
        if is_chain {
            stage.begin(last, &[receive(E2)])?;
            let serves = [
                receive(E),
                call(E2, sample(9)),
                reply_receive(E, sample(2)),
                reply(sample(3)),
            ];
            stage.begin(server, &serves)?;
            stage.begin(low, &[call(E, sample(4))])?;
            stage.begin(last, &[ring(BELL), reply(sample(5))])?;
        } else {
            stage.begin(server, &[receive(E)])?;
            stage.begin(low, &[call(E, sample(4))])?;
            let serves = [ring(BELL), reply_receive(E, sample(2)), reply(sample(3))];
            stage.begin(server, &serves)?;
        }
        let looked = Some(Ok((BEFORE, [0; 5])));
        stage.found("the highest", high, &[answered(sample(3)), looked]);
        stage.found("the hog", hog, &[DONE_WELL; 3]);
        stage.found("the lowest", low, &[answered(sample(2))]);
        stage.clear()?;
    }
    // The highest waits at another endpoint than the one at which its server is called.
    for deadline in [0, FAR] {
        let [server, low, hog, high] = stage.puppets([1, 1, 2, 3])?;
        stage.link(E, server, &[low])?;
        stage.link(E2, server, &[high])?;
        stage.hand(server, stage.puppets[hog].bell, BELL, Rights::WRITE, 0)?;
        stage.prepare(hog, &[count(AFTER)])?;
        let serves = [
            receive_until(E2, OVER),
            receive_until(E, deadline),
            ring(BELL),
            reply_receive(E2, sample(2)),
            reply(sample(3)),
        ];
        stage.begin(server, &serves)?;
        stage.begin(high, &[call(E2, sample(1)), LOOK])?;
        stage.begin(low, &[call(E, sample(4))])?;
        let what = format!("the highest at another endpoint, deadline {deadline:#x}");
        stage.found(&what, high, &[answered(sample(3)), DONE_WELL]);
        stage.found("the hog", hog, &[DONE_WELL]);
        stage.found("the lowest", low, &[answered(sample(2))]);
        stage.clear()?;
    }
    // Its server is only about to come, and a bell keeps it from taking the call at once.
    let [server, hog, high] = stage.puppets([1, 2, 3])?;
    stage.link(E, server, &[high])?;
    stage.hand(server, stage.puppets[hog].bell, BELL, Rights::WRITE, 0)?;
    stage.prepare(hog, &[count(AFTER)])?;
    stage.begin(high, &[call(E, sample(1)), LOOK])?;
    let serves = [
        ring(OWN_DOORBELL),
        receive(E),
        ring(BELL),
        receive(E),
        reply(sample(2)),
    ];
    stage.begin(server, &serves)?;
    let interrupted = stage.result(server, 1);
    stage.expect("a bell first", &interrupted, &refused(Error::Interrupted));
    let what = "the highest before its server";
    stage.found(what, high, &[answered(sample(2)), DONE_WELL]);
    stage.found("the hog", hog, &[DONE_WELL]);
    Ok(())
}

/// Tens of thousands of calls among domains that compute with vector registers, while another one
/// takes the core from them at any instruction.
fn storm(stage: &mut Stage) -> Attempt {
    /// Calls of each client.
    const CALLS: u64 = 10_000;
    const TICKS: u64 = 100;
    const TICK_NS: u64 = 200_000;
    let [first, second, a, b, c, ticker] = stage.puppets([2, 2, 2, 2, 2, 3])?;
    let clients = [a, b, c];
    stage.link(E, first, &clients)?;
    stage.link(E2, second, &clients)?;
    let serve = |endpoint: Address, seed| Step(pseudo::SERVE, [endpoint.0, seed, 0, 0, 0, 0]);
    stage.begin(first, &[serve(E, 0)])?;
    stage.begin(second, &[serve(E2, 0x5eed)])?;
    // Two by themselves, who leave vector registers alone.
    stage.begin(c, &[Step(pseudo::STORM, [2 * CALLS, 3, 1, 0, 0, 0])])?;
    stage.found("calls of two", c, &[DONE_WELL]);
    // All begin at the bell of the ticker, but the director runs between: so it lets them wait.
    for (client, badge) in clients.into_iter().zip(1..) {
        // The last one leaves vector registers alone.
        let computes = u64::from(badge < 3);
        let seed = badge | computes << 8 | (computes * badge) << 16;
        stage.prepare(client, &[Step(pseudo::STORM, [CALLS, seed, 2, 0, 0, 0])])?;
        stage.stop(client)?;
        stage.ring(client)?;
    }
    stage.begin(ticker, &[Step(pseudo::TICK, [TICKS, TICK_NS, 0, 0, 0, 0])])?;
    for client in clients {
        at(
            "start of a client",
            dispatcher::start(stage.puppets[client].slots),
        )?;
    }
    for client in clients {
        stage.finish("a client in the storm", client)?;
        stage.found("a client in the storm", client, &[DONE_WELL]);
    }
    stage.finish("who ticks in the storm", ticker)?;
    stage.found("who ticks in the storm", ticker, &[DONE_WELL]);
    for (endpoint, server) in [(E, first), (E2, second)] {
        let end = [pseudo::END, 0, 0, 0, 0];
        let last = answered(answer_of(1, end));
        stage.script("the last call", a, &[(call(endpoint, end), last)])?;
        stage.found("a server in the storm", server, &[DONE_WELL]);
    }
    Ok(())
}
