//! Runs whose growth is known.

use super::*;
use crate::columns::WIDTH;
use crate::model::{Dispatcher, Message, Operation, Running};
use crate::recording::Header;
use trace::SEQUENCE_BITS;

/// A program of core 1 asks the monitor of core 0, which has `queue` to do before it takes that, and
/// sends one message more for each core.
fn point(cores: u32, queue: u64, accelerator: &str) -> Point {
    let header = Header {
        version: 1,
        program: "unmap-test".into(),
        accelerator: accelerator.into(),
        is_exact: accelerator == "icount",
        hz: 1_000_000_000,
        ..Header::default()
    };
    let recording = Recording {
        header,
        records: Vec::new(),
    };
    let mut model = Model::default();
    for (core, name) in [(0, "monitor"), (1, "asks")] {
        model.dispatchers.push(Dispatcher {
            core,
            handle: 1,
            name: name.into(),
        });
        model.running.push(Running {
            core,
            dispatcher: core as usize,
            begin: 0,
            end: u64::MAX,
        });
    }
    let mut at = 0;
    for round in 0..10 {
        let message = |sent, received, from: u32| Message {
            flow: u64::from(from) << SEQUENCE_BITS,
            from,
            to: 1 - from,
            sender: Some(from as usize),
            receiver: Some(1 - from as usize),
            sent,
            received,
            kind: 0x33,
            word: 0,
        };
        // The first finds nobody before it: the wire takes 20.
        let queue = if round == 0 { 0 } else { queue };
        let (taken, begin) = (at + 100 + 20 + queue, at);
        model.messages.push(message(at + 100, taken, 1));
        for extra in 0..u64::from(cores) {
            model
                .messages
                .push(message(taken + 30 + extra, taken + 200 + extra, 0));
        }
        at = taken + 1000;
        model.operations.push(Operation {
            flow: 1 << 63 | round,
            core: 1,
            dispatcher: Some(1),
            kind: 0x33,
            begin,
            end: Some(at),
            error: 0,
        });
    }
    Point::of(cores, &recording, &model)
}

#[test]
fn the_cause_of_the_growth_is_named() {
    let points: Vec<Point> = [16, 2, 8, 4]
        .map(|cores| point(cores, u64::from(cores) * 500, "icount"))
        .into();
    let text = report(&points);
    assert!(
        text.lines().all(|line| line.chars().count() <= WIDTH),
        "{text}"
    );
    // Nine of ten wait in the queue: 16 and 2 cores differ by 14 * 500 * 0.9.
    let grows = "from 2 to 16 cores it grows by 6,300 instructions";
    assert!(text.contains(grows), "{text}");
    let queue = text.lines().find(|line| line.contains("queue at")).unwrap();
    assert!(
        queue.contains("100 %  queue at monitor on core 0, +6,300, as N^1.00"),
        "{text}"
    );
    let rows: Vec<_> = text
        .lines()
        .filter(|line| !line.contains('%'))
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|cells| {
            cells
                .first()
                .is_some_and(|cell| cell.parse::<u32>().is_ok())
                && cells.len() == 11
        })
        .collect();
    let messages: Vec<_> = rows.iter().map(|cells| (cells[0], cells[5])).collect();
    assert_eq!(
        messages,
        [("2", "3.0"), ("4", "5.0"), ("8", "9.0"), ("16", "17.0")]
    );
    assert!(
        text.contains("Universal Scalability Law of operations"),
        "{text}"
    );
    // The law's points are those of the clock, of which each core has its share; and they are told.
    let told: Vec<_> = rows.iter().map(|cells| cells[4].to_owned()).collect();
    let rates = points.iter().map(|one| digits(one.kinds[&0x33].rate));
    assert!(rates.into_iter().all(|rate| told.contains(&rate)), "{text}");
    let rate = |cores: f64| cores * 10.0 * 1e6 / (11_200.0 + cores * 500.0 * 9.0);
    for one in &points {
        let found = one.kinds[&0x33].rate;
        assert!(
            (found / rate(one.cores.into()) - 1.0).abs() < 1e-9,
            "{found}"
        );
    }
}

#[test]
fn what_cannot_be_told_is_not() {
    let tcg = [point(2, 10, "tcg"), point(4, 20, "tcg")];
    let text = report(&tcg);
    assert!(text.contains("times say nothing of a machine"), "{text}");
    assert!(
        !text.contains("MEAN") && !text.contains("grows by"),
        "{text}"
    );
    let three: Vec<_> = [2, 4, 8].map(|cores| point(cores, 7, "kvm")).into();
    let text = report(&three);
    assert!(
        text.contains("no law: it takes 4 numbers of cores, and there are 3"),
        "{text}"
    );
    assert!(
        text.contains("from 2 to 8 cores it grows by nothing"),
        "{text}"
    );
    let mixed = report(&[point(2, 1, "icount"), point(4, 1, "kvm")]);
    assert!(mixed.contains("nothing of them can be compared"), "{mixed}");
    assert_eq!(report(&[]), "no trace\n");
    let empty = Point::of(2, &Recording::default(), &Model::default());
    assert!(report(&[empty]).contains("no operation ended"));
}

#[test]
fn exponents_are_those_of_the_points() {
    let of = |value: fn(f64) -> f64| exponent(&[2.0, 4.0, 64.0].map(|at| (at, value(at))));
    assert_eq!(of(|at| at * at * 3.0), Some(2.0));
    assert_eq!(of(|_| 5.0), Some(0.0));
    assert_eq!(of(|at| 1.0 / at), Some(-1.0));
    assert_eq!(of(|at| at - 2.0), None);
    assert_eq!(exponent(&[(2.0, 1.0)]), None);
    assert_eq!(exponent(&[]), None);
}

#[test]
fn a_report_of_runs_has_a_row_a_run_and_fits_the_terminal() {
    let points = [16, 2, 8, 4].map(|cores: u32| {
        let recording = crate::sample::recording(cores as usize, 4000, 7);
        Point::of(cores, &recording, &Model::of(&recording))
    });
    let text = report(&points);
    assert!(
        text.lines().all(|line| line.chars().count() <= WIDTH),
        "{text}"
    );
    // Three kinds of operations on four numbers of cores.
    let rows = text.lines().filter(|line| {
        let cells: Vec<_> = line.split_whitespace().collect();
        cells.len() == 11 && !line.contains('%') && cells[0].parse::<u32>().is_ok()
    });
    assert_eq!(rows.count(), 12, "{text}");
    assert_eq!(
        text.matches("Universal Scalability Law").count(),
        3,
        "{text}"
    );
    // What is told of a growth is all of it, but for rounding.
    for section in text.split("it grows by").skip(1) {
        let shares = section.lines().skip(1).map_while(|line| {
            let (share, _) = line.split_once(" %  ")?;
            share.trim().replace('−', "-").parse::<f64>().ok()
        });
        let sum: f64 = shares.sum();
        assert!((sum - 100.0).abs() <= 5.0, "{sum}: {text}");
    }
}
