//! What is said of a domain that died of an exception.

use crate::bundle;
use abi::exception::{self, Detail, PAGE_FAULT};
use abi::layout::{PAGE, USER_STACK_BYTES, USER_STACK_TOP};
use abi::symbols;
use abi::syscall::REGISTERS;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Most callers that are shown.
const MAX_CALLERS: usize = 16;

/// Where the functions that were at work were called from, the innermost first: every function
/// keeps the frame pointer of its caller where its own points, and the return address above.
/// Nothing of that can be trusted: `word` reads the stack, and the walk ends where the chain
/// does not lead upwards.
pub fn callers(registers: &[u64; REGISTERS.len()], word: &dyn Fn(u64) -> Option<u64>) -> Vec<u64> {
    let rbp = REGISTERS.iter().position(|name| *name == "rbp");
    let mut frame = rbp.map_or(0, |index| registers[index]);
    let mut callers = Vec::new();
    while callers.len() < MAX_CALLERS {
        let (Some(next), Some(address)) = (word(frame), word(frame.wrapping_add(8))) else {
            break;
        };
        if address == 0 {
            break;
        }
        callers.push(address);
        if next <= frame {
            break;
        }
        frame = next;
    }
    callers
}

/// Whether a fault was at an address in the guard page below the stack.
fn is_stack_overflow(vector: u64, address: u64) -> bool {
    let bottom = USER_STACK_TOP - USER_STACK_BYTES;
    vector == PAGE_FAULT && (bottom - PAGE..bottom).contains(&address)
}

/// The lines of the report.
pub fn lines(
    name: &str,
    id: u64,
    fault: (u64, u64, u64),
    registers: &[u64; REGISTERS.len()],
    callers: &[u64],
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
    let what = match is_stack_overflow(vector, address) {
        true => "stack overflow",
        false => what,
    };
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
    for caller in callers {
        // The call is before the address that it returns to, and may be a function's last.
        let call = symbol(name, caller.wrapping_sub(1));
        lines.push(format!("  called from {call}"));
    }
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
