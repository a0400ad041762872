//! Cores, sockets and NUMA nodes as QEMU wants to be told.
//!
//! QEMU wants sockets × cores = CPUs, and without x2APIC no APIC id above 254. Where both
//! can be had, the machine has that many packages. Where not (13 cores in 2 sockets; 255
//! cores in 5, whose APIC ids would have gaps), it has one package; its cores are spread
//! over that many NUMA nodes all the same, as evenly as they go, and the nodes are what
//! the system looks at.

use crate::memory::GuestMemory;

/// ACPI distance between two NUMA nodes; 10 is a node's distance to itself.
const REMOTE_DISTANCE: u32 = 20;
/// Highest APIC id that xAPIC gives to a core; 255 means all of them.
const HIGHEST_APIC_ID: usize = 254;

/// QEMU's arguments for cores, RAM and how they belong together.
pub fn arguments(cores: usize, sockets: usize, memory: &GuestMemory) -> Vec<String> {
    let packages = packages(cores, sockets);
    let mut arguments = vec![
        "-smp".to_owned(),
        format!(
            "{cores},sockets={packages},cores={},threads=1,maxcpus={cores}",
            cores / packages
        ),
    ];
    let mut total = 0;
    for (node, (bytes, path)) in memory.files().enumerate() {
        total += bytes;
        arguments.push("-object".to_owned());
        arguments.push(format!(
            "memory-backend-file,id=ram{node},share=on,size={bytes},mem-path={path}"
        ));
    }
    arguments.push("-m".to_owned());
    arguments.push(format!("{}M", total >> 20));
    if sockets == 1 {
        arguments.push("-machine".to_owned());
        arguments.push("memory-backend=ram0".to_owned());
        return arguments;
    }
    let mut numa = |argument: String| {
        arguments.push("-numa".to_owned());
        arguments.push(argument);
    };
    for node in 0..sockets {
        let (first, last) = node_cores(cores, sockets, node);
        numa(format!(
            "node,nodeid={node},memdev=ram{node},cpus={first}-{last}"
        ));
    }
    for to in 1..sockets {
        for from in 0..to {
            // QEMU takes the way back to be as long.
            numa(format!("dist,src={from},dst={to},val={REMOTE_DISTANCE}"));
        }
    }
    arguments
}

/// First and last core of a node.
fn node_cores(cores: usize, nodes: usize, node: usize) -> (usize, usize) {
    (node * cores / nodes, (node + 1) * cores / nodes - 1)
}

/// Packages of the machine: `sockets` where that is possible, else 1.
fn packages(cores: usize, sockets: usize) -> usize {
    let each = cores / sockets;
    let highest_apic_id = (sockets - 1) * each.next_power_of_two() + each - 1;
    if cores.is_multiple_of(sockets) && highest_apic_id <= HIGHEST_APIC_ID {
        sockets
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_belongs_to_one_node() {
        for cores in 1..=255 {
            for nodes in 1..=cores.min(64) {
                let mut next = 0;
                for node in 0..nodes {
                    let (first, last) = node_cores(cores, nodes, node);
                    assert_eq!(first, next, "{cores} cores, {nodes} nodes");
                    assert!(last >= first, "{cores} cores, {nodes} nodes");
                    next = last + 1;
                }
                assert_eq!(next, cores);
            }
        }
    }

    #[test]
    fn sockets_are_packages_where_qemu_can() {
        assert_eq!(packages(8, 1), 1);
        assert_eq!(packages(8, 2), 2);
        assert_eq!(packages(64, 64), 64);
        assert_eq!(packages(13, 2), 1);
        assert_eq!(packages(255, 5), 1); // 51 cores take 64 APIC ids each
        assert_eq!(packages(255, 1), 1);
        assert_eq!(packages(254, 2), 2); // 127 + 127: the highest is 254
    }

    #[test]
    fn one_socket_needs_no_numa() {
        let memory = GuestMemory::create(512 << 20, 1).unwrap();
        let arguments = arguments(8, 1, &memory);
        assert!(!arguments.contains(&"-numa".to_owned()));
        assert!(arguments.contains(&"8,sockets=1,cores=8,threads=1,maxcpus=8".to_owned()));
        assert!(arguments.contains(&"512M".to_owned()));
    }

    #[test]
    fn nodes_have_memory_cores_and_distances() {
        let memory = GuestMemory::create(516 << 20, 3).unwrap();
        let arguments = arguments(13, 3, &memory);
        let numa: Vec<&str> = arguments
            .windows(2)
            .filter(|pair| pair[0] == "-numa")
            .map(|pair| pair[1].as_str())
            .collect();
        assert_eq!(
            numa,
            [
                "node,nodeid=0,memdev=ram0,cpus=0-3",
                "node,nodeid=1,memdev=ram1,cpus=4-7",
                "node,nodeid=2,memdev=ram2,cpus=8-12",
                "dist,src=0,dst=1,val=20",
                "dist,src=0,dst=2,val=20",
                "dist,src=1,dst=2,val=20",
            ]
        );
        assert!(arguments.contains(&"516M".to_owned()));
    }
}
