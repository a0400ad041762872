//! The time that a core has been awake for: what it waits for others by.
//!
//! Whoever was kept from running for long, as a whole machine is by a busy host, finds all
//! deadlines over when it comes back, although nobody else had a chance to meet them. So a gap counts
//! for no more than `limit`: nobody is blamed for the time in which one did not look.

/// Time without long gaps, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awake {
    limit_ns: u64,
    seen_ns: u64,
    /// What gaps were longer than the limit.
    lost_ns: u64,
}

impl Awake {
    /// Begins at `now_ns`; gaps longer than `limit_ns` are cut.
    pub fn new(limit_ns: u64, now_ns: u64) -> Self {
        Self {
            limit_ns,
            seen_ns: now_ns,
            lost_ns: 0,
        }
    }

    /// The time awake when the clock says `now_ns`. Is to be asked at least once in a limit.
    pub fn at(&mut self, now_ns: u64) -> u64 {
        let gap = now_ns.saturating_sub(self.seen_ns);
        self.lost_ns += gap.saturating_sub(self.limit_ns);
        self.seen_ns = self.seen_ns.max(now_ns);
        self.seen_ns - self.lost_ns
    }

    /// What the clock says at a time awake, if there are no more gaps.
    pub fn real(&self, awake_ns: u64) -> u64 {
        awake_ns.saturating_add(self.lost_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_gap_counts_for_the_limit() {
        let mut awake = Awake::new(100, 1000);
        assert_eq!(awake.at(1000), 1000);
        assert_eq!(awake.at(1090), 1090);
        assert_eq!(awake.at(1190), 1190);
        assert_eq!(awake.at(9000), 1290);
        assert_eq!(
            awake.at(8000),
            1290,
            "a clock that goes back changes nothing"
        );
        assert_eq!(awake.at(9050), 1340);
        assert_eq!(awake.real(1340), 9050);
    }
}
