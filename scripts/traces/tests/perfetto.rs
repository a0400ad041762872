//! Files for ui.perfetto.dev, read by Perfetto's own definitions and its own trace processor.

use std::path::{Path, PathBuf};
use trace::event;
use traces::checks::Tools;
use traces::model::Model;
use traces::recording::Recording;
use traces::{perfetto, sample};

/// Where tools are kept, and files written: beside what cargo builds.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("perfetto")
}

fn check(tools: &Tools, name: &str, recording: &Recording) -> Model {
    let model = Model::of(recording);
    let file = folder().join(name);
    std::fs::write(&file, perfetto::write(recording, &model)).unwrap();
    let said = tools.check(&file, recording, &model);
    println!(
        "{name}: {}",
        said.unwrap_or_else(|error| panic!("{name}: {error}"))
    );
    model
}

#[test]
#[ignore = "fetches Perfetto's tools; `scripts/test` runs it"]
fn perfetto_reads_what_was_written() {
    let tools = Tools::find(&folder()).unwrap();
    check(&tools, "one-core", &sample::recording(1, 100, 1));
    let model = check(&tools, "skewed", &sample::skewed(16, 3000, 2));
    assert!(model.early.0 > 0 && model.early.1 == 0);

    // A message that arrives when it was sent, or before, is shown all the same.
    let mut late = sample::recording(3, 300, 3);
    for record in &mut late.records[1] {
        record.tsc = record.tsc / 1000 * 1000;
    }
    late.records[0].retain(|one| event::group(one.event()) != event::CLOCKS);
    late.header.hz = 1_000_000_000_000;
    let model = check(&tools, "coarse", &late);
    assert!(perfetto::moved(&model) > 0);

    // The end of a ring that was overwritten, and records that domains spoilt.
    let mut cut = sample::recording(4, 2000, 4);
    for (core, records) in cut.records.iter_mut().enumerate() {
        records.drain(..records.len() / (2 + core));
        for at in (0..records.len()).step_by(7) {
            records[at].tail ^= (at as u64 & 7) << 32 | (at as u64 & 3);
            records[at].flow ^= at as u64 & 1;
        }
    }
    let model = check(&tools, "spoilt", &cut);
    assert!(model.half.0 > 0 && model.half.1 > 0 && model.loose > 0);
    check(&tools, "empty", &Recording::default());

    // Spans that cross each other, and more operations at once than there are tracks for them.
    let record = |tsc, number, flow, detail| trace::Record {
        tsc,
        flow,
        value: 0,
        tail: trace::Record::tail(number, 1, detail),
    };
    let mut crossing = sample::recording(1, 0, 6);
    crossing.records = vec![vec![
        record(1, event::RUNS, 0, 3),
        record(2, event::CALL, 0, 5),
        record(3, event::USER_BEGIN, 9, 0),
        record(5, event::CALL_DONE, 0, 5),
        record(6, event::USER_END, 9, 0),
    ]];
    for operation in 0..50 {
        crossing.records[0].push(record(10 + operation, event::BEGIN, operation, 0x20));
    }
    for operation in 0..50 {
        crossing.records[0].push(record(100 + operation, event::END, operation, 0x20));
    }
    check(&tools, "crossing", &crossing);

    // The check fails where a file is not what it should be.
    let one = sample::recording(2, 50, 5);
    let model = Model::of(&one);
    let bytes = perfetto::write(&one, &model);
    let file = folder().join("cut");
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    assert!(tools.check(&file, &one, &model).is_err());
    let mut fewer = model.clone();
    fewer.messages.pop();
    std::fs::write(&file, perfetto::write(&one, &fewer)).unwrap();
    let error = tools.check(&file, &one, &model).unwrap_err();
    assert!(error.contains("expected 50, found 49"), "{error}");
}
