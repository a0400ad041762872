//! How many lines an end writes, by its own account.

mod common;

use common::{Frame, message};
use std::sync::atomic::{AtomicU64, Ordering};
use urpc::{Side, Sleeper, Wait};

#[test]
fn every_write_is_counted_once() {
    let frame = Frame::new(16);
    let mut a = frame.attach(Side::A).channel;
    let mut b = frame.attach(Side::B).channel;
    assert_eq!((a.lines_written(), b.lines_written()), (0, 0));
    for number in 1..=100 {
        a.send(&message(number)).unwrap();
        assert_eq!(b.recv().unwrap(), message(number));
        // What is due is acknowledged with the next look.
        assert!(b.recv().is_err());
        assert_eq!((a.lines_written(), b.lines_written()), (number, number / 4));
    }
    assert!(b.prepare_sleep(Wait::Message));
    assert_eq!(b.lines_written(), 26);
    b.awake();
    b.awake();
    assert_eq!(b.lines_written(), 27);
    b.announce_sleep(Wait::Message);
    b.announce_sleep(Wait::Message);
    b.awake();
    assert_eq!((a.lines_written(), b.lines_written()), (100, 31));
}

#[test]
fn sleeps_are_numbered_on() {
    let word = AtomicU64::new(0);
    let mut first = Sleeper::new(&word);
    first.announce(Wait::Message);
    assert_eq!(first.lines_written(), 1);
    let asleep = word.load(Ordering::Relaxed);
    let mut second = Sleeper::new(&word);
    assert_eq!(
        (second.lines_written(), word.load(Ordering::Relaxed) & 3),
        (0, 0)
    );
    second.announce(Wait::Message);
    assert_ne!(word.load(Ordering::Relaxed), asleep);
    second.awake();
    second.awake();
    assert_eq!(second.lines_written(), 2);
}
