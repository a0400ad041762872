//! Pages of a span that several cores have in their page tables.

use crate::counted::{self, REPEAT};
use crate::members::{Order, have};
use crate::sizes;
use abi::layout::PAGE;
use alloc::format;
use alloc::vec::Vec;
use apps::laboratory::{Failure, Laboratory, timed, told};
use apps::team::Team;
use rt::interface::Error;
use rt::span::{Area, Span};

/// Of each 1,000 samples of something fast, one in so many.
const SLOWER_BY: usize = 10;
/// Pages for warming up.
const WARM_UP: usize = 2;

/// Unmaps a page.
pub fn unmap(laboratory: &mut Laboratory, team: &mut Team) -> Result<(), Failure> {
    measure(laboratory, team, "unmap a page", Span::unmap)
}

/// Makes a page read-only.
pub fn protect(laboratory: &mut Laboratory, team: &mut Team) -> Result<(), Failure> {
    measure(laboratory, team, "protect a page", |span, page| {
        span.protect(page, false)
    })
}

fn measure(
    laboratory: &mut Laboratory,
    team: &mut Team,
    operation: &str,
    change: fn(Span, Area) -> Result<(), Error>,
) -> Result<(), Failure> {
    for members in sizes(1) {
        let with = [("members", members as u64)];
        let pages = touched(team, WARM_UP + laboratory.samples(SLOWER_BY), members)?;
        let mut times = Vec::with_capacity(pages.len());
        for page in &pages {
            let (time, changed) = timed(|| change(team.span, *page));
            told("change of a page", changed)?;
            times.push(time);
        }
        times.drain(..WARM_UP);
        if members == 2 {
            // What there is a target for.
            laboratory.times(&format!("{operation} of 2 cores"), &[], times.clone());
        }
        laboratory.times(operation, &with, times);
        forget(team, &pages)?;
        let pages = touched(team, REPEAT as usize, members)?;
        counted::count(laboratory, operation, &with, |number| {
            let changed = change(team.span, pages[number as usize]);
            told("change of a page", changed)
        })?;
        forget(team, &pages)?;
    }
    Ok(())
}

/// Maps pages, each by itself, and has so many cores write to them, this one first.
fn touched(team: &mut Team, count: usize, members: usize) -> Result<Vec<Area>, Failure> {
    let mut pages = Vec::with_capacity(count);
    for _ in 0..count {
        let page = told("map of a page", team.span.map(PAGE))?;
        page.fetch_add(0, 1);
        have(team, 0..members - 1, Order::Touch, page.address())?;
        if page.load(0) != members as u64 {
            return told("a page in common", Err("not all have written to it"));
        }
        pages.push(page);
    }
    Ok(pages)
}

/// Unmaps what is left of them.
fn forget(team: &Team, pages: &[Area]) -> Result<(), Failure> {
    pages
        .iter()
        .try_for_each(|page| told("unmap of a page", team.span.unmap(*page)))
}
