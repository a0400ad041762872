//! How spans end, and what is left then.

use crate::team::{Order, STORM_PAGES, Team, wait_until};
use crate::{PAGE_FAULT_STATUS, cores, memory};
use abi::layout::PAGE;
use alloc::vec::Vec;
use apps::checks::Outcome;
use apps::mappings;
use rt::interface::{self, Error, KILLED_STATUS, LOST_STATUS};
use rt::monitor::{self, Domain, Spawn};
use rt::span::Area;

/// The status of a root that ends by itself.
const STATUS: i32 = 77;

fn name() -> &'static str {
    rt::startup().arguments().next().unwrap_or("")
}

/// The ways in which a root ends, and its status.
const WAYS: [(&str, i32); 4] = [
    ("return", STATUS),
    ("fault", PAGE_FAULT_STATUS),
    ("kill", KILLED_STATUS),
    ("busy", KILLED_STATUS),
];

/// The other copies of this program on these cores.
fn copies(cores: &[usize]) -> usize {
    let own = Domain(rt::startup().domain);
    let listed = cores.iter().filter_map(|core| monitor::list(*core).ok());
    let others = listed
        .flatten()
        .filter(|one| one.domain != own && name().starts_with(&one.name) && one.name.len() > 3);
    others.count()
}

/// Starts a root that ends so, and waits until nothing is left of it.
fn end(outcome: &mut Outcome, cores: &[usize], (how, expected): (&str, i32)) {
    let root = match Spawn::new(&[name(), "end", how]).start() {
        Ok(root) => root,
        Err(error) => return outcome.fail("a root", format_args!("{error}")),
    };
    if expected == KILLED_STATUS {
        let all = wait_until(|| copies(cores) == cores.len());
        outcome.expect("its members", &all, &true);
        if how == "busy" {
            rt::clock::sleep_ns(3_000_000);
        }
        outcome.expect("a kill", &monitor::kill(root), &Ok(()));
    }
    outcome.expect(how, &monitor::wait(root), &Ok(expected));
    let gone = wait_until(|| copies(cores) == 0);
    outcome.expect("its members are gone", &gone, &true);
}

/// Everything that needs no lost core.
pub fn all(outcome: &mut Outcome) {
    let cores = cores();
    // What monitors keep for good is there after the first time.
    end(outcome, &cores, WAYS[0]);
    let mut before = memory(&cores);
    wait_until(|| {
        let known = core::mem::replace(&mut before, memory(&cores));
        rt::clock::sleep_ns(20_000_000);
        known == before
    });
    let child = Spawn::new(&[name(), "work"]).start();
    outcome.expect(
        "all that a root does",
        &child.and_then(monitor::wait),
        &Ok(0),
    );
    for way in WAYS {
        end(outcome, &cores, way);
    }
    let mut after = memory(&cores);
    wait_until(|| {
        after = memory(&cores);
        after == before
    });
    outcome.expect("free memory of all cores", &after, &before);
}

/// A root that ends in one of the ways, with members at work.
pub fn root(how: &str) -> i32 {
    let Ok(mut team) = Team::new() else {
        return 1;
    };
    let mut areas = Vec::new();
    for core in team.cores.clone() {
        for pages in [STORM_PAGES, 600] {
            let Some(Ok(address)) = team.run(core, Order::Map, 0, pages * PAGE) else {
                return 2;
            };
            areas.push(address);
        }
    }
    let others = team.others();
    for core in &others {
        for address in &areas {
            let found = team.run(*core, Order::Load, *address, 0);
            if found != Some(Ok(0)) {
                rt::println!("span-test: core {core} finds {found:x?} at {address:#x}");
                return 3;
            }
        }
    }
    for (at, core) in others.iter().enumerate() {
        if how == "busy" && at % 2 == 0 {
            team.order(*core, Order::Storm, areas[0], 1 << 40);
        } else {
            team.order(*core, Order::Hammer, areas[1 + at % (areas.len() - 1)], 0);
        }
    }
    match how {
        "return" => return STATUS,
        "fault" => {
            Area::at(abi::layout::USER_SPAN_END - PAGE, PAGE)
                .expect("of the range")
                .load(0);
        }
        "busy" => {
            let own = rt::startup().core as usize;
            team.run(own, Order::Storm, areas[0], 1 << 40);
        }
        _ => loop {
            rt::clock::sleep_ns(1_000_000_000);
        },
    }
    4
}

/// Loses a core by a wild write of its CPU driver; `false`: it lives on.
fn lose(core: usize) -> bool {
    let Ok(own) = mappings::of_core(rt::startup().core as usize) else {
        return false;
    };
    let private = own
        .iter()
        .filter(|range| range.is_writable() && !range.is_device())
        .max_by_key(|range| range.bytes);
    let Some(target) = private else {
        return false;
    };
    let words = [target.physical + target.bytes / 2, 0, 0, 0, 0, 0];
    monitor::ask(core, interface::WILD_WRITE, words) == Err(Error::CoreLost)
}

/// A member's core is lost: the others go on.
pub fn lose_member(outcome: &mut Outcome) {
    let mut team = match Team::new() {
        Ok(team) => team,
        Err(error) => return outcome.fail("a span", format_args!("{error}")),
    };
    let victim = *team.cores.last().expect("some");
    let rest: Vec<usize> = team
        .others()
        .into_iter()
        .filter(|core| *core != victim)
        .collect();
    let Some(Ok(of_victim)) = team.run(victim, Order::Map, 0, PAGE) else {
        return outcome.fail("a map", format_args!("on core {victim}"));
    };
    let own = team.span.map(PAGE).expect("memory");
    for core in team.cores.clone() {
        for address in [of_victim, own.address()] {
            let stored = team.run(core, Order::Store, address, core as u64);
            outcome.expect("a write", &stored, &Some(Ok(0)));
        }
    }
    outcome.expect("the core is lost", &lose(victim), &true);
    outcome.expect("its member", &team.wait(victim), &Ok(LOST_STATUS));
    let found = team.span.join(victim, crate::team::member, 0);
    outcome.refused("another one there", found, Error::NoSuchCore);
    for core in rest.iter().copied() {
        let found = team.run(core, Order::Load, own.address(), 0);
        outcome.expect("the others go on", &found, &Some(Ok(victim as u64)));
        let Some(Ok(address)) = team.run(core, Order::Map, 0, PAGE) else {
            outcome.fail("a map", format_args!("on core {core}"));
            continue;
        };
        let area = Area::at(address, PAGE).expect("of the range");
        area.store(0, 3);
        outcome.expect("an unmap", &team.span.unmap(area), &Ok(()));
    }
    for area in [own, Area::at(of_victim, PAGE).expect("of the range")] {
        outcome.expect("an unmap", &team.span.unmap(area), &Ok(()));
    }
    for core in rest {
        team.order(core, Order::Load, of_victim, 0);
        let status = team.wait(core);
        outcome.expect("who touches it", &status, &Ok(PAGE_FAULT_STATUS));
    }
}

/// The core of a root, the home of its space, is lost: its members are killed, and nothing is left.
pub fn lose_root(outcome: &mut Outcome) {
    let cores = cores();
    end(outcome, &cores, WAYS[0]);
    let victim = *cores.last().expect("some");
    let rest: Vec<usize> = cores
        .iter()
        .copied()
        .filter(|core| *core != victim)
        .collect();
    let mut before = memory(&rest);
    wait_until(|| {
        let known = core::mem::replace(&mut before, memory(&rest));
        rt::clock::sleep_ns(20_000_000);
        known == before
    });
    let how = if rest.len().is_multiple_of(2) {
        "kill"
    } else {
        "busy"
    };
    let root = Spawn::new(&[name(), "end", how]).on(victim).start();
    let root = match root {
        Ok(root) => root,
        Err(error) => return outcome.fail("a root", format_args!("{error}")),
    };
    let all = wait_until(|| copies(&cores) == cores.len());
    outcome.expect("its members", &all, &true);
    outcome.expect("the core is lost", &lose(victim), &true);
    outcome.expect("the root", &monitor::wait(root), &Ok(LOST_STATUS));
    let gone = wait_until(|| copies(&rest) == 0);
    outcome.expect("members without a root", &gone, &true);
    let mut after = memory(&rest);
    wait_until(|| {
        after = memory(&rest);
        after == before
    });
    outcome.expect("free memory of the others", &after, &before);
}
