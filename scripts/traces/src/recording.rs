//! The file of a recording: `trace.atoll`.
//!
//! ```text
//!  "ATOLLTRC" │ bytes of the header, u64 │ header, JSON │ records of core 0 │ of core 1 │ …
//! ```
//!
//! Numbers are little-endian; records are [`trace::Record`]s, oldest first in the order of their places
//! in the ring. The header is a [`Header`]. Two runs that did the same give the same bytes.

use serde::{Deserialize, Serialize};
use std::fmt;
use trace::Record;
use zerocopy::{FromBytes, IntoBytes};

/// First bytes of the file.
pub const MAGIC: [u8; 8] = *b"ATOLLTRC";

/// What a recording is of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Layout of this file: 1.
    pub version: u32,
    /// Of the sources.
    pub revision: String,
    /// `icount`, `tcg`, `kvm`; `sim` for a simulated run.
    pub accelerator: String,
    /// What makes it again.
    pub command: String,
    /// The program and its arguments.
    pub program: String,
    /// Ticks of the time-stamp counter a second.
    pub hz: u64,
    /// Whether ticks count instructions, so that figures repeat to the digit.
    pub is_exact: bool,
    /// Ticks that an instruction takes, where they count instructions; 0: as 1.
    #[serde(default)]
    pub ticks_per_instruction: u64,
    /// Event that started the trace, and one that ended it; 0: none. Records before and after are cut when it
    /// is read.
    #[serde(default)]
    pub start: u32,
    /// As above.
    #[serde(default)]
    pub stop: u32,
    /// By core number.
    pub cores: Vec<Core>,
    /// What programs declared.
    pub users: Vec<User>,
}

/// One core of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Core {
    /// Its number.
    pub core: u32,
    /// Its socket.
    pub socket: u32,
    /// Records ever written; those that the ring holds no more were overwritten.
    pub written: u64,
    /// Records of it that were overwritten.
    pub overwritten: u64,
    /// Records that were half written when the run ended.
    pub torn: u64,
    /// Messages sent and received while that was recorded.
    pub sent: u64,
    /// As above.
    pub received: u64,
    /// Context switches, by the CPU driver's own counter, since it started.
    pub switches: u64,
    /// Records in this file.
    pub records: u64,
    /// It was lost: it was no member of the system at the end, and had not been stopped in good order.
    #[serde(default)]
    pub is_lost: bool,
    /// Names of its dispatchers by handle, of those that there were last; empty: none.
    #[serde(default)]
    pub names: Vec<String>,
}

/// An event that a program declared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// The program.
    pub program: String,
    /// The flow of its records.
    pub address: u64,
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A recording.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// What it is of.
    pub header: Header,
    /// By core, in the order of the header's.
    pub records: Vec<Vec<Record>>,
}

/// Why bytes are not a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// They do not begin as one.
    NotOne,
    /// They end before they should: so many are expected.
    Short(u64),
    /// There are more than there should be.
    Long(u64),
    /// The header cannot be read.
    Header(String),
    /// Of another layout than this program knows.
    Version(u32),
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOne => write!(
                out,
                "expected a recording (trace.atoll), found something else: name what `scripts/trace` wrote"
            ),
            Self::Short(bytes) => {
                write!(
                    out,
                    "expected {bytes} bytes, found fewer: the file was cut off"
                )
            }
            Self::Long(bytes) => write!(out, "expected {bytes} bytes, found more"),
            Self::Header(what) => write!(out, "the header cannot be read: {what}"),
            Self::Version(version) => write!(
                out,
                "expected version 1, found {version}: record it anew, or use the sources that wrote it"
            ),
        }
    }
}

impl std::error::Error for Error {}

impl Header {
    /// Instructions a second of the clock, where ticks count them: what times become instructions by.
    pub fn instruction_rate(&self) -> u64 {
        self.hz / self.ticks_per_instruction.max(1)
    }
}

impl Recording {
    /// The bytes of its file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = serde_json::to_vec(&self.header).unwrap_or_default();
        let mut bytes = MAGIC.to_vec();
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(&header);
        for records in &self.records {
            bytes.extend(records.as_bytes());
        }
        bytes
    }

    /// Reads it back.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(Error::NotOne)?;
        let (length, rest) = rest.split_first_chunk::<8>().ok_or(Error::Short(16))?;
        let length = u64::from_le_bytes(*length);
        let end = usize::try_from(length).unwrap_or(usize::MAX);
        let json = rest
            .get(..end)
            .ok_or(Error::Short(length.saturating_add(16)))?;
        let header: Header =
            serde_json::from_slice(json).map_err(|error| Error::Header(error.to_string()))?;
        if header.version != 1 {
            return Err(Error::Version(header.version));
        }
        let mut rest = &rest[end..];
        let mut expected = 16 + length;
        let mut records = Vec::new();
        for core in &header.cores {
            let bytes = core.records.saturating_mul(size_of::<Record>() as u64);
            expected = expected.saturating_add(bytes);
            let end = usize::try_from(bytes).unwrap_or(usize::MAX);
            let own = rest.get(..end).ok_or(Error::Short(expected))?;
            let of_core = own.chunks_exact(size_of::<Record>());
            records.push(
                of_core
                    .filter_map(|one| Record::read_from_bytes(one).ok())
                    .collect(),
            );
            rest = &rest[end..];
        }
        match rest {
            [] => Ok(Self { header, records }),
            _ => Err(Error::Long(expected)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Recording {
        let record = |tsc| Record {
            tsc,
            flow: 2,
            value: 3,
            tail: 4,
        };
        let core = |core, records| Core {
            core,
            records,
            ..Core::default()
        };
        Recording {
            header: Header {
                version: 1,
                program: "hello".into(),
                cores: vec![core(0, 2), core(1, 1)],
                ..Header::default()
            },
            records: vec![vec![record(1), record(2)], vec![record(9)]],
        }
    }

    #[test]
    fn comes_back_as_it_was() {
        assert_eq!(Recording::from_bytes(&one().to_bytes()), Ok(one()));
    }

    #[test]
    fn no_part_of_one_is_one() {
        let bytes = one().to_bytes();
        for end in 0..bytes.len() {
            assert!(Recording::from_bytes(&bytes[..end]).is_err(), "{end}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(
            Recording::from_bytes(&longer),
            Err(Error::Long(_))
        ));
    }
}
