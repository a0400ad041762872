//! Tests of the page of a trace: what a browser shows of a recording that was made up, against the numbers of
//! the recording.

use crate::browser;
use crate::harness::{Outcome, Pass, Test, Workshop};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use traces::causes::{Cause, Causes};
use traces::model::{Message, Model};
use traces::{names, page, sample};

/// Part of the trace that is zoomed in on, in thousandths.
const WINDOW: (u64, u64) = (300, 340);
/// Milliseconds that a picture of 1,000,000 records may take on any machine that tests run on.
const FRAME: f64 = 250.0;

/// What is common to both lookers-on: a trace's page in a window as wide as a phone and in one as wide as a desk,
/// and what goes wrong.
const LOOKER_ON: &str = r##"<!DOCTYPE html><html><body>
<iframe width="390" height="800" src="trace.html"></iframe>
<iframe width="1100" height="800" src="trace.html"></iframe>
<pre id="seen"></pre>
<script>
const wrong = [];
const expect = (what, is) => { if (!is) wrong.push(what); };
onerror = (message) => { wrong.push(String(message)); };
const say = (seen) => { document.getElementById("seen").textContent = JSON.stringify({ wrong, ...seen }); };
const colours = (page) => {
  const canvas = page.getElementById("canvas"), { width, height } = canvas;
  const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  return new Set(new Uint32Array(copy.getImageData(0, 0, width, height).data.buffer)).size;
};
"##;

/// Looks at all that there is.
const ALL: &str = r##"
onload = () => {
  let seen = {};
  for (const one of document.querySelectorAll("iframe")) {
    const width = +one.width, page = one.contentDocument, inside = one.contentWindow, atoll = inside.atoll;
    if (!atoll) { wrong.push(`no page at ${width}`); continue; }
    expect(`wider than ${width}: ${page.documentElement.scrollWidth}`, page.documentElement.scrollWidth <= width);
    expect("not one file", !page.querySelector("script[src], link, img, iframe"));
    expect(`nothing to see at ${width}`, colours(page) > 8);
    const canvas = page.getElementById("canvas"), box = canvas.getBoundingClientRect();
    const full = atoll.drawn();
    expect("begins with less than everything", full.begin === 0 && full.end === atoll.counts().length);
    expect("less than all cores", full.cores === atoll.counts().cores);
    // A wheel zooms where the pointer is.
    const x = box.left + box.width * .6, y = box.top + 200;
    canvas.dispatchEvent(new inside.WheelEvent("wheel", { deltaY: -300, clientX: x, clientY: y, bubbles: true, cancelable: true }));
    const zoomed = atoll.drawn(), part = (zoomed.end - zoomed.begin) / (full.end - full.begin);
    expect(`a wheel makes it ${part} of what it was`, part > .2 && part < .5);
    expect("it does not zoom where the pointer is", zoomed.begin > 0 && zoomed.end < full.end);
    // A drag moves.
    const pointer = (name, clientX) => canvas.dispatchEvent(new inside.PointerEvent(name, { pointerId: 1, clientX, clientY: y, bubbles: true }));
    pointer("pointerdown", x); pointer("pointermove", x - 20); pointer("pointermove", x - 60); pointer("pointerup", x - 60);
    const dragged = atoll.drawn();
    expect("a drag to the left does not go on in time", dragged.begin > zoomed.begin);
    expect("a drag zooms", Math.abs(dragged.end - dragged.begin - zoomed.end + zoomed.begin) < 1);
    // Keys do both.
    const key = (key) => inside.dispatchEvent(new inside.KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    key("w");
    expect("w does not zoom in", atoll.drawn().end - atoll.drawn().begin < dragged.end - dragged.begin);
    key("0");
    expect("0 does not show everything", atoll.drawn().end === full.end && atoll.drawn().begin === 0);
    const counts = atoll.counts();
    const operations = [];
    for (let at = 0; at < counts.operations; at++) operations.push(atoll.select(at));
    expect("no operation is selected", atoll.drawn().selected === counts.operations - 1);
    expect("the panel says nothing of a path", page.getElementById("panel").textContent.includes("Critical path"));
    expect("an operation that there is not", atoll.select(counts.operations) === null);
    for (let core = 0; core < counts.cores; core++) atoll.open(core);
    atoll.zoomTo(counts.length * BEGIN / 1000, counts.length * END / 1000);
    const window_ = atoll.drawn();
    const finds = {};
    for (const text of QUERIES) finds[text] = atoll.find(text);
    seen = { counts, operations, finds, messages: window_.messages, arrows: window_.arrows, begin: window_.begin, end: window_.end };
  }
  say(seen);
};
</script></body></html>
"##;

/// Measures pictures: everything, ever less of it, and opened cores.
const FRAMES: &str = r##"
onload = () => {
  const one = document.querySelectorAll("iframe")[1], atoll = one.contentWindow.atoll, times = [];
  const counts = atoll.counts(), steps = 24;
  for (const opened of [false, true]) {
    if (opened) for (let core = 0; core < Math.min(8, counts.cores); core++) atoll.open(core);
    for (let step = 0; step < steps; step++) {
      const length = counts.length * .7 ** step, begin = (counts.length - length) * .37;
      atoll.zoomTo(begin, begin + length);
      // The quickest of three, because others use the machine as well.
      times.push(Math.min(...[0, 1, 2].map(() => atoll.drawn().milliseconds)));
    }
  }
  expect("nothing to see", colours(one.contentDocument) > 8);
  say({ times, records: counts.records });
};
</script></body></html>
"##;

/// What was seen of all.
#[derive(Debug, Deserialize)]
struct Seen {
    wrong: Vec<String>,
    counts: Counts,
    operations: Vec<Operation>,
    finds: BTreeMap<String, usize>,
    messages: usize,
    arrows: usize,
    begin: f64,
    end: f64,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Counts {
    records: usize,
    messages: usize,
    operations: usize,
    spans: usize,
    hidden: usize,
    length: u64,
    running: Vec<u64>,
    wire: i64,
    hops: usize,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Operation {
    kind: u32,
    begin: u64,
    /// -1: it has no end.
    time: i64,
    hops: usize,
    causes: BTreeMap<String, u64>,
}

/// What was seen of the times of pictures.
#[derive(Debug, Deserialize)]
struct Frames {
    wrong: Vec<String>,
    times: Vec<f64>,
    records: usize,
}

/// All of them.
pub fn tests() -> Vec<Test> {
    vec![
        Test::new("trace/page", all),
        Test::new("trace/page-million", million),
    ]
}

/// The page shows the numbers of the trace, and does what hands ask for.
fn all(workshop: &Workshop) -> Outcome {
    let Some(browser) = browser::find() else {
        return Ok(browser::missing());
    };
    let folder = workshop.project.own_folder().join("trace-page");
    let recording = sample::skewed(5, 1_200, 11);
    let mut model = Model::of(&recording);
    with_requests(&mut model);
    // One arrives before it was sent, as clocks make it that are off.
    if let Some(one) = model.messages.iter_mut().find(|one| one.sent > 1_000) {
        one.received = one.sent - 777;
    }
    write(&folder, &page::write(&recording, &model))?;
    let spans = &model.spans;
    let text = spans.iter().rev().map(|one| one.text.as_str());
    let text = text.max_by_key(|text| text.len()).unwrap_or_default();
    let flow = model.operations.last().map_or(0, |one| one.flow);
    let flow = format!("{flow:#x}");
    let queries = [text, "rounds", &flow, "no such thing", "&<\">"];
    let script = ALL
        .replace("BEGIN", &WINDOW.0.to_string())
        .replace("END", &WINDOW.1.to_string())
        .replace("QUERIES", &serde_json::json!(queries).to_string());
    let seen: Seen = look(browser, &folder, &script)?;
    right(&folder, &seen.wrong)?;

    let causes = Causes::of(&model);
    let mut operations = Vec::new();
    for (at, one) in model.operations.iter().enumerate() {
        let shares = causes.shares(at).unwrap_or_default();
        operations.push(Operation {
            kind: one.kind,
            begin: one.begin,
            time: one.end.map_or(-1, |end| (end - one.begin) as i64),
            hops: causes.path(at).map_or(0, |path| path.len()),
            causes: Cause::ALL
                .map(|cause| (cause.name().to_owned(), shares[cause]))
                .into(),
        });
    }
    let mut running = vec![0; recording.header.cores.len()];
    for one in &model.running {
        running[one.core as usize] += one.end - one.begin;
    }
    let wire = |one: &Message| one.received as i64 - one.sent as i64;
    let counts = Counts {
        records: recording.records.iter().map(Vec::len).sum(),
        messages: model.messages.len(),
        operations: operations.len(),
        spans: spans.len(),
        hidden: 0,
        length: model.length,
        running,
        wire: model.messages.iter().map(wire).sum(),
        hops: operations.iter().map(|one| one.hops).sum(),
    };
    same("counts", &counts, &seen.counts)?;
    same("operations", &operations, &seen.operations)?;
    let finds: BTreeMap<String, usize> = queries
        .iter()
        .map(|query| ((*query).to_owned(), hits(&model, query)))
        .collect();
    same("what is found", &finds, &seen.finds)?;
    if finds[text] == 0 || finds[&flow] != 1 || finds["rounds"] == 0 {
        return Err(format!("expected something to find, found {finds:?}"));
    }
    let (begin, end) = (seen.begin, seen.end);
    let under_way =
        |one: &&Message| (one.sent as f64) < end && one.received.max(one.sent) as f64 >= begin;
    let expected = model.messages.iter().filter(under_way).count();
    same(
        "messages in view, and arrows",
        &(expected, expected),
        &(seen.messages, seen.arrows),
    )?;
    Ok(Pass::Passed(format!(
        "{} messages, {} operations, {} hops; {expected} arrows in view",
        counts.messages, counts.operations, counts.hops
    )))
}

/// Has programs ask their monitors by messages, as in the system, where the sample has them call: so that there
/// are chains of more than one hop.
fn with_requests(model: &mut Model) {
    let monitor = |core: u32| {
        let mut all = model.dispatchers.iter();
        all.position(|one| one.core == core && one.name == "monitor")
    };
    let mut more = Vec::new();
    for one in &model.operations {
        let own = model
            .steps
            .iter()
            .filter(|step| step.flow == one.flow && step.core == one.core);
        let (first, last, monitor) = (
            own.clone().next(),
            own.clone().next_back(),
            monitor(one.core),
        );
        let (Some(first), Some(last), Some(end)) = (first, last, one.end) else {
            continue;
        };
        let request = Message {
            flow: 1 << 40 | more.len() as u64,
            from: one.core,
            to: one.core,
            sender: one.dispatcher,
            receiver: monitor,
            sent: one.begin,
            received: first.at,
            kind: one.kind as u16,
            word: 0,
        };
        let answer = Message {
            flow: request.flow + 1,
            sender: monitor,
            receiver: one.dispatcher,
            sent: last.at,
            received: end,
            ..request
        };
        more.extend([request, answer]);
    }
    model.messages.extend(more);
    model.messages.sort_by_key(|one| one.sent);
}

/// Pictures of 1,000,000 records on 64 cores are quick.
fn million(workshop: &Workshop) -> Outcome {
    let Some(browser) = browser::find() else {
        return Ok(browser::missing());
    };
    let folder = workshop.project.own_folder().join("trace-page-million");
    let recording = sample::recording(64, 96_000, 3);
    let model = Model::of(&recording);
    let page = page::write(&recording, &model);
    write(&folder, &page)?;
    let mut seen: Frames = look(browser, &folder, FRAMES)?;
    right(&folder, &seen.wrong)?;
    seen.times.sort_unstable_by(f64::total_cmp);
    let most = seen.times.last().copied().unwrap_or(f64::INFINITY);
    let median = seen
        .times
        .get(seen.times.len() / 2)
        .copied()
        .unwrap_or_default();
    let said = format!(
        "{} records, {} KiB: a picture takes {median:.1} ms, at most {most:.1} ms",
        seen.records,
        page.len() / 1024
    );
    match seen.records >= 1_000_000 && most < FRAME {
        true => Ok(Pass::Passed(said)),
        false => Err(format!(
            "expected 1,000,000 records within {FRAME} ms, found {said}"
        )),
    }
}

/// How many things the page finds by a text without a digit, by a flow, or by the whole text of a span.
fn hits(model: &Model, query: &str) -> usize {
    let query = query.to_lowercase();
    let has = |text: &str| text.to_lowercase().contains(&query);
    let of_flow = |flow: u64| query == format!("{flow:#x}");
    let runs = model.running.iter().filter(|one| {
        let name = model.dispatchers.get(one.dispatcher);
        name.is_some_and(|one| has(&one.name))
    });
    let spans = model
        .spans
        .iter()
        .filter(|one| has(&one.name) || has(&one.text));
    let operations = model
        .operations
        .iter()
        .filter(|one| has(&names::request(one.kind)) || of_flow(one.flow));
    let is_monitor = |at: Option<usize>| {
        let one = at.and_then(|at| model.dispatchers.get(at));
        one.is_some_and(|one| one.name == "monitor")
    };
    let messages = model.messages.iter().filter(|one| {
        let of_monitor = is_monitor(one.sender) || is_monitor(one.receiver);
        has(&names::message(one.kind, of_monitor)) || of_flow(one.flow)
    });
    runs.count() + spans.count() + operations.count() + messages.count()
}

fn same<T: std::fmt::Debug + PartialEq>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    match expected == found {
        true => Ok(()),
        false => Err(format!("{what}: expected {expected:?}, found {found:?}")),
    }
}

fn right(folder: &Path, wrong: &[String]) -> Result<(), String> {
    match wrong {
        [] => Ok(()),
        wrong => Err(format!(
            "{}:\n{}",
            folder.join("trace.html").display(),
            wrong.join("\n")
        )),
    }
}

fn write(folder: &Path, page: &str) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(cannot)?;
    fs::write(folder.join("trace.html"), page).map_err(cannot)
}

/// Has the browser run a looker-on beside the page, and reads what it says.
fn look<T: for<'a> Deserialize<'a>>(
    browser: &str,
    folder: &Path,
    script: &str,
) -> Result<T, String> {
    browser::look(browser, folder, &format!("{LOOKER_ON}{script}"))
}
