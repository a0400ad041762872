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
use rt::authority::{self, Ram};
use rt::interface::{self, Error};
use urpc::{Message, ReceiveError};

/// Most messages taken from one domain before others have their turn.
const BATCH: usize = 16;

/// Who waits for an answer: a domain, and its token. Domain ids are not used again, so a
/// late answer never reaches a domain that took the place of a dead one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Requester {
    domain: u64,
    token: u32,
}

impl Requester {
    fn core(self) -> usize {
        (self.domain >> 32) as usize
    }

    /// As the first word of a message between monitors, who know each other's core.
    fn route(self) -> u64 {
        u64::from(self.token) | (self.domain << 32)
    }

    fn from_route(core: usize, route: u64) -> Self {
        Self {
            domain: ((core as u64) << 32) | (route >> 32),
            token: route as u32,
        }
    }
}

/// A child of a domain of this core.
struct Child {
    parent: u64,
    status: Option<i32>,
    waiter: Option<Requester>,
}

/// A frame that was made here.
struct Frame {
    ram: Ram,
    /// Domains that have it mapped.
    users: Vec<u64>,
    maker: u64,
}

/// What this monitor remembers of requests.
#[derive(Default)]
pub struct Requests {
    /// Text for spawns to come.
    texts: BTreeMap<Requester, Vec<u8>>,
    /// Spawns that another core carries out: the parent, and the frame it shares.
    spawning: BTreeMap<Requester, (u64, Option<u64>)>,
    /// Doorbells that another core was asked about: the domain.
    doorbells: BTreeMap<Requester, u64>,
    children: BTreeMap<u64, Child>,
    frames: BTreeMap<u64, Frame>,
}

type Answer = Result<[u64; 5], Error>;

fn value(value: u64) -> Answer {
    Ok([value, 0, 0, 0, 0])
}

impl Monitor {
    /// Takes what a domain of this core sent; whether there was anything. The last words of
    /// a domain that has ended are taken whether there is room for what they lead to or not:
    /// they are a ring full at the most.
    pub fn serve_domain(&mut self, number: usize, ended: bool) -> bool {
        let mut busy = false;
        for _ in 0..BATCH {
            // A domain gets to say more when its answers and its text have found room.
            let backed_up = self.mesh.is_backed_up();
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
                    domain.deaf = true;
                    let id = domain.id;
                    self.log(&alloc::format!(
                        "domain {id:#x} broke the channel to its monitor: killed"
                    ));
                    // It is of this core, so it is found.
                    let _ = self.kill(id);
                    return true;
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
        let [route, mut arguments @ ..] = message.payload;
        let (token, core) = (route as u32, (route >> 32) as usize);
        let requester = Requester { domain: id, token };
        if !interface::REQUESTS.contains(&message.kind()) {
            // Nothing that monitors say among themselves is handed on for a domain.
            return self.answer(requester, Err(Error::NoSuchRequest));
        }
        if core == self.own {
            let answer = match message.kind() {
                interface::TEXT => self.add_text(requester, message),
                interface::SPAWN => self.frame_to_share(id, arguments[0]).and_then(|frame| {
                    let spawned = self.spawn_for(requester, frame, id, job)?;
                    self.adopt(spawned, id, frame.map(|frame| frame.physical));
                    value(spawned).map(Some)
                }),
                kind => self.serve_request(requester, kind, arguments, id, job),
            };
            self.answer(requester, answer);
            return;
        }
        if !self.membership.view().cores.contains(core) {
            self.answer(requester, Err(Error::NoSuchCore));
            return;
        }
        // What the other side has to know of the domain goes along.
        match message.kind() {
            interface::TEXT => {}
            interface::SPAWN => match self.frame_to_share(id, arguments[0]) {
                Ok(frame) => {
                    let frame_id = frame.map(|frame| frame.physical);
                    self.requests.spawning.insert(requester, (id, frame_id));
                    let bytes = frame.map_or(0, |frame| frame.bytes);
                    arguments = [frame_id.unwrap_or(0), bytes, id, 0, 0, job];
                }
                Err(error) => return self.answer(requester, Err(error)),
            },
            _ => arguments[5] = job,
        }
        let [a, b, c, d, e, f] = arguments;
        let route = requester.route();
        let mut forwarded = Message::new(message.kind() | FORWARDED, [route, a, b, c, d, e, f]);
        if message.kind() == interface::TEXT {
            let mut bytes = [0; 56];
            let length = message.as_bytes().len();
            bytes[..length].copy_from_slice(message.as_bytes());
            bytes[..8].copy_from_slice(&route.to_le_bytes());
            match Message::from_bytes(interface::TEXT | FORWARDED, &bytes[..length.max(8)]) {
                Ok(text) => forwarded = text,
                Err(_) => return,
            }
        }
        self.mesh.send(&mut self.private, core, &forwarded);
    }

    /// Takes a message of another monitor if it is a request, a reply, or news of a child.
    pub fn on_request_message(&mut self, from: usize, message: &Message) -> bool {
        let [route, arguments @ ..] = message.payload;
        if message.kind() == mesh::EXITED {
            self.child_exited(route, arguments[0] as i32);
            return true;
        }
        if message.kind() & FORWARDED == 0 {
            return false;
        }
        let requester = Requester::from_route(from, route);
        match message.kind() & !FORWARDED {
            interface::REPLY => {
                let requester = Requester::from_route(self.own, route);
                let [error, results @ ..] = arguments;
                let reply = Error::from_code(error).map_or(Ok(results), Err);
                self.on_reply(requester, reply);
            }
            interface::TEXT => {
                let answer = self.add_text(requester, message);
                self.answer(requester, answer);
            }
            interface::SPAWN => {
                let [physical, bytes, parent, _, _, job] = arguments;
                let frame = (physical != 0).then_some(SharedFrame { physical, bytes });
                let answer = self.spawn_for(requester, frame, parent, job);
                self.answer(requester, answer.and_then(|domain| value(domain).map(Some)));
            }
            kind => {
                let answer = self.serve_request(requester, kind, arguments, 0, arguments[5]);
                self.answer(requester, answer);
            }
        }
        true
    }

    /// Serves a request about this core. `Ok(None)`: the answer comes later.
    fn serve_request(
        &mut self,
        requester: Requester,
        kind: u16,
        arguments: [u64; 6],
        id: u64,
        job: u64,
    ) -> Result<Option<[u64; 5]>, Error> {
        let [a, ..] = arguments;
        let answer = match kind {
            interface::ECHO => Ok([a, arguments[1], arguments[2], arguments[3], arguments[4]]),
            interface::WAIT => return self.wait_for(requester, id, a),
            interface::KILL => {
                let domain = self.domains.by_id(a).filter(|domain| domain.job == job);
                domain.ok_or(Error::NoSuchDomain)?;
                self.kill(a)?;
                value(0)
            }
            interface::FRAME => {
                let (address, frame, ram) = self.make_frame(requester.domain, a)?;
                let made = Frame {
                    ram,
                    users: [id].into(),
                    maker: id,
                };
                self.requests.frames.insert(frame.physical, made);
                Ok([address, frame.bytes, frame.physical, 0, 0])
            }
            interface::DOORBELL if requester.core() == self.own => {
                let core = (a >> 32) as usize;
                if core == self.own {
                    let vector = self.vector_of(a, job)?;
                    let domain = self
                        .domains
                        .by_id(requester.domain)
                        .ok_or(Error::NoSuchDomain)?;
                    value(domain.doorbell(a, vector)?)
                } else if self.membership.view().cores.contains(core) {
                    self.requests.doorbells.insert(requester, a);
                    let route = requester.route();
                    let ask = [route, a, 0, 0, 0, 0, job];
                    let message = Message::new(interface::DOORBELL | FORWARDED, ask);
                    self.mesh.send(&mut self.private, core, &message);
                    return Ok(None);
                } else {
                    Err(Error::NoSuchCore)
                }
            }
            interface::DOORBELL => value(u64::from(self.vector_of(a, job)?)),
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
        };
        answer.map(Some)
    }

    fn vector_of(&mut self, id: u64, job: u64) -> Result<u8, Error> {
        let domain = self.domains.by_id(id).filter(|domain| domain.job == job);
        domain
            .map(|domain| domain.vector)
            .ok_or(Error::NoSuchDomain)
    }

    /// Sends an answer to who waits for it.
    fn answer(&mut self, requester: Requester, answer: Result<Option<[u64; 5]>, Error>) {
        let (error, results) = match answer {
            Ok(None) => return,
            Ok(Some(results)) => (0, results),
            Err(error) => (error as u64, [0; 5]),
        };
        let [a, b, c, d, e] = results;
        let token = u64::from(requester.token);
        if requester.core() == self.own {
            let message = Message::new(interface::REPLY, [token, error, a, b, c, d, e]);
            if let Some(domain) = self.domains.by_id(requester.domain) {
                domain.outbox.push_back(message);
                domain.flush();
            }
        } else {
            let route = requester.route();
            let message = Message::new(interface::REPLY | FORWARDED, [route, error, a, b, c, d, e]);
            self.mesh
                .send(&mut self.private, requester.core(), &message);
        }
    }

    /// Another monitor answered for a domain of this core.
    fn on_reply(&mut self, requester: Requester, reply: Answer) {
        let mut reply = reply;
        if let Some((parent, frame)) = self.requests.spawning.remove(&requester) {
            if let Ok([child, ..]) = reply {
                self.adopt(child, parent, frame);
            }
        } else if let Some(target) = self.requests.doorbells.remove(&requester) {
            reply = reply.and_then(|[vector, ..]| {
                let domain = self
                    .domains
                    .by_id(requester.domain)
                    .ok_or(Error::NoSuchDomain)?;
                value(domain.doorbell(target, vector as u8)?)
            });
        }
        self.answer(requester, reply.map(Some));
    }

    fn add_text(
        &mut self,
        requester: Requester,
        message: &Message,
    ) -> Result<Option<[u64; 5]>, Error> {
        let text = self.requests.texts.entry(requester).or_default();
        let piece = message.as_bytes().get(8..).unwrap_or(&[]);
        // Too much is noticed when it is used; but it does not pile up.
        if text.len() <= ARGUMENT_BYTES {
            text.extend_from_slice(piece);
        }
        Ok(None)
    }

    fn spawn_for(
        &mut self,
        requester: Requester,
        frame: Option<SharedFrame>,
        parent: u64,
        job: u64,
    ) -> Result<u64, Error> {
        let arguments = self.requests.texts.remove(&requester).unwrap_or_default();
        self.spawn(&Spawn {
            arguments,
            frame,
            parent,
            job: Some(job),
        })
    }

    /// The frame of this id, if the domain made it.
    fn frame_to_share(&self, domain: u64, id: u64) -> Result<Option<SharedFrame>, Error> {
        if id == 0 {
            return Ok(None);
        }
        let frame = self
            .requests
            .frames
            .get(&id)
            .filter(|frame| frame.maker == domain);
        let frame = frame.ok_or(Error::NoSuchFrame)?;
        let bytes = frame.ram.pages() * abi::layout::PAGE;
        Ok(Some(SharedFrame {
            physical: id,
            bytes,
        }))
    }

    /// Notes a child of a domain of this core.
    fn adopt(&mut self, child: u64, parent: u64, frame: Option<u64>) {
        if let Some(frame) = frame.and_then(|id| self.requests.frames.get_mut(&id)) {
            frame.users.push(child);
        }
        self.requests.children.insert(
            child,
            Child {
                parent,
                status: None,
                waiter: None,
            },
        );
    }

    fn wait_for(
        &mut self,
        requester: Requester,
        parent: u64,
        child: u64,
    ) -> Result<Option<[u64; 5]>, Error> {
        let entry = self
            .requests
            .children
            .get_mut(&child)
            .filter(|entry| entry.parent == parent);
        let entry = entry.ok_or(Error::NoSuchDomain)?;
        match entry.status {
            Some(status) => {
                self.requests.children.remove(&child);
                value(u64::from(status as u32)).map(Some)
            }
            None => {
                entry.waiter = Some(requester);
                Ok(None)
            }
        }
    }

    /// A domain of this core ended: its parent's monitor learns of it, and what it held
    /// here is given up.
    pub fn tell_of_exit(&mut self, id: u64, status: i32, parent: u64) {
        let requests = &mut self.requests;
        requests.texts.retain(|requester, _| requester.domain != id);
        requests.children.retain(|_, child| child.parent != id);
        self.release_frames(id);
        let core = (parent >> 32) as usize;
        if parent == 0 || core == self.own {
            self.child_exited(id, status);
        } else {
            let message = Message::new(
                mesh::EXITED,
                [id, u64::from(status as u32), parent, 0, 0, 0, 0],
            );
            self.mesh.send(&mut self.private, core, &message);
        }
    }

    fn child_exited(&mut self, child: u64, status: i32) {
        self.release_frames(child);
        let Some(entry) = self.requests.children.get_mut(&child) else {
            return; // its parent is gone
        };
        entry.status = Some(status);
        if let Some(waiter) = entry.waiter {
            self.requests.children.remove(&child);
            self.answer(waiter, value(u64::from(status as u32)).map(Some));
        }
    }

    /// Frames that nobody has mapped any more are free.
    fn release_frames(&mut self, domain: u64) {
        for frame in self.requests.frames.values_mut() {
            frame.users.retain(|user| *user != domain);
        }
        let unused = |frame: &Frame| frame.users.is_empty();
        let ids: Vec<u64> = self
            .requests
            .frames
            .iter()
            .filter(|(_, frame)| unused(frame))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            if let Some(frame) = self.requests.frames.remove(&id) {
                self.shared.give(frame.ram);
            }
        }
    }
}
