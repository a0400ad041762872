//! `scripts/bench merge`: joins folders of results into one.

use super::compare::place;
use super::results::{self, Run};
use crate::failure::{BenchmarkError, Failure};
use crate::figure::Figure;
use clap::Args;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Options of `scripts/bench merge`.
#[derive(Args, Clone, Debug)]
pub struct MergeOptions {
    /// Folder for the results.jsonl and report.html of all
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// Folders to join
    #[arg(value_name = "DIR", required = true)]
    pub folders: Vec<PathBuf>,
}

/// Joins them, and says what came of it.
///
/// # Errors
/// A folder that cannot be read or written; two that contradict each other.
pub fn merge(options: &MergeOptions) -> Result<String, Failure> {
    let mut all = Vec::new();
    for folder in &options.folders {
        all.push((folder.as_path(), results::read(folder)?));
    }
    let runs = joined(all)?;
    let out = &options.out;
    results::write(out, &runs)
        .map_err(Failure::host(format!("cannot write to {}", out.display())))?;
    Ok(format!(
        "{} figures of {} boots, results.jsonl and report.html: {}\n",
        runs.iter().map(|run| run.figures.len()).sum::<usize>(),
        runs.len(),
        out.display()
    ))
}

/// All figures, each once, by benchmark and number of cores.
fn joined(folders: Vec<(&Path, Vec<Run>)>) -> Result<Vec<Run>, BenchmarkError> {
    let mut seen: HashMap<String, (&Path, Figure)> = HashMap::new();
    let mut conflicts = Vec::new();
    let mut figures = Vec::new();
    for (folder, runs) in folders {
        for figure in runs.into_iter().flat_map(|run| run.figures) {
            let identity = figure.identity();
            match seen.get(&identity) {
                None => {
                    seen.insert(identity, (folder, figure.clone()));
                    figures.push(figure);
                }
                Some((_, first)) if first.record == figure.record => {}
                Some((other, first)) => conflicts.push(format!(
                    "{}: {} of revision {} in {}, {} of revision {} in {}",
                    place(&figure),
                    first.value,
                    first.conditions.revision,
                    other.display(),
                    figure.value,
                    figure.conditions.revision,
                    folder.display()
                )),
            }
        }
    }
    if !conflicts.is_empty() {
        return Err(BenchmarkError::Conflict { conflicts });
    }
    let mut runs = results::by_boot(figures);
    // Folders come in any order; those of one benchmark belong together.
    let mut order: Vec<String> = Vec::new();
    for run in &runs {
        if !order.contains(&run.name) {
            order.push(run.name.clone());
        }
    }
    runs.sort_by_key(|run| {
        let place = order.iter().position(|name| *name == run.name);
        (place, run.conditions.cores)
    });
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::{Folder, conditions, figure, run};

    fn boot(benchmark: &str, cores: u32, median: u64) -> Run {
        let conditions = conditions(benchmark, "icount", cores);
        Run {
            name: benchmark.to_owned(),
            figures: vec![figure(&conditions, benchmark, "a", "", median)],
            conditions,
            left_out: 0,
        }
    }

    #[test]
    fn folders_are_joined_in_order() {
        let top = Folder::new("merge");
        let mut folders = Vec::new();
        for (name, runs) in [
            ("x", vec![boot("micro", 8, 3)]),
            ("y", vec![boot("lrpc", 2, 4)]),
            ("z", vec![boot("micro", 2, 5), boot("micro", 8, 3)]),
        ] {
            folders.push(top.0.join(name));
            results::write(&top.0.join(name), &runs).unwrap();
        }
        let out = top.0.join("out");
        let said = merge(&MergeOptions {
            out: out.clone(),
            folders,
        });
        assert!(said.unwrap().starts_with("3 figures of 3 boots"));
        let runs = results::read(&out).unwrap();
        let found: Vec<_> = runs
            .iter()
            .map(|run| (run.name.as_str(), run.conditions.cores))
            .collect();
        assert_eq!(found, [("micro", 2), ("micro", 8), ("lrpc", 2)]);
    }

    #[test]
    fn what_contradicts_is_named() {
        let (first, second) = (
            run("icount", &[("a", 1), ("b", 2)]),
            run("icount", &[("a", 1), ("b", 3)]),
        );
        let all = vec![
            (Path::new("x"), vec![first]),
            (Path::new("y"), vec![second]),
        ];
        let error = joined(all).unwrap_err().to_string();
        assert!(
            error.contains("micro, 2 cores: b (guest instructions, icount): 2 of revision abc in x, 3 of revision abc in y"),
            "{error}"
        );
        assert!(!error.contains(": a ("), "{error}");
    }
}
