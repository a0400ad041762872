//! `scripts/bench plan`: the boots of a run as commands of their own, for many machines.

use super::{Measuring, Step, catalogue::Benchmark};
use crate::failure::Failure;
use crate::project::Project;
use crate::run::quoted;
use clap::Args;
use std::path::{Path, PathBuf};

/// Options of `scripts/bench plan`.
#[derive(Args, Clone, Debug)]
pub struct PlanOptions {
    /// What to measure.
    #[command(flatten)]
    pub measuring: Measuring,
    /// Folder for the folders of the boots [default: target/bench/plan]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// The commands, one a line, and what to do with them.
///
/// # Errors
/// A list of cores that is none.
pub fn plan(options: &PlanOptions, project: &Project) -> Result<(String, String), Failure> {
    let top = match &options.out {
        Some(folder) => std::path::absolute(folder)
            .map_err(Failure::host(format!("cannot find {}", folder.display())))?,
        None => project.target.join("bench/plan"),
    };
    let script = word(&project.root.join("scripts/bench"));
    let steps = options.measuring.steps()?;
    let command = |step: &Step| {
        let folder = word(&top.join(folder(step.benchmark, step.cores)));
        let accelerator = options.measuring.accelerator();
        let words = options
            .measuring
            .words(step.benchmark, step.cores, &accelerator);
        format!("{script} {words} --out {folder}\n")
    };
    let help = format!(
        "{} commands. For GNU parallel:  parallel --jobs 1 < COMMANDS\n\
         in a Slurm array (sbatch --array=1-{}):  sh -c \"$(sed -n \"${{SLURM_ARRAY_TASK_ID}}p\" COMMANDS)\"\n\
         afterwards:  {script} merge OUT {}/*\n",
        steps.len(),
        steps.len(),
        word(&top)
    );
    Ok((steps.iter().map(command).collect(), help))
}

/// Its folder among those of all boots.
fn folder(benchmark: &Benchmark, cores: u32) -> String {
    format!("{}-{cores}", benchmark.name)
}

/// A path as the shell takes it for one word.
fn word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+".contains(letter);
    match text.chars().all(is_plain) {
        true => text.into_owned(),
        false => quoted(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::BenchOptions;
    use crate::bench::catalogue::BENCHMARKS;
    use clap::Parser;

    /// A command line of the plan, as the tool reads it.
    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: BenchOptions,
    }

    #[test]
    fn every_boot_is_one_command_with_a_folder_of_its_own() {
        let project = Project {
            root: "/some where".into(),
            target: "/t".into(),
        };
        let options = PlanOptions {
            measuring: Measuring {
                cores: Some("2,4-5".to_owned()),
                quick: true,
                ..Measuring::defaults()
            },
            out: None,
        };
        let (commands, help) = plan(&options, &project).unwrap();
        let mut folders = Vec::new();
        for line in commands.lines() {
            let rest = line.strip_prefix("'/some where/scripts/bench' ").unwrap();
            let words = std::iter::once("bench").chain(rest.split(' '));
            let read = Line::try_parse_from(words).unwrap().options;
            let [step] = &read.measuring.steps().unwrap()[..] else {
                panic!("more than one boot: {line}");
            };
            assert!(read.measuring.quick);
            folders.push(read.out.unwrap());
            let name = format!("/t/bench/plan/{}-{}", step.benchmark.name, step.cores);
            assert_eq!(folders.last().unwrap(), Path::new(&name));
        }
        assert_eq!(folders.len(), BENCHMARKS.len() * 3);
        folders.dedup();
        assert_eq!(folders.len(), BENCHMARKS.len() * 3);
        assert!(help.contains("merge OUT /t/bench/plan/*"), "{help}");
    }
}
