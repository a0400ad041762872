//! The core record: the first page of each core's RAM.
//!
//! The loader fills it, the core's CPU driver keeps it, and the host tool reads it out of
//! the guest's memory, dead or alive: it finds every record by looking for [`MAGIC`] at
//! each multiple of 2 MiB, and from there the log ring. So the last words of a core that
//! faulted need no working console.

use crate::limits::{DISPATCHER_NAME_BYTES, LOG_BYTES, MAX_DISPATCHERS};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First word of every record: "ATOLLCPU" as it lies in memory.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ATOLLCPU");

/// Layout of [`CoreRecord`] that this crate describes.
pub const VERSION: u32 = 1;

/// What has become of a core, as numbers in [`CoreRecord::state`].
pub mod state {
    /// Laid out by the loader, not yet running.
    pub const LOADED: u32 = 1;
    /// The CPU driver has control.
    pub const STARTED: u32 = 2;
    /// The monitor runs.
    pub const RUNNING: u32 = 3;
    /// The CPU driver met a fault of its own, wrote its report to the log, and halted.
    pub const PANICKED: u32 = 4;
    /// The core was stopped in good order, or the system powered off.
    pub const STOPPED: u32 = 5;
}

/// The core record. All addresses are physical.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CoreRecord {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`VERSION`].
    pub version: u32,
    /// Atoll's number of this core.
    pub core: u32,
    /// Local APIC id.
    pub apic_id: u32,
    /// One of [`state`].
    pub state: u32,
    /// Cores of the machine.
    pub core_count: u32,
    /// 1 once [`Self::exit_status`] counts.
    pub has_exit_status: u32,
    /// Exit status of the program that the command line named (core 0 only).
    pub exit_status: i32,
    /// Epoch of the view that its monitor holds; 0: it is not a member of the system, or
    /// not yet.
    pub epoch: u32,
    /// This core's RAM.
    pub region: u64,
    /// Bytes of it that the CPU driver maps.
    pub private_bytes: u64,
    /// Bytes behind them that only user code maps.
    pub shared_bytes: u64,
    /// First byte of private RAM that the loader did not use.
    pub free: u64,
    /// Log ring, [`LOG_BYTES`] long.
    pub log: u64,
    /// Bytes ever written to the log: the newest lies before `log_written % LOG_BYTES`.
    pub log_written: u64,
    /// Symbol table: lines of `ADDRESS NAME`, address in 16 hexadecimal digits.
    pub symbols: u64,
    /// Bytes of the symbol table.
    pub symbols_bytes: u64,
    /// PML4 with the kernel half alone.
    pub kernel_page_table: u64,
    /// PML4 of the monitor.
    pub monitor_page_table: u64,
    /// Entry point of the monitor (virtual).
    pub monitor_entry: u64,
    /// Time-stamp counter when [`state::STARTED`] was reached.
    pub started_tsc: u64,
    /// Where the machine description lies, in private RAM.
    pub machine: u64,
    /// What the CPU driver keeps the monitor's dispatcher in.
    pub monitor_dispatcher: u64,
    /// What it keeps the monitor's root CNode and its task CNode in, a page each.
    pub monitor_cnodes: u64,
    /// For each page of private RAM one `u32`: how often it became a page table or ceased to
    /// be one.
    pub table_lives: u64,
    /// System calls, context switches, interrupts, doorbells sent and received, and
    /// nanoseconds spent idle since the start.
    pub counters: Counters,
    /// Where the name of the dispatcher that ran last lies: [`crate::limits::DISPATCHER_NAME_BYTES`], UTF-8,
    /// filled up with zeros. 0: none ran yet.
    pub current_name: u64,
    /// Control page of the trace; the ring lies behind it. See [`trace::Control`].
    pub trace: u64,
    /// Names of the dispatchers by handle, each UTF-8 and filled up with zeros: of those that there are, or
    /// were last.
    pub names: [[u8; DISPATCHER_NAME_BYTES]; MAX_DISPATCHERS],
}

/// What a CPU driver counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Counters {
    /// System calls.
    pub system_calls: u64,
    /// Times that another dispatcher than the last was given the core.
    pub switches: u64,
    /// Interrupts, doorbells and timer included.
    pub interrupts: u64,
    /// Timer interrupts.
    pub timer: u64,
    /// Doorbells sent to other cores.
    pub doorbells_sent: u64,
    /// Doorbells received.
    pub doorbells_received: u64,
    /// Times that the core went idle.
    pub idle: u64,
}

impl CoreRecord {
    /// The part of the ring that holds text still, oldest first, as two pieces.
    pub fn log_pieces<'ring>(&self, ring: &'ring [u8]) -> (&'ring [u8], &'ring [u8]) {
        let ring = &ring[..ring.len().min(LOG_BYTES)];
        let end = (self.log_written % LOG_BYTES as u64) as usize;
        if ring.len() < LOG_BYTES || self.log_written <= LOG_BYTES as u64 {
            let all = (self.log_written as usize).min(ring.len());
            (&ring[..all], &[])
        } else {
            (&ring[end..], &ring[..end])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn record_fits_its_page() {
        assert!(size_of::<CoreRecord>() <= 4096);
    }

    #[test]
    fn log_pieces_are_in_order_of_writing() {
        let mut record = CoreRecord::new_zeroed();
        let mut ring = [0u8; LOG_BYTES];
        let mut expected = [0u8; LOG_BYTES];
        for written in 0..(LOG_BYTES as u64 * 2 + 17) {
            ring[(written % LOG_BYTES as u64) as usize] = (written % 251) as u8;
        }
        record.log_written = LOG_BYTES as u64 * 2 + 17;
        for (index, byte) in expected.iter_mut().enumerate() {
            *byte = ((LOG_BYTES as u64 + 17 + index as u64) % 251) as u8;
        }
        let (old, new) = record.log_pieces(&ring);
        assert_eq!(old.len() + new.len(), LOG_BYTES);
        assert!(old.iter().chain(new).eq(expected.iter()));
    }
}
