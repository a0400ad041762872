//! Which function an address of code is in.

use crate::bundle::System;
use crate::symbols;
use abi::layout::KERNEL_HALF;
use std::fs;
use std::path::Path;

/// The functions of who may have moved a line, each sorted by address.
pub struct Code {
    /// The CPU driver's.
    pub kernel: Vec<(u64, String)>,
    /// All user code lies at the same addresses: the monitor's and the program's.
    pub user: Vec<(String, Vec<(u64, String)>)>,
}

impl Code {
    /// All code of a boot that runs this program.
    pub fn of(system: &System, program: &str) -> Self {
        let executables = &system.executables;
        let mut user = vec![("monitor".to_owned(), functions(&executables.monitor))];
        if let Some(path) = executables.programs.get(program) {
            user.push((program.to_owned(), functions(path)));
        }
        Self {
            kernel: functions(&executables.cpudriver),
            user,
        }
    }

    /// What an address of code may mean; empty for 0.
    pub fn at(&self, address: u64) -> String {
        if address == 0 {
            return String::new();
        }
        let names: Vec<String> = if address >= KERNEL_HALF {
            name(&self.kernel, address)
                .map(|name| format!("cpudriver: {name}"))
                .into_iter()
                .collect()
        } else {
            let named = |(program, functions): &(String, Vec<_>)| {
                name(functions, address).map(|name| format!("{program}: {name}"))
            };
            self.user.iter().filter_map(named).collect()
        };
        if names.is_empty() {
            return format!("{address:#x}");
        }
        format!("{address:#x} ({})", names.join(" | "))
    }
}

fn functions(path: &Path) -> Vec<(u64, String)> {
    // Names are a help, not a need.
    let table = fs::read(path)
        .ok()
        .and_then(|file| symbols::table(&file).ok())
        .unwrap_or_default();
    let line = |line: &str| {
        let (address, name) = line.split_once(' ')?;
        Some((u64::from_str_radix(address, 16).ok()?, name.to_owned()))
    };
    table.lines().filter_map(line).collect()
}

fn name(functions: &[(u64, String)], address: u64) -> Option<&str> {
    let at = functions.partition_point(|(start, _)| *start <= address);
    functions
        .get(at.checked_sub(1)?)
        .map(|(_, name)| name.as_str())
}
