//! What is said about cores when a boot failed.

use crate::failure::{Failure, numbers};
use crate::guest::{Core, Guest, log_lines};
use crate::memory::GuestMemory;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Log lines shown of a core that panicked: its report and what came before.
const PANIC_LINES: usize = 40;
/// Log lines shown of any other core.
const LAST_LINES: usize = 12;
/// Cores shown one by one; the rest in a summary.
const CORES_SHOWN: usize = 8;

/// A core that panicked, with its last words.
pub fn panicked(memory: &GuestMemory, core: &Core) -> String {
    let mut words = format!("core {} lost: its CPU driver panicked", core.record.core);
    last_words(&mut words, memory, core, PANIC_LINES);
    words
}

/// The cores that `failure` is about; empty where it is about none. Cores that panicked
/// have been reported by [`panicked`] before.
pub fn cores(failure: &Failure, memory: &GuestMemory, guest: &Guest, count: usize) -> String {
    let concerned: Vec<u32> = match failure {
        Failure::CoresLost { lost, .. } => lost.clone(),
        Failure::GuestPanicked
        | Failure::BridgeStopped
        | Failure::NoExitStatus
        | Failure::GuestReset
        | Failure::TimedOut { .. } => by_interest(guest, count),
        _ => return String::new(),
    };
    if guest.cores().is_empty() {
        return "no core left a record: the system never got as far as its first CPU driver's \
                own memory, and the lines above are all that it said"
            .to_owned();
    }
    let mut words = String::new();
    let mut unseen: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    let mut shown = 0;
    for number in concerned {
        match guest.core(number) {
            None => unseen.entry("left no record").or_default().push(number),
            Some(core) if core.panicked() => {}
            Some(core) if shown < CORES_SHOWN => {
                shown += 1;
                let dispatcher = match core.current(memory) {
                    name if name.is_empty() => String::new(),
                    name => format!(", last ran dispatcher {name:?}"),
                };
                let _ = write!(words, "core {number}: {}{dispatcher}", core.state());
                last_words(&mut words, memory, core, LAST_LINES);
                words.push('\n');
            }
            Some(core) => unseen.entry(core.state()).or_default().push(number),
        }
    }
    for (what, mut cores) in unseen {
        cores.sort_unstable();
        let (noun, verb) = match (cores.len(), what) {
            (1, "left no record") => ("core", ""),
            (1, _) => ("core", "is "),
            (_, "left no record") => ("cores", ""),
            _ => ("cores", "are "),
        };
        let _ = writeln!(words, "{noun} {} {verb}{what}", numbers(&cores));
    }
    words.truncate(words.trim_end().len());
    words
}

/// All cores: first those that are not well, then the others, by number within each.
fn by_interest(guest: &Guest, count: usize) -> Vec<u32> {
    let mut cores: Vec<u32> = (0..count as u32).collect();
    cores.sort_by_key(|number| guest.core(*number).is_some_and(Core::well));
    cores
}

fn last_words(words: &mut String, memory: &GuestMemory, core: &Core, most: usize) {
    let lines = log_lines(memory, core);
    if lines.is_empty() {
        words.push_str("; its log is empty");
        return;
    }
    let _ = write!(words, "; its last log lines:");
    for line in &lines[lines.len().saturating_sub(most)..] {
        let _ = write!(words, "\n    {line}");
    }
}
