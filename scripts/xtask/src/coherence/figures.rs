//! What a benchmark's lines come to, as figures of its own.

use super::estimate::Model;
use super::{Counts, FIELDS, read_line};
use crate::console::{Console, Moment, Recording};
use crate::failure::Failure;
use crate::figure::Unit;
use serde::Deserialize;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What a program says that it did in a region.
#[derive(Deserialize)]
pub struct Work {
    /// Its number.
    pub region: u8,
    operation: String,
    times: u64,
    #[serde(flatten)]
    with: serde_json::Map<String, Value>,
}

/// Adds to what a benchmark said the lines that it moved, of which fields they are, and what they
/// would cost on these machines, as if it had said so itself. Why some are left out, in words.
pub fn tell(
    file: &Path,
    benchmark: &str,
    models: &[Model],
    console: &mut Recording,
) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(file)
        .map_err(Failure::host(format!("cannot read {}", file.display())))?;
    let counts = Counts::of(&text)?;
    let (models, mut notes) = fitting(models, counts.machine());
    let mut lines = Vec::new();
    for line in console
        .program()
        .filter_map(|line| line.strip_prefix("region "))
    {
        let work: Work = read_line(line)?;
        let each = |all: u64| all as f64 / work.times.max(1) as f64;
        let figure = |what: &str, unit: Unit, all: u64| {
            let mut record = work.with.clone();
            for (key, value) in [
                ("benchmark", Value::from(benchmark)),
                ("operation", format!("{what}: {}", work.operation).into()),
                ("unit", unit.to_string().into()),
                ("value", each(all).into()),
                ("times", work.times.into()),
            ] {
                record.insert(key.to_owned(), value);
            }
            record
        };
        let moved = |what: &str, reads: u64, writes: u64| {
            let mut record = figure(what, Unit::CacheLines, reads + writes);
            record.insert("by_reads".to_owned(), each(reads).into());
            record.insert("by_writes".to_owned(), each(writes).into());
            record
        };
        let (reads, writes) = counts.transfers(work.region);
        lines.push(Value::from(moved("transfers", reads, writes)));
        let fields = counts.fields(work.region);
        for (structure, field, reads, writes) in fields.into_iter().take(FIELDS) {
            let mut record = moved("of these", reads, writes);
            record.insert("structure".to_owned(), structure.into());
            record.insert("field".to_owned(), field.into());
            lines.push(Value::from(record));
        }
        for model in &models {
            let all = model.nanoseconds(&counts, work.region);
            let mut record = figure("lines alone", Unit::Estimate, all);
            model.describe(&mut record);
            lines.push(Value::from(record));
        }
    }
    if lines.is_empty() {
        // There is nothing to estimate.
        notes.clear();
    }
    for (operation, count) in [
        ("private lines touched by two cores", counts.private.len()),
        (
            "private pages touched by another core",
            counts.foreign.len(),
        ),
    ] {
        // Nobody looked at who touches what before a region began.
        if !counts.cores.is_empty() {
            lines.push(serde_json::json!({ "benchmark": benchmark, "operation": operation, "unit": "count", "value": count }));
        }
    }
    for line in lines {
        let told = console.guest(&format!("result {line}"), Moment::default());
        told.map_err(Failure::host("cannot keep the results"))?;
    }
    Ok(notes)
}

/// The machines that have so many cores, and why the others are left out.
fn fitting(models: &[Model], cores: usize) -> (Vec<&Model>, Vec<String>) {
    let notes = models.iter().filter_map(|model| model.refuses(cores));
    let fitting = models.iter().filter(|model| model.refuses(cores).is_none());
    (fitting.collect(), notes.collect())
}
