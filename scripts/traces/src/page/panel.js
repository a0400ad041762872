// Beside the timeline: what is selected, and what there is; and the search.
const panel = document.getElementById("panel");
function element(name, attributes, ...children) {
  const one = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "click") one.addEventListener("click", value); else one.setAttribute(key, value);
  }
  one.append(...children.map((child) => child == null ? "" : child));
  return one;
}
const table = (titles, rows) => element("table", {}, element("tr", {}, ...titles.map((title) => element("th", title === "what" ? { class: "words" } : {}, title))), ...rows);
const cells = (values, attributes) => element("tr", attributes, ...values.map((value) => element("td", {}, value)));
const share = (part, all) => all > 0 ? `${(100 * part / all).toFixed(1)} %` : "";
// What the numbers of a table are, where they stand without their unit.
const unit = head.exact ? "in instructions" : "";
const link = (text, click) => element("button", { class: "link", click }, text);

// All operations by kind, when nothing is selected.
const byKind = (() => {
  const all = new Map();
  const { kind, time, error } = data.operations;
  for (let at = 0; at < kind.length; at++) {
    if (!all.has(kind[at])) all.set(kind[at], { kind: kind[at], all: [], open: 0, failed: 0 });
    const one = all.get(kind[at]);
    if (time[at] < 0) one.open++; else one.all.push(at);
    if (error[at]) one.failed++;
  }
  for (const one of all.values()) one.all.sort((a, b) => time[a] - time[b]);
  return [...all.values()].sort((a, b) => b.all.length - a.all.length);
})();
// Of those in order, the one that this share of all are not above (nearest rank).
const rank = (all, part) => all[Math.max(0, Math.ceil(part * all.length) - 1)];

function overview() {
  const { time } = data.operations;
  const goto = (at) => at === undefined ? "" : link(words(time[at], 0), () => select(at, true));
  const rows = byKind.map((one) => cells([head.kinds[one.kind], number(one.all.length), goto(rank(one.all, .5)), goto(rank(one.all, .99)), goto(one.all[one.all.length - 1])]));
  const open = byKind.reduce((sum, one) => sum + one.open, 0), failed = byKind.reduce((sum, one) => sum + one.failed, 0);
  panel.replaceChildren(
    element("h2", {}, "Operations"),
    byKind.length ? element("div", { class: "wide" }, table(["kind", "ended", "median", "99 %", "longest"], rows)) : element("p", {}, "None was recorded."),
    element("p", { class: "note" }, `Times${unit && ` ${unit}`}: each leads to the operation that took it.`, open ? ` ${number(open)} had not ended.` : "", failed ? ` ${number(failed)} ended with an error.` : ""),
    head.chains ? element("p", { class: "note" }, `The ${head.chains}.`) : "",
    legend(),
  );
}

function legend() {
  const names = new Map();
  head.dispatchers.forEach(([, name], at) => { if (!names.has(name)) names.set(name, at); });
  const all = [...names].slice(0, 24).map(([name, at]) => element("div", {}, swatch(palette.who[colourOf[at]]), name || "without a name"));
  return element("div", {}, element("h2", {}, "Who runs"), ...all, names.size > 24 ? element("div", {}, `and ${names.size - 24} more`) : "",
    element("div", {}, swatch(palette.operation), "an operation"), element("div", {}, swatch(palette.message), "messages: how many, where there are too many for arrows"));
}
function swatch(colour) {
  const one = element("span", { class: "mark" });
  one.style.background = colour;
  return one;
}

// Time of the chain of an operation by its cause, in the order of head.causes.
function causesOf(operation) {
  const sums = head.causes.map(() => 0);
  for (let at = data.chainStart[operation]; at < data.chainStart[operation + 1]; at++) {
    for (const part of [0, 1]) for (const [cause, time] of sharesOf(at, part)) sums[cause] += time;
  }
  return sums;
}

// The selected operation: what it took, by cause, and each hop.
function operationPanel(operation) {
  const { operations, hops } = data, one = operations;
  const flow = hex64(one.flowHigh[operation], one.flowLow[operation]);
  const core = data.cores[one.core[operation]];
  const took = one.time[operation] < 0 ? "not answered in this trace" : words(one.time[operation]);
  const parts = [
    element("p", {}, link("‹ all operations", () => select(-1))),
    element("h2", {}, `${kindOf(operation)}: ${took}`),
    element("p", {}, `core ${core ? core.number : "?"}, ${one.dispatcher[operation] ? dispatcherName(one.dispatcher[operation] - 1) : "unknown"}; begins at ${words(one.begin[operation], 7)}; flow ${flow}`),
  ];
  if (one.error[operation]) parts.push(element("p", { class: "wrong" }, `error ${one.error[operation]}`));
  if (data.chain[operation] === 0) {
    parts.push(element("p", {}, head.chains ? `Its chain is not in this page: ${head.chains}.` : "It has no chain: not enough of it was recorded."));
    panel.replaceChildren(...parts);
    return;
  }
  const sums = causesOf(operation), all = sums.reduce((sum, time) => sum + time, 0);
  const colour = (cause) => palette.causes[head.causes[cause]] || palette.causes.other;
  const bar = element("div", { class: "bar" });
  sums.forEach((time, cause) => {
    const piece = element("span", { title: `${head.causes[cause]}: ${words(time)}` });
    piece.style.cssText = `flex: ${time} 0 0; background: ${colour(cause)}`;
    bar.append(piece);
  });
  const order = sums.map((_, cause) => cause).filter((cause) => sums[cause] > 0).sort((a, b) => sums[b] - sums[a]);
  parts.push(element("h2", {}, `Critical path${unit && `, ${unit}`}`), bar,
    table(["cause", "time", "share"], [...order.map((cause) => cells([element("span", {}, swatch(colour(cause)), head.causes[cause]), words(sums[cause], 0), share(sums[cause], all)])),
      cells(["all", words(all, 0), ""])]));
  const rows = [];
  const first = data.chainStart[operation], last = data.chainStart[operation + 1];
  for (let at = first; at < Math.min(last, first + 500); at++) {
    const message = hops.message[at] - 1, on = coreNumber(hops.core[at]);
    const parted = (part) => sharesOf(at, part).flatMap(([cause, time]) => [element("span", { class: "part" }, swatch(colour(cause)), `${head.causes[cause]} ${words(time, 0)}`), " "]);
    const way = message < 0 ? [] : [element("div", {}, `${head.messageKinds[data.messages.kind[message]]}, ${wayOf(message)}: `, ...parted(0))];
    const stay = message >= 0 && hops.stay[at] === 0 ? "" : element("div", {}, `core ${on}, ${hops.dispatcher[at] ? dispatcherName(hops.dispatcher[at] - 1) : "unknown"}: `, ...parted(1));
    rows.push(cells([link(words(hops.begin[at] - one.begin[operation], 0), () => hop(at)), element("div", { class: "words" }, ...way, stay), words(hops.way[at] + hops.stay[at], 0)], { class: "hop" }));
  }
  parts.push(element("h2", {}, `${number(last - first)} ${last - first === 1 ? "hop" : "hops"}`), element("div", { class: "wide" }, table(["after", "what", "time"], rows)));
  if (last - first > 500) parts.push(element("p", { class: "note" }, "The first 500 are listed."));
  panel.replaceChildren(...parts);
}
function wayOf(message) {
  const from = coreNumber(data.messages.from[message]), to = coreNumber(data.messages.to[message]);
  return from === to ? `within core ${to}` : `core ${from} to ${to}`;
}
const coreNumber = (at) => data.cores[at] ? data.cores[at].number : "?";

function hop(at) {
  const { begin, way, stay, core } = data.hops, time = way[at] + stay[at], around = Math.max(time * .6, 20);
  zoomTo(begin[at] - around, begin[at] + time + around);
  showCore(core[at]);
  draw();
}

// Anything else that was clicked or found.
function itemPanel(title, lines) {
  panel.replaceChildren(element("p", {}, link("‹ all operations", () => select(-1))), element("h2", {}, title), ...lines.map((line) => element("p", {}, line)));
}
function describeItem(item) {
  const row = rowOf(item), core = data.cores[data.rowCore[row]], lane = core.lanes[data.rowLane[row]], time = data.end[item] - data.begin[item];
  const kind = data.what[item] & 3;
  return [nameOf(item), [`core ${core.number}, ${kind === 0 ? "has the core" : dispatcherName(lane.dispatcher)}`, `at ${words(data.begin[item], 7)}${time > 0 ? `, for ${words(time)}` : ""}`, textOf(item)].filter((line) => line)];
}
function describeMessage(at) {
  const one = data.messages, flight = one.received[at] - one.sent[at];
  return [head.messageKinds[one.kind[at]] || "message", [`from core ${coreNumber(one.from[at])}${one.sender[at] ? `, ${dispatcherName(one.sender[at] - 1)}` : ""} to core ${coreNumber(one.to[at])}${one.receiver[at] ? `, ${dispatcherName(one.receiver[at] - 1)}` : ""}`,
    `sent at ${words(one.sent[at], 7)}, taken out ${flight < 0 ? `${words(-flight)} before: the clocks are off` : `after ${words(flight)}`}`,
    `flow ${hex64(one.flowHigh[at], one.flowLow[at])}, first word ${hex64(one.wordHigh[at], one.wordLow[at])}`]];
}

// Search. A hit is [time, what it is, index].
let hits = [], hitAt = -1, lastQuery = null;
const ITEM = 0, MESSAGE = 1, MOST = 100000;
function find(text) {
  const query = text.trim().toLowerCase();
  hits = [];
  hitAt = -1;
  lastQuery = query;
  if (!query) { found(); return 0; }
  const has = (name) => String(name).toLowerCase().includes(query);
  const names = head.names.map(has), who = head.dispatchers.map(([, name]) => has(name));
  const kinds = new Map(Object.entries(head.kinds).map(([kind, name]) => [+kind, has(name)]));
  const messageKinds = new Map(Object.entries(head.messageKinds).map(([kind, name]) => [+kind, has(name)]));
  // Texts without a hole are looked at once, the others only where the query could lie in one.
  const numeric = /[0-9a-f]/.test(query), templates = head.templates.map(has);
  const holed = head.templates.map((one) => numeric && /[\u0001\u0002]/.test(one));
  const isFlow = /^(0x)?[0-9a-f]{5,16}$/.test(query), flow = isFlow ? query.replace(/^0x/, "").padStart(16, "0") : "";
  const high = isFlow ? parseInt(flow.slice(0, 8), 16) : 0, low = isFlow ? parseInt(flow.slice(8), 16) : 0;
  let count = 0;
  const hit = (time, kind, index) => { if (count++ < MOST) hits.push([time, kind, index]); };
  const { what, begin, spanOf } = data;
  for (let at = 0; at < what.length; at++) {
    const one = what[at] >>> 2;
    let is;
    switch (what[at] & 3) {
      case 0: is = who[one]; break;
      case 1: {
        const template = data.text[spanOf[at]];
        is = names[one] || templates[template] || holed[template] && textOf(at).includes(query);
        break;
      }
      default: is = kinds.get(data.operations.kind[one]) || isFlow && data.operations.flowHigh[one] === high && data.operations.flowLow[one] === low;
    }
    if (is) hit(begin[at], ITEM, at);
  }
  const messages = data.messages;
  for (let at = 0; at < messages.sent.length; at++) {
    if (messageKinds.get(messages.kind[at]) || isFlow && messages.flowHigh[at] === high && messages.flowLow[at] === low) hit(messages.sent[at], MESSAGE, at);
  }
  hits.sort((a, b) => a[0] - b[0]);
  find.count = count;
  if (hits.length) {
    // The first one that is not before the view.
    const next = hits.findIndex((one) => one[0] >= view.begin);
    goHit(next < 0 ? 0 : next);
  }
  found();
  return count;
}
function found() {
  const text = !lastQuery ? "" : !hits.length ? "nothing" : `${number(hitAt + 1)} of ${number(find.count)}${find.count > MOST ? `, the first ${number(MOST)} kept` : ""}`;
  document.getElementById("found").textContent = text;
}
function goHit(at) {
  hitAt = (at + hits.length) % hits.length;
  const [, kind, index] = hits[hitAt];
  view.item = view.message = -1;
  if (kind === MESSAGE) {
    const { sent, received, from } = data.messages;
    near(Math.min(sent[index], received[index]), Math.max(sent[index], received[index]));
    view.message = index;
    showCore(from[index]);
    itemPanel(...describeMessage(index));
  } else {
    near(data.begin[index], data.end[index]);
    if ((data.what[index] & 3) === 2) select(data.what[index] >>> 2, false); else { view.selected = -1; itemPanel(...describeItem(index)); }
    const core = data.rowCore[rowOf(index)];
    view.visited.clear();
    if ((data.what[index] & 3) !== 0) view.visited.add(core);
    view.item = index;
    showCore(core, rowOf(index));
  }
  found();
  draw();
}
// Moves the view to a time, and closer where it would be too small to see.
function near(begin, end) {
  const time = Math.max(end - begin, 1), now = view.end - view.begin;
  const wanted = time > now * .8 || time < now / 200 ? Math.max(time * 8, 50) : now;
  const middle = (begin + end) / 2;
  zoomTo(middle - wanted / 2, middle + wanted / 2);
}
