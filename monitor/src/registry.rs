//! Names, for domains: what they ask of the registry, of which this core has a copy.
//!
//! Updates are answered when they are in force on all cores; what is more than the protocol has under
//! way at once waits here, in order. Look-ups read this core's copy, and send nothing. Changes that a
//! domain watches come to it as events; if it does not take them, its watch ends with one that says
//! so, and nothing piles up.

use crate::Monitor;
use crate::requests::Requester;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use protocols::names::{self, Lookup, Name, Refusal};
use rt::interface::names::{self as requests, MAX_WATCHES, event};
use rt::interface::{self, Error};
use urpc::Message;

/// Updates of one domain, and of all domains of a core, that may wait.
const MAX_WAITING: usize = 16;
const MAX_WAITING_OF_CORE: usize = 1024;

/// Messages that a domain has not taken, beyond which its watches end.
const MAX_BEHIND: usize = 64;

/// An update that the protocol is to be asked for.
struct Update {
    token: u64,
    domain: u64,
    name: Name,
    /// `None`: it is unbound.
    value: Option<u64>,
}

/// Somebody waits for what a name is bound to.
struct Reader {
    requester: Requester,
    name: Name,
}

struct Watch {
    domain: u64,
    /// Of the request, and of every event.
    token: u32,
}

/// What this monitor remembers of requests about names.
#[derive(Default)]
pub struct Registry {
    next: u64,
    /// In order; the protocol had no room for them.
    waiting: VecDeque<Update>,
    /// Whom the protocol's updates are for.
    updates: BTreeMap<u64, Requester>,
    readers: BTreeMap<u64, Reader>,
    watches: BTreeMap<u64, Watch>,
}

impl Registry {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// How the registry knows a domain: its number on its core, which has no other of that number.
fn short(domain: u64) -> u32 {
    domain as u32
}

fn name_of(words: [u64; 6]) -> Result<Name, Error> {
    let [a, b, c, d, ..] = words;
    Name::from_words([a, b, c, d]).ok_or(Error::BadName)
}

impl Monitor {
    /// Serves a request of a domain of this core.
    pub fn serve_names(
        &mut self,
        requester: Requester,
        domain: u64,
        kind: u16,
        arguments: [u64; 6],
    ) -> Result<Option<[u64; 5]>, Error> {
        let Requester::Domain(_, token) = requester else {
            return Err(Error::NoSuchRequest);
        };
        let flag = arguments[4];
        match kind {
            requests::BIND => self.update(requester, domain, name_of(arguments)?, Some(flag)),
            requests::UNBIND => self.update(requester, domain, name_of(arguments)?, None),
            requests::LOOKUP => self.look_up(requester, name_of(arguments)?),
            requests::WATCH if flag > 1 => Err(Error::BadArgument),
            requests::WATCH => self.watch(domain, token, name_of(arguments)?, flag == 1),
            requests::UNWATCH => self.unwatch(domain, arguments[0]),
            requests::NEXT if arguments[..4] == [0; 4] => self.next_name(None),
            requests::NEXT => self.next_name(Some(name_of(arguments)?)),
            _ => Err(Error::NoSuchRequest),
        }
    }

    fn update(
        &mut self,
        requester: Requester,
        domain: u64,
        name: Name,
        value: Option<u64>,
    ) -> Result<Option<[u64; 5]>, Error> {
        let registry = &mut self.registry;
        let waiting = registry.waiting.iter();
        let own = waiting.filter(|one| one.domain == domain).count();
        if own >= MAX_WAITING || registry.waiting.len() >= MAX_WAITING_OF_CORE {
            return Err(Error::Busy);
        }
        let token = registry.number();
        registry.updates.insert(token, requester);
        registry.waiting.push_back(Update {
            token,
            domain,
            name,
            value,
        });
        self.ask_for_updates();
        Ok(None)
    }

    /// Asks the protocol for as many of the updates as it takes.
    pub fn ask_for_updates(&mut self) {
        while self.agent.names().has_room()
            && let Some(update) = self.registry.waiting.pop_front()
        {
            let (token, domain, name) = (update.token, short(update.domain), update.name);
            let actions = self.agent.with_names(|names| match update.value {
                Some(value) => names.bind(token, domain, name, value),
                None => names.unbind(token, domain, name),
            });
            self.carry_out(actions);
        }
    }

    fn look_up(&mut self, requester: Requester, name: Name) -> Result<Option<[u64; 5]>, Error> {
        let token = self.registry.number();
        let mut found = Lookup::Busy;
        let actions = self.agent.with_names(|names| {
            found = names.lookup(token, name);
            [].into()
        });
        self.carry_out(actions);
        match found {
            Lookup::Found(value) => Ok(Some(self.found(name, value))),
            Lookup::Absent => Err(Error::NotBound),
            Lookup::Busy => Err(Error::Busy),
            Lookup::Wait(_) => {
                let reader = Reader { requester, name };
                self.registry.readers.insert(token, reader);
                Ok(None)
            }
        }
    }

    /// What a look-up tells of a name that is bound.
    fn found(&self, name: Name, value: u64) -> [u64; 5] {
        let binding = self.agent.names().replica().bindings.get(&name);
        let domain = binding.map_or(0, |binding| {
            u64::from(binding.owner.core) << 32 | u64::from(binding.owner.domain)
        });
        [value, domain, 0, 0, 0]
    }

    fn watch(
        &mut self,
        domain: u64,
        token: u32,
        name: Name,
        is_prefix: bool,
    ) -> Result<Option<[u64; 5]>, Error> {
        let own = self.registry.watches.values();
        if own.filter(|watch| watch.domain == domain).count() >= MAX_WATCHES {
            return Err(Error::TooManyWatches);
        }
        let number = self.registry.number();
        let mut answer = Ok(());
        let actions = self.agent.with_names(|names| {
            answer = names.watch(number, name, is_prefix);
            [].into()
        });
        self.carry_out(actions);
        answer.map_err(|_| Error::TooManyWatches)?;
        self.registry
            .watches
            .insert(number, Watch { domain, token });
        Ok(Some([0; 5]))
    }

    fn unwatch(&mut self, domain: u64, token: u64) -> Result<Option<[u64; 5]>, Error> {
        let mut watches = self.registry.watches.iter();
        let number = watches
            .find(|(_, watch)| watch.domain == domain && u64::from(watch.token) == token)
            .map(|(number, _)| *number);
        self.end_watch(number.ok_or(Error::BadArgument)?);
        Ok(Some([0; 5]))
    }

    fn end_watch(&mut self, number: u64) {
        self.registry.watches.remove(&number);
        let actions = self.agent.with_names(|names| {
            names.unwatch(number);
            [].into()
        });
        self.carry_out(actions);
    }

    fn next_name(&mut self, after: Option<Name>) -> Result<Option<[u64; 5]>, Error> {
        use core::ops::Bound::{Excluded, Unbounded};
        let bindings = &self.agent.names().replica().bindings;
        let from = after.map_or(Unbounded, Excluded);
        let (name, binding) = bindings
            .range((from, Unbounded))
            .next()
            .ok_or(Error::NotBound)?;
        let [a, b, c, d] = name.words();
        Ok(Some([a, b, c, d, binding.value]))
    }

    /// Does what the protocol decided.
    pub fn on_names(&mut self, action: &names::Action) {
        match *action {
            names::Action::Send(..) => {} // the agent has made a line of it
            names::Action::Done { token, result } => {
                if let Some(requester) = self.registry.updates.remove(&token) {
                    let answer = result.map(|()| Some([0; 5])).map_err(error);
                    self.answer(requester, answer);
                }
                self.ask_for_updates();
            }
            names::Action::LookedUp { token, value } => {
                if let Some(Reader { requester, name }) = self.registry.readers.remove(&token) {
                    let answer = value.map(|value| Some(self.found(name, value)));
                    self.answer(requester, answer.ok_or(Error::NotBound));
                }
            }
            names::Action::Changed { watch, name, value } => {
                self.tell_of_change(watch, name, value);
            }
        }
    }

    fn tell_of_change(&mut self, number: u64, name: Name, value: Option<u64>) {
        let Some(Watch { domain, token }) = self.registry.watches.get(&number) else {
            return;
        };
        let token = u64::from(*token);
        let Some(domain) = self.domains.by_id(*domain) else {
            return;
        };
        let is_overrun = domain.outbox.len() >= MAX_BEHIND;
        let what = match value {
            _ if is_overrun => event::OVERRUN,
            Some(_) => event::BOUND,
            None => event::UNBOUND,
        };
        let [a, b, c, d] = name.words();
        let words = [token, what, value.unwrap_or(0), a, b, c, d];
        let message = Message::new(interface::EVENT, words);
        domain.outbox.push_back(message);
        domain.flush();
        if is_overrun {
            self.end_watch(number);
        }
    }

    /// A domain of this core has ended: what it had bound is bound no more.
    pub fn names_end(&mut self, domain: u64) {
        let registry = &mut self.registry;
        let updates = &mut registry.updates;
        registry.waiting.retain(|update| {
            let stays = update.domain != domain;
            if !stays {
                updates.remove(&update.token);
            }
            stays
        });
        let watches = registry.watches.iter();
        let own = watches.filter(|(_, watch)| watch.domain == domain);
        let own: Vec<u64> = own.map(|(number, _)| *number).collect();
        own.into_iter().for_each(|number| self.end_watch(number));
        let actions = self
            .agent
            .with_names(|names| names.domain_ended(short(domain)));
        self.carry_out(actions);
    }
}

fn error(refusal: Refusal) -> Error {
    match refusal {
        Refusal::AlreadyBound => Error::NameTaken,
        Refusal::NotBound => Error::NotBound,
        Refusal::NotOwner => Error::NotOwner,
        Refusal::Full => Error::TooManyNames,
        Refusal::Busy => Error::Busy,
    }
}
