//! Names: a registry that is the same on all cores.
//!
//! A name is bound to a number, by one domain, and ends with that domain. What the number means is
//! the programs' own agreement. Look-ups cost no message: each core has a copy. They are
//! linearizable all the same: whoever looks a name up after somebody's [`bind`] has returned,
//! on whatever core, finds that binding or a newer one.
//!
//! ```no_run
//! # fn example() -> Result<(), rt::interface::Error> {
//! rt::names::bind("clock", 7)?;
//! assert_eq!(rt::names::lookup("clock")?.value, 7);
//! # Ok(())
//! # }
//! ```

use crate::interface::Error;
use crate::interface::names::{self as requests, event};
use crate::monitor::{self, Domain};
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of a name, at most.
pub const NAME_BYTES: usize = 32;

/// What a name is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The number.
    pub value: u64,
    /// Who has bound it.
    pub domain: Domain,
}

fn words(name: &str) -> Result<[u64; 4], Error> {
    let mut bytes = [0; NAME_BYTES];
    let room = bytes.get_mut(..name.len()).ok_or(Error::BadName)?;
    if name.is_empty() || name.contains('\0') {
        return Err(Error::BadName);
    }
    room.copy_from_slice(name.as_bytes());
    Ok(zerocopy::transmute!(bytes))
}

fn string(words: [u64; 4]) -> String {
    let bytes: [u8; NAME_BYTES] = zerocopy::transmute!(words);
    let length = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..length.unwrap_or(NAME_BYTES)]).into_owned()
}

fn ask(kind: u16, name: [u64; 4], value: u64) -> Result<[u64; 5], Error> {
    let [a, b, c, d] = name;
    monitor::ask(monitor::here(), kind, [a, b, c, d, value, 0])
}

/// Binds a name, or this domain's own binding to another value. When it returns, all cores know.
///
/// # Errors
/// [`Error::NameTaken`] if it is another domain's, [`Error::BadName`], [`Error::TooManyNames`].
pub fn bind(name: &str, value: u64) -> Result<(), Error> {
    ask(requests::BIND, words(name)?, value).map(|_| ())
}

/// Takes a binding of this domain away. When it returns, all cores know.
///
/// # Errors
/// [`Error::NotBound`], [`Error::NotOwner`], [`Error::BadName`].
pub fn unbind(name: &str) -> Result<(), Error> {
    ask(requests::UNBIND, words(name)?, 0).map(|_| ())
}

/// What a name is bound to.
///
/// # Errors
/// [`Error::NotBound`], [`Error::BadName`].
pub fn lookup(name: &str) -> Result<Binding, Error> {
    let [value, domain, ..] = ask(requests::LOOKUP, words(name)?, 0)?;
    let domain = Domain(domain);
    Ok(Binding { value, domain })
}

/// What a name is bound to, now or as soon as it is.
pub fn await_binding(name: &str) -> Result<Binding, Error> {
    let mut watch = Watch::new(name)?;
    loop {
        match lookup(name) {
            Err(Error::NotBound) => drop(watch.wait()?),
            found => return found,
        }
    }
}

/// All names that begin with a prefix, and their values, as this core's copy has them: it may lag
/// behind what [`lookup`] finds.
pub fn list(prefix: &str) -> Result<Vec<(String, u64)>, Error> {
    let mut names = Vec::new();
    let mut after = [0; 4];
    if !prefix.is_empty() {
        // Whatever begins with it comes after it; it may be a name itself.
        if let Ok(binding) = lookup(prefix) {
            names.push((prefix.into(), binding.value));
        }
        after = words(prefix)?;
    }
    loop {
        let [name @ .., value] = match ask(requests::NEXT, after, 0) {
            Ok(found) => found,
            Err(Error::NotBound) => return Ok(names),
            Err(error) => return Err(error),
        };
        let text = string(name);
        if !text.starts_with(prefix) {
            return Ok(names);
        }
        names.push((text, value));
        after = name;
    }
}

/// What happened to a name that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is bound to this.
    Bound(String, u64),
    /// It is not bound any more.
    Unbound(String),
    /// There was more than was taken: the watch has begun anew, and what happened in between is
    /// lost. Look at what there is.
    Overrun,
}

/// Tells of the changes of a name, or of all that begin with a prefix. At most
/// [`requests::MAX_WATCHES`] of a domain.
#[derive(Debug)]
pub struct Watch {
    name: [u64; 4],
    is_prefix: bool,
    token: u32,
}

impl Watch {
    /// Of this name, from now on.
    pub fn new(name: &str) -> Result<Self, Error> {
        Self::begin(words(name)?, false)
    }

    /// Of all names that begin so, from now on.
    pub fn prefix(prefix: &str) -> Result<Self, Error> {
        Self::begin(words(prefix)?, true)
    }

    fn begin(name: [u64; 4], is_prefix: bool) -> Result<Self, Error> {
        let [a, b, c, d] = name;
        let arguments = [a, b, c, d, u64::from(is_prefix), 0];
        let token = monitor::request(monitor::here(), requests::WATCH, arguments)?;
        let number = token.0;
        monitor::answer(token)?;
        Ok(Self {
            name,
            is_prefix,
            token: number,
        })
    }

    /// The next change; waits for it.
    pub fn wait(&mut self) -> Result<Change, Error> {
        loop {
            if let Some(change) = self.wait_until(None)? {
                return Ok(change);
            }
        }
    }

    /// The next change, if there is one until the clock reaches the deadline, in nanoseconds.
    pub fn wait_until(&mut self, deadline_ns: Option<u64>) -> Result<Option<Change>, Error> {
        let Some(message) = monitor::event(self.token, deadline_ns)? else {
            return Ok(None);
        };
        let [_, what, value, name @ ..] = message.payload;
        Ok(Some(match what {
            event::BOUND => Change::Bound(string(name), value),
            event::UNBOUND => Change::Unbound(string(name)),
            _ => {
                // It has ended there, unless the events were too many here.
                let _ = ask(requests::UNWATCH, [u64::from(self.token), 0, 0, 0], 0);
                monitor::forget_events(self.token);
                let anew = Self::begin(self.name, self.is_prefix)?;
                self.token = anew.token;
                core::mem::forget(anew);
                Change::Overrun
            }
        }))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let token = u64::from(self.token);
        // One that has ended already is forgotten as well.
        let _ = ask(requests::UNWATCH, [token, 0, 0, 0], 0);
        monitor::forget_events(self.token);
    }
}
