//! urpc and other crates' channels, each by its own means and polled.

use crate::end::{End, Words, poll};
use crate::memory::zeroed;
use ringbuf::traits::{Consumer as _, Producer as _, Split as _};
use std::sync::Arc;
use std::sync::mpsc;
use urpc::{CallLine, Channel, Message, SLOT_BYTES, Side, frame_bytes};

/// Both ends of a urpc channel.
pub fn urpc_channel(slots: usize) -> [Channel; 2] {
    let frame = zeroed(frame_bytes(slots));
    // SAFETY: zeroed, aligned to a page, large enough, never freed, and nobody else's.
    [Side::A, Side::B].map(|side| unsafe { Channel::attach(frame, slots, side) })
}

/// Both ends of a call line.
pub fn call_line() -> [CallLine; 2] {
    let line = zeroed(SLOT_BYTES);
    // SAFETY: zeroed, aligned to a page, large enough, never freed, and nobody else's.
    [Side::A, Side::B].map(|side| unsafe { CallLine::attach(line, side) })
}

macro_rules! urpc_end {
    ($end:ty) => {
        impl End for $end {
            #[inline]
            fn send(&mut self, words: &Words) {
                let message = Message::new(1, *words);
                poll(|| <$end>::send(self, &message).ok());
            }

            #[inline]
            fn recv(&mut self) -> Words {
                poll(|| <$end>::recv(self).ok()).payload
            }
        }
    };
}

urpc_end!(Channel);
urpc_end!(CallLine);

/// What another crate sends by.
pub trait Sender: Send + 'static {
    /// Sends a message if there is room.
    fn try_send(&mut self, words: Words) -> bool;
}

/// What another crate receives by.
pub trait Receiver: Send + 'static {
    /// Receives a message if there is one.
    fn try_recv(&mut self) -> Option<Words>;
}

/// An end made of one sender and one receiver.
pub struct Both<S, R>(S, R);

/// Both ends of two channels, one each way.
pub fn both<S, R>(mut channel: impl FnMut() -> (S, R)) -> [Both<S, R>; 2] {
    let [(to_b, from_a), (to_a, from_b)] = [channel(), channel()];
    [Both(to_b, from_b), Both(to_a, from_a)]
}

impl<S: Sender, R: Receiver> End for Both<S, R> {
    #[inline]
    fn send(&mut self, words: &Words) {
        poll(|| self.0.try_send(*words).then_some(()));
    }

    #[inline]
    fn recv(&mut self) -> Words {
        poll(|| self.1.try_recv())
    }
}

macro_rules! peer {
    ($sender:ty: $send:expr, $receiver:ty: $receive:expr) => {
        impl Sender for $sender {
            #[inline]
            fn try_send(&mut self, words: Words) -> bool {
                let send: fn(&mut Self, Words) -> bool = $send;
                send(self, words)
            }
        }

        impl Receiver for $receiver {
            #[inline]
            fn try_recv(&mut self) -> Option<Words> {
                let receive: fn(&mut Self) -> Option<Words> = $receive;
                receive(self)
            }
        }
    };
}

peer!(crossbeam_channel::Sender<Words>: |it, words| crossbeam_channel::Sender::try_send(it, words).is_ok(),
    crossbeam_channel::Receiver<Words>: |it| crossbeam_channel::Receiver::try_recv(it).ok());
peer!(rtrb::Producer<Words>: |it, words| it.push(words).is_ok(),
    rtrb::Consumer<Words>: |it| it.pop().ok());
peer!(ringbuf::HeapProd<Words>: |it, words| it.try_push(words).is_ok(),
    ringbuf::HeapCons<Words>: ringbuf::HeapCons::try_pop);
peer!(heapless::spsc::Producer<'static, Words>: |it, words| it.enqueue(words).is_ok(),
    heapless::spsc::Consumer<'static, Words>: heapless::spsc::Consumer::dequeue);
peer!(mpsc::SyncSender<Words>: |it, words| mpsc::SyncSender::try_send(it, words).is_ok(),
    mpsc::Receiver<Words>: |it| mpsc::Receiver::try_recv(it).ok());
peer!(kanal::Sender<Words>: |it, words| kanal::Sender::try_send(it, words) == Ok(true),
    kanal::Receiver<Words>: |it| kanal::Receiver::try_recv(it).ok().flatten());
peer!(flume::Sender<Words>: |it, words| flume::Sender::try_send(it, words).is_ok(),
    flume::Receiver<Words>: |it| flume::Receiver::try_recv(it).ok());

/// A queue's user who puts messages in.
pub struct Giver(Arc<crossbeam_queue::ArrayQueue<Words>>);

/// A queue's user who takes them out.
pub struct Taker(Arc<crossbeam_queue::ArrayQueue<Words>>);

peer!(Giver: |it, words| it.0.push(words).is_ok(), Taker: |it| it.0.pop());

/// crossbeam's queue.
pub fn array_queue(slots: usize) -> (Giver, Taker) {
    let queue = Arc::new(crossbeam_queue::ArrayQueue::new(slots));
    (Giver(queue.clone()), Taker(queue))
}

/// ringbuf's ring.
pub fn ringbuf(slots: usize) -> (ringbuf::HeapProd<Words>, ringbuf::HeapCons<Words>) {
    ringbuf::HeapRb::new(slots).split()
}

type HeaplessEnds = (
    heapless::spsc::Producer<'static, Words>,
    heapless::spsc::Consumer<'static, Words>,
);

/// heapless's queue, of which one place stays empty.
pub fn heapless<const SLOTS: usize>() -> HeaplessEnds {
    Box::leak(Box::new(heapless::spsc::Queue::<Words, SLOTS>::new())).split()
}
