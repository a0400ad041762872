//! A folder of results: `results.jsonl`, a line for each figure, and `report.html`, made of it.
//!
//! Both files are replaced as a whole after each boot, so they are valid whenever the tool ends.

use super::catalogue::{self, Benchmark};
use crate::chart;
use crate::failure::BenchmarkError;
use crate::figure::{self, Conditions, Figure};
use std::fs;
use std::io;
use std::path::Path;

/// The file with the figures.
pub const RESULTS: &str = "results.jsonl";
/// The file for people.
pub const REPORT: &str = "report.html";

/// The figures of one boot.
#[derive(Debug)]
pub struct Run {
    /// What was run.
    pub name: String,
    /// How.
    pub conditions: Conditions,
    /// What came out, in the order of measuring.
    pub figures: Vec<Figure>,
    /// Figures left out because the accelerator does not tell their unit.
    pub left_out: usize,
}

impl Run {
    /// Its entry among the benchmarks; `None`: there was one when it was measured.
    pub fn benchmark(&self) -> Option<&'static Benchmark> {
        catalogue::find(&self.name)
    }
}

/// Writes both files, into a folder that need not be there yet.
pub fn write(folder: &Path, runs: &[Run]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    replace(&folder.join(RESULTS), &lines(runs))?;
    replace(&folder.join(REPORT), &chart::page(runs))
}

/// Puts a whole file in the place of another, if there is one.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

/// One JSON object a line and figure.
pub fn lines(runs: &[Run]) -> String {
    let figures = runs.iter().flat_map(|run| &run.figures);
    figures.map(|figure| figure.line() + "\n").collect()
}

/// The figures in a folder, by boot.
///
/// # Errors
/// The file that cannot be read, with its first line that is no figure.
pub fn read(folder: &Path) -> Result<Vec<Run>, BenchmarkError> {
    let path = folder.join(RESULTS);
    let unreadable = |reason: String| BenchmarkError::Results {
        path: path.clone(),
        reason,
    };
    let text = fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
    let figure = |(index, line)| {
        figure::from_results(line)
            .map_err(|reason| unreadable(format!("line {}: {reason}", index + 1)))
    };
    let figures: Result<Vec<_>, _> = text.lines().enumerate().map(figure).collect();
    Ok(by_boot(figures?))
}

/// Figures of the same boot together, in the order of their first coming.
pub fn by_boot(figures: Vec<Figure>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for figure in figures {
        let is_its =
            |run: &&mut Run| run.name == figure.benchmark() && run.conditions == figure.conditions;
        match runs.iter_mut().rev().find(is_its) {
            Some(run) => run.figures.push(figure),
            None => runs.push(Run {
                name: figure.benchmark().to_owned(),
                conditions: figure.conditions.clone(),
                figures: vec![figure],
                left_out: 0,
            }),
        }
    }
    runs
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Conditions of a boot with so many cores.
    pub fn conditions(benchmark: &str, accelerator: &str, cores: u32) -> Conditions {
        Conditions {
            accelerator: accelerator.to_owned(),
            command: format!("scripts/bench {benchmark} --cores {cores} --accel {accelerator}"),
            cores,
            memory: "512M".to_owned(),
            qemu: "7.2.22".to_owned(),
            revision: "abc".to_owned(),
            sockets: 1,
        }
    }

    /// A figure of which all samples are the same; `with`: what it was measured with, as JSON.
    pub fn figure(
        conditions: &Conditions,
        benchmark: &str,
        operation: &str,
        with: &str,
        median: u64,
    ) -> Figure {
        let operation = serde_json::Value::from(operation);
        let line = format!(
            "result {{\"benchmark\":\"{benchmark}\",\"operation\":{operation},\
             \"unit\":\"guest instructions\",\"minimum\":{median},\"median\":{median},\
             \"p99\":{median},\"samples\":1000,\"core\":0{with}}}"
        );
        figure::parse(&line, benchmark, conditions)
            .unwrap()
            .unwrap()
    }

    /// A run of `micro` on two cores that measured these operations.
    pub fn run(accelerator: &str, medians: &[(&str, u64)]) -> Run {
        let conditions = conditions("micro", accelerator, 2);
        let figure = |(operation, median): &(&str, u64)| {
            figure(&conditions, "micro", operation, "", *median)
        };
        Run {
            name: "micro".to_owned(),
            figures: medians.iter().map(figure).collect(),
            conditions,
            left_out: 0,
        }
    }

    /// A folder of a test's own, which goes away when dropped.
    pub struct Folder(pub PathBuf);

    impl Folder {
        pub fn new(name: &str) -> Self {
            let name = format!("atoll-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn files_are_written_where_no_folder_was_and_read_as_written() {
        let top = Folder::new("results");
        let folder = top.0.join("a/b");
        let first = run("icount", &[("null system call", 47), ("LRPC one way", 9)]);
        let mut second = run("icount", &[("null system call", 48)]);
        second.conditions.cores = 3;
        for figure in &mut second.figures {
            figure.conditions.cores = 3;
            figure.record["cores"] = 3.into();
        }
        let runs = [first, second];
        write(&folder, &runs).unwrap();
        write(&folder, &runs).unwrap();
        let text = fs::read_to_string(folder.join(RESULTS)).unwrap();
        assert_eq!(text, lines(&runs));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        let again = read(&folder).unwrap();
        assert_eq!(lines(&again), text);
        let counts: Vec<usize> = again.iter().map(|run| run.figures.len()).collect();
        assert_eq!(counts, [2, 1]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = Folder::new("unreadable");
        let error = read(&folder.0).unwrap_err().to_string();
        assert!(error.contains("results.jsonl: No such file"), "{error}");
        write(&folder.0, &[run("icount", &[("null system call", 47)])]).unwrap();
        let path = folder.0.join(RESULTS);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.clone() + "{\"revision\":\"a\n").unwrap();
        let error = read(&folder.0).unwrap_err().to_string();
        assert!(error.contains("results.jsonl: line 2: EOF"), "{error}");
    }
}
