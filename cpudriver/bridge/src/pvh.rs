//! Reads what a PVH loader (`qemu -kernel`) left in memory; no other entry protocol.
//!
//! The structures lie in RAM that the memory map calls free, so all of it is copied.

use crate::handover::{Extent, Firmware, Handover};
use crate::memory::{Kind, Map, MapError};
use arrayvec::ArrayVec;
use core::fmt;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// First word of the start info.
const MAGIC: u32 = 0x336e_c578;

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MemoryMapEntry {
    base: u64,
    bytes: u64,
    kind: u32,
    reserved: u32,
}

/// Why a start info cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PvhError {
    /// A structure lies where the bridge cannot read.
    Unreadable(&'static str),
    /// Not a start info.
    BadMagic(u32),
    /// Version 0 has no memory map.
    OldVersion(u32),
    /// The memory map cannot be stored.
    Map(MapError),
    /// The memory map has no entries.
    EmptyMemoryMap,
    /// No ACPI.
    NoRsdp,
    /// No bundle.
    NoBundle,
    /// The bundle has no bytes or ends outside of memory below 4 GiB.
    BadBundle(Extent),
    /// The command line does not end in time.
    LongCommandLine,
}

impl fmt::Display for PvhError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(what) => write!(
                f,
                "PVH: the {what} is not in memory below 4 GiB; use another loader"
            ),
            Self::BadMagic(found) => {
                write!(
                    f,
                    "PVH: expected a start info (magic {MAGIC:#x}) at EBX, found {found:#x}; use another loader"
                )
            }
            Self::OldVersion(found) => write!(
                f,
                "PVH: expected start info version 1 or newer (with a memory map), found {found}; use a newer loader"
            ),
            Self::Map(error) => write!(f, "PVH: {error}"),
            Self::EmptyMemoryMap => write!(f, "PVH: the memory map is empty; use another loader"),
            Self::NoRsdp => write!(
                f,
                "PVH: expected the ACPI root pointer (RSDP), found none; start the machine with ACPI \
                 (microvm: -machine microvm,acpi=on)"
            ),
            Self::NoBundle => write!(
                f,
                "PVH: expected the bundle as first module, found none; add -initrd BUNDLE.tar"
            ),
            Self::BadBundle(extent) => write!(
                f,
                "PVH: the bundle ({:#x} bytes at {:#x}) is empty or not in memory below 4 GiB; check -initrd",
                extent.bytes, extent.base
            ),
            Self::LongCommandLine => {
                write!(
                    f,
                    "PVH: the command line is longer than 4,095 bytes; shorten -append"
                )
            }
        }
    }
}

/// Reads the start info at a physical address. `memory` gives bytes of physical memory,
/// or `None` where it cannot be read.
pub fn parse<'a>(
    start_info: u64,
    memory: &impl Fn(u64, u64) -> Option<&'a [u8]>,
) -> Result<Handover, PvhError> {
    let read =
        |what, base, bytes: usize| memory(base, bytes as u64).ok_or(PvhError::Unreadable(what));
    let bytes = read("start info", start_info, size_of::<StartInfo>())?;
    let info = StartInfo::read_from_bytes(bytes).map_err(|_| PvhError::Unreadable("start info"))?;
    if info.magic != MAGIC {
        return Err(PvhError::BadMagic(info.magic));
    }
    if info.version < 1 {
        return Err(PvhError::OldVersion(info.version));
    }

    if info.memory_map_entries == 0 {
        return Err(PvhError::EmptyMemoryMap);
    }
    let bytes = (info.memory_map_entries as usize).saturating_mul(size_of::<MemoryMapEntry>());
    let entries = read("memory map", info.memory_map, bytes)?
        .chunks_exact(size_of::<MemoryMapEntry>())
        .filter_map(|bytes| MemoryMapEntry::read_from_bytes(bytes).ok())
        .map(|entry| {
            let kind = match entry.kind {
                1 => Kind::Usable,
                3 => Kind::AcpiReclaimable,
                4 => Kind::AcpiNvs,
                5 => Kind::Bad,
                _ => Kind::Reserved,
            };
            (entry.base, entry.bytes, kind)
        });
    let map = Map::from_firmware(&entries).map_err(PvhError::Map)?;

    if info.rsdp == 0 {
        return Err(PvhError::NoRsdp);
    }
    // Further modules would be a loader's own idea: there is one bundle. Their command
    // lines are no use either, QEMU leaves them null.
    if info.module_count == 0 {
        return Err(PvhError::NoBundle);
    }
    let words = read("module list", info.modules, 16)?;
    let word = |at| u64::read_from_bytes(&words[at..at + 8]).map_err(|_| PvhError::NoBundle);
    let bundle = Extent {
        base: word(0)?,
        bytes: word(8)?,
    };
    if bundle.bytes == 0 || memory(bundle.base, bundle.bytes).is_none() {
        return Err(PvhError::BadBundle(bundle));
    }

    let mut command_line = ArrayVec::new();
    if info.command_line != 0 {
        for position in 0.. {
            match read(
                "command line",
                info.command_line.saturating_add(position),
                1,
            )?[0]
            {
                0 => break,
                byte => command_line
                    .try_push(byte)
                    .map_err(|_| PvhError::LongCommandLine)?,
            }
        }
    }
    Ok(Handover {
        map,
        rsdp: info.rsdp,
        command_line,
        bundle,
        firmware: Firmware::Bios,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// A start info at 0x100, a map at 0x200, a module list at 0x300, a command line at 0x400.
    fn physical_memory() -> Vec<u8> {
        let mut memory = vec![0u8; 0x1000];
        let mut put = |at: usize, words: &[u64]| {
            for (i, word) in words.iter().enumerate() {
                memory[at + i * 8..][..8].copy_from_slice(&word.to_le_bytes());
            }
        };
        put(
            0x100,
            &[
                u64::from(MAGIC) | 1 << 32,
                1 << 32,
                0x300,
                0x400,
                0xf_5000,
                0x200,
                3,
            ],
        );
        put(0x200, &[0, 0x9_fc00, 1, 0x10_0000, 0x700_0000, 1, 0, 0, 0]);
        put(0x300, &[0x800, 0x200]);
        memory[0x400..0x405].copy_from_slice(b"a=1 b");
        memory
    }

    fn parse_in(memory: &[u8]) -> Result<Handover, PvhError> {
        parse(0x100, &|base, bytes| {
            let (base, bytes) = (usize::try_from(base).ok()?, usize::try_from(bytes).ok()?);
            memory.get(base..base.checked_add(bytes)?)
        })
    }

    #[test]
    fn reads_everything() {
        let handover = parse_in(&physical_memory()).unwrap();
        assert_eq!(handover.command_line.as_slice(), b"a=1 b");
        assert_eq!(
            handover.bundle,
            Extent {
                base: 0x800,
                bytes: 0x200
            }
        );
        assert_eq!(handover.rsdp, 0xf_5000);
        assert!(handover.map.is_usable(0x1000, 0x9_f000));
        assert!(handover.map.is_usable(0x10_0000, 0x710_0000));
    }

    #[test]
    fn each_defect_has_its_message() {
        let with = |at: usize, bytes: &[u8]| {
            let mut memory = physical_memory();
            memory[at..at + bytes.len()].copy_from_slice(bytes);
            parse_in(&memory).err()
        };
        assert!(matches!(with(0x100, &[0; 4]), Some(PvhError::BadMagic(0))));
        assert!(matches!(
            with(0x104, &[0; 4]),
            Some(PvhError::OldVersion(0))
        ));
        assert!(matches!(with(0x10c, &[0; 4]), Some(PvhError::NoBundle)));
        assert!(matches!(
            with(0x110, &[0xff; 8]),
            Some(PvhError::Unreadable("module list"))
        ));
        assert!(matches!(with(0x120, &[0; 8]), Some(PvhError::NoRsdp)));
        assert!(matches!(
            with(0x128, &[0xff; 8]),
            Some(PvhError::Unreadable("memory map"))
        ));
        assert!(matches!(
            with(0x130, &[0xff; 4]),
            Some(PvhError::Unreadable("memory map"))
        ));
        assert!(matches!(
            with(0x130, &[0; 4]),
            Some(PvhError::EmptyMemoryMap)
        ));
        assert!(matches!(with(0x308, &[0; 8]), Some(PvhError::BadBundle(_))));
        assert!(matches!(
            with(0x308, &[0xff; 8]),
            Some(PvhError::BadBundle(_))
        ));
        assert!(matches!(
            with(0x400, &[b'x'; 0xc00]),
            Some(PvhError::Unreadable("command line"))
        ));
    }
}
