//! What a handler hears and finds in registers, compared with what it should.

use crate::code::{KEPT, pattern, register};
use crate::harms::{DIVIDE_ERROR, HARMS, PLACE, STACK_BOTTOM};
use crate::victim::{Attempt, Victim, at};
use abi::layout::USER_STACK_TOP;
use abi::syscall::RESUME;
use alloc::format;
use core::fmt::Debug;
use rt::capability::{self, Address, ENDPOINT_BYTES, Kind, Rights};
use rt::dispatcher::{self, Life};
use rt::interface::FAULT_STATUS;
use rt::lrpc::{self, Words};
use rt::system_call::Error;
use rt::{memory, println};

/// What this program has found so far.
pub struct Test {
    pub endpoint: Address,
    /// Capabilities to it with badges, for which there is one slot.
    pub badged: Address,
    pub checks: u64,
    pub bad: u64,
}

/// The status of a domain that died of an exception.
pub const fn died_of(vector: u64) -> i32 {
    FAULT_STATUS + vector as i32
}

/// An endpoint of this program's.
pub fn endpoint() -> Attempt<Address> {
    at(
        "an endpoint",
        memory::object(Kind::Endpoint, ENDPOINT_BYTES),
    )
}

impl Test {
    pub fn expect<T: PartialEq + Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.checks += 1;
        if found != expected {
            self.bad += 1;
            println!("fault-test: {what}: expected {expected:x?}, found {found:x?}");
        }
    }

    /// The next call at the endpoint, or `None` if the child ended instead.
    pub fn next(&mut self) -> Attempt<Option<(u64, Words)>> {
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
    pub fn with_badge(&mut self, badge: u64) -> Attempt<Address> {
        if capability::identify(self.badged).is_ok() {
            at("another badge", capability::delete(self.badged))?;
        }
        let minted = capability::mint(self.endpoint, self.badged, Rights::WRITE, badge);
        at("a badge", minted)?;
        Ok(self.badged)
    }

    /// Checks what the handler of a child hears, and its registers.
    pub fn check(&mut self, number: usize, victim: &Victim, call: Option<(u64, Words)>) -> Attempt {
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
    pub fn repair(&mut self, number: usize) -> Attempt {
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

    pub fn next_badge(&mut self) -> Attempt<Option<u64>> {
        Ok(self.next()?.map(|(badge, _)| badge))
    }

    /// A child meets an exception, and this is the answer: it has died of it.
    pub fn refuse(&mut self, number: usize, answer: u64) -> Attempt {
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
