//! The symbol table as the CPU driver reads it: a line `ADDRESS NAME` for each function and
//! each label of hand-written assembly, the address in 16 hexadecimal digits, sorted by it.

use crate::strip::parse;
use elf::abi::{SHF_EXECINSTR, STT_FUNC, STT_NOTYPE};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Longest name; those of nested generics go on for lines and every core holds a copy.
const NAME_LETTERS: usize = 160;

/// Which of two names for one address is the better one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Function,
    Label,
}

/// The functions of an ELF64 file, or what is wrong with it.
pub fn table(file: &[u8]) -> Result<String, String> {
    let elf = parse(file)?;
    let sections = elf.section_headers();
    let mut functions = BTreeMap::new();
    if let Some((symbols, names)) = elf.symbol_table().map_err(|error| error.to_string())? {
        for symbol in symbols.iter() {
            let rank = match symbol.st_symtype() {
                STT_FUNC => Rank::Function,
                STT_NOTYPE => Rank::Label,
                _ => continue,
            };
            let is_code = sections.as_ref().is_some_and(|sections| {
                sections
                    .get(symbol.st_shndx as usize)
                    .is_ok_and(|section| section.sh_flags & u64::from(SHF_EXECINSTR) != 0)
            });
            let Some(name) = names
                .get(symbol.st_name as usize)
                .ok()
                .filter(|name| is_code && !name.is_empty())
            else {
                continue;
            };
            // Without the hash that tells two builds of one function apart.
            let name = format!("{:#}", rustc_demangle::demangle(name));
            let name: String = name.chars().take(NAME_LETTERS).collect();
            // Where several names mean one address, the same one in every build.
            functions
                .entry(symbol.st_value)
                .and_modify(|known: &mut (Rank, String)| {
                    if (rank, &name) < (known.0, &known.1) {
                        *known = (rank, name.clone());
                    }
                })
                .or_insert((rank, name));
        }
    }
    let mut table = String::new();
    for (address, (_, name)) in functions {
        let _ = writeln!(table, "{address:016x} {name}");
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strip::tests::any_executable;

    #[test]
    fn lists_functions_by_address() {
        let table = table(&any_executable()).unwrap();
        let mut last = None;
        for line in table.lines() {
            let (address, name) = line.split_once(' ').unwrap();
            assert_eq!(address.len(), 16, "{line}");
            let address = u64::from_str_radix(address, 16).unwrap();
            assert!(last < Some(address), "{line}");
            last = Some(address);
            assert!(!name.is_empty() && name.chars().count() <= NAME_LETTERS);
        }
        assert!(
            table.contains(" core::panicking::panic_fmt\n"),
            "names are not demangled"
        );
        // The linker's mark of a data section: a label, but not of code.
        assert!(!table.contains(" __bss_start\n"));
    }
}
