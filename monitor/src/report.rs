//! What is said of a domain that died of an exception.

use crate::bundle;
use abi::exception::{self, Detail};
use abi::symbols;
use abi::syscall::REGISTERS;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The lines of the report.
pub fn lines(
    name: &str,
    id: u64,
    fault: (u64, u64, u64),
    registers: &[u64; REGISTERS.len()],
) -> Vec<String> {
    let (vector, error, address) = fault;
    let (what, detail) = (
        exception::name(vector),
        Detail {
            vector,
            error,
            address,
        },
    );
    let mut lines = Vec::from([format!("domain {name} ({id:#x}) died: {what}, {detail}")]);
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
    let table = bundle::file(&format!("{program}.sym"));
    let table = table.and_then(|table| core::str::from_utf8(table).ok());
    match symbols::find(table.unwrap_or(""), address) {
        Some((start, name)) => format!("{address:#x} {name}+{:#x}", address - start),
        None => format!("{address:#x}"),
    }
}
