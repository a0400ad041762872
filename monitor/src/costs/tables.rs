//! Tables of costs: the same on all cores that go by one.
//!
//! The settings of a view name the table that its trees are computed from. So this holds, always:
//!
//! > **Whoever knows settings that name a table has that table.**
//!
//! ```text
//!  core                                             another
//!   │ lines of table 7 ─────────────────────────────►│  the last of each core is there
//!   │ Configure, Gathered or View {settings: 7} ────►│  now it is named: kept as long as it is
//! ```
//!
//! Settings come to a core in a message of [membership](crate::membership), or from itself after a
//! survey. Before such a message goes the table, on the same channel, which keeps its order; unless it
//! is the last table that this receiver got from this sender. A core has the last table from each
//! other, and all that are named by settings that it knows: those of its view, those that it asked
//! for, those that it was asked for as the coordinator. So it can send them on with the settings.
//!
//! That the receiver got it counts for cores of the sender's view alone, and is forgotten with the view
//! that the receiver is not in: a core that starts anew has no tables, and no view with its new life
//! follows one with its former life anywhere. Whoever joins gets the table with the view.
//!
//! No two tables have one number: it is a count, higher than all that the surveyor has seen, and the
//! surveyor itself. Number 0 is that of the costs that all cores began with, and is never sent.

use crate::core_set::CoreSet;
use crate::kinds;
use crate::tree::{Cost, Machine, Strategy};
use crate::view::View;
use abi::limits::{MAX_CORES, MAX_NODES};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// The kind of a line of a table. It is one of membership's: it goes wherever views go.
const TABLE: u16 = kinds::kind(&kinds::MEMBERSHIP, 10);

/// Costs in a line.
const COSTS_PER_LINE: usize = 6;

/// Bits of a figure.
const FIGURE_BITS: u32 = 21;

/// The highest figure, in nanoseconds.
pub const MAX_NS: u32 = (1 << FIGURE_BITS) - 1;

/// Bits of a core's number, in that of a table.
const CORE_BITS: u32 = 8;

/// The highest number of a table, 24 bits.
const MAX_NUMBER: u32 = 0xff_ffff;

const _: () = assert!(MAX_CORES == 1 << CORE_BITS && MAX_NODES <= 64);

/// A cost in a word; figures beyond [`MAX_NS`] become that.
pub(super) fn pack(cost: Cost) -> u64 {
    let figure = |ns: u32| u64::from(ns.min(MAX_NS));
    figure(cost.send_ns)
        | figure(cost.latency_ns) << FIGURE_BITS
        | figure(cost.receive_ns) << (2 * FIGURE_BITS)
}

/// From such a word; `None` if it is none, or says that something costs nothing.
pub(super) fn unpack(word: u64) -> Option<Cost> {
    let figure = |index: u32| (word >> (index * FIGURE_BITS)) as u32 & MAX_NS;
    let [send_ns, latency_ns, receive_ns] = [0, 1, 2].map(figure);
    let is_one = word >> (3 * FIGURE_BITS) == 0 && send_ns > 0 && latency_ns > 0 && receive_ns > 0;
    is_one.then_some(Cost {
        send_ns,
        latency_ns,
        receive_ns,
    })
}

/// The settings that name a table.
pub fn settings_of(number: u32) -> u32 {
    Strategy::Computed.settings() | number << 8
}

/// The table that settings name; `None` for other strategies, and where it is that which all cores
/// began with.
pub fn number_of(settings: u32) -> Option<u32> {
    let is_computed = Strategy::from_settings(settings) == Strategy::Computed;
    Some(settings >> 8).filter(|number| is_computed && *number > 0)
}

/// What a message costs from each socket to each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    number: u32,
    sockets: usize,
    /// Row by row, packed.
    words: Vec<u64>,
}

impl Table {
    /// Of these costs, from each socket to each, row by row. Each figure is 1 to [`MAX_NS`]
    /// afterwards, in nanoseconds.
    pub fn new(number: u32, sockets: usize, costs: impl IntoIterator<Item = Cost>) -> Self {
        let words = costs.into_iter().map(|cost| {
            pack(Cost {
                send_ns: cost.send_ns.max(1),
                latency_ns: cost.latency_ns.max(1),
                receive_ns: cost.receive_ns.max(1),
            })
        });
        Self {
            number: number & MAX_NUMBER,
            sockets,
            words: words.take(sockets * sockets).collect(),
        }
    }

    /// The costs that a machine is described with.
    pub fn described(number: u32, machine: &Machine) -> Self {
        let costs = machine.pairs().map(|(from, to)| machine.between(from, to));
        Self::new(number, machine.socket_count(), costs)
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Between two sockets; `None` where there are not so many.
    pub fn cost(&self, from: usize, to: usize) -> Option<Cost> {
        let is_there = from < self.sockets && to < self.sockets;
        let word = self.words.get(from * self.sockets + to);
        word.filter(|_| is_there).and_then(|word| unpack(*word))
    }

    fn is_whole(&self) -> bool {
        self.words.len() == self.sockets * self.sockets
    }

    /// Its lines, as kind and words, in order.
    pub fn lines(&self) -> impl Iterator<Item = (u16, [u64; 7])> {
        let pieces = self.words.chunks(COSTS_PER_LINE).enumerate();
        pieces.map(|(index, piece)| {
            let first = (index * COSTS_PER_LINE) as u64;
            let mut words = [0; 7];
            words[0] = u64::from(self.number) | (self.sockets as u64) << 32 | first << 48;
            words[1..=piece.len()].copy_from_slice(piece);
            (TABLE, words)
        })
    }
}

/// The tables that one core has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tables {
    own: usize,
    machine: Arc<Machine>,
    members: CoreSet,
    /// Those that are named by settings which this core knows.
    named: Vec<Arc<Table>>,
    /// The last one of each core, as far as it has come; that of this core is from its last survey.
    last: BTreeMap<usize, Arc<Table>>,
    /// The last one that each core of the view got from this one.
    told: BTreeMap<usize, u32>,
    /// The one that the view's trees are computed from.
    current: Option<Arc<Table>>,
}

impl Tables {
    /// The tables of core `own`: none.
    pub fn new(own: usize, machine: Arc<Machine>) -> Self {
        Self {
            own,
            machine,
            members: CoreSet::default(),
            named: Vec::new(),
            last: BTreeMap::new(),
            told: BTreeMap::new(),
            current: None,
        }
    }

    /// The one that the trees of this view are computed from.
    pub fn current(&self) -> Option<&Table> {
        self.current.as_deref()
    }

    /// This core has surveyed these costs, row by row: the number of their table, which settings may
    /// name from now on. `None` if all counts are used up, and none is used twice.
    pub fn add(&mut self, costs: Vec<Cost>) -> Option<u32> {
        let known = self.named.iter().chain(self.last.values());
        let highest = known.map(|table| table.number >> CORE_BITS).max();
        let number = (highest.unwrap_or(0) + 1) << CORE_BITS | self.own as u32;
        if number > MAX_NUMBER {
            return None;
        }
        self.give(Table::new(number, self.machine.socket_count(), costs));
        Some(number)
    }

    /// This core has such a table, as if it had surveyed it.
    pub fn give(&mut self, table: Table) {
        self.last.insert(self.own, Arc::new(table));
    }

    fn find(&self, number: u32) -> Option<&Arc<Table>> {
        let mut all = self.named.iter().chain(self.last.values());
        all.find(|table| table.number == number && table.is_whole())
    }

    /// A line came, of a kind that may be a table's; whether it makes sense.
    pub fn on_line(&mut self, from: usize, kind: u16, words: &[u64; 7]) -> bool {
        let [head, costs @ ..] = words;
        let (number, rest) = (*head as u32, head >> 32);
        let (sockets, first) = (rest as usize & 0xffff, (rest >> 16) as usize);
        if kind != TABLE || from >= MAX_CORES {
            return false;
        }
        let is_good = (1..=MAX_NUMBER).contains(&number) && sockets == self.machine.socket_count();
        let mut table = match self.last.remove(&from).map(Arc::unwrap_or_clone) {
            _ if first == 0 => Table::new(number, sockets, []),
            Some(begun) if begun.number == number && begun.words.len() == first => begun,
            _ => return false,
        };
        let left = (sockets * sockets).saturating_sub(first);
        let costs = &costs[..left.min(COSTS_PER_LINE)];
        let is_good = is_good && left > 0 && costs.iter().all(|word| unpack(*word).is_some());
        if is_good {
            table.words.extend(costs);
            // Many cores send the same one.
            let known = self.find(number).filter(|known| ***known == table).cloned();
            self.last
                .insert(from, known.unwrap_or_else(|| Arc::new(table)));
        }
        is_good
    }

    /// The lines that are to go before a message with such settings to a core.
    pub fn ahead_of(&mut self, settings: u32, to: usize) -> Vec<(u16, [u64; 7])> {
        let Some(number) = number_of(settings) else {
            return Vec::new();
        };
        if self.told.get(&to) == Some(&number) {
            return Vec::new();
        }
        let lines = self.find(number).map(|table| table.lines().collect());
        if lines.is_some() {
            match self.members.contains(to) {
                true => self.told.insert(to, number),
                false => self.told.remove(&to),
            };
        }
        lines.unwrap_or_default()
    }

    /// A view holds: how messages to many spread in it. `None` where its settings name a table that is
    /// not here; then all such cores must do the same.
    pub fn installed(&mut self, view: &View) -> Option<(Strategy, Arc<Machine>)> {
        self.members = view.cores.clone();
        self.told.retain(|core, _| view.cores.contains(*core));
        self.current = None;
        let strategy = Strategy::from_settings(view.settings);
        let Some(number) = number_of(view.settings) else {
            return Some((strategy, Arc::clone(&self.machine)));
        };
        let table = Arc::clone(self.find(number)?);
        let cost = |from, to| table.cost(from, to).unwrap_or_default();
        let machine = Arc::new(self.machine.with_costs(cost));
        self.current = Some(table);
        Some((strategy, machine))
    }

    /// These are all settings that this core knows: tables that they do not name may be forgotten.
    pub fn keep(&mut self, known: impl IntoIterator<Item = u32>) {
        let mut named: Vec<Arc<Table>> = Vec::new();
        for number in known.into_iter().filter_map(number_of) {
            let is_new = named.iter().all(|table| table.number != number);
            if let Some(table) = self.find(number).filter(|_| is_new) {
                named.push(Arc::clone(table));
            }
        }
        self.named = named;
    }
}
