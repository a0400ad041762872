//! A matrix of pairs of cores as text.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The lines of a matrix: a head, then one row a core; `-` where there is no value.
pub fn matrix(cores: &[usize], value: impl Fn(usize, usize) -> Option<u64>) -> Vec<String> {
    let cell = |row, column| value(row, column).map_or(String::from("-"), |v| format!("{v}"));
    let names = cores.iter().map(|core| format!("{core}").len());
    let values = cores
        .iter()
        .flat_map(|row| cores.iter().map(|column| cell(*row, *column).len()));
    let width = names.clone().chain(values).max().unwrap_or(1);
    let name_width = names.max().unwrap_or(1).max("core".len());

    let mut lines = Vec::with_capacity(cores.len() + 1);
    let mut head = format!("{:>name_width$}", "core");
    for core in cores {
        head += &format!(" {core:>width$}");
    }
    lines.push(head);
    for row in cores {
        let mut line = format!("{row:>name_width$}");
        for column in cores {
            line += &format!(" {:>width$}", cell(*row, *column));
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let lines = matrix(&[0, 3, 12], |row, column| {
            (row != column).then_some((row * column) as u64 * 100)
        });
        assert_eq!(
            lines,
            [
                "core    0    3   12",
                "   0    -    0    0",
                "   3    0    - 3600",
                "  12    0 3600    -",
            ]
        );
    }
}
