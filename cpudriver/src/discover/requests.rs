//! The Limine requests and what the responses say, nothing more; see the protocol at
//! <https://github.com/limine-bootloader/limine-protocol>, base revision 3.

use super::{BootLoader, DiscoverError};
use abi::layout::PAGE;
use abi::machine::Machine;
use limine::BaseRevision;
use limine::memory_map::EntryType;
use limine::request::{
    ExecutableAddressRequest, ExecutableCmdlineRequest, HhdmRequest, MemoryMapRequest,
    ModuleRequest, RequestsEndMarker, RequestsStartMarker, RsdpRequest, StackSizeRequest,
};

/// Stack that the boot loader is to give: discovery keeps tables of cores and RAM there.
const BOOT_STACK_BYTES: u64 = 128 << 10;

// The boot loader searches between the markers and writes into the requests, so the
// linker script keeps the three sections together, in this order, in writable memory.
#[used]
#[unsafe(link_section = ".requests_start_marker")]
static START: RequestsStartMarker = RequestsStartMarker::new();
#[used]
#[unsafe(link_section = ".requests")]
static BASE_REVISION: BaseRevision = BaseRevision::with_revision(3);
#[used]
#[unsafe(link_section = ".requests")]
static DIRECT_MAP: HhdmRequest = HhdmRequest::new();
#[used]
#[unsafe(link_section = ".requests")]
static MEMORY_MAP: MemoryMapRequest = MemoryMapRequest::new();
#[used]
#[unsafe(link_section = ".requests")]
static RSDP: RsdpRequest = RsdpRequest::new();
#[used]
#[unsafe(link_section = ".requests")]
static MODULES: ModuleRequest = ModuleRequest::new();
#[used]
#[unsafe(link_section = ".requests")]
static COMMAND_LINE: ExecutableCmdlineRequest = ExecutableCmdlineRequest::new();
#[used]
#[unsafe(link_section = ".requests")]
static ADDRESS: ExecutableAddressRequest = ExecutableAddressRequest::new();
#[used]
#[unsafe(link_section = ".requests")]
static STACK: StackSizeRequest = StackSizeRequest::new().with_size(BOOT_STACK_BYTES);
#[used]
#[unsafe(link_section = ".requests_end_marker")]
static END: RequestsEndMarker = RequestsEndMarker::new();

/// Where the boot loader put things.
pub fn locations() -> Result<BootLoader, DiscoverError> {
    if !BASE_REVISION.is_supported() {
        return Err(DiscoverError::BaseRevision);
    }
    let direct_map = DIRECT_MAP
        .get_response()
        .ok_or(DiscoverError::NoResponse("HHDM"))?;
    let address = ADDRESS
        .get_response()
        .ok_or(DiscoverError::NoResponse("executable address"))?;
    STACK
        .get_response()
        .ok_or(DiscoverError::NoResponse("stack size"))?;
    Ok(BootLoader {
        direct_map: direct_map.offset(),
        image_physical: address.physical_base(),
        image_virtual: address.virtual_base(),
        cores_left_out: 0,
    })
}

/// Fills in what the boot loader says of root pointer, command line and bundle.
pub fn fill(machine: &mut Machine) -> Result<(), DiscoverError> {
    // Base revision 3 gives the root pointer's physical address.
    let rsdp = RSDP
        .get_response()
        .ok_or(DiscoverError::NoResponse("RSDP"))?;
    machine.rsdp = rsdp.address() as u64;

    let response = COMMAND_LINE.get_response();
    let line = response
        .ok_or(DiscoverError::NoResponse("executable command line"))?
        .cmdline()
        .to_bytes();
    let place = machine
        .command_line
        .get_mut(..line.len())
        .ok_or(DiscoverError::LongCommandLine(line.len()))?;
    place.copy_from_slice(line);
    machine.command_line_bytes = line.len() as u64;

    let modules = MODULES
        .get_response()
        .ok_or(DiscoverError::NoResponse("module"))?
        .modules();
    let [bundle] = modules else {
        return Err(DiscoverError::Modules(modules.len()));
    };
    machine.bundle = (bundle.addr() as u64).wrapping_sub(locations()?.direct_map);
    machine.bundle_bytes = bundle.size();
    if !machine.bundle.is_multiple_of(PAGE) {
        return Err(DiscoverError::BundleUnaligned(machine.bundle));
    }
    Ok(())
}

/// The free ranges of RAM, first byte and byte behind, in ascending order.
pub fn usable() -> Result<impl Iterator<Item = (u64, u64)>, DiscoverError> {
    let map = MEMORY_MAP
        .get_response()
        .ok_or(DiscoverError::NoResponse("memory map"))?;
    Ok(map
        .entries()
        .iter()
        .filter(|entry| entry.entry_type == EntryType::USABLE)
        .map(|entry| (entry.base, entry.base.saturating_add(entry.length))))
}
