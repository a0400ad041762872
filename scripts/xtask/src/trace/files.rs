//! The files of a trace, and what terminals show of it.

use crate::comparison::number;
use crate::failure::{Failure, TraceError};
use recorder::MAX_RECORDS;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use traces::model::Model;
use traces::recording::{Core, Recording};
use traces::{page, perfetto};

/// The recording itself.
pub const RECORDING: &str = "trace.atoll";
/// What Perfetto reads.
pub const PERFETTO: &str = "trace.perfetto-trace";
/// What browsers read.
const PAGE: &str = "trace.html";
/// Endings of the files beside the recording.
const BESIDE: [&str; 2] = ["perfetto-trace", "html"];

/// A file of a trace.
pub struct File {
    /// Its name in the folder.
    pub name: &'static str,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Who reads it.
    pub what: &'static str,
}

/// All files of a trace.
pub fn made(recording: &Recording, model: &Model) -> [File; 3] {
    [
        File {
            name: RECORDING,
            bytes: recording.to_bytes(),
            what: "for scripts/trace summary and diff, and scripts/sim --from",
        },
        File {
            name: PERFETTO,
            bytes: perfetto::write(recording, model),
            what: "for https://ui.perfetto.dev",
        },
        File {
            name: PAGE,
            bytes: page::write(recording, model).into_bytes(),
            what: "for any browser",
        },
    ]
}

/// Writes all files of a trace; says where they are, and how much is in them.
pub fn write(folder: &Path, recording: &Recording, model: &Model) -> Result<String, Failure> {
    let cannot = || Failure::host(format!("cannot write to {}", folder.display()));
    fs::create_dir_all(folder).map_err(cannot())?;
    let mut words = String::new();
    for File { name, bytes, what } in made(recording, model) {
        let path = folder.join(name);
        fs::write(&path, &bytes).map_err(cannot())?;
        let size = bytes.len() as f64 / f64::from(1 << 20);
        let _ = writeln!(words, "{}: {size:.1} MiB, {what}", path.display());
    }
    Ok(words)
}

/// What both ends of channels say of messages, and whether the trace was cut as it was to be.
pub fn messages(model: &Model) -> String {
    let count = |value: u64| number(Some(value as f64));
    let delivered = model.messages.len() as u64;
    let (sent, received) = model.half;
    let (before, after) = model.early;
    let share = |early: u64| 100.0 * early as f64 / delivered.max(1) as f64;
    let mut text = format!(
        "{} messages with both ends; of {} only the sending was recorded, of {} only the taking out\n\
         {:.3} % of them would arrive before they were sent by the cores' own clocks, {:.3} % by one \
         clock for all\n",
        count(delivered),
        count(sent),
        count(received),
        share(before),
        share(after)
    );
    for line in traces::names::remarks(model) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Reads the recording that is meant by its own name, by that of a file beside it, or by that of its
/// folder.
pub fn read(given: &Path) -> Result<Recording, Failure> {
    let path = path_of(given);
    let bad = |reason: String| TraceError::File {
        path: path.clone(),
        reason,
    };
    let bytes = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if path != given && given.exists() => bad(format!(
            "there is no such file: expected the recording beside {}",
            given.display()
        )),
        _ => bad(error.to_string()),
    })?;
    Recording::from_bytes(&bytes).map_err(|error| bad(error.to_string()).into())
}

fn path_of(given: &Path) -> PathBuf {
    if given.is_dir() {
        return given.join(RECORDING);
    }
    match given.extension().and_then(|ending| ending.to_str()) {
        Some(ending) if BESIDE.contains(&ending) => given.with_extension("atoll"),
        _ => given.to_path_buf(),
    }
}

/// What was recorded, by core and in all.
pub fn table(recording: &Recording) -> String {
    let mut text = format!(
        "{:>4} {:>12} {:>12} {:>6} {:>12} {:>12} {:>12}\n",
        "core", "written", "overwritten", "torn", "sent", "received", "switches"
    );
    let mut line = |name: &str, core: &Core| {
        let _ = write!(text, "{name:>4}");
        for (value, width) in [
            (core.written, 12),
            (core.overwritten, 12),
            (core.torn, 6),
            (core.sent, 12),
            (core.received, 12),
            (core.switches, 12),
        ] {
            let _ = write!(text, " {:>width$}", number(Some(value as f64)));
        }
        text.push('\n');
    };
    for core in &recording.header.cores {
        line(&core.core.to_string(), core);
    }
    line("all", &sum(recording));
    if let Some(records) = enough(recording) {
        let _ = writeln!(text, "--records {records} has room for all of them");
    }
    text
}

/// Records that rings would have needed to hold all, where some were overwritten and a ring can be so large.
pub fn enough(recording: &Recording) -> Option<u64> {
    let cores = recording.header.cores.iter();
    let busiest = cores
        .filter(|core| core.overwritten > 0)
        .map(|core| core.written);
    let enough = busiest.max().and_then(u64::checked_next_power_of_two);
    enough.filter(|records| *records <= MAX_RECORDS)
}

/// All cores together.
pub fn sum(recording: &Recording) -> Core {
    let mut all = Core::default();
    for core in &recording.header.cores {
        for (sum, value) in [
            (&mut all.written, core.written),
            (&mut all.overwritten, core.overwritten),
            (&mut all.torn, core.torn),
            (&mut all.sent, core.sent),
            (&mut all.received, core.received),
            (&mut all.switches, core.switches),
            (&mut all.records, core.records),
        ] {
            // A domain may have written any number there.
            *sum = sum.saturating_add(value);
        }
    }
    all
}

/// What operations cost in a trace.
pub fn summary(file: &Path) -> Result<String, Failure> {
    let recording = read(file)?;
    Ok(traces::summary::table(&recording, &Model::of(&recording)))
}

/// Whether two traces are the same, and what is different.
pub fn diff(first: &Path, second: &Path) -> Result<(bool, String), Failure> {
    let both = [read(first)?, read(second)?];
    Ok((traces::diff::is_same(&both), traces::diff::table(&both)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Status;
    use traces::recording::Header;

    fn recording() -> Recording {
        let core = |core, written| Core {
            core,
            written,
            ..Core::default()
        };
        Recording {
            header: Header {
                version: 1,
                cores: vec![core(0, 1234), core(1, u64::MAX)],
                ..Header::default()
            },
            records: vec![Vec::new(); 2],
        }
    }

    #[test]
    fn a_trace_is_found_by_its_folder_and_by_each_file_in_it() {
        let folder = std::env::temp_dir().join(format!("atoll-trace-{}", std::process::id()));
        write(&folder, &recording(), &Model::default()).unwrap();
        for name in ["", RECORDING, "trace.html", "trace.perfetto-trace"] {
            assert_eq!(read(&folder.join(name)).unwrap(), recording(), "{name}");
        }
        let bytes = recording().to_bytes();
        for (name, content) in [
            ("cut", &bytes[..bytes.len() / 2]),
            ("empty", &[]),
            ("text", b"# A text\n"),
            ("longer", &[&bytes[..], b"x"].concat()),
        ] {
            fs::write(folder.join(name), content).unwrap();
            let failure = read(&folder.join(name)).unwrap_err();
            assert_eq!(failure.status(), Status::BadTrace);
            assert!(failure.to_string().contains("expected"), "{failure}");
            assert!(failure.to_string().contains(name), "{failure}");
        }
        fs::create_dir_all(folder.join("other")).unwrap();
        fs::write(folder.join("other/page.html"), "").unwrap();
        for name in ["other", "other/page.html"] {
            let failure = read(&folder.join(name)).unwrap_err().to_string();
            assert!(
                failure.contains("expected the recording beside"),
                "{failure}"
            );
        }
        let failure = read(&folder.join("nothing")).unwrap_err();
        assert!(failure.to_string().contains("No such file"), "{failure}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_table_says_how_many_records_would_do() {
        let mut full = recording();
        full.header.cores[0].overwritten = 210;
        assert!(table(&full).ends_with("\n--records 2048 has room for all of them\n"));
        full.header.cores[1].overwritten = 1;
        assert!(!table(&full).contains("--records"));
    }

    #[test]
    fn the_table_has_all_cores_and_their_sum() {
        let table = table(&recording());
        assert_eq!(table.lines().count(), 4, "{table}");
        assert!(
            table
                .lines()
                .nth(1)
                .unwrap()
                .starts_with("   0        1,234")
        );
        assert!(
            table.lines().nth(3).unwrap().starts_with(" all 18,446,"),
            "{table}"
        );
    }
}
