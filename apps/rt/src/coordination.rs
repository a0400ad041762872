//! Locks, semaphores and barriers among domains of all cores, made of names.
//!
//! A name belongs to whoever has bound it, all cores agree on who that is, and it is free again when
//! that domain ends, or its core is lost. That is all that is needed here: nothing is held for
//! ever by somebody who is gone. They are for coordination, not for speed: to take a lock costs
//! an update of the registry, at most 3(N-1) messages on N cores.

use crate::interface::Error;
use crate::names::{self, Change, Watch};
use crate::{monitor, startup};
use alloc::format;
use alloc::string::String;

/// A lock that is held by this domain until it is dropped.
#[derive(Debug)]
pub struct Lock {
    name: String,
}

impl Lock {
    /// Takes the lock of this name; waits while another domain has it.
    ///
    /// # Errors
    /// [`Error::BadName`] beside what a monitor may always answer. This domain has it already:
    /// [`Error::InUse`].
    pub fn acquire(name: &str) -> Result<Self, Error> {
        let mut watch = None;
        loop {
            if let Some(lock) = Self::try_acquire(name)? {
                return Ok(lock);
            }
            // It is watched from before the next attempt on, so that no release is missed.
            match &mut watch {
                None => watch = Some(Watch::new(name)?),
                Some(watch) => drop(watch.wait()?),
            }
        }
    }

    /// Takes the lock if nobody has it.
    pub fn try_acquire(name: &str) -> Result<Option<Self>, Error> {
        if names::lookup(name).is_ok_and(|held| held.domain.0 == startup().domain) {
            return Err(Error::InUse);
        }
        match names::bind(name, startup().domain) {
            Ok(()) => Ok(Some(Self { name: name.into() })),
            Err(Error::NameTaken) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Without a monitor, nobody has it any more.
        let _ = names::unbind(&self.name);
    }
}

/// A unit of a semaphore, held until it is dropped.
#[derive(Debug)]
pub struct Unit {
    _lock: Lock,
}

impl Unit {
    /// Takes one of `count` units of the semaphore of this name, which is the same number for all
    /// who use it; waits while none is free. A domain may hold several.
    ///
    /// # Errors
    /// [`Error::BadArgument`] without units, [`Error::BadName`] where the name leaves no room for the
    /// number of a unit.
    pub fn acquire(name: &str, count: u32) -> Result<Self, Error> {
        let mut watch = None;
        loop {
            if let Some(unit) = Self::try_acquire(name, count)? {
                return Ok(unit);
            }
            match &mut watch {
                None => watch = Some(Watch::prefix(&format!("{name}#"))?),
                Some(watch) => drop(watch.wait()?),
            }
        }
    }

    /// Takes a unit if one is free.
    pub fn try_acquire(name: &str, count: u32) -> Result<Option<Self>, Error> {
        if count == 0 {
            return Err(Error::BadArgument);
        }
        // Everybody begins somewhere else, so that not all try for the same.
        let first = monitor::here() as u32 % count;
        for number in 0..count {
            let number = (first + number) % count;
            match Lock::try_acquire(&format!("{name}#{number}")) {
                Ok(Some(lock)) => return Ok(Some(Self { _lock: lock })),
                Ok(None) | Err(Error::InUse) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// A place where so many domains wait for each other, again and again.
///
/// ```text
///  NAME:D1 = 3, NAME:D2 = 3 …   who has come, and to which round: a name for each domain
///  NAME!3                       bound by the last to come: round 3 is over
/// ```
///
/// All updates are in one order, and a domain's own copy has all that came before its own: so the last
/// one finds that all have come, and others may, of whom one is the first to say so. A round takes an update of each and one more. Whoever ends
/// before it has come is waited for in vain, as at any barrier.
#[derive(Debug)]
pub struct Barrier {
    name: String,
    count: usize,
    /// The last one that this domain has come to.
    round: u64,
    /// The last one that it has opened for the others.
    opened: Option<u64>,
}

/// Rounds are numbered anew after so many.
const ROUNDS: u64 = 1 << 32;

impl Barrier {
    /// The barrier of this name, at most 14 bytes, for so many domains, each of which makes one. A
    /// name serves once for as long as those domains live.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for nobody, [`Error::BadName`], [`Error::InUse`] for a name that has
    /// served.
    pub fn new(name: &str, count: usize) -> Result<Self, Error> {
        if count == 0 {
            return Err(Error::BadArgument);
        }
        if name.is_empty() || name.len() > names::NAME_BYTES - 18 || name.contains('\0') {
            return Err(Error::BadName);
        }
        if !names::list(&format!("{name}!"))?.is_empty() {
            return Err(Error::InUse);
        }
        let name = name.into();
        Ok(Self {
            name,
            count,
            round: 0,
            opened: None,
        })
    }

    fn own_name(&self) -> String {
        format!("{}:{:x}", self.name, startup().domain)
    }

    fn open_name(&self, round: u64) -> String {
        format!("{}!{round:x}", self.name)
    }

    /// Waits until all have come as often as this domain.
    pub fn wait(&mut self) -> Result<(), Error> {
        let round = (self.round + 1) % ROUNDS;
        let open = self.open_name(round);
        let mut watch = Watch::new(&open)?;
        names::bind(&self.own_name(), round)?;
        self.round = round;
        let there = names::list(&format!("{}:", self.name))?;
        let come = there.iter().filter(|(_, at)| *at == round).count();
        let opens = match come >= self.count {
            true => names::bind(&open, round),
            false => Err(Error::NameTaken),
        };
        let before = match opens {
            Ok(()) => self.opened.replace(round),
            Err(Error::NameTaken) => {
                // Whoever opened it may have ended since, and its names with it.
                let mut is_open = names::lookup(&open).is_ok();
                while !is_open {
                    is_open = matches!(watch.wait()?, Change::Bound(..));
                }
                self.opened.take()
            }
            Err(error) => return Err(error),
        };
        // All have come to this round, so all have left the one before.
        before.map_or(Ok(()), |before| names::unbind(&self.open_name(before)))
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        // Whoever has not left the last round yet may need what was bound for it, so that stays until
        // this domain ends.
        if self.round > 0 {
            let _ = names::unbind(&self.own_name());
        }
    }
}
