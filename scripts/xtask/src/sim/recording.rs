//! Simulated runs as recordings, in the format of recorded ones.

use crate::failure::{Failure, OptionError};
use simulator::machine::Machine;
use simulator::tape::Tape;
use std::fs;
use std::path::{Path, PathBuf};
use traces::model::Model;
use traces::recording::{Core, Header, Recording};

/// Ticks a second: one is a nanosecond.
const HZ: u64 = 1_000_000_000;

/// What a simulated run is called.
#[derive(Clone, Debug)]
pub struct Named {
    /// Of the sources.
    pub revision: String,
    /// What makes it again.
    pub command: String,
    /// What ran.
    pub program: String,
}

/// What is on a tape of a machine.
pub fn recording(tape: Tape, machine: &Machine, named: Named) -> Recording {
    let machine = machine.clone().with_room_for(tape.cores.len());
    let cores = tape.cores.iter().enumerate().map(|(core, of)| Core {
        core: core as u32,
        socket: machine.socket(core) as u32,
        written: of.records.len() as u64 + of.lost,
        overwritten: of.lost,
        sent: of.sent,
        received: of.received,
        switches: of.switches,
        records: of.records.len() as u64,
        ..Core::default()
    });
    let header = Header {
        version: 1,
        revision: named.revision,
        accelerator: "sim".into(),
        command: named.command,
        program: named.program,
        hz: HZ,
        is_exact: true,
        cores: cores.collect(),
        ..Header::default()
    };
    let records = tape.cores.into_iter().map(|core| core.records).collect();
    Recording { header, records }
}

/// Writes the recording, and both views of it, into a folder that need not be there yet.
pub fn write(folder: &Path, recording: &Recording) -> Result<String, Failure> {
    let cannot = || Failure::host(format!("cannot write to {}", folder.display()));
    fs::create_dir_all(folder).map_err(cannot())?;
    let model = Model::of(recording);
    let bytes = recording.to_bytes();
    fs::write(folder.join("trace.atoll"), bytes).map_err(cannot())?;
    let bytes = traces::perfetto::write(recording, &model);
    fs::write(folder.join("trace.perfetto-trace"), bytes).map_err(cannot())?;
    let page = traces::page::write(recording, &model);
    fs::write(folder.join("trace.html"), page).map_err(cannot())?;
    let of = |value: fn(&Core) -> u64| recording.header.cores.iter().map(value).sum::<u64>();
    Ok(format!(
        "trace.atoll, trace.perfetto-trace and trace.html: {}\n{} records kept, {} lost; {} messages \
         sent, {} received, {} with both ends\n",
        folder.display(),
        of(|core| core.records),
        of(|core| core.overwritten),
        of(|core| core.sent),
        of(|core| core.received),
        model.messages.len(),
    ))
}

/// Reads a recording: a file, or a folder with a `trace.atoll`.
pub fn read(option: &'static str, name: &Path) -> Result<Recording, OptionError> {
    let path = match name.is_dir() {
        true => name.join("trace.atoll"),
        false => PathBuf::from(name),
    };
    let wrong = |reason: String| OptionError::Recording {
        option,
        found: path.display().to_string(),
        reason,
    };
    let bytes = fs::read(&path).map_err(|error| wrong(error.to_string()))?;
    let recording = Recording::from_bytes(&bytes).map_err(|error| wrong(error.to_string()))?;
    if recording.header.cores.is_empty() {
        return Err(wrong("expected at least 1 core, found none".into()));
    }
    Ok(recording)
}
