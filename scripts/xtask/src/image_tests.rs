//! Tests that look into the executables: what of them can be written, and where it lies.

use crate::harness::{Outcome, Pass, Test, Workshop};
use crate::strip::parse;
use elf::abi::{PF_W, PF_X, PT_LOAD, SHF_ALLOC, SHF_WRITE, STT_OBJECT};
use std::fs;
use std::ops::Range;
use std::path::Path;

/// The section of the CPU driver that each core has for itself.
const PRIVATE: &str = ".private";

/// All of them.
pub fn tests() -> Vec<Test> {
    vec![
        Test::new("image/private-section", private_section),
        Test::new("image/write-or-execute", write_or_execute),
    ]
}

/// Every writable static of the CPU driver lies in its private section.
fn private_section(workshop: &Workshop) -> Outcome {
    let path = &workshop.system()?.executables.cpudriver;
    let statics = writable_statics(&read(path)?)?;
    Ok(Pass::Passed(format!("{statics} writable statics")))
}

/// No page of any executable can be both written and executed.
fn write_or_execute(workshop: &Workshop) -> Outcome {
    let executables = &workshop.system()?.executables;
    let mut count = 0;
    for path in [&executables.cpudriver, &executables.monitor]
        .into_iter()
        .chain(executables.programs.values())
    {
        separate_pages(&read(path)?).map_err(|found| format!("{}: {found}", path.display()))?;
        count += 1;
    }
    Ok(Pass::Passed(format!("{count} executables")))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Counts the statics in writable memory, or names the first that lies outside of the
/// private section.
fn writable_statics(file: &[u8]) -> Result<usize, String> {
    let elf = parse(file)?;
    let bad = |error: elf::ParseError| error.to_string();
    let (sections, names) = elf.section_headers_with_strtab().map_err(bad)?;
    let (sections, names) = sections.zip(names).ok_or("no section headers")?;
    let mut private: Option<Range<u64>> = None;
    for section in sections.iter() {
        let name = names.get(section.sh_name as usize).map_err(bad)?;
        let writable =
            section.sh_flags & u64::from(SHF_WRITE | SHF_ALLOC) == u64::from(SHF_WRITE | SHF_ALLOC);
        if name == PRIVATE {
            private = Some(section.sh_addr..section.sh_addr + section.sh_size);
        } else if writable && section.sh_size > 0 {
            return Err(format!(
                "expected {PRIVATE} to be the only writable section, found {name:?} too"
            ));
        }
    }
    let private = private.ok_or_else(|| format!("expected a section {PRIVATE}, found none"))?;
    let mut writable = Vec::new();
    for segment in elf.segments().ok_or("no program headers")?.iter() {
        if segment.p_type == PT_LOAD && segment.p_flags & PF_W != 0 {
            writable.push(segment.p_vaddr..segment.p_vaddr + segment.p_memsz);
        }
    }
    if writable != [private.clone()] {
        return Err(format!(
            "expected {PRIVATE} at {private:x?} to be the one writable segment, found {writable:x?}"
        ));
    }
    let (symbols, names) = elf
        .symbol_table()
        .map_err(bad)?
        .ok_or("no symbol table to find statics in")?;
    let mut statics = 0;
    for symbol in symbols.iter() {
        let section = sections.get(symbol.st_shndx as usize);
        let in_writable_section =
            section.is_ok_and(|section| section.sh_flags & u64::from(SHF_WRITE) != 0);
        if symbol.st_symtype() != STT_OBJECT || !in_writable_section {
            continue;
        }
        let end = symbol.st_value + symbol.st_size;
        if symbol.st_value < private.start || end > private.end {
            let name = names.get(symbol.st_name as usize).unwrap_or("a static");
            return Err(format!(
                "expected {name} in {PRIVATE} at {private:x?}, found it at {:#x}",
                symbol.st_value
            ));
        }
        statics += 1;
    }
    if statics == 0 {
        return Err(
            "expected statics in writable memory, found none: is the file stripped?".into(),
        );
    }
    Ok(statics)
}

/// Fails where one page belongs to a writable and to an executable segment.
fn separate_pages(file: &[u8]) -> Result<(), String> {
    const PAGE: u64 = abi::layout::PAGE;
    let elf = parse(file)?;
    let segments: Vec<_> = elf
        .segments()
        .ok_or("no program headers")?
        .iter()
        .filter(|segment| segment.p_type == PT_LOAD && segment.p_memsz > 0)
        .map(|segment| {
            let pages = segment.p_vaddr / PAGE..(segment.p_vaddr + segment.p_memsz).div_ceil(PAGE);
            (pages, segment.p_flags)
        })
        .collect();
    for (pages, flags) in &segments {
        for (others, other_flags) in &segments {
            let common = pages.start.max(others.start) < pages.end.min(others.end);
            if common && flags & PF_W != 0 && other_flags & PF_X != 0 {
                return Err(format!(
                    "expected pages to be writable or executable, found both at {:#x}",
                    pages.start.max(others.start) * PAGE
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strip::tests::any_executable;

    #[test]
    fn another_writable_section_is_found() {
        let error = writable_statics(&any_executable()).unwrap_err();
        assert!(error.contains("to be the only writable section"), "{error}");
    }

    #[test]
    fn a_segment_with_both_rights_is_found() {
        let mut file = any_executable();
        separate_pages(&file).unwrap();
        // Makes the executable segment writable: its flags are the second word of its
        // program header.
        let elf = parse(&file).unwrap();
        let start = elf.ehdr.e_phoff as usize;
        let index = elf
            .segments()
            .unwrap()
            .iter()
            .position(|segment| segment.p_flags & PF_X != 0)
            .unwrap();
        file[start + index * 56 + 4] |= PF_W as u8;
        let error = separate_pages(&file).unwrap_err();
        assert!(error.contains("found both at"), "{error}");
    }
}
