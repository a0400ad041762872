//! Kinds of the messages between monitors, so that no two protocols use the same.

use core::ops::Range;

/// How the first view comes about.
pub const FORMATION: Range<u16> = 0x40..0x48;
/// The end of domains, and of it all.
pub const MESH: Range<u16> = 0x48..0x50;
/// Text for the console.
pub const CONSOLE: Range<u16> = 0x50..0x60;
/// What is recorded in traces, and by which clocks.
pub const TRACES: Range<u16> = 0x62..0x68;
/// What messages between sockets cost.
pub const COSTS: Range<u16> = 0x68..0x70;
/// Views after the first, and the tables of costs that they name.
pub const MEMBERSHIP: Range<u16> = 0x70..0x80;
/// Capabilities on more than one core.
pub const REGIONS: Range<u16> = 0x80..0xa0;
/// Names.
pub const NAMES: Range<u16> = 0xa0..0xc0;
/// Address spaces, and their rounds.
pub const SPACES: Range<u16> = 0xc0..0xe0;

/// Domains that span cores: their members, and memory that is free.
pub const SPANS: Range<u16> = 0xe0..0xf0;
/// Memory that cores lend each other.
pub const LENDING: Range<u16> = 0xf0..0x100;

/// The `n`th kind of a range; does not compile where there are not so many.
pub const fn kind(range: &Range<u16>, n: u16) -> u16 {
    assert!(range.start + n < range.end);
    range.start + n
}

const _: () = {
    let all = [
        FORMATION, MESH, CONSOLE, TRACES, COSTS, MEMBERSHIP, REGIONS, NAMES, SPACES, SPANS, LENDING,
    ];
    let mut at = 1;
    while at < all.len() {
        assert!(all[at - 1].end <= all[at].start);
        at += 1;
    }
};
