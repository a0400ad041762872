//! Events that programs declare, found in their executables.
//!
//! A record of such an event tells the address of a [`recorder::User`] in the program. All programs
//! lie at the same addresses: so one address may be another event's in another program.

use crate::build::Executables;
use crate::failure::{BuildError, Failure};
use crate::strip;
use elf::abi::PT_LOAD;
use elf::segment::ProgramHeader;
use recorder::event::is_sound;
use std::collections::BTreeSet;
use std::path::PathBuf;
use traces::recording::User;

/// Bytes of a [`recorder::User`] in a program: five words.
const WORDS: usize = 5;
/// Longest name or text.
const MOST_LETTERS: u64 = 256;

/// What any program declares at one of these addresses, by program and address.
///
/// # Errors
/// An executable that cannot be read.
pub fn declared(
    executables: &Executables,
    addresses: &BTreeSet<u64>,
) -> Result<Vec<User>, Failure> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let first = [
        ("cpudriver", &executables.cpudriver),
        ("monitor", &executables.monitor),
    ];
    let programs = executables.programs.iter();
    let programs = programs.map(|(name, path)| (name.as_str(), path));
    let mut users = Vec::new();
    for (program, path) in first.into_iter().chain(programs) {
        let file = std::fs::read(path)
            .map_err(Failure::host(format!("cannot read {}", path.display())))?;
        users.extend(of_program(program, &file, addresses).map_err(|found| {
            let path = PathBuf::clone(path);
            BuildError::BadElf { path, found }
        })?);
    }
    Ok(users)
}

/// Those of one program.
fn of_program(program: &str, file: &[u8], addresses: &BTreeSet<u64>) -> Result<Vec<User>, String> {
    let elf = strip::parse(file)?;
    let segments: Vec<ProgramHeader> = elf.segments().into_iter().flatten().collect();
    let image = Image { file, segments };
    let user = |address: &u64| {
        let (name, text) = image.user(*address)?;
        Some(User {
            program: program.to_owned(),
            address: *address,
            name,
            text,
        })
    };
    Ok(addresses.iter().filter_map(user).collect())
}

/// A program as it lies in memory.
struct Image<'a> {
    file: &'a [u8],
    segments: Vec<ProgramHeader>,
}

impl Image<'_> {
    /// So many bytes at an address; `None` where not all of them are in the file.
    fn at(&self, address: u64, bytes: u64) -> Option<&[u8]> {
        self.segments.iter().find_map(|segment| {
            let distance = address.checked_sub(segment.p_vaddr)?;
            let end = distance.checked_add(bytes)?;
            if segment.p_type != PT_LOAD || end > segment.p_filesz {
                return None;
            }
            let begin = segment.p_offset.checked_add(distance)?;
            let end = segment.p_offset.checked_add(end)?;
            self.file
                .get(usize::try_from(begin).ok()?..usize::try_from(end).ok()?)
        })
    }

    /// Name and text of what is declared there.
    fn user(&self, address: u64) -> Option<(String, String)> {
        let bytes = self.at(address, (WORDS * size_of::<u64>()) as u64)?;
        let (words, _) = bytes.as_chunks::<8>();
        let word = |index: usize| u64::from_le_bytes(words[index]);
        if word(0) != recorder::User::MAGIC {
            return None;
        }
        let text = |index: usize| {
            let bytes = word(index + 1);
            // An empty text may be said to lie anywhere.
            let found = match bytes {
                0 => &[],
                1..=MOST_LETTERS => self.at(word(index), bytes)?,
                _ => return None,
            };
            String::from_utf8(found.to_vec()).ok()
        };
        let (name, text) = (text(1)?, text(3)?);
        is_sound(&text).then_some((name, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x40_0000;

    /// An image with one segment at [`BASE`] that holds these bytes.
    fn image(file: &[u8]) -> Image<'_> {
        let segment = ProgramHeader {
            p_type: PT_LOAD,
            p_offset: 0,
            p_vaddr: BASE,
            p_paddr: 0,
            p_filesz: file.len() as u64,
            p_memsz: file.len() as u64,
            p_flags: 0,
            p_align: 0,
        };
        Image {
            file,
            segments: vec![segment],
        }
    }

    fn file(words: [u64; WORDS], tail: &[u8]) -> Vec<u8> {
        let head = words.iter().flat_map(|word| word.to_le_bytes());
        head.chain(tail.iter().copied()).collect()
    }

    #[test]
    fn names_and_texts_are_where_the_declaration_says() {
        let behind = BASE + 40;
        let good = [recorder::User::MAGIC, behind, 6, behind + 6, 9];
        let tail = b"rounds{value} of";
        let found = image(&file(good, tail)).user(BASE);
        assert_eq!(found, Some(("rounds".into(), "{value} o".into())));
        let empty = [recorder::User::MAGIC, behind, 6, 1, 0];
        let found = image(&file(empty, tail)).user(BASE);
        assert_eq!(found, Some(("rounds".into(), String::new())));
    }

    #[test]
    fn nothing_is_taken_for_a_declaration_that_is_none() {
        let behind = BASE + 40;
        let magic = recorder::User::MAGIC;
        for words in [
            [magic ^ 1, behind, 1, behind, 1],
            [magic, behind, 999, behind, 1],
            [magic, behind, u64::MAX, behind, 1],
            [magic, u64::MAX, 2, behind, 1],
            [magic, BASE - 1, 2, behind, 1],
            [magic, behind, 1, behind + 2, 1],
            [magic, behind, 1, behind, 1],
        ] {
            // Neither a text that names no argument nor bytes that are no letters.
            assert_eq!(image(&file(words, b"{\xff")).user(BASE), None, "{words:x?}");
        }
        let whole = file([magic, behind, 1, behind, 1], b"x");
        for address in [0, BASE - 8, BASE + 8, BASE + 40, u64::MAX] {
            assert_eq!(image(&whole).user(address), None, "{address:#x}");
        }
        assert!(image(&whole).user(BASE).is_some());
        assert!(image(&whole[..39]).user(BASE).is_none());
    }
}
