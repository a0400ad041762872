//! Two threads, as two cores: order and content of many messages, polling and sleeping.

mod common;

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use common::{End, Frame, message};
use urpc::{Channel, Message, ReceiveError, SendError, Side, Wait};

/// Polls a little, then lets the other thread have the processor.
#[derive(Default)]
struct Patience(u32);

impl Patience {
    fn wait(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(64) || cfg!(miri) {
            thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}

fn send(channel: &mut Channel, message: &Message) {
    let mut patience = Patience::default();
    while let Err(error) = channel.send(message) {
        assert_eq!(error, SendError::Full);
        patience.wait();
    }
}

fn receive(channel: &mut Channel) -> Message {
    let mut patience = Patience::default();
    loop {
        match channel.recv() {
            Ok(message) => return message,
            Err(error) => assert_eq!(error, ReceiveError::Empty),
        }
        patience.wait();
    }
}

/// The n-th message of a stream: cheaper than `message`, yet all of it depends on n.
fn numbered(number: u64) -> Message {
    let base = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Message::new(
        number as u16,
        std::array::from_fn(|word| base.rotate_left(word as u32 * 9)),
    )
}

fn stream(slots: usize, messages: u64) {
    let frame = Frame::new(slots);
    let mut b = frame.attach(Side::B);
    let receiver = thread::spawn(move || {
        for number in 0..messages {
            assert_eq!(receive(&mut b.channel), numbered(number));
        }
        assert_eq!(b.channel.recv(), Err(ReceiveError::Empty));
    });
    let mut a = frame.attach(Side::A);
    for number in 0..messages {
        send(&mut a.channel, &numbered(number));
    }
    receiver.join().unwrap();
}

#[test]
fn ten_million_messages_arrive_in_order_and_unaltered() {
    stream(64, if cfg!(miri) { 300 } else { 10_000_000 });
}

#[test]
fn messages_arrive_in_order_over_the_smallest_ring() {
    stream(4, if cfg!(miri) { 60 } else { 500_000 });
}

#[test]
fn batches_arrive_in_order_in_both_directions_at_once() {
    let messages = if cfg!(miri) { 60 } else { 500_000 };
    let frame = Frame::new(16);
    let run = move |channel: &mut Channel| {
        let (mut sent, mut received) = (0, 0);
        let mut inbox = [Message::EMPTY; 5];
        let mut patience = Patience::default();
        while sent < messages || received < messages {
            let outbox: [_; 7] = std::array::from_fn(|ahead| message(sent + ahead as u64));
            let count = outbox.len().min((messages - sent) as usize);
            match channel.send_batch(&outbox[..count]) {
                Ok(count) => sent += count as u64,
                Err(error) => {
                    assert_eq!(error, SendError::Full);
                    patience.wait();
                }
            }
            match channel.recv_batch(&mut inbox) {
                Ok(count) => {
                    for received_message in &inbox[..count] {
                        assert_eq!(*received_message, message(received));
                        received += 1;
                    }
                }
                Err(error) => {
                    assert_eq!(error, ReceiveError::Empty);
                    patience.wait();
                }
            }
        }
    };
    let mut b = frame.attach(Side::B);
    let other = thread::spawn(move || run(&mut b.channel));
    run(&mut frame.attach(Side::A).channel);
    other.join().unwrap();
}

#[test]
fn calls_are_answered() {
    let calls = if cfg!(miri) { 50 } else { 200_000 };
    let frame = Frame::new(16);
    let mut b = frame.attach(Side::B);
    let server = thread::spawn(move || {
        for _ in 0..calls {
            let call = receive(&mut b.channel);
            send(&mut b.channel, &call);
        }
    });
    let mut a = frame.attach(Side::A);
    for number in 0..calls {
        send(&mut a.channel, &message(number));
        assert_eq!(receive(&mut a.channel), message(number));
    }
    server.join().unwrap();
}

/// A doorbell that stays rung until its sleeper looks, as the system's does.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let rung = self.rung.lock().unwrap();
        // A wake-up that is lost must fail the test, not hang it.
        let limit = Duration::from_secs(60);
        let (mut rung, timeout) = self
            .changed
            .wait_timeout_while(rung, limit, |rung| !*rung)
            .unwrap();
        assert!(
            !timeout.timed_out(),
            "asleep for a minute: a wake-up was lost"
        );
        *rung = false;
    }
}

/// Sends and receives until it must wait, sleeps at once, and rings its peer whenever asked to.
struct Sleeper {
    end: End,
    own_bell: Arc<Bell>,
    peer_bell: Arc<Bell>,
    sleeps: u64,
}

impl Sleeper {
    fn ring_if_needed(&mut self) {
        if self.end.channel.peer_needs_doorbell() {
            self.peer_bell.ring();
        }
    }

    fn sleep(&mut self, wait: Wait) {
        if self.end.channel.prepare_sleep(wait) {
            self.sleeps += 1;
            self.own_bell.wait();
        }
        self.end.channel.awake();
    }

    fn send(&mut self, message: &Message) {
        while let Err(error) = self.end.channel.send(message) {
            assert_eq!(error, SendError::Full);
            self.ring_if_needed();
            self.sleep(Wait::Room);
        }
    }

    fn receive(&mut self) -> Result<Message, ReceiveError> {
        loop {
            match self.end.channel.recv() {
                Err(ReceiveError::Empty) => {
                    self.ring_if_needed();
                    self.sleep(Wait::Message);
                }
                other => return other,
            }
        }
    }
}

fn sleepers(slots: usize, messages: u64, burst: u64) {
    let frame = Frame::new(slots);
    let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
    let sleeper = |end: End, own: usize| Sleeper {
        end,
        own_bell: bells[own].clone(),
        peer_bell: bells[1 - own].clone(),
        sleeps: 0,
    };
    let (mut a, mut b) = (
        sleeper(frame.attach(Side::A), 0),
        sleeper(frame.attach(Side::B), 1),
    );
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let mut number = 0;
            while let Ok(received) = b.receive() {
                assert_eq!(received, numbered(number));
                number += 1;
                b.ring_if_needed();
            }
            assert_eq!(number, messages);
            b.sleeps
        });
        for number in 0..messages {
            a.send(&numbered(number));
            if number % burst == burst - 1 {
                a.ring_if_needed();
            }
        }
        a.end.channel.close();
        a.ring_if_needed();
        let sleeps = a.sleeps + receiver.join().unwrap();
        assert!(sleeps > 0, "nobody ever slept: this tests nothing");
    });
}

#[test]
fn no_wake_up_is_lost_in_200_000_messages() {
    sleepers(8, if cfg!(miri) { 60 } else { 200_000 }, 1);
}

#[test]
fn no_wake_up_is_lost_when_bursts_ring_once() {
    sleepers(16, if cfg!(miri) { 60 } else { 200_000 }, 50);
}
