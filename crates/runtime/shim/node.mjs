// Kvern's shim: runs one JavaScript function, one job after the other.
//
// It is started by the server with the number of a private descriptor in KVERN_FD. The frames are described in
// crates/runtime/src/process/frame.rs. Standard output and standard error are the job's log and never the protocol.
// Node.js 18 and later, nothing but Node itself.

import { AsyncLocalStorage } from "node:async_hooks";
import * as bufferModule from "node:buffer";
import fs from "node:fs";
import { Socket } from "node:net";
import path from "node:path";
import { pathToFileURL } from "node:url";

const PROTOCOL = 2;
const HELLO = 1;
const READY = 0x81;
const CANNOT_START = 0x82;
const RESULT = 0x83;
const FAILURE = 0x84;
const JOB_HEAD_BYTES = 29;
const RESULT_HEAD_BYTES = 14;
const IS_LAST = 2;
const READ_BYTES = 64 << 10;

// The user's code may replace the globals; ours are taken before it runs.
const { Buffer, JSON, Response, process } = globalThis;
const { isUtf8 } = bufferModule; // From 18.14 on.
const now = Date.now;
const here = import.meta.url;

const fd = Number(process.env.KVERN_FD);
delete process.env.KVERN_FD;

let hello;
let handler;
let resultPath;
/** The number of the job under way; 0 if there is none. Answers to any other are dropped. */
let running = 0;
/** Whether the state of this process is unknown, so that the job under way is the last one. */
let isSpoilt = false;
/** Which job started what is going on: its timers and promises may come due while the next job runs. */
const owners = new AsyncLocalStorage();

class BadInput extends Error {}
class BadResult extends Error {}
class CannotStart extends Error {}
class TooLarge extends Error {}
class NotStored extends Error {}

/** What a job is told about itself: the second argument. */
class Context {
  constructor(jobId, attempt, attemptsMax, deadlineMs, contentType) {
    this.job_id = jobId;
    this.function = hello.function;
    this.attempt = attempt;
    this.attempts_max = attemptsMax;
    this.deadline_ms = deadlineMs;
    this.content_type = contentType;
  }

  get max_attempts() {
    return this.attempts_max;
  }

  /** Milliseconds until the attempt is stopped; never below 0. */
  remaining_ms() {
    return Math.max(0, this.deadline_ms - now());
  }
}

// === the channel ===

let pending = null; // What has come of a frame that is not whole.
const socket = new Socket({
  fd,
  readable: true,
  writable: true,
  // One buffer for every read, past the machinery of streams.
  onread: { buffer: Buffer.allocUnsafeSlow(READ_BYTES), callback: received },
});
// The server closes its end when this instance is no longer wanted.
socket.on("end", () => process.exit(0));
socket.on("error", () => process.exit(0));

function received(length, buffer) {
  let chunk = buffer.subarray(0, length);
  if (pending !== null) {
    pending.parts.push(Buffer.from(chunk));
    pending.length += length;
    if (pending.length < 4 || pending.length < frameLength(pending)) return true;
    chunk = Buffer.concat(pending.parts);
    pending = null;
  } else if (length < 4 || length < chunk.readUInt32LE(0) + 4) {
    pending = { parts: [Buffer.from(chunk)], length };
    return true;
  }
  frame(chunk);
  return true;
}

function frameLength(pending) {
  if (pending.parts[0].length < 4) pending.parts = [Buffer.concat(pending.parts)];
  return pending.parts[0].readUInt32LE(0) + 4;
}

function frame(data) {
  if (data[4] === HELLO) load(JSON.parse(data.toString("utf8", 5)));
  else job(data);
}

/** Sends an answer once everything that was printed before it has left this process. */
function sendAfterLogs(data) {
  let streams = 0;
  for (const stream of [process.stdout, process.stderr]) {
    if (stream.writableLength > 0) {
      streams++;
      stream.write("", () => --streams === 0 && send(data));
    }
  }
  if (streams === 0) send(data);
}

function send(data) {
  let sent = 0;
  try {
    sent = fs.writeSync(fd, data, 0, data.length);
  } catch (error) {
    if (error.code !== "EAGAIN") process.exit(0);
  }
  if (sent < data.length) socket.write(data.subarray(sent));
}

function sendJson(kind, number, value) {
  const json = Buffer.from(JSON.stringify(value), "utf8");
  const headBytes = number === null ? 5 : 9;
  const data = Buffer.allocUnsafe(headBytes + json.length);
  data.writeUInt32LE(data.length - 4, 0);
  data[4] = kind;
  if (number !== null) data.writeUInt32LE(number, 5);
  json.copy(data, headBytes);
  sendAfterLogs(data);
}

// Node writes to pipes at once as long as they have room; this lets it wait for room as well, so that nothing is lost
// when the process exits, and children that inherit the pipe find it as they expect it.
for (const stream of [process.stdout, process.stderr]) stream._handle?.setBlocking?.(true);

// === loading ===

async function load(said) {
  hello = said;
  resultPath = path.join(hello.scratch, "result");
  process.argv = [process.execPath, hello.file];
  try {
    if (hello.protocol !== PROTOCOL) {
      throw new CannotStart(`the shim speaks version ${PROTOCOL} of the protocol, the server ${hello.protocol}`);
    }
    if (Number(process.versions.node.split(".")[0]) < 18) {
      throw new CannotStart(`Node.js 18 or later is needed; this is ${process.version}`);
    }
    if (!fs.existsSync(hello.file)) throw new CannotStart(`there is no file ${hello.file_shown}`);
    const { href } = pathToFileURL(hello.file);
    handler = find(await import(href));
  } catch (error) {
    return sendJson(CANNOT_START, null, await describeImport(error)); // The server ends this process.
  }
  sendJson(READY, null, { protocol: PROTOCOL });
}

function find(module) {
  const { file_shown: shown, entry } = hello;
  // CommonJS comes as the default export; so does what was compiled from ES modules to it.
  const common = module.default !== null && typeof module.default === "object" ? module.default : {};
  const exported = { ...common, ...module };
  if (common.__esModule) exported.default = common.default;
  const names = Object.keys(exported).filter((name) => typeof exported[name] === "function" && name !== "module.exports");
  const listed = names.map((name) => `\`${name}\``).join(", ") || "no function";
  if (entry !== null) {
    if (typeof exported[entry] === "function") return exported[entry];
    if (entry in exported) throw new CannotStart(`\`${entry}\` in ${shown} is not a function; it has: ${listed}`);
    throw new CannotStart(`${shown} has no function \`${entry}\`; it has: ${listed}${didYouMean(entry, names)}`);
  }
  if (typeof exported.default === "function") return exported.default;
  if (typeof exported.handler === "function") return exported.handler;
  if (names.length === 1) return exported[names[0]];
  if (names.length === 0) {
    throw new CannotStart(`${shown} exports no function: write \`export default (event, ctx) => …\` in it`);
  }
  throw new CannotStart(
    `${shown} exports several functions and no default: write \`handler = "${shown}:NAME"\` with one of ${listed}`,
  );
}

function didYouMean(entry, names) {
  const plain = (name) => name.toLowerCase().replaceAll("_", "");
  const close = names.find((name) => distance(plain(name), plain(entry)) <= 2);
  return close === undefined ? "" : `; did you mean \`${close}\`?`;
}

function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length];
}

/** An import that fails on syntax names neither file nor line; `node --check` does. */
async function describeImport(error) {
  const failing = describe(error);
  if (!(error instanceof SyntaxError)) return failing;
  const { spawnSync } = await import("node:child_process");
  const checked = spawnSync(process.execPath, ["--check", hello.file], { encoding: "utf8", timeout: 10_000 });
  const trace = (checked.stderr ?? "").split("\n\nNode.js v")[0];
  if (checked.status !== 0 && trace !== "") failing.trace = shownAs(withoutOurFrames(trace)).trim();
  return failing;
}

// === one job ===

const shownVariables = new Map();

/** Sets a variable of the environment, if it is not so already: that is a system call's worth of time each. */
function show(name, value) {
  if (shownVariables.get(name) === value) return;
  shownVariables.set(name, value);
  if (value === "") delete process.env[name];
  else process.env[name] = value;
}

function job(data) {
  const number = data.readUInt32LE(5);
  running = number;
  try {
    const result = call(data);
    if (result !== null && typeof result === "object" && typeof result.then === "function") {
      result.then((value) => answer(number, value)).catch((error) => fail(number, error, false));
    } else {
      const answered = answer(number, result);
      if (answered !== undefined) answered.catch((error) => fail(number, error, false));
    }
  } catch (error) {
    fail(number, error, false);
  }
}

function call(data) {
  const attempt = data.readUInt32LE(9);
  const attemptsMax = data.readUInt32LE(13);
  const deadlineMs = data.readUInt32LE(17) + data.readUInt32LE(21) * 0x1_0000_0000;
  const typeAt = JOB_HEAD_BYTES + data[26];
  const bodyAt = typeAt + data.readUInt16LE(27);
  const jobId = data.latin1Slice(JOB_HEAD_BYTES, typeAt);
  const contentType = data.utf8Slice(typeAt, bodyAt);
  show("KVERN_JOB_ID", jobId);
  show("KVERN_ATTEMPT", String(attempt));
  show("KVERN_ATTEMPTS_MAX", String(attemptsMax));
  show("KVERN_DEADLINE_MS", String(deadlineMs));
  show("KVERN_CONTENT_TYPE", contentType);
  let body = data.subarray(bodyAt);
  const isFile = data[25] === 1;
  if (isFile) body = fs.readFileSync(body);
  const event = isJson(contentType, body) ? parse(body) : isFile ? body : Buffer.from(body);
  const context = new Context(jobId || null, attempt, attemptsMax, deadlineMs, contentType || null);
  return owners.run({ number: running, jobId }, handler, event, context);
}

function isJson(contentType, body) {
  if (contentType === "" || contentType === "application/json") return true;
  const kind = contentType.split(";", 1)[0].trim().toLowerCase();
  // What `curl -d '{...}'` says of everything; no form begins so.
  if (kind === "application/x-www-form-urlencoded") return body[0] === 0x7b || body[0] === 0x5b;
  return kind === "application/json" || (kind.startsWith("application/") && kind.endsWith("+json"));
}

function parse(body) {
  if (body.length === 0) return undefined;
  if (isUtf8 !== undefined && !isUtf8(body)) throw new BadInput("the input is not JSON: it is not UTF-8");
  const text = body.utf8Slice(0, body.length);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BadInput(`the input is not JSON: ${error.message}${lineAndColumn(error.message, text)}`);
  }
}

function lineAndColumn(message, text) {
  const position = /at position (\d+)/.exec(message)?.[1];
  const at = position === undefined ? text.length : Number(position);
  const before = text.slice(0, at).split("\n");
  return /line \d+ column/.test(message) ? "" : ` (line ${before.length}, column ${before.at(-1).length + 1})`;
}

function answer(number, value) {
  if (value === null || value === undefined) return sendResult(number, 0, "application/json", "null");
  if (typeof value === "string") return sendResult(number, 0, "text/plain; charset=utf-8", value);
  if (typeof value === "object") {
    if (value instanceof Uint8Array) return sendResult(number, 0, "application/octet-stream", value);
    if (value instanceof ArrayBuffer) return sendResult(number, 0, "application/octet-stream", new Uint8Array(value));
    if (Response !== undefined && value instanceof Response) return answerResponse(number, value);
  }
  return sendResult(number, 0, "application/json", jsonOf(value));
}

async function answerResponse(number, response) {
  const body = new Uint8Array(await response.arrayBuffer());
  sendResult(number, response.status, response.headers.get("content-type") ?? "application/octet-stream", body);
}

function jsonOf(value) {
  let json;
  let why = `a ${typeof value}`;
  try {
    json = JSON.stringify(value);
  } catch (error) {
    why = error.message;
  }
  if (json !== undefined) return json;
  throw new BadResult(
    `the function returned what is not JSON: ${why}. Return an object, array, string, number, boolean, null, ` +
      "a Buffer, or a Response",
  );
}

function sendResult(number, status, contentType, body) {
  if (number !== running) return;
  const isText = typeof body === "string";
  const bodyBytes = isText ? Buffer.byteLength(body, "utf8") : body.length;
  if (bodyBytes > hello.max_output) throw new TooLarge();
  const isFile = bodyBytes > hello.inline_max;
  if (isFile) writeDown(body);
  const bodyAt = RESULT_HEAD_BYTES + contentType.length;
  const data = Buffer.allocUnsafe(bodyAt + (isFile ? 0 : bodyBytes));
  data.writeUInt32LE(data.length - 4, 0);
  data[4] = RESULT;
  data.writeUInt32LE(number, 5);
  data.writeUInt16LE(status, 9);
  data[11] = (isFile ? 1 : 0) | (isSpoilt ? IS_LAST : 0);
  data.writeUInt16LE(contentType.length, 12);
  data.latin1Write(contentType, RESULT_HEAD_BYTES);
  if (!isFile) {
    if (isText) data.utf8Write(body, bodyAt);
    else data.set(body, bodyAt);
  }
  running = 0;
  sendAfterLogs(data);
}

function writeDown(body) {
  try {
    fs.writeFileSync(resultPath, body);
  } catch (error) {
    // Half of it would take the room that is missing.
    fs.rmSync(resultPath, { force: true });
    throw new NotStored(`the function ran, but its result could not be written to TMPDIR: ${error.message}`);
  }
}

// === failures ===

function fail(number, error, isLast) {
  if (number !== running) return;
  running = 0;
  const failing = describe(error);
  if (isLast || isSpoilt) failing.is_last = true;
  sendJson(FAILURE, number, failing);
}

/** A failure for the server. Nothing in here may fail, whatever was thrown. */
function describe(error) {
  if (error instanceof BadInput) return { code: "bad_input", message: error.message };
  if (error instanceof CannotStart) return { code: "cannot_start", message: error.message };
  if (error instanceof TooLarge) return { code: "result_too_large", message: "" };
  if (error instanceof NotStored) return { code: "result_not_stored", message: error.message };
  if (error instanceof BadResult) return { code: "exception", class: "TypeError", message: error.message };
  try {
    return describeThrown(error);
  } catch {
    return { code: "exception", message: "something was thrown that cannot be read" };
  }
}

function describeThrown(error) {
  if (!(error instanceof Error) && (error === null || typeof error !== "object")) {
    return { code: "exception", message: wellFormed(`thrown: ${String(error)}`) };
  }
  const names = classNames(error);
  const failing = { code: "exception", class: wellFormed(names[0] ?? "Error"), message: shownAs(String(error.message ?? error)) };
  if (names.includes("Permanent")) failing.code = "permanent";
  else if (names.includes("Retry")) {
    failing.code = "retry";
    failing.retry_after_ms = retryAfterMs(error);
  }
  if (typeof error.stack === "string") failing.trace = shownAs(traceOf(error));
  return failing;
}

/** The names of its class and of the classes that this extends; `error.name` first if somebody set it. */
function classNames(error) {
  const names = [];
  if (Object.hasOwn(error, "name")) names.push(String(error.name));
  for (let proto = Object.getPrototypeOf(error); proto !== null; proto = Object.getPrototypeOf(proto)) {
    const name = proto.constructor?.name;
    if (typeof name === "string" && name !== "" && name !== "Object") names.push(name);
  }
  return names;
}

function retryAfterMs(error) {
  const after = Number(error.after ?? NaN);
  return after >= 0 && after < 1e9 ? Math.trunc(after * 1000) : null;
}

function traceOf(error) {
  let trace = withoutOurFrames(error.stack);
  for (let cause = error.cause, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth++) {
    trace += `\nCaused by: ${withoutOurFrames(String(cause.stack))}`;
  }
  return trace;
}

function withoutOurFrames(stack) {
  const isOurs = (line) => /^\s+at /.test(line) && (line.includes(here) || line.includes("node:internal"));
  return stack
    .split("\n")
    .filter((line) => !isOurs(line))
    .join("\n");
}

/** With the user's own paths in place of the copy's, cut where the server would, and well-formed. */
function shownAs(text) {
  const { code, code_shown: shown } = hello;
  const replaced = text.replaceAll(pathToFileURL(code).href, shown).replaceAll(code, shown);
  return wellFormed(replaced.slice(0, 20_000));
}

function wellFormed(text) {
  return Buffer.from(text, "utf8").toString("utf8");
}

// What nobody caught fails the attempt under way, unless it comes of a job before: then it is no failure of this one,
// which goes on. Whatever else was going on is in an unknown state, so the instance ends after the answer; without an
// attempt it ends the way that Node does by itself. Node 18 does not always know whose a rejection is.
function uncaught(error) {
  if (running === 0) {
    console.error(error);
    process.exit(1);
  }
  const owner = owners.getStore();
  if (owner === undefined || owner.number === running) return fail(running, error, true);
  isSpoilt = true;
  const left = owner.jobId === "" ? "a call" : `job ${owner.jobId}`;
  console.error(`[kvern: ${left} that has ended left this error behind; the process ends after this one]`);
  console.error(error);
}
process.on("uncaughtException", uncaught);
process.on("unhandledRejection", uncaught);
process.on("SIGINT", () => {});
