//! The balanced tree through all slots: find, insert beside a neighbour, remove.
//!
//! A weak AVL tree (Haeupler, Sen, Tarjan: Rank-Balanced Trees, 2015): the rank of a node
//! exceeds that of each child by 1 or 2, a missing child has rank 0, a leaf rank 1. Its height
//! is at most 2 log2 n, an insertion or removal takes at most two rotations and amortised
//! O(1) changes of rank.
//!
//! The tree keeps no order by itself: who inserts says behind whom. Each node also knows
//! the greatest end of a range in its subtree.

use crate::capability::Capability;
use crate::slot::{Link, SLOT_BYTES, Slot, SlotId, Slots};

/// A place in the order: after every capability that is smaller or equal.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub base: u64,
    pub bytes: u64,
    pub depth: u8,
    pub badge: u64,
}

impl Key {
    /// Where this capability stands.
    pub fn of(capability: &Capability) -> Self {
        Self {
            base: capability.base,
            bytes: capability.bytes,
            depth: capability.depth,
            badge: capability.badge,
        }
    }

    /// Whether the capability stands at or before this place.
    #[inline]
    fn is_at_or_after(&self, capability: &Capability) -> bool {
        if capability.base != self.base {
            return capability.base < self.base;
        }
        if capability.bytes != self.bytes {
            return capability.bytes > self.bytes;
        }
        (capability.depth, capability.badge) <= (self.depth, self.badge)
    }
}

/// The tree.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Tree<S> {
    pub slots: S,
    origin: u64,
    root: Link,
    count: u64,
}

impl<S: Slots> Tree<S> {
    pub const fn new(slots: S, origin: u64) -> Self {
        Self {
            slots,
            origin,
            root: Link::NONE,
            count: 0,
        }
    }

    /// How many nodes there are.
    pub const fn count(&self) -> u64 {
        self.count
    }

    #[cfg(test)]
    pub const fn root(&self) -> Link {
        self.root
    }

    #[inline]
    pub fn id(&self, link: Link) -> SlotId {
        SlotId(self.origin + u64::from(link.0) * SLOT_BYTES)
    }

    /// The link to a slot; `None` where it cannot be a slot of this database.
    #[inline]
    pub fn link(&self, id: SlotId) -> Option<Link> {
        let distance = id.0.checked_sub(self.origin)?;
        if !distance.is_multiple_of(SLOT_BYTES) {
            return None;
        }
        let link = Link(u32::try_from(distance / SLOT_BYTES).ok()?);
        (!link.is_none()).then_some(link)
    }

    #[inline]
    pub fn node(&self, link: Link) -> &Slot {
        self.slots.slot(self.id(link))
    }

    #[inline]
    pub fn node_mut(&mut self, link: Link) -> &mut Slot {
        self.slots.slot_mut(self.id(link))
    }

    #[inline]
    pub fn capability(&self, link: Link) -> &Capability {
        &self.node(link).capability
    }

    #[inline]
    fn rank(&self, link: Link) -> u8 {
        if link.is_none() {
            0
        } else {
            self.node(link).rank
        }
    }

    #[inline]
    fn reach(&self, link: Link) -> u64 {
        if link.is_none() {
            0
        } else {
            self.node(link).reach
        }
    }

    /// The first (`side` false) or last node of a subtree.
    #[inline]
    fn outermost(&self, mut link: Link, side: bool) -> Link {
        loop {
            let child = self.node(link).children[usize::from(side)];
            if child.is_none() {
                return link;
            }
            link = child;
        }
    }

    /// The first node of all.
    pub fn first(&self) -> Link {
        if self.root.is_none() {
            return Link::NONE;
        }
        self.outermost(self.root, false)
    }

    /// The neighbour before (`side` false) or after a node. Once for each side.
    #[inline(always)]
    fn neighbour(&self, link: Link, side: bool) -> Link {
        let node = self.node(link);
        let child = node.children[usize::from(side)];
        if !child.is_none() {
            return self.outermost(child, !side);
        }
        let (mut at, mut parent) = (link, node.parent);
        while !parent.is_none() {
            let node = self.node(parent);
            if node.children[usize::from(!side)] == at {
                break;
            }
            (at, parent) = (parent, node.parent);
        }
        parent
    }

    /// The node before.
    pub fn previous(&self, link: Link) -> Link {
        self.neighbour(link, false)
    }

    /// The node after; after none comes the first.
    pub fn next(&self, link: Link) -> Link {
        if link.is_none() {
            return self.first();
        }
        self.neighbour(link, true)
    }

    /// The last node for which `before` holds, which must hold for a prefix of the order.
    #[inline]
    fn last_where(&self, before: impl Fn(&Capability) -> bool) -> Link {
        let (mut at, mut found) = (self.root, Link::NONE);
        while !at.is_none() {
            let node = self.node(at);
            let is_before = before(&node.capability);
            if is_before {
                found = at;
            }
            at = node.children[usize::from(is_before)];
        }
        found
    }

    /// The last node at or before a place.
    pub fn last_at(&self, key: &Key) -> Link {
        self.last_where(|capability| key.is_at_or_after(capability))
    }

    /// The last node whose range starts at or before `base`.
    pub fn last_starting_at(&self, base: u64) -> Link {
        self.last_where(|capability| capability.base <= base)
    }

    /// The first node of the same object.
    pub fn first_of(&self, object: &Capability) -> Link {
        let before = self.last_where(|capability| {
            if capability.base != object.base {
                return capability.base < object.base;
            }
            if capability.bytes != object.bytes {
                return capability.bytes > object.bytes;
            }
            capability.depth < object.depth
        });
        self.next(before)
    }

    /// The last node at or before `at` whose range ends after `number`.
    pub fn last_reaching(&self, mut at: Link, number: u64) -> Link {
        while !at.is_none() {
            let node = self.node(at);
            if node.capability.end() > number {
                return at;
            }
            if self.reach(node.children[0]) > number {
                // It is in this subtree; `reach` leads straight to the last one.
                at = node.children[0];
                loop {
                    let node = self.node(at);
                    if self.reach(node.children[1]) > number {
                        at = node.children[1];
                    } else if node.capability.end() > number {
                        return at;
                    } else {
                        at = node.children[0];
                    }
                }
            }
            // On to the next node before all of this subtree.
            loop {
                let parent = self.node(at).parent;
                let was_higher = !parent.is_none() && self.node(parent).children[1] == at;
                at = parent;
                if was_higher || parent.is_none() {
                    break;
                }
            }
        }
        Link::NONE
    }

    /// Puts a capability into an empty slot, right behind a node; behind none: first of all.
    pub fn insert_after(&mut self, position: Link, new: Link, capability: Capability) {
        let (parent, side) = if position.is_none() {
            (self.first(), false)
        } else {
            let higher = self.node(position).children[1];
            if higher.is_none() {
                (position, true)
            } else {
                (self.outermost(higher, false), false)
            }
        };
        let reach = capability.end();
        *self.node_mut(new) = Slot {
            capability,
            reach,
            parent,
            rank: 1,
            ..Slot::EMPTY
        };
        self.count += 1;
        if parent.is_none() {
            self.root = new;
            return;
        }
        self.node_mut(parent).children[usize::from(side)] = new;
        let mut at = parent;
        while !at.is_none() {
            let node = self.node_mut(at);
            if node.reach >= reach {
                break;
            }
            node.reach = reach;
            at = node.parent;
        }
        self.rebalance_after_insertion(new);
    }

    fn rebalance_after_insertion(&mut self, mut at: Link) {
        loop {
            let Slot { parent, rank, .. } = *self.node(at);
            if parent.is_none() || self.node(parent).rank != rank {
                return;
            }
            let siblings = self.node(parent).children;
            let side = siblings[1] == at;
            if self.rank(siblings[usize::from(!side)]) + 1 == rank {
                self.node_mut(parent).rank += 1;
                at = parent;
                continue;
            }
            let inner = self.node(at).children[usize::from(!side)];
            if self.rank(inner) + 2 == rank {
                self.rotate(at);
            } else {
                self.rotate(inner);
                self.rotate(inner);
                self.node_mut(inner).rank += 1;
                self.node_mut(at).rank -= 1;
            }
            self.node_mut(parent).rank -= 1;
            return;
        }
    }

    /// Takes a node out and empties its slot.
    pub fn remove(&mut self, old: Link) {
        let Slot {
            children: [lower, higher],
            parent,
            rank,
            reach,
            ref capability,
            ..
        } = *self.node(old);
        // Where more is reached than what goes, or moves, it stays as it is.
        let mut ended = capability.end();
        // `child` moves up into a gap below `from`; what is wrong now is wrong there.
        let (from, child, replacement);
        if lower.is_none() || higher.is_none() {
            child = if lower.is_none() { higher } else { lower };
            replacement = child;
            from = parent;
        } else {
            // The next node takes the place of the one that goes.
            replacement = self.outermost(higher, false);
            let next = self.node(replacement);
            child = next.children[1];
            ended = ended.max(next.capability.end());
            if replacement == higher {
                from = replacement;
            } else {
                from = self.node(replacement).parent;
                self.node_mut(from).children[0] = child;
                self.set_parent(child, from);
                self.node_mut(replacement).children[1] = higher;
                self.node_mut(higher).parent = replacement;
            }
            let node = self.node_mut(replacement);
            node.children[0] = lower;
            node.rank = rank;
            node.reach = reach; // what those above were told; put right below
            self.node_mut(lower).parent = replacement;
        }
        self.replace_child(parent, old, replacement);
        self.set_parent(replacement, parent);
        *self.node_mut(old) = Slot::EMPTY;
        self.count -= 1;

        let mut at = from;
        let mut passed = replacement == child;
        while !at.is_none() {
            if self.node(at).reach > ended {
                break;
            }
            passed |= at == replacement;
            let reach = self.subtree_reach(at);
            let node = self.node_mut(at);
            if node.reach == reach && passed {
                break;
            }
            node.reach = reach;
            at = node.parent;
        }
        self.rebalance_after_removal(from, child);
    }

    fn rebalance_after_removal(&mut self, mut parent: Link, mut at: Link) {
        if parent.is_none() {
            return;
        }
        let node = self.node_mut(parent);
        if node.children == [Link::NONE; 2] && node.rank == 2 {
            node.rank = 1;
            at = parent;
            parent = node.parent;
        }
        while !parent.is_none() {
            let Slot { children, rank, .. } = *self.node(parent);
            if self.rank(at) + 3 != rank {
                return;
            }
            let side = children[1] == at;
            let sibling = children[usize::from(!side)];
            let (nephews, sibling_rank) = (self.node(sibling).children, self.node(sibling).rank);
            if sibling_rank + 2 != rank {
                let inner = nephews[usize::from(side)];
                let outer = nephews[usize::from(!side)];
                if self.rank(outer) + 1 == sibling_rank {
                    self.rotate(sibling);
                    self.node_mut(sibling).rank += 1;
                    let node = self.node_mut(parent);
                    node.rank -= if node.children == [Link::NONE; 2] {
                        2
                    } else {
                        1
                    };
                    return;
                }
                if self.rank(inner) + 1 == sibling_rank {
                    self.rotate(inner);
                    self.rotate(inner);
                    self.node_mut(inner).rank += 2;
                    self.node_mut(sibling).rank -= 1;
                    self.node_mut(parent).rank -= 2;
                    return;
                }
                self.node_mut(sibling).rank -= 1;
            }
            let node = self.node_mut(parent);
            node.rank -= 1;
            at = parent;
            parent = node.parent;
        }
    }

    /// Moves a node above its parent, without a change of order or ranks.
    fn rotate(&mut self, up: Link) {
        let parent = self.node(up).parent;
        let Slot {
            parent: grandparent,
            children,
            reach,
            ..
        } = *self.node(parent);
        let side = children[1] == up;
        let inner = self.node(up).children[usize::from(!side)];
        self.node_mut(parent).children[usize::from(side)] = inner;
        self.set_parent(inner, parent);
        self.node_mut(parent).parent = up;
        let node = self.node_mut(up);
        node.children[usize::from(!side)] = parent;
        node.parent = grandparent;
        node.reach = reach;
        self.replace_child(grandparent, parent, up);
        let reach = self.subtree_reach(parent);
        self.node_mut(parent).reach = reach;
    }

    /// Moves what is in a slot to an empty one, where it stays in the order.
    pub fn relocate(&mut self, from: Link, to: Link) {
        let node = *self.node(from);
        *self.node_mut(to) = node;
        *self.node_mut(from) = Slot::EMPTY;
        self.replace_child(node.parent, from, to);
        self.set_parent(node.children[0], to);
        self.set_parent(node.children[1], to);
    }

    fn subtree_reach(&self, link: Link) -> u64 {
        let node = self.node(link);
        let [lower, higher] = node.children;
        let below = self.reach(lower).max(self.reach(higher));
        below.max(node.capability.end())
    }

    fn set_parent(&mut self, child: Link, parent: Link) {
        if !child.is_none() {
            self.node_mut(child).parent = parent;
        }
    }

    fn replace_child(&mut self, parent: Link, old: Link, new: Link) {
        if parent.is_none() {
            self.root = new;
        } else {
            let node = self.node_mut(parent);
            let side = node.children[1] == old;
            node.children[usize::from(side)] = new;
        }
    }
}
