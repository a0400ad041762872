//! Finds QEMU, and installs it where that is possible without asking.

use crate::failure::Failure;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const QEMU: &str = "qemu-system-x86_64";
const INSTALL: &str = "apt-get install -y --no-install-recommends qemu-system-x86";

/// A QEMU that runs.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// How to call it.
    pub path: PathBuf,
    /// Its version, such as `7.2.22`.
    pub version: String,
}

/// Fetches apt's index of packages anew.
pub const REFRESH: &str = "apt-get update";

/// The QEMU given, else the installed one, else a freshly installed one.
pub fn find_qemu(given: Option<&Path>) -> Result<Qemu, Failure> {
    let path = given.unwrap_or(Path::new(QEMU));
    if let Some(qemu) = ask_version(path)? {
        return Ok(qemu);
    }
    let missing = || Failure::MissingTool {
        tool: format!("QEMU ({})", path.display()),
        install: format!("sudo {INSTALL}"),
    };
    if given.is_some() || !runs(&mut Command::new("apt-get"), &["--version"]) {
        return Err(missing());
    }
    eprintln!("installing QEMU: {INSTALL}");
    for command in [REFRESH, INSTALL] {
        // An index that could not be refreshed may still do, so only the end counts.
        if !as_root(command) {
            return Err(missing());
        }
    }
    ask_version(path)?.ok_or_else(missing)
}

/// Runs a command as root, its output on stderr; `false` where that takes a password.
pub fn as_root(command: &str) -> bool {
    let prefix: &[&str] = if rustix::process::geteuid().is_root() {
        &[]
    } else if runs(&mut Command::new("sudo"), &["-n", "true"]) {
        &["sudo", "-n"]
    } else {
        return false;
    };
    let words: Vec<&str> = prefix
        .iter()
        .copied()
        .chain(["env", "DEBIAN_FRONTEND=noninteractive"])
        .chain(command.split(' '))
        .collect();
    let _ = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .status();
    true
}

/// The QEMU at `path` with its version; `None` where there is none.
fn ask_version(path: &Path) -> Result<Option<Qemu>, Failure> {
    let output = match Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
    {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Failure::Host {
                what: format!("cannot run {}", path.display()),
                source,
            });
        }
        Ok(output) => output,
    };
    if !output.status.success() {
        return Err(Failure::Qemu {
            status: format!("{} when asked for its version", output.status),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(Some(Qemu {
        path: path.to_path_buf(),
        version: parse_version(&String::from_utf8_lossy(&output.stdout)),
    }))
}

fn parse_version(text: &str) -> String {
    text.split_whitespace()
        .skip_while(|word| *word != "version")
        .nth(1)
        .unwrap_or("of unknown version")
        .to_owned()
}

/// Whether a command ends well; nobody sees what it says.
pub fn runs(command: &mut Command, arguments: &[&str]) -> bool {
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Status;

    #[test]
    fn reads_the_version() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright";
        assert_eq!(parse_version(text), "7.2.22");
        assert_eq!(parse_version("something else"), "of unknown version");
    }

    #[test]
    fn a_qemu_that_was_given_is_not_installed() {
        let failure = find_qemu(Some(Path::new("/nowhere/qemu"))).unwrap_err();
        assert_eq!(failure.status(), Status::MissingTool);
        let text = failure.to_string();
        assert!(
            text.contains("/nowhere/qemu") && text.contains("apt-get install"),
            "{text}"
        );
    }
}
