//! The file that is written at the end: one JSON object a line.
//!
//! | first key  | what the line tells                                                               |
//! |------------|-----------------------------------------------------------------------------------|
//! | `cores`    | of the whole run: cores, and accesses that QEMU could not place                   |
//! | `region`   | with `core`: what a core did in a region of interest                              |
//! | `region`   | with `by`: how many lines came to a core by reads, or writes, from whom           |
//! | `region`   | with `line`: how a line moved in it; the busiest ones                             |
//! | `shared`   | a line that several cores touched since the first region began                    |
//! | `page`     | a run of pages that the same cores touched since then                             |
//!
//! Cores are QEMU's numbers of them, addresses those that QEMU tells, both in decimal.

use crate::counter::{Counter, Counts, Moves};
use crate::lines::{CoreSet, Move, PAGE, Transfer};
use std::fmt::{Display, Formatter};
use std::io::{self, Write};

/// Most lines of a region that are told of.
const BUSIEST: usize = 256;

/// Writes all counts.
pub fn write(counter: &mut Counter, cores: usize, out: &mut impl Write) -> io::Result<()> {
    let unresolved = counter.unresolved;
    writeln!(out, "{{\"cores\":{cores},\"unresolved\":{unresolved}}}")?;
    for (number, region) in counter.regions() {
        for (core, counts) in region.cores.iter().enumerate() {
            write_core(out, number, region.begun, core, counts)?;
        }
        for (way, times) in &region.ways {
            write_way(out, number, way, *times)?;
        }
        let mut lines: Vec<_> = region.lines.iter().collect();
        // The addresses make it the same order in every run.
        lines.sort_unstable_by_key(|(address, moves)| (u64::MAX - moves.all(), **address));
        for (address, moves) in lines.into_iter().take(BUSIEST) {
            write_line(out, number, *address, moves)?;
        }
    }
    for (address, cores) in counter.lines.shared() {
        writeln!(
            out,
            "{{\"shared\":{address},\"touched_by\":{}}}",
            List(cores)
        )?;
    }
    let mut run: Option<(u64, u64, CoreSet)> = None;
    for (address, cores) in counter.lines.touched() {
        match &mut run {
            Some((first, bytes, same)) if *first + *bytes == address && *same == cores => {
                *bytes += PAGE;
            }
            _ => {
                if let Some(run) = run.replace((address, PAGE, cores)) {
                    write_pages(out, run)?;
                }
            }
        }
    }
    run.map_or(Ok(()), |run| write_pages(out, run))
}

fn write_core(
    out: &mut impl Write,
    region: usize,
    begun: u64,
    core: usize,
    counts: &Counts,
) -> io::Result<()> {
    let Counts {
        instructions,
        loads,
        stores,
        device,
        reads,
        writes,
    } = counts;
    writeln!(
        out,
        "{{\"region\":{region},\"begun\":{begun},\"core\":{core},\"instructions\":{instructions},\
         \"loads\":{loads},\"stores\":{stores},\"device\":{device},\"reads\":{reads},\"writes\":{writes}}}"
    )
}

fn write_way(out: &mut impl Write, region: usize, way: &Move, times: u64) -> io::Result<()> {
    let Move { transfer, to, from } = way;
    let by = match transfer {
        Transfer::Read => "read",
        Transfer::Write => "write",
    };
    writeln!(
        out,
        "{{\"region\":{region},\"by\":\"{by}\",\"from\":{},\"to\":{to},\"times\":{times}}}",
        List(from)
    )
}

fn write_line(out: &mut impl Write, region: usize, address: u64, moves: &Moves) -> io::Result<()> {
    let Moves {
        reads,
        writes,
        readers,
        writers,
        read_at,
        write_at,
    } = moves;
    writeln!(
        out,
        "{{\"region\":{region},\"line\":{address},\"reads\":{reads},\"writes\":{writes},\
         \"readers\":{},\"writers\":{},\"read_at\":{read_at},\"write_at\":{write_at}}}",
        List(readers),
        List(writers)
    )
}

fn write_pages(out: &mut impl Write, (first, bytes, cores): (u64, u64, CoreSet)) -> io::Result<()> {
    writeln!(
        out,
        "{{\"page\":{first},\"bytes\":{bytes},\"touched_by\":{}}}",
        List(&cores)
    )
}

/// Cores as a JSON list.
struct List<'a>(&'a CoreSet);

impl Display for List<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        let cores: Vec<String> = self.0.iter().map(|core| core.to_string()).collect();
        write!(formatter, "[{}]", cores.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Mark;
    use crate::counter::Access;

    #[test]
    fn the_file_tells_regions_lines_and_who_touched_what() {
        let mut counter = Counter::new(2);
        counter.mark(0, Mark::Begin(7));
        for (core, address, is_store) in [
            (0, 0, true),
            (1, 0, false),
            (0, 0, true),
            (1, PAGE, true),
            (1, 2 * PAGE, false),
        ] {
            counter.instruction(core);
            let access = Access {
                address,
                bytes: 8,
                is_store,
                is_locked: false,
                at: 5,
            };
            counter.access(core, &access);
        }
        let mut out = Vec::new();
        write(&mut counter, 2, &mut out).unwrap();
        let expected = r#"{"cores":2,"unresolved":0}
{"region":7,"begun":1,"core":0,"instructions":2,"loads":0,"stores":2,"device":0,"reads":0,"writes":1}
{"region":7,"begun":1,"core":1,"instructions":3,"loads":2,"stores":1,"device":0,"reads":1,"writes":0}
{"region":7,"by":"read","from":[0],"to":1,"times":1}
{"region":7,"by":"write","from":[1],"to":0,"times":1}
{"region":7,"line":0,"reads":1,"writes":1,"readers":[1],"writers":[0],"read_at":5,"write_at":5}
{"shared":0,"touched_by":[0,1]}
{"page":0,"bytes":4096,"touched_by":[0,1]}
{"page":4096,"bytes":8192,"touched_by":[1]}
"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
