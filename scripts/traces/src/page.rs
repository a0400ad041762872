//! A page of its own: one HTML file that opens without a network, and shows all cores over time, the
//! messages between them, and the chain of each operation.
//!
//! The page holds a head, in JSON, and columns of numbers, in base64: unsigned LEB128, one column after
//! the other. `page/data.js` reads them back; here they are in their order:
//!
//! | column                          | of each                                                      |
//! |---------------------------------|--------------------------------------------------------------|
//! | `rows`                          | row: how many items it has                                   |
//! | `begin`, `time`                 | item: since the one before it in its row; how long           |
//! | `what`                          | item: its kind in bits 0 and 1, see `columns::Item`; what, above    |
//! | `text`, `words`                 | span: its text without numbers; the numbers that go into it  |
//! | `message_*`                     | message                                                      |
//! | `operation_*`                   | operation                                                    |
//! | `chain`, `hop_*`                | operation: its hops, plus one, or 0: not worked out; hop      |

mod columns;
#[cfg(test)]
mod tests;

use crate::causes::{Cause, Causes, Hop};
use crate::model::{Message, Model, Operation};
use crate::names;
use crate::recording::{Header, Recording};
use columns::{Column, Columns, Texts, base64};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use trace::event;

const TEMPLATE: &str = include_str!("page/trace.html");
const STYLE: &str = include_str!("page/trace.css");
const SCRIPTS: [&str; 4] = [
    include_str!("page/data.js"),
    include_str!("page/draw.js"),
    include_str!("page/panel.js"),
    include_str!("page/trace.js"),
];

/// Rows of one dispatcher: so many spans that overlap are shown.
const DEPTH: usize = 48;
/// Operations of each kind whose chains a page holds where there are more than [`CHAINS`]: the longest, and
/// as many that began first.
const CHAINS_OF_KIND: usize = 1_000;
/// Chains that a page holds of all operations.
const CHAINS: usize = 20_000;
/// Hops that a page holds.
const HOPS: usize = 300_000;

/// What is in a row.
#[derive(Clone, Copy)]
enum Item {
    /// The dispatcher with this index has the core.
    Running(usize),
    /// The span with this index.
    Span(usize),
    /// The operation with this index.
    Operation(usize),
}

/// An item with its time.
type Placed = (u64, u64, Item);

/// A line of rows of a core: one dispatcher, or its CPU driver.
#[derive(Default)]
struct Lane {
    items: Vec<Placed>,
    rows: Vec<Vec<Placed>>,
}

/// The page.
pub fn write(recording: &Recording, model: &Model) -> String {
    let header = &recording.header;
    let mut columns = Columns::default();
    let mut texts = Texts::default();
    let (cores, hidden) = lanes(header, model, &mut columns, &mut texts);
    messages(model, &mut columns);
    operations(model, &mut columns);
    let chains = chains(model, &mut columns);
    let label = label(header);
    let head = json!({
        "accelerator": header.accelerator,
        // A time is a number of instructions.
        "exact": header.accelerator == "icount",
        "hz": header.instruction_rate(),
        "length": model.length,
        "cores": cores,
        "dispatchers": model.dispatchers.iter().map(|one| json!([core_index(header, one.core), one.name, one.handle]))
            .collect::<Vec<_>>(),
        "kinds": kinds(model.operations.iter().map(|one| one.kind), names::request),
        "messageKinds": kinds(model.messages.iter().map(|one| message_kind(model, one)), message_name),
        "names": texts.names(),
        "templates": texts.templates(),
        "causes": Cause::ALL.map(Cause::name),
        "chains": chains,
        "axis": label,
        "counts": {
            "records": records(recording),
            "messages": model.messages.len(),
            "operations": model.operations.len(),
            "spans": model.spans.len(),
            "running": model.running.len(),
            "hidden": hidden,
        },
        "columns": columns.index(),
    });
    // A script ends where its text says so, even inside of a word.
    let head = head.to_string().replace('<', "\\u003c");
    let title = format!("Atoll: trace of {}", program(header));
    let parts = [
        ("TITLE", escaped(&title)),
        ("STYLE", STYLE.to_owned()),
        ("LINE", line(recording, model, hidden)),
        ("AXIS", escaped(label)),
        ("CORES", table(header)),
        ("COMMAND", escaped(&header.command)),
        ("HEAD", head),
        ("DATA", base64(&columns.bytes())),
        ("SCRIPT", SCRIPTS.concat()),
    ];
    let mut page = String::with_capacity(parts.iter().map(|(_, text)| text.len() + 64).sum());
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        let part = parts.iter().find(|(wanted, _)| *wanted == name);
        page.push_str(part.map_or("", |(_, text)| text));
        rest = after;
    }
    page.push_str(rest);
    page
}

/// What the time axis is of, without which its numbers could be taken for more than they are.
fn label(header: &Header) -> &'static str {
    match header.accelerator.as_str() {
        "icount" => "guest instructions (icount): repeat to the digit, and are no time",
        "tcg" => "emulated time (tcg): not to be read as that of a machine",
        "sim" => {
            "simulated nanoseconds (sim): they follow from the machine's file, no machine ran this"
        }
        "kvm" => "nanoseconds of a virtual machine (kvm)",
        _ => "nanoseconds of unknown origin",
    }
}

fn program(header: &Header) -> &str {
    match header.program.as_str() {
        "" => "no program",
        program => program,
    }
}

fn records(recording: &Recording) -> usize {
    recording.records.iter().map(Vec::len).sum()
}

/// Place of a core in the header, and so on the page. Cores that the header does not name are not
/// in the model.
fn core_index(header: &Header, core: u32) -> usize {
    let found = header.cores.iter().position(|one| one.core == core);
    found.unwrap_or(0)
}

/// What the trace is of, in one line.
fn line(recording: &Recording, model: &Model, hidden: usize) -> String {
    let header = &recording.header;
    let sum = |of: fn(&crate::recording::Core) -> u64| {
        header.cores.iter().map(of).fold(0, u64::saturating_add)
    };
    let (overwritten, torn) = (sum(|one| one.overwritten), sum(|one| one.torn));
    let (early, half) = (model.early, model.half);
    let mut line = String::new();
    let mut say = |what: &str, is_wrong: bool| {
        let class = if is_wrong { " class=\"wrong\"" } else { "" };
        let _ = write!(line, "<span{class}>{}</span> ", escaped(what));
    };
    say(program(header), false);
    say(&plural(header.cores.len(), "core"), false);
    say(&header.accelerator, false);
    say(&format!("revision {}", header.revision), false);
    say(&plural(records(recording), "record"), false);
    say(
        &format!("{} overwritten", number(overwritten)),
        overwritten > 0,
    );
    say(&format!("{} torn", number(torn)), torn > 0);
    say(&plural(model.messages.len(), "message"), false);
    say(
        &format!(
            "{} early ({} before the clocks were set right)",
            number(early.1),
            number(early.0)
        ),
        early.1 > 0,
    );
    say(
        &format!(
            "{} sent but not received, {} received but not sent",
            number(half.0),
            number(half.1)
        ),
        half.0 + half.1 > 0,
    );
    say(&plural(model.operations.len(), "operation"), false);
    for (count, what) in [
        (model.loose, "ends without a beginning"),
        (model.spoilt, "spoilt records left out"),
    ] {
        if count > 0 {
            say(&format!("{} {what}", number(count)), true);
        }
    }
    for what in names::remarks(model) {
        say(&what, true);
    }
    if hidden > 0 {
        let what = format!(
            "{} left out: more than {DEPTH} at once",
            plural(hidden, "span")
        );
        say(&what, true);
    }
    line
}

fn plural(count: usize, what: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{} {what}{end}", number(count as u64))
}

/// With a comma between each three digits.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// As HTML wants to have it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// What is known of each core.
fn table(header: &Header) -> String {
    let mut rows = String::new();
    for one in &header.cores {
        let _ = write!(rows, "<tr><td>{}</td><td>{}</td>", one.core, one.socket);
        let lost = [one.overwritten, one.torn];
        for (value, is_lost) in [one.written, one.records]
            .map(|value| (value, false))
            .into_iter()
            .chain(lost.map(|value| (value, value > 0)))
            .chain([one.sent, one.received, one.switches].map(|value| (value, false)))
        {
            let class = if is_lost { " class=\"wrong\"" } else { "" };
            let _ = write!(rows, "<td{class}>{}</td>", number(value));
        }
        rows.push_str("</tr>\n");
    }
    rows
}

/// Numbers of kinds with their names.
fn kinds(all: impl Iterator<Item = u32>, name: fn(u32) -> String) -> BTreeMap<u32, String> {
    let all: BTreeSet<u32> = all.collect();
    all.into_iter().map(|kind| (kind, name(kind))).collect()
}

/// Whether a record of this event is the CPU driver's, whoever ran.
fn is_driver(number: u16) -> bool {
    let own = [
        event::DISPATCH,
        event::INTERRUPTS,
        event::MEMORY,
        event::CAPABILITIES,
    ];
    own.contains(&event::group(number))
}

/// What each core shows: first who ran, then the CPU driver, then its dispatchers. Also, how many spans
/// found no place.
fn lanes(
    header: &Header,
    model: &Model,
    columns: &mut Columns,
    texts: &mut Texts,
) -> (Vec<Value>, usize) {
    let place: BTreeMap<u32, usize> = header
        .cores
        .iter()
        .enumerate()
        .map(|(at, one)| (one.core, at))
        .collect();
    let mut cores: Vec<BTreeMap<(bool, Option<usize>), Lane>> = Vec::new();
    cores.resize_with(header.cores.len(), BTreeMap::new);
    let mut running: Vec<Vec<Placed>> = vec![Vec::new(); header.cores.len()];
    for one in &model.running {
        if let Some(at) = place.get(&one.core) {
            running[*at].push((one.begin, one.end, Item::Running(one.dispatcher)));
        }
    }
    let mut add = |core: u32, dispatcher: Option<usize>, placed: Placed| {
        if let Some(at) = place.get(&core) {
            let key = (
                dispatcher.is_some_and(|one| !is_monitor(model, one)),
                dispatcher,
            );
            cores[*at].entry(key).or_default().items.push(placed);
        }
    };
    for (at, one) in model.operations.iter().enumerate() {
        let end = one.end.unwrap_or(model.length);
        add(
            one.core,
            one.dispatcher,
            (one.begin, end, Item::Operation(at)),
        );
    }
    for (at, one) in model.spans.iter().enumerate() {
        let dispatcher = one.dispatcher.filter(|_| !is_driver(one.event));
        add(one.core, dispatcher, (one.begin, one.end, Item::Span(at)));
    }
    let mut said = Vec::new();
    let mut hidden = 0;
    for ((own, lanes), header) in running.iter_mut().zip(&mut cores).zip(&header.cores) {
        own.sort_by_key(|one| one.0);
        row(columns, model, texts, own);
        let mut names = vec![json!([Value::Null, 1])];
        for ((_, dispatcher), lane) in lanes {
            hidden += lane.stack();
            for one in &lane.rows {
                row(columns, model, texts, one);
            }
            names.push(json!([dispatcher, lane.rows.len()]));
        }
        said.push(json!({"core": header.core, "socket": header.socket, "lanes": names}));
    }
    (said, hidden)
}

impl Lane {
    /// Divides items into rows in which none covers another; how many found no place.
    fn stack(&mut self) -> usize {
        let mut hidden = 0;
        let mut ends: Vec<u64> = Vec::new();
        self.items.sort_by_key(|one| (one.0, Reverse(one.1)));
        for one in self.items.drain(..) {
            let (begin, end) = (one.0, one.1.max(one.0));
            let free = ends.iter().position(|last| *last <= begin);
            let at = match free {
                Some(at) => at,
                None if ends.len() < DEPTH => {
                    ends.push(0);
                    self.rows.push(Vec::new());
                    ends.len() - 1
                }
                None => {
                    hidden += 1;
                    continue;
                }
            };
            ends[at] = end;
            self.rows[at].push(one);
        }
        hidden
    }
}

fn row(columns: &mut Columns, model: &Model, texts: &mut Texts, items: &[Placed]) {
    columns.put(Column::Rows, items.len() as u64);
    let mut last = 0;
    for (begin, end, item) in items {
        columns.put(Column::Begin, begin.saturating_sub(last));
        columns.put(Column::Time, end.saturating_sub(*begin));
        last = *begin;
        let (kind, what) = match *item {
            Item::Running(dispatcher) => (0, dispatcher),
            Item::Operation(operation) => (2, operation),
            Item::Span(span) => {
                let span = &model.spans[span];
                texts.put(columns, &span.text);
                (1, texts.name(&span.name))
            }
        };
        columns.put(Column::What, (what as u64) << 2 | kind);
    }
}

fn index(of: Option<usize>) -> u64 {
    of.map_or(0, |one| one as u64 + 1)
}

/// A difference of either sign, small where that is small.
fn signed(difference: u64) -> u64 {
    let difference = difference as i64;
    (difference << 1 ^ difference >> 63) as u64
}

/// Kind of a message, with bit 0 set where a monitor is at one end, because others give kinds other names.
fn message_kind(model: &Model, one: &Message) -> u32 {
    let is_of_monitor = [one.sender, one.receiver]
        .into_iter()
        .flatten()
        .any(|one| is_monitor(model, one));
    u32::from(one.kind) << 1 | u32::from(is_of_monitor)
}

fn message_name(kind: u32) -> String {
    names::message((kind >> 1) as u16, kind & 1 == 1)
}

fn is_monitor(model: &Model, dispatcher: usize) -> bool {
    model
        .dispatchers
        .get(dispatcher)
        .is_some_and(|one| one.name == "monitor")
}

fn messages(model: &Model, columns: &mut Columns) {
    let mut last = 0;
    for one in &model.messages {
        columns.put(Column::MessageSent, one.sent.saturating_sub(last));
        last = last.max(one.sent);
        // Those that arrive too early as well.
        let wire = one.received.wrapping_sub(one.sent);
        columns.put(Column::MessageWire, signed(wire));
        columns.put(Column::MessageFrom, u64::from(one.from));
        columns.put(Column::MessageTo, u64::from(one.to));
        columns.put(Column::MessageSender, index(one.sender));
        columns.put(Column::MessageReceiver, index(one.receiver));
        columns.put(Column::MessageKind, u64::from(message_kind(model, one)));
        columns.put_halves([Column::MessageFlowHigh, Column::MessageFlowLow], one.flow);
        columns.put_halves([Column::MessageWordHigh, Column::MessageWordLow], one.word);
    }
}

fn operations(model: &Model, columns: &mut Columns) {
    for one in &model.operations {
        columns.put(Column::OperationBegin, one.begin);
        let time = one.end.map(|end| end.saturating_sub(one.begin));
        columns.put(
            Column::OperationTime,
            time.map_or(0, |time| time.saturating_add(1)),
        );
        columns.put(Column::OperationCore, u64::from(one.core));
        columns.put(Column::OperationDispatcher, index(one.dispatcher));
        columns.put(Column::OperationKind, u64::from(one.kind));
        columns.put(Column::OperationError, one.error);
        columns.put_halves(
            [Column::OperationFlowHigh, Column::OperationFlowLow],
            one.flow,
        );
    }
}

/// Writes chains, and says of how many operations.
fn chains(model: &Model, columns: &mut Columns) -> String {
    let chosen = chosen(&model.operations);
    let causes = Causes::of(model);
    let mut of: Vec<Option<Vec<Hop>>> = vec![None; model.operations.len()];
    let mut hops = 0;
    let mut count = 0;
    for at in &chosen {
        if hops >= HOPS {
            break;
        }
        of[*at] = causes.path(*at);
        hops += of[*at].as_ref().map_or(0, Vec::len);
        count += 1;
    }
    for path in of {
        columns.put(
            Column::Chain,
            path.as_ref().map_or(0, |path| path.len() as u64 + 1),
        );
        let mut last = 0;
        for hop in path.iter().flatten() {
            columns.put(Column::HopBegin, signed(hop.begin.wrapping_sub(last)));
            last = hop.begin;
            columns.put(Column::HopWay, hop.received.saturating_sub(hop.begin));
            columns.put(Column::HopStay, hop.end.saturating_sub(hop.received));
            columns.put(Column::HopCore, u64::from(hop.to.core));
            columns.put(Column::HopDispatcher, index(hop.to.dispatcher));
            columns.put(Column::HopMessage, index(hop.message));
            for shares in [hop.way, hop.stay] {
                for share in shares.0 {
                    columns.put(Column::HopShares, share);
                }
            }
        }
    }
    if count == model.operations.len() {
        return String::new();
    }
    format!(
        "chains of {} of {} operations are in this page: of each kind the {} longest and as many that began first",
        number(count as u64),
        number(model.operations.len() as u64),
        number(CHAINS_OF_KIND as u64),
    )
}

/// The operations whose chains the page holds: the longest first.
fn chosen(operations: &[Operation]) -> Vec<usize> {
    let time = |at: &usize| {
        Reverse(
            operations[*at]
                .end
                .map_or(0, |end| end.saturating_sub(operations[*at].begin)),
        )
    };
    let mut all: Vec<usize> = (0..operations.len()).collect();
    all.sort_by_key(time);
    if all.len() <= CHAINS {
        return all;
    }
    let mut chosen = BTreeSet::new();
    for order in [all.clone(), (0..operations.len()).collect()] {
        let mut of_kind: BTreeMap<u32, usize> = BTreeMap::new();
        for at in order {
            let count = of_kind.entry(operations[at].kind).or_default();
            if *count < CHAINS_OF_KIND {
                *count += 1;
                chosen.insert(at);
            }
        }
    }
    all.retain(|at| chosen.contains(at));
    all
}
