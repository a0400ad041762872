use super::*;
use crate::sample;

fn record(tsc: u64, number: u16, flow: u64, value: u64, detail: u32) -> Record {
    Record {
        tsc,
        flow,
        value,
        tail: Record::tail(number, 1, detail),
    }
}

/// A recording of these records, one core each.
fn of(records: Vec<Vec<Record>>) -> Recording {
    let mut one = sample::recording(records.len(), 0, 1);
    one.records = records;
    one
}

#[test]
fn finds_all_that_a_sample_did() {
    for cores in [1, 2, 5] {
        let one = sample::recording(cores, 501, 9);
        let model = Model::of(&one);
        let count = |number| {
            let records = one.records.iter().flatten();
            records.filter(|one| one.event() == number).count()
        };
        assert_eq!(model.messages.len(), 501);
        assert_eq!(model.half, (0, 0));
        assert_eq!(model.early, (0, 0));
        assert_eq!((model.loose, model.spoilt), (0, 0));
        assert_eq!(model.dispatchers.len(), 2 * cores);
        assert_eq!(model.dispatchers[1].name, "sample");
        assert_eq!(model.operations.len(), count(event::BEGIN));
        assert!(model.operations.iter().all(|one| one.end > Some(one.begin)));
        assert_eq!(model.steps.len(), count(event::STEP));
        assert!(
            model
                .steps
                .iter()
                .all(|step| { model.operations.iter().any(|one| one.flow == step.flow) })
        );
        for (core, header) in one.header.cores.iter().enumerate() {
            let own: Vec<&Running> = model
                .running
                .iter()
                .filter(|one| one.core == core as u32)
                .collect();
            assert_eq!(own.len() as u64, header.switches);
            assert!(own.windows(2).all(|two| two[0].end <= two[1].begin));
        }
        let named = |name: &str| model.spans.iter().filter(|one| one.name == name).count();
        assert_eq!(named("call"), count(event::CALL));
        assert_eq!(
            named("rounds"),
            count(event::USER_BEGIN) + count(event::USER_EVENT)
        );
        assert!(model.messages.iter().all(|one| {
            let monitor = |who: Option<usize>| model.dispatchers[who.unwrap()].name == "monitor";
            monitor(one.sender) && monitor(one.receiver)
        }));
        let mut times = model.spans.iter().map(|one| (one.begin, one.end));
        assert!(times.all(|(begin, end)| begin <= end && end <= model.length));
    }
}

#[test]
fn who_stops_first_ran_from_the_start() {
    let model = Model::of(&of(vec![vec![
        record(100, event::PAGE_FAULT, 0, 0, 0),
        record(150, event::BLOCKS, 0, 1, 7),
        record(160, event::IDLE, 0, 0, 0),
        record(200, event::RUNS, 0, 0, 8),
        record(210, event::FLUSH, 0, 0, 0),
    ]]));
    let times = model
        .running
        .iter()
        .map(|one| (one.dispatcher, one.begin, one.end));
    assert_eq!(times.collect::<Vec<_>>(), [(0, 0, 50), (1, 100, 110)]);
    assert_eq!(model.dispatchers[0].name, "dispatcher 7");
    assert_eq!(model.spans[0].dispatcher, Some(0));
}

#[test]
fn a_handle_is_anothers_later() {
    let name = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let model = Model::of(&of(vec![vec![
        record(1, event::MADE, name(b"abcdefgh"), name(b"ijklmnop"), 3),
        record(2, event::RUNS, 0, 0, 3),
        record(5, event::ENDED, 0, 0, 3),
        record(6, event::MADE, name(b"b\x1b\0\0\0\0\0\0"), 0, 3),
        record(7, event::RUNS, 0, 0, 3),
    ]]));
    let names: Vec<&str> = model
        .dispatchers
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["abcdefghijklmnop", "b?"]);
    assert_eq!(model.running.len(), 2);
    assert_eq!(model.running[1].dispatcher, 1);
}

#[test]
fn calls_end_where_they_return_and_where_they_do_not() {
    let model = Model::of(&of(vec![vec![
        record(10, event::RUNS, 0, 0, 1),
        record(20, event::CALL, 0, 5, 3),
        record(30, event::CALL, 0, 6, 4),
        record(35, event::CALL_DONE, 0, 9, 4),
        record(36, event::CALL_DONE, 0, 9, 4),
        record(40, event::CALL, 0, 6, 5),
        record(50, event::FLUSH, 0, 0, 0),
    ]]));
    let calls: Vec<(u64, u64, &str)> = model
        .spans
        .iter()
        .filter(|one| one.event == event::CALL)
        .map(|one| (one.begin, one.end, one.text.as_str()))
        .collect();
    assert_eq!(
        calls,
        [
            (10, 20, "3 of 0x5"),
            (20, 25, "4 of 0x6: error 9"),
            (30, 40, "5 of 0x6")
        ]
    );
    assert_eq!(model.loose, 1);
}

#[test]
fn what_lies_before_the_start_and_after_the_stop_is_cut() {
    let mut one = of(vec![
        vec![
            record(100, event::MADE, u64::from_le_bytes(*b"early\0\0\0"), 0, 1),
            record(110, event::RUNS, 0, 0, 1),
            record(120, event::SEND, 1, 0, 0),
            record(200, event::PAGE_FAULT, 0, 0, 0),
            record(210, event::SEND, 2, 0, 0),
            record(290, event::SEND, 3, 0, 0),
            record(310, event::PAGE_FAULT, 0, 0, 0),
        ],
        vec![
            record(220, event::RECEIVE, 1, 0, 0),
            record(230, event::RECEIVE, 2, 0, 0),
            record(300, event::FLUSH, 0, 0, 0),
            record(305, event::RECEIVE, 3, 0, 0),
        ],
    ]);
    one.header.start = u32::from(event::PAGE_FAULT);
    one.header.stop = u32::from(event::FLUSH);
    let model = Model::of(&one);
    assert_eq!(model.length, 100);
    assert_eq!(model.messages.len(), 1);
    assert_eq!(
        (model.messages[0].sent, model.messages[0].received),
        (10, 30)
    );
    assert_eq!(model.half, (1, 1));
    assert_eq!(model.dispatchers[0].name, "early");
    let times: Vec<_> = model
        .running
        .iter()
        .map(|one| (one.begin, one.end))
        .collect();
    assert_eq!(times, [(0, 100)]);
    assert_eq!(model.spans.len(), 2);
}

#[test]
fn an_end_before_the_start_ends_nothing() {
    let (fault, flush) = (event::PAGE_FAULT, event::FLUSH);
    let mut one = of(vec![
        vec![
            record(100, flush, 0, 0, 0),
            record(200, fault, 0, 0, 0),
            record(300, fault, 0, 0, 0),
            record(400, flush, 0, 0, 0),
        ],
        vec![record(150, flush, 0, 0, 0), record(500, flush, 0, 0, 0)],
    ]);
    let mut cut = |start: u16, stop: u16| {
        (one.header.start, one.header.stop) = (start.into(), stop.into());
        let model = Model::of(&one);
        let begin = model.spans.first().map_or(0, |one| one.begin);
        (model.length, model.spans.len(), begin, model.missing)
    };
    assert_eq!(cut(0, 0), (400, 6, 0, [None; 2]));
    assert_eq!(cut(fault, flush), (200, 3, 0, [None; 2]));
    assert_eq!(cut(0, fault), (100, 3, 0, [None; 2]));
    // One event may be both.
    assert_eq!(cut(fault, fault), (100, 2, 0, [None; 2]));
    // What does not come cuts nothing, and that is told.
    assert_eq!(
        cut(fault, event::MAP),
        (300, 4, 0, [None, Some(event::MAP)])
    );
    assert_eq!(
        cut(event::MAP, flush),
        (400, 6, 0, [Some(event::MAP), Some(flush)])
    );
    one.records.iter_mut().for_each(Vec::clear);
    one.header.start = fault.into();
    assert_eq!(Model::of(&one).missing, [None; 2]);
}

#[test]
fn a_dispatcher_that_ends_is_out_of_its_call() {
    let call = |tsc, number| record(tsc, event::CALL, 0, 0, number);
    let done = |tsc, number| record(tsc, event::CALL_DONE, 0, 0, number);
    for after in [
        record(150, event::RUNS, 0, 0, 1),
        record(150, event::IDLE, 0, 0, 0),
    ] {
        let model = Model::of(&of(vec![vec![
            record(100, event::RUNS, 0, 0, 2),
            record(110, event::USER_BEGIN, 7, 0, 0),
            call(120, 4),
            record(130, event::ENDED, 0, 0, 2),
            done(140, 4),
            after,
            record(160, event::RUNS, 0, 0, 1),
            call(170, 9),
            done(180, 9),
        ]]));
        assert_eq!(model.loose, 0);
        let times: Vec<_> = model.spans.iter().map(|one| (one.begin, one.end)).collect();
        assert_eq!(times, [(10, 50), (20, 40), (70, 80)]);
        assert!(model.spans[..2].iter().all(|one| one.dispatcher == Some(0)));
    }
    // By another's hand, in the middle of a call.
    let model = Model::of(&of(vec![vec![
        record(100, event::RUNS, 0, 0, 2),
        call(110, 9),
        record(120, event::BLOCKS, 0, 4, 2),
        record(130, event::RUNS, 0, 0, 1),
        call(140, 5),
        record(150, event::ENDED, 0, 0, 2),
        done(160, 5),
        record(200, event::IDLE, 0, 0, 0),
    ]]));
    assert_eq!(model.loose, 0);
    let times: Vec<_> = model.spans.iter().map(|one| (one.begin, one.end)).collect();
    assert_eq!(times, [(10, 50), (40, 60)]);
}

#[test]
fn cores_that_were_lost_and_those_that_came_back_are_told() {
    let phase = |tsc, number| record(tsc, event::PHASE, 0, 0, number);
    let mut one = of(vec![
        vec![phase(100, CPU_DRIVER), phase(200, PROGRAM)],
        vec![phase(150, CPU_DRIVER)],
        vec![phase(250, CPU_DRIVER)],
        vec![phase(260, 2)],
    ]);
    one.header.cores[1].is_lost = true;
    let model = Model::of(&one);
    assert_eq!((&model.lost[..], &model.late[..]), (&[1][..], &[2][..]));
    let text = crate::summary::table(&one, &model);
    assert!(text.contains("\ncore 1 was lost: "), "{text}");
    assert!(
        text.contains("\ncore 2 was started while the program"),
        "{text}"
    );
    // Its oldest records are gone, and so it is not known when it began.
    one.header.cores[2].overwritten = 1;
    one.header.cores[1].is_lost = false;
    let model = Model::of(&one);
    assert_eq!((model.lost.len(), model.late.len()), (0, 0));
}

#[test]
fn spoilt_records_are_left_out_and_counted() {
    let mut one = sample::recording(2, 50, 4);
    let clean = Model::of(&one);
    one.records[1].insert(7, record(u64::MAX, event::RUNS, 0, 0, 1));
    let tsc = one.records[1][8].tsc;
    one.records[1].insert(9, record(tsc, 0x1fff, 0, 0, 1));
    one.records.push(vec![record(1, event::SEND, 1, 2, 3)]);
    let model = Model::of(&one);
    assert_eq!(model.spoilt, 3);
    assert_eq!(model.messages, clean.messages);
    assert_eq!(model.running, clean.running);
}

#[test]
fn any_records_give_a_model() {
    let mut seed = 1u64;
    let mut next = || {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        seed >> 20
    };
    for round in 0..200 {
        let cores = 1 + round % 3;
        let mut records = vec![Vec::new(); cores];
        for own in &mut records {
            for _ in 0..next() % 300 {
                let all = event::EVENTS;
                let number = all[next() as usize % all.len()].number;
                own.push(record(
                    next() % 1000,
                    number,
                    next() % 4,
                    next() % 4,
                    next() as u32 % 4,
                ));
            }
        }
        let mut one = of(records);
        one.header.hz = next() % 3;
        one.header.start = next() as u32 % 300;
        one.header.stop = next() as u32 % 300;
        let model = Model::of(&one);
        assert!(model.running.iter().all(|one| one.begin <= one.end));
        assert!(model.spans.iter().all(|one| one.begin <= one.end));
    }
    assert_eq!(Model::of(&Recording::default()).length, 0);
}

#[test]
fn texts_get_their_arguments() {
    let one = record(0, 0, 255, 16, 7);
    assert_eq!(
        render("{detail}: {value:x} of {flow}", &one),
        "7: 0x10 of 255"
    );
    assert_eq!(render("{", &one), "0");
    assert_eq!(render("plain", &one), "plain");
}

#[test]
fn who_ran_before_the_core_was_idle_goes_on_without_a_record() {
    let model = Model::of(&of(vec![vec![
        record(0, event::RUNS, 0, 0, 1),
        record(10, event::BLOCKS, 0, 1, 1),
        record(12, event::CALL_DONE, 0, 0, 3),
        record(15, event::IDLE, 0, 0, 0),
        record(20, event::INTERRUPT, 0, 0, 0x41),
        record(22, event::WAKES, 0, 1, 1),
        record(30, event::RECEIVE, 5, 0, 0),
        record(40, event::SEND, 5, 0, 0),
    ]]));
    let times: Vec<_> = model
        .running
        .iter()
        .map(|one| (one.dispatcher, one.begin, one.end))
        .collect();
    assert_eq!(times, [(0, 0, 10), (0, 22, 40)]);
    assert_eq!(model.switches, [1]);
    let resumes = Model::of(&of(vec![vec![
        record(0, event::RUNS, 0, 0, 1),
        record(10, event::BLOCKS, 0, 1, 1),
        record(15, event::IDLE, 0, 0, 0),
        record(22, event::RESUMES, 0, 0, 1),
        record(40, event::BLOCKS, 0, 1, 1),
    ]]));
    let times: Vec<_> = resumes
        .running
        .iter()
        .map(|one| (one.begin, one.end))
        .collect();
    assert_eq!(times, [(0, 10), (22, 40)]);
    assert_eq!(resumes.switches, [1]);
    assert_eq!(
        model.spans[0].dispatcher, None,
        "the interrupt found nobody"
    );
}

#[test]
fn a_dispatcher_gets_its_name_after_it_was_made() {
    let mut one = of(vec![vec![
        record(0, event::MADE, 0, 0, 1),
        record(1, event::MADE, u64::from_le_bytes(*b"name\0\0\0\0"), 0, 1),
        record(2, event::RUNS, 0, 0, 1),
        record(3, event::RUNS, 0, 0, 2),
    ]]);
    one.header.cores[0].names = vec![String::new(), String::new(), "known".into()];
    let model = Model::of(&one);
    let names: Vec<&str> = model
        .dispatchers
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["name", "known"]);
}
