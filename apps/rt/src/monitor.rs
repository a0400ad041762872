//! What the monitor does for a program: spawn, wait, kill, frames, RAM, doorbells.

use crate::capability::{Address, MONITOR_DOORBELL, slots};
use crate::clock;
use crate::connection::Connection;
use crate::frame::Frame;
use crate::interface::names::event as change;
use crate::interface::{self, Error, TEXT_BYTES, state};
use crate::trace::{self, Recorder, event};
use crate::{startup, transfer};
use abi::limits::{ARGUMENT_BYTES, PAGE_CHANNEL_SLOTS};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use spin::{LazyLock, Mutex};
use urpc::{Channel, Message, ReceiveError, SendError, Side, Wait};

/// A domain, on whichever core: its core in the high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Domain(pub u64);

impl Domain {
    /// The core it runs on.
    pub fn core(self) -> usize {
        (self.0 >> 32) as usize
    }
}

/// A request that was sent and not answered yet.
#[derive(Debug)]
#[must_use = "a request has an answer"]
pub struct Token(pub(crate) u32, u16);

/// Most events of one request that are kept for who asks for them later: then the last of them says
/// that some are lost.
const MAX_EVENTS: usize = 256;

struct Client {
    connection: Connection,
    next_token: u32,
    replies: Vec<(u32, Message)>,
    events: VecDeque<(u32, Message)>,
}

static CLIENT: LazyLock<Mutex<Client>> = LazyLock::new(|| {
    let page = startup().monitor_channel;
    assert!(page != 0, "a monitor has no monitor");
    // SAFETY: the monitor mapped the page for this channel and nothing else, for the life
    // of the domain, and this is the only time that it is attached.
    let channel = unsafe { Channel::attach(page as *mut u8, PAGE_CHANNEL_SLOTS, Side::B) };
    let channel = channel.traced(startup().monitor_channel_physical, Side::B);
    Mutex::new(Client {
        connection: Connection::on_this_core(channel, Some(MONITOR_DOORBELL)),
        next_token: 1,
        replies: Vec::new(),
        events: VecDeque::new(),
    })
});

impl Client {
    fn send(&mut self, message: &Message) -> Result<(), Error> {
        let mut polls = 0;
        loop {
            match self.connection.channel().send(message) {
                Ok(()) => {
                    self.connection.ring_if_needed();
                    return Ok(());
                }
                Err(SendError::Full) => {}
                Err(_) => return Err(Error::MonitorGone),
            }
            // A monitor whose replies find no room does not listen: take them first.
            match self.connection.channel().recv() {
                Ok(message) => self.keep(message),
                Err(ReceiveError::Empty) => self.connection.wait(&mut polls, Wait::MessageOrRoom),
                Err(_) => return Err(Error::MonitorGone),
            }
        }
    }

    fn keep(&mut self, message: Message) {
        let token = message.payload[0] as u32;
        if message.kind() == interface::REPLY {
            self.replies.push((token, message));
        } else if message.kind() == interface::EVENT {
            let own = |(of, _): &(u32, Message)| *of == token;
            if self.events.iter().filter(|one| own(one)).count() < MAX_EVENTS {
                self.events.push_back((token, message));
            } else if let Some((_, last)) = self.events.iter_mut().rfind(|one| own(one)) {
                last.payload[1] = change::OVERRUN;
            }
        }
    }

    /// The next event of what began with this token; `None` when the clock reaches the deadline.
    fn event(&mut self, token: u32, deadline_ns: Option<u64>) -> Result<Option<Message>, Error> {
        loop {
            let mut events = self.events.iter();
            if let Some(at) = events.position(|(of, _)| *of == token) {
                return Ok(self.events.remove(at).map(|(_, message)| message));
            }
            match self.connection.channel().recv() {
                Ok(message) => {
                    self.connection.ring_if_needed();
                    self.keep(message);
                }
                Err(ReceiveError::Empty) => {
                    if deadline_ns.is_some_and(|deadline_ns| deadline_ns <= clock::now_ns()) {
                        return Ok(None);
                    }
                    self.connection.wait_until(deadline_ns, Wait::Message);
                }
                Err(_) => return Err(Error::MonitorGone),
            }
        }
    }

    fn token(&mut self) -> u32 {
        let token = self.next_token;
        self.next_token = self.next_token.wrapping_add(1).max(1);
        token
    }

    fn request(
        &mut self,
        token: u32,
        core: usize,
        kind: u16,
        arguments: [u64; 6],
    ) -> Result<(), Error> {
        let route = u64::from(token) | ((core as u64) << 32);
        let [a, b, c, d, e, f] = arguments;
        record(event::BEGIN, token, a, kind.into());
        self.send(&Message::new(kind, [route, a, b, c, d, e, f]))
    }

    fn reply(&mut self, &Token(token, kind): &Token) -> Result<[u64; 5], Error> {
        let message = loop {
            if let Some(at) = self.replies.iter().position(|(other, _)| *other == token) {
                break self.replies.swap_remove(at).1;
            }
            let message = self.connection.receive().map_err(|_| Error::MonitorGone)?;
            self.keep(message);
        };
        let [_, error, results @ ..] = message.payload;
        record(event::END, token, error, kind.into());
        match Error::from_code(error) {
            None => Ok(results),
            Some(error) => Err(error),
        }
    }
}

/// Records that the request of this token begins or ends.
#[inline(always)]
fn record(number: u16, token: u32, value: u64, kind: u32) {
    let recorder = Recorder::own();
    if recorder.is_on(number) {
        let flow = trace::flow_of_request(startup().domain, token);
        recorder.write(number, flow, value, kind);
    }
}

/// Sends a request to the monitor of a core.
pub fn request(core: usize, kind: u16, arguments: [u64; 6]) -> Result<Token, Error> {
    let mut client = CLIENT.lock();
    let token = client.token();
    client.request(token, core, kind, arguments)?;
    Ok(Token(token, kind))
}

/// Sends a request to the monitor of a core, with a text ahead of it.
pub(crate) fn request_with_text(
    core: usize,
    kind: u16,
    text: &[u8],
    arguments: [u64; 6],
) -> Result<Token, Error> {
    let mut client = CLIENT.lock();
    let token = client.token();
    for chunk in text.chunks(TEXT_BYTES) {
        let mut payload = [0; 8 + TEXT_BYTES];
        let route = u64::from(token) | ((core as u64) << 32);
        payload[..8].copy_from_slice(&route.to_le_bytes());
        payload[8..8 + chunk.len()].copy_from_slice(chunk);
        let message = Message::from_bytes(interface::TEXT, &payload[..8 + chunk.len()])
            .map_err(|_| Error::BadArgument)?;
        client.send(&message)?;
    }
    client.request(token, core, kind, arguments)?;
    Ok(Token(token, kind))
}

/// Waits for the answer to a request.
#[allow(clippy::needless_pass_by_value)] // an answer comes once
pub fn answer(token: Token) -> Result<[u64; 5], Error> {
    CLIENT.lock().reply(&token)
}

/// The next event of what this request began; `None` when the clock reaches the deadline
/// ([`clock::now_ns`]; without one, it waits for as long as it takes).
pub(crate) fn event(token: u32, deadline_ns: Option<u64>) -> Result<Option<Message>, Error> {
    CLIENT.lock().event(token, deadline_ns)
}

/// Forgets the events of what this request began.
pub(crate) fn forget_events(token: u32) {
    CLIENT.lock().events.retain(|(of, _)| *of != token);
}

/// The answer to a request, if it has come.
pub fn try_answer(token: &Token) -> Option<Result<[u64; 5], Error>> {
    let mut client = CLIENT.lock();
    loop {
        if client.replies.iter().any(|(other, _)| *other == token.0) {
            return Some(client.reply(token));
        }
        match client.connection.channel().recv() {
            Ok(message) => client.keep(message),
            Err(ReceiveError::Empty) => {
                client.connection.ring_if_needed();
                return None;
            }
            Err(_) => return Some(Err(Error::MonitorGone)),
        }
    }
}

/// Gives up on all answers that have come and nobody took, and says how many there were.
pub fn discard_answers() -> usize {
    let mut client = CLIENT.lock();
    while let Ok(message) = client.connection.channel().recv() {
        client.keep(message);
    }
    client.connection.ring_if_needed();
    core::mem::take(&mut client.replies).len()
}

/// A request and its answer.
pub fn ask(core: usize, kind: u16, arguments: [u64; 6]) -> Result<[u64; 5], Error> {
    answer(request(core, kind, arguments)?)
}

pub(crate) fn here() -> usize {
    startup().core as usize
}

/// Writes bytes to the console.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Error> {
    let mut client = CLIENT.lock();
    for chunk in bytes.chunks(urpc::PAYLOAD_BYTES) {
        let message =
            Message::from_bytes(interface::WRITE, chunk).map_err(|_| Error::BadArgument)?;
        client.send(&message)?;
    }
    Ok(())
}

/// A program that is to be started.
///
/// ```no_run
/// # fn example() -> Result<(), rt::interface::Error> {
/// use rt::monitor::Spawn;
/// let child = Spawn::new(&["exit", "7"]).on(1).environment(&["LOG=all"]).start()?;
/// assert_eq!(rt::monitor::wait(child), Ok(7));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing is started before `begin` or `start`"]
pub struct Spawn<'a> {
    core: usize,
    arguments: &'a [&'a str],
    environment: Option<&'a [&'a str]>,
    frame: u64,
    gift: u64,
    traced: u64,
}

impl<'a> Spawn<'a> {
    /// A program on this core. Its name comes first among the arguments.
    pub fn new(arguments: &'a [&'a str]) -> Self {
        Self {
            core: here(),
            arguments,
            environment: None,
            frame: 0,
            gift: 0,
            traced: 0,
        }
    }

    /// Starts it on this core.
    pub fn on(self, core: usize) -> Self {
        Self { core, ..self }
    }

    /// Shares a frame with it.
    pub fn frame(self, frame: &Frame) -> Self {
        let frame = frame.id();
        Self { frame, ..self }
    }

    /// Gives it this environment, strings `KEY=VALUE`, in place of a copy of this domain's.
    pub fn environment(self, environment: &'a [&'a str]) -> Self {
        let environment = Some(environment);
        Self {
            environment,
            ..self
        }
    }

    /// Gives it a copy of a capability, which it finds in [`crate::capability::GIFT`]. On the
    /// same core only.
    pub fn gift(self, gift: Address) -> Self {
        Self {
            gift: gift.0,
            ..self
        }
    }

    /// Does not let it run, but puts its dispatcher, its root CNode and its address space into
    /// three empty slots of this domain, from this one on. On the same core only.
    pub fn traced(self, slots: Address) -> Self {
        Self {
            traced: slots.0,
            ..self
        }
    }

    /// Asks for it without waiting for it to be done.
    pub fn begin(self) -> Result<Token, Error> {
        let inherited = startup().raw_text().1;
        let mut text = join(self.arguments);
        let mut sizes = text.len() as u64;
        let whole = match self.environment {
            Some(environment) => {
                text.extend_from_slice(&join(environment));
                text.len()
            }
            None => {
                sizes |= interface::INHERIT;
                text.len() + inherited.len()
            }
        };
        if whole > ARGUMENT_BYTES {
            return Err(Error::TooLong);
        }
        if self.arguments.is_empty() {
            return Err(Error::BadArgument);
        }
        if self.core != here() && (self.gift | self.traced) != 0 {
            return Err(Error::OtherCore);
        }
        let words = [self.frame, self.gift, self.traced, sizes, 0, 0];
        request_with_text(self.core, interface::SPAWN, &text, words)
    }

    /// Starts it.
    pub fn start(self) -> Result<Domain, Error> {
        end_spawn(self.begin()?)
    }
}

/// Strings, divided by zero bytes.
fn join(strings: &[&str]) -> Vec<u8> {
    strings.join("\0").into_bytes()
}

/// Asks for a program to be started on a core, without waiting for it to be. The name
/// comes first among the arguments.
pub fn begin_spawn(core: usize, arguments: &[&str], frame: Option<&Frame>) -> Result<Token, Error> {
    let spawn = Spawn::new(arguments).on(core);
    match frame {
        Some(frame) => spawn.frame(frame).begin(),
        None => spawn.begin(),
    }
}

/// Waits for a program to be started.
pub fn end_spawn(token: Token) -> Result<Domain, Error> {
    answer(token).map(|results| Domain(results[0]))
}

/// Starts a program on a core; its parent may share a frame with it.
pub fn spawn(core: usize, arguments: &[&str], frame: Option<&Frame>) -> Result<Domain, Error> {
    end_spawn(begin_spawn(core, arguments, frame)?)
}

/// Waits for the end of a domain of this job, on whatever core, and returns its exit status. One that
/// this domain started is waited for once; others may be as often as one likes, as long as they run
/// and some time afterwards (a core remembers the last 256 that ended).
pub fn wait(domain: Domain) -> Result<i32, Error> {
    ask(here(), interface::WAIT, [domain.0, 0, 0, 0, 0, 0]).map(|results| results[0] as i32)
}

/// The exit status of a domain that this one started, if it has ended.
pub fn try_wait(domain: Domain) -> Result<Option<i32>, Error> {
    let [ended, status, ..] = ask(here(), interface::TRY_WAIT, [domain.0, 0, 0, 0, 0, 0])?;
    Ok((ended != 0).then_some(status as i32))
}

/// Ends a domain of this job.
pub fn kill(domain: Domain) -> Result<(), Error> {
    ask(domain.core(), interface::KILL, [domain.0, 0, 0, 0, 0, 0]).map(|_| ())
}

/// Makes a frame of at least so many bytes, zeroed, that can be shared with domains on any core.
pub fn frame(bytes: usize) -> Result<Frame, Error> {
    let [address, bytes, id, ..] = ask(here(), interface::FRAME, [bytes as u64, 0, 0, 0, 0, 0])?;
    Ok(Frame::new(address, bytes, id))
}

/// Makes RAM of this domain's own: `bytes`, a multiple of the page size, whose capability goes
/// into an empty slot. [`crate::memory`] divides it.
pub fn ram(bytes: u64, destination: Address) -> Result<(), Error> {
    ask(here(), interface::RAM, [bytes, destination.0, 0, 0, 0, 0]).map(|_| ())
}

/// Gives RAM back, by its physical address. Nothing that was made of it is there afterwards.
pub fn free_ram(base: u64) -> Result<(), Error> {
    ask(here(), interface::FREE, [base, 0, 0, 0, 0, 0]).map(|_| ())
}

/// The doorbell that wakes another domain of this job, in a slot of its own.
pub fn doorbell(domain: Domain) -> Result<Address, Error> {
    let slot = slots::take().map_err(|_| Error::NoMemory)?;
    let asked =
        transfer::patiently(|| ask(here(), interface::DOORBELL, [domain.0, slot.0, 0, 0, 0, 0]));
    if let Err(error) = asked {
        slots::give(slot);
        return Err(error);
    }
    Ok(slot)
}

/// What a domain is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs, is ready to, or waits.
    Alive,
    /// It was not started yet, or was stopped.
    Stopped,
    /// It has ended, or is about to.
    Ending,
}

/// A domain, as [`list`] tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Itself.
    pub domain: Domain,
    /// Who asked for it; 0: a monitor.
    pub parent: Domain,
    /// The first domain of its job.
    pub job: Domain,
    /// What it is about.
    pub state: State,
    /// The start of its program's name.
    pub name: String,
}

/// The domains of a core.
pub fn list(core: usize) -> Result<Vec<Listed>, Error> {
    let mut domains = Vec::new();
    let mut number = 1;
    loop {
        let [domain, parent, job, low, high] =
            match ask(core, interface::LIST, [number, 0, 0, 0, 0, 0]) {
                Ok(results) => results,
                Err(Error::NoSuchDomain) => return Ok(domains),
                Err(error) => return Err(error),
            };
        let name: [u8; 16] = zerocopy::transmute!([low, high]);
        let length = name
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(name.len());
        domains.push(Listed {
            domain: Domain(domain & !(u64::MAX << state::SHIFT)),
            parent: Domain(parent),
            job: Domain(job),
            state: match domain >> state::SHIFT {
                state::ALIVE => State::Alive,
                state::STOPPED => State::Stopped,
                _ => State::Ending,
            },
            name: String::from_utf8_lossy(&name[..length]).into_owned(),
        });
        number = (domain & 0xff) + 1;
    }
}

/// How much memory a core has left: free pages of private and of shared RAM.
pub fn memory(core: usize) -> Result<(u64, u64), Error> {
    ask(core, interface::MEMORY, [0; 6]).map(|results| (results[0], results[1]))
}

/// How much memory a core has from others, and others from it: pages of shared RAM borrowed, lent.
pub fn loans(core: usize) -> Result<(u64, u64), Error> {
    ask(core, interface::MEMORY, [0; 6]).map(|results| (results[2], results[3]))
}

/// Has all monitors spread messages to many cores by another strategy: see
/// [`interface::STRATEGY`].
pub fn set_strategy(strategy: u64, arity: u64) -> Result<(), Error> {
    ask(0, interface::STRATEGY, [strategy, arity, 0, 0, 0, 0]).map(|_| ())
}

/// What a message costs between two nodes of the machine, in nanoseconds; each figure is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Of the table that it is in: another number for each that was measured.
    pub table: u64,
    /// The sender is busy for so long.
    pub send_ns: u64,
    /// Then the message is under way for so long.
    pub latency_ns: u64,
    /// Then the receiver is busy for so long.
    pub receive_ns: u64,
}

/// What a message costs from one node of the machine to another, or within one, as `core` knows it and
/// all have agreed on it; `None` while the strategy is not computed: see [`interface::COSTS`].
pub fn costs(core: usize, from: usize, to: usize) -> Result<Option<Cost>, Error> {
    let words = [from as u64, to as u64, 0, 0, 0, 0];
    let [table, send_ns, latency_ns, receive_ns, _] = ask(core, interface::COSTS, words)?;
    Ok((table > 0).then_some(Cost {
        table,
        send_ns,
        latency_ns,
        receive_ns,
    }))
}

/// One of a core's counters: see [`interface::COUNTER`].
pub fn counter(core: usize, index: u64) -> Result<u64, Error> {
    ask(core, interface::COUNTER, [index, 0, 0, 0, 0, 0]).map(|results| results[0])
}

/// Starts a core that does not run: one that was lost, or was stopped. This core's monitor does it;
/// [`start_core_from`] has another one do it. For the program of the command line and its job.
pub fn start_core(core: usize) -> Result<(), Error> {
    start_core_from(here(), core)
}

/// Has the monitor of core `sponsor` start a core.
pub fn start_core_from(sponsor: usize, core: usize) -> Result<(), Error> {
    let words = [core as u64, 0, 0, 0, 0, 0];
    ask(sponsor, interface::cores::START_CORE, words).map(|_| ())
}

/// Stops a core in good order: its domains are killed, and it is in no view any more. So it is, too,
/// if it is lost meanwhile. For the program of the command line and its job.
pub fn stop_core(core: usize) -> Result<(), Error> {
    ask(core, interface::cores::STOP_CORE, [0; 6]).map(|_| ())
}

/// What a core's monitor thinks of the machine: epoch, and the set of cores that are up.
pub fn view(core: usize) -> Result<(u64, [u64; 4]), Error> {
    let [epoch, set @ ..] = ask(core, interface::VIEW, [0; 6])?;
    Ok((epoch, set))
}
