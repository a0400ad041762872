//! One QEMU process, which never outlives its owner.

use crate::coherence;
use crate::failure::Failure;
use crate::install::Qemu;
use crate::launch::Boot;
use crate::memory::GuestMemory;
use crate::serial::Serial;
use crate::topology;
use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Where debuggers look first.
const GDB_PORT: u16 = 1234;

/// A running QEMU; dropping it kills it.
pub struct Process {
    child: Child,
    messages: File,
    /// Port at which a debugger is awaited.
    pub gdb_port: Option<u16>,
}

impl Process {
    /// Starts it.
    pub fn start(
        boot: &Boot,
        bridge: &Path,
        bundle: &Path,
        qemu: &Qemu,
        memory: &GuestMemory,
        serial: &Serial,
    ) -> Result<Self, Failure> {
        let words = boot.request.command_line(boot.accelerator);
        Self::start_with(boot, bridge, bundle, &words, qemu, memory, serial)
    }

    /// The same with any kernel, its initial RAM disk and its command line.
    pub fn start_with(
        boot: &Boot,
        kernel: &Path,
        ram_disk: &Path,
        command_line: &str,
        qemu: &Qemu,
        memory: &GuestMemory,
        serial: &Serial,
    ) -> Result<Self, Failure> {
        let request = &boot.request;
        let messages = rustix::fs::memfd_create("atoll-qemu-messages", MemfdFlags::CLOEXEC)
            .map_err(io::Error::from)
            .map_err(Failure::host("cannot make a file for QEMU's messages"))?;
        let messages = File::from(messages);
        let stderr = messages
            .try_clone()
            .map_err(Failure::host("cannot make a file for QEMU's messages"))?;

        let mut command = dying_with_its_parent(&qemu.path);
        command
            .args(["-machine", "q35", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-no-reboot"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .args(boot.accelerator.arguments())
            .args(coherence::arguments(boot))
            .args(topology::arguments(request.cores, request.sockets, memory))
            .arg("-serial")
            .arg(format!("file:{}", serial.path()))
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(ram_disk)
            .arg("-append")
            .arg(command_line);
        let gdb_port = if request.gdb {
            let port = free_port().map_err(Failure::host("cannot find a port for the debugger"))?;
            command
                .arg("-S")
                .arg("-gdb")
                .arg(format!("tcp:127.0.0.1:{port}"));
            Some(port)
        } else {
            None
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            // Ctrl-C is for this tool, which then ends QEMU itself.
            .process_group(0)
            .spawn()
            .map_err(Failure::host(format!("cannot run {}", qemu.path.display())))?;
        Ok(Self {
            child,
            messages,
            gdb_port,
        })
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Ends it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What it wrote to stderr so far.
    pub fn messages(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.messages.rewind();
        let _ = self.messages.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }

    /// Host processor time that it used up; `None` once it has ended.
    pub fn cpu_time(&self) -> Option<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        let ticks = ticks_of(&text)?;
        let hertz = rustix::param::clock_ticks_per_second();
        Some(Duration::from_millis(ticks * 1000 / hertz))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// User and system time out of a line of `/proc/PID/stat`.
fn ticks_of(stat: &str) -> Option<u64> {
    // The second field is the program's name in brackets, and may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let user: u64 = fields.get(11)?.parse().ok()?;
    let system: u64 = fields.get(12)?.parse().ok()?;
    Some(user + system)
}

/// A command that the host's kernel kills when this process dies of whatever, where the
/// tool for that is at hand.
fn dying_with_its_parent(program: &Path) -> Command {
    let wrapper = ["--pdeathsig", "KILL"];
    let works = Command::new("setpriv")
        .args(wrapper)
        .arg("true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !works {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(wrapper).arg("--").arg(program);
    command
}

/// The usual port, or any other that is free.
fn free_port() -> io::Result<u16> {
    let listener =
        TcpListener::bind(("127.0.0.1", GDB_PORT)).or_else(|_| TcpListener::bind("127.0.0.1:0"))?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_processor_time_behind_any_name() {
        let stat = "4711 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 4 0 99 1 2";
        assert_eq!(ticks_of(stat), Some(300));
        assert_eq!(ticks_of("nonsense"), None);
    }
}
