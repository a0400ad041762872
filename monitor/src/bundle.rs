//! The programs there are.

use alloc::string::String;
use alloc::vec::Vec;
use rt::authority;
use tar_no_std::TarArchiveRef;

/// A file of the bundle.
pub fn file(name: &str) -> Option<&'static [u8]> {
    let archive = TarArchiveRef::new(authority::bundle()).ok()?;
    archive
        .entries()
        .find(|entry| entry.filename().as_str() == Ok(name))
        .map(|entry| entry.data())
}

/// The names of all programs, for people.
pub fn names() -> String {
    let Ok(archive) = TarArchiveRef::new(authority::bundle()) else {
        return String::new();
    };
    let names: Vec<String> = archive
        .entries()
        .filter_map(|entry| entry.filename().as_str().ok().map(String::from))
        .filter(|name| is_program(name))
        .collect();
    names.join(", ")
}

/// Whether a file of the bundle is a user program.
pub fn is_program(name: &str) -> bool {
    !name.ends_with(".sym") && !name.starts_with('.') && !matches!(name, "cpudriver" | "monitor")
}
