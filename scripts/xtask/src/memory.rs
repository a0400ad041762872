//! The guest's RAM: files in memory that QEMU maps and this tool reads from outside, while
//! the guest runs and after its end.
//!
//! One file for each NUMA node. Guest-physical memory has a hole below 4 GiB, a file has
//! none; but both holes and nodes begin at multiples of 2 MiB, so what lies at such a
//! multiple in one does so in the other.

use rustix::fs::{self, MemfdFlags, SeekFrom};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The RAM of one guest.
#[derive(Debug)]
pub struct GuestMemory {
    nodes: Vec<Node>,
}

/// The RAM of one NUMA node.
#[derive(Debug)]
struct Node {
    file: OwnedFd,
    bytes: u64,
}

/// A place in guest memory as this side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which NUMA node's file.
    pub node: usize,
    /// Byte in that file.
    pub offset: u64,
}

impl GuestMemory {
    /// `nodes` equal parts of zeroes, `bytes` together. They take host memory only where
    /// the guest writes.
    pub fn create(bytes: u64, nodes: usize) -> io::Result<Self> {
        let bytes = bytes / nodes as u64;
        let nodes = (0..nodes)
            .map(|_| {
                // Without CLOEXEC: QEMU inherits the file and opens it by its number.
                let file = fs::memfd_create("atoll-guest-memory", MemfdFlags::empty())?;
                fs::ftruncate(&file, bytes)?;
                Ok(Node { file, bytes })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { nodes })
    }

    /// For each node its bytes and the path by which a child process opens it.
    pub fn files(&self) -> impl Iterator<Item = (u64, String)> {
        self.nodes.iter().map(|node| {
            (
                node.bytes,
                format!("/proc/self/fd/{}", node.file.as_raw_fd()),
            )
        })
    }

    /// Fills `buffer` from `place` on; fails where that reaches beyond the node's end.
    pub fn read(&self, place: Place, buffer: &mut [u8]) -> io::Result<()> {
        let node = self
            .nodes
            .get(place.node)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut done = 0;
        while done < buffer.len() {
            let at = place.offset + done as u64;
            match rustix::io::pread(&node.file, &mut buffer[done..], at)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }

    /// Every multiple of `step` bytes that the guest may have written to.
    pub fn written_places(&self, step: u64) -> Vec<Place> {
        let mut places = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let mut offset = 0;
            while offset < node.bytes {
                let Ok(data) = fs::seek(&node.file, SeekFrom::Data(offset)) else {
                    break; // no more data up to the end
                };
                let end = fs::seek(&node.file, SeekFrom::Hole(data)).unwrap_or(node.bytes);
                // A page of data holds one that begins at a multiple only if it begins there.
                let mut multiple = data.next_multiple_of(step);
                while multiple < end {
                    places.push(Place {
                        node: index,
                        offset: multiple,
                    });
                    multiple += step;
                }
                offset = end;
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = 2 << 20;

    fn write(memory: &GuestMemory, node: usize, offset: u64, bytes: &[u8]) {
        rustix::io::pwrite(&memory.nodes[node].file, bytes, offset).unwrap();
    }

    #[test]
    fn finds_what_was_written_and_skips_holes() {
        let memory = GuestMemory::create(16 << 30, 2).unwrap();
        assert_eq!(memory.written_places(STEP), []);
        write(&memory, 0, 3 * STEP, b"first");
        write(&memory, 0, 5 * STEP + 4096, b"beside");
        write(&memory, 1, 4095 * STEP, b"last");
        let places = memory.written_places(STEP);
        assert_eq!(
            places,
            [
                Place {
                    node: 0,
                    offset: 3 * STEP
                },
                Place {
                    node: 1,
                    offset: 4095 * STEP
                }
            ]
        );
        let mut text = [0; 5];
        memory.read(places[0], &mut text).unwrap();
        assert_eq!(&text, b"first");
    }

    #[test]
    fn refuses_to_read_beyond_the_end() {
        let memory = GuestMemory::create(STEP, 1).unwrap();
        let place = Place {
            node: 0,
            offset: STEP - 4,
        };
        assert!(memory.read(place, &mut [0; 4]).is_ok());
        assert!(memory.read(place, &mut [0; 5]).is_err());
        assert!(memory.read(Place { node: 1, offset: 0 }, &mut [0]).is_err());
    }
}
