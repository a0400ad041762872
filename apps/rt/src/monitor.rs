//! What the monitor does for a program: spawn, wait, kill, frames, doorbells.

use crate::connection::Connection;
use crate::frame::Frame;
use crate::interface::{self, Error, TEXT_BYTES};
use crate::startup;
use abi::limits::{ARGUMENT_BYTES, PAGE_CHANNEL_SLOTS};
use abi::startup::MONITOR_DOORBELL;
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
pub struct Token(u32);

struct Client {
    connection: Connection,
    next_token: u32,
    replies: Vec<(u32, Message)>,
}

static CLIENT: LazyLock<Mutex<Client>> = LazyLock::new(|| {
    let page = startup().monitor_channel;
    assert!(page != 0, "a monitor has no monitor");
    // SAFETY: the monitor mapped the page for this channel and nothing else, for the life
    // of the domain, and this is the only time that it is attached.
    let channel = unsafe { Channel::attach(page as *mut u8, PAGE_CHANNEL_SLOTS, Side::B) };
    Mutex::new(Client {
        connection: Connection::on_this_core(channel, Some(MONITOR_DOORBELL)),
        next_token: 1,
        replies: Vec::new(),
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
        if message.kind() == interface::REPLY {
            self.replies.push((message.payload[0] as u32, message));
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
        self.send(&Message::new(kind, [route, a, b, c, d, e, f]))
    }

    fn reply(&mut self, token: u32) -> Result<[u64; 5], Error> {
        let message = loop {
            if let Some(at) = self.replies.iter().position(|(other, _)| *other == token) {
                break self.replies.swap_remove(at).1;
            }
            let message = self.connection.receive().map_err(|_| Error::MonitorGone)?;
            self.keep(message);
        };
        let [_, error, results @ ..] = message.payload;
        match Error::from_code(error) {
            None => Ok(results),
            Some(error) => Err(error),
        }
    }
}

/// Sends a request to the monitor of a core.
pub fn request(core: usize, kind: u16, arguments: [u64; 6]) -> Result<Token, Error> {
    let mut client = CLIENT.lock();
    let token = client.token();
    client.request(token, core, kind, arguments)?;
    Ok(Token(token))
}

/// Waits for the answer to a request.
#[allow(clippy::needless_pass_by_value)] // an answer comes once
pub fn answer(token: Token) -> Result<[u64; 5], Error> {
    CLIENT.lock().reply(token.0)
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

fn here() -> usize {
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

/// Asks for a program to be started on a core, without waiting for it to be. The name
/// comes first among the arguments.
pub fn begin_spawn(core: usize, arguments: &[&str], frame: Option<&Frame>) -> Result<Token, Error> {
    let bytes: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
    if arguments.is_empty() || bytes > ARGUMENT_BYTES {
        return Err(Error::BadArgument);
    }
    let mut text = Vec::with_capacity(bytes);
    for (index, argument) in arguments.iter().enumerate() {
        if index > 0 {
            text.push(0);
        }
        text.extend_from_slice(argument.as_bytes());
    }
    let mut client = CLIENT.lock();
    let token = client.token();
    for chunk in text.chunks(TEXT_BYTES) {
        let mut payload = [0; 56];
        payload[..8].copy_from_slice(&(u64::from(token) | ((core as u64) << 32)).to_le_bytes());
        payload[8..8 + chunk.len()].copy_from_slice(chunk);
        let message = Message::from_bytes(interface::TEXT, &payload[..8 + chunk.len()])
            .map_err(|_| Error::BadArgument)?;
        client.send(&message)?;
    }
    let id = frame.map_or(0, Frame::id);
    client.request(token, core, interface::SPAWN, [id, 0, 0, 0, 0, 0])?;
    Ok(Token(token))
}

/// Waits for a program to be started.
pub fn end_spawn(token: Token) -> Result<Domain, Error> {
    answer(token).map(|results| Domain(results[0]))
}

/// Starts a program on a core; its parent may share a frame with it.
pub fn spawn(core: usize, arguments: &[&str], frame: Option<&Frame>) -> Result<Domain, Error> {
    end_spawn(begin_spawn(core, arguments, frame)?)
}

/// Waits for a domain that this one started, and returns its exit status.
pub fn wait(domain: Domain) -> Result<i32, Error> {
    ask(here(), interface::WAIT, [domain.0, 0, 0, 0, 0, 0]).map(|results| results[0] as i32)
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

/// The doorbell slot that wakes another domain of this job.
pub fn doorbell(domain: Domain) -> Result<u64, Error> {
    ask(here(), interface::DOORBELL, [domain.0, 0, 0, 0, 0, 0]).map(|results| results[0])
}

/// How much memory a core has left: free pages of private and of shared RAM.
pub fn memory(core: usize) -> Result<(u64, u64), Error> {
    ask(core, interface::MEMORY, [0; 6]).map(|results| (results[0], results[1]))
}

/// What a core's monitor thinks of the machine: epoch, and the set of cores that are up.
pub fn view(core: usize) -> Result<(u64, [u64; 4]), Error> {
    let [epoch, set @ ..] = ask(core, interface::VIEW, [0; 6])?;
    Ok((epoch, set))
}
