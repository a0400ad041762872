//! Loses cores, and looks whether the others agree to go on without them: `lost-cores [--lose N]
//! [--restart 1]` (with `--test-hooks`).
//!
//! A core is lost by a wild write of its CPU driver, which ends there with a report. Before that,
//! it has children of this program, and a request that it will not answer. Then, of all survivors:
//!
//! - each answers, and holds the same view, of a later epoch, of just the survivors;
//! - the request that was under way is answered: the core was lost;
//! - the children on lost cores have ended, with a status of their own, and those elsewhere have not;
//! - lost cores start nothing any more, all others do;
//! - with `--restart 1`, lost cores are started anew, and start programs then.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use apps::arguments::{Arguments, explain};
use apps::mappings;
use rt::interface::{self, Error, LOST_STATUS};
use rt::{clock, monitor};

rt::entry!(main);

const USAGE: &str = "lost-cores [--lose N] [--restart 1]";
/// How long survivors may take to agree, and how long to wait before looking again.
const PATIENCE_NS: u64 = 300_000_000_000;
const PAUSE_NS: u64 = 20_000_000;

fn main() -> i32 {
    let up: Vec<usize> = rt::startup().cores().collect();
    let others = up.len() as u64 - 1;
    let asked = Arguments::of_program(&["--lose", "--restart"]).and_then(|arguments| {
        let count = arguments.number("--lose", 1..=others.max(1))?;
        Ok((count, arguments.number("--restart", 0..=1)? == Some(1)))
    });
    let (count, restart) = match asked {
        Ok((count, restart)) => (count.unwrap_or(1) as usize, restart),
        Err(misuse) => return explain(&misuse, USAGE),
    };
    if others == 0 {
        rt::println!("lost-cores: there must be a core to lose: --cores 2 or more");
        return 2;
    }
    match run(&up, count, restart) {
        Ok(()) => {
            rt::println!("lost-cores: passed");
            0
        }
        Err(failure) => {
            rt::println!("lost-cores: failed: {failure}");
            1
        }
    }
}

fn set_of(cores: &[usize]) -> [u64; 4] {
    let mut words = [0; 4];
    for core in cores {
        words[core / 64] |= 1 << (core % 64);
    }
    words
}

fn run(up: &[usize], count: usize, restart: bool) -> Result<(), String> {
    let told = |what: &str, core: usize| {
        let what = what.to_string();
        move |error: Error| format!("{what} on core {core}: {error}")
    };
    let own = rt::startup().core as usize;
    // From the last on, every second one first.
    let mut victims: Vec<usize> = up.iter().rev().step_by(2).copied().collect();
    victims.extend(up.iter().rev().skip(1).step_by(2));
    victims.retain(|core| *core != own);
    victims.truncate(count);
    let survivors: Vec<usize> = up
        .iter()
        .copied()
        .filter(|core| !victims.contains(core))
        .collect();
    let (epoch, _) = monitor::view(own).map_err(told("the view", own))?;

    let sleeps = |core| monitor::spawn(core, &["sleep", "100000"], None);
    let mut children = vec![];
    for core in up.iter().copied() {
        children.push((core, sleeps(core).map_err(told("a child", core))?));
    }
    let mut requests = vec![];
    for victim in victims.iter().copied() {
        let target = mappings::of_core(own).map_err(told("mappings", own))?;
        let target = target
            .iter()
            .filter(|range| range.is_writable() && !range.is_device());
        let target = target
            .max_by_key(|range| range.bytes)
            .ok_or("no memory to hit")?;
        let words = [target.physical + target.bytes / 2, 0, 0, 0, 0, 0];
        let request = monitor::request(victim, interface::WILD_WRITE, words);
        requests.push((victim, request.map_err(told("the hook", victim))?));
    }
    for (victim, request) in requests {
        match monitor::answer(request) {
            Err(Error::CoreLost) => {}
            other => return Err(format!("core {victim} answered {other:?}; is the hook on?")),
        }
    }

    let deadline_ns = clock::now_ns() + PATIENCE_NS;
    let expected = set_of(&survivors);
    for core in survivors.iter().copied() {
        loop {
            let view = monitor::view(core).map_err(told("the view", core))?;
            if view.1 == expected && view.0 > epoch {
                break;
            }
            if clock::now_ns() > deadline_ns {
                return Err(format!("core {core} holds {view:x?}, not {expected:x?}"));
            }
            clock::sleep_ns(PAUSE_NS);
        }
    }
    let views = survivors.iter().map(|core| monitor::view(*core));
    let views: Vec<_> = views.collect();
    if views.iter().any(|view| *view != views[0]) {
        return Err(format!("survivors hold different views: {views:x?}"));
    }
    for (core, child) in children {
        let status = monitor::try_wait(child).map_err(told("a child", core))?;
        let expected = victims.contains(&core).then_some(LOST_STATUS);
        if status != expected {
            return Err(format!(
                "the child on core {core}: {status:?}, not {expected:?}"
            ));
        }
        if expected.is_none() {
            monitor::kill(child).map_err(told("kill", core))?;
            monitor::wait(child).map_err(told("wait", core))?;
        }
    }
    for victim in victims.iter().copied() {
        match sleeps(victim) {
            Err(Error::NoSuchCore) => {}
            other => return Err(format!("a spawn on lost core {victim}: {other:?}")),
        }
    }
    for core in survivors.iter().copied() {
        let child = monitor::spawn(core, &["exit", "7"], None).map_err(told("spawn", core))?;
        let status = monitor::wait(child).map_err(told("wait", core))?;
        if status != 7 {
            return Err(format!("a child on core {core} ended with {status}, not 7"));
        }
    }
    rt::println!("{} cores go on without {victims:?}", survivors.len());
    if restart {
        for victim in victims.iter().copied() {
            monitor::start_core(victim).map_err(told("a start", victim))?;
        }
        let expected = set_of(up);
        for core in up.iter().copied() {
            let child = monitor::spawn(core, &["exit", "7"], None).map_err(told("spawn", core))?;
            let status = monitor::wait(child).map_err(told("wait", core))?;
            let (_, view) = monitor::view(core).map_err(told("the view", core))?;
            if (status, view) != (7, expected) {
                return Err(format!("core {core}: status {status}, view {view:x?}"));
            }
        }
        rt::println!("{victims:?} came back");
    }
    Ok(())
}
