//! Why an operation did nothing.

/// Why an operation did nothing. Whatever it is, the database is as it was; only a revoke
/// that meets [`Error::AskMonitor`] on its way keeps the steps that it made.
///
/// | operation      | may answer                                                              |
/// |----------------|-------------------------------------------------------------------------|
/// | `identify`, queries, `attach`, `set_shared` | `BadSlot EmptySlot`                        |
/// | `insert`       | `BadSlot OccupiedSlot WrongKind WrongSize OutOfRange Misaligned Unreachable Overlap Conflict` |
/// | `copy`, `move_to` | `BadSlot EmptySlot OccupiedSlot`                                     |
/// | `mint`         | the same, `MoreRights AlreadyBadged`                                    |
/// | `retype`       | `BadSlot EmptySlot OccupiedSlot Badged WrongKind WrongSize WrongCount OutOfRange Misaligned Unreachable TooDeep AskMonitor Overlap` |
/// | `delete`       | `BadSlot EmptySlot AskMonitor`                                          |
/// | `revoke_step`  | `BadSlot EmptySlot NotRevocable AskMonitor`                             |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Error {
    /// That cannot be the address of a slot.
    BadSlot,
    /// The slot that should hold a capability holds none.
    EmptySlot,
    /// The slot that should be empty is not.
    OccupiedSlot,
    /// A minted capability would have rights that its source has not.
    MoreRights,
    /// The source has a badge already, and a badge is for ever.
    AlreadyBadged,
    /// Nothing can be made from a capability with a badge.
    Badged,
    /// That kind of object cannot be made from this one, or cannot be inserted.
    WrongKind,
    /// Objects of that kind do not come in that size.
    WrongSize,
    /// No objects at all, or more than one call makes.
    WrongCount,
    /// The objects would not fit the source's range, or their kind's.
    OutOfRange,
    /// The first object would not start at a multiple of what its kind asks for.
    Misaligned,
    /// A kernel object would lie in memory that the CPU driver does not map.
    Unreachable,
    /// An object made from all of another that was made from all of another, and so on,
    /// 255 times.
    TooDeep,
    /// Something else was made from a part of that range.
    Overlap,
    /// What is inserted claims a range that the database knows as something else.
    Conflict,
    /// The capability was minted without the right to revoke.
    NotRevocable,
    /// Other cores have to agree first.
    AskMonitor,
}
