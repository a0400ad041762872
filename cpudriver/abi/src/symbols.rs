//! Symbol tables as text: lines of `ADDRESS NAME`, the address in 16 hexadecimal digits.

/// The function that an address most likely lies in: its start and its name.
///
/// A table may hold symbols of both halves of the address space; those of the other half
/// are left aside.
pub fn find(table: &str, address: u64) -> Option<(u64, &str)> {
    let symbols = table.lines().filter_map(|line| {
        let (start, name) = line.split_once(' ')?;
        Some((u64::from_str_radix(start, 16).ok()?, name))
    });
    symbols
        .filter(|(start, _)| *start <= address && (start ^ address) >> 63 == 0)
        .max_by_key(|(start, _)| *start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_start_below_in_the_same_half() {
        let table = "ffffffff80000100 kernel\n0000000000400000 low\n0000000000400010 next\nnoise";
        assert_eq!(find(table, 0x40_000f), Some((0x40_0000, "low")));
        assert_eq!(find(table, 0x40_0010), Some((0x40_0010, "next")));
        assert_eq!(find(table, 0xffff_ffff_8000_0000), None);
        assert_eq!(find(table, 0x3f_ffff), None);
    }
}
