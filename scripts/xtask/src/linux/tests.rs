//! A boot of Linux: all that the table needs is measured.

use super::{pairs, prepare, run};
use crate::accelerator::Accelerator;
use crate::figure::Conditions;
use crate::harness::{Outcome, Pass, Test, Workshop};

/// All of them.
pub fn tests() -> Vec<Test> {
    vec![Test::new("linux/icount-2", |workshop| {
        measures_all(workshop, 2)
    })]
}

fn measures_all(workshop: &Workshop, cores: u32) -> Outcome {
    let qemu = workshop.qemu()?;
    let peer = prepare(&workshop.project).map_err(|failure| failure.to_string())?;
    let conditions = Conditions {
        accelerator: Accelerator::Icount.to_string(),
        command: "scripts/test linux/icount-2".to_owned(),
        cores,
        memory: "512M".to_owned(),
        qemu: qemu.version.clone(),
        revision: workshop.project.revision(),
        sockets: 1,
    };
    let figures = run(&peer, qemu, Accelerator::Icount, true, &conditions)
        .map_err(|failure| failure.to_string())?;
    let missing: Vec<&str> = pairs::operations()
        .filter(|name| figures.iter().all(|figure| figure.operation != *name))
        .collect();
    if !missing.is_empty() {
        return Err(format!(
            "expected figures of all operations, missing are {missing:?}"
        ));
    }
    Ok(Pass::Passed(format!("{} figures", figures.len())))
}
