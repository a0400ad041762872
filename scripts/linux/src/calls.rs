//! The null system call, and round trips: between processes on one core, between threads across
//! cores, and by words on a line that both poll.

use crate::host::{self, Done, at, failed, sleep_while_zero};
use crate::laboratory::{Laboratory, Operation, timed};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::{read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::pipe;
use rustix::thread::futex;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a partner is called by.
enum Bell {
    /// What is written to the second comes out of the first.
    Stream(OwnedFd, OwnedFd),
    /// A counter in the kernel.
    Event(OwnedFd),
    /// A word: 1 when it was rung.
    Word(&'static AtomicU32, futex::Flags),
}

impl Bell {
    fn pipe() -> Done<Self> {
        let (out, into) = at("pipe", pipe())?;
        Ok(Self::Stream(out, into))
    }

    fn event() -> Done<Self> {
        at("eventfd", eventfd(0, EventfdFlags::empty())).map(Self::Event)
    }

    fn socket() -> Done<Self> {
        let flags = SocketFlags::empty();
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (one, other) = at("socketpair", pair)?;
        Ok(Self::Stream(one, other))
    }

    fn word(flags: futex::Flags) -> Done<Self> {
        Ok(Self::Word(host::shared::<AtomicU32>()?, flags))
    }

    fn ring(&self) -> Done {
        let one = 1u64.to_ne_bytes();
        match self {
            Self::Stream(_, into) => at("write", write(into, &one)).map(|_| ()),
            Self::Event(counter) => at("write", write(counter, &one)).map(|_| ()),
            Self::Word(word, flags) => {
                word.store(1, Ordering::Release);
                at("futex wake", futex::wake(word, *flags, 1)).map(|_| ())
            }
        }
    }

    /// Sleeps until it is rung.
    fn wait(&self) -> Done {
        let mut bytes = [0; 8];
        let count = match self {
            Self::Stream(out, _) => at("read", read(out, &mut bytes))?,
            Self::Event(counter) => at("read", read(counter, &mut bytes))?,
            Self::Word(word, flags) => {
                sleep_while_zero(word, *flags)?;
                word.store(0, Ordering::Relaxed);
                bytes.len()
            }
        };
        match count {
            8 => Ok(()),
            count => failed("read", &format!("expected 8 bytes, found {count}")),
        }
    }
}

/// Two bells, and whether the partner is to go home.
struct Line {
    there: Bell,
    back: Bell,
    is_over: &'static AtomicU32,
}

impl Line {
    fn new(bell: impl Fn() -> Done<Bell>) -> Done<Self> {
        Ok(Self {
            there: bell()?,
            back: bell()?,
            is_over: host::shared()?,
        })
    }

    /// The partner's part.
    fn answer(&self) -> Done {
        loop {
            self.there.wait()?;
            // Asked before the answer: after it, the call may be over that is yet to come.
            let is_over = self.is_over.load(Ordering::Acquire) != 0;
            self.back.ring()?;
            if is_over {
                return Ok(());
            }
        }
    }

    fn round_trip(&self) -> Done {
        self.there.ring()?;
        self.back.wait()
    }

    fn measure(&self, laboratory: &Laboratory, name: Operation, with: &[(&str, usize)]) -> Done {
        let measured = laboratory.measure(name, with, 1, || {
            let (time, done) = timed(|| self.round_trip());
            done.map(|()| time)
        });
        self.is_over.store(1, Ordering::Release);
        self.round_trip()?;
        measured
    }
}

/// A kind of bell with its name.
type Kind = (&'static str, fn() -> Done<Bell>);

/// Measures all of them.
///
/// # Errors
/// What the kernel refused.
pub fn measure(laboratory: &Laboratory, cores: usize) -> Done {
    laboratory.measure(Operation("micro", "null system call"), &[], 1, || {
        Ok(timed(|| std::hint::black_box(rustix::process::getpid())).0)
    })?;
    let among_processes: [Kind; 4] = [
        ("pipe round trip, same core", Bell::pipe),
        ("eventfd round trip, same core", Bell::event),
        ("futex round trip, same core", || {
            Bell::word(futex::Flags::empty())
        }),
        ("unix socket round trip, same core", Bell::socket),
    ];
    for (name, bell) in among_processes {
        let line = Line::new(bell)?;
        let partner = host::process(0, || line.answer())?;
        line.measure(laboratory, Operation("lrpc", name), &[])?;
        host::wait(partner)?;
    }
    let private = || Bell::word(futex::Flags::PRIVATE);
    let name = Operation("lrpc", "futex round trip between threads, same core");
    among_threads(laboratory, 0, name, &[], private)?;
    if cores == 1 {
        return Ok(());
    }
    let with = [("from", 0), ("to", 1)];
    let name = |name| Operation("wake", name);
    among_threads(laboratory, 1, name("futex round trip"), &with, private)?;
    among_threads(
        laboratory,
        1,
        name("eventfd round trip"),
        &with,
        Bell::event,
    )?;
    among_threads(laboratory, 1, name("pipe round trip"), &with, Bell::pipe)?;
    measure_polling(laboratory, &with)
}

fn among_threads(
    laboratory: &Laboratory,
    core: usize,
    name: Operation,
    with: &[(&str, usize)],
    bell: impl Fn() -> Done<Bell>,
) -> Done {
    let line = Line::new(bell)?;
    host::beside(
        core,
        || line.answer(),
        || line.measure(laboratory, name, with),
    )
}

/// One word on a line of its own: odd ones go there, even ones come back.
fn measure_polling(laboratory: &Laboratory, with: &[(&str, usize)]) -> Done {
    const OVER: u32 = u32::MAX;
    let word = host::shared::<AtomicU32>()?;
    let answer = || {
        loop {
            let number = word.load(Ordering::Acquire);
            match number {
                OVER => return Ok(()),
                _ if number % 2 == 1 => word.store(number + 1, Ordering::Release),
                _ => std::hint::spin_loop(),
            }
        }
    };
    host::beside(1, answer, || {
        let mut number = 0;
        let name = Operation("urpc-latency", "spinning shared line, round trip");
        let measured = laboratory.measure(name, with, 1, || {
            number += 2;
            let (time, ()) = timed(|| {
                word.store(number - 1, Ordering::Release);
                host::poll(word, number);
            });
            Ok(time)
        });
        word.store(OVER, Ordering::Release);
        measured
    })
}
