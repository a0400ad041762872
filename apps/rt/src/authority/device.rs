//! Devices of the machine: their ports, registers and interrupt lines, for core 0's monitor to
//! give to domains.

use super::foreign::From;
use super::ram::Ram;
use super::{Body, Error, Store, ask};
use crate::capability::{self, Address, Kind, Resource, Retype, Rights};
use crate::system_call;
use abi::capability::monitor::{CORES, LINES, PORTS};
use abi::layout::PAGE;
use abi::machine;
use abi::syscall::{self, rights};

/// Ports that nobody gets, the first of each and how many: the two interrupt controllers of
/// old, which stay masked; QEMU's `isa-debug-exit` and the reset register, by which the power
/// would go. The serial port was taken by [`super::serial`] already.
const RESERVED: [(u64, u64); 4] = [(PICS[0], 2), (PICS[1], 2), (0xf4, 4), (0xcf9, 1)];
/// The interrupt controllers of old; the second port of each holds its mask.
const PICS: [u64; 2] = [0x20, 0xa0];

const BEYOND: Error = Error::Refused(system_call::Error::OutOfRange);

/// Something of the machine that a domain is to have.
#[derive(Debug)]
pub struct Device {
    /// I/O ports, device memory or an interrupt line.
    pub kind: Kind,
    /// First port, physical address, or line.
    pub base: u64,
    /// Ports, bytes, or 1.
    pub count: u64,
    capability: Address,
}

/// An I/O APIC: its registers, and its lines.
#[derive(Debug)]
pub struct IoApic {
    frame: Address,
    /// Where in the frame its registers are.
    offset: usize,
    first_line: u64,
    line_count: u64,
}

/// Where an interrupt line leads: edges only.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Local APIC id of the core.
    pub apic_id: u8,
    /// The vector there.
    pub vector: u8,
    /// Whether it is the falling edge that counts.
    pub active_low: bool,
}

/// Registers of an I/O APIC: one is selected, then read or written.
const SELECT: usize = 0x00;
const WINDOW: usize = 0x10;
const WINDOW_END: usize = WINDOW + 4;
/// Bits 16 to 23: the highest number of a line.
const VERSION: u32 = 1;
/// Two registers a line from here on.
const REDIRECTION: u32 = 0x10;
const MASKED: u32 = 1 << 16;
const ACTIVE_LOW: u32 = 1 << 13;
/// In the second register of a line.
const DESTINATION_SHIFT: u32 = 24;

impl IoApic {
    /// Whether a line arrives here.
    pub fn has(&self, line: u64) -> bool {
        line.checked_sub(self.first_line)
            .is_some_and(|index| index < self.line_count)
    }

    /// The first register of a line that arrives here.
    fn register(&self, line: u64) -> u32 {
        REDIRECTION + 2 * (line - self.first_line) as u32
    }

    /// Lets `work` at it, with the function that reads (`None`) or writes a register, and returns
    /// what is in it then.
    fn with<R>(
        &self,
        store: &mut Store,
        work: impl FnOnce(&dyn Fn(u32, Option<u32>) -> u32) -> R,
    ) -> Result<R, Error> {
        let access = rights::WRITE | rights::UNCACHED;
        store.look(self.frame, 0, 1, access, |page| {
            work(&|register, value| {
                // SAFETY: the two registers lie in the page that is mapped there, and only this
                // monitor has them.
                unsafe {
                    let select = page.add(self.offset + SELECT).cast::<u32>();
                    let window = page.add(self.offset + WINDOW).cast::<u32>();
                    select.write_volatile(register);
                    if let Some(value) = value {
                        window.write_volatile(value);
                    }
                    window.read_volatile()
                }
            })
        })
    }

    /// Leads a line somewhere, or (`None`) nowhere. Afterwards, nothing is on its way to where it
    /// led before.
    pub fn set(&self, store: &mut Store, line: u64, route: Option<Route>) -> Result<(), Error> {
        if !self.has(line) {
            return Err(BEYOND);
        }
        let low = self.register(line);
        self.with(store, |access| {
            // Reading it back waits until it is so. What has arrived at this core by then, this
            // core has taken: interrupts are never off in ring 3.
            access(low, Some(MASKED));
            if let Some(route) = route {
                let level = if route.active_low { ACTIVE_LOW } else { 0 };
                access(low + 1, Some(u32::from(route.apic_id) << DESTINATION_SHIFT));
                access(low, Some(level | u32::from(route.vector)));
            }
        })
    }
}

impl Store {
    /// Takes the ports that nobody gets, and masks the interrupt controllers of old, which the boot
    /// loader should have done. To be called once, on core 0.
    pub fn reserve_ports(&mut self) -> Result<(), Error> {
        for (first, count) in RESERVED {
            self.device(Kind::IoPort, first, count)?;
        }
        for pic in PICS {
            let mask = pic + 1;
            ask(syscall::PORT_WRITE, [PORTS.0, mask, 1, 0xff, 0, 0])?;
        }
        Ok(())
    }

    /// Takes an I/O APIC over, and masks all of its lines.
    pub fn open_io_apic(&mut self, found: &machine::IoApic) -> Result<IoApic, Error> {
        let offset = (found.address % PAGE) as usize;
        if offset + WINDOW_END > PAGE as usize {
            return Err(BEYOND);
        }
        let page = self.device(Kind::DeviceFrame, found.address - offset as u64, PAGE)?;
        let mut io_apic = IoApic {
            frame: page.capability,
            offset,
            first_line: found.first_line,
            line_count: 0,
        };
        io_apic.line_count = io_apic.with(self, |access| {
            let line_count = u64::from(access(VERSION, None) >> 16 & 0xff) + 1;
            for line in 0..line_count {
                access(io_apic.register(io_apic.first_line + line), Some(MASKED));
            }
            line_count
        })?;
        Ok(io_apic)
    }

    /// Takes ports, device memory or an interrupt line. Ports and lines that are taken are refused
    /// by the CPU driver ([`Overlap`](crate::system_call::Error::Overlap)); of memory, the
    /// caller has to know.
    pub fn device(&mut self, kind: Kind, base: u64, count: u64) -> Result<Device, Error> {
        let range = base..base.saturating_add(count);
        if kind == Kind::DeviceFrame && self.is_late(&range) {
            return Err(Error::Refused(system_call::Error::Overlap));
        }
        let slot = self.slot()?;
        let what = Retype {
            kind,
            offset: base,
            bytes: count,
            count: 1,
        };
        let taken = match kind {
            Kind::IoPort => capability::retype(PORTS, &what, slot),
            Kind::IrqHandler => capability::retype(LINES, &what, slot),
            Kind::DeviceFrame => capability::insert(CORES, slot, kind, Rights::all(), base, count),
            _ => Err(system_call::Error::WrongKind),
        };
        match taken {
            Ok(()) => Ok(Device {
                kind,
                base,
                count,
                capability: slot,
            }),
            Err(error) => {
                self.discard(slot);
                Err(error.into())
            }
        }
    }

    /// Takes a device from everybody who has it.
    #[allow(clippy::needless_pass_by_value)] // nobody has it afterwards
    pub fn release_device(&mut self, device: Device) {
        // Nobody else has the right to revoke it, so it is there.
        self.revoke(device.capability);
        self.discard(device.capability);
        if device.kind == Kind::DeviceFrame {
            let (base, pages) = (device.base, device.count / PAGE);
            self.give_back(Ram { base, pages }, From::Nowhere);
        }
    }
}

impl Body {
    /// Puts a device into one of its slots.
    pub fn grant_device(&self, device: &Device, slot: Address) -> Result<(), Error> {
        let hold = Rights::all().difference(Rights::REVOKE);
        self.grant(device.capability, slot, hold)
    }

    /// The interrupt line in one of its slots, if it holds one there that it may receive.
    pub fn line(&self, slot: Address) -> Result<Option<u64>, Error> {
        let found = capability::identify_in(self.root(), slot)?;
        let is_line = found.kind == Kind::IrqHandler && found.rights.contains(Rights::READ);
        Ok(is_line.then(|| found.base - Resource::Lines.range().start))
    }
}
