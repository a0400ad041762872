//! Where the two threads run, and how far apart that is.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

/// How far apart two CPUs are, told by a compare-exchange round trip of theirs over one line.
///
/// A hypervisor may move virtual CPUs at any time, so this is measured beside each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placement {
    /// Two threads of one core: below [`SAME_CORE_BELOW_NS`].
    SameCore,
    /// A shared cache: below [`NEAR_BELOW_NS`].
    Near,
    /// Two dies or sockets: below [`FAR_BELOW_NS`].
    Far,
}

/// Least round trip of a shared cache, in nanoseconds. (One core was seen to take 21, a shared
/// cache 54, two dies 212.)
pub const SAME_CORE_BELOW_NS: f64 = 35.0;
/// Least round trip of two dies.
pub const NEAR_BELOW_NS: f64 = 110.0;
/// What takes longer was disturbed.
pub const FAR_BELOW_NS: f64 = 1000.0;

impl Placement {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::SameCore, Self::Near, Self::Far];

    /// What a round trip of so many nanoseconds says; `None`: that somebody else ran meanwhile.
    pub fn told_by(round_trip_ns: f64) -> Option<Self> {
        match round_trip_ns {
            ns if ns < SAME_CORE_BELOW_NS => Some(Self::SameCore),
            ns if ns < NEAR_BELOW_NS => Some(Self::Near),
            ns if ns < FAR_BELOW_NS => Some(Self::Far),
            _ => None,
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameCore => "same core",
            Self::Near => "near",
            Self::Far => "far",
        })
    }
}

/// The CPUs that this process may run on.
pub fn allowed() -> Vec<usize> {
    // SAFETY: all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as large as is said.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    if result != 0 {
        crate::memory::no(
            "cannot ask for this process's CPUs",
            &std::io::Error::last_os_error(),
        );
    }
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: below the size of the set.
        .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) })
        .collect()
}

/// Two CPUs to measure between: of different cores if there are any.
pub fn choose(allowed: &[usize]) -> Option<[usize; 2]> {
    let siblings = |cpu: usize| {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        fs::read_to_string(path).unwrap_or_else(|_| cpu.to_string())
    };
    let by_core: BTreeMap<String, usize> = allowed
        .iter()
        .rev()
        .map(|cpu| (siblings(*cpu), *cpu))
        .collect();
    let mut firsts: Vec<usize> = by_core.into_values().collect();
    firsts.sort_unstable();
    firsts.extend(
        allowed
            .iter()
            .filter(|cpu| !firsts.contains(cpu))
            .copied()
            .collect::<Vec<_>>(),
    );
    firsts.first_chunk().copied()
}

/// Keeps this thread on one CPU.
pub fn pin(cpu: usize) {
    // SAFETY: all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the CPU is one of those that were allowed, which are below the size of the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set is as large as is said.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        crate::memory::no(&format!("cannot run on CPU {cpu}"), &error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_tell_placements() {
        for (ns, placement) in [
            (21.0, Some(Placement::SameCore)),
            (35.0, Some(Placement::Near)),
            (54.0, Some(Placement::Near)),
            (212.0, Some(Placement::Far)),
            (1000.0, None),
            (f64::NAN, None),
        ] {
            assert_eq!(Placement::told_by(ns), placement);
        }
    }

    #[test]
    fn one_cpu_is_too_few() {
        assert_eq!(choose(&[3]), None);
        assert_eq!(choose(&[]), None);
    }
}
