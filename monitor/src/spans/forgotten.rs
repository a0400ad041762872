//! What spans have of the memory of a core that was lost and is to start anew.
//!
//! Whoever has some of it mapped is killed; then all that the core had mapped is unmapped in every
//! space that has a replica here, as any member could do it. The home takes it out of its table by
//! that, and tells nobody that it is free. So a new life of the core finds its part of a space empty.

use super::{Purpose, pages_of};
use crate::Monitor;
use alloc::vec::Vec;
use protocols::spaces::{self, Pages, Rights, SpaceId};

impl Monitor {
    /// Kills the members of this core that have memory of a core mapped which is to start anew. The
    /// spaces in which that memory is to be unmapped then.
    pub fn end_span_users_of(&mut self, core: usize) -> Vec<SpaceId> {
        // What is free of it is not told to who comes to life.
        self.spans.freed.retain(|(maker, _), _| *maker != core);
        let spaces: Vec<SpaceId> = self.agent.spaces().replicas().collect();
        for space in &spaces {
            self.end_user_of_lost(*space, core);
        }
        spaces
    }

    /// Kills this core's member of a space if it has memory of that core mapped.
    fn end_user_of_lost(&mut self, space: SpaceId, core: usize) {
        let part = self.spans.parts.get(&space);
        if let Some(member) = part.and_then(|part| part.member)
            && self.agent.spaces().holds(space, pages_of(core))
        {
            self.end_user_of(member, core);
        }
    }

    /// Before pages are unmapped here: if that is all that a core had mapped which is not up, others
    /// forget it, or a member gives it up for the whole span. Who has it mapped is killed.
    pub(super) fn end_user_of_forgotten(&mut self, space: SpaceId, pages: Pages, rights: Rights) {
        let core = self.maker_of(pages);
        if rights == Rights::NONE && pages == pages_of(core) && !self.view().cores.contains(core) {
            self.end_user_of_lost(space, core);
        }
    }

    /// Unmaps all that a core had mapped in a space.
    pub fn forget_in_space(&mut self, core: usize, space: SpaceId) {
        self.operate(space, Purpose::Forget(core), |one, token| {
            one.unmap(token, space, pages_of(core))
        });
    }

    /// That has ended; who is not in the span any more has nothing of it.
    pub(super) fn space_forgotten(
        &mut self,
        core: usize,
        space: SpaceId,
        result: Result<(), spaces::Error>,
    ) {
        let is_done = matches!(
            result,
            Ok(()) | Err(spaces::Error::NoSuchSpace | spaces::Error::NotMember)
        );
        self.restarts.space_forgotten(core, space, is_done);
    }
}
