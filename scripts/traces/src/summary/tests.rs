//! Tables of a trace that was made by hand.

use super::*;
use crate::causes::tests::small;
use crate::columns::WIDTH;
use crate::recording::Core;

fn recording(accelerator: &str, is_exact: bool) -> Recording {
    let core = |core, overwritten| Core {
        core,
        records: 20,
        written: 20 + overwritten,
        overwritten,
        sent: 7,
        received: 7,
        switches: 3,
        ..Core::default()
    };
    Recording {
        header: Header {
            version: 1,
            revision: "0123456789ab".into(),
            accelerator: accelerator.into(),
            command: "./scripts/trace --cores 2 --exec 'unmap-test 2'".into(),
            program: "unmap-test 2".into(),
            hz: 1_000_000_000,
            is_exact,
            cores: vec![core(0, 0), core(1, 5)],
            ..Header::default()
        },
        records: Vec::new(),
    }
}

#[test]
fn what_is_known_is_told() {
    let mut model = small();
    model.operations[0].error = 7;
    model.half = (3, 1);
    model.early = (2, 0);
    let text = table(&recording("icount", true), &model);
    assert!(
        text.lines().all(|line| line.chars().count() <= WIDTH),
        "{text}"
    );
    for part in [
        "unmap-test 2, 2 cores, icount, revision 0123456789ab",
        "guest instructions of all cores together",
        "space unmap",
        "space unmap: 1 not answered",
        "space unmap: 1 failed, the core has too little memory left",
        "5 records were overwritten and 0 half written",
        "7 messages with both ends; 3 were sent and not seen to arrive, 1 arrived",
        "2 would arrive before they were sent",
    ] {
        let found = text.replace('\n', " ").replace("   ", " ");
        assert!(found.contains(part), "{part}\n{text}");
    }
    // The row of the operations: three, the longer of the two that ended took 550.
    let row = text
        .lines()
        .find(|line| line.starts_with("space unmap  "))
        .unwrap();
    let cells: Vec<_> = row.split_whitespace().skip(2).collect();
    assert_eq!(cells[..6], ["3", "10", "550", "550", "550", "2.3"]);
    // Of 560: work 10 + 0 + 20 + 80 + 20 and the other's 10.
    let causes = Causes::of(&model);
    let kinds = kinds(&model, &causes);
    let shares = kinds[&0x33].shares;
    let percents = Cause::ALL.map(|cause| percent(shares[cause], 560));
    assert_eq!(cells[6..], percents.each_ref().map(String::as_str));
    assert_eq!(shares.sum(), 560);
}

#[test]
fn an_emulators_times_are_not_told() {
    let model = small();
    let text = table(&recording("tcg", false), &model);
    assert!(text.contains("times say nothing of a machine"), "{text}");
    assert!(!text.contains("P50") && !text.contains("550"), "{text}");
    let told = table(&recording("kvm", false), &model);
    assert!(told.contains("P50") && told.contains("550"), "{told}");
    let simulated = table(&recording("sim", true), &model);
    assert!(simulated.contains("simulated nanoseconds"), "{simulated}");
}

#[test]
fn a_trace_of_nothing_is_told_as_such() {
    let mut empty = recording("icount", true);
    empty.header.cores.clear();
    empty.header.program = "a\u{1b}[31m".into();
    let text = table(&empty, &Model::default());
    assert!(text.contains("no operation began"), "{text}");
    assert!(text.contains("no message has both ends"), "{text}");
    assert!(text.contains("no record was lost"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn tables_of_any_run_fit_the_terminal() {
    for (cores, messages) in [(1, 10), (3, 2000), (70, 20_000)] {
        let mut recording = crate::sample::recording(cores, messages, 3);
        let model = Model::of(&recording);
        for accelerator in ["icount", "tcg", "kvm", "sim"] {
            recording.header.accelerator = accelerator.into();
            recording.header.is_exact = accelerator == "icount";
            let text = table(&recording, &model);
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(WIDTH), "{text}");
            assert_eq!(text.contains("MAX"), accelerator != "tcg");
            let both = format!("{} messages with both ends", grouped(messages as u64));
            assert!(text.contains(&both), "{text}");
        }
    }
}

#[test]
fn times_beyond_all_bounds_are_no_reason_to_stop() {
    let mut model = small();
    let mut long = model.operations[0];
    (long.begin, long.end) = (0, Some(u64::MAX));
    model.operations = vec![long; 5];
    model.messages[6].received = u64::MAX;
    model.running.last_mut().unwrap().end = u64::MAX;
    model.length = u64::MAX;
    let mut recording = recording("icount", true);
    recording.header.hz = u64::MAX;
    let text = table(&recording, &model);
    assert!(
        text.lines().all(|line| line.chars().count() <= WIDTH),
        "{text}"
    );
}
