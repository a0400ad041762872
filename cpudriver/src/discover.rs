//! What the first CPU driver learns of its machine: from the boot loader (Limine), from
//! ACPI and from the processor. It decides nothing about who gets what, and it runs once,
//! on core 0, while the boot loader's page tables are still in use.
//!
//! | module          | what it does                                            | hardware |
//! |-----------------|---------------------------------------------------------|----------|
//! | [`requests`]    | the Limine requests                                      | -        |
//! | [`window`]      | maps physical memory that the boot loader left unmapped   | yes      |
//! | [`firmware`]    | finds ACPI tables and checks them                        | yes      |
//! | [`tables`]      | reads the bytes of an ACPI table                         | no       |
//! | [`plan`]        | numbers nodes and cores, splits RAM at node borders      | no       |
//! | [`calibrate`]   | how fast the time-stamp counter and the APIC timer run    | yes      |
//!
//! The modules without hardware are tested on the host by `loader/tests/discover.rs`.

mod calibrate;
mod firmware;
mod plan;
mod requests;
mod tables;
mod window;

use abi::limits::{COMMAND_LINE_BYTES, MAX_CORES, MAX_NODES};
use abi::machine::Machine;
use acpi::sdt::Signature;
use core::fmt;
use raw_cpuid::{CpuId, CpuIdReaderNative, FeatureInfo};
use tables::Malformed;
use window::Window;

/// Physical address of the local APIC where ACPI names none.
const DEFAULT_LOCAL_APIC: u64 = 0xfee0_0000;

/// Where the boot loader put things; valid while its page tables are in use.
#[derive(Clone, Copy, Debug)]
pub struct BootLoader {
    /// Physical address p is mapped at `direct_map + p` for RAM, and only for RAM.
    pub direct_map: u64,
    /// Physical address of the CPU driver's image.
    pub image_physical: u64,
    /// Link address of the CPU driver's image.
    pub image_virtual: u64,
    /// Cores that ACPI lists beyond [`MAX_CORES`]: they stay off.
    pub cores_left_out: u32,
}

/// Why the machine cannot be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscoverError {
    /// The boot loader does not speak base revision 3.
    BaseRevision,
    /// The boot loader left a request unanswered.
    NoResponse(&'static str),
    /// There is not exactly one module.
    Modules(usize),
    /// The bundle does not start at a page.
    BundleUnaligned(u64),
    /// The command line has this many bytes.
    LongCommandLine(usize),
    /// No place below 640 KiB to start cores from.
    NoTrampoline,
    /// No usable RAM above 1 MiB.
    NoRam,
    /// All of the upper address space is taken by the boot loader.
    NoWindow,
    /// The ACPI root pointer or its table cannot be read.
    NoAcpi,
    /// A table is larger than the window, or does not exist where it should.
    TableUnreadable(Signature),
    /// A table's checksum or header is wrong.
    TableInvalid(Signature),
    /// A table's entries contradict its length.
    TableMalformed(Signature),
    /// ACPI lists no usable core at all.
    NoCores,
    /// More proximity domains than [`MAX_NODES`].
    TooManyNodes,
    /// Neither CPUID nor the interval timer tells the time.
    NoClock,
    /// The local APIC timer does not count.
    NoApicTimer,
}

impl fmt::Display for DiscoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BaseRevision => write!(
                f,
                "expected a boot loader that speaks Limine base revision 3, found an older one; \
                 use Limine 8 or newer, or the bridge"
            ),
            Self::NoResponse(what) => write!(
                f,
                "expected the boot loader to answer the Limine {what} request, found no response; \
                 use Limine 9 or newer, or the bridge"
            ),
            Self::Modules(found) => write!(
                f,
                "expected one module (the bundle of programs), found {found}; correct the boot \
                 loader's configuration"
            ),
            Self::BundleUnaligned(found) => write!(
                f,
                "expected the bundle at a multiple of 4096, found it at {found:#x}; use another boot loader"
            ),
            Self::LongCommandLine(found) => write!(
                f,
                "expected a command line of at most {COMMAND_LINE_BYTES} bytes, found {found}; shorten it"
            ),
            Self::NoTrampoline => write!(
                f,
                "expected five free pages in a row between 4 KiB and 636 KiB to start cores from, \
                 found none; use a boot loader that leaves low memory alone"
            ),
            Self::NoRam => write!(
                f,
                "expected a usable range of RAM above 1 MiB that holds a large page, found none; \
                 give the machine more memory"
            ),
            Self::NoWindow => write!(
                f,
                "expected a free slot in the boot loader's top page table, found none; use another boot loader"
            ),
            Self::NoAcpi => write!(
                f,
                "expected an ACPI root pointer and table where the boot loader says, found none; \
                 turn ACPI on"
            ),
            Self::TableUnreadable(name) => write!(
                f,
                "ACPI table {name} is longer than what can be mapped, or missing; update the firmware"
            ),
            Self::TableInvalid(name) => write!(
                f,
                "ACPI table {name} has a wrong checksum or header; update the firmware"
            ),
            Self::TableMalformed(name) => write!(
                f,
                "ACPI table {name} has an entry that is too short or runs past its end; update the firmware"
            ),
            Self::NoCores => write!(f, "ACPI lists no core that is enabled; update the firmware"),
            Self::TooManyNodes => write!(
                f,
                "expected at most {MAX_NODES} NUMA nodes, ACPI lists more; raise MAX_NODES"
            ),
            Self::NoClock => write!(
                f,
                "expected the clock rate from CPUID or an interval timer (PIT) to measure it by, \
                 found neither; turn the PIT on"
            ),
            Self::NoApicTimer => write!(
                f,
                "the local APIC timer does not count; turn the local APIC on"
            ),
        }
    }
}

/// Fills in everything but who owns which RAM: `region` and the bytes behind it stay 0.
///
/// # Safety
///
/// Runs on the boot core, once, with interrupts off, on the boot loader's page tables.
pub unsafe fn discover(machine: &mut Machine) -> Result<BootLoader, DiscoverError> {
    machine.tsc_start = calibrate::time_stamp();
    let processor = CpuId::new();
    let features = processor.get_feature_info();
    let hypervisor = features.as_ref().is_some_and(FeatureInfo::has_hypervisor);
    machine.virtual_machine = u32::from(hypervisor);

    let mut boot_loader = requests::locations()?;
    requests::fill(machine)?;
    machine.trampoline =
        plan::trampoline(requests::usable()?).ok_or(DiscoverError::NoTrampoline)?;

    // SAFETY: the caller's promise; the window goes out of use when this function ends.
    let window = unsafe { Window::open(&boot_loader)? };
    let boot_core = local_apic_id(&processor);
    let has_x2apic = features.as_ref().is_some_and(FeatureInfo::has_x2apic);
    boot_loader.cores_left_out = describe(machine, &window, boot_core, has_x2apic)?;
    calibrate::calibrate(machine, &window, &processor)?;
    window.close();
    Ok(boot_loader)
}

/// Reads all ACPI tables.
fn describe(
    machine: &mut Machine,
    window: &Window,
    boot_core: u32,
    has_x2apic: bool,
) -> Result<u32, DiscoverError> {
    let firmware = firmware::Tables::open(window, machine.rsdp)?;
    let malformed = |name| move |Malformed| DiscoverError::TableMalformed(name);

    let name = Signature::MADT;
    let madt = firmware
        .find(name)?
        .ok_or(DiscoverError::TableUnreadable(name))?;
    let local_apic = tables::local_apic(madt).map_err(malformed(name))?;
    machine.local_apic = if local_apic == 0 {
        DEFAULT_LOCAL_APIC
    } else {
        local_apic
    };
    for part in tables::interrupt_parts(madt) {
        match part.map_err(malformed(name))? {
            tables::InterruptPart::IoApic(io_apic) => {
                // Lines of what does not fit are nobody's to have.
                let count = machine.io_apic_count as usize;
                if let Some(place) = machine.io_apics.get_mut(count) {
                    *place = io_apic;
                    machine.io_apic_count += 1;
                }
            }
            tables::InterruptPart::Override(isa) => {
                let count = machine.override_count as usize;
                if let Some(place) = machine.overrides.get_mut(count) {
                    *place = isa;
                    machine.override_count += 1;
                }
            }
        }
    }
    let highest = if has_x2apic { u32::MAX - 1 } else { 254 };
    let mut cores = plan::Cores::new(&mut machine.cores, boot_core);
    for apic_id in tables::processors(madt) {
        let apic_id = apic_id.map_err(malformed(name))?;
        if apic_id <= highest {
            cores.add(apic_id);
        }
    }
    let left_out = cores.left_out();
    machine.core_count = cores.count() as u32;
    if machine.core_count == 0 || machine.core_count as usize > MAX_CORES {
        return Err(DiscoverError::NoCores);
    }

    let name = Signature::SRAT;
    let srat = firmware.find(name)?.unwrap_or(&[]);
    let slit = firmware.find(Signature::SLIT)?.unwrap_or(&[]);
    let found = &mut machine.cores[..machine.core_count as usize];
    let mut memory = plan::MemoryAffinities::new();
    for affinity in tables::affinities(srat) {
        match affinity.map_err(malformed(name))? {
            tables::Affinity::Core { apic_id, domain } => plan::place_core(found, apic_id, domain),
            // Machines list a handful; what does not fit counts as node 0.
            tables::Affinity::Memory(affinity) => _ = memory.try_push(affinity),
        }
    }
    let distance = |from, to| tables::distance(slit, from, to);
    let domains = plan::Domains::new(found, &memory, boot_core, distance)
        .map_err(|plan::TooManyDomains| DiscoverError::TooManyNodes)?;
    plan::number_cores(found, &domains, boot_core);
    machine.node_count = domains.count() as u32;
    domains.fill_distances(&mut machine.distance, distance);
    let ram = plan::split_ram(&mut machine.ram, requests::usable()?, &memory, &domains);
    machine.ram_count = ram as u32;
    if ram == 0 {
        return Err(DiscoverError::NoRam);
    }

    if let Some(hpet) = firmware.find(Signature::HPET)? {
        machine.hpet = tables::hpet(hpet).map_err(malformed(Signature::HPET))?;
    }
    if let Some(mcfg) = firmware.find(Signature::MCFG)? {
        machine.pci_config = tables::pci_config(mcfg).map_err(malformed(Signature::MCFG))?;
    }
    Ok(left_out)
}

/// The local APIC id of the core that runs this, all 32 bits of it where there are so many.
fn local_apic_id(processor: &CpuId<CpuIdReaderNative>) -> u32 {
    let extended = processor
        .get_extended_topology_info()
        .and_then(|mut levels| levels.next())
        // A level without processors means that the leaf is not implemented.
        .filter(|level| level.processors() > 0)
        .map(|level| level.x2apic_id());
    let short = processor
        .get_feature_info()
        .map(|info| u32::from(info.initial_local_apic_id()));
    extended.or(short).unwrap_or(0)
}
