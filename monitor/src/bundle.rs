//! The programs there are.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use rt::authority;
use spin::LazyLock;
use tar_no_std::TarArchiveRef;

/// Every file of the bundle by its name. The archive has no index: without this one, finding a
/// program costs more than loading it.
static FILES: LazyLock<BTreeMap<String, &'static [u8]>> = LazyLock::new(|| {
    let archive = TarArchiveRef::new(authority::bundle());
    let entries = archive.iter().flat_map(TarArchiveRef::entries);
    entries
        .filter_map(|entry| {
            let name = entry.filename().as_str().map(String::from);
            Some((name.ok()?, entry.data()))
        })
        .collect()
});

/// A file of the bundle.
pub fn file(name: &str) -> Option<&'static [u8]> {
    FILES.get(name).copied()
}

/// The names of all programs, for people.
pub fn names() -> String {
    let names = FILES.keys().map(String::as_str);
    let programs: Vec<&str> = names.filter(|name| is_program(name)).collect();
    programs.join(", ")
}

/// Whether a file of the bundle is a user program.
pub fn is_program(name: &str) -> bool {
    !name.ends_with(".sym") && !name.starts_with('.') && !matches!(name, "cpudriver" | "monitor")
}
