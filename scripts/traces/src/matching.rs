//! Which send belongs to which receive: the n-th of a flow with the n-th.

use crate::clocks::Clock;
use crate::recording::Recording;
use trace::event;

/// One end of a message: where its record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Of the message.
    pub flow: u64,
    /// Place of the core in the recording.
    pub core: u32,
    /// Place of the record in that of the core.
    pub record: u32,
    /// When, by the clock of that core.
    pub tsc: u64,
}

impl End {
    /// When, by the clock of all.
    pub fn time(&self, clocks: &[Clock]) -> i64 {
        clocks[self.core as usize].time(self.tsc)
    }
}

/// Both ends of a message.
pub type Pair = (End, End);

/// All ends that were recorded, by flow; those of a flow and core in the order of its ring.
#[derive(Debug, Default)]
pub struct Ends {
    /// Of messages that were sent.
    pub sends: Vec<End>,
    /// Of messages that were received.
    pub receives: Vec<End>,
}

impl Ends {
    /// Those of the records that are kept.
    pub fn of(recording: &Recording, kept: &[Vec<u32>]) -> Self {
        let mut all = Self::default();
        for (core, (records, kept)) in recording.records.iter().zip(kept).enumerate() {
            for &place in kept {
                let record = &records[place as usize];
                let end = End {
                    flow: record.flow,
                    core: core as u32,
                    record: place,
                    tsc: record.tsc,
                };
                match record.event() {
                    event::SEND => all.sends.push(end),
                    event::RECEIVE => all.receives.push(end),
                    _ => {}
                }
            }
        }
        all.sends.sort_by_key(|one| one.flow);
        all.receives.sort_by_key(|one| one.flow);
        all
    }

    /// Calls `each` with the sends and the receives of each flow.
    fn by_flow<'a>(&'a self, mut each: impl FnMut(&'a [End], &'a [End])) {
        let (mut sends, mut receives) = (&self.sends[..], &self.receives[..]);
        while let Some(flow) = [sends, receives]
            .iter()
            .filter_map(|ends| Some(ends.first()?.flow))
            .min()
        {
            let cut = |ends: &'a [End]| {
                let own = ends.iter().take_while(|one| one.flow == flow).count();
                ends.split_at(own)
            };
            let (of_sends, of_receives);
            (of_sends, sends) = cut(sends);
            (of_receives, receives) = cut(receives);
            each(of_sends, of_receives);
        }
    }

    /// Messages whose flow was used once, so that nothing is to be guessed: what clocks are set by.
    pub fn single(&self) -> Vec<Pair> {
        let mut pairs = Vec::new();
        self.by_flow(|sends, receives| {
            if let ([send], [receive]) = (sends, receives) {
                pairs.push((*send, *receive));
            }
        });
        pairs
    }

    /// All messages with both ends, and the ends that are left over.
    ///
    /// Where a flow has more of the one than of the other, either the first are left over (the other core's
    /// ring holds those no more) or the last (they were under way): whichever makes fewer arrive early.
    pub fn pairs(&self, clocks: &[Clock]) -> (Vec<Pair>, Self) {
        let mut pairs = Vec::new();
        let mut left = Self::default();
        self.by_flow(|sends, receives| {
            if let ([send], [receive]) = (sends, receives) {
                pairs.push((*send, *receive));
                return;
            }
            let ordered = |ends: &[End]| {
                let mut ends = ends.to_vec();
                ends.sort_by_key(|one| one.time(clocks));
                ends
            };
            let (sends, receives) = (ordered(sends), ordered(receives));
            let both = sends.len().min(receives.len());
            let (more_sends, more_receives) = (sends.len() - both, receives.len() - both);
            let zip = |sends: &[End], receives: &[End]| -> Vec<Pair> {
                sends
                    .iter()
                    .copied()
                    .zip(receives.iter().copied())
                    .collect()
            };
            let first = zip(&sends[..both], &receives[..both]);
            let last = zip(&sends[more_sends..], &receives[more_receives..]);
            if early(&last, clocks) < early(&first, clocks) {
                pairs.extend(last);
                left.sends.extend(&sends[..more_sends]);
                left.receives.extend(&receives[..more_receives]);
            } else {
                pairs.extend(first);
                left.sends.extend(&sends[both..]);
                left.receives.extend(&receives[both..]);
            }
        });
        (pairs, left)
    }
}

/// Messages that arrive before they were sent.
pub fn early(pairs: &[Pair], clocks: &[Clock]) -> u64 {
    let is_early = |(send, receive): &&Pair| receive.time(clocks) < send.time(clocks);
    pairs.iter().filter(is_early).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(flow: u64, core: u32, tsc: u64) -> End {
        End {
            flow,
            core,
            record: 0,
            tsc,
        }
    }

    fn times(ends: &Ends) -> (Vec<(u64, u64)>, usize, usize) {
        let (pairs, left) = ends.pairs(&[Clock::default(), Clock::default()]);
        let times = pairs.iter().map(|(send, receive)| (send.tsc, receive.tsc));
        (times.collect(), left.sends.len(), left.receives.len())
    }

    #[test]
    fn the_nth_send_belongs_to_the_nth_receive() {
        let ends = Ends {
            sends: vec![end(1, 0, 30), end(1, 0, 10), end(2, 0, 5)],
            receives: vec![end(1, 1, 11), end(1, 1, 31), end(3, 1, 7)],
        };
        assert_eq!(times(&ends), (vec![(10, 11), (30, 31)], 1, 1));
        assert!(ends.single().is_empty());
    }

    #[test]
    fn what_is_left_over_is_at_the_end_that_fits() {
        let under_way = Ends {
            sends: vec![end(1, 0, 10), end(1, 0, 20), end(1, 0, 30)],
            receives: vec![end(1, 1, 11), end(1, 1, 21)],
        };
        assert_eq!(times(&under_way), (vec![(10, 11), (20, 21)], 1, 0));
        let overwritten = Ends {
            sends: vec![end(1, 0, 20), end(1, 0, 30)],
            receives: vec![end(1, 1, 11), end(1, 1, 21), end(1, 1, 31)],
        };
        assert_eq!(times(&overwritten), (vec![(20, 21), (30, 31)], 0, 1));
    }
}
