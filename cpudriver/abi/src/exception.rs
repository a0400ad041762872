//! Exceptions of the processor in words, the same in all reports.

use core::fmt::{self, Display};

/// The page fault.
pub const PAGE_FAULT: u64 = 14;

const NAMES: [&str; 22] = [
    "divide error",
    "debug trap",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid task state",
    "segment not present",
    "stack segment fault",
    "general protection fault",
    "page fault",
    "reserved exception",
    "floating-point error",
    "alignment check",
    "machine check",
    "vector floating-point error",
    "virtualization exception",
    "control protection exception",
];

/// Name of an exception vector.
pub fn name(vector: u64) -> &'static str {
    let name = usize::try_from(vector)
        .ok()
        .and_then(|vector| NAMES.get(vector));
    name.copied().unwrap_or("reserved exception")
}

/// What an exception was about: for a page fault what was tried at which address, else the
/// error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detail {
    /// Exception vector.
    pub vector: u64,
    /// Error code, 0 where the exception has none.
    pub error: u64,
    /// The address that a page fault complained of.
    pub address: u64,
}

impl Display for Detail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.vector != PAGE_FAULT {
            return write!(formatter, "error code {:#x}", self.error);
        }
        let tried = match (self.error & 2 != 0, self.error & 16 != 0) {
            (true, _) => "writing to",
            (_, true) => "executing",
            _ => "reading from",
        };
        let why = if self.error & 1 == 0 {
            "not mapped"
        } else {
            "not allowed"
        };
        write!(
            formatter,
            "{tried} an address that is {why}: {:#018x}",
            self.address
        )
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;

    #[test]
    fn page_faults_tell_what_was_tried() {
        let detail = |vector, error| {
            format!(
                "{}",
                Detail {
                    vector,
                    error,
                    address: 0x1000
                }
            )
        };
        assert_eq!(
            detail(14, 2),
            "writing to an address that is not mapped: 0x0000000000001000"
        );
        assert_eq!(
            detail(14, 0x15),
            "executing an address that is not allowed: 0x0000000000001000"
        );
        assert_eq!(
            detail(14, 5),
            "reading from an address that is not allowed: 0x0000000000001000"
        );
        assert_eq!(detail(13, 8), "error code 0x8");
        assert_eq!(
            (name(14), name(0), name(u64::MAX)),
            ("page fault", "divide error", "reserved exception")
        );
    }
}
