//! The operations, and the most messages that each may take.

use rt::interface::{Error, counter};
use rt::names;

/// What the operations work with.
pub struct Stage {
    /// Cores that are up.
    cores: u64,
}

/// One of them.
pub struct Operation {
    pub name: &'static str,
    /// The messages that are its.
    pub class: u64,
    /// The most of them, each time.
    pub most: fn(&Stage) -> u64,
    /// Does it; numbers are counted on.
    pub go: fn(&mut Stage, u64) -> Result<(), Error>,
}

impl Stage {
    pub fn new() -> Self {
        Self {
            cores: rt::startup().cores().count() as u64,
        }
    }
}

/// All of them, in this order.
pub const ALL: &[Operation] = &[
    Operation {
        name: "bind a name anew",
        class: counter::OF_NAMES,
        most: |stage| 3 * (stage.cores - 1),
        go: |_, number| names::bind("counts", number),
    },
    Operation {
        name: "look a name up",
        class: counter::OF_NAMES,
        most: |_| 0,
        go: |_, _| names::lookup("counts").map(|_| ()),
    },
    Operation {
        name: "unbind and bind a name",
        class: counter::OF_NAMES,
        most: |stage| 2 * 3 * (stage.cores - 1),
        go: |_, number| names::unbind("counts").and_then(|()| names::bind("counts", number)),
    },
];
