// Zooming, the pointer, keys; and what tests ask.
const stateLine = document.getElementById("state"), tip = document.getElementById("tip");
function state() {
  const { messages, arrows, cores, isDensity } = view.drawn;
  const how = messages === 0 ? "" : isDensity ? ": as density; zoom in for arrows" : arrows < messages ? `, ${number(arrows)} arrows of them between the cores shown` : ", each an arrow";
  stateLine.textContent = `${words(view.begin, 7)} to ${words(view.end, 7)}: ${words(view.end - view.begin)}; ${number(cores)} of ${number(data.cores.length)} cores; ${number(messages)} messages under way${how}.`;
}
let pending = false;
function redraw() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => { pending = false; draw(); });
}
// Cores of a chain up to which all are opened.
const VISITED = 6;
// Shortest time that fills the canvas.
const LEAST = 10;
function zoomTo(begin, end) {
  let time = Math.min(data.length, Math.max(LEAST, end - begin));
  const from = Math.max(0, Math.min(data.length - time, (begin + end - time) / 2));
  view.begin = from;
  view.end = Math.min(from + time, Math.max(data.length, LEAST));
}
function zoomAt(factor, x) {
  const time = timeAt(Math.max(view.label, x)), part = (time - view.begin) / (view.end - view.begin);
  const length = Math.min(data.length, Math.max(LEAST, (view.end - view.begin) * factor));
  const begin = Math.max(0, Math.min(data.length - length, time - part * length));
  view.begin = begin;
  view.end = begin + length;
  redraw();
}
const middle = () => view.label + (view.width - view.label) / 2;
function pan(pixelsRight) {
  const time = pixelsRight / (view.width - view.label) * (view.end - view.begin);
  zoomTo(view.begin + time, view.end + time);
  redraw();
}
function scroll(pixelsDown) { view.scroll += pixelsDown; layout(); redraw(); }
// Other heights of rows, so that the core there stays there.
function heighten(factor, y = HEAD) {
  const at = Math.max(0, Math.min(view.rows.length - 1, lower(view.tops, view.scroll + y - HEAD + .001, 0, view.tops.length) - 1));
  view.height = Math.max(Math.min(.4, (view.tall - HEAD) / view.rows.length), Math.min(OPEN, view.height * factor));
  layout();
  view.scroll = view.tops[at] - (y - HEAD);
  layout();
  redraw();
}
// Scrolls so that a core, and a row of it, are in view.
function showCore(core, row = -1) {
  layout();
  if (view.only && !view.only.includes(core)) { only(false); }
  const of = place(core);
  if (!of) return;
  let top = of[0], height = isOpen(core) ? Math.min(of[1], (view.tall - HEAD) * .8) : of[1];
  if (row >= 0 && isOpen(core)) { top += (row - data.cores[core].first) * LANE; height = LANE * 2; }
  if (top < HEAD || top + height > view.tall) view.scroll += top - HEAD - (view.tall - HEAD - height) / 3;
  layout();
}
// Cores that the chain of an operation comes to.
function coresOf(operation) {
  const cores = new Set([data.operations.core[operation]]);
  for (let at = data.chainStart[operation]; at < data.chainStart[operation + 1]; at++) {
    cores.add(data.hops.core[at]);
    if (data.hops.message[at]) cores.add(data.messages.from[data.hops.message[at] - 1]);
  }
  return [...cores].filter((core) => core < data.cores.length).sort((a, b) => a - b);
}
// Shows only those of the selected operation, or all.
function only(on) {
  view.only = null;
  if (on && view.selected >= 0) {
    view.only = coresOf(view.selected);
    view.height = view.scroll = 0;
  } else if (!on) {
    view.height = 0;
  }
  document.getElementById("only").setAttribute("aria-pressed", String(on));
  layout();
  redraw();
}
// Selects an operation, or none (-1); goes there.
function select(operation, go) {
  view.item = view.message = -1;
  if (go || operation < 0) view.visited.clear();
  view.selected = operation >= 0 && operation < data.operations.begin.length ? operation : -1;
  document.getElementById("only").hidden = view.selected < 0;
  if (view.selected < 0) {
    if (view.only) only(false);
    layout();
    overview();
    redraw();
    return;
  }
  operationPanel(operation);
  if (go) {
    const begin = data.operations.begin[operation], time = Math.max(timeOf(operation), LEAST);
    zoomTo(begin - time * .08, begin + time * 1.08);
    const cores = coresOf(operation);
    if (cores.length <= VISITED) cores.forEach((core) => view.visited.add(core));
    else view.visited.add(data.operations.core[operation]);
    showCore(data.operations.core[operation], data.operations.item[operation] >= 0 ? rowOf(data.operations.item[operation]) : -1);
  }
  redraw();
}

// What is under the pointer: ["item", index], ["message", index], ["core", index] or null.
function under(x, y) {
  if (y < HEAD) return null;
  const at = lower(view.tops, view.scroll + y - HEAD + .001, 0, view.tops.length) - 1;
  if (at < 0 || at >= view.rows.length) return null;
  const core = view.rows[at];
  if (x < view.label) return ["core", core];
  let nearest = 5, message = -1;
  for (const [index, fromX, fromY, toX, toY] of shown) {
    const across = toX - fromX, down = toY - fromY, square = across * across + down * down;
    const part = square ? Math.max(0, Math.min(1, ((x - fromX) * across + (y - fromY) * down) / square)) : 0;
    const distance = Math.hypot(x - fromX - part * across, y - fromY - part * down);
    if (distance < nearest) { nearest = distance; message = index; }
  }
  const one = data.cores[core], of = place(core);
  const row = isOpen(core) ? one.first + Math.floor((y - of[0] - 2) / LANE) : one.first;
  let item = -1;
  if (row >= one.first && row < one.first + one.rows) {
    const time = timeAt(x), slack = 3 * (view.end - view.begin) / (view.width - view.label);
    const from = data.rowStart[row], until = data.rowStart[row + 1];
    let best = slack;
    for (let at = Math.max(from, lower(data.begin, time - slack, from, until) - 1); at < until && data.begin[at] <= time + slack; at++) {
      const distance = time < data.begin[at] ? data.begin[at] - time : Math.max(0, time - data.end[at]);
      if (distance <= best) { best = distance; item = at; }
    }
  }
  // A box that the pointer is in goes before an arrow that only passes by.
  if (message >= 0 && (item < 0 || nearest < 2.5 || !isOpen(core))) return ["message", message];
  return item >= 0 ? ["item", item] : null;
}
function hover(x, y) {
  const what = under(x, y);
  tip.hidden = !what || what[0] === "core";
  canvas.style.cursor = what ? "pointer" : "grab";
  if (tip.hidden) return;
  const [title, lines] = what[0] === "item" ? describeItem(what[1]) : describeMessage(what[1]);
  tip.replaceChildren(element("b", {}, title), ...lines.map((line) => element("div", {}, line)));
  tip.style.left = `${Math.max(0, Math.min(x + 14, view.width - tip.offsetWidth - 4))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > view.tall ? y - tip.offsetHeight - 10 : y + 18}px`;
}
function click(x, y) {
  const what = under(x, y);
  if (!what) return;
  if (what[0] === "core") {
    if (view.height >= OPEN) { view.height = Math.min(OPEN - 2, Math.max(.4, (view.tall - HEAD) / view.rows.length)); view.opened.clear(); view.visited.clear(); }
    else if (isOpen(what[1])) { view.opened.delete(what[1]); view.visited.delete(what[1]); } else view.opened.add(what[1]);
    layout();
  } else if (what[0] === "message") {
    select(-1);
    view.message = what[1];
    itemPanel(...describeMessage(what[1]));
  } else if ((data.what[what[1]] & 3) === 2) {
    select(data.what[what[1]] >>> 2, false);
  } else {
    select(-1);
    view.item = what[1];
    itemPanel(...describeItem(what[1]));
  }
  redraw();
}

// The pointer: one drags, two pinch; a press without a move is a click.
const pointers = new Map();
let moved = 0, onMap = false, pinch = 0;
const at = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
function toMap(x) {
  const time = (x - view.label) / (view.width - view.label) * data.length, half = (view.end - view.begin) / 2;
  zoomTo(time - half, time + half);
  redraw();
}
canvas.addEventListener("pointerdown", (event) => {
  const [x, y] = at(event);
  try { canvas.setPointerCapture(event.pointerId); } catch (error) { if (error.name !== "NotFoundError") throw error; }
  pointers.set(event.pointerId, [x, y]);
  moved = pointers.size > 1 ? Infinity : 0;
  onMap = pointers.size === 1 && y < MAP && x >= view.label;
  if (onMap) toMap(x);
  if (pointers.size === 2) pinch = gap();
});
const gap = () => { const [a, b] = [...pointers.values()]; return Math.max(12, Math.hypot(a[0] - b[0], a[1] - b[1])); };
canvas.addEventListener("pointermove", (event) => {
  const [x, y] = at(event), last = pointers.get(event.pointerId);
  if (!last) { if (event.pointerType === "mouse") hover(x, y); return; }
  pointers.set(event.pointerId, [x, y]);
  moved += Math.abs(x - last[0]) + Math.abs(y - last[1]);
  if (onMap) { toMap(x); return; }
  if (pointers.size === 2) {
    const now = gap(), [a, b] = [...pointers.values()];
    zoomAt(pinch / now, (a[0] + b[0]) / 2);
    pinch = now;
  } else if (moved > 4) {
    tip.hidden = true;
    pan(last[0] - x);
    scroll(last[1] - y);
  }
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, (event) => {
    const last = pointers.get(event.pointerId);
    pointers.delete(event.pointerId);
    if (name === "pointerup" && last && moved <= 4 && !onMap) {
      click(...last);
      if (event.pointerType !== "mouse") hover(...last);
    }
  });
}
canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
canvas.addEventListener("dblclick", (event) => zoomAt(.4, at(event)[0]));
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const [x, y] = at(event), unit = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
  if (event.altKey) heighten(Math.exp(-event.deltaY * unit / 300), Math.max(HEAD, y));
  else if (event.shiftKey) scroll((event.deltaY || event.deltaX) * unit);
  else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(event.deltaX * unit);
  else zoomAt(Math.exp(event.deltaY * unit / (event.ctrlKey ? 80 : 300)), x);
}, { passive: false });

const query = document.getElementById("query");
const next = (step) => {
  if (query.value.trim().toLowerCase() !== lastQuery) find(query.value);
  else if (hits.length) goHit(hitAt + step);
};
query.addEventListener("keydown", (event) => {
  if (event.key === "Enter") next(event.shiftKey ? -1 : 1);
  if (event.key === "Escape") canvas.focus();
});
function theme(dark) {
  view.dark = dark;
  document.documentElement.classList.toggle("dark", dark);
  mix();
  if (view.selected >= 0) operationPanel(view.selected); else if (view.item < 0 && view.message < 0) overview();
}
function everything() {
  view.height = 0;
  view.scroll = 0;
  view.opened.clear();
  view.visited.clear();
  zoomTo(0, data.length);
  layout();
  redraw();
}
const actions = {
  previous: () => next(-1), next: () => next(1), in: () => zoomAt(.5, middle()), out: () => zoomAt(2, middle()), all: everything,
  lower: () => heighten(1 / 1.5), higher: () => heighten(1.5), only: () => only(!view.only), theme: () => { theme(!view.dark); redraw(); },
};
for (const [name, action] of Object.entries(actions)) document.getElementById(name).addEventListener("click", action);
const keys = {
  a: () => pan(-.2 * view.width), d: () => pan(.2 * view.width), ArrowLeft: () => pan(-.2 * view.width), ArrowRight: () => pan(.2 * view.width),
  w: () => zoomAt(.6, middle()), s: () => zoomAt(1 / .6, middle()), "+": actions.in, "=": actions.in, "-": actions.out,
  ArrowUp: () => scroll(-60), ArrowDown: () => scroll(60), PageUp: () => scroll(HEAD - view.tall), PageDown: () => scroll(view.tall - HEAD),
  "[": actions.lower, "]": actions.higher, 0: everything, o: () => { if (view.selected >= 0) actions.only(); }, t: actions.theme,
  n: actions.next, N: actions.previous, "/": () => query.focus(), Escape: () => select(-1),
};
addEventListener("keydown", (event) => {
  if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
addEventListener("resize", () => {
  const fitted = Math.abs(view.tops[view.rows.length] - (view.tall - HEAD)) < 2;
  if (fitted && !view.opened.size && !view.visited.size) view.height = 0;
  layout();
  redraw();
});
// Paper is white.
let wasDark = false;
addEventListener("beforeprint", () => { wasDark = view.dark; theme(false); draw(); });
addEventListener("afterprint", () => { theme(wasDark); draw(); });

theme(view.dark);
layout();
overview();
draw();

// A canvas is drawn when somebody looks at it.
const probe = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });

// What tests ask; times are in nanoseconds, as the page has them.
window.atoll = {
  // Numbers of what is in the page, by kind of operation as well.
  counts: () => ({
    ...head.counts, cores: data.cores.length, length: data.length, items: data.what.length,
    kinds: Object.fromEntries(byKind.map((one) => [one.kind, {
      ended: one.all.length, open: one.open, total: one.all.reduce((sum, at) => sum + data.operations.time[at], 0),
      longest: one.all.length ? data.operations.time[one.all[one.all.length - 1]] : 0,
    }])),
    running: data.cores.map((core) => {
      let sum = 0;
      for (let at = data.rowStart[core.first]; at < data.rowStart[core.first + 1]; at++) sum += data.end[at] - data.begin[at];
      return sum;
    }),
    wire: data.messages.sent.reduce((sum, sent, at) => sum + data.messages.received[at] - sent, 0),
    hops: data.hops.begin.length,
  }),
  zoomTo: (begin, end) => { zoomTo(begin, end); draw(); return [view.begin, view.end]; },
  open: (core, on = true) => { if (on) view.opened.add(core); else view.opened.delete(core); layout(); draw(); },
  find: (text) => { query.value = text; return find(text); },
  next: () => { next(1); return hitAt; },
  // Of an operation: what it is, and its time by cause; null where there is none.
  select: (operation) => {
    select(operation, operation >= 0);
    draw();
    if (view.selected < 0) return null;
    const sums = causesOf(operation);
    return { kind: data.operations.kind[operation], begin: data.operations.begin[operation], time: data.operations.time[operation],
      hops: data.chainStart[operation + 1] - data.chainStart[operation], causes: Object.fromEntries(head.causes.map((name, at) => [name, sums[at]])) };
  },
  text: (item) => textOf(item),
  // Draws until every pixel is there, and says what is in view.
  drawn: () => {
    const start = performance.now();
    draw();
    probe.drawImage(canvas, 0, 0);
    probe.getImageData(0, 0, 1, 1);
    return { ...view.drawn, milliseconds: performance.now() - start, begin: view.begin, end: view.end, selected: view.selected };
  },
};
