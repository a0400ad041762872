//! The events: each declared once, with its arguments, and checked where it is declared.

/// What a record of an event says. Arguments appear in its text as `{flow}`, `{value}` and `{detail}`, in
/// hexadecimal as `{value:x}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Number: its [`group`] in bits 8 to 12, and its own.
    pub number: u16,
    /// For people, and for filters.
    pub name: &'static str,
    /// Its arguments, in words.
    pub text: &'static str,
}

/// Group of an event: a bit of [`crate::Control::enabled`].
pub const fn group(event: u16) -> u32 {
    (event >> 8) as u32 & 31
}

/// All groups.
pub const ALL_GROUPS: u32 = {
    let mut all = 0;
    let mut at = 0;
    while at < GROUPS.len() {
        all |= 1 << GROUPS[at].0;
        at += 1;
    }
    all
};

/// Whether a text names no other arguments than there are, and closes what it opens.
pub const fn is_sound(text: &str) -> bool {
    const KNOWN: [&str; 6] = [
        "flow}",
        "flow:x}",
        "value}",
        "value:x}",
        "detail}",
        "detail:x}",
    ];
    let text = text.as_bytes();
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'}' {
            return false;
        }
        if text[at] == b'{' {
            let mut which = 0;
            let mut found = 0;
            while which < KNOWN.len() {
                let name = KNOWN[which].as_bytes();
                let mut same = 0;
                while same < name.len()
                    && at + 1 + same < text.len()
                    && text[at + 1 + same] == name[same]
                {
                    same += 1;
                }
                if same == name.len() {
                    found = name.len();
                }
                which += 1;
            }
            if found == 0 {
                return false;
            }
            at += found;
        }
        at += 1;
    }
    true
}

/// Declares groups and their events.
macro_rules! events {
    ($($(#[$doc:meta])* $group:ident = $number:literal, $short:literal: {$(
        $(#[$event_doc:meta])* $event:ident = $own:literal, $name:literal, $text:literal;
    )*})*) => {
        $(
            $(#[$doc])*
            pub const $group: u32 = $number;
            $(
                $(#[$event_doc])*
                pub const $event: u16 = ($number << 8) | $own;
                const _: () = assert!(is_sound($text), "a text with an argument that there is not");
            )*
        )*
        /// All groups, by number, with the names that filters use.
        pub const GROUPS: &[(u32, &str)] = &[$(($group, $short)),*];
        /// All events.
        pub const EVENTS: &[Event] = &[$($(
            Event { number: $event, name: $name, text: $text },
        )*)*];
    };
}

events! {
    /// Who runs.
    DISPATCH = 0, "dispatch": {
        /// A dispatcher was made: its first 16 bytes of name are in flow and value.
        MADE = 1, "made", "dispatcher {detail} is {flow:x} {value:x}";
        /// A dispatcher gets the core.
        RUNS = 2, "runs", "dispatcher {detail}";
        /// The core goes idle.
        IDLE = 3, "idle", "";
        /// One waits: for a doorbell (1), a call (2), to be served (3), for an answer (4), a page (7); or it was
        /// stopped (8).
        BLOCKS = 4, "blocks", "dispatcher {detail} in state {value}";
        /// One that waited can run; by a call (0) or an interrupt (1).
        WAKES = 5, "wakes", "dispatcher {detail} by {value}";
        /// One ended.
        ENDED = 6, "ended", "dispatcher {detail}";
        /// The core was idle, and the dispatcher that had it before has it again: there is no [`RUNS`].
        RESUMES = 7, "resumes", "dispatcher {detail}";
    }
    /// System calls, LRPC aside.
    CALLS = 1, "calls": {
        /// A call begins: its number, its first argument.
        CALL = 1, "call", "{detail} of {value:x}";
        /// It is done: its number, its error.
        CALL_DONE = 2, "call done", "{detail}: {value}";
    }
    /// Calls from one dispatcher to another.
    LRPC = 2, "lrpc": {
        /// A call: to which dispatcher (all ones: to an endpoint at which none receives yet), with which first word.
        LRPC_CALL = 1, "lrpc", "to dispatcher {detail}, {value:x}";
        /// Its answer: to which dispatcher.
        LRPC_REPLY = 2, "lrpc reply", "to dispatcher {detail}, {value:x}";
    }
    /// Interrupts and doorbells.
    INTERRUPTS = 3, "interrupts": {
        /// An interrupt: its vector.
        INTERRUPT = 1, "interrupt", "vector {detail}";
        /// A doorbell rings elsewhere: core and vector.
        RING = 2, "ring", "core {value}, vector {detail}";
    }
    /// Pages.
    MEMORY = 4, "memory": {
        /// A page fault in ring 3: its address, the error bits.
        PAGE_FAULT = 1, "page fault", "at {value:x}, {detail:x}";
        /// Pages are mapped: where, how many.
        MAP = 2, "map", "{detail} pages at {value:x}";
        /// Pages are unmapped, or their rights changed. Of a page table, how many entries of tables.
        UNMAP = 3, "unmap", "{detail} pages at {value:x}";
        /// All translations of this core are forgotten.
        FLUSH = 4, "flush", "";
    }
    /// Operations on capabilities.
    CAPABILITIES = 5, "capabilities": {
        /// A call that changes the capabilities of this core ended: its number and from bit 16 on its error, the slot's
        /// address.
        CAPABILITY = 1, "capability", "call {detail:x} of {value:x}";
    }
    /// Messages on channels.
    MESSAGES = 6, "messages": {
        /// A message is in its line: its kind, its first word.
        SEND = 1, "send", "kind {detail:x}, {value:x}";
        /// A message was taken out.
        RECEIVE = 2, "receive", "kind {detail:x}, {value:x}";
    }
    /// Steps of the monitors' protocols, and what domains ask monitors for.
    PROTOCOLS = 7, "protocols": {
        /// A domain's request begins: its kind.
        BEGIN = 1, "begin", "{detail:x} {value:x}";
        /// It was answered: its kind, its error.
        END = 2, "end", "{detail:x}: {value}";
        /// A monitor takes a step for an operation of a domain: the kind of what it got.
        STEP = 3, "step", "{detail:x} {value:x}";
    }
    /// The start of the system.
    BOOT = 8, "boot": {
        /// A phase begins: see [`PHASES`].
        PHASE = 1, "phase", "{detail}";
    }
    /// What programs declare: the flow is the address of a [`crate::User`] in the program.
    USER = 9, "user": {
        /// It happened.
        USER_EVENT = 1, "event", "{value}";
        /// A span of time begins.
        USER_BEGIN = 2, "begin", "{value}";
        /// It ends.
        USER_END = 3, "end", "{value}";
    }
    /// How the clocks of two cores differ.
    CLOCKS = 10, "clocks": {
        /// Core 0 asks for the time: the other core, the number of the exchange.
        PING = 1, "ping", "core {detail}, {value}";
        /// The other core saw it, and answers at once.
        PONG = 2, "pong", "core {detail}, {value}";
        /// The answer is here.
        PANG = 3, "pang", "core {detail}, {value}";
    }
}

/// Phases of the start of a core, by number in [`PHASE`].
pub const PHASES: &[&str] = &[
    "",
    "cpu driver",
    "monitor",
    "loading others",
    "all started",
    "view",
    "connected",
    "program",
    "power off",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_checked() {
        for good in ["", "plain", "{value}", "a {flow:x} b {detail} {value:x}"] {
            assert!(is_sound(good), "{good}");
        }
        for bad in ["{", "}", "{}", "{values}", "{value", "{value:b}", "a } b"] {
            assert!(!is_sound(bad), "{bad}");
        }
    }

    #[test]
    fn each_event_is_there_once_and_in_its_group() {
        for (at, event) in EVENTS.iter().enumerate() {
            assert!(
                GROUPS
                    .iter()
                    .any(|(number, _)| *number == group(event.number))
            );
            assert!(
                EVENTS[at + 1..]
                    .iter()
                    .all(|one| one.number != event.number)
            );
        }
    }
}
