//! The symbol table as the CPU driver reads it: a line `ADDRESS NAME` for each function,
//! the address in 16 hexadecimal digits, sorted by it.

use crate::strip::parse;
use elf::abi::{SHN_UNDEF, STT_FUNC};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Longest name; those of nested generics go on for lines and every core holds a copy.
const NAME_LETTERS: usize = 160;

/// The functions of an ELF64 file, or what is wrong with it.
pub fn table(file: &[u8]) -> Result<String, String> {
    let elf = parse(file)?;
    let mut functions = BTreeMap::new();
    if let Some((symbols, names)) = elf.symbol_table().map_err(|error| error.to_string())? {
        for symbol in symbols.iter() {
            if symbol.st_symtype() != STT_FUNC || symbol.st_shndx == SHN_UNDEF {
                continue;
            }
            let Ok(name) = names.get(symbol.st_name as usize) else {
                continue;
            };
            // Without the hash that tells two builds of one function apart.
            let name = format!("{:#}", rustc_demangle::demangle(name));
            let name: String = name.chars().take(NAME_LETTERS).collect();
            // Where identical functions were merged, the name that sorts first.
            functions
                .entry(symbol.st_value)
                .and_modify(|known: &mut String| {
                    if name < *known {
                        known.clone_from(&name);
                    }
                })
                .or_insert(name);
        }
    }
    let mut table = String::new();
    for (address, name) in functions {
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
    }
}
