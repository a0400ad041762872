//! Handlers and children that end, are stopped, or come in numbers.

use crate::checks::{Test, died_of, endpoint};
use crate::children::{ANSWERED, DESERTED};
use crate::harms::{BREAKPOINT, BREAKPOINT_HARM, HARMS, PAGE_FAULT, READ_HARM, WRITE_HARM};
use crate::victim::{Attempt, Victim, at};
use crate::{CLIENT, DEEP, HANDLER, SELF_MADE, SERVER, VICTIM};
use abi::syscall::RESUME;
use alloc::format;
use alloc::vec::Vec;
use rt::capability::{self, Address, FIRST_CNODE_SLOTS, OWN_SPACE, Rights, slots};
use rt::dispatcher::{self, Life, Property};
use rt::interface::KILLED_STATUS;
use rt::system_call::Error;
use rt::{lrpc, memory, monitor};

impl Test {
    /// Handlers that are other copies of the program, and wait already.
    pub fn other_handlers(&mut self) -> Attempt {
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
    pub fn no_handler(&mut self) -> Attempt {
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
    pub fn stopped_and_killed(&mut self) -> Attempt {
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
    pub fn many_at_once(&mut self) -> Attempt {
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
    pub fn servers(&mut self) -> Attempt {
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
    pub fn misuse(&mut self) -> Attempt {
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
