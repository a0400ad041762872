//! QEMU's side: its functions, and what it calls.
//!
//! QEMU loads a plugin only if the interface version that it names is one that QEMU speaks: 7.2
//! speaks 1 alone, 10.0 wants 2 or newer. The functions used here are the same in all of them but
//! for one, so the library names the newest that it finds in the QEMU that loads it.

use crate::code::{self, Mark};
use crate::counter::{Access, Counter};
use crate::lines::{MAX_CORES, PAGE};
use crate::output;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A callback needs no registers.
const NO_REGISTERS: c_int = 0;
/// Loads and stores.
const READ_AND_WRITE: c_int = 3;
/// From this version on, an instruction's bytes are copied out.
const COPIES_CODE: c_int = 3;
/// Most bytes of an instruction.
const INSTRUCTION_BYTES: usize = 16;
/// For each version its mark: a function that it added.
const VERSIONS: [(c_int, &CStr); 4] = [
    (6, c"qemu_plugin_register_vcpu_discon_cb"),
    (5, c"qemu_plugin_write_memory_vaddr"),
    (4, c"qemu_plugin_read_memory_vaddr"),
    (2, c"qemu_plugin_num_vcpus"),
];

/// What QEMU tells of itself.
#[repr(C)]
struct Info {
    target: *const c_char,
    least_version: c_int,
    version: c_int,
    is_system: bool,
    cores: c_int,
    most_cores: c_int,
}

/// A translated piece of code.
#[repr(C)]
struct Block(c_void);
/// An instruction in it.
#[repr(C)]
struct Instruction(c_void);
/// Where an access ended up.
#[repr(C)]
struct Place(c_void);

type AtTranslation = extern "C" fn(u64, *mut Block);
type AtInstruction = extern "C" fn(c_uint, *mut c_void);
type AtAccess = extern "C" fn(c_uint, u32, u64, *mut c_void);
type AtExit = extern "C" fn(u64, *mut c_void);

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(plugin: u64, call: AtTranslation);
    fn qemu_plugin_register_atexit_cb(plugin: u64, call: AtExit, data: *mut c_void);
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    fn qemu_plugin_insn_size(instruction: *const Instruction) -> usize;
    fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    /// As of [`COPIES_CODE`]; before, it took the instruction alone and gave a pointer.
    fn qemu_plugin_insn_data(
        instruction: *const Instruction,
        to: *mut c_void,
        bytes: usize,
    ) -> usize;
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        call: AtInstruction,
        registers: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_mem_cb(
        instruction: *mut Instruction,
        call: AtAccess,
        registers: c_int,
        which: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_mem_size_shift(access: u32) -> c_uint;
    fn qemu_plugin_mem_is_store(access: u32) -> bool;
    fn qemu_plugin_get_hwaddr(access: u32, address: u64) -> *const Place;
    fn qemu_plugin_hwaddr_is_io(place: *const Place) -> bool;
    fn qemu_plugin_hwaddr_phys_addr(place: *const Place) -> u64;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// The version of the interface that this plugin wants.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)] // the name is QEMU's
pub static qemu_plugin_version: AtomicI32 = AtomicI32::new(1);

/// Run when the library is loaded, before QEMU looks at the version.
#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE_VERSION: extern "C" fn() = choose_version;

extern "C" fn choose_version() {
    // SAFETY: the names end with a zero, and a null library means all that are loaded.
    let has = |name: &CStr| unsafe { !dlsym(ptr::null_mut(), name.as_ptr()).is_null() };
    if let Some((version, _)) = VERSIONS.iter().find(|(_, name)| has(name)) {
        qemu_plugin_version.store(*version, Ordering::Relaxed);
    }
}

/// What the plugin keeps while the guest runs.
struct State {
    counter: Counter,
    cores: usize,
    out: BufWriter<File>,
    /// The version that QEMU speaks.
    version: c_int,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

fn state() -> MutexGuard<'static, Option<State>> {
    // Counts that a panic left half done are never written: a panic ends QEMU.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Called by QEMU once.
///
/// # Safety
/// `info` points to what QEMU tells of itself, `words` to `count` strings.
#[unsafe(no_mangle)]
unsafe extern "C" fn qemu_plugin_install(
    plugin: u64,
    info: *const Info,
    count: c_int,
    words: *const *const c_char,
) -> c_int {
    // SAFETY: the caller's promise; the strings last as long as the plugin.
    let (info, words) = unsafe {
        let count = usize::try_from(count).unwrap_or(0);
        let words = (0..count).map(|at| {
            CStr::from_ptr(*words.add(at))
                .to_string_lossy()
                .into_owned()
        });
        (&*info, words.collect::<Vec<_>>())
    };
    match begin(info, &words) {
        Ok(begun) => *state() = Some(begun),
        Err(reason) => {
            eprintln!("coherence: {reason}");
            return 1;
        }
    }
    // SAFETY: the functions have the types that QEMU calls them by.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(plugin, at_translation);
        qemu_plugin_register_atexit_cb(plugin, at_exit, ptr::null_mut());
    }
    0
}

fn begin(info: &Info, words: &[String]) -> Result<State, String> {
    let cores = usize::try_from(info.most_cores).unwrap_or(0);
    if !info.is_system || cores == 0 || cores > MAX_CORES {
        return Err(format!(
            "expected a machine of 1 to {MAX_CORES} cores, found {cores}"
        ));
    }
    let paths: Vec<_> = words
        .iter()
        .filter_map(|word| word.strip_prefix("out="))
        .collect();
    let &[path] = paths.as_slice() else {
        return Err(format!("expected out=FILE, found {words:?}"));
    };
    let file = File::create(path).map_err(|error| format!("cannot write {path}: {error}"))?;
    Ok(State {
        counter: Counter::new(cores),
        cores,
        out: BufWriter::new(file),
        version: info.version,
    })
}

/// The bytes of an instruction.
///
/// # Safety
/// The instruction is one that QEMU is translating, and `version` what QEMU speaks.
unsafe fn bytes_of(
    instruction: *const Instruction,
    version: c_int,
) -> ([u8; INSTRUCTION_BYTES], usize) {
    let mut code = [0; INSTRUCTION_BYTES];
    // SAFETY: the caller's promise. Before they were copied, the function ignored what it is
    // given beyond the instruction, and what it gave back is a pointer to so many bytes.
    unsafe {
        let size = qemu_plugin_insn_size(instruction).min(INSTRUCTION_BYTES);
        let given = qemu_plugin_insn_data(instruction, code.as_mut_ptr().cast(), size);
        if version < COPIES_CODE {
            let given = ptr::with_exposed_provenance::<u8>(given);
            ptr::copy_nonoverlapping(given, code.as_mut_ptr(), size);
        }
        (code, size)
    }
}

extern "C" fn at_translation(_: u64, block: *mut Block) {
    let Some(version) = state().as_ref().map(|state| state.version) else {
        return;
    };
    // SAFETY: QEMU hands over a block that it is translating.
    let count = unsafe { qemu_plugin_tb_n_insns(block) };
    for index in 0..count {
        // SAFETY: there are that many, and they last as long as this call. The functions have the
        // types that QEMU calls them by; their data are numbers, never followed as pointers.
        unsafe {
            let instruction = qemu_plugin_tb_get_insn(block, index);
            let (code, size) = bytes_of(instruction, version);
            let code = &code[..size];
            let mark = ptr::without_provenance_mut(pack_mark(code::mark(code)));
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, at_instruction, NO_REGISTERS, mark);
            // Addresses are canonical: their highest bit can be had from the one below.
            let address = qemu_plugin_insn_vaddr(instruction);
            let data = (address << 1 | u64::from(code::is_locked(code))) as usize;
            let data = ptr::without_provenance_mut(data);
            qemu_plugin_register_vcpu_mem_cb(
                instruction,
                at_access,
                NO_REGISTERS,
                READ_AND_WRITE,
                data,
            );
        }
    }
}

/// A mark as a number; 0: none.
fn pack_mark(mark: Option<Mark>) -> usize {
    match mark {
        None => 0,
        Some(Mark::Begin(number)) => 1 + 2 * number,
        Some(Mark::End(number)) => 2 + 2 * number,
    }
}

fn unpack_mark(number: usize) -> Option<Mark> {
    let index = number.checked_sub(1)?;
    Some(match index % 2 {
        0 => Mark::Begin(index / 2),
        _ => Mark::End(index / 2),
    })
}

extern "C" fn at_instruction(core: c_uint, mark: *mut c_void) {
    let Some(State { counter, .. }) = &mut *state() else {
        return;
    };
    counter.instruction(core as usize);
    if let Some(mark) = unpack_mark(mark.addr()) {
        counter.mark(core as usize, mark);
    }
}

extern "C" fn at_access(core: c_uint, access: u32, address: u64, data: *mut c_void) {
    let Some(State { counter, .. }) = &mut *state() else {
        return;
    };
    let core = core as usize;
    let data = data.addr() as u64;
    // SAFETY: asked during the access, of the access.
    let (bytes, is_store) = unsafe {
        (
            1 << qemu_plugin_mem_size_shift(access),
            qemu_plugin_mem_is_store(access),
        )
    };
    // What reaches into another page may be anywhere.
    let here = (PAGE - address % PAGE).min(bytes);
    for (first, bytes) in [(address, here), (address + here, bytes - here)] {
        if bytes == 0 {
            continue;
        }
        // SAFETY: asked during the access; the place lasts until the next is asked for.
        let place = unsafe {
            let place = qemu_plugin_get_hwaddr(access, first);
            let is_known = !place.is_null();
            let is_device = is_known && qemu_plugin_hwaddr_is_io(place);
            (is_known && !is_device)
                .then(|| qemu_plugin_hwaddr_phys_addr(place))
                .ok_or(is_device)
        };
        match place {
            Ok(address) => counter.access(
                core,
                &Access {
                    address,
                    bytes,
                    is_store,
                    is_locked: data & 1 == 1,
                    at: ((data as i64) >> 1) as u64,
                },
            ),
            Err(true) => counter.device(core),
            Err(false) => counter.unresolved += 1,
        }
    }
}

extern "C" fn at_exit(_: u64, _: *mut c_void) {
    let Some(mut state) = state().take() else {
        return;
    };
    let written = output::write(&mut state.counter, state.cores, &mut state.out);
    if let Err(error) = written.and_then(|()| state.out.flush()) {
        eprintln!("coherence: cannot write the counts: {error}");
    }
}
