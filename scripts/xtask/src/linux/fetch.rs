//! Gets Debian's cloud kernel with apt, and installs nothing.

use crate::failure::Failure;
use crate::install;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The package that always needs the newest one.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
const PACKAGE: &str = "linux-image-";
const KERNEL: &str = "vmlinuz-";

/// The kernel in this folder, else a freshly fetched one.
pub fn kernel(folder: &Path) -> Result<PathBuf, Failure> {
    if let Some(kernel) = find(folder, |name| name.starts_with(KERNEL)) {
        return Ok(kernel);
    }
    fs::create_dir_all(folder)
        .map_err(Failure::host(format!("cannot make {}", folder.display())))?;
    let package = match download(folder) {
        // A machine that is new has no index of packages, or an old one.
        Err(_) if install::as_root(install::REFRESH) => download(folder)?,
        package => package?,
    };
    let file = find(folder, |name| {
        name.starts_with(&package) && name.ends_with(".deb")
    })
    .ok_or_else(|| missing(&format!("apt-get download {package} left no file")))?;
    let path = file.to_string_lossy();
    let tar = ask(folder, "dpkg-deb", &["--fsys-tarfile", &path])?;
    let kernel = unpack(&tar, folder)
        .map_err(Failure::host(format!("cannot unpack {path}")))?
        .ok_or_else(|| missing(&format!("{package} has no {KERNEL}*")))?;
    // 27 MB that are of no more use.
    let _ = fs::remove_file(&file);
    Ok(kernel)
}

/// Downloads the package, and tells which it is.
fn download(folder: &Path) -> Result<String, Failure> {
    let depends = ask(folder, "apt-cache", &["depends", META_PACKAGE])?;
    let package = package(&depends).ok_or_else(|| {
        missing(&format!(
            "apt-cache names no package that {META_PACKAGE} needs"
        ))
    })?;
    ask(folder, "apt-get", &["download", &package])?;
    Ok(package)
}

fn missing(why: &str) -> Failure {
    Failure::MissingTool {
        tool: format!("Debian's cloud kernel ({why})"),
        install: "sudo apt-get update    # on Debian, with a network".to_owned(),
    }
}

/// What a command answers, run in a folder.
fn ask(folder: &Path, program: &str, words: &[&str]) -> Result<Vec<u8>, Failure> {
    let output = Command::new(program)
        .args(words)
        .env("LC_ALL", "C")
        .current_dir(folder)
        .stdin(Stdio::null())
        .output();
    let said = |why: &str| missing(&format!("{program} {}: {why}", words.join(" ")));
    match output {
        Err(error) => Err(said(&error.to_string())),
        Ok(output) if !output.status.success() => {
            Err(said(String::from_utf8_lossy(&output.stderr).trim()))
        }
        Ok(output) => Ok(output.stdout),
    }
}

/// The kernel's package in what `apt-cache depends` says.
fn package(said: &[u8]) -> Option<String> {
    String::from_utf8_lossy(said)
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(PACKAGE))
        .map(str::to_owned)
}

/// The first file of a folder whose name fits.
fn find(folder: &Path, fits: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| fits(&name.to_string_lossy()))
        })
        .collect();
    files.sort();
    files.into_iter().next()
}

/// Takes the kernel out of an archive.
fn unpack(archive: &[u8], folder: &Path) -> io::Result<Option<PathBuf>> {
    for file in tar::Archive::new(archive).entries()? {
        let mut file = file?;
        let path = file.path()?.into_owned();
        let Some(name) = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
        else {
            continue;
        };
        if name.starts_with(KERNEL) {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            // Under its name only when it is whole.
            let part = folder.join("part");
            fs::write(&part, bytes)?;
            let kernel = folder.join(name);
            fs::rename(&part, &kernel)?;
            return Ok(Some(kernel));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Status;

    #[test]
    fn finds_the_package_that_is_needed() {
        let said = b"linux-image-cloud-amd64\n  Depends: base\n  Depends: linux-image-6.1.0-9-cloud-amd64\n";
        assert_eq!(package(said).unwrap(), "linux-image-6.1.0-9-cloud-amd64");
        assert_eq!(package(b"nothing"), None);
    }

    #[test]
    fn takes_the_kernel_out_of_an_archive() {
        let folder = std::env::temp_dir().join(format!("atoll-kernel-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in [("boot/config-6", &b"no"[..]), ("boot/vmlinuz-6", b"kernel")] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, bytes).unwrap();
        }
        let unpacked = unpack(&builder.into_inner().unwrap(), &folder)
            .unwrap()
            .unwrap();
        assert_eq!(fs::read(&unpacked).unwrap(), b"kernel");
        // It is there now, so nobody asks apt.
        assert_eq!(kernel(&folder).unwrap(), unpacked);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn says_what_is_missing() {
        let failure = ask(&std::env::temp_dir(), "/nowhere/apt-get", &["download"]).unwrap_err();
        assert_eq!(failure.status(), Status::MissingTool);
        assert!(failure.to_string().contains("/nowhere/apt-get download"));
    }
}
