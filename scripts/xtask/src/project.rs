//! Where the sources and the build results lie.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the system itself is compiled for.
pub const GUEST_TARGET: &str = "x86_64-unknown-none";

/// A checkout of the project.
#[derive(Debug)]
pub struct Project {
    /// The top of the sources.
    pub root: PathBuf,
    /// Where cargo puts its results.
    pub target: PathBuf,
}

impl Project {
    /// The checkout that this tool was built from.
    pub fn here() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .expect("scripts/xtask lies two folders below the top")
            .to_path_buf();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => root.join(folder),
            None => root.join("target"),
        };
        Self { root, target }
    }

    /// cargo, about to run at the top of the sources.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        command
    }

    /// What git calls these sources, with `-dirty` behind it where files that it knows have
    /// changed; `unknown` without git.
    pub fn revision(&self) -> String {
        // Sources in some folder of another project are not that project's revision.
        if !self.root.join(".git").exists() {
            return "unknown".to_owned();
        }
        let describe = self.git(&["describe", "--always"]);
        let changes = self.git(&["status", "--porcelain", "--untracked-files=no"]);
        match (describe, changes) {
            (Some(name), Some(changes)) if changes.is_empty() => name,
            (Some(name), Some(_)) => format!("{name}-dirty"),
            _ => "unknown".to_owned(),
        }
    }

    /// What git answers; `None` where it cannot. It takes no lock: others may be at work.
    fn git(&self, words: &[&str]) -> Option<String> {
        let output = Command::new("git")
            .arg("--no-optional-locks")
            .args(words)
            .current_dir(&self.root)
            .output()
            .ok()?;
        let said = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| said.trim().to_owned())
    }

    /// Where this tool keeps what it makes.
    pub fn own_folder(&self) -> PathBuf {
        self.target.join("atoll")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_without_git_have_an_unknown_revision() {
        let nowhere = std::env::temp_dir();
        let project = Project {
            root: nowhere.clone(),
            target: nowhere,
        };
        assert_eq!(project.revision(), "unknown");
    }
}
