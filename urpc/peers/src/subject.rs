//! Everything that is measured.

use crate::crates::{array_queue, both, call_line, heapless, ringbuf, urpc_channel};
use crate::end::{End, Pair};
use crate::memory::{EventFd, Floor, Futex, Pipe, over_lines};

/// What a subject is, among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// What no channel of two lines can be faster than.
    Floor,
    /// urpc's channel.
    Channel,
    /// urpc's call line.
    CallLine,
    /// Another crate's channel, or the standard library's.
    Crate,
    /// What the kernel offers to those who block.
    Kernel,
}

/// A connection to be measured.
pub struct Subject {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub class: Class,
    /// Places for messages in each direction; `None` where there is no choice.
    pub slots: Option<usize>,
    /// Whether round trips are measured.
    pub calls: bool,
    /// Whether streaming is measured.
    pub streams: bool,
    /// The package that it comes from, where that is another.
    package: Option<&'static str>,
    /// The connection.
    pub pair: Box<dyn Pair>,
}

/// The slots by which other crates are measured, too, where messages stream: a deeper ring may
/// serve them better.
const DEEP: usize = 1024;

impl Subject {
    fn new<E: End>(class: Class, name: &'static str, pair: [E; 2]) -> Self {
        Self {
            name,
            class,
            slots: None,
            calls: true,
            streams: false,
            package: None,
            pair: Box::new(pair),
        }
    }

    fn channel(slots: usize) -> Self {
        Self {
            slots: Some(slots),
            streams: true,
            ..Self::new(Class::Channel, "urpc", urpc_channel(slots))
        }
    }

    fn other<E: End>(
        name: &'static str,
        package: Option<&'static str>,
        slots: usize,
        pair: [E; 2],
    ) -> Self {
        Self {
            slots: Some(slots),
            streams: true,
            calls: slots != DEEP,
            package,
            ..Self::new(Class::Crate, name, pair)
        }
    }

    /// Name and slots.
    pub fn title(&self) -> String {
        match self.slots {
            Some(slots) => format!("{}, {slots} slots", self.name),
            None => self.name.to_owned(),
        }
    }

    /// The version of the package that it comes from.
    pub fn version(&self) -> Option<&'static str> {
        let lock = include_str!("../../../Cargo.lock");
        let entry = format!("name = \"{}\"\nversion = \"", self.package?);
        let (_, rest) = lock.split_once(entry.as_str())?;
        Some(rest.split_once('"')?.0)
    }
}

/// All of them; the floor comes first.
pub fn all() -> Vec<Subject> {
    let mut all = vec![
        Subject::new(Class::Floor, "two lines", over_lines(Floor::new)),
        Subject::channel(16),
        Subject::channel(64),
        Subject::new(Class::CallLine, "urpc call line", call_line()),
    ];
    for slots in [64, DEEP] {
        let crossbeam = both(|| crossbeam_channel::bounded(slots));
        let rings = [
            Subject::other(
                "crossbeam-channel",
                Some("crossbeam-channel"),
                slots,
                crossbeam,
            ),
            Subject::other(
                "ArrayQueue",
                Some("crossbeam-queue"),
                slots,
                both(|| array_queue(slots)),
            ),
            Subject::other(
                "rtrb",
                Some("rtrb"),
                slots,
                both(|| rtrb::RingBuffer::new(slots)),
            ),
            Subject::other("ringbuf", Some("ringbuf"), slots, both(|| ringbuf(slots))),
            match slots {
                DEEP => Subject::other("heapless", Some("heapless"), slots, both(heapless::<DEEP>)),
                _ => Subject::other("heapless", Some("heapless"), slots, both(heapless::<64>)),
            },
            Subject::other(
                "std mpsc",
                None,
                slots,
                both(|| std::sync::mpsc::sync_channel(slots)),
            ),
            Subject::other(
                "kanal",
                Some("kanal"),
                slots,
                both(|| kanal::bounded(slots)),
            ),
            Subject::other(
                "flume",
                Some("flume"),
                slots,
                both(|| flume::bounded(slots)),
            ),
        ];
        all.extend(rings);
    }
    let mut pipe = Subject::new(Class::Kernel, "pipe", Pipe::pair());
    pipe.streams = true;
    all.push(pipe);
    all.push(Subject::new(Class::Kernel, "eventfd", EventFd::pair()));
    all.push(Subject::new(Class::Kernel, "futex", over_lines(Futex::new)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::end::Load;

    #[test]
    fn all_carry_calls_replies_and_streams() {
        for mut subject in all() {
            subject.pair.pass(70);
            let [mut here, mut there] = subject.pair.part();
            let load = Load {
                first: 3,
                batches: 4,
                size: 25,
            };
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    there.reply(load);
                    if subject.streams {
                        there.produce(load);
                    }
                });
                assert_eq!(here.call(load).len(), 4);
                if subject.streams {
                    assert_eq!(here.consume(load).len(), 4);
                }
            });
        }
    }

    #[test]
    fn every_crate_has_a_version() {
        for subject in all() {
            assert_eq!(subject.package.is_some(), subject.version().is_some());
        }
    }
}
