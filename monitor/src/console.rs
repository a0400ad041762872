//! Text: from domains, monitors and CPU drivers of all cores to the serial port, which
//! core 0's monitor drives. Lines travel whole, so they never mix.

use crate::mesh::Mesh;
use abi::limits::MAX_CORES;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;
use protocols::kinds;
use protocols::lines::Lines;
use rt::authority::serial;
use rt::clock;
use urpc::{Message, PAYLOAD_BYTES};

/// A program's text, a line of which goes on.
const TEXT: u16 = kinds::kind(&kinds::CONSOLE, 0);
/// A program's text, up to the end of the line.
const TEXT_END: u16 = kinds::kind(&kinds::CONSOLE, 1);
/// A line of a monitor or CPU driver, which goes on.
const LOG: u16 = kinds::kind(&kinds::CONSOLE, 2);
/// A line of a monitor or CPU driver, up to its end.
const LOG_END: u16 = kinds::kind(&kinds::CONSOLE, 3);

/// Text that waits for the serial port, beyond which nobody is listened to.
const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// How long to wait when the serial port takes nothing, in nanoseconds.
pub const RETRY_NS: u64 = 100_000;

/// This core's way to the console.
pub struct Console {
    own: usize,
    kernel_lines: Lines,
    /// On core 0: what waits for the serial port.
    output: VecDeque<u8>,
    /// On core 0: lines that arrive from other cores, text and log.
    arriving: Vec<[Vec<u8>; 2]>,
    stuck: bool,
}

impl Console {
    /// The console; on core 0, with the serial port.
    pub fn new(own: usize) -> Self {
        if own == 0 {
            serial::initialise();
        }
        Self {
            own,
            kernel_lines: Lines::default(),
            output: VecDeque::new(),
            arriving: (0..if own == 0 { MAX_CORES } else { 0 })
                .map(|_| Default::default())
                .collect(),
            stuck: false,
        }
    }

    /// A line of a program.
    pub fn text(&mut self, mesh: &mut Mesh, line: &[u8]) {
        if self.own == 0 {
            self.output.extend(line);
            self.output.push_back(b'\n');
        } else {
            send(mesh, line, TEXT, TEXT_END);
        }
    }

    /// A line of this core's monitor or CPU driver.
    pub fn log(&mut self, mesh: &mut Mesh, line: &[u8]) {
        if self.own == 0 {
            self.prefixed(0, line);
        } else {
            send(mesh, line, LOG, LOG_END);
        }
    }

    /// Text of this core's CPU driver.
    pub fn add_kernel_log(&mut self, mesh: &mut Mesh, text: &[u8]) {
        let mut lines = Vec::new();
        self.kernel_lines
            .add(text, |line| lines.push(line.to_vec()));
        for line in lines {
            self.log(mesh, &line);
        }
    }

    fn prefixed(&mut self, core: usize, line: &[u8]) {
        self.output.extend(format!("[core {core}] ").as_bytes());
        self.output.extend(line);
        self.output.push_back(b'\n');
    }

    /// Whether so much text waits that nobody should be listened to who would add more.
    pub fn is_backed_up(&self, mesh: &Mesh) -> bool {
        if self.own == 0 {
            self.output.len() > MAX_OUTPUT_BYTES
        } else {
            mesh.is_backed_up(0)
        }
    }

    /// Takes a message if it is text of another core.
    pub fn on_message(&mut self, from: usize, message: &Message) -> bool {
        let kind = message.kind();
        if !(TEXT..=LOG_END).contains(&kind) {
            return false;
        }
        let is_log = usize::from(kind >= LOG);
        let Some(arriving) = self.arriving.get_mut(from) else {
            return true; // only core 0 has a console
        };
        arriving[is_log].extend_from_slice(message.as_bytes());
        if kind == TEXT_END || kind == LOG_END {
            let line = core::mem::take(&mut arriving[is_log]);
            if is_log == 1 {
                self.prefixed(from, &line);
            } else {
                self.output.extend(&line);
                self.output.push_back(b'\n');
            }
        }
        true
    }

    /// Drops the lines of a core that it did not end.
    pub fn forget(&mut self, core: usize) {
        if let Some(arriving) = self.arriving.get_mut(core) {
            *arriving = Default::default();
        }
    }

    /// Gives the serial port what it takes; whether it took anything.
    pub fn write(&mut self) -> bool {
        let mut moved = false;
        while !self.output.is_empty() {
            let count = serial::write(self.output.make_contiguous());
            self.stuck = count == 0;
            if self.stuck {
                break;
            }
            self.output.drain(..count);
            moved = true;
        }
        moved
    }

    /// Gives the serial port everything.
    pub fn drain(&mut self) {
        while !self.output.is_empty() {
            if !self.write() {
                core::hint::spin_loop();
            }
        }
    }

    /// When to try again, if the serial port took nothing.
    pub fn deadline_ns(&self) -> Option<u64> {
        (self.stuck && !self.output.is_empty()).then(|| clock::now_ns() + RETRY_NS)
    }
}

/// Sends a line to core 0 in pieces.
fn send(mesh: &mut Mesh, line: &[u8], part: u16, end: u16) {
    let mut rest = line;
    loop {
        let (piece, more) = rest.split_at(rest.len().min(PAYLOAD_BYTES));
        let kind = if more.is_empty() { end } else { part };
        if let Ok(message) = Message::from_bytes(kind, piece) {
            mesh.send_connected(0, &message);
        }
        if more.is_empty() {
            return;
        }
        rest = more;
    }
}
