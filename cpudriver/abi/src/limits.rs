//! Every limit of the system, in one place.

/// Cores in one machine. xAPIC addresses 255; one more makes the tables even.
pub const MAX_CORES: usize = 256;

/// Ranges of RAM that the machine description holds after holes are cut out.
pub const MAX_RAM_RANGES: usize = 64;

/// NUMA nodes told apart.
pub const MAX_NODES: usize = 64;

/// Bytes of the system's command line, the closing zero excluded.
pub const COMMAND_LINE_BYTES: usize = 2048;

/// Bytes of a program's name and arguments.
pub const ARGUMENT_BYTES: usize = 1024;

/// Bytes of a domain's name as reports show it.
pub const NAME_BYTES: usize = 32;

/// Bytes of a dispatcher's name.
pub const DISPATCHER_NAME_BYTES: usize = 16;

/// Bytes of the log ring of each CPU driver.
pub const LOG_BYTES: usize = 16 * 1024;

/// Endpoints that one dispatcher receives on.
pub const MAX_ENDPOINTS: usize = 32;

/// Dispatchers that one core carries.
pub const MAX_DISPATCHERS: usize = 64;

/// Least RAM of a core that the CPU driver maps for itself, in bytes.
pub const MIN_PRIVATE_BYTES: u64 = 4 << 20;

/// Least RAM of a core from which frames are shared with other cores, in bytes.
pub const MIN_SHARED_BYTES: u64 = 2 << 20;

/// Slots in each direction of the channel between two monitors, and of the one between
/// a domain and its monitor: such a channel fits one page.
pub const PAGE_CHANNEL_SLOTS: usize = 16;

/// Priorities of dispatchers: 0 is the lowest. See [`crate::syscall::priority`].
pub const PRIORITIES: usize = 8;

/// Time slice of a dispatcher that competes with others, in nanoseconds.
pub const TIME_SLICE_NS: u64 = 10_000_000;
