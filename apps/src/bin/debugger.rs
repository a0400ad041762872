//! A debugger of another domain, by nothing but capabilities: `debugger`.
//!
//! It starts a copy of itself, the *victim*, and gets three capabilities of it: its dispatcher, its
//! root CNode, and its address space. With these alone it
//!
//! 1. finds the frames behind the victim's addresses, maps them, reads and writes variables;
//! 2. stops the victim in the middle of a loop, reads registers, ends the loop by another one;
//! 3. goes through known instructions one by one: a loop, a call, a system call;
//! 4. puts a breakpoint into code that the victim has made, and takes it out again.
//!
//! Without one of the capabilities, or with one that has fewer rights, each of these is refused.
//! *Strangers* of the same job, who were given nothing, find nothing.
#![no_std]
#![no_main]

extern crate alloc;

use abi::layout::PAGE;
use abi::syscall::{self, REGISTERS, RESUME};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::capability::{self, Address, ENDPOINT_BYTES, FIRST_CNODE_SLOTS, Kind};
use rt::capability::{OWN_DISPATCHER, ROOT_CNODE, Rights, SLOT_BYTES, TASK_CNODE, slots};
use rt::dispatcher::{self, Life, Property};
use rt::monitor::{self, Spawn};
use rt::space::{self, MapError, Mapping, PageSize, rights};
use rt::system_call::Error;
use rt::{clock, lrpc, memory, println};

rt::entry!(main);

/// The words by which a copy of the program knows what it is.
const VICTIM: &str = "victim";
const STRANGER: &str = "stranger";

const DEBUG_TRAP: u64 = 1;
const BREAKPOINT: u64 = 3;
/// The flag that makes each instruction a trap.
const TRAP: u64 = 0x100;

/// How long the victim may take.
const PATIENCE_NS: u64 = 20_000_000_000;
/// How long to wait before looking again.
const PAUSE_NS: u64 = 200_000;

/// What the victim waits for at first, and what it finds instead.
const NEVER: u64 = 0x4e45_5645_5221;
const AT_FIRST: u64 = 0x4154_2046_4952_5354;
/// What the debugger writes there.
const CHANGED: u64 = 0x4348_414e_4745_4421;

/// Of the victim: a variable; how often it went around; where its own code is.
static VARIABLE: AtomicU64 = AtomicU64::new(AT_FIRST);
static ROUNDS: AtomicU64 = AtomicU64::new(0);
static CODE_AT: AtomicU64 = AtomicU64::new(0);

/// The victim's own code: `mov eax, 1`, `add eax, 2`, `add eax, 3`, `ret`.
const CODE: [u8; 16] = [
    0xb8, 1, 0, 0, 0, 0x83, 0xc0, 2, 0x83, 0xc0, 3, 0xc3, 0, 0, 0, 0,
];
/// What stands for a breakpoint.
const INT3: u64 = 0xcc;
/// Where in it the breakpoint goes.
const BREAK_AT: u64 = 5;
/// What it returns: by itself, and with 100 in place of 1.
const BY_ITSELF: u64 = 6;
const WITH_A_HUNDRED: u64 = 105;

core::arch::global_asm!(
    // Goes around until [rsi] is rdx, and counts in [rdi].
    ".global spin, loop_start, loop_end",
    "spin:",
    "loop_start: inc qword ptr [rdi]",
    "cmp [rsi], rdx",
    "jne loop_start",
    "loop_end: ret",
    // Says with a breakpoint that it is there, and computes 107.
    ".global steps, step_0, step_1, step_2, step_3, step_4, step_5, step_6, step_7, step_8",
    ".global step_9, inner_0, inner_1, steps_end",
    "steps: push rbx",
    "int3",
    "step_0: mov eax, 1",
    "step_1: mov ecx, 3",
    "step_2: add rax, rcx",
    "step_3: dec ecx",
    "step_4: jnz step_2",
    "step_5: call inner_0",
    "step_6: mov rbx, rax",
    "step_7: mov eax, {NULL}",
    "step_8: syscall",
    "step_9: lea rax, [rbx + rax]",
    "steps_end: pop rbx",
    "ret",
    "inner_0: add rax, 100",
    "inner_1: ret",
    // Says with a breakpoint that there is code at CODE_AT.
    ".global announce, announce_end",
    "announce: int3",
    "announce_end: ret",
    NULL = const syscall::NULL,
);

/// Declares places in the instructions above.
macro_rules! places {
    ($($name:ident)*) => {
        unsafe extern "C" {
            $(static $name: u8;)*
        }
        $(
            /// Its address, the same in all copies of the program.
            mod $name {
                pub fn address() -> u64 {
                    &raw const super::$name as u64
                }
            }
        )*
    };
}

places! {
    loop_start loop_end step_0 step_1 step_2 step_3 step_4 step_5 step_6 step_7 step_8 step_9 inner_0
    inner_1 steps_end announce_end
}

unsafe extern "C" {
    fn spin(rounds: *const AtomicU64, variable: *const AtomicU64, wanted: u64);
    fn steps() -> u64;
    fn announce();
}

fn main() -> i32 {
    let mut words = rt::startup().arguments().skip(1);
    match words.next() {
        Some(VICTIM) => victim(),
        Some(STRANGER) => stranger(words),
        None => debug(),
        Some(word) => {
            println!("debugger: `{word}` is no option of it");
            println!("usage: debugger");
            2
        }
    }
}

// ---- the victim --------------------------------------------------------------------------------

/// Does what it would never do by itself; as an exit status what it did instead.
fn victim() -> i32 {
    let (rounds, variable) = (&raw const ROUNDS, &raw const VARIABLE);
    // SAFETY: reads and writes the two statics, which are atomic.
    unsafe { spin(rounds, variable, NEVER) };
    // Nobody wrote what it waited for; but somebody wrote.
    if VARIABLE.load(Ordering::Relaxed) != CHANGED {
        return 1;
    }
    // SAFETY: computes in registers, and makes a call that does nothing.
    if unsafe { steps() } != 107 + 1000 {
        return 2;
    }
    match call_own_code() {
        Some(results) if results == [WITH_A_HUNDRED, BY_ITSELF] => 0,
        Some(_) => 3,
        None => 4,
    }
}

/// Calls code of its own twice, on a page that it wrote to before.
fn call_own_code() -> Option<[u64; 2]> {
    let frame = memory::frame(PAGE).ok()?;
    // SAFETY: new memory, which is looked at through this mapping alone.
    let mut page = unsafe { Mapping::of(frame, PageSize::Small, rights::WRITE) }.ok()?;
    let words: [u64; 2] = [0, 8].map(|at| {
        let bytes = CODE[at..].first_chunk().copied();
        u64::from_le_bytes(bytes.unwrap_or_default())
    });
    for (place, word) in page.words().iter().zip(words) {
        place.store(word, Ordering::Relaxed);
    }
    page.protect(rights::EXECUTE).ok()?;
    CODE_AT.store(page.address(), Ordering::Relaxed);
    // SAFETY: a breakpoint and a return. Then the code above, which changes `rax` and flags.
    unsafe {
        announce();
        let code: extern "C" fn() -> u64 = core::mem::transmute(page.address());
        Some([code(), code()])
    }
}

// ---- strangers ---------------------------------------------------------------------------------

/// Looks for a way to the victim: by the addresses at which the debugger has its capabilities, which
/// come first among the words, and by what it has itself. What of the victim's memory would be a
/// way comes behind them.
fn stranger(words: impl Iterator<Item = &'static str>) -> i32 {
    let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    let [dispatcher, root, space, ways @ ..] = &numbers[..] else {
        return 2;
    };
    let [dispatcher, root, space] = [dispatcher, root, space].map(|slot| Address(*slot));
    let all = slots_below(None);
    // The way to count is right: it finds its own dispatcher, and more.
    if !all.iter().any(|(slot, _)| *slot == OWN_DISPATCHER) {
        return 3;
    }
    for (slot, identity) in &all {
        let covers = |way: &u64| (identity.base..identity.base + identity.bytes).contains(way);
        if ways.iter().any(covers) {
            println!("debugger: a stranger has {identity:x?} at {slot:x?}");
            return 4;
        }
    }
    let empty = [Error::EmptySlot, Error::NoSuchSlot];
    let mut bad = 0;
    let mut refused = |what: &str, error: Option<Error>| {
        if !error.is_some_and(|error| empty.contains(&error)) {
            println!("debugger: {what} by a stranger: expected one of {empty:?}, found {error:?}");
            bad += 1;
        }
    };
    refused("state", dispatcher::state(dispatcher).err());
    refused("read", dispatcher::read_register(dispatcher, 0).err());
    refused("write", dispatcher::write_register(dispatcher, 0, 1).err());
    refused("stop", dispatcher::stop(dispatcher).err());
    refused("start", dispatcher::start(dispatcher).err());
    for property in [
        Property::FaultHandler(None),
        Property::CSpace(ROOT_CNODE),
        Property::Priority(0),
        Property::Name("mine"),
    ] {
        refused(
            "configure",
            dispatcher::configure(dispatcher, property).err(),
        );
    }
    refused("look", capability::identify_in(root, OWN_DISPATCHER).err());
    let free = Address::new(2, FIRST_CNODE_SLOTS - 1);
    refused(
        "copy",
        capability::copy_from(root, OWN_DISPATCHER, free).err(),
    );
    refused(
        "translate",
        space::translate(space, address_of(&VARIABLE)).err(),
    );
    i32::from(bad > 0)
}

/// All capabilities below a root CNode, `None`: the own one, and where they are.
fn slots_below(root: Option<Address>) -> Vec<(Address, capability::Identity)> {
    let identify = |slot| match root {
        Some(root) => capability::identify_in(root, slot),
        None => capability::identify(slot),
    };
    let mut found = Vec::new();
    for index in 1..FIRST_CNODE_SLOTS {
        let Ok(cnode) = identify(Address::new(1, index)) else {
            continue;
        };
        if cnode.kind != Kind::CNode {
            continue;
        }
        for slot in (1..cnode.bytes / SLOT_BYTES).map(|at| Address::new(index, at)) {
            found.extend(identify(slot).map(|identity| (slot, identity)));
        }
    }
    found
}

// ---- the debugger ------------------------------------------------------------------------------

/// Why it cannot go on.
struct Failure(String);

type Attempt<T = ()> = Result<T, Failure>;

/// Names the step that a refusal befell.
fn at<T, E: Debug>(step: &str, result: Result<T, E>) -> Attempt<T> {
    result.map_err(|error| Failure(format!("{step}: {error:?}")))
}

fn address_of(variable: &AtomicU64) -> u64 {
    core::ptr::from_ref(variable) as u64
}

/// The index of a register.
fn register(name: &str) -> usize {
    let found = REGISTERS.iter().position(|register| *register == name);
    found.unwrap_or(REGISTERS.len())
}

/// Memory of the victim, mapped here.
struct Memory {
    mapping: Mapping,
    /// Address in the victim of its first byte.
    begins: u64,
}

impl Memory {
    /// The word at an address of the victim's that is a multiple of eight.
    fn word(&self, address: u64) -> &AtomicU64 {
        &self.mapping.words()[((address - self.begins) / 8) as usize]
    }

    /// Writes a byte there; returns what was there before.
    fn write_byte(&self, address: u64, byte: u64) -> u64 {
        let (word, shift) = (self.word(address & !7), address % 8 * 8);
        let before = word.load(Ordering::Relaxed);
        word.store(before & !(0xff << shift) | byte << shift, Ordering::Relaxed);
        before >> shift & 0xff
    }

    fn drop(self) -> Attempt {
        let frame = self.mapping.frame();
        drop(self.mapping);
        at("delete of a frame", capability::delete(frame))?;
        slots::give(frame);
        Ok(())
    }
}

/// The debugger, and what it was given.
struct Debugger {
    dispatcher: Address,
    root: Address,
    space: Address,
    endpoint: Address,
    checks: u64,
    bad: u64,
}

fn debug() -> i32 {
    match run() {
        Ok(0) => {
            println!("debugger: passed");
            0
        }
        Ok(bad) => {
            println!("debugger: failed: {bad} checks");
            1
        }
        Err(Failure(reason)) => {
            println!("debugger: failed: {reason}");
            1
        }
    }
}

fn run() -> Attempt<u64> {
    let row = at("slots", slots::take_row(3))?;
    let victim = Spawn::new(&["debugger", VICTIM]).traced(row).start();
    let victim = at("start of the victim", victim)?;
    let endpoint = memory::object(Kind::Endpoint, ENDPOINT_BYTES);
    let mut debugger = Debugger {
        dispatcher: row,
        root: row.plus(1),
        space: row.plus(2),
        endpoint: at("an endpoint", endpoint)?,
        checks: 0,
        bad: 0,
    };
    let handler = Property::FaultHandler(Some(debugger.endpoint));
    // So that it computes only where the debugger has nothing to do.
    for property in [handler, Property::Priority(1)] {
        let set = dispatcher::configure(debugger.dispatcher, property);
        at("setting up the victim", set)?;
    }
    at(
        "start of the victim",
        dispatcher::start(debugger.dispatcher),
    )?;
    debugger.in_the_loop()?;
    debugger.step_by_step()?;
    debugger.at_a_breakpoint()?;
    let status = monitor::wait(victim);
    debugger.expect("status of the victim", &status, &Ok(0));
    // With the victim, its capabilities went.
    let left = [0, 1, 2].map(|slot| capability::identify(row.plus(slot)).map(|_| ()));
    debugger.expect("what is left", &left, &[Err(Error::EmptySlot); 3]);
    Ok(debugger.bad)
}

impl Debugger {
    fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.checks += 1;
        if found != expected {
            self.bad += 1;
            println!("debugger: {what}: expected {expected:x?}, found {found:x?}");
        }
    }

    fn read(&self, name: &str) -> Attempt<u64> {
        let value = dispatcher::read_register(self.dispatcher, register(name));
        at("read of a register", value)
    }

    fn write(&self, name: &str, value: u64) -> Attempt {
        let written = dispatcher::write_register(self.dispatcher, register(name), value);
        at("write of a register", written)
    }

    /// Checks a register.
    fn expect_register(&mut self, what: &str, name: &str, expected: u64) -> Attempt {
        let found = self.read(name)?;
        self.expect(&format!("{what}: {name}"), &found, &expected);
        Ok(())
    }

    /// Waits for the next trap of the victim: vector and `rip`.
    fn trap(&mut self) -> Attempt<(u64, u64)> {
        let deadline = clock::now_ns() + PATIENCE_NS;
        loop {
            match lrpc::receive(self.endpoint, Some(deadline)) {
                Ok((_, [vector, _, _, rip, _])) => return Ok((vector, rip)),
                Err(Error::Interrupted) => {}
                Err(error) => return at("a trap of the victim", Err(error)),
            }
        }
    }

    /// Lets the victim go on after a trap.
    fn resume(&self) -> Attempt {
        at("resume", lrpc::reply([RESUME, 0, 0, 0, 0]))
    }

    /// Maps the frame behind an address of the victim's. It is wherever below its root CNode.
    fn memory(&self, address: u64) -> Attempt<Memory> {
        let page = at("translate", space::translate(self.space, address))?;
        let hold = Rights::READ | Rights::WRITE;
        let is_behind = |(_, frame): &(Address, capability::Identity)| {
            let inside = (frame.base..frame.base + frame.bytes).contains(&page.physical);
            frame.kind == Kind::Frame && inside && frame.rights.contains(hold)
        };
        let found = slots_below(Some(self.root)).into_iter().find(is_behind);
        let Some((slot, frame)) = found else {
            return Err(Failure(format!(
                "no frame of the victim is at {address:#x}"
            )));
        };
        let copy = at("a slot", slots::take())?;
        at(
            "copy of a frame",
            capability::copy_from(self.root, slot, copy),
        )?;
        // SAFETY: memory of another domain, which both look at by atomic words.
        let mapping = unsafe { Mapping::of(copy, PageSize::Small, rights::WRITE) };
        Ok(Memory {
            mapping: at("mapping of a frame", mapping)?,
            begins: address / PAGE * PAGE - (page.physical - frame.base),
        })
    }

    /// The victim goes round and round: its variables, its registers, and the way out.
    fn in_the_loop(&mut self) -> Attempt {
        let memory = self.memory(address_of(&VARIABLE))?;
        let variable = memory.word(address_of(&VARIABLE));
        let memory_of_rounds = self.memory(address_of(&ROUNDS))?;
        let rounds = memory_of_rounds.word(address_of(&ROUNDS));
        self.expect("a variable", &variable.load(Ordering::Relaxed), &AT_FIRST);
        let own = VARIABLE.load(Ordering::Relaxed);
        self.expect("the same one here", &own, &AT_FIRST);
        let goes_round = |than: u64| {
            let deadline = clock::now_ns() + PATIENCE_NS;
            while rounds.load(Ordering::Relaxed) <= than && clock::now_ns() < deadline {
                clock::sleep_ns(PAUSE_NS);
            }
            rounds.load(Ordering::Relaxed) > than
        };
        self.expect("the victim goes round", &goes_round(1000), &true);

        at("stop", dispatcher::stop(self.dispatcher))?;
        let life = dispatcher::state(self.dispatcher);
        self.expect("the victim that was stopped", &life, &Ok(Life::Stopped));
        let before = (
            rounds.load(Ordering::Relaxed),
            dispatcher::registers(self.dispatcher),
        );
        clock::sleep_ns(PAUSE_NS);
        let after = (
            rounds.load(Ordering::Relaxed),
            dispatcher::registers(self.dispatcher),
        );
        self.expect("what it did meanwhile", &after, &before);
        let rip = self.read("rip")?;
        let inside = (loop_start::address()..loop_end::address()).contains(&rip);
        self.expect("it is in its loop", &inside, &true);
        self.expect_register("in its loop", "rdi", address_of(&ROUNDS))?;
        self.expect_register("in its loop", "rsi", address_of(&VARIABLE))?;
        self.expect_register("in its loop", "rdx", NEVER)?;
        self.misuse()?;
        self.with_less()?;
        self.strangers(variable)?;

        // What nobody was to find out or do, has changed nothing.
        let after = dispatcher::registers(self.dispatcher);
        self.expect("the registers afterwards", &after, &before.1);
        at("start", dispatcher::start(self.dispatcher))?;
        let before = before.0;
        self.expect("the victim goes round again", &goes_round(before), &true);
        // Out of the loop: not what it waits for changes, but what it compares that with.
        at("stop", dispatcher::stop(self.dispatcher))?;
        variable.store(CHANGED, Ordering::Relaxed);
        self.write("rdx", CHANGED)?;
        at("start", dispatcher::start(self.dispatcher))?;
        memory_of_rounds.drop()?;
        memory.drop()
    }

    /// The victim comes to its breakpoint, and goes on instruction by instruction.
    fn step_by_step(&mut self) -> Attempt {
        let trap = self.trap()?;
        self.expect(
            "the first breakpoint",
            &trap,
            &(BREAKPOINT, step_0::address()),
        );
        let flags = self.read("rflags")?;
        self.write("rflags", flags | TRAP)?;
        // After each instruction: where it is, and what is in `rax` if that matters.
        let mut path = Vec::from([(step_1::address(), Some(1)), (step_2::address(), Some(1))]);
        let mut sum = 1;
        for left in (0..3).rev() {
            sum += left + 1;
            path.push((step_3::address(), Some(sum)));
            path.push((step_4::address(), None));
            let next = match left {
                0 => step_5::address(),
                _ => step_2::address(),
            };
            path.push((next, Some(sum)));
        }
        sum += 100;
        path.extend([
            (inner_0::address(), None),
            (inner_1::address(), Some(sum)),
            (step_6::address(), None),
            (step_7::address(), Some(sum)),
            (step_8::address(), Some(syscall::NULL)),
            (step_9::address(), Some(0)), // the system call is one step
            (steps_end::address(), Some(sum)),
        ]);
        for (step, (rip, rax)) in path.iter().enumerate() {
            self.resume()?;
            let trap = self.trap()?;
            self.expect(&format!("step {step}"), &trap, &(DEBUG_TRAP, *rip));
            self.expect_register("a step", "rip", *rip)?;
            if let Some(rax) = rax {
                self.expect_register(&format!("step {step}"), "rax", *rax)?;
            }
        }
        // And on at full speed, with another result.
        self.write("rax", sum + 1000)?;
        let flags = self.read("rflags")?;
        self.expect("the trap flag", &(flags & TRAP), &TRAP);
        self.write("rflags", flags & !TRAP)?;
        self.resume()
    }

    /// The victim has made code, into which a breakpoint goes and out of which it comes again.
    fn at_a_breakpoint(&mut self) -> Attempt {
        let trap = self.trap()?;
        self.expect(
            "the second breakpoint",
            &trap,
            &(BREAKPOINT, announce_end::address()),
        );
        let data = self.memory(address_of(&CODE_AT))?;
        let code_at = data.word(address_of(&CODE_AT)).load(Ordering::Relaxed);
        data.drop()?;
        let page = at("translate", space::translate(self.space, code_at))?;
        self.expect("rights of the code", &page.rights, &rights::EXECUTE);
        let code = self.memory(code_at)?;
        let place = code_at + BREAK_AT;
        let instruction = code.write_byte(place, INT3);
        self.expect(
            "what was there",
            &instruction,
            &CODE[BREAK_AT as usize].into(),
        );
        self.resume()?;
        let trap = self.trap()?;
        self.expect(
            "the breakpoint in its code",
            &trap,
            &(BREAKPOINT, place + 1),
        );
        self.expect_register("at the breakpoint", "rax", 1)?;
        // As if it had never been there, but for the register.
        let instruction = code.write_byte(place, instruction);
        self.expect("what was there instead", &instruction, &INT3);
        self.write("rip", place)?;
        self.write("rax", 100)?;
        code.drop()?;
        self.resume()
    }

    /// What no register takes, and who has none.
    fn misuse(&mut self) -> Attempt {
        let rip = register("rip");
        let write = |index, value| dispatcher::write_register(self.dispatcher, index, value);
        let found = [
            write(REGISTERS.len(), 1),
            write(rip, 0),
            write(rip, 1 << 63),
            write(rip, abi::layout::USER_END),
            dispatcher::write_register(OWN_DISPATCHER, 0, 1),
            dispatcher::read_register(self.dispatcher, REGISTERS.len()).map(|_| ()),
        ];
        self.expect(
            "what no register takes",
            &found,
            &[Err(Error::BadArgument); 6],
        );
        let flags = self.read("rflags")?;
        self.write("rflags", u64::MAX)?;
        self.expect_register("flags that ring 3 may have", "rflags", 0x25_0fd7)?;
        self.write("rflags", 0)?;
        self.expect_register("flags that are always on", "rflags", 0x202)?;
        let wrong = Err(Error::WrongKind);
        let found = [
            dispatcher::stop(self.space),
            dispatcher::write_register(self.root, 0, 1),
            space::translate(self.root, 0).map(|_| ()),
            capability::copy_from(self.space, TASK_CNODE, self.dispatcher),
        ];
        self.expect("what is something else", &found, &[wrong; 4]);
        self.write("rflags", flags)
    }

    /// Capabilities to the same objects with fewer rights.
    fn with_less(&mut self) -> Attempt {
        let slot = at("a slot", slots::take())?;
        let free = at("a slot", slots::take())?;
        let frame = at("a frame", memory::frame(PAGE))?;
        let refused = Err(Error::NotAllowed);
        let all = Rights::READ | Rights::WRITE;
        for hold in [Rights::READ, Rights::WRITE, Rights::empty()] {
            let lacks = |right: Rights| match hold.contains(right) {
                true => Ok(()),
                false => refused,
            };
            let mint = |source| at("fewer rights", capability::mint(source, slot, hold, 0));
            let delete = || at("delete", capability::delete(slot));
            mint(self.dispatcher)?;
            let found = [
                dispatcher::state(slot).map(|_| ()),
                dispatcher::read_register(slot, 0).map(|_| ()),
            ];
            let expected = [lacks(Rights::READ); 2];
            self.expect(&format!("reads with {hold:?}"), &found, &expected);
            // Each of these leaves things as they are.
            let rax = self.read("rax")?;
            let found = [
                dispatcher::write_register(slot, register("rax"), rax),
                dispatcher::stop(slot),
                dispatcher::configure(slot, Property::Priority(1)),
                dispatcher::configure(slot, Property::Name("victim")),
                dispatcher::configure(slot, Property::FaultHandler(Some(self.endpoint))),
            ];
            let expected = [lacks(Rights::WRITE); 5];
            self.expect(&format!("writes with {hold:?}"), &found, &expected);
            if !hold.contains(Rights::WRITE) {
                let found = dispatcher::start(slot);
                self.expect("start", &found, &refused);
            }
            delete()?;

            mint(self.space)?;
            let translated = space::translate(slot, address_of(&VARIABLE)).map(|_| ());
            self.expect("translate", &translated, &lacks(Rights::READ));
            let address = rt::startup() as *const _ as u64 + 64 * PAGE;
            // SAFETY: not an address space of this program's.
            let mapped = unsafe { space::map(slot, address, frame, 0, 1, rights::READ) };
            let expected = lacks(Rights::WRITE).map_err(MapError::Refused);
            self.expect("map", &mapped, &expected);
            if mapped.is_ok() {
                at("unmap", space::unmap(frame))?;
            }
            delete()?;

            mint(self.root)?;
            let looked = capability::identify_in(slot, OWN_DISPATCHER).map(|_| ());
            self.expect("look", &looked, &lacks(Rights::WRITE));
            let copied = capability::copy_from(slot, OWN_DISPATCHER, free);
            self.expect("copy", &copied, &lacks(Rights::WRITE));
            if copied.is_ok() {
                // What the victim has of itself has no more rights than what we were given.
                let copy = at("a copy", capability::identify(free))?;
                self.expect("rights of a copy", &copy.rights, &all);
                at("delete", capability::delete(free))?;
            }
            delete()?;
        }
        slots::give(slot);
        slots::give(free);
        at("free of a frame", memory::free(frame))
    }

    /// Domains of the same job that were given nothing, and what they would have to have.
    fn strangers(&mut self, variable: &AtomicU64) -> Attempt {
        let base = |slot| at("what the debugger has", capability::identify(slot)).map(|it| it.base);
        let page = at(
            "translate",
            space::translate(self.space, address_of(&VARIABLE)),
        )?;
        let numbers = [
            self.dispatcher.0,
            self.root.0,
            self.space.0,
            base(self.dispatcher)?,
            base(self.root)?,
            base(self.space)?,
            page.physical,
        ];
        let numbers = numbers.map(|number| format!("{number}"));
        let mut words = Vec::from(["debugger", STRANGER]);
        words.extend(numbers.iter().map(String::as_str));
        let here = rt::startup().core as usize;
        for core in rt::startup()
            .cores()
            .filter(|core| core % 8 == 0 || *core == here)
        {
            let status = monitor::spawn(core, &words, None).and_then(monitor::wait);
            self.expect("status of a stranger", &status, &Ok(0));
        }
        self.expect("a variable", &variable.load(Ordering::Relaxed), &AT_FIRST);
        Ok(())
    }
}
