//! Where lines of the guest and of the tool go.

use std::io::{self, Write};
use std::time::Duration;

/// A moment of a boot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment {
    /// Since QEMU was started.
    pub wall: Duration,
    /// Host processor time that QEMU had used up.
    pub cpu: Duration,
}

/// Takes what there is to say during a boot.
pub trait Console {
    /// A whole line of the guest, without its newline.
    fn guest(&mut self, line: &str, at: Moment) -> io::Result<()>;
    /// The guest is still running; said a few times a second.
    fn running(&mut self, _at: Moment) {}
    /// Words of the tool's own, perhaps several lines.
    fn tool(&mut self, words: &str);
}

/// Whether a guest's line is a log line of a CPU driver or monitor rather than the
/// program's: it starts with `[core K]`.
pub fn is_log_line(line: &str) -> bool {
    line.strip_prefix("[core ")
        .and_then(|rest| rest.split_once(']'))
        .is_some_and(|(core, _)| {
            !core.is_empty() && core.bytes().all(|digit| digit.is_ascii_digit())
        })
}

/// The guest's lines to stdout, the tool's words to stderr.
pub struct Terminal {
    /// Leaves log lines out.
    pub quiet: bool,
}

impl Console for Terminal {
    fn guest(&mut self, line: &str, _at: Moment) -> io::Result<()> {
        if self.quiet && is_log_line(line) {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(line.as_bytes())?;
        stdout.write_all(b"\n")?;
        stdout.flush()
    }

    fn tool(&mut self, words: &str) {
        let _ = writeln!(io::stderr(), "{words}");
    }
}

/// Keeps everything, for tests and for the KVM probe.
#[derive(Debug, Default)]
pub struct Recording {
    /// The guest's lines, with when they came.
    pub guest: Vec<(Moment, String)>,
    /// The tool's words.
    pub tool: Vec<String>,
    /// When the guest was last seen running.
    pub last_seen: Moment,
}

impl Recording {
    /// The program's own lines.
    pub fn program(&self) -> impl Iterator<Item = &str> {
        self.guest
            .iter()
            .map(|(_, line)| line.as_str())
            .filter(|line| !is_log_line(line))
    }

    /// Everything the guest wrote, as one text.
    pub fn text(&self) -> String {
        self.guest
            .iter()
            .flat_map(|(_, line)| [line.as_str(), "\n"])
            .collect()
    }
}

impl Console for Recording {
    fn guest(&mut self, line: &str, at: Moment) -> io::Result<()> {
        self.guest.push((at, line.to_owned()));
        Ok(())
    }

    fn running(&mut self, at: Moment) {
        self.last_seen = at;
    }

    fn tool(&mut self, words: &str) {
        self.tool.push(words.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_told_from_the_programs() {
        assert!(is_log_line("[core 0] monitor is up"));
        assert!(is_log_line("[core 254]"));
        assert!(!is_log_line("hello from core 3"));
        assert!(!is_log_line("[core x] hello"));
        assert!(!is_log_line("[core ] hello"));
        assert!(!is_log_line("  [core 1] indented"));
    }
}
