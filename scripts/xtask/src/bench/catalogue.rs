//! What there is to measure, what is expected of it, and what others have published.

/// All benchmarks. An entry is a name, the guest's command, the numbers of cores to boot with
/// when nobody names any, and a table of what is expected of its operations.
pub const BENCHMARKS: &[Benchmark] = &[
    Benchmark::new("micro", "micro", &[2], &MICRO),
    Benchmark::new("lrpc", "micro --only lrpc", &[1], &LRPC),
    Benchmark::new("urpc-latency", "urpc-latency", &[4], &URPC_LATENCY).at_least(2),
    Benchmark::new("urpc-throughput", "urpc-throughput", &[2], &[]).at_least(2),
    Benchmark::new("urpc-send", "bench-channels --only urpc-send", &[1], &[]),
    Benchmark::new(
        "urpc-receive",
        "bench-channels --only urpc-receive",
        &[1],
        &URPC_RECEIVE,
    ),
    Benchmark::new("wake", "bench-channels --only wake", &[2], &WAKE).at_least(2),
    Benchmark::new(
        "channels",
        "bench-channels --only channels",
        &[2],
        &CHANNELS,
    )
    .at_least(2),
    Benchmark::new("bulk", "bench-channels --only bulk", &[2], &[]).at_least(2),
    Benchmark::new("unmap", "bench-agreement --only unmap", &[2, 4, 8], &UNMAP).at_least(2),
    Benchmark::new("protect", "bench-agreement --only protect", &[2, 4, 8], &[]).at_least(2),
    Benchmark::new(
        "capability",
        "bench-agreement --only capability",
        &[2, 4, 8],
        &[],
    )
    .at_least(2),
    Benchmark::new("names", "bench-agreement --only names", &[2, 4, 8], &[]).at_least(2),
    Benchmark::new("spawn", "bench-agreement --only spawn", &[2, 4, 8], &SPAWN).at_least(2),
    Benchmark::new("memory", "bench-agreement --only memory", &[2, 4, 8], &[]).at_least(2),
    Benchmark::new("barrier", "bench-agreement --only barrier", &[2, 4, 8], &[]).at_least(2),
    Benchmark::new(
        "broadcast",
        "bench-agreement --only broadcast",
        &[2, 4, 8],
        &[],
    )
    .at_least(2),
    Benchmark::new("agree", "bench-agreement --only agree", &[2, 4, 8], &[]).at_least(2),
    Benchmark::new("boot", "bench-agreement --only boot", &[2, 4, 8], &[]).at_least(2),
    Benchmark::new(
        "shared-counter",
        "bench-sharing --only shared-counter",
        &[8],
        &[],
    ),
    Benchmark::new("compute", "bench-sharing --only compute", &[8], &[]).scaling(Work::Shared),
    Benchmark::new("coherence", "bench-coherence", &[2], &[]).at_least(2),
];

/// Where the figures of [`Operation::barrelfish`] come from.
pub const BARRELFISH: &str = "Barrelfish 2020, same QEMU and method";

/// The unit of [`Operation::target`] and [`Operation::barrelfish`].
pub const TARGET_UNIT: &str = "guest instructions";

const LRPC: [Operation; 3] = [
    Operation::new("null system call", 50, Some(113)),
    Operation::new("LRPC one way", 150, Some(926)),
    Operation::new("context switch between domains", 200, None),
];

const URPC_LATENCY: [Operation; 1] = [Operation::new("round trip", 150, None)];

/// Barrelfish's is its raw UMP, the lower of 119 to 137.
const URPC_RECEIVE: [Operation; 1] = [Operation::new("send and receive 56 bytes", 60, Some(119))];

/// A quarter of what Linux's futex takes across cores.
const WAKE: [Operation; 2] = [
    Operation::new("blocking round trip", 3_995, None),
    Operation::new("round trip, polls first", 3_995, None),
];

const CHANNELS: [Operation; 1] = [Operation::new("round trip, one polled", 150, None)];

/// Half of what Linux's munmap takes while a thread runs on a second core.
const UNMAP: [Operation; 1] = [Operation::new("unmap a page of 2 cores", 5_516, None)];

/// A third of what Linux's vfork, exec and wait take.
const SPAWN: [Operation; 2] = [
    Operation::new("spawn+exit", 85_985, None),
    Operation::new("spawn+exit on another core", 85_985, None),
];

const MICRO: [Operation; 7] = [
    Operation::new("null system call", 50, Some(113)),
    Operation::new("LRPC one way", 150, Some(926)),
    Operation::new("context switch between domains", 200, None),
    Operation::new("copy+delete", 1_500, Some(17_766)),
    Operation::new("map+touch+unmap", 2_000, Some(40_339)),
    Operation::new("allocate a 4 KiB frame", 3_000, Some(145_452)),
    Operation::new("typed message over urpc", 160, Some(705)),
];

/// The paper of [`PUBLISHED`].
const MULTIKERNEL: &str = "Baumann et al., The Multikernel, SOSP 2009";

/// What others have published: beside the benchmarks that come nearest.
pub const PUBLISHED: &[Published] = &[
    Published::new(&["lrpc", "micro"], "LRPC", "Barrelfish", "757–1,549"),
    Published::new(
        &["urpc-latency"],
        "URPC, one way, within a shared cache",
        "Barrelfish",
        "180",
    ),
    Published::new(
        &["urpc-latency"],
        "URPC, one way, over two hops",
        "Barrelfish",
        "618",
    ),
    Published::new(
        &["lrpc", "urpc-latency"],
        "URPC, on the machine of L4's figure",
        "Barrelfish",
        "450",
    ),
    Published::new(&["lrpc", "urpc-latency"], "IPC", "L4", "424"),
    Published::new(
        &["urpc-throughput"],
        "URPC, pipelined, messages a kilocycle",
        "Barrelfish",
        "3.4",
    )
    .unit("messages a kilocycle"),
    Published::new(
        &["urpc-throughput"],
        "URPC, pipelined, within a shared cache",
        "Barrelfish",
        "12",
    )
    .unit("messages a kilocycle"),
    Published::new(&["unmap"], "unmap, 2 cores", "Barrelfish", "10,300"),
    Published::new(&["unmap"], "unmap, 32 cores", "Barrelfish", "17,500"),
    Published::new(&["unmap"], "unmap, 2 cores", "Linux", "5,200"),
    Published::new(&["unmap"], "unmap, 32 cores", "Linux", "29,500"),
    Published::new(&["unmap"], "unmap, 2 cores", "Windows", "5,800"),
    Published::new(&["unmap"], "unmap, 32 cores", "Windows", "46,000"),
    Published::new(
        &["broadcast"],
        "shootdown, 32 cores, broadcast",
        "Barrelfish",
        "13,800",
    ),
    Published::new(
        &["broadcast"],
        "shootdown, 32 cores, unicast",
        "Barrelfish",
        "12,700",
    ),
    Published::new(
        &["broadcast"],
        "shootdown, 32 cores, multicast",
        "Barrelfish",
        "4,800",
    ),
    Published::new(
        &["broadcast"],
        "shootdown, 32 cores, NUMA-aware multicast",
        "Barrelfish",
        "3,100",
    ),
];

/// A program of the guest that prints figures.
#[derive(Debug)]
pub struct Benchmark {
    /// Its name, which its figures bear.
    pub name: &'static str,
    /// The program with its arguments.
    pub command: &'static str,
    /// Cores of the machine when nobody says how many: a boot for each.
    pub cores: &'static [u32],
    /// What it has to measure; it may measure more.
    pub operations: &'static [Operation],
    /// The fewest cores that it runs on.
    pub least_cores: u32,
    /// How its times become a throughput; `None`: they are latencies.
    pub work: Option<Work>,
}

/// What the members of a parallel operation do in the time that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Each does the operation once: twice the members, twice the work.
    #[allow(dead_code, reason = "no entry here is of that kind yet")]
    Each,
    /// They share one piece of work: twice the members, half of it for each.
    Shared,
}

/// What is expected of an operation.
#[derive(Debug)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// The most that it is to take, in [`TARGET_UNIT`].
    pub target: u32,
    /// What it takes in [`BARRELFISH`], in [`TARGET_UNIT`]; `None`: not measured there.
    pub barrelfish: Option<u32>,
}

/// A figure of somebody else's, on some machine of theirs.
#[derive(Debug)]
pub struct Published {
    /// The benchmarks that it stands beside.
    pub beside: &'static [&'static str],
    /// What was measured.
    pub operation: &'static str,
    /// Of which system.
    pub system: &'static str,
    /// The figure, or the range of figures.
    pub figure: &'static str,
    /// What it is told in.
    pub unit: &'static str,
    /// Where it stands.
    pub source: &'static str,
}

impl Benchmark {
    const fn new(
        name: &'static str,
        command: &'static str,
        cores: &'static [u32],
        operations: &'static [Operation],
    ) -> Self {
        Self {
            name,
            command,
            cores,
            operations,
            least_cores: 1,
            work: None,
        }
    }

    /// It needs so many cores: lists of cores pass it by with fewer.
    const fn at_least(mut self, cores: u32) -> Self {
        self.least_cores = cores;
        self
    }

    /// Its times are those of this work, done in parallel: the report shows how it scales.
    const fn scaling(mut self, work: Work) -> Self {
        self.work = Some(work);
        self
    }

    /// What is expected of the operation of this name, if anything is.
    pub fn operation(&self, name: &str) -> Option<&'static Operation> {
        self.operations
            .iter()
            .find(|operation| operation.name == name)
    }
}

impl Operation {
    const fn new(name: &'static str, target: u32, barrelfish: Option<u32>) -> Self {
        Self {
            name,
            target,
            barrelfish,
        }
    }
}

impl Published {
    const fn new(
        beside: &'static [&'static str],
        operation: &'static str,
        system: &'static str,
        figure: &'static str,
    ) -> Self {
        Self {
            beside,
            operation,
            system,
            figure,
            unit: "cycles",
            source: MULTIKERNEL,
        }
    }

    const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }
}

/// The benchmark of this name.
pub fn find(name: &str) -> Option<&'static Benchmark> {
    BENCHMARKS.iter().find(|benchmark| benchmark.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn benchmarks_have_names_and_operations_of_their_own() {
        let is_unique = |mut names: Vec<&str>| {
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            names.len() == all
        };
        assert!(is_unique(BENCHMARKS.iter().map(|one| one.name).collect()));
        for benchmark in BENCHMARKS {
            let operations = benchmark.operations.iter().map(|one| one.name);
            assert!(is_unique(operations.collect()), "{}", benchmark.name);
            let least = benchmark.least_cores;
            assert!(benchmark.cores.iter().all(|cores| *cores >= least));
        }
    }
}
