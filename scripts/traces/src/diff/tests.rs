//! Differences that were made on purpose.

use super::*;
use crate::columns::WIDTH;
use crate::sample;

fn pair() -> [Recording; 2] {
    let mut one = sample::recording(3, 400, 1);
    one.header.accelerator = "icount".into();
    one.header.is_exact = true;
    [one.clone(), one]
}

#[test]
fn two_of_one_are_the_same() {
    let mut traces = pair();
    traces[1].header.revision = "another".into();
    assert!(is_same(&traces));
    let text = table(&traces);
    assert!(text.contains("the same: "), "{text}");
    assert!(!text.contains("differs"), "{text}");
}

#[test]
fn the_first_record_that_differs_is_named() {
    let mut traces = pair();
    let at = traces[1].records[2].len() / 2;
    traces[1].records[2][at].value ^= 1;
    let last = traces[1].records[1].len() - 1;
    traces[1].records[1][last].value ^= 1;
    assert!(!is_same(&traces));
    let text = table(&traces);
    let line = format!(
        "The first record that differs is number {} of core 2:",
        grouped(at as u64)
    );
    assert!(text.contains(&line), "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= WIDTH),
        "{text}"
    );
    // One that is there in one of them alone.
    let mut traces = pair();
    let gone = traces[1].records[0].pop().unwrap();
    traces[1].header.cores[0].records -= 1;
    let text = table(&traces);
    assert!(
        text.contains("of core 0:") && text.contains("no more records"),
        "{text}"
    );
    assert!(text.contains(&grouped(gone.tsc)), "{text}");
}

#[test]
fn counts_that_differ_are_told() {
    let mut traces = pair();
    traces[1].header.cores[1].switches += 7;
    let text = table(&traces);
    assert!(
        text.contains("the counts of 2 of 3 cores are the same"),
        "{text}"
    );
    assert!(
        text.contains("the records that both have are the same"),
        "{text}"
    );
    let mut other = sample::recording(4, 900, 2);
    other.header.accelerator = "kvm".into();
    let text = table(&[pair()[0].clone(), other]);
    assert!(text.contains("not there"), "{text}");
    assert!(text.contains("two kinds of clocks"), "{text}");
    let mut inexact = pair();
    for trace in &mut inexact {
        trace.header.is_exact = false;
        trace.header.accelerator = "tcg".into();
    }
    inexact[1].records[0][3].tsc += 1;
    let text = table(&inexact);
    assert!(text.contains("no record is named"), "{text}");
    assert!(!text.contains("P50"), "{text}");
}

#[test]
fn changes_are_told_by_kind_of_operation() {
    let [a, _] = pair();
    let mut b = sample::recording(3, 500, 9);
    b.header.accelerator = "icount".into();
    b.header.is_exact = true;
    let text = table(&[a, b]);
    assert!(text.contains("B/A"), "{text}");
    assert!(text.contains("MSGS") && text.contains("B−A"), "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= WIDTH),
        "{text}"
    );
    assert_eq!(
        (ratio(2.0, 3.0), ratio(4.0, 4.0)),
        ("+50%".into(), "=".into())
    );
    assert_eq!(
        (ratio(0.0, 4.0), ratio(1000.0, 999.0)),
        ("-".into(), "−0.1%".into())
    );
}
