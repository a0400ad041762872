//! The guest's console: QEMU writes it to a file in memory, so that the guest never waits
//! for a reader and the same run always takes the same course.

use rustix::fs::{self, MemfdFlags};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// A file that a child process writes and this tool reads while it grows.
#[derive(Debug)]
pub struct Serial {
    file: OwnedFd,
    read: u64,
    pending: Vec<u8>,
}

impl Serial {
    /// An empty one.
    pub fn create() -> io::Result<Self> {
        // Without CLOEXEC: QEMU inherits the file and opens it by its number.
        let file = fs::memfd_create("atoll-serial", MemfdFlags::empty())?;
        Ok(Self {
            file,
            read: 0,
            pending: Vec::new(),
        })
    }

    /// The path by which a child process opens it.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }

    /// The whole lines that came since the last call.
    pub fn lines(&mut self) -> io::Result<Vec<String>> {
        let mut buffer = [0; 16 * 1024];
        let mut lines = Vec::new();
        loop {
            let count = rustix::io::pread(&self.file, &mut buffer, self.read)?;
            if count == 0 {
                return Ok(lines);
            }
            self.read += count as u64;
            self.pending.extend_from_slice(&buffer[..count]);
            while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                lines.push(as_text(&line));
            }
        }
    }

    /// What came after the last newline; to be asked when the guest has ended.
    pub fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.pending);
        (!rest.is_empty()).then(|| as_text(&rest))
    }
}

fn as_text(line: &[u8]) -> String {
    String::from_utf8_lossy(line)
        .trim_end_matches(['\r', '\n'])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn gives_whole_lines_and_the_rest_at_the_end() {
        let mut serial = Serial::create().unwrap();
        let mut writer = File::create(serial.path()).unwrap();
        writer.write_all(b"one\r\ntw").unwrap();
        assert_eq!(serial.lines().unwrap(), ["one"]);
        assert!(serial.lines().unwrap().is_empty());
        writer.write_all(b"o\n\nlast").unwrap();
        assert_eq!(serial.lines().unwrap(), ["two", ""]);
        assert_eq!(serial.rest().as_deref(), Some("last"));
        assert_eq!(serial.rest(), None);
    }

    #[test]
    fn takes_more_than_a_buffer() {
        let mut serial = Serial::create().unwrap();
        let mut writer = File::create(serial.path()).unwrap();
        let long = "x".repeat(40_000);
        writeln!(writer, "{long}\n{long}").unwrap();
        assert_eq!(serial.lines().unwrap(), [long.clone(), long]);
    }
}
