//! The first serial port.

use super::ask;
use crate::capability::{self, Address, Kind, Retype};
use abi::capability::monitor::PORTS;
use abi::syscall;

/// Where its ports are kept: behind what a monitor starts with.
const SERIAL: Address = Address::new(2, 11);
/// The first of them.
const FIRST: u64 = 0x3f8;
/// How many there are.
const COUNT: u64 = 8;

const DATA: u64 = 0;
const LINE_STATUS: u64 = 5;
const TRANSMITTER_EMPTY: u64 = 0x20;
/// What the transmitter takes at once.
const FIFO_BYTES: usize = 16;

/// Takes its ports, so that nobody else gets them, and switches the transmitter's queue on. For
/// core 0, once.
pub fn initialise() {
    let what = Retype {
        kind: Kind::IoPort,
        offset: FIRST,
        bytes: COUNT,
        count: 1,
    };
    // Core 0 has all ports, and nobody has any of them yet: the call cannot fail.
    let _ = capability::retype(PORTS, &what, SERIAL);
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
        let _ = ask(syscall::PORT_WRITE, [SERIAL.0, register, 1, value, 0, 0]);
    }
}

/// Sends as many bytes as the transmitter takes now; returns how many.
pub fn write(bytes: &[u8]) -> usize {
    let status = ask(syscall::PORT_READ, [SERIAL.0, LINE_STATUS, 1, 0, 0, 0]);
    if !status.is_ok_and(|results| results[0] & TRANSMITTER_EMPTY != 0) {
        return 0;
    }
    let count = bytes.len().min(FIFO_BYTES);
    let mut words = [0u64; 2];
    for (index, byte) in bytes[..count].iter().enumerate() {
        words[index / 8] |= u64::from(*byte) << (index % 8 * 8);
    }
    let _ = ask(
        syscall::PORT_WRITE,
        [SERIAL.0, DATA, count as u64, words[0], words[1], 0],
    );
    count
}
