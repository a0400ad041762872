//! What copies of the program do on other cores.

use crate::workers::{Order, Workers};
use crate::{Failed, NAME, ROLE, Test, spans};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use rt::frame::Frame;
use rt::interface::Error;
use rt::{monitor, names, system_call};

/// What a parent and its child write into the frame that they share.
const PARENTS: u64 = 0x0123_4567_89ab_cdef;
const CHILDS: u64 = 0xfedc_ba98_7654_3210;

/// A role that this copy was given, and how it went; `None`: it was given none.
pub fn play() -> Option<i32> {
    let words: Vec<&str> = rt::startup().arguments().skip(1).collect();
    let [ROLE, role @ ..] = words.as_slice() else {
        return None;
    };
    let played = match role {
        ["members", set @ ..] => Ok(members(set)),
        ["parent", core] => number(core).and_then(|core| parent(core as usize)),
        ["caller", core] => number(core).map(|core| caller(core as usize)),
        ["child"] => Ok(child()),
        ["reader", value] => number(value).and_then(reader),
        ["binder", name] => names::bind(name, 0).map(|()| rest()),
        ["mother", core, name] => number(core).and_then(|core| mother(core as usize, name)),
        ["orphan"] => Ok(rest()),
        ["span", core, life] => {
            number(core).and_then(|core| Ok(spans::root(core as usize, number(life)? as usize)))
        }
        ["share", life] => number(life).map(|life| share(Some(life as usize))),
        ["share-two"] => Ok(share(None)),
        ["span-here"] => Ok(spans::here()),
        _ => Err(Error::BadArgument),
    };
    Some(played.unwrap_or_else(|error| {
        rt::println!("{NAME}: {role:?}: {error}");
        1
    }))
}

/// One life of a core whose memory others have.
fn share(life: Option<usize>) -> i32 {
    let mut test = Test::new();
    if let Err(failure) = test.share_once(life) {
        rt::println!("{NAME}: {failure}");
        return 1;
    }
    i32::from(test.outcome.bad > 0)
}

/// Has a worker on another core add one to numbers.
fn caller(core: usize) -> i32 {
    let call = || {
        let mut workers = Workers::hire(&[core])?;
        let mut bad = 0;
        for value in 0..20 {
            let added = workers.run(core, Order::Add, 0, value)?;
            bad += i32::from(added != value + 1);
        }
        workers.dismiss()?;
        Ok::<i32, Failed>(bad)
    };
    call().unwrap_or_else(|error| {
        rt::println!("{NAME}: a crew on core {core}: {error}");
        1
    })
}

fn number(word: &str) -> Result<u64, Error> {
    word.parse().map_err(|_| Error::BadArgument)
}

/// For as long as it is let live.
fn rest() -> i32 {
    loop {
        system_call::wait(None);
    }
}

/// The cores that are up are those.
fn members(set: &[&str]) -> i32 {
    let set: Result<Vec<u64>, _> = set.iter().map(|word| word.parse()).collect();
    let own = rt::startup().cores.to_vec();
    let is_same = set.as_ref() == Ok(&own);
    if !is_same {
        rt::println!("{NAME}: cores {own:x?}, not {set:x?}");
    }
    i32::from(!is_same)
}

/// Has a child on another core that reads and writes a frame of this one.
fn parent(core: usize) -> Result<i32, Error> {
    let frame = monitor::frame(4096)?;
    frame.word(3).store(PARENTS, Ordering::Release);
    let child = monitor::spawn(core, &[NAME, ROLE, "child"], Some(&frame))?;
    let status = monitor::wait(child)?;
    let found = frame.word(3).load(Ordering::Acquire);
    if (status, found) != (0, CHILDS) {
        rt::println!("{NAME}: the child ended with {status} and left {found:x}");
        return Ok(1);
    }
    Ok(0)
}

fn child() -> i32 {
    let Some(frame) = Frame::of_parent() else {
        return 2;
    };
    let swapped =
        frame
            .word(3)
            .compare_exchange(PARENTS, CHILDS, Ordering::AcqRel, Ordering::Acquire);
    i32::from(swapped.is_err())
}

/// The name that the first copy bound has this value here.
fn reader(value: u64) -> Result<i32, Error> {
    Ok(i32::from(names::lookup("restart.main")?.value != value))
}

/// Has a child on another core that shares a frame, binds a name to that child, and rests.
fn mother(core: usize, name: &str) -> Result<i32, Error> {
    let frame = monitor::frame(3 * 4096)?;
    let orphan = monitor::spawn(core, &[NAME, ROLE, "orphan"], Some(&frame))?;
    names::bind(name, orphan.0)?;
    Ok(rest())
}
