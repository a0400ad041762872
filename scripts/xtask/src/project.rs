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

    /// Where this tool keeps what it makes.
    pub fn own_folder(&self) -> PathBuf {
        self.target.join("atoll")
    }
}
