//! Devices for drivers in ring 3: core 0's monitor has all I/O ports, device memory and interrupt
//! lines, and gives them to the program that the command line named.
//!
//! That program gives them on, as any capability. What it has comes back when it says so or
//! ends, and is taken from all others then. A line rings who holds it and asks for that, until
//! somebody else does; all other lines are masked.

use crate::Monitor;
use crate::requests::Answer;
use abi::layout::PAGE;
use abi::machine::Machine;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;
use rt::authority::{self, Device, IoApic, Route};
use rt::capability::{Address, Kind};
use rt::interface::{Error, located};
use rt::system_call;

/// Most devices that are given away at once.
const MAX_DEVICES: usize = 256;
/// Conventional memory: the RAM below, and what firmware keeps in it.
const CONVENTIONAL: Range<u64> = 0..0xa_0000;
/// What belongs to a local APIC: the registers, and where writing sends an interrupt.
const LOCAL_APIC_BYTES: u64 = 1 << 20;
/// Configuration space of one bus.
const PCI_BUS_BYTES: u64 = 1 << 20;
/// Interrupts of ISA. They come as edges; those of other lines last.
const ISA_LINES: u64 = 16;

/// What core 0's monitor knows of devices; nothing on other cores.
#[derive(Default)]
pub struct Devices {
    io_apics: Vec<IoApic>,
    held: Vec<Held>,
}

/// A device that was given away.
struct Held {
    device: Device,
    owner: u64,
    /// Whom it rings, if it is a line.
    receiver: Option<u64>,
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Whether a range of physical memory is the system's: RAM, or what carries interrupts.
fn is_systems(machine: &Machine, range: &Range<u64>) -> bool {
    let from = |start: u64, bytes: u64| start..start.saturating_add(bytes);
    let io_apics = machine.io_apics().iter();
    let ram = machine.ram().iter();
    [
        CONVENTIONAL,
        from(machine.bundle, machine.bundle_bytes),
        from(machine.local_apic, LOCAL_APIC_BYTES),
    ]
    .into_iter()
    .chain(ram.map(|ram| from(ram.base, ram.bytes)))
    .chain(io_apics.map(|io_apic| from(io_apic.address / PAGE * PAGE, PAGE)))
    .any(|system| overlap(&system, range))
}

/// How a line behaves: whether it is active while low, whether by level.
fn mode(machine: &Machine, line: u64) -> (bool, bool) {
    let mut overrides = machine.overrides().iter();
    match overrides.find(|it| u64::from(it.line) == line) {
        Some(it) => (it.active_low != 0, it.level != 0),
        None if line < ISA_LINES => (false, false),
        None => (true, true),
    }
}

/// Where something of the machine is, as requests tell of it.
pub fn locate(what: u64, number: u64) -> Answer {
    let machine = authority::machine();
    let memory = |base, bytes| match base {
        0 => Err(Error::NoSuchDevice),
        _ => Ok([base, bytes, 0, 0, 0]),
    };
    match (what, number) {
        (located::HPET, 0) => memory(machine.hpet, PAGE),
        (located::PCI_CONFIG, 0) => memory(machine.pci_config, PCI_BUS_BYTES),
        (located::ISA_LINE, 0..ISA_LINES) => {
            let mut overrides = machine.overrides().iter();
            let special = overrides.find(|it| u64::from(it.source) == number);
            let line = special.map_or(number, |it| u64::from(it.line));
            let (_, by_level) = mode(machine, line);
            Ok([line, 1, by_level.into(), 0, 0])
        }
        _ => Err(Error::NoSuchDevice),
    }
}

impl Monitor {
    /// Takes all devices over, on core 0: no line leads anywhere from now on.
    pub fn open_devices(&mut self) {
        if let Err(error) = self.store.reserve_ports() {
            self.log(&format!("ports cannot be reserved: {error:?}"));
        }
        for found in authority::machine().io_apics() {
            match self.store.open_io_apic(found) {
                Ok(io_apic) => self.devices.io_apics.push(io_apic),
                Err(error) => self.log(&format!(
                    "the I/O APIC at {:#x} stays unused: {error:?}",
                    found.address
                )),
            }
        }
    }

    /// Gives a device to a domain of this core: a capability into one of its slots.
    pub fn give_device(&mut self, id: u64, [kind, base, count, slot]: [u64; 4]) -> Answer {
        if self.own != 0 {
            return Err(Error::OtherCore);
        }
        if self.program != Some(id) {
            return Err(Error::NotAllowed);
        }
        let kind = Kind::from_code(kind).ok_or(Error::BadArgument)?;
        let end = base.checked_add(count).filter(|_| count > 0);
        let range = base..end.ok_or(Error::BadArgument)?;
        match kind {
            Kind::IoPort => {}
            Kind::IrqHandler => self.check_line(base, count)?,
            Kind::DeviceFrame => self.check_memory(&range)?,
            _ => return Err(Error::BadArgument),
        }
        if self.devices.held.len() >= MAX_DEVICES {
            return Err(Error::NoMemory);
        }
        let domain = self.domains.by_id(id).ok_or(Error::NoSuchDomain)?;
        let taken = self.store.device(kind, base, count);
        let device = taken.map_err(|error| match error {
            authority::Error::Refused(
                system_call::Error::Overlap | system_call::Error::Conflict,
            ) => Error::InUse,
            authority::Error::Refused(_) => Error::BadArgument,
            authority::Error::NoMemory => Error::NoMemory,
        })?;
        if let Err(error) = domain.body.grant_device(&device, Address(slot)) {
            self.store.release_device(device);
            return Err(error.into());
        }
        self.devices.held.push(Held {
            device,
            owner: id,
            receiver: None,
        });
        Ok([0; 5])
    }

    fn check_line(&self, line: u64, count: u64) -> Result<(), Error> {
        let mut io_apics = self.devices.io_apics.iter();
        if count != 1 || !io_apics.any(|io_apic| io_apic.has(line)) {
            return Err(Error::NoSuchDevice);
        }
        match mode(authority::machine(), line) {
            (_, true) => Err(Error::ByLevel),
            (_, false) => Ok(()),
        }
    }

    fn check_memory(&self, range: &Range<u64>) -> Result<(), Error> {
        if !range.start.is_multiple_of(PAGE) || !range.end.is_multiple_of(PAGE) {
            return Err(Error::BadArgument);
        }
        let mut held = self.devices.held.iter().map(|held| &held.device);
        let is_held = held.any(|it| {
            it.kind == Kind::DeviceFrame && overlap(&(it.base..it.base + it.count), range)
        });
        if is_held || is_systems(authority::machine(), range) {
            return Err(Error::InUse);
        }
        Ok(())
    }

    /// Takes a device back from a domain, and from all to whom that gave it.
    pub fn take_device(&mut self, id: u64, kind: u64, base: u64) -> Answer {
        let is_it = |held: &Held| {
            held.owner == id && held.device.kind as u64 == kind && held.device.base == base
        };
        let at = self.devices.held.iter().position(is_it);
        self.release_device(at.ok_or(Error::NoSuchDevice)?);
        Ok([0; 5])
    }

    fn release_device(&mut self, at: usize) {
        let held = self.devices.held.swap_remove(at);
        if held.receiver.is_some() {
            self.lead(held.device.base, None);
        }
        self.store.release_device(held.device);
    }

    /// Leads a line somewhere, or (`None`) nowhere.
    fn lead(&mut self, line: u64, route: Option<Route>) {
        let mut io_apics = self.devices.io_apics.iter();
        if let Some(io_apic) = io_apics.find(|io_apic| io_apic.has(line))
            && let Err(error) = io_apic.set(&mut self.store, line, route)
        {
            self.log(&format!("line {line} cannot be set: {error:?}"));
        }
    }

    /// Has the line that a domain of this core holds in a slot ring it, or no more.
    pub fn set_receiver(&mut self, id: u64, slot: u64, on: bool) -> Answer {
        if self.own != 0 {
            return Err(Error::OtherCore);
        }
        let machine = authority::machine();
        let domain = self.domains.by_id(id).ok_or(Error::NoSuchDomain)?;
        let line = domain.body.line(Address(slot))?;
        let line = line.ok_or(Error::BadArgument)?;
        let vector = domain.vector;
        // Of the destination, an entry holds eight bits.
        let apic_id = u8::try_from(machine.cores()[0].apic_id).map_err(|_| Error::Refused)?;
        let mut held = self.devices.held.iter_mut();
        let is_it =
            |held: &&mut Held| held.device.kind == Kind::IrqHandler && held.device.base == line;
        let held = held.find(is_it).ok_or(Error::NoSuchDevice)?;
        if on {
            held.receiver = Some(id);
            let (active_low, _) = mode(machine, line);
            let route = Route {
                apic_id,
                vector,
                active_low,
            };
            self.lead(line, Some(route));
        } else if held.receiver == Some(id) {
            held.receiver = None;
            self.lead(line, None);
        }
        Ok([0; 5])
    }

    /// A domain of this core ended, and its vector is about to be free: nothing rings it any
    /// more, and what it had is anybody's again.
    pub fn take_devices_of(&mut self, id: u64) {
        let mut silent = Vec::new();
        for held in &mut self.devices.held {
            if held.receiver == Some(id) {
                held.receiver = None;
                silent.push(held.device.base);
            }
        }
        for line in silent {
            self.lead(line, None);
        }
        while let Some(at) = self.devices.held.iter().position(|held| held.owner == id) {
            self.release_device(at);
        }
    }
}
