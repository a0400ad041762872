//! What domains have: nothing of the kernel, of devices and of each other.

use crate::Outcome;
use abi::syscall;
use alloc::format;
use alloc::vec::Vec;
use apps::mappings;
use rt::capability::{self, Address, FIRST_CNODE_SLOTS, Identity, Kind, Resource, Rights};
use rt::capability::{ROOT_CNODE, SLOT_BYTES, slots};
use rt::memory::Result;
use rt::monitor::{self, Spawn};
use rt::system_call::{self, Error};

/// Children that are compared.
const CHILDREN: usize = 2;
/// Kinds that are for monitors.
const MONITORS: [Kind; 4] = [
    Kind::Core,
    Kind::IoPort,
    Kind::IrqHandler,
    Kind::DeviceFrame,
];

/// All capabilities below a root CNode, with their addresses.
fn capabilities(root: Address) -> Vec<(Address, Identity)> {
    let mut all = Vec::new();
    for cnode in 1..FIRST_CNODE_SLOTS {
        let Ok(above) = capability::identify_in(root, Address::new(1, cnode)) else {
            continue;
        };
        let here = (1..above.bytes / SLOT_BYTES).map(|index| Address::new(cnode, index));
        all.extend(here.filter_map(|slot| Some((slot, capability::identify_in(root, slot).ok()?))));
    }
    all
}

/// Whether they have memory in common.
fn overlap(one: &Identity, other: (u64, u64)) -> bool {
    let is_memory = one.kind.resource() == Some(Resource::Memory);
    is_memory && one.base < other.0 + other.1 && other.0 < one.base + one.bytes
}

/// Checks it.
pub fn all(outcome: &mut Outcome) -> Result {
    let mut children = Vec::new();
    let mut domains = Vec::new();
    for _ in 0..CHILDREN {
        let row = slots::take_row(3)?;
        domains.push((Spawn::new(&["exit", "0"]).traced(row).start()?, row));
        children.push(capabilities(row.plus(1)));
    }
    // Memory of the kernels beside what they have mapped all of, and their devices.
    let mut kernels = Vec::new();
    for core in rt::startup().cores() {
        let all = mappings::of_core(core)?;
        kernels.extend(all.into_iter().filter(|range| !range.is_direct()));
    }
    let own = capabilities(ROOT_CNODE);
    for (name, all) in [("own", &own), ("a child's", &children[0])] {
        outcome.check(name, all.len() > 10, &all.len(), &"more than ten");
        for (slot, found) in all {
            let what = format!("{name} capability in {slot:x?}");
            let for_monitors = MONITORS.contains(&found.kind);
            outcome.check(&what, !for_monitors, &found.kind, &"nothing of a monitor");
            let mut ranges = kernels.iter();
            let kernel = ranges.find(|range| overlap(found, (range.physical, range.bytes)));
            outcome.expect(&what, &kernel, &None);
        }
    }
    // What is one's own, and not only to read, is nobody else's.
    let is_own =
        |found: &Identity| found.kind != Kind::Frame || found.rights.contains(Rights::WRITE);
    for (slot, one) in children[0].iter().filter(|(_, one)| is_own(one)) {
        for (other, found) in children[1].iter().chain(&own) {
            // This program traces the children.
            if found.kind != Kind::Frame && own.contains(&(*other, *found)) {
                continue;
            }
            let what = format!("a child's {slot:x?} and {other:x?} of another");
            let both = overlap(one, (found.base, found.bytes))
                && found.kind.resource() == Some(Resource::Memory);
            outcome.check(&what, !both, &found, &"other memory");
        }
    }
    refusals(&own, outcome);
    for (domain, row) in domains {
        rt::dispatcher::start(row)?;
        outcome.expect("a child's end", &monitor::wait(domain), &Ok(0));
        (0..3).for_each(|slot| slots::give(row.plus(slot)));
    }
    Ok(())
}

/// Calls for devices and cores refuse every capability that this domain has.
fn refusals(own: &[(Address, Identity)], outcome: &mut Outcome) {
    for call in [
        syscall::PORT_READ,
        syscall::PORT_WRITE,
        syscall::INSERT,
        syscall::SEND_INIT,
        syscall::SEND_STARTUP,
        syscall::POWER_OFF,
        syscall::KERNEL_MAPPING,
        syscall::WILD_WRITE,
        syscall::RUNNING,
        syscall::COUNTER,
        syscall::LOG_WRITTEN,
    ] {
        for (slot, found) in own {
            // SAFETY: refused; if not, it is the kernel's memory that changes.
            let answer = unsafe { system_call::call(call, [slot.0, 1, 1, 0, 0, 0]) };
            let what = format!("call {call} with {:?} in {slot:x?}", found.kind);
            let refused = answer.map_err(|(error, _)| error);
            outcome.expect(&what, &refused, &Err(Error::WrongKind));
        }
    }
}
