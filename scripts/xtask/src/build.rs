//! Compiles the system for its target and finds the executables that came out.

use crate::failure::{BuildError, Failure};
use crate::progress::Progress;
use crate::project::{GUEST_TARGET, Project};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Packages that a boot needs: folder and name.
pub const GUEST_PACKAGES: [(&str, &str); 4] = [
    ("cpudriver", "cpudriver"),
    ("cpudriver/bridge", "bridge"),
    ("monitor", "monitor"),
    ("apps", "apps"),
];

/// Executables with all their symbols.
#[derive(Clone, Debug, Default)]
pub struct Executables {
    /// Loads the CPU driver under QEMU.
    pub bridge: PathBuf,
    /// The CPU driver.
    pub cpudriver: PathBuf,
    /// The monitor.
    pub monitor: PathBuf,
    /// User programs by name.
    pub programs: BTreeMap<String, PathBuf>,
}

/// The lines of cargo's report that matter here.
#[derive(Deserialize)]
struct Message {
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Compiles everything that the guest runs.
pub fn build(project: &Project) -> Result<Executables, Failure> {
    let _progress = Progress::begin("building the system");
    let mut cargo = project.cargo();
    cargo
        .args(["build", "--quiet", "--release"])
        .args(["--target", GUEST_TARGET])
        .arg("--message-format=json-render-diagnostics");
    for (_, package) in GUEST_PACKAGES {
        cargo.args(["--package", package]);
    }
    let output = cargo.output().map_err(BuildError::NoCargo)?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(BuildError::Compiler { messages }.into());
    }
    Ok(executables(&project.root, &output.stdout)?)
}

/// Finds the executables in cargo's report.
fn executables(root: &Path, report: &[u8]) -> Result<Executables, BuildError> {
    let mut found = BTreeMap::new();
    for line in report.split(|byte| *byte == b'\n') {
        let Ok(Message {
            manifest_path: Some(manifest),
            target: Some(target),
            executable: Some(executable),
        }) = serde_json::from_slice(line)
        else {
            continue;
        };
        let folder = manifest
            .parent()
            .and_then(|folder| folder.strip_prefix(root).ok())
            .map(Path::to_path_buf)
            .unwrap_or_default();
        found.insert((folder, target.name), executable);
    }
    let mut take = |name: &'static str| {
        let (folder, package) = GUEST_PACKAGES
            .into_iter()
            .find(|(_, package)| *package == name)
            .unwrap_or((name, name));
        found
            .remove(&(PathBuf::from(folder), name.to_owned()))
            .ok_or(BuildError::NoBinary { name, package })
    };
    Ok(Executables {
        bridge: take("bridge")?,
        cpudriver: take("cpudriver")?,
        monitor: take("monitor")?,
        programs: found
            .into_iter()
            .filter(|((folder, _), _)| folder == Path::new("apps"))
            .map(|((_, name), path)| (name, path))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(folder: &str, name: &str) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","manifest_path":"/top/{folder}/Cargo.toml","target":{{"name":"{name}","kind":["bin"]}},"executable":"/out/{name}"}}"#
        )
    }

    #[test]
    fn finds_executables_by_package() {
        let mut report = [
            line("cpudriver", "cpudriver"),
            line("cpudriver/bridge", "bridge"),
            line("monitor", "monitor"),
            line("apps", "hello"),
            line("apps", "exit"),
        ]
        .join("\n");
        report.push_str("\n{\"reason\":\"build-finished\",\"success\":true}\nnot json\n");
        let found = executables(Path::new("/top"), report.as_bytes()).unwrap();
        assert_eq!(found.bridge, Path::new("/out/bridge"));
        let programs: Vec<&str> = found.programs.keys().map(String::as_str).collect();
        assert_eq!(programs, ["exit", "hello"]);
    }

    #[test]
    fn names_the_binary_that_is_missing() {
        let report = line("cpudriver", "cpudriver");
        let error = executables(Path::new("/top"), report.as_bytes()).unwrap_err();
        assert!(
            error.to_string().contains("no binary \"bridge\""),
            "{error}"
        );
    }
}
