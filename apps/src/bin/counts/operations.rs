//! The operations, and the most messages that each may take.

use crate::members::{Order, member, tell};
use abi::layout::PAGE;
use alloc::vec::Vec;
use apps::team::Team;
use rt::capability::{self, Address};
use rt::interface::{Error, counter};
use rt::span::Area;
use rt::{memory, names, transfer};

/// What the operations work with.
pub struct Stage {
    /// Cores that are up.
    cores: u64,
    team: Option<Team>,
    /// Pages of the span, one for each repetition.
    pages: Vec<Area>,
    /// Frames, one for each repetition.
    frames: Vec<Address>,
}

/// One of them.
pub struct Operation {
    pub name: &'static str,
    /// The messages that are its.
    pub class: u64,
    /// Cores that it takes.
    pub least_cores: u64,
    /// The most messages, each time.
    pub most: fn(&Stage) -> u64,
    /// What comes before so many repetitions, and is not counted.
    pub prepare: fn(&mut Stage, u64) -> Result<(), Error>,
    /// Does it; numbers count from 0.
    pub go: fn(&mut Stage, u64) -> Result<(), Error>,
}

impl Stage {
    /// With members on all other cores.
    pub fn new() -> Result<Self, Error> {
        let cores = rt::startup().cores().count() as u64;
        Ok(Self {
            cores,
            team: if cores > 1 {
                Some(Team::gather(member)?)
            } else {
                None
            },
            pages: Vec::new(),
            frames: Vec::new(),
        })
    }

    /// It is over.
    pub fn end(self) -> Result<(), Error> {
        self.team.map_or(Ok(()), Team::dismiss)
    }

    fn team(&mut self) -> Result<&mut Team, Error> {
        self.team.as_mut().ok_or(Error::NotSpanned)
    }

    /// Maps pages, one for each repetition, and has so many members read them.
    fn map(&mut self, repeat: u64, readers: usize) -> Result<(), Error> {
        let team = self.team()?;
        let whole = team.span.map(repeat * PAGE)?;
        // What is unmapped page by page was not mapped so: it is as many mappings as there are pages.
        team.span.unmap(whole)?;
        let mut pages = Vec::new();
        for _ in 0..repeat {
            let page = team.span.map(PAGE)?;
            tell(team, 0..readers, Order::Touch, page.address(), 1);
            if team.wait() > 0 {
                return Err(Error::NotMapped);
            }
            pages.push(page);
        }
        self.pages = pages;
        Ok(())
    }

    /// Makes frames, one for each repetition, and sends each to so many members.
    fn make_frames(&mut self, repeat: u64, receivers: usize) -> Result<(), Error> {
        let mut frames = Vec::new();
        for _ in 0..repeat {
            frames.push(memory::frame(PAGE).map_err(|_| Error::NoMemory)?);
        }
        let team = self.team()?;
        tell(team, 0..receivers, Order::Receive, 0, repeat);
        let domains: Vec<_> = team.domains().take(receivers).collect();
        for frame in &frames {
            for domain in &domains {
                transfer::send(*frame, *domain)?;
            }
        }
        if team.wait() > 0 {
            return Err(Error::NotWaiting);
        }
        self.frames = frames;
        Ok(())
    }

    fn unmap(&mut self, number: u64) -> Result<(), Error> {
        let page = self.pages[number as usize];
        self.team()?.span.unmap(page)
    }

    fn revoke(&mut self, number: u64) -> Result<(), Error> {
        capability::revoke(self.frames[number as usize]).map_err(|_| Error::Refused)
    }
}

fn nothing(_: &mut Stage, _: u64) -> Result<(), Error> {
    Ok(())
}

const UNMAP: Operation = Operation {
    name: "unmap a page that 2 have",
    class: counter::OF_SPACES,
    least_cores: 2,
    most: |_| 2,
    prepare: |stage, repeat| stage.map(repeat, 1),
    go: Stage::unmap,
};

const UNMAP_ON_ALL: Operation = Operation {
    name: "unmap a page that all have",
    most: |stage| 2 * (stage.cores - 1),
    prepare: |stage, repeat| stage.map(repeat, usize::MAX),
    ..UNMAP
};

const REVOKE: Operation = Operation {
    name: "revoke a frame that 2 have",
    class: counter::OF_REGIONS,
    least_cores: 2,
    most: |_| 4 * 2,
    prepare: |stage, repeat| stage.make_frames(repeat, 1),
    go: Stage::revoke,
};

/// All of them, in this order.
pub const ALL: &[Operation] = &[
    Operation {
        name: "look a name up",
        class: counter::OF_NAMES,
        least_cores: 1,
        most: |_| 0,
        prepare: |_, _| names::bind("counts", 0),
        go: |_, _| names::lookup("counts").map(|_| ()),
    },
    Operation {
        name: "bind a name anew",
        class: counter::OF_NAMES,
        least_cores: 1,
        most: |stage| 3 * (stage.cores - 1),
        prepare: nothing,
        go: |_, number| names::bind("counts", number),
    },
    Operation {
        name: "map a page",
        prepare: nothing,
        go: |stage, _| {
            let page = stage.team()?.span.map(PAGE)?;
            stage.pages.push(page);
            Ok(())
        },
        ..UNMAP
    },
    Operation {
        name: "unmap a page nobody else has",
        prepare: |stage, repeat| stage.map(repeat, 0),
        ..UNMAP
    },
    UNMAP,
    UNMAP_ON_ALL,
    Operation {
        name: "protect a page that all have",
        go: |stage, number| {
            let page = stage.pages[number as usize];
            stage.team()?.span.protect(page, false)
        },
        ..UNMAP_ON_ALL
    },
    Operation {
        name: "unmap by another core",
        go: |stage, number| {
            let page = stage.pages[number as usize];
            let team = stage.team()?;
            tell(team, 0..1, Order::Unmap, page.address(), 1);
            match team.wait() {
                0 => Ok(()),
                _ => Err(Error::NotMapped),
            }
        },
        ..UNMAP_ON_ALL
    },
    Operation {
        name: "send a frame",
        most: |_| 4,
        prepare: |stage, repeat| {
            stage.make_frames(repeat, 0)?;
            tell(stage.team()?, 0..1, Order::Receive, 0, repeat);
            Ok(())
        },
        go: |stage, number| {
            let frame = stage.frames[number as usize];
            let to = stage.team()?.domains().next();
            transfer::send(frame, to.ok_or(Error::NoSuchDomain)?)
        },
        ..REVOKE
    },
    REVOKE,
    Operation {
        name: "revoke a frame that all have",
        most: |stage| 4 * stage.cores,
        prepare: |stage, repeat| stage.make_frames(repeat, usize::MAX),
        ..REVOKE
    },
];
