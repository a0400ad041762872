//! Everything that is refused, or taken back.

use crate::{OUTSIDER, Outcome, RTC, RTC_INTERRUPT, monitors};
use abi::layout::PAGE;
use rt::capability::{self, Address, Kind, OWN_DOORBELL, slots};
use rt::device::{self, Ports, Result};
use rt::interface::{self, Error as Refusal};
use rt::memory;
use rt::monitor::{self, Spawn};
use rt::system_call::Error as Denial;

/// What the system uses, or this program already, of every kind.
pub fn in_use(outcome: &mut Outcome) -> Result {
    refused_ports(outcome);
    refused_memory(outcome)?;
    refused_lines(outcome)
}

fn refused_ports(outcome: &mut Outcome) {
    for (first, count) in [
        (0x3f8, 8),
        (0x3fd, 1),
        (0x3f0, 0x10),
        (0, 0x1_0000),
        (0x21, 1),
        (0xa0, 1),
        (0xf4, 1),
        (0xcf8, 8),
        (0xcf9, 1),
        // This program's.
        (RTC, 4),
        (RTC + 1, 1),
        (RTC - 1, 2),
    ] {
        let found = device::ports(first, count);
        outcome.refused("ports in use", found, monitors(Refusal::InUse));
    }
    for (first, count) in [(0x40, 0), (0xffff, 2), (1, 0x1_0000), (0x40, u64::MAX)] {
        let found = device::ports(first, count);
        outcome.refused("no such ports", found, monitors(Refusal::BadArgument));
    }
}

fn refused_memory(outcome: &mut Outcome) -> Result {
    const LOCAL_APIC: u64 = 0xfee0_0000;
    const IO_APIC: u64 = 0xfec0_0000;
    let private = memory::frame(PAGE)?;
    let shared = monitor::frame(PAGE as usize)?;
    let own = capability::identify(private)?.base;
    for (base, bytes) in [
        (own, PAGE),
        (own - PAGE, 3 * PAGE),
        (shared.id(), PAGE),
        (0, PAGE),
        (0x9_f000, 2 * PAGE),
        (0, 1 << 40),
        (LOCAL_APIC, PAGE),
        (LOCAL_APIC + PAGE, PAGE),
        (LOCAL_APIC + (1 << 20) - PAGE, PAGE),
        (IO_APIC, PAGE),
        (IO_APIC - PAGE, 3 * PAGE),
    ] {
        let found = device::memory(base, bytes);
        outcome.refused("memory in use", found, monitors(Refusal::InUse));
    }
    for (base, bytes) in [
        (IO_APIC + PAGE, 0),
        (IO_APIC + PAGE, 1),
        (IO_APIC + PAGE + 8, PAGE),
        (u64::MAX - PAGE + 1, PAGE),
        (1 << 52, PAGE),
    ] {
        let found = device::memory(base, bytes);
        outcome.refused("no such memory", found, monitors(Refusal::BadArgument));
    }
    memory::free(private)?;
    Ok(())
}

fn refused_lines(outcome: &mut Outcome) -> Result {
    let number = device::isa_line(RTC_INTERRUPT)?;
    let line = device::line(number)?;
    let again = device::line(number);
    outcome.refused("a line twice", again, monitors(Refusal::InUse));
    drop(line);
    // The first lines beyond those of ISA are PCI's.
    outcome.refused(
        "a line of PCI",
        device::line(16),
        monitors(Refusal::ByLevel),
    );
    for number in [255, 256, 1 << 24, u64::MAX - 1] {
        let found = device::line(number);
        outcome.refused("no such line", found, monitors(Refusal::NoSuchDevice));
    }
    let none = device::isa_line(16);
    outcome.refused("no such interrupt", none, monitors(Refusal::NoSuchDevice));
    Ok(())
}

fn ask(request: u16, arguments: [u64; 4]) -> core::result::Result<u64, Refusal> {
    let [a, b, c, d] = arguments;
    let here = rt::startup().core as usize;
    monitor::ask(here, request, [a, b, c, d, 0, 0]).map(|results| results[0])
}

/// Requests that no function of the runtime makes.
pub fn misuse(outcome: &mut Outcome) -> Result {
    let ports = Kind::IoPort as u64;
    let empty = slots::take()?;
    let bad = Err(Refusal::BadArgument);
    for kind in [Kind::Null as u64, Kind::Ram as u64, Kind::Core as u64, 99] {
        let found = ask(interface::DEVICE, [kind, 0x80, 1, empty.0]);
        outcome.expect("another kind", &found, &bad);
    }
    for slot in [OWN_DOORBELL, Address(0), Address(u64::MAX)] {
        let found = ask(interface::DEVICE, [ports, 0x80, 1, slot.0]);
        outcome.expect("into no slot", &found, &Err(Refusal::BadSlot));
    }
    // Nothing of that is left.
    drop(device::ports(0x80, 1)?);
    for (kind, base) in [(ports, 0x80), (ports, u64::from(RTC) + 1), (ports, 0x3f8)] {
        let found = ask(interface::RELEASE, [kind, base, 0, 0]);
        outcome.expect("not ours", &found, &Err(Refusal::NoSuchDevice));
    }
    let found = ask(interface::IRQ, [empty.0, 1, 0, 0]);
    outcome.expect("no line", &found, &Err(Refusal::BadSlot));
    let found = ask(interface::IRQ, [OWN_DOORBELL.0, 1, 0, 0]);
    outcome.expect("a doorbell as a line", &found, &bad);
    let last = rt::startup().cores().last().unwrap_or(0);
    if last != rt::startup().core as usize {
        let words = [ports, 0x80, 1, empty.0, 0, 0];
        let found = monitor::ask(last, interface::DEVICE, words);
        outcome.expect("of another core", &found, &Err(Refusal::OtherCore));
    }
    slots::give(empty);
    Ok(())
}

/// What is given back is gone from all who have copies of it.
pub fn taken_back(outcome: &mut Outcome) -> Result {
    let ports = device::ports(0x80, 1)?;
    let line = device::line(device::isa_line(RTC_INTERRUPT)?)?;
    let mut held = alloc::vec![ports.capability(), line.capability()];
    let registers = match device::hpet() {
        Ok((base, bytes)) => Some(device::memory(base, bytes)?),
        Err(_) => None,
    };
    held.extend(registers.as_ref().map(device::Registers::capability));
    let mut copies = alloc::vec::Vec::new();
    for capability in held {
        // Nobody but the monitor takes it from all others.
        let revoked = capability::revoke(capability);
        outcome.expect("revoking a device", &revoked, &Err(Denial::NotRevocable));
        let copy = slots::take()?;
        capability::copy(capability, copy)?;
        copies.push(copy);
    }
    outcome.expect("a copy", &Ports::of(copies[0]).read::<u8>(0).is_ok(), &true);
    drop((ports, line, registers));
    let none = Ports::of(copies[0]).read::<u8>(0);
    outcome.refused("ports given back", none, Denial::EmptySlot.into());
    let found = ask(interface::IRQ, [copies[1].0, 1, 0, 0]);
    outcome.expect("a line given back", &found, &Err(Refusal::BadSlot));
    for copy in copies {
        let found = capability::identify(copy).map(|found| found.kind);
        outcome.expect("a copy of it", &found, &Err(Denial::EmptySlot));
        slots::give(copy);
    }
    Ok(())
}

/// Children with nothing, on all cores.
pub fn outsiders(outcome: &mut Outcome) -> Result {
    for core in rt::startup().cores() {
        let child = Spawn::new(&["device-test", OUTSIDER]).on(core).start()?;
        outcome.expect("what an outsider got", &monitor::wait(child)?, &0);
    }
    Ok(())
}

/// In a child: asks for everything.
pub fn outsider() -> i32 {
    let mut outcome = Outcome::default();
    let refusal = match rt::startup().core {
        0 => monitors(Refusal::NotAllowed),
        _ => monitors(Refusal::OtherCore),
    };
    outcome.refused("ports of a child", device::ports(0x80, 1), refusal);
    let memory = device::memory(0xfed0_0000, PAGE);
    outcome.refused("memory of a child", memory, refusal);
    outcome.refused("a line of a child", device::line(8), refusal);
    // Whatever slot it names: it holds no ports.
    let mut found = 0;
    for cnode in 0..5 {
        for index in 0..128 {
            let ports = Ports::of(Address::new(cnode, index));
            found += u64::from(ports.read::<u8>(0).is_ok() || ports.write(0, 0u8).is_ok());
        }
    }
    outcome.expect("ports in slots of a child", &found, &0);
    i32::from(outcome.bad > 0)
}
