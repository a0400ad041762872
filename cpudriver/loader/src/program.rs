//! Reads an ELF64 program and refuses what cannot be run safely.
//!
//! Parsing is crate `elf`'s; the rules are ours: segments are page-disjoint, inside their
//! address range, never writable and executable at once, and lie wholly in the file.

use abi::layout::PAGE;
use arrayvec::ArrayVec;
use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;

/// Loadable segments that a program may have.
pub const MAX_SEGMENTS: usize = 16;

/// A piece of a program: what the pages from `address` on hold, and how they are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Page-aligned virtual address.
    pub address: u64,
    /// Bytes in front of the contents, on the first page.
    pub lead: u64,
    /// Contents from the file.
    pub contents: &'a [u8],
    /// Pages; what the contents do not fill is zero.
    pub pages: u64,
    /// May be written.
    pub writable: bool,
    /// May be executed.
    pub executable: bool,
}

impl Segment<'_> {
    /// Where code or constants lie in the bundle at physical address `physical`, if they
    /// can be run from there: whole pages of it that nobody writes to.
    ///
    /// Sharing them saves memory, time at boot, and emulators from translating the same
    /// code again for every core. They are user code; CPU drivers never share theirs.
    pub fn in_place(&self, bundle: &[u8], physical: u64) -> Option<u64> {
        let offset = (self.contents.as_ptr() as u64).checked_sub(bundle.as_ptr() as u64)?;
        let end = offset.checked_add(self.pages * PAGE)?;
        let whole = offset.is_multiple_of(PAGE) && self.lead == 0 && end <= bundle.len() as u64;
        let filled = self.contents.len() as u64 > (self.pages - 1) * PAGE;
        (whole && filled && !self.writable).then_some(physical + offset)
    }
}

/// A program that may be loaded.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// Entry point.
    pub entry: u64,
    /// Segments in ascending order.
    pub segments: ArrayVec<Segment<'a>, MAX_SEGMENTS>,
}

/// Why a file is not a program that may be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramError {
    /// The file ends early or its tables contradict each other.
    Malformed,
    /// Not for x86-64.
    WrongMachine,
    /// Position independent or dynamically linked: link it statically, without PIE.
    NotStatic,
    /// No segment to load.
    Empty,
    /// More than [`MAX_SEGMENTS`] segments.
    TooManySegments,
    /// A segment lies outside of the range it may use.
    OutOfRange,
    /// Two segments share a page.
    Overlap,
    /// A segment is writable and executable.
    WritableAndExecutable,
    /// The entry point is not in an executable segment.
    BadEntry,
    /// Larger than the memory it may take.
    TooLarge,
}

impl core::fmt::Display for ProgramError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::Malformed => "not a whole ELF64 file: build it again",
            Self::WrongMachine => "not for x86-64: build it for x86_64-unknown-none",
            Self::NotStatic => "not a static executable: link it with --no-pie",
            Self::Empty => "no segment to load: is the linker script in use?",
            Self::TooManySegments => "more than 16 segments: merge sections in the linker script",
            Self::OutOfRange => "a segment outside of the program's address range",
            Self::Overlap => "two segments on one page: align them to 4096 bytes",
            Self::WritableAndExecutable => "a segment both writable and executable",
            Self::BadEntry => "the entry point is not in executable memory",
            Self::TooLarge => "larger than the memory a program may take",
        })
    }
}

impl<'a> Program<'a> {
    /// Reads a program whose segments may lie in `range` and take at most `max_pages`.
    pub fn parse(
        file: &'a [u8],
        range: core::ops::Range<u64>,
        max_pages: u64,
    ) -> Result<Self, ProgramError> {
        use ProgramError as E;
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| E::Malformed)?;
        if elf.ehdr.class != elf::file::Class::ELF64 {
            return Err(E::Malformed);
        }
        if elf.ehdr.e_machine != EM_X86_64 {
            return Err(E::WrongMachine);
        }
        let headers = elf.segments().ok_or(E::Empty)?;
        if elf.ehdr.e_type != ET_EXEC
            || headers
                .iter()
                .any(|header| matches!(header.p_type, PT_DYNAMIC | PT_INTERP))
        {
            return Err(E::NotStatic);
        }

        let mut segments = ArrayVec::new();
        let mut total = 0u64;
        for header in headers
            .iter()
            .filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0)
        {
            let end = header
                .p_vaddr
                .checked_add(header.p_memsz)
                .ok_or(E::OutOfRange)?;
            if header.p_vaddr < range.start || end > range.end {
                return Err(E::OutOfRange);
            }
            if header.p_filesz > header.p_memsz {
                return Err(E::Malformed);
            }
            let contents = elf.segment_data(&header).map_err(|_| E::Malformed)?;
            let address = header.p_vaddr & !(PAGE - 1);
            let segment = Segment {
                address,
                lead: header.p_vaddr - address,
                contents,
                pages: (end - address).div_ceil(PAGE),
                writable: header.p_flags & PF_W != 0,
                executable: header.p_flags & PF_X != 0,
            };
            if segment.writable && segment.executable {
                return Err(E::WritableAndExecutable);
            }
            total = total.checked_add(segment.pages).ok_or(E::TooLarge)?;
            if total > max_pages {
                return Err(E::TooLarge);
            }
            segments.try_push(segment).map_err(|_| E::TooManySegments)?;
        }
        segments.sort_unstable_by_key(|segment: &Segment<'_>| segment.address);
        if segments.is_empty() {
            return Err(E::Empty);
        }
        for pair in segments.windows(2) {
            if pair[0].address + pair[0].pages * PAGE > pair[1].address {
                return Err(E::Overlap);
            }
        }
        let entry = elf.ehdr.e_entry;
        let covers = |segment: &Segment<'_>| {
            segment.executable
                && (segment.address..segment.address + segment.pages * PAGE).contains(&entry)
        };
        if !segments.iter().any(covers) {
            return Err(E::BadEntry);
        }
        Ok(Self { entry, segments })
    }

    /// Pages that all segments take.
    pub fn pages(&self) -> u64 {
        self.segments.iter().map(|segment| segment.pages).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// `(address, flags, contents, memory size)` of a segment.
    pub type Part<'a> = (u64, u32, &'a [u8], u64);

    /// Writes a small ELF file.
    pub fn elf_file(entry: u64, parts: &[Part<'_>]) -> Vec<u8> {
        let mut file = Vec::new();
        file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        file.extend_from_slice(&ET_EXEC.to_le_bytes());
        file.extend_from_slice(&EM_X86_64.to_le_bytes());
        file.extend_from_slice(&1u32.to_le_bytes());
        file.extend_from_slice(&entry.to_le_bytes());
        file.extend_from_slice(&64u64.to_le_bytes());
        file.extend_from_slice(&0u64.to_le_bytes());
        file.extend_from_slice(&0u32.to_le_bytes());
        for half in [64u16, 56, parts.len() as u16, 64, 0, 0] {
            file.extend_from_slice(&half.to_le_bytes());
        }
        let mut offset = 64 + 56 * parts.len() as u64;
        for (address, flags, contents, memory) in parts {
            file.extend_from_slice(&PT_LOAD.to_le_bytes());
            file.extend_from_slice(&flags.to_le_bytes());
            for word in [
                offset,
                *address,
                *address,
                contents.len() as u64,
                *memory,
                1,
            ] {
                file.extend_from_slice(&word.to_le_bytes());
            }
            offset += contents.len() as u64;
        }
        for (_, _, contents, _) in parts {
            file.extend_from_slice(contents);
        }
        file
    }

    const RANGE: core::ops::Range<u64> = 0x40_0000..0x80_0000;

    fn parse(entry: u64, parts: &[Part<'_>]) -> Result<u64, ProgramError> {
        Program::parse(&elf_file(entry, parts), RANGE, 100).map(|program| program.pages())
    }

    #[test]
    fn each_defect_has_its_own_error() {
        use ProgramError as E;
        let text: Part<'_> = (0x40_0000, 5, &[0x90; 10], 10);
        assert_eq!(parse(0x40_0000, &[text]), Ok(1));
        assert_eq!(
            parse(0x40_0000, &[text, (0x40_1010, 6, &[1], 0x1000)]),
            Ok(3)
        );
        assert_eq!(parse(0x40_0000, &[]), Err(E::Empty));
        assert_eq!(parse(0x40_1000, &[text]), Err(E::BadEntry));
        assert_eq!(
            parse(0x40_1000, &[text, (0x40_1000, 6, &[1], 1)]),
            Err(E::BadEntry)
        );
        assert_eq!(
            parse(0x40_0000, &[text, (0x40_0800, 6, &[1], 1)]),
            Err(E::Overlap)
        );
        assert_eq!(
            parse(0x40_0000, &[(0x40_0000, 7, &[1], 1)]),
            Err(E::WritableAndExecutable)
        );
        assert_eq!(
            parse(0x40_0000, &[text, (0x7f_ffff, 6, &[1], 2)]),
            Err(E::OutOfRange)
        );
        assert_eq!(
            parse(0x40_0000, &[text, (u64::MAX, 6, &[1], 2)]),
            Err(E::OutOfRange)
        );
        assert_eq!(
            parse(0x40_0000, &[text, (0x50_0000, 6, &[], 101 * 4096)]),
            Err(E::TooLarge)
        );
        assert_eq!(
            parse(0x40_0000, &[text, (0x50_0000, 6, &[1, 2], 1)]),
            Err(E::Malformed)
        );
        let many: Vec<Part<'_>> = (0..17)
            .map(|n| (0x40_0000 + n * 4096, 5, &[1u8][..], 1))
            .collect();
        assert_eq!(parse(0x40_0000, &many), Err(E::TooManySegments));

        let good = elf_file(0x40_0000, &[text]);
        for length in 0..good.len() {
            assert!(
                Program::parse(&good[..length], RANGE, 100).is_err(),
                "{length} bytes"
            );
        }
        let mut other = good.clone();
        other[18] = 40;
        assert_eq!(
            Program::parse(&other, RANGE, 100).err(),
            Some(E::WrongMachine)
        );
        let mut dynamic = good;
        dynamic[16] = 3;
        assert_eq!(
            Program::parse(&dynamic, RANGE, 100).err(),
            Some(E::NotStatic)
        );
    }

    proptest! {
        /// Whatever the bytes: no panic, and what is accepted keeps the rules.
        #[test]
        fn mutated_files_never_break_the_rules(
            changes in proptest::collection::vec((0usize..300, any::<u8>()), 0..12),
            cut in 0usize..300,
        ) {
            let mut file = elf_file(0x40_0004, &[
                (0x40_0000, 5, &[0x90; 30], 30),
                (0x40_2000, 4, b"constants", 9),
                (0x40_3000, 6, &[7; 40], 9000),
            ]);
            for (at, value) in changes {
                if at < file.len() {
                    file[at] = value;
                }
            }
            file.truncate(file.len().saturating_sub(cut / 4));
            if let Ok(program) = Program::parse(&file, RANGE, 100) {
                prop_assert!(program.pages() <= 100);
                for segment in &program.segments {
                    prop_assert!(!(segment.writable && segment.executable));
                    prop_assert!(segment.address >= RANGE.start);
                    prop_assert!(segment.address + segment.pages * PAGE <= RANGE.end);
                    prop_assert!(segment.lead + segment.contents.len() as u64 <= segment.pages * PAGE);
                }
                for pair in program.segments.windows(2) {
                    prop_assert!(pair[0].address + pair[0].pages * PAGE <= pair[1].address);
                }
            }
        }
    }
}
