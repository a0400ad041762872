//! Which operation of ours stands beside which of Linux's, and how far they can be compared.

use crate::comparison::{number, verdict};
use crate::figure::Figure;
use std::fmt::Write;

/// An operation of ours and one of Linux's.
struct Pair {
    /// Our benchmark and the operation in it; without a name the benchmark's first.
    ours: (&'static str, Option<&'static str>),
    /// Linux's operation.
    theirs: &'static str,
    /// Whether both do the same for whoever asks.
    is_comparable: bool,
    /// What differs.
    note: &'static str,
    /// Ours is to take at most this part of Linux's: one in so many.
    one_in: Option<u32>,
}

const fn pair(
    ours: (&'static str, Option<&'static str>),
    theirs: &'static str,
    is_comparable: bool,
    one_in: Option<u32>,
    note: &'static str,
) -> Pair {
    Pair {
        ours,
        theirs,
        is_comparable,
        note,
        one_in,
    }
}

const PAIRS: [Pair; 17] = [
    pair(
        ("micro", Some("null system call")),
        "null system call",
        true,
        None,
        "Linux: getpid",
    ),
    pair(
        ("micro", Some("LRPC round trip")),
        "futex round trip, same core",
        true,
        None,
        "between address spaces; a futex carries no data, an LRPC five words",
    ),
    pair(
        ("micro", Some("LRPC round trip")),
        "pipe round trip, same core",
        true,
        None,
        "between address spaces, 8 bytes copied by the kernel",
    ),
    pair(
        ("micro", Some("LRPC round trip")),
        "eventfd round trip, same core",
        true,
        None,
        "between address spaces, 8 bytes counted by the kernel",
    ),
    pair(
        ("micro", Some("LRPC round trip")),
        "unix socket round trip, same core",
        true,
        None,
        "between address spaces; a socket also queues and checks credentials",
    ),
    pair(
        ("micro", Some("map+touch+unmap")),
        "map+touch+unmap",
        false,
        None,
        "ours maps a frame that exists; Linux faults, takes a page, zeroes it, gives it back",
    ),
    pair(
        ("wake", Some("blocking round trip")),
        "futex round trip",
        true,
        Some(4),
        "both sides sleep; ours carries a message of 56 bytes",
    ),
    pair(
        ("wake", Some("blocking round trip")),
        "eventfd round trip",
        true,
        None,
        "both sides sleep",
    ),
    pair(
        ("wake", Some("blocking round trip")),
        "pipe round trip",
        true,
        None,
        "both sides sleep",
    ),
    pair(
        ("urpc-latency", Some("round trip")),
        "spinning shared line, round trip",
        false,
        None,
        "the floor: one bare word; ours is a message with its checks and acknowledgement",
    ),
    pair(
        ("unmap", Some("unmap a page")),
        "munmap, threads running",
        true,
        Some(2),
        "Linux interrupts all cores that use the space; it also frees the page and the mapping",
    ),
    pair(
        ("unmap", Some("unmap a page")),
        "munmap, threads asleep",
        false,
        None,
        "Linux leaves cores alone that sleep; ours tells all that have mapped it",
    ),
    pair(
        ("protect", Some("protect a page")),
        "mprotect, threads running",
        true,
        None,
        "as unmapping, nothing is freed",
    ),
    pair(
        ("micro", Some("spawn+exit")),
        "vfork+exec+wait",
        true,
        None,
        "each a program of its own with its runtime, Linux's the larger one: Rust's and glibc's",
    ),
    pair(
        ("micro", Some("spawn+exit")),
        "vfork+exec+wait, smallest program",
        true,
        Some(3),
        "Linux's program is one page without any runtime, ours has its runtime: in favour of Linux",
    ),
    pair(
        ("memory", Some("allocate and free a 4 KiB frame")),
        "mmap+touch 4 KiB on all cores, processes",
        true,
        None,
        "address spaces of their own; all cores' instructions a page",
    ),
    pair(
        ("boot", Some("to user code")),
        "power-on to user code, all cores up",
        true,
        Some(5),
        "by the clock that starts with the machine, as instructions: waiting is in it",
    ),
];

/// Both columns, a row for each pair and number of cores that took part.
pub fn table(ours: &[&Figure], theirs: &[Figure]) -> String {
    let head = [
        "ours",
        "figure",
        "Linux",
        "figure",
        "unit",
        "of Linux's",
        "target",
        "met",
        "comparable",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    let mut notes = String::new();
    for pair in &PAIRS {
        let all = theirs.iter().filter(|their| their.operation == pair.theirs);
        for their in all {
            rows.push(row(
                pair,
                ours.iter().copied().find(|our| fits(pair, our, their)),
                their,
            ));
        }
        let _ = writeln!(notes, "  {}: {}", pair.theirs, pair.note);
    }
    if rows.len() == 1 {
        return "Linux: no figures: --accel icount tells instructions\n".to_owned();
    }
    let widths: [usize; 9] = std::array::from_fn(|column| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            1 | 3 | 5 | 6 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text + "what differs:\n" + &notes
}

fn row(pair: &Pair, our: Option<&Figure>, their: &Figure) -> [String; 9] {
    let (benchmark, operation) = pair.ours;
    let name = our.map_or(operation.unwrap_or(benchmark), |our| &our.operation);
    let ratio = our.map(|our| our.value / their.value);
    let limit = pair.one_in.map(|parts| 1.0 / f64::from(parts));
    let met = ratio.zip(limit).map(|(ratio, limit)| ratio <= limit);
    let members = members(their).map_or_else(String::new, |number| format!(", members {number}"));
    let told = |number: Option<f64>| number.map_or("-".to_owned(), |it| format!("{it:.3}"));
    [
        name.to_owned(),
        number(our.map(|our| our.value)),
        format!("{}{members}", their.operation),
        number(Some(their.value)),
        format!("{}, {}", their.unit, accelerator(their)),
        told(ratio),
        told(limit),
        verdict(met).to_owned(),
        if pair.is_comparable { "yes" } else { "no" }.to_owned(),
    ]
}

/// Whether a figure of ours is of this pair, told in the same unit and with as many cores.
fn fits(pair: &Pair, our: &Figure, their: &Figure) -> bool {
    let (benchmark, operation) = pair.ours;
    let both = members(our).zip(members(their));
    let same_members = both.is_none_or(|(ours, theirs)| ours == theirs);
    our.record
        .get("benchmark")
        .is_some_and(|it| it == benchmark)
        && operation.is_none_or(|name| our.operation == name)
        && our.unit == their.unit
        && same_members
}

fn members(figure: &Figure) -> Option<u64> {
    figure.record.get("members")?.as_u64()
}

fn accelerator(figure: &Figure) -> &str {
    let named = figure.record.get("accelerator");
    named.and_then(|name| name.as_str()).unwrap_or("-")
}

/// Linux's operations that stand in the table.
pub fn operations() -> impl Iterator<Item = &'static str> {
    PAIRS.iter().map(|pair| pair.theirs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Conditions, parse};

    fn figure(benchmark: &str, operation: &str, rest: &str, median: u64) -> Figure {
        let conditions = Conditions {
            accelerator: "icount".to_owned(),
            command: "scripts/bench".to_owned(),
            cores: 2,
            memory: "512M".to_owned(),
            qemu: "7.2".to_owned(),
            revision: "abc".to_owned(),
            sockets: 1,
        };
        let line = format!(
            "result {{\"benchmark\":\"{benchmark}\",\"operation\":\"{operation}\",{rest}\
             \"unit\":\"guest instructions\",\"median\":{median}}}"
        );
        parse(&line, benchmark, &conditions).unwrap().unwrap()
    }

    #[test]
    fn pairs_stand_beside_each_other_with_what_is_to_be_known() {
        let ours = [
            figure("micro", "spawn+exit", "", 100),
            figure("unmap", "unmap a page", "\"members\":1,", 10),
            figure("unmap", "unmap a page", "\"members\":2,", 60),
        ];
        let theirs = [
            figure("spawn", "vfork+exec+wait, smallest program", "", 300),
            figure("unmap", "munmap, threads running", "\"members\":1,", 100),
            figure("unmap", "munmap, threads running", "\"members\":2,", 100),
        ];
        let table = table(&ours.each_ref(), &theirs);
        let lines: Vec<&str> = table.lines().collect();
        let ends = |line: &str, end: &[&str]| {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(words.ends_with(end), "{line}");
        };
        assert!(lines[1].starts_with("unmap a page") && lines[1].contains("members 1"));
        ends(lines[1], &["icount", "0.100", "0.500", "yes", "yes"]);
        ends(lines[2], &["icount", "0.600", "0.500", "NO", "yes"]);
        ends(lines[3], &["icount", "0.333", "0.333", "yes", "yes"]);
        assert_eq!(lines[4], "what differs:");
    }

    #[test]
    fn says_why_there_are_no_figures() {
        assert!(table(&[], &[]).contains("no figures"));
    }
}
