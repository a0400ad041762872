// Drawing: the timeline, only what is in view.
const HEAD = 82, MAP = 36, RULER = 20, STRIP = 20;
// Height of a row of an opened core, of a core from which on all are opened, and of a text.
const LANE = 15, OPEN = 30, TEXT = 12;
// Messages in view up to which each is an arrow: in all, and for each pixel of the width.
const ARROWS = 3000, ARROWS_WIDE = 1.5;
const SHADES = 24;
const PALETTES = {
  light: { back: "#ffffff", text: "#222222", dim: "#666666", line: "#dddddd", strong: "#222222", arrow: "#7a4a00", early: "#cc0000", message: "#d55e00", lane: "#f4f4f4", veil: "rgba(255,255,255,.72)",
    who: ["#0072b2", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#8c6bb1", "#a6761d", "#66a61e"], driver: "#b0b0b0", operation: "#f0e442",
    causes: { work: "#0072b2", queue: "#e69f00", wire: "#d55e00", sleep: "#8c6bb1", other: "#999999" } },
  dark: { back: "#16181b", text: "#dddddd", dim: "#9a9a9a", line: "#3a3d42", strong: "#888888", arrow: "#e0b070", early: "#ff5548", message: "#ff9040", lane: "#1f2226", veil: "rgba(22,24,27,.75)",
    who: ["#4aa8e0", "#2fbf95", "#e8a93a", "#d98ab8", "#86c8ee", "#a58ccc", "#c09040", "#88c040"], driver: "#777777", operation: "#c8bd30",
    causes: { work: "#4aa8e0", queue: "#e8a93a", wire: "#ff9040", sleep: "#a58ccc", other: "#909090" } },
};
const canvas = document.getElementById("canvas");
const view = {
  begin: 0, end: data.length, scroll: 0, height: 0, width: 0, tall: 0, label: 64, only: null,
  // Cores that are opened: by hand, and because the selected chain comes there.
  opened: new Set(), visited: new Set(),
  dark: matchMedia("(prefers-color-scheme: dark)").matches, selected: -1, message: -1, item: -1,
  rows: [], tops: [], drawn: { items: 0, arrows: 0, messages: 0, cores: 0, milliseconds: 0 },
};
let palette = PALETTES.light;
const pixels = (time) => view.label + (time - view.begin) / (view.end - view.begin) * (view.width - view.label);
const timeAt = (x) => view.begin + (x - view.label) / (view.width - view.label) * (view.end - view.begin);

// Colour of a dispatcher: by its name, names in the order of how long they ran.
const colourOf = (() => {
  const time = new Map();
  for (const [, name] of head.dispatchers) time.set(name, 0);
  for (const core of data.cores) {
    for (let at = data.rowStart[core.first]; at < data.rowStart[core.first + 1]; at++) {
      const one = head.dispatchers[data.what[at] >>> 2];
      if (one) time.set(one[1], time.get(one[1]) + data.end[at] - data.begin[at]);
    }
  }
  const names = [...time.keys()].filter((name) => name !== "monitor").sort((a, b) => time.get(b) - time.get(a));
  const colours = new Map(names.map((name, at) => [name, 1 + at % 7]));
  colours.set("monitor", 0);
  return head.dispatchers.map(([, name]) => colours.get(name));
})();

// For each core, in steps of equal time: how long it ran (summed up from the beginning), how many messages it
// sent or got (the same), and who ran longest, that for ever longer steps.
const pyramid = (() => {
  let steps = 256;
  while (steps < 65536 && steps * 2 * data.cores.length <= 1 << 21) steps *= 2;
  const width = data.length / steps;
  const ends = data.cores.map(() => 0);
  const { sent, received, from, to } = data.messages;
  const known = (core) => core < data.cores.length;
  for (let at = 0; at < sent.length; at++) {
    if (known(from[at])) ends[from[at]]++;
    if (known(to[at])) ends[to[at]]++;
  }
  const times = ends.map((count) => new Float64Array(count));
  ends.fill(0);
  for (let at = 0; at < sent.length; at++) {
    if (known(from[at])) times[from[at]][ends[from[at]]++] = sent[at];
    if (known(to[at])) times[to[at]][ends[to[at]]++] = received[at];
  }
  const best = new Float64Array(steps);
  const cores = data.cores.map((core, index) => {
    const busy = new Float64Array(steps + 1), count = new Uint32Array(steps + 1), who = new Uint8Array(steps);
    best.fill(0);
    const first = data.rowStart[core.first], last = data.rowStart[core.first + 1];
    for (let at = first; at < last; at++) {
      const colour = colourOf[data.what[at] >>> 2] || 0, begin = data.begin[at], end = data.end[at];
      for (let step = Math.min(steps - 1, Math.floor(begin / width)); step < steps && step * width < end; step++) {
        const part = Math.min(end, (step + 1) * width) - Math.max(begin, step * width);
        busy[step + 1] += part;
        if (part > best[step]) { best[step] = part; who[step] = colour; }
      }
    }
    times[index].sort();
    for (const time of times[index]) count[Math.min(steps, Math.floor(Math.max(0, time) / width) + 1)]++;
    for (let step = 0; step < steps; step++) { busy[step + 1] += busy[step]; count[step + 1] += count[step]; }
    const levels = [who];
    for (let size = steps / 2; size >= 64; size /= 2) {
      const below = levels[levels.length - 1], level = new Uint8Array(size), scale = steps / size;
      for (let step = 0; step < size; step++) {
        const middle = busy[step * scale + scale / 2];
        const left = middle - busy[step * scale], right = busy[step * scale + scale] - middle;
        level[step] = left >= right ? below[2 * step] : below[2 * step + 1];
      }
      levels.push(level);
    }
    return { busy, count, levels, times: times[index] };
  });
  return { steps, width, cores };
})();

// For messages, by blocks: the latest arrival so far, so that those under way are found.
const latest = (() => {
  const blocks = new Float64Array((data.messages.sent.length >>> 8) + 1).fill(-1);
  data.messages.received.forEach((time, at) => {
    blocks[at >>> 8] = Math.max(blocks[at >>> 8], time, data.messages.sent[at]);
  });
  return blocks;
})();

// Messages that are under way in a time, at most so many; how many there are.
function messagesIn(begin, end, most, found) {
  const { sent, received } = data.messages, last = lower(sent, end, 0, sent.length);
  let count = 0;
  for (let block = 0; block << 8 < last; block++) {
    if (latest[block] < begin) continue;
    for (let at = block << 8; at < Math.min(last, (block + 1) << 8); at++) {
      if (Math.max(received[at], sent[at]) < begin) continue;
      if (count++ < most) found.push(at);
    }
  }
  return count;
}

// Mixtures of each colour with the background, as canvas images want them.
let shades = new Uint32Array(0), messageShades = new Uint32Array(0);
function mix() {
  palette = PALETTES[view.dark ? "dark" : "light"];
  const parts = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const back = parts(palette.back);
  const table = (colour) => Array.from({ length: SHADES + 1 }, (_, step) => {
    const share = step === 0 ? 0 : .25 + .75 * step / SHADES;
    const [red, green, blue] = parts(colour).map((one, at) => Math.round(one * share + back[at] * (1 - share)));
    return (255 << 24 | blue << 16 | green << 8 | red) >>> 0;
  });
  shades = Uint32Array.from(palette.who.flatMap(table));
  messageShades = Uint32Array.from(table(palette.message));
}

// Which cores are shown where: view.rows are cores, view.tops their upper edges and the end of all.
function layout() {
  const box = canvas.getBoundingClientRect();
  view.width = Math.max(120, Math.round(box.width));
  view.tall = Math.max(160, Math.round(box.height));
  view.label = view.width < 600 ? 40 : 108;
  view.rows = view.only || data.cores.map((_, at) => at);
  const room = view.tall - HEAD;
  if (!view.height) {
    // All dispatchers where there is room for them.
    const opened = view.rows.reduce((sum, core) => sum + LANE * data.cores[core].rows + 8, 0);
    view.height = opened <= room ? OPEN : Math.min(OPEN - 2, Math.max(room / view.rows.length, .4));
  }
  view.tops = [0];
  for (const core of view.rows) {
    const height = isOpen(core) ? LANE * data.cores[core].rows + 8 : view.height;
    view.tops.push(view.tops[view.tops.length - 1] + height);
  }
  view.scroll = Math.max(0, Math.min(view.scroll, view.tops[view.rows.length] - room));
}
const isOpen = (core) => view.height >= OPEN || view.opened.has(core) || view.visited.has(core);
// Upper edge and height of a core on the canvas; null where it is not shown.
function place(core) {
  const at = view.only ? view.only.indexOf(core) : core;
  return at < 0 || at >= view.rows.length ? null : [HEAD + view.tops[at] - view.scroll, view.tops[at + 1] - view.tops[at]];
}
// The same of a dispatcher (its index plus one; 0: none) of a core.
function placeOf(core, dispatcher) {
  const of = place(core);
  if (!of || !isOpen(core)) return of;
  const one = data.cores[core];
  const lane = one.lanes.find((lane, at) => at > 0 && lane.dispatcher === (dispatcher ? dispatcher - 1 : null)) || one.lanes[0];
  return [of[0] + 2 + (lane.first - one.first) * LANE, lane.count * LANE];
}

// The same of a row of an opened core.
function placeOfRow(core, row) {
  const of = place(core);
  return of && [of[0] + 2 + (row - data.cores[core].first) * LANE, LANE];
}

// Where the edges of pixels lie in the steps of the pyramid, and the middles in those of a level: the same for
// all cores.
const edges = { key: "", step: new Uint32Array(8193), part: new Float64Array(8193), middle: new Uint32Array(8192), level: 0 };
function findEdges(begin, end, width) {
  const key = `${begin} ${end} ${width}`;
  if (edges.key === key) return;
  edges.key = key;
  const step = (end - begin) / width, last = pyramid.steps, levels = pyramid.cores[0].levels;
  edges.level = 0;
  while (edges.level + 1 < levels.length && pyramid.width * 2 ** (edges.level + 1) <= step) edges.level++;
  const scale = pyramid.width * 2 ** edges.level, most = levels[edges.level].length - 1;
  for (let x = 0; x <= width; x++) {
    const place = Math.min(last, Math.max(0, (begin + x * step) / pyramid.width));
    edges.step[x] = Math.min(last - 1, Math.floor(place));
    edges.part[x] = place - edges.step[x];
    if (x < width) edges.middle[x] = Math.min(most, Math.max(0, Math.floor((begin + (x + .5) * step) / scale)));
  }
}
// One line of pixels: how busy a core was, in whose colour; and how many messages it had.
const covered = new Float32Array(8192), owner = new Uint8Array(8192);
function heat(core, begin, end, width, image, at, below, rows) {
  const { busy, count, levels, times } = pyramid.cores[core], step = (end - begin) / width;
  if (step >= pyramid.width) {
    findEdges(begin, end, width);
    const { step: index, part, middle } = edges, who = levels[edges.level], shade = SHADES / step;
    let before = busy[index[0]] + (busy[index[0] + 1] - busy[index[0]]) * part[0];
    for (let x = 0; x < width; x++) {
      const next = index[x + 1], sum = busy[next] + (busy[next + 1] - busy[next]) * part[x + 1];
      const share = (sum - before) * shade;
      // What differs by less than a rounding error is nothing.
      image[at + x] = share > 1e-6 ? shades[who[middle[x]] * (SHADES + 1) + Math.min(SHADES, Math.ceil(share))] : shades[0];
      before = sum;
    }
    if (rows < 2) return;
    for (let x = 0; x < width; x++) {
      image[below + x] = messageShades[messageShade(count[index[x + 1] + Math.round(part[x + 1])] - count[index[x] + Math.round(part[x])])];
    }
    return;
  }
  covered.fill(0, 0, width);
  const first = data.rowStart[data.cores[core].first], last = data.rowStart[data.cores[core].first + 1];
  for (let item = Math.max(first, lower(data.begin, begin, first, last) - 1); item < last && data.begin[item] < end; item++) {
    const from = Math.max(0, (data.begin[item] - begin) / step), to = Math.min(width, (data.end[item] - begin) / step);
    const colour = colourOf[data.what[item] >>> 2] || 0;
    for (let x = Math.floor(from); x < to; x++) {
      const part = Math.min(to, x + 1) - Math.max(from, x);
      if (part * 2 >= covered[x]) owner[x] = colour;
      covered[x] += part;
    }
  }
  for (let x = 0; x < width; x++) {
    image[at + x] = shades[owner[x] * (SHADES + 1) + (covered[x] > 0 ? Math.min(SHADES, Math.ceil(covered[x] * SHADES)) : 0)];
  }
  if (rows < 2) return;
  covered.fill(0, 0, width);
  for (let one = lower(times, begin, 0, times.length); one < times.length && times[one] < end; one++) {
    covered[Math.min(width - 1, Math.floor((times[one] - begin) / step))]++;
  }
  for (let x = 0; x < width; x++) image[below + x] = messageShades[messageShade(covered[x])];
}
const messageShade = (count) => count <= 0 ? 0 : Math.min(SHADES, 4 + Math.floor(4 * Math.log2(count)));

// Cores as an image, one above the other, each with so many lines of pixels.
function heatImage(cores, begin, end, width, rows) {
  const image = new ImageData(width, Math.max(1, cores.length * rows)), words = new Uint32Array(image.data.buffer);
  cores.forEach((core, index) => {
    const at = index * rows * width;
    heat(core, begin, end, width, words, at, at + (rows - 1) * width, rows);
    for (let copy = 1; copy < rows - 1; copy++) words.copyWithin(at + copy * width, at, at + width);
  });
  const one = new OffscreenCanvas(image.width, image.height);
  one.getContext("2d").putImageData(image, 0, 0);
  return one;
}

// A time in words; instructions without their unit where `digits` is 0.
function words(time, digits = 4) {
  if (head.exact) return number(Math.round(time * head.hz / 1e9)) + (digits ? " instr." : "");
  const [scale, unit] = Math.abs(time) >= 1e9 ? [1e9, "s"] : Math.abs(time) >= 1e6 ? [1e6, "ms"] : Math.abs(time) >= 1e3 ? [1e3, "µs"] : [1, "ns"];
  return `${Number((time / scale).toPrecision(Math.max(digits, 4)))} ${unit}`;
}
const number = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, ",");

// Round times of the ruler, at most so many.
function ticks(begin, end, most) {
  const unit = head.exact ? 1e9 / head.hz : 1;
  let step = unit;
  for (let at = 0; (end - begin) / step > most; at++) step = unit * [1, 2, 5][at % 3] * 10 ** Math.floor(at / 3);
  const all = [];
  for (let time = Math.ceil(begin / step) * step; time <= end; time += step) all.push(time);
  return all;
}
function axisText(time, step) {
  if (head.exact) return number(Math.round(time * head.hz / 1e9));
  const [scale, unit] = step >= 1e8 ? [1e9, "s"] : step >= 1e5 ? [1e6, "ms"] : step >= 100 ? [1e3, "µs"] : [1, "ns"];
  return `${Number((time / scale).toFixed(3)).toLocaleString("en")} ${unit}`;
}

let mapImage = null, mapKey = "";
// Draws everything that is in view.
function draw() {
  const start = performance.now(), drawn = { items: 0, arrows: 0, messages: 0, cores: 0, milliseconds: 0 };
  const ratio = Math.min(3, devicePixelRatio || 1), { width, tall, label } = view;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(tall * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(tall * ratio);
  }
  const to = canvas.getContext("2d", { alpha: false });
  to.setTransform(ratio, 0, 0, ratio, 0, 0);
  to.fillStyle = palette.back;
  to.fillRect(0, 0, width, tall);
  to.font = "11px system-ui, sans-serif";
  to.textBaseline = "middle";
  const wide = Math.max(1, Math.floor(width - label)), room = tall - HEAD;
  // Cores in view.
  let first = lower(view.tops, view.scroll, 0, view.tops.length);
  if (first > 0 && view.tops[first] > view.scroll) first--;
  let last = first;
  while (last < view.rows.length && view.tops[last] < view.scroll + room) last++;
  drawn.cores = last - first;
  to.save();
  to.beginPath();
  to.rect(0, HEAD, width, room);
  to.clip();
  for (let at = first; at < last;) {
    if (isOpen(view.rows[at])) { opened(to, view.rows[at], drawn); at++; continue; }
    let end = at;
    while (end < last && !isOpen(view.rows[end])) end++;
    const rows = view.height >= 5 ? 4 : 1;
    const image = heatImage(view.rows.slice(at, end), view.begin, view.end, wide, rows);
    to.imageSmoothingEnabled = view.height * ratio < 1.5;
    to.drawImage(image, label, HEAD + view.tops[at] - view.scroll, width - label, view.tops[end] - view.tops[at]);
    if (view.height >= 5) {
      to.fillStyle = palette.back;
      for (let one = at; one < end; one++) to.fillRect(label, HEAD + view.tops[one + 1] - view.scroll - 1, width, 1);
    }
    at = end;
  }
  labels(to, first, last);
  arrows(to, drawn);
  chain(to);
  marked(to);
  to.restore();
  ruler(to);
  strip(to, wide, drawn);
  minimap(to, wide);
  drawn.milliseconds = performance.now() - start;
  view.drawn = drawn;
  state();
}

// An opened core: all its rows.
function opened(to, core, drawn) {
  const one = data.cores[core], [top, height] = place(core);
  const bottom = view.tall;
  to.fillStyle = palette.lane;
  to.fillRect(view.label, top, view.width, height - 1);
  one.lanes.forEach((lane, laneIndex) => {
    for (let row = lane.first; row < lane.first + lane.count; row++) {
      const y = top + 2 + (row - one.first) * LANE;
      if (y + LANE < HEAD || y > bottom) continue;
      line(to, row, y, drawn, lane);
      if (laneIndex > 0) continue;
      // Below who runs, its messages.
      const wide = Math.max(1, Math.floor(view.width - view.label));
      to.imageSmoothingEnabled = false;
      to.drawImage(heatImage([core], view.begin, view.end, wide, 2), 0, 1, wide, 1, view.label, y + LANE - 3, view.width - view.label, 3);
    }
    if (laneIndex > 0) {
      to.fillStyle = palette.line;
      to.fillRect(view.label, top + 1 + (lane.first - one.first) * LANE, view.width, 1);
    }
  });
  to.fillStyle = palette.strong;
  to.fillRect(0, top + height - 1, view.width, .5);
}

// One row: boxes where there is room for them, marks where not.
function line(to, row, y, drawn, lane) {
  const { begin, end, what } = data, from = data.rowStart[row], until = data.rowStart[row + 1];
  const scale = (view.width - view.label) / (view.end - view.begin);
  let item = lower(begin, view.begin, from, until);
  while (item > from && end[item - 1] >= view.begin) item--;
  let last = view.label - 1;
  const own = lane.dispatcher == null ? palette.driver : palette.who[colourOf[lane.dispatcher] || 0];
  const named = [];
  for (; item < until && begin[item] <= view.end; item++) {
    const x = Math.max(view.label, view.label + (begin[item] - view.begin) * scale);
    const right = Math.min(view.width, view.label + (end[item] - view.begin) * scale);
    drawn.items++;
    // What would lie on the pixel of the one before it is not to be seen.
    if (Math.max(right, x + 1) <= last + .5) continue;
    const kind = what[item] & 3;
    to.fillStyle = kind === 0 ? palette.who[colourOf[what[item] >>> 2] || 0] : kind === 2 ? palette.operation : own;
    to.globalAlpha = kind === 1 ? .75 : 1;
    if (end[item] === begin[item]) to.fillRect(Math.max(x, last), y + 3, 1.5, LANE - 5);
    else to.fillRect(Math.max(x, last), y + 1, Math.max(right - Math.max(x, last) - (right - x > 4 ? .75 : 0), .75), LANE - (kind === 0 ? 4 : 2));
    last = Math.max(right, x + 1);
    const next = item + 1 < until ? Math.min(view.width, view.label + (begin[item + 1] - view.begin) * scale) : view.width;
    const space = end[item] === begin[item] ? next - x - 4 : right - x;
    if (space > 22) named.push(item, x, space, end[item] === begin[item]);
  }
  to.globalAlpha = 1;
  for (let at = 0; at < named.length; at += 4) {
    const kind = what[named[at]] & 3;
    to.fillStyle = named[at + 3] ? palette.dim : kind === 2 || kind === 0 || lane.dispatcher != null ? (view.dark ? "#000" : kind === 2 ? "#222" : "#fff") : (view.dark ? "#000" : "#222");
    fitted(to, nameOf(named[at]), named[at + 1] + 3, y + LANE / 2, named[at + 2] - 5);
  }
}
// A text, as far as there is room.
function fitted(to, text, x, y, room) {
  const most = Math.floor(room / 6);
  if (most < 2) return;
  to.fillText(text.length <= most ? text : text.slice(0, most - 1) + "…", x, y);
}

function labels(to, first, last) {
  to.fillStyle = palette.back;
  to.fillRect(0, HEAD, view.label, view.tall);
  let free = -Infinity;
  for (let at = first; at < last; at++) {
    const core = view.rows[at], [top, height] = place(core);
    if (isOpen(core)) {
      const one = data.cores[core];
      to.fillStyle = palette.text;
      to.font = "bold 11px system-ui, sans-serif";
      to.fillText(`${view.label > 60 ? "core " : ""}${one.number}`, 4, top + 2 + LANE / 2);
      to.font = "11px system-ui, sans-serif";
      to.fillStyle = palette.dim;
      if (view.label > 60) {
        one.lanes.slice(1).forEach((lane) => {
          fitted(to, dispatcherName(lane.dispatcher), 10, top + 2 + (lane.first - one.first + .5) * LANE, view.label - 12);
        });
      }
      free = top + height;
    } else if (top + height / 2 - TEXT / 2 >= free) {
      to.fillStyle = palette.dim;
      to.fillText(`${view.label > 60 ? "core " : ""}${data.cores[core].number}`, 4, Math.max(HEAD + TEXT / 2, top + height / 2));
      free = top + height / 2 + TEXT * (height < TEXT ? 1.6 : .5);
    }
  }
}

// Middle of where a message leaves or arrives.
function endOf(core, dispatcher) {
  const of = placeOf(core, dispatcher);
  return of && of[0] + Math.min(of[1], isOpen(core) ? LANE : of[1]) / 2;
}
// Messages whose arrows are on the canvas, for the pointer: index and both ends.
let shown = [];
function arrows(to, drawn) {
  const found = [];
  shown = [];
  drawn.messages = messagesIn(view.begin, view.end, ARROWS + 1, found);
  const most = Math.min(ARROWS, ARROWS_WIDE * (view.width - view.label));
  drawn.isDensity = drawn.messages > (view.height < 2.5 ? most / 5 : most);
  if (drawn.isDensity) return;
  const { sent, received, from, sender, receiver } = data.messages, target = data.messages.to;
  const late = [], early = [];
  for (const at of found) {
    const y = endOf(from[at], sender[at]), toY = endOf(target[at], receiver[at]);
    if (y == null || toY == null || Math.max(y, toY) < HEAD || Math.min(y, toY) > view.tall) continue;
    const one = [at, pixels(sent[at]), y, pixels(received[at]), toY];
    shown.push(one);
    (received[at] < sent[at] ? early : late).push(one);
  }
  drawn.arrows = shown.length;
  to.save();
  to.beginPath();
  to.rect(view.label, HEAD, view.width, view.tall);
  to.clip();
  to.globalAlpha = Math.max(.3, Math.min(.8, 300 / shown.length));
  pointed(to, late, palette.arrow, 1);
  pointed(to, early, palette.early, 1.5);
  to.restore();
}
// Arrows with their heads.
function pointed(to, all, colour, width) {
  to.strokeStyle = to.fillStyle = colour;
  to.lineWidth = width;
  to.beginPath();
  for (const [, x, y, toX, toY] of all) { to.moveTo(x, y); to.lineTo(toX, toY); }
  to.stroke();
  to.beginPath();
  const size = 3 + 1.5 * width;
  for (const [, x, y, toX, toY] of all) {
    const length = Math.hypot(toX - x, toY - y);
    if (length < 8) continue;
    const across = (toX - x) / length * size, down = (toY - y) / length * size;
    to.moveTo(toX, toY);
    to.lineTo(toX - across - down / 2.2, toY - down + across / 2.2);
    to.lineTo(toX - across + down / 2.2, toY - down - across / 2.2);
  }
  to.fill();
}

// Waits of a message in their order, with how high they are drawn; how many causes there are.
const WAITS = [["wire", 0], ["sleep", .5], ["other", .5], ["queue", .5], ["work", .5]], CAUSES = head.causes.length;
// Of the way (0) or the stay (1) of a hop: causes with their times, where there is any.
function sharesOf(hop, part) {
  const from = (hop * 2 + part) * CAUSES;
  return [...data.hops.shares.subarray(from, from + CAUSES)].map((time, cause) => [cause, time]).filter((one) => one[1] > 0);
}

// The chain of the selected operation, over everything else.
function chain(to) {
  if (view.selected < 0) return;
  to.fillStyle = palette.veil;
  to.fillRect(view.label, HEAD, view.width, view.tall);
  to.save();
  to.beginPath();
  to.rect(view.label, HEAD, view.width, view.tall);
  to.clip();
  const { operations, hops, messages } = data;
  const box = (core, dispatcher, begin, time, colour, filled, item = -1) => {
    const of = item >= 0 && isOpen(core) ? placeOfRow(core, rowOf(item)) : placeOf(core, dispatcher);
    if (!of) return;
    const x = pixels(begin), width = Math.max(2, pixels(begin + time) - x);
    const height = Math.max(3, Math.min(of[1], isOpen(core) ? LANE : of[1])) - 1;
    to.fillStyle = to.strokeStyle = colour;
    to.lineWidth = 1.5;
    if (filled) to.fillRect(x, of[0] + (1 - filled) * height, width, height * filled); else to.strokeRect(x, of[0] + 1, width, height - 1);
  };
  const one = view.selected, lines = [];
  box(operations.core[one], operations.dispatcher[one], operations.begin[one], timeOf(one), palette.text, 0, operations.item[one]);
  for (let at = data.chainStart[one]; at < data.chainStart[one + 1]; at++) {
    const core = hops.core[at], who = hops.dispatcher[at], index = hops.message[at] - 1;
    // What it waited for on the way, in the order in which that comes; then what it did.
    let time = hops.begin[at];
    for (const [name, part] of WAITS) {
      const share = hops.shares[at * 2 * CAUSES + head.causes.indexOf(name)] || 0;
      if (share > 0 && name !== "wire") box(core, who, time, share, palette.causes[name], part);
      time += share;
    }
    time = hops.begin[at] + hops.way[at];
    for (const [cause, share] of sharesOf(at, 1)) {
      box(core, who, time, share, palette.causes[head.causes[cause]], 1);
      time += share;
    }
    if (index >= 0) {
      const y = endOf(messages.from[index], messages.sender[index]), toY = endOf(messages.to[index], messages.receiver[index]);
      if (y != null && toY != null) lines.push([index, pixels(messages.sent[index]), y, pixels(messages.received[index]), toY]);
    }
  }
  pointed(to, lines, palette.causes.wire, 2);
  to.restore();
}
// Time that an operation took, or until the end of the trace.
const timeOf = (one) => data.operations.time[one] >= 0 ? data.operations.time[one] : data.length - data.operations.begin[one];

// A frame around what was clicked or found.
function marked(to) {
  to.strokeStyle = palette.text;
  to.lineWidth = 2;
  if (view.item >= 0) {
    const row = rowOf(view.item), core = data.rowCore[row], of = place(core);
    if (of) {
      const x = pixels(data.begin[view.item]), width = Math.max(3, pixels(data.end[view.item]) - x);
      const y = isOpen(core) ? of[0] + 2 + (row - data.cores[core].first) * LANE : of[0];
      to.strokeRect(x, y, width, Math.max(3, isOpen(core) ? LANE : of[1]));
    }
  }
  if (view.message >= 0) {
    const { from, sender, receiver, sent, received } = data.messages, at = view.message;
    const y = endOf(from[at], sender[at]), toY = endOf(data.messages.to[at], receiver[at]);
    if (y != null && toY != null) pointed(to, [[at, pixels(sent[at]), y, pixels(received[at]), toY]], palette.text, 2.5);
  }
}

function ruler(to) {
  const y = MAP + RULER / 2 + 2;
  to.fillStyle = palette.dim;
  const all = ticks(view.begin, view.end, Math.max(2, (view.width - view.label) / (head.exact ? 120 : 90)));
  const step = all.length > 1 ? all[1] - all[0] : view.end - view.begin;
  for (const time of all) {
    const x = pixels(time), text = axisText(time, step);
    to.fillStyle = palette.line;
    to.globalAlpha = .5;
    to.fillRect(x, MAP + 4, 1, view.tall);
    to.globalAlpha = 1;
    to.fillStyle = palette.dim;
    if (x + 6 * text.length < view.width) to.fillText(text, x + 3, y);
  }
  to.fillStyle = palette.dim;
  to.fillText(head.exact ? (view.label > 60 ? "instructions" : "instr.") : head.accelerator, 4, y);
}

// How many messages there are, over time.
function strip(to, wide, drawn) {
  const { sent } = data.messages, top = MAP + RULER + 4;
  const counts = new Uint32Array(wide), step = (view.end - view.begin) / wide;
  let before = lower(sent, view.begin, 0, sent.length), most = 0;
  for (let x = 0; x < wide; x++) {
    const next = lower(sent, view.begin + (x + 1) * step, before, sent.length);
    counts[x] = next - before;
    most = Math.max(most, counts[x]);
    before = next;
  }
  to.fillStyle = palette.message;
  for (let x = 0; x < wide; x++) {
    if (!counts[x]) continue;
    const height = Math.max(1, counts[x] / most * (STRIP - 2));
    to.fillRect(view.label + x, top + STRIP - height, 1, height);
  }
  to.fillStyle = palette.dim;
  to.fillText(view.label > 60 ? "messages sent" : "sent", 4, top + STRIP / 2);
  to.fillStyle = palette.strong;
  to.fillRect(0, HEAD - 1, view.width, 1);
}

// All of the trace, and where the view is in it.
function minimap(to, wide) {
  const key = `${wide} ${view.dark}`;
  if (mapKey !== key) {
    const all = heatImage(data.cores.map((_, at) => at), 0, data.length, wide, 1);
    mapImage = new OffscreenCanvas(wide, 2 * MAP);
    const small = mapImage.getContext("2d");
    small.imageSmoothingQuality = "high";
    small.imageSmoothingEnabled = all.height > 2 * MAP;
    small.drawImage(all, 0, 0, wide, 2 * MAP);
    mapKey = key;
  }
  to.imageSmoothingEnabled = true;
  to.drawImage(mapImage, view.label, 0, view.width - view.label, MAP);
  const full = view.width - view.label;
  const from = view.label + view.begin / data.length * full, until = view.label + view.end / data.length * full;
  to.fillStyle = palette.veil;
  to.fillRect(view.label, 0, from - view.label, MAP);
  to.fillRect(until, 0, view.width - until, MAP);
  to.strokeStyle = palette.text;
  to.lineWidth = 1;
  to.strokeRect(Math.min(from, view.width - 3) + .5, .5, Math.max(2, until - from - 1), MAP - 1);
  to.fillStyle = palette.dim;
  to.fillText("all", 4, MAP / 2);
}
