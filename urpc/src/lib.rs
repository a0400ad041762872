//! URPC: channels of cache-line messages between two cores that share a frame and nothing else.
//!
//! A [`Channel`] is one end of a pair. Each end sends [`Message`]s of 56 bytes that the other
//! receives in order, unaltered and once. Nobody enters a kernel for it: a message is one cache
//! line that one core writes and another reads. The crate neither allocates, blocks nor knows
//! of doorbells; it says when one is due ([`Channel::peer_needs_doorbell`]).
//!
//! # The frame
//!
//! Both ends map the same zeroed memory. The first half is written by side A alone, the second
//! by side B alone, down to the last word, so no line ever has two writers (and where a half is
//! whole pages, the peer may map it read-only). A half with *S* slots:
//!
//! ```text
//!  byte    0                  56       64                                  128
//!          ├───── even line ──┬────────┼───── odd line ─────────────────────┤
//!  slot 0  │ payload, 7 words │control │ acknowledged · closed              │
//!  slot 1  │ payload, 7 words │control │ asleep                             │
//!  slot 2  │ payload, 7 words │control │ unused                             │
//!   ...    │                  │        │                                    │
//!  slot S-1│ payload, 7 words │control │ unused                             │
//!          └──────────────────┴────────┴────────────────────────────────────┘
//!
//!  control  63                     24   23    22  21    16  15      0
//!           ├─ sequence, 40 bits ────┼ present ┼ 0 ┼ length ┼── kind ──┤
//! ```
//!
//! Processors fetch lines in pairs. So messages lie 128 bytes apart, and what changes rarely
//! lies in the odd lines between them: 16 slots in each direction are exactly one page. The
//! sequence advances in steps of 21, and its low bits are the slot: that visits every slot once
//! a lap, yet never two neighbours in a row, which a prefetcher would take for a stream.
//!
//! # The invariant
//!
//! > Between *acknowledged* and *sent* a slot belongs to the receiver, else to the sender.
//!
//! Two pairs of a release store and an acquire load hand slots over:
//!
//! * the sender writes the payload, then the **control word** (release). The receiver polls that
//!   word alone (acquire); when it bears the sequence it expects, the payload is there;
//! * the receiver reads the payload, and every quarter of a ring writes **acknowledged**
//!   (release). The sender looks at it (acquire) only when it runs out of known room.
//!
//! There is no locked instruction, no fence and no shared counter on this path. Each end keeps
//! two private sequences a direction, *next* and *limit*, and looks at nothing else until they
//! meet; then a slow path acknowledges, finds room, or says why there is none. A message costs
//! two line transfers, an acknowledgement two more for a quarter of a ring.
//!
//! One slot is never filled with a message, so that the word that closes a channel always has a
//! place in the order of messages: [`Channel::capacity`] is one less than the slots.
//!
//! # A peer that misbehaves
//!
//! The peer is another protection domain and may write anything at any time. Nothing read from
//! its half is used as an index, a length or a bound before it was checked in a private copy:
//!
//! * a control word is the expected message, the closing word, what the last lap left there, or
//!   zero. Anything else breaks the channel;
//! * an acknowledgement lies between the last one and what was sent. Anything else breaks it.
//!
//! [`SendError::Broken`] and [`ReceiveError::Broken`] are final. A payload that changes while it
//! is read yields the wrong payload, which the peer could have sent as well: all shared words
//! are read by atomic operations, so this is no data race either.
//!
//! # Sleep
//!
//! An end with nothing to do announces what it waits for in its `asleep` word, looks once more,
//! and blocks until its doorbell rings. An end that has published something looks at its peer's
//! `asleep` word and rings. A wake-up is lost if each side misses the other's store:
//!
//! ```text
//!     sleeper                               peer
//!     asleep <- waits for messages          control <- message (or acknowledged <- sequence)
//!     full fence                            full fence
//!     read control: empty? block            read asleep: waiting? ring
//! ```
//!
//! A store and a later load of another word may pass each other even on x86; the two full
//! fences forbid that both do. They stand in [`Channel::prepare_sleep`] and
//! [`Channel::peer_needs_doorbell`], never in `send` and `recv`, so ends that only poll do not
//! pay for them. The word is a number that changes with each sleep, so one sleep is answered by
//! one doorbell although the peer cannot write the word.
//!
//! Who sleeps on many channels at once announces it in one word for all of them: [`Sleeper`].
//!
//! # One line for call and reply
//!
//! Ends that call and reply by turns, and only poll, can do with a single line: [`CallLine`].
//!
//! # Traces
//!
//! An end that is told where its frame lies in physical memory ([`Channel::traced`]) records each
//! message that it sends or receives while that is on: who sent and who received it is then known by
//! the physical address of the ring and the number of the message in it, which both ends know
//! without a word between them.
//!
//! # Where to read on
//!
//! `ring` is the memory: layout, words, all unsafe code; `layout` says what a byte of it is for. `sequence` is the control word.
//! `channel` is the data path and closing; `sleep` the handshake above; `call` the call line, with
//! an invariant of its own. The channel is generic over [`Half`], the call line over [`Line`]: the
//! seams at which loom puts its own memory under the code that runs.
//!
//! # Example
//!
//! ```
//! use urpc::{Channel, Message, ReceiveError, Side, frame_bytes};
//!
//! # #[repr(align(4096))] struct Frame([u8; frame_bytes(16)]);
//! let mut frame = Box::new(Frame([0; frame_bytes(16)]));
//! let base = frame.0.as_mut_ptr();
//! // SAFETY: the frame is zeroed, aligned, large enough and outlives both ends.
//! let (mut client, mut server) = unsafe {
//!     (Channel::attach(base, 16, Side::A), Channel::attach(base, 16, Side::B))
//! };
//! client.send(&Message::from_bytes(7, b"hello").unwrap()).unwrap();
//! let message = server.recv().unwrap();
//! assert_eq!((message.kind(), message.as_bytes()), (7, &b"hello"[..]));
//! assert_eq!(server.recv(), Err(ReceiveError::Empty));
//! ```

#![no_std]
#![deny(unsafe_code)]

mod call;
mod channel;
mod layout;
mod message;
mod ring;
mod sequence;
mod sleep;
mod traced;

pub use call::CallLine;
pub use channel::{Channel, ReceiveError, SendError, Side};
pub use layout::{Field, field_at};
pub use message::{Message, PAYLOAD_BYTES, PAYLOAD_WORDS, TooLong};
pub use ring::{
    FRAME_ALIGNMENT, Half, Line, LinePair, MAX_SLOTS, MIN_SLOTS, Mapped, MappedLine, SLOT_BYTES,
    Slot, Word, frame_bytes, full_fence,
};
pub use sequence::Sequence;
pub use sleep::{Sleeper, Wait};
