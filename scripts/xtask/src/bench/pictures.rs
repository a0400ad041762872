//! `scripts/bench pictures`: the pictures of a folder's report, each as a file of its own.

use super::results;
use crate::chart;
use crate::failure::Failure;
use crate::page::{self, slug};
use clap::Args;
use std::path::PathBuf;

/// Options of `scripts/bench pictures`.
#[derive(Args, Clone, Debug)]
pub struct PictureOptions {
    /// Folder of results, as scripts/bench --out or merge wrote it
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Folder for the pictures [default: DIR/pictures]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Writes them, and says which.
///
/// # Errors
/// A folder that cannot be read or written.
pub fn pictures(options: &PictureOptions) -> Result<String, Failure> {
    let runs = results::read(&options.folder)?;
    let folder = match &options.out {
        Some(folder) => folder.clone(),
        None => options.folder.join("pictures"),
    };
    let failed = || Failure::host(format!("cannot write to {}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(failed())?;
    // Those of other results that were here before would pass for these.
    for entry in std::fs::read_dir(&folder).map_err(failed())?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_ours = name.len() > 8
            && name.bytes().take(3).all(|one| one.is_ascii_digit())
            && name.ends_with(".svg");
        if is_ours {
            std::fs::remove_file(entry.path()).map_err(failed())?;
        }
    }
    let mut said = String::new();
    for (number, (title, picture)) in page::pictures(&chart::page(&runs)).enumerate() {
        let path = folder.join(format!("{:03}-{}.svg", number + 1, slug(&title)));
        std::fs::write(&path, picture).map_err(failed())?;
        said.push_str(&format!("{}\n", path.display()));
    }
    Ok(said)
}
