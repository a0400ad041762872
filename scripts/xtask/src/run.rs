//! `scripts/run`: builds, boots, and repeats itself exactly when asked to.

use crate::accelerator;
use crate::bundle;
use crate::coherence;
use crate::console::{Console, Terminal};
use crate::failure::Failure;
use crate::install;
use crate::launch::{self, Boot};
use crate::options::RunOptions;
use crate::project::Project;
use std::time::Instant;

/// Runs it and returns this process's exit status.
pub fn run(options: &RunOptions) -> u8 {
    match try_run(options) {
        Ok(status) => status,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.status() as u8
        }
    }
}

fn try_run(options: &RunOptions) -> Result<u8, Failure> {
    let mut request = options.check()?;
    let project = Project::here();
    let qemu = install::find_qemu(request.qemu.as_deref())?;
    let system = bundle::prepare(&project)?;
    request.find_program(&system.programs)?;
    let accelerator = match &request.coherence {
        None => accelerator::choose(request.accel, &project, &system, &qemu),
        Some(_) => coherence::prepare(request.accel, &project)?,
    };
    let limit = request
        .timeout
        .unwrap_or_else(|| accelerator.time_limit(request.cores));
    let boot = Boot {
        limit: (!request.gdb).then_some(limit),
        request,
        accelerator,
    };
    let mut terminal = Terminal {
        quiet: boot.request.quiet,
    };
    let start = Instant::now();
    let result = launch::launch(&boot, &system, &qemu, &mut terminal);
    let wall = start.elapsed();
    if let Err(failure) = &result {
        terminal.tool(&format!("error: {failure}"));
    }
    let (cores, sockets) = (boot.request.cores, boot.request.sockets);
    terminal.tool(&format!(
        "{cores} core{}, {sockets} socket{}, {}, {accelerator} (QEMU {}), {:.1} s; repeat: {}",
        plural(cores),
        plural(sockets),
        boot.request.memory,
        qemu.version,
        wall.as_secs_f64(),
        boot.command()
    ));
    Ok(match result {
        Ok(status) => as_exit_status(status, &mut terminal),
        Err(failure) => failure.status() as u8,
    })
}

/// A process can only end with 0 to 255.
pub fn as_exit_status(status: i32, terminal: &mut Terminal) -> u8 {
    u8::try_from(status).unwrap_or_else(|_| {
        terminal.tool(&format!(
            "the program ended with status {status}, which no exit status can show: 255 stands for it"
        ));
        u8::MAX
    })
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

impl Boot {
    /// The command that makes this very boot again.
    pub fn command(&self) -> String {
        let request = &self.request;
        let mut words = vec![
            "scripts/run".to_owned(),
            format!("--cores {}", request.cores),
            format!("--sockets {}", request.sockets),
            format!("--memory {}", request.memory),
            format!("--accel {}", self.accelerator),
        ];
        if let Some(limit) = self.limit {
            words.push(format!("--timeout {}", limit.as_secs()));
        }
        for (given, option) in [
            (request.gdb, "--gdb"),
            (request.quiet, "--quiet"),
            (request.test_hooks, "--test-hooks"),
        ] {
            if given {
                words.push(option.to_owned());
            }
        }
        if let Some(path) = &request.coherence {
            words.push(format!("--coherence {}", quoted(&path.to_string_lossy())));
        }
        if let Some(path) = &request.qemu {
            words.push(format!("--qemu {}", quoted(&path.to_string_lossy())));
        }
        words.push(format!("--exec {}", quoted(&request.exec)));
        words.join(" ")
    }
}

/// In single quotes, as a shell reads them.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accelerator::Accelerator;
    use std::time::Duration;

    #[test]
    fn the_command_repeats_every_option() {
        let mut options = RunOptions::defaults();
        options.cores = 13;
        options.sockets = 3;
        options.test_hooks = true;
        options.exec = "say 'hello'".to_owned();
        let boot = Boot {
            request: options.check().unwrap(),
            accelerator: Accelerator::Icount,
            limit: Some(Duration::from_secs(9)),
        };
        assert_eq!(
            boot.command(),
            "scripts/run --cores 13 --sockets 3 --memory 516M --accel icount --timeout 9 \
             --test-hooks --exec 'say '\\''hello'\\'''"
        );
    }
}
