//! Finds the CPU driver in the bundle and plans where its segments go; it neither
//! allocates nor maps.

use crate::memory::PAGE;
use arrayvec::ArrayVec;
use core::fmt;
use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;
use tar_no_std::{CorruptDataError, TarArchiveRef};

/// The file in the bundle.
pub const FILE_NAME: &str = "cpudriver";
/// Lowest address that Limine lets an executable have.
pub const LOWEST_ADDRESS: u64 = 0xffff_ffff_8000_0000;
/// Largest image, so that a defective file does not eat the machine.
pub const MAX_IMAGE_BYTES: u64 = 64 << 20;
/// Loadable segments that an image may have.
pub const MAX_SEGMENTS: usize = 16;

/// Why the CPU driver cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// The bundle is not a tar archive.
    BadArchive(CorruptDataError),
    /// The bundle has no CPU driver.
    NoCpuDriver,
    /// The ELF header or its tables cannot be read.
    NotElf,
    /// ELF, but not 64 bits for x86-64.
    WrongMachine,
    /// Not linked to a fixed address.
    NotStatic(u16),
    /// Nothing to load.
    NoSegments,
    /// More than [`MAX_SEGMENTS`].
    TooManySegments,
    /// A segment's bytes are not all in the file.
    SegmentTruncated(u64),
    /// A segment lies below [`LOWEST_ADDRESS`] or wraps around.
    SegmentAddress(u64),
    /// Two segments share a page, which cannot have both their rights.
    SegmentsOverlap(u64),
    /// The image spans more than [`MAX_IMAGE_BYTES`].
    TooLarge(u64),
    /// The entry point is not in an executable segment.
    BadEntry(u64),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadArchive(error) => {
                write!(
                    f,
                    "expected the bundle to be a tar archive, but {error}; rebuild the bundle"
                )
            }
            Self::NoCpuDriver => {
                write!(
                    f,
                    "expected a file `{FILE_NAME}` in the bundle, found none; add it to the bundle"
                )
            }
            Self::NotElf => write!(f, "`{FILE_NAME}` is not a whole ELF file; rebuild it"),
            Self::WrongMachine => {
                write!(
                    f,
                    "expected `{FILE_NAME}` to be 64-bit ELF for x86-64, found another kind; rebuild it"
                )
            }
            Self::NotStatic(found) => write!(
                f,
                "expected `{FILE_NAME}` to be linked to a fixed address (ELF type 2), found type {found}; \
                 link it with --no-pie"
            ),
            Self::NoSegments => {
                write!(
                    f,
                    "`{FILE_NAME}` has nothing to load (no PT_LOAD segment); check its linker script"
                )
            }
            Self::TooManySegments => write!(
                f,
                "`{FILE_NAME}` has more than {MAX_SEGMENTS} PT_LOAD segments; check its linker script"
            ),
            Self::SegmentTruncated(address) => {
                write!(
                    f,
                    "the segment of `{FILE_NAME}` at {address:#x} is not all in the file; rebuild it"
                )
            }
            Self::SegmentAddress(address) => write!(
                f,
                "expected every segment of `{FILE_NAME}` at {LOWEST_ADDRESS:#x} or above, found one at \
                 {address:#x}; check its linker script"
            ),
            Self::SegmentsOverlap(address) => write!(
                f,
                "the segment of `{FILE_NAME}` at {address:#x} shares a page with another; \
                 align segments to pages in its linker script"
            ),
            Self::TooLarge(bytes) => write!(
                f,
                "`{FILE_NAME}` spans {bytes:#x} bytes of addresses, at most {MAX_IMAGE_BYTES:#x} are loaded; \
                 check its linker script"
            ),
            Self::BadEntry(address) => {
                write!(
                    f,
                    "the entry point {address:#x} of `{FILE_NAME}` is not in executable memory; check ENTRY()"
                )
            }
        }
    }
}

/// Finds the CPU driver's file in the bundle.
pub fn find(bundle: &[u8]) -> Result<&[u8], ImageError> {
    TarArchiveRef::new(bundle)
        .map_err(ImageError::BadArchive)?
        .entries()
        .find(|entry| {
            let name = entry.filename();
            name.as_str()
                .is_ok_and(|name| name.strip_prefix("./").unwrap_or(name) == FILE_NAME)
        })
        .map(|entry| entry.data())
        .ok_or(ImageError::NoCpuDriver)
}

/// One loadable segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Offset of its first byte from the image's base.
    pub offset: u64,
    /// Its bytes in memory; what the file does not have is zero.
    pub bytes: u64,
    /// What the file has of it.
    pub data: &'a [u8],
    /// Whether it may be written.
    pub writable: bool,
    /// Whether it may be executed.
    pub executable: bool,
}

impl Segment<'_> {
    /// Offsets of the pages it lies in.
    pub fn pages(&self) -> core::ops::Range<u64> {
        self.offset & !(PAGE - 1)..(self.offset + self.bytes).next_multiple_of(PAGE)
    }
}

/// Where an executable goes.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// Page-aligned link address of its first page.
    pub base: u64,
    /// Bytes from there to its last page's end.
    pub bytes: u64,
    /// Where it starts.
    pub entry: u64,
    /// What it is made of, in ascending order.
    pub segments: ArrayVec<Segment<'a>, MAX_SEGMENTS>,
}

/// Plans to load an ELF file.
pub fn plan(file: &[u8]) -> Result<Image<'_>, ImageError> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| ImageError::NotElf)?;
    if elf.ehdr.class != Class::ELF64 || elf.ehdr.e_machine != EM_X86_64 {
        return Err(ImageError::WrongMachine);
    }
    if elf.ehdr.e_type != ET_EXEC {
        return Err(ImageError::NotStatic(elf.ehdr.e_type));
    }

    let mut segments = ArrayVec::<Segment<'_>, MAX_SEGMENTS>::new();
    let table = elf.segments().ok_or(ImageError::NoSegments)?;
    for header in table
        .iter()
        .filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0)
    {
        let address = header.p_vaddr;
        if header.p_filesz > header.p_memsz {
            return Err(ImageError::SegmentTruncated(address));
        }
        let data = usize::try_from(header.p_offset)
            .ok()
            .zip(usize::try_from(header.p_filesz).ok())
            .and_then(|(from, bytes)| file.get(from..from.checked_add(bytes)?))
            .ok_or(ImageError::SegmentTruncated(address))?;
        let room = address
            .checked_sub(LOWEST_ADDRESS)
            .map(|above| (2 << 30) - above);
        // The last page of the address space stays unused, or ends would wrap to 0.
        if room.is_none_or(|room| header.p_memsz > room - PAGE.min(room)) {
            return Err(ImageError::SegmentAddress(address));
        }
        let segment = Segment {
            offset: address - LOWEST_ADDRESS,
            bytes: header.p_memsz,
            data,
            writable: header.p_flags & PF_W != 0,
            executable: header.p_flags & PF_X != 0,
        };
        segments
            .try_push(segment)
            .map_err(|_| ImageError::TooManySegments)?;
    }

    segments.sort_unstable_by_key(|segment| segment.offset);
    for pair in segments.windows(2) {
        if pair[0].pages().end > pair[1].pages().start {
            return Err(ImageError::SegmentsOverlap(LOWEST_ADDRESS + pair[1].offset));
        }
    }
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
        return Err(ImageError::NoSegments);
    };
    let start = first.pages().start;
    let bytes = last.pages().end - start;
    if bytes > MAX_IMAGE_BYTES {
        return Err(ImageError::TooLarge(bytes));
    }
    for segment in &mut segments {
        segment.offset -= start;
    }

    let image = Image {
        base: LOWEST_ADDRESS + start,
        bytes,
        entry: elf.ehdr.e_entry,
        segments,
    };
    if !image.is_executable(image.entry) {
        return Err(ImageError::BadEntry(image.entry));
    }
    Ok(image)
}

impl Image<'_> {
    /// Whether code may run at this virtual address.
    pub fn is_executable(&self, address: u64) -> bool {
        address.checked_sub(self.base).is_some_and(|offset| {
            let mut segments = self.segments.iter().filter(|segment| segment.executable);
            segments
                .any(|segment| (segment.offset..segment.offset + segment.bytes).contains(&offset))
        })
    }

    /// Writes the image into its memory, which is `bytes` long, and zeroes the rest of it.
    pub fn load(&self, memory: &mut [u8]) {
        memory.fill(0);
        for segment in &self.segments {
            let from = segment.offset as usize;
            memory[from..from + segment.data.len()].copy_from_slice(segment.data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// Type, flags, file offset, address, bytes in the file, bytes in memory.
    type Header = (u32, u32, u64, u64, u64, u64);

    fn elf(headers: &[Header], entry: u64) -> Vec<u8> {
        let mut file = vec![0u8; 64];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..20].copy_from_slice(&[2, 0, 62, 0]);
        file[20] = 1;
        file[24..32].copy_from_slice(&entry.to_le_bytes());
        file[32] = 64;
        file[52] = 64;
        file[54] = 56;
        file[56] = headers.len() as u8;
        for h in headers {
            file.extend(h.0.to_le_bytes());
            file.extend(h.1.to_le_bytes());
            for word in [h.2, h.3, h.3, h.4, h.5, 4096] {
                file.extend(word.to_le_bytes());
            }
        }
        file.resize(0x2000, 0xaa);
        file
    }

    const BASE: u64 = LOWEST_ADDRESS;
    const CODE: Header = (1, 5, 0x1000, BASE + 0x20_0000, 0x100, 0x100);

    #[test]
    fn plans_and_loads() {
        let data = (1, 6, 0x1100, BASE + 0x20_3010, 0x80, 0x2000);
        let file = elf(&[data, CODE, (4, 4, 0, 0, 4, 4)], CODE.3 + 4);
        let image = plan(&file).unwrap();
        assert_eq!((image.base, image.bytes), (BASE + 0x20_0000, 0x6000));
        assert_eq!(image.segments.len(), 2);
        assert!(image.segments[0].executable && !image.segments[0].writable);
        let mut memory = vec![0xff; image.bytes as usize];
        image.load(&mut memory);
        let set: Vec<_> = (0..memory.len()).filter(|&i| memory[i] == 0xaa).collect();
        let expected: Vec<_> = (0..0x100).chain(0x3010..0x3090).collect();
        assert_eq!(set, expected);
        assert!(memory.iter().all(|&byte| byte == 0xaa || byte == 0));
    }

    #[test]
    fn each_defect_has_its_error() {
        let defect = |headers: &[Header], entry| plan(&elf(headers, entry)).err();
        let with = |change: fn(&mut Header)| {
            let mut code = CODE;
            change(&mut code);
            defect(&[code], CODE.3)
        };
        assert_eq!(defect(&[], CODE.3), Some(ImageError::NoSegments));
        assert_eq!(with(|h| h.0 = 2), Some(ImageError::NoSegments));
        assert_eq!(
            with(|h| h.4 = 0x1001),
            Some(ImageError::SegmentTruncated(CODE.3))
        );
        assert_eq!(
            with(|h| h.2 = u64::MAX),
            Some(ImageError::SegmentTruncated(CODE.3))
        );
        assert_eq!(
            with(|h| h.3 = 0x20_0000),
            Some(ImageError::SegmentAddress(0x20_0000))
        );
        assert_eq!(
            with(|h| h.5 = u64::MAX),
            Some(ImageError::SegmentAddress(CODE.3))
        );
        assert_eq!(
            with(|h| h.3 = u64::MAX),
            Some(ImageError::SegmentAddress(u64::MAX))
        );
        assert_eq!(with(|h| h.5 = 1 << 30), Some(ImageError::TooLarge(1 << 30)));
        assert_eq!(with(|h| h.1 = 6), Some(ImageError::BadEntry(CODE.3)));
        assert_eq!(
            defect(&[CODE], CODE.3 + 0x100),
            Some(ImageError::BadEntry(CODE.3 + 0x100))
        );
        let next = (1, 6, 0x1000, CODE.3 + 0x800, 0x10, 0x10);
        assert_eq!(
            defect(&[CODE, next], CODE.3),
            Some(ImageError::SegmentsOverlap(next.3))
        );
        let mut many = Vec::new();
        many.resize(MAX_SEGMENTS + 1, CODE);
        assert_eq!(defect(&many, CODE.3), Some(ImageError::TooManySegments));
        let mut pie = elf(&[CODE], CODE.3);
        pie[16] = 3;
        assert_eq!(plan(&pie).err(), Some(ImageError::NotStatic(3)));
        pie[18] = 40;
        assert_eq!(plan(&pie).err(), Some(ImageError::WrongMachine));
        assert_eq!(plan(b"not an ELF file").err(), Some(ImageError::NotElf));
        assert_eq!(plan(&[]).err(), Some(ImageError::NotElf));
    }

    #[test]
    fn no_prefix_of_a_good_file_panics() {
        let file = elf(&[CODE], CODE.3);
        for bytes in 0..0x1100 {
            assert!(plan(&file[..bytes]).is_err());
        }
    }

    fn tar(name: &str, data: &[u8]) -> Vec<u8> {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(std::format!("{:011o}\0", data.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(std::format!("{sum:06o}\0 ").as_bytes());
        let mut archive = header.to_vec();
        archive.extend(data);
        archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
        archive
    }

    #[test]
    fn finds_the_file_or_says_why_not() {
        assert_eq!(find(&tar("cpudriver", b"abc")), Ok(&b"abc"[..]));
        assert_eq!(find(&tar("./cpudriver", b"abc")), Ok(&b"abc"[..]));
        assert_eq!(find(&tar("init", b"abc")), Err(ImageError::NoCpuDriver));
        let whole = tar("cpudriver", &[7; 3000]);
        for bytes in 0..whole.len() {
            assert!(
                matches!(find(&whole[..bytes]), Err(ImageError::BadArchive(_))),
                "{bytes}"
            );
        }
    }
}
