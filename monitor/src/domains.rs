//! Domains of this core: spawn, end, and what they hold.

use crate::{Monitor, bundle, report};
use abi::layout::{
    PAGE, USER_FRAMES, USER_HEAP, USER_IMAGE, USER_STACK_BYTES, USER_STACK_TOP, USER_STARTUP,
};
use abi::limits::{ARGUMENT_BYTES, DOORBELL_SLOTS, MAX_CORES, MAX_DISPATCHERS, NAME_BYTES};
use abi::startup::{self, MONITOR_DOORBELL, Startup};
use abi::syscall::{FIRST_DOORBELL, rights};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use loader::program::Program;
use protocols::lines::Lines;
use rt::authority::{self, AddressSpace, Dispatcher, Life, Ram};
use rt::interface::{Error, FAULT_STATUS, KILLED_STATUS};
use rt::system_call;
use urpc::{Channel, Message, SendError, Wait};
use zerocopy::{FromZeros, IntoBytes};

/// Where in a domain the channel to its monitor is.
const CHANNEL: u64 = USER_STARTUP + PAGE;
/// Bytes of a domain's heap.
const HEAP_BYTES: u64 = 1 << 20;
/// Least heap, where memory is short.
const MIN_HEAP_BYTES: u64 = 256 << 10;
/// Most pages of a program's image.
const MAX_IMAGE_PAGES: u64 = 8192;
/// Replies that wait for room, beyond which a domain is not listened to.
const BACKLOG: usize = 32;

/// A frame that a domain is to share with another.
#[derive(Clone, Copy, Debug)]
pub struct SharedFrame {
    pub physical: u64,
    pub bytes: u64,
}

/// What is to be spawned.
pub struct Spawn {
    /// Name and arguments, divided by zero bytes.
    pub arguments: Vec<u8>,
    pub frame: Option<SharedFrame>,
    /// The domain that asks; 0 where this monitor does.
    pub parent: u64,
    /// The job it belongs to; `None`: one of its own.
    pub job: Option<u64>,
}

/// A domain of this core.
pub struct Domain {
    pub id: u64,
    pub job: u64,
    pub parent: u64,
    pub vector: u8,
    name: Vec<u8>,
    dispatcher: Dispatcher,
    space: AddressSpace,
    memory: Vec<Ram>,
    pub channel: Channel,
    pub outbox: VecDeque<Message>,
    /// The channel ended; the domain is only waited for.
    pub deaf: bool,
    pub lines: Lines,
    /// Text for the spawn with this token.
    pub text_token: u32,
    pub text: Vec<u8>,
    next_frame: u64,
    next_doorbell: u64,
    /// Doorbells that it holds already: domain and slot.
    doorbells: Vec<(u64, u64)>,
    killed: bool,
}

/// The domains of this core, by number; number 0 is the monitor.
pub struct Domains {
    slots: Vec<Option<Domain>>,
    generation: u64,
}

impl Default for Domains {
    fn default() -> Self {
        Self {
            slots: (0..MAX_DISPATCHERS).map(|_| None).collect(),
            generation: 0,
        }
    }
}

impl Domains {
    /// The domain with this number.
    pub fn by_number(&mut self, number: usize) -> Option<&mut Domain> {
        self.slots.get_mut(number)?.as_mut()
    }

    /// The domain with this id.
    pub fn by_id(&mut self, id: u64) -> Option<&mut Domain> {
        self.slots
            .iter_mut()
            .flatten()
            .find(|domain| domain.id == id)
    }

    /// The numbers that are in use.
    pub fn numbers(&self) -> Vec<usize> {
        (0..MAX_DISPATCHERS)
            .filter(|number| self.slots[*number].is_some())
            .collect()
    }

    /// Step one of going to sleep; see [`urpc`]. Who would not be listened to now is not
    /// waited for.
    pub fn announce_sleep(&mut self, listening: bool) {
        for domain in self.slots.iter_mut().flatten() {
            if let Some(wait) = domain.wait(listening) {
                domain.channel.announce_sleep(wait);
            }
        }
    }

    /// Step three.
    pub fn may_sleep(&mut self, listening: bool) -> bool {
        self.slots
            .iter_mut()
            .flatten()
            .all(|domain| match domain.wait(listening) {
                Some(wait) => domain.channel.may_sleep(wait),
                None => true,
            })
    }

    /// Back again.
    pub fn awake(&mut self) {
        for domain in self.slots.iter_mut().flatten() {
            domain.channel.awake();
        }
    }
}

impl Domain {
    /// What this end of its channel waits for.
    fn wait(&self, listening: bool) -> Option<Wait> {
        match (listening && self.keeps_up(), self.outbox.is_empty()) {
            _ if self.deaf => None,
            (true, true) => Some(Wait::Message),
            (true, false) => Some(Wait::MessageOrRoom),
            (false, false) => Some(Wait::Room),
            (false, true) => None,
        }
    }

    /// Whether it takes its replies, so that it may ask for more.
    pub fn keeps_up(&self) -> bool {
        !self.deaf && self.outbox.len() < BACKLOG
    }

    /// Moves replies into the ring and rings, if it sleeps; whether anything moved.
    pub fn flush(&mut self) -> bool {
        let mut moved = false;
        while let Some(message) = self.outbox.front() {
            match self.channel.send(message) {
                Ok(()) => {
                    self.outbox.pop_front();
                    moved = true;
                }
                Err(SendError::Full) => break,
                Err(SendError::Closed | SendError::Broken) => {
                    // So that it keeps up, is received from, and is found out then.
                    self.outbox.clear();
                    moved = true;
                }
            }
        }
        if self.channel.peer_needs_doorbell() {
            // Granted when the domain was made.
            let _ = system_call::ring(doorbell_slot((self.id & 0xff) as usize));
        }
        moved
    }

    /// The slot for a doorbell to another domain, granted now if it is not yet.
    pub fn doorbell(&mut self, domain: u64, vector: u8) -> Result<u64, Error> {
        if let Some((_, slot)) = self.doorbells.iter().find(|(other, _)| *other == domain) {
            return Ok(*slot);
        }
        let slot = self.next_doorbell;
        if slot >= DOORBELL_SLOTS as u64 {
            return Err(Error::TooManyDoorbells);
        }
        let granted = self
            .dispatcher
            .grant_doorbell(slot, (domain >> 32) as usize, vector);
        granted.map_err(|_| Error::BadArgument)?;
        self.next_doorbell += 1;
        self.doorbells.push((domain, slot));
        Ok(slot)
    }
}

/// The monitor's own doorbell slot for a domain: those for other cores come before.
fn doorbell_slot(number: usize) -> u64 {
    (MAX_CORES + number) as u64
}

impl Monitor {
    /// Starts a program on this core; returns the domain.
    pub fn spawn(&mut self, spawn: &Spawn) -> Result<u64, Error> {
        let number = (1..MAX_DISPATCHERS).find(|number| self.domains.slots[*number].is_none());
        let number = number.ok_or(Error::TooManyDomains)?;
        let mut made = Unfinished::default();
        match self.build(number, spawn, &mut made) {
            Ok(id) => Ok(id),
            Err(error) => {
                // Whatever was taken goes back.
                if let Some(dispatcher) = made.dispatcher {
                    dispatcher.destroy(&mut self.private);
                }
                if let Some(channel) = made.channel {
                    let _ = authority::close_domain_channel(number, channel);
                }
                if let Some(space) = made.space {
                    space.dissolve(&mut self.private);
                }
                for ram in made.memory {
                    self.private.give(ram);
                }
                Err(error)
            }
        }
    }

    fn build(&mut self, number: usize, spawn: &Spawn, made: &mut Unfinished) -> Result<u64, Error> {
        if spawn.arguments.len() > ARGUMENT_BYTES {
            return Err(Error::BadArgument);
        }
        let name = spawn
            .arguments
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or(&[]);
        let name = core::str::from_utf8(name).map_err(|_| Error::NoSuchProgram)?;
        let file = bundle::file(name)
            .filter(|_| bundle::is_program(name))
            .ok_or(Error::NoSuchProgram)?;
        let program = Program::parse(file, USER_IMAGE..USER_HEAP, MAX_IMAGE_PAGES)
            .map_err(|_| Error::BadProgram)?;

        self.domains.generation += 1;
        let id = ((self.own as u64) << 32)
            | (self.domains.generation << 8 & 0xffff_ff00)
            | number as u64;
        let vector = FIRST_DOORBELL as u8 + number as u8;
        let job = spawn.job.unwrap_or(id);

        made.space = Some(AddressSpace::new(&mut self.private).ok_or(Error::NoMemory)?);
        for segment in &program.segments {
            let mut access = rights::READ;
            if segment.writable {
                access |= rights::WRITE;
            }
            if segment.executable {
                access |= rights::EXECUTE;
            }
            if let Some(physical) =
                segment.in_place(authority::bundle(), authority::machine().bundle)
            {
                let space = made.space.as_mut().ok_or(Error::NoMemory)?;
                let (address, pages) = (segment.address, segment.pages);
                let mapped =
                    space.map_physical(&mut self.private, address, physical, pages, access);
                mapped.map_err(|_| Error::NoMemory)?;
                continue;
            }
            let lead = segment.lead as usize;
            self.place(made, segment.address, segment.pages, access, |memory| {
                memory[lead..lead + segment.contents.len()].copy_from_slice(segment.contents);
            })?;
        }
        let stack = USER_STACK_TOP - USER_STACK_BYTES;
        self.place(made, stack, USER_STACK_BYTES / PAGE, rights::WRITE, |_| ())?;
        // Where memory is short, a smaller heap is better than no program.
        let mut heap_bytes = HEAP_BYTES;
        while self
            .place(made, USER_HEAP, heap_bytes / PAGE, rights::WRITE, |_| ())
            .is_err()
        {
            heap_bytes /= 2;
            if heap_bytes < MIN_HEAP_BYTES {
                return Err(Error::NoMemory);
            }
        }
        self.place(made, CHANNEL, 1, rights::WRITE, |_| ())?;
        let page = made.memory.last().ok_or(Error::NoMemory)?;
        let channel = authority::domain_channel(&mut self.private, number, page);
        made.channel = Some(channel.map_err(|_| Error::NoMemory)?);

        let mut next_frame = USER_FRAMES;
        let mut start = self.startup(id, job, spawn, name, vector, heap_bytes);
        if let Some(frame) = &spawn.frame {
            (start.frame, start.frame_bytes) = (next_frame, frame.bytes);
            let space = made.space.as_mut().ok_or(Error::NoMemory)?;
            let mapped = space.map_physical(
                &mut self.private,
                next_frame,
                frame.physical,
                frame.bytes / PAGE,
                rights::WRITE,
            );
            mapped.map_err(|_| Error::NoMemory)?;
            next_frame += frame.bytes;
        }
        self.place(made, USER_STARTUP, 1, rights::READ, |memory| {
            memory[..size_of::<Startup>()].copy_from_slice(start.as_bytes());
        })?;

        let space = made.space.as_ref().ok_or(Error::NoMemory)?;
        let dispatcher = Dispatcher::new(&mut self.private, space, program.entry, vector, name);
        let dispatcher = dispatcher.map_err(|_| Error::NoMemory)?;
        let granted = dispatcher
            .grant_doorbell(MONITOR_DOORBELL, self.own, FIRST_DOORBELL as u8)
            .and_then(|()| authority::grant_own_doorbell(doorbell_slot(number), self.own, vector));
        made.dispatcher = Some(dispatcher);
        granted.map_err(|_| Error::BadArgument)?;

        let (Some(dispatcher), Some(space), Some(channel)) = (
            made.dispatcher.take(),
            made.space.take(),
            made.channel.take(),
        ) else {
            return Err(Error::NoMemory);
        };
        self.domains.slots[number] = Some(Domain {
            id,
            job,
            parent: spawn.parent,
            vector,
            name: name.as_bytes().to_vec(),
            dispatcher,
            space,
            memory: core::mem::take(&mut made.memory),
            channel,
            outbox: VecDeque::new(),
            deaf: false,
            lines: Lines::default(),
            text_token: 0,
            text: Vec::new(),
            next_frame,
            next_doorbell: MONITOR_DOORBELL + 1,
            doorbells: Vec::new(),
            killed: false,
        });
        Ok(id)
    }

    /// Takes zeroed pages, lets `fill` write to them, and maps them into the new domain.
    fn place(
        &mut self,
        made: &mut Unfinished,
        address: u64,
        pages: u64,
        access: u64,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), Error> {
        let mut ram = self.private.take(pages).ok_or(Error::NoMemory)?;
        let filled = self.window.open(&mut self.private, &mut ram, |memory| {
            memory.fill(0);
            fill(memory);
        });
        let space = made.space.as_mut().ok_or(Error::NoMemory)?;
        let mapped = filled.and_then(|()| space.map(&mut self.private, address, &ram, access));
        made.memory.push(ram);
        mapped.map_err(|_| Error::NoMemory)
    }

    fn startup(
        &self,
        id: u64,
        job: u64,
        spawn: &Spawn,
        name: &str,
        vector: u8,
        heap_bytes: u64,
    ) -> Startup {
        let own = rt::startup();
        let view = self.membership.view();
        let mut start = Startup::new_zeroed();
        start.magic = startup::MAGIC;
        start.domain = id;
        start.job = job;
        start.parent = spawn.parent;
        start.accelerator = own.accelerator;
        start.core = own.core;
        start.core_count = view.cores.len() as u32;
        start.cores = view.cores.words();
        start.node = own.node;
        start.tsc_start = own.tsc_start;
        start.tsc_hz = own.tsc_hz;
        start.heap = USER_HEAP;
        start.heap_bytes = heap_bytes;
        start.monitor_channel = CHANNEL;
        start.vector = u32::from(vector);
        let length = name.len().min(NAME_BYTES);
        start.name[..length].copy_from_slice(&name.as_bytes()[..length]);
        start.arguments[..spawn.arguments.len()].copy_from_slice(&spawn.arguments);
        start.arguments_bytes = spawn.arguments.len() as u64;
        start
    }

    /// Makes a frame that can be shared, and maps it into a domain.
    pub fn make_frame(&mut self, id: u64, bytes: u64) -> Result<(u64, SharedFrame, Ram), Error> {
        let pages = bytes.div_ceil(PAGE);
        if pages == 0 || pages > self.shared.pages() {
            return Err(if pages == 0 {
                Error::BadArgument
            } else {
                Error::NoMemory
            });
        }
        let domain = self.domains.by_id(id).ok_or(Error::NoSuchDomain)?;
        let mut ram = self.shared.take(pages).ok_or(Error::NoMemory)?;
        let address = domain.next_frame;
        let mapped = self
            .window
            .zero(&mut self.private, &mut ram)
            .and_then(|()| {
                domain
                    .space
                    .map(&mut self.private, address, &ram, rights::WRITE)
            });
        if mapped.is_err() {
            // A part of it may be mapped: nobody must keep memory that is free again.
            let _ = domain.space.unmap(address, pages);
            self.shared.give(ram);
            return Err(Error::NoMemory);
        }
        domain.next_frame += pages * PAGE;
        let frame = SharedFrame {
            physical: ram.base(),
            bytes: pages * PAGE,
        };
        Ok((address, frame, ram))
    }

    /// Serves all domains; whether there was anything to do.
    pub fn serve_domains(&mut self) -> bool {
        let mut busy = false;
        for number in self.domains.numbers() {
            busy |= self.serve_domain(number, false);
            let life = match self.domains.by_number(number) {
                Some(domain) if domain.killed => Life::Exited(KILLED_STATUS),
                Some(domain) => domain.dispatcher.life(),
                None => continue,
            };
            if life != Life::Alive {
                busy = true;
                while self.serve_domain(number, true) {}
                self.bury(number, life);
            }
        }
        busy
    }

    /// Ends a domain of this core.
    pub fn kill(&mut self, id: u64) -> Result<(), Error> {
        self.domains.by_id(id).ok_or(Error::NoSuchDomain)?.killed = true;
        Ok(())
    }

    /// Tells whom it concerns that a domain ended, and takes its memory back.
    fn bury(&mut self, number: usize, life: Life) {
        let Some(mut domain) = self.domains.slots[number].take() else {
            return;
        };
        let mut lines = Vec::new();
        domain.lines.rest(|line| lines.push(line.to_vec()));
        for line in lines {
            self.console.text(&mut self.mesh, &line);
        }
        let status = match life {
            Life::Alive => KILLED_STATUS,
            Life::Exited(status) => status,
            Life::Faulted {
                vector,
                error,
                address,
                ..
            } => {
                let name = core::str::from_utf8(&domain.name).unwrap_or("?");
                let registers = domain.dispatcher.registers();
                for line in report::lines(name, domain.id, (vector, error, address), &registers) {
                    self.log(&line);
                }
                FAULT_STATUS + vector as i32
            }
        };
        domain.dispatcher.destroy(&mut self.private);
        let _ = authority::close_domain_channel(number, domain.channel);
        domain.space.dissolve(&mut self.private);
        for ram in domain.memory {
            self.private.give(ram);
        }
        self.tell_of_exit(domain.id, status, domain.parent);
        self.domain_ended(domain.id, status);
    }
}

/// What of a domain was made already.
#[derive(Default)]
struct Unfinished {
    space: Option<AddressSpace>,
    memory: Vec<Ram>,
    channel: Option<Channel>,
    dispatcher: Option<Dispatcher>,
}
