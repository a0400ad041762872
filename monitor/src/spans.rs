//! address spaces that span cores, for domains.

use crate::Monitor;
use crate::requests::Requester;
use protocols::spaces;
use rt::interface::Error;

/// What this monitor remembers of them.
#[derive(Default)]
pub struct Spans;

impl Monitor {
    /// Serves a request of a domain of this core.
    pub fn serve_spaces(
        &mut self,
        _requester: Requester,
        _domain: u64,
        _kind: u16,
        _arguments: [u64; 6],
    ) -> Result<Option<[u64; 5]>, Error> {
        Err(Error::NoSuchRequest)
    }

    /// Does what the protocol decided.
    pub fn on_spaces(&mut self, _action: spaces::Action) {}

    /// A domain of this core has ended.
    pub fn spaces_end(&mut self, _domain: u64) {}
}
