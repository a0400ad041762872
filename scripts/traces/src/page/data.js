"use strict";
// What the page holds, read back: columns of unsigned LEB128 into typed arrays.
const head = JSON.parse(document.getElementById("head").textContent);
const data = (() => {
  const element = document.getElementById("data");
  const encoded = element.textContent.trim();
  element.remove();
  let bytes;
  if (Uint8Array.fromBase64) {
    bytes = Uint8Array.fromBase64(encoded);
  } else {
    const binary = atob(encoded);
    bytes = new Uint8Array(binary.length);
    for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  }
  const places = {};
  let place = 0;
  for (const [name, length] of head.columns) {
    places[name] = bytes.subarray(place, place + length);
    place += length;
  }
  // All numbers of a column, in an array of this type. `change` is called with each.
  const column = (name, Type, change) => {
    const from = places[name] || new Uint8Array(0);
    let count = 0;
    for (let at = 0; at < from.length; at++) count += from[at] < 128;
    const to = new Type(count);
    for (let at = 0, index = 0; index < count; index++) {
      let byte = from[at++], value = byte & 127;
      for (let scale = 128; byte >= 128; scale *= 128) {
        byte = from[at++];
        value += (byte & 127) * scale;
      }
      to[index] = change ? change(value, index) : value;
    }
    return to;
  };
  const sum = () => { let all = 0; return (step) => all += step; };
  const signed = (value) => value % 2 ? -(value + 1) / 2 : value / 2;
  const core = new Map(head.cores.map((one, at) => [one.core, at]));
  const place_of = (number) => core.has(number) ? core.get(number) : 0xffff;

  // Rows: from rowStart[row] on, so many items.
  const rowCount = column("rows", Uint32Array);
  const rowStart = new Uint32Array(rowCount.length + 1);
  rowCount.forEach((count, row) => { rowStart[row + 1] = rowStart[row] + count; });
  const begin = column("begin", Float64Array);
  for (let row = 0; row < rowCount.length; row++) {
    for (let at = rowStart[row] + 1; at < rowStart[row + 1]; at++) begin[at] += begin[at - 1];
  }
  const end = column("time", Float64Array, (time, at) => begin[at] + time);
  const what = column("what", Uint32Array);
  const text = column("text", Uint32Array);

  // Where the numbers of each span's text begin.
  const words = places.words || new Uint8Array(0);
  const holes = head.templates.map((one) => (one.match(/[\u0001\u0002]/g) || []).length);
  const wordStart = new Uint32Array(text.length + 1);
  for (let span = 0, at = 0; span < text.length; span++) {
    for (let left = holes[text[span]]; left > 0; at++) left -= words[at] < 128;
    wordStart[span + 1] = at;
  }
  // Which span an item is; items of other kinds count as none.
  const spanOf = new Uint32Array(what.length);
  for (let at = 0, span = 0; at < what.length; at++) {
    spanOf[at] = span;
    span += (what[at] & 3) === 1;
  }

  // Rows by core, and which core and lane a row is of.
  const rowCore = new Uint16Array(rowCount.length), rowLane = new Uint16Array(rowCount.length);
  let row = 0;
  const cores = head.cores.map((one, at) => {
    let rows = 0;
    const lanes = one.lanes.map(([dispatcher, count], lane) => {
      const first = row;
      for (let left = count; left > 0; left--, row++) { rowCore[row] = at; rowLane[row] = lane; }
      rows += count;
      return { dispatcher, first, count };
    });
    return { number: one.core, socket: one.socket, lanes, rows, first: lanes[0].first };
  });

  const sent = column("message_sent", Float64Array, sum());
  const wire = column("message_wire", Float64Array, signed);
  const messages = {
    sent, received: wire.map((time, at) => sent[at] + time),
    from: column("message_from", Uint16Array, place_of), to: column("message_to", Uint16Array, place_of),
    sender: column("message_sender", Uint32Array), receiver: column("message_receiver", Uint32Array),
    kind: column("message_kind", Uint32Array),
    flowHigh: column("message_flow_high", Uint32Array), flowLow: column("message_flow_low", Uint32Array),
    wordHigh: column("message_word_high", Uint32Array), wordLow: column("message_word_low", Uint32Array),
  };
  const operations = {
    begin: column("operation_begin", Float64Array), time: column("operation_time", Float64Array, (one) => one - 1),
    core: column("operation_core", Uint16Array, place_of), dispatcher: column("operation_dispatcher", Uint32Array),
    kind: column("operation_kind", Uint32Array), error: column("operation_error", Float64Array),
    flowHigh: column("operation_flow_high", Uint32Array), flowLow: column("operation_flow_low", Uint32Array),
    item: new Int32Array(head.counts.operations).fill(-1),
  };
  for (let at = 0; at < what.length; at++) {
    if ((what[at] & 3) === 2) operations.item[what[at] >>> 2] = at;
  }
  const chain = column("chain", Uint32Array);
  const chainStart = new Uint32Array(chain.length + 1);
  chain.forEach((count, at) => { chainStart[at + 1] = chainStart[at] + Math.max(0, count - 1); });
  const hops = {
    begin: column("hop_begin", Float64Array, signed), way: column("hop_way", Float64Array), stay: column("hop_stay", Float64Array),
    core: column("hop_core", Uint16Array, place_of), dispatcher: column("hop_dispatcher", Uint32Array),
    message: column("hop_message", Uint32Array), shares: column("hop_shares", Float64Array),
  };
  for (let one = 0; one < chain.length; one++) {
    for (let at = chainStart[one] + 1; at < chainStart[one + 1]; at++) hops.begin[at] += hops.begin[at - 1];
  }
  return { begin, end, what, text, words, wordStart, spanOf, rowStart, rowCore, rowLane, cores, messages, operations,
    chain, chainStart, hops, length: Math.max(1, head.length) };
})();

// First index in [from, to) of a sorted array whose number is not below; `to` where there is none.
function lower(array, number, from, to) {
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (array[middle] < number) from = middle + 1; else to = middle;
  }
  return from;
}
const hex64 = (high, low) => "0x" + (high ? high.toString(16) + low.toString(16).padStart(8, "0") : low.toString(16));
// The row that an item is in.
function rowOf(item) {
  let row = lower(data.rowStart, item + 1, 0, data.rowStart.length) - 1;
  while (data.rowStart[row + 1] <= item) row++;
  return row;
}
const dispatcherName = (index) => index == null || !head.dispatchers[index] ? "CPU driver" : head.dispatchers[index][1] || `dispatcher ${head.dispatchers[index][2]}`;
const kindOf = (operation) => head.kinds[data.operations.kind[operation]];
function nameOf(item) {
  const what = data.what[item] >>> 2;
  switch (data.what[item] & 3) {
    case 0: return dispatcherName(what);
    case 1: return head.names[what];
    default: return kindOf(what);
  }
}
// Text of a span, its numbers put in.
function textOf(item) {
  if ((data.what[item] & 3) !== 1) return "";
  const span = data.spanOf[item];
  let at = data.wordStart[span];
  return head.templates[data.text[span]].replace(/[\u0001\u0002]/g, (hole) => {
    let value = 0n, shift = 0n, byte;
    do {
      byte = data.words[at++];
      value |= BigInt(byte & 127) << shift;
      shift += 7n;
    } while (byte >= 128);
    return value.toString(hole === "\u0001" ? 10 : 16);
  });
}
