//! Exceptions as calls: `fault-test`.
//!
//! Children meet exceptions, and this program, or another copy of it, is their fault handler.
//!
//! 1. Every exception that ring 3 can meet: the words of the call and the registers are right, the
//!    handler repairs what was wrong, by a page, a register or the place to go on at, and the
//!    child goes on with all its registers as they were.
//! 2. A handler that answers something else, that ends or is killed before it answers, or whose
//!    endpoint goes: the child has died of its exception. So has one without a handler, and one
//!    whose handler is itself. The monitor reports each of these, and nobody else comes to harm.
//! 3. Children that are stopped or killed in their exceptions, many at once, and servers that meet
//!    one while they serve a call.
//!
//! The program has the lowest priority there is: whenever it runs for itself, its children are
//! blocked or have ended.
//!
//! This program cannot forbid unsafe code: doing harm is its purpose.
#![no_std]
#![no_main]

extern crate alloc;

use abi::layout::{KERNEL_IMAGE, PAGE, USER_STACK_BYTES, USER_STACK_TOP, USER_STARTUP};
use abi::syscall::{REGISTERS, RESUME};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::asm;
use core::fmt::Debug;
use core::hint::black_box;
use core::sync::atomic::Ordering;
use rt::capability::{self, Address, ENDPOINT_BYTES, FIRST_CNODE_SLOTS, Kind};
use rt::capability::{OWN_DISPATCHER, OWN_SPACE, Rights, slots};
use rt::dispatcher::{self, Life, Property};
use rt::interface::{Error::NoMemory, FAULT_STATUS, KILLED_STATUS};
use rt::lrpc::{self, Words};
use rt::monitor::{self, Domain, Spawn};
use rt::space::{self, Mapping, PageSize, rights};
use rt::system_call::{self, Error};
use rt::{memory, println};

rt::entry!(main);

/// The words by which a copy of the program knows what it is.
const VICTIM: &str = "victim";
const DEEP: &str = "deep";
const SELF_MADE: &str = "self-made";
const HANDLER: &str = "handler";
const SERVER: &str = "server";
const CLIENT: &str = "client";

/// Where a child finds the endpoint that it receives at, or calls.
const E: Address = Address::new(2, 24);

/// Where in a child things are missing, are mapped or are not allowed: beside its startup page,
/// where its page table goes on.
const PLACE: u64 = USER_STARTUP + 16 * PAGE;
/// The lowest address of its stack.
const STACK_BOTTOM: u64 = USER_STACK_TOP - USER_STACK_BYTES;
/// What is at the start of a page that is mapped there.
const CONTENT: u64 = 0x0123_4567_89ab_cdef;
/// Instructions: `mov eax, 7`, `ret`.
const CODE: u64 = 0xc300_0000_07b8;
/// A result that stands for a lost register.
const LOST: u64 = 0xbad;

/// What is in register number `n` of [`REGISTERS`] when a child meets its exception, unless
/// the exception is about it.
const fn pattern(n: u64) -> u64 {
    0x0101_0101_0101_0101 * (0x10 + n)
}

/// Registers that hold their pattern, by name.
const KEPT: [&str; 11] = [
    "rbx", "rdx", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
];

// Each function takes an address in rdi and returns what it found in rax. `NAME_at` is where the
// exception is said to be, `NAME_next` the instruction behind it.
core::arch::global_asm!(
    ".macro begin_harm name",
    ".global \\name",
    "\\name:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rbx, 0x0101010101010101 * 0x11",
    "mov rdx, 0x0101010101010101 * 0x13",
    "mov rbp, 0x0101010101010101 * 0x16",
    "mov r8, 0x0101010101010101 * 0x18",
    "mov r9, 0x0101010101010101 * 0x19",
    "mov r10, 0x0101010101010101 * 0x1a",
    "mov r11, 0x0101010101010101 * 0x1b",
    "mov r12, 0x0101010101010101 * 0x1c",
    "mov r13, 0x0101010101010101 * 0x1d",
    "mov r14, 0x0101010101010101 * 0x1e",
    "mov r15, 0x0101010101010101 * 0x1f",
    "xor eax, eax",
    ".endm",
    ".macro still register, number",
    "mov rcx, 0x0101010101010101 * \\number",
    "cmp rcx, \\register",
    "jne 99f",
    ".endm",
    ".macro end_harm",
    "still rbx, 0x11",
    "still rdx, 0x13",
    "still rbp, 0x16",
    "still r8, 0x18",
    "still r9, 0x19",
    "still r10, 0x1a",
    "still r11, 0x1b",
    "still r12, 0x1c",
    "still r13, 0x1d",
    "still r14, 0x1e",
    "still r15, 0x1f",
    "jmp 98f",
    "99: mov eax, {LOST}",
    "98: pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".endm",
    "begin_harm harm_read",
    ".global read_at, read_next",
    "read_at: mov rax, [rdi]",
    "read_next:",
    "end_harm",
    "begin_harm harm_write",
    ".global write_at",
    "write_at: mov [rdi], rdx",
    "mov rax, [rdi]",
    "end_harm",
    "begin_harm harm_call",
    ".global call_next",
    "call rdi",
    "call_next:",
    "end_harm",
    "begin_harm harm_cli",
    ".global cli_at, cli_next",
    "cli_at: cli",
    "cli_next:",
    "end_harm",
    "begin_harm harm_segment",
    ".global segment_at, segment_next",
    "mov eax, 0x28", // the task state segment
    "segment_at: mov fs, eax",
    "segment_next:",
    "end_harm",
    "begin_harm harm_divide",
    ".global divide_at",
    "xor ecx, ecx",
    "mov eax, 84",
    "xor edx, edx",
    "divide_at: div ecx",
    "mov rdx, 0x0101010101010101 * 0x13",
    "end_harm",
    "begin_harm harm_opcode",
    ".global opcode_at, opcode_next",
    "opcode_at: ud2",
    "opcode_next:",
    "end_harm",
    "begin_harm harm_breakpoint",
    ".global breakpoint_next",
    "int3",
    "breakpoint_next:",
    "end_harm",
    "begin_harm harm_step",
    ".global step_next",
    "pushfq",
    "or qword ptr [rsp], 0x100",
    "popfq",
    "mov eax, 1", // and then the trap
    "step_next: add eax, 2",
    "end_harm",
    "begin_harm harm_alignment",
    ".global alignment_at",
    "pushfq",
    "or qword ptr [rsp], 0x40000",
    "popfq",
    "alignment_at: mov rax, [rdi + 1]",
    "pushfq",
    "and qword ptr [rsp], ~0x40000",
    "popfq",
    "end_harm",
    "begin_harm harm_x87",
    ".global x87_at, x87_next",
    "fninit",
    "push 0x37b", // division by zero is no longer masked
    "fldcw word ptr [rsp]",
    "fld1",
    "fldz",
    "fdivp st(1), st",
    "x87_at: fwait",
    "x87_next: fnstsw ax",
    "and eax, 0x3f", // what was found
    "fnclex",
    "fninit",
    "pop rcx",
    "end_harm",
    "begin_harm harm_vector",
    ".global vector_at, vector_next",
    "push 0x1d80", // likewise
    "ldmxcsr dword ptr [rsp]",
    "mov eax, 1",
    "cvtsi2ss xmm0, eax",
    "xorps xmm1, xmm1",
    "vector_at: divss xmm0, xmm1",
    "vector_next: stmxcsr dword ptr [rsp]",
    "mov eax, [rsp]",
    "and eax, 0x3f",
    "mov dword ptr [rsp], 0x1f80",
    "ldmxcsr dword ptr [rsp]",
    "pop rcx",
    "end_harm",
    "begin_harm harm_stack",
    ".global stack_at",
    "mov rsi, rsp",
    "mov rsp, rdi",
    "stack_at: push rdx",
    "pop rax",
    "mov rsp, rsi",
    "end_harm",
    "begin_harm harm_registers",
    ".global registers_at",
    "movq xmm0, rdx",
    "movq xmm15, rbx",
    "push r8",
    "fninit",
    "fild qword ptr [rsp]",
    "registers_at: mov rax, [rdi]",
    "fistp qword ptr [rsp]",
    "pop rcx",
    "xor rcx, r8",
    "xor rax, rcx",
    "movq rcx, xmm0",
    "xor rcx, rdx",
    "xor rax, rcx",
    "movq rcx, xmm15",
    "xor rcx, rbx",
    "xor rax, rcx",
    "end_harm",
    LOST = const LOST,
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
    read_at read_next write_at call_next cli_at cli_next segment_at segment_next divide_at opcode_at
    opcode_next breakpoint_next step_next alignment_at x87_at x87_next vector_at vector_next
    stack_at registers_at
}

unsafe extern "C" {
    fn harm_read(address: u64) -> u64;
    fn harm_write(address: u64) -> u64;
    fn harm_call(address: u64) -> u64;
    fn harm_cli(address: u64) -> u64;
    fn harm_segment(address: u64) -> u64;
    fn harm_divide(address: u64) -> u64;
    fn harm_opcode(address: u64) -> u64;
    fn harm_breakpoint(address: u64) -> u64;
    fn harm_step(address: u64) -> u64;
    fn harm_alignment(address: u64) -> u64;
    fn harm_x87(address: u64) -> u64;
    fn harm_vector(address: u64) -> u64;
    fn harm_stack(address: u64) -> u64;
    fn harm_registers(address: u64) -> u64;
}

/// An exception and its repair.
struct Harm {
    name: &'static str,
    code: unsafe extern "C" fn(u64) -> u64,
    argument: u64,
    /// What it returns once it is repaired.
    result: u64,
    /// The words of the call: vector, error code, faulting address, `rip`.
    vector: u64,
    error: u64,
    address: u64,
    at: fn() -> u64,
    /// What is mapped at [`PLACE`] before: rights and content.
    before: Option<(u64, u64)>,
    repair: fn(&mut Victim) -> Attempt,
    /// Emulators do not have the exception; then it is returned right away.
    emulators_lack: bool,
}

const DIVIDE_ERROR: u64 = 0;
const DEBUG_TRAP: u64 = 1;
const BREAKPOINT: u64 = 3;
const INVALID_OPCODE: u64 = 6;
const GENERAL_PROTECTION: u64 = 13;
const PAGE_FAULT: u64 = 14;
const X87: u64 = 16;
const ALIGNMENT: u64 = 17;
const VECTOR: u64 = 19;

/// Bits of the error code of a page fault.
const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const FETCH: u64 = 16;

/// Flags.
const TRAP: u64 = 0x100;
const ALIGNMENT_CHECK: u64 = 0x4_0000;

const READ_ONLY: Option<(u64, u64)> = Some((rights::READ, CONTENT));

const HARM: Harm = Harm {
    name: "",
    code: harm_read,
    argument: PLACE,
    result: 0,
    vector: PAGE_FAULT,
    error: 0,
    address: 0,
    at: read_at::address,
    before: None,
    repair: |_| Ok(()),
    emulators_lack: false,
};

/// All kinds of exceptions.
const HARMS: [Harm; 18] = [
    Harm {
        name: "read, not mapped",
        result: CONTENT,
        error: USER,
        address: PLACE,
        repair: |victim| victim.show(PLACE, rights::READ, CONTENT),
        ..HARM
    },
    Harm {
        name: "write, not mapped",
        code: harm_write,
        result: pattern(3),
        error: USER | WRITE,
        address: PLACE,
        at: write_at::address,
        repair: |victim| victim.show(PLACE, rights::WRITE, CONTENT),
        ..HARM
    },
    Harm {
        name: "write, not allowed",
        code: harm_write,
        result: pattern(3),
        error: USER | WRITE | PRESENT,
        address: PLACE,
        at: write_at::address,
        before: READ_ONLY,
        repair: |victim| {
            let frame = victim.frames[0];
            at("protect", space::protect(frame, 0, rights::WRITE))
        },
        ..HARM
    },
    Harm {
        name: "execute, not mapped",
        code: harm_call,
        result: 7,
        error: USER | FETCH,
        address: PLACE,
        at: || PLACE,
        repair: |victim| victim.show(PLACE, rights::EXECUTE, CODE),
        ..HARM
    },
    Harm {
        name: "execute, not allowed",
        code: harm_call,
        result: 9,
        error: USER | FETCH | PRESENT,
        address: PLACE,
        at: || PLACE,
        before: Some((rights::WRITE, CODE)),
        // As if it had been executed, and had returned 9.
        repair: |victim| {
            let stack = victim.read("rsp")?;
            victim.write("rsp", stack + 8)?;
            victim.write("rax", 9)?;
            victim.write("rip", call_next::address())
        },
        ..HARM
    },
    Harm {
        name: "read of the kernel",
        argument: KERNEL_IMAGE,
        result: 5,
        error: USER | PRESENT,
        address: KERNEL_IMAGE,
        repair: |victim| {
            victim.write("rax", 5)?;
            victim.write("rip", read_next::address())
        },
        ..HARM
    },
    Harm {
        name: "stack overflow",
        code: harm_stack,
        argument: STACK_BOTTOM,
        result: pattern(3),
        error: USER | WRITE,
        address: STACK_BOTTOM - 8,
        at: stack_at::address,
        repair: |victim| victim.show(STACK_BOTTOM - PAGE, rights::WRITE, 0),
        ..HARM
    },
    Harm {
        name: "an address that is none",
        argument: 1 << 60,
        result: CONTENT,
        vector: GENERAL_PROTECTION,
        before: READ_ONLY,
        repair: |victim| victim.write("rdi", PLACE),
        ..HARM
    },
    Harm {
        name: "cli",
        code: harm_cli,
        vector: GENERAL_PROTECTION,
        at: cli_at::address,
        repair: |victim| victim.write("rip", cli_next::address()),
        ..HARM
    },
    Harm {
        name: "segment",
        code: harm_segment,
        result: 0x28,
        vector: GENERAL_PROTECTION,
        error: 0x28,
        at: segment_at::address,
        repair: |victim| victim.write("rip", segment_next::address()),
        ..HARM
    },
    Harm {
        name: "divide",
        code: harm_divide,
        result: 42,
        vector: DIVIDE_ERROR,
        at: divide_at::address,
        repair: |victim| victim.write("rcx", 2),
        ..HARM
    },
    Harm {
        name: "invalid opcode",
        code: harm_opcode,
        vector: INVALID_OPCODE,
        at: opcode_at::address,
        repair: |victim| victim.write("rip", opcode_next::address()),
        ..HARM
    },
    Harm {
        name: "breakpoint",
        code: harm_breakpoint,
        vector: BREAKPOINT,
        at: breakpoint_next::address,
        ..HARM
    },
    Harm {
        name: "single step",
        code: harm_step,
        result: 3,
        vector: DEBUG_TRAP,
        at: step_next::address,
        repair: |victim| victim.clear_flag(TRAP),
        ..HARM
    },
    Harm {
        name: "alignment",
        code: harm_alignment,
        result: CONTENT >> 8,
        vector: ALIGNMENT,
        at: alignment_at::address,
        before: READ_ONLY,
        repair: |victim| victim.clear_flag(ALIGNMENT_CHECK),
        emulators_lack: true,
        ..HARM
    },
    Harm {
        name: "x87",
        code: harm_x87,
        result: 4, // division by zero
        vector: X87,
        at: x87_at::address,
        repair: |victim| victim.write("rip", x87_next::address()),
        ..HARM
    },
    Harm {
        name: "vector",
        code: harm_vector,
        result: 4, // division by zero
        vector: VECTOR,
        at: vector_at::address,
        repair: |victim| victim.write("rip", vector_next::address()),
        emulators_lack: true,
        ..HARM
    },
    Harm {
        name: "with vector registers",
        code: harm_registers,
        result: CONTENT,
        error: USER,
        address: PLACE,
        at: registers_at::address,
        repair: |victim| {
            victim.show(PLACE, rights::READ, CONTENT)?;
            // SAFETY: registers that the compiler does not use.
            unsafe {
                asm!(
                    "fninit",
                    "fldz",
                    "pcmpeqd xmm0, xmm0",
                    "pcmpeqd xmm15, xmm15"
                );
            }
            Ok(())
        },
        ..HARM
    },
];

/// Numbers of some of them.
const READ_HARM: usize = 0;
const WRITE_HARM: usize = 1;
const OPCODE_HARM: usize = 11;
const BREAKPOINT_HARM: usize = 12;

fn main() -> i32 {
    let mut words = rt::startup().arguments().skip(1);
    let (role, word) = (words.next(), words.next().unwrap_or(""));
    match role {
        Some(VICTIM) => harm(word),
        Some(DEEP) => outermost(),
        Some(SELF_MADE) => self_made(word),
        Some(HANDLER) => handle(word),
        Some(SERVER) => serve(),
        Some(CLIENT) => call_server(),
        None => test(),
        Some(word) => {
            println!("fault-test: `{word}` is no option of it");
            println!("usage: fault-test");
            2
        }
    }
}

// ---- children ----------------------------------------------------------------------------------

/// Meets the exception with this number; as an exit status whether it went on as it should.
fn harm(number: &str) -> i32 {
    let harm = number
        .parse()
        .ok()
        .and_then(|number: usize| HARMS.get(number));
    let Some(harm) = harm else {
        return 2;
    };
    // SAFETY: not safe, and meant to fault. It touches what the handler puts there.
    let result = unsafe { (harm.code)(harm.argument) };
    i32::from(result != harm.result)
}

/// Writes where nothing is, from functions that the report will name.
#[inline(never)]
fn outermost() -> i32 {
    black_box(innermost(black_box(PLACE)))
}

#[inline(never)]
fn innermost(address: u64) -> i32 {
    // SAFETY: not safe, and meant to fault.
    unsafe { (address as *mut u64).write_volatile(1) };
    black_box(1)
}

/// Sets up a fault handler itself: what it receives at, which can never answer it; or none.
fn self_made(number: &str) -> i32 {
    let own = lrpc::receive(E, Some(1));
    let set = dispatcher::configure(OWN_DISPATCHER, Property::FaultHandler(Some(E)));
    if own.map(|_| ()) != Err(Error::TimedOut) || set != Ok(()) {
        return 2;
    }
    harm(number)
}

/// Handles a breakpoint as the word says: `resume` it, `exit` before it is answered, or `sit`
/// there.
fn handle(how: &str) -> i32 {
    let call = lrpc::receive(E, None);
    let is_right = call.is_ok_and(|(_, words)| {
        let [vector, error, address, rip, _] = words;
        [vector, error, address, rip] == [BREAKPOINT, 0, 0, breakpoint_next::address()]
    });
    match how {
        "exit" => {}
        "resume" => {
            if lrpc::reply([RESUME, 0, 0, 0, 0]).is_err() {
                return 2;
            }
        }
        _ => loop {
            system_call::wait(None);
        },
    }
    i32::from(!is_right)
}

/// Answers calls with what is at [`PLACE`], where nothing is at first.
fn serve() -> i32 {
    let mut call = lrpc::receive(E, None);
    while call.is_ok() {
        // SAFETY: meant to fault; the handler may put something there.
        let found = unsafe { harm_read(PLACE) };
        call = lrpc::reply_receive(E, [found, 0, 0, 0, 0]);
    }
    1
}

/// Calls that server; as an exit status what came of it.
fn call_server() -> i32 {
    match lrpc::call(E, [0; 5]) {
        Ok([CONTENT, ..]) => ANSWERED,
        Err(Error::PeerGone) => DESERTED,
        _ => 2,
    }
}

const ANSWERED: i32 = 10;
const DESERTED: i32 = 11;

// ---- the handler -------------------------------------------------------------------------------

/// Why the test cannot go on.
enum Failure {
    /// The core has too little memory for another child.
    NoMemory,
    /// Something else, in words.
    Refused(String),
}

type Attempt<T = ()> = Result<T, Failure>;

/// Names the step that a refusal befell.
fn at<T, E: Debug>(step: &str, result: Result<T, E>) -> Attempt<T> {
    result.map_err(|error| Failure::Refused(format!("{step}: {error:?}")))
}

/// A child, as its handler sees it.
struct Victim {
    domain: Domain,
    /// The first of three slots: its dispatcher, its root CNode, its address space.
    slots: Address,
    /// Frames that are mapped in it, slots of this program.
    frames: Vec<Address>,
    is_there: bool,
}

impl Drop for Victim {
    /// Where the test goes on without it.
    fn drop(&mut self) {
        if self.is_there && monitor::kill(self.domain).is_ok() {
            let _ = monitor::wait(self.domain);
        }
    }
}

/// The index of a register.
fn register(name: &str) -> usize {
    let found = REGISTERS.iter().position(|register| *register == name);
    found.unwrap_or(REGISTERS.len())
}

impl Victim {
    /// A child that was not started yet.
    fn new(words: &[&str]) -> Attempt<Self> {
        let row = at("slots", slots::take_row(3))?;
        let words = [&["fault-test"], words].concat();
        let domain = Spawn::new(&words).traced(row).start();
        if domain == Err(NoMemory) {
            (0..3).for_each(|slot| slots::give(row.plus(slot)));
            return Err(Failure::NoMemory);
        }
        Ok(Self {
            domain: at("start of a child", domain)?,
            slots: row,
            frames: Vec::new(),
            is_there: true,
        })
    }

    /// One that will meet an exception, whose handler is at this endpoint.
    fn of(harm: usize, handler: Option<Address>) -> Attempt<Self> {
        let victim = Self::new(&[VICTIM, &format!("{harm}")])?;
        victim.handled_by(handler)?;
        Ok(victim)
    }

    fn handled_by(&self, handler: Option<Address>) -> Attempt {
        let set = dispatcher::configure(self.slots, Property::FaultHandler(handler));
        at("a fault handler", set)
    }

    /// Gives it a capability to an endpoint.
    fn hand(&self, endpoint: Address, hold: Rights) -> Attempt {
        let minted = capability::mint_to(endpoint, self.slots.plus(1), E, hold, 0);
        at("an endpoint for a child", minted)
    }

    /// Lets it run until it is blocked or has ended.
    fn start(&self) -> Attempt {
        at("start of a child", dispatcher::start(self.slots))?;
        // Whose call waits for an answer lends this program its priority, which is the child's.
        system_call::yield_now();
        Ok(())
    }

    /// Maps a new page into it, with this at its start.
    fn show(&mut self, address: u64, access: u64, content: u64) -> Attempt {
        let frame = at("a frame", memory::frame(PAGE))?;
        {
            // SAFETY: new memory, which is looked at through this mapping alone.
            let page = unsafe { Mapping::of(frame, PageSize::Small, rights::WRITE) };
            let page = at("a mapping", page)?;
            page.words()[0].store(content, Ordering::Relaxed);
        }
        self.frames.push(frame);
        // SAFETY: not an address space of this program's.
        let mapped = unsafe { space::map(self.slots.plus(2), address, frame, 0, 1, access) };
        at("map into a child", mapped)
    }

    fn read(&self, name: &str) -> Attempt<u64> {
        let value = dispatcher::read_register(self.slots, register(name));
        at("read of a register", value)
    }

    fn write(&self, name: &str, value: u64) -> Attempt {
        let written = dispatcher::write_register(self.slots, register(name), value);
        at("write of a register", written)
    }

    fn clear_flag(&self, flag: u64) -> Attempt {
        let flags = self.read("rflags")?;
        if flags & flag == 0 {
            let reason = format!("flag {flag:#x} was not set");
            return Err(Failure::Refused(reason));
        }
        self.write("rflags", flags & !flag)
    }

    /// Waits for its end, which must have this status.
    fn end(mut self, test: &mut Test, what: &str, status: i32) -> Attempt {
        let ended = monitor::wait(self.domain);
        self.is_there = false;
        test.expect(&format!("{what}: status"), &ended, &Ok(status));
        for frame in self.frames.drain(..) {
            at("free of a frame", memory::free(frame))?;
        }
        for slot in 0..3 {
            // They went with it.
            slots::give(self.slots.plus(slot));
        }
        Ok(())
    }
}

/// What this program has found so far.
struct Test {
    endpoint: Address,
    /// Capabilities to it with badges, for which there is one slot.
    badged: Address,
    checks: u64,
    bad: u64,
}

/// The status of a domain that died of an exception.
const fn died_of(vector: u64) -> i32 {
    FAULT_STATUS + vector as i32
}

fn test() -> i32 {
    match run() {
        Ok(0) => {
            println!("fault-test: passed");
            0
        }
        Ok(bad) => {
            println!("fault-test: failed: {bad} checks");
            1
        }
        Err(Failure::NoMemory) => {
            println!("fault-test: failed: the core has too little memory left");
            1
        }
        Err(Failure::Refused(reason)) => {
            println!("fault-test: failed: {reason}");
            1
        }
    }
}

/// An endpoint of this program's.
fn endpoint() -> Attempt<Address> {
    at(
        "an endpoint",
        memory::object(Kind::Endpoint, ENDPOINT_BYTES),
    )
}

/// A part of the test, and its name.
type Part = (&'static str, fn(&mut Test) -> Attempt);

/// What is tried beside each exception by itself.
const PARTS: [Part; 6] = [
    ("other handlers", Test::other_handlers),
    ("no handler", Test::no_handler),
    ("stop and kill", Test::stopped_and_killed),
    ("many at once", Test::many_at_once),
    ("servers", Test::servers),
    ("misuse", Test::misuse),
];

/// Free pages of a core that suffice for all of it.
const AMPLE_PAGES: u64 = 4096;

fn run() -> Attempt<u64> {
    let lowered = dispatcher::configure(OWN_DISPATCHER, Property::Priority(0));
    at("the lowest priority", lowered)?;
    let free = monitor::memory(rt::startup().core as usize);
    let (free, _) = at("free memory", free)?;
    let mut test = Test {
        endpoint: endpoint()?,
        badged: at("a slot", slots::take())?,
        checks: 0,
        bad: 0,
    };
    for number in 0..HARMS.len() {
        test.repair(number)?;
    }
    for (number, answer) in [
        (READ_HARM, 0),
        (OPCODE_HARM, 2),
        (BREAKPOINT_HARM, u64::MAX),
    ] {
        test.refuse(number, answer)?;
    }
    for (name, part) in PARTS {
        match part(&mut test) {
            Err(Failure::NoMemory) if free < AMPLE_PAGES => {
                println!("fault-test: {name} is left out: there is too little memory for it");
            }
            result => result?,
        }
    }
    // Whoever is left does as it is told.
    for core in rt::startup().cores() {
        let status = monitor::spawn(core, &["exit", "42"], None).and_then(monitor::wait);
        test.expect("a program afterwards", &status, &Ok(42));
    }
    Ok(test.bad)
}

impl Test {
    fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.checks += 1;
        if found != expected {
            self.bad += 1;
            println!("fault-test: {what}: expected {expected:x?}, found {found:x?}");
        }
    }

    /// The next call at the endpoint, or `None` if the child ended instead.
    fn next(&mut self) -> Attempt<Option<(u64, Words)>> {
        // All children have come as far as they can.
        loop {
            match lrpc::receive(self.endpoint, Some(1)) {
                Ok(call) => return Ok(Some(call)),
                Err(Error::Interrupted) => {}
                Err(Error::TimedOut) => return Ok(None),
                Err(error) => return at("a call of a child", Err(error)),
            }
        }
    }

    /// The endpoint with another badge.
    fn with_badge(&mut self, badge: u64) -> Attempt<Address> {
        if capability::identify(self.badged).is_ok() {
            at("another badge", capability::delete(self.badged))?;
        }
        let minted = capability::mint(self.endpoint, self.badged, Rights::WRITE, badge);
        at("a badge", minted)?;
        Ok(self.badged)
    }

    /// Checks what the handler of a child hears, and its registers.
    fn check(&mut self, number: usize, victim: &Victim, call: Option<(u64, Words)>) -> Attempt {
        let harm = &HARMS[number];
        let what = harm.name;
        let Some((badge, words)) = call else {
            self.expect(&format!("{what}: a call"), &false, &true);
            return Ok(());
        };
        let registers = at("registers", dispatcher::registers(victim.slots))?;
        let of = |name: &str| registers[register(name)];
        let expected = [
            harm.vector,
            harm.error,
            harm.address,
            (harm.at)(),
            of("rsp"),
        ];
        self.expect(&format!("{what}: words"), &words, &expected);
        self.expect(&format!("{what}: badge"), &badge, &(100 + number as u64));
        self.expect(&format!("{what}: rip"), &of("rip"), &(harm.at)());
        let stack = STACK_BOTTOM..=USER_STACK_TOP;
        self.expect(&format!("{what}: rsp"), &stack.contains(&of("rsp")), &true);
        self.expect(&format!("{what}: rdi"), &of("rdi"), &harm.argument);
        for name in KEPT {
            // Division takes one of them.
            let mut expected = pattern(register(name) as u64);
            if name == "rdx" && harm.vector == DIVIDE_ERROR {
                expected = 0;
            }
            self.expect(&format!("{what}: {name}"), &of(name), &expected);
        }
        // An interrupt that is on, and nothing that ring 3 may not have.
        self.expect(
            &format!("{what}: flags"),
            &(of("rflags") & !0x25_0dd5),
            &0x202,
        );
        let life = dispatcher::state(victim.slots);
        self.expect(&format!("{what}: life"), &life, &Ok(Life::Alive));
        Ok(())
    }

    /// A child meets an exception and is repaired.
    fn repair(&mut self, number: usize) -> Attempt {
        let harm = &HARMS[number];
        let handler = self.with_badge(100 + number as u64)?;
        let mut victim = Victim::of(number, Some(handler))?;
        if let Some((access, content)) = harm.before {
            victim.show(PLACE, access, content)?;
        }
        victim.start()?;
        let call = self.next()?;
        let accelerator = rt::startup().accelerator();
        let is_emulated = matches!(accelerator, "tcg" | "icount");
        if call.is_some() || !(harm.emulators_lack && is_emulated) {
            self.check(number, &victim, call)?;
            if call.is_some() {
                (harm.repair)(&mut victim)?;
                at("answer", lrpc::reply([RESUME, 0, 0, 0, 0]))?;
            }
        }
        victim.end(self, harm.name, 0)?;
        let call = self.next_badge()?;
        self.expect("calls of the dead", &call, &None);
        Ok(())
    }

    fn next_badge(&mut self) -> Attempt<Option<u64>> {
        Ok(self.next()?.map(|(badge, _)| badge))
    }

    /// A child meets an exception, and this is the answer: it has died of it.
    fn refuse(&mut self, number: usize, answer: u64) -> Attempt {
        let harm = &HARMS[number];
        let handler = self.with_badge(100 + number as u64)?;
        let victim = Victim::of(number, Some(handler))?;
        victim.start()?;
        let call = self.next()?;
        self.check(number, &victim, call)?;
        at("answer", lrpc::reply([answer, 0, 0, 0, 0]))?;
        victim.end(self, harm.name, died_of(harm.vector))
    }
}

impl Test {
    /// Handlers that are other copies of the program, and wait already.
    fn other_handlers(&mut self) -> Attempt {
        let harm = BREAKPOINT_HARM;
        let died = died_of(BREAKPOINT);
        for (how, status, handler_status) in [
            ("resume", 0, 0),
            ("exit", died, 0),
            ("sit", died, KILLED_STATUS),
        ] {
            let what = format!("a handler that is to {how}");
            let endpoint = endpoint()?;
            let handler = Victim::new(&[HANDLER, how])?;
            handler.hand(endpoint, Rights::READ)?;
            handler.start()?;
            let victim = Victim::of(harm, Some(endpoint))?;
            victim.start()?;
            if how == "sit" {
                let life = dispatcher::state(victim.slots);
                self.expect(&what, &life, &Ok(Life::Alive));
                at("kill of a handler", monitor::kill(handler.domain))?;
            }
            handler.end(self, &what, handler_status)?;
            victim.end(self, &what, status)?;
            // Nobody is there any more: the next one does not wait for an answer.
            let next = Victim::of(harm, Some(endpoint))?;
            next.start()?;
            next.end(self, "a handler that is gone", died)?;
            at("free of an endpoint", memory::free(endpoint))?;
        }
        // The endpoint goes: before the call is taken, and before the exception.
        for goes_first in [false, true] {
            let endpoint = endpoint()?;
            let victim = Victim::of(harm, Some(endpoint))?;
            if goes_first {
                at("free of an endpoint", memory::free(endpoint))?;
                victim.start()?;
            } else {
                victim.start()?;
                let life = dispatcher::state(victim.slots);
                self.expect("an exception that waits", &life, &Ok(Life::Alive));
                at("free of an endpoint", memory::free(endpoint))?;
            }
            victim.end(self, "an endpoint that is gone", died)?;
        }
        Ok(())
    }

    /// Children that nobody handles the exceptions of.
    fn no_handler(&mut self) -> Attempt {
        let number = format!("{WRITE_HARM}");
        let died = died_of(PAGE_FAULT);
        // The report names the functions on the way.
        let victim = Victim::new(&[DEEP])?;
        victim.start()?;
        victim.end(self, "without a handler", died)?;
        // With one that was taken away again, and with one that is itself.
        let victim = Victim::of(WRITE_HARM, Some(self.endpoint))?;
        victim.handled_by(None)?;
        victim.start()?;
        victim.end(self, "without a handler any more", died)?;
        let victim = Victim::new(&[SELF_MADE, &number])?;
        let own = endpoint()?;
        victim.hand(own, Rights::READ | Rights::WRITE)?;
        victim.start()?;
        victim.end(self, "with itself as handler", died)?;
        at("free of an endpoint", memory::free(own))?;
        let call = self.next_badge()?;
        self.expect("calls of all these", &call, &None);
        Ok(())
    }

    /// Children that are stopped and killed while their exception is looked at.
    fn stopped_and_killed(&mut self) -> Attempt {
        let number = BREAKPOINT_HARM;
        let resume = || lrpc::reply([RESUME, 0, 0, 0, 0]);
        for is_queued in [true, false] {
            let handler = self.with_badge(100 + number as u64)?;
            let victim = Victim::of(number, Some(handler))?;
            victim.start()?;
            let mut call = None;
            if !is_queued {
                call = self.next()?;
            }
            at("stop of a child", dispatcher::stop(victim.slots))?;
            if is_queued {
                call = self.next()?;
            }
            at("answer", resume())?;
            self.expect("a call of one that stops", &call.is_some(), &true);
            let life = dispatcher::state(victim.slots);
            self.expect("one that was stopped", &life, &Ok(Life::Stopped));
            let ended = monitor::try_wait(victim.domain);
            self.expect("its end", &ended, &Ok(None));
            victim.start()?;
            victim.end(self, "one that was stopped and started", 0)?;
        }
        for is_queued in [true, false] {
            let handler = self.with_badge(100 + number as u64)?;
            let victim = Victim::of(number, Some(handler))?;
            victim.start()?;
            if !is_queued {
                let call = self.next()?;
                self.check(number, &victim, call)?;
            }
            at("kill of a child", monitor::kill(victim.domain))?;
            victim.end(self, "one that was killed", KILLED_STATUS)?;
            let answer = resume();
            self.expect("an answer to the dead", &answer, &Err(Error::NoCaller));
            let call = self.next_badge()?;
            self.expect("calls of the dead", &call, &None);
        }
        Ok(())
    }

    /// Several children wait for one handler, which takes one exception after the other.
    fn many_at_once(&mut self) -> Attempt {
        let numbers = [READ_HARM, WRITE_HARM, BREAKPOINT_HARM];
        let mut victims = Vec::new();
        for number in numbers {
            let handler = self.with_badge(100 + number as u64)?;
            let victim = Victim::of(number, Some(handler))?;
            victim.start()?;
            victims.push(victim);
        }
        for (number, victim) in numbers.into_iter().zip(&mut victims) {
            let call = self.next()?;
            self.check(number, victim, call)?;
            (HARMS[number].repair)(victim)?;
            at("answer", lrpc::reply([RESUME, 0, 0, 0, 0]))?;
        }
        for victim in victims {
            victim.end(self, "one of many", 0)?;
        }
        Ok(())
    }

    /// A server meets an exception while it serves a call: its client is answered, or hears that
    /// it is gone.
    fn servers(&mut self) -> Attempt {
        let number = READ_HARM;
        for (has_handler, is_repaired) in [(true, true), (true, false), (false, false)] {
            let service = endpoint()?;
            let handler = self.with_badge(100 + number as u64)?;
            let mut server = Victim::new(&[SERVER])?;
            server.handled_by(has_handler.then_some(handler))?;
            server.hand(service, Rights::READ)?;
            server.start()?;
            let client = Victim::new(&[CLIENT])?;
            client.hand(service, Rights::WRITE)?;
            client.start()?;
            if has_handler {
                let call = self.next()?;
                self.check(number, &server, call)?;
                if is_repaired {
                    (HARMS[number].repair)(&mut server)?;
                }
                let answer = [u64::from(is_repaired) * RESUME, 0, 0, 0, 0];
                at("answer", lrpc::reply(answer))?;
            }
            let (status, server_status) = match is_repaired {
                true => (ANSWERED, KILLED_STATUS),
                false => (DESERTED, died_of(PAGE_FAULT)),
            };
            client.end(self, "a client of a server with an exception", status)?;
            if is_repaired {
                at("kill of a server", monitor::kill(server.domain))?;
            }
            server.end(self, "a server with an exception", server_status)?;
            at("free of an endpoint", memory::free(service))?;
        }
        Ok(())
    }

    /// What is no fault handler.
    fn misuse(&mut self) -> Attempt {
        let victim = Victim::new(&[VICTIM, "0"])?;
        let slot = at("a slot", slots::take())?;
        let receiver = capability::mint(self.endpoint, slot, Rights::READ, 0);
        at("an endpoint to receive at", receiver)?;
        for (handler, error) in [
            (OWN_SPACE, Error::WrongKind),
            (slot, Error::NotAllowed),
            (Address::new(2, FIRST_CNODE_SLOTS - 1), Error::EmptySlot),
            (Address(u64::MAX), Error::NoSuchSlot),
        ] {
            let set = dispatcher::configure(victim.slots, Property::FaultHandler(Some(handler)));
            self.expect("what is no handler", &set, &Err(error));
        }
        at("delete of an endpoint", capability::delete(slot))?;
        slots::give(slot);
        victim.start()?;
        victim.end(self, "without a handler after all", died_of(PAGE_FAULT))
    }
}
