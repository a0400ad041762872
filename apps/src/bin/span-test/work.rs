//! What the root of a span over all cores tries.

use crate::team::{Order, STORM_PAGES, Team, wait_until};
use crate::{PAGE_FAULT_STATUS, TOO_MANY};
use abi::layout::{PAGE, SPAN_PART_BYTES, USER_SPAN, USER_SPAN_END};
use alloc::vec::Vec;
use apps::checks::Outcome;
use rt::interface::{Error, KILLED_STATUS, spaces};
use rt::monitor::{self, Spawn};
use rt::span::{self, Area};

/// Pages of a mapping that lies in more than one page table.
const LARGE_PAGES: u64 = 1030;
/// Words that are looked at after an unmap.
const LOOKS: u64 = 20_000;
/// Members that write to a page that goes.
const HAMMERS: usize = 2;

/// A request by its words.
fn ask(kind: u16, words: [u64; 3]) -> Result<[u64; 5], Error> {
    let [a, b, c] = words;
    monitor::ask(rt::startup().core as usize, kind, [a, b, c, 0, 0, 0])
}

/// All of it.
pub fn all(outcome: &mut Outcome) {
    for kind in [spaces::JOIN, spaces::MAP, spaces::LEAVE] {
        outcome.refused(
            "without a span",
            ask(kind, [PAGE, PAGE, 0]),
            Error::NotSpanned,
        );
    }
    for kind in [spaces::UNMAP, spaces::PROTECT] {
        let found = ask(kind, [USER_SPAN, PAGE, 0]);
        outcome.refused("without a span", found, Error::NotSpanned);
    }
    let mut team = match Team::new() {
        Ok(team) => team,
        Err(error) => return outcome.fail("a span over all cores", format_args!("{error}")),
    };
    refusals(outcome, &mut team);
    visible(outcome, &mut team);
    messages(outcome, &mut team);
    unmapped(outcome, &mut team);
    partly(outcome, &mut team);
    protected(outcome, &mut team);
    storms(outcome, &mut team);
    ends(outcome, &mut team);
    alone(outcome);
}

fn refusals(outcome: &mut Outcome, team: &mut Team) {
    let own = rt::startup().core as usize;
    let bad = Error::BadArgument;
    outcome.refused("another span", span::begin(), Error::AlreadySpanned);
    for bytes in [0, 1, PAGE + 8, u64::MAX] {
        outcome.refused("a map", team.span.map(bytes), bad);
    }
    for bytes in [
        SPAN_PART_BYTES,
        SPAN_PART_BYTES - 64 * PAGE,
        1 << 50,
        u64::MAX - PAGE + 1,
    ] {
        outcome.refused("a large map", team.span.map(bytes), Error::NoMemory);
    }
    for kind in [spaces::UNMAP, spaces::PROTECT] {
        for (address, bytes) in [
            (USER_SPAN - PAGE, PAGE),
            (USER_SPAN_END, PAGE),
            (USER_SPAN_END - PAGE, 2 * PAGE),
            (USER_SPAN, 0),
            (USER_SPAN + 8, PAGE),
            (USER_SPAN, PAGE + 1),
            (USER_SPAN, u64::MAX - PAGE + 1),
            (0x40_0000, PAGE),
            (u64::MAX - PAGE + 1, PAGE),
        ] {
            outcome.refused("a range", ask(kind, [address, bytes, 0]), bad);
        }
    }
    let control = team.control.address();
    for rights in [2, 3, 4, u64::MAX] {
        let found = ask(spaces::PROTECT, [control, PAGE, rights]);
        outcome.refused("rights", found, bad);
    }
    let nothing = Area::at(USER_SPAN_END - PAGE, PAGE).expect("of the range");
    outcome.expect("an unmap of nothing", &team.span.unmap(nothing), &Ok(()));
    let found = team.span.protect(nothing, true);
    outcome.refused("a protect of nothing", found, Error::NotMapped);
    outcome.refused("the root leaves", team.span.leave(), Error::NotAllowed);
    for kind in [spaces::LEAVE + 1, spaces::REQUESTS.end - 1] {
        outcome.refused("a request", ask(kind, [0; 3]), Error::NoSuchRequest);
    }
    for core in [own, own].into_iter().chain(team.others()) {
        let found = team.span.join(core, crate::team::member, 0);
        outcome.refused("a second member", found, Error::AlreadySpanned);
    }
    for core in [256, usize::MAX, u32::MAX as usize, 255] {
        if !team.cores.contains(&core) {
            let found = team.span.join(core, crate::team::member, 0);
            outcome.refused("a core", found, Error::NoSuchCore);
        }
    }
    for core in team.others() {
        let found = team.run(core, Order::Join, 0, 0);
        outcome.expect("what a member may not", &found, &Some(Ok(1)));
    }
}

/// Each core maps, and all see what each other one writes.
fn visible(outcome: &mut Outcome, team: &mut Team) {
    for pages in [1, LARGE_PAGES] {
        for mapper in team.cores.clone() {
            let Some(Ok(address)) = team.run(mapper, Order::Map, 0, pages * PAGE) else {
                outcome.fail("a map", format_args!("{pages} pages on core {mapper}"));
                continue;
            };
            let part = USER_SPAN + mapper as u64 * SPAN_PART_BYTES;
            let is_its = (part..part + SPAN_PART_BYTES).contains(&address);
            outcome.expect("its own part", &is_its, &true);
            let place = |core: usize| address + core as u64 % pages * PAGE + core as u64 * 8;
            for core in team.cores.clone() {
                let zero = team.run(core, Order::Load, place(core), 0);
                outcome.expect("a new word", &zero, &Some(Ok(0)));
                let value = core as u64 * 1000 + pages;
                let stored = team.run(core, Order::Store, place(core), value);
                outcome.expect("a write", &stored, &Some(Ok(0)));
            }
            let last = *team.cores.last().expect("some");
            for (reader, writer) in team.cores.clone().into_iter().zip(team.others()) {
                let found = team.run(reader, Order::Load, place(writer), 0);
                let value = writer as u64 * 1000 + pages;
                outcome.expect("a word of another core", &found, &Some(Ok(value)));
            }
            let gone = team.run(last, Order::Unmap, address, pages * PAGE);
            outcome.expect("an unmap", &gone, &Some(Ok(0)));
        }
    }
}

/// An unmap costs two messages for each other core that has the page, whoever asks for it, and none for
/// those that have not.
fn messages(outcome: &mut Outcome, team: &mut Team) {
    let all = team.cores.len();
    for unmapper in [team.cores[0], team.cores[all - 1]] {
        for count in [1, all.min(2), all] {
            let Ok(area) = team.span.map(PAGE) else {
                return outcome.fail("a map", format_args!("of a page"));
            };
            let mut holders: Vec<usize> = team.cores[..count].to_vec();
            if !holders.contains(&unmapper) {
                holders.push(unmapper);
            }
            for core in &holders {
                let found = team.run(*core, Order::Load, area.address(), 0);
                outcome.expect("a page", &found, &Some(Ok(0)));
            }
            let before = sent(team);
            let gone = team.run(unmapper, Order::Unmap, area.address(), PAGE);
            outcome.expect("an unmap", &gone, &Some(Ok(0)));
            let found = sent(team).zip(before).map(|(after, before)| after - before);
            let most = 2 * (holders.len() as u64 - 1);
            outcome.expect("messages of an unmap", &found, &Some(most));
        }
    }
}

/// Messages of spaces that all monitors have sent.
fn sent(team: &mut Team) -> Option<u64> {
    let cores = team.cores.clone().into_iter();
    let all = cores.map(|core| team.run(core, Order::Sent, 0, 0)?.ok());
    all.sum()
}

/// Says how long an unmap takes of a page that this core and another one have.
pub fn cost() -> i32 {
    let Ok(mut team) = Team::new() else {
        return 1;
    };
    let Some(other) = team.others().first().copied() else {
        return crate::MISUSE_STATUS;
    };
    let mut least = u64::MAX;
    for _ in 0..32 {
        let Ok(area) = team.span.map(PAGE) else {
            return 1;
        };
        if team.run(other, Order::Load, area.address(), 0) != Some(Ok(0)) {
            return 1;
        }
        let from = rt::clock::now_ns();
        if team.span.unmap(area).is_err() {
            return 1;
        }
        least = least.min(rt::clock::now_ns() - from);
    }
    let accelerator = rt::startup().accelerator();
    rt::println!("span-test: an unmap of a page that 2 cores have: {least} ns ({accelerator})");
    0
}

/// Each core in turn unmaps a page that others write to.
fn unmapped(outcome: &mut Outcome, team: &mut Team) {
    let cores = team.cores.clone();
    for (at, unmapper) in cores.iter().copied().enumerate() {
        let mapper = cores[(at + cores.len() / 2) % cores.len()];
        let Ok((_, before)) = monitor::memory(mapper) else {
            return outcome.fail("free memory", format_args!("of core {mapper}"));
        };
        let Some(Ok(address)) = team.run(mapper, Order::Map, 0, PAGE) else {
            return outcome.fail("a map", format_args!("on core {mapper}"));
        };
        let others = team.others().into_iter();
        let free = others.filter(|core| *core != unmapper && *core != mapper);
        let hammers: Vec<usize> = free.take(HAMMERS).collect();
        for core in &hammers {
            team.order(*core, Order::Hammer, address, 0);
        }
        for core in &hammers {
            let works = wait_until(|| team.progress(*core) > 10);
            outcome.expect("a member writes", &works, &true);
        }
        let gone = team.run(unmapper, Order::Unmap, address, PAGE);
        outcome.expect("an unmap", &gone, &Some(Ok(0)));
        let written: Vec<u64> = hammers.iter().map(|core| team.progress(*core)).collect();
        let shared = || monitor::memory(mapper).map(|(_, shared)| shared);
        let is_free = wait_until(|| shared().is_ok_and(|shared| shared >= before));
        outcome.expect("the memory is free", &is_free, &true);
        // Not of the span: mapped at the same address again, it would be there for who slept while it
        // was not.
        let changed = team.run(mapper, Order::Watch, 0, LOOKS);
        outcome.expect("words that changed after an unmap", &changed, &Some(Ok(0)));
        for (core, written) in hammers.iter().copied().zip(written) {
            outcome.expect("who writes on", &team.wait(core), &Ok(PAGE_FAULT_STATUS));
            // Of the last write, it may not have told yet.
            let late = team.progress(core).saturating_sub(written);
            outcome.expect("at most one write is told late", &(late <= 1), &true);
            team.forget_order(core);
            outcome.expect("another member", &team.join(core), &Ok(()));
        }
    }
}

/// A part of a mapping goes, across two page tables.
fn partly(outcome: &mut Outcome, team: &mut Team) {
    let Ok(area) = team.span.map(LARGE_PAGES * PAGE) else {
        return outcome.fail("a map", format_args!("of {LARGE_PAGES} pages"));
    };
    let first_in_table = 512 - area.address() / PAGE % 512;
    let place = |page: u64| area.address() + page * PAGE + page % 512 * 8;
    for page in 0..LARGE_PAGES {
        area.store(((place(page) - area.address()) / 8) as usize, page + 1);
    }
    for core in team.others() {
        for page in [0, first_in_table - 1, first_in_table, LARGE_PAGES - 1] {
            let found = team.run(core, Order::Load, place(page), 0);
            outcome.expect("a page", &found, &Some(Ok(page + 1)));
        }
    }
    let hole = [first_in_table - 2, first_in_table + 3];
    let part = area.part(hole[0] * PAGE, (hole[1] - hole[0]) * PAGE);
    let gone = team.span.unmap(part.expect("within"));
    outcome.expect("an unmap of a part", &gone, &Ok(()));
    let kept = [0, hole[0] - 1, hole[1], LARGE_PAGES - 1];
    for core in team.cores.clone() {
        for page in kept {
            let found = team.run(core, Order::Load, place(page), 0);
            outcome.expect("a page that stays", &found, &Some(Ok(page + 1)));
        }
    }
    if let Some(victim) = team.others().last().copied() {
        team.order(victim, Order::Load, place(hole[0] + 1), 0);
        let status = team.wait(victim);
        outcome.expect("who reads in the hole", &status, &Ok(PAGE_FAULT_STATUS));
        team.forget_order(victim);
        outcome.expect("another member", &team.join(victim), &Ok(()));
    }
    outcome.expect("the rest", &team.span.unmap(area), &Ok(()));
}

fn protected(outcome: &mut Outcome, team: &mut Team) {
    let Ok(area) = team.span.map(3 * PAGE) else {
        return outcome.fail("a map", format_args!("of three pages"));
    };
    let middle = area.part(PAGE, PAGE).expect("within");
    for core in team.cores.clone() {
        let word = middle.address() + core as u64 * 8;
        let stored = team.run(core, Order::Store, word, 5);
        outcome.expect("a write", &stored, &Some(Ok(0)));
    }
    let last = *team.cores.last().expect("some");
    let done = team.run(last, Order::Protect, middle.address(), PAGE);
    outcome.expect("a protect", &done, &Some(Ok(0)));
    for core in team.cores.clone() {
        let found = team.run(core, Order::Load, middle.address() + core as u64 * 8, 0);
        outcome.expect("a page to read", &found, &Some(Ok(5)));
        let stored = team.run(core, Order::Store, area.address() + core as u64 * 8, 6);
        outcome.expect("the page before it", &stored, &Some(Ok(0)));
    }
    if let Some(victim) = team.others().first().copied() {
        team.order(victim, Order::Store, middle.address(), 7);
        let status = team.wait(victim);
        outcome.expect("who writes to it", &status, &Ok(PAGE_FAULT_STATUS));
        team.forget_order(victim);
        outcome.expect("another member", &team.join(victim), &Ok(()));
    }
    let word = middle.load(0);
    outcome.expect("a write that was not allowed", &(word == 7), &false);
    outcome.expect("writable again", &team.span.protect(middle, true), &Ok(()));
    for core in team.cores.clone() {
        let stored = team.run(core, Order::Store, middle.address() + core as u64 * 8, 8);
        outcome.expect("a write again", &stored, &Some(Ok(0)));
    }
    outcome.expect("its end", &team.span.unmap(area), &Ok(()));
}

fn storms(outcome: &mut Outcome, team: &mut Team) {
    let rounds = 48 / team.cores.len() as u64 + 5;
    for _ in 0..2 {
        let Ok(shared) = team.span.map(STORM_PAGES * PAGE) else {
            return outcome.fail("a map", format_args!("of {STORM_PAGES} pages"));
        };
        for core in team.others() {
            team.order(core, Order::Storm, shared.address(), rounds);
        }
        let own = rt::startup().core as usize;
        let found = team.run(own, Order::Storm, shared.address(), rounds);
        outcome.expect("a storm at the root", &found, &Some(Ok(0)));
        for core in team.others() {
            outcome.expect("a storm", &team.report(core), &Some(Ok(0)));
        }
        outcome.expect("its end", &team.span.unmap(shared), &Ok(()));
    }
}

/// Members end in all ways, and others begin in their place.
fn ends(outcome: &mut Outcome, team: &mut Team) {
    for core in team.others() {
        let kept = team.run(core, Order::Map, 0, PAGE);
        for (order, status) in [(Order::End, 40), (Order::Leave, 41), (Order::End, -7)] {
            team.order(core, order, 0, status as u64);
            outcome.expect("its status", &team.wait(core), &Ok(status));
            team.forget_order(core);
            outcome.expect("a successor", &team.join(core), &Ok(()));
        }
        if let Some(member) = team.member(core) {
            outcome.expect("a kill", &member.kill(), &Ok(()));
            outcome.expect("its status", &team.wait(core), &Ok(KILLED_STATUS));
            outcome.expect("a successor", &team.join(core), &Ok(()));
        }
        // What the first one mapped is there for all.
        let Some(Ok(kept)) = kept else {
            outcome.fail("a map", format_args!("on core {core}"));
            continue;
        };
        let area = Area::at(kept, PAGE).expect("of the range");
        area.store(1, 11);
        let found = team.run(core, Order::Load, kept + 8, 0);
        outcome.expect("what outlives who mapped it", &found, &Some(Ok(11)));
        outcome.expect("its end", &team.span.unmap(area), &Ok(()));
    }
}

/// What needs one core: roots that touch what they may not, and more spans than a core has room for.
fn alone(outcome: &mut Outcome) {
    let name = rt::startup().arguments().next().unwrap_or("");
    for how in ["nothing", "unmapped", "read-only", "code"] {
        let child = Spawn::new(&[name, "touch", how]).start();
        let status = child.and_then(monitor::wait);
        outcome.expect(how, &status, &Ok(PAGE_FAULT_STATUS));
    }
    let holders: Vec<_> = (0..8)
        .map_while(|_| Spawn::new(&[name, "hold"]).start().ok())
        .collect();
    // This one has a span as well, so one of them has none.
    let mut refused = 0;
    wait_until(|| {
        let ended = holders
            .iter()
            .filter_map(|child| monitor::try_wait(*child).ok());
        refused += ended.filter(|status| *status == Some(TOO_MANY)).count();
        refused > 0
    });
    outcome.expect(
        "spans that were refused",
        &(holders.len(), refused),
        &(8, 1),
    );
    for child in holders {
        if monitor::kill(child).is_ok() {
            let status = monitor::wait(child);
            outcome.expect("a span that was killed", &status, &Ok(KILLED_STATUS));
        }
    }
}

/// A root on its own that touches something and dies.
pub fn touch(how: &str) -> i32 {
    let Ok(span) = span::begin() else {
        return 1;
    };
    let Ok(area) = span.map(2 * PAGE) else {
        return 2;
    };
    area.store(0, 1);
    area.store(512, 2);
    let done = match how {
        "unmapped" => span.unmap(area.part(PAGE, PAGE).expect("within")),
        "read-only" => span.protect(area, false),
        _ => Ok(()),
    };
    if done.is_err() || area.load(0) != 1 {
        return 3;
    }
    match how {
        "unmapped" => area.part(PAGE, PAGE).expect("within").store(0, 3),
        "read-only" => area.store(512, 3),
        "code" => {
            // SAFETY: no code, so this ends the domain, as it should.
            let function = unsafe {
                core::mem::transmute::<*const (), extern "C" fn()>(area.address() as *const ())
            };
            function();
        }
        _ => {
            Area::at(USER_SPAN_END - PAGE, PAGE)
                .expect("of the range")
                .load(0);
        }
    }
    4
}
