//! A core that is to start anew is forgotten: nothing here has to do with its memory any more.
//!
//! That takes other cores' help. What is mapped of it in spans is unmapped in each space; regions in
//! it are revoked by whoever is their home. Only when the protocols know of none, what domains have
//! left of it is taken from them, and who asked is told.
//!
//! From the first request until the core is in a view again, no capability to its memory is sent from
//! here or accepted here, and regions in it of which this core becomes the home are revoked: others
//! may not have begun yet, and wait for that.

use super::Monitor;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;
use protocols::core_set::CoreSet;
use protocols::regions::Region;
use protocols::spaces::SpaceId;
use rt::authority;
use rt::clock;

/// How long to wait before what a protocol was too busy for is asked for again, in nanoseconds.
const RETRY_NS: u64 = 1_000_000;

/// A core that is to be forgotten, or was, and is in no view since.
pub(super) struct Forget {
    core: usize,
    /// Who is to be told, and the round that it asked in.
    asker: Option<(usize, u32)>,
    /// The spaces in which its memory is to be unmapped, and whether that was asked for.
    spaces: BTreeMap<SpaceId, bool>,
}

/// What is to be forgotten.
#[derive(Default)]
pub(super) struct Forgets {
    all: Vec<Forget>,
    /// When to ask again.
    retry_ns: Option<u64>,
}

impl Forgets {
    /// When something is to be asked for again, in nanoseconds.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        self.retry_ns
    }

    /// Another view holds.
    pub(super) fn installed(&mut self, cores: &CoreSet) {
        self.all.retain(|forget| !cores.contains(forget.core));
        for forget in &mut self.all {
            forget.asker.take_if(|(asker, _)| !cores.contains(*asker));
        }
    }

    /// A core's memory was unmapped in a space, or could not be by now.
    pub(super) fn space_done(&mut self, core: usize, space: SpaceId, is_done: bool) {
        let Some(forget) = self.all.iter_mut().find(|forget| forget.core == core) else {
            return;
        };
        if is_done {
            forget.spaces.remove(&space);
        } else {
            forget.spaces.insert(space, false);
            self.retry_ns = Some(clock::now_ns() + RETRY_NS);
        }
    }
}

/// Where the memory of a core is, private and shared.
pub fn memory_of(core: usize) -> Range<u64> {
    let region = authority::machine().cores().get(core);
    region.map_or(0..0, |region| {
        region.region..region.region + region.private_bytes + region.shared_bytes
    })
}

impl Monitor {
    /// Begins to forget a core that was stopped, for somebody who asked in a round.
    pub(super) fn forget_core(&mut self, core: usize, asker: usize, round: u32) {
        self.end_users_of(core);
        self.forget_loans_of(core);
        self.mesh.forget(&mut self.store, core);
        self.console.forget(core);
        let spaces = self.end_span_users_of(core);
        let all = &mut self.restarts.forgets.all;
        let at = all.iter().position(|forget| forget.core == core);
        let at = at.unwrap_or_else(|| {
            all.push(Forget {
                core,
                asker: None,
                spaces: BTreeMap::new(),
            });
            all.len() - 1
        });
        let forget = &mut all[at];
        forget.asker = Some((asker, round));
        for space in spaces {
            forget.spaces.entry(space).or_insert(false);
        }
    }

    /// Goes on with what is to be forgotten; whether anything came of it.
    pub fn serve_forgets(&mut self) -> bool {
        if self.restarts.forgets.all.is_empty() {
            return false;
        }
        let retry_ns = self.restarts.forgets.retry_ns;
        let waits = retry_ns.is_some_and(|at| clock::now_ns() < at);
        if !waits {
            self.restarts.forgets.retry_ns = None;
        }
        let all = self.restarts.forgets.all.iter();
        let cores: Vec<usize> = all.map(|forget| forget.core).collect();
        let mut busy = false;
        for core in cores {
            self.reclaim_in(memory_of(core));
            self.reclaim_in(authority::vectors_of(core));
            busy |= self.go_on_forgetting(core, waits);
        }
        busy
    }

    fn go_on_forgetting(&mut self, core: usize, waits: bool) -> bool {
        let forgets = &mut self.restarts.forgets.all;
        let forget = forgets.iter_mut().find(|forget| forget.core == core);
        let Some(forget) = forget.filter(|forget| forget.asker.is_some()) else {
            return false;
        };
        let mut due = Vec::new();
        for (space, is_asked) in forget.spaces.iter_mut().filter(|_| !waits) {
            if !core::mem::replace(is_asked, true) {
                due.push(*space);
            }
        }
        let is_busy = !due.is_empty();
        for space in due {
            self.forget_in_space(core, space);
        }
        let forgets = &mut self.restarts.forgets.all;
        let Some(forget) = forgets.iter_mut().find(|forget| forget.core == core) else {
            return is_busy;
        };
        let mut ranges = [memory_of(core), authority::vectors_of(core)].into_iter();
        let regions = self.agent.regions();
        if !forget.spaces.is_empty() || ranges.any(|range| regions.may_have(&range)) {
            return is_busy;
        }
        let Some((asker, round)) = forget.asker.take() else {
            return is_busy;
        };
        if let Err(error) = self.store.take_region_back(core) {
            self.log(&format!(
                "memory of core {core} cannot be taken back: {error:?}"
            ));
        }
        self.core_forgotten(core, asker, round);
        true
    }

    /// Whether a region is memory of a core that is to be forgotten, or wakes its domains.
    pub fn is_forgotten(&self, region: &Region) -> bool {
        let mut cores = self.restarts.forgets.all.iter().map(|forget| forget.core);
        cores.any(|core| {
            let mut ranges = [memory_of(core), authority::vectors_of(core)].into_iter();
            ranges.any(|one| region.meets(&one))
        })
    }
}
