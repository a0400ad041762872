//! Machines: what a message costs, by how far apart two cores are.
//!
//! A machine file is TOML, in nanoseconds throughout:
//!
//! | key                                  | what it says                                            |
//! |--------------------------------------|---------------------------------------------------------|
//! | `sockets`                            | how many there are, 1 to 64                             |
//! | `cores_per_socket`                   | cores are numbered socket by socket                     |
//! | `cores_per_cache`                    | how many of a socket share a cache                      |
//! | `links`                              | pairs of sockets one hop apart; left out: all are       |
//! | `[cache]`, `[socket]`, `[[hop]]` ... | `send`, `flight` and `receive` between cores of a cache, of a socket, and so many hops apart; what is left out costs what the level before does |
//! | `[cost]`                             | `handle` a message, `ring` a doorbell, `wake` by one, and `poll` so long before sleep |
//!
//! `send` is time of the sending core, `receive` and `handle` of the receiving one. A run with more
//! cores than the machine has makes its sockets wider.

use serde::Deserialize;
use std::collections::BTreeMap;
use thiserror::Error;

/// The most sockets.
const MAX_SOCKETS: usize = 64;
/// The longest that anything may cost: an hour.
const MAX_NS: u64 = 3_600_000_000_000;

/// Instead of a kind of message: what a core does because of the time. No message has it.
pub const TICK: u16 = 0xffff;

/// The machines that come with the simulator: their names and files.
pub const SHIPPED: [(&str, &str); 3] = [
    ("qemu", include_str!("../machines/qemu.toml")),
    ("two-socket", include_str!("../machines/two-socket.toml")),
    (
        "eight-socket",
        include_str!("../machines/eight-socket.toml"),
    ),
];

/// What is wrong with a machine file.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct MachineError(String);

/// What a message costs between two cores, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distance {
    /// Time of the sending core, at least 1.
    pub send: u64,
    /// From then until the receiver can see it.
    pub flight: u64,
    /// Time of the receiving core until it has the message.
    pub receive: u64,
}

/// What does not depend on distance, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// What a monitor does with a message besides receiving it.
    pub handle: u64,
    /// Time of a core that rings another's doorbell.
    pub ring: u64,
    /// From the doorbell until the receiver goes on.
    pub wake: u64,
    /// How long a receiver polls before it sleeps.
    pub poll: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sockets: usize,
    cores_per_socket: usize,
    cores_per_cache: usize,
    links: Option<Vec<[usize; 2]>>,
    cache: Distance,
    socket: Option<Distance>,
    #[serde(default)]
    hop: Vec<Distance>,
    cost: Cost,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What it is called.
    pub name: String,
    /// What does not depend on distance.
    pub cost: Cost,
    /// Handling a message of these kinds costs this instead, in nanoseconds.
    pub kinds: BTreeMap<u16, u64>,
    /// Whether all cores run by turns on one processor, as an emulator's on one thread do.
    pub is_serial: bool,
    sockets: usize,
    cores_per_socket: usize,
    cores_per_cache: usize,
    /// By level: a cache, a socket, one hop, two hops ...
    levels: Vec<Distance>,
    /// The level from one socket to another, row by row.
    between: Vec<u8>,
}

impl Machine {
    /// Reads a machine file.
    pub fn parse(name: &str, text: &str) -> Result<Self, MachineError> {
        let file: File =
            toml::from_str(text).map_err(|error| MachineError(error.to_string().trim().into()))?;
        let sockets = file.sockets;
        if !(1..=MAX_SOCKETS).contains(&sockets) {
            return Err(MachineError(format!(
                "sockets: expected 1 to {MAX_SOCKETS}, found {sockets}"
            )));
        }
        if file.cores_per_socket == 0 || file.cores_per_cache == 0 {
            return Err(MachineError(
                "cores_per_socket and cores_per_cache: expected at least 1, found 0".into(),
            ));
        }
        let mut levels = vec![file.cache, file.socket.unwrap_or(file.cache)];
        levels.extend(&file.hop);
        let cost = file.cost;
        let costs = levels
            .iter()
            .flat_map(|one| [one.send, one.flight, one.receive]);
        let costs = costs.chain([cost.handle, cost.ring, cost.wake, cost.poll]);
        if let Some(cost) = costs.into_iter().find(|cost| *cost > MAX_NS) {
            return Err(MachineError(format!(
                "expected costs up to {MAX_NS} ns, found {cost}"
            )));
        }
        // Whoever sends for nothing sends without end.
        if levels.iter().any(|level| level.send == 0) {
            return Err(MachineError("send: expected at least 1 ns, found 0".into()));
        }
        let between = hops(sockets, file.links.as_deref())?
            .into_iter()
            .map(|hops| if hops == 0 { 1 } else { hops + 1 })
            .map(|level| level.min(levels.len() - 1) as u8)
            .collect();
        Ok(Self {
            name: name.into(),
            cost,
            kinds: BTreeMap::new(),
            is_serial: false,
            sockets,
            cores_per_socket: file.cores_per_socket,
            cores_per_cache: file.cores_per_cache,
            levels,
            between,
        })
    }

    /// The shipped machine of this name.
    pub fn shipped(name: &str) -> Option<Self> {
        let (name, text) = SHIPPED.iter().find(|(shipped, _)| *shipped == name)?;
        Some(Self::parse(name, text).expect("shipped files are in order: a test reads them"))
    }

    /// A machine whose cores are all equally far from each other.
    pub fn uniform(name: &str, distance: Distance, cost: Cost) -> Self {
        let distance = Distance {
            send: distance.send.max(1),
            ..distance
        };
        Self {
            name: name.into(),
            cost,
            kinds: BTreeMap::new(),
            is_serial: false,
            sockets: 1,
            cores_per_socket: 1,
            cores_per_cache: usize::MAX,
            levels: vec![distance; 2],
            between: vec![1],
        }
    }

    /// What a monitor does with a message of a kind besides receiving it, in nanoseconds.
    pub fn handle(&self, kind: u16) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or(self.cost.handle)
    }

    /// The machine with room for so many cores.
    pub fn with_room_for(mut self, cores: usize) -> Self {
        self.cores_per_socket = self.cores_per_socket.max(cores.div_ceil(self.sockets));
        self
    }

    /// The socket of a core.
    pub fn socket(&self, core: usize) -> usize {
        (core / self.cores_per_socket).min(self.sockets - 1)
    }

    /// What a message costs from one core to another; the same in both directions.
    pub fn distance(&self, from: usize, to: usize) -> &Distance {
        let (here, there) = (self.socket(from), self.socket(to));
        let cache = |core: usize| core % self.cores_per_socket / self.cores_per_cache;
        let level = if here == there && cache(from) == cache(to) {
            0
        } else {
            usize::from(self.between[here * self.sockets + there])
        };
        &self.levels[level]
    }
}

/// How many hops lie between each two sockets, row by row.
fn hops(sockets: usize, links: Option<&[[usize; 2]]>) -> Result<Vec<usize>, MachineError> {
    let mut hops = vec![usize::MAX; sockets * sockets];
    for socket in 0..sockets {
        if links.is_none() {
            hops[socket * sockets..][..sockets].fill(1);
        }
        hops[socket * sockets + socket] = 0;
    }
    for [a, b] in links.unwrap_or_default() {
        if *a >= sockets || *b >= sockets || a == b {
            return Err(MachineError(format!(
                "links: expected two of the sockets 0 to {}, found [{a}, {b}]",
                sockets - 1
            )));
        }
        (hops[a * sockets + b], hops[b * sockets + a]) = (1, 1);
    }
    for over in 0..sockets {
        for from in 0..sockets {
            for to in 0..sockets {
                let way = hops[from * sockets + over].saturating_add(hops[over * sockets + to]);
                let known = &mut hops[from * sockets + to];
                *known = way.min(*known);
            }
        }
    }
    if hops.contains(&usize::MAX) {
        return Err(MachineError(
            "links: expected a way from every socket to every other".into(),
        ));
    }
    Ok(hops)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_machines_are_in_order() {
        for (name, _) in SHIPPED {
            assert_eq!(Machine::shipped(name).unwrap().name, name);
        }
        assert_eq!(Machine::shipped("nine-socket"), None);
    }

    #[test]
    fn distances_grow_with_hops() {
        let machine = Machine::shipped("eight-socket").unwrap();
        let whole = |from, to| {
            let distance = machine.distance(from, to);
            distance.send + distance.flight + distance.receive
        };
        assert_eq!((whole(0, 3), whole(0, 4), whole(0, 16)), (269, 307, 307));
        assert_eq!((whole(0, 8), whole(31, 8)), (309, 309));
        let machine = Machine::shipped("two-socket").unwrap();
        assert_ne!(machine.distance(0, 1), machine.distance(0, 2));
        assert_eq!(machine.distance(0, 1), machine.distance(3, 2));
        let wide = machine.with_room_for(100);
        assert_eq!(
            (wide.socket(49), wide.socket(50), wide.socket(99)),
            (0, 1, 1)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = SHIPPED[2].1;
        for (old, new, words) in [
            ("sockets = 8", "sockets = 0", "sockets: expected 1 to 64"),
            ("cores_per_cache = 4", "cores_per_cache = 0", "at least 1"),
            ("[0, 1],", "[0, 9],", "found [0, 9]"),
            ("send = 45", "send = 0", "send: expected at least 1 ns"),
            ("send = 45", "send = -1", "send"),
            ("wake = 3000", "", "missing field `wake`"),
            ("wake = 3000", "wake = 9223372036854775807", "up to"),
            (
                "poll = 3000",
                "poll = 3000\nspeed = 1",
                "unknown field `speed`",
            ),
            ("links = [", "links = [[", "expected `,`"),
        ] {
            let text = good.replacen(old, new, 1);
            let error = Machine::parse("bad", &text).unwrap_err().to_string();
            assert!(error.contains(words), "{new}: {error}");
        }
        let apart = good.replace("[3, 4],", "").replace("[7, 0],", "");
        assert!(Machine::parse("", &apart).is_ok());
        let lonely = "sockets = 2\nlinks = []\ncores_per_socket = 1\ncores_per_cache = 1\n[cache]\nsend = 1\nflight = 1\nreceive = 1\n[cost]\nhandle = 1\nring = 1\nwake = 1\npoll = 1\n";
        let error = Machine::parse("", lonely).unwrap_err().to_string();
        assert!(error.contains("a way from every socket"), "{error}");
    }
}
