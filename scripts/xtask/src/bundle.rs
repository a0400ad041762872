//! Packs CPU driver, monitor and programs into the one archive that a boot carries.
//!
//! A tar archive (ustar) of `NAME` and `NAME.sym` for each: the executable without its
//! symbols and its symbol table. The same executables give the same bytes.

use crate::build::{self, Executables};
use crate::failure::{BuildError, Failure};
use crate::project::Project;
use crate::strip;
use crate::symbols;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A system ready to boot.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// Executable that QEMU loads.
    pub bridge: PathBuf,
    /// The archive that goes with it.
    pub bundle: PathBuf,
    /// Names of the user programs in it.
    pub programs: Vec<String>,
    /// All executables with their symbols, for debuggers and tests.
    pub executables: Executables,
}

/// Builds the system and packs it.
pub fn prepare(project: &Project) -> Result<System, Failure> {
    let executables = build::build(project)?;
    let bytes = pack(&executables)?;
    let folder = project.own_folder();
    let bundle = folder.join("bundle.tar");
    fs::create_dir_all(&folder)
        .and_then(|()| write_if_changed(&bundle, &bytes))
        .map_err(Failure::host(format!("cannot write {}", bundle.display())))?;
    Ok(System {
        bridge: executables.bridge.clone(),
        bundle,
        programs: executables.programs.keys().cloned().collect(),
        executables,
    })
}

impl System {
    /// Tells a person how to attach a debugger at `port`.
    pub fn how_to_attach(&self, port: u16, program: &str) -> String {
        let path = |path: &Path| path.display().to_string();
        let mut words = format!(
            "the guest waits for a debugger; attach one from another terminal:\n    \
             gdb {} -ex 'add-symbol-file {}' -ex 'target remote 127.0.0.1:{port}'\n\
             then set breakpoints and `continue`.",
            path(&self.executables.cpudriver),
            path(&self.executables.monitor),
        );
        if let Some(executable) = self.executables.programs.get(program) {
            words.push_str(&format!(
                " All programs lie at the same addresses: to see symbols of {program}, add \
                 {} in place of the monitor.",
                path(executable)
            ));
        }
        words
    }
}

/// The archive's bytes.
fn pack(executables: &Executables) -> Result<Vec<u8>, Failure> {
    let mut archive = tar::Builder::new(Vec::new());
    let first = [
        ("cpudriver", &executables.cpudriver),
        ("monitor", &executables.monitor),
    ];
    let programs = executables
        .programs
        .iter()
        .map(|(name, path)| (name.as_str(), path));
    for (name, path) in first.into_iter().chain(programs) {
        let file =
            fs::read(path).map_err(Failure::host(format!("cannot read {}", path.display())))?;
        let bad_elf = |found| BuildError::BadElf {
            path: path.clone(),
            found,
        };
        let stripped = strip::strip(&file).map_err(bad_elf)?;
        let table = symbols::table(&file).map_err(bad_elf)?;
        align(&mut archive)
            .and_then(|()| append(&mut archive, name, 0o755, &stripped))
            .and_then(|()| {
                append(
                    &mut archive,
                    &format!("{name}.sym"),
                    0o644,
                    table.as_bytes(),
                )
            })
            .map_err(Failure::host(format!("cannot pack {name}")))?;
    }
    archive
        .into_inner()
        .map_err(Failure::host("cannot finish the bundle"))
}

/// Bytes of a page of the guest.
const PAGE: usize = 4096;
/// Bytes of an entry's header, and the unit that entries are filled up to.
const BLOCK: usize = 512;
/// Name of entries that only fill up space.
const FILLER: &str = ".align";

/// Fills up so that the next file's contents start at a page: its code can then be run
/// where it lies.
fn align(archive: &mut tar::Builder<Vec<u8>>) -> io::Result<()> {
    let position = archive.get_ref().len();
    if (position + BLOCK).is_multiple_of(PAGE) {
        return Ok(());
    }
    let after_filler = position + 2 * BLOCK;
    let filler = after_filler.next_multiple_of(PAGE) - after_filler;
    append(archive, FILLER, 0o444, &vec![0; filler])
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    name: &str,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_cksum();
    archive.append(&header, content)
}

/// Leaves the file alone where it holds these bytes already. Another run of this tool sees
/// either the old or the new file, never a part.
fn write_if_changed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn executables() -> Executables {
        let this = std::env::current_exe().unwrap();
        Executables {
            bridge: this.clone(),
            cpudriver: this.clone(),
            monitor: this.clone(),
            programs: [("hello".to_owned(), this)].into(),
        }
    }

    #[test]
    fn packs_executables_and_symbols_the_same_way_each_time() {
        let bytes = pack(&executables()).unwrap();
        assert_eq!(bytes, pack(&executables()).unwrap());
        let mut names = Vec::new();
        let mut archive = tar::Archive::new(bytes.as_slice());
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            if name == FILLER {
                continue; // of any length, 0 too
            }
            let mut start = [0; 4];
            entry.read_exact(&mut start).unwrap();
            if !name.ends_with(".sym") {
                assert!(
                    entry.raw_file_position().is_multiple_of(PAGE as u64),
                    "{name}"
                );
            }
            assert_eq!(start == *b"\x7fELF", !name.ends_with(".sym"), "{name}");
            assert_eq!(entry.header().mtime().unwrap(), 0);
            names.push(name);
        }
        assert_eq!(
            names,
            [
                "cpudriver",
                "cpudriver.sym",
                "monitor",
                "monitor.sym",
                "hello",
                "hello.sym"
            ]
        );
    }

    #[test]
    fn refuses_a_file_that_is_no_executable() {
        let mut executables = executables();
        executables.monitor = PathBuf::from("/proc/self/comm");
        let failure = pack(&executables).unwrap_err();
        let text = failure.to_string();
        assert!(
            text.contains("/proc/self/comm: expected an ELF64"),
            "{text}"
        );
    }

    #[test]
    fn a_file_is_written_only_when_it_changes() {
        let path = std::env::temp_dir().join(format!("atoll-bundle-{}", std::process::id()));
        write_if_changed(&path, b"one").unwrap();
        let first = fs::metadata(&path).unwrap().modified().unwrap();
        write_if_changed(&path, b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), first);
        write_if_changed(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        fs::remove_file(&path).unwrap();
    }
}
