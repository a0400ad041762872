//! How many lines an end writes, by its own account.

mod common;

use common::{Frame, message};
use urpc::{Side, Wait};

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
