//! Single cases; the model and the random runs are in `sim`.

extern crate std;
use super::*;
use crate::test_net::{Random, view};
use std::vec;

/// Core 1 of three, whose nearest is core 2.
fn one() -> Lending {
    let mut one = Lending::new(1, vec![2]);
    assert_eq!(one.installed(&view(1, &[0, 1, 2])), vec![]);
    one
}

fn ask(sequence: u32, least: u64, most: u64) -> Message {
    Message::Ask {
        sequence,
        least,
        most,
    }
}

fn lent(sequence: u32, base: u64, pages: u64) -> Message {
    Message::Lent {
        sequence,
        base,
        pages,
    }
}

fn loan(lender: usize, base: u64, pages: u64) -> Loan {
    Loan {
        lender,
        base,
        pages,
    }
}

fn done(token: u64, result: Result<Loan, Error>) -> Action {
    Action::Done { token, result }
}

#[test]
fn the_nearest_is_asked_first_and_the_next_where_it_has_none() {
    let mut one = one();
    assert_eq!(one.borrow(7, 3, 9), [Action::Send(2, ask(1, 3, 9))]);
    // Who was not asked, or with another number, is not heard.
    assert_eq!(one.on_message(0, &lent(1, 50, 9)), vec![]);
    assert_eq!(one.on_message(2, &lent(2, 50, 9)), vec![]);
    assert_eq!(one.on_message(2, &lent(1, 50, 2)), vec![]);
    let next = one.on_message(2, &Message::None { sequence: 1 });
    assert_eq!(next, [Action::Send(0, ask(2, 3, 9))]);
    let got = loan(0, 50, 4);
    assert_eq!(one.on_message(0, &lent(2, 50, 4)), [done(7, Ok(got))]);
    assert!(one.loans().eq([got]) && !one.is_waiting());
}

#[test]
fn an_ask_that_nobody_can_serve_ends() {
    let mut one = one();
    one.borrow(7, 3, 3);
    // The second waits for the first.
    assert_eq!(one.borrow(8, 1, 1), vec![]);
    one.on_message(2, &Message::None { sequence: 1 });
    let end = one.on_message(0, &Message::None { sequence: 2 });
    let second = Action::Send(2, ask(3, 1, 1));
    assert_eq!(end, [done(7, Err(Error::NoMemory)), second]);
    // Alone, there is nobody to ask.
    assert_eq!(
        one.installed(&view(2, &[1])),
        [done(8, Err(Error::NoMemory))]
    );
    assert_eq!(one.borrow(9, 1, 1), [done(9, Err(Error::NoMemory))]);
    let mut many = self::one();
    for token in 0..QUEUE as u64 {
        many.borrow(token, 1, 1);
    }
    assert_eq!(many.borrow(99, 1, 1), [done(99, Err(Error::Busy))]);
}

#[test]
fn who_asks_again_gets_the_same() {
    let mut one = one();
    let lend = |work, least, most| Action::Lend {
        work,
        to: 2,
        least,
        most,
    };
    assert_eq!(one.on_message(2, &ask(5, 2, 8)), [lend(1, 2, 8)]);
    // It is being decided, also in the next view.
    one.installed(&view(2, &[0, 1, 2]));
    assert_eq!(one.on_message(2, &ask(5, 2, 8)), vec![]);
    let answer = [Action::Send(2, lent(5, 40, 6))];
    assert_eq!(one.lent(1, Some((40, 6))), answer);
    assert_eq!(one.on_message(2, &ask(5, 2, 8)), answer);
    assert_eq!(one.pages_lent(), 6);
    // A refusal is repeated, too.
    assert_eq!(one.on_message(2, &ask(6, 9, 9)), [lend(2, 9, 9)]);
    let none = [Action::Send(2, Message::None { sequence: 6 })];
    assert_eq!(one.lent(2, None), none);
    assert_eq!(one.on_message(2, &ask(6, 9, 9)), none);
}

#[test]
fn a_return_is_of_one_loan() {
    let mut one = one();
    one.on_message(2, &ask(5, 2, 2));
    one.lent(1, Some((40, 2)));
    let back = |sequence| Message::Return { sequence, base: 40 };
    let returned = |sequence| Action::Send(2, Message::Returned { sequence });
    let take = Action::TakeBack { base: 40, pages: 2 };
    assert_eq!(one.on_message(2, &back(5)), [take.clone(), returned(5)]);
    // The same memory again: an old return, repeated, is not its.
    one.on_message(2, &ask(6, 2, 2));
    one.lent(2, Some((40, 2)));
    assert_eq!(one.on_message(2, &back(5)), [returned(5)]);
    assert_eq!(
        one.on_message(0, &back(6))[..1],
        [Action::Send(0, Message::Returned { sequence: 6 })]
    );
    assert_eq!(one.pages_lent(), 2);
    assert_eq!(one.on_message(2, &back(6)), [take, returned(6)]);
}

#[test]
fn a_return_is_repeated_until_it_is_answered() {
    let mut one = one();
    one.borrow(7, 1, 1);
    one.on_message(2, &lent(1, 40, 1));
    let back = Message::Return {
        sequence: 1,
        base: 40,
    };
    let sent = [Action::Send(2, back)];
    assert_eq!(one.give_back(40), sent);
    assert_eq!(one.give_back(40), vec![]);
    assert_eq!(one.installed(&view(2, &[1, 2])), sent);
    one.on_message(2, &Message::Returned { sequence: 1 });
    assert_eq!(one.installed(&view(3, &[1, 2])), vec![]);
    assert!(!one.is_waiting());
}

#[test]
fn what_a_dead_core_had_borrowed_comes_back_when_nobody_uses_it() {
    let mut one = one();
    one.on_message(2, &ask(5, 2, 2));
    one.lent(1, Some((40, 2)));
    let clear = Message::Clear { base: 40, pages: 2 };
    let watch = Action::Watch {
        lender: 1,
        base: 40,
        pages: 2,
    };
    let actions = one.installed(&view(2, &[0, 1]));
    assert_eq!(actions, [watch, Action::Send(0, clear)]);
    assert_eq!(one.cleared(1, 40), vec![]);
    // Core 0 has not answered: it is asked again, and whoever has joined is not.
    let actions = one.installed(&view(3, &[0, 1, 2]));
    assert_eq!(actions, [Action::Send(0, clear)]);
    let cleared = Message::Cleared { base: 40 };
    assert_eq!(one.on_message(2, &cleared), vec![]);
    let take = Action::TakeBack { base: 40, pages: 2 };
    assert_eq!(one.on_message(0, &cleared), [take]);
    assert_eq!((one.pages_lent(), one.on_message(0, &cleared)), (0, vec![]));
}

#[test]
fn who_is_asked_to_watch_answers_once_in_the_view_that_holds() {
    let mut one = one();
    let clear = Message::Clear { base: 40, pages: 2 };
    let watch = Action::Watch {
        lender: 2,
        base: 40,
        pages: 2,
    };
    assert_eq!(one.on_message(2, &clear), core::slice::from_ref(&watch));
    assert_eq!(one.installed(&view(2, &[1, 2])), vec![]);
    assert_eq!(one.on_message(2, &clear), vec![]);
    let cleared = Action::Send(2, Message::Cleared { base: 40 });
    assert_eq!(one.cleared(2, 40), [cleared]);
    assert_eq!(one.cleared(2, 40), vec![]);
    // The lender dies: nobody wants to know.
    assert_eq!(one.on_message(2, &clear), [watch]);
    let unwatch = Action::Unwatch {
        lender: 2,
        base: 40,
    };
    assert_eq!(one.installed(&view(3, &[1])), [unwatch]);
    assert_eq!(one.cleared(2, 40), vec![]);
}

#[test]
fn a_loan_outlives_its_lender_until_that_starts_anew() {
    let mut one = one();
    for sequence in 1..=2 {
        one.borrow(7, 1, 1);
        one.on_message(2, &lent(sequence, 40 + u64::from(sequence), 1));
    }
    assert!(one.drop_loans(2).is_empty(), "it lives");
    assert_eq!(one.installed(&view(2, &[0, 1])), vec![]);
    assert_eq!(one.loans().count(), 2);
    assert_eq!(one.give_back(41), vec![]);
    assert_eq!(one.drop_loans(2), [loan(2, 42, 1)]);
    assert_eq!(one.loans().count(), 0);
}

#[test]
fn what_was_to_be_lent_to_a_dead_core_is_free_again() {
    let mut one = one();
    one.on_message(2, &ask(1, 1, 1));
    one.installed(&view(2, &[0, 1]));
    // Its number is back, and begins anew with its asks.
    one.installed(&view(3, &[0, 1, 2]));
    assert_eq!(one.on_message(2, &ask(1, 1, 1)).len(), 1);
    let take = Action::TakeBack { base: 40, pages: 1 };
    assert_eq!(one.lent(1, Some((40, 1))), [take]);
    assert_eq!(
        one.lent(2, Some((41, 1))),
        [Action::Send(2, lent(1, 41, 1))]
    );
}

#[test]
fn garbage_does_no_harm() {
    let mut random = Random(1);
    let mut one = one();
    for round in 0..100_000u32 {
        let kind = 0xf0 + random.below(16) as u16;
        let words = random.words(true);
        if let Some(message) = Message::decode(kind, &words) {
            let (kind, words) = message.encode();
            assert_eq!(Message::decode(kind, &words), Some(message));
            for action in one.on_message(random.below(4), &message) {
                if let Action::Lend { work, .. } = action {
                    one.lent(work, None);
                }
            }
        }
        match random.below(64) {
            0 => drop(one.borrow(1, random.word() % 4, random.word() % 4)),
            1 => drop(one.give_back(random.word() % 8)),
            2 => drop(one.cleared(random.below(4), random.word() % 8)),
            3 => drop(one.installed(&view(round, &[0, 1, 2]))),
            4 => drop(one.installed(&view(round, &[0, 1]))),
            _ => {}
        }
        assert!(one.asks.len() <= QUEUE && one.borrowed.len() <= LOANS);
    }
    assert_eq!(Message::decode(0xef, &[0; 7]), None);
    assert_eq!(Message::decode(0xf7, &[0; 7]), None);
}
