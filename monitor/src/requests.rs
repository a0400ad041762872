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
use crate::domains::{SharedFrame, Spawn};
use crate::mesh::{self, FORWARDED};
use abi::limits::ARGUMENT_BYTES;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use rt::authority;
use rt::interface::{self, Error, TEXT_BYTES};
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
    domain: u64,
    token: u32,
    what: What,
}

enum What {
    /// The answer is the domain's as it is.
    Plain,
    /// A child, which shares this frame.
    Spawn { frame: Option<u64> },
    /// A doorbell to this domain.
    Doorbell { target: u64 },
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
        let answer = if core == self.own {
            self.serve_own(requester, message.kind(), arguments, id, job)
        } else {
            self.hand_on(core, (id, token, job), message.kind(), arguments)
        };
        self.answer(requester, answer);
    }

    /// The text that a domain sent for the spawn with this token.
    fn take_text(&mut self, id: u64, token: u32) -> Vec<u8> {
        match self.domains.by_id(id) {
            Some(domain) if domain.text_token == token => core::mem::take(&mut domain.text),
            _ => Vec::new(),
        }
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
        let [a, ..] = arguments;
        match kind {
            interface::WAIT => return self.wait_for(requester, id, a),
            interface::SPAWN => {
                let text = self.take_text(id, token);
                self.spawn_child(id, job, a, text)
            }
            interface::FRAME => self.frame_for(id, a),
            interface::DOORBELL => {
                let core = (a >> 32) as usize;
                if core != self.own {
                    return self.hand_on(core, (id, token, job), kind, arguments);
                }
                let vector = self.vector_of(a, job)?;
                let domain = self.domains.by_id(id).ok_or(Error::NoSuchDomain)?;
                value(domain.doorbell(a, vector)?)
            }
            _ => self.serve_any(kind, arguments, job),
        }
        .map(Some)
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
        if !self.membership.view().cores.contains(core) {
            return Err(Error::NoSuchCore);
        }
        if self.requests.pending.len() >= MAX_PENDING || self.mesh.is_backed_up(core) {
            return Err(Error::Busy);
        }
        arguments[5] = job;
        let mut what = What::Plain;
        match kind {
            interface::DOORBELL => {
                what = What::Doorbell {
                    target: arguments[0],
                }
            }
            interface::SPAWN => {
                let text = self.take_text(domain, token);
                let frame =
                    self.family
                        .prepare(domain, self.requests.spawns_of(domain), arguments[0])?;
                let (physical, bytes) = frame.map_or((0, 0), |frame| (frame.physical, frame.bytes));
                arguments = [physical, bytes, domain, 0, 0, job];
                let frame = frame.map(|frame| frame.physical);
                self.family.expect(frame);
                what = What::Spawn { frame };
                for piece in text.chunks(TEXT_BYTES) {
                    let mut bytes = [0; 8 + TEXT_BYTES];
                    bytes[8..8 + piece.len()].copy_from_slice(piece);
                    if let Ok(text) =
                        Message::from_bytes(interface::TEXT | FORWARDED, &bytes[..8 + piece.len()])
                    {
                        self.mesh.send(&mut self.private, core, &text);
                    }
                }
            }
            _ => {}
        }
        self.requests.next += 1;
        let number = self.requests.next;
        self.requests.pending.insert(
            number,
            Pending {
                domain,
                token,
                what,
            },
        );
        let [a, b, c, d, e, f] = arguments;
        let message = Message::new(kind | FORWARDED, [number, a, b, c, d, e, f]);
        self.mesh.send(&mut self.private, core, &message);
        Ok(None)
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
        let requester = Requester::Monitor(from, first);
        let [a, b, c, _, _, job] = arguments;
        match message.kind() & !FORWARDED {
            interface::REPLY => {
                let [error, results @ ..] = arguments;
                let reply = Error::from_code(error).map_or(Ok(results), Err);
                self.on_reply(first, reply);
            }
            interface::TEXT => add_text(self.requests.texts.entry(from).or_default(), message),
            interface::SPAWN => {
                let arguments = self.requests.texts.remove(&from).unwrap_or_default();
                let frame = (a != 0).then_some(SharedFrame {
                    physical: a,
                    bytes: b,
                });
                let spawn = Spawn {
                    arguments,
                    frame,
                    parent: c,
                    job: Some(job),
                };
                let answer = self.spawn(&spawn).and_then(value);
                self.answer(requester, answer.map(Some));
            }
            interface::DOORBELL => {
                let answer = self
                    .vector_of(a, job)
                    .and_then(|vector| value(u64::from(vector)));
                self.answer(requester, answer.map(Some));
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
            interface::MEMORY => Ok([self.private.pages(), self.shared.pages(), 0, 0, 0]),
            interface::VIEW => {
                let view = self.membership.view();
                let [w, x, y, z] = view.cores.words();
                Ok([view.epoch, w, x, y, z])
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
            interface::COUNTER => authority::counter(a)
                .map_err(|_| Error::BadArgument)
                .and_then(value),
            _ => Err(Error::NoSuchRequest),
        }
    }

    fn vector_of(&mut self, id: u64, job: u64) -> Result<u8, Error> {
        let domain = self.domains.by_id(id).filter(|domain| domain.job == job);
        domain
            .map(|domain| domain.vector)
            .ok_or(Error::NoSuchDomain)
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
                if let Some(domain) = self.domains.by_id(id) {
                    domain
                        .outbox
                        .push_back(Message::new(interface::REPLY, words));
                    domain.flush();
                }
            }
            Requester::Monitor(core, number) => {
                let words = [number, error, a, b, c, d, e];
                let message = Message::new(interface::REPLY | FORWARDED, words);
                self.mesh.send(&mut self.private, core, &message);
            }
        }
    }

    /// Another monitor answered for a domain of this core.
    fn on_reply(&mut self, number: u64, mut reply: Answer) {
        let Some(Pending {
            domain,
            token,
            what,
        }) = self.requests.pending.remove(&number)
        else {
            return;
        };
        match what {
            What::Plain => {}
            What::Spawn { frame } => self.on_spawn_reply(domain, frame, &reply),
            What::Doorbell { target } => {
                reply = reply.and_then(|[vector, ..]| {
                    let domain = self.domains.by_id(domain).ok_or(Error::NoSuchDomain)?;
                    value(domain.doorbell(target, vector as u8)?)
                });
            }
        }
        self.answer(Requester::Domain(domain, token), reply.map(Some));
    }
}
