//! Builds the memory of one core: everything that its CPU driver and its monitor need in
//! order to run, in the first part of the core's own RAM.
//!
//! ```text
//!  region ─► core record │ CPU driver │ stacks │ log │ symbols │ machine │ dispatcher │
//!            monitor image, stack, startup page, heap │ page tables │ trace │ free …
//! ```
//!
//! The kernel half maps that core's private RAM and nothing else. Pages that hold code or
//! constants are read-only in the direct map too, so no page can ever be both written and
//! executed, whichever address is used.

use crate::paging::{
    self, GLOBAL, NO_EXECUTE, PRESENT, TableMemory, UNCACHED, USER, WRITABLE, index,
};
use crate::program::{Program, ProgramError, Segment};
use abi::command_line::{BadTrace, CommandLine};
use abi::layout::{
    DIRECT_MAP, KERNEL_HALF, KERNEL_IMAGE, KERNEL_LOCAL_APIC, KERNEL_LOG, KERNEL_RECORD,
    KERNEL_STACK_BYTES, KERNEL_STACK_COUNT, KERNEL_SYMBOLS, KERNEL_TRACE, LARGE_PAGE,
    MONITOR_BUNDLE, MONITOR_LOG, MONITOR_MACHINE, PAGE, USER_HEAP, USER_IMAGE, USER_STACK_BYTES,
    USER_STACK_TOP, USER_STARTUP, kernel_stack_top,
};
use abi::limits::LOG_BYTES;
use abi::machine::Machine;
use abi::record::{self, CoreRecord};
use abi::startup::{self, Startup};
use abi::syscall::{DISPATCHER_BYTES, Error, FIRST_DOORBELL};
use trace::{FIXED, Fixed, TRACE};
use zerocopy::{FromZeros, IntoBytes};

/// Pages that a CPU driver image may take.
const MAX_KERNEL_PAGES: u64 = 4096;
/// Pages that a monitor may take.
const MAX_MONITOR_PAGES: u64 = 4096;
/// Bytes of a monitor's first heap.
pub const MONITOR_HEAP_BYTES: u64 = 1 << 20;
/// The monitor's first CNodes: root and task.
const CNODE_PAGES: u64 = 2;
/// Control page of a trace, and one in place of the ring, where nothing can be recorded.
const OFF_BYTES: u64 = 2 * PAGE;
/// These, what never changes of a ring, and the CPU driver's own control page.
const TRACE_PAGES: u64 = OFF_BYTES / PAGE + 2;
/// Page tables beyond those that grow with RAM and bundle.
const FIXED_TABLES: u64 = 64;

/// What a core's memory is built from.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The machine; RAM already divided.
    pub machine: &'a Machine,
    /// Number of the core.
    pub core: usize,
    /// The bundle, which lies at `machine.bundle`; `monitor` may be a part of it.
    pub bundle: &'a [u8],
    /// The CPU driver, an ELF file.
    pub cpu_driver: &'a [u8],
    /// The monitor, an ELF file.
    pub monitor: &'a [u8],
    /// Symbol tables, which the CPU driver gets in a row.
    pub symbols: [&'a [u8]; 2],
    /// The core comes back into a system that runs.
    pub anew: Option<Anew>,
}

/// What the monitor of a core that comes back is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anew {
    /// The round of the view that whoever starts it holds, not 0: see [`Startup::life`].
    pub life: u32,
    /// The core that starts it.
    pub sponsor: usize,
    /// The cores of that view: bit `c % 64` of word `c / 64`.
    pub cores: [u64; 4],
}

/// Bytes that tell of each page of private RAM which life as a page table it is in.
const fn lives_bytes(private_bytes: u64) -> u64 {
    (private_bytes / PAGE * size_of::<u32>() as u64).next_multiple_of(PAGE)
}

/// Why a core's memory could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// The machine has no such core.
    NoSuchCore,
    /// The CPU driver cannot be loaded.
    CpuDriver(ProgramError),
    /// The monitor cannot be loaded.
    Monitor(ProgramError),
    /// The core's private RAM is too small: bytes that are needed, and of them for its trace.
    NoRoom(u64, u64),
    /// The machine's command line does not say clearly what is recorded.
    Trace,
    /// Two things were mapped at one address: the layout contradicts itself.
    Layout(Error),
}

impl core::fmt::Display for ImageError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoSuchCore => formatter.write_str("the machine has no such core"),
            Self::CpuDriver(error) => write!(formatter, "the CPU driver: {error}"),
            Self::Monitor(error) => write!(formatter, "the monitor: {error}"),
            Self::NoRoom(needed, 0) => write!(
                formatter,
                "a core needs {} KiB of RAM of its own: give the machine more memory or fewer cores",
                needed >> 10
            ),
            Self::NoRoom(needed, trace) => write!(
                formatter,
                "a core needs {} KiB of RAM of its own, {} KiB of them for its trace: record less, or \
                 give the machine more memory or fewer cores",
                needed >> 10,
                trace >> 10
            ),
            Self::Trace => formatter.write_str("the word `trace=` makes no sense"),
            Self::Layout(error) => write!(
                formatter,
                "the address layout contradicts itself: {error:?}"
            ),
        }
    }
}

struct Plan<'a> {
    cpu_driver: Program<'a>,
    monitor: Program<'a>,
    bytes: u64,
    /// Records of the trace; 0: it has only its control page.
    records: u64,
}

impl Plan<'_> {
    /// Bytes behind the others for the trace, control page included: whole large pages, and none without records.
    fn trace_bytes(&self) -> u64 {
        match self.records {
            0 => 0,
            records => trace::bytes(records).next_multiple_of(LARGE_PAGE),
        }
    }
}

impl<'a> Parts<'a> {
    fn plan(&self) -> Result<Plan<'a>, ImageError> {
        let core = self
            .machine
            .cores()
            .get(self.core)
            .ok_or(ImageError::NoSuchCore)?;
        let kernel_range = KERNEL_IMAGE..KERNEL_IMAGE + MAX_KERNEL_PAGES * PAGE;
        let cpu_driver = Program::parse(self.cpu_driver, kernel_range, MAX_KERNEL_PAGES)
            .map_err(ImageError::CpuDriver)?;
        let monitor = Program::parse(self.monitor, USER_IMAGE..USER_HEAP, MAX_MONITOR_PAGES)
            .map_err(ImageError::Monitor)?;
        let pages = 1
            + cpu_driver.pages()
            + monitor.pages()
            + (KERNEL_STACK_COUNT * KERNEL_STACK_BYTES
                + LOG_BYTES as u64
                + DISPATCHER_BYTES
                + USER_STACK_BYTES
                + MONITOR_HEAP_BYTES)
                / PAGE
            + self.symbol_bytes().div_ceil(PAGE)
            + (size_of::<Machine>() as u64).div_ceil(PAGE)
            + 1
            + CNODE_PAGES
            + TRACE_PAGES
            + lives_bytes(core.private_bytes) / PAGE
            + FIXED_TABLES
            + (self.machine.bundle_bytes / LARGE_PAGE + 2)
            + (core.private_bytes >> 30);
        // The direct map of the part that is in use goes by small pages: a table for each
        // large page, which are themselves in use.
        let bytes = (pages + pages / 512 + 2) * PAGE;
        let bytes = bytes.next_multiple_of(LARGE_PAGE);
        let trace = CommandLine::parse(self.machine.command_line()).trace;
        let records = trace.map_err(|BadTrace(_)| ImageError::Trace)?.records;
        let plan = Plan {
            cpu_driver,
            monitor,
            bytes,
            records,
        };
        let trace = plan.trace_bytes();
        // Behind a ring there must be something left: in front of it, the rest of the window is not used.
        let all = bytes + if trace == 0 { 0 } else { trace + LARGE_PAGE };
        if all > core.private_bytes {
            return Err(ImageError::NoRoom(all, trace));
        }
        Ok(plan)
    }

    fn symbol_bytes(&self) -> u64 {
        self.symbols.iter().map(|text| text.len() as u64).sum()
    }
}

/// Bytes from the start of the core's region that [`build`] fills: whole large pages.
pub fn needed_bytes(parts: &Parts<'_>) -> Result<u64, ImageError> {
    Ok(parts.plan()?.bytes)
}

/// Physical memory as a slice, handed out page by page from the front.
struct Window<'a> {
    bytes: &'a mut [u8],
    base: u64,
    used: u64,
}

impl Window<'_> {
    /// Takes zeroed pages.
    fn take(&mut self, pages: u64) -> Result<u64, ImageError> {
        let start = self.used as usize;
        let end = start + (pages * PAGE) as usize;
        let Some(memory) = self.bytes.get_mut(start..end) else {
            return Err(ImageError::NoRoom(end as u64, 0));
        };
        memory.fill(0);
        self.used = end as u64;
        Ok(self.base + start as u64)
    }

    fn write(&mut self, physical: u64, contents: &[u8]) {
        let start = (physical - self.base) as usize;
        self.bytes[start..start + contents.len()].copy_from_slice(contents);
    }

    /// Takes pages for `contents` and fills them.
    fn place(&mut self, contents: &[u8]) -> Result<u64, ImageError> {
        let physical = self.take((contents.len() as u64).div_ceil(PAGE).max(1))?;
        self.write(physical, contents);
        Ok(physical)
    }

    fn map(
        &mut self,
        root: u64,
        address: u64,
        physical: u64,
        pages: u64,
        flags: u64,
    ) -> Result<(), ImageError> {
        for page in 0..pages {
            let (at, to) = (address + page * PAGE, physical + page * PAGE);
            self.with_tables(root, at, flags, |window| {
                paging::map(window, root, at, to, 1, flags)
            })?;
        }
        Ok(())
    }

    /// Repeats a mapping, adding the tables it asks for.
    fn with_tables(
        &mut self,
        root: u64,
        address: u64,
        flags: u64,
        mut map: impl FnMut(&mut Self) -> Result<(), paging::Refusal>,
    ) -> Result<(), ImageError> {
        loop {
            match map(self) {
                Ok(()) => return Ok(()),
                Err(paging::Refusal {
                    error: Error::NeedTable,
                    level,
                }) => {
                    let page = self.take(1)?;
                    let flags = PRESENT | WRITABLE | (flags & USER);
                    paging::map_table(self, root, address, level as u32, page, flags)
                        .map_err(|refusal| ImageError::Layout(refusal.error))?;
                }
                Err(refusal) => return Err(ImageError::Layout(refusal.error)),
            }
        }
    }

    /// Loads and maps a segment; returns its physical address.
    fn load(&mut self, root: u64, segment: &Segment<'_>, flags: u64) -> Result<u64, ImageError> {
        let physical = self.take(segment.pages)?;
        self.write(physical + segment.lead, segment.contents);
        let mut flags = flags | PRESENT;
        if segment.writable {
            flags |= WRITABLE;
        }
        if !segment.executable {
            flags |= NO_EXECUTE;
        }
        self.map(root, segment.address, physical, segment.pages, flags)?;
        Ok(physical)
    }
}

impl TableMemory for Window<'_> {
    fn read(&self, table: u64, index: usize) -> u64 {
        let at = (table - self.base) as usize + index * 8;
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().expect("eight bytes"))
    }
    fn write(&mut self, table: u64, index: usize, entry: u64) {
        let at = (table - self.base) as usize + index * 8;
        self.bytes[at..at + 8].copy_from_slice(&entry.to_le_bytes());
    }
}

/// Fills `memory`, which is the first [`needed_bytes`] of the core's region, and returns
/// the core record as it stands there.
pub fn build(parts: &Parts<'_>, memory: &mut [u8]) -> Result<CoreRecord, ImageError> {
    let plan = parts.plan()?;
    let machine = parts.machine;
    let core = machine.cores[parts.core];
    if (memory.len() as u64) < plan.bytes {
        return Err(ImageError::NoRoom(plan.bytes, 0));
    }
    let window = &mut Window {
        bytes: &mut memory[..plan.bytes as usize],
        base: core.region,
        used: 0,
    };
    let data = PRESENT | WRITABLE | NO_EXECUTE;
    let constant = PRESENT | NO_EXECUTE;
    let record_page = window.take(1)?;

    // The kernel half: image, stacks, log, symbols, record, local APIC.
    let root = window.take(1)?;
    let mut read_only = arrayvec::ArrayVec::<(u64, u64), { crate::program::MAX_SEGMENTS }>::new();
    for segment in &plan.cpu_driver.segments {
        let physical = window.load(root, segment, GLOBAL)?;
        if !segment.writable {
            read_only.push((physical, segment.pages));
        }
    }
    for stack in 0..KERNEL_STACK_COUNT {
        let pages = KERNEL_STACK_BYTES / PAGE;
        let physical = window.take(pages)?;
        let bottom = kernel_stack_top(stack) - KERNEL_STACK_BYTES;
        window.map(root, bottom, physical, pages, data | GLOBAL)?;
    }
    let log_pages = LOG_BYTES as u64 / PAGE;
    let log = window.take(log_pages)?;
    window.map(root, KERNEL_LOG, log, log_pages, data | GLOBAL)?;
    let symbols_bytes = parts.symbol_bytes();
    let symbol_pages = symbols_bytes.div_ceil(PAGE).max(1);
    let symbols = window.take(symbol_pages)?;
    let mut at = symbols;
    for text in parts.symbols {
        window.write(at, text);
        at += text.len() as u64;
    }
    window.map(
        root,
        KERNEL_SYMBOLS,
        symbols,
        symbol_pages,
        constant | GLOBAL,
    )?;
    window.map(root, KERNEL_RECORD, record_page, 1, data | GLOBAL)?;
    window.map(
        root,
        KERNEL_LOCAL_APIC,
        machine.local_apic,
        1,
        data | UNCACHED | GLOBAL,
    )?;
    let machine_copy = window.place(machine.as_bytes())?;
    let dispatcher = window.take(DISPATCHER_BYTES / PAGE)?;
    let cnodes = window.take(CNODE_PAGES)?;
    let lives = window.take(lives_bytes(core.private_bytes) / PAGE)?;

    let trace = map_trace(window, root, &plan)?;

    // The direct map: small pages for what is in use here, large ones for the rest.
    for page in (0..plan.bytes).step_by(PAGE as usize) {
        let physical = core.region + page;
        let fixed = read_only
            .iter()
            .any(|(start, pages)| (*start..start + pages * PAGE).contains(&physical));
        let flags = if fixed { constant } else { data };
        window.map(root, DIRECT_MAP + physical, physical, 1, flags | GLOBAL)?;
    }
    for page in (plan.bytes..core.private_bytes).step_by(LARGE_PAGE as usize) {
        let physical = core.region + page;
        let (address, flags) = (DIRECT_MAP + physical, data | GLOBAL);
        window.with_tables(root, address, flags, |window| {
            paging::map_large(window, root, address, physical, flags)
        })?;
    }

    // The monitor, which shares the kernel half and has the lower half to itself.
    let user = window.take(1)?;
    for slot in index(KERNEL_HALF, 4)..512 {
        let entry = window.read(root, slot);
        TableMemory::write(window, user, slot, entry);
    }
    for segment in &plan.monitor.segments {
        match segment.in_place(parts.bundle, machine.bundle) {
            Some(physical) => {
                let flags = PRESENT | USER | if segment.executable { 0 } else { NO_EXECUTE };
                window.map(user, segment.address, physical, segment.pages, flags)?;
            }
            None => {
                window.load(user, segment, USER)?;
            }
        }
    }
    let stack_pages = USER_STACK_BYTES / PAGE;
    let stack = window.take(stack_pages)?;
    window.map(
        user,
        USER_STACK_TOP - USER_STACK_BYTES,
        stack,
        stack_pages,
        data | USER,
    )?;
    let heap_pages = MONITOR_HEAP_BYTES / PAGE;
    let heap = window.take(heap_pages)?;
    window.map(user, USER_HEAP, heap, heap_pages, data | USER)?;
    let start = window.take(1)?;
    window.map(user, USER_STARTUP, start, 1, constant | USER)?;
    let machine_pages = (size_of::<Machine>() as u64).div_ceil(PAGE);
    window.map(
        user,
        MONITOR_MACHINE,
        machine_copy,
        machine_pages,
        constant | USER,
    )?;
    window.map(user, MONITOR_LOG, log, log_pages, constant | USER)?;
    let bundle_pages = machine.bundle_bytes.div_ceil(PAGE);
    window.map(
        user,
        MONITOR_BUNDLE,
        machine.bundle,
        bundle_pages,
        constant | USER,
    )?;

    // A core comes out of the trampoline page into this address space: for one
    // instruction, the page must be there too. The CPU driver removes it at once.
    if machine.trampoline != 0 {
        window.map(root, machine.trampoline, machine.trampoline, 1, PRESENT)?;
    }

    // What is behind the trace is free, and without one what is not used of the window.
    let free = match plan.trace_bytes() {
        0 => core.region + window.used,
        bytes => trace + bytes,
    };
    let mut startup = monitor_startup(machine, parts.core);
    startup.free = free;
    if let Some(anew) = parts.anew {
        startup.life = anew.life;
        startup.parent = (anew.sponsor as u64) << 32;
        for (own, others) in startup.cores.iter_mut().zip(anew.cores) {
            *own |= others;
        }
        startup.core_count = startup.cores.iter().map(|word| word.count_ones()).sum();
    }
    window.write(start, startup.as_bytes());

    let mut record = CoreRecord::new_zeroed();
    record.magic = record::MAGIC;
    record.version = record::VERSION;
    record.core = parts.core as u32;
    record.apic_id = core.apic_id;
    record.state = record::state::LOADED;
    record.core_count = machine.core_count;
    record.region = core.region;
    record.private_bytes = core.private_bytes;
    record.shared_bytes = core.shared_bytes;
    record.free = free;
    record.log = log;
    record.symbols = symbols;
    record.symbols_bytes = symbols_bytes;
    record.kernel_page_table = root;
    record.monitor_page_table = user;
    record.monitor_entry = plan.monitor.entry;
    record.machine = machine_copy;
    record.monitor_dispatcher = dispatcher;
    record.monitor_cnodes = cnodes;
    record.table_lives = lives;
    record.trace = trace;
    window.write(record_page, record.as_bytes());
    Ok(record)
}

/// Maps the trace for ring 3 and for the CPU driver, and returns where its control page is. The ring lies behind
/// the window, where the core's CPU driver clears it: each its own, all at a time.
fn map_trace(window: &mut Window<'_>, root: u64, plan: &Plan<'_>) -> Result<u64, ImageError> {
    let data = PRESENT | WRITABLE | NO_EXECUTE | GLOBAL;
    let fixed = window.take(1)?;
    window.write(fixed, Fixed::new(plan.records).as_bytes());
    window.map(root, FIXED, fixed, 1, PRESENT | USER | NO_EXECUTE | GLOBAL)?;
    if plan.records == 0 {
        // Behind the control page one in place of a ring: whoever says there that something is on has the
        // records of its core put into this one.
        let pages = OFF_BYTES / PAGE;
        let control = window.take(pages)?;
        window.map(root, TRACE, control, pages, data | USER)?;
        // Whatever ring 3 writes to its control page, the CPU driver has another, in which nothing is on.
        let off = window.take(1)?;
        window.map(root, KERNEL_TRACE, off, 1, data)?;
        return Ok(control);
    }
    let control = window.base + plan.bytes;
    for page in (0..plan.trace_bytes()).step_by(LARGE_PAGE as usize) {
        for (start, flags) in [(TRACE, data | USER), (KERNEL_TRACE, data)] {
            window.with_tables(root, start + page, flags, |window| {
                paging::map_large(window, root, start + page, control + page, flags)
            })?;
        }
    }
    Ok(control)
}

fn monitor_startup(machine: &Machine, core: usize) -> Startup {
    let mut start = Startup::new_zeroed();
    start.magic = startup::MAGIC;
    start.domain = (core as u64) << 32;
    start.job = start.domain;
    start.core = core as u32;
    start.core_count = 1;
    start.cores[core / 64] = 1 << (core % 64);
    for (node, found) in start.node.iter_mut().zip(machine.cores()) {
        *node = found.node as u8;
    }
    start.tsc_start = machine.tsc_start;
    start.tsc_hz = machine.tsc_hz;
    start.heap = USER_HEAP;
    start.heap_bytes = MONITOR_HEAP_BYTES;
    start.vector = FIRST_DOORBELL as u32;
    let label = CommandLine::parse(machine.command_line())
        .accelerator
        .as_bytes();
    let length = label.len().min(start.accelerator.len());
    start.accelerator[..length].copy_from_slice(&label[..length]);
    start.name[..7].copy_from_slice(b"monitor");
    let fits = start.set_text(b"monitor", b"");
    debug_assert!(fits);
    start
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::program::tests::elf_file;
    use abi::machine::Core;
    use std::boxed::Box;
    use std::vec::Vec;

    const REGION: u64 = 0x4020_0000;

    fn machine() -> Box<Machine> {
        let mut machine = Box::new(Machine::EMPTY);
        machine.core_count = 2;
        machine.node_count = 1;
        machine.cores[1] = Core {
            apic_id: 7,
            region: REGION,
            private_bytes: 6 << 20,
            shared_bytes: 2 << 20,
            ..Core::default()
        };
        machine.local_apic = 0xfee0_0000;
        machine.bundle = 0x10_0000;
        machine.bundle_bytes = 5000;
        machine.trampoline = 0x8000;
        machine
    }

    fn set_words(machine: &mut Machine, words: &str) {
        machine.command_line[..words.len()].copy_from_slice(words.as_bytes());
        machine.command_line_bytes = words.len() as u64;
        if words.contains("trace") {
            machine.cores[1].private_bytes = 16 << 20;
        }
    }

    fn programs() -> (Vec<u8>, Vec<u8>) {
        let kernel = elf_file(
            KERNEL_IMAGE + 4,
            &[
                (KERNEL_IMAGE, 5, b"kernel text", 5000),
                (KERNEL_IMAGE + 0x2000, 4, b"kernel constants", 16),
                (KERNEL_IMAGE + 0x3000, 6, b"kernel data", 9000),
            ],
        );
        let monitor = elf_file(
            USER_IMAGE,
            &[
                (USER_IMAGE, 5, b"monitor text", 12),
                (USER_IMAGE + 0x1000, 6, b"data", 4),
            ],
        );
        (kernel, monitor)
    }

    fn built(dirt: u8) -> (Vec<u8>, CoreRecord, Box<Machine>) {
        built_as(dirt, None)
    }

    fn built_as(dirt: u8, anew: Option<Anew>) -> (Vec<u8>, CoreRecord, Box<Machine>) {
        built_with(dirt, anew, "")
    }

    fn built_with(
        dirt: u8,
        anew: Option<Anew>,
        words: &str,
    ) -> (Vec<u8>, CoreRecord, Box<Machine>) {
        let mut machine = machine();
        set_words(&mut machine, words);
        let (cpu_driver, monitor) = programs();
        let parts = Parts {
            machine: &machine,
            core: 1,
            bundle: b"",
            cpu_driver: &cpu_driver,
            monitor: &monitor,
            symbols: [b"ffffffff80000004 start\n", b"0000000000400000 main\n"],
            anew,
        };
        let mut memory = std::vec![dirt; needed_bytes(&parts).expect("room") as usize];
        let record = build(&parts, &mut memory).expect("built");
        (memory, record, machine)
    }

    fn read(memory: &mut [u8], root: u64, address: u64) -> (u64, u64, Vec<u8>) {
        let window = Window {
            bytes: memory,
            base: REGION,
            used: 0,
        };
        let found = paging::lookup(&window, root, address).expect("mapped");
        let offset = (found.physical - REGION) as usize;
        (
            found.physical,
            found.flags,
            window.bytes[offset..offset + 24].to_vec(),
        )
    }

    #[test]
    fn a_core_finds_its_image_and_its_monitor() {
        let (mut memory, record, _) = built(0xaa);
        let (_, flags, text) = read(&mut memory, record.kernel_page_table, KERNEL_IMAGE);
        assert_eq!((flags, &text[..11]), (0, &b"kernel text"[..]));
        let (_, flags, data) = read(
            &mut memory,
            record.monitor_page_table,
            KERNEL_IMAGE + 0x3000,
        );
        assert_eq!(
            (flags, &data[..11]),
            (WRITABLE | NO_EXECUTE, &b"kernel data"[..])
        );
        let (_, flags, text) = read(&mut memory, record.monitor_page_table, USER_IMAGE);
        assert_eq!((flags, &text[..12]), (USER, &b"monitor text"[..]));
        let (_, _, page) = read(&mut memory, record.kernel_page_table, KERNEL_RECORD);
        assert_eq!(&page[..8], b"ATOLLCPU");
        let (_, flags, start) = read(&mut memory, record.monitor_page_table, USER_STARTUP);
        assert_eq!((flags, &start[..8]), (USER | NO_EXECUTE, &b"ATOLLDOM"[..]));
        assert!(record.free <= REGION + memory.len() as u64);
    }

    #[test]
    fn code_in_whole_pages_of_the_bundle_is_run_from_there() {
        let mut machine = machine();
        let (cpu_driver, _) = programs();
        let text = [0x90; 6000];
        let monitor = elf_file(
            USER_IMAGE,
            &[
                (USER_IMAGE, 5, &text, 6000),
                (USER_IMAGE + 0x2000, 6, b"data", 4),
            ],
        );
        // A file whose text starts at a page of the bundle: a page in, less its headers.
        let headers = monitor.len() - text.len() - 4;
        for (misfit, expected) in [(0, true), (16, false)] {
            let mut bundle = std::vec![0u8; 4096 - headers + misfit];
            bundle.extend_from_slice(&monitor);
            bundle.resize(16384, 0);
            machine.bundle_bytes = bundle.len() as u64;
            let parts = Parts {
                machine: &machine,
                core: 1,
                bundle: &bundle,
                cpu_driver: &cpu_driver,
                monitor: &bundle[4096 - headers + misfit..4096 - headers + misfit + monitor.len()],
                symbols: [b"", b""],
                anew: None,
            };
            let mut memory = std::vec![0; needed_bytes(&parts).expect("room") as usize];
            let record = build(&parts, &mut memory).expect("built");
            let window = Window {
                bytes: &mut memory,
                base: REGION,
                used: 0,
            };
            let found = |address| {
                paging::lookup(&window, record.monitor_page_table, address).expect("mapped")
            };
            let place = found(USER_IMAGE + 0x1000);
            assert_eq!(place.physical == machine.bundle + 2 * PAGE, expected);
            assert_eq!(place.flags, USER);
            assert!(
                found(USER_IMAGE + 0x2000).physical >= REGION,
                "data is the core's own"
            );
        }
    }

    #[test]
    fn guard_pages_stay_empty() {
        let (mut memory, record, _) = built(0);
        let window = Window {
            bytes: &mut memory,
            base: REGION,
            used: 0,
        };
        for stack in 0..KERNEL_STACK_COUNT {
            let below = kernel_stack_top(stack) - KERNEL_STACK_BYTES - 1;
            assert!(paging::lookup(&window, record.kernel_page_table, below).is_err());
        }
        let below = USER_STACK_TOP - USER_STACK_BYTES - 1;
        assert!(paging::lookup(&window, record.monitor_page_table, below).is_err());
    }

    #[test]
    fn the_kernel_half_maps_private_ram_only_and_nothing_writable_is_executable() {
        the_kernel_half_is_sound(built(0x55), OFF_BYTES);
        the_kernel_half_is_sound(built_with(0x55, None, "trace=1"), LARGE_PAGE);
        let half = LARGE_PAGE / size_of::<trace::Record>() as u64;
        let words = std::format!("x trace={half},none");
        the_kernel_half_is_sound(built_with(0x55, None, &words), 2 * LARGE_PAGE);
    }

    fn the_kernel_half_is_sound(
        (mut memory, record, machine): (Vec<u8>, CoreRecord, Box<Machine>),
        traced: u64,
    ) {
        let window = Window {
            bytes: &mut memory,
            base: REGION,
            used: 0,
        };
        let private = REGION..REGION + machine.cores[1].private_bytes;
        let (mut written, mut executed) = (Vec::new(), Vec::new());
        let mut mapped = 0;
        let (mut from, mut open) = (0, Vec::new());
        while let Some(run) = paging::next_kernel_mapping(&window, record.kernel_page_table, from) {
            from = run.address + run.bytes;
            mapped += 1;
            let range = run.physical..run.physical + run.bytes;
            if range.start != machine.local_apic {
                assert!(
                    private.contains(&range.start) && range.end <= private.end,
                    "{run:x?}"
                );
            }
            if run.flags & USER != 0 {
                open.push((run.address, run.bytes, run.flags));
            }
            if run.flags & WRITABLE != 0 {
                written.push(range.clone());
            }
            if run.flags & NO_EXECUTE == 0 {
                executed.push(range);
            }
        }
        assert!(mapped > 8 && !executed.is_empty());
        // Of the trace, ring 3 sees where it may write and how large it is: nothing else of the kernel half.
        assert_eq!(
            open,
            [
                (TRACE, traced, USER | WRITABLE | NO_EXECUTE),
                (FIXED, PAGE, USER | NO_EXECUTE)
            ]
        );
        for root in [record.kernel_page_table, record.monitor_page_table] {
            let found = |address| paging::lookup(&window, root, address);
            let (ring, alias) = (
                found(TRACE).expect("a page"),
                found(KERNEL_TRACE).expect("a page"),
            );
            assert_eq!(ring.physical, record.trace);
            assert_eq!(alias.flags, WRITABLE | NO_EXECUTE);
            // Where there is no ring, the CPU driver does not look at what ring 3 can write to.
            assert_eq!(alias.physical == ring.physical, traced > OFF_BYTES);
        }
        for write in &written {
            for execute in &executed {
                assert!(write.end <= execute.start || execute.end <= write.start);
            }
        }
    }

    #[test]
    fn a_ring_lies_between_what_is_used_and_what_is_free() {
        let (mut memory, record, machine) = built_with(0xff, None, "trace=65536");
        let end = REGION + machine.cores[1].private_bytes;
        let bytes = trace::bytes(65536).next_multiple_of(LARGE_PAGE);
        assert_eq!(record.trace, REGION + memory.len() as u64);
        assert_eq!(record.free, record.trace + bytes);
        assert!(record.free < end);
        let (_, _, fixed) = read(&mut memory, record.monitor_page_table, FIXED);
        assert_eq!(fixed, Fixed::new(65536).as_bytes());
        let (_, record, _) = built(0xff);
        assert!(record.trace < record.free);

        let mut machine = self::machine();
        let (cpu_driver, monitor) = programs();
        for (words, private, expected) in [
            ("trace=1", 6 << 20, Ok(2 << 20)),
            (
                "trace=1",
                4 << 20,
                Err(ImageError::NoRoom(6 << 20, 2 << 20)),
            ),
            (
                "trace=4194304",
                16 << 20,
                Err(ImageError::NoRoom(134 << 20, 130 << 20)),
            ),
            ("trace=3", 16 << 20, Err(ImageError::Trace)),
        ] {
            set_words(&mut machine, words);
            machine.cores[1].private_bytes = private;
            let parts = Parts {
                machine: &machine,
                core: 1,
                bundle: b"",
                cpu_driver: &cpu_driver,
                monitor: &monitor,
                symbols: [b"", b""],
                anew: None,
            };
            assert_eq!(needed_bytes(&parts), expected, "{words} in {private}");
        }
    }

    #[test]
    fn what_lay_in_memory_before_does_not_show() {
        assert_eq!(
            built(0).0[..built(0).1.free as usize - REGION as usize],
            built(0xff).0[..built(0).1.free as usize - REGION as usize]
        );
    }

    #[test]
    fn a_monitor_that_comes_back_is_told_by_whom_and_to_whom() {
        for (anew, expected) in [
            (None, (0, 0, [2, 0, 0, 0], 1)),
            (
                Some(Anew {
                    life: 7,
                    sponsor: 200,
                    cores: [9, 0, 0, 1 << 8],
                }),
                (7, 200 << 32, [11, 0, 0, 1 << 8], 4),
            ),
        ] {
            let (mut memory, record, _) = built_as(0xee, anew);
            let (physical, _, _) = read(&mut memory, record.monitor_page_table, USER_STARTUP);
            let at = (physical - REGION) as usize;
            let bytes = &memory[at..at + size_of::<Startup>()];
            let start: Startup = zerocopy::FromBytes::read_from_bytes(bytes).expect("a page");
            let found = (start.life, start.parent, start.cores, start.core_count);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn errors_name_the_part() {
        let machine = machine();
        let (cpu_driver, monitor) = programs();
        let parts = Parts {
            machine: &machine,
            core: 1,
            bundle: b"",
            cpu_driver: &cpu_driver,
            monitor: &monitor,
            symbols: [b"", b""],
            anew: None,
        };
        let mut memory = std::vec![0; 4 << 20];
        let broken = Parts {
            monitor: b"no",
            ..parts
        };
        assert_eq!(
            build(&broken, &mut memory).err(),
            Some(ImageError::Monitor(ProgramError::Malformed))
        );
        let broken = Parts {
            cpu_driver: &monitor,
            ..parts
        };
        assert_eq!(
            build(&broken, &mut memory).err(),
            Some(ImageError::CpuDriver(ProgramError::OutOfRange))
        );
        let broken = Parts { core: 2, ..parts };
        assert_eq!(
            build(&broken, &mut memory).err(),
            Some(ImageError::NoSuchCore)
        );
        assert!(matches!(
            build(&parts, &mut memory[..PAGE as usize]).err(),
            Some(ImageError::NoRoom(_, 0))
        ));
    }
}
