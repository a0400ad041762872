//! The registry of names.

use crate::counted;
use crate::members::{NAME, Order, have};
use apps::laboratory::{Failure, Laboratory, WARM_UP, timed, told};
use apps::team::Team;
use rt::clock::Cycles;
use rt::names;

/// An update takes so many times as long as a call.
const SLOWER_BY: usize = 10;

/// Measures from this core, and from the last one that is not.
pub fn measure(laboratory: &mut Laboratory, team: &mut Team) -> Result<(), Failure> {
    let own = u64::from(rt::startup().core);
    measure_from(laboratory, own, &mut |order, value| {
        let (time, done) = match order {
            Order::Bind => timed(|| names::bind(NAME, value)),
            Order::Lookup => timed(|| names::lookup(NAME).map(|_| ())),
            _ => timed(|| names::unbind(NAME)),
        };
        told("a name", done)?;
        Ok(time)
    })?;
    let Some((last, domain)) = team.domains().enumerate().last() else {
        return Ok(());
    };
    measure_from(laboratory, domain.core() as u64, &mut |order, value| {
        have(team, last..last + 1, order, value)?;
        Ok(Cycles(team.result(last)))
    })
}

/// `go` does an operation and says how long it took.
fn measure_from(
    laboratory: &mut Laboratory,
    from: u64,
    go: &mut dyn FnMut(Order, u64) -> Result<Cycles, Failure>,
) -> Result<(), Failure> {
    let with = [("from", from)];
    laboratory.measure_with("bind a new name", &with, SLOWER_BY, || {
        let time = go(Order::Bind, 1)?;
        go(Order::Unbind, 0)?;
        Ok(time)
    })?;
    laboratory.measure_with("unbind a name", &with, SLOWER_BY, || {
        go(Order::Bind, 1)?;
        go(Order::Unbind, 0)
    })?;
    go(Order::Bind, 1)?;
    let mut value = WARM_UP as u64;
    laboratory.measure_with("bind a name anew", &with, SLOWER_BY, || {
        value += 1;
        go(Order::Bind, value)
    })?;
    laboratory.measure_with("look a name up", &with, 1, || go(Order::Lookup, 0))?;
    if from == u64::from(rt::startup().core) {
        // Of another core, telling it would be counted as well.
        counted::count(laboratory, "bind a name anew", &with, |number| {
            go(Order::Bind, number).map(|_| ())
        })?;
        counted::count(laboratory, "look a name up", &with, |_| {
            go(Order::Lookup, 0).map(|_| ())
        })?;
    }
    go(Order::Unbind, 0).map(|_| ())
}
