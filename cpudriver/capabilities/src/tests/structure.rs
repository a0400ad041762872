//! Checks of a whole database: balance, links, order, and the crate's invariant.

use super::Memory;
use crate::capability::{Capability, Marks};
use crate::database::Database;
use crate::slot::{Link, SlotId};

/// Checks everything, and returns all capabilities in the order.
pub fn check(database: &Database<Memory>) -> Vec<(SlotId, Capability)> {
    let tree = &database.tree;
    let mut all = Vec::new();
    let root = tree.root();
    if !root.is_none() {
        assert!(tree.node(root).parent.is_none());
        subtree(database, root, &mut all);
    }
    assert_eq!(all.len() as u64, database.count());

    let mut around: Vec<Capability> = Vec::new();
    let mut previous: Option<Capability> = None;
    for (_, capability) in &all {
        let key = |c: &Capability| (c.base, !c.bytes, c.depth, c.badge);
        let is_first = match previous {
            None => true,
            Some(previous) => {
                assert!(key(&previous) <= key(capability), "order");
                if previous.same_object(capability) {
                    assert_eq!(previous.kind, capability.kind);
                    assert_eq!(
                        previous.marks & Marks::UNREACHABLE,
                        capability.marks & Marks::UNREACHABLE
                    );
                    assert!(!previous.marks.contains(Marks::DOOMED));
                    assert!(!capability.marks.contains(Marks::DOOMED));
                }
                !previous.same_object(capability)
            }
        };
        assert!(is_first || !capability.marks.contains(Marks::SHARED));
        previous = Some(*capability);
        if !is_first {
            continue;
        }
        while around
            .last()
            .is_some_and(|outer| outer.end() <= capability.base)
        {
            around.pop();
        }
        if let Some(outer) = around.last() {
            assert!(
                outer.end() >= capability.end(),
                "overlap: {outer:?} {capability:?}"
            );
            assert!(
                outer.kind.may_become(capability.kind),
                "{outer:?} {capability:?}"
            );
            assert!(outer.is_ancestor_of(capability));
        }
        around.push(*capability);
    }
    all
}

/// Returns rank and reach.
fn subtree(
    database: &Database<Memory>,
    link: Link,
    all: &mut Vec<(SlotId, Capability)>,
) -> (u8, u64) {
    if link.is_none() {
        return (0, 0);
    }
    let node = *database.tree.node(link);
    assert!(!node.capability.is_null());
    for child in node.children {
        assert!(
            child.is_none() || database.tree.node(child).parent == link,
            "parent link"
        );
    }
    let lower = subtree(database, node.children[0], all);
    all.push((database.tree.id(link), node.capability));
    let higher = subtree(database, node.children[1], all);
    for (rank, _) in [lower, higher] {
        assert!((1..=2).contains(&(node.rank - rank)), "balance");
    }
    if lower.0 == 0 && higher.0 == 0 {
        assert_eq!(node.rank, 1, "leaf");
    }
    let reach = lower.1.max(higher.1).max(node.capability.end());
    assert_eq!(node.reach, reach, "reach");
    (node.rank, reach)
}
