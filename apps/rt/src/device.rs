//! Devices: I/O ports, device memory, interrupt lines.
//!
//! The monitor of core 0 gives them to the program that the command line named, which may give
//! copies of the capabilities to others ([`crate::monitor::Spawn::gift`], [`crate::lrpc`]).
//!
//! Reading and writing is safe as far as this program's memory goes; but a device that is told to
//! write to memory writes wherever it is told to, which no type here knows of.

use crate::capability::{Address, Kind, slots};
use crate::interface::{self, located};
use crate::space::{Mapping, PageSize, rights};
use crate::system_call::{self, call};
use crate::{memory, monitor, startup};
use abi::syscall;
use core::fmt;

/// Why a device is not there, or did not do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The monitor refused.
    Monitor(interface::Error),
    /// The CPU driver refused.
    Refused(system_call::Error),
}

impl From<interface::Error> for Error {
    fn from(error: interface::Error) -> Self {
        Self::Monitor(error)
    }
}

impl From<system_call::Error> for Error {
    fn from(error: system_call::Error) -> Self {
        Self::Refused(error)
    }
}

impl From<memory::Error> for Error {
    fn from(error: memory::Error) -> Self {
        match error {
            memory::Error::NotGiven(error) => Self::Monitor(error),
            memory::Error::Refused(error) => Self::Refused(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Monitor(error) => write!(formatter, "{error}"),
            Self::Refused(error) => write!(formatter, "the CPU driver refuses: {error:?}"),
        }
    }
}

/// What a call about devices comes to.
pub type Result<T = ()> = core::result::Result<T, Error>;

mod sealed {
    pub trait Sealed {}
}

/// What registers hold: `u8`, `u16`, `u32`, and in memory `u64`.
pub trait Register: Copy + sealed::Sealed {
    /// The lowest bytes of a word.
    fn of_word(word: u64) -> Self;
    /// Filled up with zeros.
    fn word(self) -> u64;
}

macro_rules! registers {
    ($($type:ty)*) => {$(
        impl sealed::Sealed for $type {}
        impl Register for $type {
            fn of_word(word: u64) -> Self {
                word as Self
            }
            fn word(self) -> u64 {
                self.into()
            }
        }
    )*};
}
registers!(u8 u16 u32 u64);

/// A capability that the monitor gave; it goes back when dropped.
#[derive(Debug)]
struct Given {
    kind: Kind,
    base: u64,
    slot: Address,
}

impl Given {
    fn new(kind: Kind, base: u64, count: u64) -> Result<Self> {
        let slot = slots::take()?;
        let arguments = [kind as u64, base, count, slot.0, 0, 0];
        match ask(interface::DEVICE, arguments) {
            Ok(_) => Ok(Self { kind, base, slot }),
            Err(error) => {
                slots::give(slot);
                Err(error)
            }
        }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        // The capability goes with it; if it does not, its slot stays taken.
        let released = ask(
            interface::RELEASE,
            [self.kind as u64, self.base, 0, 0, 0, 0],
        );
        if released.is_ok() {
            slots::give(self.slot);
        }
    }
}

fn ask(request: u16, arguments: [u64; 6]) -> Result<[u64; 5]> {
    Ok(monitor::ask(startup().core as usize, request, arguments)?)
}

/// I/O ports.
#[derive(Debug)]
pub struct Ports {
    slot: Address,
    _given: Option<Given>,
}

/// So many I/O ports from `first` on.
pub fn ports(first: u16, count: u64) -> Result<Ports> {
    let given = Given::new(Kind::IoPort, first.into(), count)?;
    Ok(Ports {
        slot: given.slot,
        _given: Some(given),
    })
}

impl Ports {
    /// The ports of a capability that somebody gave, which stays where it is.
    pub const fn of(slot: Address) -> Self {
        Self { slot, _given: None }
    }

    /// The capability to them, of which others may be given copies.
    pub fn capability(&self) -> Address {
        self.slot
    }

    /// Reads at a port, counted from the first.
    pub fn read<T: Register>(&self, port: u64) -> Result<T> {
        let arguments = [self.slot.0, port, size_of::<T>() as u64, 0, 0, 0];
        // SAFETY: the call changes no memory.
        let [word, ..] =
            unsafe { call(syscall::PORT_READ, arguments) }.map_err(|(error, _)| error)?;
        Ok(T::of_word(word))
    }

    /// Writes to a port, counted from the first.
    pub fn write<T: Register>(&self, port: u64, value: T) -> Result {
        let width = size_of::<T>() as u64;
        let arguments = [self.slot.0, port, width, value.word(), 0, 0];
        // SAFETY: the call changes no memory.
        unsafe { call(syscall::PORT_WRITE_VALUE, arguments) }.map_err(|(error, _)| error)?;
        Ok(())
    }
}

/// Registers in device memory, mapped uncached.
#[derive(Debug)]
pub struct Registers {
    // Unmapped first, then given back.
    mapping: Mapping,
    _given: Option<Given>,
}

/// Device memory: whole pages, by their physical address.
pub fn memory(base: u64, bytes: u64) -> Result<Registers> {
    let given = Given::new(Kind::DeviceFrame, base, bytes)?;
    let mut registers = Registers::of(given.slot)?;
    registers._given = Some(given);
    Ok(registers)
}

impl Registers {
    /// The registers of a capability to device memory that somebody gave, which stays where it is.
    /// It must have the right to write.
    pub fn of(slot: Address) -> Result<Self> {
        if crate::capability::identify(slot)?.kind != Kind::DeviceFrame {
            return Err(system_call::Error::WrongKind.into());
        }
        let access = rights::WRITE | rights::UNCACHED;
        // SAFETY: device memory is not this program's image, stack or heap.
        let mapping = unsafe { Mapping::of(slot, PageSize::Small, access)? };
        Ok(Self {
            mapping,
            _given: None,
        })
    }

    /// The capability to the memory, of which others may be given copies.
    pub fn capability(&self) -> Address {
        self.mapping.frame()
    }

    /// Where the register at so many bytes from the start is mapped.
    fn register<T: Register>(&self, offset: u64) -> Result<*mut T> {
        let bytes = size_of::<T>() as u64;
        if !offset.is_multiple_of(bytes) {
            return Err(system_call::Error::Misaligned.into());
        }
        if offset >= self.mapping.bytes() {
            return Err(system_call::Error::OutOfRange.into());
        }
        Ok((self.mapping.address() + offset) as *mut T)
    }

    /// Reads the register at so many bytes from the start, a multiple of its size.
    pub fn read<T: Register>(&self, offset: u64) -> Result<T> {
        let register = self.register::<T>(offset)?;
        // SAFETY: mapped as long as this is, and aligned; any bit pattern is a value.
        Ok(unsafe { register.read_volatile() })
    }

    /// Writes the register at so many bytes from the start, a multiple of its size.
    pub fn write<T: Register>(&self, offset: u64, value: T) -> Result {
        let register = self.register::<T>(offset)?;
        // SAFETY: mapped as long as this is, aligned, and not memory that anything refers to.
        unsafe { register.write_volatile(value) };
        Ok(())
    }
}

/// An interrupt line that rings this domain.
#[derive(Debug)]
pub struct Line {
    slot: Address,
    given: Option<Given>,
}

/// The interrupt line of this number (a global system interrupt), which rings this domain from
/// now on.
pub fn line(number: u64) -> Result<Line> {
    let given = Given::new(Kind::IrqHandler, number, 1)?;
    ask(interface::IRQ, [given.slot.0, 1, 0, 0, 0, 0])?;
    Ok(Line {
        slot: given.slot,
        given: Some(given),
    })
}

impl Line {
    /// The line of a capability that somebody gave, which stays where it is. It rings this domain
    /// from now on, and nobody else.
    pub fn of(slot: Address) -> Result<Self> {
        ask(interface::IRQ, [slot.0, 1, 0, 0, 0, 0])?;
        Ok(Self { slot, given: None })
    }

    /// The capability to it, of which others may be given copies.
    pub fn capability(&self) -> Address {
        self.slot
    }

    /// Waits until an interrupt arrives (true) or the clock reaches `deadline_ns` (false).
    ///
    /// Interrupts ring the domain as all else does. So this may also end for another reason, and one
    /// that arrives during another wait, for the monitor say, ends that: look at the device
    /// before and after.
    pub fn wait(&self, deadline_ns: Option<u64>) -> bool {
        system_call::wait(deadline_ns)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.given.is_none() {
            // If the line is gone, it does not ring.
            let _ = ask(interface::IRQ, [self.slot.0, 0, 0, 0, 0, 0]);
        }
    }
}

/// The registers of the HPET: physical address and bytes.
pub fn hpet() -> Result<(u64, u64)> {
    let [base, bytes, ..] = ask(interface::LOCATE, [located::HPET, 0, 0, 0, 0, 0])?;
    Ok((base, bytes))
}

/// PCI's configuration space of bus 0 in segment 0: physical address and bytes.
pub fn pci_config() -> Result<(u64, u64)> {
    let [base, bytes, ..] = ask(interface::LOCATE, [located::PCI_CONFIG, 0, 0, 0, 0, 0])?;
    Ok((base, bytes))
}

/// The line at which an interrupt of ISA, 0 to 15, arrives.
pub fn isa_line(interrupt: u64) -> Result<u64> {
    let [line, ..] = ask(
        interface::LOCATE,
        [located::ISA_LINE, interrupt, 0, 0, 0, 0],
    )?;
    Ok(line)
}
