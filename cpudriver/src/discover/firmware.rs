//! Finds ACPI tables by crate `acpi` and checks them; it does not read what they say.
//!
//! The crate walks from the root pointer to the tables and checks header and sum. The
//! tables' contents are read by [`super::tables`]: version 7.0.0-pre1 expects a two-byte
//! length in SRAT entries, which have one byte, and refuses every SLIT of more than one
//! node.

use super::DiscoverError;
use super::window::{Caching, Window};
use abi::layout::PAGE;
use acpi::sdt::{SdtHeader, Signature};
use acpi::{AcpiTables, Handler, PciAddress, RawPhysicalMapping};
use core::ptr::NonNull;

/// Largest table that is read, in bytes.
const MAX_TABLE_BYTES: u64 = 256 << 10;

/// Shown where a table lies outside of memory: no signature is all zeros.
#[repr(align(4096))]
struct Nothing(#[expect(dead_code, reason = "only seen through pointers")] [u8; PAGE as usize]);
static NOTHING: Nothing = Nothing([0; PAGE as usize]);

/// The tables that the root table lists.
pub struct Tables<'a> {
    tables: AcpiTables<Mapper<'a>>,
    window: &'a Window,
}

impl<'a> Tables<'a> {
    /// Reads the root pointer and the root table.
    pub fn open(window: &'a Window, rsdp: u64) -> Result<Self, DiscoverError> {
        // SAFETY: the boot loader names the address, and the mapper shows zeros where
        // there is nothing, so that a wrong one ends in an error.
        let tables = unsafe { AcpiTables::from_rsdp(Mapper(window), rsdp as usize) };
        Ok(Self {
            tables: tables.map_err(|_| DiscoverError::NoAcpi)?,
            window,
        })
    }

    /// The bytes of a table, header included; `None` where there is none of that name.
    /// They stay mapped as long as the window.
    pub fn find(&self, name: Signature) -> Result<Option<&'a [u8]>, DiscoverError> {
        let found = self
            .tables
            .table_headers()
            .find(|(_, header)| header.signature == name);
        let Some((address, header)) = found else {
            return Ok(None);
        };
        let bytes = u64::from(header.length());
        if !(size_of::<SdtHeader>() as u64..=MAX_TABLE_BYTES).contains(&bytes) {
            return Err(DiscoverError::TableUnreadable(name));
        }
        let start = self
            .window
            .map(address as u64, bytes, Caching::Normal)
            .ok_or(DiscoverError::TableUnreadable(name))?;
        // SAFETY: all `bytes` of it are mapped, nobody writes ACPI tables, and the header
        // type has no alignment.
        unsafe {
            let header = start.cast::<SdtHeader>().as_ref();
            header
                .validate(name)
                .map_err(|_| DiscoverError::TableInvalid(name))?;
            Ok(Some(core::slice::from_raw_parts(
                start.as_ptr(),
                bytes as usize,
            )))
        }
    }
}

/// Maps for the crate. It cannot say no, so it shows zeros where memory ends and less
/// than was asked for where a length is absurd; the crate keeps to the length it is told.
#[derive(Clone)]
struct Mapper<'a>(&'a Window);

impl Handler for Mapper<'_> {
    unsafe fn map_physical_region<T>(&self, physical: usize, size: usize) -> RawPhysicalMapping<T> {
        let bytes = (size as u64).clamp(size_of::<T>() as u64, MAX_TABLE_BYTES);
        let (start, shown) = match self.0.map(physical as u64, bytes, Caching::Normal) {
            Some(start) => (start, bytes),
            None => (NonNull::from(&NOTHING).cast(), size_of::<T>() as u64),
        };
        // SAFETY: `start` is mapped for `shown` bytes, which hold a `T`.
        unsafe { RawPhysicalMapping::new(physical, start.cast(), shown as usize, shown as usize) }
    }

    unsafe fn unmap_physical_region<T>(&self, region: RawPhysicalMapping<T>) {
        // SAFETY: the crate is done with it.
        let start = unsafe { region.virtual_start() }.cast::<u8>();
        if start != NonNull::from(&NOTHING).cast() {
            // SAFETY: `map_physical_region` mapped that many bytes there.
            unsafe { self.0.unmap(start, region.mapped_length() as u64) };
        }
    }

    // The rest serves ACPI's byte code, which nobody runs here.
    fn read_u8(&self, _: usize) -> u8 {
        0
    }
    fn read_u16(&self, _: usize) -> u16 {
        0
    }
    fn read_u32(&self, _: usize) -> u32 {
        0
    }
    fn read_u64(&self, _: usize) -> u64 {
        0
    }
    fn write_u8(&self, _: usize, _: u8) {}
    fn write_u16(&self, _: usize, _: u16) {}
    fn write_u32(&self, _: usize, _: u32) {}
    fn write_u64(&self, _: usize, _: u64) {}
    fn read_io_u8(&self, _: u16) -> u8 {
        0
    }
    fn read_io_u16(&self, _: u16) -> u16 {
        0
    }
    fn read_io_u32(&self, _: u16) -> u32 {
        0
    }
    fn write_io_u8(&self, _: u16, _: u8) {}
    fn write_io_u16(&self, _: u16, _: u16) {}
    fn write_io_u32(&self, _: u16, _: u32) {}
    fn read_pci_u8(&self, _: PciAddress, _: u16) -> u8 {
        0
    }
    fn read_pci_u16(&self, _: PciAddress, _: u16) -> u16 {
        0
    }
    fn read_pci_u32(&self, _: PciAddress, _: u16) -> u32 {
        0
    }
    fn write_pci_u8(&self, _: PciAddress, _: u16, _: u8) {}
    fn write_pci_u16(&self, _: PciAddress, _: u16, _: u16) {}
    fn write_pci_u32(&self, _: PciAddress, _: u16, _: u32) {}
    fn nanos_since_boot(&self) -> u64 {
        0
    }
    fn stall(&self, _: u64) {}
    fn sleep(&self, _: u64) {}
}
