//! Tells a person at a terminal that a long step is under way.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// A spinner with the time that passed, on stderr; invisible where that is no terminal.
/// It goes away when dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows that `step` began.
    pub fn begin(step: impl Into<String>) -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.set_message(step.into());
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// How long boots will take, by how long those before took. A core more is taken to cost as much as
/// a quarter of a boot.
#[derive(Debug)]
pub struct Estimate {
    begun: Instant,
    weights: Vec<u64>,
    done: usize,
}

impl Estimate {
    /// Begins with the first of the boots, each with its number of cores.
    pub fn begin(cores: impl IntoIterator<Item = u32>) -> Self {
        Self {
            begun: Instant::now(),
            weights: cores
                .into_iter()
                .map(|cores| 4 + u64::from(cores))
                .collect(),
            done: 0,
        }
    }

    /// One boot ended.
    pub fn advance(&mut self) {
        self.done += 1;
    }

    /// The step that begins now, with its place and the time that is left.
    pub fn of(&self, step: &str) -> String {
        let place = format!("[{}/{}] {step}", self.done + 1, self.weights.len());
        match self.left(self.begun.elapsed()) {
            Some(left) => format!("{place}, about {} left", spoken(left)),
            None => place,
        }
    }

    /// `None`: no boot has ended yet.
    fn left(&self, passed: Duration) -> Option<Duration> {
        let done = self.done.min(self.weights.len());
        let (before, after) = self.weights.split_at(done);
        let [before, after] = [before, after].map(|all| all.iter().sum::<u64>());
        (before > 0).then(|| passed.mul_f64(after as f64 / before as f64))
    }
}

fn spoken(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=99 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_what_passed() {
        let mut estimate = Estimate::begin([2, 2, 8]);
        assert_eq!(estimate.of("micro"), "[1/3] micro");
        estimate.advance();
        let left = estimate.left(Duration::from_secs(6));
        assert_eq!(left, Some(Duration::from_secs(18)));
        assert!(
            estimate
                .of("lrpc")
                .starts_with("[2/3] lrpc, about 0 s left")
        );
        assert_eq!(spoken(Duration::from_secs(121)), "3 min");
    }
}
