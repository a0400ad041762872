//! One time for all cores.

/// How a core's clock goes: `time = (tsc - base) + offset + drift * (tsc - base)`, in ticks of core 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Clock {
    /// Time-stamp counter from which it is counted.
    pub base: u64,
    /// Ticks to add.
    pub offset: i64,
    /// Ticks to add for each tick.
    pub drift: f64,
}
