//! Cuts an ELF file down to what a loader reads: header, program headers, segments.
//!
//! Everything keeps its place in the file; sections, symbols and debugging information,
//! which lie behind the last segment, go.

use elf::ElfBytes;
use elf::abi::EM_X86_64;
use elf::endian::LittleEndian;
use elf::file::Class;

/// Bytes of the header of an ELF64 file, and of each of its program headers.
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;

/// An ELF64 file for x86-64 taken apart, or what is wrong with it.
pub fn parse(file: &[u8]) -> Result<ElfBytes<'_, LittleEndian>, String> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|error| error.to_string())?;
    if elf.ehdr.class != Class::ELF64 || elf.ehdr.e_machine != EM_X86_64 {
        return Err(format!(
            "class {:?}, machine {}",
            elf.ehdr.class, elf.ehdr.e_machine
        ));
    }
    Ok(elf)
}

/// The file without all that no loader reads, or what is wrong with it.
pub fn strip(file: &[u8]) -> Result<Vec<u8>, String> {
    let elf = parse(file)?;
    let segments = elf.segments().ok_or("no program headers")?;
    let headers_start = elf.ehdr.e_phoff as usize;
    let headers = headers_start..headers_start + segments.len() * PROGRAM_HEADER_BYTES;
    let mut kept = vec![0..HEADER_BYTES, headers];
    for segment in segments.iter() {
        let start = segment.p_offset as usize;
        kept.push(start..start.saturating_add(segment.p_filesz as usize));
    }
    let end = kept.iter().map(|range| range.end).max().unwrap_or(0);
    let mut stripped = vec![0; end.min(file.len())];
    for range in kept {
        let source = file
            .get(range.clone())
            .ok_or_else(|| format!("a segment at {range:?} in a file of {} bytes", file.len()))?;
        stripped[range].copy_from_slice(source);
    }
    stripped[0x28..0x30].fill(0); // e_shoff
    stripped[0x3a..0x40].fill(0); // e_shentsize, e_shnum, e_shstrndx
    Ok(stripped)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An executable of the host: the one that runs this test.
    pub fn any_executable() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn keeps_segments_and_drops_sections() {
        let file = any_executable();
        let stripped = strip(&file).unwrap();
        assert!(stripped.len() < file.len());
        let (before, after) = (parse(&file).unwrap(), parse(&stripped).unwrap());
        assert_eq!(before.ehdr.e_entry, after.ehdr.e_entry);
        assert_eq!(after.ehdr.e_shnum, 0);
        assert!(after.section_headers().is_none_or(|table| table.is_empty()));
        let pairs = before
            .segments()
            .unwrap()
            .iter()
            .zip(after.segments().unwrap().iter());
        let mut bytes = 0;
        for (old, new) in pairs {
            assert_eq!(old, new);
            if old.p_offset == 0 {
                continue; // holds the header, which differs
            }
            let (old, new) = (
                before.segment_data(&old).unwrap(),
                after.segment_data(&new).unwrap(),
            );
            assert_eq!(old, new);
            bytes += old.len();
        }
        assert!(bytes > 0);
        assert_eq!(strip(&stripped).unwrap(), stripped);
    }

    #[test]
    fn refuses_what_is_no_executable() {
        assert!(strip(b"").is_err());
        assert!(strip(b"#!/bin/bash\n").is_err());
        let mut file = any_executable();
        file.truncate(4096);
        assert!(strip(&file).is_err());
    }
}
