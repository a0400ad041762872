//! What copies of the program do on other cores.

use crate::{NAME, ROLE};
use alloc::vec::Vec;
use apps::crew::{Crew, CrewError, Post};
use core::sync::atomic::Ordering;
use rt::frame::Frame;
use rt::interface::Error;
use rt::{monitor, names, system_call};
use urpc::Message;

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
        _ => Err(Error::BadArgument),
    };
    Some(played.unwrap_or_else(|error| {
        rt::println!("{NAME}: {role:?}: {error}");
        1
    }))
}

/// Adds one to every number, until it is sent home.
pub fn echo(mut post: Post) -> i32 {
    while let Some(order) = post.next_order() {
        let report = Message::new(1, [order.payload[0] + 1, 0, 0, 0, 0, 0, 0]);
        post.report(&report);
    }
    0
}

/// Has a worker on another core add one to numbers.
fn caller(core: usize) -> i32 {
    let call = || {
        let mut crew = Crew::hire(&[core], 0)?;
        let mut bad = 0;
        for value in 0..20 {
            crew.order(core, &Message::new(1, [value, 0, 0, 0, 0, 0, 0]))?;
            bad += i32::from(crew.report(core)?.payload[0] != value + 1);
        }
        crew.dismiss()?;
        Ok::<i32, CrewError>(bad)
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
