//! What domains ask for: served here if it is about this core, else handed on to the
//! monitor of the core it is about, whose answer goes back the same way.
//!
//! ```text
//!  domain          its monitor                    monitor of the core it is about
//!    │── request ──────►│── request | FORWARDED ──────────►│
//!    │                  │   (domain's number, token, job)  │ serves it
//!    │◄──── REPLY ──────│◄──────── REPLY | FORWARDED ──────│
//!    │                  │
//!    │                  │◄──────── EXITED {child} ─────────│ later, for a child
//! ```

use crate::Monitor;
use crate::devices;
use crate::domains::{self, Request, SharedFrame, Text};
use crate::family::MAX_WATCHERS_OF_DOMAIN;
use crate::mesh::{self, FORWARDED};
use crate::traces;
use abi::limits::ARGUMENT_BYTES;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use rt::authority;
use rt::capability::Address;
use rt::interface::{self, Error, LOST_STATUS, TEXT_BYTES, counter};
use rt::system_call::Error as CallError;
use rt::trace;
use urpc::{Message, ReceiveError};

/// Most messages taken from one domain before others have their turn.
const BATCH: usize = 16;

/// Most requests of a core's domains that other cores have not answered yet.
const MAX_PENDING: usize = 1024;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester {
    /// A domain of this core, which calls the request by this token.
    Domain(u64, u32),
    /// The monitor of a core, which calls it by this number.
    Monitor(usize, u64),
}

/// A request of a domain of this core that another core was asked to serve. It bears a
/// number of this monitor's choice: a domain's own tokens may be the same twice.
struct Pending {
    core: usize,
    domain: u64,
    token: u32,
    what: What,
}

enum What {
    /// The answer is the domain's as it is.
    Plain,
    /// A child, which shares this frame.
    Spawn { frame: Option<u64> },
    /// The doorbell of a domain for this slot, and whether it came there.
    Doorbell {
        of: u64,
        slot: Address,
        put: Option<Result<(), CallError>>,
    },
    /// The exit status of a domain.
    Wait,
    /// A core that stops: that it is gone is the answer.
    Stop,
}

/// What this monitor remembers of requests.
#[derive(Default)]
pub struct Requests {
    pending: BTreeMap<u64, Pending>,
    next: u64,
    /// Text that came from the monitor of a core, for the spawn that follows it.
    texts: BTreeMap<usize, Vec<u8>>,
}

impl Requests {
    /// None yet, in this life of the core: no answer to one of a life before is taken for that to
    /// one of this.
    pub fn new(life: u32) -> Self {
        Self {
            next: u64::from(life) << 32,
            ..Self::default()
        }
    }

    /// The slot for which a domain asked for the doorbell of another, and what came of it by now. Of
    /// several, the one that waits longest.
    pub fn doorbell_for(
        &mut self,
        asker: u64,
        target: u64,
    ) -> Option<(&Address, &mut Option<Result<(), CallError>>)> {
        self.pending
            .values_mut()
            .find_map(|pending| match &mut pending.what {
                What::Doorbell {
                    of,
                    slot,
                    put: put @ None,
                } if pending.domain == asker && *of == target => Some((&*slot, put)),
                _ => None,
            })
    }

    /// How many children of a domain other cores were asked to start.
    pub fn spawns_of(&self, domain: u64) -> usize {
        let spawns = |pending: &&Pending| {
            pending.domain == domain && matches!(pending.what, What::Spawn { .. })
        };
        self.pending.values().filter(spawns).count()
    }
}

/// Results of a request, or why there are none.
pub type Answer = Result<[u64; 5], Error>;

/// A single result.
pub fn value(value: u64) -> Answer {
    Ok([value, 0, 0, 0, 0])
}

/// Adds a piece of text. Too much is noticed when it is used; but it does not pile up.
pub fn add_text(text: &mut Vec<u8>, message: &Message) {
    if text.len() <= ARGUMENT_BYTES {
        text.extend_from_slice(message.as_bytes().get(8..).unwrap_or(&[]));
    }
}

impl Monitor {
    /// Takes what a domain of this core sent; whether there was anything. The last words of
    /// a domain that has ended are taken whether there is room for what they lead to or not:
    /// they are a ring full at the most.
    pub fn serve_domain(&mut self, number: usize, ended: bool) -> bool {
        let mut busy = false;
        for _ in 0..BATCH {
            // A domain gets to say more when its answers and its text have found room.
            let backed_up = self.console.is_backed_up(&self.mesh);
            let Some(domain) = self.domains.by_number(number) else {
                return busy;
            };
            if !ended && (backed_up || !domain.keeps_up()) {
                break;
            }
            match domain.channel.recv() {
                Ok(message) => {
                    busy = true;
                    self.on_domain_message(number, &message);
                }
                Err(ReceiveError::Empty) => break,
                Err(ReceiveError::Closed) => {
                    domain.deaf = true;
                    break;
                }
                Err(ReceiveError::Broken) => {
                    let (id, known) = (domain.id, domain.deaf);
                    domain.deaf = true;
                    if !known {
                        self.log(&alloc::format!(
                            "domain {id:#x} broke the channel to its monitor: killed"
                        ));
                        // It is of this core, so it is found.
                        let _ = self.kill(id);
                    }
                    break;
                }
            }
        }
        if let Some(domain) = self.domains.by_number(number) {
            busy |= domain.flush();
        }
        busy
    }

    fn on_domain_message(&mut self, number: usize, message: &Message) {
        let Some(domain) = self.domains.by_number(number) else {
            return;
        };
        if message.kind() == interface::WRITE {
            let mut lines = Vec::new();
            domain
                .lines
                .add(message.as_bytes(), |line| lines.push(line.to_vec()));
            for line in lines {
                self.console.text(&mut self.mesh, &line);
            }
            return;
        }
        let (id, job) = (domain.id, domain.job);
        let [route, arguments @ ..] = message.payload;
        let (token, core) = (route as u32, (route >> 32) as usize);
        if message.kind() == interface::TEXT {
            if domain.text_token != token {
                (domain.text_token, domain.text) = (token, Vec::new());
            }
            return add_text(&mut domain.text, message);
        }
        let requester = Requester::Domain(id, token);
        let kind = message.kind();
        traces::step_of(id, token, arguments[0], kind);
        let answer = if interface::names::REQUESTS.contains(&kind) {
            self.serve_names(requester, id, kind, arguments)
        } else if interface::regions::REQUESTS.contains(&kind) {
            self.serve_regions(requester, id, kind, arguments)
        } else if interface::spaces::REQUESTS.contains(&kind) {
            self.serve_spaces(requester, id, kind, arguments)
        } else if core == self.own {
            self.serve_own(requester, message.kind(), arguments, id, job)
        } else {
            self.hand_on(core, (id, token, job), message.kind(), arguments)
        };
        self.answer(requester, answer);
    }

    /// The text that a domain sent with the same token as a request.
    pub fn text_of(&mut self, id: u64, token: u32) -> Result<Vec<u8>, Error> {
        let domain = self.domains.by_id(id).ok_or(Error::NoSuchDomain)?;
        let text = match domain.text_token == token {
            true => core::mem::take(&mut domain.text),
            false => Vec::new(),
        };
        if text.len() > ARGUMENT_BYTES {
            return Err(Error::TooLong);
        }
        Ok(text)
    }

    /// The domain that it asks for with such a text.
    fn spawn_request(&mut self, id: u64, token: u32, words: [u64; 6]) -> Result<Request, Error> {
        let text = self.text_of(id, token)?;
        let domain = self.domains.by_id(id).ok_or(Error::NoSuchDomain)?;
        domain.spawn_request(words, text)
    }

    /// Puts a doorbell into a slot of a domain of this core.
    fn grant_doorbell(&mut self, id: u64, doorbell: Address, slot: Address) -> Answer {
        let domain = self.domains.by_id(id).ok_or(Error::NoSuchDomain)?;
        domain.body.grant_doorbell(doorbell, slot)?;
        value(0)
    }

    /// Serves a request of a domain of this core about this core.
    fn serve_own(
        &mut self,
        requester: Requester,
        kind: u16,
        arguments: [u64; 6],
        id: u64,
        job: u64,
    ) -> Result<Option<[u64; 5]>, Error> {
        let Requester::Domain(_, token) = requester else {
            return Err(Error::NoSuchRequest);
        };
        let [a, b, c, d, ..] = arguments;
        match kind {
            interface::WAIT => return self.wait_for_any(requester, (id, token, job), a),
            kind if interface::cores::REQUESTS.contains(&kind) => {
                return self.serve_cores(requester, kind, a, job);
            }
            interface::TRY_WAIT => self.try_wait_for(id, a),
            interface::STRATEGY => return self.set_strategy(requester, job, [a, b]),
            interface::TRACE => return self.change_traces(requester, job, [a, b, c]),
            interface::SPAWN => {
                let request = self.spawn_request(id, token, arguments)?;
                self.spawn_child(id, job, request)
            }
            interface::FRAME => return self.frame_for(requester, id, a),
            interface::RAM => self.make_ram(id, a, b).map(|()| [0; 5]),
            interface::FREE => return self.free_ram(requester, id, a),
            interface::DEVICE => self.give_device(id, [a, b, c, d]),
            interface::RELEASE => self.take_device(id, a, b),
            interface::IRQ => self.set_receiver(id, a, b != 0),
            interface::DOORBELL => {
                let core = (a >> 32) as usize;
                if core != self.own {
                    return self.hand_on(core, (id, token, job), kind, arguments);
                }
                let target = self.domains.by_id(a).filter(|target| target.job == job);
                let doorbell = target.ok_or(Error::NoSuchDomain)?.body.doorbell();
                self.grant_doorbell(id, doorbell, Address(b))
            }
            _ => self.serve_any(kind, arguments, job),
        }
        .map(Some)
    }

    /// Answers with the exit status of a domain when it has ended: of a child, or of any domain of
    /// the same job, which the monitor of its own core knows.
    fn wait_for_any(
        &mut self,
        requester: Requester,
        (id, token, job): (u64, u32, u64),
        domain: u64,
    ) -> Result<Option<[u64; 5]>, Error> {
        let of_child = self.wait_for(requester, id, domain);
        if of_child != Err(Error::NoSuchDomain) {
            return of_child;
        }
        let core = (domain >> 32) as usize;
        if core == self.own {
            return self.watch_end(requester, (id, job), domain);
        }
        let arguments = [domain, id, 0, 0, 0, 0];
        let handed_on = self.hand_on(core, (id, token, job), interface::WAIT, arguments);
        handed_on.map_err(|error| match error {
            Error::NoSuchCore => Error::NoSuchDomain,
            other => other,
        })
    }

    /// Hands a request on to the monitor of the core it is about.
    fn hand_on(
        &mut self,
        core: usize,
        (domain, token, job): (u64, u32, u64),
        kind: u16,
        mut arguments: [u64; 6],
    ) -> Result<Option<[u64; 5]>, Error> {
        if !interface::REQUESTS.contains(&kind) {
            // Nothing that monitors say among themselves is handed on for a domain.
            return Err(Error::NoSuchRequest);
        }
        if !self.view().cores.contains(core) {
            return Err(Error::NoSuchCore);
        }
        if self.requests.pending.len() >= MAX_PENDING || self.mesh.is_backed_up(core) {
            return Err(Error::Busy);
        }
        arguments[5] = job;
        let flow = trace::flow_of_request(domain, token);
        if kind != interface::ECHO {
            // No other request has so many arguments.
            arguments[4] = flow;
        }
        let mut what = What::Plain;
        match kind {
            interface::WAIT => {
                let waits = |one: &&Pending| one.domain == domain && matches!(one.what, What::Wait);
                if self.requests.pending.values().filter(waits).count() >= MAX_WATCHERS_OF_DOMAIN {
                    return Err(Error::Busy);
                }
                // Whoever it comes from, not whom it names.
                arguments[1] = domain;
                what = What::Wait;
            }
            interface::cores::STOP_CORE => what = What::Stop,
            interface::DOORBELL => {
                let [of, slot, asker, ..] = &mut arguments;
                *asker = domain;
                what = What::Doorbell {
                    of: *of,
                    slot: Address(*slot),
                    put: None,
                };
            }
            interface::SPAWN => {
                let Request {
                    text,
                    frame,
                    gift,
                    traced,
                } = self.spawn_request(domain, token, arguments)?;
                let (first, second) = (text.arguments.len(), text.environment.len());
                if first + second > ARGUMENT_BYTES {
                    return Err(Error::TooLong);
                }
                if gift.or(traced).is_some() {
                    return Err(Error::OtherCore);
                }
                let coming = self.requests.spawns_of(domain);
                let frame = self.family.prepare(domain, coming, frame)?;
                let (physical, bytes) = frame.map_or((0, 0), |frame| (frame.physical, frame.bytes));
                arguments = [physical, bytes, domain, first as u64, flow, job];
                let frame = frame.map(|frame| frame.physical);
                self.family.expect(frame);
                what = What::Spawn { frame };
                self.send_text(core, interface::TEXT | FORWARDED, &text);
            }
            _ => {}
        }
        self.requests.next += 1;
        let number = self.requests.next;
        self.requests.pending.insert(
            number,
            Pending {
                core,
                domain,
                token,
                what,
            },
        );
        let [a, b, c, d, e, f] = arguments;
        let message = Message::new(kind | FORWARDED, [number, a, b, c, d, e, f]);
        self.mesh.send(&mut self.store, core, &message);
        Ok(None)
    }

    /// Sends the pieces of a text ahead of a message about it.
    pub fn send_text(&mut self, core: usize, kind: u16, text: &Text) {
        let text = [&text.arguments[..], &text.environment].concat();
        for piece in text.chunks(TEXT_BYTES) {
            let mut bytes = [0; 8 + TEXT_BYTES];
            bytes[8..8 + piece.len()].copy_from_slice(piece);
            if let Ok(text) = Message::from_bytes(kind, &bytes[..8 + piece.len()]) {
                self.mesh.send(&mut self.store, core, &text);
            }
        }
    }

    /// Takes a message of another monitor if it is a request, a reply, or news of a child.
    pub fn on_request_message(&mut self, from: usize, message: &Message) -> bool {
        let [first, arguments @ ..] = message.payload;
        if message.kind() == mesh::EXITED {
            self.child_exited(first, arguments[0] as i32);
            return true;
        }
        if message.kind() & FORWARDED == 0 {
            return false;
        }
        if message.kind() & !FORWARDED != interface::REPLY
            && self.keep_for_first_view(from, message)
        {
            return true;
        }
        let requester = Requester::Monitor(from, first);
        let [a, b, c, d, flow, job] = arguments;
        let known = message.kind() & !FORWARDED;
        if ![interface::REPLY, interface::TEXT, interface::ECHO].contains(&known) {
            traces::step(flow, a, known);
        }
        match message.kind() & !FORWARDED {
            interface::REPLY => {
                let [error, results @ ..] = arguments;
                let reply = Error::from_code(error).map_or(Ok(results), Err);
                self.on_reply(first, reply);
            }
            interface::TEXT => add_text(self.requests.texts.entry(from).or_default(), message),
            interface::SPAWN => {
                let text = self.requests.texts.remove(&from).unwrap_or_default();
                let frame = (a != 0).then_some(SharedFrame {
                    physical: a,
                    bytes: b,
                });
                let answer = domains::split(text, d).and_then(|text| {
                    let request = Request {
                        text,
                        frame: a,
                        gift: None,
                        traced: None,
                    };
                    self.spawn(&request.by(c, job, frame)).and_then(value)
                });
                self.answer(requester, answer.map(Some));
            }
            interface::DOORBELL => {
                let answer = self.send_doorbell(requester, a, c, job);
                self.answer(requester, answer);
            }
            // Of no domain: nobody waits any more.
            interface::WAIT if a == 0 => self.forget_watcher(requester),
            interface::WAIT => {
                let answer = self.watch_end(requester, (b, job), a);
                self.answer(requester, answer);
            }
            interface::STRATEGY => {
                let answer = self.set_strategy(requester, job, [a, b]);
                self.answer(requester, answer);
            }
            interface::TRACE => {
                let answer = self.change_traces(requester, job, [a, b, c]);
                self.answer(requester, answer);
            }
            kind if interface::cores::REQUESTS.contains(&kind) => {
                let answer = self.serve_cores(requester, kind, a, job);
                self.answer(requester, answer);
            }
            kind => {
                let answer = self.serve_any(kind, arguments, job);
                self.answer(requester, answer.map(Some));
            }
        }
        true
    }

    /// Serves a request about this core, whichever core it comes from.
    fn serve_any(&mut self, kind: u16, arguments: [u64; 6], job: u64) -> Answer {
        let [a, b, c, d, e, _] = arguments;
        match kind {
            interface::ECHO => Ok([a, b, c, d, e]),
            interface::KILL => {
                let domain = self.domains.by_id(a).filter(|domain| domain.job == job);
                domain.ok_or(Error::NoSuchDomain)?;
                self.kill(a)?;
                value(0)
            }
            interface::MEMORY => {
                let (private, shared) = self.store.pages();
                let borrowed = self.store.pages_borrowed();
                let lent = self.agent.lending().pages_lent();
                Ok([private, shared, borrowed, lent, 0])
            }
            interface::LIST => self.list(a),
            interface::LOCATE => devices::locate(a, b),
            interface::DEVICE | interface::RELEASE | interface::IRQ => Err(Error::OtherCore),
            interface::VIEW => {
                let view = self.view();
                let [w, x, y, z] = view.cores.words();
                Ok([u64::from(view.epoch.round), w, x, y, z])
            }
            interface::MAPPING => {
                let [address, physical, bytes, rights] =
                    authority::kernel_mapping(a).unwrap_or_default();
                Ok([address, physical, bytes, rights, 0])
            }
            interface::WILD_WRITE => match authority::wild_write(a) {
                Ok(()) => value(0),
                Err(_) => Err(Error::TestHooksOff),
            },
            interface::COSTS => self.agreed_cost(a, b),
            interface::COUNTER => value(self.counted(a).ok_or(Error::BadArgument)?),
            _ => Err(Error::NoSuchRequest),
        }
    }

    /// A counter of this core's CPU driver or monitor.
    fn counted(&self, index: u64) -> Option<u64> {
        let of_agent = self.agent.counters();
        match index {
            counter::REFUSED => Some(of_agent.refused),
            counter::HELD_BACK => Some(of_agent.held_back),
            counter::TABLELESS => Some(of_agent.tableless),
            counter::BEGAN_NS => Some(self.started_ns),
            counter::UP_NS => Some(self.up_ns),
            counter::CONNECTED_NS => Some(self.connected_ns),
            counter::MESSAGES.. => self.mesh.counted(index),
            _ => authority::counter(index).ok(),
        }
    }

    /// Sends an answer to who waits for it; `Ok(None)`: it comes later.
    pub fn answer(&mut self, requester: Requester, answer: Result<Option<[u64; 5]>, Error>) {
        let (error, results) = match answer {
            Ok(None) => return,
            Ok(Some(results)) => (0, results),
            Err(error) => (error as u64, [0; 5]),
        };
        let [a, b, c, d, e] = results;
        match requester {
            Requester::Domain(id, token) => {
                let words = [u64::from(token), error, a, b, c, d, e];
                traces::step_of(id, token, error, interface::REPLY);
                if let Some(domain) = self.domains.by_id(id) {
                    domain
                        .outbox
                        .push_back(Message::new(interface::REPLY, words));
                    domain.flush();
                    self.has_answered = true;
                }
            }
            Requester::Monitor(core, number) => {
                let words = [number, error, a, b, c, d, e];
                let message = Message::new(interface::REPLY | FORWARDED, words);
                self.mesh.send(&mut self.store, core, &message);
            }
        }
    }

    /// A domain of this core has ended: where it waits for the ends of others, nobody need remember it.
    pub fn withdraw_waits_of(&mut self, domain: u64) {
        let waits =
            |_: &u64, one: &mut Pending| one.domain == domain && matches!(one.what, What::Wait);
        let open: Vec<_> = self.requests.pending.extract_if(.., waits).collect();
        for (number, Pending { core, .. }) in open {
            let message = Message::new(interface::WAIT | FORWARDED, [number, 0, 0, 0, 0, 0, 0]);
            self.mesh.send(&mut self.store, core, &message);
        }
    }

    /// A core was lost: it answers nothing any more.
    pub fn forget_requests_to(&mut self, core: usize) {
        self.requests.texts.remove(&core);
        let pending = self.requests.pending.iter();
        let lost = pending.filter(|(_, pending)| pending.core == core);
        let lost: Vec<u64> = lost.map(|(number, _)| *number).collect();
        for number in lost {
            self.on_reply(number, Err(Error::CoreLost));
        }
    }

    /// Another monitor answered for a domain of this core.
    fn on_reply(&mut self, number: u64, mut reply: Answer) {
        let Some(Pending {
            domain,
            token,
            what,
            ..
        }) = self.requests.pending.remove(&number)
        else {
            return;
        };
        match what {
            What::Plain => {}
            What::Wait => {
                if reply == Err(Error::CoreLost) {
                    reply = value(u64::from(LOST_STATUS as u32));
                }
            }
            What::Stop => {
                if reply == Err(Error::CoreLost) {
                    reply = value(0);
                }
            }
            What::Spawn { frame } => self.on_spawn_reply(domain, frame, &reply),
            // Whoever sent it may have stopped since.
            What::Doorbell { put: Some(put), .. } => {
                let put = put.map_err(|error| authority::Error::Refused(error).into());
                reply = put.map(|()| [0; 5]);
            }
            What::Doorbell { put: None, .. } => {}
        }
        self.answer(Requester::Domain(domain, token), reply.map(Some));
    }
}
