//! Domains of this core: spawn, end, and what they hold.

use crate::restarts::memory_of;
use crate::{Monitor, bundle, report};
use abi::exception::PAGE_FAULT;
use abi::layout::{
    PAGE, USER_FRAMES, USER_HEAP, USER_IMAGE, USER_SPAN, USER_SPAN_END, USER_STACK_BYTES,
    USER_STACK_TOP, USER_STARTUP,
};
use abi::limits::{MAX_DISPATCHERS, NAME_BYTES};
use abi::startup::{self, Startup};
use abi::syscall::{FIRST_DOORBELL, rights};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;
use loader::program::Program;
use protocols::lines::Lines;
use rt::authority::{self, Body, HEAP_CHUNK_BYTES, Life, MAX_HEAP_BYTES, Paged, Region, SharedRam};
use rt::capability::Address;
use rt::interface::{Error, FAULT_STATUS, INHERIT, KILLED_STATUS, state};
use urpc::{Channel, Message, SendError, Wait};
use zerocopy::{FromZeros, IntoBytes};

/// Where in a domain the channel to its monitor is.
const CHANNEL: u64 = USER_STARTUP + PAGE;
/// Bytes of a domain's heap.
const HEAP_BYTES: u64 = 1 << 20;
const _: () =
    assert!(HEAP_BYTES <= MAX_HEAP_BYTES && MIN_HEAP_BYTES.is_multiple_of(HEAP_CHUNK_BYTES));
/// Least heap, where memory is short.
const MIN_HEAP_BYTES: u64 = 256 << 10;
/// Most pages of a program's image.
const MAX_IMAGE_PAGES: u64 = 8192;
/// Most pieces of RAM of its own that a domain may have.
const MAX_RAM_PIECES: usize = 64;
/// Pages of private RAM that domains do not get for that.
const RESERVED_PAGES: u64 = 64;
/// The program that the command line named: the first domain of core 0. Its job has its number.
pub const PROGRAM: u64 = 1 << 8 | 1;
/// A life of a core begins its domains' generations at its number times this, so that none is that
/// of a domain of a life before.
const GENERATIONS_OF_LIFE: u64 = 1 << 13;
/// Replies that wait for room, beyond which a domain is not listened to.
const BACKLOG: usize = 32;

/// A frame that a domain is to share with another.
#[derive(Clone, Copy, Debug)]
pub struct SharedFrame {
    pub physical: u64,
    pub bytes: u64,
}

/// What a program gets to read, each divided by zero bytes.
#[derive(Debug, Default)]
pub struct Text {
    /// Name and arguments.
    pub arguments: Vec<u8>,
    pub environment: Vec<u8>,
}

/// A domain asks for another.
pub struct Request {
    pub text: Text,
    /// Id of a frame to share with it, or 0.
    pub frame: u64,
    /// Where in the asking domain's slots the capability is that it gets a copy of.
    pub gift: Option<Address>,
    /// Where the asking domain's slots are for capabilities to it, which is not started then.
    pub traced: Option<Address>,
}

impl Request {
    /// With the parent, its job, and the frame that the id stands for.
    pub fn by(self, parent: u64, job: u64, frame: Option<SharedFrame>) -> Spawn {
        let Self {
            text, gift, traced, ..
        } = self;
        Spawn {
            text,
            frame,
            parent,
            job: Some(job),
            gift,
            traced,
            member: None,
        }
    }
}

/// What is to be spawned.
pub struct Spawn {
    pub text: Text,
    pub frame: Option<SharedFrame>,
    /// The domain that asks; 0 where this monitor does.
    pub parent: u64,
    /// The job it belongs to; `None`: one of its own.
    pub job: Option<u64>,
    /// As in [`Request`]: the parent is of this core then.
    pub gift: Option<Address>,
    pub traced: Option<Address>,
    /// A member of a span: what it runs, and with what. It is not started yet.
    pub member: Option<(u64, u64)>,
}

/// A domain of this core.
pub struct Domain {
    pub id: u64,
    pub job: u64,
    pub parent: u64,
    pub vector: u8,
    name: Vec<u8>,
    pub environment: Vec<u8>,
    pub body: Body,
    pub channel: Channel,
    pub outbox: VecDeque<Message>,
    /// The channel ended; the domain is only waited for.
    pub deaf: bool,
    pub lines: Lines,
    /// Text for the spawn with this token.
    pub text_token: u32,
    pub text: Vec<u8>,
    /// The frame that its parent shares with it.
    frame: Option<SharedFrame>,
    next_frame: u64,
    killed: bool,
}

/// The domains of this core, by number; number 0 is the monitor.
pub struct Domains {
    /// Up to the highest number in use: they are looked through again and again.
    slots: Vec<Option<Domain>>,
    generation: u64,
}

impl Domains {
    /// None yet, in this life of the core: see [`Startup::life`].
    pub fn new(life: u32) -> Self {
        Self {
            slots: Vec::new(),
            generation: u64::from(life) * GENERATIONS_OF_LIFE,
        }
    }

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

    /// The domains with these ids, which may be the same.
    pub fn two(&self, first: u64, second: u64) -> Option<(&Domain, &Domain)> {
        let by_id = |id| self.slots.iter().flatten().find(|domain| domain.id == id);
        Some((by_id(first)?, by_id(second)?))
    }

    /// The numbers that are in use.
    pub fn numbers(&self) -> Vec<usize> {
        (0..self.slots.len())
            .filter(|number| self.slots[*number].is_some())
            .collect()
    }

    /// One more than the highest number in use.
    fn end(&self) -> usize {
        self.slots.len()
    }

    fn insert(&mut self, number: usize, domain: Domain) {
        if number >= self.slots.len() {
            self.slots.resize_with(number + 1, || None);
        }
        self.slots[number] = Some(domain);
    }

    fn remove(&mut self, number: usize) -> Option<Domain> {
        let domain = self.slots.get_mut(number)?.take();
        while self.slots.pop_if(|last| last.is_none()).is_some() {}
        domain
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
            self.body.ring();
        }
        moved
    }

    /// What it asks for with these words and this text.
    pub fn spawn_request(&self, words: [u64; 6], text: Vec<u8>) -> Result<Request, Error> {
        let [frame, gift, traced, sizes, ..] = words;
        let address = |word: u64| (word != 0).then_some(Address(word));
        let mut text = split(text, sizes & !INHERIT)?;
        if sizes & INHERIT != 0 {
            text.environment.clone_from(&self.environment);
        }
        Ok(Request {
            text,
            frame,
            gift: address(gift),
            traced: address(traced),
        })
    }
}

/// Divides a text into arguments of so many bytes and environment.
pub fn split(mut text: Vec<u8>, arguments: u64) -> Result<Text, Error> {
    if arguments > text.len() as u64 {
        return Err(Error::BadArgument);
    }
    let environment = text.split_off(arguments as usize);
    Ok(Text {
        arguments: text,
        environment,
    })
}

/// The vector that wakes the domain with this number.
fn vector_of(number: usize) -> u8 {
    FIRST_DOORBELL as u8 + number as u8
}

impl Monitor {
    /// Whether there is no domain with this number, and nobody has the doorbell of one that was.
    fn is_free(&self, number: usize) -> bool {
        let vector = authority::vector_range(self.own, vector_of(number));
        self.domains.slots.get(number).is_none_or(Option::is_none) && !self.store.is_late(&vector)
    }

    /// Starts a program on this core; returns the domain.
    pub fn spawn(&mut self, spawn: &Spawn) -> Result<u64, Error> {
        if self.restarts.is_stopping() {
            return Err(Error::NoSuchCore);
        }
        let number = (1..MAX_DISPATCHERS).find(|number| self.is_free(*number));
        let number = number.ok_or(Error::TooManyDomains)?;
        let mut made = Unfinished::default();
        let built = self.build(number, spawn, &mut made);
        if let Err(Failure::Capabilities(error)) = built
            && Error::from(error) == Error::Refused
        {
            self.log(&format!("a spawn failed, and should not have: {error:?}"));
        }
        if built.is_err() {
            // Whatever was taken goes back.
            if let Some(body) = made.body {
                let channel = made.channel.map(|channel| (number, channel));
                body.dissolve(&mut self.store, channel);
            }
            if let Some(frame) = made.frame {
                self.family.give_back(&mut self.store, frame);
            }
        }
        built.map_err(|failure| match failure {
            Failure::Request(error) => error,
            Failure::Capabilities(error) => error.into(),
        })
    }

    fn build(
        &mut self,
        number: usize,
        spawn: &Spawn,
        made: &mut Unfinished,
    ) -> Result<u64, Failure> {
        let mut start = Startup::new_zeroed();
        if !start.set_text(&spawn.text.arguments, &spawn.text.environment) {
            return Err(Error::TooLong.into());
        }
        let name = spawn.text.arguments.split(|byte| *byte == 0).next();
        let name = core::str::from_utf8(name.unwrap_or(&[])).map_err(|_| Error::NoSuchProgram)?;
        let file = bundle::file(name)
            .filter(|_| bundle::is_program(name))
            .ok_or(Error::NoSuchProgram)?;
        let program = Program::parse(file, USER_IMAGE..USER_HEAP, MAX_IMAGE_PAGES)
            .map_err(|_| Error::BadProgram)?;

        self.domains.generation += 1;
        let id = ((self.own as u64) << 32)
            | (self.domains.generation << 8 & 0xffff_ff00)
            | number as u64;
        let vector = vector_of(number);

        let region = |address, pages, is_fresh| Region {
            address,
            pages,
            is_fresh,
        };
        let in_place: Vec<Option<u64>> = program
            .segments
            .iter()
            .map(|segment| segment.in_place(authority::bundle(), 0))
            .collect();
        let segments = program.segments.iter().zip(&in_place);
        let mut regions: Vec<Region> = segments
            .map(|(segment, offset)| region(segment.address, segment.pages, offset.is_none()))
            .collect();
        let shared_pages = spawn.frame.map_or(0, |frame| frame.bytes / PAGE);
        let stack = USER_STACK_TOP - USER_STACK_BYTES;
        let mut heap = region(USER_HEAP, HEAP_BYTES / PAGE, true);
        let shared = region(USER_FRAMES, shared_pages, false);
        let stack = region(stack, USER_STACK_BYTES / PAGE, true);
        let page = region(USER_STARTUP, 1, true);
        let channel = region(CHANNEL, 1, true);
        regions.extend([heap, shared, stack, page, channel]);
        // Where memory is short, a smaller heap is better than no program.
        let body = loop {
            match Body::new(&mut self.store, &regions) {
                Err(authority::Error::NoMemory) if heap.pages > MIN_HEAP_BYTES / PAGE => {
                    heap.pages /= 2;
                    regions[in_place.len()] = heap;
                }
                body => break body?,
            }
        };
        let body = made.body.insert(body);

        for (segment, (offset, region)) in
            program.segments.iter().zip(in_place.iter().zip(&regions))
        {
            let mut access = rights::READ;
            if segment.writable {
                access |= rights::WRITE;
            }
            if segment.executable {
                access |= rights::EXECUTE;
            }
            match offset {
                Some(offset) => body.place_bundle(region, *offset, access)?,
                None => {
                    let (lead, contents) = (segment.lead, segment.contents);
                    body.place(&mut self.store, region, access, lead, contents)?;
                }
            }
        }
        body.place_heap(&mut self.store)?;
        if let Some(frame) = spawn.frame {
            let ram = self.family.borrow(&mut self.store, frame)?;
            made.frame = Some(frame);
            body.place_shared(&shared, ram)?;
            (start.frame, start.frame_bytes) = (USER_FRAMES, frame.bytes);
            start.frame_physical = frame.physical;
        }
        body.place_stack(&stack)?;
        let end = body.place_channel(&mut self.store, &channel, number)?;
        start.monitor_channel_physical = body.channel_place();
        made.channel = Some(end);

        let job = spawn.job.unwrap_or(id);
        (start.domain, start.job, start.parent) = (id, job, spawn.parent);
        (start.function, start.argument) = spawn.member.unwrap_or_default();
        start.heap_bytes = heap.pages * PAGE;
        start.vector = u32::from(vector);
        self.fill_startup(&mut start, name);
        body.place(&mut self.store, &page, rights::READ, 0, start.as_bytes())?;

        let parent = self.domains.by_id(spawn.parent).map(|domain| &domain.body);
        let wants_parent = spawn.gift.is_some() || spawn.traced.is_some();
        if wants_parent && parent.is_none() {
            return Err(Error::NoSuchDomain.into());
        }
        let gift = parent.zip(spawn.gift);
        body.finish(program.entry, vector, name, gift)?;
        body.set_paged(Paged::Heap, USER_HEAP..USER_HEAP + heap.pages * PAGE)?;
        match parent.zip(spawn.traced) {
            Some((parent, slots)) => body.show_to(parent, slots)?,
            None if spawn.member.is_some() => {
                body.set_paged(Paged::Span, USER_SPAN..USER_SPAN_END)?;
            }
            None => body.start()?,
        }

        let (Some(body), Some(channel)) = (made.body.take(), made.channel.take()) else {
            return Err(Error::NoMemory.into());
        };
        let domain = Domain {
            id,
            job,
            parent: spawn.parent,
            vector,
            name: name.as_bytes().to_vec(),
            environment: spawn.text.environment.clone(),
            body,
            channel,
            outbox: VecDeque::new(),
            deaf: false,
            lines: Lines::default(),
            text_token: 0,
            text: Vec::new(),
            frame: made.frame.take(),
            next_frame: USER_FRAMES + shared_pages * PAGE,
            killed: false,
        };
        self.domains.insert(number, domain);
        Ok(id)
    }

    /// What all domains of this core find in their startup pages.
    fn fill_startup(&self, start: &mut Startup, name: &str) {
        let own = rt::startup();
        let view = self.view();
        start.magic = startup::MAGIC;
        start.accelerator = own.accelerator;
        start.core = own.core;
        start.core_count = view.cores.len() as u32;
        start.cores = view.cores.words();
        start.node = own.node;
        start.tsc_start = own.tsc_start;
        start.tsc_hz = own.tsc_hz;
        start.heap = USER_HEAP;
        start.monitor_channel = CHANNEL;
        let length = name.floor_char_boundary(NAME_BYTES);
        start.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    }

    /// Makes a frame that can be shared, and maps it into a domain: where, and the frame.
    pub fn make_frame(&mut self, id: u64, bytes: u64) -> Result<(u64, SharedRam), Error> {
        let pages = bytes.div_ceil(PAGE);
        if pages == 0 {
            return Err(Error::BadArgument);
        }
        let domain = self.domains.by_id(id).ok_or(Error::NoSuchDomain)?;
        let frame = self.store.any_frame(pages)?;
        let address = domain.next_frame;
        // Even after a failure, when a part may be mapped: that place stays empty.
        domain.next_frame += pages * PAGE;
        match domain.body.lend(&mut self.store, address, &frame) {
            Ok(()) => Ok((address, frame)),
            Err(error) => {
                self.store.release_frame(frame);
                Err(error.into())
            }
        }
    }

    /// Makes RAM for a domain, whose capability goes into one of its slots.
    pub fn make_ram(&mut self, id: u64, bytes: u64, slot: u64) -> Result<(), Error> {
        let domain = self.domains.by_id(id).ok_or(Error::NoSuchDomain)?;
        if bytes == 0 || !bytes.is_multiple_of(PAGE) {
            return Err(Error::BadArgument);
        }
        if domain.body.pieces_of_ram() >= MAX_RAM_PIECES {
            return Err(Error::TooMuchRam);
        }
        let (free, _) = self.store.pages();
        if bytes / PAGE > free.saturating_sub(RESERVED_PAGES) {
            return Err(Error::NoMemory);
        }
        let slot = Address(slot);
        Ok(domain.body.give_ram(&mut self.store, bytes / PAGE, slot)?)
    }

    /// Takes RAM of a domain back.
    pub fn take_ram(&mut self, id: u64, base: u64) -> Result<(), Error> {
        let domain = self.domains.by_id(id).ok_or(Error::NoSuchDomain)?;
        match domain.body.take_ram(&mut self.store, base) {
            true => Ok(()),
            false => Err(Error::BadArgument),
        }
    }

    /// The domain with the lowest number from this one on, as requests tell of it.
    pub fn list(&self, from: u64) -> Result<[u64; 5], Error> {
        let from = usize::try_from(from).unwrap_or(usize::MAX).max(1);
        let mut rest = self.domains.slots.iter().skip(from).flatten();
        let domain = rest.next().ok_or(Error::NoSuchDomain)?;
        let state = match domain.body.life() {
            _ if domain.killed => state::ENDING,
            Life::Alive | Life::Paging { .. } => state::ALIVE,
            Life::Stopped => state::STOPPED,
            Life::Exited(_) | Life::Faulted { .. } => state::ENDING,
        };
        let mut name = [0; 16];
        let length = domain.name.len().min(name.len());
        name[..length].copy_from_slice(&domain.name[..length]);
        let [low, high]: [u64; 2] = zerocopy::transmute!(name);
        let id = domain.id | state << state::SHIFT;
        Ok([id, domain.parent, domain.job, low, high])
    }

    /// Serves all domains; with `looks`, also those that ended, which are buried, or miss a page. Whether any was
    /// buried.
    pub fn serve_domains(&mut self, looks: bool) -> bool {
        // What ended domains had bound may be gone, of which nobody is told; so there may be room.
        self.ask_for_updates();
        let mut ended = false;
        for number in 0..self.domains.end() {
            self.serve_domain(number, false);
            if !looks {
                continue;
            }
            let life = match self.domains.by_number(number) {
                Some(domain) if domain.killed => Life::Exited(KILLED_STATUS),
                Some(domain) => domain.body.life(),
                None => continue,
            };
            let goes_on = match life {
                Life::Alive | Life::Stopped => true,
                Life::Paging { error, address } => self.page_for(number, error, address),
                Life::Exited(_) | Life::Faulted { .. } => false,
            };
            if !goes_on {
                ended = true;
                while self.serve_domain(number, true) {}
                self.bury(number, life);
            }
        }
        ended
    }

    /// Ends a domain of this core.
    pub fn kill(&mut self, id: u64) -> Result<(), Error> {
        self.domains.by_id(id).ok_or(Error::NoSuchDomain)?.killed = true;
        self.has_news = true;
        Ok(())
    }

    /// Kills a domain of this core, and takes its memory back at once.
    fn end_now(&mut self, number: usize) {
        while self.serve_domain(number, true) {}
        self.bury(number, Life::Exited(KILLED_STATUS));
    }

    /// Kills all domains of this core.
    pub fn end_all(&mut self) {
        for number in self.domains.numbers() {
            self.end_now(number);
        }
    }

    /// Kills the domains that share a frame of another core, or have made one of what was borrowed
    /// from it. Whoever shared it with them is gone, and the memory is to be used anew.
    pub fn end_users_of(&mut self, core: usize) {
        let memory = memory_of(core);
        let makers = self.family.makers_in(&memory);
        for number in self.domains.numbers() {
            let domain = self.domains.by_number(number);
            let Some(domain) = domain.filter(|domain| {
                let frame = domain.frame.map(|frame| frame.physical);
                frame.is_some_and(|at| memory.contains(&at)) || makers.contains(&domain.id)
            }) else {
                continue;
            };
            let id = domain.id;
            self.end_user_of(id, core);
            self.end_now(number);
        }
        // What shares them elsewhere is killed there.
        self.forget_frames(&memory);
    }

    /// Kills a domain of this core that shares memory of another one, unless it was killed.
    pub fn end_user_of(&mut self, id: u64, core: usize) {
        let domain = self.domains.by_id(id);
        if let Some(domain) = domain.filter(|domain| !domain.killed) {
            domain.killed = true;
            self.has_news = true;
            self.log(&format!(
                "domain {id:#x} shares memory of core {core}, which starts anew: killed"
            ));
        }
    }

    /// Tells whom it concerns that a domain ended, and takes its memory back.
    fn bury(&mut self, number: usize, life: Life) {
        let Some(mut domain) = self.domains.remove(number) else {
            return;
        };
        let mut lines = Vec::new();
        domain.lines.rest(|line| lines.push(line.to_vec()));
        for line in lines {
            self.console.text(&mut self.mesh, &line);
        }
        let life = match life {
            Life::Paging { error, address } => Life::Faulted {
                vector: PAGE_FAULT,
                error,
                address,
            },
            other => other,
        };
        let status = match life {
            Life::Alive | Life::Stopped | Life::Paging { .. } => KILLED_STATUS,
            Life::Exited(status) => status,
            Life::Faulted {
                vector,
                error,
                address,
            } => {
                let name = core::str::from_utf8(&domain.name).unwrap_or("?");
                let registers = domain.body.registers();
                // Without its stack, the report is shorter.
                let callers = domain
                    .body
                    .read_stack(&mut self.store, |word| report::callers(&registers, word));
                let callers = callers.unwrap_or_default();
                let fault = (vector, error, address);
                for line in report::lines(name, domain.id, fault, &registers, &callers) {
                    self.log(&line);
                }
                FAULT_STATUS + vector as i32
            }
        };
        self.take_devices_of(domain.id);
        self.names_end(domain.id);
        self.regions_end(domain.id);
        self.spaces_end(domain.id);
        let channel = Some((number, domain.channel));
        domain.body.dissolve(&mut self.store, channel);
        if let Some(frame) = domain.frame {
            self.family.give_back(&mut self.store, frame);
        }
        self.tell_of_exit(domain.id, domain.job, status, domain.parent);
        self.domain_ended(domain.id, status);
    }
}

/// What of a domain was made already.
#[derive(Default)]
struct Unfinished {
    body: Option<Body>,
    channel: Option<Channel>,
    /// What [`crate::family`] lent it.
    frame: Option<SharedFrame>,
}

/// Why nothing was spawned.
enum Failure {
    Request(Error),
    Capabilities(authority::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Request(error)
    }
}

impl From<authority::Error> for Failure {
    fn from(error: authority::Error) -> Self {
        Self::Capabilities(error)
    }
}
