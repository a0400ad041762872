//! Reads the bytes of ACPI tables (MADT, SRAT, SLIT, HPET, MCFG); it neither finds nor
//! checks them, and it trusts no length in them. Layouts: ACPI specification 6.5, 5.2.
//!
//! A table comes as its whole bytes, header included; an empty slice is an absent table.

use super::plan::MemoryAffinity;
use abi::machine::{IoApic, Override};

/// Bytes of the header that every table has.
const HEADER_BYTES: usize = 36;

/// An entry is shorter than its kind, or runs past the table's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], Malformed> {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .ok_or(Malformed)
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, Malformed> {
    field(bytes, offset).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, Malformed> {
    field(bytes, offset).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Result<u64, Malformed> {
    field(bytes, offset).map(u64::from_le_bytes)
}

/// Walks entries that begin with their kind and their length, a byte each. Ends after the
/// first malformed one.
fn entries(table: &[u8], from: usize) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    let mut rest = table.get(from..).unwrap_or(&[]);
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = rest.get(1).map_or(0, |&length| usize::from(length));
        if length < 2 || length > rest.len() {
            rest = &[];
            return Some(Err(Malformed));
        }
        let (entry, behind) = rest.split_at(length);
        rest = behind;
        Some(Ok(entry))
    })
}

/// Where a MADT's entries begin: behind the local APIC's address and flags.
const MADT_ENTRIES: usize = HEADER_BYTES + 8;

/// MADT: local APIC ids of all cores that are enabled, in the table's order. Those that
/// could only be plugged in later are not.
pub fn processors(madt: &[u8]) -> impl Iterator<Item = Result<u32, Malformed>> {
    let processor = |entry: &[u8]| {
        let (apic_id, flags) = match entry[0] {
            // Local APIC: 255 addresses all of them and is no one's id.
            0 => (u32::from(field::<1>(entry, 3)?[0]), u32_at(entry, 4)?),
            // Local x2APIC.
            9 => (u32_at(entry, 4)?, u32_at(entry, 8)?),
            _ => return Ok(None),
        };
        let broadcast = if entry[0] == 0 { 0xff } else { u32::MAX };
        Ok((flags & 1 != 0 && apic_id != broadcast).then_some(apic_id))
    };
    entries(madt, MADT_ENTRIES).filter_map(move |entry| entry.and_then(processor).transpose())
}

/// MADT: physical address of the local APIC's registers, an override entry included.
pub fn local_apic(madt: &[u8]) -> Result<u64, Malformed> {
    let mut address = u64::from(u32_at(madt, HEADER_BYTES)?);
    for entry in entries(madt, MADT_ENTRIES) {
        let entry = entry?;
        if entry[0] == 5 {
            address = u64_at(entry, 4)?;
        }
    }
    Ok(address)
}

/// What a MADT says of the way that interrupts of devices take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptPart {
    /// They arrive at an I/O APIC.
    IoApic(IoApic),
    /// One of ISA is special.
    Override(Override),
}

/// MADT: I/O APICs and overrides of ISA interrupts, in the table's order.
pub fn interrupt_parts(madt: &[u8]) -> impl Iterator<Item = Result<InterruptPart, Malformed>> {
    let part = |entry: &[u8]| {
        Ok(Some(match entry[0] {
            1 => InterruptPart::IoApic(IoApic {
                address: u64::from(u32_at(entry, 4)?),
                first_line: u64::from(u32_at(entry, 8)?),
            }),
            2 => {
                let flags = u16_at(entry, 8)?;
                InterruptPart::Override(Override {
                    source: u32::from(field::<1>(entry, 3)?[0]),
                    line: u32_at(entry, 4)?,
                    // Two bits each; 0 is as ISA has it: active high, edges.
                    active_low: u32::from(flags & 3 == 3),
                    level: u32::from(flags >> 2 & 3 == 3),
                })
            }
            _ => return Ok(None),
        }))
    };
    entries(madt, MADT_ENTRIES).filter_map(move |entry| entry.and_then(part).transpose())
}

/// One line of an SRAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// A core belongs to a proximity domain.
    Core {
        /// Its local APIC id.
        apic_id: u32,
        /// The domain.
        domain: u32,
    },
    /// A range of memory does.
    Memory(MemoryAffinity),
}

/// SRAT: what belongs where, disabled entries left out.
pub fn affinities(srat: &[u8]) -> impl Iterator<Item = Result<Affinity, Malformed>> {
    let affinity = |entry: &[u8]| {
        let (flags, affinity) = match entry[0] {
            0 => {
                // Bits 8 to 31 of the domain came later and stand elsewhere. They count
                // in revision 2 of the table; older firmware leaves them zero.
                let high = field::<3>(entry, 9)?;
                let domain =
                    u32::from_le_bytes([field::<1>(entry, 2)?[0], high[0], high[1], high[2]]);
                let apic_id = u32::from(field::<1>(entry, 3)?[0]);
                (u32_at(entry, 4)?, Affinity::Core { apic_id, domain })
            }
            1 => {
                let (base, bytes) = (u64_at(entry, 8)?, u64_at(entry, 16)?);
                let domain = u32_at(entry, 2)?;
                let memory = MemoryAffinity {
                    base,
                    end: base.saturating_add(bytes),
                    domain,
                };
                (u32_at(entry, 28)?, Affinity::Memory(memory))
            }
            2 => {
                let (domain, apic_id) = (u32_at(entry, 4)?, u32_at(entry, 8)?);
                (u32_at(entry, 12)?, Affinity::Core { apic_id, domain })
            }
            _ => return Ok(None),
        };
        Ok((flags & 1 != 0).then_some(affinity))
    };
    entries(srat, HEADER_BYTES + 12).filter_map(move |entry| entry.and_then(affinity).transpose())
}

/// SLIT: distance between two proximity domains, 10 is local; `None` where it has none.
pub fn distance(slit: &[u8], from: u32, to: u32) -> Option<u8> {
    let count = u64_at(slit, HEADER_BYTES).ok()?;
    let (from, to) = (u64::from(from), u64::from(to));
    if from >= count || to >= count {
        return None;
    }
    let index = from
        .checked_mul(count)?
        .checked_add(to)?
        .checked_add(HEADER_BYTES as u64 + 8)?;
    slit.get(usize::try_from(index).ok()?).copied()
}

/// HPET: physical address of its registers, or 0 where they are not in memory.
pub fn hpet(hpet: &[u8]) -> Result<u64, Malformed> {
    let in_memory = field::<1>(hpet, HEADER_BYTES + 4)? == [0];
    let address = u64_at(hpet, HEADER_BYTES + 8)?;
    Ok(if in_memory { address } else { 0 })
}

/// MCFG: physical address of PCI segment 0's configuration space, or 0 where there is none.
pub fn pci_config(mcfg: &[u8]) -> Result<u64, Malformed> {
    // Some firmware's length is not a whole number of entries: the rest is no entry.
    let spaces = mcfg
        .get(HEADER_BYTES + 8..)
        .ok_or(Malformed)?
        .chunks_exact(16);
    for space in spaces {
        if field(space, 8)? == [0, 0] {
            return u64_at(space, 0);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn table(fixed: &[u8], entries: &[&[u8]]) -> Vec<u8> {
        let mut table = vec![0; HEADER_BYTES];
        table.extend(fixed);
        entries.iter().for_each(|entry| table.extend(*entry));
        table
    }

    fn madt(entries: &[&[u8]]) -> Vec<u8> {
        table(&[0, 0, 0xe0, 0xfe, 1, 0, 0, 0], entries)
    }

    #[test]
    fn processors_that_are_enabled_count() {
        let madt = madt(&[
            &[0, 8, 0, 0, 1, 0, 0, 0],
            &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
            &[0, 8, 1, 1, 0, 0, 0, 0],
            &[0, 8, 2, 6, 2, 0, 0, 0],
            &[0, 8, 3, 9, 3, 0, 0, 0],
            &[0, 8, 4, 255, 1, 0, 0, 0],
            &[9, 16, 0, 0, 0x2c, 1, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0],
            &[9, 16, 0, 0, 0x2d, 1, 0, 0, 2, 0, 0, 0, 6, 0, 0, 0],
        ]);
        assert_eq!(
            processors(&madt).collect::<Result<Vec<_>, _>>(),
            Ok(vec![0, 9, 300])
        );
        assert_eq!(local_apic(&madt), Ok(0xfee0_0000));
    }

    #[test]
    fn the_local_apic_may_be_elsewhere() {
        let madt = madt(&[&[5, 12, 0, 0, 0, 0, 0, 0, 0x12, 0, 0, 0]]);
        assert_eq!(local_apic(&madt), Ok(0x12_0000_0000));
    }

    #[test]
    fn io_apics_and_overrides() {
        let madt = madt(&[
            &[0, 8, 0, 0, 1, 0, 0, 0],
            &[1, 12, 7, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
            &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
            &[2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0],
            &[2, 10, 0, 11, 0x20, 1, 0, 0, 0x0f, 0],
            &[1, 12, 8, 0, 0, 0x10, 0xc0, 0xfe, 24, 0, 0, 0],
        ]);
        let io_apic = |address, first_line| {
            InterruptPart::IoApic(IoApic {
                address,
                first_line,
            })
        };
        let special = |source, line, active_low, level| {
            InterruptPart::Override(Override {
                source,
                line,
                active_low,
                level,
            })
        };
        assert_eq!(
            interrupt_parts(&madt).collect::<Result<Vec<_>, _>>(),
            Ok(vec![
                io_apic(0xfec0_0000, 0),
                special(0, 2, 0, 0),
                special(9, 9, 0, 1),
                special(11, 0x120, 1, 1),
                io_apic(0xfec0_1000, 24),
            ])
        );
    }

    #[test]
    fn lengths_that_lie_are_malformed() {
        let bad: [&[u8]; 5] = [
            &[0],
            &[0, 0, 0, 0],
            &[0, 1],
            &[0, 9, 0, 0, 1, 0, 0, 0],
            &[0, 6, 0, 0, 1, 0],
        ];
        for entry in bad {
            assert!(
                processors(&madt(&[entry])).any(|found| found == Err(Malformed)),
                "{entry:?}"
            );
        }
        for entry in [&[1, 8, 0, 0, 0, 0, 0xc0, 0xfe], &[2, 8, 0, 0, 2, 0, 0, 0]] {
            let mut parts = interrupt_parts(&madt(&[entry]))
                .collect::<Vec<_>>()
                .into_iter();
            assert_eq!((parts.next(), parts.next()), (Some(Err(Malformed)), None));
        }
        assert_eq!(local_apic(&[0; 39]), Err(Malformed));
        assert_eq!(local_apic(&madt(&[&[5, 4, 0, 0]])), Err(Malformed));
        assert_eq!(hpet(&[0; 51]), Err(Malformed));
        assert_eq!(pci_config(&[0; 40]), Err(Malformed));
    }

    #[test]
    fn affinities_of_all_three_kinds() {
        let mut range = [0u8; 40];
        range[..2].copy_from_slice(&[1, 40]);
        range[2] = 7;
        range[8..16].copy_from_slice(&0x1_0000_0000u64.to_le_bytes());
        range[16..24].copy_from_slice(&0x2_0000_1000u64.to_le_bytes());
        range[28] = 1;
        let mut disabled = range;
        disabled[28] = 2;
        let srat = table(
            &[0; 12],
            &[
                &[0, 16, 3, 5, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
                &range,
                &disabled,
                &[
                    2, 24, 0, 0, 4, 0, 0, 0, 0x2c, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                ],
                &[3, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ],
        );
        let memory = MemoryAffinity {
            base: 0x1_0000_0000,
            end: 0x3_0000_1000,
            domain: 7,
        };
        let expected = vec![
            Affinity::Core {
                apic_id: 5,
                domain: 0x103,
            },
            Affinity::Memory(memory),
            Affinity::Core {
                apic_id: 300,
                domain: 4,
            },
        ];
        assert_eq!(
            affinities(&srat).collect::<Result<Vec<_>, _>>(),
            Ok(expected)
        );
        assert_eq!(affinities(&[]).count(), 0);
    }

    #[test]
    fn distances_within_the_matrix_only() {
        let slit = table(
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[&[10, 20, 30, 21, 10, 31, 32, 33, 10]],
        );
        assert_eq!(distance(&slit, 0, 2), Some(30));
        assert_eq!(distance(&slit, 2, 0), Some(32));
        assert_eq!(distance(&slit, 3, 0), None);
        assert_eq!(distance(&slit[..HEADER_BYTES + 10], 2, 2), None);
        assert_eq!(distance(&[], 0, 0), None);
        let huge = table(&[0xff; 8], &[]);
        assert_eq!(distance(&huge, u32::MAX, u32::MAX), None);
    }

    #[test]
    fn addresses_of_devices() {
        let timer = table(&[1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0xd0, 0xfe, 0, 0, 0, 0], &[]);
        assert_eq!(hpet(&timer), Ok(0xfed0_0000));
        let other = [0, 0, 0, 0x90, 0, 0, 0, 0, 1, 0, 0, 255, 0, 0, 0, 0];
        let first = [0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0];
        assert_eq!(
            pci_config(&table(&[0; 8], &[&other, &first, &[1, 2, 3]])),
            Ok(0xb000_0000)
        );
        assert_eq!(pci_config(&table(&[0; 8], &[&other])), Ok(0));
    }

    #[test]
    fn no_bytes_at_all_make_it_panic() {
        let mut state = 1u64;
        for length in (0..200).cycle().take(20_000) {
            let mut bytes = vec![0u8; length];
            for byte in &mut bytes {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                // Small numbers make plausible kinds and lengths.
                *byte = (state >> 33) as u8 % if state >> 62 == 0 { 255 } else { 20 };
            }
            let _ = (
                processors(&bytes).count(),
                interrupt_parts(&bytes).count(),
                affinities(&bytes).count(),
                local_apic(&bytes),
            );
            let _ = (distance(&bytes, 1, 1), hpet(&bytes), pci_config(&bytes));
        }
    }
}
