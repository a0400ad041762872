//! Samples and the lines that tell them, by the rules of the guest's own laboratory.

use crate::host::Done;
use std::fmt::Write;

/// Times that do not count.
const WARM_UP: usize = 16;
/// Samples of each operation, and of a quick run.
const SAMPLES: usize = 1000;
const QUICK_SAMPLES: usize = 100;
/// Ticks of the time-stamp counter an instruction under `icount`: the host tool starts QEMU
/// with `-icount shift=3`, which is 2^3 ns each, at 1 GHz.
const TICKS_PER_INSTRUCTION: u64 = 8;
/// Most values of a distribution that one line tells.
const VALUES_A_LINE: usize = 200;

/// What times are told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Instructions that all cores executed; while all wait, those that would have fitted in.
    Instructions,
    /// Cycles of the time-stamp counter.
    Cycles,
    /// None: plain emulation has none.
    Untold,
}

impl Times {
    /// Those of a run under this accelerator.
    pub fn of(accelerator: &str) -> Self {
        match accelerator {
            "tcg" => Self::Untold,
            "icount" => Self::Instructions,
            _ => Self::Cycles,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Instructions => "guest instructions",
            Self::Cycles | Self::Untold => "cycles",
        }
    }

    fn convert(self, cycles: u64) -> u64 {
        match self {
            Self::Instructions => cycles / TICKS_PER_INSTRUCTION,
            Self::Cycles | Self::Untold => cycles,
        }
    }
}

/// The time-stamp counter.
#[inline(always)]
pub fn cycles() -> u64 {
    // SAFETY: reading the counter has no effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The cycles that some work takes, and what it comes to.
#[inline(always)]
pub fn timed<R>(work: impl FnOnce() -> R) -> (u64, R) {
    let start = cycles();
    let result = work();
    (cycles().saturating_sub(start), result)
}

/// Names an operation: its benchmark, and what it is called in it.
#[derive(Clone, Copy, Debug)]
pub struct Operation(pub &'static str, pub &'static str);

/// A run.
#[derive(Debug)]
pub struct Laboratory {
    times: Times,
    is_quick: bool,
    overhead: u64,
    kernel: String,
}

impl Laboratory {
    /// Begins a run; `is_quick`: with fewer samples.
    pub fn open(times: Times, is_quick: bool) -> Self {
        let tries = (0..64).map(|_| timed(|| ()).0);
        let kernel = rustix::system::uname();
        Self {
            times,
            is_quick,
            overhead: tries.min().unwrap_or_default(),
            kernel: kernel.release().to_string_lossy().into_owned(),
        }
    }

    /// What reading the clock twice costs: it is taken off each time that is told.
    pub fn overhead(&self) -> u64 {
        self.overhead
    }

    /// Does an operation again and again; it says itself how many cycles it took. Slow ones are
    /// done fewer times, by the factor.
    ///
    /// # Errors
    /// Those of the operation.
    #[inline(always)]
    pub fn measure(
        &self,
        operation: Operation,
        with: &[(&str, usize)],
        slower_by: usize,
        mut once: impl FnMut() -> Done<u64>,
    ) -> Done {
        for _ in 0..WARM_UP.div_ceil(slower_by) {
            once()?;
        }
        let samples = if self.is_quick {
            QUICK_SAMPLES
        } else {
            SAMPLES
        };
        let samples = (samples / slower_by).max(1);
        let mut cycles = Vec::with_capacity(samples);
        for _ in 0..samples {
            cycles.push(once()?);
        }
        if self.times != Times::Untold {
            print!("{}", self.lines(operation, with, cycles));
        }
        Ok(())
    }

    /// Tells when something had happened after power-on, where the counter says that.
    pub fn power_on(&self, operation: &'static str, up: u64) {
        let (unit, value) = match self.times {
            Times::Instructions => ("guest instructions", up / TICKS_PER_INSTRUCTION),
            Times::Cycles => ("cycles", up),
            Times::Untold => return,
        };
        let head = self.head(Operation("boot", operation), &[]);
        println!("result {{{head},\"unit\":\"{unit}\",\"value\":{value}}}");
    }

    fn head(&self, Operation(benchmark, operation): Operation, with: &[(&str, usize)]) -> String {
        let mut head = format!(
            "\"benchmark\":\"{benchmark}\",\"operation\":\"{operation}\",\"system\":\"linux\",\
             \"kernel\":\"{}\"",
            self.kernel
        );
        for (name, value) in with {
            let _ = write!(head, ",\"{name}\":{value}");
        }
        head
    }

    /// What is told of these times.
    fn lines(&self, operation: Operation, with: &[(&str, usize)], mut cycles: Vec<u64>) -> String {
        cycles.sort_unstable();
        let told = cycles
            .iter()
            .map(|time| self.times.convert(time.saturating_sub(self.overhead)));
        let told: Vec<u64> = told.collect();
        let percentile =
            |percent: usize| told[(told.len() * percent).div_ceil(100).saturating_sub(1)];
        let [minimum, median, p99] = [0, 50, 99].map(percentile);
        let pairs: Vec<String> = told
            .chunk_by(|one, other| one == other)
            .map(|equal| format!("[{},{}]", equal[0], equal.len()))
            .collect();
        let mut pieces = pairs.chunks(VALUES_A_LINE).map(|piece| piece.join(","));
        let mut text = format!(
            "result {{{},\"unit\":\"{}\",\"minimum\":{minimum},\"median\":{median},\"p99\":{p99},\
             \"samples\":{},\"distribution\":[{}]}}\n",
            self.head(operation, with),
            self.times.name(),
            told.len(),
            pieces.next().unwrap_or_default()
        );
        for piece in pieces {
            let _ = writeln!(text, "more [{piece}]");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATION: Operation = Operation("micro", "x");

    fn laboratory() -> Laboratory {
        Laboratory {
            times: Times::Instructions,
            is_quick: true,
            overhead: 16,
            kernel: "6.1".to_owned(),
        }
    }

    #[test]
    fn a_line_tells_the_whole_distribution() {
        let mut cycles: Vec<u64> = (1..=99).map(|_| 96).collect();
        cycles.insert(0, 816);
        assert_eq!(
            laboratory().lines(OPERATION, &[("members", 2)], cycles),
            "result {\"benchmark\":\"micro\",\"operation\":\"x\",\"system\":\"linux\",\
             \"kernel\":\"6.1\",\"members\":2,\"unit\":\"guest instructions\",\"minimum\":10,\
             \"median\":10,\"p99\":10,\"samples\":100,\"distribution\":[[10,99],[100,1]]}\n"
        );
    }

    #[test]
    fn long_distributions_go_on() {
        let cycles = (0..450).map(|number| 16 + 8 * number).collect();
        let text = laboratory().lines(OPERATION, &[], cycles);
        let more: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(more.len(), 2);
        assert!(more[0].starts_with("more [[200,1],") && more[1].ends_with(",[449,1]]"));
        assert!(text.contains("\"minimum\":0,\"median\":224,\"p99\":445,"));
    }

    #[test]
    fn times_are_warmed_up_and_slow_ones_are_fewer() {
        for (slower_by, calls) in [(1, 116), (20, 6), (1000, 2)] {
            let mut count = 0;
            let once = || {
                count += 1;
                Ok(0)
            };
            laboratory()
                .measure(OPERATION, &[], slower_by, once)
                .unwrap();
            assert_eq!(count, calls);
        }
    }
}
