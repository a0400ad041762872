//! What tests of several protocols need: views, and random numbers for orders and garbage.

use crate::core_set::CoreSet;
use crate::view::{Epoch, View};

/// A view of these cores; core 0 coordinates.
pub fn view(round: u32, cores: &[usize]) -> View {
    let coordinator = 0;
    View {
        epoch: Epoch { round, coordinator },
        cores: cores.iter().copied().collect::<CoreSet>(),
        settings: 0,
    }
}

/// Numbers that a seed determines.
pub struct Random(pub u64);

impl Random {
    /// A number below another one.
    pub fn below(&mut self, below: usize) -> usize {
        (self.word() % below as u64) as usize
    }

    /// A number of 31 bits.
    pub fn word(&mut self) -> u64 {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// The words of a message: small numbers, and with `large`, some that are not.
    pub fn words(&mut self, large: bool) -> [u64; 7] {
        [(); 7].map(|()| match self.below(8) {
            0 if large => self.word() << 33 | self.word(),
            _ => self.word() % 8,
        })
    }
}
