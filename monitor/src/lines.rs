//! Text that arrives in pieces, put together line by line.

use alloc::vec::Vec;

/// Most bytes of one line; a longer one is broken.
pub const MAX_LINE_BYTES: usize = 8192;

/// Collects pieces of text until they are whole lines.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Adds a piece, and calls `whole` with each line that it completes, newline excluded.
    pub fn add(&mut self, piece: &[u8], mut whole: impl FnMut(&[u8])) {
        for byte in piece {
            if *byte == b'\n' {
                whole(&self.partial);
                self.partial.clear();
                continue;
            }
            if self.partial.len() == MAX_LINE_BYTES {
                whole(&self.partial);
                self.partial.clear();
            }
            self.partial.push(*byte);
        }
    }

    /// What is left of a line that nobody will end any more.
    pub fn rest(&mut self, mut whole: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            whole(&self.partial);
            self.partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for piece in [&b"a"[..], b"b\n\ncd", b"", b"\ne"] {
            lines.add(piece, |line| seen.push(line.to_vec()));
        }
        lines.rest(|line| seen.push(line.to_vec()));
        lines.rest(|line| seen.push(line.to_vec()));
        assert_eq!(
            seen,
            [b"ab".to_vec(), Vec::new(), b"cd".to_vec(), b"e".to_vec()]
        );
    }

    #[test]
    fn a_line_without_end_is_broken() {
        let mut lines = Lines::default();
        let mut lengths = Vec::new();
        lines.add(&[b'x'; MAX_LINE_BYTES * 2 + 3], |line| {
            lengths.push(line.len());
        });
        lines.rest(|line| lengths.push(line.len()));
        assert_eq!(lengths, [MAX_LINE_BYTES, MAX_LINE_BYTES, 3]);
    }
}
