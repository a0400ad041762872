// Asks Perfetto's trace processor: node trace_processor.mjs FOLDER FILE < QUERIES
//
// FOLDER holds engine_bundle.js and trace_processor.wasm as the viewer has them, where they run in a worker of
// a browser: this is just enough of one. QUERIES is JSON, a list of SQL texts; the answer on stdout is JSON,
// a list of tables, each a list of rows. Nothing is fetched but from FOLDER.
import { readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { runInThisContext } from "node:vm";

const [folder, file] = process.argv.slice(2);
const queries = JSON.parse(readFileSync(0, "utf8"));

// Writing protocol buffers.
const varint = (value) => {
  const bytes = [];
  for (; value >= 0x80; value = Math.floor(value / 0x80)) bytes.push((value % 0x80) | 0x80);
  return Buffer.from([...bytes, value]);
};
const uint = (field, value) => Buffer.concat([varint(field * 8), varint(value)]);
const bytes = (field, value) => Buffer.concat([varint(field * 8 + 2), varint(value.length), value]);

// And reading them: the fields of a message, in order.
function* fields(buffer) {
  let at = 0;
  const number = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = buffer[at++];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asIntN(64, value);
    }
  };
  const take = (length) => buffer.subarray(at, (at += length));
  while (at < buffer.length) {
    const tag = Number(number());
    const value = [() => number(), () => take(8), () => take(Number(number())), , , () => take(4)][tag & 7]();
    yield [tag >> 3, value, number];
  }
}
function varints(buffer) {
  const values = [];
  let value = 0n, shift = 0n;
  for (const byte of buffer) {
    value |= BigInt(byte & 0x7f) << shift;
    shift += 7n;
    if (byte < 0x80) {
      values.push(BigInt.asIntN(64, value));
      value = shift = 0n;
    }
  }
  return values;
}

// What the engine finds in a worker.
globalThis.self = globalThis;
globalThis.WorkerGlobalScope = class {};
globalThis.importScripts = () => {};
globalThis.location = { href: "file:///worker.js" };
// Stdout is for the answer.
console.log = console.error;
globalThis.XMLHttpRequest = class {
  open(method, url) {
    this.name = String(url).split("/").pop();
  }
  send() {
    this.response = new Uint8Array(readFileSync(join(folder, this.name))).buffer;
  }
};
// It asks whether it runs under Node, which it was not built for.
Object.defineProperty(globalThis, "process", { value: undefined, writable: true, configurable: true });

// Fields of TraceProcessorRpc.
const RPC = 1, SEQ = 1, FATAL = 5, REQUEST = 2, INVALID = 4, APPEND_DATA = 101, QUERY_ARGS = 103;
const APPEND_RESULT = 201, QUERY_RESULT = 203, FINALIZE_RESULT = 212;
const APPEND = 1, FINALIZE = 2, QUERY = 3;

let seq = 0;
let pending = Buffer.alloc(0);
let answers = [];
let wake = () => {};
const port = {
  postMessage(data) {
    pending = Buffer.concat([pending, Buffer.from(data)]);
    for (const [field, value] of fields(pending)) if (field === RPC) answers.push(value);
    pending = Buffer.alloc(0);
    wake();
  },
};
runInThisContext(readFileSync(join(folder, "engine_bundle.js"), "utf8"));
globalThis.onmessage({ data: port });

function ask(method, field, message) {
  const parts = [uint(SEQ, ++seq), uint(REQUEST, method)];
  if (message) parts.push(bytes(field, message));
  port.onmessage({ data: new Uint8Array(bytes(RPC, Buffer.concat(parts))) });
}
async function answer(wanted) {
  for (;;) {
    while (answers.length > 0) {
      for (const [field, value] of fields(answers.shift())) {
        if (field === FATAL || field === INVALID) throw new Error(`the trace processor says: ${value}`);
        if (field === wanted) return value;
      }
    }
    await new Promise((done) => (wake = done));
  }
}

async function table(sql) {
  ask(QUERY, QUERY_ARGS, bytes(1, Buffer.from(sql)));
  let columns = 0, values = [];
  for (let is_last = false; !is_last; ) {
    for (const [field, value] of fields(await answer(QUERY_RESULT))) {
      if (field === 1) columns++;
      if (field === 2) throw new Error(`${sql}: ${value}`);
      if (field !== 3) continue;
      const cells = [], numbers = [], floats = [], strings = [];
      for (const [part, content] of fields(value)) {
        if (part === 1) cells.push(...content);
        if (part === 2) numbers.push(...varints(content));
        if (part === 3) for (let i = 0; i < content.length; i += 8) floats.push(content.readDoubleLE(i));
        if (part === 5) strings.push(...content.toString().split("\0"));
        if (part === 6) is_last = content !== 0n;
      }
      for (const cell of cells) {
        values.push([() => null, () => null, () => Number(numbers.shift()), () => floats.shift(), () => strings.shift()][cell]());
      }
    }
  }
  const rows = [];
  for (let i = 0; i < values.length; i += columns) rows.push(values.slice(i, i + columns));
  return rows;
}

// The engine has its buffer for requests once all that waits has been done.
await new Promise((done) => setTimeout(done, 0));
const trace = readFileSync(file);
async function run() {
  for (let at = 0; at < trace.length; at += 8 << 20) {
    ask(APPEND, APPEND_DATA, trace.subarray(at, at + (8 << 20)));
    for (const [field, value] of fields(await answer(APPEND_RESULT))) {
      if (field === 2) throw new Error(`the trace processor says: ${value}`);
    }
  }
  ask(FINALIZE);
  await answer(FINALIZE_RESULT);
  const tables = [];
  for (const sql of queries) tables.push(await table(sql));
  writeSync(1, JSON.stringify(tables) + "\n");
}
await run();
