//! Amounts of memory as people write them.

use std::fmt;

/// Bytes of a large page: the guest divides its RAM in this unit.
const LARGE_PAGE: u64 = abi::layout::LARGE_PAGE;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    /// The bytes.
    pub bytes: u64,
}

impl Size {
    /// So many MiB.
    pub const fn mebibytes(count: u64) -> Self {
        Self { bytes: count << 20 }
    }

    /// Reads `512M`, `8G`, `8GiB`; `None` for anything else, a bare number included: nobody
    /// can tell whether it means bytes or MiB.
    pub fn parse(text: &str) -> Option<Self> {
        let unit_at = text.find(|letter: char| !letter.is_ascii_digit())?;
        let (number, unit) = text.split_at(unit_at);
        let number: u64 = number.parse().ok()?;
        let shift = match unit.to_ascii_uppercase().as_str() {
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            _ => return None,
        };
        let bytes = number.checked_mul(1 << shift)?;
        Some(Self { bytes })
    }

    /// This many bytes or a few more, so that `parts` equal parts are whole large pages.
    pub fn rounded_to(self, parts: usize) -> Self {
        Self {
            bytes: self.bytes.next_multiple_of(LARGE_PAGE * parts as u64),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes > 0 && self.bytes.is_multiple_of(1 << 30) {
            write!(formatter, "{}G", self.bytes >> 30)
        } else {
            write!(formatter, "{}M", self.bytes.div_ceil(1 << 20))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for size in [
            Size::mebibytes(1),
            Size::mebibytes(512),
            Size::mebibytes(8192),
        ] {
            assert_eq!(Size::parse(&size.to_string()), Some(size));
        }
        assert_eq!(Size::parse("8gib"), Some(Size::mebibytes(8192)));
    }

    #[test]
    fn refuses_what_it_cannot_read() {
        for text in [
            "",
            "512",
            "M",
            "-1G",
            "1.5G",
            "12X",
            "G8",
            "99999999999999999999G",
            "99999999999G",
        ] {
            assert_eq!(Size::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn rounds_to_equal_parts() {
        assert_eq!(Size::mebibytes(512).rounded_to(1), Size::mebibytes(512));
        assert_eq!(Size::mebibytes(512).rounded_to(3), Size::mebibytes(516));
    }
}
