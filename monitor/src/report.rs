//! What is said of a domain that died of an exception.

use crate::bundle;
use abi::syscall::REGISTERS;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

const EXCEPTIONS: [(u64, &str); 10] = [
    (0, "divide error"),
    (1, "debug trap"),
    (3, "breakpoint"),
    (6, "invalid opcode"),
    (7, "floating-point instruction"),
    (12, "stack segment fault"),
    (13, "general protection fault"),
    (16, "floating-point error"),
    (17, "alignment check"),
    (19, "vector floating-point error"),
];

/// The lines of the report.
pub fn lines(
    name: &str,
    id: u64,
    fault: (u64, u64, u64),
    registers: &[u64; REGISTERS.len()],
) -> Vec<String> {
    let (vector, error, address) = fault;
    let what = if vector == 14 {
        let attempt = match (error & 2 != 0, error & 16 != 0) {
            (true, _) => "writing to",
            (_, true) => "executing",
            _ => "reading from",
        };
        let why = if error & 1 == 0 {
            "not mapped"
        } else {
            "not allowed"
        };
        format!("page fault, {attempt} an address that is {why}: {address:#x}")
    } else {
        let known = EXCEPTIONS.iter().find(|(number, _)| *number == vector);
        let what = known.map_or_else(
            || format!("exception {vector}"),
            |(_, what)| String::from(*what),
        );
        format!("{what}, error code {error:#x}")
    };
    let mut lines = Vec::from([format!("domain {name} ({id:#x}) died: {what}")]);
    for row in registers[..16].chunks(4).zip(REGISTERS.chunks(4)) {
        let words: Vec<String> = row
            .0
            .iter()
            .zip(row.1)
            .map(|(value, name)| format!("{name:<3} {value:016x}"))
            .collect();
        lines.push(format!("  {}", words.join(" ")));
    }
    lines.push(format!(
        "  rip {} rflags {:#x}",
        symbol(name, registers[16]),
        registers[17]
    ));
    lines
}

/// An address with the name of the function it lies in.
fn symbol(program: &str, address: u64) -> String {
    let table =
        bundle::file(&format!("{program}.sym")).and_then(|table| core::str::from_utf8(table).ok());
    let below = table
        .unwrap_or("")
        .lines()
        .filter_map(|line| {
            let (start, name) = line.split_once(' ')?;
            Some((u64::from_str_radix(start, 16).ok()?, name))
        })
        .filter(|(start, _)| *start <= address)
        .max_by_key(|(start, _)| *start);
    match below {
        Some((start, name)) => format!("{address:#x} {name}+{:#x}", address - start),
        None => format!("{address:#x}"),
    }
}
