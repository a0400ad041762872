//! A small boot loader that plays Limine for the CPU driver where Limine itself is not at
//! hand (`qemu -kernel bridge -initrd bundle.tar`). Not a kernel: it runs once, with
//! interrupts off, and hands over.
//!
//! This file is all of the bridge that touches hardware; what it decides is in the library.
#![no_std]
#![no_main]

mod hardware;

use bridge::handover::{Extent, Handover};
use bridge::image::{self, ImageError};
use bridge::limine::{self, Arena, Facts, LimineError, Request, Requests};
use bridge::memory::{Kind, MapError, PAGE};
use bridge::paging::{NO_EXECUTE, Tables, WRITABLE};
use bridge::pvh::{self, PvhError};
use core::fmt;
use hardware::{HandOff, PhysicalTables, say};

/// Alignment of the image, so that the CPU driver may map it by large pages.
const IMAGE_ALIGN: u64 = 2 << 20;

/// Why the CPU driver cannot be started.
enum BridgeError {
    Pvh(PvhError),
    Map(MapError),
    Image(ImageError),
    Limine(LimineError),
    /// A reserved range runs into the bridge or the bundle.
    NotFree(&'static str, Extent),
    /// The requested entry point cannot be executed.
    BadEntryPoint(u64),
}

impl fmt::Display for BridgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pvh(error) => error.fmt(f),
            Self::Map(error) => error.fmt(f),
            Self::Image(error) => error.fmt(f),
            Self::Limine(error) => error.fmt(f),
            Self::NotFree(what, extent) => write!(
                f,
                "expected {what} ({:#x} bytes at {:#x}) in usable memory, but the memory map says otherwise; \
                 give the machine more memory",
                extent.bytes, extent.base
            ),
            Self::BadEntryPoint(address) => write!(
                f,
                "the CPU driver's entry point request names {address:#x}, which is not executable; correct it"
            ),
        }
    }
}

/// Called in 64-bit mode, on the boot tables that map the first 4 GiB one to one.
#[unsafe(no_mangle)]
extern "C" fn bridge_main(start_info: u32) -> ! {
    hardware::start_serial();
    let error = match pvh::parse(u64::from(start_info), &hardware::physical_bytes) {
        Ok(handover) => match start(handover) {
            Ok(hand_off) => hand_off.go(),
            Err(error) => error,
        },
        Err(error) => BridgeError::Pvh(error),
    };
    say(format_args!("bridge: {error}\n"));
    hardware::stop()
}

/// Loads the CPU driver and answers its requests.
fn start(handover: Handover) -> Result<HandOff, BridgeError> {
    let Handover {
        mut map,
        rsdp,
        command_line,
        mut bundle,
        firmware,
    } = handover;

    // What is in use must be marked before anything is allocated.
    let own = hardware::own_extent();
    if !map.is_usable(own.base, own.base + own.bytes) {
        return Err(BridgeError::NotFree("the bridge", own));
    }
    map.set(own.base, own.base + own.bytes, Kind::BootloaderReclaimable)
        .map_err(BridgeError::Map)?;
    let (first, end) = (
        bundle.base & !(PAGE - 1),
        (bundle.base + bundle.bytes).next_multiple_of(PAGE),
    );
    if !map.is_usable(first, end) {
        return Err(BridgeError::NotFree("the bundle", bundle));
    }
    map.set(first, end, Kind::ExecutableAndModules)
        .map_err(BridgeError::Map)?;
    if bundle.base != first {
        // Modules start at a page. The old place stays taken: it is read once more below.
        bundle.base = hardware::copy(&mut map, bundle).map_err(BridgeError::Map)?;
    }

    // SAFETY: marked as the bundle's above; nothing writes there.
    let bundle_bytes = unsafe { hardware::memory(bundle.base, bundle.bytes) };
    let file = image::find(bundle_bytes).map_err(BridgeError::Image)?;
    let plan = image::plan(file).map_err(BridgeError::Image)?;
    let physical_base = map
        .allocate(plan.bytes, IMAGE_ALIGN, Kind::ExecutableAndModules)
        .map_err(BridgeError::Map)?;
    // SAFETY: just allocated, and the only reference to it.
    let image = unsafe { hardware::memory(physical_base, plan.bytes) };
    plan.load(image);

    let requests = Requests::find(image).map_err(BridgeError::Limine)?;
    let stack_bytes = requests.stack_bytes(image).map_err(BridgeError::Limine)?;
    let entry = requests.entry_point(image).unwrap_or(plan.entry);
    if !plan.is_executable(entry) {
        return Err(BridgeError::BadEntryPoint(entry));
    }
    let file_copy = if requests.contains(Request::ExecutableFile) {
        let extent = Extent {
            base: file.as_ptr() as u64,
            bytes: file.len() as u64,
        };
        let base = hardware::copy(&mut map, extent).map_err(BridgeError::Map)?;
        Some(Extent { base, ..extent })
    } else {
        None
    };

    let reclaimable = Kind::BootloaderReclaimable;
    let stack = map
        .allocate(stack_bytes, PAGE, reclaimable)
        .map_err(BridgeError::Map)?;
    let arena = map
        .allocate(limine::ARENA_BYTES as u64, PAGE, reclaimable)
        .map_err(BridgeError::Map)?;

    // Allocating turns usable into reclaimable memory, both of which are in the direct map.
    let direct_mapped = map.direct_mapped();
    let memory = PhysicalTables { map: &mut map };
    let mut tables =
        Tables::new(memory, hardware::has_gigabyte_pages()).map_err(BridgeError::Map)?;
    for (base, end) in direct_mapped {
        tables
            .map(limine::DIRECT_MAP + base, base, end - base, WRITABLE)
            .map_err(BridgeError::Map)?;
    }
    for segment in &plan.segments {
        let pages = segment.pages();
        let rights = if segment.writable { WRITABLE } else { 0 }
            | if segment.executable { 0 } else { NO_EXECUTE };
        tables
            .map(
                plan.base + pages.start,
                physical_base + pages.start,
                pages.end - pages.start,
                rights,
            )
            .map_err(BridgeError::Map)?;
    }
    let code = hardware::hand_off_page();
    tables.map(code, code, PAGE, 0).map_err(BridgeError::Map)?;
    let root = tables.root();

    let facts = Facts {
        map: &map,
        rsdp,
        command_line: &command_line,
        bundle,
        file: file_copy,
        physical_base,
        virtual_base: plan.base,
        firmware,
    };
    // SAFETY: allocated above, and the only reference to it.
    let memory = unsafe { hardware::memory(arena, limine::ARENA_BYTES as u64) };
    let mut arena = Arena::new(memory, arena);
    let gdt = arena.words(hardware::GDT).map_err(BridgeError::Limine)?;
    limine::answer(image, &requests, &facts, &mut arena).map_err(BridgeError::Limine)?;
    Ok(HandOff::new(
        root,
        limine::DIRECT_MAP + stack + stack_bytes,
        entry,
        gdt,
    ))
}

#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    say(format_args!(
        "bridge: a defect of the bridge itself: {information}\n"
    ));
    hardware::stop()
}
