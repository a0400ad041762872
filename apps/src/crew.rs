//! A crew: copies of a program on other cores, each with a channel on which it gets orders.
//!
//! Workers sleep until they are told to do something, so that only those at work take time
//! from the host that emulates them. All share one frame:
//!
//! ```text
//!  0                common_bytes          + 1 KiB            ...
//!  ├── common ───────────┼── orders of worker 0 ──┼── of worker 1 ──┼──
//! ```
//!
//! What the program measures lies in the common part.

use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use rt::capability::Address;
use rt::connection::{Connection, Ended};
use rt::frame::Frame;
use rt::interface::Error;
use rt::monitor::{self, Domain};
use urpc::{Channel, Message, Side, frame_bytes};

/// Slots of a channel for orders: the least there can be, for 255 must fit one frame.
const ORDER_SLOTS: usize = 4;

/// The word by which a copy knows that it is a worker.
const WORKER: &str = "worker";

/// Why there is no crew, or it did not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrewError {
    /// The frame could not be made.
    NoFrame(Error),
    /// A worker could not be started or reached.
    NoWorker(usize, Error),
    /// A worker's channel ended before its work.
    Lost(usize, Ended),
    /// A worker ended with a status other than 0.
    BadStatus(usize, i32),
    /// The order is for a core without a worker.
    Nobody(usize),
}

impl fmt::Display for CrewError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFrame(error) => write!(formatter, "no memory to share with workers: {error}"),
            Self::NoWorker(core, error) => {
                write!(formatter, "cannot start a worker on core {core}: {error}")
            }
            Self::Lost(core, Ended::Closed) => {
                write!(formatter, "the worker on core {core} closed its channel")
            }
            Self::Lost(core, Ended::Broken) => {
                write!(formatter, "the worker on core {core} broke its channel")
            }
            Self::BadStatus(core, status) => {
                write!(
                    formatter,
                    "the worker on core {core} ended with status {status}"
                )
            }
            Self::Nobody(core) => write!(formatter, "core {core} has no worker"),
        }
    }
}

/// The workers, as who started them sees them.
pub struct Crew {
    frame: Frame,
    workers: Vec<Worker>,
}

/// One worker.
struct Worker {
    core: usize,
    domain: Domain,
    orders: Connection,
}

impl Crew {
    /// Starts a worker on each of these cores, all at once. `common_bytes`, whole pages, at
    /// the start of the frame are the program's own.
    pub fn hire(cores: &[usize], common_bytes: usize) -> Result<Self, CrewError> {
        let bytes = common_bytes + cores.len().max(1) * frame_bytes(ORDER_SLOTS);
        let frame = monitor::frame(bytes).map_err(CrewError::NoFrame)?;
        let name = rt::startup().arguments().next().unwrap_or("");
        // All are asked for before the first is waited for: they start side by side.
        let asked: Vec<_> = cores
            .iter()
            .enumerate()
            .map(|(index, core)| {
                let offset = format!("{}", order_offset(common_bytes, index));
                (
                    *core,
                    monitor::begin_spawn(*core, &[name, WORKER, &offset], Some(&frame)),
                )
            })
            .collect();
        let mut started = Vec::with_capacity(cores.len());
        let mut failure = None;
        for (core, token) in asked {
            match token.and_then(monitor::end_spawn) {
                Ok(domain) => started.push((core, domain)),
                Err(error) => failure = failure.or(Some(CrewError::NoWorker(core, error))),
            }
        }
        let mut workers = Vec::with_capacity(started.len());
        for (index, (core, domain)) in started.iter().copied().enumerate() {
            match monitor::doorbell(domain) {
                Ok(doorbell) => workers.push(Worker {
                    core,
                    domain,
                    orders: connect(
                        frame.channel(order_offset(common_bytes, index), ORDER_SLOTS, Side::A),
                        Some(doorbell),
                        core,
                    ),
                }),
                Err(error) => failure = failure.or(Some(CrewError::NoWorker(core, error))),
            }
        }
        match failure {
            None => Ok(Self { frame, workers }),
            Some(error) => {
                for (_, domain) in started {
                    // It may have ended by itself.
                    let _ = monitor::kill(domain);
                }
                Err(error)
            }
        }
    }

    /// The frame that all share.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The domain of the first worker on a core.
    pub fn domain(&self, core: usize) -> Option<Domain> {
        let worker = self.workers.iter().find(|worker| worker.core == core);
        worker.map(|worker| worker.domain)
    }

    fn worker(&mut self, core: usize) -> Result<&mut Worker, CrewError> {
        let worker = self.workers.iter_mut().find(|worker| worker.core == core);
        worker.ok_or(CrewError::Nobody(core))
    }

    /// Tells the worker on a core to do something.
    pub fn order(&mut self, core: usize, order: &Message) -> Result<(), CrewError> {
        let sent = self.worker(core)?.orders.send(order);
        sent.map_err(|ended| CrewError::Lost(core, ended))
    }

    /// Waits for what the worker on a core has to report.
    pub fn report(&mut self, core: usize) -> Result<Message, CrewError> {
        let report = self.worker(core)?.orders.receive();
        report.map_err(|ended| CrewError::Lost(core, ended))
    }

    /// The channel to the worker on a core, for who does not want to wait.
    pub fn orders(&mut self, core: usize) -> Result<&mut Connection, CrewError> {
        Ok(&mut self.worker(core)?.orders)
    }

    /// Lets the worker on a core go without waiting for it.
    pub fn forget(&mut self, core: usize) {
        self.workers.retain(|worker| worker.core != core);
    }

    /// Sends all workers home and waits for them to go.
    pub fn dismiss(mut self) -> Result<(), CrewError> {
        for worker in &mut self.workers {
            worker.orders.close();
        }
        let mut outcome = Ok(());
        for worker in &self.workers {
            let ended = match monitor::wait(worker.domain) {
                Ok(0) => Ok(()),
                Ok(status) => Err(CrewError::BadStatus(worker.core, status)),
                Err(error) => Err(CrewError::NoWorker(worker.core, error)),
            };
            outcome = outcome.and(ended);
        }
        outcome
    }
}

/// A connection with a domain on a core, which may be this one.
pub fn connect(channel: Channel, doorbell: Option<Address>, core: usize) -> Connection {
    if core == rt::startup().core as usize {
        Connection::on_this_core(channel, doorbell)
    } else {
        Connection::new(channel, doorbell)
    }
}

fn order_offset(common_bytes: usize, index: usize) -> usize {
    common_bytes + index * frame_bytes(ORDER_SLOTS)
}

/// A worker's own view: where its orders come from.
pub struct Post {
    frame: Frame,
    orders: Connection,
}

impl Post {
    /// `None` if this copy of the program is no worker.
    pub fn take_up() -> Option<Self> {
        let start = rt::startup();
        let mut words = start.arguments().skip(1);
        let offset = (words.next() == Some(WORKER)).then(|| words.next()?.parse().ok())??;
        // A person who types the word has no frame to share.
        let frame = Frame::of_parent()?;
        let channel = frame.channel(offset, ORDER_SLOTS, Side::B);
        let parent = Domain(start.parent);
        let orders = connect(channel, monitor::doorbell(parent).ok(), parent.core());
        Some(Self { frame, orders })
    }

    /// The frame that all share.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Sleeps until the next order comes; `None`: time to go.
    pub fn next_order(&mut self) -> Option<Message> {
        self.orders.receive().ok()
    }

    /// Reports. That nobody listens any more shows at the next order.
    pub fn report(&mut self, report: &Message) {
        let _ = self.orders.send(report);
    }
}

/// Whether a message comes before the channel ends: receives by polling, as only cores do
/// that are being measured.
#[inline]
pub fn poll(channel: &mut Channel) -> Option<Message> {
    loop {
        match channel.recv() {
            Ok(message) => return Some(message),
            Err(urpc::ReceiveError::Empty) => core::hint::spin_loop(),
            Err(_) => return None,
        }
    }
}
