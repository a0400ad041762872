//! Finds Limine requests in a loaded image and answers them, base revision 3; it does not
//! load, map or start anything.
//!
//! Protocol: <https://github.com/limine-bootloader/limine-protocol>. Every response is a
//! row of 64-bit words, so it is written as words rather than through a copy of each C
//! structure. A request that is not listed in [`Request`] keeps its null response, which
//! is how a Limine boot loader says no. The MP request is left out on purpose: its parked
//! cores spin, and Atoll starts cores itself.

use crate::handover::{Extent, Firmware};
use crate::memory::{MAX_REGIONS, Map};
use core::fmt;

/// Where the direct map of physical memory starts.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Base revision that is spoken.
pub const BASE_REVISION: u64 = 3;
/// Bytes that responses take at most: memory map entries and pointers to them, two
/// command lines, and room for the small rest.
pub const ARENA_BYTES: usize = MAX_REGIONS * 32 + 2 * 4096 + 4096;
/// Least stack, in bytes, that the CPU driver is given.
pub const MIN_STACK_BYTES: u64 = 64 << 10;
/// Largest stack that may be requested.
const MAX_STACK_BYTES: u64 = 16 << 20;

const COMMON_MAGIC: [u64; 2] = [0xc7b1_dd30_df4c_8b88, 0x0a82_e883_a194_f07b];
const BASE_REVISION_MAGIC: [u64; 2] = [0xf956_2b2d_5c95_a6c8, 0x6a7b_3849_4453_6bdc];
const START_MARKER: [u64; 4] = [
    0xf6b8_f4b3_9de7_d1ae,
    0xfab9_1a69_40fc_b9cf,
    0x785c_6ed0_15d3_e316,
    0x181e_920a_7852_b9d9,
];
const END_MARKER: [u64; 2] = [0xadc0_e053_1bb1_0d03, 0x9572_709f_3176_4c62];
/// Offset of the response pointer in a request, of the first field behind it, and of the next.
const RESPONSE: usize = 40;
const FIELD: usize = 48;
const SECOND_FIELD: usize = 56;
const THIRD_FIELD: usize = 64;

/// The requests that are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the protocol")]
pub enum Request {
    BootloaderInfo,
    FirmwareType,
    StackSize,
    Hhdm,
    PagingMode,
    MemoryMap,
    EntryPoint,
    ExecutableFile,
    Modules,
    Rsdp,
    ExecutableAddress,
    ExecutableCommandLine,
}

const IDS: [(Request, [u64; 2]); 12] = [
    (
        Request::BootloaderInfo,
        [0xf550_38d8_e2a1_202f, 0x2794_26fc_f5f5_9740],
    ),
    (
        Request::FirmwareType,
        [0x8c2f_75d9_0bef_28a8, 0x7045_a468_8eac_00c3],
    ),
    (
        Request::StackSize,
        [0x224e_f046_0a8e_8926, 0xe1cb_0fc2_5f46_ea3d],
    ),
    (
        Request::Hhdm,
        [0x48dc_f1cb_8ad2_b852, 0x6398_4e95_9a98_244b],
    ),
    (
        Request::PagingMode,
        [0x95c1_a0ed_ab09_44cb, 0xa4e5_cb38_42f7_488a],
    ),
    (
        Request::MemoryMap,
        [0x67cf_3d9d_378a_806f, 0xe304_acdf_c50c_3c62],
    ),
    (
        Request::EntryPoint,
        [0x13d8_6c03_5a1c_d3e1, 0x2b0c_aa89_d8f3_026a],
    ),
    (
        Request::ExecutableFile,
        [0xad97_e90e_83f1_ed67, 0x31eb_5d1c_5ff2_3b69],
    ),
    (
        Request::Modules,
        [0x3e7e_2797_02be_32af, 0xca1c_4f3b_d128_0cee],
    ),
    (
        Request::Rsdp,
        [0xc5e7_7b6b_397e_7b43, 0x2763_7845_accd_cf3c],
    ),
    (
        Request::ExecutableAddress,
        [0x71ba_7686_3cc5_5f63, 0xb264_4a48_c516_a487],
    ),
    (
        Request::ExecutableCommandLine,
        [0x4b16_1536_e598_651e, 0xb390_ad4a_2f1f_303a],
    ),
];

/// Why an image cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimineError {
    /// The same request twice.
    Duplicate(Request),
    /// No base revision tag, or one below [`BASE_REVISION`].
    OldRevision(u64),
    /// A start marker without an end marker.
    NoEndMarker,
    /// More stack than anyone needs.
    HugeStack(u64),
    /// Only page tables of more than four levels would do.
    FiveLevelPaging,
    /// The responses are larger than [`ARENA_BYTES`].
    ArenaFull,
}

impl fmt::Display for LimineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(request) => write!(
                f,
                "expected each Limine request once, found {request:?} twice in the CPU driver; remove one"
            ),
            Self::OldRevision(found) => write!(
                f,
                "expected a Limine base revision tag of {BASE_REVISION} in the CPU driver, found {found} \
                 (0: no tag); add or update it"
            ),
            Self::NoEndMarker => write!(
                f,
                "the CPU driver has a Limine requests start marker and no end marker behind it; add one"
            ),
            Self::HugeStack(bytes) => write!(
                f,
                "the CPU driver requests {bytes:#x} bytes of stack, at most {MAX_STACK_BYTES:#x} are given; \
                 request less"
            ),
            Self::FiveLevelPaging => write!(
                f,
                "the CPU driver's paging mode request excludes four levels, which is all there is; lower min_mode"
            ),
            Self::ArenaFull => write!(f, "the Limine responses do not fit; raise ARENA_BYTES"),
        }
    }
}

/// Where the requests are in an image.
#[derive(Clone, Debug)]
pub struct Requests {
    offsets: [Option<usize>; IDS.len()],
    revision_tag: Option<usize>,
}

fn word(image: &[u8], offset: usize) -> Option<u64> {
    let bytes = image.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn set_word(image: &mut [u8], offset: usize, value: u64) {
    image[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
}

fn starts_with(image: &[u8], offset: usize, words: &[u64]) -> bool {
    words
        .iter()
        .enumerate()
        .all(|(i, &expected)| word(image, offset + i * 8) == Some(expected))
}

impl Requests {
    /// Scans a loaded image, which starts at a page, for requests on 8-byte boundaries:
    /// between the start and the end marker where there are such, else everywhere.
    pub fn find(image: &[u8]) -> Result<Self, LimineError> {
        let everywhere = (0..image.len()).step_by(8);
        let mut area = everywhere.clone();
        if let Some(start) = everywhere
            .clone()
            .find(|&at| starts_with(image, at, &START_MARKER))
        {
            let end = (start..image.len())
                .step_by(8)
                .find(|&at| starts_with(image, at, &END_MARKER));
            area = (start..end.ok_or(LimineError::NoEndMarker)?).step_by(8);
        }

        let mut found = Self {
            offsets: [None; IDS.len()],
            revision_tag: None,
        };
        for at in area {
            if starts_with(image, at, &BASE_REVISION_MAGIC) && word(image, at + 16).is_some() {
                found.revision_tag = Some(at);
            }
            if !starts_with(image, at, &COMMON_MAGIC) || word(image, at + RESPONSE).is_none() {
                continue;
            }
            for (slot, (request, id)) in found.offsets.iter_mut().zip(IDS) {
                if starts_with(image, at + 16, &id) && slot.replace(at).is_some() {
                    return Err(LimineError::Duplicate(request));
                }
            }
        }
        let revision = found
            .revision_tag
            .and_then(|tag| word(image, tag + 16))
            .unwrap_or(0);
        if revision < BASE_REVISION {
            return Err(LimineError::OldRevision(revision));
        }
        Ok(found)
    }

    fn offset(&self, wanted: Request) -> Option<usize> {
        let index = IDS.iter().position(|(request, _)| *request == wanted)?;
        self.offsets[index]
    }

    /// Whether a request was made.
    pub fn contains(&self, request: Request) -> bool {
        self.offset(request).is_some()
    }

    /// Bytes of stack to give: what is requested, and no less than [`MIN_STACK_BYTES`].
    pub fn stack_bytes(&self, image: &[u8]) -> Result<u64, LimineError> {
        let wanted = self
            .offset(Request::StackSize)
            .and_then(|at| word(image, at + FIELD));
        match wanted.unwrap_or(0).max(MIN_STACK_BYTES) {
            bytes if bytes > MAX_STACK_BYTES => Err(LimineError::HugeStack(bytes)),
            bytes => Ok(bytes.next_multiple_of(16)),
        }
    }

    /// The entry point that is requested instead of the ELF file's.
    pub fn entry_point(&self, image: &[u8]) -> Option<u64> {
        self.offset(Request::EntryPoint)
            .and_then(|at| word(image, at + FIELD))
    }
}

/// What the answers say.
pub struct Facts<'a> {
    /// The memory map as the CPU driver is to see it: final.
    pub map: &'a Map,
    /// Physical address of the ACPI root pointer.
    pub rsdp: u64,
    /// Command line.
    pub command_line: &'a [u8],
    /// The bundle, page aligned.
    pub bundle: Extent,
    /// A page-aligned copy of the CPU driver's file, where that is requested.
    pub file: Option<Extent>,
    /// Physical address of the image.
    pub physical_base: u64,
    /// Link address of the image.
    pub virtual_base: u64,
    /// What started the machine.
    pub firmware: Firmware,
}

/// Memory for responses, filled from its start.
pub struct Arena<'a> {
    memory: &'a mut [u8],
    address: u64,
    used: usize,
}

impl<'a> Arena<'a> {
    /// An arena in memory at a physical address, page aligned.
    pub fn new(memory: &'a mut [u8], physical: u64) -> Self {
        Self {
            memory,
            address: DIRECT_MAP + physical,
            used: 0,
        }
    }

    /// Stores bytes, zero-terminated, and gives their address in the direct map.
    fn string(&mut self, bytes: &[u8]) -> Result<u64, LimineError> {
        let address = self.address + self.used as u64;
        let end = self.used + bytes.len() + 1;
        let place = self
            .memory
            .get_mut(self.used..end)
            .ok_or(LimineError::ArenaFull)?;
        place[..bytes.len()].copy_from_slice(bytes);
        place[bytes.len()] = 0;
        self.used = end.next_multiple_of(8);
        Ok(address)
    }

    /// Stores words and gives their address in the direct map.
    pub fn words(&mut self, words: impl IntoIterator<Item = u64>) -> Result<u64, LimineError> {
        let address = self.address + self.used as u64;
        for word in words {
            let place = self
                .memory
                .get_mut(self.used..self.used + 8)
                .ok_or(LimineError::ArenaFull)?;
            place.copy_from_slice(&word.to_le_bytes());
            self.used += 8;
        }
        Ok(address)
    }

    /// A `limine_file`: no medium, network or partition behind it.
    fn file(&mut self, extent: Extent, path: &[u8], text: &[u8]) -> Result<u64, LimineError> {
        let (path, text) = (self.string(path)?, self.string(text)?);
        self.words(
            [0, DIRECT_MAP + extent.base, extent.bytes, path, text]
                .into_iter()
                .chain([0; 9]),
        )
    }
}

/// Answers every request in an image that [`Requests::find`] scanned.
pub fn answer(
    image: &mut [u8],
    requests: &Requests,
    facts: &Facts<'_>,
    arena: &mut Arena<'_>,
) -> Result<(), LimineError> {
    if let Some(tag) = requests.revision_tag {
        set_word(image, tag + 8, BASE_REVISION);
        // A newer revision than ours stays as it is: that says it is not supported.
        if word(image, tag + 16) == Some(BASE_REVISION) {
            set_word(image, tag + 16, 0);
        }
    }
    for (request, offset) in IDS
        .iter()
        .zip(requests.offsets)
        .filter_map(|(id, at)| Some((id.0, at?)))
    {
        let response = match request {
            Request::BootloaderInfo => {
                let name = arena.string(b"Atoll bridge")?;
                let version = arena.string(env!("CARGO_PKG_VERSION").as_bytes())?;
                arena.words([0, name, version])?
            }
            Request::FirmwareType => arena.words([0, facts.firmware as u64])?,
            // These two say by their response alone that the wish was granted.
            Request::StackSize | Request::EntryPoint => arena.words([0])?,
            Request::Hhdm => arena.words([0, DIRECT_MAP])?,
            Request::PagingMode => {
                // From request revision 1 on there are a highest and a lowest mode.
                let newer = word(image, offset + 32).is_some_and(|revision| revision > 0);
                let highest = word(image, offset + SECOND_FIELD);
                let lowest =
                    word(image, offset + THIRD_FIELD).filter(|_| newer && highest.is_some());
                if lowest.is_some_and(|mode| mode > 0) {
                    return Err(LimineError::FiveLevelPaging);
                }
                arena.words([0, 0])?
            }
            Request::MemoryMap => {
                let regions = facts.map.regions();
                let first = arena.words(
                    regions
                        .iter()
                        .flat_map(|r| [r.base, r.end - r.base, r.kind as u64]),
                )?;
                let pointers = arena.words((0..regions.len() as u64).map(|i| first + i * 24))?;
                arena.words([0, regions.len() as u64, pointers])?
            }
            Request::ExecutableFile => {
                let Some(file) = facts.file else { continue };
                let file = arena.file(file, b"/cpudriver", facts.command_line)?;
                arena.words([0, file])?
            }
            Request::Modules => {
                let module = arena.file(facts.bundle, b"bundle", b"")?;
                let pointers = arena.words([module])?;
                arena.words([0, 1, pointers])?
            }
            Request::Rsdp => arena.words([0, facts.rsdp])?,
            Request::ExecutableAddress => {
                arena.words([0, facts.physical_base, facts.virtual_base])?
            }
            Request::ExecutableCommandLine => {
                let text = arena.string(facts.command_line)?;
                arena.words([0, text])?
            }
        };
        set_word(image, offset + RESPONSE, response);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Kind;
    use std::vec;
    use std::vec::Vec;

    const TAG: [u64; 3] = [BASE_REVISION_MAGIC[0], BASE_REVISION_MAGIC[1], 3];

    fn request(request: Request, fields: &[u64]) -> Vec<u64> {
        let id = IDS.iter().find(|(r, _)| *r == request).unwrap().1;
        let mut words = vec![COMMON_MAGIC[0], COMMON_MAGIC[1], id[0], id[1], 0, 0];
        words.extend(fields);
        words
    }

    fn image(parts: &[&[u64]]) -> Vec<u8> {
        parts
            .iter()
            .flat_map(|part| part.iter())
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    fn answered(image: &mut [u8]) -> Vec<u8> {
        let requests = Requests::find(image).unwrap();
        let map = Map::from_firmware(&[(0, 1 << 30, Kind::Usable)].into_iter()).unwrap();
        let facts = Facts {
            map: &map,
            rsdp: 0xf_5a00,
            command_line: b"hello",
            bundle: Extent {
                base: 0x5000,
                bytes: 77,
            },
            file: None,
            physical_base: 0x40_0000,
            virtual_base: 0xffff_ffff_8000_0000,
            firmware: Firmware::Bios,
        };
        let mut memory = vec![0; ARENA_BYTES];
        answer(
            image,
            &requests,
            &facts,
            &mut Arena::new(&mut memory, 0x1000),
        )
        .unwrap();
        memory
    }

    #[test]
    fn answers_are_where_the_protocol_says() {
        let (rsdp, modules, map) = (
            request(Request::Rsdp, &[]),
            request(Request::Modules, &[0, 0]),
            request(Request::MemoryMap, &[]),
        );
        let mut image = image(&[&[1, 2, 3], &TAG, &rsdp, &modules, &map]);
        let memory = answered(&mut image);
        let at = |address: u64, index: usize| {
            word(
                &memory,
                (address - DIRECT_MAP - 0x1000) as usize + index * 8,
            )
            .unwrap()
        };
        assert_eq!(word(&image, 32), Some(3), "the revision that was used");
        assert_eq!(word(&image, 40), Some(0), "supported");
        let rsdp = word(&image, 48 + RESPONSE).unwrap();
        assert_eq!([at(rsdp, 0), at(rsdp, 1)], [0, 0xf_5a00]);
        let modules = word(&image, 96 + RESPONSE).unwrap();
        assert_eq!([at(modules, 0), at(modules, 1)], [0, 1]);
        let file = at(at(modules, 2), 0);
        assert_eq!([at(file, 1), at(file, 2)], [DIRECT_MAP + 0x5000, 77]);
        let path = (at(file, 3) - DIRECT_MAP - 0x1000) as usize;
        assert_eq!(&memory[path..path + 7], b"bundle\0");
        let map = word(&image, 160 + RESPONSE).unwrap();
        assert_eq!(at(map, 1), 2);
        let second = at(at(map, 2), 1);
        assert_eq!(
            [at(second, 0), at(second, 1), at(second, 2)],
            [0x1000, (1 << 30) - 0x1000, 0]
        );
    }

    #[test]
    fn markers_bound_the_scan() {
        let rsdp = request(Request::Rsdp, &[]);
        let whole = image(&[&rsdp, &START_MARKER, &TAG, &rsdp, &END_MARKER, &rsdp]);
        let found = Requests::find(&whole).unwrap();
        assert_eq!(found.offset(Request::Rsdp), Some(48 + 32 + 24));
        let open = image(&[&START_MARKER, &TAG, &rsdp]);
        assert_eq!(Requests::find(&open).err(), Some(LimineError::NoEndMarker));
    }

    #[test]
    fn each_defect_has_its_error() {
        let rsdp = request(Request::Rsdp, &[]);
        assert_eq!(
            Requests::find(&image(&[&TAG, &rsdp, &rsdp])).err(),
            Some(LimineError::Duplicate(Request::Rsdp))
        );
        assert_eq!(
            Requests::find(&image(&[&rsdp])).err(),
            Some(LimineError::OldRevision(0))
        );
        assert_eq!(
            Requests::find(&image(&[&TAG[..2], &[2]])).err(),
            Some(LimineError::OldRevision(2))
        );
        let stack = image(&[&TAG, &request(Request::StackSize, &[1 << 40])]);
        let found = Requests::find(&stack).unwrap();
        assert_eq!(
            found.stack_bytes(&stack),
            Err(LimineError::HugeStack(1 << 40))
        );
    }

    #[test]
    fn newer_revisions_stay_unsupported_and_others_unanswered() {
        let unknown = [COMMON_MAGIC[0], COMMON_MAGIC[1], 5, 6, 0, 0];
        let mut image = image(&[&TAG[..2], &[4], &unknown]);
        answered(&mut image);
        assert_eq!(word(&image, 8), Some(3));
        assert_eq!(word(&image, 16), Some(4));
        assert_eq!(word(&image, 24 + RESPONSE), Some(0));
    }

    #[test]
    fn stacks_are_at_least_the_least() {
        let small = image(&[&TAG, &request(Request::StackSize, &[100])]);
        assert_eq!(
            Requests::find(&small).unwrap().stack_bytes(&small),
            Ok(MIN_STACK_BYTES)
        );
        let larger = image(&[&TAG, &request(Request::StackSize, &[0x4_0001])]);
        assert_eq!(
            Requests::find(&larger).unwrap().stack_bytes(&larger),
            Ok(0x4_0010)
        );
        // A request cut off at the image's end has no field and is still a request.
        let cut = image(&[&TAG, &request(Request::StackSize, &[])]);
        assert_eq!(
            Requests::find(&cut).unwrap().stack_bytes(&cut),
            Ok(MIN_STACK_BYTES)
        );
    }
}
