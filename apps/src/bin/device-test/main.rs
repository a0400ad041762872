//! Drives devices from ring 3: by ports, by device memory, by interrupts.
//!
//! `device-test`, on core 0 as the program of the command line
//!
//! 1. HPET: its counter advances, read through device memory. (A machine may have none.)
//! 2. RTC: the date is one, read through ports; values of all widths.
//! 3. RTC and PIT: interrupts ring this domain as long as it has the line, and no longer.
//! 4. A child that was given ports reads through them; one that was given the line is rung by it.
//!    When it has ended, the next child, with the same vector, is not.
//! 5. Nobody gets what the system or somebody else has, and a child without capabilities,
//!    nothing at all, on whichever core.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod refusals;

use apps::checks::Outcome;
use rt::capability::{GIFT, OWN_DOORBELL};
use rt::clock;
use rt::device::{self, Error, Line, Ports, Result};
use rt::interface::Error as Refusal;
use rt::monitor::{self, Domain, Spawn};
use rt::system_call::{self, Error as Denial};

rt::entry!(main);

/// The words by which a copy knows what it is: it reads a register through ports that it was
/// given,
const READER: &str = "reader";
/// is rung by a line that it was given,
const LISTENER: &str = "listener";
/// is rung by nobody,
const QUIET: &str = "quiet";
/// or has nothing.
const OUTSIDER: &str = "outsider";

/// RTC: a register is selected at the first port and found at the second.
const RTC: u16 = 0x70;
const STATUS_A: u8 = 10;
const STATUS_B: u8 = 11;
const STATUS_C: u8 = 12;
const STATUS_D: u8 = 13;
/// A byte of its memory that means nothing to anybody here.
const SPARE: u8 = 0x50;
/// In A: the oscillator runs, 1024 interrupts a second.
const RATE: u8 = 0x26;
/// In A: the date is just changing.
const UPDATING: u8 = 0x80;
/// In B and C: periodic interrupts.
const PERIODIC: u8 = 0x40;
/// In B: 24 hours; numbers are not decimal digits.
const HOURS_24: u8 = 2;
const BINARY: u8 = 4;
/// Interrupts of ISA.
const RTC_INTERRUPT: u64 = 8;
const PIT_INTERRUPT: u64 = 0;
/// PIT: channel 0 at the first port, commands at the last.
const PIT: u16 = 0x40;
const PIT_COMMAND: u64 = 3;
/// Channel 0 counts once, low byte of the count first.
const PIT_ONCE: u8 = 0x30;
/// Channel 0 tells of its state.
const PIT_STATE: u8 = 0xe2;
const PIT_IS_OVER: u8 = 0x80;

/// Interrupts that are waited for at a time.
const INTERRUPTS: u32 = 16;
/// How long something may take that comes by itself.
const PATIENCE_NS: u64 = 20_000_000_000;
/// How long nothing may come: many periods.
const QUIET_NS: u64 = 20_000_000;
const PAUSE_NS: u64 = 2_000_000;
/// Exit status of a child for which something was not as it should be.
const BAD: i32 = 1;

const fn monitors(error: Refusal) -> Error {
    Error::Monitor(error)
}

fn main() -> i32 {
    let outcome = match rt::startup().arguments().nth(1) {
        None => all(),
        Some(READER) => return rtc_read(&Ports::of(GIFT), STATUS_D).map_or(BAD, i32::from),
        Some(LISTENER) => return listener(),
        Some(QUIET) => return quiet(),
        Some(OUTSIDER) => return refusals::outsider(),
        Some(_) => {
            rt::println!("usage: device-test");
            return 2;
        }
    };
    match outcome {
        Ok(Outcome { checks, bad: 0 }) => {
            rt::println!("device-test: {checks} checks");
            rt::println!("device-test: passed");
            0
        }
        Ok(Outcome { bad, .. }) => {
            rt::println!("device-test: failed: {bad} checks");
            1
        }
        Err(error) => {
            rt::println!("device-test: failed: {error}");
            1
        }
    }
}

fn all() -> Result<Outcome> {
    let mut outcome = Outcome::default();
    hpet(&mut outcome)?;
    let ports = device::ports(RTC, 4)?;
    date(&ports, &mut outcome)?;
    widths(&ports, &mut outcome)?;
    refusals::in_use(&mut outcome)?;
    refusals::misuse(&mut outcome)?;
    refusals::taken_back(&mut outcome)?;
    // Twice: what was given back can be had again.
    for _ in 0..2 {
        rtc_interrupts(&ports, &mut outcome)?;
        pit_interrupt(&mut outcome)?;
    }
    children(&ports, &mut outcome)?;
    refusals::outsiders(&mut outcome)?;
    drop(ports);
    // All that a child had a copy of included.
    date(&device::ports(RTC, 2)?, &mut outcome)?;
    Ok(outcome)
}

/// The counter of the HPET advances.
fn hpet(outcome: &mut Outcome) -> Result {
    const ID: u64 = 0;
    const CONFIGURATION: u64 = 0x10;
    const ENABLED: u64 = 1;
    const COUNTER: u64 = 0xf0;
    /// The slowest that may be, in femtoseconds.
    const MAX_PERIOD: u64 = 100_000_000;

    let (base, bytes) = match device::hpet() {
        Err(Error::Monitor(Refusal::NoSuchDevice)) => {
            rt::println!("device-test: the machine has no HPET");
            return Ok(());
        }
        found => found?,
    };
    let registers = device::memory(base, bytes)?;
    let period = registers.read::<u64>(ID)? >> 32;
    let is_period = (1..=MAX_PERIOD).contains(&period);
    outcome.expect("the period of the HPET is one", &is_period, &true);
    let halves = [registers.read::<u32>(ID)?, registers.read::<u32>(ID + 4)?];
    outcome.expect("its upper half", &u64::from(halves[1]), &period);

    let before: u64 = registers.read(CONFIGURATION)?;
    registers.write(CONFIGURATION, before | ENABLED)?;
    let first: u64 = registers.read(COUNTER)?;
    let mut last = first;
    let deadline = clock::now_ns() + PATIENCE_NS;
    while last == first && clock::now_ns() < deadline {
        last = registers.read(COUNTER)?;
    }
    outcome.expect("the HPET advances", &(last > first), &true);
    registers.write(CONFIGURATION, before & !ENABLED)?;
    let stopped: u64 = registers.read(COUNTER)?;
    clock::sleep_ns(PAUSE_NS);
    let later: u64 = registers.read(COUNTER)?;
    outcome.expect("the HPET, stopped", &later, &stopped);
    registers.write(CONFIGURATION, before)?;

    let beyond = registers.read::<u8>(bytes);
    outcome.refused("a register beyond", beyond, Denial::OutOfRange.into());
    let crooked = registers.read::<u32>(ID + 2);
    outcome.refused("a crooked register", crooked, Denial::Misaligned.into());
    let again = device::memory(base, bytes);
    outcome.refused("the HPET twice", again, monitors(Refusal::InUse));
    drop(registers);
    let again = device::memory(base, bytes)?;
    outcome.expect("its period", &(again.read::<u64>(ID)? >> 32), &period);
    Ok(())
}

fn rtc_read(ports: &Ports, register: u8) -> Result<u8> {
    ports.write(0, register)?;
    ports.read(1)
}

fn rtc_write(ports: &Ports, register: u8, value: u8) -> Result {
    ports.write(0, register)?;
    ports.write(1, value)
}

/// Second, minute, hour, day, month.
fn read_date(ports: &Ports) -> Result<[u8; 5]> {
    let is_binary = rtc_read(ports, STATUS_B)? & BINARY != 0;
    let number = |byte: u8| match is_binary {
        true => byte,
        false => (byte >> 4) * 10 + (byte & 15),
    };
    let read = || -> Result<[u8; 5]> {
        while rtc_read(ports, STATUS_A)? & UPDATING != 0 {
            system_call::yield_now();
        }
        let mut date = [0; 5];
        for (place, register) in date.iter_mut().zip([0, 2, 4, 7, 8]) {
            *place = number(rtc_read(ports, register)?);
        }
        Ok(date)
    };
    // Not while it changes: the same twice.
    let mut date = read()?;
    loop {
        match read()? {
            same if same == date => return Ok(date),
            other => date = other,
        }
    }
}

/// The date is one, and a later one is not earlier.
fn date(ports: &Ports, outcome: &mut Outcome) -> Result {
    const DAY: u32 = 24 * 60 * 60;
    let mode = rtc_read(ports, STATUS_B)? & HOURS_24;
    outcome.expect("24 hours", &mode, &HOURS_24);
    let dates = [read_date(ports)?, read_date(ports)?];
    for [second, minute, hour, day, month] in dates {
        let is_date = second < 61
            && minute < 60
            && hour < 24
            && (1..=31).contains(&day)
            && (1..=12).contains(&month);
        outcome.expect("the date is one", &is_date, &true);
    }
    let [first, second] = dates.map(|[second, minute, hour, ..]| {
        u32::from(second) + 60 * (u32::from(minute) + 60 * u32::from(hour))
    });
    let is_later = (second + DAY - first) % DAY < DAY / 2;
    outcome.expect("the second date is not earlier", &is_later, &true);
    Ok(())
}

/// Values of all widths, and those that do not fit.
fn widths(ports: &Ports, outcome: &mut Outcome) -> Result {
    let before = rtc_read(ports, SPARE)?;
    let value = !before;
    // A device of ports of a byte each gets a wide value byte by byte, the lowest first: this
    // selects a register and writes it.
    ports.write(0, u16::from(SPARE) | u16::from(value) << 8)?;
    outcome.expect("a byte of a word", &rtc_read(ports, SPARE)?, &value);
    let [_, byte] = ports.read::<u16>(0)?.to_le_bytes();
    outcome.expect("in two bytes", &byte, &value);
    let [_, byte, ..] = ports.read::<u32>(0)?.to_le_bytes();
    outcome.expect("in four bytes", &byte, &value);
    ports.write(0, u32::from(SPARE) | u32::from(before) << 8)?;
    outcome.expect("a byte of two words", &rtc_read(ports, SPARE)?, &before);

    let (beyond, wrong) = (Denial::OutOfRange.into(), Denial::BadArgument.into());
    outcome.refused("eight bytes", ports.read::<u64>(0), wrong);
    outcome.refused("eight bytes to write", ports.write(0, 0u64), wrong);
    for port in [4, 0xffff, 0x1_0000, u64::MAX] {
        outcome.refused("a port beyond", ports.read::<u8>(port), beyond);
        outcome.refused("a port beyond to write", ports.write(port, 0u8), beyond);
    }
    for port in [3, u64::MAX - 1] {
        outcome.refused("a word across the end", ports.read::<u16>(port), beyond);
        let write = ports.write(port, 0u16);
        outcome.refused("a word across the end to write", write, beyond);
    }
    for port in 1..4 {
        outcome.refused("two words", ports.read::<u32>(port), beyond);
        outcome.refused("two words to write", ports.write(port, 0u32), beyond);
    }
    let none = Ports::of(OWN_DOORBELL).read::<u8>(0);
    outcome.refused("ports of a doorbell", none, Denial::WrongKind.into());
    Ok(())
}

/// Takes what rang before.
fn forget_doorbells() {
    for _ in 0..3 {
        system_call::wait(Some(clock::now_ns()));
    }
}

/// Waits for interrupts of the RTC; how many came.
fn count_rtc(ports: &Ports, line: &Line, wanted: u32) -> Result<u32> {
    let deadline = clock::now_ns() + PATIENCE_NS;
    forget_doorbells();
    let mut count = 0;
    // The next one comes when this register was read.
    rtc_read(ports, STATUS_C)?;
    while count < wanted && line.wait(Some(deadline)) {
        if rtc_read(ports, STATUS_C)? & PERIODIC != 0 {
            count += 1;
        }
    }
    Ok(count)
}

/// Lets the RTC go on, for a while; whether it would have interrupted, and whether anything rang.
fn listen_to_nothing(ports: &Ports) -> Result<(bool, bool)> {
    forget_doorbells();
    let deadline = clock::now_ns() + QUIET_NS;
    let (mut struck, mut rang) = (false, false);
    while !struck || clock::now_ns() < deadline {
        rang |= system_call::wait(Some(clock::now_ns() + PAUSE_NS));
        struck |= rtc_read(ports, STATUS_C)? & PERIODIC != 0;
        if clock::now_ns() > deadline + PATIENCE_NS {
            break;
        }
    }
    Ok((struck, rang))
}

fn start_rtc(ports: &Ports) -> Result {
    rtc_write(ports, STATUS_A, RATE)?;
    let mode = rtc_read(ports, STATUS_B)?;
    rtc_write(ports, STATUS_B, mode | PERIODIC)
}

fn stop_rtc(ports: &Ports) -> Result {
    let mode = rtc_read(ports, STATUS_B)?;
    rtc_write(ports, STATUS_B, mode & !PERIODIC)?;
    rtc_read(ports, STATUS_C)?;
    Ok(())
}

/// Periodic interrupts of the RTC come as long as the line is ours.
fn rtc_interrupts(ports: &Ports, outcome: &mut Outcome) -> Result {
    start_rtc(ports)?;
    let silent = listen_to_nothing(ports)?;
    outcome.expect("interrupts without a line", &silent, &(true, false));
    let number = device::isa_line(RTC_INTERRUPT)?;
    let line = device::line(number)?;
    let count = count_rtc(ports, &line, INTERRUPTS)?;
    outcome.expect("interrupts of the RTC", &count, &INTERRUPTS);
    drop(line);
    let silent = listen_to_nothing(ports)?;
    outcome.expect("interrupts of a released line", &silent, &(true, false));
    stop_rtc(ports)
}

/// One interrupt of the PIT, which arrives at another line than its own.
fn pit_interrupt(outcome: &mut Outcome) -> Result {
    /// About a millisecond.
    const COUNT: u16 = 1200;
    let ports = device::ports(PIT, 4)?;
    ports.write(PIT_COMMAND, PIT_ONCE)?;
    let line = device::line(device::isa_line(PIT_INTERRUPT)?)?;
    forget_doorbells();
    let early = line.wait(Some(clock::now_ns() + PAUSE_NS));
    outcome.expect("an interrupt of an idle PIT", &early, &false);
    for byte in COUNT.to_le_bytes() {
        ports.write(0, byte)?;
    }
    let rang = line.wait(Some(clock::now_ns() + PATIENCE_NS));
    outcome.expect("the interrupt of the PIT", &rang, &true);
    ports.write(PIT_COMMAND, PIT_STATE)?;
    let state = ports.read::<u8>(0)? & PIT_IS_OVER;
    outcome.expect("its count is over", &state, &PIT_IS_OVER);
    let again = line.wait(Some(clock::now_ns() + PAUSE_NS));
    outcome.expect("a second one", &again, &false);
    Ok(())
}

/// Lets the RTC go on until a child has ended: its exit status.
fn let_run(ports: &Ports, child: Domain) -> Result<i32> {
    loop {
        rtc_read(ports, STATUS_C)?;
        if let Some(status) = monitor::try_wait(child)? {
            return Ok(status);
        }
        clock::sleep_ns(PAUSE_NS);
    }
}

/// Children use what they were given.
fn children(ports: &Ports, outcome: &mut Outcome) -> Result {
    let expected = i32::from(rtc_read(ports, STATUS_D)?);
    let reader = Spawn::new(&["device-test", READER]);
    let reader = reader.gift(ports.capability()).start()?;
    outcome.expect("a register", &monitor::wait(reader)?, &expected);

    let line = device::line(device::isa_line(RTC_INTERRUPT)?)?;
    start_rtc(ports)?;
    let listener = Spawn::new(&["device-test", LISTENER]);
    let listener = listener.gift(line.capability()).start()?;
    let vector = let_run(ports, listener)?;
    outcome.expect("a child was rung", &(vector > BAD), &true);
    let silent = listen_to_nothing(ports)?;
    outcome.expect("interrupts of a child that ended", &silent, &(true, false));
    let next = Spawn::new(&["device-test", QUIET]).start()?;
    let status = let_run(ports, next)?;
    outcome.expect("a quiet child, by its vector", &status, &vector);

    let again = Line::of(line.capability())?;
    let count = count_rtc(ports, &again, INTERRUPTS)?;
    outcome.expect("interrupts that came back", &count, &INTERRUPTS);
    drop(again);
    let silent = listen_to_nothing(ports)?;
    outcome.expect("interrupts given up", &silent, &(true, false));
    stop_rtc(ports)
}

/// In a child: is rung by the line that it was given. It ends with its vector, and without giving
/// the line up.
fn listener() -> i32 {
    let Ok(line) = Line::of(GIFT) else {
        return BAD;
    };
    forget_doorbells();
    let deadline = clock::now_ns() + PATIENCE_NS;
    for _ in 0..INTERRUPTS {
        if !line.wait(Some(deadline)) {
            return BAD;
        }
    }
    system_call::exit(rt::startup().vector as i32)
}

/// In a child: is rung by nobody. It ends with its vector.
fn quiet() -> i32 {
    if system_call::wait(Some(clock::now_ns() + QUIET_NS)) {
        return BAD;
    }
    rt::startup().vector as i32
}
