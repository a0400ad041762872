//! Shared memory without a protocol: the lines of the floor, and of those who block.

use crate::end::{End, Words, poll};
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Zeroed memory for as long as the program runs, at a page's beginning.
pub fn zeroed(bytes: usize) -> *mut u8 {
    let layout = Layout::from_size_align(bytes, 4096).expect("a small number of bytes");
    // SAFETY: nobody asks for none.
    let memory = unsafe { alloc_zeroed(layout) };
    if memory.is_null() {
        handle_alloc_error(layout);
    }
    memory
}

/// A message and what says that it is there: one line, and another that nobody uses, since
/// processors fetch them in pairs.
#[repr(C, align(128))]
pub struct Line {
    words: [AtomicU64; 7],
    /// What waiting ends look at.
    pub control: AtomicU64,
}

/// Two lines in a page, zero at first.
pub fn lines() -> &'static [Line; 2] {
    // SAFETY: zeroed memory of a page, which is never freed; atomic words may be zero.
    unsafe { &*zeroed(4096).cast() }
}

impl Line {
    /// Writes the message.
    #[inline]
    pub fn write(&self, words: &Words) {
        for (shared, word) in self.words.iter().zip(words) {
            shared.store(*word, Ordering::Relaxed);
        }
    }

    /// Reads the message.
    #[inline]
    pub fn read(&self) -> Words {
        std::array::from_fn(|word| self.words[word].load(Ordering::Relaxed))
    }

    /// Half of the control word, as the kernel takes it for a futex.
    fn futex(&self) -> &AtomicU32 {
        // SAFETY: inside a word that is accessed in this way alone where there is a futex.
        unsafe { AtomicU32::from_ptr(self.control.as_ptr().cast()) }
    }
}

/// The floor: a line each way, eight words each, and no protocol. It counts on the peer waiting for
/// its turn, never says full, and cannot fail.
pub struct Floor {
    own: &'static Line,
    peer: &'static Line,
    sent: u64,
    received: u64,
}

/// Both ends of `make`, of which each is given its line and the peer's.
pub fn over_lines<E>(make: impl Fn(&'static Line, &'static Line) -> E) -> [E; 2] {
    let [a, b] = lines();
    [make(a, b), make(b, a)]
}

impl Floor {
    /// An end.
    pub fn new(own: &'static Line, peer: &'static Line) -> Self {
        Self {
            own,
            peer,
            sent: 0,
            received: 0,
        }
    }
}

impl End for Floor {
    #[inline]
    fn send(&mut self, words: &Words) {
        self.own.write(words);
        self.sent += 1;
        self.own.control.store(self.sent, Ordering::Release);
    }

    #[inline]
    fn recv(&mut self) -> Words {
        self.received += 1;
        while self.peer.control.load(Ordering::Acquire) != self.received {
            std::hint::spin_loop();
        }
        self.peer.read()
    }
}

/// The same lines, but who waits blocks in the kernel.
pub struct Futex {
    own: &'static Line,
    peer: &'static Line,
    sent: u32,
    received: u32,
}

impl Futex {
    /// An end.
    pub fn new(own: &'static Line, peer: &'static Line) -> Self {
        Self {
            own,
            peer,
            sent: 0,
            received: 0,
        }
    }
}

fn futex(word: &AtomicU32, operation: i32, value: u32) {
    let no_time = std::ptr::null::<libc::timespec>();
    // SAFETY: the word lives for ever; whatever the kernel says, the caller looks again.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, no_time) };
}

impl End for Futex {
    fn send(&mut self, words: &Words) {
        self.own.write(words);
        self.sent = self.sent.wrapping_add(1);
        self.own.futex().store(self.sent, Ordering::Release);
        futex(
            self.own.futex(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        );
    }

    fn recv(&mut self) -> Words {
        let before = self.received;
        self.received = before.wrapping_add(1);
        while self.peer.futex().load(Ordering::Acquire) != self.received {
            futex(
                self.peer.futex(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                before,
            );
        }
        self.peer.read()
    }
}

/// The same lines, with an eventfd each way to wait for.
pub struct EventFd {
    own: &'static Line,
    peer: &'static Line,
    wake: File,
    wait: File,
}

impl EventFd {
    /// Both ends.
    pub fn pair() -> [Self; 2] {
        let [a, b] = lines();
        let [to_a, to_b] = [eventfd(), eventfd()];
        let again = |file: &File| {
            file.try_clone()
                .unwrap_or_else(|error| no("eventfd", &error))
        };
        [
            Self {
                own: a,
                peer: b,
                wake: again(&to_b),
                wait: again(&to_a),
            },
            Self {
                own: b,
                peer: a,
                wake: to_a,
                wait: to_b,
            },
        ]
    }
}

fn eventfd() -> File {
    // SAFETY: no memory is involved.
    let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if descriptor < 0 {
        no("eventfd", &std::io::Error::last_os_error());
    }
    // SAFETY: it was just opened, and is nobody else's.
    unsafe { OwnedFd::from_raw_fd(descriptor) }.into()
}

/// Ends the program over something that the kernel refused.
pub fn no(what: &str, error: &std::io::Error) -> ! {
    eprintln!("error: {what}: {error}");
    std::process::exit(1);
}

impl End for EventFd {
    fn send(&mut self, words: &Words) {
        self.own.write(words);
        let one = self.wake.write_all(&1_u64.to_ne_bytes());
        one.unwrap_or_else(|error| no("eventfd", &error));
    }

    fn recv(&mut self) -> Words {
        let one = self.wait.read_exact(&mut [0; 8]);
        one.unwrap_or_else(|error| no("eventfd", &error));
        self.peer.read()
    }
}

/// A pipe each way.
pub struct Pipe {
    out: std::io::PipeWriter,
    from: std::io::PipeReader,
}

impl Pipe {
    /// Both ends.
    pub fn pair() -> [Self; 2] {
        let pipe = || std::io::pipe().unwrap_or_else(|error| no("pipe", &error));
        let [(from_a, to_b), (from_b, to_a)] = [pipe(), pipe()];
        [
            Self {
                out: to_b,
                from: from_b,
            },
            Self {
                out: to_a,
                from: from_a,
            },
        ]
    }
}

impl End for Pipe {
    fn send(&mut self, words: &Words) {
        let mut bytes = [0; 56];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        let sent = self.out.write_all(&bytes);
        sent.unwrap_or_else(|error| no("pipe", &error));
    }

    fn recv(&mut self) -> Words {
        let mut bytes = [[0; 8]; 7];
        let received = self.from.read_exact(bytes.as_flattened_mut());
        received.unwrap_or_else(|error| no("pipe", &error));
        bytes.map(u64::from_ne_bytes)
    }
}

/// A word by which two threads find out how far apart they are: nobody but them uses its line.
#[derive(Default)]
#[repr(align(128))]
pub struct Probe(AtomicU64);

impl Probe {
    /// Changes the word from `from`, when it is that, to the number after it.
    #[inline]
    pub fn turn(&self, from: u64) {
        poll(|| {
            let changed =
                self.0
                    .compare_exchange(from, from + 1, Ordering::AcqRel, Ordering::Relaxed);
            changed.ok()
        });
    }
}
