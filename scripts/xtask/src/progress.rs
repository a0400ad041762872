//! Tells a person at a terminal that a long step is under way.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

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
