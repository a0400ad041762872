//! Who passes a message on to whom: trees over a set of cores, the same on every core that computes
//! them from the same set, root and description of the machine.
//!
//! ```text
//!  unicast          tree, arity 2        sockets {0 1 2} {3 4 5}     computed
//!     0                  0                     0                     whoever is free first sends
//!  ┌─┬┴┬─┐             ┌─┴─┐                ┌──┼──┐                  next: to sockets that nobody
//!  1 2 3 4             1   2                3  1  2                  has reached, the costliest
//!                    ┌─┴┐ ┌┴─┐             ┌┴┐                       first, then to its own
//!                    3  4 5  6             4 5
//! ```
//!
//! Every core but the root has one parent, so a message travels over exactly N-1 edges, and the
//! acknowledgements that are gathered on the way back take N-1 more.
//!
//! The computed tree follows Kaestle et al., *Machine-aware Atomic Broadcast Trees for Multicores*
//! (OSDI 2016): remote cores first, one message to each socket, nobody idle who could send. Where
//! the greedy choice loses to one of the fixed shapes by the same cost model, the fixed shape is
//! taken, so it is never slower than they are. The costs are measured on the machine as it runs, and
//! all cores have the same: see [`crate::costs`].

use crate::core_set::CoreSet;
use alloc::collections::{BTreeMap, BinaryHeap, VecDeque};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt;
use core::hash::{Hash, Hasher};

/// What one message costs between two cores, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cost {
    /// The sender is busy for so long.
    pub send_ns: u32,
    /// From then on until the message is there.
    pub latency_ns: u32,
    /// The receiver is busy for so long.
    pub receive_ns: u32,
}

impl Cost {
    /// From the first instruction of the sender to the last of the receiver.
    fn total_ns(self) -> u64 {
        u64::from(self.send_ns) + u64::from(self.latency_ns) + u64::from(self.receive_ns)
    }
}

/// What is known of the machine. It must be equal on all cores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Machine {
    /// Socket of each core; of the cores beyond it, 0.
    sockets: Vec<usize>,
    /// How many sockets there are.
    count: usize,
    /// From each socket to each, row by row.
    costs: Vec<Cost>,
}

impl Machine {
    /// `sockets`: the socket of each core, from 0. `cost`: between a core of one socket and a core
    /// of another, or of the same.
    pub fn new(sockets: Vec<usize>, cost: impl Fn(usize, usize) -> Cost) -> Self {
        let count = sockets.iter().max().map_or(1, |highest| highest + 1);
        let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        let costs = pairs.map(|(from, to)| cost(from, to)).collect();
        Self {
            sockets,
            count,
            costs,
        }
    }

    /// A machine of one socket.
    pub fn uniform(cost: Cost) -> Self {
        Self::new(Vec::new(), |_, _| cost)
    }

    /// The socket of a core.
    pub fn socket(&self, core: usize) -> usize {
        self.sockets.get(core).copied().unwrap_or(0)
    }

    /// How many sockets there are, at least 1.
    pub fn socket_count(&self) -> usize {
        self.count.max(1)
    }

    /// All pairs of sockets, row by row.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let count = self.socket_count();
        (0..count).flat_map(move |from| (0..count).map(move |to| (from, to)))
    }

    /// As this one, but for what messages cost.
    #[must_use]
    pub fn with_costs(&self, cost: impl Fn(usize, usize) -> Cost) -> Self {
        Self::new(self.sockets.clone(), cost)
    }

    /// What a message from one socket to another costs.
    pub fn between(&self, from: usize, to: usize) -> Cost {
        let cost = self.costs.get(from * self.count + to);
        cost.copied().unwrap_or_default()
    }

    /// What a message from one core to another costs.
    pub fn cost(&self, from: usize, to: usize) -> Cost {
        self.between(self.socket(from), self.socket(to))
    }
}

/// How a message is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// The root sends to all.
    Unicast,
    /// Every core sends to up to `arity` others, neighbours in the set.
    Tree {
        /// At least 1; 0 counts as 1.
        arity: usize,
    },
    /// One core of each socket, through such a tree, and from that one to the others of its socket.
    Sockets {
        /// Between sockets.
        arity: usize,
    },
    /// By the costs of the machine: which ones, settings say in the same place as an arity (see
    /// [`crate::costs::tables`]).
    Computed,
}

impl Strategy {
    /// As settings of a [view](crate::view::View).
    pub fn settings(self) -> u32 {
        let (which, arity) = match self {
            Self::Unicast => (0, 0),
            Self::Tree { arity } => (1, arity),
            Self::Sockets { arity } => (2, arity),
            Self::Computed => (3, 0),
        };
        which | (arity.min(0xffff) as u32) << 8
    }

    /// From settings of a view; what makes no sense there is unicast.
    pub fn from_settings(settings: u32) -> Self {
        let arity = (settings >> 8 & 0xffff) as usize;
        match settings & 0xff {
            1 => Self::Tree { arity },
            2 => Self::Sockets { arity },
            3 => Self::Computed,
            _ => Self::Unicast,
        }
    }
}

/// A core's place in a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Nobody for the root.
    pub parent: Option<usize>,
    /// In the order in which they are to be sent to.
    pub children: Vec<usize>,
}

/// How long a message takes by the costs of a machine, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// From the root's first instruction until all have gathered what their children say, if
    /// nobody has anything else to do: what the root waits for.
    pub round_ns: u64,
    /// Until the last core has received it.
    pub spread_ns: u64,
}

/// A tree over a set of cores.
#[derive(Clone, Debug)]
pub struct Tree {
    set: CoreSet,
    /// The root's place in the set.
    root: usize,
    shape: Shape,
}

/// Places in the set stand for cores.
#[derive(Clone, Debug)]
enum Shape {
    /// Place `p` after the root sends to the places `arity * p + 1 ..= arity * p + arity` after it.
    Rotated { arity: usize },
    /// Parent of every place, the root's its own, and children.
    Listed {
        parents: Vec<usize>,
        children: Vec<Vec<usize>>,
    },
}

/// Arities of the fixed shapes that the computed tree is compared with.
const ARITIES: [usize; 6] = [2, 3, 4, 5, 6, 8];

impl Tree {
    /// The tree over `set` from `root`; `None` where the root is not in the set. Takes O(1) steps
    /// for unicast and trees, O(N log N) for sockets, O(N (log N + sockets)) for computed ones.
    pub fn new(strategy: Strategy, machine: &Machine, set: &CoreSet, root: usize) -> Option<Self> {
        let root = set.place(root)?;
        let shape = match strategy {
            Strategy::Unicast => Shape::Rotated { arity: set.len() },
            Strategy::Tree { arity } => Shape::Rotated {
                arity: arity.max(1),
            },
            Strategy::Sockets { arity } => by_sockets(machine, set, root, arity.max(1)),
            Strategy::Computed => return Some(Self::computed(machine, set, root)),
        };
        Some(Self {
            set: set.clone(),
            root,
            shape,
        })
    }

    /// The fastest of what is found: the greedy ones and the fixed ones.
    fn computed(machine: &Machine, set: &CoreSet, root: usize) -> Self {
        let sockets = |arity| by_sockets(machine, set, root, arity);
        let of = |shape| Self {
            set: set.clone(),
            root,
            shape,
        };
        let mut best = of(greedy(machine, set, root, true));
        let mut best_time = best.time(machine);
        let fixed = [greedy(machine, set, root, false)]
            .into_iter()
            .chain([Shape::Rotated { arity: set.len() }])
            .chain(ARITIES.map(|arity| Shape::Rotated { arity }))
            .chain(ARITIES.into_iter().map(sockets));
        for shape in fixed {
            let tree = of(shape);
            let time = tree.time(machine);
            if time < best_time {
                (best, best_time) = (tree, time);
            }
        }
        best
    }

    /// Parent of a place, and its children in order.
    fn around(&self, place: usize) -> (Option<usize>, Vec<usize>) {
        let cores = self.set.len();
        match &self.shape {
            Shape::Rotated { arity } => {
                let after = (place + cores - self.root) % cores;
                let core = |after: usize| (self.root + after) % cores;
                let first = arity.saturating_mul(after).saturating_add(1).min(cores);
                let children = first..first.saturating_add(*arity).min(cores);
                let parent = after.checked_sub(1).map(|before| core(before / arity));
                (parent, children.map(core).collect())
            }
            Shape::Listed { parents, children } => {
                let parent = (place != self.root).then(|| parents[place]);
                (parent, children[place].clone())
            }
        }
    }

    /// The place of a core; `None` for cores outside of the set.
    pub fn place(&self, core: usize) -> Option<Place> {
        let (parent, children) = self.around(self.set.place(core)?);
        Some(Place {
            parent: parent.and_then(|parent| self.set.nth(parent)),
            children: children
                .into_iter()
                .filter_map(|child| self.set.nth(child))
                .collect(),
        })
    }

    /// How long a message takes from the root to all, and the answers back. Every core sends to its
    /// children one after the other and then receives their answers as they come.
    pub fn time(&self, machine: &Machine) -> Time {
        let cores: Vec<usize> = self.set.iter().collect();
        let mut order = vec![self.root];
        let mut parents = vec![self.root; cores.len()];
        // When a core is through with receiving, then with sending, then with gathering.
        let mut done_ns = vec![0u64; cores.len()];
        let mut spread_ns = 0;
        let mut at = 0;
        while let Some(&place) = order.get(at) {
            at += 1;
            spread_ns = spread_ns.max(done_ns[place]);
            for child in self.around(place).1 {
                let cost = machine.cost(cores[place], cores[child]);
                done_ns[child] = done_ns[place] + cost.total_ns();
                done_ns[place] += u64::from(cost.send_ns);
                parents[child] = place;
                order.push(child);
            }
        }
        let mut answers: Vec<Vec<(u64, u64)>> = vec![Vec::new(); cores.len()];
        for &place in order.iter().rev() {
            let mut come = core::mem::take(&mut answers[place]);
            come.sort_unstable();
            for (come_ns, receive_ns) in come {
                done_ns[place] = done_ns[place].max(come_ns) + receive_ns;
            }
            let parent = parents[place];
            let cost = machine.cost(cores[place], cores[parent]);
            let receive_ns = u64::from(cost.receive_ns);
            let come_ns = done_ns[place] + cost.total_ns() - receive_ns;
            answers[parent].push((come_ns, receive_ns));
        }
        Time {
            round_ns: done_ns[self.root],
            spread_ns,
        }
    }
}

/// The root to one core of each socket, that one to the others of its socket.
fn by_sockets(machine: &Machine, set: &CoreSet, root: usize, arity: usize) -> Shape {
    let mut members: BTreeMap<usize, VecDeque<usize>> = BTreeMap::new();
    let mut own = 0;
    for (place, core) in set.iter().enumerate() {
        let socket = machine.socket(core);
        let members = members.entry(socket).or_default();
        if place == root {
            own = socket;
            members.push_front(place);
        } else {
            members.push_back(place);
        }
    }
    let lower = members.range(..own);
    let groups: Vec<_> = members.range(own..).chain(lower).collect();
    let mut parents = vec![root; set.len()];
    let mut children = vec![Vec::new(); set.len()];
    let leader = |group: usize| groups[group].1[0];
    for (index, (_, members)) in groups.iter().enumerate() {
        // Other sockets first: it takes longer, and much depends on it.
        let first = (arity.saturating_mul(index).saturating_add(1)).min(groups.len());
        let leaders = (first..first.saturating_add(arity).min(groups.len())).map(leader);
        let all: Vec<usize> = leaders.chain(members.iter().skip(1).copied()).collect();
        all.iter().for_each(|child| parents[*child] = members[0]);
        children[members[0]] = all;
    }
    Shape::Listed { parents, children }
}

/// Whoever is free first sends next. `helps`: also to other sockets that were reached and have more
/// to do than a message from afar takes.
fn greedy(machine: &Machine, set: &CoreSet, root: usize, helps: bool) -> Shape {
    let cores: Vec<usize> = set.iter().collect();
    let socket = |place: usize| machine.socket(cores[place]);
    /// The cores of a socket.
    #[derive(Default)]
    struct Group {
        left: VecDeque<usize>,
        reached: u64,
    }
    let mut groups: BTreeMap<usize, Group> = BTreeMap::new();
    for place in 0..cores.len() {
        let group = groups.entry(socket(place)).or_default();
        if place == root {
            group.reached = 1;
        } else {
            group.left.push_back(place);
        }
    }
    // How long a socket takes for itself, if so many have it and so many do not: twice as many have
    // it after each message.
    let inner_ns = |socket: usize, reached: u64, left: usize| {
        let times = (left as u64 + reached).div_ceil(reached);
        let rounds = u64::from(u64::BITS - (times - 1).leading_zeros());
        machine.between(socket, socket).total_ns() * rounds
    };
    let mut parents = vec![root; cores.len()];
    let mut children = vec![Vec::new(); cores.len()];
    let mut free = BinaryHeap::from([Reverse((0u64, root))]);
    let mut left = cores.len() - 1;
    while left > 0
        && let Some(Reverse((now_ns, place))) = free.pop()
    {
        let own = socket(place);
        let new = |(other, group): (&usize, &Group)| {
            let there_ns = machine.between(own, *other).total_ns();
            let inside_ns = inner_ns(*other, 1, group.left.len().saturating_sub(1));
            (group.reached == 0).then_some((there_ns + inside_ns, Reverse(*other)))
        };
        let late = |(other, group): (&usize, &Group)| {
            let inside_ns = inner_ns(*other, group.reached.max(1), group.left.len());
            let there_ns = machine.between(own, *other).total_ns();
            let is_of_use = helps && !group.left.is_empty() && there_ns < inside_ns;
            is_of_use.then_some((inside_ns, Reverse(*other)))
        };
        let has_own = groups.get(&own).is_some_and(|group| !group.left.is_empty());
        let target = if let Some((_, Reverse(new))) = groups.iter().filter_map(new).max() {
            new
        } else if has_own {
            own
        } else if let Some((_, Reverse(late))) = groups.iter().filter_map(late).max() {
            late
        } else {
            continue; // nobody is left whom it could help
        };
        let Some(group) = groups.get_mut(&target) else {
            continue;
        };
        let Some(child) = group.left.pop_front() else {
            continue;
        };
        group.reached += 1;
        left -= 1;
        let cost = machine.between(own, target);
        free.push(Reverse((now_ns + u64::from(cost.send_ns), place)));
        free.push(Reverse((now_ns + cost.total_ns(), child)));
        parents[child] = place;
        children[place].push(child);
    }
    Shape::Listed { parents, children }
}

/// Most places that a planner remembers.
const REMEMBERED: usize = 8;

/// Finds a core's place in trees, and remembers the last ones.
#[derive(Clone)]
pub struct Planner {
    own: usize,
    strategy: Strategy,
    machine: Arc<Machine>,
    /// The last ones asked for: set, root, place.
    last: VecDeque<(CoreSet, usize, Place)>,
}

impl Planner {
    /// For core `own`.
    pub fn new(own: usize, strategy: Strategy, machine: Arc<Machine>) -> Self {
        Self {
            own,
            strategy,
            machine,
            last: VecDeque::new(),
        }
    }

    /// From now on messages that begin here travel so, on a machine with such costs. The others must
    /// be told, and nothing may be under way: all cores must hold the same strategy and costs.
    pub fn set_strategy(&mut self, strategy: Strategy, machine: Arc<Machine>) {
        (self.strategy, self.machine) = (strategy, machine);
        self.last.clear();
    }

    /// The own place in the tree over `set` from `root`; `None` unless both are in it.
    pub fn place(&mut self, set: &CoreSet, root: usize) -> Option<Place> {
        let mut known = self.last.iter();
        if let Some((_, _, place)) = known.find(|(of, from, _)| of == set && *from == root) {
            return Some(place.clone());
        }
        let place = Tree::new(self.strategy, &self.machine, set, root)?.place(self.own)?;
        if matches!(self.strategy, Strategy::Unicast | Strategy::Tree { .. }) {
            return Some(place); // as fast as looking it up
        }
        self.last.truncate(REMEMBERED - 1);
        self.last.push_front((set.clone(), root, place.clone()));
        Some(place)
    }
}

// What it remembers does not tell two planners apart.
impl PartialEq for Planner {
    fn eq(&self, other: &Self) -> bool {
        (self.own, self.strategy) == (other.own, other.strategy)
            && (Arc::ptr_eq(&self.machine, &other.machine) || self.machine == other.machine)
    }
}

impl Eq for Planner {}

impl Hash for Planner {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.own, self.strategy).hash(state);
    }
}

impl fmt::Debug for Planner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} by {:?}", self.own, self.strategy)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::println;

    fn cost(send_ns: u32, latency_ns: u32, receive_ns: u32) -> Cost {
        Cost {
            send_ns,
            latency_ns,
            receive_ns,
        }
    }

    /// Uniform, two sockets, eight sockets in a cube whose distance is the bits that differ; with
    /// cores of a socket neighbours in number, or dealt out in turn.
    fn machines(cores: usize) -> Vec<Machine> {
        let far = |from: usize, to: usize| match (from ^ to).count_ones() {
            0 => cost(50, 60, 40),
            hops => cost(50 + 60 * hops, 60 + 140 * hops, 40 + 30 * hops),
        };
        let blocks = |count: usize| (0..cores).map(|core| core * count / cores).collect();
        vec![
            Machine::uniform(cost(50, 60, 40)),
            Machine::new(blocks(2), far),
            Machine::new(blocks(8), far),
            Machine::new((0..cores).map(|core| core % 8).collect(), far),
        ]
    }

    fn random(seed: &mut u64, below: usize) -> usize {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*seed >> 33) as usize % below
    }

    fn fixed() -> Vec<Strategy> {
        let arities = [1, 2, 3, 4, 8, 16];
        let trees = arities.map(|arity| Strategy::Tree { arity });
        let sockets = arities.map(|arity| Strategy::Sockets { arity });
        [Strategy::Unicast]
            .into_iter()
            .chain(trees)
            .chain(sockets)
            .collect()
    }

    /// Levels of a tree of this arity over so many cores, its root not counted.
    fn levels(cores: usize, arity: usize) -> usize {
        let (mut levels, mut width, mut all) = (0, 1, 1);
        while all < cores {
            levels += 1;
            width *= arity;
            all += width;
        }
        levels
    }

    fn check(strategy: Strategy, machine: &Machine, set: &CoreSet, root: usize) {
        let tree = Tree::new(strategy, machine, set, root).expect("the root is in the set");
        let mut depth = BTreeMap::from([(root, 0)]);
        let mut next = VecDeque::from([root]);
        assert_eq!(tree.place(root).expect("in").parent, None);
        while let Some(core) = next.pop_front() {
            for child in tree.place(core).expect("in").children {
                assert!(set.contains(child));
                assert_eq!(tree.place(child).expect("in").parent, Some(core));
                assert_eq!(depth.insert(child, depth[&core] + 1), None, "two parents");
                next.push_back(child);
            }
        }
        assert_eq!(depth.len(), set.len(), "{strategy:?}: not all are reached");
        let deepest = depth.values().copied().max().unwrap_or(0);
        let sockets: std::collections::BTreeSet<_> =
            set.iter().map(|core| machine.socket(core)).collect();
        let most = match strategy {
            Strategy::Unicast => 1,
            Strategy::Tree { arity } => levels(set.len(), arity),
            Strategy::Sockets { arity } => levels(sockets.len(), arity) + 1,
            Strategy::Computed => 3 * levels(set.len(), 2) + 1,
        };
        assert!(deepest <= most, "{strategy:?}: {deepest} of {most}");
        // Across sockets goes no more than one message a socket.
        if let Strategy::Sockets { .. } = strategy {
            let crosses = |core: &usize| {
                let parent = tree.place(*core).and_then(|place| place.parent);
                parent.is_some_and(|parent| machine.socket(parent) != machine.socket(*core))
            };
            assert_eq!(set.iter().filter(crosses).count(), sockets.len() - 1);
        }
    }

    #[test]
    fn strategies_are_settings() {
        for strategy in fixed().into_iter().chain([Strategy::Computed]) {
            assert_eq!(Strategy::from_settings(strategy.settings()), strategy);
        }
        assert_eq!(Strategy::from_settings(u32::MAX), Strategy::Unicast);
        assert_eq!(Strategy::from_settings(0), Strategy::Unicast);
    }

    #[test]
    fn trees_span_and_agree() {
        let mut seed = 7;
        for cores in (1..=70).chain([255, 1024, 4096]) {
            for machine in machines(cores) {
                for strategy in fixed().into_iter().chain([Strategy::Computed]) {
                    if cores > 255 && strategy == (Strategy::Tree { arity: 1 }) {
                        continue; // a chain
                    }
                    let all = CoreSet::first(cores);
                    check(strategy, &machine, &all, random(&mut seed, cores));
                    let mut some: CoreSet =
                        all.iter().filter(|_| random(&mut seed, 3) > 0).collect();
                    some.insert(random(&mut seed, cores));
                    let root = some.nth(random(&mut seed, some.len())).expect("in");
                    check(strategy, &machine, &some, root);
                    let own = random(&mut seed, cores);
                    let mut planner = Planner::new(own, strategy, Arc::new(machine.clone()));
                    let expected =
                        Tree::new(strategy, &machine, &some, root).and_then(|tree| tree.place(own));
                    assert_eq!(planner.place(&some, root), expected);
                    assert_eq!(planner.place(&some, root), expected, "remembered");
                }
            }
        }
        assert!(
            Tree::new(
                Strategy::Unicast,
                &Machine::default(),
                &CoreSet::first(3),
                3
            )
            .is_none()
        );
    }

    #[test]
    fn the_computed_tree_is_never_slower() {
        let mut seed = 3;
        let (mut trees, mut greedy_wins) = (0, 0);
        for cores in (1..=70).chain([128, 255, 1024, 4096]) {
            for machine in machines(cores) {
                let set = CoreSet::first(cores);
                let root = random(&mut seed, cores);
                let time = |strategy| {
                    let tree = Tree::new(strategy, &machine, &set, root).expect("in");
                    tree.time(&machine)
                };
                let best = fixed().into_iter().map(time).min().expect("some");
                let computed = time(Strategy::Computed);
                assert!(computed <= best, "{cores}: {computed:?} against {best:?}");
                let of = |helps| Tree {
                    set: set.clone(),
                    root,
                    shape: greedy(&machine, &set, root, helps),
                };
                let greedy = of(true).time(&machine).min(of(false).time(&machine));
                trees += 1;
                greedy_wins += usize::from(greedy <= best);
                assert!(
                    cores < 255 || greedy <= best,
                    "{cores}: {greedy:?} against {best:?}"
                );
                if [64, 255, 4096].contains(&cores) {
                    let sockets = machine.count;
                    println!(
                        "{cores} cores, {sockets} sockets: computed {computed:?}, greedy {greedy:?}, best of the others {best:?}"
                    );
                }
            }
        }
        println!("{greedy_wins} of {trees} times the greedy tree is no slower than the others");
    }

    /// By hand: one core after the other is sent to, and answers.
    #[test]
    fn time_is_what_it_says() {
        let machine = Machine::uniform(cost(10, 100, 20));
        let time = |strategy, cores| {
            let tree = Tree::new(strategy, &machine, &CoreSet::first(cores), 0).expect("in");
            tree.time(&machine)
        };
        let chain = Strategy::Tree { arity: 1 };
        assert_eq!(time(chain, 3).spread_ns, 260);
        assert_eq!(time(chain, 3).round_ns, 520);
        // To 1 by 130, to 2 by 140; the answers come at 240 and 250, and take 20 each.
        assert_eq!(time(Strategy::Unicast, 3).spread_ns, 140);
        assert_eq!(time(Strategy::Unicast, 3).round_ns, 280);
        assert_eq!(time(Strategy::Unicast, 1).round_ns, 0);
    }
}
